"""The ASGI application: requests are read and answers are sent by coroutines, the views run in a pool of threads.

Django's own handler for ASGI reads a body before its key is checked, runs one request after the other in one thread,
and gathers what a synchronous view streams. Here the whole synchronous stack of middleware and view is one call in a
thread, for a large body two: one that checks what the head tells, and one when the body is there.
"""

from __future__ import annotations

import asyncio
import codecs
import io
import logging
import threading
import time
from typing import Any

from django.conf import settings
from django.core import signals
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.base import BaseHandler
from django.http import FileResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from voiceproject.errors import PublicError, StreamBroken
from voiceproject.server import EXTENSION, websockets
from voiceproject.server.bodies import FREE_BYTES, Body
from voiceproject.telemetry.logging import bind, loggable
from voiceproject.web import slots
from voiceproject.web.client_ip import comes_from_proxy
from voiceproject.web.errors import json_response
from voiceproject.web.streams import (
    BROKEN,
    DONE,
    GONE,
    LAPSED,
    STOPPED,
    TOO_SLOW,
    BodyWanted,
    Held,
    Live,
    Stream,
    streams,
)
from voiceproject.web.threads import in_thread

log = logging.getLogger(__name__)
access_log = logging.getLogger("voiceproject.access")

BLOCK_BYTES = 64 * 1024
RECHECK_SECONDS = 4.0  # A key that was checked with the head is checked again behind a body that took longer.
# What only a proxy may say. Where TRUSTED_PROXIES names none, whoever connects is taken for one, as with HTTPS=true.
FORWARDED = ("HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST", "HTTP_FORWARDED")
LONG_SECONDS = 1.0  # The end of a download that went well is logged only where it took so long.
_END = object()


class TooSlow(Exception):
    """The client takes less than it must."""


class Request(ASGIRequest):
    """head_only: the body has not been read, and whoever would read it answers BodyWanted; client_gone: who asks has
    hung up; body_limit: set by who has checked the head; credentials, scopes: by who has checked the key."""

    head_only = False
    body_limit = 0
    credentials: Any = None
    scopes: tuple[str, ...] = ()
    request_id = ""
    log_ids: dict[str, str] = {}  # what log lines of it carry, once the middleware was left

    def __init__(self, scope: Any, gone: threading.Event) -> None:
        super().__init__(scope, io.BytesIO())
        self.client_gone = gone
        if settings.TRUSTED_PROXIES and not comes_from_proxy(self.META, settings.TRUSTED_PROXIES):
            for name in FORWARDED:
                self.META.pop(name, None)

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        meta["CONTENT_TYPE"] = readable_content_type(meta.get("CONTENT_TYPE", ""))
        super()._set_content_type_params(meta)  # type: ignore[misc] # the stubs do not know it

    def take(self, body: Body) -> None:
        self.head_only = False
        if body.seconds > RECHECK_SECONDS:
            self.credentials = None
        self._stream = body.stream()
        if body.chunked:
            self.META["CONTENT_LENGTH"] = str(body.received)


def readable_content_type(content_type: str) -> str:
    """Without a charset that is none: `charset=hex` would fail before any middleware."""
    _, _, charset = content_type.lower().partition("charset=")
    name = charset.split(";")[0].strip(" \"'")
    try:
        if name:
            "".encode(name)
            codecs.lookup(name)
    except (LookupError, ValueError):
        return content_type.split(";")[0]
    return content_type


class Application(BaseHandler):
    def __init__(self) -> None:
        super().__init__()
        self.load_middleware()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await websockets.serve(scope, receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']} is not served here")
        await Exchange(self, scope, receive, send).run()


class Exchange:
    """One request and its answer."""

    def __init__(self, handler: Application, scope: Any, receive: Any, send: Any) -> None:
        self._handler = handler
        self._receive = receive
        self._connection = scope.get("extensions", {}).get(EXTENSION)
        self._send = Sender(send, self._connection)
        self._gone = threading.Event()
        self._body = Body(scope, receive)
        self._request = Request(scope, self._gone)
        self._response: HttpResponseBase | None = None
        self._body_places: slots.Release | None = None
        self._stream: Stream | None = None
        self._end = DONE

    async def run(self) -> None:
        watch: asyncio.Task[None] | None = None
        try:
            if await self._checked():
                self._reserve()
                await self._body.read(self._request.body_limit or FREE_BYTES)
                self._limit()
                if self._body.complete:
                    if self._connection is not None:
                        self._connection.on_end = self._left
                    watch = asyncio.create_task(self._watch())
                self._request.take(self._body)
                await in_thread(self._respond, gone=self._gone)
            await self._deliver()
        except TooSlow:
            self._end = TOO_SLOW
            self._cut(reset=True)
        except asyncio.CancelledError:
            # The time for a graceful stop is over. Nobody awaits this task, and uvicorn would log it as an error.
            log.warning("an answer was cut off, since the server stops", extra={"request_id": self._request.request_id})
            self._end = STOPPED
            self._cut()
        finally:
            self._tell_end()
            if self._connection is not None:
                self._connection.on_end = None
            if watch is not None:
                watch.cancel()
            if self._stream is not None:
                streams.discard(self._stream)
            if self._response is not None and not self._response.closed:
                await in_thread(self._response.close, cleanup=True)
            if self._response is not None and not self._response.streaming:
                # A view and its request hold each other, and so the answer, until garbage is looked for.
                self._response.content = b""  # type: ignore[attr-defined]
            self._body.close()
            if self._body_places is not None:
                self._body_places()

    def _reserve(self) -> None:
        """Counts a large body against its tenant's share, before it is read."""
        body, request = self._body, self._request
        if request.credentials and not body.complete and body.error is None:
            tenant = request.credentials[0].pk
            self._body_places = slots.bodies.acquire(tenant, body.stated or request.body_limit)
            if self._body_places is None:
                body.error = slots.bodies.refusal(tenant)

    def _tell_end(self) -> None:
        """Logs the end of an answer that was held or streamed; the middleware has logged its start."""
        stream, seconds = self._stream, self._body.seconds
        if stream is None:
            return
        end = stream.why or self._end
        if stream.waits or end != DONE or seconds >= LONG_SECONDS:
            extra = {"duration_ms": round(1000 * seconds), "bytes": self._send.sent, "ended": end}
            with bind(**self._request.log_ids):
                access_log.info("%s %s ended", self._request.method, loggable(self._request.path), extra=extra)

    async def _checked(self) -> bool:
        """Whether the body shall be read, as far as the head tells. A small one is there before anybody could ask."""
        body = self._body
        if not body.awaited and (body.stated is None or body.stated <= FREE_BYTES):
            await body.read(FREE_BYTES)
            if body.complete or body.error is not None:
                return True
        elif body.complete:
            return True
        self._request.head_only = True
        await in_thread(self._respond)
        if not isinstance(self._response, BodyWanted):
            return False
        self._response = None
        return True

    def _limit(self) -> None:
        limit, body = self._request.body_limit, self._body
        if limit and body.received > limit and body.error is None:
            message = f"The request has more than {limit} bytes, and no more are taken here."
            body.error = PublicError("file_too_large", message, {"limit": limit, "found": body.received})

    def _respond(self) -> None:
        """Middleware and view, in a thread of the pool."""
        signals.request_started.send(sender=Application, scope=self._request.scope)
        response = self._handler.get_response(self._request)
        response._handler_class = Application  # type: ignore[attr-defined] # who sends request_finished
        self._response = response
        if not response.streaming and not isinstance(response, BodyWanted | Held):
            response.close()

    async def _watch(self) -> None:
        """Tells whoever works on the answer that nobody waits for it any more."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left()

    def _left(self) -> None:
        self._gone.set()
        if self._stream is not None:
            self._stream.end(GONE)

    def _open(self, waits: bool) -> Stream:
        task = asyncio.current_task()
        assert task is not None
        key = self._request.credentials[1].pk if self._request.credentials else None
        if self._request.resolver_match is not None:
            self._request.resolver_match.tried = None  # All routes that it is not: a thousand streams would keep them.
        self._stream = Stream(task, key, self._request.scopes, waits)
        streams.add(self._stream)
        if self._gone.is_set():
            self._stream.end(GONE)
        return self._stream

    async def _deliver(self) -> None:
        response = self._response
        if isinstance(response, Held):
            response = await self._hold(response)
        if response is None:
            self._cut()
            return
        await self._send.start(response, close=not self._body.complete)
        if response.streaming and self._request.method != "HEAD":
            assert isinstance(response, StreamingHttpResponse)
            if not await self._pump(response):
                return
        elif not response.streaming:
            content = response.content  # type: ignore[attr-defined]
            for at in range(0, len(content), BLOCK_BYTES):
                await self._send.block(content[at : at + BLOCK_BYTES])
        if not self._body.complete and not self._body.awaited and not self._body.gone:
            await self._body.drain()
        await self._send.end()

    async def _hold(self, response: Held) -> HttpResponseBase | None:
        stream = self._open(waits=True)
        try:
            await response.wait()
        except asyncio.CancelledError:
            if not stream.ended():
                raise
        if stream.why == GONE:
            return None
        if stream.why == LAPSED:
            ended = json_response(lapsed())
            ended["X-Request-ID"] = self._request.request_id
            return ended
        await in_thread(response.finish)
        return response

    async def _pump(self, response: StreamingHttpResponse) -> bool:
        """Sends a streamed body; whether it is whole."""
        stream = self._open(waits=isinstance(response, Live))
        try:
            if isinstance(response, Live):
                async for block in response.blocks():
                    await self._send.block(block)
                return True
            if isinstance(response, FileResponse):
                response.block_size = BLOCK_BYTES
            blocks = iter(response)
            while not self._gone.is_set():
                block = await in_thread(next, blocks, _END, gone=self._gone)
                if block is _END:
                    return True
                await self._send.block(block)
        except asyncio.CancelledError:
            if not stream.ended():
                self._cut()
                raise
            if isinstance(response, Live) and stream.why != GONE:
                await self._send.block(response.last(stream.why))
                return True
        except StreamBroken:
            log.debug("a streamed body is cut off")
        except OSError as error:
            log.warning("a body could not be read to its end: %s", error)
        self._end = BROKEN
        self._cut()
        return False

    def _cut(self, reset: bool = False) -> None:
        if self._connection is None:
            raise StreamBroken  # The server closes the connection.
        self._connection.cut(reset)


def lapsed() -> PublicError:
    return PublicError("invalid_api_key", "This API key was revoked, has expired, or may no longer do this.")


class Sender:
    """An ASGI `send` for a client that must take what it gets at a rate. Raises TooSlow.

    Only the time counts in which the client is waited for.
    """

    IDLE_SECONDS = 30.0
    GRACE_SECONDS = 30.0
    MIN_BYTES_A_SECOND = 8 * 1024

    def __init__(self, send: Any, connection: Any = None) -> None:
        self._send = send
        self._flow = getattr(connection, "flow", None)
        self._waited = 0.0
        self.sent = 0  # bytes of the body

    async def start(self, response: HttpResponseBase, close: bool) -> None:
        headers = [(name.encode("ascii"), value.encode("latin1")) for name, value in response.items()]
        headers += [
            (b"Set-Cookie", cookie.output(header="").strip().encode("ascii")) for cookie in response.cookies.values()
        ]
        bodiless = response.streaming or response.status_code in (204, 304)
        if not bodiless and not response.has_header("Content-Length"):
            headers.append((b"Content-Length", str(len(response.content)).encode()))  # type: ignore[attr-defined]
        if close:
            headers.append((b"Connection", b"close"))
        await self._timed({"type": "http.response.start", "status": response.status_code, "headers": headers}, 0)

    async def block(self, block: bytes) -> None:
        if block:
            await self._timed({"type": "http.response.body", "body": block, "more_body": True}, len(block))

    async def end(self) -> None:
        await self._timed({"type": "http.response.body"}, 0)

    async def _timed(self, message: dict[str, Any], count: int) -> None:
        self.sent += count
        if self._flow is not None and not self._flow.write_paused:
            await self._send(message)  # Then it waits for nobody, and a timer for each block is dear.
            return
        allowed = self.GRACE_SECONDS + (self.sent - count) / self.MIN_BYTES_A_SECOND - self._waited
        started = time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, min(self.IDLE_SECONDS, allowed))):
                await self._send(message)
        except TimeoutError:
            raise TooSlow from None
        self._waited += time.monotonic() - started
