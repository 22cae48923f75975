"""The heartbeat of a job that this process works on, in a thread of its own."""

from __future__ import annotations

import logging
import threading

from django.db import close_old_connections, connection

from voiceproject.jobs import Job

log = logging.getLogger(__name__)

BEAT_SECONDS = 0.5


class Pulse(threading.Thread):
    """Beats for a job until the `with` block is left; writes the stage and progress that its owner sets.

    `gone()`: the job was canceled, deleted or taken over, or `stopping` was set: the work must end.
    """

    def __init__(self, job: Job, stopping: threading.Event | None = None) -> None:
        super().__init__(name=f"pulse-{job.pk}", daemon=True)
        self.job = job
        self.stopping = stopping or threading.Event()
        self.lost = threading.Event()
        self.left = threading.Event()
        self.stage = job.stage
        self.progress = 0

    def __enter__(self) -> Pulse:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.left.set()
        self.join()

    def run(self) -> None:
        # Not at once: what is done before the first beat costs no connection and no write.
        while not self.left.wait(BEAT_SECONDS):
            try:
                close_old_connections()
                if not self.job.beat(self.stage, self.progress):
                    self.lost.set()
                    break
            except Exception:
                # A database that is away for a moment loses no job: the heartbeat has a time-out for that.
                log.warning("a heartbeat failed", exc_info=True)
                connection.close()
        connection.close()

    def gone(self) -> bool:
        return self.lost.is_set() or self.stopping.is_set()
