"""A training whose workers are killed in each stage in turn, each on another host, with the script of the product in a
stand-in for the engine's project: it is finished, and what a checkpoint has is not done again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from django.conf import settings
from rest_framework.test import APIClient

from tests.scripts import fake_gptsovits_root as fake
from tests.support.audio import upload, wav_bytes
from tests.support.running.processes import processes_of
from tests.support.running.workers import a_worker
from tests.support.waiting import until
from voices.speech.models import EngineModel, WeightsFile
from voices.training.models import STAGES, Training

pytestmark = [
    pytest.mark.faults,
    pytest.mark.usefixtures("fresh_trainings"),
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc"),
]
HOLDING = Path(__file__).parents[1] / "programs" / "held_training.py"
TEXT = "The speaker of line {} says a whole sentence, and then a little more of it."


# Of the stages that train: what stops the stand-in after its first epoch, and the weights that this has made.
EPOCHS = {
    "train_sovits": ("s2_stop", "work/sovits/*_e1_*.pth"),
    "train_gpt": ("s1_stop", "work/gpt/*-e1.ckpt"),
}


class Engine:
    """The stand-in's root, and what the command of the next attempt is told."""

    def __init__(self, folder: Path) -> None:
        self.root = fake.build(folder / "root")
        self.packages = fake.add_training(self.root)
        self.order = folder / "order.json"
        self.log = folder / "calls.jsonl"
        self.tell()

    def tell(self, hold: str = "", **mood: Any) -> None:
        told = {
            "PYTHONPATH": f"{self.packages}{os.pathsep}{self.root}",
            "FAKE_GPTSOVITS_MOOD": json.dumps({"tone": True, "cuda": False, **mood}),
            "FAKE_GPTSOVITS_CALLS": str(self.log),
        }
        self.order.write_text(json.dumps({"environment": told, "hold": hold}))

    @property
    def template(self) -> str:
        script = f"{sys.executable} {settings.BASE_DIR}/gpu_scripts/gptsovits_train.py --project-root {self.root}"
        return (
            f"{sys.executable} {HOLDING} {self.order} {script} --dataset {{dataset}} --work {{work}} "
            "--output {output} --model-id {model_id} --version {version} --language {language} --sovits-epochs "
            "{sovits_epochs} --gpt-epochs {gpt_epochs} --batch 4 --holdout 2"
        )

    def calls(self, event: str) -> list[dict[str, Any]]:
        return [call for call in fake.calls(self.log.parent) if call["event"] == event]


@pytest.fixture
def engine_root(tmp_path: Path) -> Engine:
    return Engine(tmp_path)


@pytest.fixture
def sentences() -> dict[str, list[Any]]:
    """Real speech without a pause at which it would be cut, five seconds each, and its texts."""
    samples, rate = sf.read(settings.BASE_DIR / "voiceproject" / "samples" / "reference.flac", dtype="float32")
    frames = samples[: len(samples) // 480 * 480].reshape(-1, 480)  # of 20 ms
    loud = np.abs(frames).max(axis=1) > 0.02
    spoken = np.concatenate([frame for at, frame in enumerate(frames) if loud[max(0, at - 3) : at + 1].any()])
    clips = [np.roll(spoken, number * rate // 3)[: round(4.8 * rate)] for number in range(16)]
    return {
        "recordings": [upload(wav_bytes(clip, rate), f"line{n:02}.wav") for n, clip in enumerate(clips)],
        "transcripts": [upload(TEXT.format(n).encode(), f"line{n:02}.txt", "text/plain") for n in range(len(clips))],
    }


@contextmanager
def worker(engine: Engine, host: str) -> Iterator[Any]:
    told = {
        "WORKER_HOST": host,
        "TRAINING_CONCURRENCY": "1",
        "TRAINING_GPTSOVITS_CMD_TEMPLATE": engine.template,
        "TRAINING_CHECKPOINT_SECONDS": "5",
        "TRAINING_MAX_ATTEMPTS": "20",
    }
    with a_worker(**told) as process:
        yield process


def row() -> Training:
    return Training.objects.get()


# Where each attempt is killed: what its command is told, and how far it has come then.
def _held(stage: str) -> tuple[dict[str, Any], Callable[[Training], bool]]:
    return {"hold": stage}, lambda now: now.stage == stage


def _stored(mood: str, weights: str) -> tuple[dict[str, Any], Callable[[Training], bool]]:
    """Waits after its first epoch, and is killed once a checkpoint with that is stored."""

    def stored(now: Training) -> bool:
        if not now.trained:
            return False
        try:
            with now.trained.open("rb") as file, tarfile.open(fileobj=file) as archive:
                return any(fnmatch(name, weights) for name in archive.getnames())
        except FileNotFoundError:  # The next one has taken its place.
            return False

    return {mood: 1}, stored


def test_a_worker_killed_in_each_stage_costs_no_epoch_that_was_stored(
    train: Callable[..., Any], api: APIClient, engine_root: Engine, sentences: dict[str, list[Any]], settings: Any
) -> None:
    settings.TRAINING_GPTSOVITS_VERSIONS = ["v2"]
    job = train(**sentences, base="v2", sovits_epochs="2", gpt_epochs="2").json()
    for number, stage in enumerate(STAGES):
        told, come_so_far = _stored(*EPOCHS[stage]) if stage in EPOCHS else _held(stage)
        engine_root.tell(**told)
        with worker(engine_root, f"host-{number}") as process:

            def there(come_so_far: Callable[[Training], bool] = come_so_far) -> bool:
                now = row()
                assert now.status in ("queued", "running"), f"{now.error} {now.error_detail}"
                return come_so_far(now)

            until(there, 120, f"the stage {stage}")
            assert row().stage == stage
            assert row().host == f"host-{number}"
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        until(lambda: not processes_of(job["training_id"]), 20, "the end of the command")
        scratch = Path(settings.SCRATCH_DIR) / f"training-{job['training_id']}-{number + 1}"
        assert scratch.is_dir()
        shutil.rmtree(scratch)  # The next host has never seen it.
    engine_root.tell()
    with worker(engine_root, "host-last"):
        until(lambda: row().status in ("succeeded", "failed"), 90, "the end")
    ended = api.get(job["links"]["self"]).json()
    assert (ended["status"], ended["error_message"], row().host) == ("succeeded", None, "host-last")
    assert row().attempt == len(STAGES) + 1
    # The first epoch of each was made once, and the second by the host after it.
    assert [call["first"] for call in engine_root.calls("s2_epochs")] == [1, 2]
    assert [call["epoch"] for call in engine_root.calls("s1_resumes")] == [1]
    assert len(engine_root.calls("s1")) == 2
    # The features were made by the attempt that came through them, once more after the one that was killed there.
    assert [call["script"] for call in engine_root.calls("prepare")][-3:] == [
        "1-get-text", "2-get-hubert-wav32k", "3-get-semantic",
    ]  # fmt: skip
    assert len(engine_root.calls("prepare")) <= 6
    model = EngineModel.objects.get()
    assert model.model_id == ended["model_id"] and WeightsFile.objects.count() == 2
    assert not (row().prepared or row().trained or row().evaluated)
