"""The processes that decode: a server (decoder_server.py) for this process, which forks one for each upload."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceproject.media.decoder_server import NO_DECODER, REQUEST_BYTES

COMMAND = [sys.executable, "-I", str(Path(__file__).with_name("decoder_server.py"))]
DEADLINE_SECONDS = 120.0
MAX_PART_BYTES = 2**20


class NoDecoder(Exception):
    """PyAV is not installed."""


class Refused(Exception):
    """reason and found as in a refusal's details."""

    def __init__(self, reason: str, found: Any) -> None:
        super().__init__(reason, found)
        self.reason = reason
        self.found = found


class Crashed(Exception):
    """The decoder gave up in no way that it knows."""


class Decoding:
    """One upload in a process of its own. `close` ends it, whatever state it is in."""

    def __init__(self, data: socket.socket, status: socket.socket, server: subprocess.Popen[bytes]) -> None:
        self._data, self._status, self._server = data, status, server
        self._deadline = time.monotonic() + DEADLINE_SECONDS
        self.warnings: list[str] = []

    def header(self) -> dict[str, Any]:
        """sample_rate, channels (1 or 2), upload_channels, codec. Raises Refused, NoDecoder, Crashed."""
        letter, content = self._part()
        if letter != b"H":
            raise Refused("empty", 0)
        return dict(json.loads(content))

    def blocks(self, channels: int) -> Iterator[NDArray[np.float32]]:
        """float32 (n, channels). Raises Refused, Crashed. After the last one, `warnings` are told."""
        while True:
            letter, content = self._part()
            if letter == b"E":
                return
            yield np.frombuffer(content, dtype="<f4").reshape(-1, channels).astype(np.float32, copy=False)

    def close(self) -> None:
        self._data.close()
        self._status.close()

    def _part(self) -> tuple[bytes, bytearray]:
        head = self._read(5)
        (length,) = struct.unpack(">I", head[1:])
        if length > MAX_PART_BYTES:
            raise Crashed("a part is too long")
        letter, content = bytes(head[:1]), self._read(length)
        if letter == b"E":
            end = json.loads(content)
            if "crashed" in end:
                raise Crashed(end["crashed"])
            if "reason" in end:
                raise Refused(end["reason"], end["found"])
            self.warnings = end["warnings"]
        return letter, content

    def _read(self, count: int) -> bytearray:
        found = bytearray(count)
        rest = memoryview(found)
        while len(rest):
            self._wait_for(self._data)
            try:
                received = self._data.recv_into(rest)
            except ConnectionResetError:
                received = 0
            if not received:
                self._raise_for_end()
            rest = rest[received:]
        return found

    def _wait_for(self, end: socket.socket) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0 or not select.select([end], [], [], left)[0]:
            raise Refused("too_slow", f"more than {DEADLINE_SECONDS:g} s")

    def _raise_for_end(self) -> None:
        """The process ended without saying so."""
        self._wait_for(self._status)
        try:
            told = self._status.recv(4)
        except ConnectionResetError:
            told = b""
        if len(told) == 4:
            (status,) = struct.unpack(">i", told)
        else:
            status = self._server.wait(timeout=10)
            if status == NO_DECODER:
                raise NoDecoder
        if status == -signal.SIGXCPU:
            raise Refused("too_slow", "the decoder's processor time ran out")
        raise Crashed(f"it ended with status {status}")


class Server:
    """Starts decoder_server.py when it is needed, and again when it has ended. One for each process that asks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._owner = 0

    def decode(self, descriptor: int, request: dict[str, Any]) -> Decoding:
        """request: as of decoder.Decoding. The upload's own position is neither used nor changed."""
        message = json.dumps(request).encode()
        if len(message) > REQUEST_BYTES:
            raise ValueError("the request is too long")
        data, theirs = socket.socketpair()
        status, other = socket.socketpair()
        with theirs, other, self._lock:
            descriptors = [descriptor, theirs.fileno(), other.fileno()]
            for again in (True, False):
                process, control = self._running()
                try:
                    socket.send_fds(control, [message.ljust(REQUEST_BYTES)], descriptors)
                except (BrokenPipeError, ConnectionResetError):
                    if again:
                        self._end()
                        continue
                return Decoding(data, status, process)
        raise AssertionError

    def close(self) -> None:
        """Ends it, and all that it decodes."""
        with self._lock:
            self._end()

    def _running(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        if self._owner != os.getpid():  # A fork has the descriptor of its parent's.
            self._process = self._control = None
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._process is None or self._control is None:
            self._control, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    COMMAND,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    # numpy's threads would not live on in a fork, and are not needed.
                    env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"},
                    cwd="/",
                    start_new_session=True,
                )
            self._owner = os.getpid()
        return self._process, self._control

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.wait()
        self._process = self._control = None


server = Server()
