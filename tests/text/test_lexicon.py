"""Texts read by a lexicon, and words said in the letters of an alphabet."""

from __future__ import annotations

import time

import pytest

from voiceproject.errors import PublicError
from voices.engines.builtin.languages import chinese, english, japanese
from voices.engines.gptsovits import languages as gptsovits
from voices.text import ipa, reading
from voices.text.lexicon import Entry, Lexicon
from voices.text.pronunciation import pronounced, shown
from voices.text.reading import occurring, read

NAMES = Lexicon(
    [
        Entry("US", "you ess", case_sensitive=True),
        Entry("SQL", "sequel"),
        Entry("tomato", "təˈmɑːtəʊ", "ipa"),
        Entry("Qwen", "kwɛn", "ipa"),
        Entry("重庆", "chong2 qing4", "pinyin"),
        Entry("日本橋", "にほんばし", "kana"),
        Entry("TOEIC試験", "とーいっくしけん", "kana"),
        Entry("Dr. No", "Doctor No"),
        Entry("Yahoo!", "yah hoo"),
        Entry("New York", "the big apple"),
        Entry("York", "Yorkshire"),
        Entry("C++", "see plus plus"),
        Entry("10⁴", "ten to the fourth"),
        Entry("A", "B"),
        Entry("B", "A"),
        Entry("銀行", "ぎんこう", "kana"),
        Entry("行", "hang2", "pinyin"),
        Entry("bank", "institute", language="en"),
        Entry("3D", "three dee"),
        Entry("uv", "ultraviolet", whole_word=False),
        Entry("서울", "수도"),
    ]
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SQL and sql's MySQL.", ["sequel and sequel's MySQL."]),
        ("Tell us, US!", ["Tell us, you ess!"]),
        ("I met Dr. No in New\nYork. York is old.", ["I met Doctor No in the big apple.", "Yorkshire is old."]),
        ("I use C++11, not C++.", ["I use see plus plus eleven, not see plus plus."]),
        ("Qwen-2.5 has 5 kg of tomatoes.", ["/kwɛn/ two point five has five kilograms of tomatoes."]),
        ("One tomato's 3D.", ["One /təˈmɑːtəʊ/'s three dee."]),
        ("A B A", ["B A B"]),
        ("**New** York", ["the big apple"]),
        ("10⁴ of them", ["ten to the fourth of them"]),
        ("Yahoo! is there.", ["yah hoo is there."]),
        ("重庆3号线，银行在这里。", ["/chong2 qing4/三号线，银/hang2/在这里。"]),
        ("日本橋でTOEIC試験を受ける。", ["ニホンバシでトーイックシケンを受ける。"]),
        ("銀行へ行く。", ["ギンコウへ行く。"]),
        ("我的bank在重庆。", ["我的bank在/chong2 qing4/。"]),
        ("antiuvs", ["antiultraviolets"]),
        ("Buy &amp; 3D", ["Buy and three dee"]),
        ("https://tomato.com/x?q=tomato", ["/təˈmɑːtəʊ/ dot com slash x"]),
        ("York", ["Yorkshire"]),
    ],
)
def test_a_lexicon_comes_before_every_other_rule(text: str, words: list[str]) -> None:
    found = read(text, lexicon=NAMES)
    assert [shown(sentence.words) for sentence in found.sentences] == words
    # The entries that occur are all that a text needs.
    assert read(text, lexicon=occurring(text, [NAMES])) == found
    letters = "".join(sentence.text for sentence in found.sentences).replace(" ", "")
    plain = text.replace("\n", "").replace(" ", "").replace("**", "").replace("&amp;", "&").replace("⁴", "^4")
    assert letters == plain


BESIDE = Lexicon(
    [
        Entry("Henry", "Hen ree"),
        Entry("Louis", "ˈlui", "ipa"),
        Entry("World War", "the great war"),
        Entry("Chapter", "Section"),
        Entry("PIN", "pinn"),
        Entry("flight", "ˈflaɪt", "ipa"),
        Entry("James", "jaymes"),
        Entry("May", "mae"),
        Entry("kilos", "kilograms of it"),
        Entry("two", "tu"),
        Entry("房间", "fang2 jian1", "pinyin"),
        Entry("尾号", "末尾"),
        Entry("部屋", "へや", "kana"),
        Entry("暗証番号", "ばんごう", "kana"),
        Entry("エリザベス", "リズ"),
    ]
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Henry II met Louis XIV.", "Hen ree the second met /ˈlui/ the fourteenth."),
        ("After World War II, Chapter IX.", "After the great war two, Section nine."),
        ("My PIN 1234 and flight 305.", "My pinn one two three four and /ˈflaɪt/ three zero five."),
        ("St. James was here on May 5.", "Saint jaymes was here on mae fifth."),
        ("I have 2, or two.", "I have two, or tu."),
        ("房间1208在二楼", "/fang2 jian1/一二零八在二楼"),
        ("尾号8866", "末尾八八六六"),
        ("部屋305です", "ヘヤサンゼロゴーです"),
        ("暗証番号は1234です", "バンゴウはイチニーサンヨンです"),
        ("エリザベスII世", "リズ二世"),
    ],
)
def test_a_word_of_a_lexicon_still_says_how_its_neighbour_is_read(text: str, words: str) -> None:
    assert shown(read(text, lexicon=BESIDE).sentences[0].words) == words


SHORT = Lexicon(
    [
        Entry("Dr", "doc", language="en"), Entry("Dr", "大夫", language="zh"), Entry("Dr", "先生", language="ja"),
        Entry("Inc", "Ink"),
        Entry("vs", "against"), Entry("Prof", "ˈpɹɑf", "ipa"), Entry("approx", "roughly"), Entry("Fig", "picture"),
        Entry("St", "holy"), Entry("Acme", "Ackmee"), Entry("Gen", "general chief"), Entry("etc", "and more"),
    ]
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Dr. Smith came.", ["doc Smith came."]),
        ("I saw the Dr.", ["I saw the doc."]),
        ("Acme Inc. was sold.", ["Ackmee Ink was sold."]),
        ("It is cats vs. dogs.", ["It is cats against dogs."]),
        ("Ask Prof. Lee.", ["Ask /ˈpɹɑf/ Lee."]),
        ("It is approx. 5 km.", ["It is roughly five kilometers."]),
        ("See Fig. 3.", ["See picture three."]),
        ("St. James and Dr. No", ["holy James and doc No"]),
        ("Gen. Lee, Dr. King, etc. came.", ["general chief Lee, doc King, and more came."]),
        ("Dr... who?", ["doc... who?"]),
        ("Buy Acme. It is good.", ["Buy Ackmee.", "It is good."]),
        ("Dr.王来了。", ["大夫王来了。"]),
        ("Dr.スミスです。", ["先生スミスです。"]),
    ],
)
def test_the_full_stop_of_an_abbreviation_goes_with_its_word(text: str, words: list[str]) -> None:
    assert [shown(sentence.words) for sentence in read(text, lexicon=SHORT).sentences] == words


def test_korean_particles_do_not_hide_a_word() -> None:
    spoken = ("en", "ko")
    assert [one.words for one in read("서울에서 왔다", spoken=spoken, lexicon=NAMES).sentences] == ["수도에서 왔다"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<phoneme ph='pʰɪˈkɑːn'>pecan</phoneme> pie", ["/pɪˈkɑːn/ pie"]),
        ("A <phoneme alphabet='x-cmu' ph='T OW1'>toe</phoneme>.", ["A /tˈoʊ/."]),
        ("<phoneme alphabet='pinyin' ph='xī ān'>Xi'an</phoneme> is old.", ["/xi1 an1/", "is old."]),
        ("我在<phoneme alphabet='x-amazon-pinyin' ph='hang2'>行</phoneme>里。", ["我在/hang2/里。"]),
        ("<phoneme alphabet='kana' ph='あした'>明日</phoneme>は晴れ。", ["アシタは晴れ。"]),
        ("<phoneme ph='ˈtɒm'/> came.", ["/ˈtɒm/ came."]),
        ("&#983040; here", ["here"]),
    ],
)
def test_phoneme_tags_say_their_content_in_letters(text: str, words: list[str]) -> None:
    found = read(text)
    assert [shown(sentence.words) for sentence in found.sentences] == words
    assert [notice for notice in found.notices if notice.code == "pronunciation"] == []


def test_an_engine_without_letters_reads_the_word_and_says_so() -> None:
    text = "<phoneme ph='pɪˈkɑːn'>pecan</phoneme> pie, SQL, tomato."
    found = read(text, lexicon=NAMES, letters=())
    assert found.sentences[0].words == "pecan pie, sequel, tomato."
    assert [notice.code for notice in found.notices] == ["pronunciation"]
    assert '"pecan"' in found.notices[0].message or '"tomato"' in found.notices[0].message
    assert read("日本橋です。", lexicon=NAMES, letters=()).sentences[0].words == "ニホンバシです。"


def test_gptsovits_gets_words_alone() -> None:
    reading = gptsovits.check("Tomato, SQL.", "en", None, "auto", None, lexicon=NAMES)
    assert reading.sentences[0].words == "Tomato, sequel."
    assert [notice.code for notice in reading.notices] == ["pronunciation"]


def test_letters_reach_the_phonemes_of_each_language() -> None:
    def words(text: str) -> str:
        return read(text, lexicon=NAMES).sentences[0].words

    assert english.phonemes()(words("A tomato."))[0].split()[1] == "təmˈɑtO."
    assert english.phonemes()(words("Qwen's here."))[0].startswith("kwˈɛnz ")
    assert chinese.phonemes(words("重庆人")) == "ꭧʰʊ↗ŋʨʰi↘ŋ ɻə↗n."
    assert chinese.phonemes(words("重庆人很喜欢吃tomato。")).endswith("təmˈɑːtO.")
    assert japanese.phonemes(words("日本橋は東京です。")).startswith("ɲihombaɕi βa ")
    said = read("<phoneme ph='ˈtɑːɹoʊ'>太郎</phoneme>は行った。", "ja").sentences[0].words
    assert japanese.phonemes(said).startswith("tˈɑːɹO βa ")  # the particle is read behind a noun


@pytest.mark.parametrize(
    ("written", "letters"),
    [
        ("chóngqìng", "chong2 qing4"), ("chong2qing4", "chong2 qing4"), ("lǜ sè", "lv4 se4"), ("nu:3 hai2", "nv3 hai2"),
        ("xī'ān", "xi1 an1"), ("xian1", "xian1"), ("wanr2", "wan2 r"), ("péngyou", "peng2 you5"), ("ZHONG1", "zhong1"),
        ("de5", "de5"), ("de", "de5"),
    ],
)  # fmt: skip
def test_pinyin_is_known_in_all_its_spellings(written: str, letters: str) -> None:
    assert pronounced("x", "pinyin", written).letters == letters


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("/ˈdʒɛɹi/", "ʤˈɛɹi"), ("kæt", "kˈæt"), ("ˈziː", "zˈi"), ("ˈn\u0361iː.ə", "nˈiə"), ("ˈbʌtn̩", "bˈʌtᵊn"),
        ("ˈstɹɛŋθs", "stɹˈɛŋθs"), ("tɕja", "ʧjˈɑ"), ("nuː jɔːk", "nˈu jɔk"),
    ],
)  # fmt: skip
def test_the_ipa_is_said_in_english_sounds(written: str, said: str) -> None:
    assert ipa.english(ipa.clean(written)) == said


def test_what_a_lexicon_makes_too_long_is_refused_or_cut() -> None:
    longer = Lexicon([Entry("a", "word " * 39)])
    found = read("a, " * 20, "en", lexicon=longer).sentences
    assert max(len(sentence.words) for sentence in found) < 450
    assert "".join(sentence.text for sentence in found).count("a") == 20
    with pytest.raises(PublicError) as refused:
        read("a " * 2400, "en", lexicon=longer)
    assert f"more than {reading.MAX_GROWN} characters" in refused.value.details["text"][0]


@pytest.mark.parametrize("unit", ["a ", "我", "aa a ", "あ", "a.b ", "1 "])
def test_a_lexicon_of_ten_thousand_nasty_entries_costs_little(unit: str) -> None:
    words = {(unit * 100)[:length].strip() for length in range(1, 101)} | {f"{unit}{number}" for number in range(9_900)}
    lexicon = Lexicon(Entry(word, "x") for word in sorted(words))
    begin = time.process_time()
    read((unit * 5000)[:5000], "auto", ("en", "zh", "ja"), lexicon=lexicon)
    assert time.process_time() - begin < 1.0  # .25 s on an ordinary machine that does nothing else
