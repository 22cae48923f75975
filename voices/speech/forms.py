"""Form fields of the console's pages for models."""

from __future__ import annotations

from django import forms
from django.utils.translation import gettext_lazy as _

from voices.speech.models import MODEL_LANGUAGES


class LanguagesField(forms.MultipleChoiceField):
    """Languages of a model as boxes to tick."""

    def __init__(self) -> None:
        super().__init__(
            choices=[(language, language) for language in MODEL_LANGUAGES],
            widget=forms.CheckboxSelectMultiple,
            required=False,
            label=_("Languages"),
            help_text=_("None: all that its version speaks."),
        )
