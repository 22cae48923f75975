"""Python processes that are forked with packages in memory already, for tests of what comes after those are loaded."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

# Nothing of the product, and nothing that looks at the environment while it is loaded.
PACKAGES = ("django.templatetags.static", "django.utils.translation", "dj_database_url", "dotenv", "json")


def run_forked(
    code: str, *arguments: str, cwd: Path, environment: dict[str, str], log: Path, seconds: float = 60
) -> subprocess.CompletedProcess[str]:
    """What `python -c CODE ARGUMENTS` gives. log: where it writes meanwhile; two files begin with this name."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PACKAGES))
    files = [log.with_suffix(f".{name}") for name in ("out", "err")]
    process = context.Process(target=_run, args=(code, arguments, str(cwd), environment, [str(file) for file in files]))
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
        raise subprocess.TimeoutExpired(code, seconds)
    assert process.exitcode is not None
    return subprocess.CompletedProcess(code, process.exitcode, *(file.read_text() for file in files))


def _run(code: str, arguments: tuple[str, ...], cwd: str, environment: dict[str, str], files: list[str]) -> None:
    for number, file in enumerate(files, 1):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[:] = ["-c", *arguments]
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
