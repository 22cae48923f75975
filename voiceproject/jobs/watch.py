"""Waiting for jobs to change: one thread a process looks at all jobs that anybody here waits for, with one query.

Whoever waits holds no database connection meanwhile, and a thousand who wait cost no more queries than one.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from concurrent.futures import Future
from typing import Any

from django.db import connection

from voiceproject.jobs.job import Job
from voiceproject.web.slots import return_connection

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
IDLE_LOOKS = 20  # the thread ends when for so many looks nobody has waited


class Watcher:
    """The revisions of the jobs of one model that are waited for."""

    def __init__(self, model: type[Job]) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._waiting: dict[Any, dict[Future[None], int]] = {}  # by the job's key: with the revision that each has seen
        self._thread: threading.Thread | None = None

    def change(self, pk: Any, revision: int) -> Future[None]:
        """Done when the job has a later revision than the given one, or is gone. To be given to `forget`."""
        future: Future[None] = Future()
        with self._lock:
            self._waiting.setdefault(pk, {})[future] = revision
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="watcher", daemon=True)
                self._thread.start()
        return future

    def forget(self, pk: Any, future: Future[None]) -> None:
        with self._lock:
            waiting = self._waiting.get(pk, {})
            waiting.pop(future, None)
            if not waiting:
                self._waiting.pop(pk, None)

    def _look(self) -> None:
        idle = 0
        try:
            while True:
                with self._lock:
                    pks = list(self._waiting)
                    idle = 0 if pks else idle + 1
                    if idle > IDLE_LOOKS:
                        self._thread = None
                        return
                if pks:
                    self._ask(pks)
                time.sleep(LOOK_SECONDS)
        finally:
            connection.close()

    def _ask(self, pks: list[Any]) -> None:
        with self._lock:
            # Whoever comes during the query may have seen more than it does.
            asked = [(pk, future, seen) for pk in pks for future, seen in self._waiting.get(pk, {}).items()]
        try:
            found = dict(self._model.objects.filter(pk__in=pks).values_list("pk", "revision"))
            return_connection()
        except Exception:
            # Those who wait have a limit of their own; the database may be back at the next look.
            log.warning("the look at watched jobs failed", exc_info=True)
            connection.close()
            return
        for pk, future, seen in asked:
            # A replica may be behind: an older revision is no change.
            if (pk not in found or found[pk] > seen) and not future.done():
                future.set_result(None)


@functools.cache
def watcher(model: type[Job]) -> Watcher:
    """The one of this process for jobs of this kind."""
    return Watcher(model)
