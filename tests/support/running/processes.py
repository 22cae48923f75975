"""Other processes: such as work on this run's database, and which of them run."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

from django.conf import settings
from django.db import connection


def database_url() -> str:
    """The database of this test run, for another process."""
    parts = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{parts['NAME']}"
    user = f"{parts['USER']}:{parts['PASSWORD']}" if parts["PASSWORD"] else parts["USER"]
    return f"postgres://{user}@{parts['HOST'] or 'localhost'}:{parts['PORT'] or 5432}/{parts['NAME']}"


def processes_of(job_id: str) -> list[int]:
    """Everything that runs with this job's scratch folder in its environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if job_id.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def child(code: str, *arguments: str, data_dir: bool = False) -> subprocess.Popen[str]:
    """Another process of this project on the same database; data_dir: and on the same CACHE_DIR."""
    setup = "import sys, django\ndjango.setup()\n"
    if data_dir:
        folder = repr(str(settings.CACHE_DIR))
        setup += f"from django.conf import settings\nsettings.CACHE_DIR = type(settings.CACHE_DIR)({folder})\n"
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings", "DATABASE_URL": database_url()}
    return subprocess.Popen(
        [sys.executable, "-c", setup + textwrap.dedent(code), *arguments],
        env=environment,
        cwd=settings.BASE_DIR,
        stdout=subprocess.PIPE,
        text=True,
    )


def live(tag: str, pids: list[int]) -> list[str]:
    """The processes that run with this tag in their environment, and those of the given pids that run."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{name}/status").read_text()
            threads = len(os.listdir(f"/proc/{name}/task"))
            if "\nState:\tZ" in status and threads < 2:
                continue
            if int(name) in pids or tag.encode() in Path(f"/proc/{name}/environ").read_bytes():
                found.append(f"{name} {Path(f'/proc/{name}/cmdline').read_bytes()[:200]!r}")
    return found
