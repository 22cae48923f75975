"""The International Phonetic Alphabet, as the built-in engine can say it. Pure Python.

English voices have the sounds of American English (misaki's letters for them); Kokoro, which speaks Chinese and
Japanese, also has many others. A sound that neither has is said as the nearest one.
"""

from __future__ import annotations

import re
import unicodedata

# Sounds as the English voices say them; the sounds behind the slash are not those of English, and only come near.
_TABLE = """
eɪ A, ɛɪ A, ei A, aɪ I, ɑɪ I, ai I, oʊ O, əʊ O, ou O, aʊ W, ɑʊ W, au W, ɔɪ Y, ɔi Y, oɪ Y, ɪə iə, eə ɛɹ, ʊə ʊɹ,
ɜːɹ ɜɹ, ɜɹ ɜɹ, ɜː ɜɹ, ɜ ɜɹ, ɝː ɜɹ, ɝ ɜɹ, ɚ əɹ, ɑː ɑ, ɑ ɑ, ɒ ɑ, æ æ, ʌ ʌ, ə ə, ɛː ɛ, ɛ ɛ, e ɛ, eː A, ɪ ɪ,
iː i, i i, ɔː ɔ, ɔ ɔ, ʊ ʊ, uː u, u u, o O, oː O, a ɑ, aː ɑ, ɐ ʌ, ᵻ ᵻ, ᵊ ᵊ,
tʃ ʧ, ʧ ʧ, dʒ ʤ, ʤ ʤ, ts ts, ʦ ts, dz dz, ʣ dz, b b, d d, f f, h h,
j j, k k, l l, m m, n n, p p, s s, t t, v v, w w, z z, ð ð, ŋ ŋ, ɡ ɡ, ɹ ɹ, r ɹ, ɾ T, ʃ ʃ, ʒ ʒ, θ θ, ʍ w, ɫ l /
y u, yː u, ʏ ʊ, ø ɜ, øː ɜɹ, œ ɜ, ɶ æ, ɯ u, ɯː u, ɨ ɪ, ʉ u, ɤ ʌ, ɘ ə, ɵ ə, ɞ ɜ, tɕ ʧ, ʨ ʧ, tʂ ʧ, ꭧ ʧ, dʑ ʤ, ʥ ʤ,
dʐ ʤ, x k, χ k, ɣ ɡ, ʁ ɹ, ʀ ɹ, ɲ nj, ʎ lj, c k, ɟ ɡ, ç h, ʝ j, ɕ ʃ, ʑ ʒ, ʂ ʃ, ʐ ʒ, ʈ t, ɖ d, ɳ n, ɭ l, ɽ T, ɻ ɹ, ɬ l,
ɮ l, ʋ v, β v, ɸ f, ɱ m, ɴ ŋ, q k, ɢ ɡ, ʔ ʔ, ɦ h, ħ h, ʕ ʔ, ɥ w, ɰ w, ɓ b, ɗ d, ɠ ɡ, ʙ b, ɺ T
"""
_OWN, _NEAR = (dict(pair.split() for pair in part.replace("\n", " ").split(",")) for part in _TABLE.strip().split("/"))
_ENGLISH = _OWN | _NEAR
_SOUND = re.compile("|".join(sorted(_ENGLISH, key=len, reverse=True)))

# What Kokoro says by other letters than those of the alphabet; what else its network knows, it is given as it is.
_KOKORO = {
    key: _OWN[key] for key in ("eɪ", "aɪ", "oʊ", "əʊ", "aʊ", "ɔɪ", "tʃ", "dʒ", "ɜː", "ɜ", "ɝ", "ɝː", "ɚ")
} | {"ts": "ʦ", "dz": "ʣ", "tɕ": "ʨ", "dʑ": "ʥ", "tʂ": "ꭧ", "r": "ɹ"}  # fmt: skip
_KOKORO_KNOWS = frozenset("abcdefhijklmnopqrstuvwxyzɑɐɒæβɔɕçɖðəɛɟɡɥɨɪʝɯɰŋɳɲɴøɸθœɹɾɻʁɽʂʃʈʊʋʌɣɤχʎʒʔʣʥʦʨꭧʤʧᵻᵊː")
_TONES = (("˧˥", "↗"), ("˨˩˦", "↓"), ("˨˩", "↓"), ("˥˩", "↘"), ("˥˥", "→"), ("˥", "→"))

_WRITTEN_OTHERWISE = str.maketrans({
    "g": "ɡ", ":": "ː", "'": "ˈ", "’": "ˈ", "ʹ": "ˈ", "ε": "ɛ", "∫": "ʃ", "ı": "ɪ", "ɩ": "ɪ", "ɷ": "ʊ", "ˑ": "ː",
    "|": " ", "‖": " ", "\u035c": None, "\u0361": None, "‿": None, "(": None, ")": None,
})  # fmt: skip
# Details that no voice here makes: aspiration, palatalisation, nasal vowels and others.
_DETAILS = re.compile("[ʰʲʷˠˤⁿˡʱ˭↗↘↑↓→ꜛꜜ\u0300-\u0328\u032a-\u036f]")
_TONE_LETTERS = re.compile("[˥˦˧˨˩]+")
_SYLLABIC = re.compile("([lmnɹrŋ])\u0329")
_VOWELS = "AIOQWYaeiouyæɑɐɒɔəɛɜɪʊʌᵻɨɯøœɤ"
_STRESSED = re.compile(f"([ˈˌ])([^ˈˌ{_VOWELS} ]*)(?=[{_VOWELS}])")


def clean(ipa: str) -> str:
    """The transcription without brackets, in the letters of the tables here.

    Raises ValueError, which names what is no sign of the alphabet, and where there is no sound in it.
    """
    text = unicodedata.normalize("NFD", ipa.strip().strip("/[]").strip()).replace("c\u0327", "ç")
    text = _SYLLABIC.sub(r"ᵊ\1", text.translate(_WRITTEN_OTHERWISE))
    text = " ".join(_DETAILS.sub("", text.replace("\u02de", "ɹ").replace("-", ".")).split())
    left = re.sub("[ˈˌː. ]", "", _TONE_LETTERS.sub("", _SOUND.sub("", text)))
    if left:
        raise ValueError(f"no sign of the IPA that is known here: {' '.join(dict.fromkeys(left))}")
    if not _SOUND.search(text):
        raise ValueError("there is no sound in it")
    return text


def approximated(cleaned: str) -> dict[str, str]:
    """Sounds that no English voice has, and what is said for each."""
    return {sound: _NEAR[sound] for sound in _SOUND.findall(cleaned) if sound in _NEAR and _NEAR[sound] != sound}


def english(cleaned: str) -> str:
    """In misaki's letters for American English, stress before the vowel, as hibari's network takes them."""
    said = _SOUND.sub(lambda m: _ENGLISH[m[0]], _TONE_LETTERS.sub("", cleaned))
    return _stressed(said.replace("ː", "").replace(".", ""))


def kokoro(cleaned: str) -> str:
    """In the letters of Kokoro's network."""
    for tone, arrow in _TONES:
        cleaned = cleaned.replace(tone, arrow)

    def sound(match: re.Match[str]) -> str:
        written = match[0]
        if written in _KOKORO:
            return _KOKORO[written]
        return written if set(written) <= _KOKORO_KNOWS else _ENGLISH[written]

    return _restressed(_TONE_LETTERS.sub("", _SOUND.sub(sound, cleaned)).replace(".", ""))


def _restressed(said: str) -> str:
    return _STRESSED.sub(r"\2\1", said)


def _stressed(said: str) -> str:
    """With one stress at least: a word without any is said like an article."""
    if "ˈ" not in said and "ˌ" not in said:
        said = f"ˈ{said}"
    return _restressed(said)
