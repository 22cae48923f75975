"""/api/v1/voice/dialogue, and ElevenLabs' text-to-dialogue by its own client."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from elevenlabs import PronunciationDictionaryVersionLocator as Locator
from elevenlabs.client import ElevenLabs
from elevenlabs.core.api_error import ApiError
from elevenlabs.pronunciation_dictionaries import (
    BodyAddAPronunciationDictionaryV1PronunciationDictionariesAddFromRulesPostRulesItem_Alias as Alias,
)
from elevenlabs.types import DialogueInput
from rest_framework.test import APIClient

from tests.fakes.engine import FakeEngine
from tests.support.tenants import Tenant
from voiceproject.errors import EngineBusy, PublicError
from voiceproject.jobs.heartbeat import BEAT_SECONDS
from voiceproject.tenants.models import UsageEntry
from voices.engines.interface import Piece, SynthesisRequest
from voices.library import saved
from voices.library.models import Voice
from voices.speech import dialogue, tasks
from voices.speech.loudness import block_powers, loudness
from voices.speech.models import DialogueSpeaker, Synthesis

pytestmark = pytest.mark.django_db(transaction=True)
URL = "/api/v1/voice/dialogue"
ASKS, SAYS = "Who is there at the door?", "It is only me, the postman."
LEVELS = {"female": 0.05, "male": 0.5}  # of the tone that each preset speaks as; a saved voice is in between


class Voices(FakeEngine):
    """Whoever speaks is as loud as always, and each has a tone of its own."""

    presets = ("female", "male")

    def synthesize(self, request: SynthesisRequest, deadline: float, canceled: Callable[[], bool]) -> Iterator[Piece]:
        level = LEVELS.get(request.reference.preset, 0.1)
        for piece in super().synthesize(request, deadline, canceled):
            at = np.arange(len(piece.samples)) / self.sample_rate
            tone = level * np.sin(2 * np.pi * (440 if request.reference.preset == "male" else 220) * at)
            yield Piece(tone.astype(np.float32), piece.sample_rate, piece.text, piece.pause_seconds)


@pytest.fixture
def engine(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Voices:
    voices = Voices()
    monkeypatch.setattr("voices.engines.configured.load_engine", lambda: voices)
    return voices


@pytest.fixture
def anna(save: Callable[..., Any], engine: Voices) -> Voice:
    assert save(name="Anna").status_code == 201
    return Voice.objects.get()


def turns(*spoken: tuple[str, str], **more: Any) -> list[dict[str, Any]]:
    return [{("preset" if who in LEVELS else "voice_id"): who, "text": text, **more} for who, text in spoken]


def decoded(content: bytes) -> tuple[np.ndarray, int]:
    return sf.read(io.BytesIO(content), dtype="float32")


def parts(samples: np.ndarray, rate: int) -> list[np.ndarray]:
    """What stands between pauses of more than a tenth of a second."""
    loud = np.flatnonzero(np.abs(samples) > 0.005)
    cuts = np.flatnonzero(np.diff(loud) > rate // 10) + 1
    return [samples[part[0] : part[-1] + 1] for part in np.split(loud, cuts)]


def test_several_voices_are_equally_loud_with_pauses_between_them(api: APIClient, anna: Voice) -> None:
    spoken = turns(("female", ASKS), ("male", SAYS), (str(anna.pk), "Come in."))
    spoken[1]["pause_seconds"] = 1.0
    answer = api.post(URL, {"turns": spoken, "pause_seconds": 0.5}, format="json")
    assert answer.status_code == 200, answer.content
    samples, rate = decoded(answer.content)
    heard = parts(samples, rate)
    assert len(heard) == 3
    assert sum(map(len, heard)) / rate == pytest.approx(0.1 * len(ASKS + SAYS + "Come in."), abs=0.1)
    assert len(samples) / rate - sum(map(len, heard)) / rate == pytest.approx(1.5, abs=0.05)
    levels = [loudness(block_powers(part, rate)) for part in heard]
    assert levels == pytest.approx([dialogue.TARGET_LUFS] * 3, abs=0.5)
    job = Synthesis.objects.get()
    assert (job.status, job.text) == ("succeeded", f"{ASKS}\n{SAYS}\nCome in.")
    assert float(answer["X-Audio-Duration"]) == pytest.approx(len(samples) / rate, abs=0.01)
    shown = api.get(f"/api/v1/voice/syntheses/{answer['X-Synthesis-ID']}").json()["turns"]
    assert [(turn["preset"], turn["voice_id"]) for turn in shown] == [
        ("female", None), ("male", None), (None, str(anna.pk)),
    ]  # fmt: skip
    assert shown[1]["begin_seconds"] == pytest.approx(shown[0]["end_seconds"] + 0.5, abs=0.02)
    assert shown[2]["begin_seconds"] == pytest.approx(shown[1]["end_seconds"] + 1.0, abs=0.02)
    entry = UsageEntry.objects.get()
    assert entry.characters == len(ASKS + SAYS + "Come in.")
    found = api.get(f"/api/v1/voice/syntheses?voice_id={anna.pk}").json()["results"]
    assert [row["synthesis_id"] for row in found] == [str(job.pk)]


def test_a_stream_has_the_same_voices(api: APIClient, engine: Voices) -> None:
    spoken = turns(("female", ASKS), ("male", SAYS))
    answer: Any = api.post(URL, {"turns": spoken, "stream": True, "seed": 1}, format="json")
    samples, rate = decoded(b"".join(answer.streaming_content))
    heard = parts(samples, rate)
    assert len(heard) == 2
    levels = [loudness(block_powers(part, rate)) for part in heard]
    assert levels == pytest.approx([dialogue.TARGET_LUFS] * 2, abs=0.5)
    assert [request.early for request in engine.requests] == [True, True]
    assert Synthesis.objects.get().status == "succeeded"


def test_a_worker_speaks_it_with_copies_of_the_voices(api: APIClient, anna: Voice, engine: Voices) -> None:
    body = {"turns": turns((str(anna.pk), ASKS), ("male", SAYS), (str(anna.pk), "Well."))}
    headers = {"Prefer": "respond-async", "Idempotency-Key": "once"}
    answer = api.post(URL, body, format="json", headers=headers)
    assert answer.status_code == 202, answer.content
    again = api.post(URL, body, format="json", headers=headers)
    assert (again.json()["job_id"], again["Idempotency-Replayed"]) == (answer.json()["job_id"], "true")
    saved.delete(anna)
    engine.failure = PublicError("engine_error", "No.")
    tasks.run_syntheses.fn()
    assert Synthesis.objects.get().status == "failed"
    engine.failure = None
    retried = api.post(f"/api/v1/voice/syntheses/{answer.json()['job_id']}/retry")
    assert retried.status_code == 202
    tasks.run_syntheses.fn()
    job = Synthesis.objects.get()
    assert (job.status, job.error_message) == ("succeeded", "")
    samples, rate = decoded(job.audio.read())
    assert len(parts(samples, rate)) == 3
    spoken = engine.requests[-3:]
    assert spoken[0].reference.content_hash == spoken[2].reference.content_hash == anna.reference_hash
    assert spoken[0].reference.duration_seconds > 3


def test_taking_a_voice_down_revokes_its_dialogues(api: APIClient, anna: Voice, engine: Voices) -> None:
    answer = api.post(URL, {"turns": turns(("male", SAYS), (str(anna.pk), ASKS))}, format="json")
    assert DialogueSpeaker.objects.get().voice_id == anna.pk
    assert saved.take_down(anna.pk) == 1
    gone = api.get(f"/api/v1/voice/syntheses/{answer['X-Synthesis-ID']}/audio")
    assert (gone.status_code, gone.json()["error"]) == (410, "revoked")
    refused = api.post(URL, {"turns": turns((str(anna.pk), ASKS))}, format="json")
    assert refused.status_code == 410


def test_a_busy_engine_is_waited_for_between_turns(api: APIClient, engine: Voices, monkeypatch: Any) -> None:
    monkeypatch.setattr(dialogue, "BUSY_SECONDS", 0.01)
    busy = [0]

    def before(index: int) -> None:
        if len(engine.requests) == 2 and not busy[0]:
            busy[0] = 1
            raise EngineBusy

    engine.before_piece = before
    assert api.post(URL, {"turns": turns(("male", SAYS), ("female", ASKS))}, format="json").status_code == 200
    assert busy == [1]
    engine.failure = EngineBusy()  # The first turn is refused as a synthesis is.
    assert api.post(URL, {"turns": turns(("male", SAYS))}, format="json").status_code == 503


def test_a_cancel_ends_it_between_turns(api: APIClient, engine: Voices) -> None:
    ended = threading.Event()

    def before(index: int) -> None:
        if len(engine.requests) == 2 and not ended.is_set():
            ended.set()
            Synthesis.objects.get().cancel()
            time.sleep(1.5 * BEAT_SECONDS)  # It is noticed at the next heartbeat.

    engine.before_piece = before
    answer = api.post(URL, {"turns": turns(*[("male", SAYS)] * 20)}, format="json")
    assert (answer.status_code, answer.json()["error"]) == (409, "job_canceled")
    assert len(engine.requests) < 20


def test_lexicons_that_a_request_names_come_before_a_voices_in_all_turns(
    api: APIClient, anna: Voice, engine: Voices, other: Tenant
) -> None:
    def lexicon(say: str) -> str:
        entries = [{"word": "SQL", "say": say}, {"word": say, "say": f"the {say}"}]
        answer = api.post("/api/v1/voice/lexicons", {"name": say, "entries": entries}, format="json")
        return str(answer.json()["lexicon_id"])

    first, second, of_anna = lexicon("first"), lexicon("second"), lexicon("hers")
    api.patch(f"/api/v1/voice/voices/{anna.pk}", {"lexicon_id": of_anna}, format="json")
    spoken = turns(("female", "SQL first."), (str(anna.pk), "SQL hers."), ("male", "Nothing."))
    for named, says in (({}, "hers"), ({"lexicon_id": first}, "first"), ({"lexicon_ids": [second, first]}, "second")):
        answer = api.post(URL, {"turns": spoken, **named}, format="json")
        assert answer.status_code == 200, answer.content
        kept = [request.lexicon.entries for request in engine.requests[-3:]]
        assert kept[1][0].say == says
        assert [entry.say for entry in kept[0]] == {"hers": [], "first": ["first", "the first"],
                                                    "second": ["second", "first", "the first"]}[says]  # fmt: skip
        assert not kept[2]
    job = api.post(URL, {"turns": spoken, "lexicon_id": first}, format="json", headers={"Prefer": "respond-async"})
    assert job.status_code == 202
    assert api.delete(f"/api/v1/voice/lexicons/{first}").status_code == 204  # What it needs is its own.
    tasks.run(Synthesis.claim("w", "h", 9, 9), threading.Event())
    assert engine.requests[-3].lexicon.entries[0].say == "first"

    refused = api.post(URL, {"turns": spoken, "lexicon_id": first}, format="json").json()
    assert (refused["error"], list(refused["details"])) == ("not_found", ["lexicon_id"])
    assert not refused["message"].startswith("turns")
    wrong = api.post(URL, {"turns": spoken, "lexicon_id": "SQL", "lexicon_ids": [second] * 6}, format="json")
    assert set(wrong.json()["details"]) == {"lexicon_id", "lexicon_ids"}
    api.credentials(HTTP_X_API_KEY=other.secret)
    theirs = api.post(URL, {"turns": spoken[:1], "lexicon_id": second}, format="json")
    assert theirs.status_code == 404


def test_what_is_wrong_is_told_of_its_turn(api: APIClient, anna: Voice, other: Tenant, settings: Any) -> None:
    def wrong(status: int = 400, **fields: Any) -> dict[str, Any]:
        body = {"turns": turns(("male", SAYS), ("female", ASKS)), **fields}
        answer = api.post(URL, body, format="json")
        assert answer.status_code == status, answer.content
        return dict(answer.json())

    good = turns(("male", SAYS))[0]
    changes: list[tuple[dict[str, Any], str]] = [
        ({"text": ""}, "text"), ({"text": "..."}, "text"), ({"speed": 9}, "speed"), ({"preset": "nobody"}, "preset"),
        ({"pause_seconds": 11}, "pause_seconds"), ({"voice_id": str(anna.pk)}, "voice_id"),
        ({"preset": None}, "voice_id"), ({"language": "ko"}, "language"), ({"emotion": "sad"}, "emotion"),
    ]  # fmt: skip
    for changed, field in changes:
        found = wrong(turns=[good, {**good, **changed}])
        assert list(found["details"]) == [f"turns[1].{field}"], found
    long = {**good, "text": "a" * 2000}
    refusals: list[Any] = [[], [good] * 101, "x", [long] * 3]
    for refused in refusals:
        assert list(wrong(turns=refused)["details"]) == ["turns"]
    assert list(wrong(turns=["x"])["details"]) == ["turns[0]"]
    assert list(wrong(stream=True, response_format="flac")["details"]) == ["response_format"]
    assert list(wrong(model_id="none")["details"]) == ["model_id"]
    assert wrong(404, turns=turns(("7f3c1d0a-2b7e-4a43-9c55-2f6a1b0c9d11", SAYS)))["error"] == "not_found"
    theirs = other.client.post(URL, {"turns": turns((str(anna.pk), SAYS))}, format="json")
    assert theirs.status_code == 404
    assert api.post(URL, {"turns": "x"}).status_code == 415
    settings.TEXT_FILTER = "voiceproject.textfilter.words"
    with open(settings.TEXT_FILTER_WORDS, "w") as file:
        file.write("postman who\n")
    assert (
        wrong(turns=turns(("male", SAYS), ("female", ASKS)))["error"] == "content_refused"
    )  # from one turn into the next
    assert not Synthesis.objects.exists()


# --- by ElevenLabs' client ---


@pytest.fixture
def client(live_server: Any, tenant: Tenant, engine: Voices) -> ElevenLabs:
    return ElevenLabs(base_url=f"{live_server.url}/elevenlabs", api_key=tenant.secret)


def test_elevenlabs_client_has_a_dialogue_spoken(client: ElevenLabs, anna: Voice, engine: Voices) -> None:
    inputs = [DialogueInput(text=ASKS, voice_id="alloy"), DialogueInput(text=SAYS, voice_id=str(anna.pk))]
    made = b"".join(client.text_to_dialogue.convert(inputs=inputs, output_format="wav_24000", seed=7))
    samples, rate = decoded(made)
    assert len(parts(samples, rate)) == 2
    assert [request.seed for request in engine.requests] == [7, 8]
    streamed = b"".join(client.text_to_dialogue.stream(inputs=inputs))
    samples, rate = decoded(streamed)
    assert len(parts(samples, rate)) == 2

    timed = client.text_to_dialogue.convert_with_timestamps(inputs=inputs, output_format="wav_24000")
    samples, rate = decoded(base64.b64decode(timed.audio_base_64))
    assert timed.alignment is not None
    assert "".join(timed.alignment.characters) == ASKS + SAYS
    first, second = timed.voice_segments
    assert (first.voice_id, second.voice_id, second.dialogue_input_index) == ("alloy", str(anna.pk), 1)
    assert (first.character_start_index, first.character_end_index) == (0, len(ASKS))
    assert second.end_time_seconds == pytest.approx(len(samples) / rate, abs=0.05)

    chunks = list(client.text_to_dialogue.stream_with_timestamps(inputs=inputs))
    segments = [segment for chunk in chunks for segment in chunk.voice_segments]
    assert [segment.dialogue_input_index for segment in segments] == [0, 1]
    samples, rate = decoded(b"".join(base64.b64decode(chunk.audio_base_64) for chunk in chunks))
    assert len(parts(samples, rate)) == 2

    with pytest.raises(ApiError) as refused:
        b"".join(client.text_to_dialogue.convert(inputs=[DialogueInput(text=ASKS, voice_id="nobody")]))
    assert "inputs[0]" in str(refused.value.body)
    assert Synthesis.objects.count() == 4


def test_elevenlabs_client_names_dictionaries_of_a_dialogue(client: ElevenLabs, engine: Voices) -> None:
    dictionaries = client.pronunciation_dictionaries
    made = dictionaries.create_from_rules(name="x", rules=[Alias(string_to_replace="door", alias="gate")])
    dictionaries.rules.set(made.id, rules=[Alias(string_to_replace="door", alias="newer")])
    inputs = [DialogueInput(text=ASKS, voice_id="alloy"), DialogueInput(text=SAYS, voice_id="echo")]
    for version, says in ((made.version_id, "gate"), (None, "newer")):
        locator = Locator(pronunciation_dictionary_id=made.id, version_id=version)
        assert b"".join(client.text_to_dialogue.convert(inputs=inputs, pronunciation_dictionary_locators=[locator]))
        asks, answers = (request.lexicon.entries for request in engine.requests[-2:])
        assert [entry.say for entry in asks] == [says]
        assert not answers
    nothing = Locator(pronunciation_dictionary_id="nothing")
    with pytest.raises(ApiError) as refused:
        b"".join(client.text_to_dialogue.convert(inputs=inputs, pronunciation_dictionary_locators=[nothing]))
    assert refused.value.status_code == 404
