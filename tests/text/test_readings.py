"""Texts of every kind, read as their written-out references say."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.text.references import LANGUAGES, heteronyms, is_right, later_references, polyphones, references, said

# Its references have three third tones in a row as they are written, not as they are spoken.
MISREAD = {"一起走", "我得走了"}
# Of the strangers' texts: some are read otherwise on purpose (`www.`, the letters of CO2, a version beside one English
# word), the others are not known.
STRANGERS_MISREAD = {
    "CO2 levels hit 420 ppm.", "访问www.baidu.com", "Python 3.11.4", "www.yahoo.co.jpを見る",
}  # fmt: skip
# Digits that are a code since another sentence has them so, or since they are counted.
VISITORS_MISREAD = {"Your code is 8 3 0 2. Again: 8302.", "(副歌)\n1234567，我的朋友在哪里"}

# Two numbers of a record, and a name that ends with a number in front of a floor.
NEWCOMERS_MISREAD = {
    "大谷翔平が54本塁打、59盗塁の「50-50」を達成。",
    "〒150-0041 東京都渋谷区神南1-19-11 パークウェースクエア2 4F",
}

# Readings that hang on more than what stands beside the character.
POLYPHONES_MISREAD = {
    "请把数数清楚，别数错了数字。", "天冷了要多穿衣，朝阳从东方升起，朝着太阳走。", "的确，目的地到了，打的去的。",
    "落叶落在地上，我把书落在家里了，他落枕了。", "把门扇关上，扇扇子。", "悄悄话，悄然无声。", "石头一石米。",
    "转身，转动，旋转，转盘。", "气温为5度，他为此很高兴，为什么呢？", "快把衣服晒干，干了再干活。",
    "倒车的时候别倒了。",
}  # fmt: skip

HETERONYMS_MISREAD = {
    "The pipes are made of lead.", "The bass player tuned up.", "Tear along the dotted line.",
    "He took a bow and left the stage.", "I object to that plan.",
}  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_are_read_as_a_careful_person_reads_them(language: str) -> None:
    found = references(language)
    kinds = Counter(reference.kind for reference in found)
    assert min(kinds.values()) >= 10
    assert len(kinds) >= 17
    misread = {reference.text: said(reference) for reference in found if not is_right(reference)}
    assert set(misread) <= MISREAD, misread


def test_texts_that_were_written_later_are_read_as_well() -> None:
    found = later_references()
    assert len(found) > 200
    assert not {reference.text: said(reference) for reference in found if not is_right(reference)}


@pytest.mark.parametrize(
    ("name", "least", "known"),
    [
        ("strangers.tsv", 300, STRANGERS_MISREAD),
        ("everyday.tsv", 120, set()),
        ("visitors.tsv", 149, VISITORS_MISREAD),
        ("guests.tsv", 119, set()),
        ("newcomers.tsv", 59, NEWCOMERS_MISREAD),
    ],
)
def test_texts_of_strangers_are_read_but_for_a_few(name: str, least: int, known: set[str]) -> None:
    found = later_references(name)
    assert len(found) > least
    misread = {reference.text: said(reference) for reference in found if not is_right(reference)}
    assert set(misread) <= known, misread


def test_characters_of_several_readings_are_read_as_their_neighbours_ask() -> None:
    found = polyphones()
    assert sum(len(wanted) for _, _, wanted in found) > 400
    misread = {}
    for text, found_here, wanted in found:
        for one, want in zip(found_here, wanted, strict=True):
            ways = want[1:].split("|")
            if one[1:] not in ways and one[1:] not in [f"{way[:-1]}2" for way in ways if way[-1] == "3"]:
                misread[text] = (found_here, wanted)
    assert set(misread) <= POLYPHONES_MISREAD, misread


def test_english_words_of_several_sounds_are_read_as_their_sentence_asks() -> None:
    found = heteronyms()
    assert len(found) - len(HETERONYMS_MISREAD) >= 10
    misread = {text: (sounds, wanted) for text, sounds, wanted in found if sounds != wanted}
    assert set(misread) <= HETERONYMS_MISREAD, misread
