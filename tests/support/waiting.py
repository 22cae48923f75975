"""Waiting for what comes about by and by."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any


def until(condition: Callable[[], Any], seconds: float = 20.0, what: str = "it") -> Any:
    """What the condition gives, once that is something."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come about within {seconds:g} s"
        time.sleep(0.02)
    return found


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> float:
    """Waits for a condition; how many seconds that took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"never happened: {what}"
        time.sleep(0.01)
    return time.monotonic() - started


def promised(seconds: float) -> float:
    """What was promised to take so long at most, on a machine that is not busy with other things; else three times."""
    return 3 * seconds if os.getloadavg()[0] > (os.cpu_count() or 1) else seconds
