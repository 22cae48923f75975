"""/api/v1/usage and /api/v1/me: what was used, who is asking, and what is left."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from voiceproject.errors import PublicError
from voiceproject.jobs.job import Job
from voiceproject.jobs.queue import live_jobs_of
from voiceproject.tenants import usage
from voiceproject.tenants.models import Tenant
from voiceproject.web.api import StrictSerializer


class UsageQuery(StrictSerializer):
    """Which days, and how they are summed up."""

    # `from` is a word of Python: the field is added below.
    to = serializers.DateField(required=False, help_text="The last day (UTC), today by default")
    group_by = serializers.ChoiceField(usage.GROUPS, default="day")

    def get_fields(self) -> dict[str, serializers.Field]:
        first = serializers.DateField(
            required=False, help_text=f"The first day (UTC), that of the month by default; {usage.MAX_DAYS} at most"
        )
        return {"from": first, **super().get_fields()}


class SumsSerializer(serializers.Serializer):
    requests = serializers.IntegerField()
    audio_seconds = serializers.FloatField(help_text="Of the audio that was made")
    characters = serializers.IntegerField(help_text="Of the texts that were spoken")
    engine_seconds = serializers.FloatField(help_text="How long the engine worked")


class UsedKeySerializer(serializers.Serializer):
    id = serializers.UUIDField(allow_null=True)
    name = serializers.CharField(help_text="As it was when the key was last used in these days")
    prefix = serializers.CharField()


class UsageItemSerializer(SumsSerializer):
    day = serializers.DateField(required=False, help_text="With group_by=day")
    key = UsedKeySerializer(required=False, help_text="With group_by=key")
    operation = serializers.CharField(required=False, help_text="With group_by=operation: synthesis, cover, remix")


class UsageSerializer(serializers.Serializer):
    to = serializers.DateField()
    group_by = serializers.ChoiceField(usage.GROUPS)
    items = UsageItemSerializer(many=True)
    total = SumsSerializer()

    def get_fields(self) -> dict[str, serializers.Field]:
        return {"from": serializers.DateField(), **super().get_fields()}


class UsageView(APIView):
    required_scope = "usage"

    @extend_schema(
        operation_id="get_usage",
        summary="What you have used, by day, key or operation",
        description="Work counts on the day (UTC) on which it was accepted, once it has ended. What has failed, or was "
        "canceled before it started, is not in it. Days without use are left out. Needs the scope `usage`.",
        parameters=[UsageQuery],
        responses=UsageSerializer,
        tags=["account"],
    )
    def get(self, request: Request) -> Response:
        tenant: Any = request.user
        query = UsageQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        given = query.validated_data
        last = given.get("to") or max(timezone.now().date(), given.get("from") or timezone.now().date())
        first = given.get("from") or last.replace(day=1)
        if first > last:
            message = "Must not be after `to`."
            raise PublicError("validation_error", f"from: {message}", {"from": [message]})
        if (last - first) >= timedelta(days=usage.MAX_DAYS):
            message = f"At most {usage.MAX_DAYS} days are told at a time."
            raise PublicError("validation_error", f"from: {message}", {"from": [message]})
        found = usage.summary(tenant.pk, first, last, given["group_by"])
        return Response({"from": first, "to": last, "group_by": given["group_by"], **found})


def _limit(of: type[serializers.Field] = serializers.IntegerField, **kwargs: Any) -> serializers.Field:
    return of(allow_null=True, **kwargs)


class MeSerializer(serializers.Serializer):
    username = serializers.CharField()
    key = inline_serializer(
        "MyKey",
        {
            "id": serializers.UUIDField(),
            "name": serializers.CharField(),
            "prefix": serializers.CharField(),
            "scopes": serializers.ListField(child=serializers.CharField()),
            "expires_at": serializers.DateTimeField(allow_null=True),
        },
    )
    limits = inline_serializer(
        "MyLimits",
        {
            "requests_per_minute": _limit(help_text="null: no limit, here and below"),
            "max_running_jobs": _limit(),
            "max_queued_jobs": _limit(),
            "max_concurrent_jobs": _limit(help_text="Of this key: jobs that wait or run"),
            "monthly_audio_seconds": _limit(),
            "max_storage_bytes": _limit(),
        },
    )
    remaining = inline_serializer(
        "MyRemainder",
        {
            "queued_jobs": _limit(help_text="How many more this key may send now"),
            "audio_seconds": _limit(serializers.FloatField, help_text="This month (UTC), less what is reserved"),
            "storage_bytes": _limit(),
        },
    )
    usage = inline_serializer(
        "MyUsage",
        {
            "audio_seconds_this_month": serializers.FloatField(help_text="Made, or reserved for jobs that go on"),
            "storage_bytes": serializers.IntegerField(),
        },
    )


class MeView(APIView):
    required_scope = None

    @extend_schema(
        operation_id="get_me",
        summary="Who you are here, your limits, and what is left of them",
        description="`limits` and `remaining` are those of this key: the account's, narrowed by the key's own.",
        responses=MeSerializer,
        tags=["account"],
    )
    def get(self, request: Request) -> Response:
        return Response(_me(request.user, request.auth), headers={"Cache-Control": "no-store"})


def _narrowest(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _own(tenant: Tenant | None, name: str, default: int) -> int:
    own = getattr(tenant, name, None)
    return default if own is None else own


def _me(user: Any, key: Any) -> dict[str, Any]:
    tenant = getattr(user, "tenant", None)
    now = timezone.now()
    limited = [model for model in Job.__subclasses__() if model.queued_limit_field]
    max_queued = _own(tenant, "max_queued", settings.COVER_MAX_QUEUED)
    left_jobs = [max_queued - sum(model.waiting(user) for model in limited)]
    if key.max_concurrent_jobs is not None:
        left_jobs.append(key.max_concurrent_jobs - live_jobs_of(key))
    of_tenant, of_key = usage.audio_limit(tenant), key.monthly_audio_seconds
    used_ms = usage.counted_ms(user.pk, now)
    left_ms = [1000 * of_tenant - used_ms] if of_tenant is not None else []
    if of_key is not None:
        left_ms.append(1000 * of_key - usage.counted_ms(user.pk, now, key.lineage))
    storage, stored = usage.storage_limit(tenant), usage.storage_bytes(user.pk)
    return {
        "username": user.get_username(),
        "key": {"id": key.public_id}
        | {name: getattr(key, name) for name in ("name", "prefix", "scopes", "expires_at")},
        "limits": {
            "requests_per_minute": _narrowest(*(limit.requests for limit in key.rate_limits())),
            "max_running_jobs": _own(tenant, "max_running", settings.COVER_MAX_RUNNING),
            "max_queued_jobs": max_queued,
            "max_concurrent_jobs": key.max_concurrent_jobs,
            "monthly_audio_seconds": _narrowest(of_tenant, of_key),
            "max_storage_bytes": storage,
        },
        "remaining": {
            "queued_jobs": max(0, min(left_jobs)),
            "audio_seconds": max(0, min(left_ms)) / 1000 if left_ms else None,
            "storage_bytes": None if storage is None else max(0, storage - stored),
        },
        "usage": {"audio_seconds_this_month": used_ms / 1000, "storage_bytes": stored},
    }
