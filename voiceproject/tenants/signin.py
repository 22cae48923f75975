"""Every look at a password, at the console's and all other pages, is throttled; strangers keep no owner out.

| who tries                                        | wrong passwords in 15 minutes                                     |
|--------------------------------------------------|-------------------------------------------------------------------|
| somebody at a sign-in                            | 10 of one account from one address, 30 from one address, and 100  |
|                                                  | of one account from anywhere                                      |
| a device that has signed in to this account      | 10, of its own: others' are not counted                           |
| who is signed in and asked for the password again| 10, of this session                                               |

A try is counted before the password is looked at, in one guarded UPDATE for each limit, so that any number of processes
and of tries at once share them. A right password gives its try back. Failures are in the audit log.

A device is known by a signed cookie, bound to the user and to the password: another password makes all unknown.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from django import forms
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.contrib.auth.views import PasswordChangeView
from django.core import signing
from django.db.models import F
from django.db.models.functions import Now
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.crypto import constant_time_compare, salted_hmac
from django.utils.translation import gettext_lazy as _

from voiceproject.tenants import audit
from voiceproject.tenants.models import AuditEntry, SigninFailures

WINDOW = timedelta(minutes=15)
# Wrong passwords in the window.
PAIR_LIMIT = 10  # of one account from one address
ADDRESS_LIMIT = 30  # from one address, behind which there may be an office
ACCOUNT_LIMIT = 100  # of one account, from anywhere but its known devices
DEVICE_LIMIT = 10  # of one account on a device that has signed in to it
SESSION_LIMIT = 10  # where who is signed in is asked for the password again
SILENT = timedelta(minutes=1)  # A throttled client fills the audit log no faster.
DEVICE_SECONDS = 180 * 24 * 3600
DEVICE_SALT = "signin.device"


@dataclass(frozen=True)
class Count:
    """What a try counts for. own: this account's alone here, so that a right password makes it forgotten."""

    what: str
    limit: int
    own: bool

    @property
    def name(self) -> str:
        return hashlib.sha256(self.what.encode()).hexdigest()


def _of_signin(request: HttpRequest, username: str) -> list[Count]:
    device = _device(request, username)
    if device is not None:
        return [Count(f"device {device}", DEVICE_LIMIT, own=True)]
    address = audit.client_address(request)
    try:
        parsed = ipaddress.ip_address(address)
        if parsed.version == 6:  # Whoever has one IPv6 address has 2^64.
            address = str(ipaddress.ip_network((parsed, 64), strict=False))
    except ValueError:
        pass  # A Unix socket has none.
    account = username.strip().casefold()
    # The address first: one that has no try left makes no row for each name that it thinks of.
    return [
        Count(f"address {address}", ADDRESS_LIMIT, own=False),
        Count(f"address {address} account {account}", PAIR_LIMIT, own=True),
        Count(f"account {account}", ACCOUNT_LIMIT, own=False),
    ]


def _of_session(request: HttpRequest) -> Count:
    return Count(f"session {request.session.session_key}", SESSION_LIMIT, own=True)


def _take(counts: list[Count]) -> bool:
    SigninFailures.objects.filter(since__lt=Now() - WINDOW).delete()
    taken: list[str] = []
    for count in counts:
        SigninFailures.objects.get_or_create(name=count.name)
        below = SigninFailures.objects.filter(name=count.name, count__lt=count.limit)
        if not below.update(count=F("count") + 1):
            SigninFailures.objects.filter(name__in=taken).update(count=F("count") - 1)
            return False
        taken.append(count.name)
    return True


def _forgive(counts: list[Count]) -> None:
    own = [count.name for count in counts if count.own]
    shared = [count.name for count in counts if not count.own]
    SigninFailures.objects.filter(name__in=own).delete()
    SigninFailures.objects.filter(name__in=shared, count__gt=0).update(count=F("count") - 1)


def take_try(request: HttpRequest, username: str) -> bool:
    """Counts one try to sign in. False: there were too many, and this one is not to be looked at."""
    return _take(_of_signin(request, username))


def forgive(request: HttpRequest, username: str) -> None:
    """The password was right. What is this account's alone here is forgotten, the rest has this try back."""
    _forgive(_of_signin(request, username))


def take_confirmation(request: HttpRequest) -> bool:
    """Counts one try of whoever is signed in to give the password again. False: not to be looked at."""
    if _take([_of_session(request)]):
        return True
    _record_once("signin.throttled", request, cast(User, request.user).get_username())
    return False


def forgive_confirmation(request: HttpRequest) -> None:
    _forgive([_of_session(request)])


# --- devices that have signed in before ---


def _cookie(user: User) -> str:
    return f"device_{salted_hmac(DEVICE_SALT, str(user.pk)).hexdigest()[:12]}"


def _password_mark(user: User) -> str:
    return salted_hmac(DEVICE_SALT, user.password, algorithm="sha256").hexdigest()[:32]


def remember_device(response: HttpResponse, user: User) -> None:
    """Lets the browser that gets this response go on to be known as one that has signed in as this user."""
    value = signing.dumps([user.pk, secrets.token_urlsafe(12), _password_mark(user)], salt=DEVICE_SALT)
    response.set_cookie(
        _cookie(user), value, max_age=DEVICE_SECONDS, httponly=True, samesite="Lax",
        secure=settings.SESSION_COOKIE_SECURE,
    )  # fmt: skip


def _device(request: HttpRequest, username: str) -> str | None:
    """The id of a device that has signed in to this account since its password was set."""
    if not any(name.startswith("device_") for name in request.COOKIES):
        return None
    user = User.objects.filter(username=username).first()
    if user is None:
        return None
    try:
        user_id, device, mark = signing.loads(
            request.COOKIES.get(_cookie(user), ""), salt=DEVICE_SALT, max_age=DEVICE_SECONDS
        )
    except (signing.BadSignature, ValueError, TypeError):
        return None
    same = user_id == user.pk and constant_time_compare(mark, _password_mark(user))
    return str(device) if same else None


class ThrottledSignin(forms.Form):
    """A mixin before Django's AuthenticationForm: the same form, and no more tries than there may be.

    `throttled` says afterwards that it was refused unseen; the page answers 429 then.
    """

    throttled = False

    def clean(self) -> Any:
        request, username = self.request, str(self.cleaned_data.get("username") or "")  # type: ignore[attr-defined]
        if not username or not self.cleaned_data.get("password"):
            return super().clean()
        if not take_try(request, username):
            self.throttled = request.signin_throttled = True
            _record_once("signin.throttled", request, username)
            raise forms.ValidationError(_("Too many wrong passwords. Try again in 15 minutes."), code="throttled")
        cleaned = super().clean()
        forgive(request, username)
        return cleaned


class ThrottledOldPassword(forms.Form):
    """A mixin before a PasswordChangeForm, whose view passes `request` and answers 429 where it is `throttled`."""

    throttled = False

    def __init__(self, *args: Any, request: HttpRequest, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request = request

    def clean_old_password(self) -> str:
        if not take_confirmation(self.request):
            self.throttled = True
            raise forms.ValidationError(_("There were too many wrong passwords. Try again in 15 minutes."))
        given: str = super().clean_old_password()  # type: ignore[misc]
        forgive_confirmation(self.request)
        return given


class PasswordView(PasswordChangeView):
    """Another password for whoever is signed in; `form_class` is a ThrottledOldPassword."""

    def get_form_kwargs(self) -> dict[str, Any]:
        return super().get_form_kwargs() | {"request": self.request}

    def form_valid(self, form: Any) -> HttpResponse:
        response = super().form_valid(form)
        audit.record("password.change", form.user, request=self.request, tenant_id=form.user.pk)
        remember_device(response, form.user)
        return response

    def form_invalid(self, form: Any) -> HttpResponse:
        response = super().form_invalid(form)
        if form.throttled:
            refuse(response)
        return response


def refuse(response: HttpResponse) -> None:
    """Makes of a page that shows the form again the answer to one try too many."""
    response.status_code = 429
    response["Retry-After"] = str(int(WINDOW.total_seconds()))


def _record_once(action: str, request: HttpRequest, username: str) -> None:
    address = audit.client_address(request)[:64]
    lately = AuditEntry.objects.filter(action=action, address=address, at__gt=Now() - SILENT)
    if not lately.exists():
        audit.record(action, request=request, target_type="user", details={"username": username[:150]})


@receiver(user_logged_in)
def _signed_in(sender: Any, request: Any, user: User, **kwargs: Any) -> None:
    audit.record("signin", user, request=request)
    if hasattr(request, "session"):  # So that people see where they are signed in.
        request.session["signed_in"] = {
            "at": timezone.now().isoformat(timespec="seconds"),
            "address": audit.client_address(request)[:64],
            "agent": "".join(c for c in request.META.get("HTTP_USER_AGENT", "") if c.isprintable())[:200],
        }


@receiver(user_logged_out)
def _signed_out(sender: Any, request: Any, user: User | None, **kwargs: Any) -> None:
    if user is not None:
        audit.record("signout", user, request=request)


@receiver(user_login_failed)
def _failed(sender: Any, credentials: dict[str, Any], request: Any = None, **kwargs: Any) -> None:
    username = str(credentials.get("username", ""))[:150]
    audit.record("signin.failed", request=request, target_type="user", details={"username": username})
