"""Text to speech. Of voice_settings, speed and stability count (less stability is more temperature)."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request

from voiceproject.jobs.status import JobStatus
from voiceproject.media.formats import Output
from voiceproject.web.api import TextField, warning_headers
from voices.compat.common import (
    Reshaped,
    Speaking,
    Transcoded,
    clamp_speed,
    invalid,
    model_id,
    recode,
    streaming_response,
)
from voices.compat.elevenlabs.base import (
    ALIGNMENT,
    AUDIO,
    AUDIO_HEADERS,
    OUTPUT_FORMAT,
    OUTPUT_NAMES,
    TEMPERATURE_A_STABILITY,
    ElevenLabsView,
)
from voices.compat.elevenlabs.dictionaries import LocatorsField, located
from voices.compat.schema import TEXT, shape
from voices.engines import configured
from voices.keys.auth import credentials
from voices.keys.models import ApiKey
from voices.library import speakers
from voices.library.models import Voice
from voices.speech import synthesis
from voices.speech.models import Synthesis
from voices.speech.serializers import MAX_SEED, MAX_TEXT_CHARACTERS, FiniteFloatField
from voices.text.languages import LANGUAGES, language_code, spoken_languages


class VoiceSettingsSerializer(serializers.Serializer):
    stability = FiniteFloatField(required=False, allow_null=True, min_value=0, max_value=1)
    speed = FiniteFloatField(required=False, allow_null=True, min_value=0.25, max_value=4)


class TextToSpeechSerializer(serializers.Serializer):
    """Unknown fields are ignored, as there."""

    text = TextField(max_length=MAX_TEXT_CHARACTERS)
    model_id = serializers.CharField(required=False, allow_null=True, allow_blank=True, max_length=200)
    language_code = serializers.CharField(required=False, allow_null=True, allow_blank=True, max_length=35)
    voice_settings = VoiceSettingsSerializer(required=False, allow_null=True)
    seed = serializers.IntegerField(required=False, allow_null=True, min_value=0, max_value=MAX_SEED)
    pronunciation_dictionary_locators = LocatorsField()


def own_fields(asked: dict[str, Any], speaker: str | Voice, tenant: Any) -> dict[str, Any]:
    """A TextToSpeechSerializer's fields in our terms, as Speaking takes them. Raises ValidationError."""
    style = {name: value for name, value in (asked.get("voice_settings") or {}).items() if value is not None}
    if isinstance(speaker, Voice):
        style = {**speaker.speaking_style, **style}
    fields: dict[str, Any] = {"text": asked["text"], "model_id": model_id(asked.get("model_id") or "", tenant)}
    if isinstance(speaker, Voice):
        fields["voice_id"] = str(speaker.pk)
    if asked.get("seed") is not None:
        fields["seed"] = asked["seed"]
    if name := asked.get("language_code"):
        known = [code for code in LANGUAGES if code in configured.get_engine().languages | {"auto"}]
        if (language := language_code(name)) not in known:
            raise invalid("language_code", f"Must be one of {spoken_languages(known)}.")
        fields["language"] = language
    if style.get("speed") is not None:
        fields["speed"], _ = clamp_speed(style["speed"])
    if style.get("stability") is not None:
        fields["temperature"] = max(0.1, 1.0 - TEMPERATURE_A_STABILITY * style["stability"])
    return fields


def spread(text: str, begin: float, end: float, before: float | None = None) -> Iterator[tuple[str, float, float]]:
    """Each character of a sentence with the seconds at which it begins and ends: by its share of the sentence.

    Tags are not said. before: when what comes before has ended; what stands in front of the first word lasts from then
    to begin, as the pause of a <break>.
    """
    masked = _TAGS.sub(lambda tag: "\0" * len(tag[0]), text) if _MARKED.search(text) else text
    head = len(masked) - len(masked.lstrip("\0 \n")) if "\0" in masked else 0
    weights = [1.0 if char.isalnum() else 0.5 if char != "\0" else 0.0 for char in masked]
    weights[:head] = [0.0] * head
    total = sum(weights) or 1.0
    at = before if head and before is not None else begin
    for place, (char, weight) in enumerate(zip(text, weights, strict=True)):
        until = begin if place == 0 and head else at + (end - begin) * weight / total
        yield char, at, until
        at = until


_MARKED = re.compile(r"[<\[*_#&`~\n]")
_TAGS = re.compile(r"<[^<>]{0,500}>|\[[^\[\]]{0,60}\]")
_NEAR = 12  # characters within which the next one of a sentence is looked for


def end_of(sentence: str, text: str, place: int) -> int:
    """Where a sentence ends in the text that it is from, whose markup it may lack; place: where it begins at least."""
    found = text.find(sentence, place)
    if found >= 0:
        return found + len(sentence)
    if not _MARKED.search(text):
        # The engine has changed it: take as many characters as it has.
        return min(len(text), place + len(sentence))
    masked = _TAGS.sub(lambda tag: "\0" * len(tag[0]), text)
    position = place
    for char in sentence:
        if char.isspace():
            continue
        start = position
        while start < len(masked) and masked[start] in "\0 \n*_#>`~":
            start += 1
        at = masked.find(char, start, start + _NEAR)
        position = at + 1 if at >= 0 else position
    return position


def alignment(text: str, spoken: list[tuple[str, float, float]]) -> dict[str, Any]:
    """When each character is said: sentences as they were made, letters within one by their share of it."""
    characters: list[str] = []
    starts: list[float] = []
    ends: list[float] = []
    place = 0
    for number, (sentence, begin, end) in enumerate(spoken):
        stop = end_of(sentence, text, place)
        if number == len(spoken) - 1:
            stop = len(text)
        for char, at, until in spread(text[place:stop], begin, end, spoken[number - 1][2] if number else None):
            characters.append(char)
            starts.append(round(at, 3))
            ends.append(round(until, 3))
        place = stop
    return {"characters": characters, "character_start_times_seconds": starts, "character_end_times_seconds": ends}


TIMED = shape("TimedAudio", audio_base64=TEXT, alignment=ALIGNMENT, normalized_alignment=ALIGNMENT)


class TextToSpeechView(ElevenLabsView):
    """streamed, timestamps: which of the four routes it is."""

    tag = "Text to speech"
    required_scope = "synthesize"
    at_desk = True
    streamed = False
    timestamps = False

    def answers(self) -> Any:
        return TIMED if self.timestamps else AUDIO

    @extend_schema(
        summary="Speak a text",
        request={"application/json": TextToSpeechSerializer},
        parameters=[OUTPUT_FORMAT, *AUDIO_HEADERS],
    )
    def post(self, request: Request, voice_id: str) -> HttpResponseBase:
        tenant, key = credentials(request)
        output = self.output(request, streamed=self.streamed)
        serializer = TextToSpeechSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        asked = serializer.validated_data
        speaker = speakers.find(tenant, voice_id)
        fields = own_fields(asked, speaker, tenant)
        lexicons, name = located(asked.get("pronunciation_dictionary_locators")), OUTPUT_NAMES[output]
        speaking = Speaking(request, speaker, fields, streamed=self.streamed, lexicons=lexicons, output=name)
        response = self._streamed(speaking, output) if self.streamed else self._whole(speaking, output)
        for name, value in headers(request, key, speaking.job).items():
            response[name] = value
        return response

    def _whole(self, speaking: Speaking, output: Output) -> HttpResponseBase:
        speech = speaking.whole()
        content = recode(speech, speaking.job, output)
        if not self.timestamps:
            return HttpResponse(content, content_type=output.content_type)
        times = alignment(speaking.text, speech.spoken)
        body = {
            "audio_base64": base64.b64encode(content).decode(), "alignment": times, "normalized_alignment": times,
        }  # fmt: skip
        return HttpResponse(json.dumps(body), content_type="application/json")

    def _streamed(self, speaking: Speaking, output: Output) -> HttpResponseBase:
        stream = speaking.stream()
        blocks = Transcoded(stream, output)
        if not self.timestamps:
            return streaming_response(blocks, output.content_type)
        lines = iter(TimedLines(blocks, stream, speaking.text))
        return streaming_response(Reshaped(lines, blocks), "application/json")


class TimedLines:
    """Audio and when its characters are said, a line of JSON each."""

    def __init__(self, blocks: Transcoded, stream: synthesis.SpeechStream, text: str) -> None:
        self._blocks = blocks
        self._stream = stream
        self._text = text

    def __iter__(self) -> Iterator[bytes]:
        told = 0
        for block in self._blocks:
            yield self._line(block, self._times(told, last=False))
            told = self._told
        times = self._times(told, last=True)
        if times is not None:
            yield self._line(b"", times)

    def _times(self, told: int, *, last: bool) -> dict[str, Any] | None:
        """The times of sentences that were not sent yet. The last one is held back, since its end may still move."""
        spoken = self._stream.spoken
        self._told = count = len(spoken) if last else max(told, len(spoken) - 1)
        if count <= told:
            return None
        whole = alignment(self._text, spoken)
        before = _characters(self._text, spoken[:told])
        until = len(whole["characters"]) if last else _characters(self._text, spoken[:count])
        return {name: values[before:until] for name, values in whole.items()}

    @staticmethod
    def _line(block: bytes, times: dict[str, Any] | None) -> bytes:
        body = {"audio_base64": base64.b64encode(block).decode(), "alignment": times, "normalized_alignment": times}
        return json.dumps(body).encode() + b"\n"


def _characters(text: str, spoken: list[tuple[str, float, float]]) -> int:
    """How much of a text these first sentences take, as `alignment` counts it where others follow."""
    place = 0
    for sentence, _, _ in spoken:
        place = end_of(sentence, text, place)
    return place


def headers(request: Request, key: ApiKey, job: Synthesis) -> dict[str, str]:
    running = Synthesis.objects.filter(tenant=key.user, status=JobStatus.RUNNING).count()
    limit = key.max_concurrent_jobs or max(1, settings.WEB_THREADS - 4)
    return {
        **warning_headers(told["message"] for told in job.warnings),
        "request-id": str(getattr(request._request, "request_id", "")),
        "history-item-id": str(job.pk),
        "character-cost": str(job.characters),
        "current-concurrent-requests": str(max(1, running)),
        "maximum-concurrent-requests": str(limit),
    }
