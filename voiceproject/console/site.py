"""The console's site: its first page, its side bar, and its sign-in form.

Besides it stands the page of failures. The dashboard shows itself again every few seconds: console.js asks for
`dashboard/`.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any, cast

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.translation import gettext_lazy as _
from unfold.forms import AdminOwnPasswordChangeForm, AuthenticationForm
from unfold.sites import UnfoldAdminSite

from voiceproject.console import panels
from voiceproject.console.numbers import all_numbers
from voiceproject.console.pages import failures
from voiceproject.console.panels import JOBS, MACHINES, TENANTS, Link
from voiceproject.tenants.signin import (
    PasswordView,
    ThrottledOldPassword,
    ThrottledSignin,
    refuse,
    remember_device,
)

panels.register_links(
    Link(JOBS, 30, "voiceproject.webhookdelivery", _("Webhook deliveries"), "webhook"),
    Link(TENANTS, 10, "auth.user", _("Users"), "group"),
    Link(TENANTS, 20, "voiceproject.tenant", _("Tenants"), "speed"),
    Link(MACHINES, 10, "voiceproject.workerhost", _("Worker hosts"), "dns"),
    Link(MACHINES, 20, "voiceproject.auditentry", _("Audit log"), "history"),
)


class SigninForm(ThrottledSignin, AuthenticationForm):
    """The console's, with as many tries as `voiceproject.tenants.signin` leaves."""


class OwnPasswordForm(ThrottledOldPassword, AdminOwnPasswordChangeForm):
    """The same for who is signed in and wants another password."""


class ConsoleSite(UnfoldAdminSite):
    site_title = _("Voice console")  # type: ignore[assignment]
    site_header = _("Voice console")  # type: ignore[assignment]
    index_title = _("Dashboard")  # type: ignore[assignment]
    index_template = "voiceproject/console/dashboard.html"
    login_form = SigninForm
    login_template = "voiceproject/console/signin.html"

    def get_urls(self) -> list[Any]:
        return [
            path("dashboard/", self.admin_view(self.refresh), name="dashboard"),
            path("failures/", self.admin_view(self.failures), name="failures"),
            *super().get_urls(),
        ]

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        # The colours are in console.css: unfold would write them into a <style> of each page, which the CSP forbids.
        return {**super().each_context(request), "colors": None, "redirect_to": request.get_full_path()}

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        shown = all_numbers() if self.may_see_numbers(request) else None
        return super().index(request, {"numbers": shown, **(extra_context or {})})

    def may_see_numbers(self, request: HttpRequest) -> bool:
        return request.user.has_perm(panels.job_kinds()[0].view_permission)

    def refresh(self, request: HttpRequest) -> HttpResponse:
        """The inside of the dashboard, as it is now."""
        if not self.may_see_numbers(request):
            raise PermissionDenied
        response = TemplateResponse(request, "voiceproject/console/numbers.html", {"numbers": all_numbers()})
        response["Cache-Control"] = "no-store"
        return response

    def failures(self, request: HttpRequest) -> HttpResponse:
        """Failed jobs by their cause."""
        kinds = panels.job_kinds()
        if not any(request.user.has_perm(kind.view_permission) for kind in kinds):
            raise PermissionDenied
        found = failures.shown(request.user, kinds, failures.period_of(request.GET.get("period", "")))
        context = {**self.each_context(request), "title": _("Failures"), "failures": found}
        return TemplateResponse(request, "voiceproject/console/failures.html", context)

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        response = super().login(request, extra_context)
        if getattr(request, "signin_throttled", False):
            refuse(response)
        elif request.method == "POST" and isinstance(request.user, User) and response.status_code == 302:
            remember_device(response, request.user)
        return response

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        request.current_app = self.name  # type: ignore[attr-defined]
        view = PasswordView.as_view(
            form_class=OwnPasswordForm,
            success_url=reverse(f"{self.name}:password_change_done", current_app=self.name),
            template_name=self.password_change_template or "registration/password_change_form.html",
            extra_context={**self.each_context(request), **(extra_context or {})},
        )
        return cast(HttpResponse, view(request))


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """The side bar: what this user may see."""
    dashboard = {"title": _("Dashboard"), "icon": "dashboard", "link": reverse("admin:index")}
    first = [dashboard]
    if any(request.user.has_perm(kind.view_permission) for kind in panels.job_kinds()):
        first.append({"title": _("Failures"), "icon": "error", "link": reverse("admin:failures")})
    found: list[dict[str, Any]] = [{"title": "", "separator": False, "items": first}]
    allowed = (link for link in panels.links() if request.user.has_perm(link.permission))
    for section, links in groupby(allowed, key=lambda link: link.section):
        items = [{"title": link.label, "icon": link.icon, "link": reverse(link.url_name)} for link in links]
        found.append({"title": section.title, "separator": True, "items": items})
    return found
