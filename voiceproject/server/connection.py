"""HTTP connections: uvicorn's, with an end for slow heads, and an answer in the envelope for what is no request.

uvicorn waits for the rest of a head without end, refuses in plain text, and waits without end too for a client to take
the last bytes before it closes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
import sys
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from voiceproject.errors import PublicError, envelope
from voiceproject.server import EXTENSION

log = logging.getLogger(__name__)

# A hand-written request line or header may be long, but not this long.
MAX_LINE_BYTES = 4094
MAX_HEADER_BYTES = 8190
MAX_HEADERS = 100
MAX_HEAD_BYTES = 64 * 1024
MAX_MESSAGE_BYTES = 1024 * 1024  # of a WebSocket; a longer one ends it with 1009
PIPELINED_BYTES = 64 * 1024  # of later requests, which are read ahead: the end of a connection is told behind them


def refusal(status: HTTPStatus, request_id: str) -> bytes:
    """A whole HTTP answer with the error envelope, for what never became a request."""
    error = PublicError("validation_error", f"The request was not understood: {status.phrase}.")
    body = json.dumps(envelope(error)).encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"X-Request-ID: {request_id}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Flush:
    """Ends a connection over which nothing more is to come, and whose last bytes nobody takes."""

    SECONDS = 30.0  # for any of them

    def __init__(self) -> None:
        self._unsent = 0
        self._since = 0.0

    def look(self, transport: Any, over: bool, now: float) -> None:
        unsent = transport.get_write_buffer_size()
        if not unsent or not over or unsent != self._unsent:
            self._unsent, self._since = unsent, now
        elif now - self._since > self.SECONDS:
            transport.abort()


class Connection(H11Protocol):
    """One client's connection. `look` is called about every second."""

    HEAD_SECONDS = 15.0  # for the request line and all headers together, from their first byte on

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._answer, self.app = self.app, self._checked
        self._head_since: float | None = None
        self.on_end: Callable[[], None] | None = None  # set while a request waits for its answer
        self._ended = False
        self.body_bytes = 0  # of the last request's body, with all that chunks have around them
        self._flush = Flush()

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # Who never sends a byte has the time that a kept connection has.
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return  # It was refused; nothing of it is wanted.
        if self._head_since is None and self.conn.their_state is h11.IDLE:
            self._head_since = self.loop.time()
        if self.conn.their_state is h11.SEND_BODY:
            self.body_bytes += len(data)
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._head_since = None
        ahead = self.flow.read_paused and self.conn.their_state is h11.DONE
        if ahead and len(self.conn.trailing_data[0]) < PIPELINED_BYTES:
            self.flow.resume_reading()

    def eof_received(self) -> bool:  # type: ignore[override] # uvicorn's closes at once
        """The client sends no more: it has gone, or waits for the answer to its last request."""
        if self.conn.their_state is h11.SEND_BODY:
            self.conn.receive_data(b"")
            self.handle_events()  # Which finds that a body broke off.
            return False
        if self.on_end is None:
            return False
        self._ended = True
        self.on_end()
        return True

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._ended:
            self.transport.close()

    def look(self, now: float) -> None:
        """Ends what has taken too long. now: the loop's time."""
        if self._head_since is not None and now - self._head_since > self.HEAD_SECONDS:
            self.refuse(HTTPStatus.REQUEST_TIMEOUT, "its head did not come in time")
        over = self.cycle is None or self.cycle.response_complete or self.transport.is_closing()
        self._flush.look(self.transport, over, now)

    def _should_upgrade(self) -> bool:
        # By HTTP/1.0 nobody can ask for another protocol (RFC 9110); it is an ordinary request then.
        return self.scope["http_version"] != "1.0" and super()._should_upgrade()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Refuses what is no handshake: uvicorn would answer nothing, or drop what came with it."""
        status = refused(self.scope)
        if status is None and (event.method != b"GET" or self.conn.trailing_data[0] or has_body(self.headers)):
            status = HTTPStatus.BAD_REQUEST
        if status is None:
            super().handle_websocket_upgrade(event)
            if self.transport.get_protocol().handshake_initiated:  # type: ignore[attr-defined] # a SocketConnection
                return
            status = HTTPStatus.BAD_REQUEST
        self.refuse(status, "it is no handshake of a WebSocket")

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn while it handles an error of h11."""
        error = sys.exc_info()[1]
        status = HTTPStatus(getattr(error, "error_status_hint", 400))
        if status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE and b"\n" not in self.conn.trailing_data[0]:
            status = HTTPStatus.REQUEST_URI_TOO_LONG
        self.refuse(status, str(error))

    def refuse(self, status: HTTPStatus, why: str) -> None:
        """Answers what is no request, and closes. Where an answer has begun already, it is cut off."""
        self._head_since = None
        request_id = uuid.uuid4().hex
        log.warning("refused with %d: %s", status, why, extra={"request_id": request_id})
        begun = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if not begun:
            self.transport.write(refusal(status, request_id))
        self.transport.close()

    def cut(self, reset: bool = False) -> None:
        """Ends an answer that will not be whole: without a last chunk, or by a reset where there are no chunks."""
        self.cycle.disconnected = True
        if not reset and self.scope["http_version"] != "1.0":
            self.transport.close()
            return
        connected: socket.socket | None = self.transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    async def _checked(self, scope: Any, receive: Any, send: Any) -> None:
        status = refused(scope)
        if status is not None:
            self.refuse(status, "its head is too large, or contradicts itself")
            return
        scope["extensions"] = {EXTENSION: self}
        self.body_bytes = 0
        await self._answer(scope, receive, send)


class SocketConnection(WebSocketsSansIOProtocol):
    """A WebSocket's connection. Pongs that nobody takes are not kept without end."""

    GOODBYE_SECONDS = 10.0  # for the client to answer that the socket is closed
    MAX_UNSENT_BYTES = 1024 * 1024
    PART_BYTES = 16 * 1024

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.close_timeout = self.GOODBYE_SECONDS
        self._flush = Flush()
        self._rest = bytearray()

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):
            self.scope["extensions"][EXTENSION] = self  # type: ignore[index, assignment]
            self.transport.pause_reading()  # Frames are read once the socket is open.

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.accept" and not self.transport.is_closing():
            self.transport.resume_reading()
        elif message["type"] == "websocket.http.response.body":
            self.handshake_complete = True  # uvicorn would take it for one that nobody has answered.

    def data_received(self, data: bytes) -> None:
        """Takes much of one client in parts: many small frames cost time, and others have their turns in between."""
        if not self.handshake_initiated or (not self._rest and len(data) <= self.PART_BYTES):
            self._take(data)
            return
        # uvloop would read up to 32 times as much before anybody else has a turn.
        self.transport.pause_reading()
        if not self._rest:
            self.loop.call_soon(self._take_on)
        self._rest += data

    def _take_on(self) -> None:
        if self.transport.is_closing():
            return
        part = bytes(self._rest[: self.PART_BYTES])
        del self._rest[: self.PART_BYTES]
        self._take(part)
        if self._rest:
            self.loop.call_soon(self._take_on)
        elif not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    async def receive(self) -> Any:
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            if not self._rest:
                self.transport.resume_reading()
        return message

    def _take(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.get_write_buffer_size() > self.MAX_UNSENT_BYTES:
            self.transport.abort()

    def look(self, now: float) -> None:
        self._flush.look(self.transport, self.transport.is_closing(), now)

    def cut(self) -> None:
        self.transport.abort()


def refused(scope: Any) -> HTTPStatus | None:
    """Why a head that h11 has taken is not taken here."""
    headers = scope["headers"]
    if scope["http_version"] not in ("1.0", "1.1"):
        return HTTPStatus.BAD_REQUEST
    if len(scope["method"]) + len(scope["raw_path"]) + len(scope["query_string"]) > MAX_LINE_BYTES:
        return HTTPStatus.REQUEST_URI_TOO_LONG
    if len(headers) > MAX_HEADERS or any(len(name) + len(value) > MAX_HEADER_BYTES for name, value in headers):
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    names = {name for name, _ in headers}
    if {b"content-length", b"transfer-encoding"} <= names:
        return HTTPStatus.BAD_REQUEST  # Which of both a proxy believes, nobody knows.
    return None


def has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in headers)


def look_at_all(connections: Any) -> None:
    """Called about every second with uvicorn's connections of this process."""
    now = asyncio.get_running_loop().time()
    for connection in tuple(connections):
        if isinstance(connection, Connection | SocketConnection):
            connection.look(now)
