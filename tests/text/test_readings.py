"""Texts of every kind, read as their written-out references say."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.text.references import LANGUAGES, is_right, later_references, references, said

# Its references have three third tones in a row as they are written, not as they are spoken.
MISREAD = {"一起走", "我得走了"}
# Of the strangers' texts: some are read otherwise on purpose (`www.`, the letters of CO2, a version beside one English
# word), the others are not known.
STRANGERS_MISREAD = {
    "CO2 levels hit 420 ppm.", "His time was 2:03:59.", "Input: 100–240 V~, 50/60 Hz", "88啦，明天早上7:05见",
    "网速才2M/s", "访问www.baidu.com", "他说：“你好！”然后走了。我没动。", "AC100V、50/60Hz", "日本2-1ドイツ",
    "Python 3.11.4", "www.yahoo.co.jpを見る",
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


def test_texts_of_a_stranger_are_read_but_for_a_few() -> None:
    found = later_references("strangers.tsv")
    assert len(found) > 300
    misread = {reference.text: said(reference) for reference in found if not is_right(reference)}
    assert set(misread) <= STRANGERS_MISREAD, misread
