"""Damaged files through the upload path: an answer of the API each time, and nothing left. bench/fuzz.py sends more."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from rest_framework.test import APIClient

from tests.fakes.engine import FakeEngine
from tests.support.audio import upload
from tests.support.recordings.mutated_audio import mutated


@pytest.mark.parametrize("start", range(0, 300, 75))
def test_a_damaged_file_is_taken_or_refused_and_never_a_fault(
    start: int, api: APIClient, engine: FakeEngine, leftovers: Callable[[], list[str]]
) -> None:
    for number in range(start, start + 75):
        format, content = mutated(number)
        file = upload(content, "found.bin", "application/octet-stream")
        if number % 3 == 0:
            response = api.post("/api/v1/voice/synthesize", {"text": "Hello", "reference_audio": file})
        else:
            response = api.post("/api/v1/provenance/verify", {"file": file})
        assert response.status_code in (200, 400), (number, format, response.content)
        if response.status_code == 400:
            assert response.json()["error"] in ("invalid_audio", "reference_too_short", "reference_too_long"), number
    assert not [path for path in leftovers() if "/media/" not in path]
