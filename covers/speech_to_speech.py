"""ElevenLabs' speech to speech: a recording said, or sung, again in another voice.

It is a cover of a bare voice: a job as any other, done by a worker, for which the request waits.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.files import File
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request

from covers.commands import model_of_voice
from covers.models import CoverJob
from covers.tasks import run_covers
from voiceproject.commands.scratch import scratch
from voiceproject.errors import EngineTimeout, PublicError
from voiceproject.jobs.broker import wake_workers
from voiceproject.jobs.events import wait_for_end
from voiceproject.jobs.files import delete_folder
from voiceproject.jobs.status import LIVE
from voiceproject.media import audio, memory
from voiceproject.media.formats import Output, encode_file
from voiceproject.media.storage import fetch
from voiceproject.telemetry.logging import current
from voiceproject.web.api import SizedFileField, client_gone, warning_headers
from voiceproject.web.names import joined_title
from voiceproject.web.slots import waiting_slot
from voiceproject.web.uploads import title_of, upload_path
from voices.compat.common import marked, streaming_response
from voices.compat.elevenlabs.base import AUDIO, AUDIO_HEADERS, OUTPUT_FORMAT, ElevenLabsView
from voices.keys.auth import credentials
from voices.library import selection, speakers
from voices.library.models import Voice

STREAM_BLOCK_BYTES = 16 * 1024
# The largest file there is, 16 bits at 48 kHz: while it is encoded, as it is encoded, while it is signed, and signed.
RESULT_BYTES_PER_SECOND = 4 * 2 * 48_000


class SpeechToSpeechSerializer(serializers.Serializer):
    """Unknown fields are ignored, as there: of voice_settings none applies to a conversion."""

    audio = SizedFileField(max_bytes_setting="COVER_MAX_UPLOAD_SIZE")


class SpeechToSpeechView(ElevenLabsView):
    """streamed: the answer in pieces. It begins when all is converted, in either case."""

    tag = "Speech to speech"
    required_scope = "covers"
    field_names = {"song": "audio"}
    streamed = False

    def get_max_body_bytes(self) -> int:
        return settings.COVER_MAX_UPLOAD_SIZE

    @extend_schema(
        summary="Say, or sing, a recording again in another voice",
        request={"multipart/form-data": SpeechToSpeechSerializer},
        responses=AUDIO,
        parameters=[OUTPUT_FORMAT, *AUDIO_HEADERS[:2]],
    )
    def post(self, request: Request, voice_id: str) -> HttpResponseBase:
        tenant, key = credentials(request)
        output = self.output(request, streamed=self.streamed)
        serializer = SpeechToSpeechSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        voice = speakers.find(tenant, voice_id)
        if not isinstance(voice, Voice):
            message = "A premade voice cannot be converted to; save a voice and send its id."
            raise PublicError("validation_error", f"voice_id: {message}", {"voice_id": [message]})
        upload = serializer.validated_data["audio"]
        path = upload_path(upload)
        with waiting_slot(tenant.pk):
            with memory.claim(memory.to_decode(path, 0, 0)):
                info = audio.decode_song(path, None, field="song", max_seconds=settings.COVER_MAX_DURATION_SECONDS)
            song_hash = audio.sha256_file(path)
            job = CoverJob(
                id=uuid.uuid4(),
                tenant=tenant,
                api_key=key,
                request_id=current("request_id"),
                voice_id=voice.pk,
                model_id=model_of_voice(voice),
                title=joined_title(title_of(upload), voice.name),
                song_hash=song_hash,
                duration_seconds=info.duration_seconds,
                input_kind="vocals",
                warning=" ".join(info.warnings)[:500],
                warnings=[{"code": "upload", "message": message} for message in info.warnings],
            )
            _submit(job, path, voice)
            wake_workers(run_covers)
            wait_for_end(job, settings.SYNTHESIS_TIMEOUT_SECONDS, client_gone(request))
        job.refresh_from_db()
        if job.status in LIVE:
            job.cancel(settings.COVER_RESULT_TTL_HOURS)
            raise EngineTimeout("The recording could not be converted in time. Send a shorter one.")
        job.raise_unless_succeeded()
        content = _result(job, output)
        response: HttpResponseBase
        if self.streamed:
            response = streaming_response(
                iter([content[at : at + STREAM_BLOCK_BYTES] for at in range(0, len(content), STREAM_BLOCK_BYTES)]),
                output.content_type,
            )
        else:
            response = HttpResponse(content, content_type=output.content_type)
        response["request-id"] = str(getattr(request._request, "request_id", ""))
        response["history-item-id"] = str(job.pk)
        for name, text in warning_headers([job.warning]).items():
            response[name] = text
        return response


def _submit(job: CoverJob, path: Path, voice: Voice) -> None:
    sources: tuple[tuple[str, Any, int], ...] = (
        ("song", path, path.stat().st_size),
        ("reference_voice", voice.reference, voice.reference_bytes),
    )
    try:
        for field, source, size in sources:
            with source.open("rb") as file:
                setattr(job, field, job.song.storage.save(f"{job.folder}/0-{field}", File(file)))
            job.input_bytes += size
        with CoverJob.admission(job.tenant, settings.COVER_MAX_QUEUED, job.api_key):
            job.accept()
    except BaseException:
        delete_folder(job.folder)
        raise
    selection.check_still_there(job)


def _result(job: CoverJob, output: Output) -> bytes:
    """The converted voice as a file, mono, with the mark of what is made here."""
    with (
        waiting_slot(job.tenant_id),
        scratch(settings.SCRATCH_DIR, f"speech-{job.pk}") as folder,
        memory.claim(memory.BLOCKS_BYTES + round(RESULT_BYTES_PER_SECOND * (job.duration_seconds or 0))),
    ):
        fetch(job.result.storage, str(job.result.name), folder / "result.wav")
        return marked(encode_file(folder / "result.wav", output), output, job, what="singing")
