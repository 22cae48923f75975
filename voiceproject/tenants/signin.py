"""Signing in with a password, for the console and every other page: throttled for each address and each account.

A try is counted before the password is looked at, in one guarded UPDATE, so that any number of processes and of tries
at once share the limits. A right password gives its try back. Every failure is in the audit log.
"""

from __future__ import annotations

import hashlib
import ipaddress
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db.models import F
from django.db.models.functions import Now
from django.dispatch import receiver
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from voiceproject.tenants import audit
from voiceproject.tenants.models import AuditEntry, SigninFailures

WINDOW = timedelta(minutes=15)
ACCOUNT_LIMIT = 10  # wrong passwords of one account in the window
ADDRESS_LIMIT = 30  # and from one address, behind which there may be an office
SILENT = timedelta(minutes=1)  # A throttled client fills the audit log no faster.


def _names(request: HttpRequest, username: str) -> dict[str, int]:
    """What a try counts for, with the limit of each."""
    address = audit.client_address(request)
    try:
        parsed = ipaddress.ip_address(address)
        if parsed.version == 6:  # Whoever has one IPv6 address has 2^64.
            address = str(ipaddress.ip_network((parsed, 64), strict=False))
    except ValueError:
        pass  # A Unix socket has none.
    # The address first: one that has no try left makes no row for each name that it thinks of.
    texts = {f"address {address}": ADDRESS_LIMIT, f"account {username.strip().casefold()}": ACCOUNT_LIMIT}
    return {hashlib.sha256(text.encode()).hexdigest(): limit for text, limit in texts.items()}


def take_try(request: HttpRequest, username: str) -> bool:
    """Counts one try. False: there were too many, and this one is not to be looked at."""
    SigninFailures.objects.filter(since__lt=Now() - WINDOW).delete()
    taken: list[str] = []
    for name, limit in _names(request, username).items():
        SigninFailures.objects.get_or_create(name=name)
        if not SigninFailures.objects.filter(name=name, count__lt=limit).update(count=F("count") + 1):
            SigninFailures.objects.filter(name__in=taken).update(count=F("count") - 1)
            return False
        taken.append(name)
    return True


def forgive(request: HttpRequest, username: str) -> None:
    """The password was right: the account's failures are forgotten, and the address has this try back."""
    address, account = _names(request, username)
    SigninFailures.objects.filter(name=account).delete()
    SigninFailures.objects.filter(name=address, count__gt=0).update(count=F("count") - 1)


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


def _record_once(action: str, request: HttpRequest, username: str) -> None:
    address = audit.client_address(request)[:64]
    lately = AuditEntry.objects.filter(action=action, address=address, at__gt=Now() - SILENT)
    if not lately.exists():
        audit.record(action, request=request, target_type="user", details={"username": username[:150]})


@receiver(user_logged_in)
def _signed_in(sender: Any, request: Any, user: User, **kwargs: Any) -> None:
    audit.record("signin", user, request=request)


@receiver(user_logged_out)
def _signed_out(sender: Any, request: Any, user: User | None, **kwargs: Any) -> None:
    if user is not None:
        audit.record("signout", user, request=request)


@receiver(user_login_failed)
def _failed(sender: Any, credentials: dict[str, Any], request: Any = None, **kwargs: Any) -> None:
    username = str(credentials.get("username", ""))[:150]
    audit.record("signin.failed", request=request, target_type="user", details={"username": username})
