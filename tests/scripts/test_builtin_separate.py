"""gpu_scripts/builtin_separate.py as the pipeline runs it: a process, files in, files out."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from tests.scripts.script_server import SCRIPTS, Done
from tests.support.recordings import songs

SCRIPT = SCRIPTS / "builtin_separate.py"
RATE = songs.RATE


def arguments(folder: Path, *more: str) -> list[str]:
    outputs = ["--vocal", str(folder / "vocal.wav"), "--inst", str(folder / "inst.wav")]
    return ["--input", str(folder / "song.wav"), *outputs, *more]


def command(folder: Path, *more: str) -> list[str]:
    return [sys.executable, str(SCRIPT), *arguments(folder, *more)]


def separate(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """By a process of its own."""
    return subprocess.run(command(folder, *more), capture_output=True, text=True, timeout=120)


def read(path: Path) -> songs.Audio:
    samples, rate = sf.read(path, always_2d=True)
    assert rate == RATE
    return np.asarray(samples)


def fractions(stdout: str) -> list[float]:
    return [float(found) for found in re.findall(r"^PROGRESS (\S+)$", stdout, re.MULTILINE)]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., None]:
    def write_song(samples: songs.Audio, rate: int = RATE, subtype: str = "FLOAT") -> None:
        sf.write(tmp_path / "song.wav", samples, rate, subtype=subtype)

    return write_song


@pytest.fixture(scope="module")
def separated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("separated")
    sf.write(folder / "song.wav", songs.song()[0], RATE, subtype="FLOAT")
    return folder, separate(folder)


def test_voice_and_band_come_out_far_cleaner_than_they_went_in(separated):
    folder, result = separated
    assert result.returncode == 0, result.stderr
    mix, vocal, backing = songs.song()
    voice_gain = songs.sdr(vocal, read(folder / "vocal.wav")) - songs.sdr(vocal, mix)
    backing_gain = songs.sdr(backing, read(folder / "inst.wav")) - songs.sdr(backing, mix)
    assert voice_gain > 9, voice_gain
    assert backing_gain > 7, backing_gain


def test_both_stems_are_as_long_as_the_song_and_add_up_to_it(separated):
    folder, _ = separated
    mix, vocal, inst = read(folder / "song.wav"), read(folder / "vocal.wav"), read(folder / "inst.wav")
    assert vocal.shape == inst.shape == mix.shape
    assert np.max(np.abs(vocal + inst - mix)) < 1e-6


def test_progress_never_falls_and_ends_at_one(separated):
    _, result = separated
    told = fractions(result.stdout)
    assert told[0] == 0 and told[-1] == 1
    assert told == sorted(set(told))
    assert len(told) > 8


def test_nothing_but_the_two_stems_is_left(separated):
    folder, _ = separated
    assert {path.name for path in folder.iterdir()} == {"song.wav", "vocal.wav", "inst.wav"}


def test_a_song_of_several_chunks_is_seamless(server, tmp_path, write):
    mix, vocal, _ = songs.song()
    n = 53 * RATE
    long = np.tile(mix, (5, 1))[:n]
    write(long)
    done = server.run(*arguments(tmp_path))
    assert done.exit_code == 0, done.message
    got = read(tmp_path / "vocal.wav")
    assert len(got) == n
    assert np.max(np.abs(got + read(tmp_path / "inst.wav") - long)) < 1e-6
    # Every stretch of the voice is found, those where two chunks meet too.
    wanted = np.tile(vocal, (5, 1))[:n]
    loudness = [
        10 * np.log10(np.sum(got[at : at + RATE] ** 2) / np.sum(wanted[at : at + RATE] ** 2))
        for at in range(0, n - RATE, RATE)
        if np.mean(wanted[at : at + RATE] ** 2) > 0.2 * np.mean(wanted**2)
    ]
    assert len(loudness) > 25
    assert max(np.abs(loudness)) < 4, loudness


@pytest.mark.parametrize("channels", [1, 2])
def test_a_mono_song_is_separated_and_the_listener_is_warned(server, tmp_path, write, channels):
    mix, vocal, _ = songs.song()
    middle, voice = mix.mean(axis=1), vocal.mean(axis=1)
    write(np.stack([middle] * channels, axis=1)[: 8 * RATE])
    done = server.run(*arguments(tmp_path))
    assert done.exit_code == 0, done.message
    assert any("mono" in warning for warning in done.warnings)
    got = read(tmp_path / "vocal.wav")
    assert got.shape == (8 * RATE, 2)
    np.testing.assert_array_equal(got[:, 0], got[:, 1])
    gain = songs.sdr(voice[: len(got)], got[:, 0]) - songs.sdr(voice[: len(got)], middle[: len(got)])
    assert gain > 6.3, gain
    both = np.stack([voice, voice], axis=1)[: len(got)]
    assert songs.leftover_db(both, got) < -12
    assert done.separation["place"] == "mono"


def test_a_stereo_song_is_not_warned_about(separated):
    _, result = separated
    assert "WARNING" not in result.stderr


def test_a_voice_at_one_side_alone_is_kept(server, tmp_path, write):
    mix = songs.song()[0][: 5 * RATE].copy()
    mix[:, 1] = 0
    write(mix)
    done = server.run(*arguments(tmp_path))
    assert done.exit_code == 0, done.message
    assert done.warnings
    vocal = read(tmp_path / "vocal.wav")
    assert np.sum(vocal[:, 0] ** 2) > 0.1 * np.sum(mix[:, 0] ** 2)
    assert np.max(np.abs(vocal[:, 1])) == 0


@pytest.mark.parametrize("samples", [100, RATE + RATE // 2])
def test_a_song_of_under_two_seconds_works(server, tmp_path, write, samples):
    mix = songs.song()[0][2 * RATE : 2 * RATE + samples]
    write(mix)
    done = server.run(*arguments(tmp_path))
    assert done.exit_code == 0, done.message
    vocal, inst = read(tmp_path / "vocal.wav"), read(tmp_path / "inst.wav")
    assert len(vocal) == len(inst) == samples
    assert np.isfinite(vocal).all()
    assert np.max(np.abs(vocal + inst - mix)) < 1e-6


@pytest.mark.parametrize(("rate", "subtype"), [(48000, "PCM_16"), (22050, "PCM_24")])
def test_other_sample_rates_come_out_at_44100_and_as_long(server, tmp_path, write, rate, subtype):
    import soxr

    n = 3 * rate + 77
    mix = soxr.resample(songs.song()[0], RATE, rate)[:n]
    write(mix, rate, subtype)
    done = server.run(*arguments(tmp_path))
    assert done.exit_code == 0, done.message
    total = read(tmp_path / "vocal.wav") + read(tmp_path / "inst.wav")
    assert len(total) == round(n * RATE / rate)
    wanted = soxr.resample(mix, rate, RATE)[: len(total)]
    assert songs.sdr(wanted, total[: len(wanted)]) > 40


def inverted(audio: songs.Audio) -> songs.Audio:
    return audio * (1, -1)


def late(audio: songs.Audio) -> songs.Audio:
    """The right side 15 ms later."""
    out = audio.copy()
    out[662:, 1], out[:662, 1] = audio[:-662, 1], 0
    return out


def panned(audio: songs.Audio) -> songs.Audio:
    """6 dB louder at the left, as loud in all."""
    return audio * np.sqrt(2 / (1 + 10**-0.6)) * (1, 10**-0.3)


def same(audio: songs.Audio) -> songs.Audio:
    return audio


PLACES = [
    # what becomes of the voice, of the rest; what is told: dB to the left, a side inverted, ms that the right is late
    pytest.param(same, same, (0, False, 0), id="in the middle"),
    pytest.param(panned, same, (6, False, 0), id="6 dB to the left"),
    pytest.param(inverted, inverted, (0, True, 0), id="all of the right inverted"),
    pytest.param(inverted, same, (0, True, 0), id="the voice's right inverted"),
    pytest.param(late, same, (0, False, 15), id="the voice's right late"),
]


@pytest.mark.parametrize(("place", "place_rest", "told"), PLACES)
def test_the_lead_is_found_where_it_stands_and_leaves_the_accompaniment(
    server, tmp_path, write, place, place_rest, told
):
    _, vocal, backing = (part[: 8 * RATE] for part in songs.song())
    vocal = place(vocal)
    write(vocal + place_rest(backing))
    done = server.run(*arguments(tmp_path))
    assert done.exit_code == 0, done.message
    left = songs.leftover_db(vocal, read(tmp_path / "vocal.wav"))
    assert left < -12, left
    found = done.separation["place"]
    assert (round(found["pan_db"]), found["inverted"], round(found["delay_ms"])) == told
    assert not found["spread"]
    assert abs(done.separation["leftover_db"] - left) < 9, (done.separation, left)


def test_two_singers_at_two_places_are_both_found(server, tmp_path, write):
    _, vocal, backing = (part[: 10 * RATE] for part in songs.song())
    first = np.arange(len(vocal)) < len(vocal) // 2
    both = np.where(first[:, None], panned(vocal), panned(vocal)[:, ::-1])
    write(both + backing)
    done = server.run(*arguments(tmp_path))
    got = read(tmp_path / "vocal.wav")
    assert max(songs.leftover_db(both[half], got[half]) for half in (first, ~first)) < -10
    found = done.separation["place"]
    assert sorted((found["pan_db"], found["second_pan_db"])) == pytest.approx([-6, 6], abs=1)


def test_reverberation_all_around_is_told_as_no_place(server, tmp_path, write):
    _, vocal, backing = (part[: 8 * RATE] for part in songs.song())
    hall = songs.room(vocal.mean(axis=1), seed=9, wet=1.2, seconds=1.5)
    write(hall + backing)
    done = server.run(*arguments(tmp_path))
    assert songs.leftover_db(hall, read(tmp_path / "vocal.wav")) < -9
    assert done.separation["place"]["spread"]


def test_without_a_voice_most_of_the_song_stays_accompaniment(server, tmp_path, write):
    backing = songs.song()[2][: 8 * RATE]
    write(backing)
    done = server.run(*arguments(tmp_path))
    share = np.sum(read(tmp_path / "vocal.wav") ** 2) / np.sum(backing**2)
    assert share < 0.2, share
    assert done.separation["lead_share"] == pytest.approx(share, abs=0.01)


def test_the_findings_are_one_short_line(separated):
    _, result = separated
    (line,) = re.findall(r"^SEPARATION .*$", result.stdout, re.MULTILINE)
    assert len(line) <= 240
    found = json.loads(line.removeprefix("SEPARATION "))
    assert found["place"]["pan_db"] == 0
    assert 0.2 < found["lead_share"] < 0.8
    assert found["leftover_db"] < -8


def refused(folder: Path, done: Done | subprocess.CompletedProcess[str], code: int, words: str) -> None:
    """With one line that says why."""
    found, said = (done.exit_code, done.printed) if isinstance(done, Done) else (done.returncode, done.stderr)
    assert found == code, said
    assert words in said
    assert len(said.strip().splitlines()) == 1
    assert {path.name for path in folder.iterdir()} <= {"song.wav"}


def test_silence_is_exit_code_4(server, tmp_path, write):
    write(np.zeros((3 * RATE, 2)))
    refused(tmp_path, server.run(*arguments(tmp_path)), 4, "silent")


def test_eight_channels_are_exit_code_3(server, tmp_path, write):
    write(np.tile(songs.song()[0][:RATE, :1], (1, 8)))
    refused(tmp_path, server.run(*arguments(tmp_path)), 3, "8 channels")


def test_samples_that_are_not_numbers_are_exit_code_3(server, tmp_path, write):
    mix = songs.song()[0][: 2 * RATE].copy()
    mix[RATE, 1] = np.nan
    write(mix)
    refused(tmp_path, server.run(*arguments(tmp_path)), 3, "not numbers")


@pytest.mark.parametrize("content", [None, b"", b"not a song at all" * 99, b"RIFF\x24\x00\x00\x00WAVEfmt "])
def test_what_is_not_audio_is_exit_code_3(server, tmp_path, content):
    if content is not None:
        (tmp_path / "song.wav").write_bytes(content)
    refused(tmp_path, server.run(*arguments(tmp_path)), 3, "song.wav")


def test_bad_arguments_are_exit_code_2_and_one_line(tmp_path, write):
    write(songs.song()[0][:RATE])
    refused(tmp_path, separate(tmp_path, "--nonsense"), 2, "--nonsense")
    refused(tmp_path, separate(tmp_path, "--inst", str(tmp_path / "vocal.wav")), 2, "different files")


def test_an_output_folder_that_is_missing_is_exit_code_6(server, tmp_path, write):
    write(songs.song()[0][:RATE])
    none = str(tmp_path / "none" / "v.wav")
    refused(tmp_path, server.run(*arguments(tmp_path, "--vocal", none)), 6, "no such folder")


def test_a_full_disk_is_exit_code_18_with_its_reason_and_leaves_nothing(tmp_path, write, small_disk):
    write(np.random.default_rng(5).normal(0, 0.1, (8 * RATE, 2)))
    ended = separate(tmp_path, "--vocal", str(small_disk / "vocal.wav"), "--inst", str(small_disk / "inst.wav"))
    assert ended.returncode == 18
    assert ended.stderr.endswith("inst.wav: [Errno 28] No space left on device\n")
    assert list(small_disk.iterdir()) == []


def test_an_ended_separation_leaves_nothing(tmp_path, write):
    write(np.tile(songs.song()[0], (6, 1)))
    with subprocess.Popen(command(tmp_path), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if float(line.split()[1]) > 0.1:
                break
        assert list(tmp_path.glob(".*.part")), "it was not yet writing"
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(20) == 128 + signal.SIGTERM
    assert {path.name for path in tmp_path.iterdir()} == {"song.wav"}
