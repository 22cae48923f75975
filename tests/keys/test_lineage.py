"""A limit is not had anew: keys that were replaced, and keys that a limited one has made, draw on the same."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from model_bakery import baker
from rest_framework.test import APIClient

from covers.models import CoverJob
from tests.fakes.engine import FakeEngine
from tests.support.audio import upload
from tests.support.tenants import Tenant, change_key, make_key, rotate_key, with_key
from voiceproject.errors import PublicError
from voiceproject.jobs.queue import key_admission, live_jobs_of
from voiceproject.tenants import usage
from voiceproject.tenants.models import Tenant as TenantRow
from voiceproject.tenants.models import UsageEntry
from voices.keys.models import ApiKey

pytestmark = pytest.mark.django_db(transaction=True)
SPEECH, ME, MODELS = "/api/v1/voice/synthesize", "/api/v1/me", "/api/v1/voice/models"


def with_secret(response: Any) -> tuple[ApiKey, APIClient]:
    assert response.status_code == 201, response.content
    data = response.json()
    return ApiKey.objects.get(public_id=data["id"]), APIClient(headers={"X-API-Key": data["secret"]})


@pytest.fixture
def speak(engine: FakeEngine, reference_wav: bytes) -> Callable[[APIClient], Any]:
    def send(client: APIClient) -> Any:
        return client.post(SPEECH, {"text": "Ten letters, or twice.", "reference_audio": upload(reference_wav)})

    return send


def used(key: ApiKey) -> int:
    return usage.counted_ms(key.user_id, timezone.now(), key.lineage)


def test_a_key_of_few_seconds_gets_none_by_rotating_itself_or_making_children(
    tenant: Tenant, speak: Callable[[APIClient], Any]
) -> None:
    key, client = with_key(tenant, monthly_audio_seconds=3)
    assert speak(client).status_code == 200
    refused = speak(client)
    assert (refused.status_code, refused.json()["error"]) == (429, "quota_exceeded")
    child, of_child = with_secret(make_key(client))
    fresh, of_fresh = with_secret(rotate_key(client, key))
    grandchild, of_grandchild = with_secret(make_key(of_child, monthly_audio_seconds=1))
    for made, its in ((child, of_child), (fresh, of_fresh), (grandchild, of_grandchild)):
        assert made.lineage == key.public_id
        assert used(made) == used(key) > 0
        answer = speak(its)
        assert (answer.status_code, answer.json()["details"]["limit_of"]) == (429, "key")
        assert its.get(ME).json()["remaining"]["audio_seconds"] < 1.5
    assert change_key(of_child, child, monthly_audio_seconds=None).status_code == 403
    assert change_key(of_child, child, monthly_audio_seconds=4).status_code == 403


def test_a_key_without_limits_begins_a_line_with_each_key_that_it_makes(
    tenant: Tenant, speak: Callable[[APIClient], Any]
) -> None:
    one, of_one = with_secret(make_key(tenant.client, monthly_audio_seconds=3))
    two, of_two = with_secret(make_key(tenant.client, monthly_audio_seconds=3))
    assert len({one.lineage, two.lineage, tenant.key.lineage}) == 3
    assert [speak(client).status_code for client in (of_one, of_one, of_two)] == [200, 429, 200]
    # Who replaces one of them from outside does not begin anew either.
    fresh, of_fresh = with_secret(rotate_key(tenant.client, one))
    assert (fresh.lineage, speak(of_fresh).status_code) == (one.lineage, 429)


def test_requests_a_minute_are_those_of_the_line(tenant: Tenant, engine: FakeEngine) -> None:
    _, client = with_key(tenant, requests_per_minute=4)
    child, of_child = with_secret(make_key(client, requests_per_minute=3))
    _, of_fresh = with_secret(rotate_key(of_child, child, overlap_seconds=3600))
    assert of_fresh.get(MODELS).status_code == 200
    # Three of four: the child, whose own limit is three, is at its end, and so is what replaced it.
    assert [c.get(MODELS).status_code for c in (of_child, of_fresh)] == [429, 429]
    assert [c.get(MODELS).status_code for c in (client, client)] == [200, 429]
    assert of_child.get(MODELS).json()["details"] == {"limit": 3, "limit_of": "key"}


def test_a_lower_limit_of_the_line_forgets_nothing_that_a_higher_one_counts(tenant: Tenant, engine: FakeEngine) -> None:
    _, client = with_key(tenant, requests_per_minute=6)
    _, of_child = with_secret(make_key(client, requests_per_minute=3))
    answers = [c.get(MODELS).status_code for c in (of_child, of_child, client, client, client, client, client)]
    assert answers.count(200) == 5  # and one that made the child


def test_jobs_at_a_time_are_those_of_the_line(tenant: Tenant) -> None:
    key, client = with_key(tenant, max_concurrent_jobs=2)
    child, _ = with_secret(make_key(client))
    fresh, _ = with_secret(rotate_key(client, key, overlap_seconds=60))
    for owner in (key, child):
        baker.make(CoverJob, tenant=tenant.user, api_key=owner, status="queued")
    baker.make(CoverJob, tenant=tenant.user, api_key=tenant.key, status="running")
    assert [live_jobs_of(each) for each in (key, child, fresh, tenant.key)] == [2, 2, 2, 1]
    with pytest.raises(PublicError) as refused, key_admission(fresh):
        pass
    assert refused.value.code == "too_many_jobs"


def test_keys_of_one_line_that_spend_at_the_same_time_never_spend_more_than_it_has(tenant: Tenant) -> None:
    key, client = with_key(tenant, monthly_audio_seconds=300)
    keys = [key, *(with_secret(make_key(client))[0] for _ in range(3))]
    start, answers = threading.Barrier(len(keys)), []

    def spend(own: ApiKey) -> None:
        start.wait()
        try:
            for _ in range(3):
                job = baker.prepare(CoverJob, tenant=tenant.user, api_key=own, song="x", duration_seconds=100.0)
                try:
                    job.accept()
                    answers.append(True)
                except PublicError:
                    answers.append(False)
        finally:
            connection.close()

    TenantRow.objects.get_or_create(user=tenant.user)
    threads = [threading.Thread(target=spend, args=(own,)) for own in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sum(answers), len(answers)) == (3, 12)
    assert used(key) == 300_000


def test_what_a_line_has_made_is_one_indexed_statement(tenant: Tenant) -> None:
    keys = [ApiKey.objects.issue(tenant.user, "x", lineage=tenant.key.lineage)[0] for _ in range(50)]
    row = {"tenant_id": tenant.user.pk, "operation": "cover", "reserved_ms": 5, "audio_ms": 5,
           "day": timezone.now().date(), "accepted_at": timezone.now()}  # fmt: skip
    for key in keys:
        UsageEntry.objects.bulk_create(
            UsageEntry(**row, key_id=key.public_id, lineage=key.lineage, job_id=key.public_id, ended_at=timezone.now())
            for _ in range(20)
        )
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert used(keys[0]) == 50 * 20 * 5
    assert len(queries) == 1
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {queries[0]['sql']}")
            plan = [str(step[3]) for step in cursor.fetchall()]
        (step,) = plan
        assert "COVERING INDEX" in step and "tenant_id=? AND day>? AND day<?" in step, plan


def test_the_migration_joins_the_chains_of_replaced_keys_and_what_they_made() -> None:
    before = [("voices", "0014_texts_in_two_languages"), ("voiceproject", "0013_chromaprint")]
    executor = MigrationExecutor(connection)
    executor.migrate(before)
    try:
        old = executor.loader.project_state(before).apps
        user = old.get_model("auth", "User").objects.create(username="old")
        keys, entries = old.get_model("voices", "ApiKey").objects, old.get_model("voiceproject", "UsageEntry").objects
        now = timezone.now()

        def key(name: str, **fields: Any) -> Any:
            made = keys.create(user=user, name=name, prefix=name, key_hash=name, **fields)
            entries.create(
                tenant_id=user.pk, key_id=made.public_id, operation="cover", job_id=made.public_id, reserved_ms=10,
                audio_ms=10, day=now.date(), accepted_at=now,
            )  # fmt: skip
            return made

        third = key("third")
        second = key("second", replaced_by=third)
        key("first", replaced_by=second)
        key("alone")
        newest = key("b2")
        key("b1", replaced_by=newest)
    finally:
        executor = MigrationExecutor(connection)
        executor.migrate(executor.loader.graph.leaf_nodes())
    found = {key.name: key for key in ApiKey.objects.all()}
    lines = {name: next(n for n, k in found.items() if k.public_id == key.lineage) for name, key in found.items()}
    assert lines == {"first": "first", "second": "first", "third": "first", "alone": "alone", "b1": "b1", "b2": "b1"}
    assert {name: used(key) for name, key in found.items()} == {
        "first": 30, "second": 30, "third": 30, "alone": 10, "b1": 20, "b2": 20,
    }  # fmt: skip
