"""Markup, pauses and what is left out of a text."""

from __future__ import annotations

import time

import pytest

from voiceproject.errors import PublicError
from voices.text.languages import language_code
from voices.text.reading import read


def spoken(text: str, language: str = "en") -> list[str]:
    return [sentence.words for sentence in read(text, language).sentences]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('a <break time="100h"/> b', "<break> needs a time"),
        ('a <break time="11s"/> b', "<break> may last 10 seconds"),
        ("a " + '<break time="10s"/>' * 7, "60 seconds in all"),
        ('a <break strength="huge"/>', "<break> knows these strengths"),
        ("<prosody rate='slow'>a", "<prosody> is not closed"),
        ("a</prosody>", "</prosody> closes nothing"),
        ("<emphasis><prosody rate='fast'>a</emphasis></prosody>", "</emphasis> closes nothing inside <prosody>"),
        ("<prosody rate='900%'>a</prosody>", "<prosody> asks for a rate of 9.00"),
        ("<prosody pitch='high'>a</prosody>", "<prosody> can change the rate only, not: pitch"),
        ("<prosody rate='quick'>a</prosody>", "<prosody> needs a rate"),
        ("<emphasis level='huge'>a</emphasis>", "<emphasis> knows these levels"),
        ("<speak>" * 17 + "a" + "</speak>" * 17, "nested more than 16 deep"),
        ("<say-as>1</say-as>", "<say-as> needs interpret-as"),
        ("<say-as interpret-as='digits'>none</say-as>", "<say-as>: there are no digits"),
        ("<say-as interpret-as='ordinal'>x</say-as>", "<say-as>: it needs a whole number"),
        ("<say-as interpret-as='characters'>a<break/></say-as>", "<break> cannot stand inside <say-as>"),
        ("<sub>W3C</sub>", "<sub> needs an alias"),
        ("<phoneme>a</phoneme>", "<phoneme> needs ph"),
        ("<phoneme ph='x7'>a</phoneme>", "<phoneme>: no sign of the IPA that is known here: 7"),
        ("<phoneme alphabet='x-klingon' ph='a'>a</phoneme>", 'knows no alphabet "x-klingon"; it knows: ipa'),
        ("<phoneme alphabet='pinyin' ph='zhongguo'>中国</phoneme>", "its tones are missing"),
        ("<voice name='x'>a</voice> <voice name='y'>b</voice>", "<voice> cannot be followed"),
        ("<audio src='x'/> a", "<audio> cannot be followed"),
        ("<amazon:effect name='x'>a</amazon:effect>", "<amazon:effect> cannot be followed"),
    ],
)
def test_markup_that_cannot_be_followed_is_refused_by_its_name(text: str, named: str) -> None:
    with pytest.raises(PublicError) as refused:
        read(text, "en")
    assert refused.value.code == "validation_error"
    assert named in refused.value.details["text"][0]


def test_rates_and_pauses_are_kept_with_their_sentences() -> None:
    sentences = read(
        'One <break time="300ms"/><break time="0.2s"/> two <prosody rate="50%">three</prosody> four.', "en"
    ).sentences
    assert [(s.words, s.rate, s.pause_seconds, s.end) for s in sentences] == [
        ("One", 1.0, 0.5, "clause"),
        ("two", 1.0, 0.0, "none"),
        ("three", 0.5, 0.0, "none"),
        ("four.", 1.0, 0.0, "sentence"),
    ]


def test_headings_items_and_paragraphs_end_with_a_longer_pause() -> None:
    sentences = read("# News\nIt rained. A lot.\n\n- one\n- two", "en").sentences
    assert [(s.words, s.end) for s in sentences] == [
        ("News.", "paragraph"),
        ("It rained.", "sentence"),
        ("A lot.", "paragraph"),
        ("one.", "paragraph"),
        ("two", "clause"),
    ]


@pytest.mark.parametrize(
    ("text", "left_out"),
    [
        ("Hi 👍🏽 there", "thumbs up sign"),
        ("[sighs] Hello", "[sighs]"),
        ("Hello <cough> you", "<cough>"),
        ("Hello \x07 you", "U+0007"),
        ("abc \u202edef", "right-to-left override"),
        ("你好[笑]", "[笑]"),
        ("<speak><voice name='en-US-JennyNeural'>Hello</voice></speak>", "<voice>"),
    ],
)
def test_what_is_left_out_is_told(text: str, left_out: str) -> None:
    notices = read(text).notices
    assert [notice.code for notice in notices] == ["left_out"]
    assert left_out in notices[0].message


@pytest.mark.parametrize(
    "text", ["He [John] came.", "a [sic] word", "if a <b and c> d", "List<3", "1 < 2", "Dear [Name],"]
)
def test_what_only_looks_like_markup_is_read(text: str) -> None:
    reading = read(text, "en")
    letters = [char for char in text.lower() if char.isalpha()]
    said = iter(" ".join(sentence.words for sentence in reading.sentences).lower())
    assert all(letter in said for letter in letters)
    assert reading.notices == []


@pytest.mark.parametrize(
    ("names", "code"),
    [
        ("en EN en-US en_GB eng English ENGLISH 英语", "en"),
        ("zh zh-CN zh_TW zh-Hans cn cmn Chinese Mandarin 中文", "zh"),
        ("ja jp JA-JP japanese 日本語", "ja"),
        ("ko ko-KR kr Korean 한국어", "ko"),
        ("yue zh-HK cantonese 粤语", "yue"),
        ("auto AUTO detect", "auto"),
    ],
)
def test_languages_are_known_by_their_common_names(names: str, code: str) -> None:
    assert {language_code(name) for name in names.split()} == {code}


@pytest.mark.parametrize("name", ["de", "klingon", "", "e", "english!"])
def test_other_names_mean_no_language(name: str) -> None:
    assert language_code(name) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Hola, me llamo Ana y vivo en Madrid con mi familia.", "Spanish"),
        ("Bonjour tout le monde, comment allez-vous aujourd'hui ?", "French"),
        ("Das Wetter ist heute schön und wir gehen spazieren.", "German"),
        ("Oggi è una bella giornata e andiamo al mare insieme.", "Italian"),
        ("Xin chào các bạn, hôm nay trời đẹp quá.", "Vietnamese"),
        ("Dzień dobry, jak się pan dzisiaj czuje?", "Polish"),
        ("Добрый день, друзья.", "the Cyrillic alphabet"),
        ("नमस्ते दुनिया", "the Devanagari alphabet"),
    ],
)
def test_other_languages_are_refused_by_name(text: str, found: str) -> None:
    with pytest.raises(PublicError) as refused:
        read(text)
    assert refused.value.code == "unsupported_language"
    assert refused.value.details["found"] == [found]


@pytest.mark.parametrize(
    "text",
    ["OK Computer", "John Smith", "Naïve café owners met.", "NASA", "Qwen2.5 is good", "Dr. Smith met Mrs. Jones.",
     "Glue the sheet to the dark blue background.", "I like pizza.", "Mail jo.smith@example.org", "Hello there",
     "PIN 0042", "I use GPT-4", "USD 5", "5 km"],
)  # fmt: skip
def test_english_and_names_are_not_taken_for_another_language(text: str) -> None:
    assert read(text).languages == ["en"]


@pytest.mark.parametrize(
    "unit",
    ["1-", "1 ", "(", "[a ", "[a](", "*a", "<b ", "a.", "U.S. ", "a_", "½", "a\u200d", "http://a.b/", "&amp;", "AAAA ",
     "v1.1.1 ", "\n", "- ", '"a" ', "我a1", "あA1", "！”", "“好！”他", "1:23.45 ", "日本2-1", "①", "㎡", "<b><i>"],
)  # fmt: skip
def test_twice_the_text_takes_about_twice_the_time(unit: str) -> None:
    def seconds(length: int) -> float:
        text = (unit * length)[:length] + "a"
        taken = []
        for _ in range(2):
            begin = time.process_time()
            read(text, "en")
            taken.append(time.process_time() - begin)
        return min(taken)

    assert seconds(2800) < 9 * seconds(700) + 0.02  # four times as long; the square would be sixteen
