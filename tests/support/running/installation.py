"""An installation as an operator runs it: a checkout, a data folder, a server and a worker of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from tests.support.running.servers import free_port
from tests.support.waiting import until

KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV", "TMPDIR")


class Installation:
    """checkout: whose code runs. data: its DATA_DIR. environment: settings, beside nothing of the developer's own."""

    def __init__(self, checkout: Path, data: Path, **environment: str) -> None:
        self.checkout, self.data = checkout, data
        self.log = data.with_name(f"{data.name}.log")
        self.base = f"http://127.0.0.1:{free_port()}"
        self.environment = {
            **{name: os.environ[name] for name in KEPT if name in os.environ},
            "ENV_FILE": os.devnull,
            "DATA_DIR": str(data),
            **environment,
        }
        self.session = requests.Session()

    def manage(self, *arguments: str, **environment: str) -> str:
        """What `manage.py` prints. Raises AssertionError with its errors where it fails."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=self.checkout, env=self.environment | environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    @contextmanager
    def server(self) -> Iterator[None]:
        """gunicorn, by the names that operators' units have. Left when it has answered /health once, until its end."""
        address = self.base.removeprefix("http://")
        arguments = ["gunicorn", "voiceproject.wsgi", "--config", "python:voiceproject.serving", "--bind", address]
        with self._running(arguments) as process:
            until(lambda: process.poll() is not None or self._answers(), 60, "an answer of /health")
            assert process.poll() is None, self.log.read_text(errors="replace")
            yield

    @contextmanager
    def worker(self, **environment: str) -> Iterator[Callable[[], None]]:
        """dramatiq, by the name that operators' units have. Gives what kills it at once, with all its processes."""
        arguments = ["dramatiq", "voiceproject.worker", "--processes", "1", "--threads", "4", "--skip-logging"]
        with self._running(arguments, **environment) as process:
            yield lambda: os.killpg(process.pid, signal.SIGKILL)

    def call(self, method: str, path: str, status: int | tuple[int, ...] = (200, 201, 202), **request: Any) -> Any:
        """A request under /api/v1, whose answer has to have this status, or one of them."""
        url = path if path.startswith("http") else f"{self.base}/api/v1{path}"
        response = self.session.request(method, url, timeout=120, **request)
        expected = status if isinstance(status, tuple) else (status,)
        assert response.status_code in expected, f"{method} {path}: {response.status_code} {response.text[:2000]}"
        return response

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.base}/health", timeout=10).ok
        except requests.RequestException:
            return False

    @contextmanager
    def _running(self, arguments: list[str], **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=self.checkout, env=self.environment | environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
