"""WORLD, the mel cepstrum, the melody of vocals, and the conversion of one voice into another."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soxr

from tests.support.recordings import songs, speech
from tests.support.recordings.speech import MAN, SAMPLE_RATE, SENTENCE, WOMAN, Person
from voices.engines.builtin import conversion, melody, world
from voices.engines.builtin.synthesizer import Synthesizer
from voices.engines.builtin.world import Float32

TEXTS = (SENTENCE, "Please bring a chair and sit down beside me.", "Nobody has seen the small black cat since Monday.")


@pytest.fixture(scope="module")
def synthesizer(tmp_path_factory: pytest.TempPathFactory) -> Synthesizer:
    return Synthesizer(tmp_path_factory.mktemp("bases"))


@pytest.fixture(scope="module")
def analysis() -> world.Analysis:
    return world.analyze(MAN.say(SENTENCE))


def distance_to(truth: Float32, samples: Float32) -> float:
    """Mean difference in dB between 24 mel bands of two recordings of one sentence, laid over each other in time."""
    first, second = (speech.log_mel(x) for x in (truth, samples))
    first, second = first - first.mean(), second - second.mean()
    rows, columns = conversion.warp(first.astype(np.float32), second.astype(np.float32))
    return float(np.abs(first[rows] - second[columns]).mean())


def test_analysis_and_synthesis_keep_length_pitch_and_sound() -> None:
    original = WOMAN.say(SENTENCE)
    analysis = world.analyze(original)
    noise = world.aperiodicity(original.astype(np.float64), analysis.f0)
    assert noise.shape == analysis.log_spectrum.shape and 0 <= noise.min() < 0.2 < noise.max() <= 1
    again = world.synthesize(analysis.f0, analysis.log_spectrum, noise, analysis.sample_count)
    assert len(again) == len(original)
    assert speech.pitch(again.astype(np.float32)) == pytest.approx(speech.pitch(original), rel=0.02)
    assert distance_to(original, again.astype(np.float32)) < 2.5


def test_f0_is_found_where_the_fundamental_is_missing() -> None:
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    harmonics = [np.sin(2 * np.pi * 90 * k * time + 0.3 * k) / k for k in range(1, 20)]
    for first in (0, 1, 2):
        f0, _ = world.track_f0(0.1 * np.sum(harmonics[first:], axis=0))
        assert np.mean(f0 > 0) > 0.9 and np.median(f0[f0 > 0]) == pytest.approx(90, rel=0.02)


def test_audio_too_short_for_world_is_refused() -> None:
    with pytest.raises(ValueError, match="30 ms"):
        world.analyze(np.zeros(500))


def test_the_cepstrum_holds_a_smooth_envelope() -> None:
    mel = 2595 * np.log10(1 + np.linspace(0, SAMPLE_RATE / 2, world.BINS) / 700)
    smooth = (3 * np.cos(mel / 500) - mel / 800)[None].astype(np.float32)
    again = world.log_envelope(world.mel_cepstrum(smooth))
    assert np.abs(again - smooth)[:, 5:-10].max() < 0.1


def test_pauses_are_not_active_and_speech_is() -> None:
    words = MAN.say(SENTENCE)
    parts = world.analyze(np.concatenate([words, np.full(SAMPLE_RATE, 1e-5, np.float32)]))
    second = round(1 / world.FRAME_SECONDS)
    assert not parts.active[-second + 10 :].any()
    assert parts.active[: -second - 20].mean() > 0.6


def test_bandwidth_is_that_of_a_telephone_for_a_telephone_recording() -> None:
    wide = world.resample(WOMAN.say(SENTENCE), SAMPLE_RATE)
    narrow = world.resample(world.resample(wide, SAMPLE_RATE, 8000), 8000)
    assert 3500 < world.bandwidth(narrow) < 4300
    assert world.bandwidth(wide) > 7000
    spliced = narrow.copy()
    spliced[:: round(1.5 * SAMPLE_RATE)] += 0.3
    assert 3500 < world.bandwidth(spliced) < 4300


def test_neighbours_are_those_of_a_full_search() -> None:
    rng = np.random.default_rng(1)
    keys = rng.standard_normal((500, 52)).astype(np.float32)
    queries = rng.standard_normal((3000, 52)).astype(np.float32)
    distances, indices = conversion.nearest(queries, keys, 5)
    full = np.square(queries[:40, None] - keys[None]).sum(axis=2)
    assert [set(row) for row in indices[:40]] == [set(row) for row in np.argsort(full, axis=1)[:, :5]]
    assert np.allclose(np.sort(distances[:40], axis=1), np.sort(full, axis=1)[:, :5], rtol=1e-3, atol=1e-3)


def test_more_neighbours_than_keys_are_all_keys() -> None:
    keys = np.eye(3, dtype=np.float32)
    distances, _ = conversion.nearest(keys, keys, 24)
    assert distances.shape == (3, 3)


def test_warping_finds_a_known_change_of_tempo() -> None:
    rng = np.random.default_rng(2)
    slow = np.cumsum(rng.standard_normal((600, 26)), axis=0).astype(np.float32)
    positions = np.sort(rng.choice(600, 450, replace=False))
    rows, columns = conversion.warp(slow, slow[positions])
    assert (rows[0], columns[0], rows[-1], columns[-1]) == (0, 0, 599, 449)
    steps = np.stack([np.diff(rows), np.diff(columns)])
    assert steps.min() == 0 and steps.max() == 1 and steps.sum(axis=0).min() == 1
    assert np.abs(positions[columns] - rows).max() <= 6


def test_pitch_is_moved_to_the_target_and_kept_in_range(analysis: world.Analysis) -> None:
    source = conversion.measure([analysis])
    target = conversion.measure([world.analyze(WOMAN.say(SENTENCE))])
    moved = conversion.map_f0(analysis.f0, source, target)
    assert np.array_equal(moved > 0, analysis.f0 > 0)
    assert np.median(np.log(moved[moved > 0])) == pytest.approx(target.log_f0_mean, abs=0.06)
    flat = dataclasses.replace(target, log_f0_deviation=0.5 * source.log_f0_deviation)
    melody = [np.log(f0[f0 > 0]).std() for f0 in (analysis.f0, conversion.map_f0(analysis.f0, source, flat))]
    assert melody[1] == pytest.approx(0.5 * melody[0], rel=0.02)
    wild = np.array([0.0, 5.0, 9000.0])
    assert list(conversion.map_f0(wild, source, target)) == [0.0, 60.0, 800.0]


def test_statistics_of_audio_without_a_voice_are_refused() -> None:
    noise = np.random.default_rng(3).standard_normal(SAMPLE_RATE) * 0.1
    quiet = world.analyze(noise)
    quiet.f0[:] = 0
    with pytest.raises(ValueError, match="voiced"):
        conversion.measure([quiet])


def test_the_filter_says_nothing_above_the_targets_bandwidth() -> None:
    difference = np.random.default_rng(4).standard_normal((50, world.CEPSTRUM_SIZE)).astype(np.float32)
    gain = conversion.differential_filter(difference, bandwidth=4000)
    edge = int(0.97 * 4000 / 12000 * 512) + 1
    assert np.ptp(gain[:, edge:], axis=1).max() < 1e-4
    assert np.ptp(gain[:, :edge], axis=1).min() > 0.5
    assert np.abs(conversion.differential_filter(difference * 100, 12000)).max() <= 6.0


def test_prose_gives_the_melody_and_lists_give_the_sounds(analysis: world.Analysis) -> None:
    sounds = conversion.measure([analysis])
    prose = [dataclasses.replace(analysis, f0=analysis.f0 * 0.9)]
    both = conversion.with_melody(sounds, prose)
    assert both.median_hz == pytest.approx(0.9 * sounds.median_hz, rel=0.01)
    assert np.array_equal(both.mean, sounds.mean)


@pytest.mark.parametrize("person", [WOMAN, MAN], ids=["woman", "man"])
def test_converted_speech_is_nearer_to_what_the_person_really_says(synthesizer: Synthesizer, person: Person) -> None:
    profile = synthesizer.prepare(person.reference())
    base = synthesizer.choose_base("en", profile)
    truth = [person.say(text) for text in TEXTS]
    plain = [base.voice.speak(text, 1.0, np.random.default_rng(0), 0.7) for text in TEXTS]
    before = [world.resample(samples, rate).astype(np.float32) for samples, rate in plain]
    after = [synthesizer.speak(text, "en", profile).samples for text in TEXTS]
    colours = [np.concatenate([speech.log_mel(x) for x in said]).mean(axis=0) for said in (truth, before, after)]
    true_colour, *others = (colour - colour.mean() for colour in colours)
    apart = [float(np.abs(colour - true_colour).mean()) for colour in others]
    assert apart[1] < 0.8 * apart[0], apart
    # Sound by sound too it is no further off: half of that distance is the noise that no two takes share.
    distances = [np.mean([distance_to(t, x) for t, x in zip(truth, said, strict=True)]) for said in (before, after)]
    assert distances[1] < 1.02 * distances[0], distances


def test_the_cache_of_a_base_voice_is_made_anew_when_it_is_damaged(tmp_path: Path) -> None:
    from voices.engines.builtin import base_voices

    voice = speech.base_voice("heart")

    class Short:
        name, language, version = "short", "en", "1"
        beta, beta_aligned, usual_tempo = 0.6, 0.6, 1.0
        speak = staticmethod(voice.speak)

        @staticmethod
        def calibration() -> list[str]:
            return voice.calibration()[:3]

        @staticmethod
        def prose() -> list[str]:
            return voice.prose()[:2]

    path = tmp_path / base_voices.base_file(Short())
    first = base_voices.load_base(Short(), tmp_path)
    assert path.exists() and len(first.frames) > 500
    path.write_bytes(path.read_bytes()[:1000])
    again = base_voices.load_base(Short(), tmp_path)
    assert np.array_equal(first.frames.cepstrum, again.frames.cepstrum)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def at_24_khz(samples: songs.Audio) -> songs.Audio:
    return np.ascontiguousarray(soxr.resample(samples.mean(axis=1), songs.RATE, world.SAMPLE_RATE))


@pytest.fixture(scope="module")
def sung() -> tuple[songs.Audio, songs.Audio, songs.Audio]:
    """The vocal, the band, both mono at 24 kHz, and the vocal's true melody."""
    _, vocal, band = songs.song(12.0, 1)
    alone = at_24_khz(vocal)
    return alone, at_24_khz(band), songs.pitch_track(alone, world.SAMPLE_RATE)


@pytest.mark.parametrize("left_db", [-16.0, -6.0])
def test_accompaniment_that_was_left_in_a_vocal_is_not_sung_along(
    sung: tuple[songs.Audio, ...], left_db: float
) -> None:
    vocal, band, true = sung
    found = melody.track(vocal + 10 ** (left_db / 20) * band)
    both = (found > 0) & (true > 0)
    cents = 1200 * np.abs(np.log2(found[both] / true[both]))
    assert np.mean(cents >= 300) <= 0.02
    assert np.mean(cents < 50) >= 0.93
    assert np.sum((found > 0) & (true == 0)) <= 0.02 * np.sum(found > 0)
    assert both.sum() >= 0.65 * (true > 0).sum()  # The rest are ends of notes, which the band covers.


def test_of_a_clean_vocal_every_voiced_frame_is_found(sung: tuple[songs.Audio, ...]) -> None:
    vocal, _, true = sung
    found = melody.track(vocal)
    both = (found > 0) & (true > 0)
    assert both.sum() >= 0.95 * (true > 0).sum()
    assert np.median(1200 * np.abs(np.log2(found[both] / true[both]))) < 3


def test_a_quiet_vocal_has_the_same_melody_as_a_loud_one(sung: tuple[songs.Audio, ...]) -> None:
    vocal, band, _ = sung
    mixed = vocal + 0.3 * band
    loud, quiet = melody.track(mixed), melody.track(mixed * 1e-3)
    both = (loud > 0) & (quiet > 0)
    assert both.sum() >= 0.98 * (loud > 0).sum()
    np.testing.assert_allclose(loud[both], quiet[both], rtol=0.01)


@pytest.mark.parametrize("count", [1, 500, 30_000])
def test_silence_has_no_melody_however_short_it_is(count: int) -> None:
    assert not melody.track(np.zeros(count)).any()
