"""Cancel, and a full disk, at every boundary of a training: it stays canceled, its command ends, nothing stays behind.

These are quick, and run with all other tests.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.files.storage import default_storage
from rest_framework.test import APIClient

from voices.library.models import Voice
from voices.speech.models import EngineModel
from voices.training import pipeline, tasks
from voices.training.models import CHECKPOINTS, STAGES, Training

pytestmark = [pytest.mark.usefixtures("fresh_trainings"), pytest.mark.django_db(transaction=True)]

WEIGHTS = ["gpt.ckpt", "sovits.pth"]


def row() -> Training:
    return Training.objects.get()


def cancel() -> None:
    assert Training.objects.get().cancel(settings.TRAINING_TTL_HOURS)


def assert_canceled_for_good() -> None:
    job = row()
    assert (job.status, job.error, job.checkpoint, job.output_bytes) == ("canceled", "", "", 0)
    assert default_storage.listdir(job.folder)[1] == ["0-recording-0000"]
    assert not EngineModel.objects.exists()
    assert not default_storage.exists("models") or default_storage.listdir("models") == ([], [])
    assert list(Path(settings.SCRATCH_DIR).iterdir()) == []
    assert Training.claim("w", "h", 9, 9) is None


@pytest.fixture
def storing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Does something before or after a file is stored whose name ends so, or has that in it."""

    def choose(name: str, action: Callable[[], None], when: str = "before") -> None:
        storage_class = type(default_storage._wrapped)
        save = storage_class.save

        def act_and_save(self: Any, path: str, *args: Any, **options: Any) -> str:
            ours = name in path
            if ours and when == "before":
                action()
            written = save(self, path, *args, **options)
            if ours and when == "after":
                action()
            return str(written)

        monkeypatch.setattr(storage_class, "save", act_and_save)

    return choose


def test_before_it_is_claimed(train: Callable[..., Any]) -> None:
    train()
    cancel()
    tasks.run_trainings.fn()
    assert_canceled_for_good()
    assert row().attempt == 0


@pytest.mark.parametrize("stage", STAGES)
def test_between_two_stages(train: Callable[..., Any], stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the stage begins, and before any heartbeat could tell: the next thing that is written has to notice."""
    train()
    enter = pipeline._Progress.enter

    def cancel_and_enter(heartbeat: Any, name: str) -> None:
        first = name == stage and heartbeat.stage != name
        enter(heartbeat, name)
        if first:
            cancel()

    monkeypatch.setattr(pipeline._Progress, "enter", cancel_and_enter)
    tasks.run_trainings.fn()
    assert_canceled_for_good()
    assert not Voice.objects.exists()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", ["-checkpoint-", *WEIGHTS])
def test_while_a_file_is_stored(train: Callable[..., Any], storing: Callable[..., None], name: str, when: str) -> None:
    train()
    done: list[bool] = []

    def once() -> None:
        if not done:
            done.append(True)
            cancel()

    storing(name, once, when)
    tasks.run_trainings.fn()
    assert done
    assert_canceled_for_good()


def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_full_disk_while_weights_are_stored_leaves_none_and_a_retry_ends_it(
    train: Callable[..., Any], api: APIClient, storing: Callable[..., None], name: str
) -> None:
    job = train().json()
    is_full = [True]
    storing(name, lambda: full() if is_full[0] else None)
    tasks.run_trainings.fn()
    failed = api.get(job["links"]["self"]).json()
    assert (failed["status"], failed["error"], failed["stage"]) == ("failed", "storage_full", "publish")
    assert not EngineModel.objects.exists()
    assert not default_storage.exists("models") or default_storage.listdir("models") == ([], [])
    assert row().evaluated
    is_full[0] = False
    assert api.post(failed["links"]["retry"], {}, format="json").status_code == 202
    tasks.run_trainings.fn()
    assert api.get(job["links"]["self"]).json()["status"] == "succeeded"
    again = [mark["stage"] for mark in row().marks if mark["attempt"] == 2]
    assert not {"check", "features", "train_sovits", "train_gpt", "evaluate"} & set(again)


def test_a_checkpoint_that_finds_no_room_is_told_and_costs_no_training(
    train: Callable[..., Any], storing: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    train()
    storing("-checkpoint-", full)
    tasks.run_trainings.fn()
    assert row().status == "succeeded"
    warned = [record for record in caplog.records if "no room for a checkpoint" in record.message]
    assert len(warned) == len(CHECKPOINTS) and {record.levelname for record in warned} == {"WARNING"}
    assert default_storage.listdir(row().folder)[1] == ["0-recording-0000"]
