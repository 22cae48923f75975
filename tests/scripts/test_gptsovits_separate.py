"""gpu_scripts/gptsovits_separate.py as the pipeline runs it, in a project root whose separators are fakes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import yaml

from tests.scripts import fake_gptsovits_root as fake
from tests.scripts.script_server import SCRIPTS, Done, ScriptServer

SCRIPT = SCRIPTS / "gptsovits_separate.py"
RATE = 44100


def make_song(seconds: float, rate: int = RATE, peak: float = 0.9) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(song, voice, rest), float32 (n, 2): a voice that swells in the centre, and a band that is opposite in phase."""
    at = np.arange(round(seconds * rate)) / rate
    middle = np.sin(2 * np.pi * 220 * at) * (0.5 + 0.4 * np.sin(2 * np.pi * 0.3 * at))
    side = 0.3 * np.sin(2 * np.pi * 330 * at + 3 * np.sin(at))
    voice, rest = np.stack([middle, middle], axis=1), np.stack([side, -side], axis=1)
    scale = peak / np.abs(voice + rest).max()
    return tuple((scale * part).astype(np.float32) for part in (voice + rest, voice, rest))


def command(root: Path, folder: Path, model: str, *more: str) -> list[str]:
    files = ["--input", str(folder / "song.wav"), "--vocal", str(folder / "v.wav"), "--inst", str(folder / "i.wav")]
    settings = ["--model", model, "--device", "cuda", "--is-half", "true"]
    return [sys.executable, str(SCRIPT), "--project-root", str(root), *files, *settings, *more]


def run_alone(root: Path, folder: Path, model: str = "HP2_all_vocals") -> subprocess.CompletedProcess[str]:
    """By a process of its own, as where the failure ends it, or where something has to be found out anew."""
    return subprocess.run(command(root, folder, model), capture_output=True, text=True, timeout=120, cwd=folder)


Separate = Callable[..., Done]


@pytest.fixture
def separate(server: ScriptServer, root: Path, tmp_path: Path) -> Separate:
    """Separates the test's song by the process that serves this file."""

    def run(model: str = "HP2_all_vocals") -> Done:
        return server.run(*command(root, tmp_path, model)[2:])

    return run


def write(folder: Path, samples: np.ndarray, rate: int = RATE, subtype: str = "FLOAT") -> None:
    sf.write(folder / "song.wav", samples, rate, subtype=subtype)


def read(path: Path) -> np.ndarray:
    samples, rate = sf.read(path, dtype="float32", always_2d=True)
    assert rate == RATE and samples.shape[1] == 2
    return samples


def refused(result: Done, code: int, folder: Path) -> str:
    """The reason, after which nothing is left."""
    assert result.exit_code == code, result.message
    assert {path.name for path in folder.iterdir()} <= {"song.wav"}
    return result.message


def refused_alone(result: subprocess.CompletedProcess[str], code: int, folder: Path) -> str:
    assert result.returncode == code, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("WARNING")]
    assert {path.name for path in folder.iterdir()} <= {"song.wav"}
    return line


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = fake.build(tmp_path_factory.mktemp("engine") / "root")
    weights = root / "tools" / "uvr5" / "uvr5_weights"
    (weights / "onnx_dereverb_By_FoxJoy").mkdir()
    (weights / "onnx_dereverb_By_FoxJoy" / "vocals.onnx").write_text("")
    trainings: dict[str, Any] = {
        "model_bs_roformer_ep_368_sdr_12.9628": {"instruments": ["vocals", "other"], "target_instrument": "vocals"},
        "mel_band_roformer_inst": {"instruments": ["vocals", "other"], "target_instrument": "other"},
        "bs_roformer_4_stems": {"instruments": ["vocals", "drums", "bass"], "target_instrument": None},
    }
    for name, training in trainings.items():
        (weights / f"{name}.ckpt").write_text("")
        (weights / f"{name}.yaml").write_text(yaml.dump({"training": training}))
    (weights / "bs_roformer_bare.ckpt").write_text("")
    return root


@pytest.fixture(autouse=True)
def all_is_well(root: Path) -> None:
    fake.set_mood(root)
    fake.clear_calls(root)


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("HP2_all_vocals", "AudioPre"),
        ("HP3_all_vocals", "AudioPre"),
        ("hp5", "AudioPre"),
        ("VR-DeEchoNormal.pth", "AudioPreDeEcho"),
        ("VR-DeEchoDeReverb", "AudioPreDeEcho"),
        ("model_bs_roformer_ep_368_sdr_12.9628", "Roformer_Loader"),
        ("mel_band_roformer_inst", "Roformer_Loader"),
        ("bs_roformer_4_stems.ckpt", "Roformer_Loader"),
        ("bs_roformer_bare", "Roformer_Loader"),
        ("onnx_dereverb_By_FoxJoy", "MDXNetDereverb"),
    ],
)
def test_each_model_gives_voice_and_band_by_its_own_class(root, tmp_path, separate, model, kind):
    song, voice, rest = make_song(5)
    write(tmp_path, song)
    result = separate(model)
    assert result.exit_code == 0, result.message
    (made,) = fake.calls(root, "separator")
    assert made["kind"] == kind
    assert np.abs(read(tmp_path / "v.wav") - voice)[:-1000].max() < 1e-3
    assert np.abs(read(tmp_path / "i.wav") - rest)[:-1000].max() < 1e-3
    assert len(read(tmp_path / "v.wav")) == len(read(tmp_path / "i.wav")) == len(song)
    told = result.progress
    assert [told[0], told[-1]] == [0, 1] and len(told) > 2
    assert bool(result.warnings) == (model == "bs_roformer_bare")
    assert {path.name for path in tmp_path.iterdir()} == {"song.wav", "v.wav", "i.wav"}


@pytest.mark.parametrize("model", ["HP2_all_vocals", "bs_roformer_bare"])
def test_a_process_of_its_own_tells_in_lines(root, tmp_path, model):
    song, voice, _ = make_song(5)
    write(tmp_path, song)
    result = run_alone(root, tmp_path, model)
    assert result.returncode == 0, result.stderr
    assert np.abs(read(tmp_path / "v.wav") - voice)[:-1000].max() < 1e-3
    told = re.findall(r"^PROGRESS (\S+)$", result.stdout, re.MULTILINE)
    assert result.stdout.splitlines() == [f"PROGRESS {fraction}" for fraction in told]
    assert [told[0], told[-1]] == ["0", "1"] and len(told) > 2
    assert ("WARNING" in result.stderr) == (model == "bs_roformer_bare")
    assert {path.name for path in tmp_path.iterdir()} == {"song.wav", "v.wav", "i.wav"}


@pytest.mark.parametrize("seconds", [5, 15, 25, 35])
@pytest.mark.parametrize("model", ["HP2_all_vocals", "VR-DeEchoNormal"])
def test_bins_of_a_spectrum_that_the_engine_never_writes_are_silent(tmp_path, separate, model, seconds):
    song, voice, rest = make_song(seconds)
    write(tmp_path, song)
    result = separate(model)
    assert result.exit_code == 0, result.message
    for name, wanted in (("v.wav", voice), ("i.wav", rest)):
        assert np.sum((read(tmp_path / name) - wanted) ** 2) < 1e-3 * np.sum(wanted**2)


def test_a_long_song_is_worked_at_by_the_minute_without_seams(root, tmp_path, separate):
    song, voice, rest = make_song(120)
    write(tmp_path, song, subtype="PCM_16")
    result = separate()
    assert result.exit_code == 0, result.message
    chunks = fake.calls(root, "separate")
    assert len(chunks) == 3 and max(call["frames"] for call in chunks) <= 60 * RATE
    for name, wanted in (("v.wav", voice), ("i.wav", rest)):
        found = read(tmp_path / name)
        assert found.shape == wanted.shape
        assert np.abs(found - wanted)[:-1000].max() < 1e-3
    told = result.progress
    assert told == sorted(set(told)) and sum(0.1 < fraction < 0.98 for fraction in told) >= 2


def test_a_song_at_full_scale_is_brought_down_first_for_parts_that_are_louder(root, tmp_path, separate):
    song, voice, _ = make_song(4, peak=1.0)
    write(tmp_path, 3 * song)  # floats may be louder still
    assert separate().exit_code == 0
    assert fake.calls(root, "separate")[0]["peak"] == pytest.approx(0.5, rel=0.01)
    assert np.abs(read(tmp_path / "v.wav") - 3 * voice)[:-1000].max() < 3e-3


def test_silence_within_a_song_is_left_out_of_the_model(root, tmp_path, separate):
    song, voice, _ = make_song(10)
    silence = np.zeros((130 * RATE, 2), np.float32)
    write(tmp_path, np.concatenate([song, silence, song]))
    assert separate().exit_code == 0
    found = read(tmp_path / "v.wav")
    assert len(fake.calls(root, "separate")) == 2
    assert np.abs(found[: 9 * RATE] - voice[: 9 * RATE]).max() < 1e-3
    assert np.abs(found[-len(song) : -1000] - voice[:-1000]).max() < 1e-3
    assert np.abs(found[11 * RATE : 139 * RATE]).max() < 1e-4


@pytest.mark.parametrize(("rate", "channels"), [(48000, 2), (22050, 1), (44100, 1)])
def test_any_rate_and_mono_become_44100_hz_stereo(tmp_path, separate, rate, channels):
    song, _, _ = make_song(4, rate)
    middle = song.mean(axis=1, keepdims=True)
    write(tmp_path, np.repeat(middle, channels, axis=1), rate, "PCM_24")
    result = separate()
    assert result.exit_code == 0, result.message
    found = read(tmp_path / "v.wav")
    assert len(found) == 4 * RATE
    assert np.abs(found - make_song(4)[1])[500:-1000].max() < 0.03


@pytest.mark.parametrize("samples", [1, 1000, RATE])
def test_a_song_of_under_three_seconds_works(tmp_path, separate, samples):
    song = make_song(2)[0][5000 : 5000 + samples]
    write(tmp_path, song)
    result = separate()
    assert result.exit_code == 0, result.message
    assert read(tmp_path / "v.wav").shape == song.shape


def test_a_song_without_singing_is_warned_about(tmp_path, separate):
    write(tmp_path, make_song(4)[2])
    result = separate()
    assert result.exit_code == 0
    assert any("singing" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("mood", "code", "words"),
    [
        ({"separate": "oom"}, 7, "out of memory"),
        ({"separate": "raise"}, 11, "must match the size"),
        ({"separate": "nothing"}, 11, "0 stems"),
        ({"separate": "nan"}, 11, "--is-half false"),
        ({"separate": "mixed"}, 11, "add up"),
        ({"cuda": False}, 8, "CUDA"),
    ],
)
def test_what_goes_wrong_is_one_line_and_its_own_exit_code(root, tmp_path, mood, code, words):
    write(tmp_path, make_song(4)[0])
    fake.set_mood(root, **mood)
    assert words in refused_alone(run_alone(root, tmp_path), code, tmp_path)


def test_mdx_does_not_fall_back_to_the_cpu(root, tmp_path):
    write(tmp_path, make_song(4)[0])
    fake.set_mood(root, onnx="cpu")
    refused_alone(run_alone(root, tmp_path, "onnx_dereverb_By_FoxJoy"), 8, tmp_path)


@pytest.mark.parametrize("model", ["nobody", "VR-DeEcho", "", "../HP2"])
def test_an_unknown_model_is_refused_with_those_there_are(tmp_path, separate, model):
    write(tmp_path, make_song(4)[0])
    assert "DeEchoNormal" in refused(separate(model), 10, tmp_path)


def test_a_root_without_models_or_no_root_is_refused(tmp_path, root):
    song = tmp_path / "work"
    song.mkdir()
    write(song, make_song(4)[0])
    bare = fake.build(tmp_path / "bare", versions=(), uvr=())
    refused_alone(run_alone(bare, song), 9, song)
    refused_alone(run_alone(tmp_path, song), 2, song)


def test_silence_and_what_is_no_song_are_refused(root, tmp_path, separate):
    write(tmp_path, np.zeros((RATE, 2)))
    refused(separate(), 4, tmp_path)
    (tmp_path / "song.wav").write_bytes(b"RIFF")
    refused(separate(), 3, tmp_path)
    write(tmp_path, np.zeros((RATE, 3)))
    refused(separate(), 3, tmp_path)
    bad = make_song(1)[0].copy()
    bad[100] = np.nan
    write(tmp_path, bad)
    refused(separate(), 3, tmp_path)
    assert not fake.calls(root)


def test_terminated_in_the_middle_it_leaves_nothing_behind(root, tmp_path):
    write(tmp_path, make_song(4)[0])
    fake.set_mood(root, load_seconds=20)
    process = subprocess.Popen(command(root, tmp_path, "HP2"), stdout=subprocess.PIPE, cwd=tmp_path)
    assert process.stdout and process.stdout.readline() == b"PROGRESS 0\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 143
    process.stdout.close()
    assert {path.name for path in tmp_path.iterdir()} == {"song.wav"}


def test_a_process_that_does_several_jobs_loads_a_model_once(root, tmp_path):
    write(tmp_path, make_song(4)[0])
    jobs = [command(root, tmp_path, model)[2:] for model in ("HP2", "HP2", "HP5", "HP2")]
    source = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); import gptsovits_separate\n"
        "for job in json.loads(sys.argv[2]): gptsovits_separate.main(job)"
    )
    argv = [sys.executable, "-c", source, str(SCRIPT.parent), json.dumps(jobs)]
    subprocess.run(argv, check=True, capture_output=True, timeout=60, cwd=tmp_path)
    models = [Path(call["model"]).stem for call in fake.calls(root, "separator")]
    assert models == ["HP2_all_vocals", "HP5_only_main_vocal", "HP2_all_vocals"]
    assert len(fake.calls(root, "separate")) == 4
