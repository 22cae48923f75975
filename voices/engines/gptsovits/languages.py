"""Which languages a model speaks, and whether it can speak a text."""

from __future__ import annotations

from voiceproject.errors import PublicError
from voices.engines.interface import Model
from voices.text.languages import detect_language
from voices.text.lexicon import Lexicon
from voices.text.reading import Reading, read

LANGUAGES = frozenset({"auto", "zh", "en", "ja", "yue", "ko"})
V1_LANGUAGES = LANGUAGES - {"yue", "ko"}
NEED_TRANSCRIPT = frozenset({"v3", "v4"})


def check(
    text: str,
    language: str,
    transcript: str | None,
    reference_language: str,
    model: Model | None,
    early: bool = False,
    lexicon: Lexicon | None = None,
) -> Reading:
    """What is spoken of a text (early: see voices.text.sentences.split; lexicon: how its words are said).

    The server takes text alone: of what a word is said by, respellings and kana.

    PublicError validation_error: a language that the model does not speak, a text with nothing in it to speak, no
    transcript where the model needs one; unsupported_language: the text is in one.
    """
    version = model.version if model else ""
    known = V1_LANGUAGES if version == "v1" else LANGUAGES
    speaks = known & (model.languages | {"auto"}) if model and model.languages else known
    name = f"The model {model.id}" + (f" ({version})" if version else "") if model else "This engine"
    language, reference_language = language.lower(), reference_language.lower()
    if language not in speaks:
        raise _refused("language", f"{name} does not speak that; it speaks: {', '.join(sorted(speaks))}.")
    if reference_language not in known:
        raise _refused("reference_language", f"{name} does not know that; it knows: {', '.join(sorted(known))}.")
    if version in NEED_TRANSCRIPT and not (transcript or "").strip():
        advice = "send reference_text, and a reference of 3 to 10 seconds."
        raise _refused("reference_text", f"{name} needs the words of the reference: {advice}")
    if prompt_language(transcript, reference_language) not in known | {"und"}:
        raise _refused("reference_text", f"{name} does not know the language that this is in.")
    han = "ja" if prompt_language(transcript, reference_language) == "ja" else "zh"
    reading = read(text, language, speaks - {"auto"}, early=early, han=han, lexicon=lexicon, letters=())
    if not reading.sentences:
        raise _refused("text", "There is nothing to speak: it has no letters.")
    return reading


def prompt_language(transcript: str | None, language: str) -> str:
    """The language of the reference's words: as given, or told from them; `auto` where there are none."""
    words = (transcript or "").strip()
    return detect_language(words) if language == "auto" and words else language


def _refused(field: str, message: str) -> PublicError:
    return PublicError("validation_error", f"{field}: {message}", {field: [message]})
