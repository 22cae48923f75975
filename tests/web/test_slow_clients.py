"""Clients that send or take a little, again and again; bodies in chunks. Against the real server's processes."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable

import pytest

from tests.support.jobs import queued
from tests.support.running.quick_server import THREADS, Answer, Server
from tests.support.running.sockets import FORM, LARGE, PART, UPLOAD, drip, head, open_sockets, rest, status_of
from tests.support.tenants import Tenant
from tests.support.waiting import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("somebody_else")]

PATIENCE_SECONDS = 45.0  # A client may be slow for half a minute, also here.


def take_slowly(connection: socket.socket) -> bytes:
    """Reads some 4 KB a second until the server ends the connection, which it must."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    received = b""
    while time.monotonic() < deadline:
        try:
            content = connection.recv(2048)
        except ConnectionError:
            return received
        if not content:
            return received
        received += content
        time.sleep(0.5)
    return pytest.fail(f"not ended after {PATIENCE_SECONDS:g} s")


def test_who_is_slow_for_long_is_ended_though_more_comes(server: Server, tenant: Tenant) -> None:
    form = "Content-Type: application/x-www-form-urlencoded"
    answers: dict[str, list[bytes]] = {"sign-in": [], "upload": [], "download": []}
    attacks: list[tuple[str, Callable[[], bytes]]] = []
    connections = []
    for _ in range(2 * THREADS):
        signin, upload = server.connect(), server.connect()
        signin.sendall(head("POST /account/signin", form, "Content-Length: 9000"))
        upload.sendall(head(f"POST {UPLOAD}", FORM, "Content-Length: 900000", key=tenant.secret) + PART)
        download = socket.socket()
        download.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        download.connect(("127.0.0.1", server.port))
        download.settimeout(PATIENCE_SECONDS)
        download.sendall(head(f"GET {LARGE}") * 10)
        attacks += [
            ("sign-in", lambda c=signin: drip(c, seconds=PATIENCE_SECONDS)),  # type: ignore[misc]
            ("upload", lambda c=upload: drip(c, seconds=PATIENCE_SECONDS)),  # type: ignore[misc]
            ("download", lambda c=download: take_slowly(c)),  # type: ignore[misc]
        ]
        connections += [signin, upload, download]
    threads = [threading.Thread(target=lambda k=kind, a=attack: answers[k].append(a())) for kind, attack in attacks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE_SECONDS)
    assert {kind: len(found) for kind, found in answers.items()} == dict.fromkeys(answers, 2 * THREADS)
    for kind in ("sign-in", "upload"):
        assert {status_of(answer) for answer in answers[kind]} <= {400, 403, 408, 0}
    for connection in connections:
        connection.close()


# --- chunks -------------------------------------------------------------------------------------------------


def in_chunks(body: bytes, size: int = 10_000) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def test_an_upload_in_chunks_is_served_like_any_other(server: Server, tenant: Tenant, reference_wav: bytes) -> None:
    body = in_chunks(PART + reference_wav + b"\r\n--b--\r\n")
    asked = head(f"POST {UPLOAD}", FORM, "Transfer-Encoding: chunked", key=tenant.secret)
    with server.connect() as connection:
        for _ in range(2):  # The second one on the same connection.
            connection.sendall(asked + body)
            answer = Answer(connection)
            assert answer.status == 200
            assert answer.json()["sample_rate"] == 16_000
        connection.sendall(head("GET /api/v1/me", "Connection: close", key=tenant.secret))
        assert status_of(rest(connection)) == 200


def test_an_upload_in_chunks_has_the_same_limit(server: Server, tenant: Tenant) -> None:
    body = in_chunks(PART + bytes(12_000_000) + b"\r\n--b--\r\n", 100_000)
    following = head("GET /health", "X-Request-ID: the-next-one", "Connection: close")
    found = []
    for _ in range(3):
        with server.connect() as connection:
            asked = head(f"POST {UPLOAD}", FORM, "Transfer-Encoding: chunked", key=tenant.secret)
            sender = threading.Thread(target=send, args=(connection, asked + body + following))
            sender.start()
            answer = rest(connection)
            sender.join(60)
        found.append(status_of(answer))
        if found[-1]:  # Who still sends when it is refused may lose the answer to a reset.
            told = answer.partition(b"\r\n\r\n")[2].partition(b"HTTP/1.1")[0]
            assert json.loads(told)["error"] == "file_too_large"
            answers = answer.count(b"HTTP/1.1 ")
            assert answers == 1 or (answers == 2 and b"the-next-one" in answer)
    assert set(found) <= {413, 0}
    assert 413 in found


def send(connection: socket.socket, content: bytes) -> None:
    try:
        connection.sendall(content)
    except OSError:
        return  # It was refused before the end.


# --- who has gone -------------------------------------------------------------------------------------------


def test_event_streams_that_were_dropped_hold_nothing(server: Server, tenant: Tenant) -> None:
    (job,) = queued(tenant.user.username)
    before = open_sockets(server.process.pid)
    for _ in range(5):
        streams = [server.connect() for _ in range(20)]
        for stream in streams:
            stream.sendall(head(f"GET /api/v1/cover/jobs/{job.pk}/events", key=tenant.secret))
        for stream in streams:
            assert status_of(stream.recv(65_536)) == 200
        for stream in streams:
            stream.close()
        until(lambda: open_sockets(server.process.pid) <= before + 2, 20)
