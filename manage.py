#!/usr/bin/env python
"""Django's command line: `python manage.py help` lists the commands."""

import os
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

PROJECT = Path(__file__).resolve().parent


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voiceproject.settings")
    try:
        from django.core.management import execute_from_command_line

        execute_from_command_line(sys.argv)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or find_spec(package) is not None:  # It is there, and it is the code that is wrong.
            raise
        sys.exit(which_python(package))
    except KeyboardInterrupt:
        sys.exit(130)
    except RuntimeError as error:
        # So Python 3.11 tells of a Ctrl-C that comes while a class is made.
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        sys.exit(130)


def which_python(package: str) -> str:
    """What to do where a package is missing: most often this is not the Python of the project's environment."""
    folder = "" if Path.cwd() == PROJECT else f"{PROJECT}/"
    venv, again = f"{folder}.venv", shlex.join([f"{folder}manage.py", *sys.argv[1:]])
    install = f"{venv}/bin/pip install -r {folder}requirements.txt"
    if not (PROJECT / ".venv" / "bin" / "python").exists():
        steps = [f"python3 -m venv {venv} && {install}", f"{venv}/bin/python {again}"]
        advice = "Make the project's environment once, and use its Python"
    elif Path(sys.prefix) == PROJECT / ".venv":
        steps = [install]
        advice = "Bring the project's environment up to date"
    else:
        steps = [f"{venv}/bin/python {again}"]
        advice = "Use the Python of the project's environment"
    return "\n    ".join([f"{sys.executable} has no package {package}. {advice}:", *steps])


if __name__ == "__main__":
    main()
