"""The mark on what is made here: manifests, who signed them, and how a recording is found without one."""

from __future__ import annotations

import base64
import io
import json
import multiprocessing
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import av
import c2pa
import numpy as np
import pytest
import soundfile as sf
import soxr
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from rest_framework.test import APIClient

from covers import commands, tasks
from tests.fakes.engine import FakeEngine
from tests.support.audio import upload, wav_bytes
from tests.support.covers import INFER, SEPARATE
from tests.support.tenants import Tenant
from voiceproject.jobs.status import JobStatus
from voiceproject.media import audio
from voiceproject.operations import checks
from voiceproject.provenance import fingerprint, signer, verification
from voiceproject.provenance.manifest import JOB_LABEL, MIME_TYPES, sign
from voiceproject.provenance.marks import cover_landmarks, keep_landmarks, make_landmarks, mark_cover
from voiceproject.provenance.models import Landmark, Mark, SigningCertificate
from voices.engines import configured
from voices.engines.interface import Piece, SynthesisRequest
from voices.speech.models import Synthesis

SPEECH = "/api/v1/voice/synthesize"
VERIFY = "/api/v1/provenance/verify"
RATE = 24_000
SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def babble(text: str, seconds: float = 7.0, rate: int = RATE) -> np.ndarray:
    """float32 (n,): syllables of one voice. Another text is another order of the same twenty of them."""
    voice = np.random.default_rng(1)
    known = []
    for _ in range(20):
        time = np.arange(round(voice.uniform(0.1, 0.25) * rate)) / rate
        pitch = 120 * (1 + 0.3 * voice.uniform(-1, 1) + voice.uniform(-0.3, 0.3) * time / time[-1])
        formants = voice.uniform((250, 800, 2000), (800, 2200, 3500))
        tone = np.zeros_like(time)
        phase = 2 * np.pi * np.cumsum(pitch) / rate
        for k in range(1, 30):
            gain = sum(np.exp(-(((k * 120 - formant) / 200) ** 2)) for formant in formants) + 0.02
            tone += gain * np.sin(k * phase + voice.uniform(0, 6))
        known.append(0.2 * tone * np.hanning(len(time)))
    order = np.random.default_rng(list(text.encode()))
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < seconds * rate:
        parts += [known[order.integers(20)], np.zeros(order.integers(1, rate // 20))]
    return np.concatenate(parts)[: round(seconds * rate)].astype(np.float32)


def mp3(samples: np.ndarray, rate: int, kilobits: int = 128) -> bytes:
    """As an ordinary encoder makes it: stereo players' 44.1 kHz, and no manifest."""
    samples = soxr.resample(samples, rate, 44_100)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=44_100, layout="mono")
        stream.bit_rate = kilobits * 1000
        frame = av.AudioFrame.from_ndarray(np.clip(samples, -1, 1)[np.newaxis], format="fltp", layout="mono")
        frame.sample_rate = 44_100
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return buffer.getvalue()


class Babbler(FakeEngine):
    seconds = 7.0

    def synthesize(self, request: SynthesisRequest, deadline: float, canceled: Callable[[], bool]) -> Iterator[Piece]:
        self.requests.append(request)
        samples = babble(request.text, self.seconds)
        for index, half in enumerate(np.split(samples, 2)):
            self.before_piece(index)
            if self.failure:
                raise self.failure
            yield Piece(half, RATE, request.text[:1])


@pytest.fixture
def babbler(monkeypatch: pytest.MonkeyPatch) -> Babbler:
    engine = Babbler()
    monkeypatch.setattr(configured, "load_engine", lambda: engine)
    return engine


@pytest.fixture(autouse=True)
def fresh_signer(tmp_path: Path, settings: Any) -> Iterator[None]:
    settings.DATA_DIR = tmp_path
    signer.forget()
    yield
    signer.forget()


@pytest.fixture
def say(api: APIClient, babbler: Babbler, reference_wav: bytes) -> Callable[..., Any]:
    def post(text: str = "One two three.", **fields: str) -> Any:
        form = {"text": text, "reference_audio": upload(reference_wav), **fields}
        response = api.post(SPEECH, form)
        assert response.status_code == 200, response.content
        return response

    return post


@pytest.fixture
def verify(api: APIClient) -> Callable[[bytes], dict[str, Any]]:
    def post(content: bytes) -> dict[str, Any]:
        response = api.post(VERIFY, {"file": upload(content, "found.bin", "application/octet-stream")})
        assert response.status_code == 200, response.content
        return response.json()

    return post


def manifest(content: bytes, format: str) -> dict[str, Any]:
    anchors = "".join(part for row in SigningCertificate.objects.all() for part in row.issuers)
    with c2pa.Context.from_dict({"trust": {"trust_anchors": anchors}}) as context:
        reader = c2pa.Reader(MIME_TYPES[format], io.BytesIO(content), context=context)
        assert reader.get_validation_state() == "Trusted", reader.json()
        return reader.get_active_manifest()


def assertions(found: dict[str, Any]) -> dict[str, Any]:
    return {part["label"]: part["data"] for part in found["assertions"]}


# --- Manifests ---


@pytest.mark.parametrize("format", ["wav", "flac", "mp3"])
def test_a_synthesis_carries_who_made_it_how_and_when_and_nothing_of_the_tenant(
    say: Callable[..., Any], api: APIClient, tenant: Tenant, format: str
) -> None:
    response = say("My very own secret.", response_format=format)
    found = manifest(response.content, format)
    assert found["claim_generator_info"][0]["name"] == "Voiceproject"
    (action,) = assertions(found)["c2pa.actions.v2"]["actions"]
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"] == SOURCE + "trainedAlgorithmicMedia"
    made_at = datetime.fromisoformat(action["when"])
    assert timedelta(0) <= datetime.now(UTC) - made_at < timedelta(minutes=1)
    assert assertions(found)[JOB_LABEL]["id"] == response["X-Synthesis-ID"]
    for secret in (b"secret", b"alice", tenant.secret.encode(), tenant.key.prefix.encode(), b"test"):
        assert secret not in response.content
    stored = api.get(f"/api/v1/voice/syntheses/{response['X-Synthesis-ID']}/audio")
    assert b"".join(stored.streaming_content) == response.content


@pytest.mark.parametrize("format", ["wav", "flac", "mp3"])
def test_the_mark_changes_no_sample_and_every_decoder_reads_it(format: str, tmp_path: Path, db: None) -> None:
    plain = audio.encode(babble("x", 4.0), RATE, format)
    signed = sign(plain, format, what="speech", job_id=uuid.uuid4())
    assert 0 < len(signed) - len(plain) < 6000
    before, after = (sf.read(io.BytesIO(content))[0] for content in (plain, signed))
    assert np.array_equal(before, after)
    with av.open(io.BytesIO(signed)) as container:
        frames = sum(frame.samples for frame in container.decode(audio=0))
    assert abs(frames - len(before)) <= (4 * 1152 if format == "mp3" else 0)
    (tmp_path / "signed").write_bytes(signed)
    samples, _ = audio.load_reference(tmp_path / "signed", field="x")
    assert len(samples) == len(before)


def test_the_same_seed_gives_the_same_samples_though_not_the_same_bytes(say: Callable[..., Any]) -> None:
    first, second = (say(seed="7").content for _ in range(2))
    assert first != second
    assert np.array_equal(*(sf.read(io.BytesIO(content))[0] for content in (first, second)))


def test_what_cannot_be_signed_does_not_leave(
    api: APIClient,
    babbler: Babbler,
    reference_wav: bytes,
    monkeypatch: pytest.MonkeyPatch,
    leftovers: Callable[..., Any],
) -> None:
    def fail(*args: Any) -> None:
        raise c2pa.C2paError("no")

    monkeypatch.setattr("voiceproject.provenance.manifest._sign", fail)
    response = api.post(SPEECH, {"text": "Hello", "reference_audio": upload(reference_wav)})
    assert (response.status_code, response.json()["error"]) == (500, "internal_error")
    assert Synthesis.objects.get().status == JobStatus.FAILED
    assert not Mark.objects.exists()
    assert leftovers() == []


class TestCovers:
    @pytest.fixture(autouse=True)
    def quick(self, settings: Any, db: None) -> Iterator[None]:
        settings.COVER_SEPARATE_CMD_TEMPLATE, settings.COVER_INFER_CMD_TEMPLATE = SEPARATE, INFER
        commands.template.cache_clear()
        yield
        commands.template.cache_clear()

    @pytest.mark.django_db(transaction=True)
    def test_every_format_the_converted_stem_and_a_remix_are_signed_once(
        self, api: APIClient, reference_wav: bytes, verify: Callable[..., Any]
    ) -> None:
        song = wav_bytes(np.stack([babble("song", 6.0, 44_100)] * 2, axis=1), 44_100)
        form = {"song": upload(song), "reference_voice": upload(reference_wav), "response_format": "mp3"}
        job = api.post("/api/v1/cover/jobs", form).json()
        tasks.run_covers.fn()
        done = api.get(job["links"]["self"]).json()
        assert done["status"] == "succeeded", done
        result = done["links"]["result"]
        for url, format, source in (
            (f"{result}?format=wav", "wav", "compositeWithTrainedAlgorithmicMedia"),
            (f"{result}?format=flac", "flac", "compositeWithTrainedAlgorithmicMedia"),
            (result, "mp3", "compositeWithTrainedAlgorithmicMedia"),
            (done["links"]["converted"], "wav", "trainedAlgorithmicMedia"),
        ):
            first = api.get(url)
            content = b"".join(first.streaming_content)
            found = manifest(content, format)
            assert assertions(found)["c2pa.actions.v2"]["actions"][0]["digitalSourceType"] == SOURCE + source
            assert assertions(found)[JOB_LABEL]["id"] == done["job_id"]
            half = len(content) // 2
            rest = api.get(url, headers={"Range": f"bytes={half}-", "If-Range": first["ETag"]})
            assert rest.status_code == 206
            assert content[:half] + b"".join(rest.streaming_content) == content
            assert verify(content) | {"made_at": None} == {
                "made_here": True, "made_at": None, "how": "manifest", "kind": "cover", "manifest": "ours",
                "manifest_valid": True, "warnings": [],
            }  # fmt: skip
        # What is the song's own is no work of ours.
        vocals = b"".join(api.get(done["links"]["vocals"]).streaming_content)
        assert b"c2pa" not in vocals
        assert verify(vocals)["made_here"] is False
        remix = api.post(f"/api/v1/cover/jobs/{done['job_id']}/remix", {"vocal_gain_db": 3}, format="json").json()
        tasks.run_covers.fn()
        content = b"".join(api.get(f"{remix['links']['self']}/result").streaming_content)
        assert assertions(manifest(content, "wav"))[JOB_LABEL]["id"] == remix["job_id"]


def test_of_a_covers_sound_only_what_is_new_is_remembered(tmp_path: Path, db: None) -> None:
    vocals, band, sung = babble("vocals", 9.0), babble("band", 9.0), babble("sung", 9.0)
    for name, samples in (("vocals", vocals), ("band", band), ("cover", band + sung)):
        sf.write(tmp_path / f"{name}.wav", samples / 2, RATE)
    paths = [tmp_path / f"{name}.wav" for name in ("cover", "vocals", "band")]
    mark_cover(uuid.uuid4(), paths[0], cover_landmarks(*paths))

    def found(samples: np.ndarray) -> bool:
        path = tmp_path / "leaked"
        path.write_bytes(mp3(samples / 2, RATE))
        return verification.verify(path).made_here

    assert found((band + sung)[2 * RATE :])
    assert not found(vocals + band)
    assert not found(band)
    assert not found(band + babble("another singer", 9.0))


# --- Verification ---


@pytest.mark.django_db(transaction=True)
def test_the_answer_says_whether_and_when_and_never_by_whom(
    say: Callable[..., Any], other: Tenant, verify: Callable[..., Any]
) -> None:
    content = say().content
    response = other.client.post(VERIFY, {"file": upload(content)})
    body = response.json()
    assert set(body) == {"made_here", "made_at", "how", "kind", "manifest", "manifest_valid", "warnings"}
    assert (body["made_here"], body["how"], body["kind"]) == (True, "manifest", "synthesis")
    assert datetime.now(UTC) - datetime.fromisoformat(body["made_at"]) < timedelta(minutes=1)
    assert "alice" not in response.content.decode()
    narrow = Tenant("carol", scopes=["usage"])
    assert narrow.client.post(VERIFY, {"file": upload(content)}).json() == body


def test_a_stranger_is_refused_and_what_is_no_audio_is_told_so(api: APIClient, reference_wav: bytes) -> None:
    assert APIClient().post(VERIFY, {"file": upload(reference_wav)}).status_code == 401
    response = api.post(VERIFY, {"file": upload(b"no audio at all")})
    assert (response.status_code, response.json()["error"]) == (400, "invalid_audio")
    assert api.post(VERIFY, {}).json()["details"] == {"file": ["No file was submitted."]}
    assert api.post(VERIFY, {"file": upload(wav_bytes(babble("never made here"), RATE))}).json() == {
        "made_here": False, "made_at": None, "how": None, "kind": None, "manifest": "none", "manifest_valid": None,
        "warnings": [],
    }  # fmt: skip


@pytest.mark.parametrize("format", ["wav", "flac", "mp3"])
@pytest.mark.django_db(transaction=True)
def test_an_altered_file_has_a_broken_manifest_and_is_known_by_its_sound(
    say: Callable[..., Any], verify: Callable[..., Any], format: str
) -> None:
    content = bytearray(say(response_format=format).content)
    content[len(content) * 2 // 3 if format == "wav" else -200] ^= 1
    try:
        found = verify(bytes(content))
    except AssertionError:
        assert format == "flac"  # Its own checksum says that it is damaged.
        return
    assert (found["made_here"], found["how"]) == (True, "fingerprint")
    assert (found["manifest"], found["manifest_valid"]) == ("broken", False)


def signed_by(identity: signer.Identity, content: bytes, job: str = "x") -> bytes:
    """As a forger would: our words, signed with another certificate."""
    claim = {
        "claim_generator_info": [{"name": "Voiceproject", "version": "1"}],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [{"action": "c2pa.created", "when": "2020-01-01T00:00:00Z",
                                                               "digitalSourceType": SOURCE + "digitalCapture"}]}},
            {"label": JOB_LABEL, "data": {"id": job, "kind": "cover", "made_at": "2020-01-01T00:00:00Z"}},
        ],
    }  # fmt: skip
    signed = io.BytesIO()
    with signer.as_signer(identity) as made:
        c2pa.Builder(claim).sign(made, "audio/wav", io.BytesIO(content), signed)
    return signed.getvalue()


@pytest.mark.django_db(transaction=True)
def test_a_manifest_of_another_signer_makes_nothing_ours(
    say: Callable[..., Any], verify: Callable[..., Any], tmp_path: Path, settings: Any
) -> None:
    ours = say().content
    settings.DATA_DIR = tmp_path / "elsewhere"
    settings.DATA_DIR.mkdir()
    forger = signer.load()
    found = verify(signed_by(forger, wav_bytes(babble("a real person"), RATE)))
    assert (found["made_here"], found["manifest"], found["manifest_valid"]) == (False, "foreign", True)
    # Nor does one make what is ours another's.
    found = verify(signed_by(forger, ours))
    assert (found["made_here"], found["how"], found["manifest"]) == (True, "fingerprint", "foreign")
    assert found["made_at"] > "2025"


@pytest.mark.parametrize("format", ["opus", "pcm"])
@pytest.mark.django_db(transaction=True)
def test_what_carries_no_manifest_is_known_by_its_hash(
    say: Callable[..., Any], verify: Callable[..., Any], format: str
) -> None:
    content = say(response_format=format).content
    assert b"c2pa" not in content
    assert verify(content)["how"] == "hash"


def samples_to_a_naive_parser(wav: bytes) -> np.ndarray:
    """int16: all that follows the header of `data`, as LiveKit's decoder and others take it, with other chunks skipped
    by the size that they tell."""
    assert (wav[:4], wav[8:12]) == (b"RIFF", b"WAVE")
    at = 12
    while wav[at : at + 4] != b"data":
        at += 8 + int.from_bytes(wav[at + 4 : at + 8], "little")
    rest = wav[at + 8 :]
    return np.frombuffer(rest[: len(rest) // 2 * 2], "<i2")


@pytest.mark.django_db(transaction=True)
def test_a_naive_parser_hears_speech_alone_in_what_is_made_for_clients_of_speech(
    say: Callable[..., Any], api: APIClient, verify: Callable[..., Any], reference_wav: bytes, settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(Babbler, "presets", ("female",), raising=False)
    signed = say()
    heard, _ = sf.read(io.BytesIO(signed.content), dtype="int16")
    assert len(samples_to_a_naive_parser(signed.content)) > len(heard) + 1000, "the manifest is heard"
    openai = {"input": "One two three.", "voice": "alloy", "model": "tts-1", "response_format": "wav"}
    stored = f"/api/v1/voice/syntheses/{signed['X-Synthesis-ID']}/audio"

    def made() -> Any:
        return api.post(SPEECH, {"text": "One two three.", "reference_audio": upload(reference_wav)})

    bare: dict[str, Any] = {
        "asked": api.post(
            f"{SPEECH}?manifest=false", {"text": "One two three.", "reference_audio": upload(reference_wav)}
        ),
        "later": api.get(f"{stored}?manifest=false"),
        "openai": api.post("/openai/v1/audio/speech", openai, format="json"),
        "elevenlabs": api.post(
            "/elevenlabs/v1/text-to-speech/alloy?output_format=wav_24000", {"text": "One two three."}, format="json"
        ),
    }
    settings.WAV_MANIFEST = False
    bare["setting"] = made()
    for name, response in bare.items():
        assert response.status_code == 200, (name, response.content)
        assert np.array_equal(samples_to_a_naive_parser(response.content), heard), name
        assert np.array_equal(np.frombuffer(response.content[44:], "<i2"), heard), f"{name}: a header of 44 bytes"
        assert verify(response.content) | {"made_at": None} == {
            "made_here": True, "made_at": None, "how": "hash", "kind": "synthesis", "manifest": "none",
            "manifest_valid": None, "warnings": [],
        }, name  # fmt: skip
    make_landmarks()
    assert verify(mp3(heard / np.float32(32_768), RATE))["how"] == "fingerprint"
    assert (
        b"C2PA" in api.post(f"{SPEECH}?manifest=true", {"text": "A.", "reference_audio": upload(reference_wav)}).content
    )
    count = Mark.objects.count()
    api.get(f"{stored}?manifest=false")
    assert Mark.objects.count() == count, "the same file is remembered once"
    refused = api.get(f"{stored}?manifest=perhaps")
    assert (refused.status_code, refused.json()["details"]) == (400, {"manifest": ["Must be true or false."]})


@pytest.mark.parametrize("format", ["wav", "mp3", "opus", "pcm"])
@pytest.mark.django_db(transaction=True)
def test_a_stream_is_known_by_what_was_sent_and_its_stored_file_carries_a_manifest(
    say: Callable[..., Any], api: APIClient, verify: Callable[..., Any], format: str
) -> None:
    response = say(response_format=format, stream="true")
    sent = b"".join(response.streaming_content)
    assert (found := verify(sent))["made_here"], found
    assert (found["how"], found["manifest"]) == ("hash", "none")
    stored = api.get(f"/api/v1/voice/syntheses/{response['X-Synthesis-ID']}/audio")
    content = b"".join(stored.streaming_content)
    assert verify(content)["how"] == ("manifest" if format in MIME_TYPES else "hash")
    make_landmarks()
    assert verify(mp3(babble("One two three."), RATE))["how"] == "fingerprint"


@pytest.mark.parametrize(
    ("url", "body", "how"),
    [
        ("/openai/v1/audio/speech", {"response_format": "mp3"}, "manifest"),
        ("/openai/v1/audio/speech", {"response_format": "flac"}, "manifest"),
        ("/openai/v1/audio/speech", {"response_format": "wav"}, "hash"),
        ("/openai/v1/audio/speech", {"response_format": "aac"}, "hash"),
        ("/openai/v1/audio/speech", {"response_format": "opus"}, "hash"),
        ("/openai/v1/audio/speech", {"response_format": "pcm"}, "hash"),
        ("/openai/v1/audio/speech", {"response_format": "mp3", "stream_format": "sse"}, "hash"),
        ("/elevenlabs/v1/text-to-speech/alloy?output_format=mp3_44100_64", {}, "manifest"),
        ("/elevenlabs/v1/text-to-speech/alloy?output_format=wav_16000", {}, "hash"),
        ("/elevenlabs/v1/text-to-speech/alloy?output_format=ulaw_8000", {}, "hash"),
        ("/elevenlabs/v1/text-to-speech/alloy/with-timestamps?output_format=pcm_16000", {}, "hash"),
        ("/elevenlabs/v1/text-to-speech/alloy/stream?output_format=mp3_44100_128", {}, "hash"),
        ("/elevenlabs/v1/text-to-speech/alloy/stream/with-timestamps?output_format=pcm_24000", {}, "hash"),
    ],
)
@pytest.mark.django_db(transaction=True)
def test_what_other_services_clients_get_is_known_however_short_it_is(
    api: APIClient, babbler: Babbler, verify: Callable[..., Any], monkeypatch: pytest.MonkeyPatch,
    url: str, body: dict[str, str], how: str,
) -> None:  # fmt: skip
    """A second of it: too short to be found by its sound, and bare samples cannot be listened to."""
    monkeypatch.setattr(Babbler, "presets", ("female",), raising=False)
    monkeypatch.setattr(Babbler, "seconds", 1.0)
    body = {"input": "Hello.", "voice": "alloy", "model": "tts-1", **body} if "openai" in url else {"text": "Hello."}
    response = api.post(url, body, format="json")
    assert response.status_code == 200, response.content
    content = b"".join(response.streaming_content) if response.streaming else response.content
    response.close()
    if b"audio_base64" in content or body.get("stream_format"):
        lines = [line.removeprefix(b"data: ") for line in content.splitlines() if line]
        parts = [json.loads(line) for line in lines]
        content = b"".join(base64.b64decode(part.get("audio_base64") or part.get("audio") or "") for part in parts)
    assert verify(content)["how"] == how


@pytest.mark.django_db(transaction=True)
def test_what_another_services_client_got_of_a_stream_before_it_hung_up_is_known(
    api: APIClient, babbler: Babbler, verify: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Babbler, "presets", ("female",), raising=False)
    form = {"input": "Never to the end.", "voice": "alloy", "model": "tts-1", "response_format": "pcm"}
    response = api.post("/openai/v1/audio/speech", form, format="json")
    blocks = iter(response.streaming_content)
    sent = b"".join(next(blocks) for _ in range(2))
    response.close()
    assert Synthesis.objects.get().status == JobStatus.CANCELED
    assert verify(sent)["how"] == "hash"


@pytest.mark.parametrize("format", ["wav", "pcm"])
@pytest.mark.django_db(transaction=True)
def test_what_a_client_got_of_a_stream_before_it_hung_up_is_known(
    say: Callable[..., Any], verify: Callable[..., Any], babbler: Babbler, format: str
) -> None:
    babbler.seconds = 12.0
    response = say("Never to the end.", response_format=format, stream="true")
    blocks = iter(response.streaming_content)
    sent = b"".join(next(blocks) for _ in range(5))
    response.close()
    assert Synthesis.objects.get().status == JobStatus.CANCELED
    assert verify(mp3(babble("Never to the end.", 12.0)[:-1], RATE))["how"] == "fingerprint"
    assert verify(sent)["how"] == "hash"


@pytest.mark.django_db(transaction=True)
def test_an_excerpt_is_found_after_mp3_and_another_text_in_the_same_voice_is_not(
    say: Callable[..., Any], verify: Callable[..., Any]
) -> None:
    for index in range(12):
        say(f"Text number {index}.")
    assert make_landmarks() == 12
    for index in range(0, 12, 3):
        excerpt = babble(f"Text number {index}.")[RATE + 77 : 6 * RATE + 77]
        found = verify(mp3(excerpt, RATE))
        assert (found["made_here"], found["how"], found["manifest"]) == (True, "fingerprint", "none")
        assert not verify(mp3(babble(f"Something else {index}.", 20.0), RATE))["made_here"]


@pytest.mark.django_db(transaction=True)
def test_a_mark_outlives_its_file_its_job_and_its_tenant(
    say: Callable[..., Any], other: Tenant, tenant: Tenant, api: APIClient
) -> None:
    for deleted in ("by the client", "by time", "with its tenant"):
        content = say(f"Gone {deleted}.", response_format="opus")
        url = f"/api/v1/voice/syntheses/{content['X-Synthesis-ID']}"
        # Nobody has listened to it yet: that happens now, or never.
        assert Mark.objects.filter(landmarks_due_at__isnull=False).count() == 1
        if deleted == "by the client":
            assert api.delete(url).status_code == 204
        elif deleted == "by time":
            Synthesis.objects.update(expires_at=datetime(2020, 1, 1, tzinfo=UTC))
            assert Synthesis.expire() == 1
        else:
            Synthesis.objects.get(pk=content["X-Synthesis-ID"]).remove()
            tenant.user.delete()
        assert not Mark.objects.filter(landmarks_due_at__isnull=False).exists()
        for sent in (content.content, mp3(babble(f"Gone {deleted}."), RATE)):
            assert other.client.post(VERIFY, {"file": upload(sent)}).json()["made_here"], deleted
    assert not Synthesis.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_landmarks_are_made_once_and_a_lost_file_is_given_up(say: Callable[..., Any], settings: Any) -> None:
    kept, lost = say("Kept."), say("Lost.")
    synthesis = Synthesis.objects.get(pk=lost["X-Synthesis-ID"])
    synthesis.audio.storage.delete(synthesis.audio.name)
    assert make_landmarks() == 2
    assert make_landmarks() == 0
    (mark,) = Mark.objects.filter(job_id=kept["X-Synthesis-ID"])
    assert Landmark.objects.count() == Landmark.objects.filter(mark=mark).count() > 30


def test_a_hash_that_many_share_is_not_kept_again(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voiceproject.provenance.marks.MAX_SAME_HASH", 3)
    rows = np.array([[5, 1], [6, 1]])
    for _ in range(5):
        mark = Mark.objects.create(kind="cover", job_id=uuid.uuid4(), sha256="")
        keep_landmarks(mark, rows)
        rows = np.array([[5, 1], [7 + mark.pk, 1]])
    assert Landmark.objects.filter(hash=5).count() == 3
    assert Landmark.objects.exclude(hash=5).count() == 5


def test_a_long_recording_in_pieces_and_moved_has_the_numbers_that_chromaprint_makes_of_it_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    samples = babble("long", 30.0, fingerprint.SAMPLE_RATE)
    monkeypatch.setattr(fingerprint, "PIECE_FRAMES", 50)  # Memory is bounded by it.
    for rows, shifts in (
        (fingerprint.landmarks(samples, fingerprint.SAMPLE_RATE), (0,)),
        (fingerprint.query(samples, fingerprint.SAMPLE_RATE), fingerprint.SHIFTS),
    ):
        expected = set()
        for shift in shifts:
            pcm = np.rint(np.clip(samples[shift:], -1, 1) * 32_767).astype(np.int16)
            numbers = fingerprint._chromaprint(pcm).tolist()
            assert len(numbers) == pytest.approx(8.08 * 30 - 20, abs=3)
            expected |= {(number, frame) for frame, number in enumerate(numbers)}
        # It adds up all that came before, so that a bit may fall the other way by rounding.
        assert len(expected ^ set(map(tuple, rows.tolist()))) <= 0.01 * len(expected)


def test_what_is_too_short_or_silent_has_no_part_in_common_with_anything() -> None:
    assert fingerprint.query(babble("short", 2.5), RATE).shape == (0, 2)
    assert fingerprint.landmarks(np.zeros(0, np.float32), RATE).shape == (0, 2)
    silence = np.zeros(10 * RATE, np.float32)
    rows = [(1, value, frame) for value, frame in fingerprint.landmarks(silence, RATE).tolist()]
    assert rows
    assert not fingerprint.is_match(fingerprint.matches(fingerprint.query(silence, RATE), rows)[1])


def test_without_chromaprint_landmarks_stay_due_covers_are_made_and_the_check_tells(
    say: Callable[..., Any], api: APIClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = say("Wait.", response_format="opus").content
    monkeypatch.setattr(fingerprint, "_ffmpeg", lambda: str(tmp_path / "none"))
    assert [error.id for error in checks.told_by_sound(None)] == ["voiceproject.W012"]
    make_landmarks()
    assert Mark.objects.filter(landmarks_due_at__isnull=False).count() == 1
    sf.write(tmp_path / "cover.wav", babble("cover"), RATE)
    assert len(cover_landmarks(tmp_path / "cover.wav")) == 0
    assert api.post(VERIFY, {"file": upload(content)}).json()["how"] == "hash"
    answer = api.post(VERIFY, {"file": upload(mp3(babble("Unknown."), RATE))})
    assert (answer.status_code, answer.json()["error"]) == (503, "not_configured")
    monkeypatch.undo()
    assert checks.told_by_sound(None) == []
    Mark.objects.update(landmarks_due_at=datetime(2020, 1, 1, tzinfo=UTC))
    assert make_landmarks() == 1
    assert api.post(VERIFY, {"file": upload(mp3(babble("Wait."), RATE))}).json()["how"] == "fingerprint"


# --- Who signs ---


def _sign_in_another_process(folder: str, barrier: Any, results: Any) -> None:
    from django.conf import settings

    settings.DATA_DIR = Path(folder)
    barrier.wait()
    results.put(signer.load().chain)


def test_processes_that_start_at_the_same_time_share_one_local_ca(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    arguments = (str(tmp_path), barrier, results)
    processes = [context.Process(target=_sign_in_another_process, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    chains = {results.get(timeout=30) for _ in processes}
    for process in processes:
        process.join(timeout=30)
    assert len(chains) == 1
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    # Only the signer's own key is there; nobody can certify another.
    assert path.read_bytes().count(b"PRIVATE KEY-----") == 2


def test_what_was_signed_before_a_change_of_certificates_stays_ours(
    say: Callable[..., Any], verify: Callable[..., Any], settings: Any, operators: Callable[..., Any]
) -> None:
    before = say().content
    operators()
    signer.forget()
    after = say().content
    assert SigningCertificate.objects.count() == 2
    for content in (before, after):
        assert verify(content)["manifest"] == "ours"


def test_a_local_certificate_is_renewed_before_it_expires(
    db: None, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    monkeypatch.setattr(signer, "LOCAL_DAYS", 20)
    old = signer.load().chain
    monkeypatch.undo()
    fresh = signer.load()
    assert fresh.chain != old
    assert fresh.expires_at - datetime.now(UTC) > timedelta(days=365)


@pytest.fixture
def operators(tmp_path: Path, settings: Any) -> Callable[..., x509.Certificate]:
    """Writes a certificate of a CA of two levels, of which the file holds the lower, and points the settings to it."""

    def write(*, days: int = 30, chain: bool = True, own_key: bool = True, kind: str = "ec", root: Any = None) -> Any:
        root = root or ec.generate_private_key(ec.SECP384R1())
        middle = ec.generate_private_key(ec.SECP256R1())
        key: Any = ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)
        start = datetime.now(UTC) - timedelta(days=60)

        def certificate(subject: str, issuer: str, public: Any, signing: Any, ca: bool) -> x509.Certificate:
            usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                                   "encipher_only", "decipher_only"), False)  # fmt: skip
            builder = (
                x509.CertificateBuilder()
                .subject_name(named(subject)).issuer_name(named(issuer)).public_key(public)
                .serial_number(x509.random_serial_number())
                .not_valid_before(start).not_valid_after(start + timedelta(days=60 + days))
                .add_extension(x509.BasicConstraints(ca, None), True)
                .add_extension(x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, **usage), True)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
                .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), False)
            )  # fmt: skip
            if not ca:
                builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
            return builder.sign(signing, hashes.SHA256())

        leaf = certificate("Studio", "Middle CA", key.public_key(), middle, False)
        upper = certificate("Middle CA", "Root CA", middle.public_key(), root, True)
        parts = [leaf, upper] if chain else [leaf]
        settings.C2PA_CERT, settings.C2PA_KEY = tmp_path / "cert.pem", tmp_path / "key.pem"
        settings.C2PA_CERT.write_bytes(b"".join(part.public_bytes(serialization.Encoding.PEM) for part in parts))
        wrong = ec.generate_private_key(ec.SECP256R1())
        settings.C2PA_KEY.write_bytes(
            (key if own_key else wrong).private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        # What another customer of the same CA would have.
        neighbour = certificate("Neighbour", "Middle CA", key.public_key(), middle, False)
        pem = b"".join(part.public_bytes(serialization.Encoding.PEM) for part in (neighbour, upper))
        return signer.Identity(pem, signer._as_pem(key), "es256" if kind == "ec" else "ps256")

    return write


def named(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Studio"),
                      x509.NameAttribute(NameOID.COMMON_NAME, common)])  # fmt: skip


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_an_operators_certificate_signs_and_passes_the_check(
    say: Callable[..., Any], verify: Callable[..., Any], operators: Callable[..., Any], kind: str
) -> None:
    neighbour = operators(kind=kind)
    assert checks.signing(None) == []
    found = manifest(say().content, "wav")
    assert found["signature_info"]["common_name"] == "Studio"
    # Whoever else has a certificate of the same CA is a stranger.
    found = verify(signed_by(neighbour, wav_bytes(babble("another studio"), RATE)))
    assert (found["made_here"], found["manifest"]) == (False, "foreign")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"days": -1}, "expired"),
        ({"own_key": False}, "not the key"),
        ({"chain": False}, "issuers"),
    ],
)
def test_a_certificate_that_cannot_sign_is_a_system_check(
    operators: Callable[..., Any], wrong: dict[str, Any], message: str
) -> None:
    operators(**wrong)
    (error,) = checks.signing(None)
    assert error.id == "voiceproject.E010"
    assert message in error.msg


def test_a_missing_file_and_half_a_pair_are_told(tmp_path: Path, settings: Any) -> None:
    settings.C2PA_CERT = settings.C2PA_KEY = tmp_path / "nowhere.pem"
    (error,) = checks.signing(None)
    assert "nowhere.pem" in error.msg


def test_what_only_one_second_has_in_common_is_no_match() -> None:
    step = fingerprint.MIN_SPREAD
    for apart, match in (((0, 1, 2, 3, step - 1), False), ((0, 1, 2, 3, step), True), ((0, 1, step), False)):
        asked = np.array([(1000 + frame, frame) for frame in apart])
        found = [(7, 1000 + frame, frame + 50) for frame in apart]
        score = fingerprint.matches(asked, found)[7]
        assert score.matches == len(apart)
        assert fingerprint.is_match(score) is match
