"""`Idempotency-Key`: a request that is sent again, because its answer was lost, makes nothing a second time.

A key is remembered in the transaction that makes its job, with the tenant's row locked: two requests at once cannot
make two jobs, and a process that dies leaves either both rows or none. What has failed is not remembered.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import timedelta
from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.db import transaction
from django.db.models.functions import Now
from rest_framework.request import Request

from voiceproject.errors import PublicError
from voiceproject.jobs.job import Job
from voiceproject.jobs.models import IdempotencyKey
from voiceproject.tenants.models import Tenant

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
KEPT = timedelta(hours=24)


def refuse_key(request: Request) -> None:
    """For what makes no job. Ignoring the key would do twice what the client believes to be done once."""
    if HEADER in request.headers:
        message = "It is taken with Prefer: respond-async only; leave it out, or send both."
        raise PublicError("validation_error", f"{HEADER}: {message}", {HEADER: [message]})


def request_hash(operation: str, data: Any) -> str:
    """SHA-256 (hex) over all fields and the contents of all files; neither their order nor file names matter."""
    parts = []
    for name in sorted(data):
        values = data.getlist(name) if hasattr(data, "getlist") else [data[name]]
        parts.append([name, [_content(value) for value in values]])
    return hashlib.sha256(json.dumps([operation, parts], sort_keys=True).encode()).hexdigest()


def _content(value: Any) -> Any:
    if not isinstance(value, UploadedFile):
        return {"value": value}
    digest = hashlib.sha256()
    value.seek(0)
    for block in value.chunks():
        digest.update(block)
    value.seek(0)
    return {"sha256": digest.hexdigest()}


class Submission:
    """One request for a job, with or without a key. Raises PublicError for a key that is none.

    source: the id of what the job is made of, where the path names it.
    """

    def __init__(self, request: Request, tenant: Any, model: type[Job], source: str = "") -> None:
        self.tenant = tenant
        self.model = model
        self.key = request.headers.get(HEADER)
        if self.key is None:
            return
        if not re.fullmatch(r"[\x20-\x7e]{1,255}", self.key):
            message = "Must be 1 to 255 printable ASCII characters."
            raise PublicError("validation_error", f"{HEADER}: {message}", {HEADER: [message]})
        if not hasattr(request.data, "keys"):
            raise PublicError("validation_error", "Send form fields or a JSON object.")
        self.hash = request_hash(f"{model._meta.label_lower} {source}", request.data)

    def earlier(self) -> Job | None:
        """The job that the same request has made before.

        Raises PublicError: idempotency_key_reused where another request had this key, result_expired where the job has
        been deleted since.
        """
        if self.key is None:
            return None
        known = IdempotencyKey.objects.filter(tenant=self.tenant, key=self.key, created_at__gt=Now() - KEPT).first()
        if known is None:
            return None
        if known.request_hash != self.hash:
            raise PublicError("idempotency_key_reused", f"This {HEADER} was sent with another request; take a new one.")
        job: Job | None = self.model._default_manager.filter(tenant=self.tenant, pk=known.job_id).first()
        if job is None:
            raise PublicError("result_expired", f"The job that this {HEADER} has made was deleted; take a new key.")
        return job

    def admit(self, job: Job, max_queued: int) -> Job:
        """Queues the job and remembers the key, or gives the one that the same request has made meanwhile.

        Raises PublicError as `earlier` does, too_many_jobs and quota_exceeded.
        """
        if self.key is None:
            with self.model.admission(self.tenant, max_queued, job.api_key):
                job.accept()
            return job
        Tenant.objects.get_or_create(user=self.tenant)
        with transaction.atomic():
            Tenant.objects.select_for_update().get(user=self.tenant)
            earlier = self.earlier()
            if earlier is not None:
                return earlier
            with self.model.admission(self.tenant, max_queued, job.api_key):
                job.accept()
            # One that is past its time and not swept yet stands for nothing any more.
            IdempotencyKey.objects.filter(tenant=self.tenant, key=self.key).delete()
            IdempotencyKey.objects.create(tenant=self.tenant, key=self.key, request_hash=self.hash, job_id=job.pk)
        return job


def sweep() -> int:
    """Forgets keys past their time; how many."""
    count, _ = IdempotencyKey.objects.filter(created_at__lt=Now() - KEPT).delete()
    return count
