"""What the rows of the leases say, and the statements that take a lease and give it back."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from functools import cache
from typing import NamedTuple

from django.db.models import F
from django.db.models.functions import Coalesce, Now

from voiceproject.leases.models import EngineLease, EngineTurn
from voiceproject.prepared import Slot, Update

# What we loaded on a server is believed for so long: whoever else can reach it may have loaded something else since.
LOADED_SECONDS = 600.0
UNKNOWN = "?"


class ServerRow(NamedTuple):
    """A server's row, as it was read at `clock`. others_wait: somebody stands in the line."""

    pk: int
    server: str
    owner: str
    expires_at: datetime | None
    needs_probe: bool
    set_aside_until: datetime | None
    unreachable: bool
    loaded: str
    loaded_at: datetime | None
    usual_seconds: float | None
    clock: datetime
    others_wait: bool

    @property
    def is_free(self) -> bool:
        return not self.owner or (self.expires_at is not None and self.expires_at < self.clock)

    @property
    def is_held(self) -> bool:
        """By a live owner, so that it works now."""
        return bool(self.owner) and self.expires_at is not None and self.expires_at > self.clock

    @property
    def is_set_aside(self) -> bool:
        return self.set_aside_until is not None and self.set_aside_until > self.clock

    @property
    def is_unsure(self) -> bool:
        """Whether something that was called there may still be running."""
        return self.needs_probe or bool(self.owner)

    @property
    def loaded_seconds(self) -> float:
        """How long ago the weights were loaded."""
        return (self.clock - self.loaded_at).total_seconds() if self.loaded_at else math.inf

    @property
    def believed_loaded(self) -> str:
        """Which weights are loaded there; UNKNOWN where we loaded them too long ago."""
        return UNKNOWN if self.loaded and self.loaded_seconds > LOADED_SECONDS else self.loaded


@cache
def take_lease(owned: bool, lifetime: timedelta, aside: timedelta | None) -> Update:
    """Takes a lease as it was read; one that was used and marked in between is read again. owned: it has run out."""
    rows = EngineLease.objects.filter(
        pk=Slot("pk", EngineLease, "id"),
        owner=Slot("was", EngineLease, "owner"),
        needs_probe=Slot("was_unsure", EngineLease, "needs_probe"),
        loaded=Slot("was_loaded", EngineLease, "loaded"),
    )
    return Update(
        rows.filter(expires_at__lt=Now()) if owned else rows,
        owner=Slot("owner", EngineLease),
        expires_at=Now() + lifetime,
        needs_probe=Slot("unsure", EngineLease, "needs_probe"),
        loaded=Slot("loaded", EngineLease),
        updated_at=Now(),
        **({"set_aside_until": Now() + aside} if aside else {}),
    )


serve_turn = Update(
    EngineTurn.objects.filter(queue=Slot("queue", EngineTurn), tenant=Slot("tenant", EngineTurn)),
    served_at=Now(),
)


def _measured() -> Coalesce:
    """A call's seconds, smoothed over those before. The first one counts in full."""
    seconds = Slot("seconds", EngineLease, "usual_seconds")
    return Coalesce(F("usual_seconds") * 0.8 + seconds * 0.2, seconds)


@cache
def hand_over_lease(lifetime: timedelta, used: bool) -> Update:
    """Gives a lease to the next owner; used: there was a call, which has ended well, and its time is measured."""
    return Update(
        EngineLease.objects.filter(server=Slot("server", EngineLease), owner=Slot("was", EngineLease, "owner")),
        owner=Slot("owner", EngineLease),
        expires_at=Now() + lifetime,
        needs_probe=False,
        set_aside_until=None,
        unreachable=False,
        updated_at=Now(),
        **({"usual_seconds": _measured()} if used else {}),
    )


@cache
def give_back_lease(needs_probe: bool, aside: timedelta | None, unreachable: bool, measured: bool) -> Update:
    return Update(
        EngineLease.objects.filter(server=Slot("server", EngineLease), owner=Slot("owner", EngineLease)),
        owner="",
        expires_at=None,
        needs_probe=needs_probe,
        set_aside_until=Now() + aside if aside else None,
        unreachable=unreachable,
        updated_at=Now(),
        **({"usual_seconds": _measured()} if measured else {}),
    )
