"""The servers of one engine: which can speak with a model, who may call which one now, and how they are.

A server keeps its reference, its prompt and its weights in the process, and interleaved calls have swapped voices. So
one call of one sentence is in flight per server, under a lease, and never a streamed one; the weights of a model are
switched under the same lease as the sentence that needs them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from django.utils.translation import gettext_noop

from voices.engines.gptsovits.protocol import EngineProtocol, ServerReport
from voices.engines.gptsovits.servers import CallFailed, Server
from voices.engines.interface import EngineHealth, Model

log = logging.getLogger(__name__)

HEALTH_SECONDS = 1.8
OTHER_PROBE_SECONDS = 2.0  # how long to wait for a server that may still work, where there are others


class Lease(Protocol):
    """The right to call one server (voiceproject.leases.lease)."""

    server: str
    needs_probe: bool
    loaded_at: datetime | None

    @property
    def loaded(self) -> str: ...
    def __enter__(self) -> Lease: ...
    def __exit__(self, *error: Any) -> None: ...
    def answered(self) -> None: ...
    def remember(self, loaded: str) -> None: ...
    def release(self, *, needs_probe: bool, set_aside: bool = False, unreachable: bool = False) -> None: ...


class Leases(Protocol):
    """Who may call which server now (voiceproject.leases.lease)."""

    def acquire(
        self,
        wait_until: float,
        *,
        tenant: str = "",
        servers: Collection[str] = (),
        admitted: bool = False,
        prefer: str | None = None,
        rank: Callable[[str, str], int] = ...,
        avoid: frozenset[str] = frozenset(),
        canceled: Callable[[], bool] = ...,
    ) -> Lease | None: ...
    def probe_back(self, server: str, probe: Callable[[], bool | None]) -> None: ...
    def states(self) -> Mapping[str, Any]: ...
    def waiting(self) -> int: ...
    def expected_wait_seconds(self) -> float: ...
    def retry_after_seconds(self, tenant: str = "", servers: Collection[str] = ()) -> float: ...
    def close(self) -> None: ...


class Fleet:
    """servers: by their names; protocol: how all of them are talked to; pinned: server's name -> the one model that it
    speaks with; leases: who may call which server; timeout_seconds: for one sentence; queue_seconds: the longest wait
    for a first turn.
    """

    def __init__(
        self,
        base_urls: Sequence[str],
        protocol: EngineProtocol,
        pinned: Mapping[str, str],
        lease_factory: Callable[..., Leases],
        *,
        timeout_seconds: float,
        queue_seconds: float,
        max_waiting: int,
    ) -> None:
        self.servers = {server.name: server for server in map(Server, base_urls)}
        if not self.servers:
            raise ValueError("no server is given")
        self.protocol = protocol
        self.pinned = {Server(url).name: model_id for url, model_id in pinned.items()}
        self.timeout_seconds = timeout_seconds
        self.queue_seconds = queue_seconds
        self.leases = lease_factory(list(self.servers), max_waiting=max_waiting)

    def servers_for(self, model: Model | None) -> list[str]:
        """The servers that may speak with this model: those pinned to it, and those pinned to none, if they can."""
        model_id = model.id if model else "default"
        can_load = self.protocol.can_load(model)
        return [
            name for name in self.servers if self.pinned.get(name) == model_id or (name not in self.pinned and can_load)
        ]

    def close(self) -> None:
        """Ends what goes on behind the requests."""
        self.leases.close()
        for server in self.servers.values():
            server.close()

    def health(self, name: str) -> EngineHealth:
        """Asks all servers at once how they are, except those that work for us and could not answer."""
        try:
            states: Mapping[str, Any] = self.leases.states()
            waiting, expected = self.leases.waiting(), self.leases.expected_wait_seconds()
        except Exception:  # the database's own check reports that it is down
            log.warning("The leases cannot be read", exc_info=True)
            states, waiting, expected = {}, 0, 0.0
        found: dict[str, ServerReport] = {}

        def ask(server: Server) -> None:
            found[server.name] = self.protocol.report(server, time.monotonic() + HEALTH_SECONDS)

        threads = []
        for server in self.servers.values():
            state = states.get(server.name)
            if state is not None and state.held:
                found[server.name] = (True, None, gettext_noop("busy"))
                continue
            threads.append(threading.Thread(target=ask, args=(server,), daemon=True))
            threads[-1].start()
        until = time.monotonic() + HEALTH_SECONDS + 0.1
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        unanswered = (False, None, gettext_noop("no answer within 2 s: busy or down"))
        all_found = [found.get(name, unanswered) for name in self.servers]
        available = [server for server in all_found if server[0]]
        latencies = [latency for _, latency, _ in available if latency is not None]
        detail = all_found[0][2]
        if len(all_found) > 1:
            detail = f"{len(available)} of {len(all_found)} servers available"
        return EngineHealth(
            name=name,
            available=bool(available),
            latency_ms=min(latencies, default=None),
            detail=detail,
            extra={
                "servers": [{"available": ok, "latency_ms": ms, "detail": text} for ok, ms, text in all_found],
                "waiting": waiting,
                "queue_length": waiting + sum(state.held for state in states.values()),
                "expected_wait_seconds": round(expected, 1),
            },
        )

    def probe_back(self, server: Server) -> None:
        """Has a server that failed asked from time to time, behind the requests, until it answers."""

        def probe() -> bool | None:
            try:
                self.protocol.fence(server, time.monotonic() + OTHER_PROBE_SECONDS)
            except CallFailed as failure:
                return False if failure.unreachable else None
            return True

        self.leases.probe_back(server.name, probe)
