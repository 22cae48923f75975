"""Form fields of the console."""

from __future__ import annotations

from django import forms

from voices.models import MODEL_LANGUAGES, SCOPES


class ScopesField(forms.MultipleChoiceField):
    """Scopes as boxes to tick; the value is a list, as the model keeps it."""

    def __init__(self) -> None:
        super().__init__(
            choices=[(scope, scope) for scope in SCOPES], widget=forms.CheckboxSelectMultiple, initial=list(SCOPES)
        )


class LanguagesField(forms.MultipleChoiceField):
    """Languages of a model as boxes to tick."""

    def __init__(self) -> None:
        super().__init__(
            choices=[(language, language) for language in MODEL_LANGUAGES],
            widget=forms.CheckboxSelectMultiple,
            required=False,
            help_text="None: all that its version speaks.",
        )
