"""Notifies all other processes of this machine, over datagram sockets.

It saves those who wait for a row of the database from looking at it all the time. It is no more than that: whoever
waits must look by itself too, since a notification may be lost, and does not reach another machine.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)


class Notifier:
    """Datagram sockets in one folder, one a listening process. heard: called in a thread of the notifier's own."""

    def __init__(self, folder: Path, heard: Callable[[], None]) -> None:
        self._folder = folder
        self._heard = heard
        self._lock = threading.Lock()
        self._name = ""
        self._pid = 0

    def listen(self) -> None:
        """Hears from now on; the first call in a process opens its socket. A machine that has none is no error."""
        if self._pid == os.getpid():
            return
        with self._lock:
            if self._pid == os.getpid():
                return
            self._pid = os.getpid()
            name = f"{self._pid}-{uuid.uuid4().hex[:8]}"
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                with self._short_path() as folder:
                    listener.bind(f"{folder}/{name}")
            except OSError as error:
                listener.close()
                log.info("no notifications between processes: %s", error)
                return
            self._name = name
            threading.Thread(target=self._hear, args=(listener,), name="notifier", daemon=True).start()

    def notify(self) -> None:
        """Wakes the others, not this process itself."""
        try:
            names = [name for name in os.listdir(self._folder) if name != self._name]
        except FileNotFoundError:
            return
        if not names:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, self._short_path() as folder:
            sender.setblocking(False)
            for name in names:
                try:
                    sender.sendto(b"!", f"{folder}/{name}")
                except BlockingIOError:
                    continue  # Enough wait for it that it has not read yet.
                except ConnectionRefusedError:
                    (self._folder / name).unlink(missing_ok=True)  # Its process has ended.
                except OSError as error:
                    log.debug("%s cannot be notified: %s", name, error)

    @contextmanager
    def _short_path(self) -> Iterator[str]:
        """A path of the folder that fits a socket's address, which has room for about a hundred bytes."""
        path = str(self._folder)
        if len(os.fsencode(path)) < 60 or not os.path.isdir("/proc/self/fd"):
            yield path
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)

    def _hear(self, listener: socket.socket) -> None:
        with listener:
            while True:
                listener.recv(16)
                listener.setblocking(False)
                try:
                    while listener.recv(16):  # Many notifications are one.
                        pass
                except BlockingIOError:
                    pass
                listener.setblocking(True)
                try:
                    self._heard()
                except Exception:
                    log.warning("a notification could not be followed", exc_info=True)
