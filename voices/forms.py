"""Forms and form fields of the pages for people."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import forms
from django.utils import timezone

from voices.models import KEY_LIMITS, MODEL_LANGUAGES, SCOPES, ApiKey, clean_networks


class ScopesField(forms.MultipleChoiceField):
    """Scopes as boxes to tick; the value is a list, as the model keeps it."""

    def __init__(self) -> None:
        super().__init__(
            choices=[(scope, scope) for scope in SCOPES], widget=forms.CheckboxSelectMultiple, initial=list(SCOPES)
        )


class NetworksField(forms.CharField):
    """An allow-list, one address or network a line; the value is a list, as the model keeps it."""

    def __init__(self) -> None:
        super().__init__(
            widget=forms.Textarea(attrs={"rows": 3}),
            required=False,
            help_text="Addresses or networks that it may be used from, one a line, such as 192.0.2.7 or "
            "2001:db8::/32. None: all.",
        )

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> list[str]:  # type: ignore[override]
        if isinstance(value, list):
            return value
        try:
            return clean_networks(str(value or "").replace(",", " ").split())
        except ValueError as error:
            raise forms.ValidationError(str(error)) from None

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(self.to_python(initial) != self.to_python(data))
        except forms.ValidationError:
            return True


class KeyForm(forms.ModelForm):
    scopes = ScopesField()
    allowed_networks = NetworksField()

    class Meta:
        model = ApiKey
        fields = ("name", "scopes", "expires_at", "allowed_networks", *KEY_LIMITS)

    def clean_expires_at(self) -> datetime | None:
        expires_at: datetime | None = self.cleaned_data["expires_at"]
        if expires_at is not None and expires_at != self.instance.expires_at and expires_at <= timezone.now():
            raise forms.ValidationError("Must be in the future. To end a key now, revoke it.")
        return expires_at


class LanguagesField(forms.MultipleChoiceField):
    """Languages of a model as boxes to tick."""

    def __init__(self) -> None:
        super().__init__(
            choices=[(language, language) for language in MODEL_LANGUAGES],
            widget=forms.CheckboxSelectMultiple,
            required=False,
            help_text="None: all that its version speaks.",
        )
