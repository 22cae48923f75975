"""A model that one tenant has trained, named in every request of the compatible APIs that takes a model's name: its
owner's text is spoken with it, and anybody else's with the default, as with any name that there is not."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
import websocket

from tests.support.audio import speech_like, wav_bytes
from tests.support.running.quick_server import Server, serving
from tests.support.tenants import Tenant
from voices.library.models import StandingConsent
from voices.speech.models import EngineModel

pytestmark = pytest.mark.django_db(transaction=True)

MODEL = "tuned-0123456789abcdef0123"
TEXT = "The old lighthouse stands on a rock."
FOLDER = "/engine/models"
BASE = ["gpt-base", "sovits-base"]
TRAINED = [f"{FOLDER}/jane.ckpt", f"{FOLDER}/jane.pth"]


@pytest.fixture(scope="module")
def served(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    cache = folder / "cache"
    cache.mkdir()
    for path in TRAINED:  # fetched already
        (cache / Path(path).name).write_bytes(b"weights")
    with serving(folder, MODEL_CACHE_DIR=str(cache), MODEL_CACHE_DIR_ON_SERVER=FOLDER) as server:
        server.fake.gpts.add(TRAINED[0])
        server.fake.ratios[TRAINED[1]] = 1.25
        yield server


def voice_of(server: Server, tenant: Tenant) -> str:
    statement = "All speakers of our company agreed in writing."
    StandingConsent.objects.get_or_create(tenant=tenant.user, defaults={"statement": statement})
    made = requests.post(
        f"http://127.0.0.1:{server.port}/elevenlabs/v1/voices/add", headers={"xi-api-key": tenant.secret},
        data={"name": "Jane"}, files={"files": ("a.wav", wav_bytes(speech_like(5.0), 16_000))}, timeout=60,
    )  # fmt: skip
    assert made.status_code == 200, made.text
    return str(made.json()["voice_id"])


Say = Callable[[Server, Tenant, str], None]


def posted(path: str, **body: object) -> Say:
    """A request over HTTP; VOICE in it is the tenant's own voice."""

    def say(server: Server, tenant: Tenant, voice: str) -> None:
        content = json.dumps(body).replace("VOICE", voice)
        url = f"http://127.0.0.1:{server.port}{path.replace('VOICE', voice)}"
        headers = {"xi-api-key": tenant.secret, "Authorization": f"Bearer {tenant.secret}"}
        answer = requests.post(url, headers={**headers, "Content-Type": "application/json"}, data=content, timeout=60)
        assert answer.status_code == 200, answer.text
        assert len(answer.content) > 10_000

    return say


def over_a_socket(kind: str, *messages: dict[str, object]) -> Say:
    def say(server: Server, tenant: Tenant, voice: str) -> None:
        url = f"ws://127.0.0.1:{server.port}/elevenlabs/v1/text-to-speech/{voice}/{kind}"
        url += f"?model_id={MODEL}&output_format=pcm_24000"
        socket = websocket.create_connection(url, header={"xi-api-key": tenant.secret}, timeout=30)
        came = b""
        try:
            for message in messages:
                socket.send(json.dumps(message))
            while data := socket.recv():  # Empty where it is closed.
                came += base64.b64decode(json.loads(data).get("audio") or "")
        finally:
            socket.shutdown()
        assert len(came) > 24_000  # over half a second

    return say


ELEVENLABS = "/elevenlabs/v1/text-to"
TREES: dict[str, Say] = {
    "openai": posted("/openai/v1/audio/speech", input=TEXT, voice="VOICE", model=MODEL, response_format="wav"),
    **{
        f"elevenlabs speech{suffix}": posted(f"{ELEVENLABS}-speech/VOICE{suffix}", text=TEXT, model_id=MODEL)
        for suffix in ("", "/stream", "/with-timestamps", "/stream/with-timestamps")
    },
    **{
        f"elevenlabs dialogue{suffix}": posted(
            f"{ELEVENLABS}-dialogue{suffix}", inputs=[{"text": TEXT, "voice_id": "VOICE"}], model_id=MODEL
        )
        for suffix in ("", "/stream", "/with-timestamps", "/stream/with-timestamps")
    },
    "stream-input": over_a_socket("stream-input", {"text": " "}, {"text": f"{TEXT} "}, {"text": ""}),
    "multi-stream-input": over_a_socket(
        "multi-stream-input",
        {"text": f"{TEXT} ", "context_id": "a"},
        {"context_id": "a", "flush": True},
        {"context_id": "a", "close_context": True},
        {"close_socket": True},
    ),
}


@pytest.mark.parametrize("say", TREES.values(), ids=TREES)
def test_a_strangers_model_is_not_spoken_with_and_its_owners_is(
    say: Say, server: Server, tenant: Tenant, other: Tenant
) -> None:
    gpt, sovits = BASE
    EngineModel.objects.create(model_id="default", version="v2", gpt_weights=gpt, sovits_weights=sovits)
    gpt, sovits = (Path(path).name for path in TRAINED)
    EngineModel.objects.create(model_id=MODEL, owner=tenant.user, version="v2", gpt_weights=gpt, sovits_weights=sovits)
    for asking, weights in ((other, BASE), (tenant, TRAINED), (other, BASE)):
        voice = voice_of(server, asking)
        server.fake.log.clear()
        say(server, asking, voice)
        assert [list(call["weights"]) for call in server.fake.log] == [weights]
