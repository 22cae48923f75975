"""/api/v1/voice/normalize: what will be spoken of a text, without speaking it."""

from __future__ import annotations

from typing import ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from voiceproject.web.api import BodyLimitMixin, StrictSerializer, TextField
from voices.engines import configured
from voices.engines.configured import check_language
from voices.keys.auth import credentials
from voices.lexicons.serializers import LexiconIdField, LexiconIdsField, named
from voices.lexicons.stored import for_text
from voices.library import selection
from voices.library.serializers import LanguageField
from voices.speech.serializers import MAX_TEXT_CHARACTERS, NO_VOICE_ID, WarningSerializer, as_field_error
from voices.text.pronunciation import shown
from voices.text.reading import LETTERS, read


class NormalizeSerializer(StrictSerializer):
    text = TextField(max_length=MAX_TEXT_CHARACTERS, help_text="As in a synthesis")
    language = LanguageField(default="auto", help_text="As in a synthesis")

    lexicon_id = LexiconIdField(help_text="As in a synthesis")
    lexicon_ids = LexiconIdsField(help_text="As in a synthesis")
    voice_id = serializers.UUIDField(
        required=False, allow_null=True, error_messages={"invalid": NO_VOICE_ID}, help_text="Whose lexicon counts"
    )

    def validate_language(self, language: str) -> str:
        with as_field_error():
            return check_language("language", language)


class SpokenSerializer(serializers.Serializer):
    text = serializers.CharField(help_text="As it was written, without markup")
    language = serializers.CharField()
    words = serializers.CharField(
        help_text="What is said; between slashes in letters of an alphabet; empty for a pause in front of everything"
    )
    end = serializers.CharField(help_text="What it ends: none, clause, sentence or paragraph")
    rate = serializers.FloatField(help_text="2 is twice as fast as the request's speed")
    pause_seconds = serializers.FloatField(help_text="The exact pause behind it that the text asks for")


class NormalizedSerializer(serializers.Serializer):
    sentences = SpokenSerializer(many=True)
    warnings = WarningSerializer(many=True, help_text="What was left out, or guessed")


class NormalizeView(BodyLimitMixin, APIView):
    required_scope = "synthesize"
    error_statuses: ClassVar = {"post": (404, 410)}  # of the lexicon, of the voice

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
        tenant, _ = credentials(request)
        voice = selection.find(tenant, fields["voice_id"]) if fields.get("voice_id") else None
        lexicon = for_text(fields["text"], tenant, named(fields), voice.lexicon_id if voice else None)
        reading = read(
            fields["text"], fields["language"], engine.languages - {"auto"},
            lexicon=lexicon, letters=getattr(engine, "letters", LETTERS),
        )  # fmt: skip
        sentences = [{**vars(sentence), "words": shown(sentence.words)} for sentence in reading.sentences]
        return Response(NormalizedSerializer({"sentences": sentences, "warnings": reading.notices}).data)
