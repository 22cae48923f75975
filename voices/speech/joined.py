"""/api/v1/voice/join: several syntheses as one recording, or as subtitles of it."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import soxr
from django.conf import settings
from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from numpy.typing import NDArray
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.views import APIView

from voiceproject.errors import PublicError
from voiceproject.media import audio, memory
from voiceproject.provenance.manifest import sign_file
from voiceproject.provenance.marks import mark_sent
from voiceproject.web.api import BodyLimitMixin, StrictSerializer, TextField
from voiceproject.web.names import MAX_TITLE, attachment, download_name
from voiceproject.web.slots import waiting_slot
from voices.keys.auth import credentials
from voices.speech.models import Synthesis
from voices.speech.serializers import FiniteFloatField
from voices.speech.synthesis import silence, stored_audio

MAX_PARTS, MAX_SECONDS = 200, 3600
SUBTITLES = {"srt": "application/x-subrip", "vtt": "text/vtt"}
FORMATS = ("wav", "mp3", "flac", "opus", *SUBTITLES)
BLOCK_BYTES = 64 * 1024


class JoinSerializer(StrictSerializer):
    """Which syntheses, in which order."""

    synthesis_ids = serializers.ListField(
        child=serializers.UUIDField(), min_length=1, max_length=MAX_PARTS,
        help_text=f"In the order in which they are heard, 1 to {MAX_PARTS}; one may come several times.",
    )  # fmt: skip
    pause_seconds = FiniteFloatField(
        default=0.5, min_value=0.0, max_value=10.0, help_text="Of silence between one and the next."
    )
    response_format = serializers.ChoiceField(
        FORMATS, default="wav", help_text="srt and vtt: subtitles, with the times of the sentences in the recording."
    )
    title = TextField(required=False, allow_blank=True, default="", max_length=MAX_TITLE, help_text="Names the file.")


class JoinView(BodyLimitMixin, APIView):
    required_scope = "synthesize"
    error_statuses = {"post": (404, 409, 410)}

    @extend_schema(
        operation_id="join_syntheses",
        summary="Several syntheses as one recording, or as its subtitles",
        description="Nothing is spoken or charged anew, and nothing is stored. Each has to have succeeded. A recording "
        f"may last {MAX_SECONDS} s. Subtitles have a line for each sentence; for what was made before sentences' times "
        "were kept, one for the whole of it.",
        request={"application/json": JoinSerializer},
        responses={(200, "audio/*"): OpenApiResponse(OpenApiTypes.BINARY)}
        | {(200, kind): OpenApiResponse(OpenApiTypes.STR) for kind in SUBTITLES.values()},
        tags=["voice"],
    )
    def post(self, request: Request) -> HttpResponseBase:
        tenant, _ = credentials(request)
        serializer = JoinSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        fields = serializer.validated_data
        pause, format = fields["pause_seconds"], fields["response_format"]
        parts = _found(tenant, fields["synthesis_ids"])
        extension = format if format in SUBTITLES else audio.EXTENSIONS[format]
        plain = f"{parts[0].pk}.{extension}"
        named = attachment(download_name(fields["title"] or parts[0].shown_title, extension) or plain, plain)
        response: HttpResponseBase
        if format in SUBTITLES:
            text = subtitles(parts, pause, format)
            response = HttpResponse(text, content_type=f"{SUBTITLES[format]}; charset=utf-8")
        else:
            response = _recording(tenant.pk, parts, pause, format)
        response["Content-Disposition"] = named
        response["Cache-Control"] = "private, no-store, no-transform"
        return response


def _found(tenant: Any, ids: list[Any]) -> list[Synthesis]:
    """Raises PublicError for what is not the tenant's, has not succeeded, or lasts too long together."""
    rows = {row.pk: row for row in Synthesis.objects.for_tenant(tenant).filter(pk__in=ids)}
    for synthesis_id in ids:
        if synthesis_id not in rows:
            message = f"There is no synthesis {synthesis_id}, or it is not yours."
            raise PublicError("not_found", message, {"synthesis_ids": [message]})
        rows[synthesis_id].raise_unless_succeeded()
    parts = [rows[synthesis_id] for synthesis_id in ids]
    seconds = sum(part.duration_seconds or 0.0 for part in parts)
    if seconds > MAX_SECONDS:
        message = f"They last {seconds:.0f} s together; at most {MAX_SECONDS} are joined."
        raise PublicError("validation_error", f"synthesis_ids: {message}", {"synthesis_ids": [message]})
    return parts


# --- the recording ---


def _recording(tenant: int, parts: list[Synthesis], pause: float, format: str) -> StreamingHttpResponse:
    longest = max(part.duration_seconds or 0.0 for part in parts)
    rate = max(part.sample_rate or 0 for part in parts)
    with (
        waiting_slot(tenant),
        memory.claim(memory.BLOCKS_BYTES + round(3 * 4 * longest * max(rate, 48_000))),
        tempfile.TemporaryDirectory(dir=settings.UPLOAD_DIR) as folder,
    ):
        wav, encoded = Path(folder, "joined.wav"), Path(folder, f"encoded.{format}")
        with sf.SoundFile(wav, "w", rate, 1, "PCM_16") as out:
            for number, part in enumerate(parts):
                if number:
                    out.write(silence(pause, rate))
                out.write(_samples(part, rate))
        if format == "wav":
            encoded = wav
        else:
            audio.encode_file(wav, encoded, format)
        sign_file(encoded, format, what="speech", job_id=parts[0].pk)
        with encoded.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        mark_sent(parts[0].pk, digest, what="speech")
        opened = encoded.open("rb")  # The folder goes; what is open can still be read.
    response = StreamingHttpResponse(_blocks(opened), content_type=audio.CONTENT_TYPES[format])
    response["Content-Length"] = str(opened.seek(0, io.SEEK_END))
    opened.seek(0)
    return response


def _samples(part: Synthesis, rate: int) -> NDArray[np.float32]:
    """float32 (n,) at `rate` Hz. Raises PublicError result_expired."""
    content = stored_audio(part)
    if part.response_format == "pcm":
        samples, found = np.frombuffer(content, "<i2").astype(np.float32) / 32768, part.sample_rate or rate
    else:
        samples, found = sf.read(io.BytesIO(content), dtype="float32")
    return np.asarray(samples if found == rate else soxr.resample(samples, found, rate), np.float32)


def _blocks(opened: io.BufferedReader) -> Iterator[bytes]:
    with opened:
        while block := opened.read(BLOCK_BYTES):
            yield block


# --- subtitles ---


def subtitles(parts: list[Synthesis], pause: float, format: str) -> str:
    """SRT or WebVTT of the recording that they make together, `pause` seconds apart."""
    lines, start = [], 0.0
    for part in parts:
        length = part.duration_seconds or 0.0
        for text, begin, end in part.spoken or [[part.text, 0.0, length]]:
            # Empty lines end a cue, and an arrow would begin one.
            said = " ".join(str(text).replace("-->", "\u2192").split())
            if said:
                lines.append((start + begin, start + min(end, length or end), said))
        start += length + pause
    mark = "," if format == "srt" else "."
    cues = [
        f"{number}\n{_clock(begin, mark)} --> {_clock(end, mark)}\n{_cue(said, format)}\n"
        for number, (begin, end, said) in enumerate(lines, 1)
    ]
    return ("" if format == "srt" else "WEBVTT\n\n") + "\n".join(cues)


def _cue(text: str, format: str) -> str:
    """The text as it is read, not as markup."""
    return text if format == "srt" else text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(seconds: float, mark: str) -> str:
    whole = round(seconds * 1000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}{mark}{whole % 1000:03}"
