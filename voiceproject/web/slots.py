"""Shares of what requests hold: threads that wait or compute, open answers, bodies that are on their way.

A thread that waits, for an engine or for a file to be decoded or packed, serves nobody else. There are four slots fewer
than threads, so that some threads are always left for short requests. Each process counts its own.

Those that compute are few at a time (`desk`): Python runs one thread at a time, and SQLite lets one write. A request
took nearly twice the CPU time where sixty computed at once. How many are best was not measured on an idle machine.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
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


class Desk:
    """So many threads compute at a time, of which one tenant never has all; who waits is served by turns of tenants.

    most: places; least 2.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._taken: Counter[Any] = Counter()
        self._waiting: OrderedDict[Any, deque[threading.Event]] = OrderedDict()  # by tenant, in the order of turns
        self._seats = threading.local()

    @contextmanager
    def seat(self, tenant: Any) -> Iterator[None]:
        """A place for this thread, for the block; it may have to wait for one. Within another block it changes nothing.

        tenant: a primary key.
        """
        if getattr(self._seats, "tenant", None) is not None:
            yield
            return
        self._seats.tenant = tenant
        self._sit(tenant)
        try:
            yield
        finally:
            if self._seats.seated:
                self._stand(tenant)
            self._seats.tenant = None

    @contextmanager
    def away(self) -> Iterator[None]:
        """Gives this thread's place to others while it waits for something in the block. Nothing where it has none.

        The block of a generator may end in another thread than it began in.
        """
        mine = self._seats
        thread, tenant = threading.get_ident(), getattr(mine, "tenant", None)
        if left := tenant is not None and mine.seated:
            self._stand(tenant)
        try:
            yield
        finally:
            if left and threading.get_ident() == thread and mine.tenant == tenant and not mine.seated:
                self._sit(tenant)

    def _sit(self, tenant: Any) -> None:
        with self._lock:
            turn = None
            if self._may_sit(tenant):  # Then nobody of this tenant waits.
                self._taken[tenant] += 1
            else:
                turn = threading.Event()
                self._waiting.setdefault(tenant, deque()).append(turn)
        if turn is not None:
            turn.wait()
        self._seats.seated = True

    def _stand(self, tenant: Any) -> None:
        self._seats.seated = False
        with self._lock:
            self._taken[tenant] -= 1
            if not self._taken[tenant]:
                del self._taken[tenant]
            following = next(filter(self._may_sit, self._waiting), None)
            if following is not None:
                turns = self._waiting.pop(following)
                turns.popleft().set()
                self._taken[following] += 1
                if turns:
                    self._waiting[following] = turns  # behind all others

    def _may_sit(self, tenant: Any) -> bool:
        return self._taken.total() < self._most and self._taken[tenant] < self._most - 1


# A database elsewhere is waited for at a place, so it takes more of them to keep the process busy.
desk = Desk(2 if connection.vendor == "sqlite" else 6)


@contextmanager
def waiting_slot(tenant: Any) -> Iterator[None]:
    """A slot for the block, and no place at the desk. Closes the database connection first.

    Raises PublicError too_many_waiting (503).
    """
    release = acquire_slot(tenant)
    try:
        with desk.away():
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
