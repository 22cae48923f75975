"""The form that makes and changes a key, for the console and the account's pages."""

from __future__ import annotations

import ipaddress
from datetime import datetime
from typing import Any

from django import forms
from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from voiceproject.errors import PublicError
from voiceproject.web.client_ip import parse_network
from voices.keys import grants
from voices.keys.models import KEY_LIMITS, MAX_NETWORKS, SCOPES, ApiKey, clean_networks


class ScopesField(forms.MultipleChoiceField):
    """Scopes as boxes to tick; the value is a list, as the model keeps it."""

    def __init__(self) -> None:
        super().__init__(
            choices=[(scope, scope) for scope in SCOPES],
            widget=forms.CheckboxSelectMultiple,
            initial=list(SCOPES),
            label=_("Scopes"),
        )


class NetworksField(forms.CharField):
    """An allow-list, one address or network a line; the value is a list, as the model keeps it."""

    def __init__(self) -> None:
        super().__init__(
            widget=forms.Textarea(attrs={"rows": 3}),
            required=False,
            label=_("Allowed networks"),
            help_text=_(
                "Addresses or networks that it may be used from, one a line, such as 192.0.2.7 or 2001:db8::/32. "
                "None: all."
            ),
        )

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> list[str]:  # type: ignore[override]
        if isinstance(value, list):
            return value
        words = str(value or "").replace(",", " ").split()
        try:
            return clean_networks(words)
        except ValueError:
            raise forms.ValidationError(self._problem(words)) from None

    @staticmethod
    def _problem(words: list[str]) -> str:
        """What clean_networks objects to, in the language of the page."""
        for word in words:
            try:
                parse_network(word)
            except ValueError:
                try:
                    network = ipaddress.ip_network(word, strict=False)
                except ValueError:
                    return _("%(word)s is neither an address nor a network.") % {"word": word}
                return _("%(word)s has bits behind its mask; the network is %(network)s.") % {
                    "word": word,
                    "network": network,
                }
        return _("At most %d addresses or networks.") % MAX_NETWORKS

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(self.to_python(initial) != self.to_python(data))
        except forms.ValidationError:
            return True


def kinds() -> list[tuple[str, Any]]:
    """What a new key may be here."""
    return [(kind.value, kind.label) for kind in ApiKey.Kind
            if kind != ApiKey.Kind.ADDRESS or settings.GPTSOVITS_ADDRESS_KEYS]  # fmt: skip


class KeyForm(forms.ModelForm):
    """kind is asked of a new key alone; one that is sent in no header may only speak, whatever is ticked."""

    scopes = ScopesField()
    allowed_networks = NetworksField()
    kind = forms.ChoiceField(
        choices=kinds, required=False, initial=ApiKey.Kind.HEADER, label=_("How clients send it"),
        help_text=_(
            "Clients of GPT-SoVITS send no header. A key for them opens only their routes (/gptsovits), and may only "
            "speak."
        ),
    )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk is not None:
            self.fields.pop("kind", None)
            if self.instance.kind != ApiKey.Kind.HEADER:
                self.fields.pop("scopes", None)

    class Meta:
        model = ApiKey
        fields = ("name", "kind", "scopes", "expires_at", "allowed_networks", *KEY_LIMITS)

    def clean_kind(self) -> str:
        return self.cleaned_data["kind"] or ApiKey.Kind.HEADER

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        kind = cleaned.get("kind", self.instance.kind)
        if kind == ApiKey.Kind.HEADER:
            return cleaned
        if "scopes" in self.fields:
            cleaned["scopes"] = grants.KEYLESS_SCOPES
            self.errors.pop("scopes", None)
        if "allowed_networks" in cleaned:
            wanted = ApiKey(
                pk=self.instance.pk, kind=kind, scopes=grants.KEYLESS_SCOPES,
                allowed_networks=cleaned["allowed_networks"],
            )  # fmt: skip
            try:
                with transaction.atomic():
                    grants.check_kind(wanted)
            except PublicError as error:
                told: list[str] = error.details.get("allowed_networks", [error.message])
                self.add_error("allowed_networks", gettext(told[0]))
        return cleaned

    def clean_expires_at(self) -> datetime | None:
        expires_at: datetime | None = self.cleaned_data["expires_at"]
        if expires_at is not None and expires_at != self.instance.expires_at and expires_at <= timezone.now():
            raise forms.ValidationError(_("Must be in the future. To end a key now, revoke it."))
        return expires_at
