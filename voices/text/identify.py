"""Which language a text in Latin letters is in, where it is not plainly English."""

from __future__ import annotations

import re
import threading
from functools import lru_cache
from typing import Any

SURE = 0.8  # so likely, a text is refused as being in another language
LIKELY = 0.5  # so likely, it is said that the language was guessed
MIN_WORDS = 3  # fewer are a name, or a word that every language has
MAX_CHARACTERS = 1000

NAMES = {
    "af": "Afrikaans", "ca": "Catalan", "cs": "Czech", "cy": "Welsh", "da": "Danish", "de": "German", "es": "Spanish",
    "et": "Estonian", "eu": "Basque", "fi": "Finnish", "fr": "French", "gl": "Galician", "hr": "Croatian",
    "hu": "Hungarian", "id": "Indonesian", "is": "Icelandic", "it": "Italian", "lt": "Lithuanian", "lv": "Latvian",
    "ms": "Malay", "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian",
    "sk": "Slovak", "sl": "Slovenian", "sq": "Albanian", "sv": "Swedish", "sw": "Swahili", "tl": "Tagalog",
    "tr": "Turkish", "vi": "Vietnamese",
}  # fmt: skip

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
# Everyday English words that its neighbours do not have.
_ENGLISH = frozenset(
    str.split(
        "the and of to is you that it was for are with his they this have from by not but what all were when we there "
        "can your which their if do will each about how up out them then she many some these would into has more her "
        "like him see time could make than first been who now people my made over did down only way find use may other "
        "long get go came say says said it's i'm don't isn't i at be one good day please hello here new he had as its "
        "must should very wait stop yes our us two three four five does never always let's"
    )
)


_loading = threading.Lock()


def _identifier() -> Any:
    with _loading:  # Else whoever asks meanwhile loads it again.
        return _load()


@lru_cache(maxsize=1)
def _load() -> Any:
    """py3langid, told which languages there are (0.7 s, 60 MB)."""
    import py3langid.langid

    identifier = py3langid.langid.LanguageIdentifier.from_model_file(py3langid.langid.MODEL_FILE, norm_probs=True)
    identifier.set_languages(["en", *(set(NAMES) & set(identifier.labels))])
    identifier._full_model = None  # 28 MB of languages that are not asked for
    return identifier


def load() -> None:
    """Loads what tells languages apart now, so that no text waits for it."""
    _identifier()


def foreign(text: str) -> tuple[str, float] | None:
    """The language that a Latin text is likely in, and how likely, 0 to 1; None for English and what cannot be told."""
    words = [word.casefold() for word in _WORD.findall(text[:MAX_CHARACTERS])]
    if len(set(words)) < MIN_WORDS:
        return None
    share = sum(word.replace("’", "'") in _ENGLISH for word in words) / len(words)
    if share >= 0.2:
        return None
    language, likely = _identifier().classify(" ".join(words))
    if language == "en" or likely < LIKELY:
        return None
    return NAMES[language], float(likely) * (1 - share)
