"""Measures how gptsovits_infer.py makes a speaking engine sing, with the English base voice in the engine's place.

    python -m venv bench-venv && bench-venv/bin/pip install -r requirements.txt -r bench/requirements.txt
    apt-get install -y --no-install-recommends flite asterisk-core-sounds-en-g722 pocketsphinx-testdata
    bench-venv/bin/python -m bench.singing_speech [--set tuning|held-out|more] [--engine NAME] [--long] [--keep FOLDER]

From the root of the project; about 10 minutes on one idle core. The songs are speech of other voices put on melodies
by WORLD (marked_speech.py): what is sung when, and on which F0, is known. `tuning` are the songs that the numbers
of the method were chosen on. `held-out` (the default) are other texts and other voices too, among them two people whose
words and vowels pocketsphinx finds. `more` are 20 more songs of these voices, not tuned on either: of 200 vowels, which
6 songs have, a share is known to .03 only; `--songs 8:` leaves out the first 8 of them. A vowel that comes on time may
end early: `end` is the share of vowels that end within 100 ms, `own` the share of the time of sung vowels that is made
from the same vowel spoken. `--long` is 8 minutes of song, for time and memory; `--timing` leaves the audio out. The
engine speaks each phrase three times. RTF is time of the processor. Exits with 1 where a bar is missed.

Where the engine's vowels begin has to be known well: the alignment holds a vowel at one moment of it, and a label that
is 10 ms beyond this moment counts as late by all of the hold. `--engine` says whose vowels they are: `heart` (the
default), the base voice, aligned by pocketsphinx; `flite`, another flite voice than the singer's, exact; `durations`,
the base voice with its network's own durations, in steps of 25 ms. By
these, used at first, about .1 fewer vowels are on time.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np
import pyworld
import soundfile as sf

from tests.support.recordings import marked_speech as marked
from tests.support.recordings import songs as rooms

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "gpu_scripts"))
from common import sung_speech as method  # noqa: E402 (from gpu_scripts)
from common.gptsovits.cover import next_speed  # noqa: E402
from common.sung_speech.frames import level_db  # noqa: E402

RATE = marked.RATE
SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
BOOK = Path("/usr/share/pocketsphinx/test/data/librivox")
ARPA_VOWELS = {"aa", "ae", "ah", "ao", "aw", "ax", "ay", "eh", "er", "ey", "ih", "iy", "ow", "oy", "uh", "uw"}

TUNING = (
    ("slt", 0, 1, (
        "Over the hills the morning comes", "and all the water turns to gold",
        "I will remember every word we said", "before the summer light grew old",
    )),
    ("rms", 2, 2, (
        "Follow the river down to the sea", "where nobody knows your name",
        "Light up the window and open the door", "and nothing will be the same",
    )),
    ("awb", 0, 3, (
        "She walked along the silver shore", "with seven stars above her head",
        "The wind was calling out for more", "and all the leaves were burning red",
    )),
    ("slt", 5, 4, (
        "Carry me home across the bay", "the tide is turning slow tonight",
        "Give me a reason I should stay", "and I will leave you with the light",
    )),
)  # fmt: skip
HELD_OUT = (
    ("rms", -2, 11, (
        "Dancing under broken streetlights", "we were only seventeen",
        "Every promise that we whispered", "faded like a distant dream",
    )),
    ("slt", 3, 12, (
        "Lost my heart in a crowded station", "somewhere between the noise and you",
        "Now every train has a destination", "but none of them will take me through",
    )),
    ("awb", 4, 13, (
        "Tell the captain to turn around", "there is thunder on the line",
        "We have treasure underground", "and a little bit of time",
    )),
    ("kal16", 0, 14, (
        "Winter came and took the roses", "left a frost upon the glass",
        "Time will mend what sorrow chooses", "all these lonely days will pass",
    )),
    ("librivox", 0, 15, ("0880", "0890", "0930")),
    ("Allison", -2, 16, ("agent-pass", "conf-onlyperson", "cannot-complete-as-dialed", "check-number-dial-again")),
)  # fmt: skip
MORE = (
    ("rms", 3, 201, (
        "Mountains rise behind the station", "where the old musicians play",
        "Nobody has a destination", "everyone will run away",
    )),
    ("slt", -2, 202, (
        "Give me silence give me sound", "anything to fill this room",
        "I have turned the world around", "looking for a sweet perfume",
    )),
    ("awb", 0, 203, (
        "Fishermen are coming home", "with their baskets full of light",
        "Write it down inside a poem", "read it out to me tonight",
    )),
    ("kal16", 2, 204, (
        "Open up the kitchen door", "let the smell of bread come in",
        "I have never loved you more", "tell me where I should begin",
    )),
    ("rms", -4, 205, (
        "Count the candles one by one", "blow the smallest of them out",
        "We have only just begun", "what was all the fuss about",
    )),
    ("slt", 5, 206, (
        "Thirty thousand feet below", "there is water there is land",
        "Tell me something I don't know", "draw a circle in the sand",
    )),
    ("awb", -3, 207, (
        "Johnny has a wooden boat", "painted green and painted red",
        "Nobody believed it would float", "sail away is what they said",
    )),
    ("kal16", -2, 208, (
        "Somewhere over in the west", "there is gold beneath the ground",
        "Lay your weary bones to rest", "never make another sound",
    )),
    ("rms", 0, 209, (
        "Thunder shook the garden wall", "apples rolled across the lawn",
        "Did you hear the voices call", "just before the break of dawn",
    )),
    ("slt", 1, 210, (
        "Put your picture in a frame", "hang it where the shadows are",
        "Whisper softly say my name", "catch a ride upon a star",
    )),
    ("awb", 5, 211, (
        "Quiet as a falling feather", "gentle as a summer breeze",
        "We can make it through together", "anywhere you want with ease",
    )),
    ("kal16", 1, 212, (
        "Who will feed the hungry bird", "who will mend the broken chair",
        "Speak to me another word", "show me that you really care",
    )),
    ("rms", 2, 213, (
        "Early in the month of June", "strangers came to visit us",
        "They were gone by afternoon", "riding on the yellow bus",
    )),
    ("slt", -4, 214, (
        "Chocolate and cherry wine", "tangerines and orange peel",
        "All I had is yours and mine", "let me tell you how I feel",
    )),
    ("librivox", 2, 215, (
        "0870", "0920",
    )),
    ("librivox", -2, 216, (
        "0920", "0880",
        "0870",
    )),
    ("librivox", 3, 217, (
        "0930", "0890",
        "0880",
    )),
    ("Allison", 0, 218, (
        "tt-monkeysintro", "privacy-prompt",
        "conf-waitforleader", "tt-somethingwrong",
    )),
    ("Allison", 2, 219, (
        "tt-weasels", "conf-placeintoconf",
        "priv-recordintro", "dir-nomore",
    )),
    ("Allison", -3, 220, (
        "conf-kicked", "conf-onlyone",
        "queue-thankyou", "privacy-unident",
    )),
)  # fmt: skip
PROMPTS = {
    "agent-pass": "please enter your password followed by the pound key",
    "conf-onlyperson": "you are currently the only person in this conference",
    "cannot-complete-as-dialed": "your call cannot be completed as dialed",
    "check-number-dial-again": "please check the number and dial again",
    "conf-kicked": "you have been kicked from this conference",
    "conf-onlyone": "there is currently one other participant in the conference",
    "conf-placeintoconf": "you will now be placed into the conference",
    "conf-waitforleader": "the conference will begin when the leader arrives",
    "dir-nomore": "there are no more compatible entries in the directory",
    "priv-recordintro": "at the tone please say your name",
    "privacy-prompt": "please enter your phone number starting with the area code",
    "privacy-unident": "the party you are trying to reach does not accept unidentified calls",
    "queue-thankyou": "thank you for your patience",
    "tt-monkeysintro": "they have been carried away by monkeys",
    "tt-somethingwrong": "something is terribly wrong",
    "tt-weasels": "weasels have eaten our phone system",
}
SETS = {"tuning": TUNING, "held-out": HELD_OUT, "more": MORE}
ENGINES = ("heart", "flite", "durations")
Speak = Callable[[str, float], marked.Speech]


# --- speech whose words and vowels are known --------------------------------------------------------------------


def flite(text: str, voice: str, speed: float = 1.0) -> marked.Speech:
    """A flite voice, which tells its phones' times."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        stretch = f"duration_stretch={1 / speed}"
        command = ["flite", "-voice", voice, "--setf", stretch, "-psdur", "-t", text, "-o", str(path)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        samples, rate = sf.read(path)
    pairs = [item.split(":") for item in told.split()]
    ends = [float(end) for _, end in pairs]
    sounds = [(p, a, b) for (p, _), a, b in zip(pairs, [0.0, *ends], ends, strict=False) if p != "pau"]
    words = re.findall(r"[\w']+", text)
    expected = [_flite_phones(word, voice) for word in words]
    starts = _word_starts([phone for phone, _, _ in sounds], expected)
    grouped = [sounds[a:b] for a, b in zip(starts, [*starts[1:], len(sounds)], strict=True)]
    return _speech(samples, rate, words, grouped)


def _speech(
    samples: marked.Audio, rate: int, words: Sequence[str], grouped: Sequence[Sequence[tuple[str, float, float]]]
) -> marked.Speech:
    found = []
    for word, group in zip(words, grouped, strict=True):
        vowels = [(a, b) for phone, a, b in group if phone.lower() in ARPA_VOWELS]
        found.append(marked.Word(word, group[0][1], group[-1][2], *(tuple(v[n] for v in vowels) for n in (0, 1))))
    phones = tuple((phone, a, b, phone.lower() in ARPA_VOWELS) for g in grouped for phone, a, b in g)
    return marked.Speech(np.asarray(samples, np.float64), rate, tuple(found), phones)


@lru_cache(maxsize=512)
def _flite_phones(word: str, voice: str) -> tuple[str, ...]:
    told = subprocess.run(["flite", "-voice", voice, "-ps", "-t", word, "-o", "none"], check=True, capture_output=True)
    return tuple(phone for phone in told.stdout.decode().split() if phone != "pau")


def _word_starts(phones: Sequence[str], expected: Sequence[Sequence[str]]) -> list[int]:
    """Where each word begins among the phones: by the cheapest edit of what the words are alone."""
    flat = [phone for word in expected for phone in word]
    cost = np.add.outer(np.arange(len(flat) + 1.0), np.arange(len(phones) + 1.0))
    vowel = lambda p: p in ARPA_VOWELS  # noqa: E731
    for i in range(1, len(flat) + 1):
        for j in range(1, len(phones) + 1):
            same = 0.0 if flat[i - 1] == phones[j - 1] else 0.6 if vowel(flat[i - 1]) == vowel(phones[j - 1]) else 1.8
            cost[i, j] = min(cost[i - 1, j - 1] + same, cost[i - 1, j] + 1, cost[i, j - 1] + 1)
    at = {}
    i, j = len(flat), len(phones)
    while i:
        same = (
            0.0
            if j and flat[i - 1] == phones[j - 1]
            else 0.6
            if j and vowel(flat[i - 1]) == vowel(phones[j - 1])
            else 1.8
        )
        if j and cost[i, j] == cost[i - 1, j - 1] + same:
            i, j = i - 1, j - 1
            at[i] = j
        elif cost[i, j] == cost[i - 1, j] + 1:
            i -= 1
            at[i] = j
        else:
            j -= 1
    firsts = np.cumsum([0, *(len(word) for word in expected[:-1])])
    return [0 if n == 0 else at[int(first)] for n, first in enumerate(firsts)]


def recorded(samples: marked.Audio, rate: int, text: str) -> marked.Speech:
    """A recording, aligned with its text by pocketsphinx."""
    from pocketsphinx import Decoder

    x = method.resample(samples, rate, 16000)
    raw = (x / np.abs(x).max() * 0.7 * 32767).astype(np.int16).tobytes()
    decoder = Decoder(lm=None, loglevel="FATAL")
    for word in set(text.split()):
        if decoder.lookup_word(word) is None:
            phones = (phone.upper() for phone in _flite_phones(word, "slt"))
            decoder.add_word(word, " ".join("AH" if phone == "AX" else phone for phone in phones), True)
    decoder.set_align_text(text)
    for step in (lambda: None, decoder.set_alignment):
        step()
        decoder.start_utt()
        decoder.process_raw(raw, full_utt=True)
        decoder.end_utt()
    grouped, words = [], []
    for word in decoder.get_alignment():
        if word.name.startswith(("<", "[")):
            continue
        words.append(re.sub(r"\(\d+\)", "", word.name))
        grouped.append([(p.name, p.start / 100, (p.start + p.duration) / 100) for p in word])
    return _speech(samples, rate, words, grouped)


def speech_of(singer: str, text: str) -> tuple[str, marked.Speech]:
    if singer == "librivox":
        transcripts = (BOOK / "transcription").read_text()
        said = re.search(rf"<s> (.*) </s> \(\S*-{text}\)", transcripts)
        assert said
        samples, rate = sf.read(next(BOOK.glob(f"*-{text}.wav")))
        return said[1], recorded(samples, rate, said[1])
    if singer == "Allison":
        import av

        with av.open(str(SOUNDS / f"{text}.g722"), format="g722") as container:
            samples = np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)])
        return PROMPTS[text], recorded(samples / 32768.0, 16000, PROMPTS[text])
    return text, flite(text, singer)


def make_songs(specification: Sequence[tuple[str, float, int, tuple[str, ...]]]) -> list[tuple[str, marked.Song]]:
    return [
        (singer, marked.song([speech_of(singer, text) for text in texts], seed, semitones))
        for singer, semitones, seed, texts in specification
    ]


# --- the method on a song -----------------------------------------------------------------------------------------


@dataclass
class Sung:
    """One song in one way: errors in seconds; seconds the method took, without the engine.

    ends are those of vowels; own tells of each frame of sung vowels whether it is made from that vowel as spoken.
    """

    words: marked.Audio
    vowels: marked.Audio
    ends: marked.Audio
    own: marked.Audio
    samples: marked.Audio
    seconds: float


def _jittered(rng: np.random.Generator, word: marked.Word) -> method.Span:
    start = max(0.0, word.start + rng.uniform(-0.05, 0.05))
    return method.Span(start, max(start + 0.03, word.end + rng.uniform(-0.05, 0.05)))


def phrases_of(song: marked.Song, rng: np.random.Generator, with_words: bool) -> list[method.Phrase]:
    """The song's lines with times wrong by up to 80 ms, and words' by up to 50 ms."""
    phrases, before = [], 0.0
    for line in song.lines:
        start = max(before, line.start + rng.uniform(-0.08, 0.08))
        before = line.end + rng.uniform(-0.08, 0.08)
        words = tuple(_jittered(rng, word) for word in line.words) if with_words else ()
        phrases.append(method.Phrase(line.text, start, before, words))
    return phrases


@lru_cache(maxsize=1024)
def aligned_heart(text: str, speed: float) -> marked.Speech:
    """The base voice, its words and vowels found by pocketsphinx. Raises RuntimeError where it finds none.

    Of flite's vowels, whose times are exact, it finds four of five within 20 ms. By the durations of the base voice's
    network as many begin 5 ms earlier to 45 ms later than that, the later the slower it speaks.
    """
    speech = marked.heart(text, speed, 5)
    text = " ".join(re.findall(r"[\w']+", text.lower()))
    padded = np.pad(speech.samples, round(0.3 * speech.rate))
    for noise in (1e-3, 3e-3, 3e-4, 1e-4):  # in digital silence pocketsphinx loses its way, with some noise seldom
        rustle = noise * np.abs(padded).max() * np.random.default_rng(1).standard_normal(len(padded))
        try:
            found = recorded(padded + rustle, speech.rate, text)
            break
        except RuntimeError as error:
            failure = error
    else:
        raise failure
    times = np.array([0.0, 1e3])
    return replace(speech, words=tuple(word.moved(times, times, -0.3) for word in found.words), phones=())


@lru_cache(maxsize=1024)
def _durations(text: str, speed: float) -> marked.Speech:
    return marked.heart(text, speed, 5)


def engine(name: str, singer: str) -> Speak:
    """What says a text at a speed: see this module."""
    if name == "flite":
        voice = "rms" if singer in ("slt", "kal16") else "slt"
        return lambda text, speed: flite(text, voice, speed)
    return aligned_heart if name == "heart" else _durations


def sing(
    song: marked.Song,
    how: str,
    source: method.Frames | None = None,
    takes: int = 3,
    audible: bool = True,
    speak: Speak = aligned_heart,
) -> Sung:
    """how: `uniform` (each phrase stretched as a whole), `words` (linear between word times), `method`, `anchored`."""
    rng = np.random.default_rng(3)
    began, spent = time.process_time(), 0.0
    source = source or method.analyze(song.samples.astype(np.float32), RATE)
    sung = method.Song(source, phrases_of(song, rng, how in ("words", "anchored")))
    said: list[list[marked.Speech]] = []
    for number, window in enumerate(sung.windows):
        speed, row = 1.0, []
        for take in range(takes):
            before = time.process_time()
            speech = speak(window.phrase.text, speed)
            spent += time.process_time() - before
            words = tuple(_jittered(rng, word) for word in speech.words) if window.phrase.words else ()
            sung.add(number, method.Take(speech.samples.astype(np.float32), speech.rate, words))
            row.append(speech)
            speed = next_speed(window, take)
        said.append(row)
    sung.align()
    out = np.zeros(len(song.samples), np.float32)
    found: tuple[list[float], ...] = ([], [], [], [])
    for window, row, line in zip(sung.windows, said, song.lines, strict=True):
        at = method.time_map(window, source)
        if how in ("uniform", "words"):
            at = _baseline(window, how)
        if audible:
            samples, rate = method.render(window, source, 0, at)
            a, b = (round(frame * method.FRAME_SECONDS * RATE) for frame in (window.start, window.stop))
            method.place(out, window, samples, rate, float(np.sqrt(np.mean(song.samples[a:b] ** 2))))
        for all_, one in zip(found, timing(window, at, row[window.best], line), strict=True):
            all_ += one
    seconds = time.process_time() - began - spent
    late, vowels, ends, own = (np.asarray(one) for one in found)
    return Sung(late, vowels, ends, own, out.astype(np.float64), seconds)


def _baseline(window: method.Window, how: str) -> marked.Audio:
    count, states = window.stop - window.start, len(window.spoken.frames)
    sung, said = [0.0], [0.0]
    if how == "words":
        for one, two in zip(window.phrase.words, window.spoken.take.words, strict=True):
            assert one and two
            x, y = one.start / 0.005 - window.start, two.start / 0.005 - window.spoken.start
            if x > sung[-1] and y > said[-1] and x < count - 1 and y < states - 1:
                sung.append(x)
                said.append(y)
    return np.interp(np.arange(count), [*sung, count - 1], [*said, states - 1])


def timing(
    window: method.Window, at: marked.Audio, speech: marked.Speech, line: marked.Line
) -> tuple[list[float], list[float], list[float], list[float]]:
    """How late each word and each vowel comes and each vowel ends, seconds; `Sung.own` of frames of 5 ms.

    Vowels of words that both say with as many.
    """
    sung = (window.start + np.arange(len(at))) * method.FRAME_SECONDS
    said = np.maximum.accumulate((window.spoken.start + at) * method.FRAME_SECONDS + np.arange(len(at)) * 1e-9)
    words: list[float] = []
    vowels: list[float] = []
    ends: list[float] = []
    own: list[float] = []
    for one, wanted in zip(speech.words, line.words, strict=True):
        words.append(float(np.interp(one.start, said, sung)) - wanted.start)
        if len(one.vowels) != len(wanted.vowels):
            continue
        vowels += [float(np.interp(a, said, sung)) - b for a, b in zip(one.vowels, wanted.vowels, strict=True)]
        ends += [float(np.interp(a, said, sung)) - b for a, b in zip(one.vowel_ends, wanted.vowel_ends, strict=True)]
        for a, b, first, last in zip(one.vowels, one.vowel_ends, wanted.vowels, wanted.vowel_ends, strict=True):
            spoken = np.interp(np.arange(first, last, method.FRAME_SECONDS), sung, said)
            own += ((spoken >= a) & (spoken <= b)).astype(float).tolist()
    return words, vowels, ends, own


def melody(song: marked.Song, samples: marked.Audio) -> tuple[float, float, float]:
    """(share of voiced frames within 50 cents, median cents, share of frames in the lines that are rightly voiced)."""
    x = method.resample(samples, RATE, method.RATE)
    f0 = pyworld.harvest(x.astype(np.float64), method.RATE, f0_floor=65.0, f0_ceil=1000.0)[0]
    level = level_db(x, len(f0))
    f0 = np.where(level > np.percentile(level, 98) - 45, f0, 0.0)
    count = min(len(f0), len(song.f0))
    f0, wanted = f0[:count], song.f0[:count]
    inside = np.zeros(count, bool)
    for line in song.lines:
        inside[round(line.start / 0.005) : round(line.end / 0.005)] = True
    both = (f0 > 0) & (wanted > 0)
    cents = np.abs(1200 * np.log2(f0[both] / wanted[both]))
    return float(np.mean(cents < 50)), float(np.median(cents)), float(np.mean((f0 > 0)[inside] == (wanted > 0)[inside]))


# --- tables -------------------------------------------------------------------------------------------------------


def table(songs: Sequence[tuple[str, marked.Song]], ways: Sequence[str], name: str, keep: Path | None) -> bool:
    print(
        f"{'song':10} {'how':9} {'word ms':>9} {'vowel ms':>9} {'<100':>5} {'end':>5} {'own':>5} "
        f"{'<50c':>5} {'src':>5} {'cents':>5} {'voic':>5} {'src':>5} {'RTF':>5}"
    )
    rows: dict[str, list[tuple[Sung, tuple[float, float, float], tuple[float, float, float], float]]] = {}
    for number, (singer, song) in enumerate(songs):
        began = time.process_time()
        source = method.analyze(song.samples.astype(np.float32), RATE)
        analysis = time.process_time() - began
        tracked = melody(song, song.samples)
        seconds = len(song.samples) / RATE
        for how in ways:
            sung = sing(song, how, source, speak=engine(name, singer))
            sung.seconds += analysis
            assert len(sung.samples) == len(song.samples)
            rows.setdefault(how, []).append((sung, melody(song, sung.samples), tracked, seconds))
            print(f"{singer:10} {how:9} " + _figures([rows[how][-1]]), flush=True)
            if keep:
                sf.write(keep / f"{number}-{singer}-{how}.wav", sung.samples, RATE)
        if keep:
            sf.write(keep / f"{number}-{singer}-source.wav", song.samples, RATE)
    for how, all_ in rows.items():
        print(f"{'all':10} {how:9} " + _figures(all_))
    met = True
    for how, vowels in (("anchored", 0.85), ("method", 0.80)):
        if how not in rows:
            continue
        late = np.abs(np.concatenate([row[0].vowels for row in rows[how]]))
        close, cents, voicing = (float(np.mean([row[1][n] for row in rows[how]])) for n in range(3))
        worst = max(row[2][0] - row[1][0] for row in rows[how])
        speed = sum(row[0].seconds for row in rows[how]) / sum(row[3] for row in rows[how])
        bars = {
            f"vowels within 100 ms >= {vowels}": np.mean(late < 0.1) >= vowels,
            "median <= 25 ms": np.median(late) <= 0.025,
            "within 50 cents >= .95": close >= 0.95,
            "median <= 5 cents": cents <= 5,
            "no song .10 under its source": worst <= 0.1,
            "voicing >= .90": voicing >= 0.9,
            "RTF <= .6": speed <= 0.6,
        }
        print(how, "; ".join(f"{name}: {'met' if ok else 'MISSED'}" for name, ok in bars.items()), flush=True)
        met &= all(bars.values())
    return met


@lru_cache(maxsize=32)
def _analyzed(song: marked.Song) -> method.Frames:
    return method.analyze(song.samples.astype(np.float32), RATE)


def print_timing(songs: Sequence[tuple[str, marked.Song]], how: str, name: str) -> None:
    sung = [sing(song, how, _analyzed(song), audible=False, speak=engine(name, singer)) for singer, song in songs]
    late = [np.abs(np.concatenate([getattr(one, name) for one in sung])) * 1000 for name in ("words", "vowels", "ends")]
    own = np.mean(np.concatenate([one.own for one in sung]))
    each = " ".join(
        f"{singer} {np.mean(np.abs(one.vowels) < 0.1):.2f}" for (singer, _), one in zip(songs, sung, strict=True)
    )
    figures = "; ".join(f"{np.median(x):.0f}/{np.percentile(x, 90):.0f}" for x in late)
    print(
        f"{how}: words; vowels; their ends {figures} ms, within 100 ms {np.mean(late[1] < 100):.3f} ({each}), "
        f"ends {np.mean(late[2] < 100):.3f}, own {own:.3f}",
        flush=True,
    )


def _figures(rows: Sequence[tuple[Sung, tuple[float, float, float], tuple[float, float, float], float]]) -> str:
    words, vowels, ends = (
        1000 * np.abs(np.concatenate([getattr(row[0], name) for row in rows])) for name in ("words", "vowels", "ends")
    )
    own, source = (np.mean([row[n] for row in rows], axis=0) for n in (1, 2))
    speed = sum(row[0].seconds for row in rows) / sum(row[3] for row in rows)
    return (
        f"{np.median(words):4.0f}/{np.percentile(words, 90):4.0f} "
        f"{np.median(vowels):4.0f}/{np.percentile(vowels, 90):4.0f} {np.mean(vowels < 100):5.2f} "
        f"{np.mean(ends < 100):5.2f} {np.mean(np.concatenate([row[0].own for row in rows])):5.2f} "
        f"{own[0]:5.3f} {source[0]:5.3f} {own[1]:5.1f} {own[2]:5.3f} {source[2]:5.3f} {speed:5.2f}"
    )


def long_song(length: float) -> bool:
    """So many seconds: time and the peak of memory of this process."""
    once = make_songs(TUNING[:1])[0][1]
    copies = int(length * RATE / len(once.samples)) + 1
    seconds = len(once.samples) / RATE
    lines = tuple(
        replace(line, words=tuple(w.moved(np.array([0.0, 1e3]), np.array([0.0, 1e3]), n * seconds) for w in line.words))
        for n in range(copies)
        for line in once.lines
    )
    song = marked.Song(np.tile(once.samples, copies), np.tile(once.f0, copies), lines)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sung = sing(song, "method")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    speed = sung.seconds / (len(song.samples) / RATE)
    print(f"{len(song.samples) / RATE:.0f} s: RTF {speed:.2f}, peak {peak:.0f} MB, of which {before:.0f} MB before")
    return peak <= 1500 and speed <= 0.6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=SETS, default="held-out")
    parser.add_argument("--songs", default=":", metavar="FROM:TO", help="of the set, from 0")
    parser.add_argument("--engine", choices=ENGINES, default="heart", help="what speaks")
    parser.add_argument("--ways", default="uniform,words,method,anchored")
    parser.add_argument(
        "--timing", action="store_true", help="of words and vowels only, without audio: a third of the time"
    )
    parser.add_argument("--reverb", action="store_true", help="in a small room")
    parser.add_argument("--long", type=float, nargs="?", const=480.0, metavar="SECONDS", help="time and memory instead")
    parser.add_argument("--keep", type=Path, help="where the songs are written")
    options = parser.parse_args()
    if options.long:
        return 0 if long_song(options.long) else 1
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    first, last = (int(n) if n else None for n in options.songs.split(":"))
    songs = make_songs(SETS[options.set][first:last])
    if options.reverb:
        songs = [(name, replace(song, samples=rooms.room(song.samples).mean(axis=1))) for name, song in songs]
    if options.timing:
        for how in options.ways.split(","):
            print_timing(songs, how, options.engine)
        return 0
    return 0 if table(songs, options.ways.split(","), options.engine, options.keep) else 1


if __name__ == "__main__":
    sys.exit(main())
