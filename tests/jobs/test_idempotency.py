"""`Idempotency-Key`: what is sent twice is made once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from rest_framework.test import APIClient

from covers.models import CoverJob
from tests.fakes.engine import FakeEngine
from tests.support.audio import speech_like, upload, wav_bytes
from tests.support.covers import RATE, song
from tests.support.tenants import Tenant
from tests.support.threads import together
from voiceproject.jobs import idempotency
from voiceproject.jobs.models import IdempotencyKey
from voices.speech.models import Synthesis

pytestmark = pytest.mark.django_db(transaction=True)
SPEECH, COVER = "/api/v1/voice/synthesize", "/api/v1/cover/jobs"
MODELS: dict[str, Any] = {SPEECH: Synthesis, COVER: CoverJob}
Send = Callable[..., Any]


@pytest.fixture
def send(api: APIClient, engine: FakeEngine, reference_wav: bytes) -> Send:
    tune = wav_bytes(song(1.5), RATE)

    def post(url: str, key: str | None = "k1", client: APIClient = api, prefer: str = "respond-async",
             name: str = "a.wav", voice: bytes = reference_wav, **fields: Any) -> Any:  # fmt: skip
        form: dict[str, Any] = {"text": "Hello there.", "reference_audio": upload(voice, name)}
        if url == COVER:
            form = {"song": upload(tune, name), "reference_voice": upload(voice, name)}
        headers = {"Prefer": prefer} | ({} if key is None else {"Idempotency-Key": key})
        return client.post(url, {**form, **fields}, headers=headers)

    return post


@pytest.mark.parametrize("url", [SPEECH, COVER])
def test_the_same_request_gets_the_same_job(send: Send, url: str, leftovers: Callable[[], list[str]]) -> None:
    first = send(url)
    files = leftovers()
    again = send(url, name="another-name.wav")
    assert "Idempotency-Replayed" not in first
    assert (again.status_code, again["Location"]) == (first.status_code, first["Location"]) == (202, first["Location"])
    assert again["Idempotency-Replayed"] == "true"
    assert again.json() == first.json()
    assert MODELS[url].objects.count() == 1
    assert leftovers() == files
    assert send(url, key="k2").json()["job_id"] != first.json()["job_id"]
    assert send(url, key=None).json()["job_id"] != first.json()["job_id"]


@pytest.mark.parametrize("url", [SPEECH, COVER])
def test_another_request_with_the_same_key_is_refused(send: Send, url: str) -> None:
    assert send(url).status_code == 202
    voice = wav_bytes(speech_like(pitch=130.0), 16_000)
    others = [send(url, voice=voice), send(url, model_id="default"), send(COVER if url == SPEECH else SPEECH)]
    assert [(o.status_code, o.json()["error"]) for o in others] == [(422, "idempotency_key_reused")] * 3
    assert Synthesis.objects.count() + CoverJob.objects.count() == 1


def test_another_tenants_key_is_another_key(send: Send, other: Tenant) -> None:
    assert send(SPEECH).json()["job_id"] != send(SPEECH, client=other.client).json()["job_id"]


@pytest.mark.parametrize("url", [SPEECH, COVER])
def test_two_at_once_make_one_job(
    send: Send, url: str, tenant: Tenant, settings: Any, leftovers: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings.COVER_MAX_QUEUED = settings.SYNTHESIS_MAX_QUEUED = 1  # The one that comes second is not refused either.
    seen: list[Any] = []
    real = idempotency.Submission.earlier

    def earlier(self: idempotency.Submission) -> Any:
        found = real(self)
        seen.append(found)
        return found

    monkeypatch.setattr(idempotency.Submission, "earlier", earlier)
    clients = [APIClient(headers={"X-API-Key": tenant.secret}) for _ in range(3)]
    answers = together(*[lambda client=client: send(url, client=client) for client in clients])  # type: ignore[misc]
    assert [answer.status_code for answer in answers] == [202] * 3
    assert len({answer["Location"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" in answer for answer in answers) == 2
    assert MODELS[url].objects.count() == IdempotencyKey.objects.count() == 1
    assert len(leftovers()) == (1 if url == SPEECH else 2)
    assert seen.count(None) >= 2  # they did race: more than one found no job when it came


def test_what_was_refused_is_not_remembered(send: Send, settings: Any) -> None:
    assert send(SPEECH, speed="9").status_code == 400
    settings.SYNTHESIS_MAX_QUEUED = 0
    assert send(SPEECH).status_code == 429
    assert not IdempotencyKey.objects.exists()
    settings.SYNTHESIS_MAX_QUEUED = 1
    assert send(SPEECH).status_code == 202
    assert send(SPEECH).status_code == 202


def test_a_key_is_kept_for_a_day_and_swept(send: Send) -> None:
    first = send(SPEECH).json()["job_id"]
    IdempotencyKey.objects.update(created_at=Now() - timedelta(hours=23, minutes=59))
    assert idempotency.sweep() == 0
    assert send(SPEECH).json()["job_id"] == first
    IdempotencyKey.objects.update(created_at=Now() - timedelta(hours=24, seconds=1))
    second = send(SPEECH, text="Something else.")
    assert second.status_code == 202
    assert second.json()["job_id"] != first
    IdempotencyKey.objects.update(created_at=Now() - timedelta(hours=24, seconds=1))
    assert idempotency.sweep() == 1


def test_a_job_that_was_deleted_is_not_made_again(send: Send, api: APIClient) -> None:
    assert api.delete(send(SPEECH)["Location"]).status_code == 204
    again = send(SPEECH)
    assert (again.status_code, again.json()["error"]) == (410, "result_expired")
    assert not Synthesis.objects.exists()


@pytest.mark.parametrize(("key", "status"), [("", 400), ("~" * 255, 202), ("a" * 256, 400), ("schlüssel", 400),
                                             ("a\tb", 400), (" !", 202)])  # fmt: skip
def test_a_key_has_1_to_255_printable_ascii_characters(send: Send, key: str, status: int) -> None:
    answer = send(SPEECH, key=key)
    assert answer.status_code == status
    if status == 400:
        assert list(answer.json()["details"]) == ["Idempotency-Key"]


def test_a_synthesis_that_is_waited_for_takes_no_key(send: Send, engine: FakeEngine) -> None:
    answer = send(SPEECH, prefer="")
    assert (answer.status_code, list(answer.json()["details"])) == (400, ["Idempotency-Key"])
    assert engine.requests == []


def test_a_remix_is_made_once_too(send: Send, api: APIClient, tenant: Tenant) -> None:
    made = [send(COVER, key=None).json()["job_id"] for _ in range(2)]
    stems = {name: f"covers/x/1-{name}" for name in ("vocals", "instrumental", "converted")}
    CoverJob.objects.update(status="succeeded", result="covers/x/1-result", **stems)

    def remix(source: str, gain: float = 3) -> Any:
        client = APIClient(headers={"X-API-Key": tenant.secret, "Idempotency-Key": "r1"})
        return client.post(f"{COVER}/{source}/remix", {"vocal_gain_db": gain}, format="json")

    answers = together(*[lambda: remix(made[0])] * 3)
    assert [answer.status_code for answer in answers] == [202] * 3
    assert len({answer.json()["job_id"] for answer in answers}) == 1
    assert sum(answer.get("Idempotency-Replayed") == "true" for answer in answers) == 2
    assert CoverJob.objects.count() == 3
    for other in (remix(made[0], gain=4), remix(made[1])):
        assert (other.status_code, other.json()["error"]) == (422, "idempotency_key_reused")


def test_fields_cannot_run_into_each_other() -> None:
    hashes = {
        idempotency.request_hash("x", data) for data in ({"a": "b", "c": "d"}, {"a": "b,c", "d": ""}, {"ab": "cd"})
    }
    assert len(hashes) == 3
    assert idempotency.request_hash("x", {"a": "1", "b": "2"}) == idempotency.request_hash("x", {"b": "2", "a": "1"})
