"""Waiting for a job of any kind: until its end, or for each of its changes; in a coroutine, or in a thread.

A coroutine holds no thread while it waits. A thread waits where there is no event loop, and where the view goes on with
what the job has made.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

from django.db import connection
from django.http import StreamingHttpResponse
from rest_framework.utils.encoders import JSONEncoder

from voiceproject.errors import envelope
from voiceproject.jobs.job import Job
from voiceproject.jobs.status import LIVE
from voiceproject.jobs.watch import watcher
from voiceproject.server.edge import lapsed
from voiceproject.web.streams import LAPSED, Live
from voiceproject.web.threads import with_database

MAX_WAIT_SECONDS = 60
HANG_UP_SECONDS = 1.0  # how often a thread that waits looks whether its client is still there
COMMENT_SECONDS = 15.0
COMMENT = b": still there\n\n"
DELETED = b"event: deleted\ndata: {}\n\n"


class _Seen(NamedTuple):
    """A job as somebody has seen it, who waits for its next change."""

    model: type[Job]
    pk: Any
    revision: int
    live: bool


def _as_seen(job: Job) -> _Seen:
    return _Seen(type(job), job.pk, job.revision, job.status in LIVE)


def _changed_here(seen: _Seen, seconds: float) -> bool:
    change = watcher(seen.model).change(seen.pk, seen.revision)
    try:
        change.result(seconds)
    except TimeoutError:
        return False
    finally:
        watcher(seen.model).forget(seen.pk, change)
    return True


async def _changed(seen: _Seen, seconds: float) -> bool:
    change = watcher(seen.model).change(seen.pk, seen.revision)
    try:
        async with asyncio.timeout(seconds):
            await asyncio.wrap_future(change)
    except TimeoutError:
        return False
    finally:
        watcher(seen.model).forget(seen.pk, change)
    return True


def _refresh(job: Job) -> bool:
    """False where the job was deleted."""
    try:
        job.refresh_from_db()
    except type(job).DoesNotExist:
        return False
    return True


def _refresh_here(job: Job) -> bool:
    """The same for who goes on waiting in a thread, and keeps no connection."""
    try:
        return _refresh(job)
    finally:
        if not connection.in_atomic_block:
            connection.close()


def wait_for_end(job: Job, seconds: float, gone: threading.Event | None = None) -> None:
    """Returns when the job has ended, was deleted, or `seconds` have passed; `job` is then as it is in the database.

    gone: set when nobody waits any more.
    """
    deadline = time.monotonic() + seconds
    while job.status in LIVE and (left := deadline - time.monotonic()) > 0:
        if gone is not None and gone.is_set():
            return
        if _changed_here(_as_seen(job), min(left, HANG_UP_SECONDS)) and not _refresh_here(job):
            return


async def end_of(job: Job, seconds: float) -> None:
    """`wait_for_end` as a coroutine."""
    deadline = time.monotonic() + seconds
    while job.status in LIVE and (left := deadline - time.monotonic()) > 0:
        if await _changed(_as_seen(job), left) and not await with_database(_refresh, job):
            return


class JobEvents(Live, StreamingHttpResponse):
    """A Server-Sent Events answer: a job now, then after each change, until it has ended.

    seen: the revision that the client has seen, -1 for none; render: gives a job's serializer; done: called once it is
    over, also when the client has gone away. A job is not kept between its changes: a thousand clients may wait.
    """

    def __init__(self, job: Job, seen: int, render: Callable[..., Any], done: Callable[[], None]) -> None:
        self._first = job if job.revision > seen else None
        self._seen = _as_seen(job)
        self._render = render
        self._done = done
        super().__init__(self._blocks_here(), content_type="text/event-stream")
        self["Cache-Control"] = "no-cache, no-transform"
        self["X-Accel-Buffering"] = "no"  # nginx would hold events back

    def close(self) -> None:
        super().close()
        self._done()

    async def blocks(self) -> AsyncIterator[bytes]:
        if self._first is not None:
            yield await with_database(self._event)
        while self._seen.live:
            changed = await _changed(self._seen, COMMENT_SECONDS)
            block = await with_database(self._event) if changed else COMMENT
            yield block
            if block is DELETED:
                return

    def last(self, why: str) -> bytes:
        """What a client is told whose events end before the job does."""
        if why == LAPSED:
            return f"event: error\ndata: {json.dumps(envelope(lapsed()))}\n\n".encode()
        return b"event: stopping\ndata: {}\n\n"  # It comes back, with Last-Event-ID, as EventSource does by itself.

    def _blocks_here(self) -> Iterator[bytes]:
        if self._first is not None:
            yield self._event()
        while self._seen.live:
            changed = _changed_here(self._seen, COMMENT_SECONDS)
            block = self._event() if changed else COMMENT
            if not connection.in_atomic_block:
                connection.close()
            yield block
            if block is DELETED:
                return

    def _event(self) -> bytes:
        job, self._first = self._first, None
        if job is None:
            job = self._seen.model._default_manager.filter(pk=self._seen.pk).first()
        if job is None:
            return DELETED
        self._seen = _as_seen(job)
        data = json.dumps(self._render(job).data, cls=JSONEncoder, ensure_ascii=False)
        return f"id: {job.revision}\ndata: {data}\n\n".encode()
