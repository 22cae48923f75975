"""One call at a time per engine server, over all threads and processes of this project.

A lease is a row that one owner holds until it releases it or its time runs out; a thread renews it while the
owner's call runs. A server whose last call may still be running there (a time-out, a broken connection, an
owner that died) is marked `needs_probe`: whoever takes it next has to get an answer from it first, and says
so with `Lease.answered()`. All times are the database's clock. No transaction is open while anyone waits or
calls.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType

from django.db import Error as DatabaseError
from django.db import connection, transaction
from django.db.models import Exists
from django.db.models.functions import Now

from voiceproject.errors import EngineBusy, EngineUnavailable
from voiceproject.models import EngineLease, EngineWaiter

log = logging.getLogger(__name__)

WAITER_SECONDS = 10.0  # a waiter that has not shown itself for so long is passed over
CANCEL_CHECK_SECONDS = 1.0
POLL_SECONDS = 0.04
MAX_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class ServerState:
    """What the rows say of one server. held: by a live owner, so that it works now."""

    held: bool
    needs_probe: bool
    set_aside: bool


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
        self.queue = queue
        self.max_waiting = max_waiting
        self.lease_seconds = lease_seconds
        self.set_aside_seconds = set_aside_seconds
        self._freed = threading.Condition()
        self._usual_call_seconds = 5.0  # smoothed; only an estimate for Retry-After

    def acquire(
        self,
        wait_until: float,
        *,
        admitted: bool = False,
        prefer: str | None = None,
        avoid: frozenset[str] = frozenset(),
        canceled: Callable[[], bool] = lambda: False,
    ) -> Lease | None:
        """A lease on a free server, in turn with all others who wait; None once `canceled()` is true.

        wait_until: time.monotonic(); admitted: whoever has been served before is not counted against
        max_waiting; prefer: a server to take where it is free; avoid: servers that this caller does not want
        again. Raises EngineBusy when the line is full or the wait too long, EngineUnavailable when none can
        be reached.
        """
        lease = self._take(None, prefer, avoid)
        if lease is not None:
            return lease
        waiter = self._line_up(admitted)
        shown = asked = time.monotonic()
        try:
            while True:
                before = self._before(waiter)
                lease = self._take(waiter, prefer, avoid) if before == 0 else None
                if lease is not None:
                    return lease
                now = time.monotonic()
                if now >= wait_until:
                    raise EngineBusy(retry_after=self.expected_wait_seconds())
                if now - asked >= CANCEL_CHECK_SECONDS:
                    asked = now
                    if canceled():
                        return None
                if now - shown >= WAITER_SECONDS / 3:
                    shown = now
                    if not self._show_up(waiter):
                        waiter = self._line_up(admitted=True)  # it slept too long, and its place has gone
                # Those near the front look more often, and no two processes in step.
                pause = min(MAX_POLL_SECONDS, POLL_SECONDS * (1 + before)) * random.uniform(0.7, 1.3)
                with self._freed:
                    self._freed.wait(min(pause, wait_until - now))
        finally:
            self._leave(waiter)

    def states(self) -> dict[str, ServerState]:
        """By server; one that has never been called is free."""
        found = {}
        for row in EngineLease.objects.filter(server__in=self.servers).annotate(clock=Now()):
            found[row.server] = ServerState(
                held=bool(row.owner) and row.expires_at is not None and row.expires_at > row.clock,
                needs_probe=row.needs_probe,
                set_aside=row.set_aside_until is not None and row.set_aside_until > row.clock,
            )
        free = ServerState(held=False, needs_probe=False, set_aside=False)
        return {server: found.get(server, free) for server in self.servers}

    def waiting(self) -> int:
        return EngineWaiter.objects.filter(queue=self.queue, expires_at__gt=Now()).count()

    def expected_wait_seconds(self) -> float:
        """About how long until somebody who comes now is served."""
        return max(1.0, math.ceil(self._usual_call_seconds * (self.waiting() + 1) / max(1, len(self.servers))))

    # --- taking ---------------------------------------------------------------------------------------------

    def _before(self, waiter: int) -> int:
        """How many stand before this waiter."""
        return EngineWaiter.objects.filter(queue=self.queue, id__lt=waiter, expires_at__gt=Now()).count()

    def _take(self, waiter: int | None, prefer: str | None, avoid: frozenset[str]) -> Lease | None:
        """Tries to take a free server. Without a place in the line it yields to all who have one."""
        others = EngineWaiter.objects.filter(queue=self.queue, expires_at__gt=Now())
        if waiter is not None:
            others = others.filter(id__lt=waiter)
        rows = list(self._rows().annotate(clock=Now(), others_wait=Exists(others)))
        if len(rows) < len(self.servers):
            EngineLease.objects.bulk_create([EngineLease(server=name) for name in self.servers], ignore_conflicts=True)
            rows = list(self._rows().annotate(clock=Now(), others_wait=Exists(others)))
        set_aside = [row for row in rows if row.set_aside_until is not None and row.set_aside_until > row.clock]
        if len(set_aside) == len(rows) and all(row.unreachable for row in rows):
            seconds = min((row.set_aside_until - row.clock).total_seconds() for row in rows)
            raise EngineUnavailable(retry_after=max(1.0, seconds))
        if any(row.others_wait for row in rows):
            return None
        candidates = [
            row
            for row in rows
            if row not in set_aside
            and row.server not in avoid
            and (not row.owner or (row.expires_at is not None and row.expires_at < row.clock))
        ]
        # Any order among equals, so that processes do not all try the same server first.
        random.shuffle(candidates)
        candidates.sort(key=lambda row: (row.needs_probe or bool(row.owner), row.server != prefer))
        for row in candidates:
            owner = uuid.uuid4().hex
            unsure = row.needs_probe or bool(row.owner)
            # Exactly what was read must still hold: a server that was used and marked in between is read
            # again.
            same = EngineLease.objects.filter(pk=row.pk, owner=row.owner, needs_probe=row.needs_probe)
            if row.owner:
                same = same.filter(expires_at__lt=Now())
            # Durable: inside a caller's transaction nobody else would see the lease.
            with transaction.atomic(durable=True):
                taken = same.update(
                    owner=owner, expires_at=Now() + self._lifetime, needs_probe=unsure, updated_at=Now()
                )
            if taken:
                return Lease(self, row.server, owner, unsure)
        return None

    def _rows(self):  # type: ignore[no-untyped-def]  # a QuerySet, whose annotations the type checker cannot follow
        return EngineLease.objects.filter(server__in=self.servers)

    @property
    def _lifetime(self) -> timedelta:
        return timedelta(seconds=self.lease_seconds)

    # --- the line -------------------------------------------------------------------------------------------

    def _line_up(self, admitted: bool) -> int:
        line = EngineWaiter.objects.filter(queue=self.queue)
        line.filter(expires_at__lt=Now() - timedelta(seconds=WAITER_SECONDS)).delete()
        place = EngineWaiter.objects.create(queue=self.queue, expires_at=Now() + timedelta(seconds=WAITER_SECONDS)).pk
        # Counted after the row is there: of two who come at once, one sees the other.
        if not admitted and line.filter(id__lt=place, expires_at__gt=Now()).count() >= self.max_waiting:
            self._leave(place)
            raise EngineBusy(retry_after=self.expected_wait_seconds())
        return place

    def _show_up(self, waiter: int) -> bool:
        until = Now() + timedelta(seconds=WAITER_SECONDS)
        return bool(EngineWaiter.objects.filter(pk=waiter).update(expires_at=until))

    def _leave(self, waiter: int) -> None:
        EngineWaiter.objects.filter(pk=waiter).delete()
        with self._freed:
            self._freed.notify_all()

    def _released(self, seconds: float | None) -> None:
        if seconds is not None:
            self._usual_call_seconds += 0.2 * (seconds - self._usual_call_seconds)
        with self._freed:
            self._freed.notify_all()


class Lease:
    """The right to call one server. Used in a `with` block; left by an exception, the server is not trusted.

    server: its name; needs_probe: get an answer from it before the call, and then say `answered()`.
    """

    def __init__(self, leases: Leases, server: str, owner: str, needs_probe: bool) -> None:
        self.server = server
        self.owner = owner
        self.needs_probe = needs_probe
        self._leases = leases
        self._taken_at = time.monotonic()
        self._released = threading.Event()
        self._keeper = threading.Thread(target=self._renew, name=f"lease {server}", daemon=True)
        self._keeper.start()

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release(needs_probe=self.needs_probe or error is not None)

    @property
    def _mine(self):  # type: ignore[no-untyped-def]
        return EngineLease.objects.filter(server=self.server, owner=self.owner)

    def answered(self) -> None:
        """The server has answered a probe: nothing that began before runs there any more."""
        self.needs_probe = False
        self._mine.update(needs_probe=False, unreachable=False, set_aside_until=None, updated_at=Now())

    def release(self, *, needs_probe: bool, set_aside: bool = False, unreachable: bool = False) -> None:
        """Frees the server; the first call counts, later ones do nothing.

        needs_probe: its next user must probe first; set_aside: nobody is to try for a while;
        unreachable: nothing took the connection.
        """
        if self._released.is_set():
            return
        self._released.set()
        self._keeper.join()
        aside = Now() + timedelta(seconds=self._leases.set_aside_seconds) if set_aside else None
        try:
            kept = self._mine.update(
                owner="", expires_at=None, needs_probe=needs_probe, set_aside_until=aside,
                unreachable=unreachable, updated_at=Now(),
            )  # fmt: skip
        except DatabaseError:
            # It runs out by itself, and whoever takes it over probes.
            log.exception("The lease on %s could not be released", self.server)
            return
        if not kept:
            log.warning("The lease on %s had run out and was taken over", self.server)
        self._leases._released(time.monotonic() - self._taken_at if not needs_probe else None)

    def _renew(self) -> None:
        pause = self._leases.lease_seconds / 3
        try:
            while not self._released.wait(pause):
                try:
                    if not self._mine.update(expires_at=Now() + self._leases._lifetime, updated_at=Now()):
                        log.warning("The lease on %s ran out while its call was running", self.server)
                        return
                except DatabaseError:
                    log.warning("The lease on %s could not be renewed", self.server, exc_info=True)
                    connection.close()
        finally:
            connection.close()  # this thread's own
