"""Responses for jobs of every kind: accepted, waited for, streamed as events."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import dramatiq
from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from voiceproject.jobs.broker import wake_workers
from voiceproject.jobs.events import MAX_WAIT_SECONDS, JobEvents, wait_for_end
from voiceproject.jobs.idempotency import HEADER, REPLAYED
from voiceproject.jobs.job import Job
from voiceproject.jobs.status import LIVE
from voiceproject.tenants import usage
from voiceproject.web.api import preferences
from voiceproject.web.slots import acquire_slot, too_many_waiting

LOCATION = OpenApiParameter(
    "Location", OpenApiTypes.URI, OpenApiParameter.HEADER, response=[202], description="The job's URL"
)
WAIT = OpenApiParameter(
    "Prefer", str, OpenApiParameter.HEADER,
    description=f"`wait=N`: the answer is held until the job ends, for N seconds at most ({MAX_WAIT_SECONDS} at most)",
)  # fmt: skip
IDEMPOTENCY = [
    OpenApiParameter(
        HEADER,
        str,
        OpenApiParameter.HEADER,
        description="1 to 255 printable ASCII characters. Within 24 hours the same request with the same key gives "
        "the first answer's job again, and another request 422 `idempotency_key_reused`.",
    ),
    OpenApiParameter(
        REPLAYED, str, OpenApiParameter.HEADER, response=[202], description="true where the job was there already"
    ),
]
EVENTS_DESCRIPTION = (
    "The job's JSON at once and after each change; `id` is its revision, which `Last-Event-ID` may give back to go on "
    "from there. A comment line every 15 seconds keeps the connection; it is closed when the job has ended (204 for "
    "who has seen its end already)."
)
EVENTS_RESPONSES = {
    (200, "text/event-stream"): OpenApiResponse(OpenApiTypes.STR, description="`id: 7`, `data: {the job}`"),
    204: OpenApiResponse(description="The job has ended, and `Last-Event-ID` is its last revision"),
}


def accepted(
    request: Request,
    job: Job,
    actor: dramatiq.Actor,
    render: Callable[..., Any],
    *,
    applied: tuple[str, ...] = (),
    replayed: bool = False,
) -> Response:
    """202 for a job that was queued this moment, or how far it came while `Prefer: wait` held the answer.

    actor: what workers are told to run; render: gives a job's serializer; applied: preferences that were followed.
    """
    wake_workers(actor)
    job.refresh_from_db()
    preferred = [*applied, *wait(request, job)]
    data = render(job).data
    headers = {"Location": data["links"]["self"]}
    if preferred:
        headers["Preference-Applied"] = ", ".join(preferred)
    if replayed:
        headers[REPLAYED] = "true"
    if job.quota_left_ms is not None:
        headers[usage.HEADER] = usage.header(job.quota_left_ms)
    return Response(data, status=status.HTTP_202_ACCEPTED, headers=headers)


def wait(request: Request, job: Job) -> list[str]:
    """Holds a request with `Prefer: wait=N` until the job ends or N seconds pass; the preferences followed so."""
    wished = preferences(request).get("wait", "")
    if not re.fullmatch(r"\d{1,9}", wished):
        return []
    seconds = min(int(wished), MAX_WAIT_SECONDS)
    slot = acquire_slot() if job.status in LIVE else None
    if slot is not None:
        try:
            wait_for_end(job, seconds, request.META.get("gunicorn.socket"))
        finally:
            slot()
    return [f"wait={seconds}"] if slot or job.status not in LIVE else []


def shown(request: Request, job: Job, render: Callable[..., Any]) -> Response:
    """A job's JSON, held back as `Prefer: wait` says."""
    preferred = wait(request, job)
    headers = {"Preference-Applied": ", ".join(preferred)} if preferred else {}
    return Response(render(job).data, headers=headers)


def events(request: Request, job: Job, render: Callable[..., Any]) -> HttpResponseBase:
    """A job's changes as Server-Sent Events. Raises PublicError too_many_waiting."""
    seen = request.headers.get("Last-Event-ID", "")
    last = int(seen) if re.fullmatch(r"\d{1,9}", seen) else -1
    if job.status not in LIVE and last >= job.revision:
        return HttpResponse(status=204)  # Tells an EventSource not to connect again.
    slot = acquire_slot()
    if slot is None:
        raise too_many_waiting()
    response = StreamingHttpResponse(JobEvents(job, last, render, slot), content_type="text/event-stream")
    response["Cache-Control"] = "no-cache, no-transform"
    response["X-Accel-Buffering"] = "no"  # nginx would hold events back
    return response
