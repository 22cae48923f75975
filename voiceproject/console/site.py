"""The console's site: its first page, its side bar, and its sign-in form.

The dashboard shows itself again every few seconds (console.js asks for `dashboard/`).
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, path, reverse
from django.utils.translation import gettext_lazy as _
from unfold.forms import AuthenticationForm
from unfold.sites import UnfoldAdminSite

from voiceproject.console.numbers import all_numbers
from voiceproject.tenants.signin import WINDOW, ThrottledSignin

PERMISSION = "covers.view_coverjob"


class SigninForm(ThrottledSignin, AuthenticationForm):
    """The console's, with as many tries as `voiceproject.tenants.signin` leaves."""


class ConsoleSite(UnfoldAdminSite):
    site_title = _("Voice console")  # type: ignore[assignment]
    site_header = _("Voice console")  # type: ignore[assignment]
    index_title = _("Dashboard")  # type: ignore[assignment]
    index_template = "voiceproject/console/dashboard.html"
    login_form = SigninForm
    login_template = "voiceproject/console/signin.html"

    def get_urls(self) -> list[Any]:
        return [path("dashboard/", self.admin_view(self.refresh), name="dashboard"), *super().get_urls()]

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        # The colours are in console.css: unfold would write them into a <style> of each page, which the CSP forbids.
        return {**super().each_context(request), "colors": None, "redirect_to": request.get_full_path()}

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        seen = request.user.has_perm(PERMISSION)
        return super().index(request, {"numbers": all_numbers() if seen else None, **(extra_context or {})})

    def refresh(self, request: HttpRequest) -> HttpResponse:
        """The inside of the dashboard, as it is now."""
        if not request.user.has_perm(PERMISSION):
            raise PermissionDenied
        response = TemplateResponse(request, "voiceproject/console/numbers.html", {"numbers": all_numbers()})
        response["Cache-Control"] = "no-store"
        return response

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        response = super().login(request, extra_context)
        if getattr(request, "signin_throttled", False):
            response.status_code = 429
            response["Retry-After"] = str(int(WINDOW.total_seconds()))
        return response


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """The side bar: what this user may see."""
    groups = (
        ("", (("index", "", _("Dashboard"), "dashboard"),)),
        (_("Jobs"), (
            ("covers_coverjob_changelist", "covers.view_coverjob", _("Covers"), "music_note"),
            ("voices_synthesis_changelist", "voices.view_synthesis", _("Syntheses"), "record_voice_over"),
            ("voiceproject_webhookdelivery_changelist", "voiceproject.view_webhookdelivery", _("Webhooks"), "webhook"),
        )),
        (_("Voices and models"), (
            ("voices_voice_changelist", "voices.view_voice", _("Voices"), "mic"),
            ("voices_consent_changelist", "voices.view_consent", _("Consents"), "verified_user"),
            ("voices_enginemodel_changelist", "voices.view_enginemodel", _("Models"), "neurology"),
        )),
        (_("Tenants"), (
            ("auth_user_changelist", "auth.view_user", _("Users"), "group"),
            ("voiceproject_tenant_changelist", "voiceproject.view_tenant", _("Limits"), "speed"),
            ("voices_apikey_changelist", "voices.view_apikey", _("API keys"), "key"),
        )),
        (_("Machines"), (
            ("voiceproject_workerhost_changelist", "voiceproject.view_workerhost", _("Hosts"), "dns"),
            ("voiceproject_auditentry_changelist", "voiceproject.view_auditentry", _("Audit log"), "history"),
        )),
    )  # fmt: skip
    found = []
    for title, items in groups:
        shown = []
        for name, permission, label, icon in items:
            if permission and not request.user.has_perm(permission):
                continue
            try:
                shown.append({"title": label, "icon": icon, "link": reverse(f"admin:{name}")})
            except NoReverseMatch:
                continue  # A page that this version does not have.
        if shown:
            found.append({"title": title, "separator": bool(title), "items": shown})
    return found
