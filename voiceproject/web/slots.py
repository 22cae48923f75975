"""Shares of what requests hold while they wait: threads, open answers, bodies that are on their way.

A thread that waits, for an engine or for a file to be decoded or packed, serves nobody else. There are four slots fewer
than threads, so that some threads are always left for short requests. Each process counts its own.
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

Release = Callable[[], None]


class Places:
    """So many places in all, of which no tenant takes so many that none is left for others.

    name: of what they are, for messages; most_of_one: of one tenant, where there is such a limit.

    A sixteenth, of four or more at least one, is for tenants that have none. Of the others a tenant gets one more while
    it has less than eight times those that are free (a "dynamic threshold", as switches share their buffers): one alone
    gets five sixths of all, and each that comes after it gets less.
    """

    SHARE = 8
    RESERVE = 16
    RESERVED_FROM = 4  # Of fewer places each counts more than who it is for.

    def __init__(self, most: int, most_of_one: int | None = None, name: str = "requests that wait") -> None:
        self._most, self._most_of_one = most, most if most_of_one is None else most_of_one
        self._name = name
        self._reserve = max(most // self.RESERVE, 1 if most >= self.RESERVED_FROM else 0)
        self._lock = threading.Lock()
        self._taken: Counter[Any] = Counter()

    def acquire(self, tenant: Any, count: int = 1) -> Release | None:
        """Takes places, for a tenant's primary key. None where there are none; otherwise a function that gives them
        back, once, however often it is called."""
        with self._lock:
            free, taken = self._most - self._taken.total(), self._taken[tenant]
            if taken:
                free -= self._reserve
            if count > free or taken + count > self._most_of_one or (taken and taken >= self.SHARE * free):
                return None
            self._taken[tenant] += count
        held = [True]

        def release() -> None:
            with self._lock:
                if held:
                    held.clear()
                    self._taken[tenant] -= count
                    if not self._taken[tenant]:
                        del self._taken[tenant]

        return release

    def refusal(self, tenant: Any) -> PublicError:
        """What is told to whoever got no place."""
        whose = "You have as many as you may have" if self._taken[tenant] else "The server has as many as it can hold"
        message = f"Too many {self._name}. {whose}. Try again when one has ended."
        return PublicError("too_many_waiting", message, retry_after=5)

    def take(self, tenant: Any, count: int = 1) -> Release:
        """As `acquire`. Raises PublicError too_many_waiting (503)."""
        release = self.acquire(tenant, count)
        if release is None:
            raise self.refusal(tenant)
        return release


slots = Places(max(1, settings.WEB_THREADS - 4), name="requests that wait for an engine or for a file")
streams = Places(settings.WEB_STREAMS, settings.WEB_STREAMS_PER_TENANT, "event streams, held answers and WebSockets")
downloads = Places(settings.WEB_STREAMS, settings.WEB_STREAMS_PER_TENANT, "downloads")
# In bytes: a large body lies on the disk until all of it is there.
bodies = Places(
    settings.WEB_THREADS * max(settings.MAX_UPLOAD_SIZE, settings.COVER_MAX_UPLOAD_SIZE), name="uploads on their way"
)


@contextmanager
def waiting_slot(tenant: Any) -> Iterator[None]:
    """A slot for the block. Closes the database connection first. Raises PublicError too_many_waiting (503)."""
    release = acquire_slot(tenant)
    try:
        yield
    finally:
        release()


def acquire_slot(tenant: Any) -> Release:
    """Takes a slot of this tenant (a primary key) and returns what releases it, however often it is called.

    Closes the database connection of this thread. Raises PublicError too_many_waiting (503).
    """
    release = slots.take(tenant)
    close_connection()
    return release


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
