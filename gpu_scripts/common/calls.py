"""How far another project's step is that tells nothing itself: by the calls of its networks' modules, and by the clock
where one of them takes long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

FIRST = 500  # calls, at which a step that nothing is known of is taken to be half done; two thirds at twice as many
TICK_SECONDS = 0.5
APART = 0.005  # of a step's seconds: points of its course are kept so far apart


@dataclass(frozen=True)
class Course:
    """How a kind of step goes: its calls for a unit of size, and at which shares of its calls which shares of its
    seconds have passed: points that rise, the first one (0, 0). The last layers of a decoder take most of the time.
    """

    calls: float
    points: tuple[tuple[float, float], ...]

    def at(self, share: float) -> float:
        """The share of its seconds that has passed at a share of its calls."""
        last = (0.0, 0.0)
        for point in self.points:
            if point[0] > share:
                return last[1] + (point[1] - last[1]) * (share - last[0]) / (point[0] - last[0])
            last = point
        return last[1]


_learnt: dict[str, Course] = {}  # of each kind, by the last step of this process


@contextmanager
def told_by_calls(
    kind: str, tell: Callable[[float], None], size: float = 1.0, usual: Course | None = None
) -> Iterator[None]:
    """Within the block, `tell` hears how far it is: never falling, below 1, as soon as .01 more is done.

    Torch calls back after each module's forward. Steps of one kind make calls in proportion to their `size` (1 for
    networks that see a part at once, seconds or letters for those that go step by step), so the last step tells what
    to expect of the next, and `usual` what to expect of the first. While one call takes its time (a recurrent layer
    over a whole song), a thread goes on at the pace so far, as far as the next call at most. What is compiled
    (TorchScript, ONNX) makes no calls; then nothing is told.
    """
    # It is in no stand-in of torch that does not need it.
    add: Any = _attribute("nn.modules.module.register_module_forward_hook")
    if add is None:
        yield
        return
    watch = _Watch(tell, _learnt.get(kind, usual), size)
    hook = add(watch.called)
    thread = threading.Thread(target=watch.tick, name=f"progress of {kind}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        hook.remove()
        watch.over.set()
        thread.join()
    if (course := watch.course(time.monotonic(), size)) is not None:
        _learnt[kind] = course


class _Watch:
    def __init__(self, tell: Callable[[float], None], expected: Course | None, size: float) -> None:
        self.tell = tell
        self.expected = expected
        self.size = size
        self.started = time.monotonic()
        self.times: list[float] = []  # of each call
        self.told = 0.0
        self.over = threading.Event()
        self._lock = threading.Lock()

    def called(self, *_made: Any) -> None:
        with self._lock:
            self.times.append(time.monotonic())
            self._tell(0.0)

    def tick(self) -> None:
        while not self.over.wait(TICK_SECONDS):
            try:
                self.look()
            except OSError:  # nobody reads it any more, which the step itself will meet
                return

    def look(self) -> None:
        with self._lock:
            self._tell(time.monotonic() - self.times[-1] if self.times else 0.0)

    def _tell(self, waiting: float) -> None:
        done = self._share(waiting)
        if done - self.told >= 0.01:
            self.told = done
            self.tell(done)

    def _share(self, waiting: float) -> float:
        """waiting: seconds since the last call."""
        calls = len(self.times)
        if not calls:
            return 0.0
        seconds = max(self.times[-1] - self.started, 1e-9)
        if self.expected is None:
            paced = calls + waiting * calls / seconds
            return min(0.99, paced / (paced + FIRST))
        expected = self.expected.calls * self.size
        here, following = (self.expected.at(number / expected) for number in (calls, calls + 1))
        return min(0.99, following, here + waiting * here / seconds)

    def course(self, ended: float, size: float) -> Course | None:
        whole, count = ended - self.started, len(self.times)
        if not count or whole <= 0:
            return None
        points = [(0.0, 0.0)]
        last = points[0]
        for number, moment in enumerate(self.times, 1):
            point = (number / count, (moment - self.started) / whole)
            if point[1] - points[-1][1] >= APART or number == count:
                if last[0] > points[-1][0]:
                    points.append(last)
                points.append(point)
            last = point
        return Course(count / size, tuple(points))


def _attribute(path: str) -> Any:
    """Of torch; None where it has none."""
    import torch

    found: Any = torch
    for name in path.split("."):
        found = getattr(found, name, None)
    return found
