"""A fair semaphore: a few slots for sentences, and one queue in which tenants take turns."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from voiceproject.errors import EngineBusy, EngineUnavailable

CANCEL_CHECK_SECONDS = 0.1
ASSUMED_SECONDS = 2.0  # for a sentence, where none was measured yet: told, but nobody is refused for it
KEPT_TENANTS = 1000  # whose last turn is remembered; other tenants count as served long ago


class Deadline(Exception):
    """The request's time is up."""


class Canceled(Exception):
    """The request was canceled before its sentence was begun."""


@dataclass(eq=False)
class _Waiter:
    tenant: str
    called: threading.Event = field(default_factory=threading.Event)


class Turns:
    """places: sentences at a time; max_waiting: texts that may wait for the turn of their first sentence.

    Of the tenants in the line, the one that was served longest ago comes next, and of its sentences the one that came
    first: fifty sentences of one tenant hold up another's by one.
    """

    def __init__(self, places: int, max_waiting: int) -> None:
        self._free = max(1, places)
        self._places = self._free
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        self._line: list[_Waiter] = []
        self._count = itertools.count()
        self._served: dict[str, int] = {}  # by tenant; the most recently served is last
        self._usual_seconds: float | None = None  # of a sentence, smoothed; None until one was measured
        self._open = True

    @contextmanager
    def turn(
        self,
        tenant: str,
        deadline: float,
        *,
        wait_until: float = math.inf,
        canceled: Callable[[], bool] = lambda: False,
    ) -> Iterator[None]:
        """Holds a place while the block runs, once it is this one's turn.

        wait_until: of a text's first sentence, the time.monotonic() at which it is refused; math.inf for those after
        it, which the line has room for in any case. Raises Deadline, Canceled as soon as `canceled()`, EngineBusy when
        the line is full or the wait is, or would be, too long, EngineUnavailable once closed.
        """
        self._take(tenant, deadline, wait_until, canceled)
        started = time.monotonic()
        try:
            yield
        finally:
            self._give(time.monotonic() - started)

    @property
    def waiting(self) -> int:
        return len(self._line)

    def retry_after_seconds(self) -> float:
        """About how long a request would wait that all others come before."""
        return self._told(len(self._line))

    def close(self) -> None:
        with self._lock:
            self._open = False
            for waiter in self._line:
                waiter.called.set()

    def _take(self, tenant: str, deadline: float, wait_until: float, canceled: Callable[[], bool]) -> None:
        with self._lock:
            self._raise_if_closed()
            if self._free and not self._line:
                self._free -= 1
                self._serve(tenant)
                return
            if wait_until < math.inf:
                self._admit(tenant, wait_until)
            mine = _Waiter(tenant)
            self._line.append(mine)
        given_up: Exception | None = None
        while given_up is None:
            now = time.monotonic()
            if now >= deadline:
                given_up = Deadline()
            elif now >= wait_until:
                given_up = EngineBusy(retry_after=self.retry_after_seconds())
            elif mine.called.wait(min(CANCEL_CHECK_SECONDS, deadline - now, wait_until - now)):
                break
            elif canceled():
                given_up = Canceled()
        with self._lock:
            if mine in self._line:
                self._line.remove(mine)
                self._raise_if_closed()
                assert given_up is not None  # else it was called, which takes it out of the line
                raise given_up
        # The place is this one's, also where it gave up this moment; nobody is to be served who has gone meanwhile.
        if given_up is not None or canceled():
            self._give(None)
            raise given_up or Canceled()

    def _admit(self, tenant: str, wait_until: float) -> None:
        """Refuses who would wait too long, as voiceproject.leases does it."""
        waiting = Counter(waiter.tenant for waiter in self._line)
        own = waiting.pop(tenant, 0)
        mine = self._served.get(tenant, -1)
        before = own
        for other, count in waiting.items():
            before += min(count, own + (self._served.get(other, -1) <= mine))
        expected = self._expected(before)
        # Whoever is next may be served any moment.
        too_long = before and expected is not None and expected > wait_until - time.monotonic()
        # A tenant that fills the line shuts out itself: who has less than its share in it still gets a place.
        has_share = own >= max(1, self._max_waiting // (len(waiting) + 1))
        if too_long or len(self._line) >= self._max_waiting * (1 if has_share else 2):
            raise EngineBusy(retry_after=self._told(before))

    def _expected(self, before: int) -> float | None:
        return None if self._usual_seconds is None else self._usual_seconds * (before + 1) / self._places

    def _told(self, before: int) -> float:
        expected = self._expected(before)
        return max(1.0, math.ceil(ASSUMED_SECONDS * (before + 1) / self._places if expected is None else expected))

    def _give(self, seconds: float | None) -> None:
        """seconds: how long the place was held; None where nothing was spoken."""
        with self._lock:
            if seconds is not None:
                usual = self._usual_seconds
                self._usual_seconds = seconds if usual is None else usual + 0.2 * (seconds - usual)
            if not self._line:
                self._free += 1
                return
            following = min(self._line, key=lambda waiter: self._served.get(waiter.tenant, -1))
            self._line.remove(following)
            self._serve(following.tenant)
            following.called.set()

    def _serve(self, tenant: str) -> None:
        self._served.pop(tenant, None)
        self._served[tenant] = next(self._count)
        if len(self._served) > KEPT_TENANTS:
            del self._served[next(iter(self._served))]

    def _raise_if_closed(self) -> None:
        if not self._open:
            raise EngineUnavailable("The speech engine is shutting down.")
