"""The dashboard's numbers, and that it costs no more with many jobs."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from model_bakery import baker

from covers.models import CoverJob
from tests.fakes.engine import FakeEngine
from voiceproject.console import numbers
from voiceproject.console.background import Background
from voiceproject.console.charts import day_chart
from voiceproject.console.pages import hours
from voiceproject.console.panels import job_kinds
from voiceproject.jobs.models import WorkerHost
from voiceproject.leases.models import EngineLease, EngineWaiter
from voices.speech.models import Synthesis

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    numbers._days.clear()
    hours.forget()
    for kept in (numbers.HISTORY, numbers.ENGINE_HEALTH, numbers.MEDIA_BYTES):
        kept.forget()


@pytest.fixture
def operator(engine: FakeEngine) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


def marks(*stages: tuple[str, float], attempt: int = 1) -> list[dict[str, Any]]:
    start = timezone.now() - timedelta(hours=1)
    return [
        {"attempt": attempt, "stage": stage, "at": (start + timedelta(seconds=seconds)).isoformat()}
        for stage, seconds in stages
    ]


def test_queues_say_what_runs_what_waits_and_since_when() -> None:
    now = timezone.now()
    baker.make(CoverJob, status="running", _quantity=2)
    baker.make(CoverJob, status="queued", created_at=now - timedelta(minutes=9))
    # One that was queued again waits since then, not since it was submitted.
    baker.make(CoverJob, status="queued", attempt=1, created_at=now - timedelta(days=3), updated_at=now)
    baker.make(Synthesis, status="failed", created_at=now - timedelta(hours=1))
    covers, syntheses, trainings = numbers.queues()
    assert (covers["running"], covers["queued"], covers["failed"]) == (2, 2, 0)
    assert covers["oldest"] == now - timedelta(minutes=9)
    assert (syntheses["running"], syntheses["queued"], syntheses["oldest"], syntheses["failed"]) == (0, 0, None, 1)
    assert (trainings["running"], trainings["queued"], trainings["failed"]) == (0, 0, 0)


def test_outcomes_are_counted_by_day_over_both_kinds() -> None:
    today = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    baker.make(CoverJob, status="succeeded", created_at=today, _quantity=3)
    baker.make(Synthesis, status="succeeded", created_at=today + timedelta(seconds=1))
    baker.make(CoverJob, status="failed", created_at=today - timedelta(seconds=1))
    baker.make(CoverJob, status="canceled", created_at=today - timedelta(days=numbers.DAYS))  # too old
    days = numbers.outcomes()
    assert len(days) == numbers.DAYS
    assert (days[-1]["succeeded"], days[-1]["failed"]) == (4, 0)
    assert (days[-2]["succeeded"], days[-2]["failed"]) == (0, 1)
    assert sum(day["canceled"] for day in days) == 0
    chart = day_chart(days)
    assert chart["top"] == 4
    (part,) = chart["bars"][-1]["parts"]
    assert (float(part["y"]), float(part["height"])) == (10, 130)


def test_stage_times_are_means_over_the_attempts_that_ran_them() -> None:
    ends = ("preprocess", 0), ("separate", 2), ("infer", 12), ("mix", 42), ("finalize", 43), ("succeeded", 43.5)
    baker.make(CoverJob, status="succeeded", marks=marks(*ends))
    slow = [*marks(("infer", 0), ("taken over", 900), attempt=1), *marks(("infer", 1000), ("mix", 1050), attempt=2)]
    baker.make(CoverJob, status="succeeded", marks=slow)
    covers = job_kinds()[0]
    assert dict(numbers.stage_seconds(covers)) == pytest.approx(
        {"preprocess": 2, "separate": 10, "infer": (30 + 900 + 50) / 3, "mix": 1, "finalize": 0.5}
    )


def test_the_page_shows_hosts_with_their_work_the_engine_and_the_busiest(operator: Client) -> None:
    busy, idle = User.objects.create(username="busy<b>"), User.objects.create(username="idle-one")
    baker.make(CoverJob, tenant=busy, status="succeeded", _quantity=3)
    running = baker.make(CoverJob, tenant=busy, status="running", stage="infer", progress=61, host="gpu-1")
    baker.make(CoverJob, tenant=idle, status="succeeded", created_at=timezone.now() - timedelta(days=2))
    WorkerHost.objects.create(name="gpu-1", seen_at=timezone.now())
    WorkerHost.objects.create(name="gpu-2", seen_at=timezone.now(), draining=True)
    WorkerHost.objects.create(name="gpu-3", seen_at=timezone.now() - timedelta(days=1))
    EngineLease.objects.create(server="http://gpu:9880", owner="w", expires_at=timezone.now() + timedelta(minutes=1))
    EngineWaiter.objects.create(queue="q", expires_at=timezone.now() + timedelta(minutes=1))
    hosts = {host["name"]: host for host in numbers.hosts()}
    assert {name: host["kind"] for name, host in hosts.items()} == {
        "gpu-1": "alive", "gpu-2": "draining", "gpu-3": "silent",
    }  # fmt: skip
    assert [job["id"] for job in hosts["gpu-1"]["jobs"]] == [str(running.pk)[:8]]
    (top,) = numbers.busiest(numbers.most_jobs())
    assert (top["name"], top["jobs"], top["running"]) == ("busy<b>", 4, 1)
    html = operator.get(reverse("admin:index")).content.decode()
    assert "busy&lt;b&gt;" in html
    assert "busy<b>" not in html
    fragment = operator.get(reverse("admin:dashboard"))
    assert "no-store" in fragment["Cache-Control"]
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", fragment.content.decode()))
    for words in ("gpu-1 works", "61 %", "gpu-2 draining", "http://gpu:9880 busy", "1 waits for a server"):
        assert words in text, words


def test_its_queries_do_not_grow_with_the_jobs(operator: Client, django_assert_max_num_queries: Any) -> None:
    WorkerHost.objects.create(name="gpu-1", seen_at=timezone.now())
    baker.make(CoverJob, status="running", host="gpu-1", _quantity=10)
    baker.make(CoverJob, status="succeeded", _quantity=20)
    operator.get(reverse("admin:dashboard"))
    with django_assert_max_num_queries(26):
        operator.get(reverse("admin:dashboard"))


def test_what_takes_long_is_found_by_a_thread_while_the_page_shows_what_is_known() -> None:
    import threading

    going, found = threading.Event(), iter((1, 2))

    def find() -> int:
        going.wait(10)
        return next(found)

    kept = Background(find, seconds=1000.0)
    assert kept.value() is None
    assert kept.value(0.01) is None  # No second thread meanwhile.
    going.set()
    assert kept.value(10) == 1
    assert kept.value() == 1


def test_a_part_that_cannot_be_found_leaves_the_rest_as_it_was() -> None:
    values = iter((7,))
    kept = Background(lambda: next(values), seconds=0.0)
    assert kept.value(10) == 7
    assert kept.value(10) == 7


def seen(name: str, seconds_ago: float = 0.0, **more: Any) -> None:
    WorkerHost.objects.create(name=name, seen_at=timezone.now() - timedelta(seconds=seconds_ago), **more)


@pytest.mark.parametrize(("hosts", "waits", "trouble", "health"), [
    ([], 0, "", "0 alive"),
    ([], 1, "none", "0 alive, jobs are waiting"),
    ([("a", 0, False), ("b", 90, False)], 1, "", "1 alive"),
    ([("a", 90, False), ("b", 90, True)], 0, "silent", "0 alive"),
    ([("a", 0, True), ("b", 90, False)], 2, "draining", "1 alive, all draining, jobs are waiting"),
])  # fmt: skip
def test_a_banner_and_health_say_that_nobody_takes_jobs(
    hosts: list[Any], waits: int, trouble: str, health: str, operator: Client
) -> None:
    for name, ago, draining in hosts:
        seen(name, ago, draining=draining)
    for _ in range(waits):
        baker.make(CoverJob, status="queued")
    html = operator.get(reverse("admin:dashboard")).content.decode()
    assert numbers.all_numbers()["trouble"] == trouble
    assert ("No worker takes jobs." in html) == bool(trouble)
    assert (f"{waits} job" in html) == bool(trouble and waits)
    answer = Client().get("/health").json()
    assert (answer["status"], answer["checks"]["workers"]) == ("degraded" if trouble else "healthy", health)


def test_a_silent_host_is_not_idle_and_hosts_lead_to_their_page(operator: Client) -> None:
    seen("gpu-1")
    html = operator.get(reverse("admin:dashboard")).content.decode()
    assert "idle" in html
    (url,) = re.findall(r'href="([^"]*workerhost/gpu[^"]*)"', html)
    assert operator.get(url).status_code == 200
    WorkerHost.objects.update(seen_at=timezone.now() - timedelta(minutes=5))
    html = operator.get(reverse("admin:dashboard")).content.decode()
    assert "silent" in html and "idle" not in html


def test_hours_tell_how_many_ended_and_what_95_of_100_waited_and_took() -> None:
    start = timezone.now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    for number in range(100):
        made = start + timedelta(seconds=number)
        baker.make(CoverJob, status="succeeded", created_at=made, started_at=made + timedelta(seconds=number + 1),
                   finished_at=made + timedelta(seconds=number + 31))  # fmt: skip
    baker.make(CoverJob, status="failed", created_at=start, _quantity=2)
    assert start in [hour.start for hour in hours.last_hours(CoverJob)]
    hour = hours.count(CoverJob, start)  # What is kept may be of a dashboard that was looked at before.
    assert hour.counts == {"succeeded": 100, "failed": 2, "canceled": 0}
    assert (hour.wait_median, hour.wait_p95, hour.took_p95) == (50.0, 95.0, 30.0)
    assert [hour.ended for hour in hours.last_hours(Synthesis)] == [0] * 24


def test_the_dashboard_draws_the_hours_of_each_queue(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    made = timezone.now() - timedelta(hours=3)
    baker.make(CoverJob, status="succeeded", created_at=made, started_at=made + timedelta(seconds=90),
               finished_at=made + timedelta(minutes=5), _quantity=24)  # fmt: skip
    # The thread that finds it otherwise sees nothing of this test's transaction.
    monkeypatch.setattr(numbers.HISTORY, "value", lambda patience: numbers.HISTORY._find())
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", operator.get(reverse("admin:dashboard")).content.decode()))
    for words in ("ended an hour 1.0", "wait, p95 1\xa0min 30\xa0s", "work, p95 3\xa0min 30\xa0s"):
        assert words.replace("\xa0", " ") in text.replace("\xa0", " "), words
