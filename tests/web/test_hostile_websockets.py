"""WebSockets by hand, for clients that no library would make: against the real server's processes."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.running.quick_server import HeldGptSovits, Server
from tests.support.running.sockets import drip, flood, head, open_sockets, rest, status_of
from tests.support.tenants import Tenant
from tests.support.waiting import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("somebody_else")]

UPGRADE = (
    "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)  # fmt: skip
CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
PROTOCOL_ERROR, NO_TEXT, POLICY, TOO_LARGE = 1002, 1007, 1008, 1009


@pytest.fixture(scope="module")
def served(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with HeldGptSovits() as fake:
        server = Server(tmp_path_factory.mktemp("server"), fake, "tests.programs.socket_serving")
        try:
            yield server
        finally:
            server.process.terminate()
            server.process.wait(40)


@pytest.fixture
def server(served: Server) -> Server:
    return served


def frame(opcode: int, payload: bytes = b"", last: bool = True, masked: bool = True, length: int = -1) -> bytes:
    """length: what the head says, by default what is true."""
    length = len(payload) if length < 0 else length
    if length < 126:
        size = bytes([length])
    else:
        size = struct.pack("!BH", 126, length) if length < 65_536 else struct.pack("!BQ", 127, length)
    first = bytes([size[0] | (128 if masked else 0)]) + size[1:]
    mask = os.urandom(4) if masked else b""
    if masked and payload:
        count = len(payload)
        keys = (mask * (count // 4 + 1))[:count]
        payload = (int.from_bytes(payload) ^ int.from_bytes(keys)).to_bytes(count)
    return bytes([opcode | (128 if last else 0)]) + first + mask + payload


@pytest.fixture
def opened(server: Server, tenant: Tenant) -> Iterator[Callable[..., socket.socket]]:
    """Opens WebSockets; closes them in the end."""
    sockets: list[socket.socket] = []

    def open_(receive_buffer: int = 0) -> socket.socket:
        connection = socket.socket()
        sockets.append(connection)
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(30)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(head("GET /echo/anna", *UPGRADE, key=tenant.secret))
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(1)
        assert status_of(answer) == 101
        return connection

    yield open_
    for connection in sockets:
        connection.close()


def close_code(received: bytes) -> int:
    """Of the last frame; 0 where the connection was only cut off."""
    at, code = 0, 0
    while at + 2 <= len(received):
        opcode, length = received[at] & 15, received[at + 1] & 127
        at += 2
        if length >= 126:
            size = 2 if length == 126 else 8
            length, at = int.from_bytes(received[at : at + size]), at + size
        if opcode == CLOSE:
            code = int.from_bytes(received[at : at + 2])
        at += length
    return code


def test_a_handshake_of_a_byte_at_a_time_is_ended(server: Server, tenant: Tenant) -> None:
    with server.connect() as connection:
        connection.sendall(head("GET /echo/anna", *UPGRADE, key=tenant.secret)[:-4])
        assert status_of(drip(connection)) == 408


@pytest.mark.parametrize(
    ("line", "headers", "behind", "status"),
    [
        ("GET /echo/anna HTTP/1.0", UPGRADE, b"", 404),
        ("POST /echo/anna", UPGRADE, b"", 400),
        ("GET /echo/anna", (*UPGRADE, "Content-Length: 5"), b"hello", 400),
        ("GET /echo/anna", (*UPGRADE, "Transfer-Encoding: chunked"), b"", 400),
        ("GET /echo/anna", UPGRADE, frame(TEXT, b"too early"), 400),
        ("GET /echo/anna", UPGRADE[:3], b"", 400),
        ("GET /echo/anna", (*UPGRADE[:2], "Sec-WebSocket-Version: 8", UPGRADE[3]), b"", 400),
        ("GET /echo/anna", (*UPGRADE, *(f"X-{number}: a" for number in range(120))), b"", 431),
        ("GET /echo/anna", (*UPGRADE, f"X-Long: {'a' * 8184}"), b"", 400),
        (f"GET /echo/anna?{'a' * 5000}", UPGRADE, b"", 414),
        ("GET /nobody", UPGRADE, b"", 404),
    ],
    ids=["HTTP/1.0", "POST", "body", "chunks", "frame", "no key", "version", "headers", "header", "line", "path"],
)
def test_what_is_no_handshake_is_refused(
    server: Server, tenant: Tenant, line: str, headers: tuple[str, ...], behind: bytes, status: int
) -> None:
    before = len(server.log.read_text())
    with server.connect() as connection:
        connection.sendall(head(line, *headers, key=tenant.secret) + behind)
        assert status_of(rest(connection)) == status
    log = server.log.read_text()[before:]
    assert "Traceback" not in log
    assert "ASGI" not in log


def test_frames_that_come_before_the_answer_wait_for_it(server: Server, tenant: Tenant) -> None:
    before = len(server.log.read_text())
    early = [(frame(TEXT, b"hello") + frame(TEXT, b"bye"), 1000), (frame(TEXT, b"bare", masked=False), PROTOCOL_ERROR),
             (frame(CLOSE, struct.pack("!H", 1000)), 1000)]  # fmt: skip
    for sent, code in early:
        for delay in (0.0, 0.002, 0.005, 0.02):
            with server.connect() as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.sendall(head("GET /echo/anna", *UPGRADE, key=tenant.secret))
                time.sleep(delay)  # The key is looked up meanwhile.
                connection.sendall(sent)
                answer = rest(connection)
            if status_of(answer) == 400:  # It came together with the head.
                continue
            assert status_of(answer) == 101
            assert close_code(answer.partition(b"\r\n\r\n")[2]) == code
    log = server.log.read_text()[before:]
    assert "Traceback" not in log


def test_sockets_that_never_speak_are_ended(opened: Callable[..., socket.socket]) -> None:
    began = time.monotonic()
    for connection in [opened() for _ in range(50)]:
        assert close_code(rest(connection)) == POLICY
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("reads", [True, False])
def test_pings_for_ever_keep_nothing_open(server: Server, opened: Callable[..., socket.socket], reads: bool) -> None:
    before = open_sockets(server.process.pid)
    if reads:
        assert close_code(drip(opened(), frame(PING, b"x" * 100))) in (POLICY, 0)
        return
    connection = opened(receive_buffer=4096)
    until_gone = threading.Thread(target=lambda: pings(connection))
    until_gone.start()
    until_gone.join(60)
    assert not until_gone.is_alive()
    until(lambda: open_sockets(server.process.pid) <= before + 1, 15)


def pings(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection.sendall(frame(PING, b"x" * 125) * 100)


def test_frames_of_a_hundred_megabytes_are_not_taken(opened: Callable[..., socket.socket]) -> None:
    connection = opened()
    connection.sendall(frame(BINARY, length=100_000_000))
    assert close_code(flood(connection, b"a" * 65_536)) in (TOO_LARGE, 0)


def test_a_message_of_endless_parts_is_not_taken(opened: Callable[..., socket.socket]) -> None:
    for size in (0, 1, 60_000):
        connection = opened()
        connection.sendall(frame(BINARY, b"a", last=False))
        part = frame(CONTINUED, b"a" * size, last=False)
        assert close_code(flood(connection, part * max(1, 60_000 // len(part)))) in (TOO_LARGE, POLICY, 0)


def test_a_frame_of_a_byte_at_a_time_is_ended(opened: Callable[..., socket.socket]) -> None:
    connection = opened()
    connection.sendall(frame(BINARY, length=60_000))
    assert close_code(drip(connection)) in (POLICY, 0)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(TEXT, b"hello", masked=False), PROTOCOL_ERROR),
        (frame(TEXT, b"\xff\xfe"), NO_TEXT),
        (frame(3, b"hello"), PROTOCOL_ERROR),
        (frame(CONTINUED, b"of nothing"), PROTOCOL_ERROR),
        (frame(PING, b"x" * 126), PROTOCOL_ERROR),
        (frame(PING, b"x", last=False), PROTOCOL_ERROR),
        (bytes([frame(TEXT)[0] | 64]) + frame(TEXT, b"hello")[1:], PROTOCOL_ERROR),
        (frame(CLOSE, b"\x00"), PROTOCOL_ERROR),
        (b"GET / HTTP/1.1\r\n\r\n", PROTOCOL_ERROR),
    ],
    # Frames are masked at random: two processes would give their tests other names.
    ids=["bare", "no text", "unknown", "of nothing", "long ping", "ping in parts", "reserved", "half a code", "HTTP"],
)
def test_what_is_no_frame_ends_the_socket(opened: Callable[..., socket.socket], sent: bytes, code: int) -> None:
    connection = opened()
    connection.sendall(sent)
    assert close_code(rest(connection)) == code


def test_who_says_goodbye_and_stays_is_let_go(server: Server, opened: Callable[..., socket.socket]) -> None:
    before = open_sockets(server.process.pid)
    for _ in range(20):
        opened().sendall(frame(CLOSE, struct.pack("!H", 1000)))
    until(lambda: open_sockets(server.process.pid) <= before + 1, 15)
