"""/api/v1/voice/aliases: names of the tenant's own for its voices."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from voiceproject.errors import PublicError
from voiceproject.web.api import BodyLimitMixin, StrictSerializer, TextField
from voices.library import speakers
from voices.library.models import MAX_VOICE_NAME, VoiceAlias


class GiveAliasSerializer(StrictSerializer):
    alias = TextField(max_length=MAX_VOICE_NAME, help_text="Such as alloy, or what a client has built in. Any case.")
    voice = TextField(max_length=MAX_VOICE_NAME, help_text="A saved voice's id or name, or a preset's name.")


class AliasSerializer(serializers.ModelSerializer):
    voice_id = serializers.UUIDField(allow_null=True, help_text="null where a preset speaks")
    voice_name = serializers.SerializerMethodField()
    preset = serializers.SerializerMethodField()

    class Meta:
        model = VoiceAlias
        fields = ("alias", "voice_id", "voice_name", "preset")

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_voice_name(self, row: VoiceAlias) -> str | None:
        return row.voice.name if row.voice else None

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_preset(self, row: VoiceAlias) -> str | None:
        return row.preset or None


class AliasListSerializer(serializers.Serializer):
    aliases = AliasSerializer(many=True)


class AliasesView(BodyLimitMixin, APIView):
    required_scope = "voices"
    error_statuses: ClassVar = {"put": (404, 409, 410)}

    @extend_schema(
        operation_id="list_voice_aliases",
        summary="Your names for voices",
        responses=AliasListSerializer,
        tags=["voices"],
    )
    def get(self, request: Request) -> Response:
        return Response({"aliases": AliasSerializer(speakers.aliases(request.user), many=True).data})

    @extend_schema(
        operation_id="give_voice_alias",
        summary="Let a name mean a voice",
        description="`voice` of a synthesis, and the routes for other services' clients, take it as they take an id. "
        "It goes before saved voices' names and presets, so that `alloy` may be a voice of yours: for clients that "
        "offer a fixed list. It goes when its voice is deleted.",
        request={"application/json": GiveAliasSerializer},
        responses=AliasSerializer,
        tags=["voices"],
    )
    def put(self, request: Request) -> Response:
        serializer = GiveAliasSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        fields = serializer.validated_data
        return Response(AliasSerializer(speakers.give_alias(request, fields["alias"], fields["voice"])).data)


class AliasView(BodyLimitMixin, APIView):
    required_scope = "voices"

    @extend_schema(operation_id="remove_voice_alias", summary="Remove a name", responses={204: None}, tags=["voices"])
    def delete(self, request: Request, alias: str, **kwargs: Any) -> Response:
        if not speakers.remove_alias(request, alias):
            raise PublicError("not_found", "You have no such alias.")
        return Response(status=204)
