"""The first command of the README, with a data folder of its own, and the files that it offers to try."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import requests

from tests.support.running.migrated import copy_migrated
from tests.support.running.servers import free_port
from tests.support.waiting import until

BASE_DIR = Path(__file__).resolve().parents[3]
SAMPLES = BASE_DIR / "voiceproject" / "samples"
REFERENCE = SAMPLES / "reference.flac"


class Quickstart:
    """`manage.py quickstart` with a data folder of its own; `output` is what it has printed so far.

    empty: it finds no database, as the very first run. Otherwise a new folder has one that is migrated, without a row.
    checkout: where the release stands that is run. again: one that has ended, whose data and address this one has.
    """

    def __init__(
        self,
        data: Path,
        *arguments: str,
        cwd: Path = BASE_DIR,
        empty: bool = False,
        checkout: Path = BASE_DIR,
        again: Quickstart | None = None,
        **environment: str,
    ) -> None:
        if not (empty or data.exists() or "DATABASE_URL" in environment):
            copy_migrated(data / "db.sqlite3")
        self.port: int = again.port if again else free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.log = data.with_suffix(f".{self.port}{'-again' if again else ''}.log")
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(checkout / "manage.py"), "quickstart", "--port", str(self.port), *arguments],
                cwd=cwd,
                env={**kept, "DATA_DIR": str(data), "ENV_FILE": os.devnull, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def key(self) -> str:
        return re.findall(r"vck_[\w-]{40,}", self.output)[0]

    def ready(self) -> Quickstart:
        try:
            until(lambda: self.process.poll() is not None or "Ctrl-C ends everything" in self.output, 180)
            assert self.process.poll() is None, self.output
            until(self.answers, 60)  # Releases before this one say so before they answer.
        except BaseException:
            self.stop(signal.SIGKILL)
            raise
        return self

    def answers(self) -> bool:
        try:
            return requests.get(f"{self.base}/health", timeout=20).ok
        except requests.RequestException:
            return False

    def tree(self) -> list[int]:
        """Every process whose environment names this data folder's log: itself and all that it started."""
        wanted = f"DATA_DIR={self.log.with_suffix('').with_suffix('')}\0".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                # A zombie has an empty environment: only what still runs is found.
                if entry.name.isdigit() and wanted in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def stop(self, number: int = signal.SIGINT, group: bool = False) -> float:
        """Ctrl-C, which a terminal sends to the whole process group; how many seconds it took to end."""
        started = time.monotonic()
        if self.process.poll() is None:
            (os.killpg if group else os.kill)(self.process.pid, number)
            self.process.wait(30)
        return time.monotonic() - started

    @property
    def lines(self) -> list[str]:
        """Those that are printed to be pasted."""
        return re.findall(r"^.*\bcurl .*$", self.output, re.MULTILINE)
