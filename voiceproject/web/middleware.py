"""Middleware: request ids and the access log, bodies that are refused early, paths as routes have them."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.common import CommonMiddleware
from django.utils import translation
from django.utils.cache import patch_vary_headers

from voiceproject.errors import PublicError
from voiceproject.telemetry import metrics, tracing
from voiceproject.telemetry.logging import bind, bound, loggable
from voiceproject.web.api import refuse_compressed
from voiceproject.web.errors import json_response
from voiceproject.web.streams import BodyWanted, Held

log = logging.getLogger("voiceproject.access")

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
GetResponse = Callable[[HttpRequest], HttpResponseBase]


class RequestMiddleware:
    """Gives each request an id (the client's own, where it sent a sane one), and logs it."""

    # Scripts, styles and sounds are our own, nothing is inline, nobody frames these pages; Swagger UI has data: images.
    CONTENT_SECURITY_POLICY = (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    )
    # The console's menus and dialogs (Alpine.js) are written as expressions in attributes.
    CONSOLE_SECURITY_POLICY = f"{CONTENT_SECURITY_POLICY}; script-src 'self' 'unsafe-eval'"

    PERMISSIONS_POLICY = "microphone=(), camera=(), geolocation=(), payment=(), usb=()"

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        request_id = getattr(request, "request_id", "")  # It has one where its head was checked before.
        if not request_id:
            sent = request.headers.get("X-Request-ID", "")
            request_id = sent if _SANE_REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
            request.request_id = request_id  # type: ignore[attr-defined]
        started = metrics.request_started()
        with bind(request_id=request_id), self.span(request) as span:
            response = self.get_response(request)
            if isinstance(response, BodyWanted):
                return response
            if isinstance(response, Held) and not hasattr(request, "client_gone"):
                response.wait_here()
                response.finish()
            response["X-Request-ID"] = request_id
            for name, value in getattr(request, "rate_headers", {}).items():
                response[name] = value
            if response.get("Content-Type", "").startswith("text/html"):
                console = request.path.startswith("/admin/")
                policy = self.CONSOLE_SECURITY_POLICY if console else self.CONTENT_SECURITY_POLICY
                response.setdefault("Content-Security-Policy", policy)
                response.setdefault("Permissions-Policy", self.PERMISSIONS_POLICY)
            if request.method == "HEAD" and isinstance(response, HttpResponse) and response.content:
                # Only told how long the body would be; the server has nothing to drop.
                response.setdefault("Content-Length", str(len(response.content)))
                response.content = b""
            if response.streaming or isinstance(response, Held):
                request.log_ids = bound()  # type: ignore[attr-defined] # for the end of it
            self.tell(request, response, started, span)
        return response

    @staticmethod
    def span(request: HttpRequest) -> AbstractContextManager[Any]:
        parent = request.META.get("HTTP_TRACEPARENT", "")
        return tracing.span(str(request.method), parent, {"http.request.method": str(request.method)}, server=True)

    @staticmethod
    def tell(request: HttpRequest, response: HttpResponseBase, started: float, span: Any) -> None:
        """The access log, the metrics and the trace. Of an answer that is streamed or held, they tell of its start."""
        method, status = str(request.method), response.status_code
        match = request.resolver_match
        route = match.route if match is not None else None
        if route is None and request.path_info.startswith(settings.STATIC_URL):
            route = "static/"
        error = getattr(response, "error_code", "")
        seconds = metrics.request_answered(method, route, status, started, error)
        if span is not None:
            span.update_name(f"{method} /{route}" if route is not None else method)
            span.set_attributes({**bound(), "http.route": route or "", "http.response.status_code": status})
        extra = {"duration_ms": round(1000 * seconds), **({"error": error} if error else {})}
        log.info("%s %s %s", method, loggable(request.path), status, extra=extra)


def compat_path(host: str, path: str) -> str:
    """The path that is meant on a host of COMPAT_HOSTS: all but /health is under its service's prefix, so that neither
    the console nor the API can be reached by such a name. On other hosts it is the path itself. host: as it was sent.
    """
    service = settings.COMPAT_HOSTS.get(re.sub(r":\d+$", "", host).lower().rstrip("."))
    if service is None or path == "/health" or path.startswith(f"/{service}/"):
        return path
    return f"/{service}{path}"


class CompatHostMiddleware:
    """Serves other services' routes at the root of hosts of their own. See `compat_path`."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if settings.COMPAT_HOSTS:
            path = compat_path(request.META.get("HTTP_HOST", ""), request.path_info)
            if path != request.path_info:
                request.path_info = request.path = path
        return self.get_response(request)


class PageBodyMiddleware:
    """Refuses a large or compressed body outside the APIs, whose views do so themselves once they know who asks.

    Django reads a form before it knows that: the check of its CSRF token does. A file in it would fill the disk.
    """

    MAX_BYTES = 1024 * 1024
    APIS = ("/api/", "/openai/", "/elevenlabs/", "/gptsovits/")

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info.startswith(self.APIS):
            return self.get_response(request)
        try:
            refuse_compressed(request)
        except PublicError as error:
            return json_response(error)
        found = int(request.META.get("CONTENT_LENGTH") or 0)
        if found > self.MAX_BYTES:
            message = f"The request has {found} bytes; {self.MAX_BYTES} are taken here."
            return json_response(PublicError("file_too_large", message, {"limit": self.MAX_BYTES, "found": found}))
        if getattr(request, "head_only", False):
            request.body_limit = self.MAX_BYTES  # type: ignore[attr-defined]
            return BodyWanted()
        return self.get_response(request)


class PathMiddleware:
    """`/api/v1/x/` is answered as `/api/v1/x`: a redirect would lose a POST's body. The admin keeps its slashes.

    An id in capitals, as some languages write UUIDs, is the id that it is in small letters. Clients whose base URL was
    given with a slash at its end ask other services' routes with two.
    """

    COMPATIBLE = re.compile(r"/+(?:openai|elevenlabs|gptsovits)/")

    CAPITALS = re.compile(r"(?<=/)(?=[^/]*[A-F])[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?=/|$)")

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if "//" in request.path_info and self.COMPATIBLE.match(request.path_info):
            request.path_info = re.sub("/+", "/", request.path_info)
            request.path = re.sub("/+", "/", request.path)
        path = request.path_info
        if len(path) > 1 and path.endswith("/") and not path.startswith("/admin/"):
            request.path_info = path.rstrip("/") or "/"
            request.path = request.path.rstrip("/") or "/"
        if self.CAPITALS.search(request.path_info):
            request.path_info = self.CAPITALS.sub(lambda found: found[0].lower(), request.path_info)
            request.path = self.CAPITALS.sub(lambda found: found[0].lower(), request.path)
        return self.get_response(request)


class HostMiddleware(CommonMiddleware):
    """Refuses a Host that is not in ALLOWED_HOSTS, but for /health: probes ask by address or by a service's name."""

    def process_request(self, request: HttpRequest) -> HttpResponseBase | None:  # type: ignore[override] # as Django's
        return None if request.path_info == "/health" else super().process_request(request)


class PageLanguageMiddleware:
    """Pages for people are in the language that their reader chose, or else in the one that the browser asks for.

    The API is not: programs, and people who search for a message, find the same English words everywhere.
    """

    PAGES = re.compile(r"/((admin|account|language)(/|$)|s/[^/]+$)")

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not self.PAGES.match(request.path_info):
            return self.get_response(request)
        language = translation.get_language_from_request(request)
        request.LANGUAGE_CODE = language  # type: ignore[attr-defined]
        with translation.override(language, deactivate=True):
            response = self.get_response(request)
        if response.get("Content-Type", "").startswith("text/html"):
            patch_vary_headers(response, ("Accept-Language", "Cookie"))
            response.setdefault("Content-Language", language)
        return response
