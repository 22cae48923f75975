"""WebSockets, for the routes in `registry.websockets`.

A key comes as a header, as with requests, or as a subprotocol `...-api-key.KEY` from a browser, which can send no
header; on some routes also in the first message; never in the URL, since URLs are logged. What is refused before the
socket is open is an ordinary HTTP answer; on some routes a refused key is told over an open socket.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest

from voiceproject.errors import PublicError, envelope
from voiceproject.registry import WebSocketRoute, registry
from voiceproject.server import EXTENSION
from voiceproject.telemetry import metrics
from voiceproject.telemetry.logging import bind
from voiceproject.web import slots
from voiceproject.web.errors import as_public_error
from voiceproject.web.middleware import compat_path
from voiceproject.web.streams import DONE, GONE, LAPSED, STOPPED, Stream, streams
from voiceproject.web.threads import with_database

log = logging.getLogger("voiceproject.access")

KEY_IN_SUBPROTOCOL = re.compile(r"[a-z-]*api-key\.(\S+)")
KEY_IN_QUERY = re.compile(rb"(?:^|&)(?:[a-z]+[-_])*(?:api[-_]?key|authorization|token)=", re.IGNORECASE)
# Close codes (RFC 6455 and IANA's registry).
NORMAL, GOING_AWAY, UNSUPPORTED, POLICY, FAILED, RESTARTING = 1000, 1001, 1003, 1008, 1011, 1012
MAX_REASON_BYTES = 123
KEYLESS = "sockets without a key"  # whose places they take, all together


class SocketClosed(Exception):
    """The other end has closed the socket, or it was closed because that end was silent or took nothing."""


class Socket:
    """An open WebSocket of a tenant. tenant, key: as for a request; ids: to bind log lines with; request: its
    handshake, which has no body."""

    IDLE_SECONDS = 180.0  # without a message; pings and pongs are none
    SEND_SECONDS = 30.0  # for the client to take what it is sent
    KEY_SECONDS = 10.0  # for the first message, where the key may come in it

    tenant: Any = None
    key: Any = None
    sent = 0  # characters or bytes, in messages
    # Set by who handles it: called when the server stops; whether it ends by itself, soon.
    finish: Callable[[], bool] | None = None

    def __init__(self, scope: Any, receive: Any, send: Any, ids: dict[str, Any]) -> None:
        self.ids = ids
        self.request = ASGIRequest({**scope, "method": "GET"}, None)  # type: ignore[arg-type] # it has no body
        self.request.request_id = ids["request_id"]  # type: ignore[attr-defined]
        self.closed = False
        self._connection = scope.get("extensions", {}).get(EXTENSION)
        self._receive = receive
        self._send = send
        self._first: str | bytes | None = None
        self._secret = ""
        self._scopes: tuple[str, ...] = ()

    def readmit(self) -> tuple[Any, Any]:
        """The tenant and the key as they are now, counted as one more request. Asks the database. Raises PublicError.

        For what is done on a socket long after it was opened.
        """
        assert registry.admit is not None
        self.tenant, self.key = registry.admit(self.request.META, self._secret, self._scopes)
        return self.tenant, self.key

    async def admit(self, secret: str, route: WebSocketRoute) -> None:
        """Raises PublicError."""
        self._secret, self._scopes = secret, route.scopes
        await with_database(self.readmit)
        self.ids |= {"tenant": self.tenant.pk, "key": self.key.pk}

    async def admit_by_message(self, route: WebSocketRoute) -> None:
        """Reads the first message for the key, and keeps it for `receive`. Raises PublicError, SocketClosed."""
        assert route.secret_in is not None
        self._first = await self.receive(self.KEY_SECONDS)
        await self.admit(route.secret_in(self._first), route)

    async def receive(self, seconds: float | None = None) -> str | bytes:
        """The next message. Raises SocketClosed, also when none comes within `seconds` (IDLE_SECONDS)."""
        try:
            return await self.next(self.IDLE_SECONDS if seconds is None else seconds)
        except TimeoutError:
            await self.close(POLICY, "no message came in time")
            raise SocketClosed from None

    async def next(self, seconds: float) -> str | bytes:
        """As `receive`, but raises TimeoutError when no message comes, and the socket stays open."""
        if self._first is not None:
            message_kept, self._first = self._first, None
            return message_kept
        await asyncio.sleep(0)  # Many messages may be there already: others have their turn in between.
        async with asyncio.timeout(seconds):
            message = await self._receive()
        if message["type"] != "websocket.receive":
            self.closed = True
            raise SocketClosed
        text = message.get("text")
        return message["bytes"] if text is None else text

    async def send(self, message: str | bytes) -> None:
        """Raises SocketClosed, also when the client does not take it in time."""
        if self.closed:
            raise SocketClosed
        name = "text" if isinstance(message, str) else "bytes"
        self.sent += len(message)
        await self._timed({"type": "websocket.send", name: message})

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        if not self.closed:
            self.closed = True
            reason = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
            await self._timed({"type": "websocket.close", "code": code, "reason": reason})

    async def _timed(self, message: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(self.SEND_SECONDS):
                await self._send(message)
        except (TimeoutError, OSError) as error:
            self.closed = True
            if isinstance(error, TimeoutError) and self._connection is not None:
                self._connection.cut()
            raise SocketClosed from None


async def serve(scope: Any, receive: Any, send: Any) -> None:
    started = metrics.request_started()
    await receive()  # websocket.connect
    headers = {name.decode().lower(): value.decode("latin1") for name, value in scope["headers"]}
    sent_id = headers.get("x-request-id", "")
    request_id = sent_id if re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", sent_id) else uuid.uuid4().hex
    scope = {**scope, "path": compat_path(headers.get("host", ""), scope["path"])}
    route, groups = _find(scope["path"])
    socket = Socket(scope, receive, send, {"request_id": request_id})
    secret = _secret(scope, headers)
    later = route is not None and route.secret_in is not None and not secret
    later = later and KEY_IN_QUERY.search(scope["query_string"]) is None
    place: Callable[[], None] | None = None
    refused: PublicError | None = None
    try:
        try:
            check_host(socket.request)
            if route is None:
                raise PublicError("not_found", "There is no WebSocket here.")
            if not later:
                await socket.admit(secret, route)
            place = slots.streams.take(KEYLESS if later else socket.tenant.pk)
        except Exception as error:
            refused = _public(error, socket)
            if route is not None and route.refuses_open and refused.status in (401, 403):
                place = slots.streams.acquire(KEYLESS)
            if place is None or route is None:
                _tell(scope, route, refused.status, started, {"request_id": request_id}, refused.code)
                await _refuse(send, route, refused, request_id)
                return
        # What the client has offered besides its key.
        spoken = next((name for name in scope["subprotocols"] if not KEY_IN_SUBPROTOCOL.fullmatch(name)), None)
        named = [(b"x-request-id", request_id.encode())]
        await send({"type": "websocket.accept", "subprotocol": spoken, "headers": named})
        if later and refused is None:
            try:
                await socket.admit_by_message(route)
                place()
                place = None
                place = slots.streams.take(socket.tenant.pk)
            except SocketClosed:
                _tell(scope, route, 101, started, {"request_id": request_id})
                return
            except Exception as error:
                refused = _public(error, socket)
        if refused is not None:
            _tell(scope, route, 101, started, {"request_id": request_id}, refused.code)
            await _end(socket, route, refused)
            return
        _tell(scope, route, 101, started, socket.ids)
        await _run(route, socket, groups)
    finally:
        if place is not None:
            place()


def check_host(request: ASGIRequest) -> None:
    """Refuses host names that are not this server's, as for other requests. Raises PublicError."""
    try:
        request.get_host()
    except DisallowedHost:
        raise PublicError("validation_error", "This host name is not served here; see ALLOWED_HOSTS.") from None


def _find(path: str) -> tuple[WebSocketRoute | None, dict[str, str]]:
    for route in registry.websockets:
        if match := route.path.fullmatch(path):
            return route, match.groupdict()
    return None, {}


def _secret(scope: Any, headers: dict[str, str]) -> str:
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    offered = (KEY_IN_SUBPROTOCOL.fullmatch(name) for name in scope["subprotocols"])
    secret = (
        headers.get("xi-api-key")
        or headers.get("x-api-key")
        or (bearer if scheme.lower() == "bearer" else "")
        or next((match[1] for match in offered if match), "")
    )
    return secret.strip()


def _public(error: Exception, socket: Socket) -> PublicError:
    public = as_public_error(error)
    if public.code == "internal_error":
        log.error("unhandled error", exc_info=error, extra=socket.ids)
    return public


async def _refuse(send: Any, route: WebSocketRoute | None, error: PublicError, request_id: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"x-request-id", request_id.encode())]
    if error.retry_after:
        headers.append((b"retry-after", str(round(error.retry_after)).encode()))
    shape = route.error_body if route is not None else None
    body = shape(error, request_id) if shape is not None else envelope(error)
    await send({"type": "websocket.http.response.start", "status": error.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": json.dumps(body).encode()})


def _tell(
    scope: Any, route: WebSocketRoute | None, status: int, started: float, ids: dict[str, Any], error: str = ""
) -> None:
    template = route.template if route is not None else None
    seconds = metrics.request_answered("GET", template, status, started, error)
    with bind(**ids):
        log.info("GET %s %s", scope["path"], status, extra={"duration_ms": round(1000 * seconds)})


async def _run(route: WebSocketRoute, socket: Socket, groups: dict[str, str]) -> None:
    task = asyncio.current_task()
    assert task is not None
    stream = Stream(task, socket.key.pk, route.scopes, waits=True)
    stream.finish = lambda: socket.finish is not None and socket.finish()
    streams.add(stream)
    with bind(**socket.ids):
        # In a task of its own: the socket is closed at once when its key ends, and what it does ends behind that.
        handling = asyncio.create_task(route.handle(socket, **groups))
    error: PublicError | None = None
    began, ended = time.monotonic(), DONE
    try:
        await asyncio.wait({handling})
        failure = handling.exception() if not handling.cancelled() else None
        if isinstance(failure, SocketClosed):
            ended = STOPPED if stream.finishing else GONE
        if isinstance(failure, Exception) and not isinstance(failure, SocketClosed):
            error = _public(failure, socket)
        await _end(socket, route, error)
    except asyncio.CancelledError:
        if not stream.ended():
            ended = STOPPED  # The time for a graceful stop is over.
            raise
        if stream.why == LAPSED:
            message = "This API key was revoked, has expired, or may no longer do this."
            await _end(socket, route, PublicError("invalid_api_key", message))
        else:
            await _end(socket, route, None, RESTARTING, "the server stops")
    finally:
        streams.discard(stream)
        handling.cancel()
        # Told first: a server that stops may not wait for what was handled.
        extra = {
            "duration_ms": round(1000 * (time.monotonic() - began)),
            "bytes": socket.sent,
            "ended": stream.why or (error.code if error else ended),
        }
        with bind(**socket.ids):
            log.info("GET %s ended", socket.request.path, extra=extra)
        await asyncio.wait({handling})


async def _end(
    socket: Socket, route: WebSocketRoute, error: PublicError | None, code: int = NORMAL, reason: str = ""
) -> None:
    """Closes a socket that is still open. error: why, if it is for an error."""
    try:
        if error is not None:
            code, reason = FAILED if error.status >= 500 else POLICY, str(error)
            if route.last_message is not None:
                await socket.send(route.last_message(error, code))
        await socket.close(code, reason)
    except SocketClosed:
        pass
