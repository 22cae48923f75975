"""Worker processes: the real `dramatiq voiceproject.worker`, with and without Redis, killed and stopped."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings
from django.db.models.functions import Now

from covers import tasks as cover_tasks
from covers.models import CoverJob
from tests.support.covers import away
from tests.support.running.processes import processes_of
from tests.support.running.workers import a_worker, submit
from tests.support.waiting import until
from voiceproject.jobs.models import WorkerHost
from voiceproject.operations import worker

pytestmark = pytest.mark.django_db(transaction=True)


def status_is(job: CoverJob, *statuses: str) -> Callable[[], bool]:
    return lambda: CoverJob.objects.get(pk=job.pk).status in statuses


def test_without_redis_a_worker_lives_by_looking_at_the_database() -> None:
    job = submit()
    with a_worker(REDIS_URL=""):
        until(status_is(job, "succeeded"), 40)
        later = submit()
        until(status_is(later, "succeeded"), 20)
    assert WorkerHost.objects.filter(seen_at__gt=Now() - timedelta(minutes=1)).exists()


def test_with_redis_it_does_so_too_though_redis_forgets_everything(redis_url: str) -> None:
    client = redis.Redis.from_url(redis_url)
    with a_worker(infer="slow", REDIS_URL=redis_url):
        first = submit()
        until(status_is(first, "running"), 40)
        client.flushall()
        second = submit()
        until(status_is(first, "succeeded"), 30)
        until(status_is(second, "succeeded"), 30)
    client.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_a_job_of_a_killed_worker_is_finished_by_the_next_and_leaves_no_process() -> None:
    job = submit()
    with a_worker(infer="hang", REDIS_URL="") as process:
        until(lambda: CoverJob.objects.get(pk=job.pk).stage == "infer" and processes_of(str(job.pk)), 40)
        os.killpg(process.pid, signal.SIGKILL)
        until(lambda: not processes_of(str(job.pk)), 20)
    assert CoverJob.objects.get(pk=job.pk).status == "running"
    # Separation would fail now: the stems that were kept are gone on with.
    with a_worker(separate="fail", REDIS_URL=""):
        until(status_is(job, "succeeded", "failed"), 40)
        row = CoverJob.objects.get(pk=job.pk)
        assert (row.status, row.attempt) == ("succeeded", 2)
        until(lambda: not list(Path(settings.SCRATCH_DIR).iterdir()), 10)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_a_worker_that_comes_back_from_a_pause_finds_that_it_lost_and_ends_its_command() -> None:
    job = submit()
    first = f"cover-{job.pk}-1"
    with a_worker(infer="hang", REDIS_URL="") as process:
        until(lambda: CoverJob.objects.get(pk=job.pk).stage == "infer" and processes_of(first), 40)
        os.killpg(process.pid, signal.SIGSTOP)
        CoverJob.objects.filter(pk=job.pk).update(heartbeat_at=Now() - timedelta(minutes=1))
        assert CoverJob.recover(30, max_attempts=3) == 1
        successor = CoverJob.claim("another", "elsewhere", 1, 1)
        assert successor is not None
        assert (successor.pk, successor.attempt) == (job.pk, 2)
        assert processes_of(first)  # Nobody could tell it, as long as its worker sleeps.
        os.killpg(process.pid, signal.SIGCONT)
        until(lambda: not processes_of(first), 20)
        assert successor.succeed(24)
        until(lambda: not list(Path(settings.SCRATCH_DIR).iterdir()), 10)
    row = CoverJob.objects.get(pk=job.pk)
    assert (row.status, row.attempt, row.worker) == ("succeeded", 2, "another")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_a_worker_ends_with_dramatiqs_main_process_and_its_job_goes_on_elsewhere() -> None:
    job = submit()
    with a_worker(infer="hang", REDIS_URL="") as process:
        until(lambda: CoverJob.objects.get(pk=job.pk).stage == "infer" and processes_of(str(job.pk)), 40)
        process.kill()
        until(status_is(job, "queued"), 20)
        until(lambda: not processes_of(str(job.pk)), 20)
        until(lambda: not in_group(process.pid), 20)
    assert CoverJob.objects.get(pk=job.pk).attempt == 0


def in_group(group: int) -> list[int]:
    """The processes of a process group that still run."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] not in "ZX":
            found.append(int(entry.name))
    return found


def test_a_worker_that_is_told_to_stop_hands_its_job_back_in_time() -> None:
    job = submit()
    with a_worker(infer="stubborn", REDIS_URL="") as process:
        until(lambda: CoverJob.objects.get(pk=job.pk).stage == "infer", 40)
        started = time.monotonic()
        process.terminate()
        process.wait(15)
        assert time.monotonic() - started < 10
        row = CoverJob.objects.get(pk=job.pk)
        assert (row.status, row.attempt) == ("queued", 0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_commands_that_stay_end_with_their_worker(number: int) -> None:
    job = submit()
    folders = f"TMPDIR={settings.SCRATCH_DIR}/resident-"
    with a_worker(COVER_RESIDENT="true", REDIS_URL="") as process:
        until(status_is(job, "succeeded"), 40)
        assert processes_of(folders)
        until(lambda: len(list(Path(settings.SCRATCH_DIR).iterdir())) == 2)  # the job's own folder goes after its end
        os.kill(process.pid, signal.SIGTERM) if number == signal.SIGTERM else os.killpg(process.pid, number)
        process.wait(20)
        until(lambda: not processes_of(folders), 20)
    if number == signal.SIGTERM:
        assert list(Path(settings.SCRATCH_DIR).iterdir()) == []
    worker.look()
    assert list(Path(settings.SCRATCH_DIR).iterdir()) == []


def test_one_look_takes_over_expires_and_says_that_the_host_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    lost, old = submit(status="running", attempt=1), submit(status="succeeded")
    CoverJob.objects.filter(pk=lost.pk).update(heartbeat_at=Now() - timedelta(minutes=5))
    CoverJob.objects.filter(pk=old.pk).update(expires_at=Now() - timedelta(minutes=5))
    sent: list[bool] = []
    monkeypatch.setattr(cover_tasks.run_covers, "send", lambda: sent.append(True))
    worker.look()
    lost.refresh_from_db()
    old.refresh_from_db()
    assert lost.status == "queued"
    assert (old.files_expired, bool(old.song)) == (True, False)
    assert sent == [True]
    assert WorkerHost.objects.get().name == settings.WORKER_HOST


def test_work_goes_on_when_the_broker_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    submit()
    ran: list[bool] = []
    monkeypatch.setattr(cover_tasks.run_covers, "fn", lambda: ran.append(True))
    with away():
        worker.look()
    until(lambda: ran == [True], 20)


def test_too_few_threads_for_all_queues_are_told(caplog: pytest.LogCaptureFixture, settings: Any) -> None:
    settings.COVER_CONCURRENCY, settings.SYNTHESIS_CONCURRENCY = 4, 1
    worker.check_threads(6)
    assert not caplog.messages
    worker.check_threads(5)
    assert caplog.messages == ["5 threads, and 5 jobs may hold one each: start dramatiq with --threads 7"]


def test_abandoned_uploads_and_references_are_swept_by_age(settings: Any) -> None:
    settings.VOICE_ENGINE = "gptsovits"
    settings.SOVITS_REFERENCE_DIR = settings.DATA_DIR / "references"
    settings.SOVITS_REFERENCE_DIR.mkdir(exist_ok=True)
    kept: list[Path] = []
    gone: list[Path] = []
    for folder, name in ((settings.UPLOAD_DIR, "part.upload"), (settings.SOVITS_REFERENCE_DIR, "ab12.wav")):
        for age, names in ((3600, kept), (2 * 86400, gone)):
            path = Path(folder, f"{age}-{name}")
            path.write_bytes(b"x")
            os.utime(path, (time.time() - age, time.time() - age))
            names.append(path)
    worker.sweep_files()
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in gone)
