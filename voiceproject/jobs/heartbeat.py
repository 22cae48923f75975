"""The heartbeats of the jobs that this process works on, all in one thread."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
import time

from django.conf import settings
from django.db import close_old_connections, connection

from voiceproject.jobs.job import Job
from voiceproject.web.slots import return_connection

log = logging.getLogger(__name__)

BEAT_SECONDS = 0.5


class Heartbeat:
    """Beats for a job until the `with` block is left; writes the stage and progress that its owner sets.

    `gone()`: the job was canceled, deleted or taken over, `stopping` was set, or the client that waits for it
    has left, which sets `client_left`: the work must end.

    It must end too when the database could not be reached for twice the time after which others take the job over: this
    host may be the one that is cut off, and nobody could tell it that it has lost.
    """

    def __init__(
        self, job: Job, stopping: threading.Event | None = None, client: threading.Event | None = None
    ) -> None:
        self.job = job
        self.stopping = stopping or threading.Event()
        self.lost = threading.Event()
        self.client_left = client or threading.Event()
        self.stage = job.stage
        self.progress = 0
        self.tail = job.error_detail
        self.due = 0.0  # of the next beat, in time.monotonic()
        self._left = False
        self._beating = threading.Lock()
        self.cut_off_seconds = 2.0 * settings.WORKER_HEARTBEAT_TIMEOUT_SECONDS
        self.heard_at = time.monotonic()

    def __enter__(self) -> Heartbeat:
        # Not at once: most syntheses end before their first beat, which then costs nothing.
        _beats.plan(self, BEAT_SECONDS)
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._beating:
            self._left = True

    def tell(self) -> None:
        """Beats now: whoever watches the job shall see its new stage."""
        _beats.plan(self, 0.0)

    def hear(self, tail: str) -> None:
        """The end of what the command that runs now has written to stderr; the next beat writes it, for operators."""
        self.tail = tail

    def is_over(self, due: float) -> bool:
        """Whether the beat that was planned for then is not wanted any more."""
        return self._left or due != self.due

    def beat(self) -> bool:
        """Called when it is due; whether there is a next one."""
        with self._beating:
            if self._left:
                return False
            try:
                close_old_connections()
                asked_at = time.monotonic()
                if not self.job.beat(self.stage, self.progress, self.tail):
                    self.lost.set()
                    return False
                self.heard_at = asked_at
                return_connection()
            except Exception:
                # A database that is away for a moment loses no job: the heartbeat has a time-out for that.
                log.warning("a heartbeat failed", exc_info=True, extra={"job": str(self.job.pk)})
                connection.close()
            return True

    def cut_off(self) -> bool:
        return time.monotonic() - self.heard_at > self.cut_off_seconds

    def gone(self) -> bool:
        return self.cut_off() or self.lost.is_set() or self.stopping.is_set() or self.client_left.is_set()


class _Beats:
    """One thread for all of a process: a thread and a connection for each cost as much as half a synthesis."""

    def __init__(self) -> None:
        self._planned: list[tuple[float, int, Heartbeat]] = []
        self._number = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def plan(self, heartbeat: Heartbeat, seconds: float) -> None:
        """In place of what was planned for it before."""
        with self._changed:
            heartbeat.due = time.monotonic() + seconds
            heapq.heappush(self._planned, (heartbeat.due, next(self._number), heartbeat))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pulses", daemon=True)
                self._thread.start()
            elif self._planned[0][2] is heartbeat:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            due, heartbeat = self._next()
            goes_on = heartbeat.beat()
            with self._changed:
                if goes_on and heartbeat.due == due:  # Otherwise it was told something meanwhile.
                    self.plan(heartbeat, BEAT_SECONDS)

    def _next(self) -> tuple[float, Heartbeat]:
        with self._changed:
            while True:
                # Those whose job has ended are not waited for: there may be hundreds of them a second.
                while self._planned and self._planned[0][2].is_over(self._planned[0][0]):
                    heapq.heappop(self._planned)
                if not self._planned:
                    connection.close()
                pause = self._planned[0][0] - time.monotonic() if self._planned else None
                if pause is not None and pause <= 0:
                    due, _, heartbeat = heapq.heappop(self._planned)
                    return due, heartbeat
                self._changed.wait(pause)


_beats = _Beats()


def _forked() -> None:
    global _beats
    _beats = _Beats()  # Its thread is the parent's.


os.register_at_fork(after_in_child=_forked)
