"""/api/v1/history: what was spoken, in the shape of the first service of this kind. The list route of today is
/voice/syntheses."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from voiceproject.jobs.status import JobStatus
from voiceproject.web.api import BodyLimitMixin
from voices.speech.models import Synthesis

STATUSES = {JobStatus.SUCCEEDED: "success", JobStatus.FAILED: "error"}
MAX_OFFSET = 1_000_000


class HistoryItemSerializer(serializers.ModelSerializer):
    job_type = serializers.SerializerMethodField(help_text="`clone`, or `tts` where the engine's own voice spoke")
    status = serializers.SerializerMethodField(help_text="`success` or `error`")
    input_text = serializers.CharField(source="text")
    error_message = serializers.CharField(allow_null=True)

    class Meta:
        model = Synthesis
        fields = (
            "id", "job_type", "status", "input_text", "language", "speed", "temperature", "duration_seconds",
            "error_message", "created_at",
        )  # fmt: skip

    def get_job_type(self, job: Synthesis) -> str:
        return "tts" if job.reference_hash.startswith("preset:") else "clone"

    def get_status(self, job: Synthesis) -> str:
        return STATUSES[JobStatus(job.status)]

    def to_representation(self, instance: Synthesis) -> dict[str, Any]:
        data = super().to_representation(instance)
        return data | {"error_message": data["error_message"] or None}


class HistorySerializer(serializers.Serializer):
    items = HistoryItemSerializer(many=True)
    total = serializers.IntegerField()


class HistoryQuerySerializer(serializers.Serializer):
    limit = serializers.IntegerField(min_value=1, max_value=100, default=20)
    offset = serializers.IntegerField(min_value=0, max_value=MAX_OFFSET, default=0)


class HistoryView(BodyLimitMixin, APIView):
    required_scope = "synthesize"

    @extend_schema(
        operation_id="history",
        summary="Your syntheses that have ended, newest first, as an older service had them",
        description="For clients that move here; `GET /voice/syntheses` tells more.",
        parameters=[HistoryQuerySerializer],
        responses=HistorySerializer,
        tags=["voice"],
    )
    def get(self, request: Request) -> Response:
        query = HistoryQuerySerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        offset, limit = query.validated_data["offset"], query.validated_data["limit"]
        found = Synthesis.objects.for_tenant(request.user).filter(status__in=STATUSES)
        rows = found.order_by("-created_at", "-id")[offset : offset + limit]
        return Response({"items": HistoryItemSerializer(rows, many=True).data, "total": found.count()})
