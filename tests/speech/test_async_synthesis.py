"""Syntheses with `Prefer: respond-async`: jobs of a queue of their own, made by workers."""

from __future__ import annotations

import functools
import io
import ipaddress
import json
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from botocore.exceptions import EndpointConnectionError
from django.db.models.functions import Now
from rest_framework.test import APIClient

from tests.fakes.engine import FakeEngine
from tests.support.audio import upload
from tests.support.jobs import read_events
from tests.support.running.workers import a_worker
from tests.support.running.workers import submit as submit_cover
from tests.support.tenants import Tenant
from tests.support.threads import in_thread
from tests.support.waiting import until
from voiceproject.errors import EngineBusy, EngineError, EngineTimeout, EngineUnavailable
from voiceproject.jobs.broker import this_worker
from voiceproject.operations import worker
from voiceproject.webhooks.models import WebhookDelivery
from voices.engines import configured
from voices.engines.builtin.engine import BuiltinEngine
from voices.speech import tasks
from voices.speech.models import Synthesis

pytestmark = pytest.mark.django_db(transaction=True)
URL = "/api/v1/voice/synthesize"
Post = Callable[..., Any]


@pytest.fixture(autouse=True)
def going() -> Iterator[None]:
    this_worker.stopping.clear()
    yield
    this_worker.stopping.clear()


@pytest.fixture
def post(api: APIClient, reference_wav: bytes) -> Post:
    def send(_client: APIClient = api, _prefer: str = "respond-async", **fields: Any) -> Any:
        form = {"text": "Hello there. How are you?", "reference_audio": upload(reference_wav), **fields}
        return _client.post(URL, form, headers={"Prefer": _prefer})

    return send


def row(body: dict[str, Any]) -> Synthesis:
    return Synthesis.objects.get(pk=body["job_id"])


def test_a_worker_makes_what_was_accepted_and_delete_leaves_nothing(
    post: Post, api: APIClient, engine: FakeEngine, leftovers: Callable[[], list[str]]
) -> None:
    answer = post(reference_text="What I said.", seed="7", response_format="flac")
    body = answer.json()
    assert (answer.status_code, answer["Location"]) == (202, body["links"]["self"])
    assert answer["Preference-Applied"] == "respond-async"
    assert (body["status"], body["queue_position"], body["background"]) == ("queued", 1, True)
    assert body["model_id"] is None  # As in a cover: the default model.
    assert engine.requests == []
    second = post(model_id="default").json()
    assert (second["queue_position"], second["model_id"]) == (2, "default")
    early = api.get(f"/api/v1/voice/syntheses/{body['job_id']}/audio")
    assert (early.status_code, early.json()["error"]) == (409, "job_not_ready")
    tasks.run_syntheses.fn()
    done = api.get(body["links"]["self"]).json()
    assert (done["status"], done["progress"], done["attempts"], done["engine"]) == ("succeeded", 100, 1, "builtin")
    request = engine.requests[0]
    assert (request.seed, request.reference.transcript) == (7, "What I said.")
    assert request.reference.duration_seconds == pytest.approx(4.0, abs=0.01)
    samples, rate = sf.read(io.BytesIO(b"".join(api.get(done["links"]["audio"]).streaming_content)))
    assert len(samples) / rate == pytest.approx(done["duration_seconds"], abs=0.01)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    assert np.argmax(spectrum) * rate / len(samples) == pytest.approx(220, abs=2)
    for job in Synthesis.objects.all():
        assert api.delete(f"/api/v1/voice/syntheses/{job.pk}").status_code == 204
    assert not Synthesis.objects.exists()
    assert leftovers() == []


def test_after_its_time_the_files_are_gone_and_the_row_says_so(
    post: Post, api: APIClient, engine: FakeEngine, leftovers: Callable[[], list[str]]
) -> None:
    body = post().json()
    tasks.run_syntheses.fn()
    assert len(leftovers()) == 2
    Synthesis.objects.update(expires_at=Now() - timedelta(minutes=1))
    worker.look()
    assert leftovers() == []
    assert api.get(body["links"]["self"]).json()["text"] == "Hello there. How are you?"
    gone = api.get(f"/api/v1/voice/syntheses/{body['job_id']}/audio")
    assert (gone.status_code, gone.json()["error"]) == (410, "result_expired")
    retried = api.post(f"/api/v1/voice/syntheses/{body['job_id']}/retry")
    assert (retried.status_code, retried.json()["error"]) == (410, "result_expired")


@pytest.mark.parametrize("at", ["queued", "running"])
def test_a_canceled_one_never_succeeds_and_keeps_no_audio(
    post: Post, api: APIClient, engine: FakeEngine, leftovers: Callable[[], list[str]], at: str
) -> None:
    body = post().json()

    def cancel(index: int = 1) -> None:
        if index == 1:
            assert api.post(body["links"]["cancel"]).json()["status"] == "canceled"

    if at == "running":
        engine.before_piece = cancel
    else:
        cancel()
    tasks.run_syntheses.fn()
    assert (row(body).status, bool(row(body).audio)) == ("canceled", False)
    assert [Path(name).name for name in leftovers()] == ["0-reference_audio"]
    engine.before_piece = lambda index: None
    assert api.post(f"{body['links']['self']}/retry").status_code == 202
    tasks.run_syntheses.fn()
    assert row(body).status == "succeeded"


@pytest.mark.parametrize("broken", [False, True])
def test_a_worker_that_is_told_to_stop_hands_it_back(post: Post, engine: FakeEngine, broken: bool) -> None:
    body = post().json()

    def stop(index: int) -> None:
        this_worker.stopping.set()
        engine.failure = EngineUnavailable() if broken else None  # as of an engine closed under the work

    engine.before_piece = stop
    tasks.run_syntheses.fn()
    assert (row(body).status, row(body).attempt, row(body).host) == ("queued", 0, "")


def test_a_lost_workers_is_taken_over_but_not_what_a_client_waited_for(
    post: Post, api: APIClient, engine: FakeEngine, settings: Any
) -> None:
    body = post().json()
    lost = Synthesis.claim("w1", "h1", 1, 1)
    assert lost is not None
    waited = post(_prefer="")["X-Synthesis-ID"]
    Synthesis.objects.filter(pk=waited).update(status="running")
    Synthesis.objects.update(heartbeat_at=Now() - timedelta(minutes=5))
    Synthesis.recover(settings.WORKER_HEARTBEAT_TIMEOUT_SECONDS, settings.SYNTHESIS_MAX_ATTEMPTS)
    assert row(body).status == "queued"
    assert Synthesis.objects.get(pk=waited).error == "worker_lost"
    refused = api.post(f"/api/v1/voice/syntheses/{waited}/retry")
    assert (refused.status_code, refused.json()["error"]) == (409, "conflict")
    tasks.run_syntheses.fn()
    assert (row(body).status, row(body).attempt) == ("succeeded", 2)
    assert not lost.succeed(1)


def test_a_failure_says_why_without_the_engines_words_and_can_be_tried_again(
    post: Post, api: APIClient, engine: FakeEngine
) -> None:
    body = post().json()
    engine.failure = RuntimeError("/opt/models/x.pth is broken")
    tasks.run_syntheses.fn()
    failed = api.get(body["links"]["self"]).json()
    assert (failed["status"], failed["error"]) == ("failed", "engine_error")
    assert "/opt" not in str(failed)
    assert "x.pth" in row(body).error_detail
    engine.failure = None
    assert api.post(failed["links"]["retry"]).json()["status"] == "queued"
    assert api.post(failed["links"]["retry"]).status_code == 409
    tasks.run_syntheses.fn()
    assert row(body).status == "succeeded"


def test_its_time_limit_is_its_own_and_the_other_ones_answer_names_it(
    post: Post, engine: FakeEngine, settings: Any
) -> None:
    settings.SYNTHESIS_TIMEOUT_SECONDS = -1
    late = post(_prefer="")
    assert (late.status_code, late.json()["error"]) == (504, "engine_timeout")
    assert "Prefer: respond-async" in late.json()["message"]
    first = post().json()
    tasks.run_syntheses.fn()
    assert row(first).status == "succeeded"
    settings.SYNTHESIS_ASYNC_TIMEOUT_SECONDS = -1
    second = post().json()
    tasks.run_syntheses.fn()
    assert (row(second).status, row(second).error) == ("failed", "timed_out")


@pytest.mark.parametrize("failure", [EngineBusy, EngineUnavailable, EngineError, EngineTimeout])
def test_a_busy_engine_is_waited_for_and_a_broken_one_is_not(
    post: Post, engine: FakeEngine, failure: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "RETRY_SECONDS", 0.01)
    body = post().json()
    tries: list[int] = []

    def busy_once(index: int) -> None:
        engine.failure = None if tries else failure()  # type: ignore[assignment]
        tries.append(index)

    engine.before_piece = busy_once
    tasks.run_syntheses.fn()
    expected = "succeeded" if failure in (EngineBusy, EngineUnavailable) else "failed"
    assert row(body).status == expected


def test_an_engine_may_go_away_late_in_a_long_text(
    post: Post, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(tasks, "AWAY_SECONDS", 0.4)
    asked: list[int] = []

    def trouble(index: int) -> None:
        asked.append(index)
        engine.failure = EngineUnavailable() if asked in ([0, 1], [0, 1, 0], [0, 1, 0, 0, 1]) else None
        if asked == [0]:
            time.sleep(0.5)  # It has worked for longer than an engine may be away.

    engine.before_piece = trouble
    body = post(text="One sentence. Another sentence.").json()
    tasks.run_syntheses.fn()
    assert asked == [0, 1, 0, 0, 1, 0, 1]
    assert row(body).status == "succeeded"
    # What was made before each break is not in it twice.
    assert row(body).duration_seconds == pytest.approx(0.1 * len("One sentence.Another sentence."), abs=0.15)


def test_an_engine_that_stays_away_fails_the_job_in_the_end(
    post: Post, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(tasks, "AWAY_SECONDS", 0.1)
    engine.failure = EngineUnavailable()
    body = post().json()
    tasks.run_syntheses.fn()
    failed = row(body)
    assert (failed.status, failed.error, failed.error_message) == ("failed", "engine_error", engine.failure.message)
    assert len(engine.requests) > 1


def test_an_engine_that_foretells_an_hour_is_asked_again_before(
    post: Post, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "MAX_RETRY_SECONDS", 0.01)
    failures: list[Any] = [EngineBusy(retry_after=3600), None]
    engine.before_piece = lambda index: setattr(engine, "failure", failures.pop(0)) if index == 0 else None
    body = post().json()
    tasks.run_syntheses.fn()
    assert row(body).status == "succeeded"


def test_a_bucket_that_is_away_is_waited_for(post: Post, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    outages: list[str] = []

    def away_at_first(action: Callable[..., Any]) -> Callable[..., Any]:
        left = [EndpointConnectionError(endpoint_url="http://s3.example.com") for _ in range(3)]

        def attempt(*args: Any, **kwargs: Any) -> Any:
            if left:
                outages.append(action.__name__)
                raise left.pop()
            return action(*args, **kwargs)

        return attempt

    body = post().json()
    monkeypatch.setattr(tasks.storage, "fetch", away_at_first(tasks.storage.fetch))
    audio = Synthesis._meta.get_field("audio").storage  # type: ignore[union-attr]
    monkeypatch.setattr(audio, "save", away_at_first(audio.save))
    tasks.run_syntheses.fn()
    assert (row(body).status, row(body).attempt) == ("succeeded", 1)
    assert outages == ["fetch"] * 3 + ["save"] * 3
    assert len(engine.requests) == 1  # What was spoken is not spoken again.


@pytest.mark.parametrize("text", ["مرحبا بالعالم", "Привет", "안녕하세요"])
def test_a_script_that_the_builtin_engine_cannot_read_is_refused_at_once(
    post: Post, monkeypatch: pytest.MonkeyPatch, leftovers: Callable[[], list[str]], text: str
) -> None:
    real = BuiltinEngine()
    monkeypatch.setattr(configured, "load_engine", lambda: real)
    refused = post(text=text)
    assert (refused.status_code, refused.json()["error"]) == (400, "unsupported_language")
    assert refused.json()["details"]["found"]
    assert not Synthesis.objects.exists()
    assert leftovers() == []


def test_wait_holds_the_answer_and_events_tell_of_the_end(post: Post, api: APIClient, engine: FakeEngine) -> None:
    waited = post(_prefer="respond-async, wait=1")
    assert (waited.status_code, waited.json()["status"]) == (202, "queued")
    assert waited["Preference-Applied"] == "respond-async, wait=1"
    body = waited.json()
    stream = api.get(body["links"]["events"])
    thread = in_thread(tasks.run_syntheses.fn)
    shown = api.get(body["links"]["self"], headers={"Prefer": "wait=60"})
    found = read_events(stream.streaming_content)
    stream.close()
    thread.join()
    assert shown.json()["status"] == "succeeded"
    assert [data["status"] for _, data in found][0 :: len(found) - 1] == ["queued", "succeeded"]
    last = api.get(body["links"]["self"] + "/events", headers={"Last-Event-ID": str(found[-1][0])})
    assert last.status_code == 204


def test_a_job_is_not_streamed(post: Post, engine: FakeEngine, leftovers: Callable[[], list[str]]) -> None:
    answer = post(stream="true")
    assert (answer.status_code, list(answer.json()["details"])) == (400, ["stream"])
    assert not Synthesis.objects.exists()
    assert leftovers() == []


def test_an_idle_workers_engine_is_closed_and_not_under_a_job(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    class Engine(FakeEngine):
        closed = False

        def close(self) -> None:
            self.closed = True

    made: list[Engine] = []

    @functools.cache
    def load_engine() -> Engine:
        made.append(Engine())
        made[-1].before_piece = lambda index: tasks.rest()
        return made[-1]

    monkeypatch.setattr(configured, "load_engine", load_engine)
    monkeypatch.setattr(tasks, "ENGINE_IDLE_SECONDS", 600.0)
    first = post().json()
    tasks.run_syntheses.fn()
    worker.look()
    assert [engine.closed for engine in made] == [False]
    monkeypatch.setattr(tasks, "ENGINE_IDLE_SECONDS", 0.0)
    second = post().json()
    tasks.run_syntheses.fn()  # in whose midst it is asked to rest
    assert [engine.closed for engine in made] == [False]
    worker.look()
    assert [engine.closed for engine in made] == [True]
    third = post().json()
    tasks.run_syntheses.fn()
    assert [engine.closed for engine in made] == [True, False]
    assert {row(body).status for body in (first, second, third)} == {"succeeded"}


def test_caps_bound_one_tenant_and_turns_are_its_own(
    post: Post, other: Tenant, engine: FakeEngine, settings: Any, leftovers: Callable[[], list[str]]
) -> None:
    settings.SYNTHESIS_MAX_QUEUED = 2
    mine = [post().json() for _ in range(2)]
    refused = post()
    assert (refused.status_code, refused.json()["error"]) == (429, "too_many_jobs")
    assert len(leftovers()) == 2
    theirs = post(other.client).json()
    assert [row(mine[1]).queue_position(), row(theirs).queue_position()] == [3, 2]
    taken = [Synthesis.claim("w", "h", 9, 1) for _ in range(3)]
    assert {job and str(job.pk) for job in taken} == {mine[0]["job_id"], theirs["job_id"], None}
    assert Synthesis.claim("w", "h", 2, 9) is None  # the host's places
    assert not Synthesis.has_room("h", 2)


def test_a_real_worker_speaks_while_a_cover_hangs_and_leaves_no_process(
    api: APIClient, reference_wav: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    cover = submit_cover()
    with a_worker(infer="hang", REDIS_URL="") as process:
        until(lambda: type(cover).objects.get(pk=cover.pk).stage == "infer", 40)
        form = {"text": "Hello there.", "reference_audio": upload(reference_wav)}
        body = api.post(URL, form, headers={"Prefer": "respond-async"}).json()
        until(lambda: row(body).status in ("succeeded", "failed"), 60)
        assert (row(body).status, row(body).sample_rate) == ("succeeded", 24_000)
        assert row(body).duration_seconds == pytest.approx(1.0, abs=0.6)
        assert type(cover).objects.get(pk=cover.pk).status == "running"
        children = [pid for pid in all_pids() if group_of(pid) == process.pid]
        assert children
        process.terminate()
        process.wait(20)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), 20)
    assert type(cover).objects.get(pk=cover.pk).status == "queued"


def all_pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def group_of(pid: int) -> int | None:
    """The session of a process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3])
    except (FileNotFoundError, ProcessLookupError):
        return None


def test_its_end_is_told_and_what_is_no_job_has_nothing_to_tell(post: Post, engine: FakeEngine, settings: Any) -> None:
    settings.WEBHOOK_ALLOW_HTTP = True
    settings.WEBHOOK_ALLOWED_NETWORKS = [ipaddress.ip_network("127.0.0.0/8")]
    url = "http://127.0.0.1:9/hook"
    refused = post(_prefer="", callback_url=url)
    assert (refused.status_code, list(refused.json()["details"])) == (400, ["callback_url"])
    body = post(callback_url=url).json()
    assert not WebhookDelivery.objects.exists()
    tasks.run_syntheses.fn()
    event = WebhookDelivery.objects.get()
    assert (str(event.job_id), event.type, event.url) == (body["job_id"], "synthesis.succeeded", url)
    data = json.loads(event.payload)["data"]
    assert (data["status"], data["links"]["self"]) == ("succeeded", body["links"]["self"])
