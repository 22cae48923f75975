"""gpu_scripts/builtin_infer.py as the pipeline runs it, and voices/engines/builtin/singing.py under it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr

from tests.scripts.script_server import SCRIPTS, Done
from tests.support.recordings import songs
from voices.engines.builtin import conversion, singing, world

SCRIPT = SCRIPTS / "builtin_infer.py"
RATE = songs.RATE
REFERENCE_TEXT = "The quick brown fox jumps over the lazy dog, and nobody minded that it was late."
PAUSE = slice(2 * RATE, 5 * RATE // 2)


@lru_cache(maxsize=1)
def reference() -> songs.Audio:
    """Another speaker than the one who sings: mono, 24 kHz."""
    return songs.other_speaker(songs.speech(REFERENCE_TEXT), 24000)


@lru_cache(maxsize=1)
def vocal() -> songs.Audio:
    """Four seconds of singing at 44.1 kHz, mono, with half a second of digital silence in it."""
    sung = songs.sing(songs.speech(songs.LINES[0]), 24000, seed=4)[: 4 * RATE].copy()
    sung[PAUSE] = 0
    return np.asarray(0.5 * sung / np.max(np.abs(sung)))


@lru_cache(maxsize=1)
def target() -> singing.Target:
    return singing.prepare(reference().astype(np.float32), 24000)


def arguments(folder: Path, *more: str) -> list[str]:
    files = ["--reference", str(folder / "reference.wav"), "--input", str(folder / "vocal.wav")]
    return [*files, "--output", str(folder / "out.wav"), "--pitch", "0", *more]


def command(folder: Path, *more: str) -> list[str]:
    return [sys.executable, str(SCRIPT), *arguments(folder, *more)]


def infer(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """By a process of its own."""
    return subprocess.run(command(folder, *more), capture_output=True, text=True, timeout=120)


def read(path: Path) -> songs.Audio:
    samples, rate = sf.read(path, always_2d=True)
    assert rate == RATE
    return np.asarray(samples)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sf.write(tmp_path / "reference.wav", reference(), 24000)
    sf.write(tmp_path / "vocal.wav", np.stack([vocal(), vocal()], axis=1), RATE, subtype="FLOAT")
    return tmp_path


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    path = tmp_path_factory.mktemp("converted")
    sf.write(path / "reference.wav", reference(), 24000)
    sf.write(path / "vocal.wav", np.stack([vocal(), vocal()], axis=1), RATE, subtype="FLOAT")
    return path, infer(path)


def cents_apart(first: songs.Audio, second: songs.Audio) -> songs.Audio:
    """Pitch of the second over the first, in cents, where both are voiced."""
    tracks = [songs.pitch_track(soxr.resample(x, RATE, 24000), 24000) for x in (first, second)]
    both = (tracks[0] > 0) & (tracks[1] > 0)
    assert both.sum() > 0.8 * (tracks[0] > 0).sum()
    return 1200 * np.log2(tracks[1][both] / tracks[0][both])


def envelope(samples: songs.Audio) -> songs.Audio:
    return np.sqrt(np.convolve(samples**2, np.ones(882) / 882, mode="same")[::220])


def test_the_melody_stays_within_ten_cents(converted):
    folder, result = converted
    assert result.returncode == 0, result.stderr
    cents = cents_apart(vocal(), read(folder / "out.wav")[:, 0])
    assert np.median(np.abs(cents)) < 10
    # The rest are edges of voicing, where the tracker itself jumps. How many they are differs with the processor, since
    # onnxruntime's speech, which is sung here, does.
    assert np.mean(np.abs(cents) < 50) > 0.8


def test_it_is_exactly_as_long_and_as_loud_where_it_was(converted):
    folder, _ = converted
    out = read(folder / "out.wav")
    assert out.shape == (len(vocal()), 2)
    np.testing.assert_array_equal(out[:, 0], out[:, 1])
    assert np.corrcoef(envelope(vocal()), envelope(out[:, 0]))[0, 1] > 0.93
    assert 0.7 < np.sqrt(np.mean(out**2) / np.mean(vocal() ** 2)) < 1.4


def test_silence_stays_silent(converted):
    folder, _ = converted
    margin = RATE // 20
    pause = read(folder / "out.wav")[PAUSE.start + margin : PAUSE.stop - margin]
    assert np.max(np.abs(pause)) < 1e-8


def timbre(samples: songs.Audio, rate: int) -> songs.Audio:
    """Mean cepstrum of voiced frames without the loudness: (39,)."""
    analysis = world.analyze(samples, rate)
    return conversion.measure([analysis]).mean[1, 1:].astype(np.float64)


def test_the_timbre_moves_toward_the_reference(converted):
    folder, _ = converted
    before, after, wanted = (
        timbre(vocal(), RATE), timbre(read(folder / "out.wav")[:, 0], RATE), timbre(reference(), 24000)
    )  # fmt: skip
    assert np.linalg.norm(after - wanted) < 0.7 * np.linalg.norm(before - wanted)


def test_progress_never_falls_and_ends_at_one(converted):
    _, result = converted
    told = [float(found) for found in re.findall(r"^PROGRESS (\S+)$", result.stdout, re.MULTILINE)]
    assert told[0] == 0 and told[-1] == 1
    assert told == sorted(set(told))
    assert len(told) >= 5


def test_nothing_but_the_output_is_left(converted):
    folder, _ = converted
    assert {path.name for path in folder.iterdir()} == {"reference.wav", "vocal.wav", "out.wav"}


@pytest.mark.parametrize("semitones", [-5])
def test_pitch_moves_the_melody_by_so_many_semitones(server, folder, semitones):
    done = server.run(*arguments(folder, "--pitch", str(semitones)))
    assert done.exit_code == 0, done.message
    cents = cents_apart(vocal(), read(folder / "out.wav")[:, 0])
    assert abs(np.median(cents) - 100 * semitones) < 10


def test_a_mono_vocal_of_another_rate_comes_out_mono_at_44100(server, folder):
    n = 2 * 32000 + 13
    sf.write(folder / "vocal.wav", soxr.resample(vocal(), RATE, 32000)[:n], 32000)
    done = server.run(*arguments(folder, "--model-id", "any", "--project-root", str(SCRIPT.parent.parent)))
    assert done.exit_code == 0, done.message
    assert read(folder / "out.wav").shape == (round(n * RATE / 32000), 1)


def test_a_project_root_without_the_engine_is_refused_also_by_a_process_that_has_loaded_another(server, folder):
    done = server.run(*arguments(folder, "--project-root", str(folder)))
    assert (done.exit_code, (folder / "out.wav").exists()) == (2, False)
    result = infer(folder, "--project-root", str(folder))
    assert result.returncode == 2
    assert result.stderr == f"{SCRIPT.name}: --project-root {folder} does not hold voices/engines/builtin\n"


def test_channels_that_cancel_out_are_still_converted(server, folder):
    sf.write(folder / "vocal.wav", np.stack([vocal(), -vocal()], axis=1)[: 2 * RATE], RATE)
    assert server.run(*arguments(folder)).exit_code == 0
    assert np.sqrt(np.mean(read(folder / "out.wav") ** 2)) > 0.3 * np.sqrt(np.mean(vocal()[: 2 * RATE] ** 2))


def test_pieces_meet_without_a_trace(monkeypatch):
    whole = singing.convert(vocal().astype(np.float32), RATE, target(), 0)
    monkeypatch.setattr(singing, "PIECE_FRAMES", 300)
    monkeypatch.setattr(singing, "SEEK_FRAMES", 200)
    pieces = singing.convert(vocal().astype(np.float32), RATE, target(), 0)
    assert len(pieces) == len(whole)
    assert np.median(np.abs(cents_apart(whole.astype(float), pieces.astype(float)))) < 5
    assert np.corrcoef(envelope(whole), envelope(pieces))[0, 1] > 0.98
    # A click would be a step that the whole never makes.
    assert np.max(np.abs(np.diff(pieces))) < 1.5 * np.max(np.abs(np.diff(whole)))


def test_what_is_above_the_vocoder_stays():
    sharp = vocal() + 0.01 * np.sin(2 * np.pi * 15000 * np.arange(len(vocal())) / RATE)
    out = singing.convert(sharp.astype(np.float32), RATE, target(), 0)
    power = np.abs(np.fft.rfft(out)) ** 2
    near = np.abs(np.fft.rfftfreq(len(out), 1 / RATE) - 15000) < 20
    assert 0.7 < np.sqrt(power[near].sum() * 2) / len(out) / (0.01 / np.sqrt(2)) < 1.3


def refused(folder: Path, done: Done | subprocess.CompletedProcess[str], code: int, words: str) -> None:
    """With one line that says why."""
    found, said = (done.exit_code, done.printed) if isinstance(done, Done) else (done.returncode, done.stderr)
    assert found == code, said
    assert words in said
    assert len(said.strip().splitlines()) == 1
    assert {path.name for path in folder.iterdir()} <= {"reference.wav", "vocal.wav"}


@pytest.mark.parametrize("sound", ["silence", "noise", "nothing"])
def test_a_vocal_in_which_nobody_sings_is_exit_code_4_or_3(server, folder, sound):
    samples = {"silence": np.zeros(RATE), "noise": np.random.default_rng(1).normal(0, 0.1, RATE), "nothing": []}[sound]
    sf.write(folder / "vocal.wav", np.asarray(samples, np.float64), RATE)
    code, words = (3, "0 samples") if sound == "nothing" else (4, "song")
    refused(folder, server.run(*arguments(folder)), code, words)


def test_a_reference_without_a_voice_is_exit_code_5(folder):
    sf.write(folder / "reference.wav", np.random.default_rng(1).normal(0, 0.1, 3 * RATE), RATE)
    refused(folder, infer(folder), 5, "reference")


def test_what_cannot_be_read_is_exit_code_3(server, folder):
    sf.write(folder / "vocal.wav", np.tile(vocal()[:RATE, None], (1, 8)), RATE)
    refused(folder, server.run(*arguments(folder)), 3, "8 channels")
    (folder / "vocal.wav").write_bytes(b"not audio")
    refused(folder, server.run(*arguments(folder)), 3, "vocal.wav")


@pytest.mark.parametrize("pitch", ["24.5", "nan"])
def test_a_pitch_out_of_bounds_is_exit_code_2(server, folder, pitch):
    refused(folder, server.run(*arguments(folder, "--pitch", pitch)), 2, "--pitch")


def test_an_output_folder_that_is_missing_is_exit_code_6(server, folder):
    sf.write(folder / "vocal.wav", vocal()[:RATE], RATE)
    none = str(folder / "none" / "out.wav")
    refused(folder, server.run(*arguments(folder, "--output", none)), 6, "cannot write")


def test_an_ended_conversion_leaves_nothing(folder):
    sf.write(folder / "vocal.wav", np.tile(vocal(), 5), RATE)
    with subprocess.Popen(command(folder), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if float(line.split()[1]) > 0.1:
                break
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(30) == 128 + signal.SIGTERM
    assert {path.name for path in folder.iterdir()} == {"reference.wav", "vocal.wav"}
