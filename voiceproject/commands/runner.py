"""Runs external commands: argv, deadline, progress, cancel, and the end of the whole process tree.

Every command stands under a small guard process (guard.py), which ends all that came from the command when it
exits, when it is to stop, and when the worker dies. Should the guard itself be killed, the runner notices at
once and ends what carries the command's mark in its environment (looked for in /proc). When guard and worker
are killed in the same instant, nothing is left to end the command; a container or a systemd unit ends it with
its control group.

Knows neither the ORM nor settings. No shell takes part anywhere.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from voiceproject.commands import guard
from voiceproject.commands.output import Output
from voiceproject.commands.scratch import folder_bytes

log = logging.getLogger(__name__)

MARK = "VOICEPROJECT_COMMAND_MARK"  # the environment variable that all processes of a command have

NOT_STARTED = 126
TAIL_SECONDS = 2.0  # between two looks at the end of a running command's stderr


class CommandError(Exception):
    """A command did not succeed. Its text and `stderr_tail` are for operators, never for clients."""

    def __init__(self, message: str, returncode: int | None = None, stderr_tail: str = "") -> None:
        super().__init__(message)
        self.returncode = returncode
        self.stderr_tail = stderr_tail


class CommandFailed(CommandError):
    """It exited with a status other than 0, died by a signal (negative), or did not start (126, 127)."""

    returncode: int

    _OUT_OF_MEMORY = re.compile(r"out of memory|MemoryError|std::bad_alloc|Unable to allocate", re.IGNORECASE)

    @property
    def out_of_memory(self) -> bool:
        """The kernel's way to end what takes too much is SIGKILL; all others say so."""
        return self.returncode == -signal.SIGKILL or self._OUT_OF_MEMORY.search(self.stderr_tail) is not None


class CommandTimedOut(CommandError):
    """It outlived its deadline, or was silent for too long."""


class CommandStopped(CommandError):
    """`should_stop` said so."""


class CommandOutputTooLarge(CommandError):
    """It wrote more into its scratch folder than it may."""


@dataclass(frozen=True)
class CommandResult:
    """A command that exited with status 0."""

    returncode: int
    stderr_tail: str
    seconds: float
    peak_rss_bytes: int  # of the largest process of the tree
    warnings: tuple[str, ...] = ()  # its lines `WARNING text`: the first 20, printable text
    separation: dict[str, Any] = field(default_factory=dict)  # of its line `SEPARATION {json}`, not checked


class Guarded:
    """A command under its guard, from its start to its end."""

    output: Output

    def __init__(self, argv: list[str], cwd: str, env: dict[str, str], *limits: float, stdin_fd: int = 0):
        """limits: grace and deadline in seconds, memory in bytes, as the guard takes them. stdin_fd: what the command
        reads, nothing by default. `output` has to be set and started by whoever makes this."""
        self.program = argv[0]
        self.mark = uuid.uuid4().hex
        self._status = b""
        self._deadlines = 0
        self._status_fd, guard_fd = os.pipe()
        command = [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), str(guard_fd), str(stdin_fd)]
        try:
            self._process = subprocess.Popen(
                [*command, *map(str, limits), cwd, *argv],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",  # a guard must not keep the scratch folder busy
                env=env | {MARK: self.mark},
                pass_fds=[guard_fd, stdin_fd] if stdin_fd else [guard_fd],
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            os.close(self._status_fd)
            raise CommandFailed(f"{self.program!r} cannot be started: {error}", NOT_STARTED) from None
        finally:
            os.close(guard_fd)
        assert self._process.stdout is not None and self._process.stderr is not None
        self.stdout, self.stderr = self._process.stdout, self._process.stderr
        self.ended = False

    def wait(self, until: float, or_readable: int | None = None) -> bool:
        """Reads what the guard says until then, or until a descriptor can be read; True when the guard has said all,
        which is when it ends or dies."""
        poller = select.poll()
        for fd in {self._status_fd, self._status_fd if or_readable is None else or_readable}:
            poller.register(fd, select.POLLIN)
        while not self.ended and (ready := poller.poll(max(0.0, until - time.monotonic()) * 1000)):
            if self._status_fd in dict(ready):
                data = os.read(self._status_fd, 65536)
                self.ended = not data
                self._status += data
            if or_readable in dict(ready):
                break
        return self.ended

    def set_deadline(self, seconds: float) -> None:
        """From now, in the guard. `has_deadline` tells whether it was in time for that."""
        assert self._process.stdin is not None
        self._deadlines += 1
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"deadline {seconds:.3f}\n".encode())

    def has_deadline(self, within_seconds: float) -> bool:
        """Waits for the guard to confirm the last `set_deadline`; False when it has ended the command instead, or is
        about to."""
        until = time.monotonic() + within_seconds
        while self._status.count(b"until ") < self._deadlines:
            if time.monotonic() >= until or self.wait(min(until, time.monotonic() + 0.02)):
                return False
        return True

    @property
    def pid(self) -> int:
        """The command's, 0 as long as the guard has not said it."""
        return int((self._said(b"pid") or ["0"])[0])

    def ask_to_end(self) -> None:
        assert self._process.stdin is not None
        # A byte, not only the end of the pipe: a process forked from this one may hold its other end too.
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(b"x")

    def _said(self, word: bytes) -> list[str]:
        for line in self._status.split(b"\n"):
            if line.startswith(word + b" "):
                return line.decode("utf-8", "replace").split(" ", 4)[1:]
        return []

    def end(self, grace_seconds: float) -> tuple[int, int]:
        """Ends the command, its guard and the reading; returns the command's status and peak RSS."""
        assert self._process.stdin is not None
        self.ask_to_end()
        self._process.stdin.close()
        self.wait(time.monotonic() + grace_seconds + 0.3)
        done = self._said(b"done")
        if not done:
            self._process.kill()  # it was killed already, or it hangs
        self._process.wait()
        # A guard that said "done" left nothing but the unkillable. Otherwise the command's session is ended
        # too, whose number may be another's as soon as the command is known to have ended.
        left = guard.end_marked(f"{MARK}={self.mark}", 0 if done else self.pid)
        if left:
            log.error("%r: processes %s could not be ended", self.program, left)
        self.output.close()
        os.close(self._status_fd)
        return (int(done[0]), int(done[1])) if done else (-signal.SIGKILL, 0)

    def failure(self, deadline_seconds: float) -> CommandError | None:
        """What went wrong with a command that was not ended from here."""
        if failed := self._said(b"fail"):
            reason = " ".join(failed[1:])
            return CommandFailed(f"{self.program!r} cannot be started: {reason}", int(failed[0]))
        if not (done := self._said(b"done")):
            return CommandFailed("its guard process was killed", -signal.SIGKILL)
        returncode, _, _, why = done
        if why == "deadline":
            return CommandTimedOut(f"it took longer than {deadline_seconds:g} s")
        if why == "asked":
            return CommandFailed("its guard process was told to end it")
        if returncode.startswith("-"):
            return CommandFailed(f"it was killed by signal {returncode[1:]}")
        return CommandFailed(f"it exited with status {returncode}") if returncode != "0" else None


class Watch:
    """Looks after one command while it runs, with the limits and callbacks that `run` takes."""

    def __init__(
        self,
        folders: Sequence[str | os.PathLike[str]],
        *,
        deadline_seconds: float,
        on_progress: Callable[[float], None] | None = None,
        on_stage: Callable[[str], None] | None = None,
        on_tail: Callable[[str], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        poll_seconds: float = 0.25,
        stop_every_seconds: float = 0.5,
        max_output_bytes: int | None = None,
        stall_seconds: float | None = None,
    ) -> None:
        self.folders = folders
        self.started = time.monotonic()
        self.deadline_seconds = deadline_seconds
        self.on_progress, self.on_stage, self.should_stop = on_progress, on_stage, should_stop
        self.on_tail, self._next_tail, self._tail = on_tail, self.started, ""
        self.poll_seconds, self.stop_every_seconds = poll_seconds, stop_every_seconds
        self.max_output_bytes, self.stall_seconds = max_output_bytes, stall_seconds
        self._reported, self._stages = 0.0, 0
        self._next_stop = self.started if should_stop is not None else math.inf

    def left_seconds(self) -> float:
        return self.started + self.deadline_seconds - time.monotonic()

    def report_stages(self, output: Output) -> None:
        while self.on_stage is not None and self._stages < len(output.stages):
            self._stages += 1
            self.on_stage(output.stages[self._stages - 1])

    def report_tail(self, output: Output) -> None:
        if self.on_tail is None or time.monotonic() < self._next_tail:
            return
        self._next_tail = time.monotonic() + TAIL_SECONDS
        tail = output.tail()
        if tail != self._tail:
            self._tail = tail
            self.on_tail(tail)

    def report_progress(self, output: Output) -> None:
        self.report_stages(output)
        self.report_tail(output)
        if self.on_progress is not None and output.progress > self._reported:
            self._reported = output.progress
            self.on_progress(self._reported)

    def check_size(self) -> CommandError | None:
        if self.max_output_bytes is None or sum(map(folder_bytes, self.folders)) <= self.max_output_bytes:
            return None
        return CommandOutputTooLarge(f"it wrote more than {self.max_output_bytes} bytes")

    def wait(self, wait: Callable[[float], bool], output: Output, until: float = math.inf) -> CommandError | None:
        """Waits until `wait(time)` says that it is over, or until then; a failure as soon as there is a reason to end
        the command. Times are time.monotonic()'s."""
        while True:
            if self.should_stop is not None and time.monotonic() >= self._next_stop:
                if self.should_stop():
                    return CommandStopped("it was stopped")
                self._next_stop = time.monotonic() + self.stop_every_seconds
            wake = min(time.monotonic() + self.poll_seconds, self.started + self.deadline_seconds, self._next_stop)
            if wait(min(wake, until)):
                return None
            self.report_progress(output)
            now = time.monotonic()
            if now - self.started >= self.deadline_seconds:
                return CommandTimedOut(f"it took longer than {self.deadline_seconds:g} s")
            if self.stall_seconds is not None and now - output.last_heard >= self.stall_seconds:
                return CommandTimedOut(f"it was silent for {self.stall_seconds:g} s")
            if failure := self.check_size():
                return failure
            if now >= until:
                return None


def run(
    argv: Sequence[str],
    *,
    cwd: str | os.PathLike[str],
    env: Mapping[str, str],
    deadline_seconds: float,
    on_progress: Callable[[float], None] | None = None,
    on_stage: Callable[[str], None] | None = None,
    on_tail: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    poll_seconds: float = 0.25,
    stop_every_seconds: float = 0.5,
    grace_seconds: float = 0.8,
    stderr_tail_bytes: int = 8192,
    max_output_bytes: int | None = None,
    scratch_dir: str | os.PathLike[str] | None = None,
    stall_seconds: float | None = None,
    memory_bytes: int | None = None,
    log_context: Mapping[str, object] | None = None,
) -> CommandResult:
    """Runs one command to its end, and ends everything that it started, however it ended.

    argv: program and arguments; a program without a slash is looked for on env's PATH.
    on_progress: called from this thread with each new greatest value of the lines `PROGRESS 0.42` on stdout,
        within 0..1; other lines on stdout are dropped. on_stage: called with each new word behind that number.
    on_tail: called from this thread with the end of stderr while the command runs, when it has changed, every two
        seconds at most.
    should_stop: called from this thread, at once and every stop_every_seconds; it may query a database. A
        command is gone within stop_every_seconds + grace_seconds + 0.5 of the first yes, so in 2 s at most.
    grace_seconds: between SIGTERM and SIGKILL.
    max_output_bytes: for all files below scratch_dir (cwd by default) together, looked at every poll_seconds.
    stall_seconds: a command that writes nothing on stdout or stderr for so long has timed out.
    memory_bytes: RLIMIT_AS of each process; not for CUDA, which reserves far more than it uses.
    log_context: goes into the log line at the end.

    Raises CommandFailed, CommandTimedOut, CommandStopped or CommandOutputTooLarge, each with the tail of
    stderr. Whatever the callbacks raise ends the command too, and is raised on.
    """
    watch = Watch(
        [cwd if scratch_dir is None else scratch_dir],
        deadline_seconds=deadline_seconds,
        on_progress=on_progress,
        on_stage=on_stage,
        on_tail=on_tail,
        should_stop=should_stop,
        poll_seconds=poll_seconds,
        stop_every_seconds=stop_every_seconds,
        max_output_bytes=max_output_bytes,
        stall_seconds=stall_seconds,
    )
    # The guard's own deadline is for a runner that hangs or is paused; the runner's comes first.
    limits = (grace_seconds, deadline_seconds + 1.0, memory_bytes or 0)
    command = Guarded(list(argv), os.fspath(cwd), dict(env), *limits)
    output = command.output = Output(command.stdout, command.stderr, stderr_tail_bytes)
    try:
        output.start()
        failure = watch.wait(command.wait, output)
    finally:
        returncode, peak_rss_bytes = command.end(grace_seconds)
        seconds = time.monotonic() - watch.started
        details = {"program": argv[0], "returncode": returncode, "seconds": round(seconds, 3)}
        log.info("command ended", extra={"command": {**(log_context or {}), **details}})
    failure = failure or command.failure(deadline_seconds) or watch.check_size()
    if failure is not None:
        failure.returncode = returncode if failure.returncode is None else failure.returncode
        failure.stderr_tail = output.tail()
        if isinstance(failure, CommandFailed):
            watch.report_stages(output)  # It may have ended in another than was seen last.
        raise failure
    watch.report_progress(output)
    return CommandResult(returncode, output.tail(), seconds, peak_rss_bytes, tuple(output.warnings), output.separation)
