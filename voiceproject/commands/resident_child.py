"""One script that was started with `--serve`: its protocol, its scratch folder, its end.

The protocol is described in gpu_scripts/common/script_io.py, at `run`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from voiceproject.commands.output import Output, printable
from voiceproject.commands.runner import CommandError, CommandFailed, Guarded
from voiceproject.commands.scratch import scratch
from voiceproject.commands.template import JOB_VARIABLES

FOLDER_PREFIX = "resident-"
LOCK = ".alive"
NEW_FOLDER_SECONDS = 60.0


class Answers(Output):
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
            self.progress, self.warnings, self.separation, self.last_heard = 0.0, [], {}, time.monotonic()
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
        if isinstance(separation := answer.get("separation"), dict):
            self.separation = separation
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
class Outcome:
    """A job that was answered. last: the child ends after it."""

    exit_code: int
    stderr_tail: str
    warnings: tuple[str, ...]
    separation: dict[str, Any]
    peak_rss_bytes: int
    last: bool


class Child:
    """One script that serves, from its start to its end, with a scratch folder of its own for TMPDIR."""

    def __init__(self, start: Sequence[str], env: Mapping[str, str], root: Path, limits: Sequence[float], tail: int):
        """limits: grace and deadline in seconds, memory in bytes. Raises CommandFailed, OSError (a full disk)."""
        self.start = tuple(start)
        self.jobs = 0
        self.returncode: int | None = None
        with contextlib.ExitStack() as stack:
            name = f"{FOLDER_PREFIX}{uuid.uuid4().hex}"
            self.folder = stack.enter_context(scratch(root, name))
            # Under another name until it is locked: what has this name and no lock is swept.
            lock = stack.enter_context(open(self.folder / f"{LOCK}.new", "wb"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.rename(lock.name, self.folder / LOCK)
            job_fd, self._jobs_fd = os.pipe()
            stack.callback(os.close, self._jobs_fd)
            os.set_blocking(self._jobs_fd, False)
            environment = {name: value for name, value in env.items() if name not in JOB_VARIABLES}
            environment["TMPDIR"] = str(self.folder)
            try:
                self.command = Guarded(list(start), str(self.folder), environment, *limits, stdin_fd=job_fd)
            finally:
                os.close(job_fd)
            self.answers = Answers(self.command.stdout, self.command.stderr, tail)
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
        told = {name: env[name] for name in JOB_VARIABLES if name in env}
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

    def outcome(self) -> Outcome | None:
        """How the job ended, if it has."""
        if (done := self.answers.done) is None:
            return None
        code, tail, message = done.get("exit_code"), self.answers.tail(), done.get("message")
        return Outcome(
            exit_code=code if isinstance(code, int) and 0 <= code <= 255 else 1,
            stderr_tail=tail or printable(str(message or "").encode("utf-8", "replace"))[:1000],
            warnings=tuple(self.answers.warnings),
            separation=self.answers.separation,
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


def exit_failure(outcome: Outcome) -> CommandFailed | None:
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
