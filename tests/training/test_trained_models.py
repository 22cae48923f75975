"""Models that a tenant has trained, wherever a model can be named: their owner's everywhere, and nobody else's."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rest_framework.test import APIClient

from covers import commands
from covers import tasks as cover_tasks
from tests.fakes.engine import FakeEngine
from tests.support.audio import speech_like, upload, wav_bytes
from tests.support.running.processes import child
from tests.support.tenants import MODELS_URL, Tenant
from voices.speech.models import EngineModel, WeightsFile
from voices.training import tasks

pytestmark = [pytest.mark.usefixtures("fresh_trainings"), pytest.mark.django_db(transaction=True)]

TEXT = "The old lighthouse stands on a rock."
UNKNOWN = "tuned-00000000000000000000"


@pytest.fixture
def engine(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """Speaks with whatever weights, as GPT-SoVITS does."""
    engine.name = "gptsovits"
    monkeypatch.setattr(FakeEngine, "serves", lambda self, model, default, offers: True, raising=False)
    return engine


@pytest.fixture
def trained(train: Callable[..., Any], api: APIClient, engine: FakeEngine) -> dict[str, Any]:
    """Alice's training of GPT-SoVITS, as it has ended."""
    return finished(api, train())


def finished(api: APIClient, response: Any) -> dict[str, Any]:
    assert response.status_code == 202, response.content
    tasks.run_trainings.fn()
    job: dict[str, Any] = api.get(response.json()["links"]["self"]).json()
    assert job["status"] == "succeeded", job
    return job


def spoken_with(engine: FakeEngine) -> list[str]:
    """The weights of what was spoken since the last look; empty for the default's."""
    found = [request.model.gpt_weights if request.model else "" for request in engine.requests]
    engine.requests.clear()
    return found


def asked(model: str, **more: str) -> dict[str, Any]:
    reference = upload(wav_bytes(speech_like(), 16_000), "reference.wav")
    return {"text": TEXT, "reference_audio": reference, "model_id": model, **more}


Ask = Callable[[APIClient, str], Any]
# Where our own API takes a model: each names it.
OURS: dict[str, Ask] = {
    "synthesize": lambda client, model: client.post("/api/v1/voice/synthesize", asked(model)),
    "stream": lambda client, model: client.post("/api/v1/voice/synthesize", asked(model, stream="true")),
    "in the background": lambda client, model: client.post(
        "/api/v1/voice/synthesize", asked(model), headers={"Prefer": "respond-async"}
    ),
    "dialogue": lambda client, model: client.post(
        "/api/v1/voice/dialogue", {"turns": [{"text": TEXT, "preset": "female"}], "model_id": model}, format="json"
    ),
    "cover": lambda client, model: client.post(
        "/api/v1/cover/jobs", {"song": upload(b"x"), "reference_voice": upload(b"x"), "model_id": model}
    ),
    "model": lambda client, model: client.get(f"{MODELS_URL}/{model}"),
    "delete": lambda client, model: client.delete(f"{MODELS_URL}/{model}"),
    "weights": lambda client, model: client.get(f"{MODELS_URL}/{model}/weights/gpt_weights"),
    "openai's model": lambda client, model: client.get(f"/openai/v1/models/{model}"),
    "set_gpt_weights": lambda client, model: client.get(f"/gptsovits/set_gpt_weights?weights_path={model}"),
}  # fmt: skip


@pytest.mark.parametrize("ask", OURS.values(), ids=OURS)
def test_a_strangers_model_is_answered_as_one_that_nobody_has(
    ask: Ask, trained: dict[str, Any], other: Tenant, engine: FakeEngine, presets: None
) -> None:
    def answer(model: str) -> tuple[int, str]:
        response = ask(other.client, model)
        told = response.json()
        told.pop("request_id", None)
        return response.status_code, json.dumps(told).replace(model, "ID")

    theirs = answer(trained["model_id"])
    assert theirs[0] == 404 or (theirs[0] == 400 and "no model" in theirs[1].lower())
    assert theirs == answer(UNKNOWN)
    assert spoken_with(engine) == []
    assert EngineModel.objects.filter(model_id=trained["model_id"]).exists()


@pytest.fixture
def presets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeEngine, "presets", ("female",), raising=False)


def test_its_owner_speaks_with_it_whole_in_pieces_and_in_a_dialogue(
    trained: dict[str, Any], api: APIClient, engine: FakeEngine, presets: None
) -> None:
    gpt = f"/engine/models/{WeightsFile.objects.get(kind='gpt_weights').cached_as}"
    for name in ("synthesize", "stream", "dialogue"):
        answer = OURS[name](api, trained["model_id"])
        assert answer.status_code == 200, (name, answer.content)
        if answer.streaming:
            assert len(b"".join(answer.streaming_content)) > 10_000
        assert spoken_with(engine) == [gpt], name
    voices = {"voice_id": trained["voice_id"], "text": TEXT}
    turns = {"turns": [voices, {"text": TEXT, "preset": "female"}], "model_id": trained["model_id"]}
    answer = api.post("/api/v1/voice/dialogue", turns, format="json")
    assert answer.status_code == 200, answer.content
    assert spoken_with(engine) == [gpt, gpt]


def test_clients_of_other_services_speak_with_their_own_and_with_the_default_for_a_strangers(
    trained: dict[str, Any], tenant: Tenant, other: Tenant, engine: FakeEngine, save: Callable[..., Any]
) -> None:
    bobs = save(_client=other.client).json()["voice_id"]
    for asking, voice, expected in ((tenant, trained["voice_id"], [True]), (other, bobs, [False])):
        client = APIClient(headers={"Authorization": f"Bearer {asking.secret}"})
        body = {"input": TEXT, "voice": voice, "model": trained["model_id"], "response_format": "wav"}
        answer = client.post("/openai/v1/audio/speech", body, format="json")
        assert answer.status_code == 200, answer.content
        assert len(b"".join(answer)) > 10_000
        assert [bool(weights) for weights in spoken_with(engine)] == expected
        listed = client.get("/openai/v1/models").json()["data"]
        assert [trained["model_id"] in {model["id"] for model in listed}] == expected


def test_a_process_that_has_listed_the_models_before_sees_a_new_one_at_once(
    train: Callable[..., Any], api: APIClient, tenant: Tenant, train_habits: Callable[..., None]
) -> None:
    train_habits("unlike")
    code = """
        import time
        from voices.speech import registry
        def ids(): return sorted(model["id"] for model in registry.models(int(sys.argv[1])) if model["owned"])
        print(ids(), flush=True)
        deadline = time.monotonic() + 300
        while not ids() and time.monotonic() < deadline: time.sleep(0.1)
        print(ids(), flush=True)
    """
    another = child(code, str(tenant.user.pk))
    assert another.stdout is not None
    assert another.stdout.readline() == "[]\n"
    job = finished(api, train(engine="rvc"))  # of which any engine can say that it sings
    assert another.stdout.readline() == f"[{job['model_id']!r}]\n"
    assert another.wait(20) == 0


SHOW = """
import json, shutil, sys
vocal, out, *told = sys.argv[1:]
shutil.copyfile(vocal, out)
content = [open(path, "rb").read().decode() if path.startswith("/") else path for path in told]
print("WARNING", json.dumps(content), file=sys.stderr)
"""


@pytest.fixture
def sings(settings: Any, tmp_path: Path) -> Iterator[None]:
    """A cover's command that tells, in the job's warning, what is in the weights that it was given."""
    script = tmp_path / "show.py"
    script.write_text(SHOW)
    settings.COVER_INFER_CMD_TEMPLATE = (
        f"{sys.executable} {script} {{input_vocal}} {{output_vocal}} {{model_id}} {{voice_weights}} {{voice_index}}"
    )
    commands.template.cache_clear()
    cover_tasks.stopping.clear()
    yield
    commands.template.cache_clear()


def test_a_cover_sings_with_a_trained_voice_by_its_model_or_by_the_voice_alone(
    train: Callable[..., Any], submit: Callable[..., Any], api: APIClient, engine: FakeEngine, sings: None,
    train_habits: Callable[..., None], other: Tenant,
) -> None:  # fmt: skip
    train_habits("unlike")
    job = finished(api, train(engine="rvc"))
    expected = json.dumps([job["model_id"], "voice", "index"])

    def sung(**fields: Any) -> Any:
        answer = submit(input_kind="vocals", **fields)
        assert answer.status_code == 202, answer.content
        cover_tasks.run_covers.fn()
        return api.get(answer.json()["links"]["self"]).json()

    by_model = sung(model_id=job["model_id"])
    assert (by_model["status"], by_model["warning"]) == ("succeeded", expected), by_model
    by_voice = sung(reference_voice=None, voice_id=job["voice_id"])
    assert (by_voice["status"], by_voice["model_id"], by_voice["warning"]) == ("succeeded", job["model_id"], expected)
    waits = submit(input_kind="vocals", model_id=job["model_id"])
    assert api.delete(f"{MODELS_URL}/{job['model_id']}").status_code == 204
    cover_tasks.run_covers.fn()
    ended = api.get(waits.json()["links"]["self"]).json()
    assert (ended["status"], "not offered any more" in ended["error_message"]) == ("failed", True)
