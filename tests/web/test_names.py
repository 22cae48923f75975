"""Names of uploaded files: none refuses a request, and what is left of each is a cover's title."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings
from rest_framework.test import APIClient

from covers.models import CoverJob
from voiceproject.web.uploads import clean_title

HAN, EMOJI = "漢" * 80, "\N{MICROPHONE}" * 255
PERCENT = "".join(f"%{byte:02X}" for byte in HAN.encode())
OCTETS = b"Content-Type: application/octet-stream\r\n"


def form(song: bytes, reference: bytes, song_head: bytes) -> bytes:
    """song_head: what is behind `name="song"`, and other headers."""
    return (
        b'--b\r\nContent-Disposition: form-data; name="song"' + song_head + b"\r\n\r\n" + song
        + b'\r\n--b\r\nContent-Disposition: form-data; name="reference_voice"; filename=""\r\n' + OCTETS
        + b"\r\n" + reference + b"\r\n--b--\r\n"
    )  # fmt: skip


def post(api: APIClient, body: bytes) -> Any:
    return api.generic("POST", "/api/v1/cover/jobs", body, "multipart/form-data; boundary=b")


NAMES = {
    b'; filename="song.mp3"\r\n' + OCTETS: "song",
    '; filename="Grüße.mp3"\r\n'.encode("latin-1") + OCTETS: "Grüße",
    '; filename="さくらの歌.mp3"\r\n'.encode("cp932") + OCTETS: "さくらの歌",
    b'; filename=".."\r\n' + OCTETS: "",
    b'; filename="../../etc/passwd"\r\n' + OCTETS: "passwd",
    b'; filename="albums/"\r\n' + OCTETS: "albums",
    b'; filename="C:\\music\\"\r\n' + OCTETS: "music",
    f"; filename=\"{HAN}.mp3\"; filename*=UTF-8''{PERCENT}.mp3\r\n".encode() + OCTETS: HAN,
    f'; filename="{EMOJI}"\r\n'.encode() + OCTETS: EMOJI[:200],
    b'; filename="say \\"hi\\".mp3"\r\n' + OCTETS: 'say "hi"',
    b'; filename="say %22hi%22.mp3"\r\n' + OCTETS: 'say "hi"',
    b"; filename=plain.mp3\r\n" + OCTETS: "plain",
    b'; filename=""\r\n' + OCTETS: "",
    b"\r\n" + OCTETS: "",
    b"\r\n": "",
}


@pytest.mark.django_db(transaction=True)
def test_no_name_of_a_file_refuses_a_cover_and_each_is_its_title(api: APIClient, reference_wav: bytes) -> None:
    for head, title in NAMES.items():
        answer = post(api, form(reference_wav, reference_wav, head[:-2]))
        assert answer.status_code == 202, (head, answer.content)
        assert answer.json()["title"] == title, head
        assert CoverJob.objects.get(pk=answer.json()["job_id"]).title == title
        CoverJob.objects.get(pk=answer.json()["job_id"]).remove()


@pytest.mark.django_db(transaction=True)
def test_a_form_keeps_its_limits(api: APIClient, reference_wav: bytes) -> None:
    whole = form(reference_wav, reference_wav, b'; filename="a"\r\n' + OCTETS[:-2])
    field = b'--b\r\nContent-Disposition: form-data; name="lyrics"\r\n\r\n%s\r\n'
    file = b'--b\r\nContent-Disposition: form-data; name="song"; filename="a"\r\n\r\nRIFF\r\n'
    cases = [
        (whole[:-5], "breaks off"),
        (whole[: len(whole) // 2], "breaks off"),
        (b"--c" + whole[3:], "boundary"),
        (field % (b"a" * (settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)) + whole, ""),
        (field % b"a" * (settings.DATA_UPLOAD_MAX_NUMBER_FIELDS + 1) + whole, ""),
        (file * (settings.DATA_UPLOAD_MAX_NUMBER_FILES + 1) + whole, ""),
        (b"--b\r\nX: " + b"a" * 20_000 + b"\r\n\r\n\r\n" + whole, "header"),
    ]
    for body, told in cases:
        answer = post(api, body)
        assert 400 <= answer.status_code < 500, answer.content
        assert told in answer.json()["message"], answer.content
    assert not CoverJob.objects.exists()


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("a\u202eb\x00c\nd.wav", "a b c d"),
        ("Dr. Feelgood v1.2", "Dr. Feelgood v1.2"),
        ("family \U0001f468\u200d\U0001f469\u200d\U0001f467.m4a", "family \U0001f468\u200d\U0001f469\u200d\U0001f467"),
        (" . ", ""),
        ("call.3gp", "call"),
        ("\udce9", ""),
    ],
)
def test_a_title_has_nothing_that_a_page_minds(name: str, title: str) -> None:
    assert clean_title(name) == title
