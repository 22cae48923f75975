"""Webhooks as Standard Webhooks has them: what a tenant's receiver is told when its job has ended.

The event is written in the transaction that ends the job, so that none is lost and none is told of an end that was not.
Sending it is the workers' work, in threads of their own: a slow receiver holds up neither jobs nor other tenants'
events. A delivery is claimed by one guarded UPDATE, and a claim whose worker has died runs out.

The events of one job are sent in their order: the later one waits while an attempt at an earlier one is under way, and
once it is written no further attempt is made at the earlier one, which is `superseded`. Who has such a one sent again
gets it with `"superseded": true`.
"""

from __future__ import annotations

import base64
import copy
import json
import logging
import random
import secrets
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import dramatiq
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Count, F, Q
from django.db.models.functions import Now
from django.utils import timezone
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer
from standardwebhooks import Webhook

from voiceproject import __version__
from voiceproject.jobs.broker import UNREACHABLE, broker, this_worker
from voiceproject.jobs.job import Job
from voiceproject.jobs.status import JobStatus
from voiceproject.registry import registry
from voiceproject.webhooks import safe_http
from voiceproject.webhooks.models import WebhookDelivery, WebhookSecret

log = logging.getLogger(__name__)

# Seconds from one attempt to the next, less up to a fifth: eleven attempts in a day.
RETRY_SECONDS = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 21600, 36000)
OVERLAP = timedelta(hours=24)
# Deliveries under way at a time: in one worker process, and of one tenant over all.
SLOTS = 8
TENANT_SLOTS = 2
# Longer than an attempt can take.
CLAIM = timedelta(seconds=4 * safe_http.TIMEOUT_SECONDS)

_slots = threading.BoundedSemaphore(SLOTS)


class PublicBase:
    """Stands in for a request where absolute links are made outside of one."""

    def __init__(self, base: str) -> None:
        self.base = base.rstrip("/")

    def build_absolute_uri(self, path: str) -> str:
        return f"{self.base}{path}"


class CallbackURLField(serializers.CharField):
    """`callback_url` of a request: its form and the addresses of its host are checked, as at each delivery again."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("help_text", "Told when the job has ended, by Standard Webhooks; https only.")
        kwargs = {"required": False, "allow_blank": True, "default": "", "max_length": safe_http.MAX_URL_CHARACTERS,
                  **kwargs}  # fmt: skip
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> str:
        url = super().to_internal_value(data)
        try:
            safe_http.resolve(safe_http.parse(url))
        except (safe_http.Refused, safe_http.Unreachable) as error:
            raise serializers.ValidationError(str(error)) from None
        return url


def callback_base(request: Any) -> str:
    """Where links of an event begin: PUBLIC_URL, else the address under which the job was submitted."""
    return settings.PUBLIC_URL or request.build_absolute_uri("/").rstrip("/")


# --- secrets ---


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def secret_of(user: Any) -> WebhookSecret:
    """The tenant's secret, made when it is first needed."""
    return WebhookSecret.objects.get_or_create(user=user, defaults={"secret": _new_secret()})[0]


def rotate_secret(user: Any) -> WebhookSecret:
    """A new secret; the one before it signs too for 24 hours."""
    secret_of(user)
    with transaction.atomic():
        secret = WebhookSecret.objects.select_for_update().get(user=user)
        secret.previous, secret.secret = secret.secret, _new_secret()
        secret.created_at = timezone.now()
        secret.previous_until = secret.created_at + OVERLAP
        secret.save()
    return secret


def signed_headers(delivery: WebhookDelivery) -> dict[str, str]:
    now = datetime.now(UTC)
    secret = secret_of(delivery.tenant)
    keys = [secret.secret]
    if secret.previous and secret.previous_until and secret.previous_until > timezone.now():
        keys.append(secret.previous)
    return {
        "Content-Type": "application/json",
        "User-Agent": f"voiceproject/{__version__}",
        "webhook-id": delivery.webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Webhook(key).sign(delivery.webhook_id, now, delivery.payload) for key in keys),
    }


# --- events ---


def on_job_ended(sender: Any, job: Job, **kwargs: Any) -> None:
    """Receiver of jobs.signals.ended: writes the event of a job that has ended, in the transaction that ends it."""
    if not job.callback_url:
        return
    job.refresh_from_db()
    shown = copy.copy(job)
    if job.status == JobStatus.CANCELED:
        for field in job.output_fields():  # They are deleted as soon as the transaction is through.
            setattr(shown, field, "")
    type_ = f"{job.webhook_kind}.{job.status}"
    data = registry.kind_of(job).serialize(shown, PublicBase(job.callback_base))
    event = {
        "type": type_,
        "timestamp": timezone.now().isoformat().replace("+00:00", "Z"),
        "sequence": job.revision,
        "data": data,
    }
    payload = JSONRenderer().render(event).decode()
    delivery = WebhookDelivery.objects.create(
        tenant_id=job.tenant_id,
        job_id=job.pk,
        type=type_,
        url=job.callback_url,
        sequence=job.revision,
        payload=payload,
    )
    wake(delivery)


def wake(delivery: WebhookDelivery) -> None:
    """After the current transaction: tells a worker of it, where there is a broker to tell it through."""
    if settings.REDIS_URL:
        transaction.on_commit(lambda: _send(str(delivery.pk)), robust=True)


def _send(pk: str) -> None:
    try:
        send_webhook.send(pk)
    except UNREACHABLE as error:
        # The row is written; the workers' own look finds it within seconds.
        log.warning("the broker cannot be reached: %s", error)


# --- deliveries ---


@dramatiq.actor(broker=broker, queue_name="housekeeping")
def send_webhook(pk: str) -> None:
    """Safe to run twice, late, or on many hosts at once: the claim decides. A worker thread never waits here."""
    start(pk)


def start(pk: Any) -> bool:
    """Delivers in a thread of its own. False where all slots are taken or this worker sends none: a later look, here or
    on another host, finds it."""
    if not _may_send() or not _slots.acquire(blocking=False):
        return False
    try:
        threading.Thread(target=_deliver_and_leave, args=(pk,), name="webhook", daemon=True).start()
    except BaseException:
        _slots.release()
        raise
    return True


def _may_send() -> bool:
    return settings.WORKER_SENDS_WEBHOOKS and not this_worker.stopping.is_set()


def _deliver_and_leave(pk: Any) -> None:
    """This one, then whatever else is due: many events do not wait for as many looks."""
    try:
        while pk is not None and _may_send() and deliver(pk):
            pk = next(iter(due(1)), None)
    except Exception:
        # The claim runs out, and it is tried again.
        log.exception("a webhook could not be handled", extra={"delivery": pk})
    finally:
        connection.close()
        _slots.release()


def due(limit: int = SLOTS) -> list[Any]:
    """Ids of at most `limit` deliveries to start now, of each tenant those that have waited longest.

    Who has the fewest under way goes first, and who fills its share not at all: neither a long backlog nor a receiver
    that hangs keeps other tenants' events waiting.
    """
    counts = WebhookDelivery.objects.under_way().order_by().values("tenant").annotate(n=Count("pk"))
    under_way = dict(counts.values_list("tenant", "n"))
    busy = [tenant for tenant, n in under_way.items() if n >= TENANT_SLOTS]
    # Those of a blocked tenant wait until it is unblocked.
    waiting = WebhookDelivery.objects.claimable().filter(tenant__is_active=True).exclude(tenant__in=busy).order_by()
    # In the order of a job's events: those behind one that is under way are not tried yet.
    waiting = waiting.exclude(job_id__in=WebhookDelivery.objects.under_way().values("job_id"))
    tenants = list(waiting.values_list("tenant", flat=True).distinct())
    tenants.sort(key=lambda tenant: (under_way.get(tenant, 0), random.random()))
    chosen: list[Any] = []
    for tenant in tenants:
        if len(chosen) >= limit:
            break
        own = waiting.filter(tenant=tenant).order_by("next_attempt_at").values_list("pk", flat=True)
        chosen.extend(own[: min(TENANT_SLOTS - under_way.get(tenant, 0), limit - len(chosen))])
    return chosen


def start_due() -> None:
    if not _may_send():
        return
    for pk in due():
        if not start(pk):
            return


def claim(pk: Any) -> WebhookDelivery | None:
    """The delivery, its next attempt ours alone; None where it is another's, not due, over its tenant's share or ended.

    The row of the tenant's secret is locked while what is under way is counted.
    """
    delivery = WebhookDelivery.objects.select_related("tenant").filter(pk=pk).first()
    if delivery is None or not delivery.tenant.is_active:
        return None
    secret_of(delivery.tenant)
    with transaction.atomic():
        WebhookSecret.objects.select_for_update().get(user=delivery.tenant_id)
        under_way = WebhookDelivery.objects.under_way().filter(tenant=delivery.tenant_id)
        # In their order: a later event waits for the attempt at an earlier one.
        if under_way.count() >= TENANT_SLOTS or under_way.before(delivery).exists():
            return None
        if _supersede(delivery):
            return None
        claimable = WebhookDelivery.objects.claimable().filter(pk=pk)
        if not claimable.update(attempts=F("attempts") + 1, claimed_until=Now() + CLAIM, updated_at=Now()):
            return None
    delivery.refresh_from_db()
    return delivery


def _supersede(delivery: WebhookDelivery) -> bool:
    """Ends a delivery that a later event of its job has overtaken; whether it is such a one.

    Not one that was asked for again and says itself that it is superseded.
    """
    if not WebhookDelivery.objects.after(delivery).exists() or _says_superseded(delivery):
        return False
    WebhookDelivery.objects.claimable().filter(pk=delivery.pk).update(
        status=WebhookDelivery.Status.SUPERSEDED, next_attempt_at=None, claimed_until=None, updated_at=Now()
    )
    return True


def _says_superseded(delivery: WebhookDelivery) -> bool:
    return json.loads(delivery.payload).get("superseded") is True


def deliver(pk: Any) -> bool:
    """One attempt; whether it was made. What came of it stands in the row."""
    delivery = claim(pk)
    if delivery is None:
        return False
    status: int | None = None
    try:
        status = safe_http.post(delivery.url, delivery.payload.encode(), signed_headers(delivery))
        error = "" if 200 <= status < 300 else f"The receiver answered {status}."
        if 300 <= status < 400:
            error += " Redirects are not followed."
    except (safe_http.Refused, safe_http.Unreachable) as problem:
        error = str(problem)
    _settle(delivery, status, error)
    return True


def _settle(delivery: WebhookDelivery, status: int | None, error: str) -> None:
    changes: dict[str, Any] = {"last_status": status, "last_error": error}
    tried = delivery.attempts - delivery.first_attempt
    if not error:
        changes |= {"status": WebhookDelivery.Status.DELIVERED, "next_attempt_at": None, "delivered_at": Now()}
    elif status == 410 or tried > len(RETRY_SECONDS):
        changes |= {"status": WebhookDelivery.Status.FAILED, "next_attempt_at": None}
    else:
        seconds = RETRY_SECONDS[tried - 1] * random.uniform(0.8, 1.0)
        changes |= {"next_attempt_at": Now() + timedelta(seconds=seconds)}
    # Not where the claim ran out and another has made the next attempt.
    WebhookDelivery.objects.filter(pk=delivery.pk, attempts=delivery.attempts).update(
        **changes, claimed_until=None, updated_at=Now()
    )
    log.info(
        "webhook attempt",
        extra={"delivery": delivery.pk, "attempt": delivery.attempts, "status": status, "problem": error or None},
    )


def redeliver(delivery: WebhookDelivery) -> bool:
    """Sends it again, now, with a day of retries from here. False while an attempt is under way.

    Where a later event of the job has overtaken it, it says so: `superseded` is true in it.
    """
    changes: dict[str, Any] = {}
    if WebhookDelivery.objects.after(delivery).exists():
        event = json.loads(delivery.payload)
        changes["payload"] = JSONRenderer().render(event | {"superseded": True}).decode()
    free = WebhookDelivery.objects.filter(Q(claimed_until=None) | Q(claimed_until__lte=Now()), pk=delivery.pk)
    changed = free.update(
        status=WebhookDelivery.Status.PENDING, next_attempt_at=Now(), claimed_until=None,
        first_attempt=F("attempts"), updated_at=Now(), **changes,
    )  # fmt: skip
    delivery.refresh_from_db()
    if changed:
        wake(delivery)
    return bool(changed)


def expire() -> int:
    """Deletes deliveries that have ended and are older than WEBHOOK_LOG_HOURS; how many."""
    limit = Now() - timedelta(hours=settings.WEBHOOK_LOG_HOURS)
    old = WebhookDelivery.objects.filter(updated_at__lt=limit).exclude(status=WebhookDelivery.Status.PENDING)
    return WebhookDelivery.objects.filter(pk__in=list(old.values_list("pk", flat=True)[:500])).delete()[0]


def on_job_removed(sender: Any, job: Job, **kwargs: Any) -> None:
    """Receiver of jobs.signals.removed: deletes what was told of the job.

    What is still to be told is told first, and is then kept for its time.
    """
    WebhookDelivery.objects.filter(job_id=job.pk).exclude(status=WebhookDelivery.Status.PENDING).delete()
