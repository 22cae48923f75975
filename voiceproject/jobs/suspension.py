"""A blocked tenant: a user who is not active.

Its keys are refused (403 `tenant_blocked`), and so are downloads. Its queued jobs do not start, its webhooks are not
sent; both wait, and go on when it is unblocked. What runs is canceled, streams too, and can be tried again then.
"""

from __future__ import annotations

import logging
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from voiceproject.jobs.job import Job
from voiceproject.jobs.status import JobStatus
from voiceproject.tenants import audit
from voiceproject.tenants.models import AuditEntry, Tenant

log = logging.getLogger(__name__)


def block(user: User, request: Any = None, reason: str = "") -> bool:
    """False where it is blocked already. reason: for the audit log, where `last_block` finds it."""
    Tenant.objects.get_or_create(user=user)
    with transaction.atomic():
        # Held while jobs are claimed too: none is started by one that looked before.
        Tenant.objects.select_for_update().get(user=user)
        if not User.objects.filter(pk=user.pk, is_active=True).update(is_active=False):
            return False
        details = {"reason": reason} if reason else {}
        audit.record("tenant.block", user, request=request, tenant_id=user.pk, details=details)
    cancel_running(user)
    return True


def last_block(user: User) -> AuditEntry | None:
    """When, why and by whom a tenant was blocked last; None where the log has nothing of it."""
    return AuditEntry.objects.filter(tenant_id=user.pk, action="tenant.block").order_by("-id").first()


def unblock(user: User, request: Any = None) -> bool:
    """False where it is not blocked, or is being erased."""
    Tenant.objects.get_or_create(user=user)
    with transaction.atomic():
        tenant = Tenant.objects.select_for_update().get(user=user)
        if tenant.erase_requested_at is not None:
            return False
        if not User.objects.filter(pk=user.pk, is_active=False).update(is_active=True):
            return False
        audit.record("tenant.unblock", user, request=request, tenant_id=user.pk)
    return True


def cancel_running(user: User | None = None) -> int:
    """Cancels what runs of a blocked tenant, or of all: however they were blocked. How many jobs."""
    of = {"tenant__is_active": False} | ({"tenant": user} if user is not None else {})
    count = 0
    for kind in Job.__subclasses__():
        for job in kind._default_manager.filter(status=JobStatus.RUNNING, **of):
            count += job.cancel()
    if count:
        log.info("canceled %d jobs of blocked tenants", count)
    return count
