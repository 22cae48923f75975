"""The web server on the database of this test run, and clients of it over plain sockets.

The engine behind it is the fake GPT-SoVITS, which a test can stop before any sentence.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from django.conf import settings

from tests.fakes.gptsovits import FakeGptSovits, tone
from tests.support.audio import wav_bytes
from tests.support.running.processes import database_url
from tests.support.running.servers import free_port
from tests.support.tenants import Tenant
from tests.support.waiting import until

URL = "/api/v1/voice/synthesize"
THREADS = 6
TEXT = "Here is the first sentence of three. This is the second one of them. And that was the third and last."
PITCH = 150.0


class HeldGptSovits(FakeGptSovits):
    """Stops before its sentence number `hold_at` and later ones, until `gate` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.reset()

    def reset(self) -> None:
        self.gate.set()
        until(lambda: all("ended" in call for call in self.log))
        self.gate.clear()
        self.hold_at = 1_000_000
        self.log.clear()
        self.moods.clear()
        self.seconds = 0.0
        self.begun = 0

    def work(self) -> None:
        number, self.begun = self.begun, self.begun + 1
        if number >= self.hold_at:
            self.gate.wait(60)


class Server:
    """Gunicorn as it is served, on the database of this test run, with few threads and short times for who stalls."""

    def __init__(
        self, folder: Path, fake: HeldGptSovits, config: str = "tests.programs.quick_serving", **environ: str
    ) -> None:
        self.fake = fake
        self.port = free_port()
        self.log = folder / "server.log"
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
        environment = {
            **kept, "DATA_DIR": str(folder / "data"), "ENV_FILE": os.devnull, "DATABASE_URL": database_url(),
            "SOVITS_BASE_URL": fake.url, "WEB_THREADS": str(THREADS), "LOG_LEVEL": "INFO",
            **environ,
        }  # fmt: skip
        command = [sys.executable, "-m", "gunicorn", "voiceproject.asgi", "--config", f"python:{config}"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--bind", f"127.0.0.1:{self.port}"],
                cwd=settings.BASE_DIR, env=environment, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        until(lambda: self.process.poll() is not None or self.answers(), 60)
        assert self.process.poll() is None, self.log.read_text()

    def answers(self) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/nothing-here", timeout=30).status_code == 404
        except requests.ConnectionError:
            return False

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


@contextmanager
def serving(folder: Path, *config: str, **environ: str) -> Iterator[Server]:
    """The server until the block is left, with an engine of its own."""
    with HeldGptSovits() as fake:
        server = Server(folder, fake, *config, **environ)
        try:
            yield server
        finally:
            fake.gate.set()
            server.process.terminate()
            server.process.wait(40)


class Answer:
    """An HTTP answer as it comes over a socket, chunk by chunk."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.file = connection.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        self.headers: dict[str, str] = {}
        while line := self.file.readline().strip():
            name, _, value = line.decode().partition(":")
            self.headers[name.lower()] = value.strip()

    def chunk(self) -> bytes | None:
        """The next chunk, b"" for the one that ends the body in good order, None where the body is cut off."""
        size = self.file.readline()
        if not size:
            return None
        content = self.file.read(int(size, 16))
        assert self.file.read(2) == b"\r\n"
        return content

    def at_least(self, count: int) -> bytes:
        body = b""
        while len(body) < count:
            body += self.chunk() or pytest.fail("the body ended early")
        return body

    def rest(self) -> tuple[bytes, bool]:
        """What is left, and whether it ends in good order."""
        body = b""
        while chunk := self.chunk():
            body += chunk
        return body, chunk is not None

    def json(self) -> dict[str, Any]:
        return json.loads(self.file.read(int(self.headers["content-length"])))

    def hang_up(self) -> None:
        self.file.close()
        self.connection.close()


def ask(server: Server, tenant: Tenant, version: str = "1.1", behind: bytes = b"", **fields: Any) -> socket.socket:
    """Sends a synthesis; `behind`: bytes that follow it on the same connection."""
    reference = wav_bytes(tone(PITCH, 5.0, 24_000), 24_000)
    prepared = requests.Request(
        "POST", f"http://127.0.0.1:{server.port}{URL}", headers={"X-API-Key": tenant.secret, "Host": "localhost"},
        data={"text": TEXT, "language": "en", "seed": "5", **fields}, files={"reference_audio": ("r.wav", reference)},
    ).prepare()  # fmt: skip
    headers = "".join(f"{name}: {value}\r\n" for name, value in prepared.headers.items())
    connection = server.connect()
    connection.sendall(f"POST {URL} HTTP/{version}\r\n{headers}\r\n".encode() + prepared.body + behind)
    return connection
