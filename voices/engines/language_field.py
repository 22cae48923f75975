"""A language as a field of a request."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from voices.text.languages import LANGUAGES, language_code, spoken_languages


class LanguageField(serializers.ChoiceField):
    """A language by any common name: `en`, `en-US`, `English`, `jp`. Gives one of LANGUAGES."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(LANGUAGES, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        code = language_code(data) if isinstance(data, str) else None
        if code is None:
            raise serializers.ValidationError(
                f'"{str(data)[:50]}" is no language that is known here: take one of {spoken_languages(LANGUAGES)}.'
            )
        return code
