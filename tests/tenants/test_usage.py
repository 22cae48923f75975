"""The usage ledger and quotas: what is reserved, what counts in the end, and that nothing slips through at the edge."""

from __future__ import annotations

import calendar
import itertools
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from model_bakery import baker
from rest_framework.test import APIClient

from covers.models import CoverJob
from tests.fakes.engine import FakeEngine
from tests.support.audio import upload, wav_bytes
from tests.support.covers import RATE, song
from tests.support.jobs import silent_for
from tests.support.tenants import Tenant
from tests.support.threads import together
from voiceproject.errors import EngineError, PublicError, StreamBroken
from voiceproject.jobs.queue import live_keys
from voiceproject.jobs.status import JobStatus
from voiceproject.tenants import usage
from voiceproject.tenants.models import Tenant as Limits
from voiceproject.tenants.models import UsageEntry
from voices.keys.models import ApiKey
from voices.library.models import Voice
from voices.speech import tasks
from voices.speech.models import Synthesis
from voices.text.languages import speaking_seconds

pytestmark = pytest.mark.django_db(transaction=True)
SPEECH, COVER, USAGE, ME = "/api/v1/voice/synthesize", "/api/v1/cover/jobs", "/api/v1/usage", "/api/v1/me"
TEXT = "Here is the first sentence of three. This is the second one of them. And that was the third and last."
State = UsageEntry.State
GONE = "ffffffff-ffff-4fff-bfff-ffffffffffff"  # an id that comes last


@pytest.fixture
def speak(api: APIClient, engine: FakeEngine, reference_wav: bytes) -> Callable[..., Any]:
    def send(client: APIClient = api, prefer: str = "", **fields: Any) -> Any:
        form = {"text": TEXT, "reference_audio": upload(reference_wav), **fields}
        return client.post(SPEECH, form, headers={"Prefer": prefer} if prefer else {})

    return send


@pytest.fixture
def queue(api: APIClient, reference_wav: bytes, engine: FakeEngine) -> Callable[..., Any]:
    content = wav_bytes(song(3.0), RATE)

    def send(client: APIClient = api, **fields: Any) -> Any:
        return client.post(
            COVER, {"song": upload(content, "song.wav"), "reference_voice": upload(reference_wav), **fields}
        )

    return send


def limit(tenant: Tenant, **fields: Any) -> None:
    Limits.objects.update_or_create(user=tenant.user, defaults=fields)


def entry(**fields: Any) -> UsageEntry:
    return UsageEntry.objects.get(**fields)


def cover(tenant: Tenant, **fields: Any) -> CoverJob:
    """A queued cover of a song of 100 s, which was accepted."""
    made = {"tenant": tenant.user, "api_key": tenant.key, "song": "covers/x/0-song", "duration_seconds": 100.0}
    Limits.objects.get_or_create(user=tenant.user)
    job: CoverJob = baker.prepare(CoverJob, **{**made, **fields})
    job.accept()
    return job


def claimed(job: CoverJob, worker: str = "w") -> CoverJob:
    found = CoverJob.claim(worker, "h", 100, 100)
    assert found is not None
    assert found.pk == job.pk
    return found


# --- the life of a reservation -------------------------------------------------------------------------------


def test_a_synthesis_is_settled_with_the_audio_that_was_made(speak: Callable[..., Any], tenant: Tenant) -> None:
    answer = speak()
    row = entry()
    assert (row.state, row.operation, row.tenant_id) == (State.SETTLED, "synthesis", tenant.user.pk)
    assert str(row.job_id) == answer["X-Synthesis-ID"]
    assert row.audio_ms == round(1000 * float(answer["X-Audio-Duration"])) > 5000
    assert row.reserved_ms == round(1000 * speaking_seconds(TEXT))
    assert (row.characters, row.key_prefix, row.key_name) == (len(TEXT), tenant.key.prefix, "test")
    assert row.engine_ms == round(1000 * Synthesis.objects.get().engine_seconds)
    assert "X-Quota-Remaining" not in answer


def test_a_synthesis_that_fails_costs_nothing(speak: Callable[..., Any], engine: FakeEngine) -> None:
    engine.failure = EngineError()
    assert speak().status_code == 502
    assert (entry().state, entry().audio_ms) == (State.REFUNDED, 0)
    assert entry().reserved_ms > 0


def test_what_the_engine_refuses_to_speak_costs_nothing(speak: Callable[..., Any], engine: FakeEngine) -> None:
    engine.failure = PublicError("validation_error", "text: not this", {"text": ["not this"]})
    assert speak().status_code == 400
    assert not Synthesis.objects.exists()
    assert (entry().state, entry().audio_ms) == (State.REFUNDED, 0)


def test_a_stream_that_breaks_off_costs_nothing(speak: Callable[..., Any], engine: FakeEngine) -> None:
    def fail(index: int) -> None:
        engine.failure = EngineError() if index == 1 else None

    engine.before_piece = fail
    response = speak(stream="true")
    assert (entry().state, entry().audio_ms) == (State.RESERVED, entry().reserved_ms)
    with pytest.raises(StreamBroken):
        list(response.streaming_content)
    response.close()
    assert (entry().state, entry().audio_ms) == (State.REFUNDED, 0)


def test_a_stream_whose_client_leaves_costs_what_was_made(speak: Callable[..., Any], engine: FakeEngine) -> None:
    asked: list[int] = []
    engine.before_piece = asked.append
    response = speak(stream="true")
    next(iter(response.streaming_content))
    response.close()
    assert asked == [0]
    assert Synthesis.objects.get().status == JobStatus.CANCELED
    # "Here is the first sentence of three." at a tenth of a second each character, three seconds at most
    assert (entry().state, entry().audio_ms) == (State.SETTLED, 3000)
    assert entry().engine_ms > 0


def test_a_synthesis_that_another_request_cancels_costs_what_was_made(
    speak: Callable[..., Any], engine: FakeEngine, api: APIClient
) -> None:
    def cancel(index: int) -> None:
        if index == 2:
            row = Synthesis.objects.get()
            assert api.post(f"/api/v1/voice/syntheses/{row.pk}/cancel").status_code == 200

    engine.before_piece = cancel
    answer = speak()
    assert (answer.status_code, answer.json()["error"]) == (409, "job_canceled")
    # All three sentences had been made when the web process came to know of it; the canceling one could only guess.
    assert (entry().state, entry().audio_ms) == (State.SETTLED, 9000)


def test_a_job_that_is_canceled_before_it_starts_costs_nothing(tenant: Tenant) -> None:
    job = cover(tenant)
    assert (entry().state, entry().audio_ms, entry().operation) == (State.RESERVED, 100_000, "cover")
    assert job.cancel()
    assert (entry().state, entry().audio_ms) == (State.REFUNDED, 0)


@pytest.mark.parametrize(("fields", "seconds"), [({}, 0), ({"vocals": "covers/x/1-vocals.wav"}, 100)])
def test_a_cover_that_is_canceled_at_work_costs_its_song_once_there_were_stems(
    tenant: Tenant, fields: dict[str, str], seconds: int
) -> None:
    job = claimed(cover(tenant))
    assert job.note(engine_seconds=12.5, **fields)
    assert job.cancel()
    assert (entry().state, entry().audio_ms, entry().engine_ms) == (State.SETTLED, 1000 * seconds, 12_500)


def test_a_preview_costs_its_own_length_and_a_remix_is_called_one(tenant: Tenant) -> None:
    job = claimed(cover(tenant, preview_seconds=30))
    assert job.succeed(24)
    assert (entry().reserved_ms, entry().audio_ms) == (30_000, 30_000)
    cover(tenant, song="", remix_of=job, duration_seconds=20.0, preview_seconds=30)
    assert (entry(operation="remix").audio_ms, entry(operation="remix").state) == (20_000, State.RESERVED)


def test_hand_back_put_back_and_takeover_keep_the_reservation(tenant: Tenant) -> None:
    job = cover(tenant)
    assert claimed(job).hand_back()
    assert claimed(job).put_back(max_attempts=9)
    silent_for(claimed(job), 100)
    assert CoverJob.recover(30, max_attempts=9) == 1
    assert (entry().state, entry().audio_ms) == (State.RESERVED, 100_000)
    assert claimed(job).hand_back()
    silent_for(claimed(job), 100)
    assert CoverJob.recover(30, max_attempts=1) == 1
    job.refresh_from_db()
    assert job.error == "worker_lost"
    assert (entry().state, entry().audio_ms) == (State.REFUNDED, 0)


def test_a_job_that_was_handed_back_has_not_started(tenant: Tenant) -> None:
    job = cover(tenant)
    assert claimed(job).hand_back()
    job.refresh_from_db()
    assert job.cancel()
    assert entry().state == State.REFUNDED


def test_a_retry_reserves_again(tenant: Tenant) -> None:
    job = claimed(cover(tenant))
    job.note(engine_seconds=7.0)
    assert job.fail("mix_failed")
    assert job.retry()
    assert [row.state for row in UsageEntry.objects.order_by("pk")] == [State.REFUNDED, State.RESERVED]
    again = claimed(job)
    assert again.note(engine_seconds=(again.engine_seconds or 0) + 2.0)
    assert again.succeed(24)
    rows = list(UsageEntry.objects.order_by("pk"))
    assert [(row.state, row.audio_ms, row.engine_ms) for row in rows] == [
        (State.REFUNDED, 0, 7000),
        (State.SETTLED, 100_000, 2000),
    ]


def test_a_retry_over_the_quota_is_refused_and_changes_nothing(
    queue: Callable[..., Any], api: APIClient, tenant: Tenant
) -> None:
    job = queue().json()["job_id"]
    assert claimed(CoverJob.objects.get()).fail("mix_failed")
    limit(tenant, monthly_audio_seconds=2)
    answer = api.post(f"{COVER}/{job}/retry")
    assert (answer.status_code, answer.json()["error"]) == (429, "quota_exceeded")
    assert CoverJob.objects.get().status == JobStatus.FAILED
    assert [row.state for row in UsageEntry.objects.all()] == [State.REFUNDED]
    limit(tenant, monthly_audio_seconds=3)
    assert api.post(f"{COVER}/{job}/retry").status_code == 202


def test_a_deleted_job_leaves_its_cost(queue: Callable[..., Any], api: APIClient) -> None:
    first, second = (queue()["Location"] for _ in range(2))
    assert claimed(CoverJob.objects.order_by("created_at")[0]).succeed(24)
    assert api.delete(first).status_code == api.delete(second).status_code == 204
    assert sorted(UsageEntry.objects.values_list("state", "audio_ms")) == [("refunded", 0), ("settled", 3000)]


def test_the_ledger_outlives_key_and_tenant_and_a_sweep_gives_back_what_they_had_reserved(tenant: Tenant) -> None:
    kept = cover(tenant)
    live = cover(Tenant("carol"))
    tenant.user.delete()
    assert usage.sweep(live_keys()) == 0, "a transaction may be under way"
    UsageEntry.objects.update(accepted_at=timezone.now() - timedelta(minutes=11))
    assert usage.sweep(live_keys()) == 1
    assert entry(job_id=kept.pk).state == State.REFUNDED
    assert entry(job_id=kept.pk).key_prefix == tenant.key.prefix
    assert entry(job_id=live.pk).state == State.RESERVED


def test_whoever_ends_a_job_first_settles_it_once(tenant: Tenant) -> None:
    ends = []
    for _ in range(12):
        job = claimed(cover(tenant, vocals="covers/x/1-vocals"))
        mine = CoverJob.objects.get(pk=job.pk)
        mine.worker, mine.attempt = job.worker, job.attempt
        results = together(lambda m=mine: m.succeed(24), lambda j=job: j.fail("mix_failed"),
                           lambda pk=job.pk: CoverJob.objects.get(pk=pk).cancel())  # type: ignore[misc]  # fmt: skip
        job.refresh_from_db()
        row = entry(job_id=job.pk)
        assert sum(results) == 1
        assert row.state == (State.REFUNDED if job.status == JobStatus.FAILED else State.SETTLED)
        assert row.audio_ms == (0 if job.status == JobStatus.FAILED else 100_000)
        ends.append(job.status)
    assert UsageEntry.objects.count() == 12


def test_without_a_quota_a_synthesis_costs_one_insert_and_one_update_more(
    speak: Callable[..., Any], tenant: Tenant
) -> None:
    assert speak().status_code == 200
    with CaptureQueriesContext(
        connection,
    ) as captured:
        assert speak().status_code == 200
    statements = [query["sql"] for query in captured.captured_queries]
    ledger = [sql.split()[0] for sql in statements if "voiceproject_usageentry" in sql]
    assert ledger == ["INSERT", "UPDATE"]
    assert not [sql for sql in statements if sql.startswith("SELECT") and 'FROM "voiceproject_tenant"' in sql]


# --- quotas --------------------------------------------------------------------------------------------------


def test_twenty_at_the_edge_of_a_quota_never_overshoot(
    speak: Callable[..., Any], queue: Callable[..., Any], tenant: Tenant
) -> None:
    each = usage.milliseconds(speaking_seconds(TEXT))
    limit(tenant, monthly_audio_seconds=(7 * each) // 1000 + 1)
    clients = [APIClient(headers={"X-API-Key": tenant.secret}) for _ in range(20)]
    answers = together(*[lambda client=client: speak(client, "respond-async") for client in clients])  # type: ignore[misc]
    statuses = [answer.status_code for answer in answers]
    assert (statuses.count(202), statuses.count(429)) == (7, 13)
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"] == "quota_exceeded"
    reserved = UsageEntry.objects.filter(state=State.RESERVED)
    assert sum(row.audio_ms for row in reserved) == 7 * each
    assert Synthesis.objects.count() == 7
    assert len({answer["X-Quota-Remaining"] for answer in answers if answer.status_code == 202}) == 7
    # Given back, it can be had again.
    assert Synthesis.objects.all()[0].cancel()
    assert speak(prefer="respond-async").status_code == 202
    assert speak(prefer="respond-async").status_code == 429


def test_a_first_quota_is_held_by_requests_that_are_waited_for(
    speak: Callable[..., Any], tenant: Tenant, engine: FakeEngine
) -> None:
    each = usage.milliseconds(speaking_seconds(TEXT))
    limit(tenant, monthly_audio_seconds=(3 * each) // 1000 + 1)
    refused = threading.Semaphore(0)

    def wait(index: int) -> None:
        for _ in range(5 if index == 0 else 0):
            assert refused.acquire(timeout=30)

    engine.before_piece = wait
    clients = [APIClient(headers={"X-API-Key": tenant.secret}) for _ in range(8)]

    def send(client: APIClient) -> Any:
        answer = speak(client)
        if answer.status_code == 429:
            refused.release(3)  # one for each that is let through
        return answer

    answers = together(*[lambda client=client: send(client) for client in clients])  # type: ignore[misc]
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [429] * 5


def test_a_settlement_may_exceed_its_reservation_and_then_the_next_is_refused(
    speak: Callable[..., Any], tenant: Tenant, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(tenant, monthly_audio_seconds=4)
    short = "Hi there. " * 3  # It is reserved with 3 s, and each sentence is slow.
    assert speaking_seconds(short.strip()) < 4
    real = engine.synthesize

    def slowly(*args: Any) -> Any:
        return (piece for piece in itertools.chain.from_iterable(itertools.repeat(list(real(*args)), 3)))

    monkeypatch.setattr(engine, "synthesize", slowly)
    answer = speak(text=short)
    assert answer.status_code == 200
    assert float(answer["X-Audio-Duration"]) > 4
    assert answer["X-Quota-Remaining"] == "0"
    refused = speak(text="Hi.")
    body = refused.json()
    assert (refused.status_code, body["error"]) == (429, "quota_exceeded")
    assert body["details"]["quota"] == "audio_seconds"
    assert (body["details"]["limit_of"], body["details"]["limit"], body["details"]["left"]) == ("tenant", 4, 0)
    assert body["details"]["used"] == pytest.approx(float(answer["X-Audio-Duration"]), abs=0.001)
    now = datetime.now(UTC)
    days = calendar.monthrange(now.year, now.month)[1]
    month_end = datetime(now.year, now.month, days, tzinfo=UTC) + timedelta(days=1)
    assert int(refused["Retry-After"]) == pytest.approx((month_end - now).total_seconds(), abs=60)


def test_what_is_left_is_told_as_it_is_after_the_synthesis(speak: Callable[..., Any], tenant: Tenant) -> None:
    limit(tenant, monthly_audio_seconds=100)
    answer = speak()
    assert answer["X-Quota-Remaining"] == str(int(100 - float(answer["X-Audio-Duration"])))
    streamed = speak(stream="true")
    assert int(streamed["X-Quota-Remaining"]) < int(answer["X-Quota-Remaining"])
    streamed.close()


def test_a_keys_quota_narrows_its_tenants_and_no_other_keys(speak: Callable[..., Any], tenant: Tenant) -> None:
    second, secret = ApiKey.objects.issue(tenant.user, "second")
    limit(tenant, monthly_audio_seconds=25)
    ApiKey.objects.filter(pk=tenant.key.pk).update(monthly_audio_seconds=12)
    assert speak().status_code == 200
    refused = speak()
    assert refused.status_code == 429
    assert (refused.json()["details"]["limit_of"], refused.json()["details"]["limit"]) == ("key", 12)
    client = APIClient(headers={"X-API-Key": secret})
    assert speak(client).status_code == 200
    refused = speak(client)
    assert (refused.json()["details"]["limit_of"], refused.json()["details"]["limit"]) == ("tenant", 25)
    assert set(UsageEntry.objects.values_list("key_id", flat=True)) == {tenant.key.public_id, second.public_id}


def test_last_months_audio_does_not_count(speak: Callable[..., Any], tenant: Tenant, settings: Any) -> None:
    settings.MONTHLY_AUDIO_SECONDS = 12
    assert speak().status_code == 200
    assert speak().status_code == 429
    UsageEntry.objects.update(day=usage.month_start(timezone.now()).date() - timedelta(days=1))
    assert speak().status_code == 200
    UsageEntry.objects.filter(ended_at__lt=Now()).update(day=usage.month_end(timezone.now()).date())
    assert speak().status_code == 200


def test_the_default_quota_is_each_tenants_and_its_own_goes_before(
    speak: Callable[..., Any], tenant: Tenant, other: Tenant, settings: Any
) -> None:
    settings.MONTHLY_AUDIO_SECONDS = 12
    limit(other, monthly_audio_seconds=0)
    assert [speak(client).status_code for client in (tenant.client, tenant.client, other.client)] == [200, 429, 429]
    limit(other, monthly_audio_seconds=12)
    assert speak(other.client).status_code == 200


@pytest.mark.parametrize(
    "now", ["2027-01-31T23:59:59.9+00:00", "2026-12-01T00:00:00+00:00", "2028-02-29T12:00:00+08:00"]
)
def test_months_begin_and_end_in_utc(now: str) -> None:
    moment = datetime.fromisoformat(now)
    start, end = usage.month_start(moment), usage.month_end(moment)
    assert start <= moment < end
    assert (start.day, start.hour, end.day, end.hour) == (1, 0, 1, 0)
    assert (end - start).days == calendar.monthrange(start.year, start.month)[1]


def test_an_idempotent_request_reserves_once(api: APIClient, speak: Callable[..., Any], tenant: Tenant,
                                             reference_wav: bytes) -> None:  # fmt: skip
    limit(tenant, monthly_audio_seconds=12)
    headers = {"Prefer": "respond-async", "Idempotency-Key": "k"}
    answers = [
        api.post(SPEECH, {"text": TEXT, "reference_audio": upload(reference_wav)}, headers=headers) for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert UsageEntry.objects.count() == 1


# --- storage -------------------------------------------------------------------------------------------------


def held(tenant: Tenant) -> int:
    return usage.storage_bytes(tenant.user.pk)


def test_storage_is_what_the_files_of_jobs_take(
    queue: Callable[..., Any], speak: Callable[..., Any], api: APIClient, tenant: Tenant, reference_wav: bytes,
    leftovers: Callable[[], list[str]],
) -> None:  # fmt: skip
    tune = len(wav_bytes(song(3.0), RATE))
    first, second = queue()["Location"], queue()["Location"]
    assert held(tenant) == 2 * (tune + len(reference_wav))
    audio = len(speak().content)
    speak(prefer="respond-async")
    assert held(tenant) == 2 * (tune + len(reference_wav)) + audio + len(reference_wav)
    tasks.run_syntheses.fn()
    assert held(tenant) == 2 * (tune + len(reference_wav)) + 2 * audio + len(reference_wav)
    assert api.delete(first).status_code == 204
    assert api.post(f"{second}/cancel").status_code == 200
    Synthesis.objects.update(expires_at=Now() - timedelta(seconds=1))
    assert Synthesis.expire() == 2
    assert held(tenant) == tune + len(reference_wav), "a canceled job may be tried again"
    assert api.delete(second).status_code == 204
    assert held(tenant) == 0
    assert leftovers() == []


def test_a_covers_stems_and_results_count_until_they_are_deleted(
    queue: Callable[..., Any], api: APIClient, tenant: Tenant, habits: Callable[..., None]
) -> None:
    from covers import tasks as cover_tasks

    job = queue().json()
    cover_tasks.run_covers.fn()
    done = api.get(job["links"]["self"]).json()
    assert done["status"] == "succeeded"
    row = CoverJob.objects.get()

    def sizes() -> int:
        return sum(getattr(row, name).size for name in CoverJob.file_fields() if getattr(row, name))

    assert held(tenant) == sizes() > 3 * 3 * RATE * 4
    before = held(tenant)
    assert api.get(f"{done['links']['result']}?format=mp3").status_code == 200
    row.refresh_from_db()
    assert row.result_mp3
    assert held(tenant) == sizes() > before
    assert (entry().state, entry().audio_ms) == (State.SETTLED, 3000)
    assert entry().engine_ms == round(1000 * row.engine_seconds) > 100


def test_a_full_account_is_refused_until_something_is_deleted(
    queue: Callable[..., Any], speak: Callable[..., Any], api: APIClient, tenant: Tenant, settings: Any,
    leftovers: Callable[[], list[str]],
) -> None:  # fmt: skip
    first = queue()["Location"]
    limit(tenant, max_storage_bytes=held(tenant) + 1000)
    files = leftovers()
    refused = queue()
    body = refused.json()
    assert (refused.status_code, body["error"], body["details"]["quota"]) == (429, "quota_exceeded", "storage_bytes")
    assert (body["details"]["limit"], body["details"]["left"]) == (held(tenant) + 1000, 1000)
    assert refused["Retry-After"].isdigit()
    assert leftovers() == files
    assert speak(prefer="respond-async").status_code == 429
    assert speak().status_code == 200, "nothing is uploaded to stay, and there is room still"
    assert speak().status_code == 429
    assert api.delete(first).status_code == 204
    assert speak().status_code == 200
    limit(tenant, max_storage_bytes=None)
    settings.MAX_STORAGE_BYTES = 1000
    assert speak().status_code == 429


# --- /usage --------------------------------------------------------------------------------------------------


def settled(tenant: Tenant, day: str, ms: int = 1500, **fields: Any) -> None:
    baker.make(UsageEntry, **{
        "tenant_id": tenant.user.pk, "key_id": tenant.key.public_id, "key_prefix": tenant.key.prefix,
        "key_name": "test", "operation": "synthesis", "job_id": uuid.uuid4(), "state": State.SETTLED, "reserved_ms": 9,
        "audio_ms": ms,
        "characters": 10, "engine_ms": 300, "day": day, "accepted_at": timezone.now(),
        "ended_at": timezone.now(), **fields,
    })  # fmt: skip


def test_usage_is_told_by_day_key_and_operation(api: APIClient, tenant: Tenant, other: Tenant) -> None:
    settled(tenant, "2026-03-01")
    settled(tenant, "2026-03-01", 2001, operation="cover", characters=0, key_name="renamed")
    settled(tenant, "2026-03-03", key_id=GONE, key_prefix="vck_gone", key_name="gone")
    settled(tenant, "2026-02-28")
    settled(tenant, "2026-03-04")
    settled(tenant, "2026-03-02", state=State.RESERVED, ended_at=None)
    settled(tenant, "2026-03-02", 0, state=State.REFUNDED)
    settled(other, "2026-03-02")

    def ask(group_by: str) -> Any:
        answer = api.get(USAGE, {"from": "2026-03-01", "to": "2026-03-03", "group_by": group_by})
        assert answer.status_code == 200
        body = answer.json()
        assert (body["from"], body["to"], body["group_by"]) == ("2026-03-01", "2026-03-03", group_by)
        assert body["total"] == {"requests": 3, "audio_seconds": 5.001, "characters": 20, "engine_seconds": 0.9}
        return body["items"]

    two = {"requests": 2, "audio_seconds": 3.501, "characters": 10, "engine_seconds": 0.6}
    one = {"requests": 1, "audio_seconds": 1.5, "characters": 10, "engine_seconds": 0.3}
    assert ask("day") == [{"day": "2026-03-01", **two}, {"day": "2026-03-03", **one}]
    assert (
        ask("key")
        == [
            {"key": {"id": str(tenant.key.public_id), "name": "renamed", "prefix": tenant.key.prefix}, **two},
            {"key": {"id": GONE, "name": "gone", "prefix": "vck_gone"}, **one},
        ]
        or ask("key")[0]["key"]["id"] == 777
    )
    assert [(item["operation"], item["requests"]) for item in ask("operation")] == [("cover", 1), ("synthesis", 2)]


def test_usage_is_this_months_where_nothing_else_is_asked_for(api: APIClient, speak: Callable[..., Any]) -> None:
    answer = speak()
    body = api.get(USAGE).json()
    today = datetime.now(UTC).date()
    assert (body["from"], body["to"], body["group_by"]) == (str(today.replace(day=1)), str(today), "day")
    assert [item["day"] for item in body["items"]] == [str(today)]
    assert body["total"]["audio_seconds"] == float(answer["X-Audio-Duration"])
    assert api.get(USAGE, {"to": "2020-02-10"}).json()["from"] == "2020-02-01"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"from": "yesterday"}, "from"), ({"to": "2026-02-30"}, "to"), ({"group_by": "tenant"}, "group_by"),
        ({"from": "2026-03-02", "to": "2026-03-01"}, "from"), ({"from": "2024-03-01", "to": "2025-03-02"}, "from"),
        ({"tenant": "1"}, "tenant"), ({"to": "0000-01-01"}, "to"),
    ],
)  # fmt: skip
def test_bad_questions_are_refused(api: APIClient, query: dict[str, str], field: str) -> None:
    answer = api.get(USAGE, query)
    assert (answer.status_code, answer.json()["error"], list(answer.json()["details"])) == (
        400, "validation_error", [field],
    )  # fmt: skip


@pytest.mark.parametrize(
    "query",
    [{"to": "0001-01-01"}, {"from": "9999-12-31"}, {"from": "2024-01-01", "to": "2024-12-31"}, {"to": "9999-12-31"}],
)
def test_the_ends_of_the_calendar_are_days_too(api: APIClient, query: dict[str, str]) -> None:
    answer = api.get(USAGE, query)
    assert answer.status_code == 200, answer.content
    assert answer.json()["total"]["requests"] == 0


def test_usage_needs_its_scope_and_me_needs_none(engine: FakeEngine, db: None) -> None:
    key = Tenant("dora", scopes=["synthesize"])
    refused = key.client.get(USAGE)
    assert (refused.status_code, refused.json()["details"]) == (403, {"scope": "usage"})
    assert key.client.get(ME).status_code == 200
    assert APIClient().get(ME).status_code == 401


def test_sums_are_exact_when_many_settle_at_the_same_time(tenant: Tenant) -> None:
    jobs = []
    for number in range(24):
        job = cover(tenant, duration_seconds=0.001 + number / 3)
        job = claimed(job)
        job.engine_seconds = 0.1
        jobs.append(job)
    answers: list[Any] = []

    today = datetime.now(UTC).date()

    def watch() -> None:
        for _ in range(10):
            answers.append(usage.summary(tenant.user.pk, today, today + timedelta(days=1), "operation"))

    def end(some: list[CoverJob]) -> None:
        for job in some:
            assert job.succeed(24, engine_seconds=0.1)

    together(*[lambda n=n: end(jobs[n::6]) for n in range(6)], watch)  # type: ignore[misc]
    expected = sum(round(1000 * (0.001 + number / 3)) for number in range(24)) / 1000
    found = usage.summary(tenant.user.pk, today, today, "day")
    assert found["total"] == {"requests": 24, "audio_seconds": expected, "characters": 0, "engine_seconds": 2.4}
    for answer in answers:
        assert answer["total"]["requests"] == sum(item["requests"] for item in answer["items"])
    counts = [answer["total"]["requests"] for answer in answers]
    assert counts == sorted(counts)


# --- /me -----------------------------------------------------------------------------------------------------


def test_me_tells_limits_and_what_is_left(
    api: APIClient, tenant: Tenant, speak: Callable[..., Any], queue: Callable[..., Any], settings: Any
) -> None:
    body = api.get(ME).json()
    assert body["username"] == "alice"
    assert body["key"] == {"id": str(tenant.key.public_id), "name": "test", "prefix": tenant.key.prefix,
                           "scopes": tenant.key.scopes, "expires_at": None}  # fmt: skip
    assert tenant.secret not in str(body)
    assert body["limits"]["max_running_jobs"] == settings.COVER_MAX_RUNNING
    assert body["limits"]["monthly_audio_seconds"] is body["limits"]["max_storage_bytes"] is None
    assert body["remaining"] == {"queued_jobs": settings.COVER_MAX_QUEUED, "audio_seconds": None, "storage_bytes": None}
    limit(tenant, monthly_audio_seconds=100, max_storage_bytes=10**9, max_queued=3, max_running=1)
    ApiKey.objects.filter(pk=tenant.key.pk).update(monthly_audio_seconds=40)
    _, secret = ApiKey.objects.issue(tenant.user, "second")
    seconds = float(speak(APIClient(headers={"X-API-Key": secret}))["X-Audio-Duration"])
    queue()
    body = api.get(ME).json()
    assert body["limits"] == {"requests_per_minute": None, "max_running_jobs": 1, "max_queued_jobs": 3,
                              "max_concurrent_jobs": None, "monthly_audio_seconds": 40,
                              "max_storage_bytes": 10**9}  # fmt: skip
    assert body["remaining"]["queued_jobs"] == 2
    assert body["remaining"]["audio_seconds"] == 37.0, "the key's own, of which the queued cover has taken 3"
    assert body["usage"]["audio_seconds_this_month"] == pytest.approx(seconds + 3)
    assert body["usage"]["storage_bytes"] == held(tenant) == 10**9 - body["remaining"]["storage_bytes"]
    ApiKey.objects.filter(pk=tenant.key.pk).update(max_concurrent_jobs=2)
    body = api.get(ME).json()
    assert (body["limits"]["max_concurrent_jobs"], body["remaining"]["queued_jobs"]) == (2, 1)


def test_an_operators_retry_over_a_quota_says_so(tenant: Tenant, client: Any) -> None:
    job = claimed(cover(tenant))
    assert job.fail("mix_failed")
    limit(tenant, monthly_audio_seconds=50)
    client.force_login(User.objects.create_superuser("root"))
    form = {"action": "retry_jobs", "_selected_action": [str(job.pk)], "confirmed": "1"}
    answer = client.post("/admin/covers/coverjob/", form, follow=True)
    assert "may make 50 seconds of audio a month" in answer.content.decode()
    job.refresh_from_db()
    assert job.status == JobStatus.FAILED


def test_a_saved_voice_counts_as_storage_and_does_not_go_over_it(
    api: APIClient, tenant: Tenant, engine: FakeEngine, reference_wav: bytes
) -> None:
    def save() -> Any:
        fields = {"name": "Anna", "consent": "Anna said yes to this on the phone."}
        return api.post("/api/v1/voice/voices", {**fields, "sample": upload(reference_wav)})

    created = save()
    assert created.status_code == 201, created.content
    held, voice = usage.storage_bytes(tenant.user.pk), Voice.objects.get()
    kept = [
        voice.reference,
        *(row.audio for row in voice.samples.all()),
        *(row.file for row in voice.engine_data.all()),
    ]
    assert held == sum(file.size for file in kept) > 50_000
    Limits.objects.update_or_create(user=tenant.user, defaults={"max_storage_bytes": held + 1000})
    refused = save()
    assert (refused.status_code, refused.json()["error"]) == (429, "quota_exceeded")
    assert usage.storage_bytes(tenant.user.pk) == held
    assert api.delete(f"/api/v1/voice/voices/{created.json()['voice_id']}").status_code == 204
    assert usage.storage_bytes(tenant.user.pk) == 0
