"""Trainings over the API and through the pipeline, with a real command that is quick instead of good."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.files.storage import default_storage
from django.utils import timezone
from rest_framework.test import APIClient

from tests.fakes.engine import FakeEngine
from tests.support.audio import upload
from tests.support.tenants import MODELS_URL, Tenant
from tests.support.threads import in_thread
from tests.support.voices import STATEMENT
from tests.support.voices import URL as VOICES_URL
from tests.support.waiting import until
from voiceproject.jobs.broker import this_worker
from voiceproject.tenants import usage
from voiceproject.tenants.models import UsageEntry
from voices.library import saved
from voices.library.models import Consent, Voice
from voices.speech import registry, weights
from voices.speech.models import EngineModel, WeightsFile
from voices.training import tasks
from voices.training.models import Training

pytestmark = [pytest.mark.usefixtures("fresh_trainings"), pytest.mark.django_db(transaction=True)]


def work() -> None:
    tasks.run_trainings.fn()


def done(api: APIClient, response: Any) -> dict[str, Any]:
    """The job of a submission, after a worker has looked."""
    assert response.status_code == 202, response.content
    work()
    return api.get(response.json()["links"]["self"]).json()


def stages(job: dict[str, Any]) -> list[str]:
    return [mark["stage"] for mark in Training.objects.get(pk=job["training_id"]).marks]


def test_a_training_becomes_a_model_and_a_voice_of_its_tenant(
    train: Callable[..., Any], api: APIClient, leftovers: Callable[[], list[str]]
) -> None:
    submitted = train(sovits_epochs="4", seed="7")
    assert submitted.json()["stage"] == "queued" and submitted["Location"] == submitted.json()["links"]["self"]
    job = done(api, submitted)
    assert (job["status"], job["stage"], job["progress"], job["error_message"]) == ("succeeded", "publish", 100, None)
    assert [stage for stage in stages(job) if stage in job["stages"]] == job["stages"]
    assert job["options"] == {"sovits_epochs": 4, "seed": 7}
    assert job["evaluation"][-1] == {"gpt_epoch": 15, "likeness": 0.8, "taken": True}
    assert {"code": "cpu", "message": "It is a stand-in."} in job["warnings"]
    assert job["report"]["speakers"] == 1 and job["report"]["dropped"][0]["file"] == "talk"
    model = EngineModel.objects.get()
    assert (model.model_id, model.owner.username, str(model.voice_id)) == (job["model_id"], "alice", job["voice_id"])
    for file in WeightsFile.objects.all():
        assert hashlib.sha256(file.file.read()).hexdigest() == file.sha256
    voice = Voice.objects.get()
    assert (str(voice.pk), voice.name, voice.reference_transcript) == (
        job["voice_id"], "Jane", "The birch canoe slid on the smooth planks."
    )  # fmt: skip
    consent = Consent.objects.get()
    assert (consent.statement, consent.voice_id) == (STATEMENT, voice.pk)
    assert not [path for path in leftovers() if "/scratch/" in path or "/uploads/" in path or path.endswith(".tar")]


def test_a_gpu_s_seconds_are_in_the_ledger_and_no_audio(train: Callable[..., Any], api: APIClient) -> None:
    done(api, train())
    entry = UsageEntry.objects.get()
    assert (entry.operation, entry.state, entry.audio_ms) == ("training", "settled", 0)
    assert entry.engine_ms > 0


def test_what_was_trained_is_its_tenants_alone(
    train: Callable[..., Any], api: APIClient, other: Tenant, engine: FakeEngine
) -> None:
    job = done(api, train())
    url = f"{MODELS_URL}/{job['model_id']}"
    listed = {model["id"]: model for model in api.get(MODELS_URL).json()["models"]}
    assert listed[job["model_id"]]["owned"] and listed[job["model_id"]]["voice_id"] == job["voice_id"]
    assert api.get(url).json()["id"] == job["model_id"]
    assert job["model_id"] not in {model["id"] for model in other.client.get(MODELS_URL).json()["models"]}
    assert other.client.get(url).status_code == 404
    assert other.client.delete(url).status_code == 404
    cover = {"reference_voice": upload(b"x"), "song": upload(b"x"), "model_id": job["model_id"]}
    refused = other.client.post("/api/v1/cover/jobs", cover).json()
    assert "There is no model" in refused["details"]["model_id"][0]
    assert other.client.get(job["links"]["self"]).status_code == 404


def test_the_voice_alone_speaks_with_its_model(
    train: Callable[..., Any], api: APIClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = done(api, train())
    engine.name = "gptsovits"
    monkeypatch.setattr(FakeEngine, "serves", lambda self, model, default, offers: True, raising=False)
    spoken = api.post("/api/v1/voice/synthesize", {"text": "Hello there.", "voice_id": job["voice_id"]})
    assert spoken.status_code == 200, spoken.content
    made = api.get(f"/api/v1/voice/syntheses/{spoken['X-Synthesis-ID']}").json()
    assert made["model_id"] == job["model_id"]
    asked = engine.requests[-1].model
    assert asked.gpt_weights.startswith("/engine/models/tuned-") and asked.gpt_weights.endswith(".ckpt")
    plain = api.post("/api/v1/voice/synthesize",
                     {"text": "Hello there.", "voice_id": job["voice_id"], "model_id": "default"})  # fmt: skip
    assert plain.status_code == 200
    assert engine.requests[-1].model is None


def test_weights_are_fetched_once_checked_and_let_go_when_there_are_too_many(
    train: Callable[..., Any], api: APIClient, settings: Any
) -> None:
    done(api, train())
    row = EngineModel.objects.get()
    model = row.as_model(on_server=False)
    model.fetch()
    assert Path(model.gpt_weights).read_bytes() == b"gpt " * 1000
    assert Path(model.sovits_weights).read_bytes() == b"sovits"
    file = row.files.get(kind="gpt_weights")
    default_storage.delete(file.file.name)
    model.fetch()  # It is here.
    Path(model.gpt_weights).unlink()
    with pytest.raises(Exception, match="gone"):
        model.fetch()
    default_storage.save(file.file.name, upload(b"something else"))
    with pytest.raises(Exception, match="damaged"):
        model.fetch()
    assert not Path(model.gpt_weights).exists()
    old = settings.MODEL_CACHE_DIR / "other-0123.pth"
    old.write_bytes(b"x" * 100)
    import os

    os.utime(old, (1, 1))
    settings.MODEL_CACHE_MAX_BYTES = 50
    Path(model.sovits_weights).unlink()
    weights.ensure([row.sovits_weights], row.files.all())
    assert [path.name for path in settings.MODEL_CACHE_DIR.iterdir() if path.suffix] == [row.sovits_weights]
    assert weights.forget(set(), 3600) == 1


def test_a_deleted_model_leaves_nothing(train: Callable[..., Any], api: APIClient) -> None:
    job = done(api, train())
    folder = EngineModel.objects.get().folder
    assert len(default_storage.listdir(folder)[1]) == 2
    assert api.delete(f"{MODELS_URL}/{job['model_id']}").status_code == 204
    assert not EngineModel.objects.exists() and not WeightsFile.objects.exists()
    assert not default_storage.exists(folder)
    assert Voice.objects.exists()


@pytest.mark.parametrize("how", ["delete", "take_down"])
def test_a_model_ends_with_its_voice(train: Callable[..., Any], api: APIClient, how: str) -> None:
    job = done(api, train())
    api.delete(job["links"]["self"])
    if how == "delete":
        assert api.delete(f"{VOICES_URL}/{job['voice_id']}").status_code == 204
    else:
        saved.take_down(Voice.objects.get().pk)
    assert not EngineModel.objects.exists()
    assert not default_storage.exists(f"models/{job['model_id']}")


def test_a_takedown_ends_a_training_before_its_voice_is_there(train: Callable[..., Any], api: APIClient) -> None:
    job = train().json()
    saved.take_down(Consent.objects.get().voice_id)
    assert api.get(job["links"]["self"]).json()["status"] == "canceled"
    assert api.post(job["links"]["self"] + "/retry", {}, format="json").json()["error"] == "revoked"
    assert not default_storage.exists(f"trainings/{job['training_id']}")


def test_weights_are_given_out_where_the_operator_allows_it(
    train: Callable[..., Any], api: APIClient, settings: Any
) -> None:
    job = done(api, train())
    url = f"{MODELS_URL}/{job['model_id']}/weights/sovits_weights"
    assert api.get(url).status_code == 403
    settings.TRAINING_WEIGHTS_DOWNLOAD = True
    assert b"".join(api.get(url).streaming_content) == b"sovits"
    assert api.get(f"{MODELS_URL}/{job['model_id']}/weights/voice_index").status_code == 404


def test_a_saved_voice_is_trained_on_its_own_samples(
    train: Callable[..., Any], api: APIClient, save: Callable[..., Any], spoken: Callable[..., bytes]
) -> None:
    voice = save(sample=upload(spoken(50.0))).json()
    api.post(f"{VOICES_URL}/{voice['voice_id']}/samples", {"sample": upload(spoken(40.0, 1))})
    job = done(api, train(name=None, recordings=None, consent=None, voice_id=voice["voice_id"]))
    assert (job["status"], job["name"], job["voice_id"]) == ("succeeded", "Jane", voice["voice_id"])
    assert Voice.objects.count() == 1 and Consent.objects.count() == 2
    assert registry.of_voice(Voice.objects.get().pk, Voice.objects.get().tenant_id, ["gpt_weights"]) == job["model_id"]


def test_rvc_leaves_a_voice_weights_and_an_index(
    train: Callable[..., Any], api: APIClient, train_habits: Callable[..., None]
) -> None:
    train_habits("unlike")
    job = done(api, train(engine="rvc", epochs="20"))
    assert job["status"] == "succeeded", job
    model = EngineModel.objects.get().as_model(on_server=False)
    model.fetch()
    assert Path(model.voice_weights).read_bytes() == b"voice" and Path(model.voice_index).read_bytes() == b"index"
    assert Voice.objects.get().reference_frames > 10 * Voice.objects.get().reference_rate


def test_a_failed_training_goes_on_after_its_last_checkpoint(
    train: Callable[..., Any], api: APIClient, train_habits: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    train_habits("exit=evaluate:11")
    job = done(api, train())
    assert (job["status"], job["stage"], job["error"]) == ("failed", "evaluate", "training_failed")
    assert "/opt/secret" not in str(job)
    row = Training.objects.get()
    assert row.prepared and row.trained and not row.evaluated
    train_habits()
    again = api.post(job["links"]["retry"], {}, format="json")
    assert again.status_code == 202
    finished = done(api, again)
    assert finished["status"] == "succeeded"
    second = [mark["stage"] for mark in Training.objects.get().marks if mark["attempt"] == 2]
    assert "check" not in second and "slice" not in second


def test_a_training_of_a_lost_worker_goes_on_elsewhere_after_its_checkpoint(
    train: Callable[..., Any], api: APIClient, train_habits: Callable[..., None], settings: Any
) -> None:
    train_habits("exit=evaluate:11")
    job = done(api, train())
    stale = timezone.now() - timedelta(minutes=5)
    Training.objects.update(status="running", worker="lost:1:x", host="lost", heartbeat_at=stale, finished_at=None)
    assert Training.recover(30, 3) == 1
    train_habits()
    settings.WORKER_HOST = "another"
    work()
    assert api.get(job["links"]["self"]).json()["status"] == "succeeded"
    second = [mark["stage"] for mark in Training.objects.get().marks if mark["attempt"] == 2]
    assert second[0] == "claimed" and not {"check", "slice", "features"} & set(second)


def test_a_retry_from_a_stage_keeps_what_was_before_it(
    train: Callable[..., Any], api: APIClient, train_habits: Callable[..., None]
) -> None:
    train_habits("exit=publish:6")
    job = done(api, train())
    assert Training.objects.get().evaluated
    wrong = api.post(job["links"]["retry"], {"stage": "index"}, format="json")
    assert "train_gpt" in wrong.json()["details"]["stage"][0]
    api.post(job["links"]["retry"], {"stage": "train_sovits"}, format="json")
    row = Training.objects.get()
    assert row.prepared and not row.trained and not row.evaluated
    train_habits()
    work()
    assert Training.objects.get().status == "succeeded"


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (15, "dataset_refused", "Two people speak."),
        (16, "not_better", "nothing is kept"),
        (7, "out_of_memory", "smaller batch"),
        (9, "training_failed", "not installed"),
        (17, "training_failed", "no numbers"),
        (18, "storage_full", "storage is full"),
        (1, "training_failed", "broke off"),
    ],
)
def test_each_way_to_fail_is_told_in_its_own_words(
    train: Callable[..., Any], api: APIClient, train_habits: Callable[..., None], code: int, error: str, words: str,
    spoken: Callable[..., bytes],
) -> None:  # fmt: skip
    train_habits(f"exit=check:{code}")
    recordings = [upload(spoken(40.0, number), f"take {number}.wav") for number in (1, 2)]
    job = done(api, train(recordings=recordings))
    assert (job["status"], job["error"]) == ("failed", error)
    assert words in job["error_message"]
    assert job["report"]["problems"] == [{"code": "speakers", "message": "Two people speak.", "file": "take 2"}]
    assert UsageEntry.objects.get().state == "refunded"


def test_what_each_checkpoint_scored_is_told_where_none_was_good_enough(
    train: Callable[..., Any], api: APIClient, train_habits: Callable[..., None]
) -> None:
    train_habits("exit=evaluate:16")
    job = done(api, train())
    assert (job["error"], job["evaluation"]) == ("not_better", [{"gpt_epoch": 15, "out": "it failed to speak"}])


def test_a_lost_gpu_puts_the_job_back_until_its_attempts_are_over(
    train: Callable[..., Any], api: APIClient, train_habits: Callable[..., None], settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings.TRAINING_MAX_ATTEMPTS = 2
    monkeypatch.setattr(tasks, "GPU_REST_SECONDS", 0.0)
    train_habits("exit=train_sovits:8")
    job = done(api, train())
    assert (job["status"], job["error"], job["attempts"]) == ("failed", "training_failed", 2)
    assert "GPU was lost" in job["error_message"]


def test_a_host_that_lost_its_gpu_leaves_the_job_to_another(
    train: Callable[..., Any], api: APIClient, train_habits: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    train_habits("exit=train_gpt:8")
    job = done(api, train())
    assert (job["status"], job["attempts"]) == ("queued", 1)
    work()  # It rests, whatever calls it.
    assert not tasks.has_room() and Training.objects.get().attempt == 1
    train_habits()
    monkeypatch.setattr(tasks, "_rests_until", 0.0)  # as in the process of another host
    work()
    job = api.get(job["links"]["self"]).json()
    assert (job["status"], job["attempts"]) == ("succeeded", 2)
    assert stages(job).count("features") == 1  # which the first host had stored


def test_a_checkpoint_is_stored_while_it_trains_and_a_stopped_worker_hands_it_back(
    train: Callable[..., Any], api: APIClient, train_habits: Callable[..., None], settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("voices.training.checkpoints.SETTLED_SECONDS", 0.2)
    settings.TRAINING_CHECKPOINT_SECONDS = 0.5
    train_habits("hang=train_gpt")
    job = train().json()
    thread = in_thread(work)
    until(lambda: bool(Training.objects.get().trained) and Training.objects.get().stage == "train_gpt", 60)
    this_worker.stopping.set()
    thread.join(20)
    row = Training.objects.get()
    assert (row.status, row.attempt) == ("queued", 0)
    this_worker.stopping.clear()
    settings.TRAINING_CHECKPOINT_SECONDS = 600
    train_habits()
    work()
    assert api.get(job["links"]["self"]).json()["status"] == "succeeded"
    assert "check" not in [mark["stage"] for mark in Training.objects.get().marks[-6:]]


@pytest.mark.parametrize("stage", ["slice", "train_sovits", "evaluate", "publish"])
def test_a_cancel_in_any_stage_ends_the_command_and_keeps_no_checkpoint(
    train: Callable[..., Any], api: APIClient, train_habits: Callable[..., None], stage: str
) -> None:
    train_habits(f"hang={stage}")
    job = train().json()
    thread = in_thread(work)
    until(lambda: Training.objects.get().stage == stage, 60)
    assert api.post(job["links"]["self"] + "/cancel").json()["status"] == "canceled"
    thread.join(20)
    row = Training.objects.get()
    assert (row.status, row.checkpoint) == ("canceled", "")
    assert not EngineModel.objects.exists()
    assert row.recordings.count() == 1 and row.input_bytes > 0
    assert UsageEntry.objects.get().engine_ms > 0
    assert not list(Path(django_settings.SCRATCH_DIR).iterdir())


def test_a_tenant_over_its_quota_in_the_middle_loses_no_training(
    train: Callable[..., Any], api: APIClient, tenant: Tenant
) -> None:
    from voiceproject.tenants.models import Tenant as TenantRow

    response = train()
    TenantRow.objects.update_or_create(user=tenant.user, defaults={"max_storage_bytes": 1})
    job = done(api, response)
    assert (job["status"], job["error"]) == ("failed", "storage_full")
    assert "are allowed" in job["error_message"]
    assert not EngineModel.objects.exists() and not Voice.objects.exists()
    assert not default_storage.exists("models") or not default_storage.listdir("models")[0]
    TenantRow.objects.update(max_storage_bytes=None)
    assert done(api, api.post(job["links"]["retry"], {}, format="json"))["status"] == "succeeded"


def test_checkpoints_of_a_failed_training_and_weights_count_as_storage(
    train: Callable[..., Any], api: APIClient, tenant: Tenant, train_habits: Callable[..., None]
) -> None:
    train_habits("exit=evaluate:11")
    job = done(api, train())
    row = Training.objects.get()
    kept = default_storage.size(row.prepared.name) + default_storage.size(row.trained.name)
    assert row.output_bytes == kept > 4000
    assert usage.storage_bytes(tenant.user.pk) == row.input_bytes + kept
    # Queued again they are its working space, and what a stage has made goes when that is done anew.
    api.post(job["links"]["retry"], {"stage": "train_sovits"}, format="json")
    row.refresh_from_db()
    assert row.output_bytes == default_storage.size(row.prepared.name)
    assert usage.storage_bytes(tenant.user.pk) == row.input_bytes
    train_habits()
    work()
    row.refresh_from_db()
    weights_bytes = sum(file.bytes for file in WeightsFile.objects.all())
    assert (row.status, row.output_bytes, weights_bytes) == ("succeeded", 0, 4006)
    assert usage.storage_bytes(tenant.user.pk) == row.input_bytes + weights_bytes + Voice.held_bytes(tenant.user.pk)


def test_recordings_go_with_their_time_and_the_model_stays(train: Callable[..., Any], api: APIClient) -> None:
    job = done(api, train())
    Training.objects.update(expires_at="2020-01-01T00:00:00Z")
    assert Training.expire() == 1
    row = Training.objects.get()
    assert not row.recordings.exists() and row.input_bytes == 0
    assert not default_storage.exists(row.folder)
    assert EngineModel.objects.filter(model_id=job["model_id"]).exists()


def test_the_folders_of_trainings_and_syntheses_are_swept_apart(train: Callable[..., Any], api: APIClient) -> None:
    train()
    from voices.speech.models import Synthesis

    Synthesis.sweep_orphans(0)
    Training.sweep_orphans(0)
    assert default_storage.exists(f"trainings/{Training.objects.get().pk}/0-recording-0000")


def test_a_host_that_trains_nothing_takes_none(train: Callable[..., Any], settings: Any) -> None:
    settings.TRAINING_CONCURRENCY = 0
    train()
    work()
    assert Training.objects.get().status == "queued"


def test_events_tell_each_stage(train: Callable[..., Any], api: APIClient) -> None:
    job = train().json()
    thread = threading.Thread(target=work)
    response = api.get(job["links"]["self"] + "/events")
    thread.start()
    told = b"".join(response.streaming_content).decode()
    thread.join()
    assert '"stage": "publish"' in told.replace('":"', '": "') and '"succeeded"' in told


def test_a_server_without_a_command_trains_nothing(train: Callable[..., Any], settings: Any) -> None:
    settings.TRAINING_GPTSOVITS_CMD_TEMPLATE = settings.TRAINING_RVC_CMD_TEMPLATE = ""
    response = train()
    assert (response.status_code, response.json()["error"]) == (503, "not_configured")


def test_the_same_request_with_the_same_key_makes_one_training(
    train: Callable[..., Any], api: APIClient, tenant: Tenant
) -> None:
    client = APIClient(headers={"X-API-Key": tenant.secret, "Idempotency-Key": "once"})
    first, second = train(client), train(client)
    assert first.json()["training_id"] == second.json()["training_id"]
    assert second["Idempotency-Replayed"] == "true"
    assert Training.objects.count() == 1 and Consent.objects.count() == 1
    assert default_storage.listdir("trainings")[0] == [first.json()["training_id"]]


def test_what_is_wrong_with_a_request_is_told_by_its_field(
    train: Callable[..., Any], other: Tenant, save: Callable[..., Any], spoken: Callable[..., bytes]
) -> None:
    def errors(**fields: Any) -> dict[str, Any]:
        response = train(**fields)
        assert response.status_code == 400, response.content
        return response.json()["details"]

    assert errors(name=None) == {"name": ["Name the voice."]}
    assert "agreed" in errors(consent=None)["consent"][0]
    assert "sentence" in errors(consent="yes")["consent"][0]
    assert "recordings" in errors(recordings=None, consent=None)
    assert "rvc" in errors(engine="rvc", gpt_epochs="5")["gpt_epochs"][0]
    assert "v2Pro" in errors(base="v2")["base"][0]
    assert "gpt_epochs" in errors(gpt_epochs="0")
    assert "batch" in errors(batch="0")
    assert "Did you mean" in errors(epoch="3")["epoch"][0]
    text = upload(b"Hello there.", "another.txt", "text/plain")
    assert "None is of a recording" in errors(transcripts=[text])["transcripts"][0]
    strangers = save(_client=other.client, sample=upload(spoken(10.0))).json()["voice_id"]
    assert train(voice_id=strangers).status_code == 404
    assert not Training.objects.exists()


def test_transcripts_are_found_by_their_recordings_and_the_same_file_counts_once(
    train: Callable[..., Any], api: APIClient, spoken: Callable[..., bytes]
) -> None:
    recordings = [upload(spoken(10.0, number), f"Take {number}.wav") for number in range(3)]
    listed = "D:\\data\\take 0.wav|jane|en|Said in the first.\n/x/take 1.wav|jane|en|Said in the second."
    texts = [
        upload(listed.encode(), "all.list", "text/plain"),
        upload(b"Said in the third.", "take 2.txt", "text/plain"),
        upload(b"Of nothing.", "take 9.txt", "text/plain"),
    ]
    response = train(recordings=[*recordings, upload(spoken(10.0, 2), "copy.wav")], transcripts=texts)
    assert response.status_code == 202, response.content
    told = {warning["code"]: warning["message"] for warning in response.json()["warnings"]}
    assert "copy is the same file as Take 2" in told["duplicate"] and "take 9" in told["transcript_unused"]
    assert dict(Training.objects.get().recordings.values_list("name", "transcript")) == {
        "Take 0": "Said in the first.", "Take 1": "Said in the second.", "Take 2": "Said in the third.",
    }  # fmt: skip


def test_more_files_than_other_forms_may_have_are_taken(
    train: Callable[..., Any], spoken: Callable[..., bytes], settings: Any
) -> None:
    recordings = [upload(spoken(2.0, number), f"{number}.wav") for number in range(12)]
    assert train(recordings=recordings).status_code == 202
    settings.TRAINING_MAX_FILES = 11
    assert "at most 11" in train(recordings=[upload(spoken(2.0, n), f"{n}.wav") for n in range(12)]).json()["message"]


def test_an_export_has_the_recordings_and_an_erasure_leaves_nothing(
    train: Callable[..., Any], api: APIClient, tenant: Tenant, settings: Any
) -> None:
    import io
    import time
    import zipfile

    from voices.account import personal_data

    done(api, train())

    def names() -> list[str]:
        with zipfile.ZipFile(io.BytesIO(b"".join(personal_data.archive(tenant.user)))) as file:
            return file.namelist()

    assert any("0-recording-0000" in name for name in names()) and not any("sovits" in name for name in names())
    settings.TRAINING_WEIGHTS_DOWNLOAD = True
    assert any(name.endswith("-sovits.pth") for name in names())
    personal_data.request_erasure(tenant.user)
    assert personal_data.erase(tenant.user, time.monotonic() + 30)
    assert not EngineModel.objects.exists() and not Training.objects.exists()
    for folder in ("models", "trainings"):
        assert not default_storage.exists(folder) or default_storage.listdir(folder) == ([], [])


def test_a_list_is_filtered_and_a_training_is_deleted_with_its_recordings(
    train: Callable[..., Any], api: APIClient
) -> None:
    job = done(api, train())
    assert [one["training_id"] for one in api.get("/api/v1/voice/trainings?status=succeeded").json()["results"]] == [
        job["training_id"]
    ]
    assert api.delete(job["links"]["self"]).status_code == 204
    assert not default_storage.exists(f"trainings/{job['training_id']}")
    assert EngineModel.objects.exists()
