"""/api/v1/keys: a tenant's keys, managed by a key with the scope `keys`."""

from __future__ import annotations

from typing import Any

from django.db.models import Q, QuerySet
from django.urls import reverse
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from voiceproject.web.api import BodyLimitMixin, CursorPagesById, StrictSerializer, TextField
from voices.keys import grants
from voices.keys.auth import credentials
from voices.keys.models import MAX_LIMIT, SCOPES, ApiKey, clean_networks

STATES = ("valid", "expired", "revoked")


class KeySerializer(serializers.ModelSerializer):
    id = serializers.UUIDField(source="public_id")
    prefix = serializers.CharField(help_text="The first characters of the secret, to recognise it by")
    state = serializers.ChoiceField(STATES)
    scopes = serializers.ListField(child=serializers.ChoiceField(SCOPES))
    allowed_networks = serializers.ListField(
        child=serializers.CharField(), help_text="Addresses and networks that it may be used from; empty: all"
    )
    from_environment = serializers.BooleanField(help_text="It stands in the server's settings as API_KEY")
    replaced_by = serializers.UUIDField(
        source="replaced_by.public_id",
        allow_null=True,
        default=None,
        help_text="The key that took its place when it was rotated",
    )
    current = serializers.SerializerMethodField(help_text="Whether this is the key that asks")

    class Meta:
        model = ApiKey
        fields = (
            "id", "name", "kind", "prefix", "state", "scopes", "expires_at", "allowed_networks", "requests_per_minute",
            "max_concurrent_jobs", "monthly_audio_seconds", "last_used_at", "created_at", "revoked_at", "replaced_by",
            "from_environment", "current",
        )  # fmt: skip
        read_only_fields = fields

    def get_current(self, key: ApiKey) -> bool:
        return bool(self.context["request"].auth.pk == key.pk)


class NewKeySerializer(KeySerializer):
    secret = serializers.CharField(
        help_text="What to send as X-API-Key, or of the kind `path` what stands in the URL; empty of the kind "
        "`address`. Shown this once: only its hash is kept."
    )

    class Meta(KeySerializer.Meta):
        fields = ("secret", *KeySerializer.Meta.fields)  # type: ignore[assignment]
        read_only_fields = fields  # type: ignore[assignment]


class NetworksField(serializers.ListField):
    child = serializers.CharField()

    def to_internal_value(self, data: Any) -> list[str]:
        try:
            return clean_networks(super().to_internal_value(data))
        except ValueError as error:
            raise serializers.ValidationError([str(error)]) from None


def limit_field(text: str) -> serializers.IntegerField:
    return serializers.IntegerField(
        required=False, allow_null=True, min_value=1, max_value=MAX_LIMIT, help_text=f"{text}; null: your account's"
    )


class EditKeySerializer(StrictSerializer):
    name = TextField(required=False, max_length=100)
    scopes = serializers.ListField(
        required=False, child=serializers.ChoiceField(SCOPES), allow_empty=False, max_length=2 * len(SCOPES)
    )
    expires_at = serializers.DateTimeField(
        required=False, allow_null=True, help_text="ISO 8601, in the future; null: never"
    )
    allowed_networks = NetworksField(
        required=False, help_text="Addresses or networks (192.0.2.7, 2001:db8::/32) it may be used from; empty: all"
    )
    requests_per_minute = limit_field("In any 60 seconds")
    max_concurrent_jobs = limit_field("Jobs of this key that may be queued or running at a time")
    monthly_audio_seconds = limit_field("Seconds of audio that it may make in a calendar month (UTC)")

    def validate_scopes(self, scopes: list[str]) -> list[str]:
        return [scope for scope in SCOPES if scope in scopes]


class CreateKeySerializer(EditKeySerializer):
    name = TextField(max_length=100, help_text="What it is for")
    kind = serializers.ChoiceField(
        ApiKey.Kind.choices,
        default=ApiKey.Kind.HEADER,
        help_text="How clients use it. For clients of GPT-SoVITS that can send no key, a key may stand in the URL "
        "(`path`: /gptsovits/<secret>/tts), or for all who ask from allowed_networks (`address`, where the operator "
        "allows it). Such keys may do no more than `synthesize`, and open /gptsovits alone.",
    )


class RotateKeySerializer(StrictSerializer):
    overlap_seconds = serializers.IntegerField(
        default=0,
        min_value=0,
        max_value=grants.MAX_OVERLAP_SECONDS,
        help_text="So long the old one goes on working beside the new one; 0: it ends at once",
    )


class KeyFilters(StrictSerializer):
    state = serializers.ChoiceField(STATES, required=False)
    cursor = serializers.CharField(required=False)
    page_size = serializers.IntegerField(required=False, min_value=1, max_value=CursorPagesById.max_page_size)

    @classmethod
    def apply(cls, queryset: QuerySet[ApiKey], request: Request) -> QuerySet[ApiKey]:
        filters = cls(data=request.query_params)
        filters.is_valid(raise_exception=True)
        over = Q(expires_at__isnull=False, expires_at__lte=timezone.now())
        match filters.validated_data.get("state"):
            case "revoked":
                return queryset.exclude(revoked_at=None)
            case "expired":
                return queryset.filter(over, revoked_at=None)
            case "valid":
                return queryset.filter(~over, revoked_at=None)
            case _:
                return queryset


LOCATION = OpenApiParameter("Location", str, OpenApiParameter.HEADER, response=[201], description="Where the key is")
GRANTS = (
    "A key gives at most a part of what it has, compared as a whole: 403 `permission_denied` for scopes, a longer "
    "life, wider networks or higher limits than its own. Where it has limits, the keys that it makes draw on them too. "
)


class KeyViewSet(BodyLimitMixin, viewsets.GenericViewSet):
    required_scope = "keys"
    serializer_class = KeySerializer
    pagination_class = CursorPagesById
    queryset = ApiKey.objects.none()
    lookup_field = "public_id"
    lookup_url_kwarg = "pk"
    max_body_bytes = 1
    error_statuses = {"create": (409,), "partial_update": (409, 410), "destroy": (409,), "rotate": (409, 410)}

    def get_queryset(self) -> QuerySet[ApiKey]:
        return ApiKey.objects.for_tenant(self.request.user).select_related("replaced_by")

    def filter_queryset(self, queryset: QuerySet) -> QuerySet:
        return KeyFilters.apply(queryset, self.request) if self.action == "list" else queryset

    @extend_schema(
        operation_id="list_keys",
        summary="Your keys, newest first, also those that have ended",
        description="Needs the scope `keys`.",
        parameters=[KeyFilters],
        tags=["keys"],
    )
    def list(self, request: Request) -> Response:
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response(self.get_serializer(page, many=True).data)

    @extend_schema(
        operation_id="create_key",
        summary="Make a key",
        description="Its secret is shown in this answer and never again. What is left out, it gets from the key that "
        f"asks. {GRANTS}Needs the scope `keys`.",
        request={"application/json": CreateKeySerializer},
        responses={201: NewKeySerializer},
        parameters=[LOCATION],
        tags=["keys"],
    )
    def create(self, request: Request) -> Response:
        tenant, own = credentials(request)
        serializer = CreateKeySerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        key, secret = grants.create(tenant, grants.Actor(request, own), **serializer.validated_data)
        return self._made(key, secret)

    @extend_schema(operation_id="get_key", summary="One key", description="Needs the scope `keys`.", tags=["keys"])
    def retrieve(self, request: Request, pk: str) -> Response:
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(
        operation_id="update_key",
        summary="Change a key",
        description=f"Only the fields that are sent. {GRANTS}What only takes something from the changed key is allowed "
        "to every key. 409 `conflict` where the last key with the scope `keys` would lose that, end sooner, or not be "
        "usable from where you are; 410 `revoked` once it is. Needs the scope `keys`.",
        request={"application/json": EditKeySerializer},
        tags=["keys"],
    )
    def partial_update(self, request: Request, pk: str) -> Response:
        _, own = credentials(request)
        key = self.get_object()
        serializer = EditKeySerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        key = grants.update(key, grants.Actor(request, own), **serializer.validated_data)
        return Response(self.get_serializer(key).data)

    @extend_schema(
        operation_id="revoke_key",
        summary="Revoke a key, for good",
        description="It ends at once; its entry stays in the list. 409 `conflict` for the last key with the scope "
        "`keys`. Needs the scope `keys`.",
        responses={204: None},
        tags=["keys"],
    )
    def destroy(self, request: Request, pk: str) -> Response:
        _, own = credentials(request)
        grants.revoke(self.get_object(), grants.Actor(request, own))
        return Response(status=204)

    @extend_schema(
        operation_id="rotate_key",
        summary="Replace a key",
        description="A new key with the same bounds, whose secret is shown in this answer and never again. The old one "
        "works for `overlap_seconds` more. 403 `permission_denied` where the key that asks has less than the rotated "
        "one; 409 `conflict` where that was replaced before, has expired or stands in the server's settings; 410 "
        "`revoked` where it is. Needs the scope `keys`.",
        request={"application/json": RotateKeySerializer},
        responses={201: NewKeySerializer},
        parameters=[LOCATION],
        tags=["keys"],
    )
    def rotate(self, request: Request, pk: str) -> Response:
        _, own = credentials(request)
        key = self.get_object()
        serializer = RotateKeySerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        fresh, secret = grants.rotate(key, grants.Actor(request, own), serializer.validated_data["overlap_seconds"])
        return self._made(fresh, secret)

    def _made(self, key: ApiKey, secret: str) -> Response:
        data = {"secret": "" if key.kind == ApiKey.Kind.ADDRESS else secret, **self.get_serializer(key).data}
        location = self.request.build_absolute_uri(reverse("key", args=[key.public_id]))
        headers = {"Location": location, "Cache-Control": "no-store"}
        return Response(data, status=201, headers=headers)
