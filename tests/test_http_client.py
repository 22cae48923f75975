"""The HTTP client against servers that mean harm, or are broken: raw sockets that answer what they are told to."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import logging
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from voiceproject import http_client
from voiceproject.http_client import BadAnswer, CallError, DeadlinePassed, NoAnswer, NotConnected, Session, read_body

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
MAX_BYTES = 100_000


class Server:
    """Answers each request with `habit(connection)`; keeps what it was sent and how much it could send."""

    def __init__(self, habit: Callable[[Server, socket.socket], Any], family: int = socket.AF_INET) -> None:
        host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        self.listener = socket.create_server((host, 0), family=family)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        self.habit = habit
        self.requests: list[bytes] = []
        self.connections = 0
        self.sent = 0
        self.stopped = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while request := self._request(connection):
                self.requests.append(request)
                if self.habit(self, connection) is False:
                    return

    def _request(self, connection: socket.socket) -> bytes:
        received = b""
        while b"\r\n\r\n" not in received:
            block = connection.recv(65_536)
            if not block:
                return b""
            received += block
        return received

    def send(self, connection: socket.socket, data: bytes) -> None:
        connection.sendall(data)
        self.sent += len(data)

    def endless(self, connection: socket.socket, data: bytes, pause: float = 0.0) -> None:
        while not self.stopped.wait(pause):
            self.send(connection, data)

    def close(self) -> None:
        self.stopped.set()
        self.listener.close()


Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Server] = []

    def make(*answers: bytes | Callable[[Server, socket.socket], Any], **options: Any) -> Server:
        """Bytes are sent, and the connection stays open; the last answer is for all that come."""
        turns = itertools.chain(answers, itertools.repeat(answers[-1]))

        def habit(server: Server, connection: socket.socket) -> Any:
            answer = next(turns)
            if isinstance(answer, bytes):
                return server.send(connection, answer)
            return answer(server, connection)

        servers.append(Server(habit, **options))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def get(url: str, seconds: float = 10.0, session: Session | None = None, **how: Any) -> tuple[int, bytes]:
    session = session or Session()
    with session.call(how.pop("method", "GET"), url, time.monotonic() + seconds, **how) as response:
        return response.status_code, read_body(response, MAX_BYTES)


def failure(url: str, kind: type[CallError], seconds: float = 10.0, **how: Any) -> Any:
    """The error of the kind; it came within the time, and not much later."""
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        get(url, seconds, **how)
    assert time.monotonic() - began < seconds + 2
    return caught.value


def then_close(data: bytes) -> Callable[[Server, socket.socket], Any]:
    def habit(server: Server, connection: socket.socket) -> bool:
        server.send(connection, data)
        return False

    return habit


def for_ever(start: bytes, more: bytes, pause: float = 0.0) -> Callable[[Server, socket.socket], Any]:
    def habit(server: Server, connection: socket.socket) -> None:
        server.send(connection, start)
        server.endless(connection, more, pause)

    return habit


def reset(server: Server, connection: socket.socket) -> bool:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


# --- the deadline -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "drop"),
    [(b"", b""), (b"HTTP/1.1 ", b"x"), (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"), (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
     (b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"x"), (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
     (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
     (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
     (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"Trailer: x\r\n")],
    ids=["nothing", "status", "header", "headers", "body", "body without length", "chunks", "chunk size", "trailers"],
)  # fmt: skip
def test_bytes_that_drip_do_not_stretch_the_deadline(serve: Serve, start: bytes, drop: bytes) -> None:
    error = failure(serve(for_ever(start, drop, 0.05)).url, DeadlinePassed, 0.5)
    assert error.sent


def test_a_server_that_reads_nothing_does_not_stretch_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert failure(url, DeadlinePassed, 0.5, method="POST", body=bytes(50_000_000)).sent


def test_a_server_that_reads_slowly_does_not_stretch_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stopped = threading.Event()

        def sip() -> None:
            connection, _ = listener.accept()
            while not stopped.wait(0.02):
                connection.recv(30_000)

        threading.Thread(target=sip, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert failure(url, DeadlinePassed, 0.5, method="POST", body=bytes(50_000_000)).sent
        stopped.set()


def test_a_tls_handshake_that_never_ends_is_bounded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        error = failure(url, NotConnected, 10, session=Session(connect_seconds=0.5))
        assert isinstance(error.reason, TimeoutError)
        assert not failure(url, DeadlinePassed, 0.3).sent


def test_a_deadline_that_has_passed_calls_nobody(serve: Serve) -> None:
    server = serve(OK)
    assert not failure(server.url, DeadlinePassed, -1.0).sent
    assert server.connections == 0


# --- heads ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "more"),
    [(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 1000), (b"HTTP/1.1 200 OK\r\n", b"X: " + b"y" * 1000 + b"\r\n"),
     (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"), (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
     (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), (b"", b"x" * 1000), (b"HTTP/1.1 ", b"2" * 1000)],
    ids=["line", "long headers", "headers", "100", "103", "garbage", "status"],
)  # fmt: skip
def test_an_endless_head_is_given_up(serve: Serve, start: bytes, more: bytes) -> None:
    failure(serve(for_ever(start, more)).url, BadAnswer)


def test_a_head_is_limited(serve: Serve) -> None:
    header = b"X: " + b"y" * 995 + b"\r\n"
    assert get(serve(b"HTTP/1.1 200 OK\r\n" + 60 * header + b"Content-Length: 2\r\n\r\nok").url) == (200, b"ok")
    failure(serve(b"HTTP/1.1 200 OK\r\n" + 90 * header + b"Content-Length: 2\r\n\r\nok").url, BadAnswer)


@pytest.mark.parametrize("status", [b"SSH-2.0-OpenSSH_9.6", b"HTTP/2.0 200 OK", b"HTTP/1.1 20x OK", b"200 OK"])
def test_what_is_not_http_is_no_answer(serve: Serve, status: bytes) -> None:
    failure(serve(then_close(status + b"\r\n\r\n")).url, BadAnswer)


def test_interim_answers_are_passed_over(serve: Serve) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 7\r\n\r\n"
    server, session = serve(interim + OK), Session()
    assert [get(server.url, session=session) for _ in range(2)] == [(200, b"ok")] * 2
    assert server.connections == 1


def test_a_broken_header_is_left_out_and_not_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    server = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nno header at all\r\n\r\nok")
    assert get(server.url + "/hook?secret=1")[0] == 200
    assert not [record for record in caplog.records if "secret" in record.getMessage()]


# --- bodies -----------------------------------------------------------------------------------------------------------


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
     CHUNKED + b"4\r\nha", CHUNKED + b"4\r\nhalf\r\n", CHUNKED + b"zz\r\nhalf\r\n", CHUNKED + b"-4\r\nhalf\r\n",
     CHUNKED + b"4;" + b"x" * 70_000 + b"\r\nhalf\r\n0\r\n\r\n", CHUNKED],
    ids=["short", "none", "in a chunk", "no last chunk", "no size", "negative size", "long extension", "no chunk"],
)  # fmt: skip
def test_a_body_that_breaks_off_is_no_answer(serve: Serve, answer: bytes) -> None:
    failure(serve(then_close(answer)).url, BadAnswer)


@pytest.mark.parametrize(
    "start", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"]
)
def test_a_body_that_is_too_long_is_given_up(serve: Serve, start: bytes) -> None:
    server = serve(for_ever(start, bytes(65_536)))
    failure(server.url, BadAnswer)
    assert server.sent < 20_000_000


def test_chunks_that_never_end_are_given_up(serve: Serve) -> None:
    failure(serve(for_ever(CHUNKED, b"1000\r\n" + bytes(4096) + b"\r\n")).url, BadAnswer)


@pytest.mark.parametrize("size", [b"-1", b"ffffffffffffffff"])
def test_a_chunk_of_no_honest_size_is_given_up(serve: Serve, size: bytes) -> None:
    server = serve(for_ever(CHUNKED + size + b"\r\n", bytes(65_536)))
    failure(server.url, BadAnswer)
    assert server.sent < 20_000_000


def test_a_body_of_just_the_size_is_whole(serve: Serve) -> None:
    server = serve(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MAX_BYTES + bytes(MAX_BYTES))
    assert get(server.url) == (200, bytes(MAX_BYTES))
    server = serve(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (MAX_BYTES + 1) + bytes(MAX_BYTES + 1))
    failure(server.url, BadAnswer)


@pytest.mark.parametrize("length", [b"abc", b"-5"])
def test_a_length_that_is_none_is_left_out(serve: Serve, length: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: " + length + b"\r\n\r\nall of it"
    assert get(serve(then_close(answer)).url) == (200, b"all of it")


def test_a_body_is_never_inflated(serve: Serve) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    server = serve(head + bomb)
    assert get(server.url) == (200, bomb)
    assert b"Accept-Encoding: identity\r\n" in server.requests[0]


def test_a_redirect_is_an_answer_and_nothing_more_of_it_is_read(serve: Serve) -> None:
    elsewhere = serve(OK)
    head = b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Encoding: gzip\r\n\r\n" % elsewhere.url.encode()
    server = serve(for_ever(head, bytes(65_536)))
    with Session().call("GET", server.url, time.monotonic() + 10) as response:
        assert response.status_code == 302
    assert server.sent < 20_000_000 and elsewhere.connections == 0


# --- connections ------------------------------------------------------------------------------------------------------


def test_a_connection_is_kept_after_a_whole_answer(serve: Serve) -> None:
    chunked = CHUNKED + b"2;x=y\r\nok\r\n0\r\nTrailer: x\r\n\r\n"
    server = serve(OK, chunked, b"HTTP/1.1 204 No Content\r\n\r\n", OK)
    session = Session()
    answers = [get(server.url, session=session) for _ in range(4)]
    assert answers == [(200, b"ok"), (200, b"ok"), (204, b""), (200, b"ok")]
    assert server.connections == 1


def test_a_connection_is_not_kept_after_half_an_answer(serve: Serve) -> None:
    server, session = serve(OK, b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + bytes(200_000), OK), Session()
    get(server.url, session=session)
    failure(server.url, BadAnswer, session=session)
    assert get(server.url, session=session) == (200, b"ok")
    assert server.connections == 2


def test_a_kept_connection_that_was_closed_is_replaced(serve: Serve) -> None:
    server, session = serve(then_close(OK), OK), Session()
    assert get(server.url, session=session) == (200, b"ok")
    time.sleep(0.1)
    assert get(server.url, session=session) == (200, b"ok")
    assert server.connections == 2


@pytest.mark.parametrize("how", [reset, then_close(b"")], ids=["reset", "close"])
def test_an_end_without_an_answer_is_stale_on_a_kept_connection_only(serve: Serve, how: Any) -> None:
    server, session = serve(OK, how), Session()
    get(server.url, session=session)
    assert failure(server.url, NoAnswer, session=session).stale
    assert not failure(server.url, NoAnswer, session=session).stale


def test_half_a_status_line_is_never_stale(serve: Serve) -> None:
    server, session = serve(OK, then_close(b"HTT")), Session()
    get(server.url, session=session)
    failure(server.url, BadAnswer, session=session)


def test_a_kept_connection_that_ends_late_is_not_stale(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "STALE_SECONDS", 0.1)

    def late(server: Server, connection: socket.socket) -> bool:
        time.sleep(0.3)
        return False

    server, session = serve(OK, late), Session()
    get(server.url, session=session)
    assert not failure(server.url, NoAnswer, session=session).stale


def test_an_early_answer_to_a_body_that_is_not_read_is_heard() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            connection, _ = listener.accept()
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1_000_000):
                pass
            connection.close()

        threading.Thread(target=refuse, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert get(url, method="POST", body=bytes(5_000_000))[0] == 413


def test_threads_share_a_session(serve: Serve) -> None:
    server, session = serve(OK), Session()
    found: list[tuple[int, bytes]] = []

    def work() -> None:
        found.extend(get(server.url, session=session) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(200, b"ok")] * 120 and server.connections <= 6


# --- addresses --------------------------------------------------------------------------------------------------------


def test_a_refused_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert isinstance(failure(f"http://127.0.0.1:{port}", NotConnected).reason, ConnectionRefusedError)


def test_a_name_that_nobody_has() -> None:
    assert isinstance(failure("http://no-such-host.invalid", NotConnected).reason, socket.gaierror)


def test_a_dns_that_never_answers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: asked.wait(20) and [])
    monkeypatch.setattr(http_client, "RESOLVE_SECONDS", 0.3)
    try:
        assert isinstance(failure("http://hook.example", NotConnected, 5).reason, TimeoutError)
    finally:
        asked.set()


def test_the_name_is_looked_up_once_and_the_next_address_is_tried(serve: Serve) -> None:
    server = serve(OK)
    asked: list[tuple[str, int]] = []

    def lookup(host: str, port: int, seconds: float) -> list[str]:
        asked.append((host, port))
        return ["127.0.0.9", "127.0.0.1"]  # Nobody listens on the first one.

    assert get(f"http://hook.example:{server.port}/", session=Session(lookup=lookup)) == (200, b"ok")
    assert asked == [("hook.example", server.port)]
    assert b"Host: hook.example:%d\r\n" % server.port in server.requests[0]


def test_what_the_lookup_raises_reaches_the_caller() -> None:
    class Forbidden(Exception):
        pass

    def lookup(host: str, port: int, seconds: float) -> list[str]:
        raise Forbidden

    with pytest.raises(Forbidden):
        get("http://hook.example/", session=Session(lookup=lookup))
    with pytest.raises(Forbidden):
        get("https://hook.example/", session=Session(lookup=lookup))


def test_ipv6_and_ipv4_mapped_addresses(serve: Serve) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        server = serve(OK, family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    assert get(server.url) == (200, b"ok")
    assert b"Host: [::1]:%d\r\n" % server.port in server.requests[0]
    mapped = serve(OK)
    assert get(f"http://[::ffff:127.0.0.1]:{mapped.port}/") == (200, b"ok")


def test_a_server_without_tls_is_not_connected(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            connection.sendall(OK)
            connection.recv(1000)
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        error = failure(f"https://127.0.0.1:{listener.getsockname()[1]}", NotConnected)
    assert isinstance(error.reason, ssl.SSLError)


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_nothing_of_the_environment_is_used(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, server = serve(b"HTTP/1.1 502 Proxy\r\nContent-Length: 0\r\n\r\n"), serve(OK)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "netrc"))
    assert get(server.url) == (200, b"ok")
    assert proxy.connections == 0 and b"Authorization" not in server.requests[0]


def test_cookies_are_not_kept(serve: Serve) -> None:
    server = serve(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 2\r\n\r\nok")
    session = Session()
    for _ in range(2):
        get(server.url, session=session)
    assert len(server.requests) == 2 and b"Cookie" not in server.requests[1]


@pytest.mark.parametrize("path", ["/a/../b//c?x=%20y&z=%7E", "/%2E%2E/", "/a%2Fb"])
def test_a_path_is_sent_as_it_was_written(serve: Serve, path: str) -> None:
    server = serve(OK)
    get(server.url + path)
    assert server.requests[0].startswith(b"GET %s HTTP/1.1\r\n" % path.encode())


def test_a_head_and_its_body_leave_in_one_packet(serve: Serve) -> None:
    server = serve(OK)
    get(server.url, method="POST", body=b"x" * 500, headers={"Content-Type": "text/plain"})
    assert server.requests[0].endswith(b"\r\n\r\n" + b"x" * 500)
