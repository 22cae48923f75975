"""The audit log: one call for each action of an operator and for each change of a key."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models
from django.utils import translation
from django.utils.translation import gettext_lazy as _

from voiceproject.tenants.models import AuditEntry
from voiceproject.web import client_ip

# Every action that is recorded, in words.
ACTIONS = {
    "signin": _("Signed in"),
    "signin.failed": _("Signed in with a wrong password"),
    "signin.throttled": _("Was refused after too many wrong passwords"),
    "signout": _("Signed out"),
    "password.change": _("Changed the password"),
    "key.create": _("Made a key"),
    "key.update": _("Changed a key"),
    "key.rotate": _("Replaced a key"),
    "key.revoke": _("Revoked a key"),
    "job.cancel": _("Canceled a job"),
    "job.retry": _("Retried a job"),
    "job.requeue": _("Took a job from its worker"),
    "job.prioritize": _("Changed a job's priority"),
    "job.listen": _("Listened to a job"),
    "share.make": _("Made a link to a result"),
    "share.revoke": _("Took a link to a result back"),
    "voice.listen": _("Listened to a voice"),
    "voice.takedown": _("Took a voice down"),
    "voice.delete": _("Deleted a voice"),
    "voice.alias": _("Gave a voice an alias"),
    "voice.alias_removed": _("Removed an alias of a voice"),
    "consent.standing": _("Gave a standing consent"),
    "consent.standing_withdrawn": _("Withdrew a standing consent"),
    "lexicon.create": _("Made a lexicon"),
    "lexicon.change": _("Changed a lexicon"),
    "lexicon.delete": _("Deleted a lexicon"),
    "content.refuse": _("Sent a text that is refused"),
    "model.create": _("Registered a model"),
    "model.change": _("Changed a model"),
    "model.delete": _("Deleted a model"),
    "model.enable": _("Offered a model"),
    "model.disable": _("Offered a model no longer"),
    "tenant.create": _("Set a tenant's limits"),
    "tenant.change": _("Changed a tenant's limits"),
    "tenant.block": _("Blocked a tenant"),
    "tenant.unblock": _("Unblocked a tenant"),
    "user.create": _("Made a user"),
    "user.change": _("Changed a user"),
    "host.drain": _("Drained a host"),
    "host.undrain": _("Let a host take jobs again"),
    "webhook.redeliver": _("Sent a webhook again"),
    "webhook_secret.rotate": _("Replaced the secret of webhooks"),
    "account.export": _("Exported an account"),
    "account.erase": _("Asked to erase an account"),
    "account.erased": _("Erased an account"),
}


def client_address(request: Any) -> str:
    """Where the request came from; empty where there is none (a command, a worker)."""
    return client_ip.client_address(request.META, settings.TRUSTED_PROXIES) if request is not None else ""


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
    with translation.override(settings.LANGUAGE_CODE):  # What is kept is the same, whoever of the staff did it.
        target_name = str(target)[:200] if target is not None else ""
    return AuditEntry.objects.create(
        actor_id=actor.pk if actor else None,
        actor_name=str(actor.get_username())[:150] if actor else "",
        key_prefix=str(getattr(getattr(request, "auth", None), "prefix", "")),
        tenant_id=tenant_id,
        action=action,
        target_type=target_type or str(target._meta.model_name if target is not None else ""),
        target_id=str(target.pk) if target is not None else "",
        target_name=target_name,
        address=client_address(request)[:64],
        request_id=str(getattr(getattr(request, "_request", request), "request_id", "")),
        details=details or {},
    )
