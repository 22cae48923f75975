"""The OpenAPI documents of the other services' routes: what their views say, and errors in their shapes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema_field, inline_serializer
from rest_framework import serializers
from rest_framework.response import Response

from voiceproject.errors import STATUS_OF_CODE
from voiceproject.web.schema import EnvelopeSchema, Tree, example_error

XI_API_KEY = {"type": "apiKey", "in": "header", "name": "xi-api-key"}
BEARER = {"type": "http", "scheme": "bearer"}
X_API_KEY = {"type": "apiKey", "in": "header", "name": "X-API-Key"}

OPENAI = Tree(
    "openai", "Voice cloning for clients of OpenAI",
    "The routes of OpenAI's API that are served here, as its clients see them. `voice` is the id or the name of a "
    "saved voice, an alias, or a preset.",
    base="/v1", security={"Bearer": BEARER},
)  # fmt: skip
ELEVENLABS = Tree(
    "elevenlabs", "Voice cloning for clients of ElevenLabs",
    "The routes of ElevenLabs' API that are served here, as its clients see them. `voice_id` is the id or the name of "
    "a saved voice, an alias, or a preset. Its WebSockets are in the documentation: OpenAPI has no words for them.",
    security={"XiApiKey": XI_API_KEY, "Bearer": BEARER},
)  # fmt: skip
GPTSOVITS = Tree(
    "gptsovits", "Voice cloning for clients of GPT-SoVITS",
    "The routes of GPT-SoVITS' own servers, `api_v2.py` and the older `api.py`, that are served here. A reference is "
    "the id or the name of a saved voice, or a preset. The same routes are under `/gptsovits/<key>`, where the key is "
    "one of the kind `path`: clients that send no headers use that.",
    security={"ApiKey": X_API_KEY, "Bearer": BEARER},
)  # fmt: skip


class CompatSchema(EnvelopeSchema):
    """Ids of operations are made of their paths. Where one view has several routes, its `asks`, `queried` and `answers`
    say what each takes and gives, as `request`, `parameters` and `responses` of extend_schema do."""

    view: Any  # a CompatView

    def get_operation_id(self) -> str:
        path = self.path.removeprefix(f"/{self.view.tree}")
        words = re.sub(r"\{(\w+)\}", r"by_\1", re.sub(r"^/v1(?=/)", "", path))
        name = re.sub(r"\W+", "_", words).strip("_").lower()
        return f"{self.method.lower()}_{name or 'root'}"

    def get_tags(self) -> list[str]:
        return [self.view.tag]

    def _tree(self) -> Tree:
        return next(tree for tree in TREES if tree.name == self.view.tree)

    def get_auth(self) -> list[dict[str, list[str]]]:
        return [{name: []} for name in self._tree().security]

    def get_override_parameters(self) -> list[Any]:
        own = self.view.queried() if self.method == "GET" and hasattr(self.view, "queried") else []
        return [*own, *super().get_override_parameters()]

    def get_request_serializer(self) -> Any:
        return self.view.asks() if hasattr(self.view, "asks") else super().get_request_serializer()

    def get_response_serializers(self) -> Any:
        return self.view.answers() if hasattr(self.view, "answers") else super().get_response_serializers()

    def _statuses(self) -> set[int]:
        return super()._statuses() | {404}  # Voices and models are named in bodies and queries too.

    def _add_errors(self, bodies: dict[str, Any]) -> None:
        found: dict[str, dict[str, Any]] = {}
        for code, usual in STATUS_OF_CODE.items():
            if usual in self._statuses():
                response = Response(status=usual)
                value = self.view.render_error(example_error(code), response)
                found.setdefault(str(response.status_code), {})[code] = {"value": value}
        for status, examples in sorted(found.items()):
            serializer = self.view.error_serializers.get(int(status), self.view.error_serializer)
            body = self._get_response_for_code(serializer, status, ["application/json"])
            body["description"] = " or ".join(code.replace("_", " ").capitalize() for code in examples)
            body["content"]["application/json"]["examples"] = examples
            bodies.setdefault(status, body)


TREES = (OPENAI, ELEVENLABS, GPTSOVITS)


# --- What views say of their answers ---

TEXT, WHOLE, NUMBER, FLAG = serializers.CharField, serializers.IntegerField, serializers.FloatField, (
    serializers.BooleanField)  # fmt: skip


def maybe(kind: type[serializers.Field]) -> serializers.Field:
    """A field that may be null."""
    return kind(allow_null=True)


def of_schema(schema: dict[str, Any]) -> serializers.Field:
    """A field that is described by OpenAPI's own words."""
    field: serializers.Field = extend_schema_field(schema)(type("Described", (serializers.JSONField,), {}))()
    return field


def optional(kind: type[serializers.Field]) -> serializers.Field:
    return kind(required=False)


def anything() -> serializers.Field:
    """An object with fields of any names."""
    return serializers.DictField()


def texts() -> serializers.Field:
    return serializers.ListField(child=serializers.CharField())


def listed(one: serializers.Serializer, null: bool = False) -> Any:
    """A list of what `shape` has made."""
    return type(one)(many=True, allow_null=null)


def numbers() -> serializers.Field:
    return serializers.ListField(child=serializers.FloatField())


def shape(title: str, /, **fields: Any) -> Any:
    """An answer's schema: fields are kinds of fields or fields."""
    return inline_serializer(title, {name: kind() if callable(kind) else kind for name, kind in fields.items()})


def or_null(one: serializers.Serializer) -> Any:
    return type(one)(allow_null=True)


def files(types: Iterable[str], description: str = "The audio") -> dict[Any, Any]:
    return {(200, kind): OpenApiResponse(OpenApiTypes.BINARY, description=description) for kind in dict.fromkeys(types)}


def query(name: str, description: str, kind: Any = str, **more: Any) -> OpenApiParameter:
    return OpenApiParameter(name, kind, OpenApiParameter.QUERY, description=description, **more)


def header(name: str, description: str, kind: Any = str) -> OpenApiParameter:
    """Of a success."""
    return OpenApiParameter(name, kind, OpenApiParameter.HEADER, response=[200], description=description)
