"""The line of those who wait for a server of an engine. It is rows, so that all processes stand in the same one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import NamedTuple

from django.db.models import Count, F, OuterRef, QuerySet, Subquery
from django.db.models.functions import Now

from voiceproject.leases.models import EngineTurn, EngineWaiter
from voiceproject.leases.rows import ServerRow
from voiceproject.prepared import Select, Slot

WAITER_SECONDS = 10.0  # a waiter that has not shown itself for so long is passed over
LAST_PLACE = 2**62


class Group(NamedTuple):
    """Those of a tenant who wait for the same servers. served: when the tenant was last served."""

    tenant: str
    servers: list[str]
    served: datetime | None
    number: int

    def competes(self, servers: Collection[str]) -> bool:
        """Whether they wait for any of these servers (empty: any of all)."""
        return not servers or not self.servers or not set(servers).isdisjoint(self.servers)


@dataclass(frozen=True)
class Standing:
    """How a waiter stands: how many calls go before its own, and whether the line is full for its tenant."""

    before: int
    full: bool


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

    def _with_turns(self) -> QuerySet[EngineWaiter]:
        served = EngineTurn.objects.filter(queue=self.queue, tenant=OuterRef("tenant")).values("served_at")[:1]
        return self.waiting().annotate(served=Subquery(served))

    @cached_property
    def _by_turns(self) -> Select:
        line = self._with_turns().order_by(F("served").asc(nulls_first=True), "pk")
        return Select(line.values_list("pk", "tenant", "servers"))

    @cached_property
    def _first(self) -> Select:
        line = self._with_turns().order_by(F("served").asc(nulls_first=True), "pk")
        return Select(line.values_list("pk", "servers")[:1])

    @cached_property
    def _groups(self) -> Select:
        line = self._with_turns().filter(id__lte=Slot("place", EngineWaiter, "id")).order_by()
        groups = line.values("tenant", "servers", "served").annotate(number=Count("pk"))  # type: ignore[misc] # annotated
        return Select(groups.values_list("tenant", "servers", "served", "number"))

    def in_order(self) -> list[tuple[int, frozenset[str]]]:
        """Those who wait, as they will be served: the place, and the servers that would do."""
        # Round by round: the first of each tenant, then the second of each.
        seen: Counter[str] = Counter()
        rounds: list[tuple[int, int, int, frozenset[str]]] = []
        for index, (pk, tenant, servers) in enumerate(self._by_turns()):
            rounds.append((seen[tenant], index, pk, frozenset(servers)))
            seen[tenant] += 1
        return [(pk, servers) for _, _, pk, servers in sorted(rounds, key=lambda waiter: waiter[:2])]

    def next_for(self, server: str) -> int | None:
        """The place of the first in the order for whom this server would do."""
        for place, servers in self._first():  # Mostly that is the very first, and the others are not read.
            if not servers or server in servers:
                return int(place)
            return next((pk for pk, others in self.in_order() if not others or server in others), None)
        return None

    def join(self, tenant: str, servers: Iterable[str]) -> int:
        """A place at the tenant's end of the line."""
        if time.monotonic() > self._swept_at + WAITER_SECONDS:
            self._swept_at = time.monotonic()
            dead = EngineWaiter.objects.filter(queue=self.queue)
            dead.filter(expires_at__lt=Now() - timedelta(seconds=WAITER_SECONDS)).delete()
        row = EngineWaiter(queue=self.queue, tenant=tenant, servers=sorted(servers))
        row.expires_at = Now() + timedelta(seconds=WAITER_SECONDS)  # type: ignore[assignment]
        row.save(force_insert=True)
        return int(row.pk)

    def standing(self, tenant: str, servers: Collection[str], place: int | None = None) -> Standing:
        """How who has this place stands, or who would come now; servers: those that would do for it, empty for any.

        Asked after its row is there: of two who come at once, one sees the other.
        """
        groups = [Group(*row) for row in self._groups(place=LAST_PLACE if place is None else place)]
        own = sum(group.number for group in groups if group.tenant == tenant)
        if place is None:
            served = EngineTurn.objects.filter(queue=self.queue, tenant=tenant).values_list("served_at", flat=True)
            mine = served.first()
        else:
            own -= 1
            mine = next((group.served for group in groups if group.tenant == tenant), None)
        total = sum(group.number for group in groups) - (place is not None)
        tenants = {group.tenant for group in groups} | {tenant}
        # A tenant that fills the line shuts out itself: who has less than its share in it still gets a place.
        share = max(1, self.max_waiting // len(tenants))
        full = total >= (2 * self.max_waiting if own < share else self.max_waiting)
        competing: Counter[str] = Counter()
        turns: dict[str, datetime | None] = {}
        for group in groups:
            turns[group.tenant] = group.served
            if group.competes(servers):
                competing[group.tenant] += group.number
        own = competing.pop(tenant, 0) - (place is not None)
        before = own
        for other, count in competing.items():
            its = turns[other]
            earlier = its is None or (mine is not None and its <= mine)
            before += min(count, own + earlier)
        return Standing(before, full)

    def stay(self, places: Collection[int]) -> int:
        """Shows that those who wait are alive; of how many the place was still there."""
        until = Now() + timedelta(seconds=WAITER_SECONDS)
        return EngineWaiter.objects.filter(pk__in=places).update(expires_at=until)

    def leave(self, place: int) -> bool:
        """Whether it still stood there."""
        return bool(EngineWaiter.objects.filter(pk=place).delete()[0])


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
