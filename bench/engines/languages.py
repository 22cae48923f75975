"""Japanese and Chinese: the phones that a recogniser hears against those of the text, likeness and speed.

The recogniser is `hama` 1.7 (a small CTC network over many languages). What it hears and what was to be said are
both reduced to eleven broad classes, because it writes down neither language's own sounds; the control scores the same
audio against other sentences, which shows what the number is worth.
"""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.engines import corpus, scorers
from voices.engines.builtin import world
from voices.engines.builtin.languages import chinese, japanese
from voices.engines.builtin.synthesizer import Synthesizer
from voices.engines.interface import Reference

BARS = {"ja": 0.33, "zh": 0.42}
GROUP = 2  # sentences that DistillMOS hears together: about ten seconds

# Sentences and their readings: katakana as pronounced, and pinyin with the tones left out.
SENTENCES: dict[str, list[tuple[str, str]]] = {
    "ja": [
        ("吾輩は猫である。名前はまだ無い。", "ワガハイワネコデアルナマエワマダナイ"),
        (
            "今日は朝から雨が降っているので、傘を持って出かけました。",
            "キョーワアサカラアメガフッテイルノデカサオモッテデカケマシタ",
        ),
        (
            "東京駅から京都まで、新幹線で二時間十五分ほどかかります。",
            "トーキョーエキカラキョートマデシンカンセンデニジカンジューゴフンホドカカリマス",
        ),
        (
            "この料理はとても美味しいですね。作り方を教えてください。",
            "コノリョーリワトテモオイシーデスネツクリカタオオシエテクダサイ",
        ),
        (
            "図書館で借りた本を、来週の月曜日までに返さなければならない。",
            "トショカンデカリタホンオライシューノゲツヨービマデニカエサナケレバナラナイ",
        ),
        (
            "彼女は大学で音楽を勉強して、今は小学校の先生をしている。",
            "カノジョワダイガクデオンガクオベンキョーシテイマワショーガッコーノセンセーオシテイル",
        ),
        (
            "りんごを三個、牛乳を一本、パンを二つ買ってきてください。",
            "リンゴオサンコギューニューオイッポンパンオフタツカッテキテクダサイ",
        ),
        ("窓を開けると、冷たい風が部屋の中に入ってきた。", "マドオアケルトツメタイカゼガヘヤノナカニハイッテキタ"),
        (
            "電車が遅れたため、会議に十分ほど遅刻してしまいました。",
            "デンシャガオクレタタメカイギニジュップンホドチコクシテシマイマシタ",
        ),
        (
            "山の上から見る夕日は、言葉にできないほど綺麗だった。",
            "ヤマノウエカラミルユーヒワコトバニデキナイホドキレーダッタ",
        ),
    ],
    "zh": [
        ("今天天气很好，我们去公园散步吧。", "jin tian tian qi hen hao wo men qu gong yuan san bu ba"),
        ("他昨天在图书馆借了三本书。", "ta zuo tian zai tu shu guan jie le san ben shu"),
        ("请问，去火车站应该坐几路公共汽车？", "qing wen qu huo che zhan ying gai zuo ji lu gong gong qi che"),
        ("这家餐厅的菜又便宜又好吃。", "zhe jia can ting de cai you pian yi you hao chi"),
        ("银行的行长说，音乐让他很快乐。", "yin hang de hang zhang shuo yin yue rang ta hen kuai le"),
        ("妹妹喜欢吃苹果，弟弟喜欢吃葡萄。", "mei mei xi huan chi ping guo di di xi huan chi pu tao"),
        ("二零二六年三月五日，北京下了一场大雪。", "er ling er liu nian san yue wu ri bei jing xia le yi chang da xue"),
        ("老师要求我们每天用中文写一篇日记。", "lao shi yao qiu wo men mei tian yong zhong wen xie yi pian ri ji"),
        ("窗外的风很大，树叶都落下来了。", "chuang wai de feng hen da shu ye dou luo xia lai le"),
        ("我的朋友明年打算到上海工作。", "wo de peng you ming nian da suan dao shang hai gong zuo"),
    ],
}

# Broad classes: front, open, back and central vowels; stops by place, nasals, sibilants, liquids. What stands for two
# sounds counts as two. Marks of length, aspiration and palatalisation count for nothing.
_CLASSES = {
    "I": "i y j ɪ ʏ ɨ ɥ e ɛ eɪ ø œ æ ẽ ĩ ì ǐ je",
    "A": "a ɐ ɑ ɒ ʌ ã à ä å",
    "U": "u o ɔ ɯ ʊ w oʊ ʉ ɵ ũ õ β ʋ ɰ",
    "@": "ə ɜ ɤ ɘ ɚ ɝ",
    "P": "p pʰ p͈ b ɓ f v ɸ",
    "T": "t tʰ t͈ d ɖ ʈ ɗ ð θ",
    "K": "k kʰ k͈ g ɡ c ɟ x ɣ h ɦ ħ χ ç ʝ",
    "M": "m ɱ",
    "N": "n ɲ ŋ ɴ ñ",
    "S": "s s͈ z ʃ ʒ ɕ ʑ ʂ ʐ t͡ɕ t͡ɕʰ t͡ɕ͈ t͡ʃ d͡ʒ ʦ ʨ ʣ ʥ ꭧ",
    "R": "r l ɹ ɻ ɽ ɾ ɫ ʎ ʀ ʁ",
    "AI": "aɪ", "AU": "aʊ", "IA": "ja jʌ", "IU": "jo ju", "UI": "ɔɪ we wi ɯi", "UA": "wa wʌ", "I@": "ɪə eə",
}  # fmt: skip
_CLASS_OF = {phone: name for name, phones in _CLASSES.items() for phone in phones.split()}


def classes(phones: list[str]) -> str:
    """One letter for each sound, rows of one class once."""
    return re.sub(r"(.)\1+", r"\1", "".join(_CLASS_OF.get(phone, "") for phone in phones))


def expected(reading: str, language: str) -> str:
    """The classes of a reading in katakana or in pinyin."""
    if language == "ja":
        return classes(list(japanese.sounds(reading)))
    return classes(list("".join(chinese.sounds(f"{syllable}5") for syllable in reading.split())))


def heard(samples: NDArray[np.float32], sample_rate: int, recogniser: Any) -> str:
    """The classes of what the recogniser hears."""
    import soxr

    return classes(recogniser(soxr.resample(samples, sample_rate, 16000), 16000).phonemes)


def distance(a: str, b: str) -> int:
    """Levenshtein's."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def phone_errors(said: list[str], wanted: list[str]) -> tuple[float, float]:
    """The share of wrong phones, and the control: each sentence against the next one's text."""
    right = sum(distance(w, s) for w, s in zip(wanted, said, strict=True))
    others = wanted[1:] + wanted[:1]
    wrong = sum(distance(w, s) for w, s in zip(others, said, strict=True))
    return right / sum(map(len, wanted)), wrong / sum(map(len, others))


def run(folder: Path, count: int = 10) -> bool:
    """Prints, for the lowest and the highest of the speakers, a table by language; whether the bars are met.

    count: sentences that each says, of ten.
    """
    from hama.asr import ASRModel

    recogniser = ASRModel()
    synthesizer = Synthesizer(folder / "cache")
    people = [(speaker, synthesizer.prepare(_reference(speaker))) for speaker in corpus.speakers(folder)]
    people.sort(key=lambda pair: pair[1].statistics.log_f0_mean)
    met = True
    for language, sentences in SENTENCES.items():
        print(f"## {language}: wrong phones (bar: <= {BARS[language]} converted, mean of the speakers)")
        print(
            f"{'speaker':20} {'base':10} {'plain':>6} {'phones':>6} {'control':>7} {'VF':>6} {'gain':>6} "
            f"{'DM':>5} {'RTF':>5}"
        )
        errors = []
        for speaker, profile in (people[0], people[-1]):
            base = synthesizer.choose_base(language, profile)
            plain, converted = [], []
            for number, (text, _) in enumerate(sentences[:count]):
                samples, rate = base.voice.speak(text, 1.0, np.random.default_rng((1, number)), 0.7)
                plain.append(world.resample(samples, rate).astype(np.float32))
            started = time.perf_counter()
            for number, (text, _) in enumerate(sentences[:count]):
                converted.append(synthesizer.speak(text, language, profile, seed=(1, number)).samples)
            rtf = (time.perf_counter() - started) * world.SAMPLE_RATE / sum(map(len, converted))
            wanted = [expected(reading, language) for _, reading in sentences[:count]]
            before, _ = phone_errors([heard(x, world.SAMPLE_RATE, recogniser) for x in plain], wanted)
            after, control = phone_errors([heard(x, world.SAMPLE_RATE, recogniser) for x in converted], wanted)
            target = scorers.voicefilter(speaker.held_out, corpus.SAMPLE_RATE)
            likeness = [
                scorers.cosine(scorers.voicefilter(np.concatenate(audio), world.SAMPLE_RATE), target)
                for audio in (plain, converted)
            ]
            groups = [np.concatenate(converted[i : i + GROUP]) for i in range(0, len(converted), GROUP)]
            opinion = float(np.mean([scorers.distillmos(g, world.SAMPLE_RATE) for g in groups]))
            errors.append(after)
            print(
                f"{speaker.name:20} {base.voice.name:10} {before:6.3f} {after:6.3f} {control:7.3f} {likeness[1]:6.3f} "
                f"{likeness[1] - likeness[0]:+6.3f} {opinion:5.2f} {rtf:5.2f}",
                flush=True,
            )
        language_met = float(np.mean(errors)) <= BARS[language]
        met &= language_met
        print(("bar met" if language_met else "BAR MISSED") + f": {np.mean(errors):.3f}\n", flush=True)
    return met


def _reference(speaker: corpus.Speaker) -> Reference:
    digest = hashlib.sha256(speaker.reference.tobytes()).hexdigest()
    return Reference(speaker.reference, corpus.SAMPLE_RATE, digest, None, "en")
