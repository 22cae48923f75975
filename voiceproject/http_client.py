"""HTTP calls through `requests`, with the limits that it does not have by itself.

- One deadline for the whole call. The `timeout` of requests is for each socket operation: a server that sends a byte a
  second would never reach it.
- The caller can choose the addresses that a name stands for. The connection goes to one of those and to no other, while
  SNI, the certificate's check and the Host header keep the name.
- The head of an answer is limited here, its body by `read_body`. Content-Encoding is never decoded, so there is nothing
  that could inflate.
- A request leaves as soon as all of it is there, its head and its body in one packet where they fit.
- Redirects are not followed, cookies not kept, and proxies, .netrc and CA bundles of the environment not used: the
  adapter of requests knows none of them. Whom TLS trusts is what OpenSSL of this machine trusts (SSL_CERT_FILE).
"""

from __future__ import annotations

import functools
import http.client
import io
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.util import Timeout
from urllib3.util.connection import create_connection

RESOLVE_SECONDS = 5.0
MAX_HEAD_BYTES = 64 * 1024  # of an answer, those of interim answers (100, 103) included
STALE_SECONDS = 1.0  # a kept connection that breaks so soon had been closed before our request came
BLOCK_BYTES = 64 * 1024

# Host, port and seconds -> addresses. Raises OSError or UnicodeError; anything else reaches the caller as it is.
Lookup = Callable[[str, int, float], list[str]]


# requests and urllib3 wrap what they know of; these pass through them unchanged.
class CallError(Exception):
    """A call got no whole answer."""


class NotConnected(CallError):
    """No connection could be made: no such name, refused, no route, no TLS, or not in the time for it (reason)."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


class DeadlinePassed(CallError):
    """sent: the server may have got the request, or a part of it."""

    def __init__(self, *, sent: bool) -> None:
        super().__init__("the deadline has passed")
        self.sent = sent


class NoAnswer(CallError):
    """The connection ended before the head of an answer was complete.

    stale: it was a kept one that the server had closed just as we wrote to it, so it has done nothing with the request.
    """

    def __init__(self, reason: Exception, *, stale: bool) -> None:
        super().__init__(str(reason))
        self.stale = stale


class BadAnswer(CallError):
    """What came is not HTTP, breaks off, or is larger than allowed."""


class HeadTooLarge(http.client.HTTPException):
    """The head of an answer has more than MAX_HEAD_BYTES."""


class Session:
    """Keeps its connections; threads may share it. connect_seconds: for a name, TCP and TLS together.

    headers: sent with each call. What is not used of `requests.Session`, cookies, redirects and what the environment
    says, costs time all the same; so the adapter is asked directly.
    """

    def __init__(self, *, lookup: Lookup | None = None, connect_seconds: float | None = None) -> None:
        self.headers: dict[str, str] = {}
        self._adapter = _Adapter(lookup or resolve, connect_seconds)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._adapter.close()

    def call(
        self,
        method: str,
        url: str,
        deadline: float,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """The answer, its body still unread: use it in a `with`. deadline: time.monotonic(). Raises CallError."""
        prepared = requests.PreparedRequest()
        try:
            # `requests.Request` would have it encode parameters that there are none of.
            prepared.prepare(method, url, {**self.headers, **(headers or {})}, data=body)
        except requests.RequestException as error:
            raise NotConnected(error) from error
        prepared.url = url  # as it was written: requests would take dots out of the path and quote it anew
        timeout = Timeout(total=_left(deadline, sent=False))
        try:
            return self._adapter.send(
                prepared,
                stream=True,
                timeout=timeout,  # type: ignore[arg-type]  # as HTTPAdapter.send documents it
            )
        except requests.Timeout as error:
            raise DeadlinePassed(sent=True) from error
        except requests.RequestException as error:
            raise BadAnswer(_root_name(error)) from error


def read_body(response: requests.Response, max_bytes: int) -> bytes:
    """The whole body, not decoded. Raises DeadlinePassed, or BadAnswer where it breaks off or is longer."""
    blocks, size = [], 0
    try:
        while block := response.raw.read(min(BLOCK_BYTES, max_bytes + 1 - size), decode_content=False):
            blocks.append(block)
            size += len(block)
            if size > max_bytes:
                raise BadAnswer(f"a body of more than {max_bytes} bytes")
    except HTTPError as error:
        raise BadAnswer(_root_name(error)) from error
    return b"".join(blocks)


def resolve(host: str, port: int, seconds: float = RESOLVE_SECONDS) -> list[str]:
    """The addresses of a host. Raises TimeoutError, another OSError or UnicodeError where there is none in time."""
    answers: queue.Queue[list[str] | OSError | UnicodeError] = queue.Queue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.put(list(dict.fromkeys(str(entry[4][0]) for entry in found)))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    # The system's resolver knows no deadline; a thread that is left behind ends with the resolver's own.
    threading.Thread(target=ask, name="resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=max(0.0, seconds))
    except queue.Empty:
        raise TimeoutError("the name could not be resolved in time") from None
    if isinstance(answer, list):
        return answer
    raise answer


def _root_name(error: BaseException) -> str:
    """What was wrong at first. The texts of urllib3's errors hold the URL, or what the server has sent."""
    while error.__context__ is not None:
        error = error.__context__
    return type(error).__name__


def _left(deadline: float, *, sent: bool) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise DeadlinePassed(sent=sent)
    return left


class _Adapter(HTTPAdapter):
    def __init__(self, lookup: Lookup, connect_seconds: float | None) -> None:
        self._connections = {
            "http": functools.partial(_Connection, lookup=lookup, connect_seconds=connect_seconds),
            "https": functools.partial(_TLSConnection, lookup=lookup, connect_seconds=connect_seconds),
        }
        super().__init__()

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = self._connections[pool.scheme]
        return pool

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Leaves urllib3's own default, the machine's certificates: requests would have certifi's in their place."""


class _Bounded(HTTPConnection):
    """A connection of urllib3's whose `timeout` is what is left of the whole call."""

    timeout: float

    def __init__(self, *args: Any, lookup: Lookup, connect_seconds: float | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lookup = lookup
        self._connect_seconds = connect_seconds
        self._unsent: list[bytes] = []
        self._used = False
        self._connect_until = self._began = self._until = 0.0

    def connect(self) -> None:
        began = time.monotonic()
        until = began + self.timeout
        self._connect_until = until if self._connect_seconds is None else min(until, began + self._connect_seconds)
        self._used = False
        try:
            super().connect()
        except (OSError, UnicodeError) as error:
            if isinstance(error, TimeoutError) and time.monotonic() >= until:
                raise DeadlinePassed(sent=False) from error
            raise NotConnected(error) from error
        self.timeout = max(0.0, until - time.monotonic())

    def _new_conn(self) -> socket.socket:
        """A connection to the first address that takes one. The name is not looked up again."""
        host = self._dns_host
        addresses = self._lookup(host, self.port, min(RESOLVE_SECONDS, self._connect_left()))
        for index, address in enumerate(addresses):
            try:
                # One dead address must not use up the time of the next.
                share = self._connect_left() / (len(addresses) - index)
                connection = create_connection((address, self.port), share, socket_options=self.socket_options)
                connection.settimeout(self._connect_left())  # for all of the handshake
                return connection
            except OSError:
                if index == len(addresses) - 1:
                    raise
        raise OSError("the name has no address")

    def _connect_left(self) -> float:
        left = self._connect_until - time.monotonic()
        if left <= 0:
            raise TimeoutError("no connection in time")
        return left

    def send(self, data: Any) -> None:
        self._unsent.append(data)

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.is_closed:
            self.connect()
        self._began = time.monotonic()
        self._until = self._began + self.timeout
        self._unsent.clear()
        super().request(*args, **kwargs)
        unsent = memoryview(b"".join(self._unsent))
        self._unsent.clear()
        try:
            while unsent:
                self.sock.settimeout(_left(self._until, sent=True))
                unsent = unsent[self.sock.send(unsent) :]
        except TimeoutError as error:
            raise DeadlinePassed(sent=True) from error
        except ConnectionError:
            pass  # It may have answered before it hung up: to read will tell.
        except OSError as error:
            raise self._no_answer(error) from error

    def getresponse(self) -> Any:
        self.response_class = functools.partial(_Response, self._until)  # type: ignore[assignment]
        try:
            response = super().getresponse()
        except OSError as error:
            raise self._no_answer(error) from error
        self._used = True
        return response

    def _no_answer(self, error: OSError) -> NoAnswer:
        return NoAnswer(error, stale=self._used and time.monotonic() - self._began < STALE_SECONDS)


class _Connection(_Bounded):
    pass


class _TLSConnection(_Bounded, HTTPSConnection):
    pass


class _Response(http.client.HTTPResponse):
    """The final answer: interim ones (100 Continue, 103 Early Hints) are passed over."""

    def __init__(self, until: float, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self._reader = _Reader(sock, until)
        self.fp = _Buffer(self._reader)

    def begin(self, *args: Any, **kwargs: Any) -> None:
        super().begin(*args, **kwargs)
        while 100 <= self.status < 200:
            self.headers = self.msg = None  # type: ignore[assignment]
            super().begin(*args, **kwargs)
        self._reader.in_head = False
        # A header that is none is left out. urllib3 would log it, and the URL, which may hold a secret.
        self.headers.defects.clear()
        self.headers.set_payload("")


class _Buffer(io.BufferedReader):
    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:  # http.client would read a chunk of -1 bytes to the end of all that comes
            raise http.client.HTTPException("a negative size")
        return super().read(size)


class _Reader(io.RawIOBase):
    """What a socket sends, until a time.monotonic() value: a server that drips bytes cannot stretch it."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock = sock
        self._until = until
        self._raw = sock.makefile("rb", buffering=0)
        self._count = 0
        self.in_head = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.in_head and self._count >= MAX_HEAD_BYTES:
            raise HeadTooLarge
        self._sock.settimeout(_left(self._until, sent=True))
        try:
            count = self._raw.readinto(buffer)
        except TimeoutError as error:
            raise DeadlinePassed(sent=True) from error
        self._count += count or 0
        return count

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()
