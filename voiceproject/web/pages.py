"""The pages that are open to everybody: the studio and the documentation. None loads anything from elsewhere."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_exempt
from django.views.generic import TemplateView
from drf_spectacular.views import SpectacularRedocView, SpectacularSwaggerSplitView

from voiceproject import __version__
from voiceproject.errors import PublicError
from voiceproject.web.errors import json_response
from voiceproject.web.middleware import RequestMiddleware


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
        return super().get_context_data(api=api, **kwargs)

    def dispatch(self, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = super().dispatch(*args, **kwargs)
        response["Content-Security-Policy"] = self.CONTENT_SECURITY_POLICY
        response["Permissions-Policy"] = self.PERMISSIONS_POLICY
        return response

    def http_method_not_allowed(self, request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        response = json_response(PublicError("method_not_allowed", "This is a page to look at."))
        response["Allow"] = "GET, HEAD"
        return response


class DocsView(SpectacularSwaggerSplitView):
    url_name = "schema"
    template_name = "voiceproject/docs.html"  # The package's own has a style of its own in it, which the CSP forbids.


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
