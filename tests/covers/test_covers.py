"""Covers over the API and through the pipeline, with real commands that are quick instead of good."""

from __future__ import annotations

import io
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from django.conf import settings as django_settings
from django.core.files.storage import default_storage
from rest_framework.test import APIClient

from covers import checks, commands, pipeline, tasks
from covers.models import CoverJob
from tests.support.audio import speech_like, upload, wav_bytes
from tests.support.covers import RATE, URL, away, download, level_at, run_in_thread, song
from tests.support.running.processes import processes_of
from tests.support.tenants import Tenant
from tests.support.waiting import promised, until

pytestmark = pytest.mark.usefixtures("fresh_covers")


def test_a_submitted_job_is_202_with_its_place(submit: Callable[..., Any], api: APIClient) -> None:
    response = submit(pitch_shift="-3")
    assert response.status_code == 202
    body = response.json()
    assert response["Location"] == body["links"]["self"]
    assert (body["status"], body["stage"], body["progress"], body["pitch_shift"]) == ("queued", "queued", 0, -3)
    assert body["task_id"] == body["job_id"]
    assert body["queue_position"] == 1
    assert submit().json()["queue_position"] == 2
    assert body["duration_seconds"] == pytest.approx(3.0)
    for path in ("result", "stems/vocals"):
        early = api.get(f"{URL}/{body['job_id']}/{path}")
        assert (early.status_code, early.json()["error"]) == (409, "job_not_ready")


@pytest.mark.django_db(transaction=True)
def test_a_cover_is_the_whole_song_in_stereo_with_its_vocal_at_its_own_level(
    submit: Callable[..., Any], api: APIClient, leftovers: Callable[[], list[str]]
) -> None:
    job = submit().json()
    tasks.run_covers.fn()
    done = api.get(job["links"]["self"]).json()
    assert (done["status"], done["stage"], done["progress"], done["attempts"]) == ("succeeded", "finalize", 100, 1)
    assert done["error"] is None
    assert done["warning"] == "quick and untrue quick and untrue"
    result, rate = download(api, done["links"]["result"])
    assert (rate, result.shape) == (RATE, (3 * RATE, 2))
    assert np.max(np.abs(result)) < 10 ** (-1 / 20)
    stems = {name: download(api, done["links"][name])[0] for name in ("vocals", "instrumental", "converted")}
    assert np.allclose(stems["vocals"], -stems["converted"], atol=1e-3)
    # The mix is the converted vocal at the vocal's level and the instrumental, times one gain: here they cancel out.
    assert level_at(result[:, 0], 220) < 0.02
    assert not [path for path in leftovers() if "/scratch/" in path or "/uploads/" in path]


@pytest.mark.django_db(transaction=True)
def test_gains_move_the_balance(submit: Callable[..., Any], api: APIClient) -> None:
    job = submit(vocal_gain_db="-24", instrumental_gain_db="0").json()
    tasks.run_covers.fn()
    result, _ = download(api, f"{URL}/{job['job_id']}/result")
    assert level_at(result[:, 0], 220) > 0.1
    assert level_at(result[:, 1], 330) > 0.1


@pytest.mark.django_db(transaction=True)
def test_a_bare_vocal_is_neither_separated_nor_mixed(
    submit: Callable[..., Any], api: APIClient, habits: Callable[..., None]
) -> None:
    habits(separate="fail")
    job = submit(input_kind="vocals").json()
    tasks.run_covers.fn()
    done = api.get(job["links"]["self"]).json()
    assert done["status"] == "succeeded", done
    result, rate = download(api, done["links"]["result"])
    assert (rate, result.shape) == (RATE, (3 * RATE, 2))
    assert level_at(result[:, 0], 220) == pytest.approx(0.4, rel=0.05)
    assert api.get(f"{URL}/{job['job_id']}/stems/vocals").status_code == 404


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("format", ["wav", "flac", "mp3"])
def test_the_result_comes_in_the_format_that_was_asked_for(
    submit: Callable[..., Any], api: APIClient, format: str
) -> None:
    job = submit(response_format=format).json()
    tasks.run_covers.fn()
    url = f"{URL}/{job['job_id']}/result"
    content_types = {"wav": "audio/wav", "flac": "audio/flac", "mp3": "audio/mpeg"}
    assert api.get(url)["Content-Type"] == content_types[format]
    for other_format, content_type in content_types.items():
        response = api.get(f"{url}?format={other_format}")
        assert response["Content-Type"] == content_type
        assert sf.info(io.BytesIO(b"".join(response.streaming_content))).duration == pytest.approx(3.0, abs=0.06)
    assert api.get(f"{url}?format=odd").json()["error"] == "validation_error"


def test_ranges_of_a_file_are_served_as_the_rfc_has_them(submit: Callable[..., Any], api: APIClient, db: None) -> None:
    pk = submit().json()["job_id"]
    job = CoverJob.objects.get(pk=pk)
    whole = job.song.read()
    CoverJob.objects.update(status="succeeded", result=job.song.name)
    url = f"{URL}/{pk}/result"

    def get(**headers: str) -> Any:
        return api.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def body(response: Any) -> bytes:
        return b"".join(response.streaming_content)

    etag = get()["ETag"]
    assert body(get()) == whole
    ranges = [
        ("0-0", 0, 1),
        ("10-19", 10, 20),
        ("100-", 100, len(whole)),
        ("-7", len(whole) - 7, len(whole)),
        ("0-99999999", 0, len(whole)),
        ("-99999999", 0, len(whole)),
    ]
    for wanted, start, stop in ranges:
        response = get(Range=f"bytes={wanted}")
        assert response.status_code == 206, wanted
        assert body(response) == whole[start:stop]
        assert response["Content-Range"] == f"bytes {start}-{stop - 1}/{len(whole)}"
        assert response["Content-Length"] == str(stop - start)
    for wanted in (f"{len(whole)}-", "99999999-", "-0"):
        response = get(Range=f"bytes={wanted}")
        assert (response.status_code, response.json()["error"]) == (416, "range_not_satisfiable")
        assert response["Content-Range"] == f"bytes */{len(whole)}"
    for ignored in (
        f"bytes=0-{'9' * 4400}",
        f"bytes={'9' * 4400}-",
        "bytes=5-1",
        "bytes=-",
        "bytes=a-b",
        "lines=0-1",
        "bytes=0-1,3-4",
    ):
        assert get(Range=ignored).status_code == 200
    assert get(Range="bytes=0-3", If_Range=etag).status_code == 206
    assert get(Range="bytes=0-3", If_Range='"other"').status_code == 200
    unchanged = get(If_None_Match=etag)
    assert (unchanged.status_code, unchanged["ETag"]) == (304, etag)
    assert "Content-Type" not in unchanged  # A cache would give the audio that type.
    assert get(If_None_Match="*").status_code == 304
    assert get(If_None_Match='"x*"').status_code == 200
    job.song.storage.delete(job.song.name)
    assert (get().status_code, get().json()["error"]) == (410, "result_expired")
    assert get()["X-Content-Type-Options"] == "nosniff"


STAGE_FAILURES = [
    ({"separate": "fail"}, "separation_failed", "broken"),
    ({"infer": "fail"}, "inference_failed", "broken"),
    ({"separate": "silent-exit"}, "separation_failed", "no audio"),
    ({"infer": "silent-exit"}, "inference_failed", "no audio"),
    ({"separate": "garbage"}, "separation_failed", "no audio"),
    ({"infer": "short"}, "inference_failed", "s off"),
    ({"infer": "oom"}, "out_of_memory", "CUDA"),
]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("chosen", "error", "tail"), STAGE_FAILURES)
def test_a_failing_command_fails_the_job_and_its_words_are_the_operators(
    submit: Callable[..., Any],
    api: APIClient,
    habits: Callable[..., None],
    chosen: dict[str, str],
    error: str,
    tail: str,
) -> None:
    habits(**chosen)
    job = submit().json()
    tasks.run_covers.fn()
    response = api.get(job["links"]["self"])
    done = response.json()
    assert (done["status"], done["error"]) == ("failed", error)
    assert done["error_message"]
    assert tail in CoverJob.objects.get().error_detail
    assert "secret" not in response.content.decode()
    result = api.get(f"{URL}/{job['job_id']}/result")
    assert (result.status_code, result.json()["error"]) == (409, "job_failed")
    assert result.json()["details"] == {"error": error}
    canceled = api.post(f"{URL}/{job['job_id']}/cancel")
    assert (canceled.status_code, canceled.json()["error"]) == (409, "job_finished")


@pytest.mark.django_db(transaction=True)
def test_a_command_that_hangs_is_ended_by_its_deadline(
    submit: Callable[..., Any], api: APIClient, habits: Callable[..., None], settings: Any
) -> None:
    habits(separate="hang")
    settings.COVER_STAGE_TIMEOUT_SECONDS = 1
    job = submit().json()
    tasks.run_covers.fn()
    assert api.get(job["links"]["self"]).json()["error"] == "timed_out"


@pytest.mark.django_db(transaction=True)
def test_a_full_disk_fails_one_job_and_no_other(
    submit: Callable[..., Any], api: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = submit().json(), submit().json()
    original = pipeline._Cover.preprocess

    def full(self: Any) -> None:
        if str(self.job.pk) == first["job_id"]:
            raise OSError(28, "No space left on device")
        original(self)

    monkeypatch.setattr(pipeline._Cover, "preprocess", full)
    tasks.run_covers.fn()
    assert api.get(first["links"]["self"]).json()["error"] == "storage_full"
    assert api.get(second["links"]["self"]).json()["status"] == "succeeded"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("resident", [False, True])
def test_a_disk_that_a_command_fills_fails_its_job_and_the_next_one_finds_room(
    submit: Callable[..., Any],
    api: APIClient,
    habits: Callable[..., None],
    settings: Any,
    small_disk: Path,
    resident: bool,
    residents: Any,
) -> None:
    settings.SCRATCH_DIR, settings.COVER_RESIDENT = small_disk, resident
    habits(separate="fill")
    content = upload(wav_bytes(song(1.1), RATE), "song.wav")
    job = submit(song=content).json()
    tasks.run_covers.fn()
    assert api.get(job["links"]["self"]).json()["error"] == "storage_full"
    habits()
    content.seek(0)
    job = submit(song=content).json()
    tasks.run_covers.fn()
    done = api.get(job["links"]["self"]).json()
    assert (done["status"], done["error"]) == ("succeeded", None)
    residents.close()
    assert os.listdir(small_disk) == []


@pytest.mark.django_db(transaction=True)
def test_an_upload_that_does_not_fit_on_the_disk_fails_its_job(
    submit: Callable[..., Any], api: APIClient, settings: Any, small_disk: Path
) -> None:
    settings.SCRATCH_DIR = small_disk
    job = submit(song=upload(wav_bytes(song(30.0), RATE), "song.wav")).json()
    tasks.run_covers.fn()
    assert api.get(job["links"]["self"]).json()["error"] == "storage_full"
    assert os.listdir(small_disk) == []


@pytest.mark.django_db(transaction=True)
def test_a_whole_cover_has_a_deadline_too(
    submit: Callable[..., Any], api: APIClient, habits: Callable[..., None], settings: Any
) -> None:
    habits(infer="hang")
    settings.COVER_TIMEOUT_SECONDS = 3
    job = submit().json()
    tasks.run_covers.fn()
    done = api.get(job["links"]["self"]).json()
    assert (done["error"], done["stage"]) == ("timed_out", "infer")
    # What was finished in time is kept, and a retry goes on there.
    assert bool(CoverJob.objects.get().vocals)


@pytest.fixture
def residents(settings: Any) -> Iterator[Any]:
    commands.residents.cache_clear()
    yield SimpleNamespace(close=lambda: commands.residents().close())
    commands.residents().close()
    commands.residents.cache_clear()


@pytest.mark.django_db(transaction=True)
def test_commands_that_stay_make_the_same_covers_and_keep_their_warnings(
    submit: Callable[..., Any],
    api: APIClient,
    settings: Any,
    residents: Any,
    caplog: pytest.LogCaptureFixture,
    leftovers: Callable[[], list[str]],
) -> None:
    results = []
    for settings.COVER_RESIDENT in (False, True, True):
        with caplog.at_level("INFO"):
            caplog.clear()
            job = submit().json()
            tasks.run_covers.fn()
        done = api.get(job["links"]["self"]).json()
        assert (done["status"], done["warning"]) == ("succeeded", "quick and untrue quick and untrue")
        CoverJob.objects.update(stems_key="")  # The next one shall separate, too.
        commands = [record.command for record in caplog.records if record.message == "command ended"]
        results.append(([c.get("resident_job") for c in commands], download(api, done["links"]["result"])[0]))
    assert [numbers for numbers, _ in results] == [[None, None], [1, 1], [2, 2]]
    assert all(np.array_equal(samples, results[0][1]) for _, samples in results)
    # Another process' look keeps their folders.
    folders = os.listdir(settings.SCRATCH_DIR)
    assert len(folders) == 2
    assert all(map(tasks.scratch_in_use, folders))
    residents.close()
    assert os.listdir(settings.SCRATCH_DIR) == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("chosen", "error", "tail"), STAGE_FAILURES)
def test_commands_that_stay_fail_in_the_same_words(
    submit: Callable[..., Any],
    api: APIClient,
    habits: Callable[..., None],
    settings: Any,
    residents: Any,
    chosen: dict[str, str],
    error: str,
    tail: str,
) -> None:
    settings.COVER_RESIDENT = True
    habits(**chosen)
    job = submit().json()
    tasks.run_covers.fn()
    assert api.get(job["links"]["self"]).json()["error"] == error
    assert tail in CoverJob.objects.get().error_detail


@pytest.mark.django_db(transaction=True)
def test_canceling_ends_a_command_that_stays_and_the_next_job_starts_another(
    submit: Callable[..., Any], api: APIClient, habits: Callable[..., None], settings: Any, residents: Any
) -> None:
    settings.COVER_RESIDENT = True
    habits(infer="stubborn")
    job = submit().json()
    worker = run_in_thread()
    until(lambda: api.get(job["links"]["self"]).json()["progress"] >= 45 and len(residents_of(settings)) >= 3)
    started = time.monotonic()
    api.post(f"{URL}/{job['job_id']}/cancel")
    worker.join(10)
    assert time.monotonic() - started < promised(5)
    assert len(residents_of(settings)) == 1  # that of the separation, which is idle
    habits()
    again = submit().json()
    tasks.run_covers.fn()
    assert api.get(job["links"]["self"]).json()["status"] == "canceled"
    assert api.get(again["links"]["self"]).json()["status"] == "succeeded"


def residents_of(settings: Any) -> list[int]:
    """The commands that stay, with their children; not their guards."""
    pids = processes_of(f"TMPDIR={settings.SCRATCH_DIR}/resident-")
    return [pid for pid in pids if b"guard.py" not in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", ["separate", "infer"])
@pytest.mark.parametrize("habit", ["hang", "stubborn"])
def test_cancel_ends_the_whole_process_tree_and_stays(
    submit: Callable[..., Any],
    api: APIClient,
    habits: Callable[..., None],
    leftovers: Callable[[], list[str]],
    kind: str,
    habit: str,
) -> None:
    habits(**{kind: habit})
    job = submit().json()
    worker = run_in_thread()
    count = 2 if habit == "stubborn" else 1
    until(lambda: api.get(job["links"]["self"]).json()["stage"] == kind and len(processes_of(job["job_id"])) >= count)
    started = time.monotonic()
    assert api.post(f"{URL}/{job['job_id']}/cancel").json()["status"] == "canceled"
    until(lambda: not processes_of(job["job_id"]), 20)
    # The contract is two seconds; the rest is for a machine that runs other things too.
    assert time.monotonic() - started < promised(3)
    worker.join(10)
    assert not worker.is_alive()
    again = api.post(f"{URL}/{job['job_id']}/cancel")
    assert (again.status_code, again.json()["status"]) == (200, "canceled")
    assert not [path for path in leftovers() if "/scratch/" in path]
    stem = api.get(f"{URL}/{job['job_id']}/stems/vocals")
    assert (stem.status_code, stem.json()["error"]) == (409, "job_canceled")


@pytest.mark.django_db(transaction=True)
def test_progress_moves_inside_a_stage(submit: Callable[..., Any], api: APIClient, habits: Callable[..., None]) -> None:
    habits(separate="slow", infer="slow")
    job = submit().json()
    worker = run_in_thread()
    seen: list[tuple[str, int]] = []

    def look() -> bool:
        state = api.get(job["links"]["self"]).json()
        seen.append((state["stage"], state["progress"]))
        return state["status"] == "succeeded"

    until(look)
    worker.join()
    progress = [value for _, value in seen]
    assert progress == sorted(progress)
    for stage in ("separate", "infer"):
        assert len({value for name, value in seen if name == stage}) >= 2, seen


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_stops_hands_its_job_back_and_another_goes_on(
    submit: Callable[..., Any], api: APIClient, habits: Callable[..., None]
) -> None:
    habits(infer="hang")
    job = submit().json()
    worker = run_in_thread()
    until(lambda: api.get(job["links"]["self"]).json()["stage"] == "infer")
    tasks.stopping.set()
    worker.join(10)
    assert not worker.is_alive()
    row = CoverJob.objects.get()
    assert (row.status, row.attempt, bool(row.vocals)) == ("queued", 0, True)
    tasks.stopping.clear()
    # Separation would fail now; it is not done again, since its stems were kept.
    habits(separate="fail")
    tasks.run_covers.fn()
    assert api.get(job["links"]["self"]).json()["status"] == "succeeded"


BOUNDS = [
    ("pitch_shift", ["-24", "24", "auto"], ["-25", "25", "1.5", "auto-ish"]),
    ("vocal_gain_db", ["-24", "24"], ["-24.1", "24.1", "nan"]),
    ("instrumental_gain_db", ["-24", "24"], ["-24.1", "24.1"]),
    ("response_format", ["mp3"], ["opus", "pcm"]),
    ("input_kind", ["vocals"], ["stems"]),
    ("model_id", ["default"], ["../etc/passwd", "nope"]),
    ("lyrics", [""], ["la la la"]),
    ("reference_text", [""], ["what I said"]),
    ("preview_seconds", ["10", "60"], ["9", "61", "ten"]),
    ("callback_url", ["", "https://1.1.1.1/hook"], ["https://10.0.0.1/hook"]),
    ("voice_id", [], [str(uuid.uuid4())]),
    ("nonsense", [], ["1"]),
    ("song", [], [None, "a string"]),
    ("reference_voice", [], [None]),
]


@pytest.mark.parametrize(("field", "taken", "refused"), BOUNDS)
def test_each_bound_of_a_cover_holds_on_both_sides(
    submit: Callable[..., Any],
    leftovers: Callable[[], list[str]],
    db: None,
    field: str,
    taken: list[str],
    refused: list[Any],
) -> None:
    for value in refused:
        response = submit(**{field: value})
        assert (response.status_code, response.json()["error"]) == (400, "validation_error"), value
        assert field in response.json()["details"]
    assert leftovers() == []
    assert not CoverJob.objects.exists()
    for value in taken:
        assert submit(**{field: value}).status_code == 202, value


def test_a_song_has_at_most_its_seconds_and_bytes(
    submit: Callable[..., Any], settings: Any, leftovers: Callable[[], list[str]]
) -> None:
    settings.COVER_MAX_DURATION_SECONDS = 3
    assert submit().status_code == 202
    before = leftovers()
    longer = submit(song=upload(wav_bytes(song(3.5 + 2 / RATE), RATE)))
    assert (longer.status_code, longer.json()["error"], longer.json()["details"]["reason"]) == (
        400,
        "invalid_audio",
        "too_long",
    )
    size = len(wav_bytes(song(), RATE))
    settings.COVER_MAX_UPLOAD_SIZE = size
    assert submit().status_code == 202
    settings.COVER_MAX_UPLOAD_SIZE = size - 1
    larger = submit()
    assert (larger.status_code, larger.json()["details"]) == (413, {"field": "song", "limit": size - 1, "found": size})
    assert len(leftovers()) == len(before) + 2


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("field", "seconds", "error"),
    [
        ("song", 0.999, "invalid_audio"),
        ("song", 1.0, None),
        ("reference_voice", 2.999, "reference_too_short"),
        ("reference_voice", 3.0, None),
        ("reference_voice", 60.5, None),
        ("reference_voice", 60.501, "reference_too_long"),
    ],
)
def test_a_cover_bounds_the_seconds_of_both_its_files(
    submit: Callable[..., Any], leftovers: Callable[[], list[str]], field: str, seconds: float, error: str | None
) -> None:
    response = submit(**{field: upload(wav_bytes(speech_like(seconds, 8_000), 8_000))})
    if error is None:
        assert response.status_code == 202, response.content
        return
    body = response.json()
    assert (response.status_code, body["error"], body["details"]["field"]) == (400, error, field)
    assert body["details"]["found"] == pytest.approx(seconds, abs=1e-3)
    assert leftovers() == []


@pytest.mark.django_db
def test_a_covers_reference_may_be_as_large_as_the_limit_and_not_a_byte_larger(
    submit: Callable[..., Any], settings: Any, reference_wav: bytes, leftovers: Callable[[], list[str]]
) -> None:
    settings.MAX_UPLOAD_SIZE = len(reference_wav)
    assert submit().status_code == 202
    before = leftovers()
    settings.MAX_UPLOAD_SIZE -= 1
    refused = submit()
    assert (refused.status_code, refused.json()["error"]) == (413, "file_too_large")
    assert refused.json()["details"]["field"] == "reference_voice"
    assert leftovers() == before


@pytest.mark.django_db
@pytest.mark.parametrize("field", ["song", "reference_voice"])
def test_two_files_in_one_field_of_a_cover_are_refused(
    submit: Callable[..., Any], leftovers: Callable[[], list[str]], reference_wav: bytes, field: str
) -> None:
    response = submit(**{field: [upload(reference_wav, "a.wav"), upload(reference_wav, "b.wav")]})
    assert (response.status_code, response.json()["error"]) == (400, "validation_error")
    assert list(response.json()["details"]) == [field]
    assert leftovers() == []


@pytest.mark.django_db
@pytest.mark.parametrize(
    "name",
    [
        "../../../etc/cron.d/x",
        "/etc/passwd",
        "..\\\\x.wav",
        '"; rm -rf ~; .wav',
        "x" * 300 + ".wav",
        "歌.wav",
        "-i",
        "..",
    ],
)
def test_no_file_name_of_a_client_reaches_the_disk(
    api: APIClient, reference_wav: bytes, leftovers: Callable[[], list[str]], name: str
) -> None:
    # As bytes, since the test client would send a tame name.
    body = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n%s\r\n'
        % (field, name.replace('"', '\\"').encode(), reference_wav)
        for field in (b"song", b"reference_voice")
    )
    response = api.post(URL, body + b"--b--\r\n", content_type="multipart/form-data; boundary=b")
    assert response.status_code == 202, response.content
    # The location is the media folder, or the bucket's prefix.
    folder = Path(default_storage.location, "covers", response.json()["job_id"])
    assert leftovers() == [str(folder / "0-reference_voice"), str(folder / "0-song")]


@pytest.mark.django_db(transaction=True)
def test_any_rate_and_mono_become_stereo_44100(submit: Callable[..., Any], api: APIClient) -> None:
    job = submit(song=upload(wav_bytes(song(2.0, 22_050, 1), 22_050))).json()
    tasks.run_covers.fn()
    result, rate = download(api, f"{URL}/{job['job_id']}/result")
    assert (rate, result.shape) == (RATE, (2 * RATE, 2))


def test_the_queue_of_a_tenant_is_bounded(
    submit: Callable[..., Any], settings: Any, leftovers: Callable[[], list[str]], other: Tenant
) -> None:
    settings.COVER_MAX_QUEUED = 2
    assert [submit().status_code for _ in range(2)] == [202, 202]
    files = leftovers()
    response = submit()
    assert (response.status_code, response.json()["error"]) == (429, "too_many_jobs")
    assert int(response["Retry-After"]) > 0
    assert leftovers() == files
    assert submit(other.client).status_code == 202


def test_a_stranger_sees_nothing_of_a_job(submit: Callable[..., Any], other: Tenant) -> None:
    pk = submit().json()["job_id"]
    for method, path in [
        ("get", ""),
        ("get", "/result"),
        ("get", "/stems/vocals"),
        ("post", "/cancel"),
        ("delete", ""),
    ]:
        response = getattr(other.client, method)(f"{URL}/{pk}{path}")
        assert (response.status_code, response.json()["error"]) == (404, "not_found"), path
    assert other.client.get(URL).json()["results"] == []
    assert CoverJob.objects.get().status == "queued"


def test_a_deleted_job_leaves_nothing(
    submit: Callable[..., Any], api: APIClient, leftovers: Callable[[], list[str]]
) -> None:
    job = submit().json()
    assert len(leftovers()) == 2
    assert api.delete(job["links"]["self"]).status_code == 204
    assert leftovers() == []
    assert api.get(job["links"]["self"]).status_code == 404


@pytest.mark.django_db(transaction=True)
def test_a_job_is_taken_though_the_broker_is_away(
    submit: Callable[..., Any], settings: Any, leftovers: Callable[[], list[str]]
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    with away():
        response = submit()
    assert response.status_code == 202
    assert len(leftovers()) == 2
    tasks.run_covers.fn()
    assert CoverJob.objects.get().status == "succeeded"


def test_deleting_at_the_same_time_as_canceling_harms_nothing(
    submit: Callable[..., Any], leftovers: Callable[[], list[str]]
) -> None:
    submit()
    first, second = CoverJob.objects.get(), CoverJob.objects.get()
    first.remove()
    assert not second.cancel()
    second.remove()
    assert leftovers() == []


def test_files_of_a_job_that_is_not_there_are_swept_by_age(
    submit: Callable[..., Any], leftovers: Callable[[], list[str]]
) -> None:
    if django_settings.STORAGE_URL:
        pytest.skip("files are in a bucket: tests/test_storage.py does the same there")
    submit()
    kept = leftovers()
    orphan = Path(django_settings.MEDIA_ROOT, "covers", str(uuid.uuid4()), "1-vocals.wav")
    orphan.parent.mkdir()
    orphan.write_bytes(b"left behind")
    assert CoverJob.sweep_orphans(3600) == 0
    os.utime(orphan, (time.time() - 7200, time.time() - 7200))
    assert CoverJob.sweep_orphans(3600) == 1
    assert leftovers() == kept
    assert not orphan.parent.exists()


def test_the_list_can_be_filtered(submit: Callable[..., Any], api: APIClient) -> None:
    jobs = [submit().json()["job_id"] for _ in range(2)]
    api.post(f"{URL}/{jobs[0]}/cancel")
    assert [job["job_id"] for job in api.get(f"{URL}?status=canceled").json()["results"]] == [jobs[0]]
    listed = api.get(URL).json()["results"]
    assert [job["job_id"] for job in listed] == jobs[::-1]
    assert {job["queue_position"] for job in listed} == {None}


def test_scratch_folders_of_attempts_that_do_not_run_are_swept(submit: Callable[..., Any]) -> None:
    job = CoverJob.objects.get(pk=submit().json()["job_id"])
    CoverJob.objects.update(status="running", attempt=2)
    assert tasks.scratch_in_use(f"cover-{job.pk}-2")
    for name in (f"cover-{job.pk}-1", f"cover-{uuid.uuid4()}-2", "something-else", f"cover-{job.pk}"):
        assert not tasks.scratch_in_use(name)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{python_exec} x.py {song}", "unknown placeholder"),
        ("{python_exec} 'x.py", "split"),
        ("no-such-program-here {song_input} {vocal_output} {inst_output}", "missing"),
        ("{python_exec} gpu_scripts/nope.py {song_input} {vocal_output} {inst_output}", "missing"),
        ("{python_exec} gpu_scripts/builtin_separate.py", "{vocal_output}"),
    ],
)
def test_a_wrong_template_is_a_system_check(settings: Any, template: str, problem: str) -> None:
    settings.COVER_SEPARATE_CMD_TEMPLATE = template
    commands.template.cache_clear()
    messages = [str(message.msg) for message in checks.command_templates(None)]
    assert any(problem in message and "COVER_SEPARATE_CMD_TEMPLATE" in message for message in messages), messages


def test_no_template_reaches_a_shell() -> None:
    programs = Path(django_settings.BASE_DIR, "voiceproject/commands").glob("*.py")
    for path in (Path(commands.__file__), *programs):
        assert not re.search(r"shell\s*=\s*True", path.read_text()), path
