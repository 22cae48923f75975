"""How Japanese and Chinese texts are read, and what their voices sound like, converted and not."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.support.recordings import speech
from voiceproject.errors import PublicError
from voices.engines.builtin.base_voices import PRECOMPUTED, base_file
from voices.engines.builtin.languages import chinese, japanese, kokoro
from voices.engines.builtin.synthesizer import Synthesizer
from voices.engines.builtin.world import Float32
from voices.text.reading import read
from voices.text.words import numbers

JAPANESE = "今日はとても良い天気ですね。"
CHINESE = "今天的天气非常好。"


def joined(phonemes: str) -> str:
    return phonemes.replace(" ", "")


def words_of(text: str, language: str) -> str:
    return "".join(sentence.words for sentence in read(text, language).sentences)


# --- readings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("2026年3月5日", "ニセンニジューロクネンサンガツイツカ"),
        ("2026-03-05", "ニセンニジューロクネンサンガツイツカ"),
        ("10:30", "ジュージサンジュップン"),
        ("1,234円", "センニヒャクサンジューヨエン"),
        ("¥500", "ゴヒャクエン"),
        ("50%", "ゴジュッパーセント"),
        ("3.14", "サンテンイチヨン"),
        ("1/2", "ニブンノイチ"),
        ("-5℃", "マイナスゴド"),
        ("20m²", "ニジューヘーホーメートル"),
        ("5~6人", "ゴカラロクニン"),
        ("090-1234-5678", "ゼロキューゼロノイチニーサンヨンノゴーロクナナハチ"),
        ("3+4=7", "サンプラスヨンイコールナナ"),
        ("三本と六本", "サンボントロッポン"),
        ("二時間十五分", "ニジカンジューゴフン"),
        ("ﾊﾝｶｸｶﾅ", "ハンカクカナ"),
        ("ＡＢＣ", "エイビーシー"),
        ("Python", "パイソン"),
        ("x と β", "エックストベータ"),
        ("①番", "イチバン"),
        ("東京へ", "トーキョーエ"),
        ("ありがとう😀ございます", "アリガトーゴザイマス"),
    ],
)
def test_japanese_text_is_read_as_it_is_said(text: str, reading: str) -> None:
    assert joined(japanese.phonemes(words_of(text, "ja"))).strip(".") == japanese.sounds(reading)


def test_kana_become_the_sounds_of_their_surroundings() -> None:
    assert japanese.sounds("サンポ") == "sampo"
    assert japanese.sounds("サンカ") == "saŋka"
    assert japanese.sounds("ホン", "オ") == "hoɴ"
    assert japanese.sounds("キョー") == "kʲoː"
    assert japanese.sounds("ガッコー") == "ɡaʔkoː"
    assert japanese.sounds("アッ") == "a"
    assert japanese.sounds("ティ") == "tʲi"


def test_japanese_marks_become_pauses_once() -> None:
    assert japanese.phonemes("はい、、そう！？").count(",") == 1
    assert japanese.phonemes("はい。").endswith("hai.")
    assert japanese.phonemes("え？").endswith("?")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2026年3月5日", "二零二六年三月五日"),
        ("2026-03-05", "二零二六年三月五日"),
        ("10:05", "十点零五分"),
        ("2:30", "两点三十分"),
        ("12.5%", "百分之十二点五"),
        ("¥1,234.50", "一千二百三十四点五零元"),
        ("-3.5℃", "负三点五摄氏度"),
        ("2个", "两个"),
        ("第2名", "第二名"),
        ("20000人", "两万人"),
        ("3/4", "四分之三"),
        ("3~5天", "三到五天"),
        ("13812345678", "一三八一二三四五六七八"),
        ("5km", "五公里"),
        ("50㎡", "五十平方米"),
        ("3+5=8", "三加五等于八"),
        ("比分3:2", "比分三比二"),
        ("銀行", "银行"),
        ("１２", "十二"),
    ],
)
def test_chinese_numbers_and_signs_are_written_out(text: str, said: str) -> None:
    assert words_of(text, "zh") == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "零"),
        (10, "十"),
        (15, "十五"),
        (101, "一百零一"),
        (110, "一百一十"),
        (1010, "一千零一十"),
        (10203, "一万零二百零三"),
        (100000, "十万"),
        (1000001, "一百万零一"),
        (120000000, "一亿二千万"),
        (10000200003, "一百亿零二十万零三"),
    ],
)
def test_chinese_cardinals(value: int, said: str) -> None:
    assert numbers.cardinal(value, "zh") == said


@pytest.mark.parametrize(
    ("text", "syllables"),
    [
        ("你好", "ni2 hao3"),
        ("我很好", "wo2 hen2 hao3"),
        ("不是", "bu2 shi4"),
        ("不好", "bu4 hao3"),
        ("好不好", "hao3 bu5 hao3"),
        ("一个", "yi2 ge4"),
        ("一天", "yi4 tian1"),
        ("一起", "yi4 qi3"),
        ("第一", "di4 yi1"),
        ("一月一日", "yi1 yue4 yi1 ri4"),
        ("一日三餐", "yi2 ri4 san1 can1"),
        ("看一看", "kan4 yi5 kan4"),
        ("花儿", "hua1 r"),
        ("女儿", "nv3 er2"),
        ("银行行长", "yin2 hang2 hang2 zhang3"),
        ("重复重要", "chong2 fu4 zhong4 yao4"),
        ("音乐快乐", "yin1 yue4 kuai4 le4"),
        ("长大很长", "zhang3 da4 hen3 chang2"),
        ("跑得快", "pao3 de5 kuai4"),
        ("得到", "de2 dao4"),
        ("我还没还钱", "wo3 hai2 mei2 huan2 qian2"),
        ("三只猫", "san1 zhi1 mao1"),
    ],
)
def test_chinese_polyphones_and_tones_follow_their_context(text: str, syllables: str) -> None:
    assert [syllable for word in chinese.syllables(text) for syllable in word] == syllables.split()


def test_syllables_become_initials_finals_and_tones() -> None:
    assert chinese.sounds("zhong1") == "ꭧʊ→ŋ"
    assert chinese.sounds("shi4") == "ʂɻ↘"
    assert chinese.sounds("yuan2") == "ɥɛ↗n"
    assert chinese.sounds("nv3") == "ny↓"
    assert chinese.sounds("jiu3") == "ʨjou↓"
    assert chinese.sounds("de5") == "tɤ"


def test_traditional_and_simplified_characters_sound_alike() -> None:
    assert chinese.phonemes(words_of("我在銀行聽音樂。", "zh")) == chinese.phonemes("我在银行听音乐。")


def test_latin_words_are_spoken_inside_both_languages() -> None:
    assert len(chinese.phonemes("我用Python写代码。")) > len(chinese.phonemes("我用写代码。")) + 4
    assert len(japanese.phonemes("Pythonで書く。")) > len(japanese.phonemes("で書く。")) + 4


@pytest.mark.parametrize("module", [japanese, chinese])
@pytest.mark.parametrize("text", ["", "！？…", "😀👍", "♪"])
def test_a_text_with_nothing_to_say_is_refused(module: ModuleType, text: str) -> None:
    with pytest.raises(PublicError) as refused:
        module.phonemes(text)
    assert refused.value.code == "validation_error"


@pytest.mark.parametrize("module", [japanese, chinese])
def test_every_sound_is_in_the_networks_alphabet(module: ModuleType) -> None:
    known = kokoro.network().alphabet
    for sentence in module.CALIBRATION:
        assert set(module.phonemes(sentence)) <= known


def test_long_phonemes_are_cut_at_marks_then_spaces() -> None:
    text = "kono ɸɯneː, " * 10 + "a" * 50
    pieces = kokoro.cut(text, 40)
    assert all(len(piece) <= 40 for piece in pieces)
    assert joined("".join(pieces)) == joined(text)
    assert pieces[0].endswith(",")


# --- voices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [japanese, chinese])
def test_the_package_carries_the_features_of_its_voices(module: ModuleType) -> None:
    # Else whoever speaks first waits for most of a minute.
    for name in {*module.NAMES, *module.SOURCES}:
        assert (PRECOMPUTED / base_file(module.load(name))).exists(), "run python -m bench.engines.bases"


def said(
    module: ModuleType, text: str, voice: int = 0, speed: float = 1.0, seed: int = 3, temperature: float = 0.7
) -> Float32:
    samples, rate = module.load(module.NAMES[voice]).speak(text, speed, np.random.default_rng(seed), temperature)
    assert rate == kokoro.SAMPLE_RATE
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    return samples


def seconds(samples: Float32) -> float:
    return len(samples) / kokoro.SAMPLE_RATE


@pytest.mark.parametrize(
    ("module", "text", "low", "high"), [(japanese, JAPANESE, 1.3, 3.6), (chinese, CHINESE, 1.2, 3.4)]
)
def test_a_sentence_takes_as_long_as_a_person_would(module: ModuleType, text: str, low: float, high: float) -> None:
    samples = said(module, text)
    assert low < seconds(samples) < high
    assert 0.01 < np.sqrt(np.mean(samples**2)) < 0.3
    assert np.abs(samples).max() <= 1


def test_there_is_a_high_and_a_low_voice() -> None:
    pitches = {name: speech.pitch(said(japanese, "こんにちは。", voice)) for voice, name in enumerate(japanese.NAMES)}
    assert pitches["ja_alpha"] > 1.4 * pitches["ja_kumo"]
    assert 80 < pitches["ja_kumo"] < 160


def test_chance_and_speed_are_real_and_repeatable() -> None:
    first = said(chinese, CHINESE)
    np.testing.assert_array_equal(first, said(chinese, CHINESE))
    other = said(chinese, CHINESE, seed=4)
    assert len(other) != len(first) or not np.array_equal(other, first)
    fast = said(chinese, CHINESE, speed=1.8)
    assert 0.45 < seconds(fast) / seconds(first) < 0.72


@pytest.fixture(scope="module")
def synthesizer(tmp_path_factory: pytest.TempPathFactory) -> Synthesizer:
    return Synthesizer(Path(tmp_path_factory.mktemp("bases")))


@pytest.mark.parametrize(("language", "text"), [("ja", JAPANESE), ("zh", CHINESE)])
def test_a_sentence_is_said_at_the_references_pitch(synthesizer: Synthesizer, language: str, text: str) -> None:
    module = {"ja": japanese, "zh": chinese}[language]
    profile = synthesizer.prepare(speech.MAN.reference())
    piece = synthesizer.speak(text, language, profile, seed=1)
    assert piece.sample_rate == 24000
    aim = speech.pitch(speech.MAN.reference().samples)
    assert abs(12 * np.log2(speech.pitch(piece.samples) / aim)) < 2
    base = synthesizer.choose_base(language, profile).voice
    assert base.name == module.NAMES[1]
    plain = said(module, text, module.NAMES.index(base.name))
    assert abs(len(piece.samples) / len(plain) - 1) < 0.2
    # Nearer to the reference's spectrum than the base voice's own speech is.
    wanted = speech.log_mel(speech.MAN.reference().samples).mean(axis=0)
    distances = [
        np.sqrt(np.mean((shape - shape.mean() - wanted + wanted.mean()) ** 2))
        for shape in (speech.log_mel(x).mean(axis=0) for x in (piece.samples, plain))
    ]
    assert distances[0] < 0.8 * distances[1]
