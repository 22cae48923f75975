"""/api/v1/voice/dialogue: several voices in one recording. `prepare` also serves other services' clients."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.core.files import File
from django.db.models.fields.files import FieldFile
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.views import APIView

from voiceproject.errors import PublicError
from voiceproject.jobs.files import delete_folder
from voiceproject.jobs.idempotency import Submission, refuse_key
from voiceproject.media import audio
from voiceproject.media.audio import STREAMED_FORMATS
from voiceproject.telemetry.logging import current
from voiceproject.tenants import textfilter, usage
from voiceproject.web.api import BodyLimitMixin, BoundedJSONParser, StrictSerializer, TextField, preferences
from voiceproject.webhooks.deliveries import CallbackURLField, callback_base
from voices.engines import configured
from voices.engines.configured import check_language
from voices.engines.interface import Reference
from voices.keys.auth import credentials
from voices.lexicons.serializers import LexiconIdField, LexiconIdsField, named
from voices.lexicons.stored import Named, counting, found_in
from voices.library import selection
from voices.library.models import Voice
from voices.library.serializers import LanguageField
from voices.speech import consumers, registry, synthesis
from voices.speech.dialogue import Dialogue, line_of, preset_reference, voice_file
from voices.speech.models import Synthesis
from voices.speech.serializers import (
    DEFAULT_TEMPERATURE,
    FORMATS,
    MAX_SEED,
    MAX_TEXT_CHARACTERS,
    NO_VOICE_ID,
    FiniteFloatField,
    SynthesisSerializer,
    as_field_error,
    check_text,
)
from voices.speech.views import AUDIO_HEADERS, PREFER, accepted, answer, check_background
from voices.text.languages import has_speech

MAX_TURNS, MAX_VOICES = 100, 10
DEFAULT_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.4, 10.0


class TurnSerializer(StrictSerializer):
    """What one voice says: a saved one, or one of the engine's own."""

    text = TextField(max_length=MAX_TEXT_CHARACTERS, help_text="What to say.")
    voice_id = serializers.UUIDField(
        required=False, allow_null=True, error_messages={"invalid": NO_VOICE_ID}, help_text="A saved voice of yours."
    )
    preset = serializers.CharField(
        required=False, allow_null=True, max_length=100,
        help_text="A voice of the engine's own instead: female or male, of the built-in engine.",
    )  # fmt: skip
    language = LanguageField(default="auto", help_text="Language of the text, by any common name; auto finds out.")
    speed = FiniteFloatField(default=1.0, min_value=0.5, max_value=2.0, help_text="2 is twice as fast.")
    temperature = FiniteFloatField(
        default=DEFAULT_TEMPERATURE, min_value=0.1, max_value=1.0, help_text="How much the delivery may vary."
    )
    pause_seconds = FiniteFloatField(
        required=False, allow_null=True, min_value=0.0, max_value=MAX_PAUSE_SECONDS,
        help_text="Of silence behind this turn, instead of the dialogue's.",
    )  # fmt: skip

    def validate_text(self, text: str) -> str:
        if not has_speech(text):
            raise serializers.ValidationError("There is nothing to speak in this text: it has no letters or digits.")
        return text

    def validate_language(self, language: str) -> str:
        with as_field_error():
            return check_language("language", language)

    def validate_preset(self, preset: str | None) -> str | None:
        known = list(getattr(configured.get_engine(), "presets", ()))
        if preset is not None and preset not in known:
            raise serializers.ValidationError(
                f"The engine has no such voice; its own are: {', '.join(known) or 'none'}."
            )
        return preset

    def validate(self, fields: dict[str, Any]) -> dict[str, Any]:
        given = [name for name in ("voice_id", "preset") if fields.get(name)]
        if len(given) != 1:
            message = "Both voice_id and preset were sent; send one of them." if given else "Send the id of a voice."
            raise serializers.ValidationError({"voice_id": [message]})
        return fields


class DialogueSerializer(StrictSerializer):
    """Who says what, in this order."""

    turns = TurnSerializer(many=True, help_text=f"1 to {MAX_TURNS}, with {MAX_TEXT_CHARACTERS} characters together.")
    pause_seconds = FiniteFloatField(
        default=DEFAULT_PAUSE_SECONDS, min_value=0.0, max_value=MAX_PAUSE_SECONDS,
        help_text="Of silence between two turns.",
    )  # fmt: skip
    seed = serializers.IntegerField(
        required=False, min_value=0, max_value=MAX_SEED,
        help_text="The same seed and request give the same samples on the built-in engine.",
    )  # fmt: skip
    model_id = serializers.CharField(
        required=False, allow_blank=True, default="", max_length=100, help_text="One of GET /voice/models."
    )
    response_format = serializers.ChoiceField(
        FORMATS, default="wav", help_text="pcm is signed 16-bit little-endian mono at X-Audio-Sample-Rate."
    )
    stream = serializers.BooleanField(
        default=False, help_text="true sends the audio as it is made, sentence by sentence; not as flac."
    )
    lexicon_id = LexiconIdField(help_text="A lexicon of yours, by which words of all turns are said.")
    lexicon_ids = LexiconIdsField(help_text="Several; what an earlier one has counts.")
    callback_url = CallbackURLField()

    def to_internal_value(self, data: Any) -> Any:
        try:
            return super().to_internal_value(data)
        except serializers.ValidationError as error:
            raise serializers.ValidationError(_by_turn(error.detail)) from None

    def validate_turns(self, turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if not 1 <= len(turns) <= MAX_TURNS:
            raise serializers.ValidationError(f"Send 1 to {MAX_TURNS} turns.")
        characters = sum(len(turn["text"]) for turn in turns)
        if characters > MAX_TEXT_CHARACTERS:
            message = f"Have {characters} characters together; at most {MAX_TEXT_CHARACTERS} are taken."
            raise serializers.ValidationError(message)
        if len({_speaker(turn) for turn in turns}) > MAX_VOICES:
            raise serializers.ValidationError(f"At most {MAX_VOICES} voices may speak.")
        return turns

    def validate(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Adds `model`, as SynthesizeSerializer does."""
        if fields["stream"] and fields["response_format"] not in STREAMED_FORMATS:
            message = f"{fields['response_format']} cannot be streamed: take one of {', '.join(STREAMED_FORMATS)}."
            raise serializers.ValidationError({"response_format": [message]})
        fields["model"] = registry.for_synthesis(fields["model_id"], self.context.get("tenant"))
        return fields


def _by_turn(detail: Any) -> Any:
    """Errors of turns under names that say which turn: `turns[2].text`."""
    turns = detail.pop("turns", None) if isinstance(detail, dict) else None
    if turns is None:
        return detail
    numbered = dict(enumerate(turns)) if isinstance(turns, list) else turns
    if not all(isinstance(number, int) and isinstance(errors, dict) for number, errors in numbered.items()):
        return {**detail, "turns": turns}
    named = {
        f"turns[{number}].{name}" if name != "non_field_errors" else f"turns[{number}]": messages
        for number, errors in numbered.items()
        for name, messages in errors.items()
    }
    return {**detail, **named}


def _speaker(turn: dict[str, Any]) -> str:
    return str(turn.get("voice_id") or f"preset:{turn['preset']}")


@contextmanager
def _in_turn(number: int) -> Iterator[None]:
    """What is wrong with a turn says which one it is."""
    try:
        yield
    except PublicError as error:
        if error.code == "validation_error":
            named = {f"turns[{number}].{name}": messages for name, messages in error.details.items()}
            raise ValidationError(named) from None
        error.message = f"turns[{number}]: {error.message}"
        raise


@dataclass(frozen=True)
class Prepared:
    """A dialogue that may be spoken: its new row, what the engine gets, and the files of its saved voices by hash."""

    job: Synthesis
    order: Dialogue
    files: dict[str, FieldFile]


def prepare(request: Request, fields: dict[str, Any], *, early: bool, lexicons: Sequence[Named] = ()) -> Prepared:
    """Nothing is written yet. fields: of a valid DialogueSerializer; lexicons: those that count before the ones that
    these name. Raises PublicError and ValidationError."""
    tenant, key = credentials(request)
    turns = fields["turns"]
    # As one text: what is refused may begin in one turn and end in the next.
    text = "\n".join(turn["text"] for turn in turns)
    textfilter.check(request, text, "synthesis", "turns")
    engine = configured.get_engine()
    seed = fields.get("seed")
    seed = secrets.randbelow(MAX_SEED + 1) if seed is None else seed
    references: dict[str, Reference] = {}
    files: dict[str, FieldFile] = {}
    warnings: list[dict[str, str]] = []
    lines, kept = [], []
    chosen = [*lexicons, *named(fields)]
    versions: dict[str, Iterable[uuid.UUID]] = {}
    for number, turn in enumerate(turns):
        speaker = _speaker(turn)
        if speaker not in versions:
            of_voice = Voice.objects.filter(pk=turn.get("voice_id")).values_list("lexicon_id", flat=True).first()
            versions[speaker] = counting(tenant, chosen, of_voice)
        with _in_turn(number):
            if speaker not in references:
                references[speaker] = _reference(tenant, turn, files)
            reference = references[speaker]
            spoken_by = {"model_id": fields["model_id"], "model": fields["model"]}
            registry.use_model_of(spoken_by, turn.get("voice_id"), tenant.pk)
            checked = {"text": turn["text"], "language": turn["language"], **spoken_by}
            lexicon = found_in(turn["text"], versions[speaker])
            reading, told = check_text(checked, reference.transcript or "", reference.language, lexicon, early=early)
            for warning in told:
                warnings.append({**warning, "message": f"Turn {number + 1}: {warning['message']}"})
        pause = turn.get("pause_seconds")
        stored = {
            "voice_id": str(turn["voice_id"]) if turn.get("voice_id") else None,
            "preset": turn.get("preset") or None,
            "text": turn["text"],
            "language": turn["language"],
            "speed": turn["speed"],
            "temperature": turn["temperature"],
            "pause_seconds": fields["pause_seconds"] if pause is None else pause,
            "seed": (seed + number) % (MAX_SEED + 1),
            "reference": reference.content_hash[:64],
            "reference_text": reference.transcript or "",
            "reference_language": reference.language,
            "lexicon": lexicon.as_json(),
            "model_id": spoken_by["model_id"],
        }
        kept.append(stored)
        line = stored, reference, spoken_by["model_id"], spoken_by["model"], str(tenant.pk)
        lines.append(line_of(*line, early=early, reading=reading))
    job = Synthesis(
        tenant=tenant,
        api_key=key,
        request_id=current("request_id"),
        callback_url=fields.get("callback_url", ""),
        callback_base=callback_base(request),
        text=text,
        turns=kept,
        seed=seed,
        model_id=fields["model_id"],
        response_format=fields["response_format"],
        engine=engine.name,
        warnings=warnings,
    )
    return Prepared(job, Dialogue(lines, early=early), files)


def _reference(tenant: Any, turn: dict[str, Any], files: dict[str, FieldFile]) -> Reference:
    preset = turn.get("preset")
    if preset:
        return preset_reference(preset)
    engine = configured.get_engine()
    chosen = selection.choose(selection.find(tenant, turn["voice_id"]), engine)
    if (find_window := getattr(engine, "reference_window", None)) is not None:
        find_window(chosen.reference)  # It refuses what is too short.
    files[chosen.reference.content_hash[:64]] = chosen.file
    return chosen.reference


def start(prepared: Prepared) -> None:
    """Accepts it, to be spoken by this process now. Raises PublicError as `synthesis.start`."""
    synthesis.start(prepared.job)
    selection.check_still_there(prepared.job)


def queue(prepared: Prepared, submission: Submission) -> Synthesis:
    """Leaves it to a worker, with copies of its voices: the job, or that of the same request before. Raises
    PublicError."""
    job = prepared.job
    job.background = True
    storage = job.reference_audio.storage
    try:
        for name, file in prepared.files.items():
            with file.open("rb") as opened:
                storage.save(voice_file(job.folder, name), File(opened))
            job.input_bytes += usage.size_of(file)
        kept = submission.admit(job, settings.SYNTHESIS_MAX_QUEUED)
    except BaseException:
        delete_folder(job.folder)
        raise
    if kept is not job:
        delete_folder(job.folder)
    else:
        selection.check_still_there(job)
    assert isinstance(kept, Synthesis)
    return kept


class DialogueView(BodyLimitMixin, APIView):
    required_scope = "synthesize"
    parser_classes = (BoundedJSONParser,)
    max_body_bytes = 1
    error_statuses = {"post": (404, 409, 410, 422, 502, 504)}

    @extend_schema(
        operation_id="speak_dialogue",
        summary="Several voices in one recording",
        description=(
            "The turns are spoken in their order, equally loud, with pauses between them. It is one synthesis: it is "
            "listed, canceled, retried and billed as any other, and its `turns` tell when each was said.\n\n"
            "`stream` and the header `Prefer: respond-async` are as with `POST /voice/synthesize`. A stream judges how "
            "loud a turn is by its first sentence."
        ),
        request={"application/json": DialogueSerializer},
        responses={
            (200, content_type): OpenApiResponse(OpenApiTypes.BINARY, description="The audio")
            for content_type in audio.CONTENT_TYPES.values()
        }
        | {202: SynthesisSerializer},
        parameters=[
            OpenApiParameter(name, type_, OpenApiParameter.HEADER, response=[200], description=text)
            for name, (type_, text) in AUDIO_HEADERS.items()
            if name != "X-Reference-Window"
        ]
        + [PREFER, consumers.LOCATION, *consumers.IDEMPOTENCY],
        tags=["voice"],
    )
    def post(self, request: Request) -> HttpResponseBase:
        tenant, _ = credentials(request)
        background = "respond-async" in preferences(request)
        submission = None
        if background:
            submission = Submission(request, tenant, Synthesis, "dialogue")
            if (earlier := submission.earlier()) is not None:
                return accepted(request, earlier, replayed=True)
        else:
            refuse_key(request)
        serializer = DialogueSerializer(data=request.data, context={"tenant": request.user.pk})
        serializer.is_valid(raise_exception=True)
        fields = serializer.validated_data
        check_background(fields, background)
        prepared = prepare(request, fields, early=fields["stream"])
        if submission is not None:
            kept = queue(prepared, submission)
            return accepted(request, kept, replayed=kept is not prepared.job)
        start(prepared)
        return answer(request, prepared.job, prepared.order, fields["stream"])
