"""What clients of covers do besides submitting: wait, watch, try again, mix again, preview, let the pitch be found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from django.conf import settings
from rest_framework.test import APIClient

from covers import listening, tasks
from covers.models import STEMS, CoverJob
from tests.support.audio import upload, wav_bytes
from tests.support.covers import RATE, URL, download, level_at, song
from tests.support.jobs import read_events
from tests.support.tenants import Tenant
from tests.support.threads import in_thread
from voiceproject.jobs import events
from voiceproject.web import slots

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("fresh_covers")]
Submit = Callable[..., Any]
Habits = Callable[..., None]


# --- waiting ---


def test_prefer_wait_holds_the_answer_until_the_job_ends(submit: Submit, api: APIClient) -> None:
    job = submit().json()
    worker = in_thread(tasks.run_covers.fn)
    answer = api.get(job["links"]["self"], headers={"Prefer": "wait=60"})
    worker.join()
    assert answer.json()["status"] == "succeeded"
    assert answer["Preference-Applied"] == "wait=60"


def test_prefer_wait_on_submission_ends_with_its_time(api: APIClient) -> None:
    answer = api.post(
        URL,
        {"song": upload(wav_bytes(song(), RATE)), "reference_voice": upload(wav_bytes(song(4, 16_000, 1), 16_000))},
        headers={"Prefer": "respond-async, wait=1"},
    )
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert answer["Preference-Applied"] == "wait=1"


@pytest.mark.parametrize("preference", ["wait=soon", "wait=-1", "wait", "handling=strict"])
def test_a_preference_that_is_none_is_passed_over(preference: str, submit: Submit, api: APIClient) -> None:
    answer = api.get(submit().json()["links"]["self"], headers={"Prefer": preference})
    assert answer.status_code == 200
    assert "Preference-Applied" not in answer


def test_where_too_many_wait_already_the_answer_comes_at_once(
    submit: Submit, tenant: Tenant, api: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit().json()
    monkeypatch.setattr(slots, "streams", slots.Places(2, 1))
    place = slots.streams.acquire(tenant.user.pk)
    assert place is not None
    answer = api.get(job["links"]["self"], headers={"Prefer": "wait=60"})
    assert answer.json()["status"] == "queued"
    assert "Preference-Applied" not in answer
    refused = api.get(f"{URL}/{job['job_id']}/events")
    assert (refused.status_code, refused.json()["error"]) == (503, "too_many_waiting")
    assert int(refused["Retry-After"]) > 0
    others = slots.streams.acquire("another")
    assert others is not None, "what one tenant holds is not taken from others"
    assert slots.streams.acquire("a third") is None, "nor are there more than all may hold"
    place()
    place()  # given back once
    assert slots.streams.acquire(tenant.user.pk) is not None
    assert slots.streams.acquire("a third") is None


# --- events ---


def test_events_tell_each_stage_and_close_at_the_end(submit: Submit, api: APIClient, habits: Habits) -> None:
    habits(separate="slow", infer="slow")
    job = submit().json()
    answer = api.get(job["links"]["events"])
    assert answer["Content-Type"] == "text/event-stream"
    worker = in_thread(tasks.run_covers.fn)
    found = read_events(answer.streaming_content)
    worker.join()
    answer.close()
    ids = [number for number, _ in found]
    assert ids == sorted(set(ids))
    assert found[0][1]["status"] == "queued"
    assert {"separate", "infer"} <= {data["stage"] for _, data in found}
    assert (found[-1][1]["status"], found[-1][1]["progress"]) == ("succeeded", 100)
    progress = [data["progress"] for _, data in found]
    assert progress == sorted(progress)


def test_last_event_id_goes_on_after_what_was_seen(submit: Submit, api: APIClient) -> None:
    job = submit().json()
    assert CoverJob.objects.get(pk=job["job_id"]).cancel()
    revision = CoverJob.objects.get(pk=job["job_id"]).revision
    url = f"{URL}/{job['job_id']}/events"
    found = read_events(api.get(url, headers={"Last-Event-ID": str(revision - 1)}).streaming_content)
    assert [(number, data["status"]) for number, data in found] == [(revision, "canceled")]
    assert api.get(url, headers={"Last-Event-ID": str(revision)}).status_code == 204
    assert len(read_events(api.get(url, headers={"Last-Event-ID": "soon"}).streaming_content)) == 1


def test_a_silent_connection_gets_comments(submit: Submit, api: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "COMMENT_SECONDS", 0.05)
    answer = api.get(submit().json()["links"]["events"])
    blocks = iter(answer.streaming_content)
    assert next(blocks).startswith(b"id: ")
    assert next(blocks).startswith(b": ")
    answer.close()


def test_a_deleted_job_ends_its_events(submit: Submit, api: APIClient) -> None:
    job = submit().json()
    blocks = iter(api.get(job["links"]["events"]).streaming_content)
    next(blocks)
    assert api.delete(job["links"]["self"]).status_code == 204
    rest = b"".join(blocks)
    assert rest.endswith(b"event: deleted\ndata: {}\n\n")


def test_a_client_that_goes_away_gives_its_place_back(
    submit: Submit, api: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = submit().json()["links"]["events"]
    monkeypatch.setattr(slots, "streams", slots.Places(1, 1))
    for _ in range(3):
        answer = api.get(url)
        assert answer.status_code == 200
        answer.close()  # before anything was read
    answer = api.get(url)
    next(iter(answer.streaming_content))
    answer.close()
    assert api.get(url).status_code == 200


def test_events_of_others_are_not_found(submit: Submit, other: Tenant) -> None:
    assert other.client.get(f"{URL}/{submit().json()['job_id']}/events").status_code == 404


# --- trying again ---


def test_a_retry_goes_on_after_the_last_finished_stage(submit: Submit, api: APIClient, habits: Habits) -> None:
    habits(infer="fail")
    job = submit().json()
    tasks.run_covers.fn()
    failed = api.get(job["links"]["self"]).json()
    assert (failed["status"], failed["stage"]) == ("failed", "infer")
    habits(separate="fail")  # which would fail, were it run again
    again = api.post(failed["links"]["retry"])
    assert (again.status_code, again.json()["status"], again.json()["error"]) == (202, "queued", None)
    tasks.run_covers.fn()
    done = api.get(job["links"]["self"]).json()
    assert (done["status"], done["attempts"]) == ("succeeded", 2)
    refused = api.post(f"{URL}/{job['job_id']}/retry")
    assert (refused.status_code, refused.json()["error"]) == (409, "conflict")


def test_a_retry_counts_against_the_jobs_that_may_wait(submit: Submit, api: APIClient, settings: Any) -> None:
    job = submit().json()
    assert api.post(job["links"]["cancel"]).status_code == 200
    settings.COVER_MAX_QUEUED = 1
    assert submit().status_code == 202
    refused = api.post(f"{URL}/{job['job_id']}/retry")
    assert (refused.status_code, refused.json()["error"]) == (429, "too_many_jobs")
    assert api.get(f"{URL}/{job['job_id']}").json()["status"] == "canceled"


# --- stems that are there already ---


def test_a_second_voice_on_the_same_song_skips_separation(submit: Submit, api: APIClient, other: Tenant) -> None:
    submit()
    tasks.run_covers.fn()
    second = submit().json()
    # The quick command leaves a warning each time that it runs: here it converts only.
    tasks.run_covers.fn()
    done = api.get(second["links"]["self"]).json()
    assert (done["status"], done["warning"]) == ("succeeded", "quick and untrue")
    mine = submit(_client=other.client).json()
    tasks.run_covers.fn()
    assert other.client.get(mine["links"]["self"]).json()["warning"] == "quick and untrue quick and untrue"


def test_another_separator_or_a_deleted_donor_separates_anew(submit: Submit, api: APIClient, settings: Any) -> None:
    first = submit().json()
    tasks.run_covers.fn()
    settings.COVER_UVR_MODEL = "HP5"
    second = submit().json()
    tasks.run_covers.fn()
    both = "quick and untrue quick and untrue"
    assert api.get(second["links"]["self"]).json()["warning"] == both
    settings.COVER_UVR_MODEL = "HP2_all_vocals"
    assert api.delete(first["links"]["self"]).status_code == 204
    third = submit().json()
    tasks.run_covers.fn()
    assert api.get(third["links"]["self"]).json()["warning"] == both


# --- mixing again ---


def test_a_remix_has_other_gains_and_runs_no_command(submit: Submit, api: APIClient, habits: Habits) -> None:
    job = submit().json()
    tasks.run_covers.fn()
    habits(separate="fail", infer="fail")
    made = api.post(f"{URL}/{job['job_id']}/remix", {"vocal_gain_db": -24}, format="json")
    assert made.status_code == 202, made.json()
    assert made["Location"] == made.json()["links"]["self"]
    tasks.run_covers.fn()
    done = api.get(made.json()["links"]["self"]).json()
    assert (done["status"], done["remix_of"], done["vocal_gain_db"]) == ("succeeded", job["job_id"], -24)
    result, rate = download(api, done["links"]["result"])
    assert (rate, result.shape) == (RATE, (3 * RATE, 2))
    assert level_at(result[:, 0], 220) > 0.1  # no longer canceled out by the quick command's inverted vocal
    again = api.post(f"{URL}/{done['job_id']}/remix", {"instrumental_gain_db": "-6"})
    assert again.json()["remix_of"] == job["job_id"]


def test_a_remix_needs_stems(submit: Submit, api: APIClient, other: Tenant) -> None:
    job = submit().json()
    url = f"{URL}/{job['job_id']}/remix"
    assert api.post(url).json()["error"] == "job_not_ready"
    assert other.client.post(url).status_code == 404
    assert api.post(job["links"]["cancel"]).status_code == 200
    assert api.post(url).json()["error"] == "job_canceled"
    bare = submit(input_kind="vocals").json()
    tasks.run_covers.fn()
    refused = api.post(f"{URL}/{bare['job_id']}/remix")
    assert (refused.status_code, refused.json()["error"]) == (409, "conflict")
    assert api.post(f"{URL}/{bare['job_id']}/remix", {"vocal_gain_db": "25"}).status_code == 400


def test_a_remix_whose_source_was_deleted_fails_and_says_so(submit: Submit, api: APIClient) -> None:
    job = submit().json()
    tasks.run_covers.fn()
    remix = api.post(f"{URL}/{job['job_id']}/remix").json()
    assert api.delete(job["links"]["self"]).status_code == 204
    tasks.run_covers.fn()
    failed = api.get(remix["links"]["self"]).json()
    assert (failed["status"], failed["error"]) == ("failed", "preprocess_failed")
    assert "deleted" in failed["error_message"]


@pytest.mark.parametrize("how", ["deleted", "expired"])
@pytest.mark.parametrize("status", ["failed", "canceled"])
def test_a_remix_without_its_stems_cannot_be_tried_again(tenant: Tenant, api: APIClient, how: str, status: str) -> None:
    kept = dict.fromkeys(STEMS, "covers/stem.wav")
    source = CoverJob.objects.create(tenant=tenant.user, song="covers/song.wav", status="succeeded", **kept)
    remix = CoverJob.objects.create(tenant=tenant.user, remix_of=source, status=status)
    url = f"{URL}/{remix.pk}"
    assert api.get(url).json()["links"]["retry"] == f"http://testserver{url}/retry"
    if how == "deleted":
        source.delete()
    else:
        CoverJob.objects.filter(pk=source.pk).update(files_expired=True, **dict.fromkeys(STEMS, ""))
    assert api.get(url).json()["links"]["retry"] is None
    assert api.get(URL, {"status": status}).json()["results"][0]["links"]["retry"] is None
    refused = api.post(f"{url}/retry")
    assert (refused.status_code, refused.json()["error"]) == (410, "result_expired")
    assert "stems" in refused.json()["message"]
    remix.refresh_from_db()
    assert (remix.status, remix.revision) == (status, 0)


def test_only_what_has_stems_is_offered_to_be_mixed_again(tenant: Tenant, api: APIClient) -> None:
    def job(**fields: Any) -> CoverJob:
        return CoverJob.objects.create(tenant=tenant.user, status="succeeded", result="covers/result.wav", **fields)

    def offered(job: CoverJob) -> bool:
        return api.get(f"{URL}/{job.pk}").json()["links"]["remix"] is not None

    whole = job(song="covers/song.wav", **dict.fromkeys(STEMS, "covers/stem.wav"))
    remix = job(remix_of=whole)
    bare = job(song="covers/song.wav", input_kind="vocals", converted="covers/stem.wav")
    assert [offered(one) for one in (whole, remix, bare)] == [True, True, False]
    whole.delete()
    assert not offered(remix) and api.post(f"{URL}/{remix.pk}/remix").status_code == 409


# --- previews and pitch ---


def sung(seconds: float, pitch: float, rate: int = RATE) -> np.ndarray:
    """float32 (n,): a buzz with vibrato, which passes for a voice."""
    time_ = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.02 * np.sin(2 * np.pi * 5.5 * time_))) / rate
    return (0.3 * sum(np.sin(k * phase) / k for k in range(1, 16))).astype(np.float32) / 2


def band(seconds: float) -> np.ndarray:
    """float32 (n, 2): noise that beats, other on each side, and no voice."""
    generator = np.random.default_rng(3)
    time_ = np.arange(round(seconds * RATE)) / RATE
    beat = 0.15 * np.exp(-((time_ * 2) % 1) * 6)
    return (generator.standard_normal((len(time_), 2)) * beat[:, None]).astype(np.float32)


def test_a_preview_is_the_most_vocal_stretch(submit: Submit, api: APIClient) -> None:
    mixed = band(30)
    mixed[14 * RATE : 24 * RATE] += sung(10, 220)[:, None]
    job = submit(song=upload(wav_bytes(mixed, RATE), "song.wav"), preview_seconds="10").json()
    assert job["preview_start_seconds"] is None
    tasks.run_covers.fn()
    done = api.get(job["links"]["self"]).json()
    assert done["status"] == "succeeded"
    assert done["preview_start_seconds"] == pytest.approx(14.0, abs=0.6)
    result, _ = download(api, done["links"]["result"])
    assert len(result) == 10 * RATE


def test_a_preview_of_a_shorter_song_is_all_of_it(submit: Submit, api: APIClient) -> None:
    job = submit(preview_seconds="10").json()
    tasks.run_covers.fn()
    result, _ = download(api, f"{URL}/{job['job_id']}/result")
    assert len(result) == 3 * RATE


@pytest.mark.parametrize("seconds", ["9", "61", "ten"])
def test_a_preview_has_bounds(seconds: str, submit: Submit) -> None:
    assert list(submit(preview_seconds=seconds).json()["details"]) == ["preview_seconds"]


@pytest.mark.parametrize(
    ("song_hz", "voice_hz", "shift"), [(440, 110, -19), (220, 220, 0), (220, 440, 12), (440, 440, 0), (392, 160, -12)]
)
def test_a_melody_moves_by_octaves_or_fifths_to_where_the_voice_is_at_home(
    song_hz: float, voice_hz: float, shift: int, tmp_path: Path
) -> None:
    sf.write(tmp_path / "song.wav", sung(3, song_hz), RATE)
    sf.write(tmp_path / "voice.wav", sung(3, voice_hz, 24_000), 24_000)
    assert listening.home_shift(tmp_path / "song.wav", tmp_path / "voice.wav") == shift


def test_auto_pitch_is_told_once_it_is_known(submit: Submit, api: APIClient) -> None:
    job = submit(
        song=upload(wav_bytes(np.stack([sung(3, 220)] * 2, axis=1), RATE)),
        reference_voice=upload(wav_bytes(sung(4, 440, 24_000), 24_000)),
        pitch_shift="auto",
    ).json()
    assert (job["pitch_shift"], job["pitch_auto"]) == (None, True)
    tasks.run_covers.fn()
    done = api.get(job["links"]["self"]).json()
    assert (done["status"], done["pitch_shift"], done["pitch_auto"]) == ("succeeded", 12, True)


# --- the queue ---


def test_a_place_in_the_queue_counts_turns_between_tenants(submit: Submit, other: Tenant, api: APIClient) -> None:
    mine = [submit().json() for _ in range(4)]
    theirs = submit(_client=other.client).json()
    assert theirs["queue_position"] == 2
    assert [api.get(job["links"]["self"]).json()["queue_position"] for job in mine] == [1 + 1, 3, 4, 5]
    CoverJob.objects.filter(pk__in=[job["job_id"] for job in mine[2:]]).update(priority=5)
    assert other.client.get(theirs["links"]["self"]).json()["queue_position"] == 3
    listed = api.get(URL).json()["results"]
    assert {job["queue_position"] for job in listed} == {None}


def test_the_expected_start_follows_from_the_place_and_the_last_jobs(submit: Submit, api: APIClient) -> None:
    from datetime import timedelta

    from django.utils import timezone

    from voiceproject.jobs.models import WorkerHost

    first = submit().json()
    assert first["expected_start_at"] is None
    tasks.run_covers.fn()
    end = timezone.now()
    CoverJob.objects.update(started_at=end - timedelta(seconds=100), finished_at=end)
    WorkerHost.objects.update_or_create(name="h", defaults={"seen_at": end})
    WorkerHost.objects.exclude(name="h").delete()
    waits = []
    for _ in range(3):
        job = CoverJob.objects.get(pk=submit().json()["job_id"])
        start = job.expected_start(settings.COVER_CONCURRENCY)
        assert start is not None
        waits.append((start - timezone.now()).total_seconds())
    assert waits == pytest.approx([0, 100, 200], abs=5)
