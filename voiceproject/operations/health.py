"""/health, for probes and people."""

from __future__ import annotations

import logging
import os
import shutil
import time
from typing import Any

from django.conf import settings
from django.core.files.storage import default_storage
from django.db import Error as DatabaseError
from django.db import connection
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from voiceproject import __version__
from voiceproject.jobs.models import WorkerHost
from voiceproject.jobs.status import JobStatus
from voiceproject.media.storage import in_bucket
from voiceproject.registry import registry

log = logging.getLogger(__name__)

STARTED = time.monotonic()  # Imported with the URLs, as a process starts.


class EngineSerializer(serializers.Serializer):
    name = serializers.CharField()
    available = serializers.BooleanField()
    latency_ms = serializers.FloatField(allow_null=True)
    detail = serializers.CharField(allow_blank=True)


class ChecksSerializer(serializers.Serializer):
    database = serializers.CharField(help_text="ok, or what is wrong")
    broker = serializers.CharField(help_text="ok, what is wrong, or that none is configured")
    storage = serializers.CharField(help_text="ok, or what is wrong")
    workers = serializers.CharField(help_text="How many hosts' workers were heard of lately")


class HealthSerializer(serializers.Serializer):
    status = serializers.ChoiceField(("healthy", "degraded", "unhealthy"))
    version = serializers.CharField()
    engine = EngineSerializer()
    sovits_available = serializers.BooleanField()
    uptime_seconds = serializers.FloatField(help_text="Since the process that answers has started")
    checks = ChecksSerializer()


class HealthView(APIView):
    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(
        operation_id="health",
        summary="What runs, and what does not",
        description="200 while the API can serve at all (then `status` is healthy or degraded), 503 when its database "
        "cannot be reached.",
        responses={200: HealthSerializer, 503: HealthSerializer},
        tags=["health"],
    )
    def get(self, request: Request) -> Response:
        engine = registry.engine.health()
        checks = {
            "database": check_database(),
            "broker": check_broker(),
            "storage": check_storage(),
            "workers": "unknown",
        }
        alive = True
        if checks["database"] == "ok":
            alive, checks["workers"] = check_workers()
        fine = engine.available and alive and checks["storage"] == "ok" and checks["broker"] in ("ok", NO_BROKER)
        state = "unhealthy" if checks["database"] != "ok" else "healthy" if fine else "degraded"
        body: dict[str, Any] = {
            "status": state,
            "version": __version__,
            "engine": {
                "name": engine.name,
                "available": engine.available,
                "latency_ms": engine.latency_ms,
                "detail": engine.detail,
            },
            "sovits_available": engine.name == "gptsovits" and engine.available,
            "uptime_seconds": round(time.monotonic() - STARTED, 3),
            "checks": checks,
        }
        return Response(body, status=503 if state == "unhealthy" else 200)


NO_BROKER = "none: workers look at the database"
BUCKET_SECONDS = 1.0


def check_database() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        log.exception("the database cannot be reached")
        return "unreachable"
    return "ok"


def check_broker() -> str:
    if not settings.REDIS_URL:
        return NO_BROKER
    import redis

    client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1, socket_connect_timeout=1)
    try:
        client.ping()
    except redis.RedisError as error:
        log.warning("Redis cannot be reached: %s", error)
        return "unreachable"
    finally:
        client.close()
    return "ok"


def check_storage() -> str:
    """Room for one more upload of the largest size is the least that a server needs."""
    if in_bucket(default_storage):
        if not default_storage.reachable(BUCKET_SECONDS):
            return "unreachable"
    elif not os.access(settings.MEDIA_ROOT, os.W_OK):
        return "not writable"
    # Uploads go through a local folder, wherever they are kept.
    free = shutil.disk_usage(settings.UPLOAD_DIR).free
    return "ok" if free > settings.MAX_UPLOAD_SIZE + settings.COVER_MAX_UPLOAD_SIZE else "nearly full"


def workers_alive() -> QuerySet[WorkerHost]:
    """Hosts whose workers were heard of in the last half minute."""
    return WorkerHost.objects.alive()


def check_workers() -> tuple[bool, str]:
    """Whether somebody takes jobs, and how many hosts were heard of lately.

    Where no worker was ever heard of, as where the API alone is used, that is asked only when work waits.
    """
    alive, taking = WorkerHost.objects.alive().count(), WorkerHost.objects.taking().count()
    waiting = any(model.objects.filter(status=JobStatus.QUEUED).exists() for model in registry.job_models())
    fine = bool(taking) or not (waiting or WorkerHost.objects.exists())
    told = f"{alive} alive"
    if alive and not taking:
        told += ", all draining"
    return fine, told + (", jobs are waiting" if waiting and not taking else "")
