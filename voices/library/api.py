"""/api/v1/voice/voices: saved voices and their samples; /api/v1/voice/quality."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Lower
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import mixins, status, viewsets
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from voiceproject.errors import PublicError
from voiceproject.jobs.status import revoked
from voiceproject.media import audio
from voiceproject.tenants import audit
from voiceproject.web.api import BodyLimitMixin, CursorPages, file_response
from voiceproject.web.slots import waiting_slot
from voiceproject.web.uploads import upload_path
from voices.engines import configured
from voices.engines.configured import check_language
from voices.keys.auth import credentials
from voices.lexicons import stored
from voices.library import consents, recordings, saved, selection
from voices.library.models import StandingConsent, Voice
from voices.library.serializers import (
    AddSampleSerializer,
    ChangeVoiceSerializer,
    CheckQualitySerializer,
    CreateVoiceSerializer,
    QualitySerializer,
    StandingConsentSerializer,
    VoiceFilters,
    VoiceSampleSerializer,
    VoiceSerializer,
)

LOCATION = OpenApiParameter(
    "Location", OpenApiTypes.URI, OpenApiParameter.HEADER, response=[201], description="The voice's URL"
)


class VoicePages(CursorPages):
    """In the order that `sort` asks for."""

    orders: ClassVar = {"name": ("name_key", "id"), "used": ("-used_at", "-id")}

    def get_ordering(self, request: Request, queryset: QuerySet, view: Any) -> tuple[str, ...]:
        return self.orders.get(request.query_params.get("sort", ""), self.ordering)

    def decode_cursor(self, request: Request) -> Any:
        self.by_name = request.query_params.get("sort") == "name"
        return super().decode_cursor(request)

    def check_position(self, position: str) -> None:  # type: ignore[override]
        if not self.by_name:
            super().check_position(position)
        elif "\x00" in position:
            raise ValueError


class VoiceViewSet(
    BodyLimitMixin,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    mixins.DestroyModelMixin,
    viewsets.GenericViewSet,
):
    required_scope = "voices"
    serializer_class = VoiceSerializer
    pagination_class = VoicePages
    queryset = Voice.objects.none()
    error_statuses = {
        "create": (404, 409), "partial_update": (410,), "sample": (410, 416), "add_sample": (409, 410),
        "delete_sample": (409, 410),
    }  # fmt: skip

    def get_queryset(self) -> QuerySet[Voice]:
        return Voice.objects.for_tenant(self.request.user).prefetch_related("samples")

    def filter_queryset(self, queryset: QuerySet) -> QuerySet:
        if self.action != "list":
            return queryset
        filters = VoiceFilters(data=self.request.query_params)
        filters.is_valid(raise_exception=True)
        given = filters.validated_data
        for word in given.get("q", "").split():
            found = Q(name__icontains=word) | Q(description__icontains=word) | Q(tag_lines__icontains=word)
            queryset = queryset.filter(found)
        if "tag" in given:
            queryset = queryset.filter(tag_lines__icontains=f"\n{given['tag']}\n")
        return queryset.annotate(name_key=Lower("name")) if given.get("sort") == "name" else queryset

    @extend_schema(
        operation_id="list_voices", summary="Your saved voices", parameters=[VoiceFilters],
        tags=["voices"],
    )  # fmt: skip
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().list(request, *args, **kwargs)

    @extend_schema(
        operation_id="create_voice",
        summary="Save a voice",
        description="`voice_id` then stands for it wherever a reference is taken. The sample is decoded, freed of "
        "silence at its ends and brought to a usual level, once. Your statement of consent is kept for good, with "
        "the time, your address and the sample's hash; it outlives the voice.",
        request={"multipart/form-data": CreateVoiceSerializer},
        responses={201: VoiceSerializer},
        parameters=[LOCATION],
        tags=["voices"],
    )
    def create(self, request: Request) -> Response:
        serializer = CreateVoiceSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        fields = serializer.validated_data
        check_language("language", fields["language"])
        lexicon = stored.find(request.user, fields["lexicon_id"]) if fields.get("lexicon_id") else None
        with (
            waiting_slot(request.user.pk),
            recordings.reading([upload_path(fields["sample"])], "sample") as [recording],
        ):
            voice = saved.create(
                consents.provider(request),
                [(recording, fields["transcript"])],
                fields["consent"],
                name=fields["name"],
                description=fields["description"],
                language=fields["language"],
                tags=fields.get("tags", ()),
                lexicon=lexicon,
                engine=configured.get_engine(),
            )
        location = request.build_absolute_uri(reverse("voice", args=[voice.pk]))
        return Response(self.get_serializer(voice).data, status=status.HTTP_201_CREATED, headers={"Location": location})

    @extend_schema(operation_id="get_voice", summary="One saved voice", tags=["voices"])
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().retrieve(request, *args, **kwargs)

    @extend_schema(
        operation_id="change_voice",
        summary="Change what is said of a voice",
        request={"application/json": ChangeVoiceSerializer, "multipart/form-data": ChangeVoiceSerializer},
        tags=["voices"],
    )
    def partial_update(self, request: Request, pk: str) -> Response:
        voice = self._usable()
        serializer = ChangeVoiceSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        fields = dict(serializer.validated_data)
        if "language" in fields:
            check_language("language", fields["language"])
        if "tags" in fields:
            fields["tag_lines"] = Voice.lines_of(fields.pop("tags"))
        if "lexicon_id" in fields:
            pk = fields.pop("lexicon_id")
            fields["lexicon"] = stored.find(request.user, pk) if pk else None
        saved.change(voice, fields)
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(
        operation_id="delete_voice",
        summary="Delete a voice with its samples",
        description="Its record of consent stays, and so does what was made with it. Jobs that wait have a copy.",
        tags=["voices"],
    )
    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().destroy(request, *args, **kwargs)

    def perform_destroy(self, instance: Voice) -> None:
        saved.delete(instance, self.request)

    @extend_schema(
        operation_id="get_voice_sample",
        summary="What engines hear of a voice",
        description="All its samples, one after the other, as FLAC. `Range` and `If-None-Match` work.",
        responses={
            (200, "audio/flac"): OpenApiResponse(OpenApiTypes.BINARY),
            (206, "audio/flac"): OpenApiResponse(OpenApiTypes.BINARY),
        },
        tags=["voices"],
    )
    def sample(self, request: Request, pk: str) -> HttpResponseBase:
        voice = self._usable()
        return file_response(
            request._request, voice.reference, content_type=audio.CONTENT_TYPES["flac"], filename=f"{voice.pk}.flac"
        )

    @extend_schema(
        operation_id="add_voice_sample",
        summary="Add a sample to a voice",
        description="Of the same speaker: up to ten. Engines hear them all, up to a minute in all; of more, each gives "
        "its best part. Without `consent` the voice's statement is recorded for this sample too.",
        request={"multipart/form-data": AddSampleSerializer},
        responses={201: VoiceSampleSerializer},
        tags=["voices"],
    )
    def add_sample(self, request: Request, pk: str) -> Response:
        voice = self._usable()
        serializer = AddSampleSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        fields = serializer.validated_data
        with (
            waiting_slot(request.user.pk),
            recordings.reading([upload_path(fields["sample"])], "sample") as [recording],
        ):
            sample = saved.add_sample(
                consents.provider(request), voice, recording, fields["transcript"], fields["consent"]
            )
            selection.prepare(voice, configured.get_engine())
        return Response(VoiceSampleSerializer(sample).data, status=status.HTTP_201_CREATED)

    @extend_schema(
        operation_id="delete_voice_sample",
        summary="Delete a sample of a voice",
        description="Not the last one (409 `conflict`): delete the voice instead.",
        responses={204: None},
        tags=["voices"],
    )
    def delete_sample(self, request: Request, pk: str, sample_id: str) -> Response:
        voice = self._usable()
        sample = voice.samples.filter(pk=sample_id).first()
        if sample is None:
            raise PublicError("not_found", "There is nothing here, or it is not yours.")
        with waiting_slot(request.user.pk):
            saved.delete_sample(voice, sample)
        return Response(status=status.HTTP_204_NO_CONTENT)

    def _usable(self) -> Voice:
        voice: Voice = self.get_object()
        if voice.taken_down_at is not None:
            raise revoked()
        return voice


class StandingConsentView(BodyLimitMixin, APIView):
    required_scope = "voices"
    error_statuses: ClassVar = {"get": (404,)}  # none was given

    @extend_schema(
        operation_id="get_standing_consent",
        summary="Your standing statement of consent",
        responses=StandingConsentSerializer,
        tags=["voices"],
    )
    def get(self, request: Request) -> Response:
        standing = StandingConsent.objects.filter(tenant=credentials(request)[0]).first()
        if standing is None:
            raise PublicError("not_found", "You have given no standing statement.")
        return Response(StandingConsentSerializer(standing).data)

    @extend_schema(
        operation_id="give_standing_consent",
        summary="State consent for voices to come",
        description="For clients that add voices without a statement of their own (ElevenLabs'): this one is recorded "
        "with each of them. Such voices are refused while there is none.",
        # One kind of body: of several, a generator of clients made code that does not run.
        request={"application/json": StandingConsentSerializer},
        responses=StandingConsentSerializer,
        tags=["voices"],
    )
    def put(self, request: Request) -> Response:
        serializer = StandingConsentSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        who = consents.provider(request)
        with transaction.atomic():
            standing, _ = StandingConsent.objects.update_or_create(
                tenant=who.tenant,
                defaults={
                    "statement": serializer.validated_data["statement"],
                    "key_prefix": who.key_prefix,
                    "address": who.address[:64],
                    "given_at": timezone.now(),
                },
            )
            audit.record("consent.standing", standing, request=request, details={"statement": standing.statement})
        return Response(StandingConsentSerializer(standing).data)

    @extend_schema(
        operation_id="withdraw_standing_consent",
        summary="Withdraw the standing statement",
        description="Voices that were added under it keep their record.",
        responses={204: None},
        tags=["voices"],
    )
    def delete(self, request: Request) -> Response:
        with transaction.atomic():
            standing = StandingConsent.objects.filter(tenant=credentials(request)[0]).first()
            if standing is not None:
                audit.record("consent.standing_withdrawn", standing, request=request)
                standing.delete()
        return Response(status=status.HTTP_204_NO_CONTENT)


class QualityView(BodyLimitMixin, APIView):
    required_scope = ("voices", "synthesize")

    @extend_schema(
        operation_id="check_quality",
        summary="How good a recording is to clone from",
        description="The report that a saved voice has; nothing is kept.",
        request={"multipart/form-data": CheckQualitySerializer},
        responses=QualitySerializer,
        tags=["voices"],
    )
    def post(self, request: Request) -> Response:
        serializer = CheckQualitySerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        with waiting_slot(request.user.pk):
            recording = recordings.read_sample(upload_path(serializer.validated_data["sample"]), "sample")
        return Response(recording.quality.as_json())
