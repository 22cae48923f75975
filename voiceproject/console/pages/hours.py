"""Each of the last hours of a kind of job: how many ended how, how long they waited and how long they took.

The hours (UTC) are those of submission. An hour that is over is counted again after ten minutes only, so that a look
reads a few rows with a million jobs too.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from voiceproject.console.charts import OUTCOMES
from voiceproject.jobs.status import JobStatus

HOURS = 24
SAMPLE = 200  # of an hour's jobs whose times are read: the last
AGAIN_SECONDS = 600.0

_known: dict[tuple[str, datetime], tuple[float, Hour]] = {}


@dataclass(frozen=True)
class Hour:
    """Seconds; None where nothing is known. p95: what 95 of 100 jobs did not exceed."""

    start: datetime
    counts: dict[str, int] = field(default_factory=dict)
    wait_median: float | None = None
    wait_p95: float | None = None
    took_p95: float | None = None

    @property
    def ended(self) -> int:
        return sum(self.counts.values())


def share_below(values: Sequence[float], share: float) -> float | None:
    """The smallest of the values that `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)] if ordered else None


def count(model: Any, start: datetime) -> Hour:
    jobs = model._default_manager.filter(created_at__gte=start, created_at__lt=start + timedelta(hours=1))
    counts = {str(status): jobs.filter(status=status).order_by().count() for status in OUTCOMES}
    last = jobs.filter(status=JobStatus.SUCCEEDED).order_by("-created_at")
    times = list(last.values_list("created_at", "started_at", "finished_at")[:SAMPLE])
    waits = [(began - made).total_seconds() for made, began, _ended in times if began]
    took = [(ended - began).total_seconds() for _made, began, ended in times if began and ended]
    return Hour(start, counts, share_below(waits, 0.5), share_below(waits, 0.95), share_below(took, 0.95))


def last_hours(model: Any) -> list[Hour]:
    """The oldest first."""
    this = timezone.now().replace(minute=0, second=0, microsecond=0)
    found = []
    for back in range(HOURS - 1, -1, -1):
        start = this - timedelta(hours=back)
        key = (model._meta.label, start)
        known = _known.get(key)
        if back <= 1 or known is None or time.monotonic() - known[0] > AGAIN_SECONDS:
            known = _known[key] = time.monotonic(), count(model, start)
        found.append(known[1])
    for key in [key for key in _known if key[1] < this - timedelta(hours=HOURS)]:
        del _known[key]
    return found


def forget() -> None:
    _known.clear()
