"""`<break time>` in what is heard, to 20 ms: anywhere in a text, in any language and format, in streams, on all routes.

The stand-in's voice begins with 80 ms of silence and ends with 150 ms, as voices do, so that exact means what is heard.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import requests
from rest_framework.test import APIClient

from tests.fakes.engine import FakeEngine
from tests.support.audio import decode, upload
from tests.support.tenants import Tenant
from voices.engines.interface import Piece

pytestmark = pytest.mark.django_db(transaction=True)
URL = "/api/v1/voice/synthesize"
LEAD_SECONDS, TAIL_SECONDS = 0.08, 0.15
EXACT = 0.02
TEXT = (
    "<break time='250ms'/>Hello there <break time='600ms'/> my friend.<break time='1.5s'/>How are you?"
    "<break time='0.7s'/>"
)
PAUSES = [0.25, 0.6, 1.5, 0.7]


@pytest.fixture
def engine(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    spoken = engine.synthesize

    def with_silence(*arguments: Any) -> Iterator[Piece]:
        for piece in spoken(*arguments):
            ends = [
                np.zeros(round(seconds * piece.sample_rate), np.float32) for seconds in (LEAD_SECONDS, TAIL_SECONDS)
            ]
            yield replace(piece, samples=np.concatenate([ends[0], piece.samples, ends[1]])) if piece.text else piece

    monkeypatch.setattr(engine, "synthesize", with_silence)
    monkeypatch.setattr(FakeEngine, "presets", ("female", "male"), raising=False)
    return engine


@pytest.fixture
def speak(api: APIClient, engine: FakeEngine, reference_wav: bytes) -> Callable[..., bytes]:
    def send(text: str, **fields: Any) -> bytes:
        response = api.post(URL, {"text": text, "reference_audio": upload(reference_wav), **fields})
        assert response.status_code == 200, response.content
        return b"".join(response.streaming_content) if response.streaming else response.content

    return send


def silences(samples: np.ndarray, rate: int) -> list[float]:
    """In front, between and behind what is loud, in seconds."""
    loud = np.flatnonzero(np.abs(samples) > 0.02)
    gaps = [(b - a) / rate for a, b in pairwise(loud) if b - a > 0.03 * rate]
    return [loud[0] / rate, *gaps, (len(samples) - 1 - loud[-1]) / rate]


@pytest.mark.parametrize(
    ("text", "language", "pauses"),
    [
        ("I came <break time='600ms'/> to see you.", "en", [LEAD_SECONDS, 0.6, TAIL_SECONDS]),
        ("One<break time='300ms'/> two <break time='1.2s'/>three.", "en", [LEAD_SECONDS, 0.3, 1.2, TAIL_SECONDS]),
        ("One. <break time='200ms'/><break time='.3s'/> Two.", "en", [LEAD_SECONDS, 0.5, TAIL_SECONDS]),
        ("Come, <break strength='strong'/> now.", "en", [LEAD_SECONDS, 0.75, TAIL_SECONDS]),
        ("A title\n\n<break time='900ms'/>A text.", "en", [LEAD_SECONDS, 0.9, TAIL_SECONDS]),
        ("<break time='1s'/>Hello.<break time='100ms'/>", "en", [1.0, 0.1]),
        ("我来了<break time='400ms'/>你在哪里？<break time='1s'/>好的。", "zh", [LEAD_SECONDS, 0.4, 1.0, TAIL_SECONDS]),
        ("共2.5<break time='350ms'/>元。", "zh", [LEAD_SECONDS, 0.35, TAIL_SECONDS]),
        ("他说“你好<break time='500ms'/>！”然后走了。", "zh", [LEAD_SECONDS, 0.5, TAIL_SECONDS]),
        (
            "はい<break time='750ms'/>、そうです。<break time='2s'/>では。",
            "ja",
            [LEAD_SECONDS, 0.75, 2.0, TAIL_SECONDS],
        ),
        ("Hello <break time='800ms'/> 世界。", "auto", [LEAD_SECONDS, 0.8, TAIL_SECONDS]),
        (TEXT, "en", PAUSES),
    ],
)
def test_a_pause_is_exact_wherever_it_stands(
    speak: Callable[..., bytes], text: str, language: str, pauses: list[float]
) -> None:
    heard = silences(*decode(speak(text, language=language)))
    assert heard == pytest.approx(pauses, abs=EXACT)


@pytest.mark.parametrize("speed", ["0.5", "1.0", "2.0"])
def test_a_pause_does_not_depend_on_the_speed(speak: Callable[..., bytes], speed: str) -> None:
    assert silences(*decode(speak(TEXT, speed=speed))) == pytest.approx(PAUSES, abs=EXACT)


@pytest.mark.parametrize("stream", ["false", "true"])
@pytest.mark.parametrize("format", ["wav", "mp3", "opus"])
def test_a_pause_is_exact_in_every_format_and_stream(speak: Callable[..., bytes], format: str, stream: str) -> None:
    heard = silences(*decode(speak(TEXT, response_format=format, stream=stream)))
    if format != "wav":  # What a stream's decoder has at the ends is not ours to say.
        heard, pauses = heard[1:-1], PAUSES[1:-1]
    else:
        pauses = PAUSES
    assert heard == pytest.approx(pauses, abs=EXACT)


def openai(url: str, secret: str, format: str) -> bytes:
    body = {"model": "tts-1", "voice": "alloy", "input": TEXT, "response_format": format}
    headers = {"Authorization": f"Bearer {secret}"}
    answer = requests.post(f"{url}/openai/v1/audio/speech", json=body, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.content


def elevenlabs(url: str, secret: str, path: str) -> requests.Response:
    answer = requests.post(
        f"{url}/elevenlabs/v1/text-to-speech/alloy{path}?output_format=pcm_24000",
        json={"text": TEXT},
        headers={"xi-api-key": secret},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.parametrize("format", ["wav", "flac"])
def test_a_pause_is_exact_by_openais_route(live_server: Any, tenant: Tenant, engine: FakeEngine, format: str) -> None:
    samples, rate = decode(openai(live_server.url, tenant.secret, format))
    assert silences(samples, rate) == pytest.approx(PAUSES, abs=EXACT)


@pytest.mark.parametrize("path", ["", "/stream"])
def test_a_pause_is_exact_by_elevenlabs_routes(live_server: Any, tenant: Tenant, engine: FakeEngine, path: str) -> None:
    content = elevenlabs(live_server.url, tenant.secret, path).content
    assert silences(np.frombuffer(content, "<i2") / 32768, 24_000) == pytest.approx(PAUSES, abs=EXACT)


@pytest.mark.parametrize("streaming", ["0", "1", "2", "3"])
@pytest.mark.parametrize("media_type", ["wav", "raw", "ogg", "aac"])
def test_a_pause_is_exact_by_gptsovits_route(
    live_server: Any, tenant: Tenant, engine: FakeEngine, media_type: str, streaming: str
) -> None:
    query = {"text": TEXT, "text_lang": "en", "ref_audio_path": "alloy", "media_type": media_type,
             "streaming_mode": streaming, "text_split_method": "cut5"}  # fmt: skip
    headers = {"X-API-Key": tenant.secret}
    answer = requests.post(f"{live_server.url}/gptsovits/tts", json=query, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    if media_type == "raw":
        heard = silences(np.frombuffer(answer.content, "<i2") / 32768, 32_000)
    else:
        heard = silences(*decode(answer.content))
    if media_type in ("ogg", "aac"):  # What a decoder has at the ends is not ours to say.
        assert heard[1:-1] == pytest.approx(PAUSES[1:-1], abs=EXACT)
    else:
        assert heard == pytest.approx(PAUSES, abs=EXACT)


@pytest.mark.parametrize(
    ("text", "language", "pauses"),
    [
        ("我来了<break time='400ms'/>你在哪里？<break time='1s'/>好的。", "zh", [0.4, 1.0]),
        ("はい<break time='750ms'/>、そうです。<break time='2s'/>では。", "all_ja", [0.75, 2.0]),
        ("Hello <break time='800ms'/> 世界。", "auto", [0.8]),
    ],
)
def test_gptsovits_older_route_pauses_in_every_language(
    live_server: Any, tenant: Tenant, engine: FakeEngine, text: str, language: str, pauses: list[float]
) -> None:
    query = {"text": text, "text_language": language, "refer_wav_path": "alloy", "speed": "1.5"}
    headers = {"X-API-Key": tenant.secret}
    answer = requests.get(f"{live_server.url}/gptsovits/", params=query, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    heard = silences(*decode(answer.content))
    assert heard == pytest.approx([LEAD_SECONDS, *pauses, TAIL_SECONDS], abs=EXACT)


def test_timestamps_have_the_pauses(live_server: Any, tenant: Tenant, engine: FakeEngine) -> None:
    answer = elevenlabs(live_server.url, tenant.secret, "/with-timestamps").json()
    samples = np.frombuffer(base64.b64decode(answer["audio_base64"]), "<i2") / 32768
    times = answer["alignment"]
    told = "".join(times["characters"])
    starts, ends = times["character_start_times_seconds"], times["character_end_times_seconds"]
    loud = np.flatnonzero(np.abs(samples) > 0.02) / 24_000
    gaps = [(a, b) for a, b in pairwise(loud) if b - a > 0.03]
    begins, stops = [loud[0], *[b for _, b in gaps]], [*[a for a, _ in gaps], loud[-1]]
    phrases = ("Hello there", "my friend.", "How are you?")
    assert len(begins) == len(phrases)
    for phrase, begin, stop in zip(phrases, begins, stops, strict=True):
        place = told.index(phrase)
        assert starts[place] == pytest.approx(begin, abs=EXACT), phrase
        assert ends[place + len(phrase) - 1] == pytest.approx(stop, abs=EXACT), phrase
