"""Runs jobs in processes that stay: what a script loads for its first job is there for the next one.

A resident child is a script that was started with `--serve` and takes job after job as JSON lines (the protocol is
described in gpu_scripts/common/script_io.py, at `run`). It stands under the same guard as any other command
(commands.py), has one job at a time, and is ended, with all that came from it, when a job is canceled or breaks a
limit, after a number of jobs, when nobody has needed it for a while, and with the worker.

What is asked of it is what is asked of `commands.run`, and so are the answers. A resident child must never fail a job
that a process of its own would have done: a program that does not understand `--serve` gets a process for each job; a
job that dies in a child that had served others, or runs out of memory while idle children hold some, is run once more
in a fresh one.

Knows neither the ORM nor settings.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from voiceproject.commands import runner
from voiceproject.commands.runner import (
    CommandError,
    CommandFailed,
    CommandResult,
    CommandTimedOut,
    Guarded,
    Output,
    Watch,
    printable,
)

log = logging.getLogger(__name__)

FOLDER_PREFIX = "resident-"
LOCK = ".alive"
ANOTHER_TRY_SECONDS = 3600.0  # until a program that did not serve is asked again
MAX_JOB_BYTES = 32_768  # A pipe takes so much at once, whether or not anybody reads it.
NEW_FOLDER_SECONDS = 60.0


class _Answers(Output):
    """What a resident child says: JSON lines on stdout, of which only those about the job at hand count."""

    _LINE_BYTES = 65_536

    def __init__(self, stdout: IO[bytes], stderr: IO[bytes], tail_bytes: int) -> None:
        super().__init__(stdout, stderr, tail_bytes, self._LINE_BYTES)
        os.set_blocking(stderr.fileno(), False)
        self.ready = False
        self.closed = False
        self.done: dict[str, Any] | None = None
        self._job_id = ""
        # Readable when the runner has something to look at.
        self.news_fd, self._news_fd = os.pipe()
        os.set_blocking(self.news_fd, False)
        os.set_blocking(self._news_fd, False)

    def begin(self, job_id: str) -> None:
        with self._lock:
            self._job_id, self.done = job_id, None
            self.progress, self.warnings, self.last_heard = 0.0, [], time.monotonic()
            self._tail.clear()
            self.heed()

    def heed(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.news_fd, 4096)

    def _tell(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._news_fd, b"x")

    def _read_stdout(self, data: bytes) -> None:
        for line in self._stdout_lines.feed(data or b"\n"):
            # A library may have printed half a line before the script could put stdout out of its reach.
            if not self.ready and line.strip().endswith(b'{"ready": true}'):
                self.ready = True
                self._tell()
            elif line.startswith(b"{"):
                with contextlib.suppress(ValueError, RecursionError):
                    self._read_answer(json.loads(line))
        if not data:
            self.closed = True
            self._tell()

    def _read_answer(self, answer: dict[str, Any]) -> None:
        if not self._job_id or answer.get("id") != self._job_id or self.done is not None:
            return
        progress, warning = answer.get("progress"), answer.get("warning")
        if isinstance(progress, int | float) and progress > self.progress:
            self.progress = min(1.0, float(progress))
        if isinstance(warning, str):
            self._warn(printable(warning.encode("utf-8", "replace"))[:1000].replace("\n", " "))
        if answer.get("done") is True:
            # All that the job wrote on stderr is in the pipe by now; a pipe is read whole at once.
            with contextlib.suppress(BlockingIOError):
                self._read_stderr(os.read(self._stderr.fileno(), 1024 * 1024))
            self.done = answer
            self._tell()

    def _read_warnings(self, data: bytes) -> None:
        """What libraries write on stderr is not for the person who gets the result: scripts have an answer for that."""

    def close(self) -> None:
        super().close()
        os.close(self.news_fd)
        os.close(self._news_fd)


@dataclass(frozen=True)
class _Outcome:
    """A job that was answered. last: the child ends after it."""

    exit_code: int
    stderr_tail: str
    warnings: tuple[str, ...]
    peak_rss_bytes: int
    last: bool


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


class _Child:
    """One script that serves, from its start to its end, with a scratch folder of its own for TMPDIR."""

    def __init__(self, start: Sequence[str], env: Mapping[str, str], root: Path, limits: Sequence[float], tail: int):
        """limits: grace and deadline in seconds, memory in bytes. Raises CommandFailed, OSError (a full disk)."""
        self.start = tuple(start)
        self.jobs = 0
        self.returncode: int | None = None
        with contextlib.ExitStack() as stack:
            name = f"{FOLDER_PREFIX}{uuid.uuid4().hex}"
            self.folder = stack.enter_context(runner.scratch(root, name))
            # Under another name until it is locked: what has this name and no lock is swept.
            lock = stack.enter_context(open(self.folder / f"{LOCK}.new", "wb"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.rename(lock.name, self.folder / LOCK)
            job_fd, self._jobs_fd = os.pipe()
            stack.callback(os.close, self._jobs_fd)
            os.set_blocking(self._jobs_fd, False)
            environment = {name: value for name, value in env.items() if name not in runner.JOB_VARIABLES}
            environment["TMPDIR"] = str(self.folder)
            try:
                self.command = Guarded(list(start), str(self.folder), environment, *limits, stdin_fd=job_fd)
            finally:
                os.close(job_fd)
            self.answers = _Answers(self.command.stdout, self.command.stderr, tail)
            self.command.output = self.answers
            self.answers.start()
            self._stack = stack.pop_all()

    def wait(self, until: float) -> bool:
        """True when there is an answer, or none can come any more."""
        self.command.wait(until, or_readable=self.answers.news_fd)
        self.answers.heed()
        return self.command.ended or self.answers.closed or self.answers.done is not None

    def wait_ready(self, until: float) -> bool:
        """True when it is ready, or never will be."""
        return self.wait(until) or self.answers.ready

    def take(self, deadline_seconds: float) -> bool:
        """Puts the guard's deadline off; False when the child has ended meanwhile, or is about to."""
        self.command.set_deadline(deadline_seconds)
        return self.command.has_deadline(within_seconds=5.0) and not self.answers.closed

    def give(self, arguments: Sequence[str], env: Mapping[str, str], folder: str) -> bool:
        """Gives it a job; False when it is not reading. Of `env`, it is told JOB_VARIABLES."""
        job_id = uuid.uuid4().hex
        told = {name: env[name] for name in runner.JOB_VARIABLES if name in env}
        job = {"id": job_id, "argv": list(arguments), "request_id": env.get("REQUEST_ID", ""), "env": told,
               "cwd": folder}  # fmt: skip
        line = json.dumps(job).encode() + b"\n"
        self.jobs += 1
        self.answers.begin(job_id)
        self._reset_peak()
        try:
            return os.write(self._jobs_fd, line) == len(line)
        except (BrokenPipeError, BlockingIOError):
            self.command.wait(time.monotonic() + 1.0)  # it has ended, most likely, and the guard knows how
            return False

    def outcome(self) -> _Outcome | None:
        """How the job ended, if it has."""
        if (done := self.answers.done) is None:
            return None
        code, tail, message = done.get("exit_code"), self.answers.tail(), done.get("message")
        return _Outcome(
            exit_code=code if isinstance(code, int) and 0 <= code <= 255 else 1,
            stderr_tail=tail or printable(str(message or "").encode("utf-8", "replace"))[:1000],
            warnings=tuple(self.answers.warnings),
            peak_rss_bytes=self.peak_rss_bytes(),
            last=done.get("last") is True,
        )

    def peak_rss_bytes(self) -> int:
        """The largest of this job, where Linux tells; of the child's life elsewhere on Linux, else 0."""
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{self.command.pid}/status").read_text()
            if match := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
                return int(match[1]) * 1024
        return 0

    def _reset_peak(self) -> None:
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.command.pid}/clear_refs").write_text("5")

    def end(self, grace_seconds: float, deadline_seconds: float = 0.0) -> CommandError | None:
        """Ends it with all that came from it; what went wrong, if it had ended before or can no longer answer."""
        failure: CommandError | None = None
        # A process that closed its stdout has ended, most likely, and the guard knows how.
        if self.answers.closed and not self.command.wait(time.monotonic() + 1.0):
            failure = CommandFailed("it closed its stdout, where its answers were to come")
        by_itself = self.command.ended
        try:
            self.returncode, _ = self.command.end(grace_seconds)
        finally:
            self._stack.close()
        if by_itself:
            failure = self.command.failure(deadline_seconds) or CommandFailed("it ended before it answered")
        if failure is not None:
            failure.returncode = self.returncode if failure.returncode is None else failure.returncode
            failure.stderr_tail = self.answers.tail()
        return failure


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
        self._idle: dict[tuple[str, ...], list[_Child]] = {}
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
            the arguments are absolute. All else, result and exceptions too, is as in commands.run; of `env`, a child
            sees commands.JOB_VARIABLES with the job, and the rest as it was when the child was started.
        Raises OSError, too, where there is no place for the child's scratch folder.
        """
        watch = Watch(
            [cwd],
            deadline_seconds=deadline_seconds,
            on_progress=on_progress,
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

    def _take(self, start: tuple[str, ...], job: _Job) -> _Child | None:
        """An idle child that lives."""
        while True:
            with self._lock:
                children = self._idle.get(start)
                child = children.pop() if children else None
            if child is None or child.take(job.watch.left_seconds() + 1.0):
                return child
            child.end(job.grace_seconds)

    def _start(self, start: Sequence[str], job: _Job) -> _Child | None:
        """A fresh child that is ready; None when the program does not serve."""
        limits = (job.grace_seconds, max(0.0, job.watch.left_seconds()) + 1.0, job.memory_bytes or 0)
        child = _Child(start, job.env, self._root, limits, job.stderr_tail_bytes)
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

    def _run_in(self, child: _Child, arguments: Sequence[str], job: _Job) -> CommandResult:
        """Raises _Lost where the child is gone with the job, CommandError where it is the job alone that failed."""
        started = time.monotonic()
        failure: CommandError | None = None
        outcome: _Outcome | None = None
        lost: CommandError | None = None
        kept = False
        job.watch.folders = [job.cwd, child.folder]
        try:
            if child.give(arguments, job.env, job.cwd):
                failure = job.watch.wait(child.wait, child.answers)
            outcome = child.outcome()
            if failure is None and outcome is not None:
                job.watch.report_progress(child.answers)
                failure = _exit_failure(outcome) or job.watch.check_size()
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
            return CommandResult(0, outcome.stderr_tail, seconds, outcome.peak_rss_bytes, outcome.warnings)
        failure = failure or lost or CommandFailed("it did not take the job", 1)
        failure.returncode = returncode if failure.returncode is None else failure.returncode
        failure.stderr_tail = outcome.stderr_tail if outcome else child.answers.tail()
        if spoiled and isinstance(failure, CommandFailed):
            raise _Lost(failure)
        raise failure

    def _give_back(self, child: _Child) -> bool:
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


def _exit_failure(outcome: _Outcome) -> CommandFailed | None:
    if outcome.exit_code == 0:
        return None
    text = f"it exited with status {outcome.exit_code}"
    return CommandFailed(text, outcome.exit_code, outcome.stderr_tail)


def folder_in_use(folder: Path) -> bool:
    """Whether a scratch folder belongs to a resident child of a process that lives, be it another one."""
    if not folder.name.startswith(FOLDER_PREFIX):
        return False
    try:
        with open(folder / LOCK, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        with contextlib.suppress(FileNotFoundError):
            return time.time() - folder.stat().st_mtime < NEW_FOLDER_SECONDS
    return False
