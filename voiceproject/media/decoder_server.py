"""A program that imports PyAV once, and forks a process for each upload, one ahead; run by voiceproject.media.decoding.

    python -I decoder_server.py   (standard input: a Unix socket)

A request is REQUEST_BYTES of JSON on that socket, with three descriptors: the upload, a socket for what is decoded (see
decoder.py), and one for the exit status. Nothing is read from the second; whoever asked closes the third to have the
process killed.

FFmpeg's parsers are large and read what strangers send, so they get a process that can do nothing but this: memory,
processor time, written bytes and core dumps are limited, and once the three streams are all it needs, so is the number
of open files: no other file and no socket can be opened, whatever a container says about where its data lies. The
parent keeps the clock. Nothing here needs Django or the project.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import json
import os
import pkgutil
import resource
import select
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

# PyAV and numpy map about 400 MB by themselves; an hour-long m4a has index tables of a few MB.
MEMORY_BYTES = 1024 * 2**20
# Until there is audio to show for it, and in all.
HEADER_CPU_SECONDS, CPU_SECONDS = 5, 60
REQUEST_BYTES = 1024
NO_DECODER = 4
# After so long without a request the next one's process is made ready. Under load that would only take time.
IDLE_SECONDS = 0.03
WARMED = ("mp3float", "flac", "aac", "opus", "vorbis", "ac3")


def limit(name: int, soft: int, hard: int) -> None:
    """A platform that has no such limit (macOS has no RLIMIT_AS) goes without it."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(name, (soft, hard))


def imported() -> tuple[Any, Any, Any]:
    """PyAV, numpy and decoder.py."""
    try:
        import av
        import numpy

        # PyAV imports parts of itself when it first meets a stream of their kind: too late, below.
        for module in pkgutil.walk_packages(av.__path__, "av."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    except ImportError as error:
        print(error, file=sys.stderr)
        sys.exit(NO_DECODER)
    av.logging.set_level(None)
    for name in WARMED:
        with contextlib.suppress(av.error.FFmpegError):
            av.CodecContext.create(name, "r").open()  # Its tables are made once, and each fork has them.
    # As a file of its own: what lies beside it would be found instead of modules of others.
    spec = importlib.util.spec_from_file_location("decoder", Path(__file__).with_name("decoder.py"))
    assert spec is not None
    assert spec.loader is not None
    decoder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(decoder)
    gc.freeze()  # Else the first collection in each fork would copy all of this.
    return av, numpy, decoder


def confine(tasks: socket.socket) -> bytes:
    """Waits for a request: nothing but its two descriptors and a null device is left then, and nothing can be added."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(tasks.fileno(), 0)
    os.dup2(2, 1)
    os.closerange(3, 4096)
    with socket.socket(fileno=0) as inbox:
        message, descriptors, _, _ = socket.recv_fds(inbox, REQUEST_BYTES, 2, socket.MSG_WAITALL)
        inbox.detach()
    if len(descriptors) != 2:
        os._exit(0)  # The server is gone.
    for place, descriptor in enumerate(descriptors):
        os.dup2(descriptor, place)
    os.closerange(3, 4096)
    limit(resource.RLIMIT_CPU, HEADER_CPU_SECONDS, CPU_SECONDS)
    limit(resource.RLIMIT_NOFILE, 3, 3)
    return message


class Server:
    """Forks a process for each request, and ends those that nobody waits for."""

    def __init__(self, av: Any, np: Any, decoder: Any) -> None:
        self.av, self.np, self.decoder = av, np, decoder
        self.control = socket.socket(fileno=os.dup(0))
        self.wakeup, other = socket.socketpair()
        other.setblocking(False)
        signal.set_wakeup_fd(other.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.other = other
        self.running: dict[int, socket.socket] = {}
        self.waiting = 0  # the process that is ready for the next request, if one is
        self.tasks = socket.socket()

    def serve(self) -> None:
        try:
            while self.step():
                pass
        finally:
            for pid in self.running:
                self.kill(pid)

    def step(self) -> bool:
        waited = {status: pid for pid, status in self.running.items() if status.fileno() >= 0}
        ready, _, _ = select.select(
            [self.control, self.wakeup, *waited], [], [], None if self.waiting else IDLE_SECONDS
        )
        if not ready:
            self.fork(warm=True)
        for found in ready:
            if found is self.control:
                if not self.accept():
                    return False
            elif found is self.wakeup:
                self.wakeup.recv(4096)
                self.reap()
            elif (pid := waited[found]) in self.running:
                self.kill(pid)  # Nobody ever sends anything here: it was closed.
                found.close()
        return True

    def accept(self) -> bool:
        message, descriptors, _, _ = socket.recv_fds(self.control, REQUEST_BYTES, 3, socket.MSG_WAITALL)
        if len(message) < REQUEST_BYTES or len(descriptors) != 3:
            return False
        for again in (True, False):
            if not self.waiting:
                self.fork(warm=False)
            try:
                socket.send_fds(self.tasks, [message], descriptors[:2])
                break
            except OSError:  # Somebody has killed the one that waited.
                self.waiting = 0
                if not again:
                    raise
        *given, status = descriptors
        for descriptor in given:
            os.close(descriptor)
        self.running[self.waiting] = socket.socket(fileno=status)
        self.waiting = 0
        return True

    def fork(self, *, warm: bool) -> None:
        """The process for the next request. warm: it has decoded something before it waits for that."""
        ours, theirs = socket.socketpair()
        with theirs:
            self.waiting = os.fork()
            if self.waiting == 0:
                try:
                    if warm:
                        self.decoder.warm(self.av, self.np)
                    message = confine(theirs)
                    self.decoder.decode(self.av, self.np, json.loads(message))
                finally:
                    os._exit(0)
        self.tasks.close()
        self.tasks = ours

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid in self.running:
                with self.running.pop(pid) as told, contextlib.suppress(OSError):
                    told.send(struct.pack(">i", os.waitstatus_to_exitcode(status)))

    @staticmethod
    def kill(pid: int) -> None:
        """It is not reaped yet, so the number is still its own."""
        for send in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                send(pid, signal.SIGKILL)


def main() -> None:
    limit(resource.RLIMIT_AS, MEMORY_BYTES, MEMORY_BYTES)
    limit(resource.RLIMIT_FSIZE, 0, 0)
    limit(resource.RLIMIT_CORE, 0, 0)
    Server(*imported()).serve()


if __name__ == "__main__":
    main()
