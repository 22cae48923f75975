"""Form fields of the console."""

from __future__ import annotations

from django import forms

from voices.models import SCOPES


class ScopesField(forms.MultipleChoiceField):
    """Scopes as boxes to tick; the value is a list, as the model keeps it."""

    def __init__(self) -> None:
        super().__init__(
            choices=[(scope, scope) for scope in SCOPES], widget=forms.CheckboxSelectMultiple, initial=list(SCOPES)
        )
