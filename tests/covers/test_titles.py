"""What a cover and a synthesis are called: by default, renamed, in lists and events, and as downloads."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import pytest
from rest_framework.test import APIClient

from covers import tasks
from covers.models import CoverJob
from tests.support.audio import upload, wav_bytes
from tests.support.covers import RATE, URL, song
from tests.support.jobs import read_events
from tests.support.tenants import Tenant
from voiceproject.web.names import attachment, download_name, first_words, joined_title
from voices.speech.models import Synthesis

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("fresh_covers")]
SPEECH = "/api/v1/voice/synthesize"

TITLES = {
    "Snow, in june.wav": "Snow, in june.wav",
    "雪の歌 - 花子": "雪の歌 - 花子",
    "أغنية الثلج": "أغنية الثلج",
    "<script>alert(1)</script>": "_script_alert(1)__script_",
    'AC/DC "live" \\ 100 %': "AC_DC _live_ _ 100 %",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 song": "\U0001f468\u200d\U0001f469\u200d\U0001f467 song",
    "../../etc/passwd": "_.._etc_passwd",
    "line\r\nSet-Cookie: a=b": "line Set-Cookie_ a=b",
    "a\u202egnp.exe": "a gnp.exe",
    "a" * 500: "a" * 200,
    "漢" * 500: "漢" * 66,
}


def named(answer: Any) -> str:
    """The name that a browser gives a download: `filename*` before `filename`, as RFC 6266 has it."""
    header = answer["Content-Disposition"]
    assert header.isascii() and header.isprintable()
    found = re.fullmatch(r"""attachment; filename="([^"\\]+)"(?:; filename\*=UTF-8''([^ ;,'"]+))?""", header)
    assert found is not None, header
    return unquote(found[2], errors="strict") if found[2] else found[1]


def renamed(api: APIClient, link: str, title: str) -> Any:
    return api.patch(link, {"title": title}, format="json")


def test_a_cover_is_called_by_its_song_and_its_saved_voice(api: APIClient, submit: Any, save: Any) -> None:
    voice = save(name="Ada Lovelace").json()
    content = wav_bytes(song(), RATE)
    made = submit(song=upload(content, "Snow in June.mp3"), reference_voice=None, voice_id=voice["voice_id"]).json()
    assert made["title"] == "Snow in June - Ada Lovelace"
    assert submit(song=upload(content, "Snow in June.mp3")).json()["title"] == "Snow in June"
    tasks.run_covers.fn()
    assert named(api.get(made["links"]["self"] + "/result")) == "Snow in June - Ada Lovelace.wav"
    assert named(api.get(made["links"]["self"] + "/result?format=mp3")) == "Snow in June - Ada Lovelace.mp3"
    stem = api.get(made["links"]["self"] + "/stems/vocals")
    assert named(stem) == "Snow in June - Ada Lovelace-vocals.wav"
    assert renamed(api, made["links"]["self"], "Mine").json()["title"] == "Mine"
    assert api.post(made["links"]["self"] + "/remix").json()["title"] == "Mine"
    assert [job["title"] for job in api.get(f"{URL}?q=june").json()["results"]] == ["Snow in June"]
    assert [job["title"] for job in api.get(f"{URL}?q=MINE").json()["results"]] == ["Mine", "Mine"]


def test_a_synthesis_is_called_by_its_first_words(api: APIClient, reference_wav: bytes) -> None:
    text = "It was a bright cold day in April, and the clocks were striking thirteen. Winston came in."
    answer = api.post(SPEECH, {"text": text, "reference_audio": upload(reference_wav)})
    title = "It was a bright cold day in April, and the clocks were…"
    assert named(answer) == f"{title}.wav"
    (made,) = api.get("/api/v1/voice/syntheses").json()["results"]
    assert made["title"] == title
    for name, file in TITLES.items():
        shown = renamed(api, made["links"]["self"], name)
        assert shown.status_code == 200, (name, shown.content)
        for query in ("", "?manifest=false"):
            assert named(api.get(made["links"]["audio"] + query)) == f"{file}.wav", name
    (made,) = api.get("/api/v1/voice/syntheses?q=漢漢").json()["results"]
    assert made["title"] == "漢" * 500
    assert len(api.get("/api/v1/voice/syntheses?q=winston+bright").json()["results"]) == 1
    assert api.get("/api/v1/voice/syntheses?q=winston+smith").json()["results"] == []


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# Chapter one\n\nIs it *going* to rain?", "Chapter one Is it going to rain?"),
        ("<speak>Hello <break time='1s'/>there.</speak>", "Hello there."),
        ("- [x] **Milk**\n- Bread", "Milk Bread"),
        ("I <3 you, and 2 < 3 > 1.", "I <3 you, and 2 < 3 > 1."),
        ("<b></b>", "<b></b>"),
    ],
)
def test_marks_and_tags_of_a_text_are_no_part_of_its_title(text: str, title: str) -> None:
    assert Synthesis(text=text).shown_title == title


@pytest.mark.parametrize("title", ["", "   ", "\u202e\u200b", "a" * 501, "a\x00b", None])
def test_a_title_that_is_none_is_refused_and_the_old_one_stays(tenant: Tenant, api: APIClient, title: Any) -> None:
    job = CoverJob.objects.create(tenant=tenant.user, title="Old", status="succeeded")
    body = {"title": title} if isinstance(title, str) else {"name": "New"}
    refused = api.patch(f"{URL}/{job.pk}", body, format="json")
    assert (refused.status_code, refused.json()["error"]) == (400, "validation_error")
    job.refresh_from_db()
    assert (job.title, job.revision) == ("Old", 0)


def test_who_watches_a_job_is_told_of_its_new_name_and_nothing_else_of_it_changes(
    tenant: Tenant, api: APIClient
) -> None:
    job = CoverJob.objects.create(
        tenant=tenant.user, status="running", stage="infer", attempt=1, worker="w", progress=40
    )
    renamed(api, f"{URL}/{job.pk}", "While it runs")
    assert job.beat("infer", 60)  # Its worker has noticed nothing.
    assert job.succeed(1)
    *_, (_, last) = read_events(api.get(f"{URL}/{job.pk}/events", headers={"Last-Event-ID": "1"}))
    assert (last["title"], last["status"]) == ("While it runs", "succeeded")


def test_a_strangers_job_cannot_be_renamed(tenant: Tenant, other: Tenant) -> None:
    for made in (
        CoverJob.objects.create(tenant=tenant.user, status="succeeded"),
        Synthesis.objects.create(tenant=tenant.user, text="Mine.", status="succeeded"),
    ):
        path = URL if isinstance(made, CoverJob) else "/api/v1/voice/syntheses"
        assert renamed(other.client, f"{path}/{made.pk}", "Theirs").status_code == 404
        assert renamed(tenant.client, f"{path}/{made.pk}", "Ours").json()["title"] == "Ours"


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Short.", "Short."),
        ("  two\nlines ", "two lines"),
        ("one_long_word" * 10, ("one_long_word" * 10)[:59] + "…"),
        ("明日は晴れるでしょう。" * 20, ("明日は晴れるでしょう。" * 20)[:59] + "…"),
        ("\u200b", ""),
    ],
)
def test_first_words_are_cut_between_words_where_there_are_some(text: str, title: str) -> None:
    assert first_words(text) == title


def test_names_are_safe_whatever_they_are_made_of() -> None:
    assert joined_title("song", "") == "song"
    assert joined_title("s" * 300, "v" * 300)[296:306] == "ssss - vvv"
    assert download_name("...", "wav") == ""
    assert len(download_name("\U0001f600" * 500, "flac", "-instrumental").encode()) <= 255
    assert attachment("plain.wav", "id.wav") == 'attachment; filename="plain.wav"'
    assert attachment("100 %.wav", "id.wav") == "attachment; filename=\"id.wav\"; filename*=UTF-8''100%20%25.wav"
    assert attachment("é.wav", "id.wav").endswith("filename*=UTF-8''%C3%A9.wav")
