"""A network between a client and a server that can break in the middle of what is sent."""

from __future__ import annotations

import contextlib
import socket
import threading


class BreakingNetwork:
    """Passes connections on to a port of this machine. `break_after(n, times)`: the next ones that have sent n bytes
    are cut. `hold_after(n)`: what has sent n bytes stands still until `flowing` is set. `cut()`: ends all at once."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._limit = self._times = self.broken = 0
        self.flowing = threading.Event()
        self.flowing.set()
        self._held_from = 0
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        # Little lies between the two ends, so that a client knows how much went through.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.base = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def break_after(self, sent_bytes: int, times: int = 1) -> None:
        self._limit, self._times = sent_bytes, times

    def hold_after(self, sent_bytes: int) -> None:
        self._held_from = sent_bytes
        self.flowing.clear()

    def cut(self) -> None:
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        self._listener.close()

    def __enter__(self) -> BreakingNetwork:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except ConnectionRefusedError:  # Nobody is there: the client is to find that out too.
                    client.close()
                    continue
                self._open += [client, server]
                for ends, counted in (((client, server), True), ((server, client), False)):
                    threading.Thread(target=self._pass, args=(*ends, counted), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        sent = 0
        with contextlib.suppress(OSError):
            while block := source.recv(65536):
                if counted and sent >= self._held_from:
                    self.flowing.wait()
                target.sendall(block)
                sent += len(block)
                if counted and self._times and sent >= self._limit:
                    self._times -= 1
                    self.broken += 1
                    break
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
