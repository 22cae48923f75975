"""HTTP to an engine's server: bounded in time and size, and each failure told apart.

Connections are kept. Redirects are never followed and proxies of the environment never used: what is called
is what the operator wrote.
"""

from __future__ import annotations

import http.client
import io
import json
import logging
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from voiceproject.errors import EngineError, EngineTimeout, EngineUnavailable, PublicError

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
STALE_SECONDS = 1.0  # a kept connection that breaks so soon had been closed before our request came


class CallFailed(Exception):
    """A call went wrong. error: what the client is told.

    unsettled: the server may still be working on it; unreachable: nothing took the connection; refused: it answered
    that it takes no work now.
    """

    def __init__(
        self, error: PublicError, *, unsettled: bool = False, unreachable: bool = False, refused: bool = False
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.unsettled = unsettled
        self.unreachable = unreachable
        self.refused = refused


class _WasClosed(Exception):
    """The server had closed a kept connection just as we wrote to it: it has done nothing with what we wrote."""


@dataclass(frozen=True)
class Answer:
    status: int
    content_type: str
    body: bytes
    retry_after: str = ""

    def json(self) -> dict[str, Any]:
        """The object that the body is; empty where it is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


class _DeadlineReader(io.RawIOBase):
    """What a socket sends, until a time.monotonic() value: a server that drips bytes cannot stretch it."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("deadline passed")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _InOnePiece:
    """A connection's mixin: a request is sent when all of it is there, its head and its body in one packet."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unsent: list[bytes] = []

    def send(self, data: Any) -> None:
        self._unsent.append(data)

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._unsent.clear()
        super().request(*args, **kwargs)  # type: ignore[misc]
        super().send(b"".join(self._unsent))  # type: ignore[misc]
        self._unsent.clear()


class _Connection(_InOnePiece, http.client.HTTPConnection):
    pass


class _TLSConnection(_InOnePiece, http.client.HTTPSConnection):
    pass


class Server:
    """HTTP to one base URL (http or https, with a path and basic authentication where it has them)."""

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("a server's URL is http://host:port or https://host:port")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host, self._port = parts.hostname, parts.port
        self._path = parts.path.rstrip("/")
        self._headers = {"Accept": "audio/wav, application/json"}
        if parts.username:
            secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = "Basic " + b64encode(secret.encode()).decode("ascii")
        # Without the secret: this names the server in the database and in logs.
        self.name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{self._path}"
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def request(
        self,
        method: str,
        path: str,
        deadline: float,
        max_bytes: int,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The whole answer, at most max_bytes of body. Raises CallFailed; deadline: time.monotonic()."""
        headers = {**self._headers, **(headers or {})}
        connection = self._kept()
        if connection is not None:
            try:
                return self._exchange(connection, method, path, body, headers, deadline, max_bytes)
            except _WasClosed:
                log.debug("%s closed an idle connection", self.name)
        return self._exchange(self._connect(deadline), method, path, body, headers, deadline, max_bytes)

    def _connect(self, deadline: float) -> http.client.HTTPConnection:
        timeout = max(0.001, min(CONNECT_SECONDS, deadline - time.monotonic()))
        connection: http.client.HTTPConnection
        if self._tls is not None:
            connection = _TLSConnection(self._host, self._port, timeout=timeout, context=self._tls)
        else:
            connection = _Connection(self._host, self._port, timeout=timeout)
        try:
            connection.connect()
        except (OSError, UnicodeError) as error:  # refused, no route, no such name, no TLS, no answer in time
            connection.close()
            if isinstance(error, TimeoutError) and time.monotonic() >= deadline:
                raise CallFailed(EngineTimeout()) from error  # that says nothing of the server
            log.warning("%s cannot be reached: %s", self.name, error)
            raise CallFailed(EngineUnavailable(), unreachable=True) from error
        return connection

    def _kept(self) -> http.client.HTTPConnection | None:
        """An idle connection that the server has not closed."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            try:
                connection.sock.settimeout(0)
                if isinstance(connection.sock, ssl.SSLSocket):
                    connection.sock.read(1)
                else:
                    connection.sock.recv(1, socket.MSG_PEEK)
            except (BlockingIOError, ssl.SSLWantReadError):
                return connection  # nothing to read: it is open
            except (OSError, ValueError):
                pass
            connection.close()

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        deadline: float,
        max_bytes: int,
    ) -> Answer:
        fresh = not getattr(connection, "was_used", False)
        started = time.monotonic()
        keep = False
        answering = False
        try:
            sock = connection.sock
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            connection.response_class = _response_until(deadline)
            connection.request(method, self._path + path, body, dict(headers))
            response = connection.getresponse()
            answering = True
            chunks, size = [], 0
            while size <= max_bytes and (chunk := response.read(min(65536, max_bytes + 1 - size))):
                chunks.append(chunk)
                size += len(chunk)
            if size > max_bytes:
                log.error("%s sent more than %d bytes", self.name, max_bytes)
                raise CallFailed(EngineError(), unsettled=True)
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)
            keep = not response.will_close
            return Answer(
                response.status,
                response.headers.get_content_type(),
                b"".join(chunks),
                response.headers.get("Retry-After", ""),
            )
        except TimeoutError as error:
            raise CallFailed(EngineTimeout(), unsettled=True) from error
        except (OSError, http.client.HTTPException) as error:
            if not answering and isinstance(error, OSError):
                if not fresh and time.monotonic() - started < STALE_SECONDS:
                    raise _WasClosed from error
                log.warning("%s closed the connection without an answer: %s", self.name, error)
                raise CallFailed(EngineUnavailable(), unsettled=True) from error
            log.error("%s broke off its answer or does not speak HTTP: %s", self.name, type(error).__name__)
            raise CallFailed(EngineError(), unsettled=True) from error
        finally:
            if keep:
                connection.was_used = True  # type: ignore[attr-defined]
                with self._lock:
                    self._idle.append(connection)
            else:
                connection.close()


def _response_until(deadline: float) -> type[http.client.HTTPResponse]:
    class Response(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
            super().__init__(sock, *args, **kwargs)
            self.fp.close()
            self.fp = io.BufferedReader(_DeadlineReader(sock, deadline))

    return Response
