"""The processes of `quickstart`: a web server and a worker, started, watched and ended together."""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Callable
from http.client import HTTPException
from typing import Any

TAIL_LINES = 20
STOP_SECONDS = 3.5  # Everything is to be over in five, on a busy machine too.
STILL_STARTING_SECONDS = 10.0
POLL_SECONDS = 0.2
HEALTH_TIMEOUT_SECONDS = 30.0  # An engine or a bucket that does not answer is waited for inside of /health.


class Ended(Exception):
    """A process ended although nobody asked it to. The text says which, how, and shows the end of its log."""


class Log:
    """Where the children's lines go: they are kept while all starts, and then passed on to standard error."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: list[bytes] | None = []

    def write(self, line: bytes) -> None:
        with self._lock:
            if self._kept is not None:
                self._kept.append(line)
            else:
                self._pass_on([line])

    def release(self) -> None:
        with self._lock:
            kept, self._kept = self._kept, None
            self._pass_on(kept or [])

    @staticmethod
    def _pass_on(lines: list[bytes]) -> None:
        try:
            sys.stderr.buffer.write(b"".join(lines))
            sys.stderr.buffer.flush()
        except OSError:
            # The terminal is gone. A child that could not write any more would hang, so its lines are still read.
            return


class Child:
    """A process in a session of its own, so that Ctrl-C reaches only the supervisor.

    Its standard input is a pipe that closes when the supervisor is gone, however it went.
    """

    def __init__(self, name: str, argv: list[str], log: Log, **options: Any) -> None:
        self.name = name
        self.tail: deque[bytes] = deque(maxlen=TAIL_LINES)
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            **options,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, args=(log,), name=f"log of {name}", daemon=True)
        self._reader.start()

    def _read(self, log: Log) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.tail.append(line)
            log.write(line)

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def how_it_ended(self) -> str:
        status = self.process.returncode
        return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"

    def last_lines(self) -> str:
        self._reader.join(1.0)
        return b"".join(self.tail).decode(errors="replace").rstrip()


class Supervisor:
    """Runs the children until Ctrl-C, SIGTERM or SIGHUP, or until one of them ends; leaving the `with` ends them all.

    From its start the signals are the supervisor's: they wake it, and raise nothing anywhere.
    """

    def __init__(self) -> None:
        self.log = Log()
        self.children: list[Child] = []
        self.stopping = False
        self._woken, self._wake = os.pipe()

    def __enter__(self) -> Supervisor:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._told_to_stop)
        # Else the interpreter looks through all that Django has loaded once more as it exits: most of a second.
        gc.freeze()
        return self

    def __exit__(self, *exc_info: object) -> None:
        end([child.process for child in self.children])

    def _told_to_stop(self, received: int, frame: Any) -> None:
        self.stopping = True
        os.write(self._wake, b".")

    def start(self, name: str, argv: list[str], **options: Any) -> None:
        self.children.append(Child(name, argv, self.log, **options))

    def wait_for(self, url: str, host: str, say: Callable[[str], None]) -> dict[str, Any] | None:
        """What /health at `url` answers, asked for as `host`, once it is 200; None when told to stop before.

        Raises Ended. A long start is told with `say`, and from then on the children's lines are shown as they come.
        """
        answers: list[dict[str, Any]] = []
        request = urllib.request.Request(url, headers={"Host": host})
        directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def ask() -> None:
            # In a thread of its own: an answer may take long, and Ctrl-C must not wait for it.
            while not self.stopping:
                try:
                    with directly.open(request, timeout=HEALTH_TIMEOUT_SECONDS) as response:
                        answers.append(json.load(response))
                    os.write(self._wake, b".")
                    return
                except (OSError, HTTPException, ValueError):  # Among them 503: the database is away.
                    time.sleep(POLL_SECONDS)

        threading.Thread(target=ask, name="health", daemon=True).start()
        started = time.monotonic()
        told_at = started
        while not answers:
            if not self._keeps_running():
                return None
            now = time.monotonic()
            if now - told_at > STILL_STARTING_SECONDS:
                say(f"Still starting after {now - started:.0f} s; {url} does not answer yet. The log:")
                self.log.release()
                told_at = now
        return answers[0]

    def run(self) -> None:
        """Until told to stop. Raises Ended."""
        while self._keeps_running():
            pass

    def _keeps_running(self) -> bool:
        """Waits a moment. False when told to stop; raises Ended."""
        if not self.stopping:
            readable, _, _ = select.select([self._woken], [], [], POLL_SECONDS)
            if readable:
                os.read(self._woken, 64)
        if self.stopping:
            return False
        for child in self.children:
            if child.has_ended():
                lines = child.last_lines()
                raise Ended(f"The {child.name} {child.how_it_ended()}. The end of its log:\n{lines or '(empty)'}")
        return True


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        try:
            process.wait(max(0.05, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
