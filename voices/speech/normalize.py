"""/api/v1/voice/normalize: what will be spoken of a text, without speaking it."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from voiceproject.web.api import BodyLimitMixin, StrictSerializer, TextField
from voices.engines import configured
from voices.engines.configured import check_language
from voices.library.serializers import LanguageField
from voices.speech.serializers import MAX_TEXT_CHARACTERS, WarningSerializer, as_field_error
from voices.text.reading import read


class NormalizeSerializer(StrictSerializer):
    text = TextField(max_length=MAX_TEXT_CHARACTERS, help_text="As in a synthesis")
    language = LanguageField(default="auto", help_text="As in a synthesis")

    def validate_language(self, language: str) -> str:
        with as_field_error():
            return check_language("language", language)


class SpokenSerializer(serializers.Serializer):
    text = serializers.CharField(help_text="As it was written, without markup")
    language = serializers.CharField()
    words = serializers.CharField(help_text="What is said; empty for a pause in front of everything")
    end = serializers.CharField(help_text="What it ends: none, clause, sentence or paragraph")
    rate = serializers.FloatField(help_text="2 is twice as fast as the request's speed")
    pause_seconds = serializers.FloatField(help_text="The exact pause behind it that the text asks for")


class NormalizedSerializer(serializers.Serializer):
    sentences = SpokenSerializer(many=True)
    warnings = WarningSerializer(many=True, help_text="What was left out, or guessed")


class NormalizeView(BodyLimitMixin, APIView):
    required_scope = "synthesize"

    @extend_schema(
        operation_id="normalize_text",
        summary="What will be spoken of a text",
        description="Sentence by sentence, in words, with the language of each. Nothing is spoken, and nothing spent.",
        request={"application/json": NormalizeSerializer},
        responses=NormalizedSerializer,
        tags=["voice"],
    )
    def post(self, request: Request) -> Response:
        serializer = NormalizeSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        fields = serializer.validated_data
        engine = configured.get_engine()
        reading = read(fields["text"], fields["language"], engine.languages - {"auto"})
        return Response(NormalizedSerializer({"sentences": reading.sentences, "warnings": reading.notices}).data)
