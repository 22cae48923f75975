"""Every text of every kind, through both engines: the sounds that the built-in voices are given, and what is sent to a
server of GPT-SoVITS."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import pytest

from tests.fakes.gptsovits import FakeGptSovits
from tests.support.gptsovits_client import Engines, ask, speak
from tests.text.references import FOLDS, LANGUAGES, Reference, pinyin, references
from voices.engines.builtin.engine import BuiltinEngine
from voices.engines.builtin.languages import chinese, english, japanese

PHONEMES: dict[str, Callable[[str], str]] = {
    "en": lambda words: "".join(english.phonemes()(words)),
    "zh": chinese.phonemes,
    "ja": japanese.phonemes,
}
# Its references have three third tones in a row as they are written, not as they are spoken.
MISREAD = {"一起走", "我得走了"}


def of_kinds(language: str, *but: str) -> list[Reference]:
    found = [one for one in references(language) if one.kind not in but and one.text not in MISREAD]
    assert min(Counter(one.kind for one in found).values()) >= 10
    return found


def parts(words: str) -> list[str]:
    """The sentences of a reference, without its pauses."""
    return [part for part in re.split(r" / |\(\d\.\d\)", words) if part.strip()]


def sounds(said: list[str], language: str) -> str:
    """Without pauses and stress. A letter that is spelled in lower case is no article."""
    phonemes = re.sub(r"[\W_ˈˌ]", "", "".join(map(PHONEMES[language], said)))
    if language == "ja":  # A reference in kana has long vowels and no particles.
        return re.sub("e[ei]*", "e", phonemes.replace("ː", "")).replace("ha", "βa")
    return phonemes.replace("ɐ", "A") if language == "en" else phonemes


def said_by_the_built_in_voices(text: str) -> str:
    words = "".join(sentence.words for sentence in BuiltinEngine.check(text, "en").sentences)
    return "".join(english.phonemes()(words))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_built_in_voices_are_given_the_sounds_of_the_words(language: str) -> None:
    found = of_kinds(language, "language", *(["readings"] if language == "zh" else []))
    wrong = {}
    for one in found:
        said = [sentence.words for sentence in BuiltinEngine.check(one.text, language).sentences if sentence.words]
        given = sounds(said, language)
        if given not in [sounds(parts(words), language) for words in one.words]:
            wrong[one.text] = (said, given)
    assert not wrong


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_server_of_gpt_sovits_is_sent_the_words(fake: FakeGptSovits, engine_for: Engines, language: str) -> None:
    engine = engine_for(fake.url)
    wrong = {}
    for one in of_kinds(language, "language"):
        before = len(fake.log)
        speak(engine, ask(one.text, language=language, speed=2.0))  # There is less to be made, of the same words.
        sent = [call["body"]["text"] for call in fake.log[before:]]
        if language == "zh" and one.kind == "readings":
            right = pinyin("".join(sent)) in one.words
        else:
            fold, join = FOLDS[language], " " if language == "en" else "。"
            right = fold(join.join(sent)) in [fold(join.join(parts(words))) for words in one.words]
        if not right:
            wrong[one.text] = sent
    assert not wrong


@pytest.mark.parametrize("language", LANGUAGES)
def test_both_engines_take_a_text_for_one_language(fake: FakeGptSovits, engine_for: Engines, language: str) -> None:
    engine = engine_for(fake.url)
    for one in [one for one in references(language) if one.kind == "language"]:
        before = len(fake.log)
        speak(engine, ask(one.text, language="auto"))
        assert {call["body"]["text_lang"] for call in fake.log[before:]} == set(one.words), one.text
        assert {sentence.language for sentence in BuiltinEngine.check(one.text, "auto").sentences} == set(one.words)


@pytest.mark.parametrize(
    ("text", "phonemes"),
    [
        ("I said no.", "ˌI sˈɛd nˈO."),
        ("No, no.", "nˈO, nˈO."),
        ("A big fig.", "ɐ bˈɪɡ fˈɪɡ."),
        ("“Yes.”", "jˈɛs."),
        ('"Hello!"', "həlˈO!"),
        ("King Charles III", "kˈɪŋ ʧˈɑɹlz ðə θˈɜɹd."),
        ("Say 'yes' now.", "sˈA jˈɛs nˈW."),
        ("It’s ours.", "ˌɪts ˈWəɹz."),
        ("«Really?» she asked.", "ɹˈiᵊli? ʃi ˈæskt."),
        ("The vote was no, then yes.", "ðə vˈOt wʌz nˈO, ðˈɛn jˈɛs."),
    ],
)
def test_words_beside_marks_are_said_as_they_are_alone(text: str, phonemes: str) -> None:
    assert said_by_the_built_in_voices(text) == phonemes


def test_a_capital_in_front_of_a_number_is_a_letter_but_where_a_sentence_begins() -> None:
    assert said_by_the_built_in_voices("Print it on A4 paper.") == "pɹˈɪnt ɪt ˌɔn ˈA fˈɔɹ pˈApəɹ."
    assert said_by_the_built_in_voices("A 4 year plan") == "ɐ fˈɔɹ jˈɪɹ plˈæn."
