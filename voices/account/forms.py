"""The forms of a tenant's own pages: sign-in, keys, erasure."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from voiceproject.tenants.signin import (
    ThrottledOldPassword,
    ThrottledSignin,
    forgive_confirmation,
    take_confirmation,
)
from voices.keys.forms import KeyForm
from voices.keys.models import SCOPES


class SigninForm(ThrottledSignin, AuthenticationForm):
    pass


class OwnPasswordForm(ThrottledOldPassword, PasswordChangeForm):
    pass


class AccountKeyForm(KeyForm):
    expires_at = forms.DateTimeField(
        required=False,
        label=_("Ends (UTC)"),
        help_text=_("Empty: never."),
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )
    field_order = KeyForm.Meta.fields

    class Meta(KeyForm.Meta):
        labels = {
            "name": _("Name"),
            "requests_per_minute": _("Requests a minute"),
            "max_concurrent_jobs": _("Jobs at a time"),
            "monthly_audio_seconds": _("Seconds of audio a month"),
        }
        help_texts = {
            "name": _("What it is for, so that you know it again."),
            "requests_per_minute": _("Empty: as many as your account may send."),
            "max_concurrent_jobs": _("That wait or run. Empty: as many as your account may have."),
            "monthly_audio_seconds": _("That it may make. Empty: as many as your account may make."),
        }

    SCOPES = [
        ("synthesize", _("synthesize: text to speech")),
        ("covers", _("covers: songs sung in another voice")),
        ("voices", _("voices: keep voices, and use them")),
        ("usage", _("usage: see what was used, and which webhooks were sent")),
        ("keys", _("keys: make, change and revoke keys, and the webhooks' secret")),
    ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.label_suffix = ""
        if "scopes" in self.fields:
            scopes = cast(forms.MultipleChoiceField, self.fields["scopes"])
            scopes.label, scopes.choices = _("What it may do"), self.SCOPES
        self.fields["allowed_networks"].label = _("Where it may be used from")
        self.fields["allowed_networks"].help_text = _(
            "Addresses or networks, one a line, such as 192.0.2.7 or 2001:db8::/32. Empty: from everywhere."
        )


class NewKeyForm(AccountKeyForm):
    # The same form sent twice, by a second click or a page that is loaded again, makes one key.
    public_id = forms.UUIDField(widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["scopes"].initial = [scope for scope in SCOPES if scope != "keys"]  # Programs need that seldom.


class RotateForm(forms.Form):
    HOUR = 3600
    overlap_seconds = forms.TypedChoiceField(
        label=_("The old one works for"),
        coerce=int,
        initial=24 * HOUR,
        choices=[
            (0, _("no time: it ends now")),
            (HOUR, _("an hour")),
            (24 * HOUR, _("a day")),
            (7 * 24 * HOUR, _("a week")),
            (30 * 24 * HOUR, _("30 days")),
        ],
    )


class EraseForm(forms.Form):
    """Asks for the password, in case a stranger uses a signed-in browser, and for the user name, to confirm."""

    username = forms.CharField(
        label=_("Your user name"),
        help_text=_("As it stands at the top of this page."),
        widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}),
    )
    password = forms.CharField(
        label=_("Your password"),
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )
    throttled = False

    def __init__(self, request: HttpRequest, data: Any = None) -> None:
        super().__init__(data, label_suffix="")
        self.request = request

    def clean(self) -> dict[str, Any]:
        given = self.cleaned_data
        user = cast(User, self.request.user)
        if "username" in given and given["username"] != user.get_username():
            self.add_error("username", _("That is not the user name of this account."))
        elif "username" in given and "password" in given:
            if not take_confirmation(self.request):
                self.throttled = True
                self.add_error("password", _("There were too many wrong passwords. Try again in 15 minutes."))
            elif not user.check_password(given["password"]):
                self.add_error("password", _("That is not the password of this account."))
            else:
                forgive_confirmation(self.request)
        return given
