"""seedvc_infer.py, rvc_infer.py and uvr_separate.py, against roots that behave as the official ones (fake_engines)."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr

import seedvc_infer
from common import script_io
from tests.scripts import fake_engines
from tests.scripts.script_server import SCRIPTS, Done, ScriptServer
from tests.support.recordings import audio_files, songs

RATE = 44100
SECONDS = 2.0


def serving(folder: Path, script: str, **environment: str) -> ScriptServer:
    """With the engines of `folder` installed."""
    path = {"PYTHONPATH": str(folder / "site"), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    return ScriptServer(folder, script, **path, **environment)


def sung(seconds: float, rate: int, hz: float = 220.0) -> songs.Audio:
    """A note with vibrato: partials to 5 kHz, peak 0.4."""
    times = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * (hz * times + 0.4 * np.sin(2 * np.pi * 5 * times))
    note = sum(np.sin(k * phase) / k for k in range(1, int(5000 / hz)))
    return np.asarray(0.4 * note / np.max(np.abs(note)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engines.of.others")
    fake_engines.build(path)
    ffmpeg = fake_engines.put(path / "bin" / "ffmpeg", "#!/bin/sh\n")
    ffmpeg.chmod(ffmpeg.stat().st_mode | stat.S_IXUSR)
    note = sung(SECONDS + 0.01, 48000)
    sf.write(path / "vocal.wav", np.stack([note, note], axis=1), 48000, subtype="FLOAT")
    speech = 0.3 * audio_files.voice(20.0, rate=24000, hz=130.0)
    speech[: 6 * 24000] = 0
    sf.write(path / "reference.wav", speech, 24000)
    sf.write(path / "silence.wav", np.zeros(RATE), RATE)
    return path


@pytest.fixture(scope="module")
def seedvc(folder: Path) -> Iterator[ScriptServer]:
    child = serving(folder, "seedvc_infer.py")
    yield child
    child.close()


@pytest.fixture(scope="module")
def applio(folder: Path) -> Iterator[ScriptServer]:
    root = folder / "applio"
    fake_engines.voice(root / "logs/anna/anna.pth", rate=40000)
    fake_engines.put(root / "logs/anna/anna.index", "768 100")
    fake_engines.put(root / "logs/anna/G_200.pth", "of training")
    fake_engines.voice(root / "logs/bare/bare_30e.pth", rate=48000)
    fake_engines.voice(root / "logs/two/two_1e.pth")
    fake_engines.voice(root / "logs/two/two_2e.pth")
    fake_engines.put(root / "logs/empty/empty.pth", "")
    child = serving(folder, "rvc_infer.py")
    yield child
    child.close()


@pytest.fixture(scope="module")
def rvc(folder: Path) -> Iterator[ScriptServer]:
    root = folder / "rvc"
    fake_engines.voice(root / "assets/weights/anna_e20_s400.pth", rate=32000)
    fake_engines.put(root / "logs/anna/added_IVF9_Flat_nprobe_1_anna_v2.index", "768 100")
    fake_engines.put(root / "logs/anna/trained_IVF9_Flat_nprobe_1_anna_v2.index", "768 0")
    child = serving(folder, "rvc_infer.py")
    yield child
    child.close()


@pytest.fixture(scope="module")
def separator(folder: Path) -> Iterator[ScriptServer]:
    models = folder / "project" / "models"
    names = ("two", "rescaling", "instrumental_song", "swallowing", "echo", "short", "nan", "damaged", "gone")
    checks = {f"{name}.ckpt": [f"{name}.ckpt", f"{name}.yaml"] for name in names}
    fake_engines.put(models / "download_checks.json", json.dumps(checks))
    for name in names:
        fake_engines.put(models / f"{name}.ckpt", "damaged" if name == "damaged" else "weights")
        fake_engines.put(models / f"{name}.yaml", "" if name == "gone" else "x: 1")
    fake_engines.put(models / "htdemucs.yaml", "models: ['955717e8']")
    fake_engines.put(models / "955717e8-8726e21a.th", "weights")
    fake_engines.put(models / "mdx_extra.yaml", "models: ['e51eebcc']")
    rng = np.random.default_rng(3)
    middle = sung(SECONDS, RATE)
    side = 0.1 * rng.standard_normal(len(middle))
    sf.write(folder / "song.wav", np.stack([middle + side, middle - side], axis=1) * 2.5, RATE, subtype="FLOAT")
    child = serving(folder, "uvr_separate.py", AUDIO_SEPARATOR_MODEL_DIR="/nowhere")
    yield child
    child.close()


def infer(root: str, *more: str, output: str = "out.wav", pitch: str = "0") -> list[str]:
    files = ["--reference", "reference.wav", "--input", "vocal.wav", "--output", output]
    return ["--project-root", root, *files, "--pitch", pitch, "--device", "cpu", *more]


def separate(model: str, *more: str) -> list[str]:
    files = ["--input", "song.wav", "--vocal", "v.wav", "--inst", "i.wav"]
    return ["--project-root", "project", *files, "--model", model, "--device", "cpu", *more]


def read(path: Path) -> songs.Audio:
    samples, rate = sf.read(path, always_2d=True)
    assert rate == RATE
    return np.asarray(samples)


def semitones(folder: Path, output: str = "out.wav") -> float:
    """How far the output's melody lies above the vocal's; also, that it is as long and on both channels."""
    before, rate = sf.read(folder / "vocal.wav", always_2d=True)
    after = read(folder / output)
    assert len(after) == round(len(before) * RATE / rate) and after.shape[1] == 2
    assert np.array_equal(after[:, 0], after[:, 1])
    tracks = [songs.pitch_track(soxr.resample(x[:, 0], r, 24000), 24000) for x, r in ((before, rate), (after, RATE))]
    medians = [float(np.median(track[track > 0])) for track in tracks]
    return 12 * float(np.log2(medians[1] / medians[0]))


def assert_apart(done: Done, code: int, words: str) -> None:
    assert (done.exit_code, "\n" in done.message) == (code, False), done
    assert words in done.message, done


# ------------------------------------------------------------------------------
# seed-vc


def test_seedvc_sings_the_melody_where_it_was_asked_for(seedvc: ScriptServer, folder: Path) -> None:
    done = seedvc.run(*infer("seedvc", pitch="3"))
    assert done.exit_code == 0, done
    assert semitones(folder) == pytest.approx(3, abs=0.15)
    assert done.progress == sorted(done.progress) and done.progress[-1] == 1 and len(done.progress) > 3
    inside = [told for told in done.progress if 0.2 <= told <= 0.97]
    assert max(np.diff(inside)) < 0.035  # Each step of the diffusion is told, and not each window alone.
    assert "reference 12.00 s, steps 40, cfg 0.7" in done.printed


def test_seedvc_loads_once_and_gives_the_same_for_the_same_seed(seedvc: ScriptServer, folder: Path) -> None:
    seedvc.run(*infer("seedvc"))
    again = seedvc.run(*infer("seedvc", output="again.wav"))
    other = seedvc.run(*infer("seedvc", "--seed", "5", output="other.wav"))
    assert "loading models" not in again.printed + other.printed
    assert np.array_equal(read(folder / "out.wav"), read(folder / "again.wav"))
    assert not np.array_equal(read(folder / "out.wav"), read(folder / "other.wav"))


def test_seedvc_gets_the_stretch_of_the_reference_that_is_spoken() -> None:
    speech = np.concatenate([np.zeros(6 * RATE), 0.3 * audio_files.voice(20.0, rate=RATE), np.zeros(3 * RATE)])
    chosen = seedvc_infer.fullest(speech.astype(np.float32), 12.0)
    assert len(chosen) == 12 * RATE
    assert np.mean(np.abs(chosen) > 1e-4) > 0.8  # the voice itself pauses a sixth of the time


def test_seedvc_failures_are_told_apart(seedvc: ScriptServer, folder: Path) -> None:
    (folder / "out.wav").unlink(missing_ok=True)
    for name, state in (("net", {"download": True}), ("old", {"other version": True})):
        fake_engines.put(folder / f"{name}.pth", json.dumps(state))
    fake_engines.put(folder / "cut.pth", "{")
    config = ["--config", "seedvc/inference.py"]
    for extra, code, words in (
        (["--diffusion-steps", "14"], script_io.ENGINE_FAILED, "is silent"),
        (["--diffusion-steps", "0"], script_io.BAD_ARGUMENTS, ""),
        (["--pitch", "25"], script_io.BAD_ARGUMENTS, ""),
        (["--device", "cuda"], script_io.BAD_ARGUMENTS, "runs on cpu already"),
        (["--reference", "silence.wav"], script_io.BAD_REFERENCE, "no voice in the reference"),
        (["--input", "silence.wav"], script_io.SILENT, "nothing is sung"),
        (["--input", "gone.wav"], script_io.UNREADABLE, "gone.wav"),
        (["--output", "no/folder/out.wav"], script_io.UNWRITABLE, "no/folder"),
        (["--project-root", "rvc"], script_io.BAD_ARGUMENTS, ""),
        (["--checkpoint", "gone.pth", *config], script_io.NO_WEIGHTS, "gone.pth"),
        (["--checkpoint", "cut.pth", *config], script_io.NO_WEIGHTS, "cannot be loaded"),
        (["--checkpoint", "net.pth", *config], script_io.NO_WEIGHTS, "download"),
        (["--checkpoint", "old.pth", *config], script_io.NO_WEIGHTS, "do not fit"),
        (["--diffusion-steps", "13"], script_io.OUT_OF_MEMORY, "the GPU is out of memory"),
    ):
        assert_apart(seedvc.run(*infer("seedvc", *extra)), code, words)
    assert not (folder / "out.wav").exists()
    assert not list(folder.glob(".*.part"))


def test_seedvc_names_all_files_that_are_missing_before_it_loads(folder: Path, tmp_path: Path) -> None:
    fake_engines.build(tmp_path)
    (tmp_path / "seedvc" / fake_engines.FILES["seedvc"][2]).unlink()
    (tmp_path / "seedvc" / fake_engines.FILES["seedvc"][6]).write_text("")
    argv = [sys.executable, str(SCRIPTS / "seedvc_infer.py"), *infer(str(tmp_path / "seedvc"))]
    run = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=60)  # and without any torch
    assert run.returncode == script_io.NO_WEIGHTS
    assert "rmvpe.pt" in run.stderr and "whisper-small" in run.stderr and run.stderr.count("\n") == 1


def test_a_gpu_that_is_not_there_is_an_error_and_never_the_cpu(folder: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(folder / "site"), "FAKE_CUDA": "0"}
    argv = [sys.executable, str(SCRIPTS / "seedvc_infer.py"), *infer("seedvc", "--device", "cuda")]
    run = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=60, env=environment)
    assert run.returncode == script_io.NO_CUDA
    assert "no usable GPU" in run.stderr


# ------------------------------------------------------------------------------
# RVC


def test_applio_sings_in_a_voice_found_by_its_id(applio: ScriptServer, folder: Path) -> None:
    done = applio.run(*infer("applio", "--model-id", "anna", "--weights", "", "--index", "", pitch="-5"))
    assert done.exit_code == 0 and not done.warnings, done
    assert semitones(folder) == pytest.approx(-5, abs=0.15)
    assert "index 768 100 embedder contentvec rate 0.3" in done.printed
    again = applio.run(*infer("applio", "--model-id", "anna"))
    assert "loading" not in again.printed
    assert semitones(folder) == pytest.approx(0, abs=0.15)
    for run in (done, again):  # The melody, and each part of a second, of what may take minutes.
        assert {0.4, 0.68, 0.97} <= set(run.progress) and run.progress == sorted(run.progress)
        inside = [told for told in run.progress if 0.4 < told < 0.95 and told != 0.68]
        assert len(inside) > 25, run.progress  # and from inside of each, a hundredth at a time
        assert len([told for told in run.progress if 0.2 < told < 0.4]) > 3, run.progress
    # The first part of all has nothing to go by; later ones go by those before.
    assert min(again.progress[-5:-2]) > 0.9, again.progress
    fake_engines.voice(folder / "applio/logs/anna/anna.pth", rate=48000, trained="again")
    assert "loading anna.pth" in applio.run(*infer("applio", "--model-id", "anna")).printed


def test_an_index_is_used_wherever_it_lies_or_its_lack_is_told(applio: ScriptServer, folder: Path) -> None:
    weights = fake_engines.voice(folder / "pretrained voices" / "ben.pth")
    index = fake_engines.put(folder / "pretrained voices" / "ben.index", "768 7")
    done = applio.run(*infer("applio", "--weights", str(weights), "--index", str(index)))
    assert done.exit_code == 0 and "index 768 7" in done.printed, done
    without = applio.run(*infer("applio", "--model-id", "bare"))
    assert without.exit_code == 0 and "no index" in without.warnings[0] and "index none" in without.printed


def test_applio_failures_are_told_apart(applio: ScriptServer, folder: Path) -> None:
    fake_engines.voice(folder / "spin.pth", embedder_model="spin")
    fake_engines.voice(folder / "custom.pth", embedder_model="/home/me/mine")
    fake_engines.put(folder / "generator.pth", '{"model": 1}')
    fake_engines.put(folder / "v1.index", "256 100")
    fake_engines.put(folder / "broken.index", "nothing")
    anna = ["--model-id", "anna"]
    for extra, code, words in (
        (["--model-id", "nobody"], script_io.UNKNOWN_MODEL, "no voice 'nobody'"),
        (["--model-id", "../anna"], script_io.UNKNOWN_MODEL, ""),
        (["--model-id", "two"], script_io.UNKNOWN_MODEL, "two_1e.pth, two_2e.pth"),
        (["--model-id", "empty"], script_io.NO_WEIGHTS, "missing or empty"),
        ([*anna, "--index", "gone.index"], script_io.NO_WEIGHTS, "gone.index"),
        ([*anna, "--index", "v1.index"], script_io.NO_WEIGHTS, "does not belong"),
        ([*anna, "--index", "broken.index"], script_io.NO_WEIGHTS, "is no index"),
        ([*anna, "--f0-method", "fcpe"], script_io.NO_WEIGHTS, "fcpe.pt"),
        ([*anna, "--f0-method", "pm"], script_io.BAD_ARGUMENTS, ""),
        (["--weights", "generator.pth"], script_io.NO_WEIGHTS, "KeyError"),
        (["--weights", "spin.pth"], script_io.NO_WEIGHTS, "embedders/spin"),
        (["--weights", "custom.pth"], script_io.NO_WEIGHTS, "--embedder"),
        (["--project-root", "rvc", *anna], script_io.BAD_ARGUMENTS, ""),
    ):
        assert_apart(applio.run(*infer("applio", *extra)), code, words)


def test_rvc_project_sings_and_its_returned_errors_are_errors(rvc: ScriptServer, folder: Path) -> None:
    done = rvc.run(*infer("rvc", "--model-id", "anna_e20_s400", pitch="4"))
    assert done.exit_code == 0 and not done.warnings, done
    assert semitones(folder) == pytest.approx(4, abs=0.15)
    assert "index 768 100 0.25" in done.printed
    (folder / "out.wav").unlink()
    voice = ["--model-id", "anna_e20_s400"]
    failed = rvc.run(*infer("rvc", *voice, "--f0-method", "fcpe"))
    assert_apart(failed, script_io.ENGINE_FAILED, "ValueError: no pitch")
    memory = rvc.run(*infer("rvc", *voice, "--f0-method", "pm"))
    assert_apart(memory, script_io.OUT_OF_MEMORY, "the GPU is out of memory")
    assert not (folder / "out.wav").exists()


# ------------------------------------------------------------------------------
# Separation


def test_audio_separator_stems_are_as_long_as_the_song_and_add_up_to_it(separator: ScriptServer, folder: Path) -> None:
    """The song is over full scale, so that a library which rescales what is loud would not give it back."""
    done = separator.run(*separate("two.ckpt"))
    assert done.exit_code == 0, done
    mix, vocal, inst = (read(folder / name) for name in ("song.wav", "v.wav", "i.wav"))
    assert np.abs(mix).max() > 1 and len(vocal) == len(inst) == len(mix)
    assert np.abs(mix - vocal - inst).max() < 1e-4
    assert songs.sdr(mix.mean(axis=1), vocal[:, 0]) > 60
    assert done.progress[-1] == 1 and 0.99 not in done.progress
    assert len([told for told in done.progress if 0.1 < told < 0.93]) > 10, done.progress  # as its bar is drawn
    assert not done.warnings and "engine: WARNING: peak 0.7" in done.printed
    assert "loaded two" not in separator.run(*separate("two.ckpt")).printed


def test_stems_that_were_rescaled_are_brought_back(separator: ScriptServer, folder: Path) -> None:
    assert separator.run(*separate("rescaling.ckpt")).exit_code == 0
    mix, vocal, inst = (read(folder / name) for name in ("song.wav", "v.wav", "i.wav"))
    assert np.abs(mix - vocal - inst).max() < 1e-3
    assert songs.sdr(mix.mean(axis=1), vocal[:, 0]) > 50


def test_demucs_stems_that_are_no_vocals_are_summed(separator: ScriptServer, folder: Path) -> None:
    done = separator.run(*separate("htdemucs"))
    assert done.exit_code == 0 and len(done.progress) > 3, done
    mix, vocal, inst = (read(folder / name) for name in ("song.wav", "v.wav", "i.wav"))
    assert len(vocal) == len(inst) == len(mix)
    assert np.abs(mix - vocal - inst).max() < 1e-4
    assert songs.sdr((mix - mix.mean(axis=1, keepdims=True))[:, 0], inst[:, 0]) > 60
    again = separator.run(*separate("htdemucs"))
    assert [line for line in done.printed.splitlines() if "shift" in line] == [
        line for line in again.printed.splitlines() if "shift" in line
    ]


def test_separation_failures_are_told_apart(separator: ScriptServer, folder: Path) -> None:
    for name in ("v.wav", "i.wav"):
        (folder / name).unlink(missing_ok=True)
    for model, code, words in (
        ("nothing.ckpt", script_io.UNKNOWN_MODEL, "knows no model"),
        ("gone.ckpt", script_io.NO_WEIGHTS, "gone.yaml is missing or empty"),
        ("damaged.ckpt", script_io.NO_WEIGHTS, "error occurred while loading"),
        ("echo.ckpt", script_io.UNKNOWN_MODEL, "echo, no echo"),
        ("short.ckpt", script_io.ENGINE_FAILED, "1.00 s, not 2.00 s"),
        ("nan.ckpt", script_io.ENGINE_FAILED, "not numbers"),
        ("instrumental_song.ckpt", script_io.ENGINE_FAILED, "no voice"),
        ("../two.ckpt", script_io.UNKNOWN_MODEL, ""),
        ("HP5_only_main_vocal", script_io.UNKNOWN_MODEL, "Demucs has no model"),
        ("htdemucs_ft", script_io.NO_WEIGHTS, "Hugging Face cache"),
    ):
        assert_apart(separator.run(*separate(model)), code, words)
    assert_apart(separator.run(*separate("two.ckpt", "--input", "silence.wav")), script_io.SILENT, "silent")
    (folder / "project/models/955717e8-8726e21a.th").rename(folder / "project/models/other.th")
    assert_apart(separator.run(*separate("mdx_extra")), script_io.NO_WEIGHTS, "signature 955717e8")
    # The last one: whose memory has run out ends its process.
    assert_apart(separator.run(*separate("swallowing.ckpt")), script_io.OUT_OF_MEMORY, "the GPU is out of memory")
    assert not (folder / "v.wav").exists() and not (folder / "i.wav").exists()
