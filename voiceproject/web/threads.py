"""The threads of the web process: synchronous views run here, and nothing that only waits for a client does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from django.conf import settings
from django.db import close_old_connections

from voiceproject.web.slots import return_connection

T = TypeVar("T")

# Its threads are made when they are needed. None keeps a connection of PostgreSQL's pool.
_pool = ThreadPoolExecutor(settings.WEB_THREADS, thread_name_prefix="web")


async def in_thread(
    action: Callable[..., T], *args: Any, gone: threading.Event | None = None, cleanup: bool = False
) -> T:
    """What `action(*args)` returns, called in a thread of the pool.

    Canceled, it sets `gone`, so that the action may end early, and waits for it: nobody else touches what it works on.
    An action that has not begun by then is not called, unless it is a cleanup: that is done in any case.
    """

    def act() -> T:
        try:
            return action(*args)
        finally:
            return_connection()

    running = _pool.submit(act)
    future = asyncio.wrap_future(running)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if gone is not None:
            gone.set()
        if cleanup or not running.cancel():
            while not future.done():
                try:
                    await asyncio.wait([future])
                except asyncio.CancelledError:
                    continue
            future.exception()
        raise


async def with_database(action: Callable[..., T], *args: Any) -> T:
    """`in_thread` for what asks the database outside a request: a connection that is old or broken is not used."""

    def run() -> T:
        close_old_connections()
        return action(*args)

    return await in_thread(run)
