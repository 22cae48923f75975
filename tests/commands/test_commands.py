"""Real processes throughout: what they do here, an engine's command can do to a worker."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.running.processes import live
from tests.support.waiting import wait_until
from voiceproject.commands import guard, runner
from voiceproject.commands.runner import (
    CommandError,
    CommandFailed,
    CommandOutputTooLarge,
    CommandResult,
    CommandStopped,
    CommandTimedOut,
)
from voiceproject.commands.scratch import scratch, sweep_scratch
from voiceproject.commands.template import CommandTemplate, child_environment

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks through /proc")

PROJECT = Path(runner.__file__).resolve().parents[2]

# What the commands below have in common. Every process that matters writes its pid to READY when it is up.
PRELUDE = """
import os, signal, sys, time
READY = sys.argv[1]
def ready():
    with open(READY, "a") as file:
        file.write(f"{os.getpid()}\\n")
def hang():
    ready()
    time.sleep(300)
    os._exit(1)
def fork(function):
    if os.fork() == 0:
        function()
        os._exit(0)
def deaf():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
def bare():
    code = f"import os, time; open({READY!r}, 'a').write(str(os.getpid()) + chr(10)); time.sleep(99)"
    os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", code], {})
"""

# name: (code, how many processes write their pid)
TREES = {
    "one process": ("hang()", 1),
    "a child that ignores SIGTERM": ("deaf(); hang()", 1),
    "grandchildren": ("deaf(); fork(lambda: (fork(hang), fork(hang), hang())); hang()", 4),
    "a child in a session of its own": ("deaf(); fork(lambda: (os.setsid(), hang())); hang()", 2),
    "a daemon that was forked twice": (
        "deaf(); fork(lambda: (os.setsid(), fork(hang))); os.wait(); hang()",
        2,
    ),
    "a daemon without an environment": (
        "deaf(); fork(lambda: fork(lambda: (os.setsid(), bare()))); os.wait(); hang()",
        2,
    ),
    "a stopped child": ("fork(lambda: (ready(), os.kill(os.getpid(), signal.SIGSTOP))); hang()", 2),
    # For a minute: what a test run that was killed leaves behind shall not burn a processor for good.
    "children that fork for ever": (
        "end = time.monotonic() + 60\n"
        "def storm():\n"
        "    while time.monotonic() < end:\n"
        "        if os.fork():\n"
        "            os._exit(0)\n"
        "        time.sleep(0.002)\n"
        "deaf(); fork(storm); hang()",
        1,
    ),
    "a process whose first thread has ended": (
        "import ctypes, threading\ndeaf(); threading.Thread(target=hang).start(); ctypes.CDLL(None).pthread_exit(None)",
        1,
    ),
}


class Bench:
    """One command's surroundings: its folder, its environment, a tag to find its processes by."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tag = f"TEST_TREE={uuid.uuid4().hex}"
        self.ready = folder.parent / f"{folder.name}.ready"
        self.env = child_environment(folder, extra=dict([self.tag.split("=")]))

    def argv(self, code: str) -> list[str]:
        return [sys.executable, "-I", "-S", "-c", PRELUDE + code, str(self.ready)]

    def run(self, code: str, **options: Any) -> CommandResult:
        return self.run_argv(self.argv(code), **options)

    def run_argv(self, argv: list[str], **options: Any) -> CommandResult:
        settings: dict[str, Any] = {"cwd": self.folder, "env": self.env, "deadline_seconds": 30.0}
        return runner.run(argv, **settings | options)

    def pids(self) -> list[int]:
        with contextlib.suppress(FileNotFoundError):
            return [int(line) for line in self.ready.read_text().split()]
        return []

    def live(self) -> list[str]:
        return live(self.tag, self.pids())

    def guard_pid(self) -> int:
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                arguments = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
                is_child = f"\nPPid:\t{os.getpid()}\n" in Path(f"/proc/{name}/status").read_text()
                if is_child and guard.__file__.encode() in arguments:
                    return int(name)
        raise AssertionError("there is no guard")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    folder = tmp_path / "scratch"
    folder.mkdir()
    bench = Bench(folder)
    yield bench
    assert bench.live() == []


# --- ends by itself ---


def test_progress_is_reported_in_order_and_within_bounds(bench: Bench) -> None:
    seen: list[float] = []
    lines = ["PROGRESS 0.25", "hello", "PROGRESS 0.1", " PROGRESS 0.9", "PROGRESS nan", "PROGRESS -1"]
    lines += [
        "PROGRESS .",
        "PROGRESS 1e5",
        "XPROGRESS 0.8",
        "PROGRESS 0.5\\r",
        "PROGRESS 0.75 of all",
        "PROGRESS 7",
    ]
    code = f"for line in {lines}:\n    print(line, flush=True); time.sleep(0.05)"
    result = bench.run(code.replace("\\\\r", "\\r"), on_progress=seen.append, poll_seconds=0.01)
    assert seen == [0.25, 0.5, 1.0]
    assert result.returncode == 0
    assert 0.6 <= result.seconds < 30
    assert result.peak_rss_bytes > 1_000_000


def test_a_word_behind_the_progress_names_the_stage_and_warnings_may_stand_beside_it(bench: Bench) -> None:
    stages: list[str] = []
    code = "for line in ['PROGRESS 0.1 slice', 'WARNING cpu It is slow.', 'PROGRESS 0.2 train_gpt']:\n"
    code += "    print(line, flush=True); time.sleep(0.5)"
    result = bench.run(code, on_stage=stages.append)
    assert stages == ["slice", "train_gpt"]
    assert result.warnings == ("cpu It is slow.",)


def test_the_last_progress_counts_without_a_newline(bench: Bench) -> None:
    seen: list[float] = []
    bench.run("print('PROGRESS 0.5', end='')", on_progress=seen.append)
    assert seen == [0.5]


def test_a_failing_command_keeps_its_status_and_the_end_of_stderr(bench: Bench) -> None:
    with pytest.raises(CommandFailed, match="status 3") as caught:
        bench.run("print('x' * 50, 'the end', file=sys.stderr); sys.exit(3)", stderr_tail_bytes=20)
    assert caught.value.returncode == 3
    assert caught.value.stderr_tail == "x" * 11 + " the end\n"


def test_a_command_killed_by_a_signal_has_a_negative_status(bench: Bench) -> None:
    with pytest.raises(CommandFailed, match="signal 11") as caught:
        bench.run("os.kill(os.getpid(), signal.SIGSEGV)")
    assert caught.value.returncode == -signal.SIGSEGV


def test_a_missing_program_fails_with_127(bench: Bench) -> None:
    with pytest.raises(CommandFailed, match="'no-such-program' cannot be started: No such file") as caught:
        bench.run_argv(["no-such-program", "--input", "x"])
    assert caught.value.returncode == 127


def test_a_program_that_cannot_be_started_fails_with_126(bench: Bench) -> None:
    plain = bench.folder / "plain"
    plain.write_text("text")
    for argv in ([str(plain)], ["echo", "x" * 3_000_000], ["echo", "nu\0ll"]):
        with pytest.raises(CommandFailed, match="cannot be started") as caught:
            bench.run_argv(argv)
        assert caught.value.returncode == 126


def test_a_missing_working_directory_is_named(bench: Bench) -> None:
    with pytest.raises(CommandFailed, match="gone"):
        bench.run("pass", cwd=bench.folder / "gone")


def test_a_command_that_closes_its_output_goes_on(bench: Bench) -> None:
    result = bench.run("os.close(1); os.close(2); time.sleep(0.4); open('late', 'w').write('done')")
    assert (bench.folder / "late").read_text() == "done"
    assert result.seconds >= 0.4


def test_what_a_command_leaves_running_is_ended(bench: Bench) -> None:
    code = "fork(lambda: (os.setsid(), fork(hang)))\nwhile not os.path.exists(READY): time.sleep(0.01)"
    result = bench.run(code)
    assert result.returncode == 0
    assert len(bench.pids()) == 1
    assert bench.live() == []


def test_a_command_runs_from_a_thread_that_is_not_the_main_one(bench: Bench) -> None:
    results: list[CommandResult] = []
    thread = threading.Thread(target=lambda: results.append(bench.run("print('PROGRESS 1')")))
    thread.start()
    thread.join(30)
    assert [result.returncode for result in results] == [0]


def test_commands_run_side_by_side(tmp_path: Path) -> None:
    outcomes: dict[int, int | None] = {}

    def one(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            outcomes[number] = Bench(folder).run(f"time.sleep(0.2); sys.exit({number})").returncode
        except CommandFailed as error:
            outcomes[number] = error.returncode

    threads = [threading.Thread(target=one, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outcomes == {number: number for number in range(6)}


def test_many_runs_leave_no_descriptor_thread_or_zombie(bench: Bench) -> None:
    def held() -> tuple[int, int, int]:
        children = 0
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                children += f"\nPPid:\t{os.getpid()}\n" in Path(f"/proc/{name}/status").read_text()
        return len(os.listdir("/proc/self/fd")), threading.active_count(), children

    bench.run("pass")
    before = held()
    for _ in range(6):
        bench.run("pass")
        for argv, options in (
            (bench.argv("sys.exit(1)"), {}),
            (["no-such-program"], {}),
            (bench.argv("hang()"), {"should_stop": lambda: True}),
            (["echo", "x" * 3_000_000], {}),
        ):
            with pytest.raises(CommandError):
                bench.run_argv(argv, **options)
    # Less is fine: threads of earlier tests may end meanwhile.
    assert all(now <= then for now, then in zip(held(), before, strict=True))


# --- output ---


def test_a_gigabyte_of_stderr_takes_no_memory(bench: Bench) -> None:
    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    sizes = [resident_bytes()]

    def sample() -> bool:
        sizes.append(resident_bytes())
        return False

    code = "for _ in range(1000): os.write(2, b'noise ' * 174763)\nos.write(2, b'and the end')"
    result = bench.run(code, should_stop=sample, stop_every_seconds=0.01)
    assert len(sizes) > 3
    assert max(sizes) - sizes[0] < 8_000_000
    assert result.stderr_tail.endswith("noise noise and the end")
    assert len(result.stderr_tail) == 8192


def test_an_endless_line_on_stdout_does_not_hide_the_progress_after_it(bench: Bench) -> None:
    seen: list[float] = []
    code = "for _ in range(50): os.write(1, b'PROGRESS 0.9' * 80000)\nos.write(1, b'\\nPROGRESS 0.5\\n')"
    bench.run(code, on_progress=seen.append)
    assert seen == [0.5]


def test_the_end_of_stderr_is_told_while_the_command_runs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "TAIL_SECONDS", 0.05)
    told: list[str] = []
    code = "import time\nfor n in range(3):\n    os.write(2, b'step %d\\n' % n); time.sleep(0.4)"
    result = bench.run(code, on_tail=told.append, poll_seconds=0.02)
    assert [tail.splitlines()[-1] for tail in told if tail] == ["step 0", "step 1", "step 2"]
    assert result.stderr_tail.splitlines() == ["step 0", "step 1", "step 2"]


def test_the_tail_is_printable_text(bench: Bench) -> None:
    text = rb"\x1b[31mred\x1b[0m \xff\x00 \x07\x7f\x9b caf\xc3\xa9 \xe2\x80\xae 10%\r20%\r\nend\tok"
    result = bench.run(f"os.write(2, b'{text.decode()}')")
    assert result.stderr_tail == "red \ufffd\ufffd \ufffd café  10%\n20%\nend\tok"


def test_a_character_cut_by_the_tail_leaves_no_debris(bench: Bench) -> None:
    result = bench.run("os.write(2, '音'.encode() * 10)", stderr_tail_bytes=8)
    assert result.stderr_tail == "音音"


def test_a_slow_callback_does_not_hold_up_the_command(bench: Bench) -> None:
    written = bench.folder / "written"

    def slow_query() -> bool:
        wait_until(written.exists, "the command writes its 20 MB while the callback runs")
        return False

    bench.run("for _ in range(20): os.write(2, b'x' * 1000000)\nopen('written', 'w')", should_stop=slow_query)


# --- is ended ---


@pytest.mark.parametrize("tree", TREES)
def test_cancel_ends_the_whole_tree_within_two_seconds(bench: Bench, tree: str) -> None:
    code, count = TREES[tree]
    asked: list[float] = []

    def canceled() -> bool:
        if len(bench.pids()) < count:
            return False
        asked.append(time.monotonic())
        return True

    with pytest.raises(CommandStopped):
        bench.run(code, should_stop=canceled)
    # Together with the half second in which nobody asks, this is under two.
    assert time.monotonic() - asked[0] < 1.5
    assert bench.live() == []


def test_a_command_may_tidy_up_when_it_is_told_to_end(bench: Bench) -> None:
    code = (
        "def tidy(*_): time.sleep(0.2); open('tidied', 'w'); print('bye', file=sys.stderr); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, tidy); hang()"
    )
    with pytest.raises(CommandStopped) as caught:
        bench.run(code, should_stop=lambda: bool(bench.pids()))
    assert (bench.folder / "tidied").exists()
    assert caught.value.stderr_tail == "bye\n"


def test_a_stopped_process_may_tidy_up_too(bench: Bench) -> None:
    code = (
        "def tidy(*_): open('tidied', 'w'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, tidy); ready(); os.kill(os.getpid(), signal.SIGSTOP); hang()"
    )
    with pytest.raises(CommandStopped):
        bench.run(code, should_stop=lambda: bool(bench.pids()), grace_seconds=5.0)
    assert (bench.folder / "tidied").exists()


def test_a_cancel_at_the_very_start_does_not_wait_for_the_grace(bench: Bench) -> None:
    started = time.monotonic()
    with pytest.raises(CommandStopped):
        bench.run("hang()", should_stop=lambda: True, grace_seconds=20.0)
    assert time.monotonic() - started < 10.0


def test_a_canceled_command_is_ended_even_if_it_stopped_its_guard(bench: Bench) -> None:
    code = "deaf(); os.kill(os.getppid(), signal.SIGSTOP); fork(lambda: (os.setsid(), hang())); hang()"
    asked: list[float] = []

    def canceled() -> bool:
        asked.append(time.monotonic())
        return len(bench.pids()) == 2

    with pytest.raises(CommandStopped):
        bench.run(code, should_stop=canceled, grace_seconds=0.2)
    assert time.monotonic() - asked[-1] < 2.0
    assert bench.live() == []


def test_a_command_over_its_deadline_is_ended(bench: Bench) -> None:
    with pytest.raises(CommandTimedOut, match=r"longer than 0\.5 s") as caught:
        bench.run("print('before', file=sys.stderr, flush=True); fork(hang); hang()", deadline_seconds=0.5)
    assert caught.value.stderr_tail == "before\n"
    assert bench.live() == []


def test_the_deadline_holds_while_the_runner_is_stuck(bench: Bench) -> None:
    def stuck() -> bool:
        wait_until(bench.pids, "the command is up")
        wait_until(lambda: not bench.live(), "the guard ends the command without the runner")
        return False

    with pytest.raises(CommandTimedOut):
        bench.run("hang()", should_stop=stuck, deadline_seconds=0.5)


def test_a_silent_command_has_stalled_and_a_talking_one_has_not(bench: Bench) -> None:
    talking = "for _ in range(8): print('.', file=sys.stderr, flush=True); time.sleep(0.1)"
    bench.run(talking, stall_seconds=0.6, poll_seconds=0.05)
    with pytest.raises(CommandTimedOut, match=r"silent for 0\.6 s"):
        bench.run("hang()", stall_seconds=0.6, poll_seconds=0.05)


def test_a_command_that_fills_the_disk_is_ended(bench: Bench) -> None:
    code = "os.mkdir('deep')\nwhile True: open('deep/file', 'ab').write(bytes(100000)); time.sleep(0.01)"
    with pytest.raises(CommandOutputTooLarge, match="more than 500000 bytes"):
        bench.run(code, max_output_bytes=500_000, poll_seconds=0.05)
    assert (bench.folder / "deep/file").stat().st_size < 20_000_000


def test_output_over_the_cap_is_found_after_a_quick_end_too(bench: Bench) -> None:
    write = "open('file', 'wb').write(bytes(500_001))"
    with pytest.raises(CommandOutputTooLarge):
        bench.run(write, max_output_bytes=500_000, poll_seconds=30.0)
    assert bench.run(write, max_output_bytes=500_001).returncode == 0


def test_links_do_not_count_as_output(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(1_000_000))
    code = f"os.symlink({str(tmp_path / 'big')!r}, 'link'); os.symlink({str(tmp_path)!r}, 'folder')"
    assert bench.run(code, max_output_bytes=10_000).returncode == 0


def test_memory_can_be_limited(bench: Bench) -> None:
    with pytest.raises(CommandFailed) as caught:
        bench.run("x = bytes(600_000_000)", memory_bytes=500_000_000)
    assert "MemoryError" in caught.value.stderr_tail
    assert bench.run("x = bytes(600_000_000)", memory_bytes=None).returncode == 0


@pytest.mark.parametrize("callback", ["on_progress", "should_stop"])
def test_a_callback_that_raises_ends_the_command(bench: Bench, callback: str) -> None:
    def raising(*_: float) -> bool:
        if bench.pids():
            raise LookupError("the database is away")
        return False

    code = "fork(lambda: (os.setsid(), hang())); ready(); print('PROGRESS 0.5', flush=True); hang()"
    with pytest.raises(LookupError):
        bench.run(code, **{callback: raising})
    assert bench.live() == []


# --- somebody dies ---

WORKER = """
import os, sys, threading, time
sys.path.insert(0, {project!r})
from voiceproject.commands import runner
{before}
options = dict(cwd={folder!r}, env={env!r}, deadline_seconds=60)
threading.Thread(target=runner.run, args=[{argv!r}], kwargs=options).start()
{after}
"""


@contextlib.contextmanager
def worker(bench: Bench, tree: str, before: str = "", after: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own that runs the tree; entered when all of it is up."""
    code, count = TREES[tree]
    source = WORKER.format(
        project=str(PROJECT),
        folder=str(bench.folder),
        env=bench.env,
        argv=bench.argv(code),
        before=before,
        after=after,
    )
    with subprocess.Popen([sys.executable, "-c", source]) as process:
        try:
            wait_until(lambda: len(bench.pids()) >= count, "the tree is up")
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("tree", [name for name in TREES if "daemon" in name or "for ever" in name])
def test_a_worker_killed_with_sigkill_takes_the_tree_along(bench: Bench, tree: str) -> None:
    with worker(bench, tree) as process:
        assert bench.live()
        process.kill()
        assert wait_until(lambda: not bench.live(), "the tree is gone") < 2.0


def test_the_tree_goes_with_the_worker_even_if_a_fork_of_it_holds_the_lifeline(bench: Bench) -> None:
    fork = f"""
while not os.path.exists({str(bench.ready)!r}):
    time.sleep(0.01)
if os.fork() == 0:
    while not os.path.exists({str(bench.ready) + ".over"!r}):
        time.sleep(0.05)
    os._exit(0)
open({str(bench.ready) + ".forked"!r}, "w").close()
"""
    try:
        with worker(bench, "a child that ignores SIGTERM", after=fork) as process:
            wait_until(Path(f"{bench.ready}.forked").exists, "the worker forks")
            process.kill()
            assert wait_until(lambda: not bench.live(), "the tree is gone") < 2.0
    finally:
        Path(f"{bench.ready}.over").touch()


def test_a_worker_that_ends_in_order_takes_the_tree_along(bench: Bench) -> None:
    with worker(bench, "a daemon that was forked twice") as process:
        process.terminate()
        process.wait()
        assert wait_until(lambda: not bench.live(), "the tree is gone") < 2.0


# A daemon that has neither the mark nor a session with the mark in it is what then gets away.
UNGUARDED = {name: tree for name, tree in TREES.items() if name != "a daemon without an environment"} | {
    "a command without an environment": ("deaf(); bare()", 1),
    "an orphan without an environment": (
        "deaf(); fork(lambda: (os.setsid(), fork(lambda: fork(bare)), hang())); hang()",
        3,
    ),
}


@pytest.mark.parametrize("tree", UNGUARDED)
def test_a_guard_killed_with_sigkill_fails_the_command_and_ends_the_tree(bench: Bench, tree: str) -> None:
    code, count = UNGUARDED[tree]
    killed: list[float] = []

    def kill_guard() -> bool:
        if len(bench.pids()) >= count and not killed:
            killed.append(time.monotonic())
            os.kill(bench.guard_pid(), signal.SIGKILL)
        return False

    with pytest.raises(CommandFailed, match="guard process was killed"):
        bench.run(code, should_stop=kill_guard, stop_every_seconds=0.05)
    assert time.monotonic() - killed[0] < 2.0
    assert bench.live() == []


def test_a_guard_told_to_end_by_somebody_else_ends_the_tree(bench: Bench) -> None:
    told: list[int] = []

    def end_guard() -> bool:
        if len(bench.pids()) == 2 and not told:
            told.append(bench.guard_pid())
            os.kill(told[0], signal.SIGTERM)
        return False

    with pytest.raises(CommandFailed, match="told to end"):
        bench.run(TREES["a child in a session of its own"][0], should_stop=end_guard, stop_every_seconds=0.05)
    assert bench.live() == []


# --- what a command sees ---


def test_secrets_of_the_worker_never_reach_a_command(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ["SECRET_KEY", "API_KEY", "DATABASE_URL", "REDIS_URL", "STORAGE_URL", "AWS_SECRET_ACCESS_KEY"]
    secrets += ["DJANGO_SETTINGS_MODULE", "PYTHONPATH", "SOME_LIBRARY_TOKEN"]
    for name in secrets:
        monkeypatch.setenv(name, "for-the-worker-alone")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("HF_HOME", "/models")
    monkeypatch.setenv("ENGINE_FLAG", "7")
    env = child_environment(bench.folder, extra={"ADDED": "yes"}, passed=["ENGINE_*"])
    # The guard's environment is looked at too: the command can read it.
    code = """
pid, shown = os.getpid(), []
while b"guard.py" not in open(f"/proc/{pid}/cmdline", "rb").read() or pid == os.getpid():
    shown.append(open(f"/proc/{pid}/environ").read())
    pid = int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
shown.append(open(f"/proc/{pid}/environ").read())
open("seen", "w").write("\\n".join("\\0".join(shown).split("\\0")))
"""
    bench.run(code, env=env)
    seen = dict(line.split("=", 1) for line in (bench.folder / "seen").read_text().split("\n") if line)
    assert not set(secrets) & seen.keys()
    assert "for-the-worker-alone" not in seen.values()
    assert seen["CUDA_VISIBLE_DEVICES"] == "1"
    assert seen["HF_HOME"] == "/models"
    assert seen["ENGINE_FLAG"] == "7"
    assert seen["ADDED"] == "yes"
    assert seen["TMPDIR"] == str(bench.folder)
    assert seen["PATH"] == os.environ["PATH"]


def test_a_command_inherits_no_descriptor_and_no_odd_signal_handling(bench: Bench) -> None:
    held = os.open("/dev/null", os.O_RDONLY)
    before = signal.signal(signal.SIGQUIT, signal.SIG_IGN)  # As in a shell's background job.
    os.set_inheritable(held, True)
    code = """
names = {name: os.readlink(f"/proc/self/fd/{name}") for name in ("0", "1", "2")}
others = [name for name in os.listdir("/proc/self/fd") if int(name) > 2]
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
session = os.getsid(0) == os.getpid()
open("seen", "w").write(repr((names["0"], len(others), status["SigIgn"], status["SigBlk"], session)))
"""
    try:
        # A shell starts it, since Python changes the handling of signals at its own start.
        program = [*bench.argv(code)]
        bench.run_argv(["sh", "-c", 'grep SigIgn /proc/self/status >ignored; exec "$@"', "sh", *program])
    finally:
        os.close(held)
        signal.signal(signal.SIGQUIT, before)
    stdin, others, _, blocked, session = eval((bench.folder / "seen").read_text())
    assert stdin == "/dev/null"
    assert others <= 1  # the one that lists the folder
    assert int(blocked, 16) == 0
    assert session is True
    assert int((bench.folder / "ignored").read_text().split()[1], 16) == 0


# --- templates ---

ALLOWED = frozenset({"python_exec", "song_input", "vocal_output", "pitch_shift"})


@pytest.mark.parametrize(
    "value",
    [
        "two words",
        'it\'s "quoted"',
        "{vocal_output}",
        "{{}}",
        "--output=/etc/passwd",
        "; touch broken",
        "$(touch broken) `touch broken` $HOME",
        "a\nb",
        "*",
        "",
        "音楽.wav",
        "back\\slash",
    ],
)
def test_a_value_is_one_argument_whatever_is_in_it(bench: Bench, value: str) -> None:
    template = CommandTemplate("{python_exec} -I -S -c 'code' '{song_input}' --in={song_input} x", ALLOWED)
    argv = template.argv({"python_exec": sys.executable, "song_input": value, "vocal_output": "OTHER"})
    assert argv == [sys.executable, "-I", "-S", "-c", "code", value, f"--in={value}", "x"]
    argv[4] = "import sys; open('seen', 'w', encoding='utf-8', newline='').write('\\0'.join(sys.argv[1:]))"
    bench.run_argv(argv)
    seen = (bench.folder / "seen").read_bytes().decode()
    assert seen.split("\0") == [value, f"--in={value}", "x"]
    assert not (bench.folder / "broken").exists()


def test_literal_braces_are_written_twice() -> None:
    template = CommandTemplate("prog '{{\"a\": {pitch_shift}}}' {{x}}", ALLOWED)
    assert template.problems == []
    assert template.argv({"pitch_shift": "-3"}) == ["prog", '{"a": -3}', "{x}"]


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("'' x", "empty"),
        ("python 'x", "no closing quotation"),
        ("python x\\", "no escaped character"),
        ("python {nobody}", "unknown placeholder {nobody}"),
        ("python {}", "unknown placeholder {}"),
        ("python {song_input.__class__}", "unknown placeholder {song_input.__class__}"),
        ("python {song_input!r}", "unknown placeholder {song_input!r}"),
        ("python {0}", "unknown placeholder {0}"),
        ("python {song_input", "unbalanced brace"),
        ("python song_input}", "unbalanced brace"),
        ("python x\0y", "null character"),
        ("no-such-program x", "'no-such-program' is missing"),
        ("/no/such/python x", "'/no/such/python' is missing"),
        ("{python_exec} gpu_scripts/no_such.py", "no_such.py' is missing"),
        ("{python_exec} scripts/no_such.py --input {song_input}", "no_such.py' is missing"),
    ],
)
def test_a_bad_template_is_named_before_it_is_used(template: str, problem: str) -> None:
    found = CommandTemplate(template, ALLOWED).check({"python_exec": sys.executable})
    assert len(found) == 1
    assert problem in found[0]


def test_a_malformed_template_makes_no_command() -> None:
    for text in ("python {nobody}", "python 'x", "", "python {song_input"):
        with pytest.raises(ValueError):
            CommandTemplate(text, ALLOWED).argv({"nobody": "x", "song_input": "x"})


def test_a_missing_value_or_a_null_makes_no_command() -> None:
    template = CommandTemplate("python {song_input} {vocal_output}", ALLOWED)
    with pytest.raises(ValueError, match="vocal_output"):
        template.argv({"song_input": "x"})
    with pytest.raises(ValueError, match="null"):
        template.argv({"song_input": "x\0", "vocal_output": "y"})


def test_the_interpreter_is_checked_when_it_is_known() -> None:
    template = CommandTemplate("{python_exec} -c pass", ALLOWED)
    assert template.check() == []
    assert template.check({"python_exec": sys.executable}) == []
    assert "'/no/python' is missing" in template.check({"python_exec": "/no/python"})[0]
    assert "is missing" in template.check({"python_exec": ""})[0]


def test_scripts_are_the_projects_and_the_old_folder_name_still_works(tmp_path: Path) -> None:
    (tmp_path / "gpu_scripts").mkdir()
    (tmp_path / "gpu_scripts/infer.py").write_text("pass")
    (tmp_path / "gpu_scripts/tool").write_text("#!/bin/sh\n")
    (tmp_path / "gpu_scripts/tool").chmod(0o755)
    values = {"python_exec": sys.executable}
    for text in (
        "{python_exec} gpu_scripts/infer.py --config scripts/infer.py",
        "{python_exec} -u scripts/infer.py --config scripts/infer.py",
    ):
        template = CommandTemplate(text, ALLOWED, tmp_path)
        assert template.check(values) == []
        argv = template.argv(values)
        assert argv[0] == sys.executable
        assert argv[-3:] == [str(tmp_path / "gpu_scripts/infer.py"), "--config", "scripts/infer.py"]
    template = CommandTemplate("scripts/tool x", ALLOWED, tmp_path)
    assert template.check() == []
    assert template.argv({}) == [str(tmp_path / "gpu_scripts/tool"), "x"]
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/tool").write_text("its own")
    template = CommandTemplate("scripts/tool x", ALLOWED, tmp_path)
    assert template.argv({}) == [str(tmp_path / "scripts/tool"), "x"]
    assert "not executable" in template.check()[0]


# --- scratch ---


def test_a_scratch_folder_is_removed_whatever_happened(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    root = tmp_path / "root"
    with pytest.raises(LookupError), scratch(root, "job-1") as folder:
        assert folder == root / "job-1"
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "a/b").mkdir(parents=True)
        (folder / "a/b/file").write_bytes(b"x")
        (folder / "link").symlink_to(outside)
        raise LookupError
    assert os.listdir(root) == []
    assert (outside / "kept").exists()


def test_a_scratch_folder_without_permissions_is_removed_too() -> None:
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o777)
        euid = os.geteuid()
        if euid == 0:
            os.seteuid(65534)  # permissions mean nothing to root
        try:
            with scratch(root, "job-1") as folder:
                (folder / "a/b").mkdir(parents=True)
                (folder / "a/b/file").write_bytes(b"x")
                (folder / "a/b").chmod(0)
                (folder / "a").chmod(0o500)
                folder.chmod(0)
            assert os.listdir(root) == []
        finally:
            os.seteuid(euid)


def test_a_scratch_folder_starts_empty(tmp_path: Path) -> None:
    (tmp_path / "job-1").mkdir()
    (tmp_path / "job-1/half").touch()
    with scratch(tmp_path, "job-1") as folder:
        assert os.listdir(folder) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "/etc", ".hidden", "-rf", "a\0b", "a\n"])
def test_a_scratch_name_is_a_plain_file_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError), scratch(tmp_path / "root", name):
        pass
    assert not (tmp_path / "root").exists()


def test_the_sweep_removes_what_nobody_keeps(tmp_path: Path) -> None:
    for name in ("live-1", "dead-1", "dead-2"):
        (tmp_path / name / "stems").mkdir(parents=True)
        (tmp_path / name / "stems/vocal.wav").touch()
    (tmp_path / "stray").touch()
    (tmp_path / "link").symlink_to(tmp_path / "live-1")
    assert sweep_scratch(tmp_path, lambda name: name.startswith("live")) == 4
    assert os.listdir(tmp_path) == ["live-1"]
    assert (tmp_path / "live-1/stems/vocal.wav").exists()
    assert sweep_scratch(tmp_path / "never-made", lambda name: False) == 0


@pytest.mark.parametrize("module", sorted(path.stem for path in Path(runner.__file__).parent.glob("*.py")))
def test_a_module_of_commands_needs_neither_django_nor_settings(module: str) -> None:
    code = f"import sys, voiceproject.commands.{module}; sys.exit('django' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT).returncode == 0
