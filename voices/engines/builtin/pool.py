"""Child processes that speak: a bounded pool, and the wire to each child.

Over a child's stdin and stdout go messages: a JSON object in one line, whose `bytes` says how many bytes follow it.
"""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from voiceproject.errors import EngineError, EngineUnavailable, PublicError
from voices.engines.interface import Piece, Reference, profile_key

from .turns import Deadline, Turns

log = logging.getLogger(__name__)

PROJECT_ROOT = Path(__file__).resolve().parents[3]
THREADS = "2"
ENGINE = "builtin"
MAX_LINE_BYTES = 1 << 20


class ChildEnded(Exception):
    """A child closed its end: it crashed or was killed."""


class Pool:
    """At most `size` children. A child works for one sentence at a time; tenants whose sentences wait take turns.

    max_waiting: texts that may wait for the turn of their first sentence.
    """

    def __init__(self, cache_dir: Path | None, size: int, max_child_bytes: int, max_waiting: int) -> None:
        self.turns = Turns(size, max_waiting)
        self._cache_dir = cache_dir
        self._max_child_bytes = max_child_bytes
        self._lock = threading.Lock()
        self._idle: list[Child] = []
        self._busy: set[Child] = set()
        self._open = True

    def speak(self, order: dict[str, Any], reference: Reference, deadline: float) -> Piece:
        """One sentence (`order`: the arguments of Synthesizer.speak) in the voice of the reference; within a turn.

        An order with `prepare` and a language speaks nothing: what that would need of the voice is computed, and kept.

        Raises Deadline, EngineError where the child fails, EngineUnavailable once closed, PublicError as the engine.
        """
        child: Child | None = None
        try:
            child = self._take_child()
            piece = child.speak(order, reference, deadline)
            if child.resident_bytes > self._max_child_bytes:
                log.info("a speech process with %d MB is replaced", child.resident_bytes >> 20)
            else:
                self._keep(child)
                child = None
            return piece
        except PublicError:
            if child:
                self._keep(child)
                child = None
            raise
        except (ChildEnded, OSError, ValueError) as error:
            if not self._open:
                raise EngineUnavailable("The speech engine is shutting down.") from error
            log.error("the speech process failed: %s", error)
            raise EngineError() from error
        finally:
            if child:
                self._discard(child)

    def state(self) -> dict[str, Any]:
        """open; children: running processes; busy; waiting: sentences in the queue."""
        with self._lock:
            busy, idle = len(self._busy), len(self._idle)
            return {"open": self._open, "children": busy + idle, "busy": busy, "waiting": self.turns.waiting}

    def close(self) -> None:
        with self._lock:
            self._open = False
            idle, busy = self._idle.copy(), self._busy.copy()
            self._idle.clear()
        self.turns.close()
        for child in idle:
            child.end()
        for child in busy:
            child.kill()  # its request's thread sees the end of the pipe and does the rest

    def _take_child(self) -> Child:
        with self._lock:
            if not self._open:
                raise EngineUnavailable("The speech engine is shutting down.")
            while self._idle:
                child = self._idle.pop()
                if child.running:
                    self._busy.add(child)
                    return child
                child.end()
        child = Child(self._cache_dir)
        with self._lock:
            self._busy.add(child)
        return child

    def _keep(self, child: Child) -> None:
        with self._lock:
            self._busy.discard(child)
            if self._open:
                self._idle.append(child)
                return
        child.end()

    def _discard(self, child: Child) -> None:
        with self._lock:
            self._busy.discard(child)
        child.end()


class Child:
    """One process that speaks. It ends itself when its stdin closes, so it does not outlive this process."""

    def __init__(self, cache_dir: Path | None) -> None:
        arguments = [sys.executable, "-m", "voices.engines.builtin.child"]
        # onnxruntime would tell its maker of each start and model; see also gpu_scripts/common/script_io.py.
        quiet = {"ORT_DISABLE_TELEMETRY": "1"}
        environment = {**os.environ, **quiet, "OMP_NUM_THREADS": THREADS, "OPENBLAS_NUM_THREADS": THREADS}
        if cache_dir:
            environment["BUILTIN_CACHE_DIR"] = str(cache_dir)
        # A session of its own: Ctrl-C in a terminal is for the server, which then closes its children.
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=PROJECT_ROOT,
            env=environment,
            start_new_session=True,
            bufsize=0,
        )
        assert self._process.stdin and self._process.stdout
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        self._buffer = bytearray()
        self.resident_bytes = 0

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def speak(self, order: dict[str, Any], reference: Reference, deadline: float) -> Piece:
        if reference.preset:
            answer, data = self._ask({**order, "base": reference.preset}, b"", deadline)
            return Piece(np.frombuffer(data, np.float32), int(answer["sample_rate"]), order["text"])
        key = profile_key(reference)
        order = {**order, "profile": key}
        answer, data = self._ask(order, b"", deadline)
        if answer.get("need") == "reference":
            if not self._send_kept(key, reference, order["language"], deadline):
                self._send_reference(key, reference, deadline)
            answer, data = self._ask(order, b"", deadline)
        if answer["made"] and reference.kept:
            _, kept = self._ask({"keep": key, "language": order["language"]}, b"", deadline)
            reference.kept.store(ENGINE, order["language"], kept)
        return Piece(np.frombuffer(data, np.float32), int(answer["sample_rate"]), order["text"])

    def _send_kept(self, key: str, reference: Reference, language: str, deadline: float) -> bool:
        """What was computed of a saved voice before. False where there is nothing, or nothing of use any more."""
        kept = reference.kept.load(ENGINE, language) if reference.kept else None
        if kept is None:
            return False
        answer, _ = self._ask({"kept": key, "language": language}, kept, deadline)
        return bool(answer["taken"])

    def _send_reference(self, key: str, reference: Reference, deadline: float) -> None:
        message = {
            "reference": key,
            "sample_rate": reference.sample_rate,
            "content_hash": reference.content_hash,
            "transcript": reference.transcript,
            "language": reference.language,
        }
        self._ask(message, np.ascontiguousarray(reference.samples, np.float32).tobytes(), deadline)

    def _ask(self, message: dict[str, Any], data: bytes, deadline: float) -> tuple[dict[str, Any], bytes]:
        self._write(json.dumps({**message, "bytes": len(data)}).encode() + b"\n" + data, deadline)
        line = self._read_line(deadline)
        answer = json.loads(line)
        data = self._read(int(answer["bytes"]), deadline)
        self.resident_bytes = int(answer.get("resident_bytes", 0))
        if "error" in answer:
            if answer["error"] == "engine_error":
                raise EngineError(answer["message"])
            raise PublicError(answer["error"], answer["message"], answer["details"])
        return answer, data

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        """Kills the process, if it still runs, waits for its end and closes the pipes. Harmless when repeated."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()

    def _write(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            self._wait(self._to, select.POLLOUT, deadline)
            try:
                view = view[os.write(self._to, view) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise ChildEnded(self._ending()) from error

    def _read_line(self, deadline: float) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > MAX_LINE_BYTES:
                raise ValueError("a line without end")
            self._fill(deadline)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _read(self, count: int, deadline: float) -> bytes:
        while len(self._buffer) < count:
            self._fill(deadline)
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def _fill(self, deadline: float) -> None:
        self._wait(self._from, select.POLLIN, deadline)
        try:
            block = os.read(self._from, 1 << 20)
        except BlockingIOError:
            return
        if not block:
            raise ChildEnded(self._ending())
        self._buffer += block

    def _wait(self, descriptor: int, events: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(descriptor, events)
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise Deadline

    def _ending(self) -> str:
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "it closed its output"
        return f"it ended by signal {-code}" if code < 0 else f"it ended with {code}"
