"""What ElevenLabs' routes share: keys, errors in its shape, output formats."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from voiceproject.errors import PublicError
from voiceproject.media.formats import Output
from voiceproject.web.errors import sendable
from voices.compat.common import CompatView, UnknownPathMixin, invalid
from voices.compat.schema import TEXT, files, header, listed, maybe, numbers, of_schema, or_null, query, shape, texts
from voices.keys.auth import ApiKeyAuthentication

OUTPUTS = {
    **{f"mp3_{rate}_{kbps}": Output("mp3", rate, kbps)
       for rate, kbps in ((22_050, 32), (24_000, 48), *((44_100, kbps) for kbps in (32, 64, 96, 128, 192)))},
    **{f"pcm_{rate}": Output("pcm", rate) for rate in (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)},
    **{f"wav_{rate}": Output("wav", rate) for rate in (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)},
    **{f"opus_48000_{kbps}": Output("opus", 48_000, kbps) for kbps in (32, 64, 96, 128, 192)},
    "ulaw_8000": Output("ulaw", 8_000),
    "alaw_8000": Output("alaw", 8_000),
}  # fmt: skip
OUTPUT_NAMES = {output: name for name, output in OUTPUTS.items()}
DEFAULT_OUTPUT = "mp3_44100_128"
# Vercel's SDK and others send a format's bare name.
SHORT_OUTPUTS = {"mp3": DEFAULT_OUTPUT, "opus": "opus_48000_64", "pcm": "pcm_24000", "wav": "wav_24000",
                 "ulaw": "ulaw_8000", "alaw": "alaw_8000"}  # fmt: skip
NO_LIMIT = 2**31 - 1
TEMPERATURE_A_STABILITY = 0.9  # stability 0 is temperature 1.0, stability 1 is 0.1
USERS_OF_VOICES = ("voices", "synthesize", "covers")  # scopes that may see voices

ERROR_TYPES = {
    400: "validation_error",
    401: "authentication_error",
    403: "authorization_error",
    404: "not_found",
    409: "conflict",
    413: "validation_error",
    429: "rate_limit_error",
}
ERROR_CODES = {
    "missing_api_key": "needs_authorization",
    "rate_limited": "rate_limit_exceeded",
    "too_many_jobs": "concurrent_limit_exceeded",
    "too_many_waiting": "concurrent_limit_exceeded",
    "engine_busy": "system_busy",
    "permission_denied": "missing_permissions",
}


class ElevenLabsAuthentication(ApiKeyAuthentication):
    """`xi-api-key: <key>`, or as our own API takes it."""

    def authenticate(self, request: Request) -> Any:
        if key := request.META.get("HTTP_XI_API_KEY"):
            request.META["HTTP_X_API_KEY"] = key
        return super().authenticate(request)


ERROR = shape("Error", detail=shape(
    "ErrorDetail", type=TEXT, code=TEXT, message=TEXT, status=TEXT, request_id=TEXT, param=maybe(TEXT)
))  # fmt: skip
LOCATION = {"type": "array", "items": {"oneOf": [{"type": "string"}, {"type": "integer"}]}}
VALIDATION_ERROR = shape("HTTPValidationError", detail=listed(shape(
    "ValidationError", loc=of_schema(LOCATION), msg=TEXT, type=TEXT
)))  # fmt: skip


class ElevenLabsView(CompatView):
    authentication_classes = (ElevenLabsAuthentication,)
    field_names = {"sample": "files"}
    tree = "elevenlabs"
    error_serializer = ERROR
    error_serializers = {422: VALIDATION_ERROR}

    def render_error(self, error: PublicError, response: Response) -> dict[str, Any]:
        request_id = str(getattr(self.request._request, "request_id", ""))
        response["request-id"] = request_id
        if error.code == "validation_error":
            # Its clients have an exception of its own for it, whose body is typed so.
            response.status_code = 422
            return {"detail": list(self._problems(self.refused or error.details)) or [problem(["body"], error.message)]}
        if error.code == "quota_exceeded":
            # As there. Their clients repeat a 429 once its Retry-After is over, which is of no use here.
            response.status_code = 401
        return error_detail(error, request_id, self.param(error), self.message(error))

    def _problems(self, found: Any, place: tuple[str | int, ...] = ()) -> Iterator[dict[str, Any]]:
        """REST framework's tree of messages as a list, each with where it belongs."""
        if isinstance(found, dict):
            for name, inner in found.items():
                yield from self._problems(inner, (*place, *self._steps(name, first=not place)))
        elif isinstance(found, (list, tuple)) and any(isinstance(inner, dict) for inner in found):
            for number, inner in enumerate(found):
                yield from self._problems(inner, (*place, number))
        else:
            for text in found if isinstance(found, (list, tuple)) else [found]:
                yield problem([*(place or ("body",))], sendable(text))

    def _steps(self, name: Any, *, first: bool) -> list[str | int]:
        """`turns[1].text` as the steps that lead there, the first of which says in what part of the request."""
        if isinstance(name, int):
            return [name]
        field = self.name_of(sendable(name))
        steps: list[str | int] = [
            int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", field or "")
        ]
        if not first:
            return steps
        queried = self.request.method in ("GET", "HEAD") or (steps and steps[0] in self.request.query_params)
        return ["path" if steps and steps[0] in self.kwargs else "query" if queried else "body", *steps]

    def output(self, request: Request, *, streamed: bool) -> Output:
        return output_of(request.query_params, streamed=streamed)


def problem(place: list[str | int], message: str) -> dict[str, Any]:
    return {"loc": place, "msg": message, "type": "value_error"}


def error_detail(error: PublicError, request_id: str, param: str | None = None, message: str = "") -> dict[str, Any]:
    """The body of an error. param: the field that it is about, by its name there."""
    kind = ERROR_TYPES.get(error.status, "invalid_request" if error.status < 500 else "internal_error")
    code = error_code(error)
    detail = {"type": kind, "code": code, "message": message or error.message, "status": code, "request_id": request_id,
              "param": param}  # fmt: skip
    return {"detail": detail}


def error_code(error: PublicError) -> str:
    if error.code == "not_found" and "voice_id" in error.details:
        return "voice_not_found"
    return ERROR_CODES.get(error.code, error.code)


def output_of(query: Mapping[str, str], *, streamed: bool) -> Output:
    """The format that `output_format` of a query names. Raises ValidationError."""
    name = query.get("output_format") or DEFAULT_OUTPUT
    name = SHORT_OUTPUTS.get(name, name)
    if name not in OUTPUTS or (streamed and name.startswith("wav_")):
        known = [known for known in OUTPUTS if not (streamed and known.startswith("wav_"))]
        raise invalid("output_format", f"Must be one of {', '.join(known)}.")
    return OUTPUTS[name]


class UnknownPathView(UnknownPathMixin, ElevenLabsView):
    pass


class WebSocketOnlyView(UnknownPathMixin, ElevenLabsView):
    """What is asked for by an ordinary request, and is a WebSocket. Mostly a proxy has taken the handshake apart."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        raise PublicError(
            "not_found",
            "This is a WebSocket: connect with ws:// or wss://. A proxy in between must speak HTTP/1.1 and pass on "
            "Upgrade and Connection.",
        )

    def render_error(self, error: PublicError, response: Response) -> dict[str, Any]:
        response.status_code = 426
        response["Upgrade"] = "websocket"
        return super().render_error(error, response)


# --- What the document says of answers ---

DONE = shape("Done", status=TEXT)
OUTPUT_FORMAT = query(
    "output_format", "Codec, rate and bit rate. Not all are streamed: WAV is not.", enum=list(OUTPUTS),
    default=DEFAULT_OUTPUT,
)  # fmt: skip
AUDIO = files(output.content_type for output in OUTPUTS.values())
AUDIO_HEADERS = [
    header("request-id", "The request's id, as in the server's log"),
    header("history-item-id", "Under which it is in the history"),
    header("character-cost", "Characters that were spoken", int),
]
ALIGNMENT = or_null(shape(
    "Alignment", characters=texts(), character_start_times_seconds=numbers(),
    character_end_times_seconds=numbers(),
))  # fmt: skip


def number(text: str, field: str, least: int, most: int) -> int:
    if not re.fullmatch(r"\d{1,10}", text) or not least <= int(text) <= most:
        raise invalid(field, f"Must be a number from {least} to {most}.")
    return int(text)
