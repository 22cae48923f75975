"""The usage ledger, and the quotas that are checked against it.

One row for each accepted piece of work. It is written in the transaction that writes the job, and closed in the one
that ends the job, so that none is without the other:

| the job                          | the row                                                            |
|----------------------------------|--------------------------------------------------------------------|
| accepted, or queued by a retry   | reserved: the audio that it is expected to make                    |
| handed back, put back, taken over| stays reserved                                                     |
| succeeded                        | settled: the audio that was made                                   |
| canceled after it had started    | settled: what was made until then                                  |
| failed, or canceled before       | refunded: nothing counts                                           |

Work counts in the calendar month (UTC) in which it was accepted. Where a tenant or a key has a quota, those who reserve
at the same time wait for each other at the tenant's row, so that reservations never sum over it. Where there is none,
a reservation is one INSERT.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import Count, Max, QuerySet, Sum
from django.db.models.fields.files import FieldFile
from django.db.models.functions import Now
from django.utils import timezone

from voiceproject.errors import PublicError
from voiceproject.prepared import Insert, Slot, Update
from voiceproject.registry import registry
from voiceproject.tenants.models import Tenant, UsageEntry

log = logging.getLogger(__name__)

HEADER = "X-Quota-Remaining"
LOST_AFTER = timedelta(minutes=10)  # longer than a transaction that accepts a job may take
MAX_DAYS = 366
STORAGE_RETRY_SECONDS = 3600


class Metered(Protocol):
    """A piece of work, as the ledger has to know it: a job."""

    pk: Any
    tenant: Any
    tenant_id: int
    api_key: Any
    attempt: int
    engine_seconds: float | None
    input_bytes: int
    created_at: datetime
    reserved_ms: int
    quota_left_ms: int | None

    @property
    def operation(self) -> str: ...
    @property
    def characters(self) -> int: ...
    def expected_seconds(self) -> float: ...
    def made_seconds(self) -> float: ...


def milliseconds(seconds: float | None) -> int:
    return max(0, round(1000 * (seconds or 0.0)))


def header(left_ms: int) -> str:
    """Whole seconds, never more than are left."""
    return str(max(0, left_ms) // 1000)


def month_start(now: datetime) -> datetime:
    return now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def month_end(now: datetime) -> datetime:
    return month_start(month_start(now) + timedelta(days=31))


# --- quotas ---


def audio_limit(tenant: Tenant | None) -> int | None:
    """Seconds of audio a month that all keys of a tenant may make together; None: no limit."""
    own = tenant.monthly_audio_seconds if tenant else None
    return own if own is not None else settings.MONTHLY_AUDIO_SECONDS or None


def storage_limit(tenant: Tenant | None) -> int | None:
    """Bytes that a tenant's files may take together; None: no limit."""
    own = tenant.max_storage_bytes if tenant else None
    return own if own is not None else settings.MAX_STORAGE_BYTES or None


def counted_ms(tenant_id: int, now: datetime, lineage: Any = None) -> int:
    """Audio that counts in the month of `now`: what was made, and what is reserved. lineage: by keys of this line."""
    days = (month_start(now).date(), month_end(now).date() - timedelta(days=1))
    month = UsageEntry.objects.filter(tenant_id=tenant_id, day__range=days).order_by()
    if lineage is not None:
        month = month.filter(lineage=lineage)
    return int(month.aggregate(n=Sum("audio_ms"))["n"] or 0)


def storage_bytes(tenant_id: int) -> int:
    """What the tenant's files take, by the sizes in their rows: of every model that was registered as holding some."""
    return sum(held_bytes(tenant_id) for held_bytes in registry.held_bytes)


def _limits(job: Metered, tenant: Tenant | None) -> tuple[int | None, int | None, int | None]:
    """Audio seconds of the tenant and of the key, bytes of the tenant."""
    key = job.api_key
    return audio_limit(tenant), key.monthly_audio_seconds if key else None, storage_limit(tenant)


def lock(job: Metered) -> Tenant | None:
    """The tenant's row, locked until the transaction ends where it or the job's key has a quota."""
    tenant: Tenant | None = getattr(job.tenant, "tenant", None)
    if all(limit is None for limit in _limits(job, tenant)):
        return tenant
    Tenant.objects.get_or_create(user_id=job.tenant_id)
    return Tenant.objects.select_for_update().get(user_id=job.tenant_id)


def size_of(source: Path | FieldFile) -> int:
    """Bytes of a file, here or in the storage."""
    return source.stat().st_size if isinstance(source, Path) else int(source.size)


def check_storage(user: User, more: int) -> None:
    """Raises PublicError quota_exceeded where `more` bytes do not fit. In the transaction that writes their row."""
    if storage_limit(Tenant.objects.filter(user=user).first()) is None:
        return
    Tenant.objects.get_or_create(user=user)
    limit = storage_limit(Tenant.objects.select_for_update().get(user=user))
    if limit is not None:
        _check_storage(limit, storage_bytes(user.pk), more)


_open = Insert(UsageEntry)


def reserve(job: Metered) -> None:
    """Opens the job's row, in the transaction that queues or starts the job. Raises PublicError quota_exceeded."""
    reserved = milliseconds(job.expected_seconds())
    tenant = lock(job)
    of_tenant, of_key, of_storage = _limits(job, tenant)
    now = timezone.now()
    left: list[int] = []
    if of_tenant is not None:
        left.append(_left("tenant", of_tenant, counted_ms(job.tenant_id, now), reserved, now))
    key = job.api_key
    if key is not None and of_key is not None:
        left.append(_left("key", of_key, counted_ms(job.tenant_id, now, key.lineage), reserved, now))
    if of_storage is not None:
        _check_storage(of_storage, storage_bytes(job.tenant_id), job.input_bytes)
    _open(
        UsageEntry(
            tenant_id=job.tenant_id,
            key_id=key.public_id if key else None,
            lineage=key.lineage if key else None,
            key_prefix=key.prefix if key else "",
            key_name=key.name if key else "",
            operation=job.operation,
            job_id=job.pk,
            reserved_ms=reserved,
            audio_ms=reserved,
            characters=job.characters,
            day=now.astimezone(UTC).date(),
            accepted_at=now,
        )
    )
    job.reserved_ms = reserved
    job.quota_left_ms = min(left) if left else None


def _left(whose: str, limit: int, used_ms: int, wanted_ms: int, now: datetime) -> int:
    left_ms = 1000 * limit - used_ms
    if wanted_ms > left_ms:
        owner = "This key, with those that share its limits," if whose == "key" else "This account"
        raise PublicError(
            "quota_exceeded",
            f"{owner} may make {limit} seconds of audio a month; this takes about {wanted_ms / 1000:.1f}, "
            f"and {max(0, left_ms) / 1000:.1f} are left.",
            {"quota": "audio_seconds", "limit_of": whose, "limit": limit, "used": used_ms / 1000,
             "left": max(0, left_ms) / 1000, "wanted": wanted_ms / 1000},
            retry_after=(month_end(now) - now).total_seconds(),
        )  # fmt: skip
    return left_ms - wanted_ms


def _check_storage(limit: int, used: int, more: int) -> None:
    if used >= limit or used + more > limit:
        raise PublicError(
            "quota_exceeded",
            f"The files of this account take {used} bytes of storage, and {limit} are allowed; delete jobs or voices.",
            {"quota": "storage_bytes", "limit_of": "tenant", "limit": limit, "used": used, "left": max(0, limit - used),
             "wanted": more},
            retry_after=STORAGE_RETRY_SECONDS,
        )  # fmt: skip


# --- the end of a job ---

_closing = Update(
    UsageEntry.objects.filter(job_id=Slot("job_id", UsageEntry), ended_at__isnull=True),
    ended_at=Now(),
    **{name: Slot(name, UsageEntry) for name in ("state", "audio_ms", "engine_ms", "attempt")},
)


def _close(job: Metered, state: str, audio_ms: int) -> None:
    engine_ms = milliseconds(job.engine_seconds)
    closed = _closing(job_id=job.pk, state=state, audio_ms=audio_ms, engine_ms=engine_ms, attempt=job.attempt)
    if closed and job.quota_left_ms is not None:
        job.quota_left_ms += job.reserved_ms - audio_ms


def settle(job: Metered, counts: bool) -> None:
    """Closes the row of a job that has ended, in the transaction that ends it. counts: what was made is charged."""
    if counts:
        _close(job, UsageEntry.State.SETTLED, milliseconds(job.made_seconds()))
    else:
        give_back(job)


def give_back(job: Metered) -> None:
    _close(job, UsageEntry.State.REFUNDED, 0)


def correct(job: Metered, made_seconds: float, engine_seconds: float) -> None:
    """What an attempt has really made that was canceled from outside, which could only guess it."""
    since = job.created_at.astimezone(UTC).date()
    own = UsageEntry.objects.filter(tenant_id=job.tenant_id, day__gte=since, job_id=job.pk)
    own.filter(state=UsageEntry.State.SETTLED, attempt=job.attempt).update(
        audio_ms=milliseconds(made_seconds), engine_ms=milliseconds(engine_seconds)
    )


def sweep(live: Iterable[QuerySet]) -> int:
    """Gives back what is reserved for jobs that are not alive: those that went with their user; how many.

    live: of each kind of job, the primary keys of those that wait or run.
    """
    lost = UsageEntry.objects.filter(ended_at__isnull=True, accepted_at__lt=timezone.now() - LOST_AFTER)
    for keys in live:
        lost = lost.exclude(job_id__in=keys)
    count = lost.update(state=UsageEntry.State.REFUNDED, audio_ms=0, ended_at=Now())
    if count:
        log.warning("gave back %d reservations of jobs that are gone", count)
    return count


# --- what was used ---

GROUPS = ("day", "key", "operation")
SUMS = ("requests", "audio_seconds", "characters", "engine_seconds")


def settled(tenant_id: int, first: date, last: date) -> QuerySet[UsageEntry]:
    """The tenant's rows of these days (UTC, both included) that count."""
    rows = UsageEntry.objects.filter(tenant_id=tenant_id, day__range=(first, last))
    return rows.filter(state=UsageEntry.State.SETTLED).order_by()


def _sums(queryset: QuerySet) -> Iterator[dict[str, Any]]:
    for row in queryset.annotate(
        requests=Count("pk"), audio=Sum("audio_ms"), letters=Sum("characters"), engine=Sum("engine_ms")
    ):
        yield row | {
            "audio_seconds": row["audio"] / 1000,
            "characters": row["letters"],
            "engine_seconds": row["engine"] / 1000,
        }


def summary(tenant_id: int, first: date, last: date, group_by: str) -> dict[str, Any]:
    """`items` and `total`, each with SUMS; group_by: one of GROUPS. One statement reads it all, so that they agree."""
    rows = settled(tenant_id, first, last)
    groups: QuerySet[Any, Any]
    if group_by == "day":
        groups = rows.values("day").order_by("day")
    elif group_by == "key":
        groups = rows.values("key_id").annotate(newest=Max("pk")).order_by("key_id")
    else:
        groups = rows.values("operation").order_by("operation")
    found = list(_sums(groups))
    if group_by == "key":
        names = UsageEntry.objects.in_bulk([row["newest"] for row in found])
        for row in found:
            newest = names[row["newest"]]
            row["key"] = {"id": row["key_id"], "name": newest.key_name, "prefix": newest.key_prefix}
    items = [{group_by: row[group_by], **{name: row[name] for name in SUMS}} for row in found]
    total = {
        "requests": sum(row["requests"] for row in found),
        "audio_seconds": sum(row["audio"] for row in found) / 1000,
        "characters": sum(row["letters"] for row in found),
        "engine_seconds": sum(row["engine"] for row in found) / 1000,
    }
    return {"items": items, "total": total}
