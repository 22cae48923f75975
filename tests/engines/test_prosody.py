"""Tempo, pauses, questions, and what is left to chance."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.support.recordings import speech
from tests.support.recordings.speech import MAN, SAMPLE_RATE, WOMAN, Person
from voices.engines.builtin import prosody, psola, world
from voices.engines.builtin.engine import pause_after
from voices.engines.builtin.languages.questions import CHINESE, ENGLISH, JAPANESE, question
from voices.engines.builtin.profiles import VoiceProfile
from voices.engines.builtin.synthesizer import LEAD_SECONDS, TAIL_SECONDS, Synthesizer
from voices.engines.builtin.world import Analysis, Float32, Float64
from voices.text.reading import read

MS = SAMPLE_RATE // 1000


@pytest.fixture(scope="module")
def synthesizer() -> Synthesizer:
    return Synthesizer()


@pytest.fixture(scope="module")
def words() -> Float64:
    return world.resample(WOMAN.say("Please bring a chair and sit down beside me."), SAMPLE_RATE)


def with_statistics(profile: VoiceProfile, **changes: float) -> VoiceProfile:
    return dataclasses.replace(profile, statistics=dataclasses.replace(profile.statistics, **changes))


def level_db(analysis: Analysis) -> Float64:
    return 10 * np.log10(np.exp(analysis.log_spectrum.astype(np.float64)).mean(axis=1) + 1e-14)


def end_of_melody(samples: Float32) -> tuple[float, float]:
    """Semitones a second over the last 250 ms of voice, and the very end against the median, in semitones."""
    analysis = world.analyze(samples)
    level = level_db(analysis)
    at = np.flatnonzero(analysis.voiced & (level > np.median(level[analysis.voiced]) - 12))
    semitones = 12 * np.log2(analysis.f0[at])
    # The tracker finds creak an octave or two too low.
    true = semitones > np.median(semitones) - 9
    at, semitones = at[true], semitones[true]
    near = at > at[-1] - 50
    slope = np.polyfit(at[near] * world.FRAME_SECONDS, semitones[near], 1)[0]
    return float(slope), float(np.median(semitones[-6:]) - np.median(semitones))


@pytest.mark.parametrize(
    ("text", "rises"),
    [
        ("Are you coming to the party?", True),
        ("You are coming to the party?", True),
        ("It is cold today, isn't it?", True),
        ("When you get there, will you call me?", True),
        ("Do you know where he is?", True),
        ("Really?!", True),
        ('He asked "are you coming?"', True),
        ("Where did you put the keys?", False),
        ("And who's that?", False),
        ("If it rains, where do we go?", False),
        ("To whom does it belong?", False),
        ("Would you like tea or coffee?", False),
        ("Are you coming to the party.", False),
        ("Is this a question? No.", False),
    ],
)
def test_english_rises_where_yes_or_no_is_the_answer(text: str, rises: bool) -> None:
    assert question(text, "en") == (ENGLISH if rises else None)


def test_japanese_questions_rise_and_chinese_ones_without_a_question_word() -> None:
    assert question("これは何ですか？", "ja") == question("明日は学校に行く？", "ja") == JAPANESE
    assert question("明日は学校に行きます。", "ja") is None
    assert question("你明天去学校吗？", "zh") == question("你明天去学校？", "zh") == CHINESE
    for text in ("这是什么？", "你去不去？", "你有没有钱？", "他是谁？", "你明天去学校。"):
        assert question(text, "zh") is None


@pytest.mark.parametrize("person", [WOMAN, MAN], ids=["woman", "man"])
def test_the_pitch_of_a_yes_or_no_question_rises_at_its_end(synthesizer: Synthesizer, person: Person) -> None:
    profile = synthesizer.prepare(person.reference())

    def ends(mark: str) -> tuple[float, float]:
        # Of several: processors round differently, and where the voice creaks the pitch is not found.
        said = [
            synthesizer.speak(f"You really want to buy a car{mark}", "en", profile, 1.0, 0.3, seed).samples
            for seed in (2, 3, 4)
        ]
        slope, end = np.median([end_of_melody(samples) for samples in said], axis=0)
        return float(slope), float(end)

    asked, told = ends("?"), ends(".")
    assert asked[0] > 5 and asked[1] > 0, (asked, told)
    assert asked[1] > told[1] + 2, (asked, told)


def test_the_engines_own_voices_rise_too(synthesizer: Synthesizer) -> None:
    slope, end = end_of_melody(synthesizer.speak_preset("You really want to buy a car?", "en", "female").samples)
    assert slope > 5 and end > 1


def test_tones_are_kept_in_a_chinese_question(words: Float64) -> None:
    analysis = world.analyze(words)
    risen = prosody.rise(analysis.f0, analysis, float(np.log(230)), 0.15, CHINESE)
    voiced = analysis.f0 > 0
    moved = 12 * np.log2(risen[voiced] / analysis.f0[voiced])
    assert moved.min() >= 0 and 2.5 < moved.max() < 7.5
    assert np.abs(np.diff(moved)).max() < 1.0
    assert not moved[: len(moved) // 2].any()


def test_silence_and_whispers_do_not_rise() -> None:
    noise = world.analyze(np.random.default_rng(1).standard_normal(SAMPLE_RATE) * 0.01)
    whisper = dataclasses.replace(noise, f0=np.zeros(len(noise)))
    assert not prosody.rise(whisper.f0, whisper, 5.0, 0.2, ENGLISH).any()


@pytest.mark.parametrize(("seconds", "least", "most"), [(0.2, 0.7, 0.95), (0.26, 0.93, 1.12), (0.6, 1.25, 1.61)])
def test_pauses_are_measured_on_the_reference(words: Float64, seconds: float, least: float, most: float) -> None:
    hiss = np.random.default_rng(2).standard_normal(round(seconds * SAMPLE_RATE)) * 1e-4
    loud = words[np.flatnonzero(np.abs(words) > 0.02)[0] : np.flatnonzero(np.abs(words) > 0.02)[-1]]
    reference = np.concatenate([loud, hiss] * 5 + [loud])
    assert least < prosody.pause_factor([world.analyze(reference)]) < most
    # Where recordings were joined nobody pauses.
    joined = np.concatenate([loud, 0 * hiss] * 5 + [loud])
    if seconds > 0.25:
        assert prosody.pause_factor([world.analyze(joined)]) == pytest.approx(
            prosody.pause_factor([world.analyze(loud)]), abs=0.1
        )


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.5])
def test_a_pause_behind_a_sentence_is_as_long_as_the_speakers_to_the_millisecond(
    synthesizer: Synthesizer, factor: float
) -> None:
    profile = with_statistics(synthesizer.prepare(WOMAN.reference()), pauses=factor)
    said = synthesizer.speak("I came home.", "en", profile, speed=1.25, seed=1, pause_seconds=0.35).samples
    silent = len(said) - 1 - int(np.flatnonzero(said)[-1])
    assert abs(silent - 0.35 * factor / 1.25 * SAMPLE_RATE) <= MS


def test_pauses_inside_a_sentence_have_their_length_and_the_words_theirs(words: Float64) -> None:
    gap = round(0.3 * SAMPLE_RATE)
    loud = words[np.flatnonzero(np.abs(words) > 0.02)[0] : np.flatnonzero(np.abs(words) > 0.02)[-1]]
    spoken = np.concatenate([loud, np.zeros(gap), loud])
    analysis = world.analyze(spoken)
    (start, stop) = max(prosody.gaps(analysis.active, 20), key=lambda g: g[1] - g[0])
    own = (stop - start) * world.FRAME_SECONDS
    for factor in (0.6, 1.5):
        speeds = prosody.speeds(analysis.active, 1.0, factor)
        made = psola.render(spoken, analysis.f0, analysis.f0, np.zeros_like(analysis.log_spectrum), speeds)
        grown = (len(made) - len(spoken)) / SAMPLE_RATE
        others = [b - a for a, b in prosody.gaps(analysis.active, 25) if (a, b) != (start, stop)]
        assert grown == pytest.approx((factor - 1) * (own + sum(others) * world.FRAME_SECONDS), abs=0.006)
    faster = prosody.speeds(analysis.active, 1.2, 1.2)
    assert np.mean(faster == 1.2) > 0.8 and faster[(start + stop) // 2] == pytest.approx(1.0, rel=0.1)


def test_marks_have_pauses_of_their_own() -> None:
    text = "Is it late? It is late. Well, I thought… She said this: go."
    pauses = [pause_after(sentence) for sentence in read(text, "en").sentences]
    assert pauses[0] > pauses[1] > 0
    assert all(0 <= pause <= 0.6 for pause in pauses)
    first, *_ = read("One line.\n\nAnother one.", "en").sentences
    assert pause_after(first) > pauses[0]


def test_whoever_speaks_faster_is_spoken_for_faster(synthesizer: Synthesizer, words: Float64) -> None:
    analysis = world.analyze(words)
    found = []
    for speed in (0.8, 1.0, 1.25):
        said = psola.render(words, analysis.f0, analysis.f0, np.zeros_like(analysis.log_spectrum), speed)
        again = world.analyze(said)
        found.append(prosody.movement([again.cepstrum], [again.active]))
    assert found[0] < found[1] < found[2]
    profile = synthesizer.prepare(WOMAN.reference())
    base = synthesizer.choose_base("en", profile)
    lengths = {}
    for tempo in (0.8, 1.1):
        movement = base.statistics.movement * (tempo / base.voice.usual_tempo) ** (1 / prosody.TEMPO_OF_MOVEMENT)
        own = with_statistics(profile, movement=movement, pauses=1.0)
        lengths[tempo] = len(synthesizer.speak("I came home.", "en", own, temperature=0.1, seed=1).samples)
    margins = (LEAD_SECONDS + TAIL_SECONDS) * SAMPLE_RATE
    assert lengths[0.8] / lengths[1.1] == pytest.approx(1.1 / 0.8, rel=0.02), margins


def test_tempo_is_bounded_and_the_usual_one_where_nothing_is_known() -> None:
    assert prosody.tempo_by_movement(0.0, 0.4, 0.9) == prosody.tempo_by_movement(0.4, 0.0, 0.9) == 0.9
    little, much = (prosody.tempo_by_movement(0.4, 0.44, 0.9, seconds) for seconds in (1.0, 10.0))
    assert 0.9 < little < much < prosody.FASTEST
    assert prosody.tempo_by_movement(0.4, 9.0, 0.9) == prosody.FASTEST
    assert prosody.tempo_by_movement(0.4, 0.01, 0.9) == prosody.SLOWEST


def test_temperature_moves_melody_and_tempo_within_bounds(synthesizer: Synthesizer) -> None:
    profile = synthesizer.prepare(WOMAN.reference())

    def lengths_and_pitches(temperature: float) -> tuple[list[int], list[float]]:
        said = [
            synthesizer.speak("I came home.", "en", profile, temperature=temperature, seed=n).samples for n in range(5)
        ]
        return [len(x) for x in said], [speech.pitch(x) for x in said]

    (calm, calm_hz), (lively, lively_hz) = lengths_and_pitches(0.1), lengths_and_pitches(1.0)
    assert np.std(np.log(lively)) > 2 * np.std(np.log(calm))
    assert np.std(np.log(lively_hz)) > 1.5 * np.std(np.log(calm_hz))
    assert max(lively) / min(lively) < 1.2
    assert max(lively_hz) / min(lively_hz) < 2 ** (5 / 12)


def test_a_tracker_that_finds_creak_an_octave_low_is_corrected() -> None:
    f0 = np.array([0.0, 200, 205, 198, 202, 100, 98, 50, 0, 180])
    assert list(prosody.without_creak(f0)) == [0, 200, 205, 198, 202, 200, 196, 200, 0, 180]
    assert not prosody.without_creak(np.zeros(4)).any()
