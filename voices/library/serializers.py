"""What comes in and goes out at /voice/voices and /voice/quality: fields, bounds and messages."""

from __future__ import annotations

from typing import Any

from django.urls import reverse
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from voiceproject.web.api import PageParameters, SizedFileField, StrictSerializer, TextField
from voiceproject.web.names import tidy
from voices.engines.language_field import LanguageField
from voices.lexicons.serializers import LexiconIdField
from voices.library import consents, quality
from voices.library.models import Voice


class StatementField(TextField):
    """That the speaker agreed, in words."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            max_length=2000,
            help_text="Your statement that the speaker agreed to be cloned: who, and to what. Kept for good.",
            **kwargs,
        )

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        if text and not consents.is_statement(text):
            message = "State in a sentence that the speaker agreed, as in: Jane Doe agreed to have her voice cloned."
            raise serializers.ValidationError(message)
        return text


class QualitySerializer(serializers.Serializer):
    """How good a recording is to clone from."""

    duration_seconds = serializers.FloatField(help_text="Without silence at its ends")
    speech_ratio = serializers.FloatField(help_text="Share of the time in which somebody speaks, 0 to 1")
    snr_db = serializers.FloatField(help_text="Speech over noise, an estimate; 60 at most")
    clipping_ratio = serializers.FloatField(help_text="Share of samples in peaks that were cut off")
    sample_rate = serializers.IntegerField(help_text="Hz, as it was sent")
    bandwidth_hz = serializers.FloatField(help_text="The highest frequency with something in it")
    warnings = serializers.ListField(child=serializers.CharField(), help_text="What is poor, and what helps")


class CheckQualitySerializer(StrictSerializer):
    sample = SizedFileField(max_bytes_setting="MAX_UPLOAD_SIZE", help_text="3 to 60 s of speech. Nothing is kept.")


class AddSampleSerializer(StrictSerializer):
    sample = SizedFileField(
        max_bytes_setting="MAX_UPLOAD_SIZE",
        help_text="3 to 60 s of one person speaking, as wav, mp3, flac, ogg/opus, m4a/aac or webm.",
    )
    transcript = TextField(
        required=False, allow_blank=True, default="", max_length=2000, help_text="What is said in all of it."
    )
    consent = StatementField(required=False, allow_blank=True, default="")


MAX_TAGS, MAX_TAG_CHARACTERS = 20, 40
TAGS = f"All of them, up to {MAX_TAGS}; in a form separated by commas."
LEXICON = "A lexicon of yours, by which this voice speaks unless a request names another for a word."


class TagsField(serializers.ListField):
    """Words to find a voice by: a list in JSON, or a text with commas. Each is kept once, in whatever case."""

    def __init__(self, **kwargs: Any) -> None:
        child = TextField(max_length=MAX_TAG_CHARACTERS, allow_blank=True)
        super().__init__(child=child, max_length=MAX_TAGS, **kwargs)

    def to_internal_value(self, data: Any) -> list[str]:
        if isinstance(data, str):
            data = [data]
        if isinstance(data, list | tuple):
            data = [part for one in data for part in (one.split(",") if isinstance(one, str) else [one])]
        tags = [tidy(tag) for tag in super().to_internal_value(data)]
        return list({tag.casefold(): tag for tag in reversed(tags) if tag}.values())[::-1]


class CreateVoiceSerializer(AddSampleSerializer):
    name = TextField(max_length=100)
    description = TextField(required=False, allow_blank=True, default="", max_length=500)
    language = LanguageField(default="auto", help_text="What is spoken in the sample.")
    lexicon_id = LexiconIdField(help_text=LEXICON)
    tags = TagsField(required=False, help_text=TAGS)
    consent = StatementField()


class ChangeVoiceSerializer(StrictSerializer):
    name = TextField(required=False, max_length=100)
    description = TextField(required=False, allow_blank=True, max_length=500)
    language = LanguageField(required=False)
    lexicon_id = LexiconIdField(help_text=f"{LEXICON} null: none.")
    tags = TagsField(required=False, help_text=TAGS)
    transcript = TextField(
        required=False, allow_blank=True, max_length=2000, help_text="Of the only sample of a voice."
    )


class VoiceFilters(PageParameters):
    """Filters of the list of voices, from the query string."""

    q = TextField(required=False, max_length=200, help_text="Those with these words in their name, text or tags")
    tag = TextField(required=False, max_length=MAX_TAG_CHARACTERS, help_text="Those with this tag, in any case")
    sort = serializers.ChoiceField(
        ["newest", "name", "used"], required=False,
        help_text="The newest first, by their names, or the last used first",
    )  # fmt: skip


class StandingConsentSerializer(StrictSerializer):
    statement = StatementField()
    given_at = serializers.DateTimeField(read_only=True)


class VoiceSampleSerializer(serializers.Serializer):
    sample_id = serializers.UUIDField(source="id")
    duration_seconds = serializers.FloatField()
    transcript = serializers.CharField()
    quality = QualitySerializer()


class VoiceLinksSerializer(serializers.Serializer):
    self = serializers.URLField()
    sample = serializers.URLField(allow_null=True, help_text="All samples as engines hear them, FLAC")


class VoiceSerializer(serializers.ModelSerializer):
    """A saved voice. Its quality is that of its samples together."""

    voice_id = serializers.UUIDField(source="id")
    transcript = serializers.CharField(
        source="reference_transcript", help_text="What is said in all samples; empty unless each has its own"
    )
    quality = serializers.SerializerMethodField()
    tags = serializers.ListField(child=serializers.CharField())
    lexicon_id = serializers.UUIDField(allow_null=True)
    samples = VoiceSampleSerializer(many=True)
    links = serializers.SerializerMethodField()

    class Meta:
        model = Voice
        fields = ("voice_id", "name", "description", "language", "tags", "lexicon_id", "transcript", "created_at",
                  "updated_at", "used_at", "taken_down_at", "quality", "samples", "links")  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(QualitySerializer)
    def get_quality(self, voice: Voice) -> dict[str, Any]:
        return quality.together([sample.quality for sample in voice.samples.all()])

    @extend_schema_field(VoiceLinksSerializer)
    def get_links(self, voice: Voice) -> dict[str, str | None]:
        def link(name: str) -> str:
            uri: str = self.context["request"].build_absolute_uri(reverse(name, args=[voice.pk]))
            return uri

        return {"self": link("voice"), "sample": None if voice.taken_down_at else link("voice-sample")}
