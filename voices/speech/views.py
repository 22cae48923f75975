"""/api/v1/voice: synthesis, what was synthesised, models, the engine's state."""

from __future__ import annotations

import functools
import secrets
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.files import File
from django.db.models import Avg, QuerySet
from django.db.models.fields.files import FieldFile
from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import mixins, viewsets
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from voiceproject.errors import EngineTimeout, PublicError
from voiceproject.jobs.api import JobFilters, RenameSerializer, rename
from voiceproject.jobs.files import delete_folder
from voiceproject.jobs.idempotency import Submission, refuse_key
from voiceproject.jobs.job import Job
from voiceproject.jobs.status import LIVE, JobStatus, revoked
from voiceproject.media import audio
from voiceproject.provenance.manifest import without_manifest
from voiceproject.shares.api import SharesMixin, shares_documented
from voiceproject.telemetry.logging import current
from voiceproject.tenants import textfilter, usage
from voiceproject.web import uploads
from voiceproject.web.api import BodyLimitMixin, CursorPages, client_gone, file_response, preferences, warning_headers
from voiceproject.web.names import attachment
from voiceproject.webhooks.deliveries import callback_base
from voices.engines import configured
from voices.engines.interface import SynthesisRequest
from voices.keys.auth import credentials
from voices.lexicons.serializers import named
from voices.lexicons.stored import for_text
from voices.library import selection, speakers
from voices.library.references import references
from voices.speech import consumers, registry, synthesis
from voices.speech.dialogue import Dialogue
from voices.speech.models import Synthesis
from voices.speech.serializers import (
    MAX_SEED,
    EngineStateSerializer,
    ModelListSerializer,
    SynthesisSerializer,
    SynthesizeSerializer,
    check_text,
)
from voices.speech.tasks import run_syntheses

AUDIO_HEADERS = {
    "X-Synthesis-ID": (OpenApiTypes.UUID, "Id of this synthesis; see GET /voice/syntheses/{id}"),
    "X-Audio-Duration": (OpenApiTypes.FLOAT, "Seconds; not with stream=true"),
    "X-Audio-Sample-Rate": (OpenApiTypes.INT, "Hz"),
    "X-Engine": (OpenApiTypes.STR, "builtin or gptsovits"),
    "X-Warning": (OpenApiTypes.STR, "What was left out of the text, or guessed; where there is something to say"),
    usage.HEADER: (OpenApiTypes.INT, "Seconds of audio left of this month's quota, where there is one"),
    "X-Reference-Window": (OpenApiTypes.STR, "<start>-<end> in seconds: the part of the reference that was used"),
}
PREFER = OpenApiParameter(
    "Prefer",
    str,
    OpenApiParameter.HEADER,
    description="`respond-async`: 202 and a job; `respond-async, wait=N`: that after N seconds at most",
)


MANIFEST = OpenApiParameter(
    "manifest",
    bool,
    description="`false`: WAV that is a header and samples alone, for programs that take all behind the header for "
    "samples. Such a file is known by its hash and its sound. The default is `WAV_MANIFEST`'s, a setting.",
)


def with_manifest(request: Request) -> bool:
    """Whether a WAV shall carry its manifest. Raises PublicError."""
    sent = request.query_params.get("manifest", "")
    if sent.lower() not in ("", "true", "1", "false", "0"):
        message = "Must be true or false."
        raise PublicError("validation_error", f"manifest: {message}", {"manifest": [message]})
    return settings.WAV_MANIFEST if not sent else sent.lower() in ("true", "1")


class SynthesizeView(BodyLimitMixin, APIView):
    required_scope = "synthesize"
    at_desk = True
    error_statuses = {"post": (404, 409, 410, 422, 502, 504)}

    @extend_schema(
        operation_id="synthesize",
        summary="Text to speech in the voice of a reference",
        description=(
            "With `stream=true` the body is sent while it is made, and `X-Audio-Duration` is left out. What fails "
            "before the first sentence is an ordinary error. What fails later cuts the body off: it then has no last "
            "chunk, and the synthesis says why. A client that hangs up cancels the synthesis, streamed or not. "
            "The whole audio is at `GET /voice/syntheses/{id}/audio` afterwards.\n\n"
            "With the header `Prefer: respond-async` the answer is 202 with the job, and a worker makes the audio.\n\n"
            "With `voice_id` or `voice`, where no file is sent, the same fields may come as a JSON object."
        ),
        # Only multipart is declared: of two bodies, client generators take one, and it must have the file.
        request={"multipart/form-data": SynthesizeSerializer},
        responses={
            (200, content_type): OpenApiResponse(OpenApiTypes.BINARY, description="The audio")
            for content_type in audio.CONTENT_TYPES.values()
        }
        | {202: SynthesisSerializer},
        parameters=[
            OpenApiParameter(name, type_, OpenApiParameter.HEADER, response=[200], description=text)
            for name, (type_, text) in AUDIO_HEADERS.items()
        ]
        + [
            PREFER,
            MANIFEST,
            consumers.LOCATION,
            *consumers.IDEMPOTENCY,
        ],
        tags=["voice"],
    )
    def post(self, request: Request) -> HttpResponseBase:
        tenant, key = credentials(request)
        with_manifest(request)  # It refuses what is no choice, before anything is made.
        background = "respond-async" in preferences(request)
        submission = None
        if background:
            submission = Submission(request, tenant, Synthesis)
            if (earlier := submission.earlier()) is not None:
                return accepted(request, earlier, replayed=True)
        else:
            refuse_key(request)
        serializer = SynthesizeSerializer(data=request.data, context={"tenant": tenant.pk})
        serializer.is_valid(raise_exception=True)
        fields = serializer.validated_data
        check_background(fields, background)
        textfilter.check(request, fields["text"], "synthesis", "text")
        engine = configured.get_engine()
        file: Path | FieldFile
        if name := fields.get("voice"):
            fields["voice_id"] = speakers.find_saved(tenant, name).pk
        voice = selection.find(tenant, fields["voice_id"]) if "voice_id" in fields else None
        registry.use_model_of(fields, voice.pk if voice else None, tenant.pk)
        lexicon = for_text(fields["text"], tenant, named(fields), voice.lexicon_id if voice else None)
        if voice is not None:
            chosen = selection.choose(voice, engine, fields["reference_text"], fields["reference_language"])
            reference, file = chosen.reference, chosen.file
            spoken_by = reference.transcript or "", reference.language
        else:
            spoken_by = fields["reference_text"], fields["reference_language"]
        reading, warnings = check_text(fields, *spoken_by, lexicon, early=fields["stream"])
        if voice is None:
            file = uploads.upload_path(fields["reference_audio"])
            reference = references.reference(
                file,
                fields["reference_text"] or None,
                fields["reference_language"],
                field="reference_audio",
                tenant=tenant.pk,
            )
            told = references.warnings(reference.content_hash)
            warnings = [*warnings, *({"code": "recording", "message": message} for message in told)]
        window = None
        if (find_window := getattr(engine, "reference_window", None)) is not None:
            window = find_window(reference)
        seed = fields.get("seed")
        job = Synthesis(
            tenant=tenant,
            api_key=key,
            request_id=current("request_id"),
            callback_url=fields["callback_url"],
            callback_base=callback_base(request),
            text=fields["text"],
            language=fields["language"],
            voice_id=fields.get("voice_id"),
            reference_hash=reference.content_hash,
            reference_text=reference.transcript or "",
            reference_language=reference.language,
            speed=fields["speed"],
            temperature=fields["temperature"],
            # A random seed is stored, so that the same audio can be made again.
            seed=secrets.randbelow(MAX_SEED + 1) if seed is None else seed,
            model_id=fields["model_id"],
            response_format=fields["response_format"],
            engine=engine.name,
            warnings=warnings,
            lexicon=lexicon.as_json(),
        )
        if submission is not None:
            return self._submit(request, submission, job, file)
        synthesis.start(job)
        selection.check_still_there(job)
        spoken = synthesis.request_for(job, reference, fields["model"], early=fields["stream"], reading=reading)
        return answer(request, job, spoken, fields["stream"], window)

    def _submit(
        self, request: Request, submission: Submission, job: Synthesis, reference: Path | FieldFile
    ) -> HttpResponseBase:
        job.background = True
        storage = job.reference_audio.storage
        try:
            # A copy of a saved voice too: the voice may be changed or deleted while the job waits.
            with reference.open("rb") as file:
                stored = storage.save(f"{job.folder}/0-reference_audio", File(file))
            job.reference_audio = stored
            job.input_bytes = usage.size_of(reference)
            kept = submission.admit(job, settings.SYNTHESIS_MAX_QUEUED)
        except BaseException:
            delete_folder(job.folder)
            raise
        if kept is not job:
            delete_folder(job.folder)
        else:
            selection.check_still_there(job)
        return accepted(request, kept, replayed=kept is not job)


def check_background(fields: dict[str, Any], background: bool) -> None:
    """Raises PublicError for what does not go with `Prefer: respond-async`, or not without it."""
    if background and fields["stream"]:
        message = "Prefer: respond-async answers with a job, which is not streamed; send one of both."
        raise PublicError("validation_error", f"stream: {message}", {"stream": [message]})
    if fields["callback_url"] and not background:
        message = "It is told of a job: send the header Prefer: respond-async, or leave it out."
        raise PublicError("validation_error", f"callback_url: {message}", {"callback_url": [message]})


def accepted(request: Request, job: Job, replayed: bool) -> HttpResponseBase:
    render = functools.partial(SynthesisSerializer, context={"request": request})
    applied = ("respond-async",)
    return consumers.accepted(request, job, run_syntheses, render, applied=applied, replayed=replayed)


def answer(
    request: Request,
    job: Synthesis,
    order: SynthesisRequest | Dialogue,
    streamed: bool,
    window: tuple[float, float] | None = None,
) -> HttpResponseBase:
    """The audio of a running job: whole, or as a stream while it is made. Raises PublicError."""
    bare = job.response_format == "wav" and not with_manifest(request)
    try:
        return _spoken(request, job, order, streamed, window, bare)
    except PublicError as error:
        if error.code != "engine_timeout":
            raise
        advice = "Send it with the header Prefer: respond-async, and no connection has to wait for it."
        raise EngineTimeout(f"{error.message} {advice}") from error


def _spoken(
    request: Request,
    job: Synthesis,
    order: SynthesisRequest | Dialogue,
    streamed: bool,
    window: tuple[float, float] | None,
    bare: bool,
) -> HttpResponseBase:
    gone = client_gone(request)
    content_type = audio.CONTENT_TYPES[job.response_format]
    response: HttpResponseBase
    if streamed:
        stream = synthesis.SpeechStream(job, order, gone)
        response = StreamingHttpResponse(stream, content_type=content_type)
        response["X-Audio-Sample-Rate"] = str(stream.sample_rate)
        # A proxy that gathers the answer first would undo it.
        response["X-Accel-Buffering"] = "no"
        response["Cache-Control"] = "no-store, no-transform"
    else:
        speech = synthesis.perform(job, order, gone)
        content = without_manifest(speech.encoded) if bare else speech.encoded
        response = HttpResponse(content, content_type=content_type)
        response["X-Audio-Duration"] = f"{speech.duration_seconds:.3f}"
        response["X-Audio-Sample-Rate"] = str(speech.sample_rate)
    response["Content-Disposition"] = attachment(**job.download_names(job.response_format))
    response["X-Synthesis-ID"] = str(job.pk)
    response["X-Engine"] = job.engine
    for name, text in warning_headers(told["message"] for told in job.warnings).items():
        response[name] = text
    if job.quota_left_ms is not None:
        response[usage.HEADER] = usage.header(job.quota_left_ms)
    if window is not None:
        response["X-Reference-Window"] = f"{window[0]:.2f}-{window[1]:.2f}"
    return response


@shares_documented("synthesis", "voice")
class SynthesisViewSet(
    SharesMixin,
    BodyLimitMixin,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    mixins.DestroyModelMixin,
    viewsets.GenericViewSet,
):
    required_scope = "synthesize"
    serializer_class = SynthesisSerializer
    pagination_class = CursorPages
    queryset = Synthesis.objects.none()
    error_statuses = {
        "cancel": (409,), "retry": (409, 410), "audio": (409, 410, 416), **SharesMixin.share_errors,
    }  # fmt: skip

    def get_queryset(self) -> QuerySet[Synthesis]:
        return Synthesis.objects.for_tenant(self.request.user)

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "in_list": self.action == "list"}

    def filter_queryset(self, queryset: QuerySet) -> QuerySet:
        return JobFilters.apply(queryset, self.request) if self.action == "list" else queryset

    @extend_schema(
        operation_id="list_syntheses", summary="Your syntheses, newest first", parameters=[JobFilters], tags=["voice"]
    )
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().list(request, *args, **kwargs)

    @extend_schema(operation_id="get_synthesis", summary="One synthesis", parameters=[consumers.WAIT], tags=["voice"])
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]
        return consumers.shown(request, self.get_object(), self.get_serializer)

    @extend_schema(
        operation_id="rename_synthesis",
        summary="Give a synthesis another title",
        request={"application/json": RenameSerializer, "multipart/form-data": RenameSerializer},
        responses=SynthesisSerializer,
        tags=["voice"],
    )
    def rename(self, request: Request, pk: str) -> Response:
        job = self.get_object()
        rename(job, request.data)
        return Response(self.get_serializer(job).data)

    @extend_schema(operation_id="delete_synthesis", summary="Delete a synthesis and its audio", tags=["voice"])
    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().destroy(request, *args, **kwargs)

    def perform_destroy(self, instance: Synthesis) -> None:
        instance.remove()

    @extend_schema(
        operation_id="cancel_synthesis",
        summary="Cancel a synthesis that waits or is being made",
        request=None,
        responses=SynthesisSerializer,
        tags=["voice"],
    )
    def cancel(self, request: Request, pk: str) -> Response:
        job = self.get_object()
        if not job.cancel(settings.SYNTHESIS_TTL_HOURS) and job.status != JobStatus.CANCELED:
            raise PublicError("job_finished", "This synthesis has ended already.", {"status": job.status})
        return Response(self.get_serializer(job).data)

    @extend_schema(
        operation_id="retry_synthesis",
        summary="Try a failed or canceled synthesis again",
        description="Only one that was sent with `Prefer: respond-async`. 409 `conflict` otherwise, while it is alive "
        "and once it has succeeded; 410 `result_expired` when its files are gone.",
        request=None,
        responses={202: SynthesisSerializer},
        tags=["voice"],
    )
    def retry(self, request: Request, pk: str) -> HttpResponseBase:
        tenant, _ = credentials(request)
        job = self.get_object()
        if not job.resumable:
            raise PublicError("conflict", "Its reference was not kept; send the request again.")
        if job.revoked_at:
            raise revoked()
        if job.files_expired:
            raise PublicError("result_expired", "Its files were deleted after their time; send the request again.")
        with Synthesis.admission(tenant, settings.SYNTHESIS_MAX_QUEUED, job.api_key):
            retried = job.retry()
        if not retried:
            message = "Only a failed or canceled synthesis can be tried again."
            raise PublicError("conflict", message, {"status": job.status})
        return consumers.accepted(request, job, run_syntheses, self.get_serializer)

    @extend_schema(
        operation_id="synthesis_events",
        summary="A synthesis' changes as Server-Sent Events",
        description=consumers.EVENTS_DESCRIPTION,
        parameters=[OpenApiParameter("Last-Event-ID", int, OpenApiParameter.HEADER)],
        responses=consumers.EVENTS_RESPONSES,
        tags=["voice"],
    )
    def events(self, request: Request, pk: str) -> HttpResponseBase:
        return consumers.events(request, self.get_object(), SynthesisSerializer)

    @extend_schema(
        operation_id="get_synthesis_audio",
        summary="The audio of a synthesis",
        description="`Range` and `If-None-Match` work, but for WAV with `manifest=false`.",
        parameters=[MANIFEST],
        responses={
            (200, "audio/*"): OpenApiResponse(OpenApiTypes.BINARY),
            (206, "audio/*"): OpenApiResponse(OpenApiTypes.BINARY),
        },
        tags=["voice"],
    )
    def audio(self, request: Request, pk: str) -> HttpResponseBase:
        whole = with_manifest(request)
        job = self.get_object()
        job.raise_unless_succeeded()
        if job.response_format == "wav" and not whole:
            return bare_file(job)
        return file_response(
            request._request,
            job.audio,
            content_type=audio.CONTENT_TYPES[job.response_format],
            **job.download_names(job.response_format),
        )


def bare_file(job: Synthesis) -> HttpResponse:
    """The WAV of a synthesis without its manifest, remembered by its hash. Raises PublicError result_expired."""
    content = synthesis.bare_wav(job)
    response = HttpResponse(content, content_type=audio.CONTENT_TYPES["wav"])
    response["Content-Disposition"] = attachment(**job.download_names("wav"))
    response["Cache-Control"] = "private, no-transform"
    return response


class ModelsView(BodyLimitMixin, APIView):
    required_scope = None

    @extend_schema(
        operation_id="list_models", summary="What model_id may be", responses=ModelListSerializer, tags=["voice"]
    )
    def get(self, request: Request) -> Response:
        return Response({"models": registry.models(request.user.pk)})


class EngineStateView(BodyLimitMixin, APIView):
    required_scope = None

    @extend_schema(
        operation_id="voice_health",
        summary="The speech engine's state",
        responses=EngineStateSerializer,
        tags=["health"],
    )
    def get(self, request: Request) -> Response:
        engine = configured.get_engine()
        health = engine.health()
        waiting = Synthesis.objects.filter(status__in=LIVE).count()
        recent = Synthesis.objects.filter(status=JobStatus.SUCCEEDED).order_by("-created_at", "-id")[:20]
        mean = recent.aggregate(mean=Avg("engine_seconds"))["mean"] or 0.0
        return Response(
            {
                "service": "voice-synthesis",
                "status": "healthy" if health.available else "unhealthy",
                "engine": engine.name,
                "sovits_available": engine.name == "gptsovits" and health.available,
                "available": health.available,
                "latency_ms": health.latency_ms,
                "detail": health.detail,
                "languages": sorted(engine.languages),
                "models": registry.models(request.user.pk),
                # An engine that shares its servers with other processes knows the length of its queue.
                "queue_length": health.extra.get("queue_length", waiting),
                "expected_wait_seconds": health.extra.get("expected_wait_seconds", round(waiting * mean, 1)),
            }
        )
