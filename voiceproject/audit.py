"""The audit log: one call for each action of an operator and for each change of a key."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models

from voiceproject import addresses
from voiceproject.models import AuditEntry


def client_address(request: Any) -> str:
    """Where the request came from; empty where there is none (a command, a worker)."""
    return addresses.client_address(request.META, settings.TRUSTED_PROXIES) if request is not None else ""


def record(
    action: str,
    target: models.Model | None = None,
    *,
    request: Any = None,
    tenant_id: int | None = None,
    target_type: str = "",
    details: dict[str, Any] | None = None,
) -> AuditEntry:
    """Writes one entry; `request` is Django's or REST framework's, None for the system itself.

    Call it in the transaction of what it tells of, where there is one. `details` hold what was changed, as JSON, and
    no secret, no text of a synthesis and no file name. `tenant_id` is taken from the target's `user` or `tenant` where
    it is not given.
    """
    user = getattr(request, "user", None)
    actor = user if user is not None and user.pk is not None else None
    if tenant_id is None:
        tenant_id = getattr(target, "user_id", None) or getattr(target, "tenant_id", None)
    return AuditEntry.objects.create(
        actor_id=actor.pk if actor else None,
        actor_name=str(actor.get_username())[:150] if actor else "",
        key_prefix=str(getattr(getattr(request, "auth", None), "prefix", "")),
        tenant_id=tenant_id,
        action=action,
        target_type=target_type or str(target._meta.model_name if target is not None else ""),
        target_id=str(target.pk) if target is not None else "",
        target_name=str(target)[:200] if target is not None else "",
        address=client_address(request)[:64],
        request_id=str(getattr(getattr(request, "_request", request), "request_id", "")),
        details=details or {},
    )
