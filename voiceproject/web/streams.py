"""Answers that take long: held back, streamed, and what ends them early.

All open ones of this process are known here: one query for all tells whose key has ended, and a stop ends them all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from django.http import HttpResponse

from voiceproject.registry import registry
from voiceproject.web.threads import with_database

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0

# Why a stream ended early, as `Stream.why` and the access log have it: the client went away, its key was revoked or has
# expired, the server stops. In the log also: the client took too little, the server could not go on, or all is well.
GONE, LAPSED, STOPPED = "client_gone", "key_ended", "server_stopped"
TOO_SLOW, BROKEN, DONE = "client_too_slow", "broken", "done"


class BodyWanted(HttpResponse):
    """No answer, but the word of a view that it would read the body, which has been left unread so far."""


class Held(HttpResponse):
    """An answer that is not ready: `wait` is awaited without a thread, then `finish` fills it in a thread.

    Where there is no event loop, `wait_here` waits instead. `close` must be called in any case, and calls `done`.
    """

    done: Callable[[], None] | None = None

    def __init__(
        self,
        wait: Callable[[], Coroutine[Any, Any, None]],
        wait_here: Callable[[], None],
        finish: Callable[[], tuple[bytes, dict[str, str]]],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.wait = wait
        self.wait_here = wait_here
        self._finish = finish

    def close(self) -> None:
        super().close()
        if self.done is not None:
            self.done()

    def finish(self) -> None:
        self.content, headers = self._finish()
        for name, value in headers.items():
            self[name] = value
        self["Content-Length"] = str(len(self.content))


class Live:
    """A mixin of StreamingHttpResponse: a body that a coroutine makes. `last` is its end when it is ended early."""

    blocks: Callable[[], AsyncIterator[bytes]]
    last: Callable[[str], bytes]


@dataclass(eq=False)
class Stream:
    """One that is open. key: the primary key of its API key, None where it needs none; scopes: one of them is needed.

    waits: it waits for something to happen, and so is not waited for when the process stops; finish: called then,
    whether it ends by itself, soon; why: set when it was ended early.
    """

    task: asyncio.Task[Any]
    key: Any = None
    scopes: tuple[str, ...] = ()
    waits: bool = False
    why: str = ""
    finish: Callable[[], bool] = lambda: False
    finishing: bool = False

    def end(self, why: str) -> None:
        if not self.why:
            self.why = why
            self.task.cancel()

    def ended(self) -> bool:
        """Whether the cancellation that its task has just met was `end`; it is taken back then."""
        if self.why:
            self.task.uncancel()
        return bool(self.why)


class Streams:
    def __init__(self) -> None:
        self._open: set[Stream] = set()
        self._looking: asyncio.Task[None] | None = None
        self.stopping = False

    def __len__(self) -> int:
        return len(self._open)

    def add(self, stream: Stream) -> None:
        self._open.add(stream)
        if self.stopping and stream.waits:
            stream.end(STOPPED)
        elif self._looking is None:
            self._looking = asyncio.create_task(self._look())

    def discard(self, stream: Stream) -> None:
        self._open.discard(stream)

    def stop(self) -> None:
        """The process ends, and with it what only waits."""
        self.stopping = True
        for stream in tuple(self._open):
            if stream.waits:
                stream.finishing = stream.finish()
                if not stream.finishing:
                    stream.end(STOPPED)

    async def finished(self, seconds: float) -> None:
        """Waits for those that end by themselves, and ends them after so many seconds."""
        until = asyncio.get_running_loop().time() + seconds
        while any(stream.finishing for stream in self._open) and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.05)
        for stream in tuple(self._open):
            if stream.finishing:
                stream.end(STOPPED)

    async def _look(self) -> None:
        try:
            while self._open:
                await asyncio.sleep(LOOK_SECONDS)
                keys = {stream.key for stream in self._open if stream.key is not None}
                if not keys or registry.scopes_of_keys is None:
                    continue
                try:
                    scopes = await with_database(registry.scopes_of_keys, keys)
                except Exception:
                    log.warning("the look at the keys of open streams failed", exc_info=True)
                    continue
                for stream in tuple(self._open):
                    if stream.key in keys and not _allowed(stream, scopes):
                        stream.end(LAPSED)
        finally:
            self._looking = None


def _allowed(stream: Stream, scopes: dict[Any, set[str]]) -> bool:
    held = scopes.get(stream.key)
    return held is not None and (not stream.scopes or bool(held & set(stream.scopes)))


streams = Streams()
