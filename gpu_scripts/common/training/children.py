"""Programs of an engine as child processes: watched, logged, and ended with all that they started."""

from __future__ import annotations

import math
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common import script_io
from common.failures import BROKEN_CUDA, OUT_OF_MEMORY
from common.script_io import ScriptError

from .work import free_bytes

GUARD = Path(__file__).with_name("guard.py")
NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded|PytorchStreamWriter failed|unexpected pos \d+ vs")
NO_PORT = re.compile(r"EADDRINUSE|address already in use|errno: 98", re.IGNORECASE)
FULL_DISK_BYTES = 64 * 1024 * 1024
# A loader of torch that cannot hand a batch over (shared memory is full, a socket's path is too long) drops it, prints
# why, and lives on: the trainer waits for that batch for ever.
LOST_BATCH = re.compile(r'queues\.py", line \d+, in _feed')
# What runs out then is /dev/shm, which the words of a full disk are said of too.
NO_SHARED_MEMORY = re.compile(r"shared memory|_multiprocessing\.SemLock\(|</torch_\d")
LOST_BATCH_SECONDS = 5.0  # until the trainer is ended: the reason follows in the next lines
LAST_LINE = re.compile(r"^\s*(\w+(?:\.\w+)*(?:Error|Exception|Interrupt)\b.*)")
# What programs say of an error that they have caught.
TELLING = re.compile(
    r"\b(errors?|fatal|fail(ed|s|ure)?|cannot|can't|could not|couldn't|unable|invalid|missing|aborted"
    r"|(not|n't) (found|match|exist|enough|supported)|no such|too (few|small|short|large))\b",
    re.IGNORECASE,
)
NONE_FAILED = re.compile(
    r"\b(failed|failures?|errors?)\s*[:=]\s*0\b|\b(0|no) (failed|failures?|errors?)\b", re.IGNORECASE
)
# Python's own, each with a line of source below it: of the caller, or of the library, which calls warnings.warn.
PYTHON_WARNING = re.compile(r"\.py:\d+: (\w+\.)*\w*Warning\b")
OTHER_WARNING = re.compile(r"^(<[\w ]+>|sys):\d+: \w*Warning\b|^\[W\S* |^WARNING\b|^(\w+\.)*warn(_\w+)?\(")
BAR = re.compile(r"^.*\d+%\|[^\[]*\[[^\]]*\]?")  # what is printed next stands in the same line


class Ended(Exception):
    """A watcher of the lines wants the program's end. It becomes a ScriptError with the exit code."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass
class Child:
    """A program that has ended: its status, and what it said."""

    name: str
    code: int
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=4000))

    def said(self, pattern: str | re.Pattern[str]) -> bool:
        return any(re.search(pattern, line) for line in self.lines)

    @property
    def error(self) -> str:
        """The last exception that it printed, with the one that it was raised in the handling of, or nothing.

        Lightning's own clearing up fails after many others, and says nothing of them.
        """
        last = cause = ""
        for line in self.lines:
            if match := LAST_LINE.match(line):
                last = " ".join(match[1].split())[:300]
            elif line.startswith("During handling of the above exception"):
                cause = last
        return f"{last} (after {cause})" if cause and cause != last else last

    @property
    def own_lines(self) -> list[str]:
        """What it said without Python's warnings and the line of source below each, and without bars.

        At its end Python may warn of dozens of things that were not cleared up, below the line that tells why.
        """
        own: list[str] = []
        is_source = False
        for line in self.lines:
            text = BAR.sub("", line).strip()
            is_warning = bool(PYTHON_WARNING.search(text))
            if text and not (is_source or is_warning or OTHER_WARNING.search(text)):
                own.append(text)
            is_source = is_warning
        return own

    @property
    def last(self) -> str:
        """Its last own line; nothing where it said nothing."""
        return self.own_lines[-1] if self.own_lines else ""

    @property
    def reason(self) -> str:
        """The last exception that it printed, or else its last own line that tells of an error, or its last one."""
        own = self.own_lines
        places = [number for number, line in enumerate(own) if TELLING.search(NONE_FAILED.sub("", line))]
        said = self.error or self.last or ("it said nothing but warnings" if self.lines else "it said nothing")
        if places and not self.error:
            said = own[places[-1]]
            if said.endswith(":"):
                said = " ".join(own[places[-1] : places[-1] + 2])
        return " ".join(said.split())[:600]

    def out_of_memory(self) -> bool:
        """-9 without our doing is the kernel's killer at work."""
        return self.said(OUT_OF_MEMORY) or (self.code in (128 + 9, -9)) or self.said("signal SIGKILL")

    def failure(self, folder: Path) -> ScriptError:
        """Why it failed: 18 the disk of `folder` is full, 7 memory, 8 the GPU was lost, 14 a package is missing, 11."""
        if self.said(NO_SHARED_MEMORY) and (self.said(NO_SPACE) or self.said("Bus error")):
            message = f"{self.name} has too little shared memory (/dev/shm; of a container: --shm-size)"
            return ScriptError(script_io.ENGINE_FAILED, message)
        if self.said(NO_SPACE) or free_bytes(folder) < FULL_DISK_BYTES:
            return ScriptError(script_io.DISK_FULL, f"the disk of {folder} is full ({self.name})")
        if self.out_of_memory():
            return ScriptError(script_io.OUT_OF_MEMORY, f"out of memory in {self.name}")
        if self.said(BROKEN_CUDA):
            return ScriptError(script_io.NO_CUDA, f"the GPU was lost in {self.name}: {self.reason}")
        if self.said(r"ModuleNotFoundError"):
            return ScriptError(script_io.MISSING_PACKAGE, f"{sys.executable} lacks a package: {self.reason}")
        return ScriptError(script_io.ENGINE_FAILED, f"{self.name} failed (status {self.code}): {self.reason}")


def run(
    name: str,
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    log: Path,
    environment: Mapping[str, str],
    on_line: Callable[[str], None] | None = None,
    on_look: Callable[[], None] | None = None,
    stall_seconds: float = math.inf,
) -> Child:
    """Runs a program to its end, whatever its status, with this interpreter's environment and `environment`.

    What it says goes to `log` (appended), and line by line to `on_line` (bars that are drawn with \\r too); `on_look`
    is called about once a second. What either raises ends the program first: `Ended` becomes a ScriptError. So does
    whatever ends this process: the guard sees the pipe between them close. A program that says nothing for
    `stall_seconds`, or whose loaders of data have lost a batch, is ended: ScriptError (11).
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    lifeline, ours = os.pipe()
    command = [sys.executable, "-I", "-S", str(GUARD), str(lifeline), *map(str, argv)]
    child = Child(name, -1)
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(lifeline,),
            start_new_session=True,  # a signal to our group is not for the guard: it sees the pipe close
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(lifeline)
    try:
        with open(log, "ab", buffering=0) as file:  # a killed script leaves all that was said
            _listen(process, child, file, on_line, on_look, stall_seconds)
        child.code = process.wait()
    except Ended as error:
        raise ScriptError(error.exit_code, str(error)) from error
    finally:
        os.close(ours)
        _wait_for(process)
    return child


def _listen(
    process: subprocess.Popen[bytes],
    child: Child,
    log: object,
    on_line: Callable[[str], None] | None,
    on_look: Callable[[], None] | None,
    stall_seconds: float,
) -> None:
    assert process.stdout is not None
    rest = b""
    looked = heard = time.monotonic()
    lost = math.inf
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            block = None
            if selector.select(0.5):
                block = os.read(process.stdout.fileno(), 65536)
            elif process.poll() is not None:
                block = b""  # a stray holds the pipe, which is no reason to wait
            if on_look is not None and time.monotonic() - looked > 1:
                looked = time.monotonic()
                on_look()
            if time.monotonic() > lost:
                hint = " (/dev/shm is too small; of a container: --shm-size)" if child.said(NO_SHARED_MEMORY) else ""
                message = f"a data loader of {child.name} lost a batch: {child.reason}{hint}"
                raise Ended(script_io.ENGINE_FAILED, message)
            if block is None:
                if time.monotonic() - heard > stall_seconds:
                    why = f"; its last error was {child.error}" if child.error else ""
                    message = f"{child.name} hangs: it said nothing for {stall_seconds:g} s{why}"
                    raise Ended(script_io.ENGINE_FAILED, message)
                continue
            heard = time.monotonic()
            log.write(block)  # type: ignore[attr-defined]
            *whole, rest = re.split(rb"[\r\n]+", rest + block)
            rest = rest[-65536:]
            for raw in whole if block else [*whole, rest]:
                line = raw.decode("utf-8", "replace").strip()
                if line:
                    child.lines.append(line)
                    if LOST_BATCH.search(line):
                        lost = min(lost, heard + LOST_BATCH_SECONDS)
                    if on_line is not None:
                        on_line(line)
            if not block:
                return


def _wait_for(process: subprocess.Popen[bytes]) -> None:
    """The guard ends by itself once the lifeline is closed."""
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
