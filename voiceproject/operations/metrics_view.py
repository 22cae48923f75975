"""/metrics: what voiceproject.telemetry.metrics has counted, and what the database says at this moment."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection
from django.db.models import Count, Min, Q
from django.db.models.functions import Now
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from prometheus_client.core import GaugeMetricFamily, Metric
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.views import APIView

from voiceproject import __version__
from voiceproject.errors import PublicError
from voiceproject.jobs.status import JobStatus
from voiceproject.operations.health import workers_alive
from voiceproject.registry import registry
from voiceproject.telemetry import metrics
from voiceproject.webhooks.models import WebhookDelivery

log = logging.getLogger(__name__)


class MetricsView(APIView):
    authentication_classes = ()
    permission_classes = (AllowAny,)
    error_statuses = {"get": (401, 404)}

    @extend_schema(
        operation_id="metrics",
        summary="Metrics for Prometheus",
        description="Wants `METRICS_TOKEN` as a bearer token; 404 `not_found` where none is set.",
        auth=[{"MetricsToken": []}],  # type: ignore[list-item] # OpenAPI's form; the package's own is refused by 3.1
        responses={(200, "text/plain"): OpenApiResponse(OpenApiTypes.STR, description="Prometheus' text format")},
        tags=["health"],
    )
    def get(self, request: Request) -> HttpResponseBase:
        if not metrics.enabled():
            raise PublicError("not_found", "There is no such path here.")
        authorization = request.META.get("HTTP_AUTHORIZATION", "")
        if not metrics.is_authorized(authorization):
            if authorization:
                error = PublicError("invalid_api_key", "This is not METRICS_TOKEN.")
            else:
                error = PublicError("missing_api_key", "Send METRICS_TOKEN as Authorization: Bearer.")
            error.headers = {"WWW-Authenticate": 'Bearer realm="metrics"'}
            raise error
        return HttpResponse(metrics.exposition(state()), content_type=metrics.CONTENT_TYPE)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"voiceproject_{name}", text, labels=labels)


def state() -> list[Metric]:
    """The gauges. Those that the database knows are left out while it is away, and `database_up` says so.

    Each web server answers with the same numbers for them: rules take their max, not their sum.
    """
    info = _gauge("info", "What runs here", "version", "engine")
    info.add_metric([__version__, settings.VOICE_ENGINE], 1)
    free = _gauge("storage_free_bytes", "Room on the disk of DATA_DIR")
    free.add_metric([], shutil.disk_usage(settings.DATA_DIR).free)
    up = _gauge("database_up", "1 where the database answers")
    try:
        known = list(_database_state())
    except DatabaseError as error:
        log.warning("metrics without the database, which cannot be reached: %s", error)
        connection.close()
        known = []
    up.add_metric([], float(bool(known)))
    engine = registry.engine.health()
    available = _gauge("engine_available", "1 where the speech engine answers", "engine")
    available.add_metric([engine.name], float(engine.available))
    return [info, free, up, available, *known]


def _database_state() -> Iterator[Metric]:
    jobs = _gauge("jobs", "Jobs that wait and that run", "queue", "status")
    oldest = _gauge("queue_oldest_seconds", "How long the first of a queue has waited", "queue")
    now = timezone.now()
    for kind in registry.job_kinds:
        # Two queries that each walk the few live rows of one index. A job that was tried again waits since then.
        for status, count, since in _live(kind.model):
            jobs.add_metric([kind.queue, status], count)
            if status == JobStatus.QUEUED:
                oldest.add_metric([kind.queue], max(0.0, (now - since).total_seconds()) if since else 0.0)
    due = WebhookDelivery.objects.filter(
        status=WebhookDelivery.Status.PENDING, next_attempt_at__lte=Now()
    ).aggregate(n=Count("pk"), since=Min("next_attempt_at"))  # fmt: skip
    jobs.add_metric(["webhooks", "queued"], due["n"])
    oldest.add_metric(["webhooks"], max(0.0, (now - due["since"]).total_seconds()) if due["since"] else 0.0)
    hosts = _gauge("worker_hosts", "Hosts whose workers were heard of in the last half minute", "state")
    seen = workers_alive().aggregate(n=Count("pk"), draining=Count("pk", filter=Q(draining=True)))
    hosts.add_metric(["draining"], seen["draining"])
    hosts.add_metric(["working"], seen["n"] - seen["draining"])
    yield from (jobs, oldest, hosts)


def _live(model: Any) -> Iterable[tuple[str, int, datetime | None]]:
    for status in (JobStatus.QUEUED, JobStatus.RUNNING):
        row = model.objects.filter(status=status).order_by().aggregate(n=Count("pk"), since=Min("updated_at"))
        yield status.value, row["n"], row["since"]
