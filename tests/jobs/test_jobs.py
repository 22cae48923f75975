"""The life of a job: each change of its state, and each race that could make it lie."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from model_bakery import baker

from covers.models import CoverJob
from tests.support.jobs import claim, queued, silent_for
from tests.support.running.processes import database_url
from tests.support.threads import together
from voiceproject.errors import PublicError
from voiceproject.jobs.models import WorkerHost
from voiceproject.jobs.status import ERROR_MESSAGES, JobStatus
from voiceproject.tenants.models import Tenant

pytestmark = pytest.mark.django_db


def test_a_claim_starts_an_attempt() -> None:
    (job,) = queued()
    claimed = claim()
    assert claimed is not None
    assert (claimed.pk, claimed.status, claimed.attempt, claimed.worker) == (job.pk, "running", 1, "w1")
    assert claimed.heartbeat_at is not None
    assert claimed.started_at is not None
    assert claim() is None


@pytest.mark.django_db(transaction=True)
def test_claims_at_the_same_time_never_take_the_same_job() -> None:
    queued(count=5)
    jobs = together(*[lambda n=n: claim(f"w{n}", f"h{n}") for n in range(8)])
    taken = [job.pk for job in jobs if job]
    assert len(taken) == len(set(taken))
    while job := claim():
        taken.append(job.pk)
    assert len(set(taken)) == len(taken) == 5
    assert set(CoverJob.objects.values_list("attempt", flat=True)) == {1}


@pytest.mark.django_db(transaction=True)
def test_a_hosts_limit_holds_against_claims_at_the_same_time() -> None:
    queued(count=6)
    together(*[lambda n=n: claim(f"w{n}", "h1", host_limit=2) for n in range(6)])
    assert CoverJob.objects.filter(status=JobStatus.RUNNING).count() == 2
    assert claim("other", "h2", host_limit=2) is not None


@pytest.mark.django_db(transaction=True)
def test_a_tenants_limit_holds_against_claims_at_the_same_time() -> None:
    queued(count=6)
    # A claim that meets the tenant's locked row passes it over, so that fewer may come through at the same moment.
    taken = [job for job in together(*[lambda n=n: claim(f"w{n}", f"h{n}", tenant_limit=2) for n in range(6)]) if job]
    assert 1 <= len(taken) <= 2
    while job := claim("later", "h9", tenant_limit=2):
        taken.append(job)
    assert CoverJob.objects.filter(status=JobStatus.RUNNING).count() == len(taken) == 2


def test_a_tenant_with_one_job_does_not_wait_for_one_with_a_hundred() -> None:
    queued("greedy", 100)
    for _ in range(3):
        claim()
    (modest,) = queued("modest")
    following = [claim(), claim()]
    assert modest.pk in [job.pk for job in following if job]


def test_a_tenants_own_limits_go_before_the_default_ones() -> None:
    queued("alice", 3)
    queued("bob", 3)
    Tenant.objects.filter(user__username="alice").update(max_running=2, max_queued=3)
    Tenant.objects.filter(user__username="bob").update(max_running=0)
    taken = [claim(tenant_limit=1) for _ in range(4)]
    assert [job.tenant.username if job else None for job in taken] == ["alice", "alice", None, None]
    with CoverJob.admission(User.objects.get(username="alice"), max_queued=1):
        pass
    with pytest.raises(PublicError) as refused, CoverJob.admission(User.objects.get(username="bob"), max_queued=3):
        pass
    assert (refused.value.code, refused.value.details) == ("too_many_jobs", {"limit": 3, "found": 3})


def test_a_capped_tenants_urgent_jobs_do_not_keep_others_waiting() -> None:
    queued("alice", 5, priority=9)
    (modest,) = queued("bob")
    assert claim(tenant_limit=1).priority == 9
    assert claim(tenant_limit=1).pk == modest.pk
    assert claim(tenant_limit=1) is None


def test_a_host_that_drains_takes_nothing_and_finishes_what_it_has() -> None:
    queued(count=3)
    running = claim(host="h1")
    WorkerHost.objects.filter(name="h1").update(draining=True)
    assert claim(host="h1") is None
    assert running.beat()
    assert running.succeed(24)
    assert claim(host="h2") is not None
    WorkerHost.objects.filter(name="h1").update(draining=False)
    assert claim(host="h1") is not None


def test_only_what_waits_can_be_given_a_priority() -> None:
    first, second = queued(count=2)
    assert second.prioritize(5)
    taken = claim()
    assert taken.pk == second.pk
    assert not taken.prioritize(-5)
    assert CoverJob.objects.get(pk=first.pk).priority == 0


@pytest.mark.django_db(transaction=True)
def test_racing_submissions_never_exceed_what_may_wait() -> None:
    queued(count=1)
    user = User.objects.get(username="alice")

    def submit() -> bool:
        try:
            with CoverJob.admission(user, max_queued=4):
                baker.make(CoverJob, tenant=user, stage="queued")
        except PublicError as error:
            assert error.code == "too_many_jobs"
            return False
        return True

    assert sum(together(*[submit] * 8)) == 3
    assert CoverJob.objects.count() == 4


RACE = """
import sys, django
django.setup()
from django.contrib.auth.models import User
from covers.models import CoverJob
from voiceproject.errors import PublicError
user, me = User.objects.get(username="alice"), sys.argv[1]
count = lambda status: CoverJob.objects.filter(status=status).count()
print("ready", flush=True)
sys.stdin.readline()
for number in range(8):
    try:
        with CoverJob.admission(user, 6):
            CoverJob.objects.create(tenant=user)
    except PublicError:
        pass
    CoverJob.claim(me, f"host-{me}", 100, 3)
    assert count("running") <= 3 and count("queued") <= 6
"""


@pytest.mark.django_db(transaction=True)
def test_processes_that_race_keep_to_a_tenants_limits() -> None:
    queued(count=2)
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "voiceproject.settings", "DATABASE_URL": database_url(),
                   "DATA_DIR": str(settings.DATA_DIR)}  # fmt: skip
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(number)],
            cwd=settings.BASE_DIR, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(3)
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        racer.communicate(timeout=60)
        assert racer.returncode == 0
    assert [CoverJob.objects.filter(status=status).count() for status in ("running", "queued")] == [3, 6]


def test_priority_goes_before_fairness_and_age() -> None:
    queued("alice", 3)
    claim()
    (urgent,) = queued("alice", priority=5)
    queued("bob")
    taken = claim()
    assert taken is not None
    assert taken.pk == urgent.pk


def test_only_the_attempt_that_runs_may_end_a_job() -> None:
    queued()
    old = claim("w1")
    assert old is not None
    silent_for(old, 100)
    assert CoverJob.recover(30, max_attempts=3) == 1
    new = claim("w2")
    assert new is not None
    assert not old.beat()
    assert not old.succeed(24)
    assert not old.fail("mix_failed")
    assert not old.hand_back()
    assert new.beat()
    assert new.succeed(24)
    assert not new.fail("mix_failed")
    new.refresh_from_db()
    assert (new.status, new.attempt, new.worker) == ("succeeded", 2, "w2")


def test_a_late_success_loses_to_cancel() -> None:
    (job,) = queued()
    running = claim()
    assert running is not None
    assert job.cancel()
    assert not running.beat()
    assert not running.succeed(24)
    job.refresh_from_db()
    assert job.status == JobStatus.CANCELED


@pytest.mark.django_db(transaction=True)
def test_cancel_and_success_at_the_same_time_have_one_winner() -> None:
    for _ in range(10):
        (job,) = queued()
        running = claim()
        assert running is not None
        canceled, succeeded = together(job.cancel, functools.partial(running.succeed, 24))
        assert canceled != succeeded
        job.refresh_from_db()
        assert job.status == (JobStatus.CANCELED if canceled else JobStatus.SUCCEEDED)


@pytest.mark.django_db(transaction=True)
def test_claim_and_cancel_at_the_same_time_end_canceled() -> None:
    for _ in range(10):
        (job,) = queued()
        claimed, canceled = together(claim, job.cancel)
        assert canceled
        job.refresh_from_db()
        assert (job.status, job.attempt) == ("canceled", 1 if claimed else 0)
        if claimed:
            assert not claimed.beat()
            assert not claimed.succeed(24)
        assert claim() is None


@pytest.mark.django_db(transaction=True)
def test_success_and_takeover_at_the_same_time_have_one_winner() -> None:
    for _ in range(10):
        queued()
        running = claim()
        assert running is not None
        silent_for(running, 100)
        succeeded, taken_over = together(functools.partial(running.succeed, 24), lambda: CoverJob.recover(30, 3))
        assert succeeded != bool(taken_over)
        row = CoverJob.objects.get(pk=running.pk)
        assert row.status == ("succeeded" if succeeded else "queued")
        if taken_over:
            assert not running.succeed(24)
            row.cancel()


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_beats_at_the_moment_of_its_takeover_keeps_the_job_or_knows_that_it_lost() -> None:
    for _ in range(10):
        queued()
        running = claim()
        assert running is not None
        silent_for(running, 100)
        beaten, taken_over = together(running.beat, lambda: CoverJob.recover(30, 3))
        row = CoverJob.objects.get(pk=running.pk)
        assert beaten != bool(taken_over)
        assert (row.status, row.worker) == (("running", "w1") if beaten else ("queued", ""))
        row.cancel()


@pytest.mark.django_db(transaction=True)
def test_hand_back_and_cancel_at_the_same_time_end_canceled() -> None:
    for _ in range(10):
        queued()
        running = claim()
        assert running is not None
        same = CoverJob.objects.get(pk=running.pk)
        _, canceled = together(running.hand_back, same.cancel)
        assert canceled
        assert CoverJob.objects.get(pk=running.pk).status == "canceled"
        assert claim() is None


@pytest.mark.django_db(transaction=True)
def test_two_retries_at_the_same_time_are_one() -> None:
    for _ in range(5):
        (job,) = queued()
        job.cancel()
        copies = [CoverJob.objects.get(pk=job.pk) for _ in range(3)]
        assert sum(together(*[copy.retry for copy in copies])) == 1
        row = CoverJob.objects.get(pk=job.pk)
        assert (row.status, row.first_attempt) == ("queued", row.attempt)
        row.cancel()


@pytest.mark.django_db(transaction=True)
def test_two_ends_of_one_attempt_have_one_winner() -> None:
    for _ in range(10):
        queued()
        running = claim()
        assert running is not None
        same = CoverJob.objects.get(pk=running.pk)
        ends = together(functools.partial(running.succeed, 24), functools.partial(same.fail, "mix_failed"))
        assert sum(ends) == 1
        assert CoverJob.objects.get(pk=running.pk).status == ("succeeded" if ends[0] else "failed")


@pytest.mark.django_db(transaction=True)
def test_deleting_a_job_while_it_succeeds_leaves_neither_row_nor_file(
    tmp_path: Any, leftovers: Callable[[], list[str]]
) -> None:
    path = tmp_path / "result.wav"
    path.write_bytes(b"result")

    def finish(running: CoverJob) -> bool:
        return running.store("result", path, "result.wav") and running.succeed(24)

    for _ in range(5):
        queued()
        running = claim()
        assert running is not None
        same = CoverJob.objects.get(pk=running.pk)
        together(functools.partial(finish, running), same.remove)
        assert not CoverJob.objects.filter(pk=running.pk).exists()
        assert leftovers() == []


def test_a_file_is_stored_though_its_folder_is_removed_this_moment(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, leftovers: Callable[[], list[str]]
) -> None:
    if settings.STORAGE_URL:
        pytest.skip("a bucket has no folders")
    path = tmp_path / "result.wav"
    path.write_bytes(b"result")
    queued()
    running = claim()
    assert running is not None
    really_open = os.open
    removed: list[str] = []

    def opened(name: Any, *args: Any, **kwargs: Any) -> int:
        if str(name).endswith("1-result.wav") and not removed:
            removed.append(name)
            os.rmdir(os.path.dirname(name))
        return really_open(name, *args, **kwargs)

    monkeypatch.setattr(os, "open", opened)
    CoverJob.objects.filter(pk=running.pk).delete()
    assert not running.store("result", path, "result.wav")
    assert removed
    assert leftovers() == []


def test_who_has_handed_back_does_not_speak_for_the_next_one_with_the_same_number() -> None:
    queued()
    first = claim("w1")
    assert first is not None
    second_thought = CoverJob.objects.get()
    assert first.hand_back()
    second = claim("w2")
    assert second is not None
    assert second.attempt == second_thought.attempt == 1
    # The answer to the first hand-back may have been lost with the connection, so that it is sent again.
    assert not second_thought.hand_back()
    assert not second_thought.succeed(24)
    assert second.beat()


def test_what_was_put_back_after_an_outage_counts_as_an_attempt() -> None:
    queued()
    for attempt in (1, 2):
        running = claim()
        assert running is not None
        assert running.attempt == attempt
        assert running.put_back(max_attempts=3)
    last = claim()
    assert last is not None
    assert not last.put_back(max_attempts=3)
    assert last.fail("preprocess_failed")


def test_canceling_twice_or_after_the_end_changes_nothing() -> None:
    (job,) = queued()
    assert job.cancel()
    finished = CoverJob.objects.get().finished_at
    assert not job.cancel()
    assert CoverJob.objects.get().finished_at == finished
    assert claim() is None


def test_a_silent_worker_is_replaced_until_the_attempts_are_used_up() -> None:
    (job,) = queued()
    for attempt in (1, 2, 3):
        running = claim()
        assert running is not None
        assert running.attempt == attempt
        assert CoverJob.recover(30, max_attempts=3) == 0
        silent_for(running, 31)
        assert CoverJob.recover(30, max_attempts=3) == 1
    job.refresh_from_db()
    assert (job.status, job.error, job.error_message) == ("failed", "worker_lost", ERROR_MESSAGES["worker_lost"])
    assert job.expires_at is not None, "its files are not kept for ever"
    assert claim() is None


@pytest.mark.django_db(transaction=True)
def test_a_lost_job_is_taken_over_once() -> None:
    queued()
    running = claim()
    assert running is not None
    silent_for(running, 100)
    assert sum(together(*[lambda: CoverJob.recover(30, 3)] * 4)) == 1
    row = CoverJob.objects.get()
    assert (row.status, row.attempt, row.worker) == ("queued", 1, "")


def test_a_hand_back_costs_no_attempt() -> None:
    queued()
    running = claim()
    assert running is not None
    assert running.hand_back()
    again = claim()
    assert again is not None
    assert again.attempt == 1


def test_a_retry_starts_the_count_of_attempts_anew() -> None:
    (job,) = queued()
    running = claim()
    assert running is not None
    assert not job.retry()
    assert running.fail("separation_failed", detail="Traceback ...\x00")
    assert job.retry()
    assert not job.retry()
    assert (job.status, job.error, job.error_detail, job.first_attempt) == ("queued", "", "", 1)
    for _ in range(3):
        running = claim()
        assert running is not None
        silent_for(running, 100)
        CoverJob.recover(30, max_attempts=3)
    job.refresh_from_db()
    assert (job.status, job.attempt) == ("failed", 4)


def test_a_retry_that_comes_after_the_files_have_expired_is_none() -> None:
    (job,) = queued()
    assert job.cancel(ttl_hours=-1)
    assert CoverJob.expire() == 1
    assert not job.retry()  # by who has read the row before
    assert CoverJob.objects.get().status == "canceled"


def test_progress_never_falls_within_an_attempt() -> None:
    queued()
    running = claim()
    assert running is not None
    for stage, progress in (("separate", 30), ("separate", 20), ("infer", 55), ("infer", 300)):
        assert running.beat(stage, progress)
    row = CoverJob.objects.get()
    assert (row.stage, row.progress) == ("infer", 100)


def test_a_quiet_beat_changes_no_revision() -> None:
    queued()
    running = claim()
    assert running is not None
    running.beat("separate", 10)
    before = CoverJob.objects.get().revision
    running.beat("separate", 10)
    assert CoverJob.objects.get().revision == before


def test_a_file_of_a_job_that_is_no_longer_ours_is_not_kept(tmp_path: Any, leftovers: Callable[[], list[str]]) -> None:
    (job,) = queued()
    running = claim()
    assert running is not None
    path = tmp_path / "vocals.wav"
    path.write_bytes(b"first")
    assert running.store("vocals", path, "vocals.wav")
    assert len(leftovers()) == 1
    job.cancel()
    assert leftovers() == []
    assert not running.store("vocals", path, "vocals.wav")
    assert leftovers() == []
    assert not CoverJob.objects.get().vocals


def test_removing_a_running_job_cancels_it_and_deletes_its_files(leftovers: Callable[[], list[str]]) -> None:
    (job,) = queued()
    job.song.save(f"{job.folder}/0-song", ContentFile(b"song"), save=False)
    CoverJob.objects.update(song=job.song.name)
    running = claim()
    assert running is not None
    CoverJob.objects.get().remove()
    assert leftovers() == []
    assert not CoverJob.objects.exists()
    assert not running.beat()
    assert not CoverJob.objects.exists()


def test_an_expired_job_keeps_its_row_and_loses_its_files(leftovers: Callable[[], list[str]]) -> None:
    (job,) = queued()
    job.song.save(f"{job.folder}/0-song", ContentFile(b"song"), save=False)
    CoverJob.objects.update(song=job.song.name)
    running = claim()
    assert running is not None
    assert CoverJob.expire() == 0
    running.succeed(ttl_hours=-1)
    assert CoverJob.expire() == 1
    assert leftovers() == []
    assert CoverJob.objects.get().status == "succeeded"


def stages_of(job: CoverJob) -> list[tuple[int, str]]:
    job.refresh_from_db()
    return [(mark["attempt"], mark["stage"]) for mark in job.marks]


def test_a_job_keeps_what_each_attempt_did_and_how_it_ended() -> None:
    (job,) = queued()
    first = claim(host="gpu-1")
    first.mark("separate")
    assert first.beat("separate", 10)
    assert first.hand_back()
    second = claim("w2", "gpu-2")
    silent_for(second, 100)
    CoverJob.recover(30, 9)
    third = claim("w3", "gpu-3")
    third.mark("infer")
    assert third.fail("inference_failed")
    # A handed-back attempt does not count, so that the next one has its number.
    assert stages_of(job) == [
        (1, "claimed"), (1, "separate"), (1, "handed back"), (1, "claimed"), (1, "taken over"),
        (2, "claimed"), (2, "infer"), (2, "failed"),
    ]  # fmt: skip
    assert [mark["host"] for mark in job.marks if mark["stage"] == "claimed"] == ["gpu-1", "gpu-2", "gpu-3"]
    times = [mark["at"] for mark in job.marks]
    assert times == sorted(times)


def test_the_marks_of_a_worker_that_has_lost_are_not_kept() -> None:
    (job,) = queued()
    mine = claim()
    job.cancel()
    mine.mark("infer")
    assert not mine.beat("infer", 50)
    assert not mine.succeed(1)
    assert stages_of(job) == [(1, "claimed"), (1, "canceled")]


def test_a_job_that_goes_round_for_ever_keeps_its_last_marks() -> None:
    old = {"attempt": 1, "stage": "infer", "at": "2026-01-01T00:00:00.000+00:00"}
    (job,) = queued(marks=[old] * 199)
    for _ in range(3):
        assert claim().hand_back()
    assert len(stages_of(job)) == 200
    assert [mark["stage"] for mark in job.marks[-7:]] == ["infer", *["claimed", "handed back"] * 3]


def test_an_operator_takes_a_job_from_a_worker_which_learns_it_at_its_next_beat() -> None:
    (job,) = queued()
    mine = claim()
    assert job.requeue()
    assert (job.status, job.worker, job.host) == ("queued", "", "")
    assert not mine.beat("separate", 30)
    assert not mine.succeed(1)
    again = claim()
    assert (again.pk, again.attempt, again.status) == (job.pk, 2, "running")
    assert [stage for _, stage in stages_of(job)] == ["claimed", "requeued", "claimed"]
    assert again.cancel() and not again.requeue()


def test_a_retry_from_a_stage_deletes_what_that_stage_and_later_ones_have_made() -> None:
    (job,) = queued(status="failed", error="mix_failed", attempt=1)
    for name in ("vocals", "instrumental", "converted"):
        file = getattr(job, name)
        file.save(f"covers/{job.pk}/1-{name}", ContentFile(b"audio"), save=False)
        CoverJob.objects.filter(pk=job.pk).update(**{name: file.name})
    job.refresh_from_db()
    converted, storage = job.converted.name, job.converted.storage
    assert job.retry("infer")
    assert (job.status, bool(job.vocals), bool(job.instrumental), bool(job.converted)) == ("queued", True, True, False)
    assert not storage.exists(converted)
    assert storage.exists(job.vocals.name)
    assert not job.retry("separate")  # It waits already: nothing of it is touched.
    assert storage.exists(job.vocals.name)


def test_what_a_running_command_says_is_kept_until_the_job_succeeds_and_is_no_change_for_clients() -> None:
    job = baker.make(CoverJob, status="running", attempt=1, worker="w", stage="infer", progress=10)
    assert job.beat("infer", 10, "loading\x00 weights")
    row = CoverJob.objects.get(pk=job.pk)
    assert (row.error_detail, row.revision) == ("loading weights", job.revision)
    assert job.beat("infer", 20, "singing")
    row.refresh_from_db()
    assert (row.error_detail, row.progress, row.revision) == ("singing", 20, job.revision + 1)
    assert job.succeed(24)
    row.refresh_from_db()
    assert (row.status, row.error_detail) == ("succeeded", "")
