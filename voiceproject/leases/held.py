"""A lease that is held, and what renews it."""

from __future__ import annotations

import logging
import threading
import time
from datetime import datetime, timedelta
from types import TracebackType
from typing import Protocol

from django.db import Error as DatabaseError
from django.db import connection
from django.db.models import QuerySet
from django.db.models.functions import Now

from voiceproject.leases.models import EngineLease
from voiceproject.leases.rows import LOADED_SECONDS, UNKNOWN, give_back_lease

log = logging.getLogger(__name__)


class _Leases(Protocol):
    """Who gave the lease (voiceproject.leases.lease)."""

    set_aside_seconds: float
    keeper: Keeper

    def hand_over(self, lease: Lease, seconds: float | None) -> bool: ...
    def wake(self) -> None: ...


class Lease:
    """The right to call one server. Used in a `with` block; left by an exception, the server is not trusted.

    server: its name; needs_probe: get an answer from it before the call, and then say `answered()`; loaded: which
    weights were loaded there by us, empty if none ever were, UNKNOWN if they are not known any more; loaded_at: when,
    by the database's clock; loaded_seconds: how long ago that was.
    """

    def __init__(
        self,
        leases: _Leases,
        server: str,
        owner: str,
        needs_probe: bool,
        loaded: str = "",
        loaded_at: datetime | None = None,
        loaded_seconds: float = 0.0,
    ) -> None:
        self.server = server
        self.owner = owner
        self.needs_probe = needs_probe
        self.loaded_at = loaded_at
        self._loaded = loaded
        self._loaded_since = time.monotonic() - loaded_seconds
        self._leases = leases
        self._taken_at = time.monotonic()
        self._released = False
        leases.keeper.hold(self)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release(needs_probe=self.needs_probe or error is not None)

    @property
    def loaded(self) -> str:
        return UNKNOWN if self._loaded and self.loaded_seconds > LOADED_SECONDS else self._loaded

    @property
    def loaded_seconds(self) -> float:
        return time.monotonic() - self._loaded_since

    @property
    def _mine(self) -> QuerySet[EngineLease]:
        return EngineLease.objects.filter(server=self.server, owner=self.owner)

    def answered(self) -> None:
        """The server has answered a probe: nothing that began before runs there any more."""
        self.needs_probe = False
        self._taken_at = time.monotonic()  # What was waited for until now is no time of the call's.
        self._mine.update(needs_probe=False, unreachable=False, set_aside_until=None, updated_at=Now())

    def remember(self, loaded: str) -> None:
        """Notes which weights are loaded now. UNKNOWN before they are switched: a switch may end half-way."""
        self._loaded = loaded
        self._loaded_since = time.monotonic()
        self._mine.update(loaded=loaded, loaded_at=Now(), updated_at=Now())
        self.loaded_at = self._mine.values_list("loaded_at", flat=True).first()

    def release(
        self, *, needs_probe: bool, set_aside: bool = False, unreachable: bool = False, used: bool = True
    ) -> None:
        """Frees the server, or hands it over; the first call counts, later ones do nothing.

        needs_probe: its next user must probe first; set_aside: nobody is to try for a while;
        unreachable: nothing took the connection; used: there was a call, whose time is measured.
        """
        if self._released:
            return
        self._released = True
        self._leases.keeper.let_go(self)
        seconds = time.monotonic() - self._taken_at if used else None
        aside = timedelta(seconds=self._leases.set_aside_seconds) if set_aside else None
        give_back = give_back_lease(needs_probe, aside, unreachable, used and not needs_probe)
        try:
            if not (needs_probe or set_aside or unreachable) and self._leases.hand_over(self, seconds):
                return
            kept = give_back(server=self.server, owner=self.owner, seconds=seconds)
        except DatabaseError:
            # It runs out by itself, and whoever takes it over probes.
            log.exception("The lease on %s could not be released", self.server)
            return
        if not kept:
            log.warning("The lease on %s had run out and was taken over", self.server)
        self._leases.wake()

    def renew(self, seconds: float) -> None:
        """Called by its keeper. A failure is logged; the next one may come in time."""
        try:
            until = Now() + timedelta(seconds=seconds)
            renewed = self._mine.update(expires_at=until, updated_at=Now())
            if not renewed and not self._released:
                log.warning("The lease on %s ran out while its call was running", self.server)
                self._leases.keeper.let_go(self)
        except DatabaseError:
            log.warning("The lease on %s could not be renewed", self.server, exc_info=True)
            connection.close()


class Keeper:
    """Renews the leases of this process while their calls run. lease_seconds: how long one lives without it."""

    def __init__(self, lease_seconds: float) -> None:
        self._lease_seconds = lease_seconds
        self._lock = threading.Lock()
        self._held: set[Lease] = set()
        self._thread: threading.Thread | None = None

    def hold(self, lease: Lease) -> None:
        """Renews the lease from now on, until it is let go."""
        with self._lock:
            self._held.add(lease)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._renew, name="leases", daemon=True)
                self._thread.start()

    def let_go(self, lease: Lease) -> None:
        with self._lock:
            self._held.discard(lease)

    def _renew(self) -> None:
        """One thread for all leases of this process: starting one for each would cost more than the lease itself."""
        while True:
            time.sleep(self._lease_seconds / 3)
            with self._lock:
                held = list(self._held)
                if not held:
                    self._thread = None
                    return
            try:
                for lease in held:
                    lease.renew(self._lease_seconds)
            finally:
                connection.close()  # this thread's own
