"""Text to dialogue: several voices in one audio, on voices.speech.dialogue_api.

Not taken over: audio_effects, previous_text and what follows from it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request

from voiceproject.errors import PublicError
from voiceproject.media.formats import Output
from voiceproject.web.api import TextField, client_gone
from voices.compat.common import Reshaped, Transcoded, recode, streaming_response
from voices.compat.elevenlabs.base import ALIGNMENT, AUDIO, AUDIO_HEADERS, OUTPUT_FORMAT, ElevenLabsView
from voices.compat.elevenlabs.dictionaries import LocatorsField, located
from voices.compat.elevenlabs.speech import VoiceSettingsSerializer, alignment, headers, own_fields
from voices.compat.schema import NUMBER, TEXT, WHOLE, listed, shape
from voices.keys.auth import credentials
from voices.library import speakers
from voices.library.models import Voice
from voices.speech import dialogue_api, synthesis
from voices.speech.dialogue import Spoken
from voices.speech.serializers import MAX_SEED, MAX_TEXT_CHARACTERS

OF_A_TURN: tuple[str, ...] = ("text", "voice_id", "language", "temperature", "speed")
OF_ALL: tuple[str, ...] = ("model_id", "seed")
ALIGNED = ("characters", "character_start_times_seconds", "character_end_times_seconds")


class InputSerializer(serializers.Serializer):
    text = TextField(max_length=MAX_TEXT_CHARACTERS)
    voice_id = serializers.CharField(max_length=200)


class TextToDialogueSerializer(serializers.Serializer):
    """Unknown fields are ignored, as there."""

    inputs = InputSerializer(many=True)
    model_id = serializers.CharField(required=False, allow_null=True, allow_blank=True, max_length=200)
    language_code = serializers.CharField(required=False, allow_null=True, allow_blank=True, max_length=35)
    settings = VoiceSettingsSerializer(required=False, allow_null=True)
    seed = serializers.IntegerField(required=False, allow_null=True, min_value=0, max_value=MAX_SEED)
    pronunciation_dictionary_locators = LocatorsField()


def dialogue_fields(tenant: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """Its request as a valid one of ours. Raises PublicError and ValidationError."""
    turns: list[dict[str, Any]] = []
    common: dict[str, Any] = {}
    for number, line in enumerate(asked["inputs"]):
        try:
            speaker = speakers.find(tenant, line["voice_id"])
        except PublicError as error:
            error.message = f"inputs[{number}]: {error.message}"
            raise
        common = own_fields({**asked, "text": line["text"], "voice_settings": asked.get("settings")}, speaker, tenant)
        own: dict[str, Any] = {name: common[name] for name in OF_A_TURN if name in common}
        turns.append(own if isinstance(speaker, Voice) else {**own, "preset": speaker})
    fields: dict[str, Any] = {"turns": turns, **{name: common[name] for name in OF_ALL if name in common}}
    serializer = dialogue_api.DialogueSerializer(data=fields, context={"tenant": tenant.pk})
    serializer.is_valid(raise_exception=True)
    valid: dict[str, Any] = serializer.validated_data
    return valid


SEGMENT = shape(
    "VoiceSegment", voice_id=TEXT, start_time_seconds=NUMBER, end_time_seconds=NUMBER,
    character_start_index=WHOLE, character_end_index=WHOLE, dialogue_input_index=WHOLE,
)  # fmt: skip
TIMED = shape(
    "TimedDialogue",
    audio_base64=TEXT,
    alignment=ALIGNMENT,
    normalized_alignment=ALIGNMENT,
    voice_segments=listed(SEGMENT),
)


class TextToDialogueView(ElevenLabsView):
    """streamed, timestamps: which of the four routes it is."""

    tag = "Text to dialogue"
    required_scope = "synthesize"
    field_names = {"turns": "inputs"}
    streamed = False
    timestamps = False

    def answers(self) -> Any:
        return TIMED if self.timestamps else AUDIO

    @extend_schema(
        summary="Speak a dialogue of several voices",
        request={"application/json": TextToDialogueSerializer},
        parameters=[OUTPUT_FORMAT, *AUDIO_HEADERS],
    )
    def post(self, request: Request) -> HttpResponseBase:
        tenant, key = credentials(request)
        output = self.output(request, streamed=self.streamed)
        serializer = TextToDialogueSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        asked = serializer.validated_data
        lexicons = located(asked.get("pronunciation_dictionary_locators"))
        fields = dialogue_fields(tenant, asked)
        prepared = dialogue_api.prepare(request, fields, early=self.streamed, lexicons=lexicons)
        dialogue_api.start(prepared)
        script = Script(prepared, [line["voice_id"] for line in asked["inputs"]])
        response = self._streamed(request, script, output) if self.streamed else self._whole(request, script, output)
        for name, value in headers(request, key, prepared.job).items():
            response[name] = value
        return response

    def _whole(self, request: Request, script: Script, output: Output) -> HttpResponseBase:
        job, order = script.prepared.job, script.prepared.order
        speech = synthesis.perform(job, order, client_gone(request))
        content = recode(speech, job, output)
        if not self.timestamps:
            return HttpResponse(content, content_type=output.content_type)
        body = {"audio_base64": base64.b64encode(content).decode(), **script.told(speech.spoken, last=True)}
        return HttpResponse(json.dumps(body), content_type="application/json")

    def _streamed(self, request: Request, script: Script, output: Output) -> HttpResponseBase:
        stream = synthesis.SpeechStream(script.prepared.job, script.prepared.order, client_gone(request))
        blocks = Transcoded(stream, output)
        if not self.timestamps:
            return streaming_response(blocks, output.content_type)
        return streaming_response(Reshaped(script.lines(blocks, stream), blocks), "application/json")


class Script:
    """A dialogue, and when its turns and their characters are said. voices: the names that the client gave."""

    def __init__(self, prepared: dialogue_api.Prepared, voices: list[str]) -> None:
        self.prepared = prepared
        self._voices = voices
        self._turns = 0  # that were told

    def lines(self, blocks: Transcoded, stream: synthesis.SpeechStream) -> Iterator[bytes]:
        """Audio, a line of JSON each; a turn's times come with the first audio behind it."""
        for block in blocks:
            yield self._line(block, stream.spoken, last=False)
        yield self._line(b"", stream.spoken, last=True)

    def _line(self, block: bytes, spoken: Spoken, *, last: bool) -> bytes:
        body = {"audio_base64": base64.b64encode(block).decode(), **self.told(spoken, last=last)}
        return json.dumps(body).encode() + b"\n"

    def told(self, spoken: Spoken, *, last: bool) -> dict[str, Any]:
        """Of the turns that have ended since it was asked before. last: all have."""
        said = self.prepared.order.by_turn(spoken)
        ended = len(said) if last else max(self._turns, len(said) - 1)
        times: dict[str, list[Any]] = {name: [] for name in ALIGNED}
        segments = []
        for number in range(self._turns, ended):
            turn = alignment(self.prepared.job.turns[number]["text"], said[number])
            start = len(times["characters"])
            for name in ALIGNED:
                times[name] += turn[name]
            if said[number]:
                segments.append(
                    {"voice_id": self._voices[number], "start_time_seconds": round(said[number][0][1], 3),
                     "end_time_seconds": round(said[number][-1][2], 3), "character_start_index": start,
                     "character_end_index": len(times["characters"]), "dialogue_input_index": number}
                )  # fmt: skip
        self._turns = ended
        aligned = times if times["characters"] else None
        return {"alignment": aligned, "normalized_alignment": aligned, "voice_segments": segments}
