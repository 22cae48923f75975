"""A database or a bucket that is away for a while: work waits, goes on, and no job is failed for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from django.conf import settings
from django.db import InterfaceError, OperationalError

from covers import pipeline, tasks
from covers.models import CoverJob
from tests.support.running.workers import submit
from voiceproject.jobs.heartbeat import Heartbeat
from voiceproject.media.storage import is_passing
from voiceproject.operations import worker

pytestmark = pytest.mark.usefixtures("fresh_covers")

AWAY = EndpointConnectionError(endpoint_url="http://bucket.example")
LOCKED = OperationalError("database is locked")  # what SQLite says; PostgreSQL's words do not matter


def answer(status: int, code: str) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (AWAY, True),
        (ReadTimeoutError(endpoint_url="http://bucket.example"), True),
        (answer(503, "SlowDown"), True),
        (answer(500, "InternalError"), True),
        (answer(429, "TooManyRequests"), True),
        (answer(403, "AccessDenied"), False),
        (answer(404, "NoSuchBucket"), False),
        (LOCKED, True),
        (OperationalError("database or disk is full"), False),
        (OSError(28, "No space left on device"), False),
        (FileNotFoundError("x"), False),
        (ValueError("x"), False),
    ],
)
def test_what_passes_and_what_does_not(error: Exception, passing: bool) -> None:
    assert is_passing(error) is passing
    if isinstance(error, ClientError):
        try:
            try:
                raise error
            except ClientError as cause:
                raise S3UploadFailedError("it failed") from cause
        except S3UploadFailedError as wrapped:
            assert is_passing(wrapped) is passing


def test_on_postgresql_every_lost_connection_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voiceproject.media.storage.connection", SimpleNamespace(vendor="postgresql"))
    assert is_passing(OperationalError("server closed the connection unexpectedly"))
    assert is_passing(InterfaceError("connection already closed"))


@contextmanager
def failing(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: Exception, times: int
) -> Iterator[Callable[[], int]]:
    """The method raises so many times, before it does what it does; yields how often it has."""
    original = getattr(owner, name)
    raised = [0]

    def method(*args: Any, **options: Any) -> Any:
        if raised[0] < times:
            raised[0] += 1
            raise error
        return original(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, method)
        yield lambda: raised[0]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("owner", "name", "error"),
    [
        (CoverJob, "upload", AWAY),
        (CoverJob, "note", LOCKED),
        (CoverJob, "succeed", LOCKED),
        (pipeline.storage, "fetch", AWAY),
        (pipeline.registry, "for_cover", LOCKED),
    ],
)
def test_a_cover_waits_for_what_is_away(
    owner: Any, name: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit()
    with failing(monkeypatch, owner, name, error, times=2) as raised:
        tasks.run_covers.fn()
    row = CoverJob.objects.get()
    assert (row.status, row.attempt, raised()) == ("succeeded", 1, 2)


@pytest.mark.django_db(transaction=True)
def test_an_outage_that_lasts_costs_an_attempt_and_only_the_last_one_fails_the_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submit()
    monkeypatch.setattr(pipeline.patiently, "__defaults__", (0.2,))
    monkeypatch.setattr(pipeline, "OUTAGE_SECONDS", 0.2)
    seen: list[tuple[str, int]] = []
    run = pipeline.run

    def one_at_a_time(job: CoverJob, stopping: threading.Event) -> None:
        run(job, stopping)
        job.refresh_from_db()
        seen.append((job.status, job.attempt))

    monkeypatch.setattr(pipeline, "run", one_at_a_time)
    with failing(monkeypatch, CoverJob, "upload", AWAY, times=1000):
        tasks.run_covers.fn()
    assert seen == [("queued", 1), ("queued", 2), ("failed", 3)]
    row = CoverJob.objects.get()
    assert row.error == "separation_failed"
    assert "bucket.example" in row.error_detail
    assert "bucket.example" not in row.error_message
    assert row.retry()
    tasks.run_covers.fn()
    assert CoverJob.objects.get().status == "succeeded"


@pytest.mark.django_db(transaction=True)
def test_a_claim_that_finds_no_database_is_left_to_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    submit()
    with failing(monkeypatch, CoverJob, "claim", LOCKED, times=1):
        tasks.run_covers.fn()
        assert CoverJob.objects.get().status == "queued"
        tasks.run_covers.fn()
    assert CoverJob.objects.get().status == "succeeded"


@pytest.mark.django_db(transaction=True)
def test_who_cannot_reach_the_database_gives_up_before_two_work_on_one_job_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submit()
    job = CoverJob.claim("w", "h", 1, 1)
    assert job is not None
    stopping = threading.Event()
    with failing(monkeypatch, CoverJob, "beat", LOCKED, times=1000) as raised, Heartbeat(job, stopping) as heartbeat:
        heartbeat.cut_off_seconds = 1.2
        time.sleep(0.6)
        assert raised() >= 1
        assert not heartbeat.gone()
        time.sleep(0.8)
        assert heartbeat.gone()
    assert not heartbeat.lost.is_set()


@pytest.mark.django_db(transaction=True)
def test_nothing_is_taken_over_at_once_after_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The heartbeats of all are old then, through nobody's fault."""
    asked: list[bool] = []
    looked = threading.Event()

    def look(take_over: bool = True) -> None:
        asked.append(take_over)
        if len(asked) == 4:
            raise LOCKED
        if len(asked) == 8:
            looked.set()

    monkeypatch.setattr(worker, "look", look)
    monkeypatch.setattr(worker, "sweep_files", lambda: None)
    monkeypatch.setattr(settings, "WORKER_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(worker.Look, "CALM_SECONDS", 0.15)
    thread = worker.Look()
    thread.start()
    assert looked.wait(20)
    thread.stopping.set()
    thread.join()
    assert asked[0] is False
    assert asked[3] is True
    assert asked[4] is False
    assert asked[7] is True
