"""One call at a time per engine server, over all threads and processes of this project.

A lease is a row that one owner holds until it releases it or its time runs out; a thread renews those of this
process while their calls run. A server whose last call may still be running there (a time-out, a broken connection, an
owner that died) is marked `needs_probe`: whoever takes it next has to get an answer from it first, and says
so with `Lease.answered()`. All times are the database's clock. No transaction is open while anyone waits or
calls.

Who finds no server free stands in a line, which is rows too. It is served by turns: of the tenants in it, the
one that was served longest ago, so that fifty sentences of one do not hold up another's. Whoever frees a server
wakes the one whose turn it is, in its own process at once and in others of this machine by a notifier; beyond that
each looks by itself from time to time.
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
from types import TracebackType

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection, transaction
from django.db.models import Exists, QuerySet
from django.db.models.functions import Now

from voiceproject.errors import EngineBusy, EngineUnavailable
from voiceproject.leases.line import WAITER_SECONDS, Line, assigned
from voiceproject.leases.models import EngineLease, EngineTurn, EngineWaiter
from voiceproject.leases.notifier import Notifier
from voiceproject.leases.rows import UNKNOWN, ServerRow, give_back_lease, serve_turn, take_lease
from voiceproject.prepared import Select
from voiceproject.web.slots import return_connection

log = logging.getLogger(__name__)

CANCEL_CHECK_SECONDS = 1.0
# How often a waiter looks by itself, in case that nobody wakes it: the one in front, and those far behind.
POLL_SECONDS = 0.05
MAX_POLL_SECONDS = 0.5
MAX_PROBE_PAUSE_SECONDS = 30.0


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


class _Local:
    """A waiter of this process. before: about how many stood before it when it last looked."""

    def __init__(self, before: int) -> None:
        self.woken = threading.Event()
        self.before = before


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
        max_waiting: int = 16,
        lease_seconds: float = 30.0,
        set_aside_seconds: float = 5.0,
    ) -> None:
        self.servers = list(dict.fromkeys(servers))
        self.line = Line(queue, max_waiting)
        self.lease_seconds = lease_seconds
        self.set_aside_seconds = set_aside_seconds
        self._locals: dict[int, _Local] = {}  # by the key of the waiter's row
        self._lock = threading.Lock()
        self._probed: set[str] = set()  # servers that a thread of this process probes
        self._closed = threading.Event()
        self._held: set[Lease] = set()
        self._keeper: threading.Thread | None = None
        self._notifier = Notifier(settings.CACHE_DIR / "notifier", self._wake_one)

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
        any; admitted: whoever has been served before is not counted against max_waiting; rank: called as (server, what
        is loaded there, see Lease): of several free ones one with the lowest rank is taken, of equals rather `prefer`;
        avoid: servers that this caller does not want again. Raises EngineBusy when the line is full or the wait too
        long, EngineUnavailable when none can be reached.
        """
        acceptable = frozenset(servers)
        if avoid:
            acceptable = (acceptable or frozenset(self.servers)) - avoid
        want = _Wanted(tenant, acceptable, prefer, rank)
        lease, _ = self._take(None, want)
        if lease is not None:
            return_connection()  # A call is longer than the queries around it.
            return lease
        place = self._join(want, admitted)
        mine = self._locals[place] = _Local(before=len(self._locals))
        shown = asked = time.monotonic()
        try:
            self._notifier.listen()
            while True:
                mine.woken.clear()
                lease, before = self._take(place, want)
                if lease is not None:
                    return_connection()
                    return lease
                now = time.monotonic()
                if now >= wait_until:
                    raise EngineBusy(retry_after=self.retry_after_seconds())
                if now - asked >= CANCEL_CHECK_SECONDS:
                    asked = now
                    if canceled():
                        return None
                if now - shown >= WAITER_SECONDS / 3:
                    shown = now
                    if not self.line.stay(place):  # it slept too long, and its place has gone
                        del self._locals[place]
                        place = self._join(want, admitted=True)
                        self._locals[place] = mine
                if before is not None:
                    mine.before = before
                # Those in front look more often, and no two processes in step.
                pause = min(MAX_POLL_SECONDS, POLL_SECONDS * (1 + mine.before)) * random.uniform(0.7, 1.3)
                return_connection()
                mine.woken.wait(max(0.0, min(pause, wait_until - now)))
        finally:
            self._locals.pop(place, None)
            if lease is None:
                self.line.leave(place)
                self.wake()

    def _join(self, want: _Wanted, admitted: bool) -> int:
        place = self.line.join(want.tenant, want.servers, admitted)
        if place is None:
            self.wake()
            raise EngineBusy(retry_after=self.retry_after_seconds())
        return place

    def probe_back(self, server: str, probe: Callable[[], bool | None]) -> None:
        """Lets a thread probe a server in doubt, now and then until it has answered, so that no caller has to.

        probe: True: it answered; None: not yet; False: nothing took the connection.
        """
        with self._lock:
            if server in self._probed or self._closed.is_set():
                return
            self._probed.add(server)
        threading.Thread(target=self._probe_back, args=(server, probe), name=f"probe {server}", daemon=True).start()

    def close(self) -> None:
        """Ends the threads that probe."""
        self._closed.set()

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

    def expected_wait_seconds(self) -> float:
        """About how long until somebody who comes now is served; 0 where a server is free."""
        rows = self._known_rows()
        usual = sum(row.usual_seconds for row in rows) / len(rows) if rows else 5.0
        idle = len(self.servers) - sum(not row.is_free for row in rows)
        waiting = self.waiting()
        return max(0.0, usual * (waiting + (idle <= 0)) / max(1, len(self.servers)))

    def retry_after_seconds(self) -> float:
        return max(1.0, math.ceil(self.expected_wait_seconds()))

    # --- taking ---------------------------------------------------------------------------------------------

    def _take(self, place: int | None, want: _Wanted) -> tuple[Lease | None, int | None]:
        """Tries to take a free server. Without a place it yields to all who have one.

        Also how many stand before it, which is not looked at while no server is free.
        """
        rows = self._all_rows()
        acceptable = [row for row in rows if want.takes(row.server)]
        away = [row.set_aside_until for row in acceptable if row.unreachable and row.set_aside_until]
        if acceptable and len(away) == len(acceptable) and min(away) > rows[0].clock:
            seconds = (min(away) - rows[0].clock).total_seconds()
            raise EngineUnavailable(retry_after=max(1.0, seconds))
        free = [row for row in rows if row.is_free and not row.is_set_aside]
        if not free:
            return None, None
        line = self.line.in_order() if any(row.others_wait for row in rows) else []
        before = next((index for index, (pk, _) in enumerate(line) if pk == place), len(line))
        served, left = assigned(line[:before], free)
        for other in served:  # Those before who may not know it yet.
            waiter = self._locals.get(other)
            if waiter is not None:
                waiter.woken.set()
        candidates = [row for row in left if want.takes(row.server)]
        # Any order among equals, so that processes do not all try the same server first.
        random.shuffle(candidates)
        candidates.sort(
            key=lambda row: (row.is_unsure, want.rank(row.server, row.believed_loaded), row.server != want.prefer)
        )
        for row in candidates:
            lease = self._try(row, place, want)
            if lease is not None:
                if len(left) > 1:
                    self._wake_one(besides=place)  # There is one more for whoever stands behind.
                return lease, before
        return None, before

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
            if counts and not serve_turn(queue=self.line.queue, tenant=want.tenant):
                turn = EngineTurn(queue=self.line.queue, tenant=want.tenant, served_at=Now())
                EngineTurn.objects.bulk_create([turn], ignore_conflicts=True)
            if place is not None:
                EngineWaiter.objects.filter(pk=place).delete()
        return Lease(self, row.server, owner, unsure, loaded)

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

    def hold(self, lease: Lease) -> None:
        """Renews the lease from now on, until it is let go."""
        with self._lock:
            self._held.add(lease)
            if self._keeper is None or not self._keeper.is_alive():
                self._keeper = threading.Thread(target=self._renew, name="leases", daemon=True)
                self._keeper.start()

    def let_go(self, lease: Lease) -> None:
        with self._lock:
            self._held.discard(lease)

    def _renew(self) -> None:
        """One thread for all leases of this process: starting one for each would cost more than the lease itself."""
        while True:
            time.sleep(self.lease_seconds / 3)
            with self._lock:
                held = list(self._held)
                if not held:
                    self._keeper = None
                    return
            try:
                for lease in held:
                    lease.renew()
            finally:
                connection.close()  # this thread's own

    # --- probing --------------------------------------------------------------------------------------------

    def _probe_back(self, server: str, probe: Callable[[], bool | None]) -> None:
        pause = self.set_aside_seconds
        try:
            while not self._closed.wait(pause):
                pause = min(MAX_PROBE_PAUSE_SECONDS, 2 * pause)
                try:
                    if self._probe(server, probe):
                        return
                except DatabaseError:
                    log.warning("The lease on %s cannot be read", server, exc_info=True)
                finally:
                    connection.close()
        finally:
            with self._lock:
                self._probed.discard(server)

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
        self._wake_one()

    def _wake_one(self, besides: int | None = None) -> None:
        """The one of this process that stood furthest in front looks; should others be served before it, it wakes
        them. All of them looking at once would cost more than the work itself."""
        waiters = [waiter for place, waiter in list(self._locals.items()) if place != besides]
        if waiters:
            min(waiters, key=lambda waiter: waiter.before).woken.set()


class Lease:
    """The right to call one server. Used in a `with` block; left by an exception, the server is not trusted.

    server: its name; needs_probe: get an answer from it before the call, and then say `answered()`; loaded: which
    weights were loaded there by us, empty if none ever were, UNKNOWN if they are not known any more.
    """

    def __init__(self, leases: Leases, server: str, owner: str, needs_probe: bool, loaded: str = "") -> None:
        self.server = server
        self.owner = owner
        self.needs_probe = needs_probe
        self.loaded = loaded
        self._leases = leases
        self._taken_at = time.monotonic()
        self._released = False
        leases.hold(self)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release(needs_probe=self.needs_probe or error is not None)

    @property
    def _mine(self) -> QuerySet[EngineLease]:
        return EngineLease.objects.filter(server=self.server, owner=self.owner)

    def answered(self) -> None:
        """The server has answered a probe: nothing that began before runs there any more."""
        self.needs_probe = False
        self._mine.update(needs_probe=False, unreachable=False, set_aside_until=None, updated_at=Now())

    def remember(self, loaded: str) -> None:
        """Notes which weights are loaded now. UNKNOWN before they are switched: a switch may end half-way."""
        self.loaded = loaded
        self._mine.update(loaded=loaded, updated_at=Now())

    def release(self, *, needs_probe: bool, set_aside: bool = False, unreachable: bool = False) -> None:
        """Frees the server; the first call counts, later ones do nothing.

        needs_probe: its next user must probe first; set_aside: nobody is to try for a while;
        unreachable: nothing took the connection.
        """
        if self._released:
            return
        self._released = True
        self._leases.let_go(self)
        seconds = time.monotonic() - self._taken_at
        aside = timedelta(seconds=self._leases.set_aside_seconds) if set_aside else None
        give_back = give_back_lease(needs_probe, aside, unreachable)
        try:
            kept = give_back(server=self.server, owner=self.owner, seconds=seconds)
        except DatabaseError:
            # It runs out by itself, and whoever takes it over probes.
            log.exception("The lease on %s could not be released", self.server)
            return
        if not kept:
            log.warning("The lease on %s had run out and was taken over", self.server)
        self._leases.wake()

    def renew(self) -> None:
        """Called by its keeper. A failure is logged; the next one may come in time."""
        try:
            renewed = self._mine.update(expires_at=Now() + self._leases._lifetime, updated_at=Now())
            if not renewed and not self._released:
                log.warning("The lease on %s ran out while its call was running", self.server)
                self._leases.let_go(self)
        except DatabaseError:
            log.warning("The lease on %s could not be renewed", self.server, exc_info=True)
            connection.close()
