"""Where Django looks for the models of this app; each room has its own."""

from voiceproject.jobs.models import IdempotencyKey, WorkerHost
from voiceproject.leases.models import EngineLease, EngineTurn, EngineWaiter
from voiceproject.operations.models import Alert
from voiceproject.provenance.models import Landmark, Mark, SigningCertificate
from voiceproject.shares.models import Share
from voiceproject.tenants.models import AuditEntry, RateLog, SigninFailures, Tenant, UsageEntry
from voiceproject.webhooks.models import WebhookDelivery, WebhookSecret

__all__ = [
    "Alert",
    "AuditEntry",
    "EngineLease",
    "EngineTurn",
    "EngineWaiter",
    "IdempotencyKey",
    "Landmark",
    "Mark",
    "RateLog",
    "Share",
    "SigninFailures",
    "SigningCertificate",
    "Tenant",
    "UsageEntry",
    "WebhookDelivery",
    "WebhookSecret",
    "WorkerHost",
]
