"""What a command writes: its progress, what it found, its warnings and the end of its stderr, in constant memory."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import threading
import time
from typing import IO, Any


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

    _PROGRESS = re.compile(rb"PROGRESS\s+(\d{0,9}(?:\.\d{0,30})?)(?:\s+([a-z_]{1,32}))?\s*")
    _WARNING = re.compile(rb"WARNING:? (.+?)\s*")
    _MAX_WARNINGS, _MAX_STAGES = 20, 1000
    _READ_BYTES = 65536

    def __init__(self, stdout: IO[bytes], stderr: IO[bytes], tail_bytes: int, line_bytes: int = 256) -> None:
        super().__init__(name="command-output", daemon=True)
        self.progress = 0.0
        self.stages: list[str] = []  # the words behind progress, each time that there was another one
        self.last_heard = time.monotonic()
        self.warnings: list[str] = []
        self.separation: dict[str, Any] = {}
        self._stdout, self._stderr = stdout, stderr
        self._stdout_lines, self._stderr_lines = Lines(max(line_bytes, 1024)), Lines(1024)
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
                    stage = (match[2] or b"").decode()
                    if stage and stage != (self.stages or [""])[-1] and len(self.stages) < self._MAX_STAGES:
                        self.stages.append(stage)
            elif line.startswith(b"WARNING") and (match := self._WARNING.fullmatch(line)):
                self._warn(printable(match[1]))
            elif line.startswith(b"SEPARATION {"):
                with contextlib.suppress(ValueError, RecursionError):
                    self.separation = json.loads(line.removeprefix(b"SEPARATION "))

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
