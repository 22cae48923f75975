"""Languages by script, and the cutting of texts into sentences."""

from __future__ import annotations

import random
import re
import sys
import unicodedata

import pytest

from voices.text.languages import detect_language, has_speech
from voices.text.sentences import DEFAULT_MAX_CHARS, Sentence, split


def spoken_characters(text: str) -> str:
    """Letters, digits and ideographs, without those drawn as pictures and without marks of length and repetition."""
    plain = re.sub("[^\ufe0f\u20e3]\ufe0f?\u20e3|[^\ufe0f]\ufe0f", "", text)
    return "".join(char for char in plain if char.isalnum() and char not in "ー々")


def texts(text: str, language: str = "auto", **options: int) -> list[str]:
    return [sentence.text for sentence in split(text, language, **options)]


def pairs(text: str, language: str = "auto", **options: bool) -> list[tuple[str, str]]:
    return [(sentence.text, sentence.language) for sentence in split(text, language, **options)]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Hello there", "en"),
        ("Ça va très bien", "en"),
        ("你好世界", "zh"),
        ("こんにちは", "ja"),
        ("東京へ行く", "ja"),
        ("ﾊﾝｶｸ", "ja"),
        ("駅前", "ja"),  # the first character is written so in Japan alone
        ("안녕하세요", "ko"),
        ("Привет", "und"),
        ("12345", "en"),
        ("我用Python写代码", "zh"),
        ("See 猫 in the dictionary", "en"),
        ("这个の字是日文，但是其他的字都是中文，你看得出来吗", "zh"),
        ("", "en"),
    ],
)
def test_the_language_of_a_text_is_told_by_its_script(text: str, language: str) -> None:
    assert detect_language(text) == language


@pytest.mark.parametrize("text", ["a", "7", "你", "ア", "ｱ", "한", "①", "Ⅳ", "ｘ", "🎉 ok", "é", "½"])
def test_one_letter_digit_or_ideograph_is_speech(text: str) -> None:
    assert has_speech(text)


@pytest.mark.parametrize(
    "text",
    ["", " \n", "…！？", "👍🏽", "👨‍👩‍👧‍👦", "🇯🇵", "1️⃣", "ℹ️", "ー", "\u3164", "()", "$%&", "\u0301", "♪〜"],
)
def test_pictures_and_punctuation_are_not_speech(text: str) -> None:
    assert not has_speech(text)
    assert split(text) == []


def test_sentences_end_at_the_marks_of_every_script() -> None:
    assert texts("One. Two! Three? Four… five.\nSix") == ["One.", "Two!", "Three?", "Four… five.", "Six"]
    assert texts("一。二！三？四\n五") == ["一。", "二！", "三？", "四五"]
    assert texts("はい。いいえ！本当？うん｡") == ["はい。", "いいえ！", "本当？", "うん｡"]
    assert texts("The first half of it is here; and the second half is over there.") == [
        "The first half of it is here;",
        "and the second half is over there.",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Dr. Smith met Mrs. Jones.",
        "Pi is 3.14 and e is 2.72.",
        "Look at example.com for more.",
        "Fruit, e.g. apples, is good, i.e. healthy.",
        "The U.S. Army was there.",
        "J. S. Bach wrote it.",
        "It is 10:30 now.",
        "See http://example.com/a?b=c for it.",
        "No. 5 is alive.",
        "She said hello... then left.",
        "We wrapped this\nline here.",
        '"Really?" he said.',
        "「行く。」と言った。",
        "价格是3.14元。",
    ],
)
def test_full_stops_inside_a_sentence_do_not_end_it(text: str) -> None:
    assert texts(text) == [text.replace("\n", " ")]


def test_an_abbreviation_at_the_end_of_a_sentence_ends_it() -> None:
    assert texts("He left at 5 p.m. The rest stayed.") == ["He left at 5 p.m.", "The rest stayed."]
    assert texts("They live in the U.S. It is large.") == ["They live in the U.S.", "It is large."]


def test_quotes_and_brackets_stay_with_their_sentence() -> None:
    assert texts('"Go!" (He went.) “Fine.” Done.') == ['"Go!"', "(He went.)", "“Fine.”", "Done."]
    assert texts("他说：“好。”我走了。")[-1] == "我走了。"
    assert texts("他说：“你好！”然后走了。") == ["他说：“你好！”然后走了。"]


def test_a_list_keeps_its_numbers() -> None:
    assert texts("1. Apples\n2. Pears") == ["1. Apples", "2. Pears"]


def test_a_text_in_several_scripts_is_cut_into_runs() -> None:
    assert pairs("Hello world. 你好，世界。こんにちは、世界。안녕.") == [
        ("Hello world.", "en"),
        ("你好，世界。", "zh"),
        ("こんにちは、世界。", "ja"),
        ("안녕.", "ko"),
    ]
    assert pairs("The word 猫 means cat.") == [("The word", "en"), ("猫", "zh"), ("means cat.", "en")]


def test_han_is_japanese_where_kana_are_near_and_chinese_elsewhere() -> None:
    assert pairs("東京。昨日、行きました。") == [("東京。", "ja"), ("昨日、行きました。", "ja")]
    assert pairs("我们走吧。ありがとう。") == [("我们走吧。", "zh"), ("ありがとう。", "ja")]


def test_a_few_latin_words_and_all_digits_stay_in_a_chinese_or_japanese_sentence() -> None:
    assert pairs("我用Python写了3个程序。") == [("我用Python写了3个程序。", "zh")]
    assert pairs("Tシャツを2枚買った。") == [("Tシャツを2枚買った。", "ja")]


def test_a_longer_latin_passage_is_read_as_english() -> None:
    found = pairs("他说 the quick brown fox jumps 然后走了。", "zh")
    assert found == [("他说", "zh"), ("the quick brown fox jumps", "en"), ("然后走了。", "zh")]


def test_opening_marks_go_with_what_they_open() -> None:
    assert pairs("He said 「猫がいる」 twice today.") == [
        ("He said", "en"),
        ("「猫がいる」", "ja"),
        ("twice today.", "en"),
    ]


def test_a_fixed_language_decides_how_han_are_read() -> None:
    assert pairs("東京大学", "ja") == [("東京大学", "ja")]
    assert pairs("東京大学", "zh") == [("東京大学", "zh")]
    assert pairs("東京大学", "yue") == [("東京大学", "yue")]
    assert pairs("12", "ja") == [("12", "ja")]
    assert pairs("これはtestです", "zh")[0][1] == "ja"  # kana are not Chinese whatever is said


def test_long_sentences_are_cut_at_commas_then_at_spaces() -> None:
    text = "We came home late, had some soup, read a little, and went to bed without a word"
    pieces = texts(text, max_chars=40)
    assert all(len(piece) <= 40 for piece in pieces)
    assert all(piece.endswith(",") for piece in pieces[:-1])
    assert " ".join(pieces) == text
    assert all(piece in ("word " * 40) for piece in texts("word " * 40, max_chars=18))
    assert texts("it costs 1,234,567 dollars today", max_chars=20)[0] == "it costs 1,234,567"


def test_a_hard_cut_never_breaks_a_character() -> None:
    family, flag, accented = "👨‍👩‍👧", "🇯🇵", "e\u0301"
    for unit in (family, flag, accented, "👍🏽", "が\u3099", "きゃー"):
        pieces = texts("a" + unit * 60, max_chars=25)
        assert len(pieces) > 1 or not has_speech(unit)
        for piece in pieces:
            assert not unicodedata.combining(piece[0])
            assert piece[0] not in "\u200d\ufe0f🏽ゃー"
            flags = sum("\U0001f1e6" <= char <= "\U0001f1ff" for char in piece)
            assert flags % 2 == 0
            assert not piece.endswith("\u200d")


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("We came home late, had some soup, read a little, and went to bed before the others had even left.",
         "We came home late, had some soup, read a little,"),
        ("The old man in the harbour looked at the boats and he remembered how many there were in those years.",
         "The old man in the harbour looked at the boats"),
        ("It cost 1,250,000 dollars in those early years before anybody there had thought of it, or so they say.",
         "It cost 1,250,000 dollars in those early years before anybody there had thought of it,"),
        ("我们昨天晚上很晚才回家，喝了一点汤，看了一会儿书，然后就去睡觉了。", "我们昨天晚上很晚才回家，"),
        ("昨日の夜は遅く帰ってきて、スープを飲んで、少し本を読んでから寝ました。", "昨日の夜は遅く帰ってきて、"),
        # Not long, or with no clause that ends early: left whole.
        ("We came home late, had some soup, and went to bed.", "We came home late, had some soup, and went to bed."),
        ("One of the oldest stories of that long valley tells of a miller with three remarkably tall sons.",
         "One of the oldest stories of that long valley tells of a miller with three remarkably tall sons."),
    ],
)  # fmt: skip
def test_a_long_first_sentence_is_cut_at_a_clause_for_an_early_sound(text: str, first: str) -> None:
    second = "Later, when all of it was over, and the others had left the house, we told them, of course."
    pieces = texts(f"{text} {second}", early=True)
    assert pieces[0] == first
    assert pieces[-1] == second, "only the first sentence is cut"
    assert spoken_characters("".join(pieces)) == spoken_characters(text + second)
    assert texts(f"{text} {second}")[0] == text


def test_pieces_are_never_empty_and_never_too_long() -> None:
    for text in ("我" * 500, "あいうえお、" * 90, "word, " * 300, "x" * 1000):
        for sentence in split(text):
            assert has_speech(sentence.text)
            assert len(sentence.text) <= DEFAULT_MAX_CHARS[sentence.language]


def test_nothing_that_can_be_spoken_is_lost() -> None:
    alphabet = [
        *"aAzZéß09. .,;:!?…。！？；、，\n\t \"'“”「」（）()[]-—~$%@#/\\_&我们東京駅カなーッ々〇ﾊ한글Ж αß½①Ⅳ的",
        *"\u0301\u200d\ufe0f\u3000",
        *("👍🏽", "🇯🇵", "1️⃣", "Dr. ", "e.g. ", "U.S. ", "3.14", "1,000", "Hello ", "です。"),
    ]
    source = random.Random(7)
    for _ in range(400):
        text = "".join(source.choices(alphabet, k=source.randrange(1, 120)))
        language = source.choice(["auto", "en", "zh", "ja"])
        limit = source.choice([None, 1, 7, 40])
        for early in (True, False):
            pieces = split(text, language, max_chars=limit, early=early)
            said = "\n".join(piece.text for piece in pieces)
            assert spoken_characters(said) == spoken_characters(text)
            assert bool(pieces) == has_speech(text)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 5000,
        "我" * 5000,
        "." * 5000,
        "a." * 2500,
        "\n a" * 1666,
        "“" * 5000,
        "α " * 2500,
        "e\u0301" * 2500,
        "Dr. " * 1250,
    ],
)
def test_the_work_grows_in_proportion_to_the_text(text: str) -> None:
    def calls(part: str) -> int:
        count = 0

        def counted(frame: object, event: str, argument: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        sys.setprofile(counted)
        try:
            split(part)
        finally:
            sys.setprofile(None)
        return count

    split(text)  # fills the caches
    assert calls(text) < 6 * calls(text[: len(text) // 4]) + 1000


def test_bounds_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        split("a", max_chars=0)


def test_sentences_compare_by_value() -> None:
    assert split("Hi.") == [Sentence("Hi.", "en")]
