"""What comes in and goes out at /voice/lexicons: fields, bounds and messages."""

from __future__ import annotations

from typing import Any

from django.urls import reverse
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from voiceproject.web.api import SizedFileField, StrictSerializer, TextField
from voices.engines.language_field import LanguageField
from voices.lexicons import entries as entry_rules
from voices.lexicons.models import Lexicon
from voices.text.languages import LANGUAGES
from voices.text.pronunciation import ALPHABETS

MAX_NAMED = 5  # lexicons in one request
NO_LEXICON_ID = "This is no id of a lexicon. GET /api/v1/voice/lexicons lists yours."


class EntrySerializer(serializers.Serializer):
    """How one word or phrase is said."""

    word = serializers.CharField(
        max_length=entry_rules.MAX_WORD_CHARACTERS, help_text="As it stands in texts: a word, or several."
    )
    say = serializers.CharField(max_length=entry_rules.MAX_SAY_CHARACTERS, help_text="How it is said, in the alphabet.")
    alphabet = serializers.ChoiceField(
        ALPHABETS,
        default="respelling",
        help_text="respelling: say is read as any text. pinyin: with tones.",
    )
    language = serializers.ChoiceField(
        ["", *LANGUAGES], default="", help_text="In whose sentences alone it counts; empty takes the lexicon's."
    )
    case_sensitive = serializers.BooleanField(default=False)
    whole_word = serializers.BooleanField(
        default=True, help_text="false matches inside words too. Han characters and kana always do."
    )


@extend_schema_field(EntrySerializer(many=True))
class EntriesField(serializers.Field):
    """A list of entries. Checked as a whole by voices.lexicons.entries, since there may be thousands."""

    def to_internal_value(self, data: Any) -> Any:
        return data

    def to_representation(self, value: Any) -> Any:
        return value


class LexiconIdField(serializers.UUIDField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, allow_null=True, error_messages={"invalid": NO_LEXICON_ID}, **kwargs)


class LexiconIdsField(serializers.ListField):
    """Several lexicons: a list in JSON; in a form sent several times, or separated by commas."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            child=serializers.UUIDField(error_messages={"invalid": NO_LEXICON_ID}),
            required=False, default=list, max_length=MAX_NAMED, **kwargs,
        )  # fmt: skip

    def to_internal_value(self, data: Any) -> list[Any]:
        if isinstance(data, str):
            data = [data]
        if isinstance(data, list | tuple):
            data = [part for one in data for part in (one.split(",") if isinstance(one, str) else [one]) if part]
        return list(super().to_internal_value(data))


def named(fields: dict[str, Any]) -> list[Any]:
    """The lexicons that a request's lexicon_id and lexicon_ids name, in their order."""
    first = [fields["lexicon_id"]] if fields.get("lexicon_id") else []
    return [(pk, None) for pk in dict.fromkeys([*first, *fields.get("lexicon_ids", ())])]


class ChangeLexiconSerializer(StrictSerializer):
    name = TextField(required=False, max_length=100)
    description = TextField(required=False, allow_blank=True, max_length=500)
    language = LanguageField(required=False, help_text="Of entries that name none; auto: they count in all.")
    is_default = serializers.BooleanField(
        required=False, help_text="true makes it count in all of your texts, in place of the one that did."
    )
    entries = EntriesField(required=False, help_text="All of them, up to 10000; in JSON of at most 1 MiB.")
    file = SizedFileField(
        required=False, max_bytes_setting="MAX_UPLOAD_SIZE",
        help_text="A W3C Pronunciation Lexicon (PLS) instead of entries; as multipart/form-data.",
    )  # fmt: skip

    def validate(self, fields: dict[str, Any]) -> dict[str, Any]:
        if "entries" in fields and "file" in fields:
            raise serializers.ValidationError({"file": ["Both entries and a file were sent; send one of them."]})
        return fields


class CreateLexiconSerializer(ChangeLexiconSerializer):
    name = TextField(max_length=100)
    description = TextField(required=False, allow_blank=True, default="", max_length=500)
    language = LanguageField(default="auto", help_text="Of entries that name none; auto: they count in all.")
    is_default = serializers.BooleanField(
        default=False, help_text="true makes it count in all of your texts, in place of the one that did."
    )

    def validate(self, fields: dict[str, Any]) -> dict[str, Any]:
        if "entries" not in fields and "file" not in fields:
            raise serializers.ValidationError({"entries": ["Send entries, or a PLS file."]})
        return super().validate(fields)


class LexiconLinksSerializer(serializers.Serializer):
    self = serializers.URLField()
    pls = serializers.URLField(help_text="Its entries as a W3C Pronunciation Lexicon")


class LexiconSerializer(serializers.ModelSerializer):
    """A lexicon without its entries."""

    lexicon_id = serializers.UUIDField(source="id")
    links = serializers.SerializerMethodField()

    class Meta:
        model = Lexicon
        fields = ("lexicon_id", "name", "description", "language", "is_default", "entries_count", "version_id",
                  "created_at", "updated_at", "links")  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(LexiconLinksSerializer)
    def get_links(self, lexicon: Lexicon) -> dict[str, str]:
        def link(name: str) -> str:
            uri: str = self.context["request"].build_absolute_uri(reverse(name, args=[lexicon.pk]))
            return uri

        return {"self": link("lexicon"), "pls": link("lexicon-pls")}


class WholeLexiconSerializer(LexiconSerializer):
    """A lexicon with its entries."""

    entries = EntrySerializer(many=True)
    warnings = serializers.ListField(
        child=serializers.CharField(),
        help_text="Of what was sent: what does not count, and sounds that only come near",
    )

    class Meta(LexiconSerializer.Meta):
        fields = (*LexiconSerializer.Meta.fields, "entries", "warnings")  # type: ignore[assignment]
        read_only_fields = fields  # type: ignore[assignment]
