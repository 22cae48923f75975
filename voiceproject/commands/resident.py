"""Runs jobs in processes that stay: what a script loads for its first job is there for the next one.

A resident child is a script that was started with `--serve` and takes job after job as JSON lines (the protocol is
described in gpu_scripts/common/script_io.py, at `run`). It stands under the same guard as any other command
(guard.py), has one job at a time, and is ended, with all that came from it, when a job is canceled or breaks a
limit, after a number of jobs, when nobody has needed it for a while, and with the worker.

What is asked of it is what is asked of `runner.run`, and so are the answers. A resident child must never fail a job
that a process of its own would have done: a program that does not understand `--serve` gets a process for each job; a
job that dies in a child that had served others, or runs out of memory while idle children hold some, is run once more
in a fresh one.

Knows neither the ORM nor settings.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from voiceproject.commands import runner
from voiceproject.commands.resident_child import Child, Outcome, exit_failure
from voiceproject.commands.runner import CommandError, CommandFailed, CommandResult, CommandTimedOut, Watch

log = logging.getLogger(__name__)

ANOTHER_TRY_SECONDS = 3600.0  # until a program that did not serve is asked again
MAX_JOB_BYTES = 32_768  # A pipe takes so much at once, whether or not anybody reads it.


@dataclass(frozen=True)
class _Job:
    """What `Pool.run` was asked for, as far as it is the same for every try."""

    env: Mapping[str, str]
    cwd: str
    watch: Watch
    grace_seconds: float
    stderr_tail_bytes: int
    memory_bytes: int | None
    log_context: Mapping[str, object]


class _Lost(Exception):
    """The job failed, and its child with it."""

    def __init__(self, error: CommandError) -> None:
        super().__init__(str(error))
        self.error = error


class Pool:
    """The resident children of one worker process: of each command as many as run at a time. Threads share it."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        max_children: int,
        max_jobs: int,
        idle_seconds: float,
        ready_seconds: float = 120.0,
    ) -> None:
        """root: where the children's scratch folders are; max_children: of each command, that are kept when idle;
        max_jobs: of each child; ready_seconds: until its first line, after which it is taken not to serve."""
        self._root = Path(root)
        self._max_children, self._max_jobs = max_children, max_jobs
        self._idle_seconds, self._ready_seconds = idle_seconds, ready_seconds
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, ...], list[Child]] = {}
        self._refused: dict[tuple[str, ...], float] = {}  # when it did
        self._closed = False

    def run(
        self,
        argv: Sequence[str],
        serving: tuple[Sequence[str], Sequence[str]] | None,
        *,
        cwd: str | os.PathLike[str],
        env: Mapping[str, str],
        deadline_seconds: float,
        on_progress: Callable[[float], None] | None = None,
        on_tail: Callable[[str], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        poll_seconds: float = 0.25,
        stop_every_seconds: float = 0.5,
        grace_seconds: float = 0.8,
        stderr_tail_bytes: int = 8192,
        max_output_bytes: int | None = None,
        stall_seconds: float | None = None,
        memory_bytes: int | None = None,
        log_context: Mapping[str, object] | None = None,
    ) -> CommandResult:
        """Runs one job, in a resident child if that can be, and else `argv` in a process of its own.

        serving: the command that serves and the arguments of this job, as CommandTemplate.serving has them. Paths in
            the arguments are absolute. All else, result and exceptions too, is as in runner.run; of `env`, a child
            sees template.JOB_VARIABLES with the job, and the rest as it was when the child was started.
        Raises OSError, too, where there is no place for the child's scratch folder.
        """
        watch = Watch(
            [cwd],
            deadline_seconds=deadline_seconds,
            on_progress=on_progress,
            on_tail=on_tail,
            should_stop=should_stop,
            poll_seconds=poll_seconds,
            stop_every_seconds=stop_every_seconds,
            max_output_bytes=max_output_bytes,
            stall_seconds=stall_seconds,
        )
        job = _Job(env, os.fspath(cwd), watch, grace_seconds, stderr_tail_bytes, memory_bytes, log_context or {})
        result = self._run_resident(*serving, job) if serving and self._serves(serving) else None
        if result is not None:
            return result
        return runner.run(
            argv,
            cwd=cwd,
            env=env,
            deadline_seconds=max(0.001, watch.left_seconds()),
            on_progress=on_progress,
            on_tail=on_tail,
            should_stop=should_stop,
            poll_seconds=poll_seconds,
            stop_every_seconds=stop_every_seconds,
            grace_seconds=grace_seconds,
            stderr_tail_bytes=stderr_tail_bytes,
            max_output_bytes=max_output_bytes,
            stall_seconds=stall_seconds,
            memory_bytes=memory_bytes,
            log_context=log_context,
        )

    def _serves(self, serving: tuple[Sequence[str], Sequence[str]]) -> bool:
        start, arguments = serving
        with self._lock:
            refused = self._refused.get(tuple(start))
        if self._closed or (refused is not None and time.monotonic() - refused < ANOTHER_TRY_SECONDS):
            return False
        return len(json.dumps(list(arguments))) < MAX_JOB_BYTES - 8192

    def _run_resident(self, start: Sequence[str], arguments: Sequence[str], job: _Job) -> CommandResult | None:
        """None when the program does not serve."""
        child = self._take(tuple(start), job)
        reused = child is not None
        child = child or self._start(start, job)
        if child is None:
            return None
        try:
            return self._run_in(child, arguments, job)
        except _Lost as lost:
            error = lost.error
        # What earlier jobs left behind is not this one's fault; and memory may have been short for what others keep.
        freed = isinstance(error, CommandFailed) and error.out_of_memory and self._end_idle(job.grace_seconds)
        if not (reused or freed) or job.watch.left_seconds() <= 0:
            raise error
        log.warning("a job failed in a resident process, and is run again in a fresh one: %s", error)
        if (child := self._start(start, job)) is None:
            return None
        try:
            return self._run_in(child, arguments, job)
        except _Lost as lost:
            raise lost.error from None

    def _take(self, start: tuple[str, ...], job: _Job) -> Child | None:
        """An idle child that lives."""
        while True:
            with self._lock:
                children = self._idle.get(start)
                child = children.pop() if children else None
            if child is None or child.take(job.watch.left_seconds() + 1.0):
                return child
            child.end(job.grace_seconds)

    def _start(self, start: Sequence[str], job: _Job) -> Child | None:
        """A fresh child that is ready; None when the program does not serve."""
        limits = (job.grace_seconds, max(0.0, job.watch.left_seconds()) + 1.0, job.memory_bytes or 0)
        child = Child(start, job.env, self._root, limits, job.stderr_tail_bytes)
        try:
            failure = job.watch.wait(child.wait_ready, child.answers, time.monotonic() + self._ready_seconds)
        except BaseException:
            child.end(job.grace_seconds)
            raise
        if failure is None and child.answers.ready:
            return child
        ended = child.end(job.grace_seconds, job.watch.deadline_seconds)
        if failure is not None:
            failure.stderr_tail = child.answers.tail()
            raise failure
        if isinstance(ended, CommandTimedOut):
            raise ended
        with self._lock:
            known = tuple(start) in self._refused
            self._refused[tuple(start)] = time.monotonic()
        if not known:
            reason = ended or f"nothing came in {self._ready_seconds:g} s"
            log.warning("%r does not serve (%s): it gets a process for each job", " ".join(start), reason)
        return None

    def _run_in(self, child: Child, arguments: Sequence[str], job: _Job) -> CommandResult:
        """Raises _Lost where the child is gone with the job, CommandError where it is the job alone that failed."""
        started = time.monotonic()
        failure: CommandError | None = None
        outcome: Outcome | None = None
        lost: CommandError | None = None
        kept = False
        job.watch.folders = [job.cwd, child.folder]
        try:
            if child.give(arguments, job.env, job.cwd):
                failure = job.watch.wait(child.wait, child.answers)
            outcome = child.outcome()
            if failure is None and outcome is not None:
                job.watch.report_progress(child.answers)
                failure = exit_failure(outcome) or job.watch.check_size()
            # Nobody knows what a lack of memory has left behind.
            spoiled = outcome is None or outcome.last or (isinstance(failure, CommandFailed) and failure.out_of_memory)
            well = not spoiled and (failure is None or isinstance(failure, CommandFailed))
            kept = well and self._give_back(child)
        finally:
            if not kept:
                lost = child.end(job.grace_seconds, job.watch.deadline_seconds)
            seconds = time.monotonic() - started
            returncode = outcome.exit_code if outcome else child.returncode
            details = {"program": child.start[0], "returncode": returncode, "seconds": round(seconds, 3)}
            details |= {"resident_job": child.jobs}
            log.info("command ended", extra={"command": {**job.log_context, **details}})
        if failure is None and outcome is not None:
            told = outcome.warnings, outcome.separation
            return CommandResult(0, outcome.stderr_tail, seconds, outcome.peak_rss_bytes, *told)
        failure = failure or lost or CommandFailed("it did not take the job", 1)
        failure.returncode = returncode if failure.returncode is None else failure.returncode
        failure.stderr_tail = outcome.stderr_tail if outcome else child.answers.tail()
        if spoiled and isinstance(failure, CommandFailed):
            raise _Lost(failure)
        raise failure

    def _give_back(self, child: Child) -> bool:
        """Keeps it for another job; False when it has done its share or there is no need for it."""
        with self._lock:
            idle = self._idle.setdefault(child.start, [])
            if self._closed or child.jobs >= self._max_jobs or len(idle) >= self._max_children:
                return False
            # The guard ends it when nobody has asked for it until then, whatever has become of this process.
            child.command.set_deadline(self._idle_seconds)
            idle.append(child)
            return True

    def _end_idle(self, grace_seconds: float = 0.8) -> int:
        """Ends all that are idle, so that their memory is free; how many."""
        with self._lock:
            children = [child for idle in self._idle.values() for child in idle]
            self._idle.clear()
        for child in children:
            child.command.ask_to_end()
        for child in children:
            child.end(grace_seconds)
        return len(children)

    def tidy(self) -> None:
        """Puts away what is left of idle children that have ended."""
        with self._lock:
            ended = [child for idle in self._idle.values() for child in idle if child.command.wait(0.0)]
            self._idle = {start: [child for child in idle if child not in ended] for start, idle in self._idle.items()}
        for child in ended:
            child.end(grace_seconds=0.0)

    def close(self) -> None:
        """Ends all idle children now and the others after their jobs; later jobs get a process each."""
        with self._lock:
            self._closed = True
        self._end_idle()
