"""gpu_scripts/gptsovits_infer.py on a short song whose melody and words are known, in a GPT-SoVITS that speaks."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyworld
import soundfile as sf

from common import sung_speech
from common.sung_speech import frames, lyrics, matching
from tests.scripts import fake_faster_whisper
from tests.scripts import fake_gptsovits_root as fake
from tests.scripts.script_server import SCRIPTS, ScriptServer
from tests.support.recordings import marked_speech, songs

SCRIPT = SCRIPTS / "gptsovits_infer.py"
RATE = 44100
LINES = ("Follow the river down to the sea", "where nobody knows your name")
REFERENCE_TEXT = "The quick brown fox jumps over the lazy dog, and nobody minded that it was late."
SEMITONES = 2


@lru_cache(maxsize=1)
def song() -> marked_speech.Song:
    """Two lines, sung by another throat than the engine's."""
    lines = []
    for text in LINES:
        speech = marked_speech.heart(text, 0.9, 3)
        samples = songs.other_speaker(speech.samples, speech.rate, pitch=0.8, tract=1.12)
        lines.append((text, replace(speech, samples=samples)))
    return marked_speech.song(lines, seed=5, slow=0.8)


@lru_cache(maxsize=1)
def source() -> sung_speech.Frames:
    return sung_speech.analyze(song().samples.astype(np.float32), RATE)


def samples_at_16k(count: int) -> int:
    return math.ceil(count * 160 / 441)


def write_inputs(folder: Path) -> None:
    sf.write(folder / "vocal.wav", np.stack([song().samples] * 2, axis=1), RATE, subtype="FLOAT")
    sf.write(folder / "reference.wav", songs.speech(REFERENCE_TEXT), 24000)


def arguments(root: Path, folder: Path, *more: str) -> list[str]:
    files = ["--reference", str(folder / "reference.wav"), "--input", str(folder / "vocal.wav")]
    files += ["--output", str(folder / "out.wav"), "--project-root", str(root), "--model-id", "default"]
    return [*files, "--pitch", str(SEMITONES), *more]


def infer(root: Path, folder: Path, *more: str, packages: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(p) for p in (packages, root) if p)  # the engine's interpreter has torch
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments(root, folder, *more)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": path},
    )


@pytest.fixture(scope="module")
def sung(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, subprocess.CompletedProcess[str]]:
    """(project root, folder of the files, what the script said)."""
    folder = tmp_path_factory.mktemp("sung")
    root = fake.build(tmp_path_factory.mktemp("root"))
    packages, model = fake_faster_whisper.build(folder)
    words = [[(w.text, w.start, w.end) for w in line.words] for line in song().lines]
    fake_faster_whisper.knows(model, {samples_at_16k(len(song().samples)): words})
    write_inputs(folder)
    return root, folder, infer(root, folder, "--asr-model", str(model), packages=packages)


def melody(samples: songs.Audio) -> tuple[float, float, float]:
    """(share within 50 cents, median cents, share of frames in the lines that are rightly voiced or not)."""
    x = sung_speech.resample(samples, RATE, 16000).astype(np.float64)
    f0 = pyworld.harvest(x, 16000, f0_floor=65.0, f0_ceil=1000.0)[0]
    level = frames.level_db(x.astype(np.float32), len(f0))
    f0 = np.where(level > np.percentile(level, 98) - 45, f0, 0)
    count = min(len(f0), len(song().f0))
    f0, wanted = f0[:count], song().f0[:count] * 2 ** (SEMITONES / 12)
    inside = np.zeros(count, bool)
    for line in song().lines:
        inside[round(line.start / 0.005) : round(line.end / 0.005)] = True
    both = (f0 > 0) & (wanted > 0)
    cents = np.abs(1200 * np.log2(f0[both] / wanted[both]))
    return float(np.mean(cents < 50)), float(np.median(cents)), float(np.mean((f0 > 0) == (wanted > 0), where=inside))


def test_the_words_are_sung_on_the_moved_melody_and_as_long_as_the_vocal(sung: Any) -> None:
    _, folder, result = sung
    assert result.returncode == 0, result.stderr
    samples, rate = sf.read(folder / "out.wav")
    assert (rate, samples.shape) == (RATE, (len(song().samples), 2))
    assert np.array_equal(samples[:, 0], samples[:, 1])
    close, cents, voicing = melody(samples[:, 0])
    assert close > 0.9 and cents < 6 and voicing > 0.88  # the tracker on the vocal itself: .95
    for line in song().lines:  # as loud as the singer, where the singer sings
        part = slice(round(line.start * RATE), round(line.end * RATE))
        own, wanted = (np.sqrt(np.mean(np.square(x[part]))) for x in (samples[:, 0], song().samples))
        assert abs(20 * np.log10(own / wanted)) < 1.5
    pause = slice(round((song().lines[0].end + 0.2) * RATE), round((song().lines[1].start - 0.2) * RATE))
    assert pause.stop > pause.start and np.abs(samples[pause]).max() < 0.003


def test_every_phrase_is_spoken_a_few_times_with_the_transcript_of_the_reference(sung: Any) -> None:
    root, folder, result = sung
    runs = fake.calls(root, "run")
    assert [run["text"] for run in runs] == [line for line in LINES for _ in range(3)]
    assert len({run["speed_factor"] for run in runs if run["text"] == LINES[0]}) > 1
    assert len({run["seed"] for run in runs}) == len(runs)
    assert {run["text_lang"] for run in runs} == {"en"}
    lines = result.stdout.splitlines()
    fractions = [float(line.removeprefix("PROGRESS ")) for line in lines]
    assert fractions == sorted(set(fractions)) and fractions[0] == 0 and fractions[-1] == 1
    # There are six takes; each is told of from inside too.
    assert len([done for done in fractions if 0.27 < done < 0.72]) > 8, fractions
    assert sorted(p.name for p in folder.iterdir() if p.is_file()) == ["out.wav", "reference.wav", "vocal.wav"]


@pytest.mark.parametrize("with_words", [False, True])
def test_vowels_fall_where_they_are_sung(with_words: bool) -> None:
    rng = np.random.default_rng(1)

    def jittered(word: marked_speech.Word) -> sung_speech.Span:
        start, end = (t + rng.uniform(-0.05, 0.05) for t in (word.start, word.end))
        return sung_speech.Span(max(0.0, start), max(start + 0.03, end))

    phrases = [
        sung_speech.Phrase(
            line.text, line.start + 0.06, line.end - 0.06, tuple(map(jittered, line.words)) if with_words else ()
        )
        for line in song().lines
    ]
    sung = sung_speech.Song(source(), phrases)
    spoken = []
    for number, text in enumerate(LINES):
        speech = marked_speech.heart(text, 1.0, 8)
        words = tuple(map(jittered, speech.words)) if with_words else ()
        sung.add(number, sung_speech.Take(speech.samples.astype(np.float32), speech.rate, words))
        spoken.append(speech)
    sung.align()
    late, uniform = [], []
    for window, speech, line in zip(sung.windows, spoken, song().lines, strict=True):
        at = sung_speech.time_map(window, source())
        assert (np.diff(at) >= 0).all()
        times = (window.start + np.arange(len(at))) * 0.005
        for one, two in zip(speech.words, line.words, strict=True):
            for own, wanted in zip(one.vowels, two.vowels, strict=True):
                frame = own / 0.005 - window.spoken.start
                late.append(abs(float(np.interp(frame, at + 1e-7 * np.arange(len(at)), times)) - wanted))
                share = frame / len(window.spoken.frames)
                uniform.append(abs(times[0] + share * (times[-1] - times[0]) - wanted))
    assert np.median(late) < 0.035 and np.mean(np.asarray(late) < 0.1) > 0.8
    assert np.median(late) < np.median(uniform) / 2


def test_a_held_sound_is_held_inside_of_the_spoken_one_and_not_on_its_edge() -> None:
    cost = np.full((80, 40), 2.0, np.float32)
    cost[:20, :12] = 0.5
    cost[20:60, 12:24] = 0.5
    cost[60:, 24:] = 0.5
    cost[20:60, 12] = 0.45  # by chance the vowel's first frame is the one most like what is held
    flux = np.ones(80, np.float32)
    flux[18:22] = flux[58:62] = 4.0
    rest = np.zeros((80, 11), np.float32)
    sung = matching.Features(rest, rest, flux, flux, np.ones(80, bool), flux)
    stay = np.full(40, 0.02, np.float32)

    def held(cost: frames.Float32) -> tuple[int, int]:
        path = matching.viterbi(cost, stay, 0.5, 0.6)[1]
        frame = int(np.bincount(path[20:60]).argmax())
        return frame, int((path[20:60] == frame).sum())

    assert held(cost)[0] == 12
    steadied = matching.steadied(cost, sung)
    frame, count = held(steadied)
    assert 15 <= frame <= 20 and count > 15
    assert np.array_equal(steadied[19:21], cost[19:21])  # where the sound changes, each frame is judged alone
    unvoiced = replace(sung, voiced=np.zeros(80, bool))
    assert np.array_equal(matching.steadied(cost, unvoiced), cost)


# --- errors ---------------------------------------------------------------------------------------------------


class Serving:
    """The script in one process for several jobs, without loading numpy for each."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        self.server = ScriptServer(folder, SCRIPT.name, PYTHONPATH=str(root))

    def __call__(self, *more: str, folder: Path | None = None) -> tuple[int, str]:
        done = self.server.run(*arguments(self.root, folder or self.folder, *more))
        return done.exit_code, done.message


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("errors")
    root = fake.build(tmp_path_factory.mktemp("root"))
    fake.add_trained(root, "anna")[1].unlink()
    write_inputs(folder)
    serving = Serving(root, folder)
    yield serving
    serving.server.close()


WORDS = ("--lyrics", "\n".join(LINES))


@pytest.mark.parametrize(
    ("more", "code", "reason"),
    [
        ((), 13, "no lyrics were given, and without a recogniser nothing is known"),
        (("--lyrics", " [Chorus] \n"), 13, "no lyrics"),
        (("--asr-model", "."), 2, "model.bin"),
        ((*WORDS, "--asr-model", "."), 2, "model.bin"),
        ((*WORDS, "--asr-model", "/nowhere"), 2, "/nowhere"),
        ((*WORDS, "--device", "cuda:7"), 8, "no CUDA device"),
        ((*WORDS, "--model-id", "nobody"), 10, "no model 'nobody'"),
        ((*WORDS, "--model-id", "anna"), 9, "SoVITS weights"),
        ((*WORDS, "--gpt-weights", "a.ckpt", "--sovits-weights", "b.pth"), 9, "not there"),
        ((*WORDS, "--lyrics-file", "absent.txt"), 2, ""),
        (("--lyrics-file", "absent.txt"), 3, "absent.txt"),
        ((*WORDS, "--pitch", "25"), 2, ""),
        ((*WORDS, "--takes", "0"), 2, ""),
    ],
)
def test_what_cannot_be_done_has_its_exit_code_and_a_reason(
    serve: Serving, more: tuple[str, ...], code: int, reason: str
) -> None:
    found, message = serve(*more)
    assert found == code and reason in message
    assert "\n" not in message and not (serve.folder / "out.wav").exists()


def test_nothing_sung_and_a_short_reference_are_told_apart(serve: Serving, tmp_path: Path) -> None:
    write_inputs(tmp_path)
    noise = np.random.default_rng(1).standard_normal(2 * RATE) * 0.1
    for silence in (np.zeros(2 * RATE), noise):
        sf.write(tmp_path / "vocal.wav", silence, RATE)
        assert serve(*WORDS, folder=tmp_path)[0] == 4
    write_inputs(tmp_path)
    sf.write(tmp_path / "reference.wav", songs.speech(REFERENCE_TEXT)[:48000], 24000)
    code, message = serve(*WORDS, folder=tmp_path)
    assert code == 5 and "needs 3 s" in message
    sf.write(tmp_path / "reference.wav", np.zeros(24000 * 5), 24000)
    assert serve(*WORDS, folder=tmp_path)[0] == 5


def test_lyrics_alone_are_sung_with_one_take_by_a_process_that_serves(serve: Serving) -> None:
    fake.clear_calls(serve.root)
    code, message = serve(*WORDS, "--takes", "1", "--language", "en")
    assert (code, message) == (0, "")
    samples, _ = sf.read(serve.folder / "out.wav")
    (serve.folder / "out.wav").unlink()
    assert len(samples) == len(song().samples) and np.abs(samples).max() > 0.1
    assert [run["text"] for run in fake.calls(serve.root, "run")] == list(LINES)
    close, _, voicing = melody(samples[:, 0])
    assert close > 0.9 and voicing > 0.85


def test_a_gpu_out_of_memory_ends_a_serving_process(tmp_path: Path) -> None:
    root = fake.build(tmp_path / "root")
    (tmp_path / "files").mkdir()
    write_inputs(tmp_path / "files")
    fake.set_mood(root, run="oom")
    result = infer(root, tmp_path / "files", *WORDS)
    assert result.returncode == 7 and result.stderr.strip().splitlines()[-1].endswith("out of memory")
    assert "WARNING There is no speech recogniser" in result.stderr
    assert not (tmp_path / "files" / "out.wav").exists()


def test_a_missing_pyworld_is_named(tmp_path: Path) -> None:
    root = fake.build(tmp_path / "root")
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "pyworld.py").write_text("raise ImportError('No module named pyworld')")
    write_inputs(tmp_path)
    result = infer(root, tmp_path, *WORDS, packages=tmp_path / "without")
    assert result.returncode == 14 and "pip install pyworld-prebuilt" in result.stderr


# --- words and times ------------------------------------------------------------------------------------------


def heard(*words: tuple[str, float, float]) -> list[lyrics.Heard]:
    return [lyrics.Heard(f" {text}", start, end) for text, start, end in words]


def test_what_is_heard_is_cut_at_pauses() -> None:
    words = heard(
        ("Over", 1.0, 1.3), ("the", 1.35, 1.5), ("hills,", 1.5, 2.4), ("the", 3.0, 3.2), ("morning", 3.2, 4.0)
    )
    one, two = lyrics.from_heard(words, 10.0)
    assert (one.text, one.start, one.end) == ("Over the hills,", 1.0, 2.4)
    assert (two.text, len(two.words)) == ("the morning", 2)


def test_lyrics_take_their_times_from_what_was_heard_even_where_it_was_misheard() -> None:
    words = heard(("follow", 0.5, 0.8), ("a", 0.8, 0.9), ("river", 0.9, 1.4), ("wear", 3.0, 3.3), ("knows", 3.6, 4.0))
    found = lyrics.spans(lyrics.units("Follow the river"), words)
    assert [span and span.start for span in found] == [0.5, None, 0.9]
    assert lyrics.units("海の hello don’t") == ["海", "の", "hello", "don't"]


def test_overlapping_times_of_a_recogniser_are_put_in_order() -> None:
    phrases = [sung_speech.Phrase("a", 0.0, 2.0), sung_speech.Phrase("b", 1.6, 3.0), sung_speech.Phrase("c", 9.0, 12.0)]
    ordered = lyrics.in_order(phrases, 10.0)
    assert [(p.start, p.end) for p in ordered] == [(0.0, 1.8), (1.8, 3.0), (9.0, 10.0)]
    sung_speech.check_phrases(ordered, 10.0)
    with pytest.raises(sung_speech.Unsingable, match="overlaps"):
        sung_speech.check_phrases(phrases, 10.0)


def test_lines_without_a_recogniser_are_laid_on_the_vocals_phrases() -> None:
    placed = lyrics.lay_out(LINES, source())
    for phrase, line in zip(placed, song().lines, strict=True):
        assert abs(phrase.start - line.start) < 0.15
        assert line.words[-1].vowels[-1] + 0.1 < phrase.end <= line.end + 0.1
    assert lyrics.lines_of("[Verse 1]\n[00:12.50]Over the hills\n\n(x2)\n...\nwe go") == ["Over the hills", "we go"]


def test_short_slips_of_the_octave_are_undone_and_short_holes_bridged() -> None:
    f0 = np.full(200, 220.0)
    f0[60:70] = 110.0
    f0[100:106] = 0.0
    f0[150:190] = 0.0
    f0[170:173] = 300.0
    clean = frames.clean_f0(f0, np.ones(200, bool))
    assert np.allclose(clean[:150], 220.0) and not clean[150:190].any()


def test_spikes_of_the_melody_go_and_notes_and_vibrato_stay() -> None:
    time = np.arange(400) * sung_speech.FRAME_SECONDS
    f0 = 220.0 * 2 ** (0.4 * np.sin(2 * np.pi * 5.5 * time) / 12)
    f0[200:] *= 2 ** (3 / 12)  # the next note
    f0[300:320] = 0.0
    spiky = f0.copy()
    spiky[[50, 51, 52, 120, 121, 250]] *= 2 ** (1.5 / 12)
    smooth = frames.without_spikes(spiky)
    assert np.array_equal(smooth > 0, f0 > 0)
    cents = 1200 * np.abs(np.log2(smooth[f0 > 0] / f0[f0 > 0]))
    assert np.median(cents) < 2 and cents.max() < 35  # the spikes: 150


def test_a_spike_of_the_tracker_is_not_sung(monkeypatch: pytest.MonkeyPatch) -> None:
    def spiky(f0: np.ndarray, audible: np.ndarray) -> np.ndarray:
        tracked = np.full_like(f0, 200.0)
        tracked[100:102] = 240.0
        return tracked

    monkeypatch.setattr(frames, "clean_f0", spiky)
    tone = np.sin(2 * np.pi * 200.0 * np.arange(16_000) / 16_000)
    assert np.array_equal(np.unique(sung_speech.analyze(tone, 16_000).f0), [200.0])
