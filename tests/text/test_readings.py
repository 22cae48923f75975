"""Texts of every kind, read as their written-out references say."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.text.references import LANGUAGES, is_right, later_references, references, said

# Its references have three third tones in a row as they are written, not as they are spoken.
MISREAD = {"一起走", "我得走了"}


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
