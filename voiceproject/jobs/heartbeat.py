"""The heartbeat of a job that this process works on, in a thread of its own."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque

from django.conf import settings
from django.db import close_old_connections, connection

from voiceproject.jobs.job import Job
from voiceproject.web.slots import return_connection

log = logging.getLogger(__name__)

BEAT_SECONDS = 0.5


class Heartbeat(threading.Thread):
    """Beats for a job until the `with` block is left; writes the stage and progress that its owner sets.

    `gone()`: the job was canceled, deleted or taken over, `stopping` was set, or the client that waits for it
    has left, which sets `client_left`: the work must end.

    It must end too when the database could not be reached for twice the time after which others take the job over: this
    host may be the one that is cut off, and nobody could tell it that it has lost.
    """

    def __init__(
        self, job: Job, stopping: threading.Event | None = None, client: threading.Event | None = None
    ) -> None:
        super().__init__(name=f"heartbeat-{job.pk}", daemon=True)
        self.job = job
        self.stopping = stopping or threading.Event()
        self.lost = threading.Event()
        self.client_left = client or threading.Event()
        self.left = threading.Event()
        self.stage = job.stage
        self.progress = 0
        self._soon = threading.Event()
        self._starting = threading.Lock()
        self.cut_off_seconds = 2.0 * settings.WORKER_HEARTBEAT_TIMEOUT_SECONDS
        self.heard_at = time.monotonic()

    def __enter__(self) -> Heartbeat:
        # Not at once: what is done before the first beat costs no thread, no connection and no write.
        _later.start(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._starting:
            self.left.set()
        self._soon.set()
        if self.ident is not None:
            self.join()

    def tell(self) -> None:
        """Beats now: whoever watches the job shall see its new stage."""
        self._soon.set()
        self.begin()

    def begin(self) -> None:
        """Starts the thread, with a beat, if it does not run and there is still something to beat for."""
        with self._starting:
            if self.ident is None and not self.left.is_set():
                self._soon.set()
                self.start()

    def run(self) -> None:
        while True:
            self._soon.wait(BEAT_SECONDS)
            self._soon.clear()
            if self.left.is_set():
                break
            try:
                close_old_connections()
                asked_at = time.monotonic()
                if not self.job.beat(self.stage, self.progress):
                    self.lost.set()
                    break
                self.heard_at = asked_at
                return_connection()
            except Exception:
                # A database that is away for a moment loses no job: the heartbeat has a time-out for that.
                log.warning("a heartbeat failed", exc_info=True)
                connection.close()
        connection.close()

    def cut_off(self) -> bool:
        return time.monotonic() - self.heard_at > self.cut_off_seconds

    def gone(self) -> bool:
        return self.cut_off() or self.lost.is_set() or self.stopping.is_set() or self.client_left.is_set()


class _Later:
    """Begins pulses when their first beat is due, all of a process in one thread: most syntheses end before."""

    def __init__(self) -> None:
        self._due: deque[tuple[float, Heartbeat]] = deque()
        self._more = threading.Semaphore(0)
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self, heartbeat: Heartbeat) -> None:
        self._due.append((time.monotonic() + BEAT_SECONDS, heartbeat))
        self._more.release()
        with self._start:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pulses", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            self._more.acquire()
            at, heartbeat = self._due.popleft()
            while not heartbeat.left.is_set() and (seconds := at - time.monotonic()) > 0:
                time.sleep(seconds)
            try:
                heartbeat.begin()
            except RuntimeError:
                # No thread to be had: without a beat the job would be taken over while it is worked on.
                log.exception("a heartbeat cannot be started")
                heartbeat.lost.set()


_later = _Later()


def _forked() -> None:
    global _later
    _later = _Later()  # Its thread is the parent's.


os.register_at_fork(after_in_child=_forked)
