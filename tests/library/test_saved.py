"""Saved voices: their life over the API, what engines get of them, and their end by tenant or operator."""

from __future__ import annotations

import hashlib
import io
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from covers import tasks as cover_tasks
from covers.models import CoverJob
from tests.fakes.engine import FakeEngine
from tests.support.audio import speech_like, upload, wav_bytes
from tests.support.covers import QUICK, RATE, song
from tests.support.tenants import Tenant
from tests.support.voices import STATEMENT, URL
from voiceproject.tenants.models import AuditEntry
from voices.library import consents, saved, selection
from voices.library.models import Consent, EngineData, Voice, VoiceSample
from voices.speech import tasks as synthesis_tasks
from voices.speech.models import Synthesis

pytestmark = pytest.mark.django_db(transaction=True)
SYNTHESIZE = "/api/v1/voice/synthesize"
COVERS = "/api/v1/cover/jobs"


@pytest.fixture
def voice_id(save: Callable[..., Any]) -> str:
    return str(save().json()["voice_id"])


def heard(response: Any) -> tuple[np.ndarray, int]:
    assert response.status_code == 200, response.content
    return sf.read(io.BytesIO(b"".join(response.streaming_content)), dtype="float32")


class TestLife:
    def test_a_voice_is_saved_with_its_quality_and_the_consent(
        self, save: Callable[..., Any], tenant: Tenant, reference_wav: bytes
    ) -> None:
        response = save(description="A guest", language="en", transcript="What she said.")
        assert response.status_code == 201, response.content
        body = response.json()
        assert response["Location"] == body["links"]["self"]
        assert (body["name"], body["description"], body["language"]) == ("Jane", "A guest", "en")
        assert body["transcript"] == body["samples"][0]["transcript"] == "What she said."
        assert body["quality"]["sample_rate"] == 16_000
        assert body["quality"]["duration_seconds"] == pytest.approx(4.0, abs=0.1)
        assert any("s of speech" in text for text in body["quality"]["warnings"])
        consent = Consent.objects.get()
        assert (consent.tenant, consent.statement, str(consent.voice_id)) == (tenant.user, STATEMENT, body["voice_id"])
        assert consent.sample_hash == hashlib.sha256(reference_wav).hexdigest()
        assert (consent.address, consent.key_prefix) == ("127.0.0.1", tenant.key.prefix)
        assert consent.request_id == response["X-Request-ID"]
        assert tenant.client.get(body["links"]["self"]).json() == body
        assert tenant.client.get(URL).json()["results"] == [body]

    def test_the_sample_is_trimmed_and_brought_to_a_level_once(self, save: Callable[..., Any], api: APIClient) -> None:
        quiet = np.concatenate([np.zeros(32_000), 0.02 * speech_like(5.0), np.zeros(48_000)]).astype(np.float32)
        body = save(sample=upload(wav_bytes(np.stack([quiet, quiet], axis=1), 16_000, "FLOAT"))).json()
        samples, rate = heard(api.get(body["links"]["sample"]))
        assert samples.ndim == 1
        assert len(samples) / rate == pytest.approx(5.2, abs=0.3)
        assert 0.06 < np.sqrt(np.mean(samples**2)) < 0.14
        assert body["samples"][0]["duration_seconds"] == pytest.approx(len(samples) / rate, abs=0.01)

    def test_three_seconds_are_left_of_an_upload_that_had_them(self, save: Callable[..., Any], api: APIClient) -> None:
        short = np.concatenate([np.zeros(16_000), speech_like(1.5), np.zeros(16_000)]).astype(np.float32)
        samples, rate = heard(api.get(save(sample=upload(wav_bytes(short, 16_000))).json()["links"]["sample"]))
        assert len(samples) / rate == pytest.approx(3.0, abs=0.01)

    @pytest.mark.parametrize("statement", [None, "", "yes", "I agree", "aaaaaaaaaaaaaaaaaaaaaa", "1234 5678 !"])
    def test_no_voice_is_saved_without_a_statement(
        self, save: Callable[..., Any], leftovers: Callable[[], list[str]], statement: str | None
    ) -> None:
        response = save(consent=statement)
        assert (response.status_code, list(response.json()["details"])) == (400, ["consent"])
        assert not Voice.objects.exists()
        assert leftovers() == []

    @pytest.mark.parametrize("statement", ["说话人同意克隆其声音", "The speaker agreed to this."])
    def test_a_sentence_of_any_script_is_a_statement(self, statement: str) -> None:
        assert consents.is_statement(statement)

    def test_noise_is_no_voice(self, save: Callable[..., Any], leftovers: Callable[[], list[str]]) -> None:
        hiss = 0.1 * np.random.default_rng(0).standard_normal(64_000)
        response = save(sample=upload(wav_bytes(hiss.astype(np.float32), 16_000)))
        assert (response.json()["error"], response.json()["details"]["reason"]) == ("invalid_audio", "no_voice")
        assert leftovers() == []
        assert not Consent.objects.exists()

    def test_what_is_said_of_a_voice_can_be_changed(self, api: APIClient, voice_id: str) -> None:
        response = api.patch(f"{URL}/{voice_id}", {"name": "Janet", "transcript": "Hello.", "language": "en"})
        assert response.status_code == 200, response.content
        body = api.get(f"{URL}/{voice_id}").json()
        assert (body["name"], body["transcript"], body["language"]) == ("Janet", "Hello.", "en")
        assert body["description"] == ""
        assert api.patch(f"{URL}/{voice_id}", {"consent": "Another statement of consent."}).status_code == 400

    def test_a_deleted_voice_leaves_its_consent_alone(
        self, api: APIClient, voice_id: str, leftovers: Callable[[], list[str]]
    ) -> None:
        assert api.delete(f"{URL}/{voice_id}").status_code == 204
        assert leftovers() == []
        entry = AuditEntry.objects.get(action="voice.delete")
        assert (entry.target_id, entry.actor_name, entry.address) == (voice_id, "alice", "127.0.0.1")
        assert entry.key_prefix and api.get(f"{URL}/{voice_id}").status_code == 404
        assert str(Consent.objects.get().voice_id) == voice_id
        for change in (Consent.objects.get().save, Consent.objects.get().delete, Consent.objects.all().delete):
            with pytest.raises(TypeError):
                change()
        with pytest.raises(TypeError):
            Consent.objects.update(statement="")
        User.objects.all().delete()
        assert Consent.objects.get().tenant_name == "alice"

    def test_the_quality_of_a_recording_is_told_and_nothing_kept(
        self, api: APIClient, leftovers: Callable[[], list[str]], reference_wav: bytes
    ) -> None:
        response = api.post("/api/v1/voice/quality", {"sample": upload(reference_wav)})
        assert response.status_code == 200
        assert response.json()["sample_rate"] == 16_000
        assert leftovers() == []

    def test_only_a_key_for_voices_manages_them(self, voice_id: str, tenant: Tenant) -> None:
        user = tenant.user
        speaker = Tenant("carol", scopes=["synthesize"])
        type(speaker.key).objects.filter(pk=speaker.key.pk).update(user=user)
        for method, path in (("get", ""), ("post", ""), ("get", f"/{voice_id}"), ("delete", f"/{voice_id}")):
            response = getattr(speaker.client, method)(URL + path)
            assert (response.status_code, response.json()["details"]) == (403, {"scope": "voices"})
        spoken = speaker.client.post(SYNTHESIZE, {"text": "Hello.", "voice_id": voice_id}, format="json")
        assert spoken.status_code == 200

    def test_a_strangers_voice_is_not_there(self, voice_id: str, other: Tenant) -> None:
        sample = VoiceSample.objects.get()
        for method, path in (
            ("get", ""), ("patch", ""), ("delete", ""), ("get", "/sample"), ("post", "/samples"),
            ("delete", f"/samples/{sample.pk}"),
        ):  # fmt: skip
            assert getattr(other.client, method)(f"{URL}/{voice_id}{path}").status_code == 404
        response = other.client.post(SYNTHESIZE, {"text": "Hello.", "voice_id": voice_id})
        assert (response.status_code, response.json()["error"]) == (404, "not_found")
        form = {"voice_id": voice_id, "song": upload(wav_bytes(song(), RATE))}
        assert other.client.post(COVERS, form).status_code == 404
        assert Voice.objects.count() == 1
        assert not CoverJob.objects.exists()


class TestSamples:
    def test_samples_of_several_rates_make_one_reference(self, api: APIClient, voice_id: str) -> None:
        second = upload(wav_bytes(speech_like(5.0, 24_000), 24_000))
        response = api.post(f"{URL}/{voice_id}/samples", {"sample": second, "transcript": "More."})
        assert response.status_code == 201, response.content
        body = api.get(f"{URL}/{voice_id}").json()
        assert [sample["transcript"] for sample in body["samples"]] == ["", "More."]
        assert body["transcript"] == ""  # Not known of the whole.
        assert body["quality"]["duration_seconds"] == pytest.approx(9.0, abs=0.2)
        samples, rate = heard(api.get(f"{URL}/{voice_id}/sample"))
        assert (rate, len(samples) / rate) == (24_000, pytest.approx(9.3, abs=0.2))
        assert [consent.statement for consent in Consent.objects.all()] == [STATEMENT, STATEMENT]

        first = body["samples"][0]["sample_id"]
        assert api.delete(f"{URL}/{voice_id}/samples/{first}").status_code == 204
        body = api.get(f"{URL}/{voice_id}").json()
        assert body["transcript"] == "More."
        last = api.delete(f"{URL}/{voice_id}/samples/{body['samples'][0]['sample_id']}")
        assert (last.status_code, last.json()["error"]) == (409, "conflict")
        assert len(default_storage.listdir(f"saved-voices/{voice_id}")[1]) == 2  # a sample and the reference

    def test_of_more_than_a_minute_each_sample_gives_its_share(self, save: Callable[..., Any], api: APIClient) -> None:
        long = wav_bytes(speech_like(50.0, 8000), 8000)
        voice_id = save(sample=upload(long), transcript="One.").json()["voice_id"]
        assert api.post(f"{URL}/{voice_id}/samples", {"sample": upload(long), "transcript": "Two."}).status_code == 201
        samples, rate = heard(api.get(f"{URL}/{voice_id}/sample"))
        assert 50 < len(samples) / rate <= 60.01
        assert api.get(f"{URL}/{voice_id}").json()["transcript"] == ""

    def test_there_are_ten_at_most(self, api: APIClient, voice_id: str, reference_wav: bytes) -> None:
        voice = Voice.objects.get()
        sample = voice.samples.get()
        VoiceSample.objects.bulk_create(
            VoiceSample(voice=voice, audio=sample.audio, duration_seconds=4, sample_rate=16_000) for _ in range(9)
        )
        response = api.post(f"{URL}/{voice_id}/samples", {"sample": upload(reference_wav)})
        assert (response.status_code, response.json()["error"]) == (409, "conflict")
        assert Consent.objects.count() == 1
        assert len(default_storage.listdir(f"saved-voices/{voice_id}")[1]) == 2


class TestUse:
    def test_a_synthesis_takes_a_voice_as_form_and_as_json(
        self, save: Callable[..., Any], api: APIClient, engine: FakeEngine
    ) -> None:
        voice_id = save(transcript="What she said.", language="en").json()["voice_id"]
        for format in ("multipart", "json"):
            response = api.post(SYNTHESIZE, {"text": "Hello there.", "voice_id": voice_id}, format=format)
            assert response.status_code == 200, response.content
        own, _ = heard(api.get(f"{URL}/{voice_id}/sample"))
        for request in engine.requests:
            assert np.array_equal(request.reference.samples, own)
            assert request.reference.duration_seconds == len(own) / 16_000
            assert (request.reference.transcript, request.reference.language) == ("What she said.", "en")
        assert engine.requests[0].reference.content_hash == engine.requests[1].reference.content_hash
        listed = api.get("/api/v1/voice/syntheses", {"voice_id": voice_id}).json()["results"]
        assert [job["voice_id"] for job in listed] == [voice_id, voice_id]
        assert api.get("/api/v1/voice/syntheses", {"voice_id": str(uuid.uuid4())}).json()["results"] == []

    def test_a_transcript_of_the_clients_own_wins(self, api: APIClient, engine: FakeEngine, voice_id: str) -> None:
        fields = {"text": "Hello.", "voice_id": voice_id, "reference_text": "Mine.", "reference_language": "ja"}
        api.post(SYNTHESIZE, fields)
        assert (engine.requests[0].reference.transcript, engine.requests[0].reference.language) == ("Mine.", "ja")

    def test_a_stream_takes_a_voice(self, api: APIClient, voice_id: str) -> None:
        response = api.post(SYNTHESIZE, {"text": "Hello. And more.", "voice_id": voice_id, "stream": True}, "json")
        assert response.status_code == 200
        assert len(b"".join(response.streaming_content)) > 10_000

    @pytest.mark.parametrize("both", [True, False])
    def test_a_reference_and_a_voice_exclude_each_other(
        self, api: APIClient, voice_id: str, reference_wav: bytes, both: bool
    ) -> None:
        fields = {"reference_audio": upload(reference_wav), "voice_id": voice_id} if both else {}
        response = api.post(SYNTHESIZE, {"text": "Hello.", **fields})
        named = "voice_id" if both else "reference_audio"
        assert (response.status_code, list(response.json()["details"])) == (400, [named])

    def test_a_job_that_waits_has_a_copy_of_a_voice_that_is_deleted(
        self, api: APIClient, engine: FakeEngine, voice_id: str
    ) -> None:
        own, _ = heard(api.get(f"{URL}/{voice_id}/sample"))
        fields = {"text": "Hello there.", "voice_id": voice_id}
        job = api.post(SYNTHESIZE, fields, headers={"Prefer": "respond-async"}).json()
        assert job["voice_id"] == voice_id
        assert api.delete(f"{URL}/{voice_id}").status_code == 204
        synthesis_tasks.run_syntheses.fn()
        assert api.get(job["links"]["self"]).json()["status"] == "succeeded"
        assert np.array_equal(engine.requests[0].reference.samples, own)

    def test_an_idempotency_key_covers_the_voice(self, api: APIClient, save: Callable[..., Any], voice_id: str) -> None:
        another = save(name="Joe").json()["voice_id"]
        headers = {"Prefer": "respond-async", "Idempotency-Key": "k1"}
        first = api.post(SYNTHESIZE, {"text": "Hello.", "voice_id": voice_id}, headers=headers)
        again = api.post(SYNTHESIZE, {"text": "Hello.", "voice_id": voice_id}, headers=headers)
        assert first.json()["job_id"] == again.json()["job_id"]
        other = api.post(SYNTHESIZE, {"text": "Hello.", "voice_id": another}, headers=headers)
        assert (other.status_code, other.json()["error"]) == (422, "idempotency_key_reused")

    @pytest.mark.parametrize(
        ("samples", "chosen", "transcript"),
        [
            ([(8.0, "Eight.")], 8.0, "Eight."),
            ([(12.0, "Twelve.")], 12.0, None),
            ([(12.0, "Twelve."), (7.0, "Seven."), (5.0, "Five.")], 7.0, "Seven."),
        ],
    )
    def test_gpt_sovits_gets_a_transcript_of_ten_seconds_at_most(
        self, save: Callable[..., Any], api: APIClient, samples: list[tuple[float, str]], chosen: float,
        transcript: str | None,
    ) -> None:  # fmt: skip
        (seconds, text), *more = samples
        voice_id = save(sample=upload(wav_bytes(speech_like(seconds), 16_000)), transcript=text).json()["voice_id"]
        for seconds, text in more:
            form = {"sample": upload(wav_bytes(speech_like(seconds), 16_000)), "transcript": text}
            assert api.post(f"{URL}/{voice_id}/samples", form).status_code == 201

        class Sovits(FakeEngine):
            name = "gptsovits"
            max_reference_seconds = 10.0

        reference = selection.choose(Voice.objects.get(), Sovits()).reference
        assert reference.transcript == transcript
        assert reference.duration_seconds == pytest.approx(chosen, abs=0.3)
        assert len(reference.samples) / reference.sample_rate == pytest.approx(reference.duration_seconds, abs=1e-3)

    def test_what_an_engine_has_computed_is_kept_once_and_goes_with_its_sample(
        self, api: APIClient, engine: FakeEngine, voice_id: str, reference_wav: bytes
    ) -> None:
        api.post(SYNTHESIZE, {"text": "Hello.", "voice_id": voice_id})
        kept = engine.requests[0].reference.kept
        assert kept.load("builtin", "en") is None
        kept.store("builtin", "en", b"one")
        kept.store("builtin", "en", b"two")
        kept.store("builtin", "ja", b"three")
        assert [kept.load("builtin", language) for language in ("en", "ja", "zh")] == [b"two", b"three", None]
        assert len(default_storage.listdir(f"saved-voices/{voice_id}")[1]) == 4
        api.post(f"{URL}/{voice_id}/samples", {"sample": upload(reference_wav)})
        assert not EngineData.objects.exists()
        api.post(SYNTHESIZE, {"text": "Hello.", "voice_id": voice_id})
        assert engine.requests[1].reference.kept.load("builtin", "en") is None
        api.delete(f"{URL}/{voice_id}")
        engine.requests[1].reference.kept.store("builtin", "en", b"late")
        assert not default_storage.exists(f"saved-voices/{voice_id}") or not any(
            default_storage.listdir(f"saved-voices/{voice_id}")[1]
        )

    def test_a_folder_that_no_voice_has_is_swept(self, voice_id: str) -> None:
        Voice.objects.all().delete()
        assert saved.sweep_orphans(3600) == 0
        assert saved.sweep_orphans(0) == 1
        assert default_storage.listdir("saved-voices")[0] == []


class TestTakedown:
    @pytest.fixture
    def cover(self, settings: Any, api: APIClient, voice_id: str) -> Callable[[], Any]:
        from covers import commands

        quick = f"{{python_exec}} {QUICK}"
        settings.COVER_SEPARATE_CMD_TEMPLATE = f"{quick} separate {{song_input}} {{vocal_output}} {{inst_output}}"
        settings.COVER_INFER_CMD_TEMPLATE = f"{quick} infer {{input_vocal}} {{output_vocal}}"
        commands.template.cache_clear()

        def send() -> Any:
            form = {"voice_id": voice_id, "song": upload(wav_bytes(song(), RATE), "song.wav")}
            response = api.post(COVERS, form)
            assert response.status_code == 202, response.content
            return response.json()

        return send

    def test_it_cancels_jobs_revokes_outputs_and_ends_the_voice(
        self, api: APIClient, cover: Callable[[], Any], voice_id: str, leftovers: Callable[[], list[str]]
    ) -> None:
        spoken = api.post(SYNTHESIZE, {"text": "Hello.", "voice_id": voice_id})["X-Synthesis-ID"]
        done = cover()
        cover_tasks.run_covers.fn()
        assert api.get(done["links"]["self"]).json()["status"] == "succeeded"
        remix = api.post(f"{COVERS}/{done['job_id']}/remix", {"vocal_gain_db": 1}, "json").json()
        waiting = cover()
        queued = api.post(
            SYNTHESIZE, {"text": "Hello.", "voice_id": voice_id}, headers={"Prefer": "respond-async"}
        ).json()
        running = Synthesis.objects.create(
            tenant=User.objects.get(username="alice"), status="running", attempt=1, voice_id=voice_id, text="Hello."
        )

        assert saved.take_down(uuid.UUID(voice_id)) == 6
        assert saved.take_down(uuid.UUID(voice_id)) == 0

        gone = [f"/api/v1/voice/syntheses/{spoken}/audio", f"/api/v1/voice/syntheses/{queued['job_id']}/audio",
                f"{COVERS}/{done['job_id']}/result", f"{COVERS}/{done['job_id']}/result?format=mp3",
                f"{COVERS}/{done['job_id']}/stems/converted", f"{COVERS}/{done['job_id']}/stems/vocals",
                f"{COVERS}/{remix['job_id']}/result", f"{COVERS}/{waiting['job_id']}/result",
                f"{URL}/{voice_id}/sample"]  # fmt: skip
        for url in gone:
            response = api.get(url)
            assert (url, response.status_code, response.json()["error"]) == (url, 410, "revoked")
        for job in (waiting, queued, remix):
            assert api.get(job["links"]["self"]).json()["status"] == "canceled"
        for url in (f"{COVERS}/{done['job_id']}/remix", f"{COVERS}/{waiting['job_id']}/retry",
                    f"/api/v1/voice/syntheses/{queued['job_id']}/retry"):  # fmt: skip
            assert api.post(url, {}, "json").json()["error"] == "revoked"
        running.refresh_from_db()
        assert (running.status, running.succeed(24)) == ("canceled", False)
        left = {Path(name).name.split("-")[0] for name in leftovers()}
        assert left == {"sample", "reference"}  # The voice's own stay for the operator.

        for url, form in ((SYNTHESIZE, {"text": "Hello."}), (COVERS, {"song": upload(wav_bytes(song(), RATE))})):
            response = api.post(url, {**form, "voice_id": voice_id})
            assert (response.status_code, response.json()["error"]) == (410, "revoked")
        assert api.patch(f"{URL}/{voice_id}", {"name": "x"}).status_code == 410
        assert api.get(f"{URL}/{voice_id}").json()["taken_down_at"]
        assert Consent.objects.count() == 1
        entry = AuditEntry.objects.filter(action="voice.takedown").last()
        assert (entry.target_type, entry.target_id) == ("voice", voice_id)

    def test_who_submits_while_it_happens_is_refused(
        self, api: APIClient, voice_id: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, asked = selection.check_still_there, []

        def taken_down_first(job: Any) -> None:
            asked.append(job)
            Voice.objects.update(taken_down_at=job.created_at)
            real(job)

        monkeypatch.setattr(selection, "check_still_there", taken_down_first)
        for headers in ({}, {"Prefer": "respond-async"}):
            Voice.objects.update(taken_down_at=None)
            response = api.post(SYNTHESIZE, {"text": "Hello.", "voice_id": voice_id}, headers=headers)
            assert (response.status_code, response.json()["error"]) == (410, "revoked")
        assert len(asked) == 2
        assert set(Synthesis.objects.values_list("status", flat=True)) == {"canceled"}

    def test_the_workers_sweep_ends_what_a_takedown_has_left(self, api: APIClient, voice_id: str) -> None:
        spoken = api.post(SYNTHESIZE, {"text": "Hello.", "voice_id": voice_id})["X-Synthesis-ID"]
        Voice.objects.update(taken_down_at=Voice.objects.get().created_at)
        assert saved.finish_takedowns() == 1
        assert api.get(f"/api/v1/voice/syntheses/{spoken}/audio").json()["error"] == "revoked"

    @pytest.mark.parametrize("page", ["voice", "consent"])
    def test_an_operator_takes_a_voice_down_and_is_remembered(self, api: APIClient, voice_id: str, page: str) -> None:
        spoken = api.post(SYNTHESIZE, {"text": "Hello.", "voice_id": voice_id})["X-Synthesis-ID"]
        root = User.objects.create_superuser("root")
        client = Client()
        client.force_login(root)
        if page == "consent":
            api.delete(f"{URL}/{voice_id}")
        row = Voice.objects.get() if page == "voice" else Consent.objects.get()
        detail = client.get(reverse(f"admin:voices_{page}_change", args=[row.pk]))
        assert STATEMENT in detail.content.decode()
        response = client.post(
            reverse(f"admin:voices_{page}_changelist"),
            {"action": "take_down", "_selected_action": [row.pk], "confirmed": "yes", "reason": "No consent"},
        )
        assert response.status_code == 302
        assert api.get(f"/api/v1/voice/syntheses/{spoken}/audio").json()["error"] == "revoked"
        entry = AuditEntry.objects.get(action="voice.takedown")
        assert (entry.actor, entry.details) == (root, {"voice_id": voice_id, "reason": "No consent"})
        if page == "voice":
            assert "root No consent" in client.get(reverse("admin:voices_voice_change", args=[row.pk])).content.decode()


def test_voices_are_listed_by_name_and_by_their_last_use_page_by_page(
    api: APIClient, engine: FakeEngine, save: Callable[..., Any]
) -> None:
    ids = {name: save(name=name).json()["voice_id"] for name in ("carl", "Ada", "ben", "Ada", "\u202eעדה <b>")}

    def listed(sort: str) -> list[str]:
        names, page = [], f"{URL}?page_size=2" + (f"&sort={sort}" if sort else "")
        while page:
            answer = api.get(page).json()
            names += [voice["name"] for voice in answer["results"]]
            page = answer["next"]
        return names

    assert listed("") == listed("newest") == ["\u202eעדה <b>", "Ada", "ben", "Ada", "carl"]
    assert listed("name")[:4] == ["Ada", "Ada", "ben", "carl"] and len(listed("name")) == 5
    assert listed("used") == listed("newest")  # Nothing was made yet.
    before = api.get(f"{URL}/{ids['carl']}").json()["used_at"]
    assert api.post(SYNTHESIZE, {"text": "Hello there.", "voice_id": ids["carl"]}).status_code == 200
    assert listed("used")[0] == "carl" and api.get(f"{URL}/{ids['carl']}").json()["used_at"] > before
    assert api.get(URL, {"sort": "loudest"}).json()["error"] == "validation_error"
    cursor = api.get(URL, {"sort": "name", "page_size": 2}).json()["next"].replace("sort=name", "sort=used")
    assert api.get(cursor).status_code == 400  # A name is no time.


def test_a_voice_can_have_tags_from_its_first_day(api: APIClient, save: Callable[..., Any]) -> None:
    assert save(name="Ada", tags="Warm, warm, 新闻").json()["tags"] == ["Warm", "新闻"]
    assert [voice["name"] for voice in api.get(URL, {"tag": "warm"}).json()["results"]] == ["Ada"]
    refused = save(name="Ben", tags="x" * 41)
    assert (refused.status_code, refused.json()["error"]) == (400, "validation_error")
    assert "tags" in refused.json()["details"]


def test_voices_are_found_by_words_and_by_whole_tags(api: APIClient, save: Callable[..., Any], other: Tenant) -> None:
    ada, ben = save(name="Ada").json(), save(name="Ben", description="Reads the evening news.").json()
    changed = api.patch(
        f"{URL}/{ada['voice_id']}", {"tags": ["Warm", " warm ", "新闻", "late\nshow", ""]}, format="json"
    )
    assert changed.json()["tags"] == ["Warm", "新闻", "late show"]
    assert api.patch(f"{URL}/{ben['voice_id']}", {"tags": "warm-hearted, news"}).json()["tags"] == [
        "warm-hearted",
        "news",
    ]

    def found(**query: str) -> list[str]:
        return [voice["name"] for voice in api.get(URL, query).json()["results"]]

    assert found(q="warm") == ["Ben", "Ada"]
    assert found(tag="WARM") == ["Ada"] and found(tag="新闻") == ["Ada"] and found(tag="w_rm") == []
    assert found(q="news ben") == ["Ben"] and found(q="evening", tag="news") == ["Ben"] and found(q="ada news") == []
    assert other.client.get(URL, {"q": "warm"}).json()["results"] == []
    for wrong in ({"tags": [str(number) for number in range(21)]}, {"tags": ["x" * 41]}, {"tags": ["a\x00b"]}):
        assert api.patch(f"{URL}/{ada['voice_id']}", wrong, format="json").status_code == 400
    assert api.patch(f"{URL}/{ada['voice_id']}", {"tags": []}, format="json").json()["tags"] == []
    assert api.get(URL, {"tags": "x"}).status_code == 400
