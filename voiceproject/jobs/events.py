"""Waiting for a job of any kind: until its end, or for each of its changes."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

from django.db import connection
from rest_framework.utils.encoders import JSONEncoder

from voiceproject.jobs.heartbeat import hung_up
from voiceproject.jobs.job import Job
from voiceproject.jobs.status import LIVE
from voiceproject.jobs.watch import Watcher

MAX_WAIT_SECONDS = 60
HANG_UP_SECONDS = 1.0  # how often a waiting request looks whether its client is still there
COMMENT_SECONDS = 15.0


@functools.cache
def watcher(model: type[Job]) -> Watcher:
    """The one of this process for jobs of this kind."""
    return Watcher(model)


def wait_for_end(job: Job, seconds: float, client: Any = None) -> None:
    """Returns when the job has ended, was deleted, or `seconds` have passed; `job` is then as it is in the database.

    client: the socket of whoever waits, where there is one: nobody waits for who has hung up.
    """
    deadline = time.monotonic() + seconds
    while job.status in LIVE and (left := deadline - time.monotonic()) > 0:
        if client is not None and hung_up(client):
            return
        if watcher(type(job)).wait(job.pk, job.revision, min(left, HANG_UP_SECONDS)) and not _refresh(job):
            return


def _refresh(job: Job) -> bool:
    """False where the job was deleted. No connection is kept for who goes on waiting."""
    try:
        job.refresh_from_db()
    except type(job).DoesNotExist:
        return False
    finally:
        if not connection.in_atomic_block:
            connection.close()
    return True


class JobEvents(Iterator[bytes]):
    """The body of a Server-Sent Events answer: a job now, then after each change, until it has ended.

    last: the revision that the client has seen, -1 for none; render: gives a job's serializer; done: called once it is
    over, also when the client has gone away.
    """

    def __init__(self, job: Job, last: int, render: Callable[..., Any], done: Callable[[], None]) -> None:
        self._render = render
        self._done = done
        self._events = self._make(job, last)

    def __next__(self) -> bytes:
        return next(self._events)

    def close(self) -> None:
        self._events.close()
        self._done()

    def _make(self, job: Job, last: int) -> Generator[bytes, None, None]:
        if job.revision > last:
            yield self._event(job)
        while job.status in LIVE:
            if not watcher(type(job)).wait(job.pk, job.revision, COMMENT_SECONDS):
                yield b": still there\n\n"
            elif _refresh(job):
                yield self._event(job)
            else:
                yield b"event: deleted\ndata: {}\n\n"
                return

    def _event(self, job: Job) -> bytes:
        data = json.dumps(self._render(job).data, cls=JSONEncoder, ensure_ascii=False)
        if not connection.in_atomic_block:
            connection.close()
        return f"id: {job.revision}\ndata: {data}\n\n".encode()
