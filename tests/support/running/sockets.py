"""HTTP by hand, for clients that speak it badly."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from pathlib import Path

import pytest

ENDED_SECONDS = 15.0  # many times what the tests' server allows

UPLOAD = "/api/v1/voice/quality"
LARGE = "/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js"
FORM = "Content-Type: multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="sample"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'


def head(line: str, *headers: str, key: str = "") -> bytes:
    lines = [f"{line} HTTP/1.1" if " HTTP/" not in line else line, "Host: localhost", *headers]
    return "\r\n".join([*lines, *([f"X-API-Key: {key}"] if key else []), "\r\n"]).encode()


def drip(connection: socket.socket, block: bytes = b"a", seconds: float = ENDED_SECONDS) -> bytes:
    """Sends a little again and again until the server ends the connection; what it answered. Fails after a while."""
    deadline = time.monotonic() + seconds
    received = b""
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            connection.sendall(block)
        if select.select([connection], [], [], 0.3)[0]:
            try:
                content = connection.recv(65_536)
            except OSError:  # Reset: it was ended before all of our bytes were read.
                return received
            if not content:
                return received
            received += content
    return pytest.fail(f"not ended after {seconds:g} s; answered so far: {received[:200]!r}")


def flood(connection: socket.socket, block: bytes) -> bytes:
    """Sends as much as is taken, without end; what the server answered before it ended the connection."""
    connection.setblocking(False)
    deadline = time.monotonic() + 3 * ENDED_SECONDS
    received, left = b"", block
    while time.monotonic() < deadline:
        readable, writable, _ = select.select([connection], [connection], [], 1.0)
        try:
            if readable:
                content = connection.recv(65_536)
                if not content:
                    return received
                received += content
            if writable:
                left = left[connection.send(left) :] or block
        except OSError:
            return received
    return pytest.fail(f"still taken after {3 * ENDED_SECONDS:g} s; answered so far: {received[:200]!r}")


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server ends the connection."""
    connection.settimeout(ENDED_SECONDS)
    received = b""
    try:
        while content := connection.recv(65_536):
            received += content
    except ConnectionError:
        return received
    return received


def status_of(answer: bytes) -> int:
    return int(answer.split()[1]) if answer.startswith(b"HTTP/1.") else 0


def open_sockets(pid: int) -> int:
    """Of a process and those that it has started."""
    pids = [pid]
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) in pids:
                pids.append(int(entry.name))
    found = 0
    for one in pids:
        for link in Path(f"/proc/{one}/fd").glob("*"):
            with contextlib.suppress(OSError):
                found += os.readlink(link).startswith("socket:")
    return found
