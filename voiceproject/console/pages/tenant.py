"""A tenant in one place: its state, its limits as they take effect, its jobs, usage and storage, and what it owns."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from voiceproject.console.background import Background
from voiceproject.console.panels import job_kinds, link, tenant_parts
from voiceproject.console.tags import duration
from voiceproject.jobs import suspension
from voiceproject.jobs.status import JobStatus
from voiceproject.tenants import usage
from voiceproject.tenants.models import Tenant


def about(tenant: Tenant, viewer: Any) -> dict[str, Any]:
    """For the page of a tenant; viewer: who looks at it sees the parts that it may view."""
    user = tenant.user
    entry = suspension.last_block(user) if not user.is_active else None
    return {
        "user": user,
        "blocked": not user.is_active,
        "block": entry,
        "reason": entry.details.get("reason", "") if entry else "",
        "erasing_since": tenant.erase_requested_at,
        "limits": limits(tenant),
        "jobs": [jobs(kind, user) for kind in job_kinds() if viewer.has_perm(kind.view_permission)],
        "parts": [
            {
                "label": part.label,
                "count": part.model._default_manager.filter(**{part.field: user}).count(),
                "url": link(part.model, q=user.username),
            }
            for part in tenant_parts()
            if viewer.has_perm(part.view_permission)
        ],
        "user_url": reverse("admin:auth_user_change", args=[user.pk]),
        "changelist": reverse("admin:voiceproject_tenant_changelist"),
        "staff": user.is_staff or user.is_superuser,
        "log_url": f"{reverse('admin:voiceproject_auditentry_changelist')}?q={user.username}",
    }


def jobs(kind: Any, user: Any) -> dict[str, Any]:
    """How many of a kind run, wait, and failed in a day, each with its list."""
    rows = kind.model._default_manager.filter(tenant=user).order_by()
    day_ago = timezone.now() - timedelta(hours=24)
    failed = rows.filter(status=JobStatus.FAILED, created_at__gt=day_ago)
    return {
        "label": kind.label,
        "url": link(kind.model, q=user.username),
        "running": rows.filter(status=JobStatus.RUNNING).count(),
        "queued": rows.filter(status=JobStatus.QUEUED).count(),
        "failed": failed.count(),
        "failed_url": link(kind.model, q=user.username, status__exact=JobStatus.FAILED, since="day"),
        "last": rows.order_by("-created_at", "-pk").values_list("created_at", flat=True).first(),
    }


PATIENCE_SECONDS = 0.15
KEPT = 200  # tenants whose sums this process keeps
_sums: dict[int, Background] = {}


def _used(tenant_id: int) -> tuple[float, int] | None:
    """Seconds of audio this month, and bytes. A tenant with a million jobs takes a second to sum: in the background."""

    def find() -> tuple[float, int]:
        return usage.counted_ms(tenant_id, timezone.now()) / 1000, usage.storage_bytes(tenant_id)

    while len(_sums) > KEPT:
        _sums.pop(next(iter(_sums)), None)
    found: tuple[float, int] | None = _sums.setdefault(tenant_id, Background(find, 30.0)).value(PATIENCE_SECONDS)
    return found


def limits(tenant: Tenant) -> list[dict[str, Any]]:
    """Each limit: what is used of it where that is counted, what holds, and whether that is the tenant's own."""
    megabyte = 1_000_000
    counting = _("being counted")

    def size(value: int | None) -> str:
        return "" if value is None else f"{value / megabyte:,.1f} MB"

    def plain(own: int | None, default: int, *, zero_is_none: bool) -> str:
        value = default if own is None else own
        return "" if zero_is_none and not value else str(value)

    used = _used(tenant.pk)
    made, stored = used or (None, None)
    audio, storage = usage.audio_limit(tenant), usage.storage_limit(tenant)
    return [
        {
            "label": _("Audio this month"), "used": counting if made is None else duration(made),
            "own": tenant.monthly_audio_seconds is not None,
            "limit": duration(audio) if audio is not None else "",
        },
        {
            "label": _("Storage"), "used": counting if stored is None else size(stored),
            "own": tenant.max_storage_bytes is not None, "limit": size(storage),
        },
        {
            "label": _("Requests a minute"), "own": tenant.requests_per_minute is not None,
            "limit": plain(tenant.requests_per_minute, settings.RATE_LIMIT_PER_MINUTE, zero_is_none=True),
        },
        {
            "label": _("Covers that may run"), "own": tenant.max_running is not None,
            "limit": plain(tenant.max_running, settings.COVER_MAX_RUNNING, zero_is_none=False),
        },
        {
            "label": _("Covers that may wait"), "own": tenant.max_queued is not None,
            "limit": plain(tenant.max_queued, settings.COVER_MAX_QUEUED, zero_is_none=False),
        },
    ]  # fmt: skip
