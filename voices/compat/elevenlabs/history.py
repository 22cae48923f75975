"""What was spoken, in ElevenLabs' shape: the list, its items, their audio."""

from __future__ import annotations

import io
import tempfile
import uuid
import wave
import zipfile
from typing import Any

from django.conf import settings
from django.http import FileResponse, HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from voiceproject.errors import PublicError
from voiceproject.jobs.status import JobStatus
from voiceproject.media.formats import Output, encode_file
from voiceproject.web import slots
from voices.compat.common import PCM_RATE, marked
from voices.compat.elevenlabs.base import AUDIO, DONE, OUTPUTS, ElevenLabsView, number
from voices.compat.schema import FLAG, TEXT, WHOLE, files, listed, maybe, query, shape
from voices.library.models import Voice
from voices.speech import synthesis
from voices.speech.models import Synthesis

MAX_PAGE, MAX_DOWNLOADS = 1000, 100
EXTENSIONS = {"opus": "ogg"}


def _speaker(job: Synthesis, names: dict[uuid.UUID, str]) -> tuple[str, str | None, str | None]:
    """Id, name and category. Older clients need a text as the id: it is empty where the voice was sent along."""
    if job.voice_id:
        return str(job.voice_id), names.get(job.voice_id), "cloned"
    preset = job.reference_hash.partition("preset:")[2]
    return (preset, preset.title(), "premade") if preset else ("", None, None)


def _item(job: Synthesis, names: dict[uuid.UUID, str]) -> dict[str, Any]:
    voice_id, name, category = _speaker(job, names)
    return {"history_item_id": str(job.pk), "request_id": job.request_id or None,
            "voice_id": voice_id, "model_id": job.model_id or "default", "voice_name": name,
            "voice_category": category, "text": job.text,
            "date_unix": int(job.created_at.timestamp()), "character_count_change_from": 0,
            "character_count_change_to": len(job.text),
            "content_type": sent_as(job).content_type.partition(";")[0], "state": "created",
            "settings": None, "source": "TTS"}  # fmt: skip


def _history(request: Request) -> Any:
    return Synthesis.objects.for_tenant(request.user).filter(
        status=JobStatus.SUCCEEDED, files_expired=False, revoked_at=None
    )


def _history_item(request: Request, item_id: str) -> Synthesis:
    try:
        job: Synthesis | None = _history(request).filter(pk=uuid.UUID(item_id)).first()
    except ValueError:
        job = None
    if job is None:
        raise PublicError("not_found", "There is no such history item, or it is not yours.")
    return job


def _voice_names(request: Request) -> dict[uuid.UUID, str]:
    return dict(Voice.objects.for_tenant(request.user).values_list("pk", "name"))


ITEM = shape(
    "HistoryItem", history_item_id=TEXT, request_id=maybe(TEXT), voice_id=TEXT, model_id=TEXT,
    voice_name=maybe(TEXT), voice_category=maybe(TEXT), text=TEXT, date_unix=WHOLE, character_count_change_from=WHOLE,
    character_count_change_to=WHOLE, content_type=TEXT, state=TEXT, source=TEXT,
)  # fmt: skip
HISTORY = shape("History", history=listed(ITEM), last_history_item_id=maybe(TEXT), has_more=FLAG)


class HistoryView(ElevenLabsView):
    """Syntheses whose audio is there, newest first."""

    tag = "History"
    required_scope = "synthesize"

    @extend_schema(
        summary="What was spoken, newest first",
        responses=HISTORY,
        parameters=[
            query("page_size", "1 to 1000", int, default=100),
            query("start_after_history_item_id", "The last item of the page before"),
            query("voice_id", "Of this saved voice alone"),
        ],
    )
    def get(self, request: Request) -> Response:
        query = request.query_params
        size = number(query.get("page_size", "100"), "page_size", 1, MAX_PAGE)
        found = _history(request)
        if after := query.get("start_after_history_item_id"):
            last = _history_item(request, after)
            found = found.filter(created_at__lte=last.created_at).exclude(pk=last.pk)
        if voice_id := query.get("voice_id"):
            try:
                found = found.filter(voice_id=uuid.UUID(voice_id))
            except ValueError:
                found = found.none()
        rows = list(found[: size + 1])
        names = _voice_names(request)
        items = [_item(row, names) for row in rows[:size]]
        return Response({"history": items, "last_history_item_id": items[-1]["history_item_id"] if items else None,
                         "has_more": len(rows) > size})  # fmt: skip


class HistoryItemView(ElevenLabsView):
    tag = "History"
    required_scope = "synthesize"

    @extend_schema(summary="One item of the history", responses=ITEM)
    def get(self, request: Request, item_id: str) -> Response:
        return Response(_item(_history_item(request, item_id), _voice_names(request)))

    @extend_schema(summary="Delete an item and its audio", responses={200: DONE})
    def delete(self, request: Request, item_id: str) -> Response:
        _history_item(request, item_id).remove()
        return Response({"status": "ok"})


class HistoryAudioView(ElevenLabsView):
    """In the format in which it was asked for."""

    tag = "History"
    required_scope = "synthesize"

    @extend_schema(summary="Its audio, in the format that was asked for", responses=AUDIO)
    def get(self, request: Request, item_id: str) -> HttpResponseBase:
        job = _history_item(request, item_id)
        with slots.waiting_slot(request.user.pk):
            content = audio_of(job, sent_as(job))
        return _attachment(content, sent_as(job), str(job.pk))


class DownloadSerializer(serializers.Serializer):
    history_item_ids = serializers.ListField(
        child=serializers.CharField(max_length=100), min_length=1, max_length=MAX_DOWNLOADS
    )
    output_format = serializers.CharField(required=False, allow_null=True, allow_blank=True, max_length=32)

    def validate_output_format(self, name: str | None) -> str:
        if name not in (None, "", "default", "wav"):
            raise serializers.ValidationError("Must be wav or default.")
        return name or "default"


class DownloadView(ElevenLabsView):
    """One item as its audio, several as a ZIP."""

    tag = "History"
    required_scope = "synthesize"

    @extend_schema(
        summary="The audio of an item, or of several as a ZIP",
        request={"application/json": DownloadSerializer},
        responses=AUDIO | files(["application/zip"]),
    )
    def post(self, request: Request) -> HttpResponseBase:
        serializer = DownloadSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        asked = serializer.validated_data
        wav = Output("wav") if asked.get("output_format") == "wav" else None
        jobs = [_history_item(request, item_id) for item_id in dict.fromkeys(asked["history_item_ids"])]
        if len(jobs) == 1:
            output = wav or sent_as(jobs[0])
            with slots.waiting_slot(request.user.pk):
                return _attachment(audio_of(jobs[0], output), output, str(jobs[0].pk))
        # It is removed with the answer, which closes it.
        file = tempfile.TemporaryFile(dir=settings.UPLOAD_DIR)  # noqa: SIM115
        try:
            with slots.waiting_slot(request.user.pk), zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for job in jobs:
                    output = wav or sent_as(job)
                    archive.writestr(f"{job.pk}.{EXTENSIONS.get(output.format, output.format)}", audio_of(job, output))
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return FileResponse(file, as_attachment=True, filename="history.zip", content_type="application/zip")


def sent_as(job: Synthesis) -> Output:
    """The format that its client got."""
    if job.output_format in OUTPUTS:
        return OUTPUTS[job.output_format]
    format = job.output_format or job.response_format
    return Output(format, PCM_RATE if job.output_format == "pcm" else None)


def audio_of(job: Synthesis, output: Output) -> bytes:
    """The audio of a synthesis in a format. Raises PublicError result_expired, and as the encoder."""
    if output == Output(job.response_format):
        return synthesis.bare_wav(job) if output.format == "wav" else synthesis.stored_audio(job)
    stored = synthesis.stored_audio(job)
    if job.response_format == "pcm":
        stored = wav_of(stored, job.sample_rate or PCM_RATE)
    return marked(encode_file(io.BytesIO(stored), output), output, job, what="speech")


def wav_of(pcm: bytes, rate: int) -> bytes:
    """Bare samples, 16 bits mono, as a file that tells its rate in Hz."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm)
    return buffer.getvalue()


def _attachment(content: bytes, output: Output, name: str) -> HttpResponse:
    response = HttpResponse(content, content_type=output.content_type)
    extension = EXTENSIONS.get(output.format, output.format)
    response["Content-Disposition"] = f'attachment; filename="{name}.{extension}"'
    return response
