"""Clients that speak HTTP badly, slowly or without end: over plain sockets, against the real server's processes.

Each is ended in time, with a status where there can be one, while somebody else is served. How long a client may stall
is shortened for tests (tests.programs.quick_serving).
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

import pytest

from tests.support.running.quick_server import THREADS, Answer, Server
from tests.support.running.sockets import (
    ENDED_SECONDS,
    FORM,
    LARGE,
    PART,
    UPLOAD,
    drip,
    flood,
    head,
    open_sockets,
    rest,
    status_of,
)
from tests.support.tenants import Tenant
from tests.support.waiting import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("somebody_else")]


# --- heads --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [False, True], ids=["at first", "after a request"])
def test_heads_of_a_byte_at_a_time_are_ended_though_they_go_on(server: Server, tenant: Tenant, kept: bool) -> None:
    connections = [server.connect() for _ in range(3 * THREADS)]
    answers: list[bytes] = []
    for connection in connections:
        if kept:
            connection.sendall(head("GET /api/v1/me", key=tenant.secret))
            assert Answer(connection).json()
        connection.sendall(head("GET /health", "X-Long: a")[:-4])
    threads = [threading.Thread(target=lambda c=c: answers.append(drip(c))) for c in connections]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == len(connections)
    assert {status_of(answer) for answer in answers} <= {408, 0}
    assert 408 in {status_of(answer) for answer in answers}
    for connection in connections:
        connection.close()


def test_ten_thousand_headers_are_too_many(server: Server) -> None:
    found = []
    for _ in range(5):
        with server.connect() as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(head("GET /health", *(f"X-{number}: a" for number in range(10_000))))
            found.append(status_of(rest(connection)))
    # Who still sends when it is refused may lose the answer to a reset.
    assert set(found) <= {431, 0}
    assert 431 in found


def test_a_head_without_end_is_refused(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        assert status_of(flood(connection, b"X-More: " + b"a" * 1000 + b"\r\n")) in (400, 431, 0)


@pytest.mark.parametrize(
    "lengths",
    [
        ("Content-Length: 3", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 3"),
        ("Content-Length: 3", "Content-Length: 40"),
        ("Content-Length: 3, 40",),
        ("Content-Length: -3",),
        ("Content-Length: +3",),
        ("Content-Length: 3x",),
        ("Content-Length: 99999999999999999999999999",),
        ("Transfer-Encoding: chunked, identity",),
        ("Transfer-Encoding: xchunked",),
    ],
)
def test_two_lengths_or_odd_ones_are_refused_and_nothing_is_smuggled(
    server: Server, tenant: Tenant, lengths: tuple[str, ...]
) -> None:
    hidden = head("DELETE /api/v1/keys", key=tenant.secret)
    with server.connect() as connection:
        kind = "Content-Type: application/json"
        connection.sendall(head("POST /api/v1/voice/synthesize", *lengths, kind) + b"0\r\n\r\n" + hidden)
        answer = rest(connection)
    assert status_of(answer) in (400, 401, 413, 501)
    assert answer.count(b"HTTP/1.1 ") == 1, "what follows is no request"


# --- bodies -------------------------------------------------------------------------------------------------


def test_a_body_shorter_than_it_says_is_ended(server: Server, tenant: Tenant) -> None:
    connections = [server.connect() for _ in range(THREADS + 3)]
    for number, connection in enumerate(connections):
        connection.sendall(head(f"POST {UPLOAD}", FORM, "Content-Length: 5000", key=tenant.secret) + PART + b"RIFF")
        if number % 2:
            connection.shutdown(socket.SHUT_WR)
    for number, connection in enumerate(connections):
        answer = rest(connection)
        # Whoever has shut its half down may be taken for gone.
        assert status_of(answer) in ((400, 408, 0) if number % 2 else (400, 408)), answer
        connection.close()


def test_a_body_longer_than_it_says_is_no_second_request(server: Server, tenant: Tenant) -> None:
    body = json.dumps({"text": "x"}).encode()
    with server.connect() as connection:
        asked = head(
            "POST /api/v1/voice/synthesize", "Content-Type: application/json", "Content-Length: 5", key=tenant.secret
        )
        connection.sendall(asked + body)
        answer = rest(connection)
    assert status_of(answer) == 400
    assert answer.count(b"HTTP/1.1 ") <= 2
    assert b"HTTP/1.1 2" not in answer


@pytest.mark.parametrize("known", [True, False], ids=["with a key", "without a key"])
@pytest.mark.parametrize("chunk", [b"10000\r\n" + b"a" * 65_536 + b"\r\n", b"1;" + b"x" * 500 + b"\r\na\r\n"])
def test_chunks_without_end_are_ended(server: Server, tenant: Tenant, chunk: bytes, known: bool) -> None:
    with server.connect() as connection:
        asked = head(f"POST {UPLOAD}", FORM, "Transfer-Encoding: chunked", key=tenant.secret if known else "")
        connection.sendall(asked + b"%x\r\n%s\r\n" % (len(PART), PART))
        assert status_of(flood(connection, chunk)) in ((400, 408, 413, 0) if known else (401, 0))


def test_a_chunk_that_is_none_is_refused(server: Server, tenant: Tenant) -> None:
    for sent in (b"zz\r\nabc\r\n", b"-1\r\n\r\n", b"3\r\nabcdef\r\n", b"FFFFFFFFFFFFFFFFFF\r\na"):
        with server.connect() as connection:
            connection.sendall(head(f"POST {UPLOAD}", FORM, "Transfer-Encoding: chunked", key=tenant.secret) + sent)
            answer = rest(connection)
            assert status_of(answer) in (400, 413)
            assert b"HTTP/1.1 2" not in answer


@pytest.mark.parametrize("why", ["no key", "wrong key", "too large"])
def test_a_refused_upload_breaks_no_next_request(server: Server, tenant: Tenant, why: str) -> None:
    size = 12_000_000 if why == "too large" else 300_000
    body = PART + b"GET / HTTP/1.1\r\n" * ((size - len(PART)) // 16)
    key = {"no key": "", "wrong key": "vck_nobodys", "too large": tenant.secret}[why]
    following = head("GET /health", "X-Request-ID: the-next-one", "Connection: close")
    with server.connect() as connection:
        # While it sends, nobody reads: as simple clients do.
        with contextlib.suppress(ConnectionError):
            connection.sendall(head(f"POST {UPLOAD}", FORM, f"Content-Length: {len(body)}", key=key) + body)
            connection.sendall(following)
        answer = rest(connection)
    # Twelve megabytes are not read to their end, and the answer may be lost to a reset.
    assert status_of(answer) in ((413, 0) if why == "too large" else (401,))
    # Either the next one is answered, or the connection was closed; what was in the body is no request.
    answers = answer.count(b"HTTP/1.1 ")
    assert answers <= 2
    assert answers == 1 or b"the-next-one" in answer


# --- old clients, and hasty ones ----------------------------------------------------------------------------


def test_a_client_of_http_1_0_is_answered_and_let_go(server: Server, tenant: Tenant) -> None:
    for sent in (head("GET /api/v1/me HTTP/1.0", key=tenant.secret), b"GET /api/v1/me HTTP/1.0\r\n\r\n"):
        with server.connect() as connection:
            connection.sendall(sent)
            answer = rest(connection)  # It ends, without being asked to.
        fields, _, body = answer.partition(b"\r\n\r\n")
        assert status_of(answer) == (200 if b"X-API-Key" in sent else 401)
        assert b"chunked" not in fields.lower()
        assert json.loads(body)


def test_requests_in_one_go_are_answered_in_their_order(server: Server, tenant: Tenant) -> None:
    ids = [f"number-{number}" for number in range(30)]
    asked = [head("GET /api/v1/me", f"X-Request-ID: {one}", key=tenant.secret) for one in ids]
    with server.connect() as connection, connection.makefile("rb") as file:
        connection.sendall(b"".join(asked))
        for one in ids:
            assert status_of(file.readline()) == 200
            fields = dict(line.lower().strip().split(b": ", 1) for line in iter(file.readline, b"\r\n"))
            assert fields[b"x-request-id"] == one.encode()
            assert json.loads(file.read(int(fields[b"content-length"])))


# --- clients that do not read -------------------------------------------------------------------------------


def test_clients_that_never_read_are_let_go(server: Server) -> None:
    before = open_sockets(server.process.pid)
    silent = []
    for _ in range(2 * THREADS):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        silent.append(connection)
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError, ConnectionError):
            connection.sendall(head(f"GET {LARGE}") * 500)
    time.sleep(0.5)
    until(lambda: open_sockets(server.process.pid) <= before + 2, 3 * ENDED_SECONDS)  # somebody else has one
    for connection in silent:
        connection.close()
