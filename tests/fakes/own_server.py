"""gpu_scripts/gptsovits_server.py as its clients meet it, without an engine: a tone at the pitch of the reference."""

from __future__ import annotations

import email.parser
import email.policy
import io
import json
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import soundfile

from tests.fakes.gptsovits import pitch_of, tone

ERRORS = {
    "bad_request": 400, "unauthorized": 401, "unknown_model": 404, "too_large": 413, "unspeakable": 422, "busy": 503,
    "synthesis_failed": 500, "stopping": 503, "out_of_memory": 507,
}  # fmt: skip


class FakeOwnServer:
    """On a loopback port. moods: how the next requests are answered, one each: a code of ERRORS, `silence` or `hang`;
    log: the fields of each request for a synthesis, its headers under `headers`; status: what /health says."""

    def __init__(self, token: str = "") -> None:
        self.token = token
        self.moods: deque[str] = deque()
        self.status = "ready"
        self.retry_after = "7"
        self.log: list[dict[str, Any]] = []
        self.probes = 0
        self.woken = threading.Event()
        fake = self

        class Handler(_Handler):
            server_of = fake

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> FakeOwnServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.woken.set()
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5.0
    server_of: FakeOwnServer

    def log_message(self, format: str, *args: Any) -> None:
        """Tests read `log` instead."""

    def do_GET(self) -> None:
        fake = self.server_of
        fake.probes += 1
        if self.path != "/health":
            self._error("bad_request", 404)
        else:
            self._json(200, {"status": fake.status, "engine": "gptsovits", "queue_length": 0, "models": ["default"]})

    def do_POST(self) -> None:
        fake = self.server_of
        body = self.rfile.read(int(self.headers["Content-Length"]))
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
        fields: dict[str, Any] = {"headers": dict(self.headers)}
        for part in message.iter_parts():  # type: ignore[attr-defined]
            content = part.get_payload(decode=True)
            name = str(part.get_param("name", header="content-disposition"))
            fields[name] = content if part.get_filename() else content.decode("utf-8")
        fake.log.append(fields)
        mood = fake.moods.popleft() if fake.moods else ""
        if fake.token and self.headers.get("Authorization") != f"Bearer {fake.token}":
            mood = "unauthorized"
        if mood == "hang":
            fake.status = "busy"
            fake.woken.wait()
            fake.woken.clear()
            fake.status = "ready"
        if mood in ERRORS:
            self._error(mood, ERRORS[mood])
            return
        samples, rate = soundfile.read(io.BytesIO(fields["reference_audio"]), dtype="float32")
        speech = tone(pitch_of(samples, rate), 0.06 * sum(map(str.isalnum, fields["text"])), 32_000)
        buffer = io.BytesIO()
        silent = np.zeros(16_000, np.float32)
        soundfile.write(buffer, silent if mood == "silence" else speech, 32_000, format="WAV", subtype="PCM_16")
        self._respond(200, "audio/wav", buffer.getvalue(), {"X-Seed": fields["seed"]})

    def _error(self, code: str, status: int) -> None:
        headers = {"Retry-After": self.server_of.retry_after} if code == "busy" else {}
        self._json(status, {"error": code, "message": f"something about {code}"}, headers)

    def _json(self, status: int, value: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._respond(status, "application/json", json.dumps(value).encode(), headers or {})

    def _respond(self, status: int, content_type: str, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
