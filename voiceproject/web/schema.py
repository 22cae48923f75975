"""The OpenAPI documents: ours, where every operation lists the errors that it can answer, and those of other trees."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from rest_framework import serializers

from voiceproject.errors import STATUS_OF_CODE, PublicError, envelope


@dataclass(frozen=True)
class Tree:
    """Another service's routes, which have a document of their own. Its views name it in their `tree`,
    where None keeps one out of all documents.

    base: what stands between the tree's prefix and its paths; security: scheme -> its definition, each enough alone.
    """

    name: str
    title: str
    description: str
    base: str = ""
    security: dict[str, dict[str, str]] = field(default_factory=dict, hash=False)

    def finish(self, document: dict[str, Any], root: str) -> dict[str, Any]:
        """A document as the generator makes it, with paths below the server's. root: where the tree stands."""
        prefix = f"/{self.name}{self.base}"
        document["info"] |= {"title": self.title, "description": self.description}
        document["servers"] = [{"url": f"{root}{self.base}" or "/", "description": "This server"}]
        document["paths"] = {path.removeprefix(prefix) or "/": item for path, item in document["paths"].items()}
        used = {tag for item in document["paths"].values() for one in item.values() for tag in one["tags"]}
        document["tags"] = [{"name": tag, "description": f"{tag}."} for tag in sorted(used)]
        document.get("components", {})["securitySchemes"] = self.security
        return document


class DocumentGenerator(SchemaGenerator):  # type: ignore[misc] # drf-spectacular has no types
    """Of our own routes, or of those of a tree."""

    def __init__(self, *args: Any, tree: Tree | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tree = tree

    def _initialise_endpoints(self) -> None:
        super()._initialise_endpoints()
        name = self.tree.name if self.tree else ""
        every: list[Any] = list(self.endpoints or ())  # (path, its pattern, method, view)
        self.endpoints = [
            one for one in every if one[3].initkwargs.get("tree", getattr(one[3].cls, "tree", "")) == name
        ]


class ErrorSerializer(serializers.Serializer):
    success = serializers.BooleanField(help_text="Always false")
    error = serializers.CharField(help_text="A code for programs")
    message = serializers.CharField(help_text="A text for people")
    details = serializers.DictField(help_text="Depends on the code; for validation_error: field -> messages")


class EnvelopeSchema(AutoSchema):
    """Adds the error answers. A view names unusual ones in `error_statuses`: action or method -> statuses."""

    ALWAYS = (400, 401, 403, 405, 429, 500, 503)

    def get_description(self) -> str:  # type: ignore[override] # drf-spectacular calls it without arguments
        # Operations say what they do in extend_schema; a view's docstring is for who reads the code.
        return f"{self.get_summary()}." if self.get_summary() else ""

    def _statuses(self) -> set[int]:
        action = getattr(self.view, "action", "") or self.method.lower()
        statuses = set(self.ALWAYS)
        if not getattr(self.view, "authentication_classes", ()):
            statuses -= {401, 403, 429}
        statuses.update(getattr(self.view, "error_statuses", {}).get(action, ()))
        if self.method in ("POST", "PUT", "PATCH"):
            statuses |= {413, 415}
        if "{" in self.path:
            statuses.add(404)
        return statuses

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        self._add_errors(bodies)
        return bodies

    def _add_errors(self, bodies: dict[str, Any]) -> None:
        for status in sorted(self._statuses()):
            codes = [code for code, its_status in STATUS_OF_CODE.items() if its_status == status]
            if status == 400 and self.method != "POST":
                codes = ["validation_error"]
            body = self._get_response_for_code(ErrorSerializer, str(status), ["application/json"])
            body["description"] = "`error` is " + " or ".join(f"`{code}`" for code in codes)
            body["content"]["application/json"]["examples"] = {
                code: {"value": envelope(example_error(code))} for code in codes
            }
            bodies.setdefault(str(status), body)


# --- Examples: every request body and every JSON answer has one, made from its schema ---

# What a field of this name (or `object.name`) holds in an example, where its type alone would say too little.
VALUES: dict[str, Any] = {
    "text": "Hello, this is a test",
    "reference_text": "The transcript of the whole reference.",
    "lyrics": "",
    "consent": "I am Anna, and I agree that my voice is cloned here.",
    "transcript": "What is said in the whole of the sample.",
    "description": "Reads the news.",
    "language": "en",
    "reference_language": "en",
    "languages": ["en", "ja", "zh"],
    "speed": 1.0,
    "temperature": 0.7,
    "seed": 1234567890,
    "model_id": "default",
    "callback_url": "https://example.com/hooks/voice",
    "url": "https://example.com/hooks/voice",
    "status": "succeeded",
    "stage": "finalize",
    "progress": 100,
    "pitch_shift": 0,
    "preview_seconds": 20,
    "attempts": 1,
    "queue_position": None,
    "expected_start_at": None,
    "duration_seconds": 183.4,
    "sample_rate": 24000,
    "engine": "builtin",
    "engine.name": "builtin",
    "name": "Anna",
    "version": "0.1.0",
    "detail": "",
    "latency_ms": 3.2,
    "sovits_available": False,
    "database": "ok",
    "broker": "ok",
    "storage": "ok",
    "workers": "1 alive",
    "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "create_key.secret": "vck_Zx3qVdUAaRkZ0bW1cXG2mQ9tT8pJ4sYhL6nE7fKoI5w",
    "rotate_key.secret": "vck_Zx3qVdUAaRkZ0bW1cXG2mQ9tT8pJ4sYhL6nE7fKoI5w",
    "rotate_key.overlap_seconds": 86400,
    "cancel_cover.status": "canceled",
    "cancel_synthesis.status": "canceled",
    "model.id": "default",
    "available": True,
    "input_kind": "mix",
    "operation": "synthesize",
    "username": "anna",
    "audio_seconds": 12.5,
    "speech_ratio": 0.92,
    "snr_db": 34.0,
    "bandwidth_hz": 8000,
    "warnings": [],
    "scope": "synthesize",
    "type": "cover.succeeded",
    "last_status": 200,
    "allowed_networks": ["203.0.113.0/24"],
    "requests_per_minute": 60,
    "max_concurrent_jobs": 4,
    "monthly_audio_seconds": 36000,
    "prefix": "vck_Zx3q",
    "next": None,
    "previous": None,
}
# Empty in the example of a job that ended well, and all that may be null in that of one that was just queued.
NOTHING = (
    "error", "error_message", "warning", "remix_of", "cancel", "retry", "last_error", "preview_start_seconds",
    "taken_down_at", "revoked_at", "next", "previous",
)  # fmt: skip
# Left out of a request's example, which should be taken as it stands: what needs more than the request itself, or that
# the engine makes use of it.
NOT_SENT = ("callback_url", "lyrics", "reference_text", "reference_language", "preview_seconds", "seed", "model_id",
            "instrumental")  # fmt: skip
FILES = ("reference_audio", "reference_voice")  # sent instead of voice_id
QUEUED: dict[str, Any] = {"status": "queued", "stage": "queued", "progress": 0, "attempts": 0, "queue_position": 1}
OF_FORMAT: dict[str, Any] = {
    "uuid": "7f3c1d0a-2b7e-4a43-9c55-2f6a1b0c9d11",
    "date-time": "2026-01-31T12:00:00Z",
    "date": "2026-01-31",
    "uri": "https://voice.example.com/api/v1/cover/jobs/7f3c1d0a-2b7e-4a43-9c55-2f6a1b0c9d11",
    "binary": "(the file)",
}
MESSAGES = {
    "validation_error": "speed: Ensure this value is less than or equal to 2.0.",
    "reference_too_short": "reference_audio is 2.10 s long; send 3 to 60 s of speech.",
    "missing_api_key": "No API key was sent. Send yours as X-API-Key, or as Authorization: Bearer.",
    "not_found": "There is nothing here, or it is not yours.",
}
DETAILS: dict[str, dict[str, Any]] = {
    "validation_error": {"speed": ["Ensure this value is less than or equal to 2.0."]},
    "invalid_audio": {"field": "reference_audio", "reason": "not_audio"},
    "reference_too_short": {
        "field": "reference_audio", "reason": "too_short", "found": 2.1, "minimum": 3.0, "maximum": 60.0,
    },
    "file_too_large": {"field": "song", "limit": 104857600, "found": 204857600},
    "permission_denied": {"scope": "covers"},
    "too_many_jobs": {"limit": 100, "found": 100},
}  # fmt: skip


def example_error(code: str) -> PublicError:
    return PublicError(code, MESSAGES.get(code, f"What happened, for people ({code.replace('_', ' ')})."),
                       DETAILS.get(code, {}))  # fmt: skip


METHODS = ("get", "post", "put", "patch", "delete", "head", "options", "trace")


def order_methods(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """A path's methods in one order: REST framework names them from a set, in another order in each process."""
    for path, item in result["paths"].items():
        result["paths"][path] = {name: item[name] for name in sorted(item, key=METHODS.index)}
    return result


def add_examples(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """A hook of drf-spectacular's, run over the whole document."""
    schemas = result.get("components", {}).get("schemas", {})
    for path in result["paths"].values():
        for operation in path.values():
            bodies = [("", operation.get("requestBody", {}))]
            bodies += [(status, body) for status, body in operation["responses"].items() if status.startswith("2")]
            for status, body in bodies:
                for content_type, content in body.get("content", {}).items():
                    if not status and content_type == "multipart/form-data":
                        _fill(schemas[content["schema"]["$ref"].rpartition("/")[2]])
                    told = "example" in content or "examples" in content
                    if not told and content_type in ("application/json", "multipart/form-data"):
                        example = _Example(schemas, sent=not status, queued=status == "202")
                        content["example"] = example.of(operation["operationId"], content["schema"])
    return result


def _fill(schema: dict[str, Any]) -> None:
    """Examples of the fields that a form must have: Swagger UI fills them in from there, field by field."""
    for name in schema.get("required", ()):
        if isinstance(VALUES.get(name), str) and "enum" not in schema["properties"][name]:
            schema["properties"][name]["examples"] = [VALUES[name]]


class _Example:
    """A value that is valid under a schema. sent: in a request; queued: of a job that was made this moment."""

    def __init__(self, schemas: dict[str, Any], sent: bool, queued: bool) -> None:
        self.schemas = schemas
        self.sent = sent
        self.queued = queued

    def of(self, path: str, schema: dict[str, Any]) -> Any:
        if "$ref" in schema:
            return self.of(path, self.schemas[schema["$ref"].rpartition("/")[2]])
        name = path.rpartition(".")[2]
        for several in ("allOf", "oneOf", "anyOf"):
            if several in schema:
                return self.of(path, next(part for part in schema[several] if part.get("type") != "null"))
        types = schema.get("type", "object" if "properties" in schema else "string")
        nullable = isinstance(types, list) and "null" in types
        kind = next(one for one in types if one != "null") if isinstance(types, list) else types
        if nullable and (self.queued or name in NOTHING):
            return QUEUED.get(name)
        value = (QUEUED if self.queued else {}).get(name, VALUES.get(path, VALUES.get(name, self)))
        if value is not self and self._fits(value, schema, kind, nullable):
            return value
        return schema["enum"][0] if "enum" in schema else self._of_type(name, schema, kind)

    @staticmethod
    def _is_sent(name: str, schema: dict[str, Any]) -> bool:
        """Of a request only what it needs, so that it can be tried as it stands; all of one that needs nothing."""
        fields, required = schema["properties"], schema.get("required")
        if name == "voice_id":
            return not any(file in fields for file in FILES)
        return name not in NOT_SENT and (not required or name in required or name in FILES)

    @staticmethod
    def _fits(value: Any, schema: dict[str, Any], kind: str, nullable: bool) -> bool:
        classes: dict[str, tuple[type, ...]] = {
            "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "array": (list,),
        }  # fmt: skip
        if value is None:
            return nullable
        if value and "$ref" in schema.get("items", {}):
            return False  # Of another field of this name: a list of values, not of objects.
        if isinstance(value, bool) != (kind == "boolean") or not isinstance(value, classes.get(kind, ())):
            return False
        return value in schema["enum"] if "enum" in schema else schema.get("format") != "uuid"

    def _of_type(self, name: str, schema: dict[str, Any], kind: str) -> Any:
        match kind:
            case "object":
                fields = schema.get("properties", {})
                wanted = [key for key in fields if not self.sent or self._is_sent(key, schema)]
                return {key: self.of(f"{name}.{key}", fields[key]) for key in wanted}
            case "array":
                return [self.of(name.removesuffix("s"), schema["items"])] if "items" in schema else []
            case "boolean":
                return schema.get("default", False)
            case "integer" | "number":
                return schema.get("default", schema.get("minimum", 0))
        return schema.get("default") or OF_FORMAT.get(
            schema.get("format", ""), "text" if schema.get("minLength") else ""
        )
