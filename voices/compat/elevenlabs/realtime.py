"""Text to speech over WebSockets: stream-input, and multi-stream-input with several contexts on one socket.

A context gathers text, and speaks it part by part. Each part is a synthesis like any other, with the key, limits,
quota, filter and ledger of one; a context's audio is one stream over all of them.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import unquote

from django.db import close_old_connections
from django.http import QueryDict
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from voiceproject.errors import PublicError, StreamBroken
from voiceproject.registry import WebSocketRoute
from voiceproject.server.websockets import NORMAL, POLICY, RESTARTING, Socket, SocketClosed
from voiceproject.telemetry.logging import bind
from voiceproject.web.errors import as_public_error
from voiceproject.web.threads import in_thread
from voices.compat.common import Speaking
from voices.compat.elevenlabs.base import OUTPUT_NAMES, error_detail
from voices.compat.elevenlabs.dictionaries import located
from voices.compat.elevenlabs.messages import (
    MAX_CONTEXTS,
    BadMessage,
    InputTimeout,
    MessageSerializer,
    Options,
    TextTooLong,
    TooManyContexts,
    last_message,
    parsed,
    secret_in,
)
from voices.compat.elevenlabs.speech import own_fields
from voices.compat.elevenlabs.track import Chunk, Track
from voices.engines import configured
from voices.lexicons.stored import Named
from voices.library import speakers
from voices.speech.synthesis import SpeechStream
from voices.text.growing import SCHEDULE, GrowingText

T = TypeVar("T")
log = logging.getLogger(__name__)

MAX_WAITING_CHARACTERS = 20_000  # of a context's text that is not spoken yet
MAX_ID_CHARACTERS = 200
OF_ALL_CONTEXTS = (401, 403, 404, 410, 429)  # statuses of what is about the key, the voice or a limit
READMIT_SECONDS = 4.0  # What is spoken later than this after the socket was opened is counted as a request of its own.
PATH = re.compile(r"/elevenlabs/v1/text-to-speech/(?P<voice_id>[^/]+)/(?P<kind>stream-input|multi-stream-input)")
TEMPLATE = "elevenlabs/v1/text-to-speech/<str:voice_id>/<str:kind>"


class Session:
    """One socket. multi: with contexts that have names."""

    def __init__(self, socket: Socket, voice_id: str, multi: bool) -> None:
        self.socket = socket
        self.voice_id = voice_id
        self.multi = multi
        self.active_at = asyncio.get_running_loop().time()
        self.contexts: dict[str, Context] = {}  # that take text
        self.closing: set[Context] = set()
        self.ended = False  # no more text is taken
        self.stopping = False  # The server stops: only the sentence under way is said.
        self.options: Options
        self._group: asyncio.TaskGroup
        self._opened_at = time.monotonic()
        self._first = True

    async def run(self) -> None:
        """Until the client or the server ends it. Raises SocketClosed, PublicError and ValidationError."""
        self.options = Options.of(QueryDict(self.socket.request.META.get("QUERY_STRING", "")))
        # Whoever asks for a voice that is not there learns it before anything is sent.
        tenant = self.socket.tenant
        await self.in_thread(lambda: own_fields({"text": "-", **self.options.asked}, self.speaker(tenant), tenant))
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self.socket.finish = self.stop
                await self._read(group)
        except BaseExceptionGroup as several:
            raise _first(several) from None

    def stop(self) -> bool:
        """The server stops: whether somebody speaks, who then finishes the sentence before the socket is closed."""
        contexts = [*self.contexts.values(), *self.closing]
        if not any(context.busy for context in contexts):
            return False
        self.stopping = self.ended = True
        for context in contexts:
            context.close()
        self._group.create_task(self._close_behind(contexts))
        return True

    def admitted(self) -> tuple[Any, Any]:
        """The tenant and the key for one more synthesis; the first one is what the socket was opened for."""
        first, self._first = self._first, False
        if first and time.monotonic() - self._opened_at < READMIT_SECONDS:
            return self.socket.tenant, self.socket.key
        return self.socket.readmit()

    def speaker(self, tenant: Any) -> Any:
        return speakers.find(tenant, self.voice_id)

    async def in_thread(self, action: Callable[[], T], gone: threading.Event | None = None, cleanup: bool = False) -> T:
        """As web.threads.in_thread, with log lines that carry the socket's ids."""

        def run() -> T:
            close_old_connections()
            with bind(**self.socket.ids):
                return action()

        return await in_thread(run, gone=gone, cleanup=cleanup)

    async def _read(self, group: asyncio.TaskGroup) -> None:
        """Takes messages until all has been said and the socket is closed."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                message = await self.socket.next(max(0.01, self._next_timeout() - loop.time()))
            except TimeoutError:
                self._time_out(loop.time())
                continue
            if not self.ended:
                self.active_at = loop.time()
                self._take(parsed(message), group)

    def _next_timeout(self) -> float:
        """The loop's time at which somebody may have been silent for too long."""
        active = [context.active_at for context in self.contexts.values() if self.multi]
        return min([self.active_at, *active]) + self.options.inactivity_seconds

    def _time_out(self, now: float) -> None:
        seconds = self.options.inactivity_seconds
        for context in list(self.contexts.values()):
            if context.busy or self.ended:
                context.active_at = self.active_at = now
            elif now - context.active_at >= seconds and self.multi:
                context.fail(InputTimeout(seconds))
        if self.closing:
            self.active_at = now
        if now - self.active_at >= seconds:
            raise InputTimeout(seconds)

    def _take(self, sent: dict[str, Any], group: asyncio.TaskGroup) -> None:
        """One message. Raises PublicError and ValidationError."""
        text = sent.get("text")
        if text is not None and not isinstance(text, str):
            raise BadMessage("text is no string")
        if self.multi and sent.get("close_socket") is True:
            self._finish(group)
            return
        name = sent.get("context_id", sent.get("contextId")) if self.multi else None
        if name is not None and (not isinstance(name, str) or len(name) > MAX_ID_CHARACTERS):
            raise BadMessage(f"context_id is no string of at most {MAX_ID_CHARACTERS} characters")
        name = name or "default"
        if self.multi and sent.get("close_context") is True:
            self._close_context(name)
            return
        if not self.multi and text == "":
            self._finish(group)
            return
        context = self.contexts.get(name)
        if context is None:
            if not text:
                return  # A sign of life, or the end of something that has ended.
            context = self._open(name, group)
        context.take(sent, text or "")

    def _open(self, name: str, group: asyncio.TaskGroup) -> Context:
        if len(self.contexts) >= MAX_CONTEXTS or len(self.contexts) + len(self.closing) >= 2 * MAX_CONTEXTS:
            raise TooManyContexts
        earlier = [context for context in self.closing if context.name == name]
        context = self.contexts[name] = Context(self, name, earlier)
        group.create_task(context.run())
        return context

    def _close_context(self, name: str) -> None:
        context = self.contexts.get(name)
        if context is not None:
            context.close()
            return
        # It was closed before, and still speaks: nobody wants to hear it.
        for context in self.closing:
            if context.name == name:
                context.interrupt()

    def _finish(self, group: asyncio.TaskGroup) -> None:
        """Says all that there is, and closes the socket."""
        self.ended = True
        contexts = list(self.contexts.values())
        for context in contexts:
            context.text.flush()
            context.close()
        group.create_task(self._close_behind([*contexts, *self.closing]))

    async def _close_behind(self, contexts: list[Context]) -> None:
        for context in contexts:
            await context.done.wait()
        if any(context.failed for context in contexts):
            return  # Else the error would be lost behind an ordinary end.
        if not self.multi and not contexts:
            await self.send({"audio": None, "isFinal": True, "normalizedAlignment": None, "alignment": None})
        await self.socket.close(*(RESTARTING, "the server stops") if self.stopping else (NORMAL,))
        raise SocketClosed

    async def send(self, message: dict[str, Any], context: Context | None = None) -> None:
        if context is not None and self.multi:
            message["contextId"] = context.name
        await self.socket.send(json.dumps(message))
        self.active_at = asyncio.get_running_loop().time()


def _first(several: BaseExceptionGroup[BaseException]) -> BaseException:
    """What has ended the others: an error rather than that the socket was closed."""
    failures: list[BaseException] = []
    for failure in several.exceptions:
        failures.append(_first(failure) if isinstance(failure, BaseExceptionGroup) else failure)
    return min(failures, key=lambda failure: isinstance(failure, SocketClosed))


class Context:
    """Text that is spoken as one. earlier: contexts of the same name, which have the last word first."""

    def __init__(self, session: Session, name: str, earlier: list[Context]) -> None:
        self.session = session
        self.name = name
        self.earlier = earlier
        self.text = GrowingText(SCHEDULE, session.options.eager)
        self.track = Track(session.options.output, not session.options.sync_alignment)
        self.style: dict[str, Any] = {}  # of voice_settings
        self.lexicons: list[Named] = []
        self.active_at = asyncio.get_running_loop().time()
        self.busy = False
        self.closed = False  # takes no more text
        self.flushed = False  # all text was asked for
        self.interrupted = False  # says no more
        self.failed = False  # ends the socket with its error
        self.error: PublicError | None = None
        self.done = asyncio.Event()
        self._wake = asyncio.Event()
        self._gone = threading.Event()

    def take(self, sent: dict[str, Any], text: str) -> None:
        """Raises PublicError and ValidationError."""
        self.active_at = asyncio.get_running_loop().time()
        if not sent.keys().isdisjoint(("voice_settings", "generation_config", "pronunciation_dictionary_locators")):
            serializer = MessageSerializer(data=sent)
            try:
                serializer.is_valid(raise_exception=True)
            except ValidationError as error:
                raise BadMessage(as_public_error(error).message.rstrip(".")) from None
            self.style = serializer.validated_data.get("voice_settings") or self.style
            locators = serializer.validated_data.get("pronunciation_dictionary_locators")
            self.lexicons = located(locators) if locators else self.lexicons
            config = serializer.validated_data.get("generation_config") or {}
            self.text.schedule = tuple(config.get("chunk_length_schedule") or self.text.schedule)
        if text:
            self.flushed = False
            self.text.add(text, trigger=sent.get("try_trigger_generation") is True)
        if len(self.text) > MAX_WAITING_CHARACTERS:
            raise TextTooLong(MAX_WAITING_CHARACTERS)
        if sent.get("flush") is True:
            self.flushed = True
            self.text.flush()
        self._wake.set()

    def close(self) -> None:
        """What was flushed is still said; without that, it falls silent."""
        self._leave()
        self.text.drop()
        if not self.flushed and not self.session.ended:
            self.interrupt()
        self._wake.set()

    def interrupt(self) -> None:
        self.interrupted = True
        self._gone.set()
        self._wake.set()

    def fail(self, error: PublicError) -> None:
        self.error = error
        self._leave()
        self.interrupt()

    def _leave(self) -> None:
        self.closed = True
        if self.session.contexts.get(self.name) is self:
            del self.session.contexts[self.name]
            self.session.closing.add(self)

    async def run(self) -> None:
        try:
            for context in self.earlier:
                await context.done.wait()
            await self._speak_all()
            await self._last_words()
        except BaseException:
            self.failed = True
            raise
        finally:
            self._leave()
            self.session.closing.discard(self)
            self.done.set()
            await self.session.in_thread(self.track.close, cleanup=True)

    async def _speak_all(self) -> None:
        while not self.interrupted:
            if text := self.text.take():
                await self._speak(text)
            elif self.closed:
                return
            else:
                await self._send(Chunk(await self.session.in_thread(self.track.settle), None))
                await self._wake.wait()
                self._wake.clear()

    async def _speak(self, text: str) -> None:
        part = Part(self, text, self._gone)
        self.busy = True
        try:
            await self.session.in_thread(part.begin, self._gone)
            while (chunk := await self.session.in_thread(part.next, self._gone)) is not None:
                if self.session.stopping and chunk.alignment is not None:
                    self.interrupt()  # Another sentence begins, and there is no time for it.
                    break
                await self._send(chunk)
        except Exception as error:
            self._failed(error)
        finally:
            self.busy = False
            self.active_at = asyncio.get_running_loop().time()
            await self.session.in_thread(part.close, cleanup=True)

    def _failed(self, error: Exception) -> None:
        """Ends this context, where it is about its text; raises what ends the others too."""
        if isinstance(error, SocketClosed):
            raise error
        if isinstance(error, StreamBroken) and error.__cause__ is not None:
            error = error.__cause__  # type: ignore[assignment]
        public = as_public_error(error)
        if self.interrupted and public.code == "job_canceled":
            return
        if not self.session.multi or public.status in OF_ALL_CONTEXTS:
            raise error
        if public.status >= 500:
            log.error("a context failed: %s", public, exc_info=error, extra=self.session.socket.ids)
        self.fail(public)

    async def _send(self, chunk: Chunk) -> None:
        if not chunk.audio and chunk.alignment is None:
            return
        audio = base64.b64encode(chunk.audio).decode()
        times = chunk.alignment
        message = {"audio": audio, "isFinal": False, "normalizedAlignment": times, "alignment": times}
        await self.session.send(message, self)

    async def _last_words(self) -> None:
        end = await self.session.in_thread(self.track.close)
        if not self.interrupted:
            await self._send(Chunk(end, None))
        if self.error is not None:
            await self.session.send(json.loads(last_message(self.error, POLICY)), self)
        message = {"audio": None, "isFinal": True, "normalizedAlignment": None, "alignment": None}
        await self.session.send(message, self)


class Part:
    """One synthesis of a context's text. Its methods are called by one thread at a time; close is, in any case."""

    def __init__(self, context: Context, text: str, gone: threading.Event) -> None:
        self._context = context
        self._text = text
        self._gone = gone
        self._stream: SpeechStream | None = None
        self._chunks: Iterator[Chunk] = iter(())

    def begin(self) -> None:
        """Returns with the first sentence made. Raises PublicError and ValidationError."""
        context, session = self._context, self._context.session
        if context.interrupted:
            return
        request = self._request()
        speaker = session.speaker(request.user)
        asked = {**session.options.asked, "text": self._text, "voice_settings": context.style}
        fields, output = own_fields(asked, speaker, request.user), OUTPUT_NAMES[session.options.output]
        speaking = Speaking(request, speaker, fields, streamed=True, lexicons=context.lexicons, output=output)
        self._stream = speaking.stream()
        sentence, clause = getattr(configured.get_engine(), "pauses", (0.0, 0.0))
        pauses = sentence / speaking.job.speed, clause / speaking.job.speed
        self._chunks = context.track.speak(self._stream, self._text, pauses)

    def next(self) -> Chunk | None:
        return next(self._chunks, None)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def _request(self) -> Request:
        """This part as a request of its own, with the key as it is now."""
        socket = self._context.session.socket
        tenant, key = self._context.session.admitted()
        handshake = copy.copy(socket.request)
        handshake.client_gone = self._gone  # type: ignore[attr-defined] # as server.edge.Request has it
        request = Request(handshake)
        request.user, request.auth = tenant, key
        return request


async def speak(socket: Socket, voice_id: str, kind: str) -> None:
    await Session(socket, unquote(voice_id), kind == "multi-stream-input").run()


route = WebSocketRoute(
    PATH, ("synthesize",), speak, TEMPLATE, secret_in=secret_in, error_body=error_detail, last_message=last_message,
    refuses_open=True,
)  # fmt: skip
