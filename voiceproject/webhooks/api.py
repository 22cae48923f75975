"""/api/v1/webhooks: the tenant's signing secret, and the log of deliveries."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from voiceproject.errors import PublicError
from voiceproject.jobs.job import Job
from voiceproject.jobs.status import TERMINAL
from voiceproject.tenants import audit
from voiceproject.web.api import CursorPages, QueryTimeField, StrictSerializer
from voiceproject.webhooks import deliveries
from voiceproject.webhooks.models import WebhookDelivery, WebhookSecret


class WebhookSecretSerializer(serializers.ModelSerializer):
    secret = serializers.CharField(help_text="whsec_...: what a Standard Webhooks library verifies with")
    previous_until = serializers.DateTimeField(
        allow_null=True, help_text="Until when the secret before this one signs too"
    )

    class Meta:
        model = WebhookSecret
        fields = ("secret", "previous_until", "created_at")
        read_only_fields = fields


class WebhookDeliverySerializer(serializers.ModelSerializer):
    delivery_id = serializers.UUIDField(source="id")
    webhook_id = serializers.CharField(help_text="Sent as `webhook-id`: the same in every attempt")
    last_status = serializers.IntegerField(allow_null=True, help_text="What the receiver last answered")
    last_error = serializers.CharField(allow_null=True)

    class Meta:
        model = WebhookDelivery
        fields = (
            "delivery_id", "webhook_id", "type", "job_id", "url", "status", "attempts", "last_status", "last_error",
            "next_attempt_at", "created_at", "updated_at", "delivered_at",
        )  # fmt: skip
        read_only_fields = fields

    def to_representation(self, instance: WebhookDelivery) -> dict[str, Any]:
        data = super().to_representation(instance)
        return data | {"last_error": data["last_error"] or None}


class DeliveryFilters(StrictSerializer):
    """Filters of the log, from the query string."""

    status = serializers.ChoiceField(WebhookDelivery.Status.choices, required=False)
    type = serializers.ChoiceField(
        [f"{kind.webhook_kind}.{status}" for kind in Job.__subclasses__() for status in TERMINAL], required=False
    )
    job_id = serializers.UUIDField(required=False)
    created_after = QueryTimeField()
    created_before = QueryTimeField()
    cursor = serializers.CharField(required=False)
    page_size = serializers.IntegerField(required=False, min_value=1, max_value=CursorPages.max_page_size)

    LOOKUPS = {"status": "status", "type": "type", "job_id": "job_id", "created_after": "created_at__gt",
               "created_before": "created_at__lt"}  # fmt: skip


class WebhookSecretView(APIView):
    required_scope = "keys"

    @extend_schema(
        operation_id="get_webhook_secret",
        summary="The secret that signs your webhooks",
        description="Made when it is first asked for. Needs the scope `keys`.",
        responses=WebhookSecretSerializer,
        tags=["webhooks"],
    )
    def get(self, request: Request) -> Response:
        return _secret_response(deliveries.secret_of(request.user))


class RotateWebhookSecretView(APIView):
    required_scope = "keys"

    @extend_schema(
        operation_id="rotate_webhook_secret",
        summary="Replace the secret that signs your webhooks",
        description="For 24 hours everything is signed with both, so that receivers can change over. "
        "Rotating again within them ends the older one at once. Needs the scope `keys`.",
        request=None,
        responses=WebhookSecretSerializer,
        tags=["webhooks"],
    )
    def post(self, request: Request) -> Response:
        with transaction.atomic():
            secret = deliveries.rotate_secret(request.user)
            audit.record("webhook_secret.rotate", secret, request=request)
        return _secret_response(secret)


def _secret_response(secret: WebhookSecret) -> Response:
    return Response(WebhookSecretSerializer(secret).data, headers={"Cache-Control": "no-store"})


class WebhookDeliveryViewSet(mixins.ListModelMixin, viewsets.GenericViewSet):
    required_scope = "usage"
    serializer_class = WebhookDeliverySerializer
    pagination_class = CursorPages
    queryset = WebhookDelivery.objects.none()
    error_statuses = {"redeliver": (409,)}

    def get_queryset(self) -> QuerySet[WebhookDelivery]:
        return WebhookDelivery.objects.for_tenant(self.request.user)

    def filter_queryset(self, queryset: QuerySet) -> QuerySet:
        if self.action != "list":
            return queryset
        filters = DeliveryFilters(data=self.request.query_params)
        filters.is_valid(raise_exception=True)
        given = filters.validated_data
        return queryset.filter(**{look: given[name] for name, look in filters.LOOKUPS.items() if name in given})

    @extend_schema(
        operation_id="list_webhook_deliveries",
        summary="Your webhooks, newest first, and what came of them",
        description="Needs the scope `usage`.",
        parameters=[DeliveryFilters],
        tags=["webhooks"],
    )
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().list(request, *args, **kwargs)

    @extend_schema(
        operation_id="redeliver_webhook",
        summary="Send a webhook again",
        description="The same event to the same URL with the same `webhook-id`, with a day of retries from now; "
        "409 `conflict` while an attempt is under way. Needs the scope `usage`.",
        request=None,
        responses={202: WebhookDeliverySerializer},
        tags=["webhooks"],
    )
    def redeliver(self, request: Request, pk: str) -> Response:
        delivery = self.get_object()
        if not deliveries.redeliver(delivery):
            raise PublicError("conflict", "An attempt is under way this moment; try again in a minute.")
        return Response(self.get_serializer(delivery).data, status=202)
