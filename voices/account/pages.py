"""/account: a tenant's own page, for people. It signs in with a password; the API takes no session, and this no key.

Whoever signs in sees what is its own and nothing else, operators too. Keys are changed by voices.keys.grants.
"""

from __future__ import annotations

import uuid
from datetime import date, datetime, timedelta
from typing import Any, cast

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.mixins import LoginRequiredMixin
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView, LogoutView
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.template.defaultfilters import filesizeformat
from django.urls import reverse_lazy
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.translation import gettext, gettext_noop, ngettext
from django.utils.translation import gettext_lazy as _
from django.views import View
from django.views.decorators.cache import never_cache

from voiceproject.console.base import told
from voiceproject.console.tags import duration
from voiceproject.errors import PublicError
from voiceproject.media import audio
from voiceproject.tenants import usage
from voiceproject.tenants.models import Tenant
from voiceproject.tenants.signin import PasswordView, refuse, remember_device
from voiceproject.web.api import file_response
from voices.account import personal_data, sessions
from voices.account.api import export
from voices.account.forms import AccountKeyForm, EraseForm, NewKeyForm, OwnPasswordForm, RotateForm, SigninForm
from voices.keys import grants
from voices.keys.models import ApiKey
from voices.library import quality, saved, selection
from voices.library.models import Voice

TEMPLATES = "voiceproject/account"
OPERATIONS = {
    "cover": _("Covers"),
    "remix": _("Remixes"),
    "synthesis": _("Speech"),
    "training": _("Trainings"),
}  # as the ledger has them


@method_decorator(never_cache, name="dispatch")
class SigninView(LoginView):
    template_name = f"{TEMPLATES}/signin.html"
    authentication_form = SigninForm
    next_page = "account"
    redirect_authenticated_user = True

    def get_form_kwargs(self) -> dict[str, Any]:
        return super().get_form_kwargs() | {"label_suffix": ""}

    def form_valid(self, form: Any) -> HttpResponse:
        response = super().form_valid(form)
        remember_device(response, form.get_user())
        return response

    def form_invalid(self, form: Any) -> HttpResponse:
        response = super().form_invalid(form)
        if form.throttled:
            refuse(response)
        return response


class SignoutView(LogoutView):
    next_page = "account-signin"


@method_decorator(never_cache, name="dispatch")
class AccountView(LoginRequiredMixin, View):
    """Base of all pages behind the sign-in. Errors are shown as pages, never as JSON."""

    login_url = reverse_lazy("account-signin")

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.user.is_authenticated:
            request.tenant_id = request.user.pk  # type: ignore[attr-defined] # for the access log
        try:
            return super().dispatch(request, *args, **kwargs)
        except Http404:
            return problem(request, 404, gettext("There is nothing here"), gettext("Or it is not yours."))
        except PublicError as error:
            if error.code in ("not_found", "revoked", "result_expired"):
                return problem(request, error.status, gettext("There is nothing here"), told(error))
            messages.error(request, told(error))
            return redirect("account")

    @property
    def user(self) -> User:
        return cast(User, self.request.user)  # nobody else gets here

    def key(self, public_id: uuid.UUID) -> ApiKey:
        own = ApiKey.objects.for_tenant(self.request.user)
        return get_object_or_404(own.select_related("replaced_by"), public_id=public_id)

    @property
    def actor(self) -> grants.Actor:
        return grants.Actor(self.request)

    def secret(self, key: ApiKey, secret: str, replaced: ApiKey | None = None) -> HttpResponse:
        """In the answer to the form itself, so that it is in no session, no cookie and no URL."""
        context = {"key": key, "secret": secret, "replaced": replaced, "kinds": ApiKey.Kind}
        return render(self.request, f"{TEMPLATES}/secret.html", context)


def problem(request: HttpRequest, status: int, what: str, advice: str) -> HttpResponse:
    return render(request, f"{TEMPLATES}/problem.html", {"problem": what, "advice": advice}, status=status)


class OverviewView(AccountView):
    def get(self, request: HttpRequest) -> HttpResponse:
        own = list(ApiKey.objects.for_tenant(request.user).select_related("replaced_by"))
        context = {
            "live": [key for key in own if key.is_valid()],
            "ended": [key for key in own if not key.is_valid()],
            "limits": limits(request.user),
            "sessions": sessions.of_user(self.user, request.session.session_key),
            "voices": Voice.objects.for_tenant(request.user).count(),
        }
        return render(request, f"{TEMPLATES}/account.html", context)


def limits(user: Any) -> list[dict[str, Any]]:
    """The limits of this user's keys together, and how much is used, where that is counted."""
    tenant = Tenant.objects.filter(user=user).first() or Tenant(user=user)

    def own(name: str, default: int) -> int:
        value: int | None = getattr(tenant, name)
        return default if value is None else value

    quota, storage = usage.audio_limit(tenant), usage.storage_limit(tenant)
    made, stored = usage.counted_ms(user.pk, timezone.now()) / 1000, usage.storage_bytes(user.pk)
    return [
        {
            "name": _("Audio this month (UTC), made or on the way"),
            "value": round(made, 1),
            "limit": quota,
            "shown": duration(made),
            "shown_limit": "" if quota is None else duration(quota),
        },
        {
            "name": _("Files"),
            "value": stored,
            "limit": storage,
            "shown": filesizeformat(stored),
            "shown_limit": "" if storage is None else filesizeformat(storage),
        },
        {
            "name": _("Requests in any 60 seconds"),
            "limit": own("requests_per_minute", settings.RATE_LIMIT_PER_MINUTE) or None,
        },
        {"name": _("Covers that may wait"), "limit": own("max_queued", settings.COVER_MAX_QUEUED)},
        {"name": _("Covers that may run at a time"), "limit": own("max_running", settings.COVER_MAX_RUNNING)},
    ]


def day_chart(first: date, later: date, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A bar for each day of a month on a canvas of 620 x 120: its place, its height, and the seconds of audio."""
    made = {item["day"]: item["audio_seconds"] for item in items}
    days = [first + timedelta(days=number) for number in range((later - first).days)]
    top = max(made.values(), default=0) or 1
    slot = 620 / len(days)
    bars = []
    for number, day in enumerate(days):
        seconds = made.get(day, 0)
        height = max(1.0, 100 * seconds / top) if seconds else 0.0
        bars.append({"day": day, "seconds": seconds, "x": f"{number * slot + slot * 0.15:.1f}",
                     "y": f"{102 - height:.1f}", "width": f"{slot * 0.7:.1f}", "height": f"{height:.1f}",
                     "middle": f"{(number + 0.5) * slot:.1f}"})  # fmt: skip
    return bars


class UsageView(AccountView):
    def get(self, request: HttpRequest) -> HttpResponse:
        this = timezone.now().date().replace(day=1)
        month = self.asked(request.GET.get("month", "")) or this
        later = (month + timedelta(days=31)).replace(day=1)
        found = {group: usage.summary(self.user.pk, month, later - timedelta(days=1), group)
                 for group in ("operation", "key", "day")}  # fmt: skip
        captions = {
            "operation": (_("By operation"), _("Operation")),
            "key": (_("By key"), _("Key")),
            "day": (_("By day"), _("Day (UTC)")),
        }
        tables = [
            {
                "caption": captions[group][0],
                "of": captions[group][1],
                "rows": [item | {"name": self.name_of(item[group])} for item in summary["items"]],
            }
            for group, summary in found.items()
        ]
        context = {
            "month": month,
            "earlier": (month - timedelta(days=1)).replace(day=1),
            "later": later if later <= this else None,
            "tables": tables,
            "total": found["operation"]["total"],
            "chart": day_chart(month, later, found["day"]["items"]),
        }
        return render(request, f"{TEMPLATES}/usage.html", context)

    @staticmethod
    def asked(month: str) -> date | None:
        """The first day of a month such as 2026-11; None if it is not a valid month."""
        try:
            found = datetime.strptime(month, "%Y-%m").date()
        except ValueError:
            return None
        return found if 2000 <= found.year < 9000 else None

    @staticmethod
    def name_of(value: Any) -> str:
        if isinstance(value, dict):
            return f"{value['name']} ({value['prefix']}…)" if value["prefix"] else gettext("no key")
        return value.isoformat() if isinstance(value, date) else str(OPERATIONS.get(value, value))


class VoicesView(AccountView):
    def get(self, request: HttpRequest) -> HttpResponse:
        own = Voice.objects.for_tenant(request.user).prefetch_related("samples")
        page = Paginator(own, 20).get_page(request.GET.get("page"))
        voices = [
            (voice, quality.together([sample.quality for sample in voice.samples.all()], anew=True)) for voice in page
        ]
        return render(request, f"{TEMPLATES}/voices.html", {"page": page, "voices": voices})


class VoiceSampleView(AccountView):
    def get(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponseBase:
        voice = selection.find(request.user, pk)
        return file_response(
            request, voice.reference, content_type=audio.CONTENT_TYPES["flac"], filename=f"{voice.pk}.flac"
        )


class EndSessionsView(AccountView):
    def get(self, request: HttpRequest) -> HttpResponse:
        # After signing in again, the browser returns here by GET.
        return redirect("account")

    def post(self, request: HttpRequest) -> HttpResponse:
        count = sessions.end_others(self.user, request.session.session_key)
        words = ngettext("%d other session was ended.", "%d other sessions were ended.", count)
        messages.success(request, words % count)
        return redirect("account")


class DeleteVoiceView(AccountView):
    def get(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        return redirect("account-voices")

    def post(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        voice = get_object_or_404(Voice.objects.for_tenant(request.user), pk=pk)
        saved.delete(voice, request)
        messages.success(request, gettext("%(name)s has been deleted.") % {"name": voice.name})
        return redirect("account-voices")


class OwnPasswordView(AccountView, PasswordView):
    form_class = OwnPasswordForm
    template_name = f"{TEMPLATES}/password.html"
    success_url = reverse_lazy("account")

    def get_form_kwargs(self) -> dict[str, Any]:
        return super().get_form_kwargs() | {"label_suffix": ""}

    def form_valid(self, form: Any) -> HttpResponse:
        response = super().form_valid(form)
        messages.success(self.request, gettext("Your password has been changed."))
        return response


class ExportView(AccountView):
    def get(self, request: HttpRequest) -> HttpResponse:
        # After signing in again, the browser returns here by GET. A link must not start the download.
        return redirect("account")

    def post(self, request: HttpRequest) -> HttpResponseBase:
        return export(self.user, request)


class EraseView(AccountView):
    def get(self, request: HttpRequest) -> HttpResponse:
        return self.page(EraseForm(request))

    def post(self, request: HttpRequest) -> HttpResponse:
        form = EraseForm(request, request.POST)
        if not form.is_valid():
            response = self.page(form, 400)
            if form.throttled:
                refuse(response)
            return response
        personal_data.request_erasure(self.user, request)
        logout(request)
        return render(request, f"{TEMPLATES}/erasing.html")

    def page(self, form: EraseForm, status: int = 200) -> HttpResponse:
        return render(self.request, f"{TEMPLATES}/erase.html", {"form": form}, status=status)


class NewKeyView(AccountView):
    def get(self, request: HttpRequest) -> HttpResponse:
        form = NewKeyForm(initial={"public_id": uuid.uuid4()})
        return self.page(form)

    def post(self, request: HttpRequest) -> HttpResponse:
        form = NewKeyForm(request.POST)
        if not form.is_valid():
            return self.page(form, 400)
        key, secret = grants.create(self.user, self.actor, **form.cleaned_data)
        return self.secret(key, secret)

    def page(self, form: NewKeyForm, status: int = 200) -> HttpResponse:
        return render(self.request, f"{TEMPLATES}/new_key.html", {"form": form}, status=status)


class KeyView(AccountView):
    def get(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        key = self.key(pk)
        return self.page(key, AccountKeyForm(instance=key))

    def post(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        form = AccountKeyForm(request.POST, instance=self.key(pk))
        if not form.is_valid():
            return self.page(self.key(pk), form, 400)
        changes = {name: form.cleaned_data[name] for name in form.changed_data}
        key = grants.update(self.key(pk), self.actor, **changes)
        messages.success(request, gettext("%(name)s has been changed.") % {"name": key.name})
        return redirect("account-key", pk)

    def page(self, key: ApiKey, form: AccountKeyForm, status: int = 200) -> HttpResponse:
        context = {"key": key, "form": form, "rotate_form": RotateForm(label_suffix=""), "kinds": ApiKey.Kind}
        return render(self.request, f"{TEMPLATES}/key.html", context, status=status)


class KeyActionView(AccountView):
    def get(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        # After signing in again, the browser returns here by GET.
        return redirect("account-key", pk)


class RotateKeyView(KeyActionView):
    def post(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        key = self.key(pk)
        form = RotateForm(request.POST)
        if not form.is_valid():
            raise PublicError("validation_error", gettext_noop("Say how long the old key works."))
        fresh, secret = grants.rotate(key, self.actor, form.cleaned_data["overlap_seconds"])
        key.refresh_from_db()
        return self.secret(fresh, secret, replaced=key)


class RevokeKeyView(KeyActionView):
    def post(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        key = self.key(pk)
        grants.revoke(key, self.actor)
        messages.success(request, gettext("%(name)s has been revoked.") % {"name": key.name})
        return redirect("account")
