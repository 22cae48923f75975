"""A fair semaphore: a few slots for sentences, and one queue in which tenants take turns."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from voiceproject.errors import EngineBusy, EngineUnavailable

CANCEL_CHECK_SECONDS = 0.1
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
        self._usual_seconds = 2.0
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
        the line is full or the wait too long, EngineUnavailable once closed.
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
        """About how long a new request would wait."""
        return max(1.0, math.ceil(self._usual_seconds * (len(self._line) + 1) / self._places))

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
                # A tenant that fills the line shuts out itself: who has nobody in it still gets a place.
                known = any(waiter.tenant == tenant for waiter in self._line)
                if len(self._line) >= self._max_waiting * (1 if known else 2):
                    raise EngineBusy(retry_after=self.retry_after_seconds())
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

    def _give(self, seconds: float | None) -> None:
        """seconds: how long the place was held; None where nothing was spoken."""
        with self._lock:
            if seconds is not None:
                self._usual_seconds += 0.2 * (seconds - self._usual_seconds)
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
