"""The pages that are open to everybody: the studio and the documentation. None loads anything from elsewhere."""

from __future__ import annotations

import functools
import gzip
import hashlib
import re
import threading
from typing import Any, NamedTuple

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.cache import get_conditional_response
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_exempt
from django.views.generic import TemplateView
from drf_spectacular.renderers import OpenApiJsonRenderer
from drf_spectacular.settings import spectacular_settings
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularRedocView, SpectacularSwaggerSplitView
from rest_framework.request import Request

from voiceproject import __version__
from voiceproject.errors import PublicError
from voiceproject.web.errors import json_response
from voiceproject.web.middleware import RequestMiddleware, compat_path
from voiceproject.web.schema import DocumentGenerator, Tree


@method_decorator(csrf_exempt, name="dispatch")
class StudioView(TemplateView):
    """`GET /`: the API for people, in static/studio. It holds no secret: the reader pastes a key, which stays there."""

    template_name = "voiceproject/studio.html"
    extra_context = {"version": __version__}

    # What was recorded, chosen or fetched is played from memory; nothing else is let in.
    CONTENT_SECURITY_POLICY = f"{RequestMiddleware.CONTENT_SECURITY_POLICY}; media-src 'self' blob:"
    PERMISSIONS_POLICY = RequestMiddleware.PERMISSIONS_POLICY.replace("microphone=()", "microphone=(self)")

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        api = reverse("synthesize").removesuffix("/voice/synthesize")
        limits = {
            "upload_bytes": settings.MAX_UPLOAD_SIZE,
            "song_bytes": settings.COVER_MAX_UPLOAD_SIZE,
            "song_seconds": settings.COVER_MAX_DURATION_SECONDS,
        }
        return super().get_context_data(api=api, limits=limits, sharing=settings.SHARING, **kwargs)

    def dispatch(self, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = super().dispatch(*args, **kwargs)
        response["Content-Security-Policy"] = self.CONTENT_SECURITY_POLICY
        response["Permissions-Policy"] = self.PERMISSIONS_POLICY
        return response

    def http_method_not_allowed(self, request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        response = json_response(PublicError("method_not_allowed", "This is a page to look at."))
        response["Allow"] = "GET, HEAD"
        return response


class Document(NamedTuple):
    """The OpenAPI document as it is sent, plain or compressed, and a hash of it."""

    plain: bytes
    packed: bytes
    digest: str


class SchemaView(SpectacularJSONAPIView):
    """`GET /openapi.json`, and below another service's prefix that of its routes: tree. A document takes a third of a
    second to make, and is the same for everybody: each process makes it once, and those who ask meanwhile wait for it.
    """

    tree: Tree | None = None

    GZIP = re.compile(r"(?:^|[\s,])(?:gzip|\*)(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))", re.IGNORECASE)
    _making = threading.Lock()

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        with self._making:
            document = self.document(self.tree, self.root(request))
        packed = bool(self.GZIP.search(request.headers.get("Accept-Encoding", "")))
        body = document.packed if packed else document.plain
        response = HttpResponse(body, content_type=OpenApiJsonRenderer.media_type)
        if packed:
            response["Content-Encoding"] = "gzip"
        # A strong one, so each form of it has its own.
        response["ETag"] = f'"{document.digest}-gzip"' if packed else f'"{document.digest}"'
        response["Cache-Control"] = "no-cache"  # It may be kept, and is asked for again with its ETag.
        response["Vary"] = "Accept-Encoding"
        title = self.tree.title if self.tree else spectacular_settings.TITLE
        response["Content-Disposition"] = f'inline; filename="{title}.json"'
        answer = get_conditional_response(request._request, etag=response["ETag"], response=response)
        assert isinstance(answer, HttpResponse)
        return answer

    def root(self, request: Request) -> str:
        """Where the tree stands on the host that was asked."""
        if self.tree is None or compat_path(request.META.get("HTTP_HOST", ""), "/") != "/":
            return ""
        return f"/{self.tree.name}"

    @staticmethod
    @functools.cache
    def document(tree: Tree | None = None, root: str = "") -> Document:
        schema = DocumentGenerator(tree=tree).get_schema(request=None, public=True)
        if tree is not None:
            schema = tree.finish(schema, root)
        plain = OpenApiJsonRenderer().render(schema, renderer_context={})
        return Document(plain, gzip.compress(plain, mtime=0), hashlib.sha256(plain).hexdigest()[:32])


class DocsView(SpectacularSwaggerSplitView):
    url_name = "schema"
    template_name = "voiceproject/docs.html"  # The package's own has a style of its own in it, which the CSP forbids.

    # What was answered is played from memory.
    CONTENT_SECURITY_POLICY = f"{RequestMiddleware.CONTENT_SECURITY_POLICY}; media-src 'self' blob:"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if compat_path(request.META.get("HTTP_HOST", ""), "/") != "/":
            raise Http404  # A host of one service alone has no scripts and styles.
        response = super().dispatch(request, *args, **kwargs)
        response["Content-Security-Policy"] = self.CONTENT_SECURITY_POLICY
        return response


class RedocView(SpectacularRedocView):
    url_name = "schema"
    template_name = "voiceproject/redoc.html"  # The package's own asks another host for fonts.

    # Redoc makes style elements: empty ones, which it fills by script, and one of its own.
    CONTENT_SECURITY_POLICY = (
        f"{RequestMiddleware.CONTENT_SECURITY_POLICY}; worker-src blob:; style-src 'self' "
        "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' 'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='"
    )

    def dispatch(self, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = super().dispatch(*args, **kwargs)
        response["Content-Security-Policy"] = self.CONTENT_SECURITY_POLICY
        return response
