"""WebSockets, for the routes in `registry.websockets`.

A key comes as a header, as with requests, or as a subprotocol `...-api-key.KEY` from a browser, which can send no
header; never in the URL, since URLs are logged. What is refused before the socket is open is an ordinary HTTP answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import uuid
from typing import Any

from django.core.handlers.asgi import ASGIRequest

from voiceproject.errors import PublicError, envelope
from voiceproject.registry import WebSocketRoute, registry
from voiceproject.server.connection import EXTENSION
from voiceproject.telemetry import metrics
from voiceproject.telemetry.logging import bind
from voiceproject.web import slots
from voiceproject.web.errors import as_public_error
from voiceproject.web.streams import LAPSED, STOPPED, Stream, streams
from voiceproject.web.threads import with_database

log = logging.getLogger("voiceproject.access")

KEY_IN_SUBPROTOCOL = re.compile(r"[a-z-]*api-key\.(\S+)")
# Close codes (RFC 6455 and IANA's registry).
NORMAL, GOING_AWAY, UNSUPPORTED, POLICY, FAILED, RESTARTING = 1000, 1001, 1003, 1008, 1011, 1012
MAX_REASON_BYTES = 123


class SocketClosed(Exception):
    """The other end has closed the socket, or it was closed because that end was silent or took nothing."""


class Socket:
    """An open WebSocket of a tenant. tenant, key: as for a request; ids: to bind log lines with."""

    IDLE_SECONDS = 180.0  # without a message; pings and pongs are none
    SEND_SECONDS = 30.0  # for the client to take what it is sent

    def __init__(self, scope: Any, receive: Any, send: Any, tenant: Any, key: Any, ids: dict[str, Any]) -> None:
        self.tenant = tenant
        self.key = key
        self.ids = ids
        self.query = scope["query_string"].decode()
        self._connection = scope.get("extensions", {}).get(EXTENSION)
        self._receive = receive
        self._send = send
        self.closed = False

    async def receive(self, seconds: float | None = None) -> str | bytes:
        """The next message. Raises SocketClosed, also when none comes within `seconds` (IDLE_SECONDS)."""
        try:
            async with asyncio.timeout(self.IDLE_SECONDS if seconds is None else seconds):
                message = await self._receive()
        except TimeoutError:
            await self.close(POLICY, "no message came in time")
            raise SocketClosed from None
        if message["type"] != "websocket.receive":
            self.closed = True
            raise SocketClosed
        text = message.get("text")
        return message["bytes"] if text is None else text

    async def send(self, message: str | bytes) -> None:
        """Raises SocketClosed, also when the client does not take it in time."""
        name = "text" if isinstance(message, str) else "bytes"
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
    route, groups = _find(scope["path"])
    place = None
    try:
        try:
            if route is None:
                raise PublicError("not_found", "There is no WebSocket here.")
            tenant, key = await _admit(scope, headers, route)
            place = slots.streams.take(tenant.pk)
        except Exception as error:
            public = as_public_error(error)
            if public.code == "internal_error":
                log.error("unhandled error", exc_info=error, extra={"request_id": request_id})
            _tell(scope, route, public.status, started, {"request_id": request_id}, public.code)
            await _refuse(send, public, request_id)
            return
        ids = {"request_id": request_id, "tenant": tenant.pk, "key": key.pk}
        _tell(scope, route, 101, started, ids)
        # What the client has offered besides its key.
        spoken = next((name for name in scope["subprotocols"] if not KEY_IN_SUBPROTOCOL.fullmatch(name)), None)
        named = [(b"x-request-id", request_id.encode())]
        await send({"type": "websocket.accept", "subprotocol": spoken, "headers": named})
        await _run(route, Socket(scope, receive, send, tenant, key, ids), groups)
    finally:
        if place is not None:
            place()


def _find(path: str) -> tuple[WebSocketRoute | None, dict[str, str]]:
    for route in registry.websockets:
        if match := route.path.fullmatch(path):
            return route, match.groupdict()
    return None, {}


async def _admit(scope: Any, headers: dict[str, str], route: WebSocketRoute) -> tuple[Any, Any]:
    assert registry.admit is not None
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    offered = (KEY_IN_SUBPROTOCOL.fullmatch(name) for name in scope["subprotocols"])
    secret = (
        headers.get("xi-api-key")
        or headers.get("x-api-key")
        or (bearer if scheme.lower() == "bearer" else "")
        or next((match[1] for match in offered if match), "")
    )
    meta = ASGIRequest({**scope, "method": "GET"}, None).META  # type: ignore[arg-type] # it has no body
    tenant, key = await with_database(registry.admit, meta, secret.strip(), route.scopes)
    return tenant, key


async def _refuse(send: Any, error: PublicError, request_id: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"x-request-id", request_id.encode())]
    if error.retry_after:
        headers.append((b"retry-after", str(round(error.retry_after)).encode()))
    await send({"type": "websocket.http.response.start", "status": error.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": json.dumps(envelope(error)).encode()})


def _tell(
    scope: Any, route: WebSocketRoute | None, status: int, started: float, ids: dict[str, Any], error: str = ""
) -> None:
    template = route.path.pattern.lstrip("/") if route is not None else None
    seconds = metrics.request_answered("GET", template, status, started, error)
    with bind(**ids):
        log.info("GET %s %s", scope["path"], status, extra={"duration_ms": round(1000 * seconds)})


async def _run(route: WebSocketRoute, socket: Socket, groups: dict[str, str]) -> None:
    task = asyncio.current_task()
    assert task is not None
    stream = Stream(task, socket.key.pk, route.scopes, waits=True)
    streams.add(stream)
    code, reason = NORMAL, ""
    try:
        with bind(**socket.ids):
            await route.handle(socket, **groups)
    except SocketClosed:
        pass
    except asyncio.CancelledError:
        if not stream.ended():
            raise
        code, reason = {
            LAPSED: (POLICY, "the API key was revoked, has expired, or may no longer do this"),
            STOPPED: (RESTARTING, "the server stops"),
        }.get(stream.why, (GOING_AWAY, ""))
    except Exception as error:
        public = as_public_error(error)
        if public.code == "internal_error":
            log.error("unhandled error", exc_info=error, extra=socket.ids)
        code, reason = FAILED if public.status >= 500 else POLICY, str(public)
    finally:
        streams.discard(stream)
    try:
        await socket.close(code, reason)
    except SocketClosed:
        pass
