"""Responses for jobs of every kind: accepted, waited for, streamed as events."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import dramatiq
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework import status
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from voiceproject.jobs.broker import wake_workers
from voiceproject.jobs.events import MAX_WAIT_SECONDS, JobEvents, end_of, wait_for_end
from voiceproject.jobs.idempotency import HEADER, REPLAYED
from voiceproject.jobs.job import Job
from voiceproject.jobs.status import LIVE
from voiceproject.tenants import usage
from voiceproject.web import slots
from voiceproject.web.api import preferences
from voiceproject.web.streams import Held

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
    "who has seen its end already). It ends earlier with `event: error` when your key ends, and with `event: stopping` "
    "when the server does: connect again then."
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
) -> HttpResponseBase:
    """202 for a job that was queued this moment, or how far it came while `Prefer: wait` held the answer.

    actor: what workers are told to run; render: gives a job's serializer; applied: preferences that were followed.
    """
    wake_workers(actor)
    job.refresh_from_db()
    headers = {REPLAYED: "true"} if replayed else {}
    if job.quota_left_ms is not None:
        headers[usage.HEADER] = usage.header(job.quota_left_ms)

    def respond(preferred: list[str]) -> tuple[Any, dict[str, str]]:
        data = render(job).data
        followed = {"Preference-Applied": ", ".join(preferred)} if preferred else {}
        return data, {**headers, **followed, "Location": data["links"]["self"]}

    return _held(request, job, status.HTTP_202_ACCEPTED, respond, applied)


def shown(request: Request, job: Job, render: Callable[..., Any]) -> HttpResponseBase:
    """A job's JSON, held back as `Prefer: wait` says."""

    def respond(preferred: list[str]) -> tuple[Any, dict[str, str]]:
        return render(job).data, {"Preference-Applied": ", ".join(preferred)} if preferred else {}

    return _held(request, job, status.HTTP_200_OK, respond)


def _held(
    request: Request,
    job: Job,
    code: int,
    respond: Callable[[list[str]], tuple[Any, dict[str, str]]],
    applied: tuple[str, ...] = (),
) -> HttpResponseBase:
    """Holds an answer with `Prefer: wait=N` until the job ends or N seconds pass.

    respond: given the preferences that were followed, gives the body and headers.
    """
    wished = preferences(request).get("wait", "")
    if not re.fullmatch(r"\d{1,9}", wished):
        data, headers = respond([*applied])
        return Response(data, status=code, headers=headers)
    seconds = min(int(wished), MAX_WAIT_SECONDS)
    followed = [*applied, f"wait={seconds}"]
    place = slots.streams.acquire(request.user.pk) if job.status in LIVE else None
    if place is None:
        data, headers = respond([*applied] if job.status in LIVE else followed)
        return Response(data, status=code, headers=headers)

    def finish() -> tuple[bytes, dict[str, str]]:
        data, headers = respond(followed)
        return JSONRenderer().render(data), headers

    held = Held(
        functools.partial(end_of, job, seconds),
        functools.partial(wait_for_end, job, seconds),
        finish,
        status=code,
        content_type=JSONRenderer.media_type,
    )
    held.done = place
    return held


def events(request: Request, job: Job, serializer: type[BaseSerializer]) -> HttpResponseBase:
    """A job's changes as Server-Sent Events. serializer: of such a job. Raises PublicError too_many_waiting."""
    sent = request.headers.get("Last-Event-ID", "")
    seen = int(sent) if re.fullmatch(r"\d{1,9}", sent) else -1
    if job.status not in LIVE and seen >= job.revision:
        return HttpResponse(status=204)  # Tells an EventSource not to connect again.
    # Not REST framework's request, with which its view would stay for as long as this lasts.
    render = functools.partial(serializer, context={"request": request._request})
    return JobEvents(job, seen, render, slots.streams.take(request.user.pk))
