"""Threads that probe servers in doubt, behind the requests."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from django.db import Error as DatabaseError
from django.db import connection

log = logging.getLogger(__name__)

MAX_PAUSE_SECONDS = 30.0


class Probing:
    """At most one thread a server, which asks again and again, ever more seldom. pause_seconds: before the first."""

    def __init__(self, pause_seconds: float) -> None:
        self._pause_seconds = pause_seconds
        self._lock = threading.Lock()
        self._probed: set[str] = set()
        self._closed = threading.Event()

    def begin(self, server: str, probe: Callable[[], bool]) -> None:
        """probe: whether the server needs it no longer."""
        with self._lock:
            if server in self._probed or self._closed.is_set():
                return
            self._probed.add(server)
        threading.Thread(target=self._run, args=(server, probe), name=f"probe {server}", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _run(self, server: str, probe: Callable[[], bool]) -> None:
        pause = self._pause_seconds
        try:
            while not self._closed.wait(pause):
                pause = min(MAX_PAUSE_SECONDS, 2 * pause)
                try:
                    if probe():
                        return
                except DatabaseError:
                    log.warning("The lease on %s cannot be read", server, exc_info=True)
                finally:
                    connection.close()
        finally:
            with self._lock:
                self._probed.discard(server)
