"""Connections of gptsovits_server.py, with an end to everything that a client may leave half done.

uvicorn waits without end for the rest of a head, of a body and for an answer to be taken, and takes any number of
connections. It has no options for that, so its protocol is told here when to give up.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

log = logging.getLogger("gptsovits_server")


@dataclass(frozen=True)
class Limits:
    """Totals, not pauses: a byte now and then does not help."""

    head_seconds: float = (
        10.0  # from the first byte of a request, or from its connection's begin, to the end of its head
    )
    body_seconds: float = 60.0  # for the rest of the request, and for its answer to be taken
    connections: int = 128


def _answer(status: str, error: str, message: str) -> bytes:
    body = json.dumps({"error": error, "message": message}).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"{head}\r\nConnection: close\r\n\r\n".encode() + body


LATE = _answer("408 Request Timeout", "too_slow", "The request did not arrive in time.")
FULL = _answer("503 Service Unavailable", "busy", "Too many connections are open.")


class Connection(AutoHTTPProtocol):  # type: ignore[misc, valid-type] # whichever of uvicorn's two there is
    limits = Limits()

    cycle: Any  # uvicorn's request and its answer: `more_body`, `response_complete`; None before the first
    connections: set[Any]
    transport: asyncio.Transport

    _began: float | None = None  # when the first byte came of a request that is not whole yet
    _unsent_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._began = time.monotonic()
        super().connection_made(transport)
        if len(self.connections) <= self.limits.connections:
            return
        # The oldest half-sent head makes room, and else a connection that is kept for another request.
        waiting = [other for other in self.connections if other is not self and other.waits_for_a_head()]
        if waiting:
            min(waiting, key=lambda other: (other._began is None, other._began)).give_up()
        else:
            self.give_up(FULL)

    def data_received(self, data: bytes) -> None:
        if self._began is None:
            self._began = time.monotonic()
        super().data_received(data)
        if self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete:
            self._began = None  # It is whole, and being answered.

    def waits_for_a_head(self) -> bool:
        return self.cycle is None or (self.cycle.response_complete and not self.cycle.more_body)

    def look(self, now: float) -> None:
        """Gives the client up if it is late. Called about once a second."""
        head = self.waits_for_a_head()
        seconds = self.limits.head_seconds if head else self.limits.body_seconds
        if self.transport.get_write_buffer_size() == 0:
            self._unsent_since = None
        elif self._unsent_since is None:
            self._unsent_since = now
        elif now - self._unsent_since > self.limits.body_seconds:
            self.give_up()
        # Whoever keeps an answered connection without a new request is uvicorn's to end.
        if self._began is not None and now - self._began > seconds and not self.transport.is_closing():
            self.give_up(LATE if head else b"")

    def give_up(self, answer: bytes = b"") -> None:
        log.info("a connection is given up: %s", answer[9:12].decode() or "too slow")
        self.connections.discard(self)
        if answer and self.transport.get_write_buffer_size() == 0:
            self.transport.write(answer)
            self.transport.close()
        else:
            self.transport.abort()


def look_at_all(connections: Iterable[Any]) -> None:
    now = time.monotonic()
    for connection in list(connections):
        connection.look(now)
