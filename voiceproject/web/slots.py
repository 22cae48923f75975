"""Slots for requests that wait long: for an engine, for a job's end, for a file to be decoded or packed.

A thread that waits serves nobody else. There are four slots fewer than threads, so that some threads are always left
for short requests. Each process counts its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


def too_many_waiting() -> PublicError:
    return PublicError("too_many_waiting", "Too many requests wait here already. Try again later.", retry_after=5)


def close_connection() -> None:
    """Gives this thread's database connection back before a long wait, unless a transaction is open."""
    # SQLite's connections are not scarce, and cost more to open than most queries.
    if connection.vendor != "sqlite" and not connection.in_atomic_block:
        connection.close()
