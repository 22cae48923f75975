"""/api/v1/voice/trainings: train a voice, watch, cancel; /api/v1/voice/models/{id}: what has come of it."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import mixins, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from voiceproject.errors import PublicError
from voiceproject.jobs.api import JobFilters
from voiceproject.jobs.idempotency import Submission
from voiceproject.jobs.job import Job
from voiceproject.jobs.status import JobStatus, revoked
from voiceproject.telemetry.logging import current
from voiceproject.tenants import audit
from voiceproject.web.api import BodyLimitMixin, CursorPages, file_response
from voiceproject.web.slots import waiting_slot
from voiceproject.webhooks.deliveries import callback_base
from voices.keys.auth import credentials
from voices.library import consents, selection
from voices.library.models import Consent
from voices.speech import consumers
from voices.speech.models import WEIGHTS, EngineModel
from voices.training import submission
from voices.training.models import Training
from voices.training.serializers import (
    CreateTrainingSerializer,
    RetryTrainingSerializer,
    TrainedModelSerializer,
    TrainingSerializer,
    offered,
)
from voices.training.tasks import run_trainings


class TrainingViewSet(
    BodyLimitMixin,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    mixins.DestroyModelMixin,
    viewsets.GenericViewSet,
):
    required_scope = "voices"
    serializer_class = TrainingSerializer
    pagination_class = CursorPages
    queryset = Training.objects.none()
    error_statuses = {"create": (404, 410, 422), "cancel": (409,), "retry": (409, 410)}

    @property
    def max_files(self) -> int:
        # A text for each recording, and one more, so that what is too much is refused with the number that is not.
        return 2 * settings.TRAINING_MAX_FILES + 1

    def get_max_body_bytes(self) -> int:
        return settings.TRAINING_MAX_UPLOAD_SIZE if self.action == "create" else settings.MAX_UPLOAD_SIZE

    def get_queryset(self) -> QuerySet[Training]:
        return Training.objects.for_tenant(self.request.user)

    def filter_queryset(self, queryset: QuerySet) -> QuerySet:
        return JobFilters.apply(queryset, self.request) if self.action == "list" else queryset

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "in_list": self.action == "list"}

    @extend_schema(
        operation_id="create_training",
        summary="Train a voice on recordings of one speaker",
        description="Answers at once with the job. First the recordings are looked at: what cannot come to anything "
        "is refused with a report (`dataset_refused`) before a GPU works. In the end there is a model of yours, and "
        "`voice_id` alone speaks with it. Your statement of consent is kept for good, as for saved voices.",
        request={"multipart/form-data": CreateTrainingSerializer},
        responses={202: TrainingSerializer},
        parameters=[consumers.LOCATION, consumers.WAIT, *consumers.IDEMPOTENCY],
        tags=["trainings"],
    )
    def create(self, request: Request) -> HttpResponseBase:
        tenant, key = credentials(request)
        if not offered():
            raise PublicError("not_configured", "This server trains no voices.")
        request_once = Submission(request, tenant, Training)
        if (earlier := request_once.earlier()) is not None:
            return self._accepted(request, earlier, replayed=True)
        serializer = CreateTrainingSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        fields = serializer.validated_data
        voice = selection.find(tenant, fields["voice_id"]) if fields["voice_id"] else None
        statement = fields["consent"]
        if voice is not None and not statement and not Consent.objects.filter(voice_id=voice.pk).exists():
            message = "Nothing says that the speaker of this voice agreed. State it here."
            raise PublicError("validation_error", f"consent: {message}", {"consent": [message]})
        with waiting_slot(tenant.pk):
            material, warnings = submission.material_of(fields, voice)
            told = {"request_id": current("request_id"), "callback_base": callback_base(request)}
            job = submission.new_job(tenant, key, fields, voice, warnings=warnings, **told)
            kept = submission.submit(consents.provider(request), job, material, statement, request_once)
        if kept is job:
            selection.check_still_there(job)
        return self._accepted(request, kept, replayed=kept is not job)

    def _accepted(self, request: Request, job: Job, replayed: bool = False) -> HttpResponseBase:
        return consumers.accepted(request, job, run_trainings, self.get_serializer, replayed=replayed)

    @extend_schema(
        operation_id="list_trainings", summary="Your trainings, newest first", parameters=[JobFilters],
        tags=["trainings"],
    )  # fmt: skip
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().list(request, *args, **kwargs)

    @extend_schema(operation_id="get_training", summary="One training", parameters=[consumers.WAIT], tags=["trainings"])
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]
        return consumers.shown(request, self.get_object(), self.get_serializer)

    @extend_schema(
        operation_id="delete_training",
        summary="Delete a training with its recordings; its model stays",
        tags=["trainings"],
    )
    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().destroy(request, *args, **kwargs)

    def perform_destroy(self, instance: Training) -> None:
        instance.remove()

    @extend_schema(
        operation_id="cancel_training",
        summary="Cancel a training that waits or runs",
        request=None,
        responses=TrainingSerializer,
        tags=["trainings"],
    )
    def cancel(self, request: Request, pk: str) -> Response:
        job = self.get_object()
        if not job.cancel(settings.TRAINING_TTL_HOURS) and job.status != JobStatus.CANCELED:
            raise PublicError("job_finished", "This training has ended already.", {"status": job.status})
        return Response(self.get_serializer(job).data)

    @extend_schema(
        operation_id="retry_training",
        summary="Try a failed or canceled training again",
        description="It goes on after its last checkpoint; with `stage`, from there. A canceled one has kept none.",
        request={"application/json": RetryTrainingSerializer},
        responses={202: TrainingSerializer},
        tags=["trainings"],
    )
    def retry(self, request: Request, pk: str) -> HttpResponseBase:
        tenant, _ = credentials(request)
        job = self.get_object()
        serializer = RetryTrainingSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        stage = serializer.validated_data.get("stage", "")
        if stage and stage not in job.stages:
            message = f"This training has the stages {', '.join(job.stages)}."
            raise PublicError("validation_error", f"stage: {message}", {"stage": [message]})
        if job.revoked_at:
            raise revoked()
        if job.files_expired:
            raise PublicError("result_expired", "Its recordings were deleted after their time; send them again.")
        with Training.admission(tenant, settings.TRAINING_MAX_QUEUED, job.api_key):
            retried = job.retry(stage)
        if not retried:
            message = "Only a failed or canceled training can be tried again."
            raise PublicError("conflict", message, {"status": job.status})
        return self._accepted(request, job)

    @extend_schema(
        operation_id="training_events",
        summary="A training's changes as Server-Sent Events",
        description=consumers.EVENTS_DESCRIPTION,
        parameters=[OpenApiParameter("Last-Event-ID", int, OpenApiParameter.HEADER)],
        responses=consumers.EVENTS_RESPONSES,
        tags=["trainings"],
    )
    def events(self, request: Request, pk: str) -> HttpResponseBase:
        return consumers.events(request, self.get_object(), TrainingSerializer)


class TrainedModelViewSet(BodyLimitMixin, mixins.RetrieveModelMixin, mixins.DestroyModelMixin, viewsets.GenericViewSet):
    """The tenant's own models; GET /voice/models lists them among the operators'."""

    required_scope = "voices"
    serializer_class = TrainedModelSerializer
    lookup_field = "model_id"
    queryset = EngineModel.objects.none()
    error_statuses = {"weights": (403, 416)}

    def get_queryset(self) -> QuerySet[EngineModel]:
        return EngineModel.objects.filter(owner=self.request.user.pk)

    @extend_schema(operation_id="get_model", summary="A model that you have trained", tags=["trainings"])
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().retrieve(request, *args, **kwargs)

    @extend_schema(
        operation_id="delete_model", summary="Delete a model that you have trained, with its weights",
        tags=["trainings"],
    )  # fmt: skip
    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().destroy(request, *args, **kwargs)

    def perform_destroy(self, instance: EngineModel) -> None:
        audit.record("model.delete", instance, request=self.request)
        instance.remove()

    @extend_schema(
        operation_id="get_model_weights",
        summary="A file of weights of a model that you have trained",
        description="403 where the operator does not allow it (`TRAINING_WEIGHTS_DOWNLOAD`).",
        parameters=[OpenApiParameter("kind", str, OpenApiParameter.PATH, enum=list(WEIGHTS))],
        responses={(200, "application/octet-stream"): OpenApiResponse(OpenApiTypes.BINARY)},
        tags=["trainings"],
    )
    def weights(self, request: Request, model_id: str, kind: str) -> HttpResponseBase:
        model = self.get_object()
        if not settings.TRAINING_WEIGHTS_DOWNLOAD:
            raise PublicError("permission_denied", "The operator of this server gives out no weights.")
        file = model.files.filter(kind=kind).first()
        if file is None:
            raise PublicError("not_found", "This model has no such file.")
        return file_response(
            request._request,
            file.file,
            content_type="application/octet-stream",
            filename=f"{model.model_id}{WEIGHTS[kind]}",
        )
