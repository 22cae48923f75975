"""Failed jobs, grouped by their error and its cause: on which hosts, since when, how often, and all tried again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Max, Min, Q
from django.utils import timezone
from django.utils.translation import gettext

from voiceproject.console.filters import HOURS, PERIODS
from voiceproject.console.panels import JobPanel, job_kinds, link
from voiceproject.jobs.status import ERROR_MESSAGES

MOST_READ = 10_000  # failures of one kind of job: a range of an index, read in a few hundredths of a second
SHOWN = 50  # groups of one kind of job
SHOWN_HOSTS = 5
GLANCED = 1000  # failures of one kind of job that the dashboard reads
GLANCED_GROUPS = 3


@dataclass
class Failures:
    """Those with one error and one cause. hosts: the name, the number and the list of each, the most first."""

    kind: Any
    error: str
    words: str
    cause: str
    url: str
    retry_url: str
    count: int = 0
    last_hour: int = 0
    first: datetime | None = None
    last: datetime | None = None
    hosts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def an_hour(self) -> float:
        """Over the time from the first to the last, which is taken for an hour at least."""
        seconds = (self.last - self.first).total_seconds() if self.first and self.last else 0.0
        return self.count / max(1.0, seconds / 3600)

    def add(self, row: Any, host_url: str) -> None:
        self.count += row["n"]
        self.last_hour += row["lately"]
        self.first = min(self.first or row["first"], row["first"])
        self.last = max(self.last or row["last"], row["last"])
        if row["host"]:
            self.hosts.append({"name": row["host"], "count": row["n"], "url": host_url})
            self.hosts.sort(key=lambda host: -host["count"])


@dataclass(frozen=True)
class Found:
    """groups: those with the most failures first. cut: since when they are, where there were more than are read;
    left_out: groups that are not shown."""

    groups: list[Failures]
    cut: datetime | None
    left_out: int

    @property
    def count(self) -> int:
        return sum(group.count for group in self.groups)


def period_of(asked: str) -> str:
    return asked if asked in HOURS else "day"


def find(kind: JobPanel, period: str, most: int = MOST_READ) -> Found:
    """The failures of a kind of job in the last hour, day, week or month. most: only so many, the newest, are read."""
    model, now = kind.model, timezone.now()
    failed = model._default_manager.exclude(error="").order_by()
    failed = failed.filter(finished_at__gt=now - timedelta(hours=HOURS[period]))
    beyond = failed.order_by("-finished_at").values_list("finished_at", flat=True)[most : most + 1]
    cut = next(iter(beyond), None)
    if cut is not None:
        failed = failed.filter(finished_at__gt=cut)
    rows = failed.values("error", "cause", "host").annotate(
        n=Count("finished_at"),
        lately=Count("finished_at", filter=Q(finished_at__gt=now - timedelta(hours=1))),
        first=Min("finished_at"),
        last=Max("finished_at"),
    )
    groups: dict[tuple[str, str], Failures] = {}
    for row in rows:
        asked = {"error": row["error"], "cause": row["cause"], "failed_since": period}
        key = (row["error"], row["cause"])
        if key not in groups:
            words = gettext(ERROR_MESSAGES.get(row["error"], ""))
            url = link(model, **asked)
            groups[key] = Failures(kind.label, row["error"], words, row["cause"], url, url)
        groups[key].add(row, link(model, **asked, failed_on=row["host"]))
    ordered = sorted(groups.values(), key=lambda group: (-group.count, group.error, group.cause))
    for group in ordered:
        del group.hosts[SHOWN_HOSTS:]
    return Found(ordered[:SHOWN], cut, max(0, len(ordered) - SHOWN))


def lately() -> dict[str, Any] | None:
    """What failed most in the last hour, of all kinds of jobs, for the dashboard; None where nothing did.

    groups: those with the most failures. others: how many groups there are besides. hosts: the failures of each host.
    """
    found = [find(kind, "hour", GLANCED) for kind in job_kinds()]
    groups = sorted((group for one in found for group in one.groups), key=lambda group: -group.count)
    if not groups:
        return None
    hosts: Counter[str] = Counter()
    for group in groups:
        hosts.update({host["name"]: host["count"] for host in group.hosts})
    others = len(groups) - GLANCED_GROUPS + sum(one.left_out for one in found)
    return {"groups": groups[:GLANCED_GROUPS], "others": max(0, others), "hosts": hosts}


def shown(user: Any, kinds: list[JobPanel], period: str) -> dict[str, Any]:
    """What the page shows to this user."""
    kinds = [kind for kind in kinds if user.has_perm(kind.view_permission)]
    return {
        "period": period,
        "periods": PERIODS,
        "kinds": [
            {
                "label": kind.label,
                "found": find(kind, period),
                "may_retry": user.has_perm(kind.view_permission.replace(".view_", ".change_")),
            }
            for kind in kinds
        ],
        "now": timezone.now(),
    }
