"""The pages that are open to everybody: the start page and the documentation. None loads anything from elsewhere."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_exempt
from django.views.generic import TemplateView
from drf_spectacular.views import SpectacularRedocView, SpectacularSwaggerSplitView

from voiceproject import __version__
from voiceproject.errors import PublicError, json_response
from voiceproject.middleware import RequestMiddleware


@method_decorator(csrf_exempt, name="dispatch")
class StartView(TemplateView):
    """`GET /`: what this is, and where to go."""

    template_name = "voiceproject/start.html"
    extra_context = {"version": __version__}

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
