"""What holds for every program of gpu_scripts: how a foreign interpreter starts it, and what it may import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

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
