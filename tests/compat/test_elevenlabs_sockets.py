"""/elevenlabs/v1/text-to-speech/*/stream-input and multi-stream-input, by ElevenLabs' own client and by hand."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import soundfile as sf
import websocket
from django.utils import timezone
from elevenlabs import VoiceSettings
from elevenlabs.client import ElevenLabs
from elevenlabs.core.api_error import ApiError
from model_bakery import baker

from tests.fakes.gptsovits import pitch_of
from tests.support.audio import speech_like, wav_bytes
from tests.support.running.quick_server import Server, serving
from tests.support.running.tls import secured
from tests.support.tenants import Tenant
from tests.support.waiting import promised, until
from voiceproject.tenants.models import AuditEntry, UsageEntry
from voices.compat.elevenlabs.base import OUTPUTS
from voices.library.models import StandingConsent, Voice
from voices.speech.models import Synthesis

pytestmark = pytest.mark.django_db(transaction=True)

PITCH = 150.0
TEXT = "Here is the first sentence of three. This is the second one of them. And that was the third and last."
SENTENCES = 3


@pytest.fixture(scope="module")
def served(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "words").write_text("forbidden\n")
    filter = {"TEXT_FILTER": "voiceproject.textfilter.words", "TEXT_FILTER_WORDS": str(folder / "words")}
    # More contexts speak at once here than may wait where there are as few threads as in other tests.
    with serving(folder, **filter, WEB_THREADS="16") as server:
        yield server


@pytest.fixture
def voice_id(server: Server, tenant: Tenant) -> str:
    StandingConsent.objects.create(tenant=tenant.user, statement="All speakers of our company agreed in writing.")
    made = requests.post(
        f"http://127.0.0.1:{server.port}/elevenlabs/v1/voices/add", headers={"xi-api-key": tenant.secret},
        data={"name": "Jane"}, files={"files": ("a.wav", wav_bytes(speech_like(5.0), 16_000))}, timeout=60,
    )  # fmt: skip
    assert made.status_code == 200, made.text
    server.fake.log.clear()
    return str(made.json()["voice_id"])


class Talk:
    """A socket, and what came over it. kind: the route; the rest goes into the query."""

    def __init__(
        self, server: Server, voice_id: str, secret: str | None, kind: str = "stream-input", **query: Any
    ) -> None:
        query = {"output_format": "pcm_24000", **query}
        text = "&".join(f"{name}={value}" for name, value in query.items())
        self.output = OUTPUTS.get(query["output_format"])
        self.socket = websocket.create_connection(
            f"ws://127.0.0.1:{server.port}/elevenlabs/v1/text-to-speech/{voice_id}/{kind}?{text}",
            header={"xi-api-key": secret} if secret else {}, timeout=30,
        )  # fmt: skip
        self.came: list[dict[str, Any]] = []
        self.code = 0
        self.reason = ""

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.shutdown()

    def send(self, *messages: dict[str, Any] | str) -> None:
        for message in messages:
            self.socket.send(message if isinstance(message, str) else json.dumps(message))

    def next(self) -> dict[str, Any] | None:
        """The next message, None where the socket is closed."""
        opcode, data = self.socket.recv_data()
        if opcode == 8:
            self.code, self.reason = int.from_bytes(data[:2]), data[2:].decode()
            return None
        message: dict[str, Any] = json.loads(data)
        self.came.append(message)
        return message

    def to_end(self) -> dict[str, Any]:
        """Hears all until the socket is closed; the last message."""
        while self.next() is not None:
            pass
        return self.came[-1]

    def until_final(self, context: str | None = None) -> None:
        while True:
            message = self.next()
            assert message is not None, self.reason
            if message.get("isFinal") and (context is None or message["contextId"] == context):
                return

    def silent(self, seconds: float = 0.7) -> bool:
        """Whether nothing comes for so long."""
        self.socket.settimeout(seconds)
        try:
            return self.next() is None
        except websocket.WebSocketTimeoutException:
            return True
        finally:
            self.socket.settimeout(30)

    def content(self, context: str | None = None) -> bytes:
        return b"".join(base64.b64decode(one["audio"]) for one in self.of(context) if one.get("audio"))

    def of(self, context: str | None) -> list[dict[str, Any]]:
        return [one for one in self.came if context is None or one.get("contextId") == context]

    def heard(self, context: str | None = None) -> tuple[np.ndarray, int]:
        return decoded(self.content(context), self.output)

    def said(self, context: str | None = None) -> tuple[str, list[tuple[float, float]]]:
        """The text of all alignments, and when each character begins and ends on the context's clock, in seconds."""
        text, times, clock = "", [], 0.0
        for one in self.of(context):
            if (found := one.get("alignment")) is not None:
                assert found == one["normalizedAlignment"]
                starts, durations = found["charStartTimesMs"], found["charDurationsMs"]
                assert len(found["chars"]) == len(starts) == len(durations)
                text += "".join(found["chars"])
                times += [
                    (clock + start / 1000, clock + (start + duration) / 1000)
                    for start, duration in zip(starts, durations, strict=True)
                ]
                clock = times[-1][1]
        return text, times


def decoded(content: bytes, output: Any) -> tuple[np.ndarray, int]:
    if output.format not in ("pcm", "ulaw", "alaw"):
        return sf.read(io.BytesIO(content))
    subtype = {"pcm": "PCM_16", "ulaw": "ULAW", "alaw": "ALAW"}[output.format]
    return sf.read(
        io.BytesIO(content), samplerate=output.sample_rate, channels=1, format="RAW", subtype=subtype, endian="LITTLE"
    )


def streamed(server: Server, tenant: Tenant, voice_id: str, text: str = TEXT, format: str = "pcm_24000") -> np.ndarray:
    """What the HTTP stream says."""
    url = f"http://127.0.0.1:{server.port}/elevenlabs/v1/text-to-speech/{voice_id}/stream?output_format={format}"
    answer = requests.post(url, headers={"xi-api-key": tenant.secret}, json={"text": text}, timeout=60)
    assert answer.status_code == 200, answer.text
    return decoded(answer.content, OUTPUTS[format])[0]


def bursts(samples: np.ndarray, rate: int) -> list[float]:
    """The lengths in seconds of what is no silence, where silences last for a twentieth of a second."""
    block = rate // 100
    loud = [float(np.abs(samples[at : at + block]).max()) > 0.02 for at in range(0, len(samples) - block, block)]
    found, quiet, run = [], 0, 0
    for one in [*loud, *[False] * 6]:
        if one:
            run += 1 + (quiet if run else 0)
            quiet = 0
        else:
            quiet += 1
            if quiet == 5 and run:
                found.append(run / 100)
                run = 0
            if not run:
                quiet = 0 if quiet >= 5 else quiet
    return found


@pytest.mark.parametrize("format", ["mp3_44100_128", "pcm_16000", "ulaw_8000", "opus_48000_64"])
def test_words_one_by_one_sound_like_the_stream_of_the_whole(
    server: Server, tenant: Tenant, voice_id: str, format: str
) -> None:
    with Talk(server, voice_id, tenant.secret, output_format=format) as talk:
        talk.send({"text": " "})
        for word in TEXT.split(" "):
            talk.send({"text": f"{word} ", "try_trigger_generation": True})
        talk.send({"text": ""}, {"text": "Too late. "})
        assert talk.to_end()["isFinal"] is True
    assert talk.code == 1000
    samples, rate = talk.heard()
    whole = streamed(server, tenant, voice_id, format=format)
    assert pitch_of(samples, rate) == pytest.approx(pitch_of(whole, rate), rel=0.02)
    assert len(samples) / rate == pytest.approx(len(whole) / rate, abs=0.35)
    assert bursts(samples, rate) == pytest.approx(bursts(whole, rate), abs=0.06)
    text, times = talk.said()
    assert text.strip() == TEXT
    assert all(before[1] <= after[0] + 1e-6 for before, after in pairwise(times))
    assert times[-1][1] == pytest.approx(len(samples) / rate, abs=0.3)


@pytest.mark.parametrize(
    ("kind", "seconds"), [("stream-input", 0.6), ("stream-input", 2.0), ("multi-stream-input", 0.9)]
)
def test_times_and_sound_have_the_pauses_of_the_text(
    server: Server, tenant: Tenant, voice_id: str, kind: str, seconds: float
) -> None:
    said = f"This is one sentence. <break time='{seconds}s'/> And here is another one. "
    with Talk(server, voice_id, tenant.secret, kind) as talk:
        if kind == "stream-input":
            talk.send({"text": said}, {"text": ""})
        else:
            talk.send(
                {"text": said, "context_id": "a", "flush": True},
                {"context_id": "a", "close_context": True},
            )
        talk.until_final("a" if kind != "stream-input" else None)
    samples, rate = talk.heard()
    text, times = talk.said()
    loud = np.flatnonzero(np.abs(samples) > 0.02)
    [(stops, begins)] = [(a / rate, b / rate) for a, b in pairwise(loud) if b - a > 0.4 * rate]
    assert begins - stops == pytest.approx(seconds, abs=0.02)
    assert times[text.index("And here")][0] == pytest.approx(begins, abs=0.02)
    assert times[text.index("sentence.") + len("sentence.") - 1][1] == pytest.approx(stops, abs=0.02)


def test_the_official_client_speaks_and_hears(
    server: Server, tenant: Tenant, voice_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with secured(server.port, tmp_path) as front:
        monkeypatch.setenv("SSL_CERT_FILE", str(front.certificate))
        client = ElevenLabs(api_key=tenant.secret, base_url=f"https://127.0.0.1:{front.port}/elevenlabs")
        spoken = client.text_to_speech.convert_realtime(
            voice_id, text=iter(TEXT.partition(" ")), model_id="eleven_turbo_v2_5", output_format="mp3_22050_32",
            voice_settings=VoiceSettings(stability=1.0, speed=1.2),
        )  # fmt: skip
        samples, rate = sf.read(io.BytesIO(b"".join(spoken)))
        assert rate == 22_050
        assert len(bursts(samples, rate)) == SENTENCES
        calls = server.fake.log
        assert {call["body"]["speed_factor"] for call in calls} == {1.2}
        assert {round(call["body"]["temperature"], 3) for call in calls} == {0.1}
        with pytest.raises(ApiError) as refused:
            list(client.text_to_speech.convert_realtime("nobody", text=iter(["Hello."])))
        stranger = ElevenLabs(api_key="sk_wrong", base_url=f"https://127.0.0.1:{front.port}/elevenlabs")
        with pytest.raises(ApiError) as keyless:
            list(stranger.text_to_speech.convert_realtime(voice_id, text=iter(["Hello."])))
    assert refused.value.status_code == keyless.value.status_code == 1008
    assert "There is no such voice" in str(refused.value.body)
    assert "invalid" in str(keyless.value.body)


def test_text_waits_for_enough_of_it_or_for_a_flush(server: Server, tenant: Tenant, voice_id: str) -> None:
    with Talk(server, voice_id, tenant.secret, output_format="mp3_44100_128") as talk:
        talk.send({"text": " ", "generation_config": {"chunk_length_schedule": [80]}, "xi_api_key": "of no use"})
        talk.send({"text": TEXT[:60]})
        assert talk.silent()
        talk.send({"text": TEXT[60:90]})
        until(lambda: talk.next() and bool(server.fake.log))
        talk.send({"text": TEXT[90:], "flush": True})
        whole = streamed(server, tenant, voice_id, format="mp3_44100_128")
        until(lambda: talk.silent(0.3) and len(bursts(*talk.heard())) == SENTENCES, 20)
        # All of it can be heard, though the socket stays open and the encoder looks ahead.
        assert bursts(*talk.heard()) == pytest.approx(bursts(whole, 44_100), abs=0.06)
        talk.send({"text": "Now one more. ", "flush": True}, {"text": ""})
        talk.to_end()
        assert len(bursts(*talk.heard())) == SENTENCES + 1
        text, times = talk.said()
        assert text.strip() == f"{TEXT} Now one more."
        samples, rate = talk.heard()
        assert times[-1][1] == pytest.approx(len(samples) / rate, abs=0.3)
    jobs = Synthesis.objects.filter(status="succeeded", response_format="wav")
    assert "".join(sorted(job.text for job in jobs if job.text != TEXT)) == "And that was the third and last." + (
        "Here is the first sentence of three. This is the second one of them." + "Now one more."
    )
    entries = UsageEntry.objects.filter(tenant_id=tenant.user.pk, operation="synthesis")
    assert entries.count() == jobs.count() == 4
    assert {job.request_id for job in jobs if job.text != TEXT} == {talk.socket.headers["x-request-id"]}


def test_two_contexts_speak_at_once_and_each_ends_by_itself(server: Server, tenant: Tenant, voice_id: str) -> None:
    with Talk(server, voice_id, tenant.secret, "multi-stream-input", auto_mode="true") as talk:
        for name, speed in (("quick", 1.5), ("slow", 0.7)):
            talk.send({"text": " ", "context_id": name, "voice_settings": {"speed": speed}})
        talk.send({"text": "", "context_id": "quick"}, {"text": ""}, {"context_id": "nobody", "flush": True})
        for sentence in TEXT.replace(". ", ".|").split("|"):
            for name in ("quick", "slow"):
                talk.send({"text": f"{sentence} ", "context_id": name})
        talk.send({"context_id": "quick", "flush": True}, {"context_id": "quick", "close_context": True})
        talk.until_final("quick")
        # The name may be taken again, and another connection's context of this name is another one.
        talk.send({"text": "A new one. ", "context_id": "quick"})
        with Talk(
            server, voice_id, tenant.secret, "multi-stream-input", auto_mode="true", sync_alignment="true"
        ) as other:
            other.send(*({"text": text, "contextId": "slow"} for text in ("Elsewhere.", "Again.")))
            other.send({"close_socket": True})
            other.to_end()
            assert (other.code, other.said()[0]) == (1000, "Elsewhere. Again.")
        # Such times count from the beginning of the context.
        first, second = (one["alignment"]["charStartTimesMs"] for one in other.came if one.get("alignment"))
        assert 0 == first[0] < first[-1] < second[0] < second[-1] < 1000 * len(other.heard()[0]) / 24_000
        talk.send({"close_socket": True})
        talk.to_end()
    assert talk.code == 1000
    finals = [one["contextId"] for one in talk.came if one["isFinal"]]
    assert sorted(finals) == ["quick", "quick", "slow"]
    assert talk.said("slow")[0].strip() == TEXT
    assert talk.said("quick")[0].strip() == f"{TEXT} A new one."
    slow, quick = bursts(*talk.heard("slow")), bursts(*talk.heard("quick"))[:SENTENCES]
    assert np.array(slow) / np.array(quick) == pytest.approx([1.5 / 0.7] * SENTENCES, rel=0.1)


def test_a_context_that_is_closed_without_a_flush_falls_silent(server: Server, tenant: Tenant, voice_id: str) -> None:
    server.fake.hold_at = 1
    with Talk(server, voice_id, tenant.secret, "multi-stream-input") as talk:
        talk.send({"text": TEXT, "context_id": "a", "try_trigger_generation": True})
        while not talk.content("a"):
            talk.next()
        until(lambda: server.fake.begun == 2)
        talk.send({"context_id": "a", "close_context": True}, {"text": "Another. ", "context_id": "b", "flush": True})
        server.fake.gate.set()
        talk.until_final("a")
        talk.send({"context_id": "b", "close_context": True})
        talk.until_final("b")
        for number in range(6):
            talk.send({"text": " ", "context_id": str(number)})
        talk.to_end()
    assert (talk.code, talk.came[-1]["error"]) == (1008, "max_active_conversations")
    assert Synthesis.objects.get(text__startswith="Here").status == "canceled"
    assert server.fake.begun == 3


def test_a_text_that_is_refused_ends_its_context_alone(server: Server, tenant: Tenant, voice_id: str) -> None:
    with Talk(server, voice_id, tenant.secret, "multi-stream-input", inactivity_timeout=1) as talk:
        talk.send({"text": "This is forbidden. ", "context_id": "a", "flush": True})
        talk.until_final("a")
        assert talk.came[0]["error"] == "content_refused"
        talk.send({"text": "But this is not. ", "context_id": "b", "flush": True})
        talk.until_final("b")  # for nobody goes on with it
        assert [one["error"] for one in talk.of("b") if "error" in one] == ["input_timeout_exceeded"]
        assert talk.said("b")[0] == "But this is not. "
        talk.to_end()
    assert (talk.code, talk.came[-1]["error"]) == (1008, "input_timeout_exceeded")
    assert AuditEntry.objects.get(action="content.refuse").tenant_id == tenant.user.pk


def test_paragraphs_are_said_whole_and_a_silent_socket_is_closed(server: Server, tenant: Tenant, voice_id: str) -> None:
    text = "This is the first paragraph. It has two sentences.\n\nHere is the second one."
    with Talk(server, voice_id, tenant.secret, inactivity_timeout=1) as talk:
        talk.send({"text": text, "flush": True})
        assert talk.to_end()["error"] == "input_timeout_exceeded"
    assert talk.code == 1008
    assert talk.said()[0].split() == text.split()
    assert len(bursts(*talk.heard())) == SENTENCES


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        (["no JSON"], "invalid_input_message"),
        (["[" * 100_000], "invalid_input_message"),
        (['["a list"]'], "invalid_input_message"),
        ([{"text": 5}], "invalid_input_message"),
        ([{"text": " ", "voice_settings": {"speed": "fast"}}], "invalid_input_message"),
        ([{"text": " ", "generation_config": {"chunk_length_schedule": [1]}}], "invalid_input_message"),
        ([{"text": "a null byte: \0. ", "flush": True}], "validation_error"),
        ([{"text": "half a pair: \ud800. ", "flush": True}], "validation_error"),
        ([{"text": "word " * 100_000}], "max_character_limit_exceeded"),
        ([{"text": "word " * 210_000}], "too large"),
    ],
    ids=["text", "deep", "list", "number", "speed", "schedule", "null", "surrogate", "long", "a megabyte"],
)
def test_a_message_that_is_none_ends_the_socket_with_a_reason(
    server: Server, tenant: Tenant, voice_id: str, messages: list[Any], error: str
) -> None:
    with Talk(server, voice_id, tenant.secret) as talk:
        talk.send({"text": " ", "unknown": {"field": 1}})
        try:
            talk.send(*messages)
            while talk.next() is not None:
                pass
        except OSError:  # Who still sends may lose the last word.
            assert error == "too large"
            return
    if error == "too large":
        assert talk.code == 1009
        return
    assert (talk.code, talk.came[-1]["code"], talk.came[-1]["error"]) == (1008, 1008, error)
    assert talk.came[-1]["message"].startswith(talk.reason[:100])


def test_a_binary_message_and_a_wrong_query_are_refused(server: Server, tenant: Tenant, voice_id: str) -> None:
    with Talk(server, voice_id, tenant.secret) as talk:
        talk.socket.send_binary(b"{}")
        assert talk.to_end()["error"] == "invalid_input_message"
    for query in ({"output_format": "wav_44100"}, {"inactivity_timeout": "never"}, {"language_code": "xx"}):
        with Talk(server, voice_id, tenant.secret, **query) as talk:
            assert (talk.to_end()["error"], talk.code) == ("validation_error", 1008)
            assert next(iter(query)) in talk.reason


def test_a_key_comes_in_a_header_or_the_first_message_and_never_in_the_url(
    server: Server, tenant: Tenant, voice_id: str
) -> None:
    for first in ({"xi_api_key": tenant.secret}, {"xi-api-key": tenant.secret},
                  {"authorization": f"Bearer {tenant.secret}"}):  # fmt: skip
        with Talk(server, voice_id, None) as talk:
            talk.send({"text": "Hello. ", **first}, {"text": ""})
            assert talk.to_end()["isFinal"]
            assert talk.said()[0] == "Hello. "
    narrow = Tenant("dave", scopes=["usage"])
    for wrong, error in ((narrow.secret, "missing_permissions"), ("vck_wrong", "invalid_api_key"),
                         ("", "needs_authorization")):  # fmt: skip
        with Talk(server, voice_id, None) as talk:
            talk.send({"text": "Hello. ", "xi_api_key": wrong})
            assert (talk.to_end()["error"], talk.code) == (error, 1008)
    for query in ({"xi-api-key": tenant.secret}, {"authorization": f"Bearer%20{tenant.secret}"}):
        with Talk(server, voice_id, None, **query) as talk:
            assert (talk.to_end()["error"], talk.code) == ("needs_authorization", 1008)
            assert "URL" in talk.reason
    with Talk(server, voice_id, Tenant("eve").secret) as talk:
        assert (talk.to_end()["error"], talk.code) == ("voice_id_does_not_exist", 1008)


@pytest.mark.parametrize("kind", ["stream-input", "multi-stream-input"])
def test_a_bad_key_and_a_bad_voice_are_told_over_the_open_socket_as_elevenlabs_does(
    server: Server, tenant: Tenant, kind: str
) -> None:
    """Their server, with a key and a voice that it does not have, sent these names and codes in September 2026."""
    for voice, secret, error in (("JBFqnCBsd6RMkjVDRZzb", "sk_NotARealKey", "invalid_api_key"),
                                 ("notARealVoiceId000000", tenant.secret, "voice_id_does_not_exist")):  # fmt: skip
        with Talk(server, voice, secret, kind, inactivity_timeout=60, model_id="eleven_flash_v2_5") as talk:
            last = talk.to_end()
            assert set(last) == {"message", "error", "code"}
            assert (last["error"], last["code"], talk.code) == (error, 1008, 1008)
            assert last["message"].startswith(talk.reason) and len(talk.reason) > 10
            assert talk.came == [last], "nothing else was sent"


def test_the_engine_stops_when_the_client_vanishes(server: Server, tenant: Tenant, voice_id: str) -> None:
    server.fake.hold_at = 1
    with Talk(server, voice_id, tenant.secret) as talk:
        talk.send({"text": f"{TEXT} ", "flush": True})
        while not talk.content():
            talk.next()
        until(lambda: server.fake.begun == 2)
    time.sleep(0.3)
    server.fake.gate.set()
    until(lambda: Synthesis.objects.get().status == "canceled", 10)
    time.sleep(0.3)
    assert server.fake.begun == 2


@pytest.mark.parametrize(
    ("end", "error"), [("key", "invalid_api_key"), ("voice", "voice_id_does_not_exist"), ("quota", "quota_exceeded")]
)
def test_a_socket_ends_with_its_key_its_voice_and_its_quota(
    server: Server, tenant: Tenant, voice_id: str, end: str, error: str
) -> None:
    with Talk(server, voice_id, tenant.secret) as talk:
        talk.send({"text": "Hello there. ", "flush": True})
        while not talk.content():
            talk.next()
        ended = time.monotonic()
        if end == "key":
            tenant.key.revoked_at = timezone.now()
            tenant.key.save()
        elif end == "voice":
            Voice.objects.all().delete()
        else:
            baker.make("voiceproject.Tenant", user=tenant.user, monthly_audio_seconds=1)
            time.sleep(4.1)  # until a request of its own is counted for what is said
        if end != "key":
            talk.send({"text": "Are you still there? ", "flush": True})
        talk.to_end()
    assert (talk.came[-1]["error"], talk.code) == (error, 1008)
    assert time.monotonic() - ended < promised(5)


def test_words_are_said_by_the_dictionaries_of_the_first_message(server: Server, tenant: Tenant, voice_id: str) -> None:
    made = requests.post(
        f"http://127.0.0.1:{server.port}/elevenlabs/v1/pronunciation-dictionaries/add-from-rules",
        headers={"xi-api-key": tenant.secret}, timeout=30,
        json={"name": "x", "rules": [{"type": "alias", "string_to_replace": "SQL", "alias": "sequel"}]},
    ).json()  # fmt: skip
    for multi in (False, True):
        server.fake.log.clear()
        kind = "multi-stream-input" if multi else "stream-input"
        locators = [{"pronunciation_dictionary_id": made["id"]}]
        first = {"text": " ", "pronunciation_dictionary_locators": locators}
        with Talk(server, voice_id, tenant.secret, kind) as talk:
            talk.send(first, {"text": "We use SQL here. ", "flush": True})
            talk.send({"close_socket": True} if multi else {"text": ""})
            talk.to_end()
        assert talk.code == 1000
        assert [call["body"]["text"] for call in server.fake.log if "body" in call] == ["We use sequel here."]
        assert talk.said()[0].strip() == "We use SQL here."
    first["pronunciation_dictionary_locators"] = [{"pronunciation_dictionary_id": voice_id}]
    with Talk(server, voice_id, tenant.secret) as talk:
        talk.send(first, {"text": "We use SQL here. "}, {"text": ""})
        assert "There is no such lexicon" in talk.to_end()["message"]
    assert talk.code == 1008


def test_what_a_stranger_may_send_harms_nobody(server: Server, tenant: Tenant, voice_id: str) -> None:
    with Talk(server, voice_id, tenant.secret) as large:
        large.send({"text": "a" * 900_000})
        assert (large.to_end()["error"], large.code) == ("max_character_limit_exceeded", 1008)
    with (
        Talk(server, voice_id, tenant.secret, "multi-stream-input") as one,
        Talk(server, voice_id, tenant.secret, "multi-stream-input") as two,
    ):
        # The same name on two connections is two contexts.
        for talk, text in ((one, "This is the first."), (two, "Here is another one, and it is longer.")):
            talk.send({"text": text, "context_id": "same", "flush": True, "colour": ["blue"], "voice_settings": None})
            talk.send({"context_id": "same", "close_context": True})
        for talk in (one, two):
            talk.until_final("same")
        assert 0 < len(one.content("same")) < len(two.content("same"))
    with Talk(server, voice_id, None, **{"xi-api-key": tenant.secret}) as keyed:
        assert keyed.to_end()["error"] == "needs_authorization"
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        url = f"ws://127.0.0.1:{server.port}/elevenlabs/v1/text-to-speech/{voice_id}/stream-input"
        websocket.create_connection(url, header={"xi-api-key": tenant.secret}, host="elsewhere.example.com", timeout=30)
    assert refused.value.status_code == 400
    assert b"host name" in (refused.value.resp_body or b"")


def test_a_stopping_server_lets_the_sentence_under_way_be_heard(server: Server, tenant: Tenant, voice_id: str) -> None:
    """The last test here: its server is gone afterwards."""
    server.fake.hold_at = 1
    with Talk(server, voice_id, tenant.secret) as talk, Talk(server, voice_id, tenant.secret) as idle:
        talk.send({"text": f"{TEXT} ", "flush": True})
        while not talk.content():
            talk.next()
        until(lambda: server.fake.begun == 2)
        server.process.terminate()
        assert (idle.next(), idle.code) == (None, 1012)
        server.fake.gate.set()
        talk.to_end()
        assert (talk.code, talk.reason) == (1012, "the server stops")
        said = "".join("".join(message["alignment"]["chars"]) for message in talk.came if message.get("alignment"))
        assert said.strip() == TEXT[: TEXT.index("This")].strip()
        ends = [message["alignment"] for message in talk.came if message.get("alignment")][-1]
        aligned = (ends["charStartTimesMs"][-1] + ends["charDurationsMs"][-1]) / 1000
        assert len(talk.content()) / 2 / 24_000 == pytest.approx(aligned, abs=0.05), "all of it, and no more"
        assert talk.came[-1]["isFinal"] is True
    assert server.process.wait(40) == 0
