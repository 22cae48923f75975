"""/api/v1/history: the list of what was spoken as the first service of this kind had it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from rest_framework.test import APIClient

from tests.support.tenants import Tenant
from voiceproject.jobs.status import JobStatus
from voices.speech.models import Synthesis

FIELDS = {
    "id", "job_type", "status", "input_text", "language", "speed", "temperature", "duration_seconds", "error_message",
    "created_at",
}  # fmt: skip


@pytest.mark.django_db
def test_what_has_ended_is_listed_newest_first_in_pages(api: APIClient, tenant: Tenant, other: Tenant) -> None:
    def made(text: str, owner: Tenant = tenant, **fields: Any) -> Synthesis:
        return Synthesis.objects.create(tenant=owner.user, text=text, **fields)

    made("One.", status=JobStatus.SUCCEEDED, duration_seconds=1.5, reference_hash="a" * 64, language="en")
    failed = {"status": JobStatus.FAILED, "error": "engine_error", "error_message": "The engine failed."}
    made("Two.", reference_hash="preset:alloy", **failed)
    made("Three.", status=JobStatus.QUEUED)
    made("Four.", status=JobStatus.CANCELED)
    made("Not mine.", other, status=JobStatus.SUCCEEDED)
    body = api.get("/api/v1/history").json()
    assert body["total"] == 2
    second, first = body["items"]
    assert set(first) == set(second) == FIELDS
    assert (first["input_text"], first["status"], first["job_type"]) == ("One.", "success", "clone")
    assert (first["duration_seconds"], first["error_message"], first["language"]) == (1.5, None, "en")
    assert (second["input_text"], second["status"], second["job_type"]) == ("Two.", "error", "tts")
    assert second["error_message"] == "The engine failed." and datetime.fromisoformat(first["created_at"])
    page = api.get("/api/v1/history?limit=1&offset=1").json()
    assert ([item["input_text"] for item in page["items"]], page["total"]) == (["One."], 2)
    assert api.get("/api/v1/history?offset=5").json()["items"] == []


@pytest.mark.django_db
@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "offset=-1", "offset=99999999999999999999"])
def test_bounds_of_a_page_are_told(api: APIClient, query: str) -> None:
    response = api.get(f"/api/v1/history?{query}")
    assert response.status_code == 400
    assert query.partition("=")[0] in response.json()["details"]
