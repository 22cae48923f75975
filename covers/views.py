"""/api/v1/cover/jobs: submit, watch, cancel, download."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.files import File
from django.db import transaction
from django.db.models import F, QuerySet
from django.db.models.fields.files import FieldFile
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import mixins, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from covers.commands import model_of_voice, template
from covers.models import STEMS, CoverJob
from covers.serializers import RESULT_FORMATS, CoverJobSerializer, CreateCoverSerializer, RemixSerializer
from covers.tasks import run_covers
from voiceproject.errors import PublicError
from voiceproject.jobs.api import JobFilters, RenameSerializer, rename
from voiceproject.jobs.files import delete_folder
from voiceproject.jobs.idempotency import Submission
from voiceproject.jobs.job import Job
from voiceproject.jobs.status import LIVE, JobStatus, revoked
from voiceproject.media import audio, memory
from voiceproject.media.storage import fetch
from voiceproject.provenance.manifest import sign_file
from voiceproject.provenance.marks import mark_cover
from voiceproject.shares.api import SharesMixin, shares_documented
from voiceproject.telemetry.logging import current
from voiceproject.tenants import textfilter, usage
from voiceproject.web.api import BodyLimitMixin, CursorPages, file_response
from voiceproject.web.names import joined_title
from voiceproject.web.slots import waiting_slot
from voiceproject.web.uploads import title_of, upload_path
from voiceproject.webhooks.deliveries import callback_base
from voices.keys.auth import credentials
from voices.library import references, selection
from voices.speech import consumers
from voices.speech.serializers import RETRYABLE

# Of a result that is encoded anew: C2PA reads a file into memory to sign it, where it has a copy of it and more. FLAC
# of 16 bits, stereo, at 44.1 kHz has at most 176 kB a second, MP3 has 20.
SIGNED_BYTES_PER_SECOND = {"flac": 400_000, "mp3": 64_000}

AUDIO = {(200, "audio/*"): OpenApiResponse(OpenApiTypes.BINARY), (206, "audio/*"): OpenApiResponse(OpenApiTypes.BINARY)}


@shares_documented("cover", "cover")
class CoverJobViewSet(
    SharesMixin,
    BodyLimitMixin,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    mixins.DestroyModelMixin,
    viewsets.GenericViewSet,
):
    required_scope = "covers"
    serializer_class = CoverJobSerializer
    pagination_class = CursorPages
    queryset = CoverJob.objects.none()
    error_statuses = {
        "create": (404, 410, 422),
        "cancel": (409,),
        "retry": (409, 410),
        "remix": (409, 410, 422),
        "result": (409, 410, 416),
        "stem": (409, 410, 416),
        **SharesMixin.share_errors,
    }

    def get_max_body_bytes(self) -> int:
        if self.action != "create":
            return settings.MAX_UPLOAD_SIZE
        return settings.MAX_UPLOAD_SIZE + 2 * settings.COVER_MAX_UPLOAD_SIZE

    def get_queryset(self) -> QuerySet[CoverJob]:
        own = CoverJob.objects.for_tenant(self.request.user)
        # Whether a failed remix can be tried again is its source's to say.
        return own.select_related("remix_of") if self.action == "list" else own

    def filter_queryset(self, queryset: QuerySet) -> QuerySet:
        return JobFilters.apply(queryset, self.request) if self.action == "list" else queryset

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "in_list": self.action == "list"}

    @extend_schema(
        operation_id="create_cover",
        summary="Submit a song to be sung in the voice of a reference",
        description="Answers at once with the job; the work is done by a worker. Poll `links.self`.",
        request={"multipart/form-data": CreateCoverSerializer},
        responses={202: CoverJobSerializer},
        parameters=[consumers.LOCATION, consumers.WAIT, *consumers.IDEMPOTENCY],
        tags=["cover"],
    )
    def create(self, request: Request) -> HttpResponseBase:
        tenant, key = credentials(request)
        submission = Submission(request, tenant, CoverJob)
        if (earlier := submission.earlier()) is not None:
            return self._accepted(request, earlier, replayed=True)
        serializer = CreateCoverSerializer(data=request.data, context={"tenant": tenant.pk})
        serializer.is_valid(raise_exception=True)
        fields = serializer.validated_data
        textfilter.check(request, fields["lyrics"], "cover", "lyrics")
        names = [title_of(fields["song"])]
        song = upload_path(fields.pop("song"))
        own = upload_path(fields.pop("instrumental")) if "instrumental" in fields else None
        reference: Path | FieldFile
        if "voice_id" in fields:
            voice = selection.find(tenant, fields["voice_id"])
            # A copy of its own: the voice may be changed or deleted while the job waits.
            reference = voice.reference
            names.append(voice.name)
            if not fields["reference_text"] and "reference_text_file" in template("infer").placeholders:
                fields["reference_text"] = voice.reference_transcript
            fields["model_id"] = fields["model_id"] or model_of_voice(voice)
        else:
            reference = upload_path(fields.pop("reference_voice"))
        fields["pitch_auto"] = fields["pitch_shift"] is None
        warnings: list[str] = []
        needed = max(memory.to_decode(path, 0, 0) for path in (song, own) if path is not None)
        if isinstance(reference, Path):
            needed = max(needed, memory.to_decode(reference, references.MAX_SECONDS, references.BYTES_PER_SECOND))
        with waiting_slot(tenant.pk), memory.claim(needed):
            # Decoded here once, so that what cannot be covered is refused now and not in an hour.
            if isinstance(reference, Path):
                audio.load_reference(reference, field="reference_voice", warnings=warnings)
            info = audio.decode_song(song, None, field="song", max_seconds=settings.COVER_MAX_DURATION_SECONDS)
            warnings += info.warnings
            seconds = info.duration_seconds
            if own is not None:
                limit = settings.COVER_MAX_DURATION_SECONDS
                info = audio.decode_song(own, None, field="instrumental", max_seconds=limit)
                seconds = max(seconds, info.duration_seconds)
                warnings += info.warnings
            song_hash = audio.sha256_file(song)
        job = CoverJob(
            id=uuid.uuid4(),
            tenant=tenant,
            api_key=key,
            request_id=current("request_id"),
            callback_base=callback_base(request),
            title=joined_title(*names),
            song_hash=song_hash,
            duration_seconds=seconds,
            warning=" ".join(warnings)[:500],
            warnings=[{"code": "upload", "message": message} for message in warnings],
            **fields,
        )
        storage = job.song.storage
        files = [("song", song), ("reference_voice", reference), *([("own_instrumental", own)] if own else [])]
        try:
            for field, path in files:
                with path.open("rb") as file:
                    setattr(job, field, storage.save(f"{job.folder}/0-{field}", File(file)))
                job.input_bytes += usage.size_of(path)
            kept = submission.admit(job, settings.COVER_MAX_QUEUED)
        except BaseException:
            delete_folder(job.folder)
            raise
        if kept is not job:
            delete_folder(job.folder)
        else:
            selection.check_still_there(job)
        return self._accepted(request, kept, replayed=kept is not job)

    def _accepted(self, request: Request, job: Job, replayed: bool = False) -> HttpResponseBase:
        return consumers.accepted(request, job, run_covers, self.get_serializer, replayed=replayed)

    @extend_schema(
        operation_id="list_covers", summary="Your cover jobs, newest first", parameters=[JobFilters], tags=["cover"]
    )
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().list(request, *args, **kwargs)

    @extend_schema(operation_id="get_cover", summary="One cover job", parameters=[consumers.WAIT], tags=["cover"])
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]
        job = self.get_object()
        return consumers.shown(request, job, self.get_serializer)

    @extend_schema(
        operation_id="rename_cover",
        summary="Give a cover another title",
        request={"application/json": RenameSerializer, "multipart/form-data": RenameSerializer},
        responses=CoverJobSerializer,
        tags=["cover"],
    )
    def rename(self, request: Request, pk: str) -> Response:
        job = self.get_object()
        rename(job, request.data)
        return Response(self.get_serializer(job).data)

    @extend_schema(
        operation_id="delete_cover", summary="Delete a job and all its files; a live one is canceled", tags=["cover"]
    )
    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().destroy(request, *args, **kwargs)

    def perform_destroy(self, instance: CoverJob) -> None:
        instance.remove()

    @extend_schema(
        operation_id="cancel_cover",
        summary="Cancel a job",
        description="Canceling a canceled job again is fine; after success or failure it is 409 `job_finished`.",
        request=None,
        responses=CoverJobSerializer,
        tags=["cover"],
    )
    def cancel(self, request: Request, pk: str) -> Response:
        job = self.get_object()
        if not job.cancel(settings.COVER_RESULT_TTL_HOURS) and job.status != JobStatus.CANCELED:
            raise PublicError("job_finished", "The job has ended already.", {"status": job.status})
        return Response(self.get_serializer(job).data)

    @extend_schema(
        operation_id="retry_cover",
        summary="Try a failed or canceled job again",
        description="It goes on after the last stage that was finished; a canceled job has kept none. 409 `conflict` "
        "while it is alive or once it has succeeded, 410 `result_expired` when its files, or the stems that a remix "
        "mixes, are gone.",
        request=None,
        responses={202: CoverJobSerializer},
        tags=["cover"],
    )
    def retry(self, request: Request, pk: str) -> HttpResponseBase:
        tenant, _ = credentials(request)
        job = self.get_object()
        if job.revoked_at:
            raise revoked()
        if job.files_expired:
            raise PublicError("result_expired", "The files of this job were deleted after their time; submit it again.")
        if job.status in RETRYABLE and not job.retryable:
            raise PublicError("result_expired", "The stems that this job mixes are gone; submit the song again.")
        with CoverJob.admission(tenant, settings.COVER_MAX_QUEUED, job.api_key):
            retried = job.retry()
        if not retried:
            message = "Only a failed or canceled job can be tried again."
            raise PublicError("conflict", message, {"status": job.status})
        return self._accepted(request, job)

    @extend_schema(
        operation_id="remix_cover",
        summary="Mix a finished job again with other gains",
        description="A new job, made of the stems of this one: nothing is separated or converted again.",
        request={"application/json": RemixSerializer, "multipart/form-data": RemixSerializer},
        responses={202: CoverJobSerializer},
        parameters=[consumers.LOCATION, consumers.WAIT, *consumers.IDEMPOTENCY],
        tags=["cover"],
    )
    def remix(self, request: Request, pk: str) -> HttpResponseBase:
        tenant, key = credentials(request)
        source = self.get_object()
        submission = Submission(request, tenant, CoverJob, source=str(pk))
        if (earlier := submission.earlier()) is not None:
            return self._accepted(request, earlier, replayed=True)
        serializer = RemixSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        source.raise_unless_succeeded()
        if source.remix_of is not None:
            source = source.remix_of  # Where the stems are.
            source.raise_unless_succeeded()
        if not source.has_stems:
            raise PublicError("conflict", "This job has no stems that could be mixed again.")
        copied = ("voice_id", "title", "song_hash", "model_id", "pitch_shift", "pitch_auto", "input_kind",
                  "preview_seconds", "preview_start_seconds", "duration_seconds", "shift_instrumental",
                  "details")  # fmt: skip
        job = CoverJob(
            tenant=tenant,
            api_key=key,
            request_id=current("request_id"),
            callback_base=callback_base(request),
            remix_of=source,
            **{name: getattr(source, name) for name in copied},
            **serializer.validated_data,
        )
        kept = submission.admit(job, settings.COVER_MAX_QUEUED)
        selection.check_still_there(kept)
        return self._accepted(request, kept, replayed=kept is not job)

    @extend_schema(
        operation_id="cover_events",
        summary="A job's changes as Server-Sent Events",
        description=consumers.EVENTS_DESCRIPTION,
        parameters=[OpenApiParameter("Last-Event-ID", int, OpenApiParameter.HEADER)],
        responses=consumers.EVENTS_RESPONSES,
        tags=["cover"],
    )
    def events(self, request: Request, pk: str) -> HttpResponseBase:
        return consumers.events(request, self.get_object(), CoverJobSerializer)

    @extend_schema(
        operation_id="get_cover_result",
        summary="The finished cover",
        description="Stereo, 44.1 kHz, as long as the song. `Range` and `If-None-Match` work.",
        parameters=[OpenApiParameter("format", str, enum=RESULT_FORMATS, description="Instead of response_format")],
        responses=AUDIO,
        tags=["cover"],
    )
    def result(self, request: Request, pk: str) -> HttpResponseBase:
        job = self.get_object()
        format = request.query_params.get("format", job.response_format).lower()
        if format not in RESULT_FORMATS:
            message = f"Must be one of {', '.join(RESULT_FORMATS)}."
            raise PublicError("validation_error", f"format: {message}", {"format": [message]})
        job.raise_unless_succeeded()
        field = "result" if format == "wav" else f"result_{format}"
        if not getattr(job, field):
            _encode_result(job, field, format)
        return file_response(
            request._request,
            getattr(job, field),
            content_type=audio.CONTENT_TYPES[format],
            **job.download_names(audio.EXTENSIONS[format]),
        )

    @extend_schema(
        operation_id="get_cover_stem",
        summary="A stem of a job",
        description="Each is there as soon as its stage is finished: 44.1 kHz WAV, as long as the song.",
        parameters=[OpenApiParameter("stem", str, OpenApiParameter.PATH, enum=STEMS)],
        responses=AUDIO,
        tags=["cover"],
    )
    def stem(self, request: Request, pk: str, stem: str) -> HttpResponseBase:
        job = self.get_object()
        if stem not in STEMS or (stem != "converted" and not job.has_accompaniment):
            raise PublicError("not_found", f"This job has no stem of that name; there are: {', '.join(STEMS)}.")
        stored = getattr(job, stem)
        if job.revoked_at:
            raise revoked()
        if not stored:
            if job.status not in LIVE:
                job.raise_unless_succeeded()
            raise PublicError("job_not_ready", "This stem is not made yet.", {"status": job.status}, retry_after=5)
        names = job.download_names("wav", f"-{stem}")
        return file_response(request._request, stored, content_type="audio/wav", **names)


def _encode_result(job: CoverJob, field: str, format: str) -> None:
    """Makes another format of a finished result, once, and keeps it with the job."""
    storage = job.result.storage
    needed = memory.BLOCKS_BYTES + round(SIGNED_BYTES_PER_SECOND.get(format, 0) * (job.duration_seconds or 0))
    with (
        waiting_slot(job.tenant_id),
        memory.claim(needed),
        tempfile.TemporaryDirectory(dir=settings.UPLOAD_DIR) as folder,
    ):
        wav, encoded = Path(folder, "result.wav"), Path(folder, f"result.{format}")
        fetch(storage, str(job.result.name), wav)
        audio.encode_file(wav, encoded, format)
        if job.made:
            sign_file(encoded, format, what="cover", job_id=job.pk)
        size = encoded.stat().st_size
        with encoded.open("rb") as file:
            name = storage.save(f"covers/{job.pk}/{job.attempt}-result.{format}", File(file))
        kept = CoverJob.objects.filter(pk=job.pk, status=JobStatus.SUCCEEDED, files_expired=False, **{field: ""})
        with transaction.atomic():
            won = kept.update(**{field: name}, output_bytes=F("output_bytes") + size)
            if won and job.made:
                mark_cover(job.pk, encoded)
        if not won:
            storage.delete(name)  # Another request was faster, or the job was deleted meanwhile.
    job.refresh_from_db()
    job.raise_unless_succeeded()
