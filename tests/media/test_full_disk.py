"""A disk that fills up while something is written: the client is told so, and nothing of the half stays."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.files.base import File
from django.db import OperationalError
from django.test import Client
from rest_framework.test import APIClient

from covers.models import CoverJob
from tests.fakes.engine import FakeEngine
from tests.support.audio import upload
from voiceproject.operations import health
from voiceproject.web.errors import as_public_error
from voices.speech.models import Synthesis

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first 64 KiB of a file find room, the rest does not."""

    def chunks(self: Any, chunk_size: int | None = None) -> Iterator[bytes]:
        self.seek(0)
        yield self.read(65_536)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(File, "chunks", chunks)


def assert_full(response: Any) -> None:
    assert (response.status_code, response.json()["error"]) == (503, "storage_full"), response.content
    assert int(response["Retry-After"]) > 0


@pytest.mark.usefixtures("full_disk")
def test_a_song_that_finds_no_room_is_not_kept_in_part(
    api: APIClient, engine: FakeEngine, reference_wav: bytes, leftovers: Callable[[], list[str]], settings: Any
) -> None:
    form = {"song": upload(reference_wav), "reference_voice": upload(reference_wav)}
    assert_full(api.post("/api/v1/cover/jobs", form))
    assert leftovers() == []
    assert not list(Path(settings.MEDIA_ROOT, "covers").iterdir())
    assert not CoverJob.objects.exists()


@pytest.mark.usefixtures("full_disk")
def test_speech_that_finds_no_room_is_not_kept_in_part(
    api: APIClient, engine: FakeEngine, reference_wav: bytes, leftovers: Callable[[], list[str]]
) -> None:
    form = {"text": "Hello there.", "reference_audio": upload(reference_wav)}
    assert_full(api.post("/api/v1/voice/synthesize", form))
    assert leftovers() == []
    assert [(row.status, row.error) for row in Synthesis.objects.all()] == [("failed", "storage_full")]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OperationalError("database or disk is full"),
    ],
    ids=str,
)
def test_every_word_for_a_full_disk_is_understood(error: Exception) -> None:
    assert as_public_error(error).code == "storage_full"


def test_a_database_that_another_process_holds_for_long_is_no_crash() -> None:
    error = as_public_error(OperationalError("database is locked"))
    assert (error.code, error.status) == ("too_many_waiting", 503)


def test_health_tells_of_a_disk_that_is_nearly_full_or_read_only(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def state() -> tuple[str, str]:
        body = Client().get("/health").json()
        return body["status"], body["checks"]["storage"]

    assert state() == ("healthy", "ok")
    monkeypatch.setattr(health.shutil, "disk_usage", lambda path: SimpleNamespace(free=50 * 1024 * 1024))
    assert state() == ("degraded", "nearly full")
    monkeypatch.setattr(health.os, "access", lambda path, mode: False)
    assert state() == ("degraded", "not writable")
