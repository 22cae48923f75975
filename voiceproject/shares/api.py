"""The links of a job, below its own routes: `<job>/shares`."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable
from typing import Any, ClassVar

from django.conf import settings
from django.urls import reverse
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from voiceproject.errors import PublicError
from voiceproject.jobs.job import Job
from voiceproject.shares.models import DEFAULT_DAYS, MAX_DAYS, MAX_LINKS, Share
from voiceproject.tenants import audit
from voiceproject.web.api import StrictSerializer


class MakeShareSerializer(StrictSerializer):
    """For how long a result may be heard by whoever has the link."""

    days = serializers.IntegerField(default=DEFAULT_DAYS, min_value=1, max_value=MAX_DAYS)


class ShareSerializer(serializers.ModelSerializer):
    share_id = serializers.UUIDField(source="id")
    url = serializers.SerializerMethodField(help_text="What is passed on; it opens a page with a player")

    class Meta:
        model = Share
        fields = ("share_id", "url", "job_id", "created_at", "expires_at", "revoked_at")
        read_only_fields = fields

    @extend_schema_field(serializers.URLField)
    def get_url(self, share: Share) -> str:
        path = reverse("shared", args=[share.token])
        if settings.PUBLIC_URL:
            return f"{settings.PUBLIC_URL.rstrip('/')}{path}"
        uri: str = self.context["request"].build_absolute_uri(path)
        return uri


class ShareListSerializer(serializers.Serializer):
    shares = ShareSerializer(many=True)


def check_offered() -> None:
    """Raises PublicError not_configured where links are turned off."""
    if not settings.SHARING:
        raise PublicError("not_configured", "This server gives no links to what is made here (SHARING).")


class SharesMixin:
    """Of a viewset of jobs: their links. The key needs the scope that its jobs need."""

    share_errors: ClassVar[dict[str, tuple[int, ...]]] = {"share": (409, 410)}

    def _links(self) -> tuple[Job, Any]:
        job: Job = self.get_object()  # type: ignore[attr-defined]
        return job, Share.objects.of(job).filter(tenant=job.tenant_id)

    def shares(self, request: Request, pk: str) -> Response:
        check_offered()
        _, links = self._links()
        context = {"request": request}
        return Response({"shares": ShareSerializer(links.open(), many=True, context=context).data})

    def share(self, request: Request, pk: str) -> Response:
        check_offered()
        serializer = MakeShareSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        job, links = self._links()
        job.raise_unless_succeeded()
        if links.open().count() >= MAX_LINKS:
            raise PublicError("conflict", f"There are {MAX_LINKS} links to this already; revoke one first.")
        share = Share.make(job, serializer.validated_data["days"])
        audit.record("share.make", share, request=request, details={"job": str(job.pk)})
        return Response(ShareSerializer(share, context={"request": request}).data, status=status.HTTP_201_CREATED)

    def revoke_share(self, request: Request, pk: str, share_id: uuid.UUID) -> Response:
        job, links = self._links()
        share = links.filter(pk=share_id).first()
        if share is None:
            raise PublicError("not_found", "There is no such link, or it is not yours.")
        share.revoke()
        audit.record("share.revoke", share, request=request, details={"job": str(job.pk)})
        return Response(status=status.HTTP_204_NO_CONTENT)


def shares_documented(name: str, tag: str) -> Callable[[type], type]:
    """Decorates a viewset with SharesMixin. name: of its jobs in operation ids; tag: of the OpenAPI document."""
    made = {"application/json": MakeShareSerializer, "multipart/form-data": MakeShareSerializer}
    documents = {
        "shares": extend_schema(
            operation_id=f"list_{name}_links",
            summary="The links to a result that can be followed",
            responses=ShareListSerializer,
            tags=[tag],
        ),
        "share": extend_schema(
            operation_id=f"make_{name}_link",
            summary="Make a link under which anybody may hear a result",
            description=f"It ends after `days` (1 to {MAX_DAYS}), when it is revoked, and with the result.",
            request=made,
            responses={201: ShareSerializer},
            tags=[tag],
        ),
        "revoke_share": extend_schema(
            operation_id=f"revoke_{name}_link",
            summary="Take a link back",
            request=None,
            responses={204: None},
            tags=[tag],
        ),
    }

    def decorate(view: type) -> type:
        for action, document in documents.items():
            setattr(view, action, document(_copy(getattr(SharesMixin, action))))
        return view

    return decorate


def _copy(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method again: what documents it is written on it, and differs from viewset to viewset."""

    @functools.wraps(method)
    def same(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    return same
