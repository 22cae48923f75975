"""Waiting for jobs to change: one thread a process looks at all jobs that anybody here waits for, with one query.

Whoever waits holds no database connection meanwhile, and a hundred who wait cost no more queries than one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from typing import Any

from django.db import connection

from voiceproject.jobs.job import Job

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
IDLE_LOOKS = 20  # the thread ends when for so many looks nobody has waited
GONE = -1


class Watcher:
    """The revisions of the jobs of one model that are waited for."""

    def __init__(self, model: type[Job]) -> None:
        self._model = model
        self._changed = threading.Condition()
        self._waiting: Counter[Any] = Counter()
        self._revisions: dict[Any, int] = {}
        self._thread: threading.Thread | None = None

    def wait(self, pk: Any, revision: int, seconds: float) -> bool:
        """Whether the job has another revision than the given one, or is gone, within `seconds`."""
        deadline = time.monotonic() + seconds
        with self._changed:
            self._waiting[pk] += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="watcher", daemon=True)
                self._thread.start()
            try:
                while not self._has_changed(pk, revision):
                    left = deadline - time.monotonic()
                    if left <= 0:
                        return False
                    self._changed.wait(left)
                return True
            finally:
                self._waiting[pk] -= 1
                if not self._waiting[pk]:
                    del self._waiting[pk]
                    self._revisions.pop(pk, None)

    def _has_changed(self, pk: Any, revision: int) -> bool:
        # A look may have begun before this wait, and a replica be behind: an older revision is no change.
        seen = self._revisions.get(pk, revision)
        return seen == GONE or seen > revision

    def _look(self) -> None:
        idle = 0
        try:
            while True:
                with self._changed:
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
        try:
            found = dict(self._model.objects.filter(pk__in=pks).values_list("pk", "revision"))
        except Exception:
            # Those who wait have a limit of their own; the database may be back at the next look.
            log.warning("the look at watched jobs failed", exc_info=True)
            connection.close()
            return
        with self._changed:
            for pk in pks:
                if pk in self._waiting:
                    self._revisions[pk] = found.get(pk, GONE)
            self._changed.notify_all()
