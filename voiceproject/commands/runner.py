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
import fnmatch
import logging
import math
import os
import re
import select
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from voiceproject.commands import guard

log = logging.getLogger(__name__)

PROJECT_DIR = Path(__file__).resolve().parents[2]
MARK = "VOICEPROJECT_COMMAND_MARK"  # the environment variable that all processes of a command have

SERVE = "--serve"  # asks a script to take job after job (resident.py)

NOT_FOUND = 127  # what a shell answers for a missing program
NOT_STARTED = 126

# What a command sees of the worker's environment; all else, above all its secrets, stays behind.
PASSED_ENVIRONMENT = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "LC_*", "TZ"),
    *("LD_LIBRARY_PATH", "CUDA_*", "NVIDIA_*", "HIP_*", "ROCR_*", "PYTORCH_*", "TORCH_*"),
    *("OMP_*", "MKL_*", "OPENBLAS_*", "HF_*", "XDG_CACHE_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR"),
)


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
    warnings: tuple[str, ...] = ()  # its lines `WARNING text` on stderr: the first 20, printable text


# ------------------------------------------------------------------------------
# Templates


class CommandTemplate:
    """An operator's command line with placeholders: `{python_exec} gpu_scripts/x.py --input {song_input}`.

    It is split into arguments once, by the rules of a POSIX shell's quoting and nothing else of a shell.
    Values are put inside the arguments and never split again, so that blanks, quotes and braces in them mean
    nothing. A value that may begin with a dash belongs in the form `--name={value}`. `{{` and `}}` are
    literal braces.

    A relative program with a slash, and a relative script (`scripts/x.py`), are the project's, not the
    working directory's; `scripts/x.py` is `gpu_scripts/x.py` where only that exists.

    Constructing never fails: `check` says what is wrong, and `argv` raises ValueError for such a template.
    """

    _TOKEN = re.compile(r"(\{\{)|(\}\})|\{([^{}]*)\}|([{}])")

    def __init__(self, template: str, allowed: frozenset[str], project_dir: Path = PROJECT_DIR) -> None:
        self.template = template
        self.project_dir = project_dir
        self.problems: list[str] = []
        self.placeholders: set[str] = set()
        # Every argument is literals at even places and names of placeholders at odd ones.
        self._arguments: list[list[str]] = []
        try:
            words = shlex.split(template)
        except ValueError as error:
            self.problems.append(f"it cannot be split into arguments: {str(error).lower()}")
            return
        if not words or not words[0]:
            self.problems.append("it is empty")
            return
        if "\0" in template:
            self.problems.append("it contains a null character")
        self._arguments = [self._parse(word) for word in words]
        for name in sorted(self.placeholders - allowed):
            known = ", ".join(sorted(allowed))
            self.problems.append(f"unknown placeholder {{{name}}}; known are: {known}")
        self._script = self._find_script()
        if self._script:
            self._arguments[self._script] = [self._in_project(self._arguments[self._script][0])]

    def _parse(self, word: str) -> list[str]:
        parts, literal, at = [], "", 0
        for token in self._TOKEN.finditer(word):
            literal += word[at : token.start()]
            at = token.end()
            opening, closing, name, stray = token.groups()
            if opening or closing:
                literal += "{" if opening else "}"
            elif stray:
                self.problems.append(f"unbalanced brace in {word!r}; a literal one is written twice")
            else:
                self.placeholders.add(name)
                parts += [literal, name]
                literal = ""
        return [*parts, literal + word[at:]]

    def _find_script(self) -> int:
        """The place of the script that the program is to run; 0 when there is none to be seen."""
        for place, parts in enumerate(self._arguments[1:], start=1):
            if parts[0].startswith("--"):
                break
            if len(parts) == 1 and parts[0].endswith((".py", ".sh")):
                return place
        return 0

    def _in_project(self, path: str) -> str:
        """A relative path below the project's folder; links are not resolved, a venv's python is one."""
        found = self.project_dir / path
        if not found.exists() and Path(path).parts[:1] == ("scripts",):
            moved = self.project_dir / "gpu_scripts" / Path(*Path(path).parts[1:])
            if moved.exists():
                return str(moved)
        return str(found)

    def check(self, values: Mapping[str, str] | None = None) -> list[str]:
        """What is wrong with the template, a sentence each; empty when all is well.

        values: placeholders whose value is known beforehand, such as the interpreter. A program whose value
            is not known is not looked for.
        """
        problems = list(self.problems)
        if not self._arguments:
            return problems
        values = values or {}
        if set(self._arguments[0][1::2]) <= values.keys():
            program = self._program(self._fill(self._arguments[0], values))
            if shutil.which(program) is None:
                problems.append(f"the program {program!r} is missing or not executable")
        if self._script and not os.path.isfile(self._arguments[self._script][0]):
            problems.append(f"the script {self._arguments[self._script][0]!r} is missing")
        return problems

    def argv(self, values: Mapping[str, str]) -> list[str]:
        """One argument for each in the template. Raises ValueError: a template with problems, a value that is
        missing or holds a null character. Values that the template does not use are allowed."""
        if self.problems:
            raise ValueError("; ".join(self.problems))
        missing = self.placeholders - values.keys()
        if missing:
            raise ValueError(f"no value for {', '.join(sorted(missing))}")
        argv = [self._fill(parts, values) for parts in self._arguments]
        if any("\0" in argument for argument in argv):
            raise ValueError("a value contains a null character")
        return [self._program(argv[0]), *argv[1:]]

    def serving(self, values: Mapping[str, str], lasting: frozenset[str]) -> tuple[list[str], list[str]] | None:
        """(the command that takes job after job, the arguments of the job that `values` are of), or None where the
        program itself is another for each job. Raises as `argv` does.

        lasting: the placeholders that have the same value for all jobs. The command is the program, its script,
        `--serve`, and those arguments that are the same for all jobs, for what a script has to know before it loads
        anything; a job's arguments are everything after the script.
        """
        argv = self.argv(values)
        after = self._script + 1

        def lasts(parts: list[str]) -> bool:
            return set(parts[1::2]) <= lasting

        if not all(map(lasts, self._arguments[:after])):
            return None
        kept: list[str] = []
        for argument, parts in zip(argv[after:], self._arguments[after:], strict=True):
            if lasts(parts):
                kept.append(argument)
            elif kept and kept[-1].startswith("--") and "=" not in kept[-1]:
                kept.pop()  # the option whose value changes
        return [*argv[:after], SERVE, *kept], argv[after:]

    @staticmethod
    def _fill(parts: list[str], values: Mapping[str, str]) -> str:
        return "".join(values[part] if place % 2 else part for place, part in enumerate(parts))

    def _program(self, program: str) -> str:
        return self._in_project(program) if "/" in program else program


# ------------------------------------------------------------------------------
# Environment and scratch space


def child_environment(
    scratch_dir: str | os.PathLike[str],
    extra: Mapping[str, str] | None = None,
    passed: Sequence[str] = (),
    source: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The environment of a command: PASSED_ENVIRONMENT of the worker's, and no more, so that SECRET_KEY,
    API_KEY, DATABASE_URL and their like never reach an engine.

    passed: more names (or patterns) to pass through; extra: variables to set; source: os.environ by default.
    TMPDIR is the scratch folder. Python programs do not buffer output, so that progress is seen when made.
    """
    source = os.environ if source is None else source
    patterns = (*PASSED_ENVIRONMENT, *passed)
    environment = {name: value for name, value in source.items() if any(fnmatch.fnmatchcase(name, p) for p in patterns)}
    if not {"LANG", "LC_ALL", "LC_CTYPE"} & environment.keys():
        environment["LANG"] = "C.UTF-8"
    environment |= {"TMPDIR": os.fspath(scratch_dir), "PYTHONUNBUFFERED": "1"}
    return environment | dict(extra or {})


# What a command is told of the job that it works for. REQUEST_ID is the older name of VOICEPROJECT_REQUEST_ID.
IDENTITY = {"request_id": "VOICEPROJECT_REQUEST_ID", "job": "VOICEPROJECT_JOB_ID", "tenant": "VOICEPROJECT_TENANT_ID",
            "key": "VOICEPROJECT_KEY_ID"}  # fmt: skip
JOB_VARIABLES = frozenset({*IDENTITY.values(), "REQUEST_ID", "TRACEPARENT"})


def identity(ids: Mapping[str, str], traceparent: str = "") -> dict[str, str]:
    """The environment variables that tell a command the ids of `ids` (request_id, job, tenant, key) and its trace."""
    told = {variable: ids[name] for name, variable in IDENTITY.items() if name in ids}
    told["REQUEST_ID"] = ids.get("request_id", "")
    return told | ({"TRACEPARENT": traceparent} if traceparent else {})


@contextlib.contextmanager
def scratch(root: str | os.PathLike[str], name: str) -> Iterator[Path]:
    """A folder `root/name` of mode 0700 that is removed at the end, whatever happened and whatever is in it.

    The name should contain the attempt, so that a worker that comes back late removes only its own folder.
    What an earlier run left under the same name is removed first. Raises ValueError for a name that is no
    plain file name, and OSError when the folder cannot be made (a full disk).
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}", name):
        raise ValueError(f"not a name for a scratch folder: {name!r}")
    folder = Path(root) / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove(folder)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        _remove(folder)


def sweep_scratch(root: str | os.PathLike[str], keep: Callable[[str], bool]) -> int:
    """Removes what killed workers left below `root`: every entry whose name `keep` refuses; how many."""
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return 0
    return sum(_remove(Path(root) / name) for name in names if not keep(name))


def _remove(path: Path) -> bool:
    """Removes a file, link or folder; what cannot be removed is logged. True when it was there and went."""
    if not os.path.lexists(path):
        return False
    try:
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            return True
        try:
            shutil.rmtree(path)
        except PermissionError:
            # A command may have taken permissions away: they are put right, and it is tried once more.
            path.chmod(stat.S_IRWXU)
            for folder, names, _ in os.walk(path):
                for name in names:
                    if not os.path.islink(os.path.join(folder, name)):
                        os.chmod(os.path.join(folder, name), stat.S_IRWXU)
            shutil.rmtree(path)
    except FileNotFoundError:
        pass  # Another process of this host sweeps it too, and was faster.
    except OSError as error:
        log.error("cannot remove %s: %s", path, error)
    return not os.path.lexists(path)


def folder_bytes(folder: str | os.PathLike[str]) -> int:
    """The length of all files below a folder, links not followed; what vanishes meanwhile is not counted."""
    total = 0
    pending = [os.fspath(folder)]
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                    continue
                with contextlib.suppress(FileNotFoundError):
                    total += entry.stat(follow_symlinks=False).st_size
    return total


# ------------------------------------------------------------------------------
# Output


class Lines:
    """Cuts what comes in pieces into lines, of which no more than `limit` bytes are kept."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._line = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without their ends."""
        *lines, self._line = (self._line + data).split(b"\n")
        self._line = self._line[: self._limit]
        return lines


def printable(data: bytes) -> str:
    """Bad UTF-8 and nulls replaced, escape sequences and control characters gone, lines end with a newline."""
    text = data.decode("utf-8", "replace").replace("\0", "\ufffd")
    text = re.sub(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|.)", "", text)
    text = re.sub(r"\r\n?", "\n", text)
    return "".join(c if c.isprintable() or c in "\n\t" else " " if c.isspace() else "" for c in text)


class Output(threading.Thread):
    """Drains a command's stdout and stderr in a thread of its own, so that nothing the runner does (a slow
    query) blocks the command. Memory is constant, whatever is written."""

    _PROGRESS = re.compile(rb"PROGRESS\s+(\d{0,9}(?:\.\d{0,30})?)\s*")
    _WARNING = re.compile(rb"WARNING:? (.+?)\s*")
    _MAX_WARNINGS = 20
    _READ_BYTES = 65536

    def __init__(self, stdout: IO[bytes], stderr: IO[bytes], tail_bytes: int, line_bytes: int = 256) -> None:
        super().__init__(name="command-output", daemon=True)
        self.progress = 0.0
        self.last_heard = time.monotonic()
        self.warnings: list[str] = []
        self._stdout, self._stderr = stdout, stderr
        self._stdout_lines, self._stderr_lines = Lines(line_bytes), Lines(1024)
        self._tail_bytes = tail_bytes
        self._tail = bytearray()
        self._lock = threading.RLock()
        self._close_by: float | None = None

    def run(self) -> None:
        streams = {stream.fileno(): stream for stream in (self._stdout, self._stderr)}
        poller = select.poll()
        for fd in streams:
            poller.register(fd, select.POLLIN)
        while streams:
            ready = poller.poll(100)
            if self._close_by is not None and (not ready or time.monotonic() > self._close_by):
                return  # a process that could not be ended holds the pipe open
            for fd, _ in ready:
                try:
                    data = os.read(fd, self._READ_BYTES)
                except BlockingIOError:
                    continue  # it was read meanwhile
                if not data:
                    poller.unregister(fd)
                    del streams[fd]
                self.last_heard = time.monotonic()
                with self._lock:
                    if fd == self._stdout.fileno():
                        self._read_stdout(data)
                    else:
                        self._read_stderr(data)

    def _read_stdout(self, data: bytes) -> None:
        """data: nothing at the end of the stream."""
        for line in self._stdout_lines.feed(data or b"\n"):
            if line.startswith(b"PROGRESS") and (match := self._PROGRESS.fullmatch(line)):
                with contextlib.suppress(ValueError):
                    self.progress = max(self.progress, min(1.0, float(match[1])))

    def _read_stderr(self, data: bytes) -> None:
        self._tail += data
        if len(self._tail) > 2 * self._tail_bytes + self._READ_BYTES:
            del self._tail[: -self._tail_bytes]
        self._read_warnings(data)

    def _read_warnings(self, data: bytes) -> None:
        for line in self._stderr_lines.feed(data or b"\n"):
            if line.startswith(b"WARNING") and (match := self._WARNING.fullmatch(line)):
                self._warn(printable(match[1]))

    def _warn(self, text: str) -> None:
        if len(self.warnings) < self._MAX_WARNINGS:
            self.warnings.append(text)

    def close(self) -> None:
        """Called when the command has ended: reads what is left in the pipes, for a second at most."""
        self._close_by = time.monotonic() + 1.0
        if self.ident is not None:
            self.join()
        self._read_stdout(b"")
        self._read_stderr(b"")
        self._stdout.close()
        self._stderr.close()

    def tail(self) -> str:
        """The end of stderr as printable text."""
        with self._lock:
            data = bytes(self._tail[-self._tail_bytes :]) if self._tail_bytes else b""
            if len(self._tail) > self._tail_bytes:
                data = data.lstrip(bytes(range(0x80, 0xC0)))  # the rest of a character that was cut
        return printable(data)


# ------------------------------------------------------------------------------
# Running


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
        should_stop: Callable[[], bool] | None = None,
        poll_seconds: float = 0.25,
        stop_every_seconds: float = 0.5,
        max_output_bytes: int | None = None,
        stall_seconds: float | None = None,
    ) -> None:
        self.folders = folders
        self.started = time.monotonic()
        self.deadline_seconds = deadline_seconds
        self.on_progress, self.should_stop = on_progress, should_stop
        self.poll_seconds, self.stop_every_seconds = poll_seconds, stop_every_seconds
        self.max_output_bytes, self.stall_seconds = max_output_bytes, stall_seconds
        self._reported = 0.0
        self._next_stop = self.started if should_stop is not None else math.inf

    def left_seconds(self) -> float:
        return self.started + self.deadline_seconds - time.monotonic()

    def report_progress(self, output: Output) -> None:
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
        within 0..1; other lines on stdout are dropped.
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
        raise failure
    watch.report_progress(output)
    return CommandResult(returncode, output.tail(), seconds, peak_rss_bytes, tuple(output.warnings))
