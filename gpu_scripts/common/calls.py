"""How far another project's step is that tells nothing itself: by the calls of its networks' modules."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

FIRST = 500  # calls, at which the first step of a kind is taken to be half done, and two thirds at twice as many
POINTS = 200  # of a step's course that are kept

# Of each kind of step, the last one of this process: calls for a unit of size, and the share of its seconds that had
# passed at each of POINTS equal numbers of calls. The last layers of a decoder take most of the time.
_learnt: dict[str, tuple[float, list[float]]] = {}


@contextmanager
def told_by_calls(kind: str, tell: Callable[[float], None], size: float = 1.0) -> Iterator[None]:
    """Within the block, `tell` hears how far it is: never falling, below 1, as soon as .01 more is done.

    Torch calls back after each module's forward. Steps of one kind make calls in proportion to their `size` (1 for
    networks that see a part at once, seconds or letters for those that go step by step), so the last step tells what
    to expect of the next. What is compiled (TorchScript, ONNX) makes none; then nothing is told.
    """
    # It is in no stand-in of torch that does not need it.
    add: Any = _attribute("nn.modules.module.register_module_forward_hook")
    if add is None:
        yield
        return
    expected, course = _learnt.get(kind, (0.0, []))
    expected *= size
    started, told = time.monotonic(), 0.0
    times: list[float] = []

    def called(*_made: Any) -> None:
        nonlocal told
        times.append(time.monotonic())
        done = _share(len(times), expected, course)
        if done - told >= 0.01:
            told = done
            tell(done)

    hook = add(called)
    try:
        yield
    finally:
        hook.remove()
    whole = time.monotonic() - started
    if times and whole > 0:
        places = [min(len(times) - 1, len(times) * point // POINTS) for point in range(POINTS)]
        _learnt[kind] = len(times) / size, [(times[place] - started) / whole for place in places]


def _share(calls: int, expected: float, course: list[float]) -> float:
    if not course:
        return calls / (calls + FIRST)
    if calls < expected:
        return min(0.99, course[int(calls / expected * POINTS)])
    return 0.99


def _attribute(path: str) -> Any:
    """Of torch; None where it has none."""
    import torch

    found: Any = torch
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def forget() -> None:
    _learnt.clear()
