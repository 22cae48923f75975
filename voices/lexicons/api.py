"""/api/v1/voice/lexicons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import mixins, status, viewsets
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.settings import api_settings

from voiceproject.web.api import BodyLimitMixin, CursorPages, PageParameters
from voices.lexicons import entries as entry_rules
from voices.lexicons import pls, stored
from voices.lexicons.models import Lexicon, LexiconVersion
from voices.lexicons.serializers import (
    ChangeLexiconSerializer,
    CreateLexiconSerializer,
    LexiconSerializer,
    WholeLexiconSerializer,
)
from voices.text.lexicon import Entry

LOCATION = OpenApiParameter(
    "Location", OpenApiTypes.URI, OpenApiParameter.HEADER, response=[201], description="The lexicon's URL"
)
FORMATS = (
    "Entries come as JSON, or as a W3C Pronunciation Lexicon: a `file` of a form, or the whole body as "
    "`application/pls+xml`, with the other fields in the query string."
)


class PlsParser(BaseParser):
    """A whole body that is a lexicon's file; the fields beside it are those of the query string."""

    media_type = pls.CONTENT_TYPE

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> dict[str, Any]:
        query = parser_context["request"].query_params
        return {**{name: query[name] for name in query}, "pls": stream.read()}


class LexiconViewSet(
    BodyLimitMixin,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    mixins.DestroyModelMixin,
    viewsets.GenericViewSet,
):
    required_scope = "voices"
    serializer_class = LexiconSerializer
    pagination_class = CursorPages
    queryset = Lexicon.objects.none()
    parser_classes = [*api_settings.DEFAULT_PARSER_CLASSES, PlsParser]  # type: ignore[list-item]
    max_plain_bytes = pls.MAX_BYTES
    error_statuses = {"create": (409,), "destroy": (409,)}

    def get_queryset(self) -> QuerySet[Lexicon]:
        return Lexicon.objects.for_tenant(self.request.user)

    @extend_schema(operation_id="list_lexicons", summary="Your lexicons, newest first", tags=["lexicons"])
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        PageParameters(data=request.query_params).is_valid(raise_exception=True)
        return super().list(request, *args, **kwargs)

    @extend_schema(
        operation_id="create_lexicon",
        summary="Keep a lexicon",
        description=f"How words are said: wherever a request, its voice or your default names it. {FORMATS}",
        # One kind of body: of several, a generator of clients made code that does not run.
        request={"application/json": CreateLexiconSerializer},
        responses={201: WholeLexiconSerializer},
        parameters=[LOCATION],
        tags=["lexicons"],
    )
    def create(self, request: Request) -> Response:
        fields, entries, warnings = _sent(request, CreateLexiconSerializer)
        lexicon = stored.create(request, entries or [], **fields)
        location = request.build_absolute_uri(reverse("lexicon", args=[lexicon.pk]))
        body = self._whole(lexicon, warnings)
        return Response(body, status=status.HTTP_201_CREATED, headers={"Location": location})

    @extend_schema(
        operation_id="get_lexicon",
        summary="One lexicon with its entries",
        responses=WholeLexiconSerializer,
        tags=["lexicons"],
    )
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return Response(self._whole(self.get_object()))

    @extend_schema(
        operation_id="change_lexicon",
        summary="Change a lexicon",
        description=f"Entries replace all that there were. What was accepted before keeps those. {FORMATS}",
        request={"application/json": ChangeLexiconSerializer},
        responses=WholeLexiconSerializer,
        tags=["lexicons"],
    )
    def partial_update(self, request: Request, pk: str) -> Response:
        lexicon = self.get_object()
        fields, entries, warnings = _sent(request, ChangeLexiconSerializer)
        return Response(self._whole(stored.change(lexicon, request, entries, **fields), warnings))

    @extend_schema(
        operation_id="delete_lexicon",
        summary="Delete a lexicon",
        description="409 `conflict` while a saved voice speaks by it. What was accepted before keeps its entries.",
        tags=["lexicons"],
    )
    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().destroy(request, *args, **kwargs)

    def perform_destroy(self, instance: Lexicon) -> None:
        stored.delete(instance, self.request)

    @extend_schema(
        operation_id="get_lexicon_pls",
        summary="A lexicon as a W3C Pronunciation Lexicon",
        responses={(200, pls.CONTENT_TYPE): OpenApiResponse(OpenApiTypes.STR, description="The PLS file")},
        tags=["lexicons"],
    )
    def pls(self, request: Request, pk: str) -> HttpResponseBase:
        lexicon = self.get_object()
        return pls_response(stored.newest(lexicon))

    def _whole(self, lexicon: Lexicon, warnings: Sequence[str] = ()) -> dict[str, Any]:
        entries = [Entry(**row).as_json() for row in stored.newest(lexicon).entries]
        head = LexiconSerializer(lexicon, context=self.get_serializer_context()).data
        return {**head, "entries": entries, "warnings": [*warnings]}


def _sent(request: Request, kind: Any) -> tuple[dict[str, Any], list[Entry] | None, list[str]]:
    """The fields of a request, its entries and what is to be said of these. Raises PublicError, ValidationError."""
    data: Any = request.data
    content: bytes | None = data.pop("pls") if isinstance(data, dict) and isinstance(data.get("pls"), bytes) else None
    if content is not None:
        data["entries"] = []
    serializer = kind(data=data)
    serializer.is_valid(raise_exception=True)
    fields = dict(serializer.validated_data)
    sent, file = fields.pop("entries", None), fields.pop("file", None)
    if file is not None:
        content = file.read(pls.MAX_BYTES + 1)
    if content is None:
        found = entry_rules.check(sent if sent is not None else [])
        return fields, None if sent is None else found.checked("entries"), found.warnings
    field = "file" if file is not None else "body"
    rows, warnings = pls.read(content, field)
    found = entry_rules.check(rows, field, repeated=True)
    return fields, found.checked(field), [*warnings, *found.warnings]


def pls_response(version: LexiconVersion) -> HttpResponse:
    content = pls.write([Entry(**row) for row in version.entries], version.language)
    response = HttpResponse(content, content_type=pls.CONTENT_TYPE)
    response["Content-Disposition"] = f'attachment; filename="{version.lexicon_id}.pls"'
    response["X-Content-Type-Options"] = "nosniff"
    return response
