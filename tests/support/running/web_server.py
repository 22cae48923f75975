"""The web server as the image starts it, and Caddy before it with the file of deploy/."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import requests
import yaml
from django.conf import settings

from tests.support.running.processes import database_url
from tests.support.running.servers import free_port

DEPLOY = Path(settings.BASE_DIR) / "deploy"


def dockerfile_command(name: str) -> list[str]:
    line = re.findall(r"^CMD (.+)$", (DEPLOY / name).read_text(encoding="utf-8"), re.MULTILINE)[-1]
    return list(yaml.safe_load(line))


class Program:
    """A process with its output in a file; it is waited for until `answers`, and `close` ends it."""

    def __init__(self, command: list[str], log: Path, environment: dict[str, str]) -> None:
        self.log = log
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=settings.BASE_DIR, env={**kept, **environment}, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            self.wait(self.answers)
        except BaseException:
            self.close()
            raise

    def answers(self) -> bool:
        # Each subclass has its own way to ask; this class is never made itself.
        raise NotImplementedError

    def wait(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class WebServer(Program):
    """The Dockerfile's command on the test's own database, with a DATA_DIR in `folder`."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        command = [part.replace("0.0.0.0", "127.0.0.1") for part in dockerfile_command("Dockerfile")]
        command = [part.replace("8000", str(self.port)) for part in command]
        known = {
            "DATABASE_URL": database_url(), "DATA_DIR": str(folder / "data"), "ENV_FILE": os.devnull, **environment
        }  # fmt: skip
        super().__init__([sys.executable, "-m", *command], folder / "web.log", known)

    def answers(self) -> bool:
        try:
            return requests.get(f"{self.base}/health", timeout=20).status_code in (200, 503)
        except requests.ConnectionError:
            return False


class Caddy(Program):
    """deploy/Caddyfile on ports of its own, with certificates of a CA of its own, before the server on `upstream`."""

    def __init__(self, folder: Path, upstream: int, **environment: str) -> None:
        self.port = free_port()
        self.base = f"https://localhost:{self.port}"
        self.authority = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        ports = f"admin off\n\thttp_port {free_port()}\n\thttps_port {self.port}\n"
        text = (DEPLOY / "Caddyfile").read_text(encoding="utf-8").replace("admin off\n", ports, 1)
        file = folder / "Caddyfile"
        file.write_text(text, encoding="utf-8")
        known = {
            "VOICE_HOST": "localhost", "VOICE_TLS": "internal", "VOICE_UPSTREAM": f"127.0.0.1:{upstream}",
            "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder), **environment,
        }  # fmt: skip
        command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(file)]
        super().__init__(command, folder / "caddy.log", known)

    def answers(self) -> bool:
        try:
            return self.authority.exists() and self.session().get(f"{self.base}/health", timeout=20).ok
        except requests.ConnectionError:
            return False

    def session(self) -> requests.Session:
        session = requests.Session()
        session.verify = str(self.authority)
        session.trust_env = False
        return session
