"""manage.py before a command runs: with a Python that is not the project's own, and with Ctrl-C while it loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

WITHOUT_DJANGO = """
import runpy, sys
sys.path = [path for path in sys.path if "site-packages" not in path]
sys.argv = ["manage.py", "create_api_key", "a name"]
runpy.run_path({path!r}, run_name="__main__")
"""


def test_a_python_that_has_no_django_is_told_which_one_has(tmp_path: Path) -> None:
    copy = tmp_path / "manage.py"
    copy.write_text((Path(settings.BASE_DIR) / "manage.py").read_text())

    def told(cwd: Path) -> str:
        result = subprocess.run(
            [sys.executable, "-S", "-c", WITHOUT_DJANGO.format(path=str(copy))],
            cwd=cwd, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert (result.returncode, result.stdout) == (1, "")
        assert "has no package django" in result.stderr and "Traceback" not in result.stderr
        return result.stderr

    assert "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt\n" in told(tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    assert told(tmp_path).endswith("\n    .venv/bin/python manage.py create_api_key 'a name'\n")
    assert told(tmp_path / ".venv").endswith(f"\n    {tmp_path}/.venv/bin/python {copy} create_api_key 'a name'\n")


INTERRUPTED = """
class Descriptor:
    def __set_name__(self, owner, name):
        raise KeyboardInterrupt

class Command:
    described = Descriptor()
"""


@pytest.mark.parametrize("code", [INTERRUPTED, "raise KeyboardInterrupt"], ids=["a class", "a module"])
def test_ctrl_c_while_something_is_made_says_nothing(tmp_path: Path, code: str) -> None:
    (tmp_path / "manage.py").write_text((Path(settings.BASE_DIR) / "manage.py").read_text())
    for place in ("django", "django/core", "django/core/management"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "__init__.py").touch()
    (tmp_path / "django/core/management/__init__.py").write_text(code)
    command = [sys.executable, str(tmp_path / "manage.py"), "check"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")
