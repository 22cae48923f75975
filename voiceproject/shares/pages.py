"""`/s/<token>`: what anybody hears who was given a link. It says that a machine has made it, and tells of nobody."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views import View

from voiceproject.errors import PublicError
from voiceproject.jobs.job import Job
from voiceproject.media.audio import CONTENT_TYPES, EXTENSIONS
from voiceproject.registry import registry
from voiceproject.shares.models import Share
from voiceproject.tenants import audit, ratelimit
from voiceproject.tenants.ratelimit import Limit
from voiceproject.web.api import file_response
from voiceproject.web.errors import json_response

# For caches and search engines: the link may be taken back at any time.
HEADERS = {"Cache-Control": "private, no-store", "X-Robots-Tag": "noindex, nofollow", "Referrer-Policy": "no-referrer"}


class _SharedView(View):
    http_method_names = ["get", "head"]

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = super().dispatch(request, *args, **kwargs)
        for name, value in HEADERS.items():
            response[name] = value
        return response

    def found(self, request: HttpRequest, token: str) -> tuple[Share, Job]:
        """Raises Http404 for a link that cannot be followed, whatever the reason, and PublicError rate_limited."""
        share_id = Share.id_of(token) if settings.SHARING else None
        if share_id is None:
            raise Http404
        most = settings.SHARE_REQUESTS_PER_MINUTE
        # In this order wherever both are taken.
        limits = [Limit(f"share:{share_id}", 10 * most), Limit(f"share-from:{audit.client_address(request)}", most)]
        refused = [one for one in ratelimit.take(limits) if not one.accepted]
        if refused:
            wait = max(1, round(max(one.reset_seconds for one in refused)))
            raise PublicError("rate_limited", "Too many ask for this at the moment.", retry_after=wait)
        share = Share.objects.open().filter(pk=share_id).first()
        job = self._job(share) if share else None
        if share is None or job is None:
            raise Http404
        try:
            job.raise_unless_succeeded()
        except PublicError:
            raise Http404 from None  # It was taken down, or its time is over.
        return share, job

    @staticmethod
    def _job(share: Share) -> Job | None:
        for model in registry.job_models():
            if model.webhook_kind == share.kind:
                job: Job | None = model._default_manager.filter(pk=share.job_id, tenant=share.tenant_id).first()
                return job
        return None


class SharedPageView(_SharedView):
    def get(self, request: HttpRequest, token: str) -> HttpResponse:
        try:
            share, job = self.found(request, token)
        except Http404:
            return render(request, "voiceproject/shared.html", {"gone": True}, status=404)
        except PublicError as error:
            response = render(request, "voiceproject/shared.html", {"busy": True}, status=error.status)
            response["Retry-After"] = str(error.retry_after)
            return response
        title = job.shown_title or (_("A cover") if share.kind == "cover" else _("Speech"))
        audio_url = reverse("shared-audio", args=[token])
        context = {"share": share, "title": title, "audio": audio_url, "is_cover": share.kind == "cover"}
        return render(request, "voiceproject/shared.html", context)


class SharedAudioView(_SharedView):
    def get(self, request: HttpRequest, token: str) -> HttpResponseBase:
        try:
            share, job = self.found(request, token)
        except PublicError as error:
            return json_response(error)
        file, format = job.heard()
        names = job.download_names(EXTENSIONS.get(format, format))
        try:
            return file_response(request, file, content_type=CONTENT_TYPES[format], tenant=share.tenant_id, **names)
        except PublicError as error:
            return json_response(error)
