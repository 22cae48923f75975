"""Pronunciation dictionaries: lexicons in ElevenLabs' shape. Where nothing else is said, case counts there."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.http.response import HttpResponseBase
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from voiceproject.web.api import SizedFileField, TextField
from voices.compat.common import invalid
from voices.compat.elevenlabs.base import NO_LIMIT, USERS_OF_VOICES, ElevenLabsView, number
from voices.compat.schema import FLAG, TEXT, WHOLE, files, listed, maybe, optional, query, shape, texts
from voices.lexicons import entries as entry_rules
from voices.lexicons import pls, stored
from voices.lexicons.api import pls_response
from voices.lexicons.models import Lexicon, LexiconVersion
from voices.text.lexicon import Entry
from voices.text.pronunciation import RESPELLING

SORTS = {"creation_time_unix": "created_at", "name": "name"}
MAX_LOCATORS = 3


class LocatorSerializer(serializers.Serializer):
    pronunciation_dictionary_id = serializers.CharField(max_length=100)
    version_id = serializers.CharField(required=False, allow_null=True, allow_blank=True, max_length=100)


class LocatorsField(serializers.ListField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(child=LocatorSerializer(), required=False, allow_null=True, max_length=MAX_LOCATORS, **kwargs)


def located(locators: Sequence[dict[str, Any]] | None) -> list[stored.Named]:
    """The lexicons that locators name, with their versions. Raises PublicError not_found for what is no id."""
    found: list[stored.Named] = []
    for one in locators or ():
        version = one.get("version_id")
        try:
            pk = uuid.UUID(one["pronunciation_dictionary_id"])
            found.append((pk, uuid.UUID(version) if version else None))
        except ValueError:
            raise stored.not_found(field="pronunciation_dictionary_locators") from None
    return found


def entry_of(rule: Any) -> Any:
    """A rule as voices.lexicons.entries.check takes it; what is no rule stays as it is."""
    if not isinstance(rule, dict):
        return rule
    phoneme = rule.get("type") == "phoneme" or (rule.get("type") is None and "phoneme" in rule)
    if rule.get("type") not in (None, "alias", "phoneme"):
        raise invalid("rules", f'"{str(rule["type"])[:50]}" is no type of a rule: alias, phoneme.')
    case, boundaries = rule.get("case_sensitive"), rule.get("word_boundaries")
    return {
        "word": rule.get("string_to_replace"),
        "say": rule.get("phoneme") if phoneme else rule.get("alias"),
        "alphabet": rule.get("alphabet") or "ipa" if phoneme else RESPELLING,
        "case_sensitive": True if case is None else case,
        "whole_word": True if boundaries is None else boundaries,
    }


def rule_of(entry: Entry) -> dict[str, Any]:
    how = {"alias": entry.say} if entry.alphabet == RESPELLING else {"phoneme": entry.say, "alphabet": entry.alphabet}
    return {"type": next(iter(how)), "string_to_replace": entry.word, "case_sensitive": entry.case_sensitive,
            "word_boundaries": entry.whole_word, **how}  # fmt: skip


def _rules(request: Request) -> list[Entry]:
    sent = request.data.get("rules") if isinstance(request.data, dict) else None
    if not isinstance(sent, list):
        raise invalid("rules", "Must be a list of rules.")
    return entry_rules.check([entry_of(rule) for rule in sent], "rules", repeated=True).checked("rules")


def _entries(lexicon: Lexicon) -> list[Entry]:
    return [Entry(**row) for row in stored.newest(lexicon).entries]


def _shown(lexicon: Lexicon) -> dict[str, Any]:
    archived = lexicon.archived_at
    return {"id": str(lexicon.pk), "latest_version_id": str(lexicon.version_id),
            "latest_version_rules_num": lexicon.entries_count, "name": lexicon.name, "permission_on_resource": "admin",
            "created_by": str(lexicon.tenant_id), "creation_time_unix": int(lexicon.created_at.timestamp()),
            "archived_time_unix": int(archived.timestamp()) if archived else None,
            "description": lexicon.description or None}  # fmt: skip


def _added(lexicon: Lexicon) -> dict[str, Any]:
    told = _shown(lexicon)
    version, count = told.pop("latest_version_id"), told.pop("latest_version_rules_num")
    return {**told, "version_id": version, "version_rules_num": count}


class NamedSerializer(serializers.Serializer):
    name = TextField(max_length=100)
    description = TextField(required=False, allow_blank=True, allow_null=True, max_length=500)


class FileSerializer(NamedSerializer):
    file = SizedFileField(required=False, max_bytes_setting="MAX_UPLOAD_SIZE")


class ChangeSerializer(serializers.Serializer):
    name = TextField(required=False, allow_null=True, max_length=100)
    archived = serializers.BooleanField(required=False, allow_null=True)


OF_ALL: dict[str, Any] = {
    "id": TEXT, "name": TEXT, "permission_on_resource": TEXT, "created_by": TEXT, "creation_time_unix": WHOLE,
    "archived_time_unix": maybe(WHOLE), "description": maybe(TEXT),
}  # fmt: skip
NEWEST: dict[str, Any] = {"latest_version_id": TEXT, "latest_version_rules_num": WHOLE}
VERSION: dict[str, Any] = {"version_id": TEXT, "version_rules_num": WHOLE}
RULE: dict[str, Any] = {"string_to_replace": TEXT, "type": TEXT, "alias": optional(TEXT), "phoneme": optional(TEXT),
                        "alphabet": optional(TEXT)}  # fmt: skip
SENT_RULES = listed(shape("Rule", **RULE, case_sensitive=optional(FLAG), word_boundaries=optional(FLAG))
)  # fmt: skip
RULES = shape("SetRules", rules=SENT_RULES)
STRINGS = shape("RemoveRules", rule_strings=texts())
ADD_RULES = shape("AddFromRules", name=TEXT, description=optional(TEXT), rules=SENT_RULES)
CHANGED = shape("ChangedRules", id=TEXT, **VERSION)
ADDED, SHOWN = shape("AddedDictionary", **OF_ALL, **VERSION), shape("Dictionary", **OF_ALL, **NEWEST)
WITH_RULES = shape(
    "DictionaryWithRules", **OF_ALL, **NEWEST,
    rules=listed(shape("ShownRule", **RULE, case_sensitive=FLAG, word_boundaries=FLAG)),
)  # fmt: skip


class AddFromFileView(ElevenLabsView):
    tag = "Pronunciation dictionaries"
    required_scope = "voices"

    def get_max_body_bytes(self) -> int:
        return int(settings.MAX_UPLOAD_SIZE)

    @extend_schema(
        summary="A dictionary of a file (PLS)", request={"multipart/form-data": FileSerializer}, responses=ADDED
    )
    def post(self, request: Request) -> Response:
        serializer = FileSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        asked = serializer.validated_data
        entries: list[Entry] = []
        if "file" in asked:
            rows, _ = pls.read(asked["file"].read(pls.MAX_BYTES + 1))
            rows = [{"case_sensitive": True, **row} for row in rows]
            entries = entry_rules.check(rows, "file", repeated=True).checked("file")
        name, description = asked["name"], asked.get("description") or ""
        return Response(_added(stored.create(request, entries, name=name, description=description)))


class AddFromRulesView(ElevenLabsView):
    tag = "Pronunciation dictionaries"
    required_scope = "voices"

    @extend_schema(summary="A dictionary of rules", request={"application/json": ADD_RULES}, responses=ADDED)
    def post(self, request: Request) -> Response:
        serializer = NamedSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        asked = serializer.validated_data
        entries = _rules(request)
        name, description = asked["name"], asked.get("description") or ""
        return Response(_added(stored.create(request, entries, name=name, description=description)))


class DictionariesView(ElevenLabsView):
    """In pages; the cursor is how many came before."""

    tag = "Pronunciation dictionaries"
    required_scope = USERS_OF_VOICES

    @extend_schema(
        summary="Your dictionaries, in pages",
        responses=shape(
            "Dictionaries", pronunciation_dictionaries=listed(SHOWN),
            has_more=FLAG, next_cursor=maybe(TEXT),
        ),
        parameters=[
            query("page_size", "1 to 100", int, default=30),
            query("cursor", "Of the page before"),
            query("sort", "By what", enum=list(SORTS), default="creation_time_unix"),
            query("sort_direction", "Either way", enum=["asc", "desc"], default="desc"),
            query("include_archived", "Those too that were put away", bool, default=False),
        ],
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        query = request.query_params
        size = number(query.get("page_size") or "30", "page_size", 1, 100)
        start = number(query.get("cursor") or "0", "cursor", 0, NO_LIMIT)
        sort = query.get("sort") or "creation_time_unix"
        if sort not in SORTS:
            raise invalid("sort", f"Must be one of {', '.join(SORTS)}.")
        order = "" if (query.get("sort_direction") or "").lower().startswith("asc") else "-"
        found = Lexicon.objects.for_tenant(request.user).order_by(f"{order}{SORTS[sort]}", "pk")
        if (query.get("include_archived") or "false").lower() != "true":
            found = found.filter(archived_at=None)
        rows = list(found[start : start + size + 1])
        more = len(rows) > size
        return Response({"pronunciation_dictionaries": [_shown(row) for row in rows[:size]], "has_more": more,
                         "next_cursor": str(start + size) if more else None})  # fmt: skip


class DictionaryView(ElevenLabsView):
    tag = "Pronunciation dictionaries"

    @property
    def required_scope(self) -> Any:
        return USERS_OF_VOICES if self.request.method == "GET" else "voices"

    @extend_schema(summary="A dictionary with its rules", responses=WITH_RULES)
    def get(self, request: Request, name: str) -> Response:
        lexicon = stored.find(request.user, name)
        return Response({**_shown(lexicon), "rules": [rule_of(entry) for entry in _entries(lexicon)]})

    @extend_schema(
        summary="Name a dictionary anew, or put it away",
        request={"application/json": ChangeSerializer},
        responses=SHOWN,
    )
    def patch(self, request: Request, name: str) -> Response:
        lexicon = stored.find(request.user, name)
        serializer = ChangeSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        asked = serializer.validated_data
        changes: dict[str, Any] = {"name": asked["name"]} if asked.get("name") else {}
        if asked.get("archived") is not None:
            changes["archived_at"] = (lexicon.archived_at or timezone.now()) if asked["archived"] else None
        return Response(_shown(stored.change(lexicon, request, **changes) if changes else lexicon))


class RulesView(ElevenLabsView):
    """how: `set`, `add` or `remove`."""

    tag = "Pronunciation dictionaries"
    required_scope = "voices"
    how = "set"

    def answers(self) -> Any:
        return CHANGED

    def asks(self) -> Any:
        return {"application/json": STRINGS if self.how == "remove" else RULES}

    @extend_schema(summary="Change a dictionary's rules")
    def post(self, request: Request, name: str) -> Response:
        lexicon = stored.find(request.user, name)
        if self.how == "remove":
            words = request.data.get("rule_strings") if isinstance(request.data, dict) else None
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise invalid("rule_strings", "Must be a list of the strings to replace.")
            gone = set(words)
            entries = [entry for entry in _entries(lexicon) if entry.word not in gone]
        else:
            entries = _rules(request)
            if self.how == "add":
                added = {entry.word for entry in entries}
                entries = [*(entry for entry in _entries(lexicon) if entry.word not in added), *entries]
                if len(entries) > entry_rules.MAX_ENTRIES:
                    raise invalid("rules", f"A dictionary has at most {entry_rules.MAX_ENTRIES} rules.")
        changed = stored.change(lexicon, request, entries)
        return Response({"id": str(changed.pk), "version_id": str(changed.version_id),
                         "version_rules_num": changed.entries_count})  # fmt: skip


class DownloadView(ElevenLabsView):
    tag = "Pronunciation dictionaries"
    required_scope = USERS_OF_VOICES

    @extend_schema(summary="A version as a file (PLS)", responses=files(["application/pls+xml"], "The dictionary"))
    def get(self, request: Request, name: str, version: str) -> HttpResponseBase:
        lexicon = stored.find(request.user, name)
        try:
            found = LexiconVersion.objects.filter(lexicon=lexicon, pk=uuid.UUID(version)).first()
        except ValueError:
            found = None
        if found is None:
            raise stored.not_found("There is no such version, or it is too old and gone.", "version_id")
        return pls_response(found)
