"""Requests a minute: never more in any window, whichever process asks, in the database and in Redis."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.conf import settings as django_settings
from django.db import connection

from tests.fakes.engine import FakeEngine
from tests.support.tenants import Tenant
from voiceproject.tenants import ratelimit
from voiceproject.tenants.models import RateLog
from voiceproject.tenants.models import Tenant as TenantRow
from voiceproject.tenants.ratelimit import Limit, take
from voices.keys.models import ApiKey

URL = "/api/v1/voice/models"
KEYS_URL = "/api/v1/keys"


@pytest.fixture(params=["database", "redis"])
def store(request: Any, db: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    settings.REDIS_URL = ""
    if request.param == "redis":
        settings.REDIS_URL = request.getfixturevalue("redis_url")
        redis.Redis.from_url(settings.REDIS_URL).flushdb()
        monkeypatch.setattr(ratelimit, "_away_until", 0.0)
    yield request.param


def let_pass(store: str, seconds: float) -> None:
    """As if so much time had gone by: what was accepted has been accepted so much earlier."""
    if store == "database":
        for row in RateLog.objects.all():
            digits = ratelimit.DIGITS
            times = [int(row.times[at : at + digits]) for at in range(0, len(row.times), digits)]
            row.times = "".join(f"{at - round(seconds * 1000):013d}" for at in times)
            row.save()
        return
    client = redis.Redis.from_url(django_settings.REDIS_URL)
    for key in client.keys("voiceproject:rate:*"):
        times = [int(at) - round(seconds * 1e6) for at in client.lrange(key, 0, -1)]
        client.delete(key)
        client.rpush(key, *times)


def accepted(*limits: Limit) -> bool:
    return all(standing.accepted for standing in take(list(limits)))


def test_the_nth_request_is_taken_and_the_next_is_refused(store: str) -> None:
    limit = Limit("tenant:1", 3)
    standings = [take([limit])[0] for _ in range(5)]
    assert [standing.accepted for standing in standings] == [True, True, True, False, False]
    assert [standing.remaining for standing in standings] == [2, 1, 0, 0, 0]
    assert all(59 < standing.reset_seconds <= 60.01 for standing in standings)
    assert accepted(Limit("tenant:2", 3))


def test_a_refusal_costs_nothing_and_each_place_comes_back_after_a_minute(store: str) -> None:
    limit = Limit("tenant:1", 2)
    assert accepted(limit)
    let_pass(store, 40)
    assert accepted(limit)
    for _ in range(3):
        (refused,) = take([limit])
        assert not refused.accepted
        assert 19 < refused.reset_seconds <= 20.01
    let_pass(store, refused.reset_seconds)
    # The minute of the second has not gone by.
    assert [take([limit])[0].accepted for _ in range(2)] == [True, False]
    let_pass(store, 59)
    assert [take([limit])[0].accepted for _ in range(2)] == [True, False]


def test_a_window_has_no_start_around_which_twice_as_many_pass(store: str) -> None:
    limit = Limit("tenant:1", 5)
    for _ in range(5):
        assert accepted(limit)
    for _ in range(5):
        let_pass(store, 11.9)
        assert not accepted(limit)
    let_pass(store, 0.6)
    assert [take([limit])[0].accepted for _ in range(6)] == [True] * 5 + [False]


def test_a_changed_limit_counts_what_was_accepted_before(store: str) -> None:
    for _ in range(3):
        assert accepted(Limit("tenant:1", 3))
    let_pass(store, 30)
    assert [take([Limit("tenant:1", 5)])[0].accepted for _ in range(3)] == [True, True, False]
    (lowered,) = take([Limit("tenant:1", 2)])
    assert (lowered.accepted, lowered.remaining) == (False, 0)
    # Of five the two youngest count, both of now.
    assert 59 < lowered.reset_seconds <= 60.01
    let_pass(store, lowered.reset_seconds)
    assert accepted(Limit("tenant:1", 2))


def test_what_one_limit_refuses_is_counted_under_none(store: str) -> None:
    key, tenant = Limit("key:1", 2), Limit("tenant:1", 3)
    assert accepted(key, tenant) and accepted(key, tenant)
    for _ in range(4):
        by_key, by_tenant = take([key, tenant])
        assert (by_key.accepted, by_tenant.accepted) == (False, True)
    other = Limit("key:2", 100)
    assert accepted(other, tenant)
    by_key, by_tenant = take([other, tenant])
    assert (by_key.accepted, by_tenant.accepted) == (True, False)
    assert take([other])[0].remaining == 100 - 2


def test_what_is_not_counted_any_more_is_swept(db: None, settings: Any) -> None:
    settings.REDIS_URL = ""
    take([Limit("tenant:1", 2)])
    let_pass("database", 61)
    take([Limit("tenant:2", 2)])
    assert ratelimit.sweep() == 1
    assert [row.name for row in RateLog.objects.all()] == ["tenant:2"]


# One process of several that all ask for the same place as fast as they can.
GREEDY = """
import json, sys, time
import django
from django.apps import AppConfig
from django.conf import settings

class Bare(AppConfig):  # the models without what the app starts
    name = "voiceproject"

settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "__main__.Bare"],
    USE_TZ=True,
    **json.loads(sys.stdin.readline()),
)
django.setup()
from voiceproject.tenants import ratelimit
ratelimit.WINDOW_SECONDS = float(sys.argv[2])
limit = ratelimit.Limit("tenant:1", int(sys.argv[1]))
ratelimit.take([ratelimit.Limit("tenant:2", 1)])
print("ready", flush=True)
sys.stdin.readline()
taken, end = [], time.monotonic() + float(sys.argv[3])
while time.monotonic() < end:
    before = time.monotonic()
    standing, = ratelimit.take([limit])
    if standing.accepted:
        taken.append([before, time.monotonic()])
print(json.dumps(taken))
"""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("store", ["database", "redis"], indirect=True)
def test_processes_that_race_never_get_more_than_n_in_any_window(store: str) -> None:
    most, window, seconds = 7, 0.4, 1.5
    database = {name: connection.settings_dict[name] for name in ("ENGINE", "NAME", "USER", "HOST", "PORT", "OPTIONS")}
    shared = json.dumps({"DATABASES": {"default": database}, "REDIS_URL": django_settings.REDIS_URL})
    arguments = [sys.executable, "-c", GREEDY, str(most), str(window), str(seconds)]
    processes = [
        subprocess.Popen(
            arguments, cwd=django_settings.BASE_DIR, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(3)
    ]
    try:
        for process in processes:
            process.stdin.write(f"{shared}\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        taken = [each for process in processes for each in json.loads(process.communicate(timeout=60)[0])]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    # Each was accepted some time between its two times. More than N in a window would show as N + 1 that all began
    # after one moment and had all ended within a window from it.
    taken.sort(key=lambda each: each[1])
    for start in range(len(taken) - most):
        some = taken[start : start + most + 1]
        assert some[-1][1] - min(begun for begun, _ in some) >= window
    assert len(taken) > most  # Places come back.


@pytest.mark.django_db(transaction=True)
def test_threads_at_the_edge_of_two_limits_get_what_is_left(settings: Any) -> None:
    settings.REDIS_URL = ""
    tenant = Limit("tenant:1", 10)
    results: list[bool] = []
    barrier = threading.Barrier(8)

    def ask(number: int) -> None:
        barrier.wait()
        for _ in range(3):
            results.append(accepted(Limit(f"key:{number % 2}", 4), tenant))
        connection.close()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(results) == 8  # Four of each key; the tenant would have taken ten.
    assert len(RateLog.objects.get(name="tenant:1").times) == 8 * ratelimit.DIGITS


# --- over HTTP ---


def test_without_a_limit_nothing_is_asked_and_nothing_told(
    tenant: Tenant, engine: FakeEngine, django_assert_num_queries: Any
) -> None:
    tenant.client.get(URL)
    with django_assert_num_queries(2):  # The key, and the models that the route is for.
        response = tenant.client.get(URL)
    assert not [name for name in response.headers if name.startswith("X-RateLimit")]
    assert not RateLog.objects.exists()


def test_a_limit_costs_one_statement(
    tenant: Tenant, engine: FakeEngine, settings: Any, django_assert_num_queries: Any
) -> None:
    settings.RATE_LIMIT_PER_MINUTE, settings.REDIS_URL = 10, ""
    tenant.client.get(URL)
    with django_assert_num_queries(3) as queries:
        tenant.client.get(URL)
    assert [query["sql"].split()[0] for query in queries] == ["SELECT", "INSERT", "SELECT"]


def test_all_keys_of_a_tenant_share_its_limit(
    store: str, tenant: Tenant, other: Tenant, engine: FakeEngine, settings: Any
) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 3
    _, second = ApiKey.objects.issue(tenant.user, "second")
    answers = [tenant.client.get(URL), tenant.client.get(URL), tenant.client.get(URL, headers={"X-API-Key": second})]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert [answer["X-RateLimit-Remaining"] for answer in answers] == ["2", "1", "0"]
    refused = tenant.client.get(URL, headers={"X-API-Key": second})
    assert (refused.status_code, refused.json()["error"]) == (429, "rate_limited")
    assert refused.json()["details"] == {"limit": 3, "limit_of": "tenant"}
    assert 58 <= int(refused["Retry-After"]) <= 60
    assert refused["X-RateLimit-Limit"] == "3" and refused["X-RateLimit-Remaining"] == "0"
    assert refused["X-RateLimit-Reset"] == refused["Retry-After"]
    assert other.client.get(URL).status_code == 200
    let_pass(store, int(refused["Retry-After"]))
    assert tenant.client.get(URL).status_code == 200


def test_a_keys_own_limit_only_narrows(store: str, engine: FakeEngine, settings: Any) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 3
    narrow, wide = Tenant("carol", requests_per_minute=1), Tenant("dora", requests_per_minute=50)
    assert [narrow.client.get(URL).status_code for _ in range(2)] == [200, 429]
    assert narrow.client.get(URL).json()["details"] == {"limit": 1, "limit_of": "key"}
    assert [wide.client.get(URL).status_code for _ in range(4)] == [200, 200, 200, 429]
    assert wide.client.get(URL).json()["details"] == {"limit": 3, "limit_of": "tenant"}


def test_an_operator_gives_a_tenant_another_limit_or_none(
    store: str, tenant: Tenant, engine: FakeEngine, settings: Any
) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 1
    TenantRow.objects.create(user=tenant.user, requests_per_minute=2)
    assert [tenant.client.get(URL).status_code for _ in range(3)] == [200, 200, 429]
    TenantRow.objects.update(requests_per_minute=0)
    assert tenant.client.get(URL).status_code == 200


def test_a_refusal_comes_before_the_body_is_read(tenant: Tenant, engine: FakeEngine, settings: Any) -> None:
    settings.RATE_LIMIT_PER_MINUTE, settings.REDIS_URL = 1, ""
    tenant.client.get(URL)
    refused = tenant.client.post(KEYS_URL, b"{", content_type="application/json")
    assert (refused.status_code, refused.json()["error"]) == (429, "rate_limited")
    let_pass("database", 60.001)
    malformed = tenant.client.post(KEYS_URL, b"{", content_type="application/json")
    assert malformed.status_code == 400
    assert malformed["X-RateLimit-Remaining"] == "0"


def test_browsers_may_read_what_is_left(tenant: Tenant, engine: FakeEngine, settings: Any) -> None:
    settings.RATE_LIMIT_PER_MINUTE, settings.REDIS_URL = 1, ""
    for _ in range(2):
        answer = tenant.client.get(URL, headers={"Origin": "http://localhost:3000"})
        exposed = answer["Access-Control-Expose-Headers"].split(", ")
        assert {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Retry-After"} <= set(exposed)


def test_while_redis_is_away_requests_are_let_through_and_that_is_logged_once(
    tenant: Tenant, engine: FakeEngine, settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    settings.RATE_LIMIT_PER_MINUTE, settings.REDIS_URL = 1, "redis://127.0.0.1:1/0"
    monkeypatch.setattr(ratelimit, "_away_until", 0.0)
    with caplog.at_level(logging.ERROR, "voiceproject.tenants.ratelimit"):
        assert [tenant.client.get(URL).status_code for _ in range(5)] == [200] * 5
    assert len([record for record in caplog.records if "let through" in record.message]) == 1


def test_a_redis_that_has_come_back_is_asked_again(
    redis_url: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REDIS_URL = redis_url
    redis.Redis.from_url(redis_url).flushdb()
    monkeypatch.setattr(ratelimit, "_away_until", time.monotonic() + 100)
    assert take([Limit("tenant:1", 1)]) == []
    monkeypatch.setattr(ratelimit, "_away_until", 0.0)
    # Its scripts went with its memory.
    redis.Redis.from_url(redis_url).script_flush()
    assert [take([Limit("tenant:1", 1)])[0].accepted for _ in range(2)] == [True, False]
