"""What commands say when the database or their output is missing."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from tests.support.running.migrated import copy_migrated
from tests.support.running.servers import free_port

COMMANDS = [
    ["create_api_key", "eve", "--create-user"],
    ["synthesize", "Hello.", "--reference", "voiceproject/samples/reference.flac", "-o", "hello.wav"],
    ["quickstart", "--no-worker", "--port", str(free_port())],
]


def manage(data: Path, argv: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "ENV_FILE": os.devnull, "DATA_DIR": str(data)}
    environment |= options.pop("environment", {})
    return subprocess.run(
        ["bash", "-c", f"{shlex.join([sys.executable, 'manage.py', *argv])} {options.pop('redirected', '')}"],
        cwd=settings.BASE_DIR, env=environment, capture_output=True, text=True, timeout=90,
    )  # fmt: skip


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose database is set up: made once, and copied by each test that fills it."""
    folder = tmp_path_factory.mktemp("migrated")
    copy_migrated(folder / "db.sqlite3")
    return folder


def test_a_database_without_tables_says_what_to_run(tmp_path: Path) -> None:
    done = manage(tmp_path, COMMANDS[0])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "CommandError: The database has not been set up for this version. Run: manage.py migrate\n"


@pytest.mark.parametrize("argv", COMMANDS, ids=lambda argv: argv[0])
def test_a_database_that_is_away_is_told_in_a_few_lines(argv: list[str], tmp_path: Path) -> None:
    done = manage(tmp_path, argv, environment={"DATABASE_URL": "postgres://u:swordfish@127.0.0.1:9/voice"})
    assert done.returncode == 1
    assert "CommandError: The database cannot be used: " in done.stderr and "See DATABASE_URL" in done.stderr
    assert "Traceback" not in done.stderr and "swordfish" not in done.stderr and len(done.stderr.splitlines()) < 5


@pytest.mark.parametrize("argv", [COMMANDS[0], COMMANDS[2]], ids=lambda argv: argv[0])
@pytest.mark.parametrize("redirected", [">&-", "> /dev/full", "> >(true)"])
def test_no_key_is_made_that_nobody_could_see(argv: list[str], redirected: str, migrated: Path, tmp_path: Path) -> None:
    shutil.copytree(migrated, tmp_path, dirs_exist_ok=True)
    done = manage(tmp_path, argv, redirected=redirected)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr and len(done.stderr.splitlines()) < 3
    with contextlib.closing(sqlite3.connect(tmp_path / "db.sqlite3")) as database:
        assert database.execute("SELECT count(*) FROM voices_apikey").fetchone() == (0,)
