"""How long a running job still takes, as the last jobs took."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from covers.models import CoverJob
from tests.support.tenants import Tenant
from voiceproject.jobs.queue import forget_times
from voices.speech.models import Synthesis

pytestmark = pytest.mark.django_db
URL = "/api/v1/cover/jobs"


@pytest.fixture(autouse=True)
def nothing_learnt() -> None:
    forget_times()


def marks(attempt: int, start: Any, **stages: float) -> list[dict[str, Any]]:
    """stages: with the seconds of each, and `succeeded` behind them."""
    found, at = [], start
    for stage, seconds in stages.items():
        found.append({"attempt": attempt, "stage": stage, "at": at.isoformat()})
        at += timedelta(seconds=seconds)
    return found


def ended(tenant: Tenant, length: float, factor: float, **fields: Any) -> CoverJob:
    """A cover whose separation took `factor`, and whose singing took twice as many seconds for each one of audio."""
    start = timezone.now() - timedelta(hours=1)
    took = {"claimed": 0.0, "separate": factor * length, "infer": 2 * factor * length, "mix": 1.0, "succeeded": 0.0}
    # An attempt that was lost, before it, teaches nothing.
    lost = marks(1, start - timedelta(hours=5), separate=9000.0, infer=9000.0)
    return CoverJob.objects.create(
        tenant=tenant.user, status="succeeded", duration_seconds=length, attempt=2,
        marks=lost + marks(2, start, **took), started_at=start,
        finished_at=start + timedelta(seconds=3 * factor * length + 1), stage="finalize", **fields,
    )  # fmt: skip


def running(tenant: Tenant, stage: str, since: float, length: float = 100.0, **fields: Any) -> CoverJob:
    begun = timezone.now() - timedelta(seconds=since)
    return CoverJob.objects.create(
        tenant=tenant.user, status="running", stage=stage, attempt=1, duration_seconds=length,
        marks=marks(1, begun, **{stage: 0.0}), started_at=begun - timedelta(seconds=30), **fields,
    )  # fmt: skip


def remaining(api: APIClient, job: CoverJob) -> Any:
    return api.get(f"{URL}/{job.pk}").json()["estimated_seconds_remaining"]


def test_what_is_left_is_learnt_from_the_stages_of_the_last_jobs(tenant: Tenant, api: APIClient) -> None:
    assert remaining(api, running(tenant, "separate", 10)) is None
    forget_times()
    for length in (90.0, 100.0, 110.0, 105.0, 95.0):
        ended(tenant, length, 0.5)
    # 50 s to separate, 100 s to sing, 1 s to mix.
    assert remaining(api, running(tenant, "separate", 10)) == pytest.approx(40 + 100 + 1, abs=1)
    assert remaining(api, running(tenant, "infer", 10)) == pytest.approx(90 + 1, abs=1)
    assert remaining(api, running(tenant, "infer", 10, preview_seconds=20)) == pytest.approx(10.2, abs=1)
    # What lasts longer than it should is never told to have ended.
    assert remaining(api, running(tenant, "infer", 900)) == pytest.approx(10 + 1, abs=1)
    (first, *_) = api.get(URL, {"status": "running"}).json()["results"]
    assert first["estimated_seconds_remaining"] == pytest.approx(11, abs=1)
    assert first["elapsed_seconds"] == pytest.approx(930, abs=5)


def test_jobs_of_about_the_same_length_and_the_same_kind_teach(tenant: Tenant, api: APIClient) -> None:
    for _ in range(5):
        ended(tenant, 10.0, 10.0)  # short ones take long to start
        ended(tenant, 300.0, 0.5)
        ended(tenant, 100.0, 50.0, input_kind="vocals")
    assert remaining(api, running(tenant, "infer", 0, length=300.0)) == pytest.approx(301, abs=3)
    assert remaining(api, running(tenant, "infer", 0, length=10.0)) == pytest.approx(201, abs=3)


def test_a_job_that_does_not_run_has_no_rest(tenant: Tenant, api: APIClient) -> None:
    done = ended(tenant, 100.0, 0.5)
    told = api.get(f"{URL}/{done.pk}").json()
    assert (told["estimated_seconds_remaining"], told["elapsed_seconds"]) == (None, pytest.approx(151, abs=1))
    queued = CoverJob.objects.create(tenant=tenant.user, status="queued", duration_seconds=100.0)
    told = api.get(f"{URL}/{queued.pk}").json()
    assert (told["estimated_seconds_remaining"], told["elapsed_seconds"]) == (None, None)


def test_a_synthesis_that_its_client_waits_for_teaches_the_next_one(tenant: Tenant, api: APIClient) -> None:
    now = timezone.now()
    text = "Ten words that are spoken one after the other here. " * 10
    same = {"tenant": tenant.user, "text": text, "engine": "fake", "stage": "infer"}
    Synthesis.objects.create(
        **same, status="succeeded", started_at=now - timedelta(seconds=40), finished_at=now, attempt=1
    )
    waiting = Synthesis.objects.create(**same, status="running", started_at=now - timedelta(seconds=15), attempt=1)
    told = api.get(f"/api/v1/voice/syntheses/{waiting.pk}").json()
    assert told["estimated_seconds_remaining"] == pytest.approx(25, abs=1)
