"""Everything that is held of a tenant: given out as one archive, and erased.

An erasure is asked for in one transaction, which ends all keys at once; the workers carry it out, at every look what is
left to do. Each step is safe to repeat and to do on several hosts at once, so that an interrupted one goes on.
"""

from __future__ import annotations

import json
import logging
import time
import zipfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.apps import apps
from django.contrib.auth.models import User
from django.core import signing
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection, models, transaction
from django.db.models.functions import Now
from django.utils import timezone

from voiceproject.jobs.job import Job
from voiceproject.jobs.models import IdempotencyKey
from voiceproject.leases.models import EngineTurn
from voiceproject.media.storage import is_passing, read_blocks
from voiceproject.shares.models import Share
from voiceproject.tenants import audit
from voiceproject.tenants.models import Tenant, UsageEntry
from voiceproject.webhooks.models import WebhookDelivery, WebhookSecret
from voices.account.exported import ACCOUNT_FIELDS, PARTS, Part
from voices.keys.models import ApiKey
from voices.lexicons.models import Lexicon
from voices.library import saved
from voices.library.models import Consent, RecordedConsent, StandingConsent, Voice, VoiceAlias
from voices.speech.models import EngineModel

log = logging.getLogger(__name__)

CONFIRMATION_SECONDS = 600
SALT = "account.erase"
ROWS = 200  # read, or deleted, at a time
BLOCK_BYTES = 256 * 1024
LOOK_SECONDS = 2.0  # so long one look works on one erasure


# --- what is held ---


def _rows(model: type[models.Model], part: Part, tenant_id: int) -> Iterator[models.Model]:
    """All rows, a few at a time: no cursor and no connection is held while the client takes them."""
    last: Any = None
    while True:
        rows = model._base_manager.filter(**{part.owner: tenant_id}).order_by("pk")
        if part.keys:
            rows = rows.select_related(*part.keys)
        if last is not None:
            rows = rows.filter(pk__gt=last)
        found = list(rows[:ROWS])
        release_connection()
        yield from found
        if len(found) < ROWS:
            return
        last = found[-1].pk


def release_connection() -> None:
    # SQLite's are no scarce thing.
    if connection.vendor != "sqlite" and not connection.in_atomic_block:
        connection.close()


class _Pipe:
    """What a ZipFile writes to that cannot seek, taken out again as it comes."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: Any) -> int:
        self.data += data
        return len(data)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        taken, self.data = bytes(self.data), bytearray()
        return taken


def archive(user: User) -> Iterator[bytes]:
    """A ZIP of everything that is held of the tenant, made while it is taken: JSON of its rows, and its files.

    At its end stands `manifest.json`: how many rows of each kind, and which files had gone before they could be read.
    """
    pipe = _Pipe()
    counts: dict[str, int] = {}
    missing: list[str] = []
    now = timezone.now()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as file:  # type: ignore[call-overload]
        _write(file, "account.json", _json({name: getattr(user, name) for name in ACCOUNT_FIELDS}))
        for label, part in PARTS.items():
            model = apps.get_model(label)
            files = [name for name in part.fields if isinstance(model._meta.get_field(name), models.FileField)]
            with file.open(_entry(f"{part.name}.json", now), "w", force_zip64=True) as member:
                counts[part.name] = 0
                for row in _rows(model, part, user.pk):
                    member.write(b"[\n" if not counts[part.name] else b",\n")
                    member.write(_json(part.values(row, user.pk)))
                    counts[part.name] += 1
                    if len(pipe.data) > BLOCK_BYTES:
                        yield pipe.take()
                member.write(b"\n]\n" if counts[part.name] else b"[]\n")
            for row in _rows(model, part, user.pk) if files and part.files_too() else ():
                for stored in (getattr(row, name) for name in files):
                    if stored:
                        yield from _copy(file, pipe, stored, now, missing)
        _write(file, "manifest.json", _json({"made_at": now, "rows": counts, "missing_files": missing}))
    yield pipe.take()


def _entry(name: str, now: datetime, compression: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, now.timetuple()[:6])
    entry.compress_type = compression
    entry.external_attr = 0o600 << 16
    return entry


def _write(file: zipfile.ZipFile, name: str, content: bytes) -> None:
    file.writestr(_entry(name, timezone.now()), content)


def _copy(file: zipfile.ZipFile, pipe: _Pipe, stored: Any, now: datetime, missing: list[str]) -> Iterator[bytes]:
    """A stored file under its own name, which holds the job's id. Audio is not compressed again."""
    try:
        size = stored.size
    except FileNotFoundError:
        missing.append(stored.name)
        return
    with file.open(_entry(f"files/{stored.name}", now, zipfile.ZIP_STORED), "w", force_zip64=size > 2**31) as member:
        try:
            for block in read_blocks(stored.storage, stored.name, 0, size):
                member.write(block)
                yield pipe.take()
        except FileNotFoundError:
            missing.append(stored.name)  # It was deleted this moment.


def _json(value: Any) -> bytes:
    return json.dumps(value, cls=DjangoJSONEncoder, ensure_ascii=False, indent=1).encode()


# --- erasure ---


def confirmation(user: User) -> str:
    """A token that confirms, within CONFIRMATION_SECONDS, that this tenant shall be erased."""
    return signing.dumps(user.pk, salt=SALT)


def confirms(token: str, user: User) -> bool:
    try:
        return bool(signing.loads(token, salt=SALT, max_age=CONFIRMATION_SECONDS) == user.pk)
    except signing.BadSignature:
        return False


def request_erasure(user: User, request: Any = None) -> None:
    """Ends all keys now; the rest is the workers'."""
    Tenant.objects.get_or_create(user=user)
    with transaction.atomic():
        Tenant.objects.select_for_update().get(user=user)
        Tenant.objects.filter(user=user).update(erase_requested_at=Now())
        audit.record("account.erase", request=request, tenant_id=user.pk, target_type="user")
        ApiKey.objects.filter(user=user, revoked_at=None).update(revoked_at=Now())
        if not _is_operator(user):
            # Nor does a page let anybody in who could make another key.
            User.objects.filter(pk=user.pk).update(is_active=False)


def _is_operator(user: User) -> bool:
    return user.is_staff or user.is_superuser


def erase_requested() -> int:
    """Goes on with every erasure that was asked for; how many have come to their end."""
    count = 0
    for tenant in Tenant.objects.filter(erase_requested_at__isnull=False).select_related("user"):
        try:
            count += erase(tenant.user, time.monotonic() + LOOK_SECONDS)
        except Exception as error:
            if is_passing(error):
                raise
            # The next look tries again; other tenants, and what else a look does, do not wait for that.
            log.exception("an erasure is stuck", extra={"tenant": tenant.pk})
    return count


def erase(user: User, deadline: float) -> bool:
    """Deletes what is left of the tenant; whether it is all gone. Pauses at `deadline` (time.monotonic()).

    The ledger, the audit log and the records of consent stay, without the names that the tenant gave to things. Staff
    keep their account, which is emptied.
    """
    for kind in Job.__subclasses__():
        own = kind._default_manager.filter(tenant=user)
        own.exclude(callback_url="").update(callback_url="")  # Nobody is told any more.
        for job in own.iterator(chunk_size=ROWS):
            if time.monotonic() > deadline:
                return False
            job.remove()
    for model in EngineModel.objects.filter(owner=user):
        model.remove()
    for voice in Voice.objects.filter(tenant=user):
        saved.delete(voice)
    Lexicon.objects.filter(tenant=user).delete()
    VoiceAlias.objects.filter(tenant=user).delete()
    Consent.without_names(user)
    StandingConsent.objects.filter(tenant=user).delete()
    RecordedConsent.objects.filter(tenant=user).delete()
    WebhookDelivery.objects.filter(tenant=user).delete()
    WebhookSecret.objects.filter(user=user).delete()
    Share.objects.filter(tenant=user).delete()
    IdempotencyKey.objects.filter(tenant=user).delete()
    EngineTurn.objects.filter(tenant=str(user.pk)).delete()
    UsageEntry.objects.filter(tenant_id=user.pk).exclude(key_name="").update(key_name="")
    with transaction.atomic():
        # Who submitted with a key that was valid a moment ago holds this lock, or has been seen above.
        tenant = Tenant.objects.select_for_update().filter(user=user, erase_requested_at__isnull=False).first()
        if tenant is None:
            return False  # Another host was faster.
        kinds: list[type[models.Model]] = [*Job.__subclasses__(), Voice]
        own_models = EngineModel.objects.filter(owner=user).exists()
        if own_models or any(kind._default_manager.filter(tenant=user).exists() for kind in kinds):
            return False  # The next look goes on.
        ApiKey.objects.filter(user=user).delete()
        audit.record("account.erased", tenant_id=user.pk, target_type="user", details={"kept": _is_operator(user)})
        if _is_operator(user):
            Tenant.objects.filter(pk=tenant.pk).update(erase_requested_at=None)
        else:
            user.delete()
    log.info("a tenant was erased", extra={"tenant": user.pk})
    return True


def expires_at() -> datetime:
    return timezone.now() + timedelta(seconds=CONFIRMATION_SECONDS)
