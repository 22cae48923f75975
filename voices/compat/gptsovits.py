"""GPT-SoVITS' own HTTP API under /gptsovits, for the clients of its `api_v2.py` and of the older `api.py`.

A reference is a saved voice here, by its id or name, and never a path: of what looks like one, the last part is taken
for a name. These clients send no key: see KeylessAuthentication. Not taken over: `/control`, uploads, references of one
request beside the voice's own (`prompt_text`, `aux_ref_audio_paths`), and what only its engine knows (`top_k`, ...).
"""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.urls import URLPattern, path, register_converter
from django.urls.converters import StringConverter
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from voiceproject.errors import PublicError
from voiceproject.media.formats import CONTENT_TYPES, Output, encode_file
from voiceproject.provenance.marks import mark_sent
from voices.compat import schema as docs
from voices.compat.common import (
    CompatView,
    Speaking,
    Transcoded,
    UnknownPathMixin,
    clamp_speed,
    model_id,
    recode,
    streaming_response,
)
from voices.compat.schema import NUMBER, WHOLE, files, optional, query, shape
from voices.engines import configured
from voices.keys.auth import KeylessAuthentication, credentials
from voices.keys.models import ApiKey
from voices.library import speakers
from voices.library.models import Voice
from voices.speech import registry
from voices.speech.models import DEFAULT_MODEL, EngineModel
from voices.speech.serializers import MAX_SEED, MAX_TEXT_CHARACTERS
from voices.text.languages import LANGUAGES, language_code

RAW_RATE = 32_000  # What a client of `raw` expects: it is told no rate, and the common models have this one.
OUTPUTS = {
    "wav": Output("wav"),
    "raw": Output("pcm", RAW_RATE),
    "ogg": Output("opus"),
    "aac": Output("aac"),
    # What its clients ask of programs in front of it.
    "auto": Output("wav"),
    "mp3": Output("mp3"),
    "flac": Output("flac"),
}
TYPES = {"raw": "audio/raw"}
# Its names of languages that ours do not have: those of mixed texts, which are the usual case here.
MIXED = {"中英混合": "zh", "粤英混合": "yue", "日英混合": "ja", "韩英混合": "ko", "多语种混合": "auto",
         "多语种混合(粤语)": "auto_yue"}  # fmt: skip
SUFFIX = re.compile(r"\.(wav|mp3|flac|ogg|opus|m4a|aac|webm)$", re.IGNORECASE)
STREAMING = {"0": False, "false": False, "": False, "1": True, "2": True, "3": True, "true": True}
# The fields of the two servers: the newer one's name, the older one's, and those of programs in front of them.
TEXT = ("text",)
LANGUAGE = ("text_lang", "text_language")
REFERENCE = ("ref_audio_path", "refer_wav_path", "refer_audio_path", "target_voice")
SPEED = ("speed_factor", "speed")


class PathKey(StringConverter):
    """A key of the kind `path` in a route, in capitals or not."""

    regex = r"[Vv][Cc][Pp]_[0-9A-Za-z]{1,100}"


register_converter(PathKey, PathKey.__name__)


class GptSovitsView(CompatView):
    """older: of `api.py`, whose errors have a code; at_root: it stands beside our own pages, if that is switched on."""

    authentication_classes = (KeylessAuthentication,)
    tree = "gptsovits"
    error_serializer = shape("Error", message=docs.TEXT, code=optional(WHOLE), Exception=optional(docs.TEXT))
    required_scope: ClassVar[str | None] = "synthesize"
    field_names = {"voice_id": "ref_audio_path", "language": "text_lang"}
    older = False
    at_root = False

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        if self.at_root and not settings.GPTSOVITS_COMPAT_AT_ROOT:
            raise PublicError("not_found", NOT_AT_ROOT)
        super().initial(request, *args, **kwargs)

    def render_error(self, error: PublicError, response: Response) -> dict[str, Any]:
        if error.status == 404 and "voice_id" in error.details:
            response.status_code = 400  # There a reference that is not there is a bad request.
        return told(self.message(error), response.status_code, older=self.older)

    def asked(self, request: Request) -> dict[str, Any]:
        """The fields of a query, a form or a JSON object."""
        source = request.query_params if request.method == "GET" else request.data
        if not hasattr(source, "items"):
            raise refused("", "The body must be a JSON object.")
        return {str(name): value for name, value in source.items() if value is not None}


NOT_AT_ROOT = (
    "GPT-SoVITS' requests are taken at /gptsovits (/gptsovits/tts, /gptsovits?refer_wav_path=...). The operator can "
    "have them taken here too, with GPTSOVITS_COMPAT_AT_ROOT=true."
)


def told(message: str, status: int, *, older: bool) -> dict[str, Any]:
    """An error as these servers write it."""
    return {"code": status, "message": message} if older else {"message": message}


def refused(field: str, message: str) -> PublicError:
    return PublicError("validation_error", f"{field}: {message}" if field else message, {field: [message]})


def first(asked: dict[str, Any], names: tuple[str, ...]) -> tuple[str, Any]:
    """The first of these fields that says something, and its value; else the first one, empty."""
    return next(((name, asked[name]) for name in names if asked.get(name) not in (None, "")), (names[0], ""))


def text_of(asked: dict[str, Any], names: tuple[str, ...]) -> str:
    name, value = first(asked, names)
    if not isinstance(value, str):
        raise refused(name, "Must be a text.")
    return value.strip()


def number_of(asked: dict[str, Any], names: tuple[str, ...]) -> float | None:
    name, value = first(asked, names)
    if value == "":
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise refused(name, "Must be a number.")
    return number


# --- the voice ---


def names_in(given: str) -> Iterator[str]:
    """What may be a voice's name in a reference: clients make paths of names, such as `./references/Anna.wav`."""
    if "\0" in given:
        return  # PostgreSQL would not even look for it.
    last = re.split(r"[/\\]", given)[-1].strip()
    yield from dict.fromkeys(name for name in (given, last, SUFFIX.sub("", last)) if name)


def speaker_of(tenant: Any, given: str, field: str = REFERENCE[0]) -> str | Voice:
    """As speakers.find. Raises PublicError not_found, revoked."""
    for name in names_in(given):
        try:
            return speakers.find(tenant, name)
        except PublicError as error:
            if error.code != "not_found":
                raise
    message = f"{field}: there is no saved voice {given[:100]!r}; take one of /speakers by id or name, never a path."
    raise PublicError("not_found", message, {"voice_id": [message]})


SUCCESS = shape("Success", message=docs.TEXT, code=optional(WHOLE))
NAMED = [query(name, "A saved voice, by id or name") for name in REFERENCE[:2]]


class SpeakersView(GptSovitsView):
    """`GET /speakers`: who may be named as the reference."""

    tag = "Voices"

    @extend_schema(
        summary="Who may be named as the reference",
        responses=docs.listed(shape("Speaker", name=docs.TEXT, voice_id=docs.TEXT)),
    )
    def get(self, request: Request, **kwargs: Any) -> Response:
        own = Voice.objects.for_tenant(request.user).filter(taken_down_at=None)
        saved = [{"name": voice.name, "voice_id": str(voice.pk)} for voice in own]
        return Response([*saved, *({"name": name.title(), "voice_id": name} for name in speakers.presets())])


class ChooseReferenceView(GptSovitsView):
    """`/change_refer` and `/set_refer_audio`: who speaks in this key's requests that name nobody."""

    tag = "Voices"

    @extend_schema(summary="Choose who speaks where a request names nobody", responses=SUCCESS, parameters=NAMED)
    def get(self, request: Request, **kwargs: Any) -> Response:
        tenant, key = credentials(request)
        asked = self.asked(request)
        name, _ = first(asked, REFERENCE)
        given = text_of(asked, REFERENCE)
        if not given:
            raise refused(name, "Is required.")
        voice = speaker_of(tenant, given, name)
        if not isinstance(voice, Voice):
            raise refused(name, "Must be a saved voice.")
        ApiKey.objects.filter(pk=key.pk).update(chosen_voice=voice.pk)
        return Response({"code": 0, "message": "Success"} if self.older else {"message": "success"})


class ChangeReferenceView(ChooseReferenceView):
    older = True

    @extend_schema(
        summary="Choose who speaks where a request names nobody",
        request={"application/json": shape("ChangeReference", **dict.fromkeys(REFERENCE[:2], optional(docs.TEXT)))},
        responses=SUCCESS,
    )
    def post(self, request: Request, **kwargs: Any) -> Response:
        return self.get(request, **kwargs)


# --- the model ---


def model_of(weights_path: str, field: str, current: str, tenant: Any) -> str:
    """The id of the model that has these weights, empty for the default. field: of EngineModel.

    A model is known by its paths there, by a file's name, or by its own id. Where several have the weights, the one
    that is chosen already stays. Raises PublicError validation_error.
    """
    last = re.split(r"[/\\]", weights_path.strip())[-1]
    stem = last.rpartition(".")[0] or last
    offered = [model["id"] for model in registry.models(tenant.pk) if "synthesis" in model["uses"]]
    rows = EngineModel.objects.for_tenant(tenant.pk).filter(engine=configured.get_engine().name, enabled=True)
    found = [
        row.model_id
        for row in rows
        if (weights := getattr(row, field)) and last in (weights, re.split(r"[/\\]", weights)[-1])
    ]
    found += [name for name in (weights_path, last, stem) if name in offered]
    if "pretrained" in weights_path:
        found.append(DEFAULT_MODEL)
    usable = [name for name in found if name in offered]
    if not usable:
        raise refused("weights_path", f"No model has these weights; the models are: {', '.join(offered)}.")
    chosen = current if current in usable else usable[0]
    return "" if chosen == DEFAULT_MODEL else chosen


class ChooseModelView(GptSovitsView):
    """`/set_gpt_weights` and `/set_sovits_weights`: the model of this key's next requests. field: of EngineModel."""

    tag = "Models"
    field = ""
    what = ""

    @extend_schema(
        summary="Choose the model of this key's next requests", responses=SUCCESS,
        parameters=[query("weights_path", "A path, file or id that the console has for a model", required=True)],
    )  # fmt: skip
    def get(self, request: Request, **kwargs: Any) -> Response:
        tenant, key = credentials(request)
        path = text_of(self.asked(request), ("weights_path",))
        if not path:
            raise refused("", f"{self.what} weight path is required")
        chosen = model_of(path, self.field, key.chosen_model, tenant)
        ApiKey.objects.filter(pk=key.pk).update(chosen_model=chosen)
        return Response({"message": "success"})

    def render_error(self, error: PublicError, response: Response) -> dict[str, Any]:
        if error.code == "validation_error" and "weights_path" in error.details:
            return {"message": f"change {self.what} weight failed", "Exception": error.message}
        return super().render_error(error, response)


WEIGHTS = {"gpt_model_path": "gpt_weights", "sovits_model_path": "sovits_weights"}


class SetModelView(GptSovitsView):
    """`/set_model` of api.py: both weights at once."""

    tag = "Models"
    older = True

    @extend_schema(
        summary="Choose the model of this key's next requests", responses=SUCCESS,
        parameters=[query(name, "A path or file that the console has for a model", required=True) for name in WEIGHTS],
    )  # fmt: skip
    def get(self, request: Request, **kwargs: Any) -> Response:
        tenant, key = credentials(request)
        asked = self.asked(request)
        chosen = key.chosen_model
        for name, field in WEIGHTS.items():
            path = text_of(asked, (name,))
            if not path:
                raise refused(name, "Is required.")
            chosen = model_of(path, field, chosen, tenant)
        ApiKey.objects.filter(pk=key.pk).update(chosen_model=chosen)
        return Response({"code": 0, "message": "Success"})

    @extend_schema(
        summary="Choose the model of this key's next requests",
        request={"application/json": shape("SetModel", **dict.fromkeys(WEIGHTS, docs.TEXT))},
        responses=SUCCESS,
    )
    def post(self, request: Request, **kwargs: Any) -> Response:
        return self.get(request, **kwargs)


# --- speech ---


def language_of(given: str, field: str) -> str:
    """Its name of a language as ours: without `all_`, since a text is always read as what it is."""
    known = configured.get_engine().languages | {"auto"}
    plain = MIXED.get(given, given).strip().lower()
    code = "yue" if plain == "auto_yue" else language_code(plain.removeprefix("all_")) if plain else "auto"
    if code is None or code not in known:
        names = [name for name in LANGUAGES if name in known]
        raise refused(field, f"{given[:50]} is not supported here; it speaks: {', '.join(names)}.")
    return code


def media_type_of(asked: dict[str, Any]) -> str:
    name = text_of(asked, ("media_type",)).lower() or "wav"
    if name not in OUTPUTS:
        raise refused("", f"media_type: {name[:50]} is not supported; take one of: {', '.join(OUTPUTS)}.")
    return name


def streams(asked: dict[str, Any]) -> bool:
    streamed = STREAMING.get(str(asked.get("streaming_mode", "")).strip().lower())
    if streamed is None:
        raise refused("", "the value of streaming_mode must be 0, 1, 2, 3(int) or true/false(bool)")
    return streamed


def fields_of(asked: dict[str, Any], speaker: str | Voice, chosen_model: str, tenant: Any) -> dict[str, Any]:
    """A request in our terms, as Speaking takes them. Raises PublicError."""
    name, _ = first(asked, LANGUAGE)
    text = text_of(asked, TEXT)
    if len(text) > MAX_TEXT_CHARACTERS:
        raise refused("text", f"Has {len(text)} characters; at most {MAX_TEXT_CHARACTERS} are taken.")
    fields: dict[str, Any] = {
        "text": text,
        "language": language_of(text_of(asked, LANGUAGE), name),
        "model_id": chosen_model and (model_id(chosen_model, tenant) or chosen_model),
    }
    if isinstance(speaker, Voice):
        fields["voice_id"] = str(speaker.pk)
    speed = number_of(asked, SPEED)
    if speed is not None:
        if speed <= 0:
            raise refused(first(asked, SPEED)[0], "Must be more than 0; 1 is the usual speed.")
        fields["speed"], _ = clamp_speed(speed)
    temperature = number_of(asked, ("temperature",))
    if temperature is not None:
        fields["temperature"] = min(1.0, max(0.1, temperature))
    seed = number_of(asked, ("seed",))
    if seed is not None and seed >= 0:
        fields["seed"] = int(seed) % (MAX_SEED + 1)
    return fields


ASKED: dict[str, tuple[str, Any]] = {
    "text": ("What is said", str), "text_lang": ("en, zh, ... with all_ or without; nothing: found out", str),
    "ref_audio_path": ("A saved voice by id or name, or a preset", str), "media_type": (", ".join(OUTPUTS), str),
    "streaming_mode": ("0, 1, 2, 3, true or false", str), "speed_factor": ("1 is the usual speed", float),
    "temperature": ("0.1 to 1", float), "seed": ("Less than 0: another one each time", int),
}  # fmt: skip
OLDER = {"text_lang": "text_language", "ref_audio_path": "refer_wav_path", "speed_factor": "speed"}
FIELDS = {str: docs.TEXT, float: NUMBER, int: WHOLE}


def named_for(older: bool) -> dict[str, tuple[str, Any]]:
    """The fields of speech, by the names of one of the servers."""
    return {OLDER.get(name, name) if older else name: told for name, told in ASKED.items()}


BODIES = {
    older: shape(
        "OlderSpeech" if older else "Speech",
        **{name: FIELDS[kind](required=name == "text") for name, (_, kind) in named_for(older).items()},
    )
    for older in (False, True)
}
SPOKEN = files([TYPES.get(name, CONTENT_TYPES[output.format]) for name, output in OUTPUTS.items()])
SYNTHESIS_ID = docs.header("X-Synthesis-ID", "Under which our own API has it")


class SpeechView(GptSovitsView):
    """`/tts`, and with the older names `/`."""

    tag = "Speech"

    def answers(self) -> Any:
        return SPOKEN

    def asks(self) -> Any:
        return {"application/json": BODIES[self.older]}

    def queried(self) -> list[Any]:
        return [query(name, told, kind, required=name == "text") for name, (told, kind) in
                named_for(self.older).items()]  # fmt: skip

    @extend_schema(summary="Speak a text", parameters=[SYNTHESIS_ID])
    def get(self, request: Request, **kwargs: Any) -> HttpResponseBase:
        tenant, key = credentials(request)
        asked = self.asked(request)
        name, _ = first(asked, REFERENCE)
        given = text_of(asked, REFERENCE) or str(key.chosen_voice or "")
        if not given:
            raise refused("", f"{name} is required: the id or the name of a saved voice")
        if not text_of(asked, TEXT):
            raise refused("", "text is required")
        media_type, streamed = media_type_of(asked), streams(asked)
        speaker = speaker_of(tenant, given, name)
        fields = fields_of(asked, speaker, key.chosen_model, tenant)
        speaking = Speaking(request, speaker, {**fields, "response_format": "wav"}, streamed=streamed)
        output = OUTPUTS[media_type]
        content_type = TYPES.get(media_type, CONTENT_TYPES[output.format])
        response: HttpResponseBase
        if streamed:
            response = streaming_response(Transcoded(speaking.stream(), output), content_type)
        else:
            response = HttpResponse(self._whole(speaking, output), content_type=content_type)
        response["X-Synthesis-ID"] = str(speaking.job.pk)
        for header, value in speaking.headers.items():
            response[header] = value
        if fields.get("speed") not in (None, number_of(asked, SPEED)):
            response["X-Speed-Clamped"] = f"{fields['speed']:g}"
        return response

    @extend_schema(summary="Speak a text", parameters=[SYNTHESIS_ID])
    def post(self, request: Request, **kwargs: Any) -> HttpResponseBase:
        return self.get(request, **kwargs)

    @staticmethod
    def _whole(speaking: Speaking, output: Output) -> bytes:
        speech = speaking.whole()
        if output.format != "wav":
            return recode(speech, speaking.job, output)
        # A header and samples, and nothing behind them, which these clients would play.
        content = encode_file(io.BytesIO(speech.encoded), output)
        mark_sent(speaking.job.pk, hashlib.sha256(content).hexdigest(), what="speech")
        return content


@extend_schema(exclude=True)
class ControlView(GptSovitsView):
    """`/control` restarts and ends that server; nobody may do so here."""

    required_scope = None

    def get(self, request: Request, **kwargs: Any) -> Response:
        raise PublicError("permission_denied", "control is not offered: the server belongs to its operator.")

    def post(self, request: Request, **kwargs: Any) -> Response:
        return self.get(request, **kwargs)


class UnknownPathView(UnknownPathMixin, GptSovitsView):
    authentication_classes: Any = ()
    required_scope = None


_VIEWS: tuple[tuple[str, Any, dict[str, Any]], ...] = (
    ("", SpeechView, {"older": True}),
    ("tts", SpeechView, {}),
    ("speakers", SpeakersView, {}),
    ("set_gpt_weights", ChooseModelView, {"field": "gpt_weights", "what": "gpt"}),
    ("set_sovits_weights", ChooseModelView, {"field": "sovits_weights", "what": "sovits"}),
    ("set_refer_audio", ChooseReferenceView, {}),
    ("change_refer", ChangeReferenceView, {"older": True}),
    ("set_model", SetModelView, {"older": True}),
    ("control", ControlView, {}),
)


def routes() -> list[URLPattern]:
    """Under /gptsovits, under /gptsovits/<a key of the kind path>, and all but the first at the root."""
    found = []
    for prefix, at_root in (("gptsovits", False), (f"gptsovits/<{PathKey.__name__}:token>", False), ("", True)):
        for route, view, options in _VIEWS:
            if route or prefix:
                parts = "/".join(part for part in (prefix, route) if part)
                name = f"gptsovits{'-key' if 'token' in prefix else '-root' * at_root}-{route or 'older'}"
                tree = None if at_root or "token" in prefix else "gptsovits"  # The same ones are not described twice.
                found.append(path(parts, view.as_view(at_root=at_root, tree=tree, **options), name=name))
    return [*found, path("gptsovits/<path:rest>", UnknownPathView.as_view(), name="gptsovits-unknown")]


def root(page: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """The view of `/`: speech for who asks there as of `api.py`, where that is switched on; else the page.

    Without the switch such a request is refused: its client would save the page as audio.
    """
    speech = SpeechView.as_view(older=True, at_root=True)

    @csrf_exempt
    def answer(request: HttpRequest) -> HttpResponseBase:
        # Programs in front of that server post JSON in the newer names here too.
        sent = request.method == "POST" and request.content_type == "application/json"
        if not sent and not any(name in request.GET for name in (*TEXT, *LANGUAGE, *REFERENCE)):
            return page(request)
        if settings.GPTSOVITS_COMPAT_AT_ROOT:
            return speech(request)
        return JsonResponse(told(NOT_AT_ROOT, 400, older=True), status=400)

    return answer
