"""One attempt of a worker at a job that has stages: its heartbeat, its commands, and how it ends.

What the stages do is the job's own room's to say; see covers.pipeline and voices.training.pipeline.
"""

from __future__ import annotations

import errno
import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection

from voiceproject.commands import runner
from voiceproject.commands.scratch import scratch
from voiceproject.commands.template import child_environment, identity
from voiceproject.jobs.heartbeat import Heartbeat
from voiceproject.jobs.job import Job
from voiceproject.media.storage import is_passing, patiently
from voiceproject.telemetry import metrics, tracing
from voiceproject.telemetry.logging import bind

log = logging.getLogger(__name__)


class StageFailed(Exception):
    """code: a key of ERROR_MESSAGES; message: for the client, the code's own if empty; detail: for operators."""

    def __init__(self, code: str, message: str = "", detail: str = "") -> None:
        super().__init__(code)
        self.code, self.message, self.detail = code, message, detail


class NotOurs(Exception):
    """The job was canceled, taken over or deleted, or the worker is stopping."""


class Progress(Heartbeat):
    """A heartbeat that knows the stages of a job. starts: where each begins on the scale of 0 to 100, and `end`."""

    starts: Mapping[str, int]

    def __init__(self, job: Job, stopping: threading.Event) -> None:
        super().__init__(job, stopping)

    def check(self) -> None:
        if self.gone():
            raise NotOurs

    def enter(self, stage: str) -> None:
        self.check()
        self.job.mark(stage)
        self.stage, self.progress = stage, self.starts[stage]
        self.tell()

    def within(self, stage: str) -> Callable[[float], None]:
        """A callback for a stage's own progress of 0..1."""
        following = list(self.starts)[list(self.starts).index(stage) + 1]
        start, end = self.starts[stage], self.starts[following]

        def report(fraction: float) -> None:
            self.progress = int(start + (end - start) * min(max(fraction, 0.0), 1.0))

        return report


@dataclass(frozen=True)
class Terms:
    """How attempts at a kind of job end. code_of: the error of a stage that broke; engine_stages: those in which an
    engine works; fields: more that a failed attempt writes into its row."""

    max_attempts: int
    ttl_hours: float
    code_of: Callable[[str], str]
    engine_stages: tuple[str, ...]
    fields: Callable[[], dict[str, Any]] = dict


def run(job: Job, heartbeat: Progress, terms: Terms, work: Callable[[Path], None]) -> None:
    """Runs a claimed job to its end, whatever that is. Raises nothing that belongs to the job.

    work: does all of it, given a scratch folder, and writes its success; raises StageFailed, NotOurs.
    """
    kind, ids = job.webhook_kind, job.log_ids()
    with bind(**ids), tracing.span(kind, job.trace_parent, {**ids, "attempt": job.attempt}) as span:
        log.info("%s started", kind, extra={"attempt": job.attempt})
        try:
            with heartbeat, scratch(settings.SCRATCH_DIR, f"{kind}-{job.pk}-{job.attempt}") as folder:
                work(folder)
        except Exception as error:
            tracing.mark_failed(span, error.code if isinstance(error, StageFailed) else type(error).__name__)
            try:
                patiently(functools.partial(_settle, job, error, heartbeat, terms), heartbeat.stopping.is_set)
            except DatabaseError as trouble:
                if not is_passing(trouble):
                    raise
                connection.close()
                log.warning("%s is left to be taken over: %s", kind, trouble)


def _settle(job: Job, error: Exception, heartbeat: Progress, terms: Terms) -> None:
    """Writes why an attempt has ended before its time. Safe to repeat when it is not known whether it was written."""
    kind = job.webhook_kind
    if isinstance(error, NotOurs) or (is_passing(error) and heartbeat.stopping.is_set()):
        if heartbeat.stopping.is_set() and job.hand_back():
            log.info("%s handed back", kind)
        elif heartbeat.cut_off() and job.put_back(terms.max_attempts):
            log.warning("%s put back: the database could not be reached", kind)
        else:
            log.info("%s is no longer ours", kind)
        return
    if is_passing(error) and job.put_back(terms.max_attempts):
        log.warning("%s put back: %s", kind, error, extra={"stage": heartbeat.stage})
        return
    if not isinstance(error, StageFailed) and not job.beat():
        # Canceled or deleted this moment: its files went from under it, and nothing is wrong.
        log.info("%s is no longer ours", kind)
        return
    failure = as_failure(error, heartbeat.stage, terms)
    if heartbeat.stage in terms.engine_stages:
        metrics.engine_failed(heartbeat.stage, failure.code)
    fields = {"stage": heartbeat.stage, "engine_seconds": job.engine_seconds, **terms.fields()}
    if job.fail(failure.code, failure.message, failure.detail, terms.ttl_hours, **fields):
        log.warning("%s failed: %s", kind, failure.code, extra={"stage": heartbeat.stage})


def as_failure(error: Exception, stage: str, terms: Terms) -> StageFailed:
    match error:
        case StageFailed():
            return error
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return StageFailed("storage_full", detail=repr(error))
        case MemoryError():
            return StageFailed("out_of_memory", detail=repr(error))
    log.error("a stage broke", exc_info=error)
    return StageFailed(terms.code_of(stage), detail=repr(error))


def run_command(
    argv: Sequence[str],
    job: Job,
    folder: Path,
    heartbeat: Heartbeat,
    code: str,
    *,
    run: Callable[..., runner.CommandResult] = runner.run,
    refused: Callable[[runner.CommandFailed], StageFailed | None] = lambda error: None,
    **limits: Any,
) -> runner.CommandResult:
    """Runs a job's command in its scratch folder. The seconds that it took are added to job.engine_seconds.

    code: of a failure that is of no other kind; refused: knows the command's own exit codes; limits: as runner.run
    takes them. Raises NotOurs, StageFailed.
    """
    started = time.monotonic()
    try:
        return run(
            argv,
            cwd=folder,
            env=child_environment(folder, identity(job.log_ids(), tracing.traceparent())),
            should_stop=heartbeat.gone,
            on_tail=heartbeat.hear,
            grace_seconds=0.8,
            **{"poll_seconds": 0.1, "stop_every_seconds": 0.1, **limits},
        )
    except runner.CommandStopped as error:
        raise NotOurs from error
    except runner.CommandTimedOut as error:
        raise StageFailed("timed_out", detail=f"{error}\n{error.stderr_tail}") from error
    except runner.CommandOutputTooLarge as error:
        raise StageFailed(code, detail=f"{error}\n{error.stderr_tail}") from error
    except runner.CommandFailed as error:
        if (known := refused(error)) is not None:
            raise known from error
        if error.out_of_memory:
            code = "out_of_memory"
        elif "No space left on device" in error.stderr_tail:
            code = "storage_full"
        raise StageFailed(code, detail=f"{error}\n{error.stderr_tail}") from error
    finally:
        job.engine_seconds = (job.engine_seconds or 0.0) + time.monotonic() - started
