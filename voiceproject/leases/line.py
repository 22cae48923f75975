"""The line of those who wait for a server of an engine. It is rows, so that all processes stand in the same one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import cached_property

from django.db.models import F, OuterRef, QuerySet, Subquery
from django.db.models.functions import Now

from voiceproject.leases.models import EngineTurn, EngineWaiter
from voiceproject.leases.rows import ServerRow
from voiceproject.prepared import Select

WAITER_SECONDS = 10.0  # a waiter that has not shown itself for so long is passed over


class Line:
    """queue: its name in the database; max_waiting: how many may stand in it.

    A place is the key of a waiter's row.
    """

    def __init__(self, queue: str, max_waiting: int) -> None:
        self.queue = queue
        self.max_waiting = max_waiting
        self._swept_at = -float("inf")

    def waiting(self) -> QuerySet[EngineWaiter]:
        return EngineWaiter.objects.filter(queue=self.queue, expires_at__gt=Now())

    @cached_property
    def _by_turns(self) -> Select:
        served = EngineTurn.objects.filter(queue=self.queue, tenant=OuterRef("tenant")).values("served_at")[:1]
        line = self.waiting().annotate(served=Subquery(served)).order_by(F("served").asc(nulls_first=True), "pk")
        return Select(line.values_list("pk", "tenant", "servers"))

    def in_order(self) -> list[tuple[int, frozenset[str]]]:
        """Those who wait, as they will be served: the place, and the servers that would do."""
        # Round by round: the first of each tenant, then the second of each.
        seen: Counter[str] = Counter()
        rounds: list[tuple[int, int, int, frozenset[str]]] = []
        for index, (pk, tenant, servers) in enumerate(self._by_turns()):
            rounds.append((seen[tenant], index, pk, frozenset(servers)))
            seen[tenant] += 1
        return [(pk, servers) for _, _, pk, servers in sorted(rounds, key=lambda waiter: waiter[:2])]

    def join(self, tenant: str, servers: Iterable[str], admitted: bool) -> int | None:
        """A place at the tenant's end of the line; None where the line is full.

        admitted: whoever has been served before is not counted against max_waiting.
        """
        line = EngineWaiter.objects.filter(queue=self.queue)
        if time.monotonic() > self._swept_at + WAITER_SECONDS:
            self._swept_at = time.monotonic()
            line.filter(expires_at__lt=Now() - timedelta(seconds=WAITER_SECONDS)).delete()
        place: int = EngineWaiter.objects.create(
            queue=self.queue,
            tenant=tenant,
            servers=sorted(servers),
            expires_at=Now() + timedelta(seconds=WAITER_SECONDS),
        ).pk
        if not admitted:
            # Counted after the row is there: of two who come at once, one sees the other.
            tenants = list(line.filter(id__lt=place, expires_at__gt=Now()).values_list("tenant", flat=True))
            # A tenant that fills the line shuts out itself: who has nobody in it still gets a place.
            if len(tenants) >= self.max_waiting * (1 if tenant in tenants else 2):
                self.leave(place)
                return None
        return place

    def stay(self, place: int) -> bool:
        """Shows that whoever waits is alive. False where the place has gone, since it was not shown for too long."""
        until = Now() + timedelta(seconds=WAITER_SECONDS)
        return bool(EngineWaiter.objects.filter(pk=place).update(expires_at=until))

    def leave(self, place: int) -> None:
        EngineWaiter.objects.filter(pk=place).delete()


def assigned(
    line: Iterable[tuple[int, frozenset[str]]], free: Sequence[ServerRow]
) -> tuple[list[int], list[ServerRow]]:
    """Who of the line, in its order, gets one of the free servers' rows, and which rows are left."""
    served, left = [], list(free)
    for place, servers in line:
        if not left:
            break
        row = next((row for row in left if not servers or row.server in servers), None)
        if row is not None:
            left.remove(row)
            served.append(place)
    return served, left
