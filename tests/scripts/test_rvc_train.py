"""gpu_scripts/rvc_train.py in roots whose scripts behave, and fail, as Applio's and RVC-Project's."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile as sf

from tests.fakes import rvc_training as fake_rvc_training
from tests.scripts.script_server import SCRIPTS
from tests.support.recordings import audio_files

SCRIPT = SCRIPTS / "rvc_train.py"


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    fake_rvc_training.build(folder)
    (folder / "recordings").mkdir()
    for number in range(12):
        samples = audio_files.voice(6.2, 24000, 140.0, seed=number)
        sf.write(folder / "recordings" / f"line{number:02d}.wav", samples, 24000)
    return folder


class Place:
    def __init__(self, engines: Path, folder: Path) -> None:
        self.engines, self.work, self.output = engines, folder / "work", folder / "out"

    def command(self, engine: str, *more: str) -> list[str]:
        command = [sys.executable, str(SCRIPT), "--project-root", str(self.engines / engine), "--engine", engine]
        command += ["--dataset", str(self.engines / "recordings"), "--work", str(self.work), "--epochs", "4"]
        return [*command, "--output", str(self.output), "--model-id", "anna", "--device", "cpu", *more]

    def environment(self, **mood: Any) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.engines / "site"), "FAKE_RVC_MOOD": json.dumps(mood)}

    def run(self, engine: str, *more: str, **mood: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(engine, *more), env=self.environment(**mood), capture_output=True, text=True, timeout=180
        )

    def calls(self, script: str) -> list[dict[str, Any]]:
        lines = (self.work / "cwd" / "calls.jsonl").read_text().splitlines()
        return [call for call in map(json.loads, lines) if call["script"] == script]


@pytest.fixture
def place(engines: Path, tmp_path: Path) -> Place:
    return Place(engines, tmp_path)


@pytest.fixture(scope="module")
def prepared(engines: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """As far as the features, with Applio."""
    place = Place(engines, tmp_path_factory.mktemp("prepared"))
    result = place.run("applio", "--until", "prepare")
    assert result.returncode == 0, result.stderr
    return place


@pytest.fixture
def further(place: Place, prepared: Place) -> Iterator[Place]:
    """A copy of the prepared one: what is done is known by its inputs, wherever it lies."""
    shutil.copytree(prepared.work, place.work, symlinks=True)
    yield place
    assert len(place.calls("extract")) == 1


def snapshot(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("engine", ["applio", "rvc"])
def test_a_voice_is_trained_and_the_project_stays_as_it_was(place: Place, engine: str) -> None:
    before = snapshot(place.engines / engine)
    result = place.run(engine)
    assert result.returncode == 0, result.stderr
    assert snapshot(place.engines / engine) == before
    assert sorted(path.name for path in place.output.iterdir()) == ["model.index", "model.json", "model.pth"]
    model = json.loads((place.output / "model.json").read_text())
    assert (model["engine"], model["model_id"], model["epochs"]["trained"]) == (engine, "anna", 4)
    assert [row["epoch"] for row in model["evaluation"]] == [2, 3, 4]
    assert model["trained"]["held_out"] == 2 and model["trained"]["clips"] == 10
    [call] = place.calls("train")
    assert call["pretrained"] == [True, True] and call["epochs"] == 4
    told = [line.split() for line in result.stdout.splitlines() if line.startswith("PROGRESS")]
    stages = list(dict.fromkeys(stage for _, _, stage in told))
    assert stages == ["check", "slice", "features", "train", "index", "evaluate", "publish"] and told[-1][1] == "1"
    began = [(last, first) for last, first in itertools.pairwise(told) if last[2] != first[2]]
    assert all(last[1] == first[1] for last, first in began), "a stage is told when something of it is done"
    assert place.run(engine).returncode == 0 and len(place.calls("train")) == 1


@pytest.mark.parametrize("engine", ["applio", "rvc"])
def test_a_stopped_training_goes_on_at_its_last_state(place: Place, engine: str) -> None:
    process = subprocess.Popen(
        place.command(engine), env=place.environment(stop=2), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 90
    while not list(place.work.glob("cwd/**/*2*_*s*.pth")) and not list(place.work.glob("cwd/**/*_e2_*.pth")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    result = place.run(engine, "--until", "train")
    assert result.returncode == 0, result.stderr
    log = (place.work / "logs" / "train.log").read_text()
    assert "begins with epoch 1\n" in log and f"begins with epoch {3 if engine == 'applio' else 2}\n" in log


@pytest.mark.parametrize("engine", ["applio", "rvc"])
def test_a_last_epoch_whose_weights_were_not_saved_is_no_dead_end(place: Place, engine: str) -> None:
    result = place.run(engine, train="unsaved")
    assert result.returncode == 11
    assert result.stderr.splitlines()[-1].endswith("An error occurred extracting the model: assets/config.json")
    result = place.run(engine)
    assert result.returncode == 0, result.stderr
    model = json.loads((place.output / "model.json").read_text())
    trained = 5 if engine == "applio" else 4  # RVC-Project repeats the epoch of its state
    assert model["epochs"]["epoch"] == trained
    assert ("WARNING one_more_epoch" in result.stdout) == (engine == "applio")


def test_loaders_of_data_have_room_for_their_sockets_in_a_long_folder(place: Place, prepared: Place) -> None:
    place.work = place.work.parent / ("long" * 25) / "work"
    shutil.copytree(prepared.work, place.work, symlinks=True)
    result = place.run("applio", "--until", "train")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("engine", "f0"), [("applio", "pm"), ("rvc", "crepe"), ("rvc", "fcpe")])
def test_a_pitch_that_the_engine_has_not_is_refused_before_anything_is_made(place: Place, engine: str, f0: str) -> None:
    result = place.run(engine, "--f0", f0)
    assert result.returncode == 2 and f"not {f0}" in result.stderr.splitlines()[-1], result.stderr
    assert not place.work.exists()


@pytest.mark.parametrize(
    ("mood", "code", "words"),
    [
        ({"train": "nan"}, 17, "no numbers"),
        ({"train": "nothing"}, 11, "train failed"),
        ({"train": "disk"}, 18, "is full"),
        ({"fits": 0}, 7, "even with batch 1"),
    ],
)
def test_a_status_of_success_without_files_is_none(further: Place, mood: dict[str, Any], code: int, words: str) -> None:
    result = further.run("applio", **mood)
    assert result.returncode == code and words in result.stderr.splitlines()[-1], result.stderr
    assert not further.output.exists()


def test_a_preparation_that_made_nothing_is_none(place: Place) -> None:
    result = place.run("applio", extract="nothing")
    assert result.returncode == 11 and "nothing was made" in result.stderr.splitlines()[-1], result.stderr
    assert not place.output.exists()


def test_a_batch_is_small_enough_for_memory_and_for_three_in_an_epoch(further: Place) -> None:
    result = further.run("applio", "--batch", "128", "--until", "train", fits=3)
    assert result.returncode == 0, result.stderr
    assert [call["batch"] for call in further.calls("train")] == [30 // 3, 5, 2]
    assert "WARNING batch_halved " in result.stdout


def test_missing_base_weights_and_an_old_index_are_seen(place: Place, tmp_path: Path) -> None:
    assert place.run("applio", "--sample-rate", "48000").returncode == 9
    assert place.run("rvc", "--until", "train").returncode == 0
    [index] = place.work.glob("cwd/logs/training/added_*.index")
    assert index.read_text() == "768 30"
