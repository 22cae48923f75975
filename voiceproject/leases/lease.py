"""One call at a time per engine server, over all threads and processes of this project.

A lease is a row that one owner holds until it releases it or its time runs out; a thread renews those of this
process while their calls run. A server whose last call may still be running there (a time-out, a broken connection, an
owner that died) is marked `needs_probe`: whoever takes it next has to get an answer from it first, and says
so with `Lease.answered()`. All times are the database's clock. No transaction is open while anyone waits or
calls.

Who finds no server free stands in a line, which is rows too. It is served by turns: of the tenants in it, the
one that was served longest ago, so that fifty sentences of one do not hold up another's. Who would wait too long is
refused at once. Whoever frees a server hands its lease to the one whose turn it is, if that one waits in this process,
in one transaction; other processes of this machine are woken by a notifier. Beyond that one thread in each process
looks from time to time, for all who wait there.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection, transaction
from django.db.models import Exists
from django.db.models.functions import Now

from voiceproject.errors import EngineBusy, EngineUnavailable
from voiceproject.leases.held import Keeper, Lease
from voiceproject.leases.line import WAITER_SECONDS, Line, assigned
from voiceproject.leases.models import EngineLease, EngineTurn, EngineWaiter
from voiceproject.leases.notifier import Notifier
from voiceproject.leases.probing import Probing
from voiceproject.leases.rows import UNKNOWN, ServerRow, hand_over_lease, serve_turn, take_lease
from voiceproject.prepared import Select
from voiceproject.web.slots import return_connection

log = logging.getLogger(__name__)

CANCEL_CHECK_SECONDS = 1.0
# How often a process looks for those who wait there, in case that nobody wakes it: where one of them is in front, and
# where all of them are far behind.
POLL_SECONDS = 0.05
MAX_POLL_SECONDS = 0.5
ASSUMED_SECONDS = 5.0  # for a call, where none was measured yet: told, but nobody is refused for it


@dataclass(frozen=True)
class ServerState:
    """What the rows say of one server. held: by a live owner, so that it works now."""

    held: bool
    needs_probe: bool
    set_aside: bool


@dataclass(frozen=True)
class _Wanted:
    """What somebody who asks for a lease would take. servers: empty for any; rank: see Leases.acquire."""

    tenant: str
    servers: frozenset[str]
    prefer: str | None
    rank: Callable[[str, str], int]

    def takes(self, server: str) -> bool:
        return not self.servers or server in self.servers


class _Waiter:
    """One who waits in this process. lease, error: what it was given; displaced: its place in the line has gone."""

    def __init__(self, want: _Wanted) -> None:
        self.want = want
        self.woken = threading.Event()
        self.lease: Lease | None = None
        self.error: EngineUnavailable | None = None
        self.displaced = False


class Leases:
    """The leases of a group of servers, and the one line of those who wait for any of them.

    queue: the line's name in the database; max_waiting: how many may stand in it; lease_seconds: how long a
    lease lives without a sign of its owner; set_aside_seconds: how long a server that failed is left alone.
    """

    def __init__(
        self,
        servers: Sequence[str],
        *,
        queue: str = "gptsovits",
        max_waiting: int = 1000,
        lease_seconds: float = 30.0,
        set_aside_seconds: float = 5.0,
    ) -> None:
        self.servers = list(dict.fromkeys(servers))
        self.line = Line(queue, max_waiting)
        self.lease_seconds = lease_seconds
        self.set_aside_seconds = set_aside_seconds
        self._waiters: dict[int, _Waiter] = {}  # of this process, by their places in the line
        self._serving = threading.Lock()  # held while leases are given to them
        self._lock = threading.Lock()
        self._look = threading.Event()
        self._looker: threading.Thread | None = None
        self._ahead = 0  # about how many of other processes stood before those of this one
        self._probing = Probing(set_aside_seconds)
        self.keeper = Keeper(lease_seconds)
        self._notifier = Notifier(settings.CACHE_DIR / "notifier", self._look.set)

    def acquire(
        self,
        wait_until: float,
        *,
        tenant: str = "",
        servers: Collection[str] = (),
        admitted: bool = False,
        prefer: str | None = None,
        rank: Callable[[str, str], int] = lambda server, loaded: 0,
        avoid: frozenset[str] = frozenset(),
        canceled: Callable[[], bool] = lambda: False,
    ) -> Lease | None:
        """A lease on a free server, in turn with all others who wait; None once `canceled()` is true.

        wait_until: time.monotonic(); tenant: tenants are served by turns; servers: those that will do, empty for
        any; admitted: whoever has been served before is not turned away by the line; rank: called as (server, what
        is loaded there, see Lease): of several free ones one with the lowest rank is taken, of equals rather `prefer`;
        avoid: servers that this caller does not want again. Raises EngineBusy when the line is full, and when the wait
        is, or is expected to be, too long; EngineUnavailable when no server can be reached.
        """
        acceptable = frozenset(servers)
        if avoid:
            acceptable = (acceptable or frozenset(self.servers)) - avoid
        want = _Wanted(tenant, acceptable, prefer, rank)
        if not self._waiters:  # Otherwise it would have to yield to them.
            lease = self._take(want)
            if lease is not None:
                return_connection()  # A call is longer than the queries around it.
                return lease
        mine, lease = _Waiter(want), None
        place = self._join(mine)
        try:
            rows = self._serve()
            if mine.lease is None and mine.error is None and not admitted:
                self._admit(want, place, rows, wait_until)
            self._notifier.listen()
            self._start_looking()
            while mine.lease is None:
                if mine.error is not None:
                    raise mine.error
                now = time.monotonic()
                if now >= wait_until:
                    raise EngineBusy(retry_after=self.retry_after_seconds(tenant, acceptable))
                return_connection()
                mine.woken.wait(min(CANCEL_CHECK_SECONDS, wait_until - now))
                if canceled():
                    return None
                if mine.displaced:  # This process slept too long.
                    self._forget(place)
                    mine.displaced = False
                    mine.woken.clear()
                    place = self._join(mine)
                    self._look.set()
            # It may have been given one before it waited, and so before it asked.
            lease = None if canceled() else mine.lease
            return_connection()
            return lease
        finally:
            if lease is None:
                self._forget(place)
                if mine.lease is not None:  # It was handed over while its waiter went.
                    mine.lease.release(needs_probe=False, used=False)
                elif self.line.leave(place):
                    self.wake()

    def _join(self, mine: _Waiter) -> int:
        place = self.line.join(mine.want.tenant, mine.want.servers)
        with self._lock:
            self._waiters[place] = mine
        return place

    def _forget(self, place: int) -> None:
        """Nothing is given to this waiter any more."""
        with self._lock:
            there = self._waiters.pop(place, None) is not None
        if there:
            with self._serving:  # Whoever is giving it a lease has ended then.
                pass

    def _admit(self, want: _Wanted, place: int, rows: list[ServerRow], wait_until: float) -> None:
        standing = self.line.standing(want.tenant, want.servers, place)
        call = self._seconds_a_call(rows, want.servers)
        expected = None if call is None else call * (standing.before + 1)
        # Whoever is next may be served any moment.
        too_long = standing.before and expected is not None and expected > wait_until - time.monotonic()
        if standing.full or too_long:
            seconds = expected or ASSUMED_SECONDS * (standing.before + 1) / len(self.servers)
            raise EngineBusy(retry_after=_whole(seconds))

    def probe_back(self, server: str, probe: Callable[[], bool | None]) -> None:
        """Lets a thread probe a server in doubt, now and then until it has answered, so that no caller has to.

        probe: True: it answered; None: not yet; False: nothing took the connection.
        """
        self._probing.begin(server, lambda: self._probe(server, probe))

    def close(self) -> None:
        """Ends the threads that probe."""
        self._probing.close()

    def states(self) -> dict[str, ServerState]:
        """By server; one that has never been called is free."""
        found = {
            row.server: ServerState(held=row.is_held, needs_probe=row.needs_probe, set_aside=row.is_set_aside)
            for row in self._known_rows()
        }
        free = ServerState(held=False, needs_probe=False, set_aside=False)
        return {server: found.get(server, free) for server in self.servers}

    def waiting(self) -> int:
        return self.line.waiting().count()

    def expected_wait_seconds(self, tenant: str | None = None, servers: Collection[str] = ()) -> float:
        """About how long until somebody who comes now is served; 0 where a server is free.

        tenant: who comes, None for one who has to wait for all; servers: those that will do, empty for any.
        """
        rows = self._known_rows()
        free = [row for row in rows if row.is_free]
        known = {row.server for row in rows}
        unknown = any(server not in known for server in servers or self.servers)
        before = self.waiting() if tenant is None else self.line.standing(tenant, servers).before
        call = self._seconds_a_call(rows, servers) or ASSUMED_SECONDS / len(self.servers)
        idle = unknown or any(not servers or row.server in servers for row in free)
        return call * (before + (not idle))

    def retry_after_seconds(self, tenant: str = "", servers: Collection[str] = ()) -> float:
        return _whole(self.expected_wait_seconds(tenant, servers))

    def _seconds_a_call(self, rows: list[ServerRow], servers: Collection[str]) -> float | None:
        """Of those servers together (empty: all), as far as they can be reached. None where nothing was measured."""
        asked = [row for row in rows if not servers or row.server in servers]
        asked = [row for row in asked if not row.is_set_aside] or asked
        measured = [row.usual_seconds for row in asked if row.usual_seconds is not None]
        if not measured:
            return None
        return sum(measured) / len(measured) / len(asked)

    # --- taking ---------------------------------------------------------------------------------------------

    def _take(self, want: _Wanted) -> Lease | None:
        """A free server for one who has no place in the line, and so yields to all who have one."""
        rows = self._all_rows()
        away = self._away(rows, want)
        if away is not None:
            raise away
        free = [row for row in rows if row.is_free and not row.is_set_aside]
        if free and rows[0].others_wait:
            _, free = assigned(self.line.in_order(), free)
        return self._take_one(free, None, want)

    def _serve(self) -> list[ServerRow]:
        """Gives those who wait here what is free and theirs by the order of the line; the servers' rows."""
        rows = self._all_rows()
        if not any(row.is_free or row.unreachable for row in rows):
            return rows  # Whoever frees one hands it over. Not behind the lock: that would hold up those who do.
        with self._serving:
            rows = self._all_rows()
            with self._lock:
                waiters = dict(self._waiters)
            for place, waiter in waiters.items():
                waiter.error = self._away(rows, waiter.want)
                if waiter.error is not None:
                    self._give(place, waiter)
            free = [row for row in rows if row.is_free and not row.is_set_aside]
            line = self.line.in_order() if free else []
            if line:
                self._ahead = next((index for index, (place, _) in enumerate(line) if place in waiters), len(line))
            for place, servers in line:
                if not free:
                    break
                here = waiters.get(place)
                if here is None:  # Another process serves it.
                    _, free = assigned([(place, servers)], free)
                elif here.error is None:
                    lease = self._take_one(free, place, here.want)
                    if lease is not None:
                        here.lease = lease
                        self._give(place, here)
                        free = [row for row in free if row.server != lease.server]
            return rows

    def _give(self, place: int, waiter: _Waiter) -> None:
        with self._lock:
            self._waiters.pop(place, None)
        waiter.woken.set()

    def _away(self, rows: list[ServerRow], want: _Wanted) -> EngineUnavailable | None:
        """The error where all servers that would do could not be reached just now."""
        acceptable = [row for row in rows if want.takes(row.server)]
        away = [row.set_aside_until for row in acceptable if row.unreachable and row.set_aside_until]
        if acceptable and len(away) == len(acceptable) and min(away) > rows[0].clock:
            return EngineUnavailable(retry_after=max(1.0, (min(away) - rows[0].clock).total_seconds()))
        return None

    def _take_one(self, free: list[ServerRow], place: int | None, want: _Wanted) -> Lease | None:
        candidates = [row for row in free if want.takes(row.server)]
        # Any order among equals, so that processes do not all try the same server first.
        random.shuffle(candidates)
        candidates.sort(
            key=lambda row: (row.is_unsure, want.rank(row.server, row.believed_loaded), row.server != want.prefer)
        )
        return next((lease for row in candidates if (lease := self._try(row, place, want)) is not None), None)

    def _try(
        self, row: ServerRow, place: int | None, want: _Wanted, counts: bool = True, aside: timedelta | None = None
    ) -> Lease | None:
        """Takes the server of this row, if exactly what was read of it still holds.

        counts: as the tenant's turn; aside: nobody else is to try it for so long, also when it was given back.
        """
        owner = uuid.uuid4().hex
        unsure = row.is_unsure
        # After anything uncertain nobody knows what is loaded there: it may have been restarted.
        loaded = UNKNOWN if row.loaded and unsure else row.believed_loaded
        take = take_lease(bool(row.owner), self._lifetime, aside)
        # Durable: inside a caller's transaction nobody else would see the lease.
        with transaction.atomic(durable=True):
            if not take(
                pk=row.pk, was=row.owner, was_unsure=row.needs_probe, was_loaded=row.loaded,
                owner=owner, unsure=unsure, loaded=loaded,
            ):  # fmt: skip
                return None
            if not self._leaves(place):
                return None
            if counts:
                self._count_turn(want.tenant)
        return Lease(self, row.server, owner, unsure, loaded, row.loaded_at, row.loaded_seconds)

    def _leaves(self, place: int | None) -> bool:
        """Takes a waiter out of the line; if it stands there no more, the transaction is rolled back."""
        if place is None or self.line.leave(place):
            return True
        transaction.set_rollback(True)
        return False

    def _count_turn(self, tenant: str) -> None:
        if not serve_turn(queue=self.line.queue, tenant=tenant):
            turn = EngineTurn(queue=self.line.queue, tenant=tenant, served_at=Now())
            EngineTurn.objects.bulk_create([turn], ignore_conflicts=True)

    def hand_over(self, lease: Lease, seconds: float | None) -> bool:
        """Gives a server to the one whose turn it is. seconds: what the call took, which has ended well; None: no call.

        False where nobody waits for it here, or another process is next. Raises DatabaseError.
        """
        if not self._waiters:
            return False
        with self._serving:
            while (place := self.line.next_for(lease.server)) is not None:
                waiter = self._waiters.get(place)
                if waiter is None:
                    return False
                owner = uuid.uuid4().hex
                with transaction.atomic(durable=True):
                    hand_over = hand_over_lease(self._lifetime, seconds is not None)
                    if not hand_over(server=lease.server, was=lease.owner, owner=owner, seconds=seconds):
                        return False
                    left = self._leaves(place)
                    if left:
                        self._count_turn(waiter.want.tenant)
                if left:
                    known = lease.loaded, lease.loaded_at, lease.loaded_seconds
                    waiter.lease = Lease(self, lease.server, owner, False, *known)
                    self._give(place, waiter)
                    return True
        return False

    def _known_rows(self) -> list[ServerRow]:
        """The rows of the servers that were ever asked for, with the database's clock."""
        return [ServerRow(*row) for row in self._rows_and_line()]

    def _all_rows(self) -> list[ServerRow]:
        """The row of each server, made where it is missing."""
        rows = self._known_rows()
        if len(rows) < len(self.servers):
            EngineLease.objects.bulk_create([EngineLease(server=name) for name in self.servers], ignore_conflicts=True)
            return self._all_rows()
        return rows

    @cached_property
    def _rows_and_line(self) -> Select:
        rows = EngineLease.objects.filter(server__in=self.servers)
        rows = rows.annotate(clock=Now(), others_wait=Exists(self.line.waiting()))
        return Select(rows.values_list(*ServerRow._fields))

    @property
    def _lifetime(self) -> timedelta:
        return timedelta(seconds=self.lease_seconds)

    def _probe(self, server: str, probe: Callable[[], bool | None]) -> bool:
        """Whether the server is in doubt no longer, by this probe or somebody else's."""
        row = next((row for row in self._known_rows() if row.server == server and row.needs_probe), None)
        if row is None or not row.is_free:
            return row is None
        # Past the line, and set aside all the while: nobody is to wait for the answer.
        want = _Wanted("", frozenset({server}), None, lambda server, loaded: 0)
        lease = self._try(row, None, want, counts=False, aside=self._lifetime)
        if lease is None:
            return False
        with lease:
            found = probe()
            if found:
                lease.answered()
                log.info("%s is back", server)
            else:
                lease.release(needs_probe=True, set_aside=True, unreachable=found is False)
        return bool(found)

    # --- waking ---------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """A server is free, or somebody has left the line: whoever is to be served now learns of it."""
        self._notifier.notify()
        self._look.set()

    def _start_looking(self) -> None:
        with self._lock:
            if self._looker is None or not self._looker.is_alive():
                self._looker = threading.Thread(target=self._keep_looking, name="line", daemon=True)
                self._looker.start()

    def _keep_looking(self) -> None:
        """One thread for all who wait here: each by itself would cost more than the work."""
        shown = time.monotonic()
        try:
            while True:
                # Those in front look more often, and no two processes in step.
                pause = min(MAX_POLL_SECONDS, POLL_SECONDS * (1 + self._ahead)) * random.uniform(0.7, 1.3)
                self._look.wait(pause)
                self._look.clear()
                with self._lock:
                    places = list(self._waiters)
                    if not places:
                        self._looker = None
                        return
                try:
                    self._serve()
                    if time.monotonic() - shown >= WAITER_SECONDS / 3:
                        shown = time.monotonic()
                        self._show(places)
                except DatabaseError:
                    log.warning("The line cannot be read", exc_info=True)
                    connection.close()
        finally:
            connection.close()

    def _show(self, places: list[int]) -> None:
        if self.line.stay(places) == len(places):
            return
        there = set(EngineWaiter.objects.filter(pk__in=places).values_list("pk", flat=True))
        for place in set(places) - there:
            with self._serving:
                waiter = self._waiters.get(place)
            if waiter is not None:
                waiter.displaced = True
                waiter.woken.set()


def _whole(seconds: float) -> float:
    return max(1.0, math.ceil(seconds))
