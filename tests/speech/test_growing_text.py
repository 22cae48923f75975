"""Text that arrives word by word, and the parts that it is spoken in."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from voices.compat.elevenlabs.track import Aligner
from voices.text.growing import MAX_PART, GrowingText, ends_sentence
from voices.text.sentences import finished

TEXT = "Hello there, Dr. Smith. It costs 3.5 dollars, they say, whatever that is worth to you! 你好。That was all."


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("Hello there. ", 12),
        ("Hello there.", 0),
        ("See Dr. ", 0),
        ("It is 3.", 0),
        ("你好。", 3),
        ("Really? No", 7),
        ("", 0),
    ],
)
def test_a_sentence_is_finished_when_nothing_can_go_on_with_it(text: str, whole: int) -> None:
    assert finished(text) == whole


def parts_of(growing: GrowingText, pieces: list[str], **options: Any) -> list[str]:
    found = []
    for piece in pieces:
        growing.add(piece, **options)
        found.append(growing.take())
    growing.flush()
    while part := growing.take():
        found.append(part)
    return [part for part in found if part]


@pytest.mark.parametrize("schedule", [(50,), (120, 160, 250, 290)])
@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("trigger", [False, True])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_nothing_is_lost_however_the_text_comes(
    schedule: tuple[int, ...], eager: bool, trigger: bool, size: int
) -> None:
    text = f"{TEXT} " * 3
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    growing = GrowingText(schedule, eager)
    assert "".join(parts_of(growing, pieces, trigger=trigger)) + growing._growing == text
    assert not growing._growing.strip()


def test_parts_end_with_sentences_and_a_hurried_one_with_a_clause() -> None:
    words = [f"{word} " for word in TEXT.split(" ")]
    assert [part.strip() for part in parts_of(GrowingText(), words, trigger=True)] == [
        "Hello there, Dr. Smith.",
        "It costs 3.5 dollars, they say, whatever that is worth to you!",
        "你好。",
        "That was all.",
    ]
    assert parts_of(GrowingText([50]), ["word " * 9 + "comma, ", "word " * 20], trigger=True)[0].endswith("comma,")
    # Without a sentence or a clause, after twice what it waits for.
    assert len(parts_of(GrowingText([50]), ["word "] * 100)[0]) == 100


def test_long_texts_are_given_out_in_parts_and_marks_alone_in_none() -> None:
    parts = parts_of(GrowingText(), ["This is it. " * 400])
    assert max(map(len, parts)) <= MAX_PART and all(ends_sentence(part) for part in parts)
    assert max(map(len, parts_of(GrowingText(), ["a" * 5000]))) <= MAX_PART
    marks = GrowingText()
    assert not parts_of(marks, ["... "] * 1000, trigger=True) and len(marks) <= MAX_PART
    assert parts_of(GrowingText(eager=True), ["... ", "- ", "No. "]) == ["... - No. "]


def test_phrases_that_have_waited_together_are_said_together_up_to_a_sentence() -> None:
    growing = GrowingText(eager=True)
    for phrase in ("One. ", "Two ", "and ", "three. ", "Four. "):
        growing.add(phrase)
    assert [growing.take() for _ in range(4)] == ["One. ", "Two and three. ", "Four. ", ""]


def test_an_alignment_covers_the_text_and_its_times_only_grow() -> None:
    aligner = Aligner(" Hello  there. \nHow are  you? ... ")
    # The engine's text has single spaces; times of the second message begin anew, behind a pause.
    first = aligner.align([("Hello there.", 0.0, 1.0)], 0.0)
    second = aligner.align([("How are you?", 1.0, 2.5)], 0.25)
    assert first and second
    assert "".join([*first["chars"], *second["chars"]]) == " Hello  there. \nHow are  you? ... "
    assert aligner.rest() is None
    for found, begin, end in ((first, 0, 1000), (second, 250, 1750)):
        starts, durations = found["charStartTimesMs"], found["charDurationsMs"]
        assert (starts[0], starts[-1] + durations[-1]) == (begin, end)
        assert all(after == before + lasts for (before, after), lasts in zip(pairwise(starts), durations, strict=False))
    # The engine has said other words, and fewer.
    aligner = Aligner("On 3 May of two thousand. ")
    assert "".join((aligner.align([("On third", 0.0, 1.0)], 0.0) or {})["chars"] + (aligner.rest() or {})["chars"]) == (
        "On 3 May of two thousand. "
    )
