"""Cancel at every boundary of a cover: it stays canceled, no file stays, and its command is dead within two seconds.

These are quick, and run with all other tests.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from covers import pipeline, tasks
from covers.models import STAGES, CoverJob
from tests.support.covers import run_in_thread
from tests.support.running.processes import processes_of
from tests.support.running.workers import submit
from tests.support.waiting import promised, until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("fresh_covers")]

INPUTS = ["0-reference", "0-song"]


def stored(job: CoverJob) -> list[str]:
    return sorted(job.song.storage.listdir(job.folder)[1])


def assert_canceled_for_good(job: CoverJob) -> None:
    row = CoverJob.objects.get(pk=job.pk)
    assert (row.status, row.error) == ("canceled", "")
    assert stored(job) == INPUTS
    assert not any(getattr(row, name) for name in row.output_fields())
    assert list(Path(settings.SCRATCH_DIR).iterdir()) == []
    assert CoverJob.claim("w", "h", 9, 9) is None


def test_before_it_is_claimed() -> None:
    job = submit()
    assert job.cancel()
    tasks.run_covers.fn()
    assert_canceled_for_good(job)
    assert CoverJob.objects.get().attempt == 0


@pytest.mark.parametrize("stage", STAGES)
def test_between_two_stages(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the stage begins, and before any heartbeat could tell: the next thing that is written has to notice."""
    job = submit()
    enter = pipeline._Progress.enter

    def cancel_and_enter(heartbeat: Any, name: str) -> None:
        enter(heartbeat, name)
        if name == stage:
            assert CoverJob.objects.get(pk=job.pk).cancel()

    monkeypatch.setattr(pipeline._Progress, "enter", cancel_and_enter)
    tasks.run_covers.fn()
    assert_canceled_for_good(job)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
@pytest.mark.parametrize("kind", ["separate", "infer"])
def test_in_a_stage_its_command_is_dead_within_two_seconds(kind: str, habits: Callable[..., None]) -> None:
    habits(**{kind: "stubborn"})
    job = submit()
    worker = run_in_thread()
    until(lambda: CoverJob.objects.get().stage == kind and len(processes_of(str(job.pk))) >= 2)
    started = time.monotonic()
    assert CoverJob.objects.get().cancel()
    until(lambda: not processes_of(str(job.pk)), 20)
    # The contract is two seconds; the rest is for a machine that runs other things too.
    assert time.monotonic() - started < promised(3)
    worker.join(10)
    assert_canceled_for_good(job)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", ["1-vocals.wav", "1-converted.wav", "1-result.wav"])
def test_while_a_file_is_stored(name: str, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    job = submit()
    storage_class = type(job.song.storage._wrapped)
    save = storage_class.save

    def cancel_and_save(self: Any, path: str, *args: Any, **options: Any) -> str:
        ours = path.endswith(name)
        if ours and when == "before":
            assert CoverJob.objects.get(pk=job.pk).cancel()
        written = save(self, path, *args, **options)
        if ours and when == "after":
            assert CoverJob.objects.get(pk=job.pk).cancel()
        return written

    monkeypatch.setattr(storage_class, "save", cancel_and_save)
    tasks.run_covers.fn()
    assert_canceled_for_good(job)


def test_between_the_final_write_and_success(monkeypatch: pytest.MonkeyPatch) -> None:
    job = submit()
    succeed = CoverJob.succeed

    def cancel_and_succeed(self: CoverJob, *args: Any, **fields: Any) -> bool:
        assert CoverJob.objects.get(pk=job.pk).cancel()
        return succeed(self, *args, **fields)

    monkeypatch.setattr(CoverJob, "succeed", cancel_and_succeed)
    tasks.run_covers.fn()
    assert_canceled_for_good(job)
    connection.close()


@pytest.mark.parametrize("delete", [False, True])
def test_in_finalize_no_error_is_logged(
    delete: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As the sweep and a DELETE have it: what finalize reads goes from under it."""
    job = submit()
    sign = pipeline.sign_file

    def cancel_and_sign(path: Path, *args: Any, **options: Any) -> None:
        if path.name == "result.wav":
            row = CoverJob.objects.get(pk=job.pk)
            if delete:
                row.remove()
            else:
                assert row.cancel()
            path.unlink()
        sign(path, *args, **options)

    monkeypatch.setattr(pipeline, "sign_file", cancel_and_sign)
    tasks.run_covers.fn()
    assert [record.message for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []
    assert list(Path(settings.SCRATCH_DIR).iterdir()) == []
    assert CoverJob.objects.filter(status="canceled").count() == (0 if delete else 1)
