"""What holds for every program of gpu_scripts: how a foreign interpreter starts it, what it may import, and how it
tells from inside of another project's step how far that is."""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from common import calls
from common.calls import Course, told_by_calls
from tests.scripts.script_server import SCRIPTS

PROGRAMS = sorted(SCRIPTS.glob("*.py"))
OURS = {"voiceproject", "voices", "covers", "tests", "bench"}
# The built-in engine's singing is the product's own code, and its interpreter the product's own.
MAY_IMPORT = {"builtin_infer.py": {"voices"}}


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports anywhere, in its functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
@pytest.mark.parametrize("options", [(), ("-I",)], ids=["plain", "isolated"])
def test_a_program_finds_what_it_shares_by_its_own_path_alone(program: Path, options: tuple[str, ...], tmp_path: Path):
    command = [sys.executable, *options, str(program), "--help"]
    result = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"usage: {program.name}")


def test_nothing_there_imports_django_or_the_product():
    paths = sorted(SCRIPTS.rglob("*.py"))
    assert len(paths) > len(PROGRAMS)
    for path in paths:
        forbidden = OURS | {"django", "rest_framework"}
        assert not imported(path) & forbidden - MAY_IMPORT.get(path.name, set()), path


def test_what_the_built_in_engine_sings_with_loads_no_django():
    source = (
        "import sys; sys.path[:0] = sys.argv[1:]; import builtin_infer\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('django', 'rest_framework')])"
    )
    command = [sys.executable, "-I", "-c", source, str(SCRIPTS)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "[]\n"


# ------------------------------------------------------------------------------
# Progress, by a stand-in of torch that calls back after each module, and by a clock of its own


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Step:
    """A network whose calls take what a test says; `wait` lets time pass within one."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.hooks: list[Any] = []
        self.watch: calls._Watch | None = None

    def register(self, hook: Any) -> SimpleNamespace:
        self.hooks.append(hook)
        self.watch = hook.__self__
        return SimpleNamespace(remove=lambda: self.hooks.remove(hook))

    def call(self, seconds: float) -> None:
        self.clock.now += seconds
        for hook in self.hooks:
            hook(None, (), None)

    def wait(self, seconds: float) -> None:
        assert self.watch is not None
        self.clock.now += seconds
        self.watch.look()


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Step:
    step = Step(Clock())
    torch: Any = ModuleType("torch")
    module = SimpleNamespace(register_module_forward_hook=step.register)
    torch.nn = SimpleNamespace(modules=SimpleNamespace(module=module))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(calls, "time", step.clock)
    monkeypatch.setattr(calls, "_learnt", {})
    monkeypatch.setattr(calls, "TICK_SECONDS", 3600.0)
    return step


def run(step: Step, kind: str, seconds: list[float], usual: Course | None = None, size: float = 1.0) -> list[float]:
    told: list[float] = []
    with told_by_calls(kind, told.append, size, usual):
        for one in seconds:
            step.call(one)
    return told


def test_a_step_that_nothing_is_known_of_is_told_by_its_calls_and_rises(step: Step) -> None:
    told = run(step, "part", [0.01] * 1000)
    assert told == sorted(told) and told[-1] == pytest.approx(2 / 3, abs=0.01) and len(told) > 50
    assert not step.hooks


def test_a_step_is_told_by_the_seconds_of_the_last_one_of_its_kind(step: Step) -> None:
    uneven = [0.01] * 90 + [1.0] * 10
    run(step, "part", uneven)
    told: list[float] = []
    with told_by_calls("part", told.append):
        for one in uneven[:95]:
            step.call(one)
    assert told[-1] == pytest.approx(5.9 / 10.9, abs=0.02)  # by the calls alone it would be .95
    assert run(step, "part", [0.01] * 200)[-1] <= 0.99


def test_a_long_call_is_told_by_the_clock_and_never_past_the_next_one(step: Step) -> None:
    course = Course(100, ((0, 0), (0.9, 0.2), (0.91, 0.9), (1, 1)))  # a recurrent layer at the end
    told: list[float] = []
    with told_by_calls("melody", told.append, 1.0, course):
        for _ in range(90):
            step.call(0.02)
        for _ in range(40):
            step.wait(0.5)
    inside = [one for one in told if one > 0.2]
    assert len(inside) > 10 and max(b - a for a, b in itertools.pairwise(told)) < 0.06
    assert max(told) <= 0.9


def test_a_size_makes_more_calls_of_a_step(step: Step) -> None:
    batches = Course(14, ((0, 0), (1, 1)))
    told = run(step, "crepe", [0.1] * 70, batches, 10)
    assert told[-1] == pytest.approx(0.5)


def test_a_thread_tells_while_a_call_takes_its_time_and_ends_with_the_step(
    step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "TICK_SECONDS", 0.001)
    heard = threading.Event()
    with told_by_calls("melody", lambda done: heard.set() if done > 0.01 else None):
        step.call(0.1)
        step.clock.now += 60
        assert heard.wait(10)
    assert not any(thread.name == "progress of melody" for thread in threading.enumerate())
