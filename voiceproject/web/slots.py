"""Slots for requests that wait long in a thread: for an engine, for a file to be decoded or packed.

A thread that waits serves nobody else. There are four slots fewer than threads, so that some threads are always left
for short requests. Each process counts its own.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.db import connection

from voiceproject.errors import PublicError

_slots = threading.BoundedSemaphore(max(1, settings.WEB_THREADS - 4))


@contextmanager
def waiting_slot() -> Iterator[None]:
    """A slot for the block. Closes the database connection first. Raises PublicError too_many_waiting (503)."""
    release = acquire_slot()
    if release is None:
        raise too_many_waiting()
    try:
        yield
    finally:
        release()


def acquire_slot() -> Callable[[], None] | None:
    """Takes a slot and returns the function that releases it (once, however often it is called). None: all are taken.

    Closes the database connection of this thread.
    """
    if not _slots.acquire(blocking=False):
        return None
    held = [True]

    def release() -> None:
        if held:
            held.clear()
            _slots.release()

    close_connection()
    return release


class Places:
    """Places for answers that wait without a thread: so many in all, and so many of each tenant."""

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most, self._most_of_one = most, most_of_one
        self._lock = threading.Lock()
        self._taken: Counter[Any] = Counter()

    def acquire(self, tenant: Any) -> Callable[[], None] | None:
        """Takes a place and returns the function that gives it back (once, however often it is called), or None."""
        with self._lock:
            if self._taken.total() >= self._most or self._taken[tenant] >= self._most_of_one:
                return None
            self._taken[tenant] += 1
        held = [True]

        def release() -> None:
            with self._lock:
                if held:
                    held.clear()
                    self._taken[tenant] -= 1
                    if not self._taken[tenant]:
                        del self._taken[tenant]

        return release


_streams = Places(settings.WEB_STREAMS, settings.WEB_STREAMS_PER_TENANT)


def acquire_stream(tenant: Any) -> Callable[[], None] | None:
    """A place for an event stream or a held answer of this tenant (a primary key), as `acquire_slot`."""
    return _streams.acquire(tenant)


def too_many_waiting() -> PublicError:
    return PublicError("too_many_waiting", "Too many requests wait here already. Try again later.", retry_after=5)


def return_connection() -> None:
    """Gives this thread's connection back to the pool of a web process (DATABASE_POOL_SIZE), unless a transaction is
    open. Nothing where there is no pool: then each thread keeps its own."""
    if getattr(connection, "pool", None) is not None and not connection.in_atomic_block:
        connection.close()


def close_connection() -> None:
    """Gives this thread's database connection back before a long wait, unless a transaction is open."""
    # SQLite's connections are not scarce, and cost more to open than most queries.
    if connection.vendor != "sqlite" and not connection.in_atomic_block:
        connection.close()
