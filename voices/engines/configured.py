"""The speech engine of this process: the one that the setting VOICE_ENGINE names."""

from __future__ import annotations

import functools

from django.conf import settings
from django.utils.module_loading import import_string

from voiceproject.errors import PublicError
from voices.engines.interface import Engine
from voices.text.languages import spoken_languages


def get_engine() -> Engine:
    """The one configured engine. It is made at the first call. There is no fall-back from one engine to another."""
    return load_engine()


@functools.cache
def load_engine() -> Engine:
    """Makes the engine: the class that VOICE_ENGINES has under the name VOICE_ENGINE, with its own settings."""
    engine: Engine = import_string(settings.VOICE_ENGINES[settings.VOICE_ENGINE]).from_settings(settings)
    return engine


def close_engine() -> None:
    """Ends what the engine of this process has started."""
    if load_engine.cache_info().currsize:
        close = getattr(load_engine(), "close", None)
        if close:
            close()


def check_language(field: str, language: str) -> str:
    """The language, if the engine speaks it (`auto` always). Raises PublicError validation_error for the field."""
    engine = get_engine()
    known = sorted(engine.languages | {"auto"})
    if language not in known:
        message = f"The engine {engine.name} does not speak this; it speaks: {spoken_languages(known)}."
        raise PublicError("validation_error", f"{field}: {message}", {field: [message]})
    return language
