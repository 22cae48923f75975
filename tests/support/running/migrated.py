"""An SQLite database with every migration applied: made once for all processes of a test run, and copied by each.

To apply them takes several times as long as all else that a server does until it answers.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

from django.conf import settings


def copy_migrated(to: Path) -> None:
    """Makes a new database at `to`."""
    to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copyfile(_made(), to)
    to.chmod(0o600)


def _made() -> Path:
    folder = Path(os.environ["TEST_RUN_DIR"]) / "migrated"
    folder.mkdir(exist_ok=True)
    made = folder / "db.sqlite3"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            _migrate(folder / "data")
            # In one file: what is still in the log beside it is moved there when the last connection closes.
            (folder / "data" / "db.sqlite3").rename(made)
    return made


def _migrate(data: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "ENV_FILE": os.devnull, "DATA_DIR": str(data)}
    command = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
    done = subprocess.run(command, cwd=settings.BASE_DIR, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert not (data / "db.sqlite3-wal").exists(), "a part of the database is in another file"
