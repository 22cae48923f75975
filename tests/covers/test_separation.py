"""A cover tells the truth: where nobody sings nothing is converted, and what was not done well is a warning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from django.core.files.storage import default_storage
from rest_framework.test import APIClient

from covers import separation, tasks
from covers.models import CoverJob
from tests.support.audio import upload, wav_bytes
from tests.support.covers import RATE, URL, download, level_at, song
from tests.support.recordings import songs
from tests.support.tenants import Tenant

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("fresh_covers")]

SECONDS = 6


@pytest.fixture
def find_voice(settings: Any) -> None:
    settings.COVER_FIND_VOICE = True


@pytest.fixture(scope="module")
def parts() -> tuple[np.ndarray, np.ndarray]:
    """A voice and a band, float32 (n, 2), of 6 s each."""
    _, vocal, backing = songs.song(12.0)
    return vocal[: SECONDS * RATE].astype(np.float32), backing[: SECONDS * RATE].astype(np.float32)


def sent(samples: np.ndarray, name: str = "song.wav") -> Any:
    return upload(wav_bytes(samples, RATE, "FLOAT"), name)


def worked(api: APIClient, response: Any) -> dict[str, Any]:
    assert response.status_code == 202, response.content
    tasks.run_covers.fn()
    return api.get(response.json()["links"]["self"]).json()


def codes(job: dict[str, Any]) -> list[str]:
    return [warning["code"] for warning in job["warnings"] if warning["code"] != "engine"]


@pytest.mark.usefixtures("find_voice")
def test_an_instrumental_fails_before_anything_is_converted(
    submit: Callable[..., Any], api: APIClient, habits: Callable[..., None], parts: Any
) -> None:
    habits(infer="fail")
    done = worked(api, submit(song=sent(parts[1])))
    assert (done["status"], done["stage"], done["error"]) == ("failed", "separate", "no_vocals")
    assert "on_no_vocals=keep" in done["error_message"] and "input_kind=vocals" in done["error_message"]
    assert done["details"]["separation"]["sung_seconds"] == 0
    assert not done["links"]["vocals"]


@pytest.mark.usefixtures("find_voice")
def test_an_instrumental_is_given_back_where_that_was_asked_for(
    submit: Callable[..., Any], api: APIClient, habits: Callable[..., None], parts: Any
) -> None:
    habits(infer="fail")
    done = worked(api, submit(song=sent(parts[1]), on_no_vocals="keep", response_format="mp3"))
    assert (done["status"], codes(done)) == ("succeeded", ["kept"])
    assert "the song as it was sent" in done["warning"]
    response = api.get(f"{done['links']['result']}?format=wav")
    content = b"".join(response.streaming_content)
    result, _ = download(api, f"{done['links']['result']}?format=wav")
    np.testing.assert_allclose(result, parts[1], atol=2 / 32768)
    assert b"c2pa" not in content  # Nothing in it was made here.
    assert not done["links"]["converted"] and not done["links"]["remix"]
    flac = b"".join(api.get(f"{done['links']['result']}?format=flac").streaming_content)
    assert b"c2pa" not in flac


@pytest.mark.usefixtures("find_voice")
def test_a_melody_without_words_is_converted_and_told(submit: Callable[..., Any], api: APIClient, parts: Any) -> None:
    hz = np.repeat(songs.melody(SECONDS, 262.0, 4), RATE // 200)[: SECONDS * RATE]
    phase = 2 * np.pi * np.cumsum(hz) / RATE
    vowel = sum(np.exp(-((262 * k / 700 - 1) ** 2)) * np.sin(k * phase) for k in range(1, 12))
    mix = 0.1 * np.repeat(vowel[:, None], 2, axis=1) + 0.1 * parts[1][: len(hz)]
    done = worked(api, submit(song=sent(mix)))
    assert done["status"] == "succeeded", done
    found = done["details"]["separation"]
    assert (found["heard"], codes(done)) == ("melody", ["voice_not_recognised", "lead_left"])
    assert found["sung_seconds"] > 0.8 * SECONDS and done["links"]["converted"]
    assert "input_kind=vocals" in done["warnings"][-2]["message"]


@pytest.mark.usefixtures("find_voice")
def test_where_nobody_sings_all_of_the_stem_is_converted_where_that_was_asked_for(
    submit: Callable[..., Any], api: APIClient, parts: Any
) -> None:
    done = worked(api, submit(song=sent(parts[1]), on_no_vocals="convert"))
    assert (done["status"], codes(done)) == ("succeeded", ["voice_not_recognised"])
    assert (done["on_no_vocals"], done["details"]["separation"]["heard"]) == ("convert", "nobody")
    vocals, _ = download(api, done["links"]["vocals"])
    np.testing.assert_allclose(vocals, parts[1] / 2, atol=2e-4)
    # Whoever does not ask for that does not get those stems.
    assert worked(api, submit(song=sent(parts[1])))["error"] == "no_vocals"
    again = worked(api, submit(song=sent(parts[1]), on_no_vocals="convert"))
    assert (again["status"], codes(again)) == ("succeeded", ["voice_not_recognised"])


@pytest.mark.usefixtures("find_voice")
def test_only_what_is_sung_is_in_the_vocal_stem_and_a_bad_separation_is_told(
    submit: Callable[..., Any], api: APIClient, parts: Any
) -> None:
    vocal, backing = parts
    intro = np.concatenate([backing, vocal + backing])
    done = worked(api, submit(song=sent(intro / 2)))
    assert done["status"] == "succeeded", done
    vocals, _ = download(api, done["links"]["vocals"])
    instrumental, _ = download(api, done["links"]["instrumental"])
    # The quick separator puts half of all into both stems.
    assert np.max(np.abs(vocals[: 5 * RATE])) == 0
    np.testing.assert_allclose(instrumental[: 5 * RATE], intro[: 5 * RATE] / 2, atol=2e-4)
    assert np.std(vocals[7 * RATE :]) == pytest.approx(np.std(intro[7 * RATE :]) / 4, rel=0.05)
    np.testing.assert_allclose(vocals + instrumental, intro / 2, atol=2e-4)
    found = done["details"]["separation"]
    assert found["leftover_db"] == pytest.approx(-6, abs=0.6)
    assert 5 < found["sung_seconds"] < 6.6
    assert codes(done) == ["lead_left"]
    assert "input_kind=vocals" in done["warning"] and "another separator" in done["warning"]
    # A second voice takes the stems, and is told the same.
    again = worked(api, submit(song=sent(intro / 2)))
    assert (again["details"], codes(again)) == (done["details"], ["lead_left"])
    remixed = worked(api, api.post(f"{URL}/{done['job_id']}/remix", {"vocal_gain_db": 3}))
    assert codes(remixed) == ["lead_left"]


@pytest.mark.parametrize(("left", "places"), [(-20, (1, 1)), (-9, (1, 1)), (-4, (1, 0)), (-6, (1, -1))])
def test_what_is_left_of_the_lead_is_estimated_from_the_stems(
    tmp_path: Path, parts: Any, left: float, places: tuple[int, int]
) -> None:
    vocal, backing = (np.asarray(part) for part in parts)
    lead = vocal.mean(axis=1, keepdims=True) * np.array(places)
    share = 10 ** (left / 20)
    sf.write(tmp_path / "vocals.wav", lead * (1 - share), RATE, subtype="FLOAT")
    sf.write(tmp_path / "instrumental.wav", backing + lead * share, RATE, subtype="FLOAT")
    activity, found = separation.examine(tmp_path / "vocals.wav", tmp_path / "instrumental.wav")
    assert activity.heard == found["heard"] == "words" and separation.lead_found(found)
    assert found["leftover_db"] == pytest.approx(left, abs=2.0)
    assert found["place"] == {(1, 1): "centre", (1, 0): "left", (1, -1): "inverted"}[places]
    assert bool(separation.warnings_of(found)) == (left > -12)
    stems = tmp_path / "vocals.wav", tmp_path / "instrumental.wav"
    for told, mean in ((0.0, 10 * np.log10((10 ** (found["leftover_db"] / 10) + 1) / 2)), ("?", found["leftover_db"])):
        assert separation.examine(*stems, told)[1]["leftover_db"] == pytest.approx(mean, abs=0.1)


@pytest.mark.usefixtures("find_voice")
def test_noise_is_no_bare_voice_and_a_melody_without_words_is_told(submit: Callable[..., Any], api: APIClient) -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, (2 * RATE, 2))
    assert worked(api, submit(song=sent(noise), input_kind="vocals"))["error"] == "no_vocals"
    asked = worked(api, submit(song=sent(noise), input_kind="vocals", on_no_vocals="convert"))
    assert (asked["status"], codes(asked)) == ("succeeded", ["voice_not_recognised"])
    hummed = worked(api, submit(input_kind="vocals"))
    assert (hummed["status"], codes(hummed)) == ("succeeded", ["voice_not_recognised"])


def test_own_stems_are_mixed_from_their_beginnings(submit: Callable[..., Any], api: APIClient, other: Tenant) -> None:
    rate = 48_000
    time = np.arange(5 * rate) / rate
    backing = np.stack([0.3 * np.sin(2 * np.pi * 500 * time)] * 2, axis=1)
    own = upload(wav_bytes(backing, rate), "band.wav")
    response = submit(input_kind="vocals", instrumental=own)
    job = CoverJob.objects.get()
    sizes = [default_storage.size(field.name) for field in (job.song, job.reference_voice, job.own_instrumental)]
    assert job.input_bytes == sum(sizes)
    done = worked(api, response)
    assert (done["status"], codes(done)) == ("succeeded", ["lengths_differ"])
    assert "3.00 s" in done["warning"] and "5.00 s" in done["warning"]
    assert done["duration_seconds"] == pytest.approx(5.0)
    result, _ = download(api, done["links"]["result"])
    assert len(result) == 5 * RATE
    assert level_at(result[: 3 * RATE, 0], 500) == pytest.approx(level_at(result[3 * RATE :, 0], 500), rel=0.02)
    assert level_at(result[: 3 * RATE, 0], 220) > 0.1 and level_at(result[3 * RATE :, 0], 220) < 0.005
    remixed = worked(api, api.post(f"{URL}/{done['job_id']}/remix", {"instrumental_gain_db": -24}))
    quiet, _ = download(api, remixed["links"]["result"])
    assert level_at(quiet[:, 0], 500) < 0.15 * level_at(result[:, 0], 500)
    assert other.client.get(f"{URL}/{done['job_id']}/stems/instrumental").status_code == 404
    assert api.delete(f"{URL}/{done['job_id']}").status_code == 204
    assert not default_storage.exists(job.own_instrumental.name)


def test_an_instrumental_beside_a_mix_is_refused(submit: Callable[..., Any]) -> None:
    refused = submit(instrumental=upload(wav_bytes(song(1), RATE), "band.wav"))
    assert refused.status_code == 400
    assert "input_kind=vocals" in refused.json()["details"]["instrumental"][0]
    broken = submit(input_kind="vocals", instrumental=upload(b"no audio", "band.wav"))
    assert (broken.status_code, broken.json()["error"]) == (400, "invalid_audio")
    assert broken.json()["details"]["field"] == "instrumental"


@pytest.mark.parametrize(
    ("shift", "follow", "told", "hz"),
    [(3, False, ["accompaniment_key"], 500), (7, True, [], 500 * 2 ** (-5 / 12)), (-12, True, [], 500)],
)  # fmt: skip
def test_the_accompaniment_follows_or_it_is_told_that_it_does_not(
    submit: Callable[..., Any], api: APIClient, shift: int, follow: bool, told: list[str], hz: float
) -> None:
    time = np.arange(3 * RATE) / RATE
    backing = np.stack([0.3 * np.sin(2 * np.pi * 500 * time)] * 2, axis=1)
    own = upload(wav_bytes(backing, RATE), "band.wav")
    fields = {"input_kind": "vocals", "instrumental": own, "pitch_shift": shift, "shift_instrumental": follow}
    done = worked(api, submit(**fields))
    assert (done["status"], codes(done)) == ("succeeded", told)
    result, _ = download(api, done["links"]["result"])
    assert len(result) == 3 * RATE
    spectrum = np.abs(np.fft.rfft(result[:, 0] * np.hanning(len(result)), 1 << 18))
    band = slice(int(300 * (1 << 18) / RATE), None)
    found = (np.argmax(spectrum[band]) + band.start) * RATE / (1 << 18)
    assert abs(1200 * np.log2(found / hz)) < 12
