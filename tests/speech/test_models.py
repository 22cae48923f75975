"""The console's models: what is listed, what a synthesis and a cover may name, and what becomes of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from covers import commands, tasks
from covers.models import CoverJob
from tests.fakes.engine import FakeEngine
from tests.fakes.gptsovits import FakeGptSovits
from tests.support.audio import upload, wav_bytes
from tests.support.covers import RATE, song
from tests.support.tenants import Tenant
from voiceproject.leases.lease import Leases
from voices import checks
from voices.engines import configured
from voices.engines.builtin.engine import CLEAR
from voices.engines.gptsovits.engine import GptSovitsEngine
from voices.speech import tasks as voice_tasks
from voices.speech.models import EngineModel

pytestmark = pytest.mark.django_db(transaction=True)
MODELS = "/api/v1/voice/models"


@pytest.fixture
def sovits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., FakeGptSovits]]:
    """Makes GPT-SoVITS the engine of the API, with one server."""
    with FakeGptSovits() as fake:

        def make(**options: Any) -> FakeGptSovits:
            engine = GptSovitsEngine([fake.url], 20, tmp_path, str(tmp_path), 20, 16, Leases, **options)
            monkeypatch.setattr(configured, "load_engine", lambda: engine)
            return fake

        yield make


@pytest.fixture
def say(api: APIClient, reference_wav: bytes) -> Callable[..., Any]:
    def send(_client: APIClient = api, **fields: Any) -> Any:
        form = {"text": "Hello there.", "reference_audio": upload(reference_wav), **fields}
        return _client.post("/api/v1/voice/synthesize", form)

    return send


@pytest.fixture
def submit(api: APIClient, engine: FakeEngine, reference_wav: bytes) -> Callable[..., Any]:
    content = wav_bytes(song(), RATE)

    def send(**fields: Any) -> Any:
        form = {"song": upload(content, "song.wav"), "reference_voice": upload(reference_wav), **fields}
        return api.post("/api/v1/cover/jobs", form)

    return send


def model(model_id: str, **fields: Any) -> EngineModel:
    row = EngineModel(model_id=model_id, name=fields.pop("name", model_id.title()), **fields)
    row.full_clean()
    row.save()
    return row


def weights(name: str) -> dict[str, str]:
    return {"gpt_weights": f"gpt-{name}", "sovits_weights": f"sovits-{name}"}


def refusal(response: Any) -> str:
    body = response.json()
    assert (response.status_code, body["error"], list(body["details"])) == (400, "validation_error", ["model_id"])
    return body["message"]


# --- what there is ----------------------------------------------------------------------------------------------------


def test_enabled_models_are_listed_with_what_they_can_be_used_for(
    api: APIClient, sovits: Callable[..., FakeGptSovits]
) -> None:
    sovits()
    model("anna", **weights("anna"), version="v2Pro", languages=["en", "ja"])
    model("old", **weights("ben"), version="v1")
    model("singer", engine="rvc", voice_weights="/rvc/singer.pth")
    model("hidden", **weights("ben"), enabled=False)
    before = {entry["id"]: entry for entry in api.get(MODELS).json()["models"]}
    assert list(before) == ["default", "anna", "old", "singer"]
    assert before["anna"]["uses"] == ["covers"], "nothing could bring the default's weights back"
    model("default", **weights("base"), version="v2")
    models = {entry["id"]: entry for entry in api.get(MODELS).json()["models"]}
    assert models["anna"] == {
        "id": "anna", "name": "Anna", "description": "", "engine": "gptsovits", "version": "v2Pro",
        "languages": ["en", "ja"], "uses": ["synthesis", "covers"], "voice_id": None, "owned": False,
    }  # fmt: skip
    assert models["default"]["version"] == "v2" and models["default"]["uses"] == ["synthesis", "covers"]
    assert models["old"]["languages"] == ["en", "ja", "zh"]
    assert models["singer"]["uses"] == ["covers"]
    assert [entry["id"] for entry in api.get("/api/v1/voice/health").json()["models"]] == list(models)


def test_a_disabled_default_is_not_offered_and_need_not_be_brought_back(
    api: APIClient, sovits: Callable[..., FakeGptSovits], say: Callable[..., Any]
) -> None:
    fake = sovits()
    model("anna", **weights("anna"))
    model("default", enabled=False)
    assert [entry["id"] for entry in api.get(MODELS).json()["models"]] == ["anna"]
    assert "anna" in refusal(say())
    assert say(model_id="anna").status_code == 200
    assert fake.log[0]["weights"] == ("gpt-anna", "sovits-anna")


def test_the_built_in_engine_keeps_its_default_whatever_another_engines_is(
    api: APIClient, engine: FakeEngine, say: Callable[..., Any]
) -> None:
    model("default", version="v2", enabled=False)
    model("anna", **weights("anna"))
    default, anna = api.get(MODELS).json()["models"]
    assert (default["id"], default["engine"], default["uses"]) == ("default", "builtin", ["synthesis"])
    assert (anna["id"], anna["uses"]) == ("anna", ["covers"])
    assert say().status_code == 200
    assert refusal(say(model_id="anna")) == "model_id: There is no model anna for synthesis; there are: default."


def test_a_model_that_the_engine_brings_along_is_listed_and_refused_for_covers(
    api: APIClient, engine: FakeEngine, submit: Callable[..., Any]
) -> None:
    engine.models = (CLEAR,)  # type: ignore[attr-defined]
    model("anna", **weights("anna"))
    assert [entry["id"] for entry in api.get(MODELS).json()["models"]] == ["default", "builtin-clear", "anna"]
    assert api.get(MODELS).json()["models"][1] == {
        "id": "builtin-clear", "name": CLEAR.name, "description": CLEAR.description, "engine": "builtin", "version": "",
        "languages": ["en", "ja", "zh"], "uses": ["synthesis"], "voice_id": None, "owned": False,
    }  # fmt: skip
    assert refusal(submit(model_id="builtin-clear")) == (
        "model_id: There is no model builtin-clear for covers; there are: default, anna."
    )


def test_a_model_that_the_engine_brings_along_speaks_wherever_a_model_can_be_named(
    api: APIClient, tenant: Tenant, engine: FakeEngine, say: Callable[..., Any], reference_wav: bytes
) -> None:
    engine.models, engine.presets = (CLEAR,), ("female",)  # type: ignore[attr-defined]
    form = {"name": "Jane", "sample": upload(reference_wav), "consent": "Jane agreed to this on 3 May, in writing."}
    voice = api.post("/api/v1/voice/voices", form).json()["voice_id"]
    queued = {"text": "Hello.", "voice_id": voice, "model_id": CLEAR.id}
    openai = APIClient(headers={"Authorization": f"Bearer {tenant.secret}"})
    speech = {"voice": "alloy", "input": "Hello.", "model": CLEAR.id}
    elevenlabs = APIClient(headers={"xi-api-key": tenant.secret})
    spoken = {"text": "Hello.", "model_id": CLEAR.id}
    for response in (
        say(model_id=CLEAR.id),
        say(model_id=CLEAR.id, stream="true"),
        say(model_id=CLEAR.id, voice_id=voice, reference_audio=""),
        api.post("/api/v1/voice/synthesize", queued, headers={"Prefer": "respond-async"}),
        openai.post("/openai/v1/audio/speech", speech, format="json"),
        elevenlabs.post(f"/elevenlabs/v1/text-to-speech/{voice}", spoken, format="json"),
    ):
        assert response.status_code in (200, 202), response.content
        b"".join(response.streaming_content) if response.streaming else response.content
    voice_tasks.run_syntheses.fn()
    assert [request.model and request.model.id for request in engine.requests] == [CLEAR.id] * 6
    openai.post("/openai/v1/audio/speech", {**speech, "model": "tts-1"}, format="json")
    assert engine.requests[-1].model is None
    assert CLEAR.id in [entry["id"] for entry in openai.get("/openai/v1/models").json()["data"]]
    listed = {entry["model_id"]: entry for entry in elevenlabs.get("/elevenlabs/v1/models").json()}
    assert listed[CLEAR.id]["description"] == CLEAR.description and not listed[CLEAR.id]["can_do_voice_conversion"]


def test_an_operators_row_decides_about_a_model_that_the_engine_brings_along(
    api: APIClient, engine: FakeEngine, say: Callable[..., Any]
) -> None:
    engine.models = (CLEAR,)  # type: ignore[attr-defined]
    model("builtin-clear", enabled=False)
    assert [entry["id"] for entry in api.get(MODELS).json()["models"]] == ["default"]
    assert refusal(say(model_id="builtin-clear")).endswith("; there are: default.")


@pytest.mark.parametrize("model_id", ["a/b", "..", "a.b", "-x", "a b", "ä", "", "x\n", "../../etc/passwd"])
def test_an_id_has_no_characters_of_a_path(model_id: str) -> None:
    with pytest.raises(ValidationError):
        model(model_id)


@pytest.mark.parametrize(
    "fields",
    [
        {"gpt_weights": "x.ckpt"},
        {"engine": "rvc"},
        {"engine": "rvc", "voice_weights": "--output=/etc/passwd"},
        {"engine": "rvc", "voice_weights": "a\x00b"},
        {"version": "v1", "languages": ["ko"]},
        {"languages": ["de"]},
        {"version": "v5"},
    ],
)
def test_a_model_that_cannot_work_is_not_saved(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        model("anna", **fields)


# --- synthesis --------------------------------------------------------------------------------------------------------


def test_a_synthesis_speaks_with_the_model_it_names(sovits: Callable[..., FakeGptSovits], say: Callable[..., Any],
                                                    tenant: Tenant) -> None:  # fmt: skip
    fake = sovits()
    model("anna", **weights("anna"))
    model("default", **weights("base"))
    for model_id, expected in (("anna", "anna"), ("", "base"), ("default", "base"), ("anna", "anna")):
        assert say(model_id=model_id).status_code == 200
        assert fake.log[-1]["weights"] == (f"gpt-{expected}", f"sovits-{expected}")
    # The tenant is told, so that tenants take turns.
    from voiceproject.leases.models import EngineTurn

    assert [turn.tenant for turn in EngineTurn.objects.all()] == [str(tenant.user.pk)]


def test_unknown_and_disabled_models_are_refused_with_those_that_there_are(
    sovits: Callable[..., FakeGptSovits], say: Callable[..., Any]
) -> None:
    fake = sovits()
    model("default", **weights("base"))
    model("anna", **weights("anna"))
    model("hidden", **weights("ben"), enabled=False)
    for model_id in ("hidden", "nobody", "../anna"):
        assert refusal(say(model_id=model_id)).endswith("; there are: default, anna.")
    assert fake.log == [] == fake.switches


def test_what_the_models_version_cannot_do_is_refused_at_submission(
    sovits: Callable[..., FakeGptSovits], say: Callable[..., Any]
) -> None:
    fake = sovits()
    model("default", **weights("base"), version="v3")
    model("old", **weights("anna"), version="v1")
    response = say(model_id="old", language="ko", text="안녕하세요.")
    assert (response.status_code, list(response.json()["details"])) == (400, ["language"])
    response = say()
    assert (response.status_code, list(response.json()["details"])) == (400, ["reference_text"])
    assert "3 to 10 seconds" in response.json()["message"]
    assert fake.log == []
    assert say(reference_text="What I say.").status_code == 200


def test_a_pinned_server_needs_no_weights_of_us(sovits: Callable[..., FakeGptSovits], say: Callable[..., Any]) -> None:
    fake = sovits()
    fake = sovits(pinned={fake.url: "anna"})
    model("anna")
    assert "there are: anna" in refusal(say())
    assert say(model_id="anna").status_code == 200
    assert fake.switches == []


# --- covers -----------------------------------------------------------------------------------------------------------

SHOW = """
import json, shutil, sys
shutil.copy(sys.argv[1], sys.argv[2])
print("WARNING: " + json.dumps(sys.argv[3:]), file=sys.stderr)
"""


@pytest.fixture
def shown(settings: Any, tmp_path: Path) -> Iterator[None]:
    """An infer command that tells its arguments in the job's warning."""
    script = tmp_path / "show.py"
    script.write_text(SHOW)
    settings.GPT_SOVITS_PYTHON = sys.executable
    settings.COVER_INFER_CMD_TEMPLATE = (
        f"{{python_exec}} {script} {{input_vocal}} {{output_vocal}} {{model_id}} {{gpt_weights}} {{sovits_weights}} "
        "--weights {voice_weights} --index={voice_index} {model_version}"
    )
    commands.template.cache_clear()
    tasks.stopping.clear()
    yield
    commands.template.cache_clear()


def run(submit: Callable[..., Any], api: APIClient, **fields: Any) -> dict[str, Any]:
    job = submit(input_kind="vocals", **fields)
    assert job.status_code == 202, job.content
    tasks.run_covers.fn()
    return api.get(job.json()["links"]["self"]).json()


def test_a_covers_command_is_told_what_its_model_is_made_of(
    submit: Callable[..., Any], api: APIClient, shown: None
) -> None:
    model("anna", **weights("anna"), version="v2Pro")
    model("singer", engine="rvc", voice_weights="/rvc/a b.pth", voice_index="/rvc/a.index")
    done = run(submit, api, model_id="anna")
    assert done["warning"] == '["anna", "gpt-anna", "sovits-anna", "--weights", "", "--index=", "v2Pro"]'
    done = run(submit, api, model_id="singer")
    assert done["warning"] == '["singer", "", "", "--weights", "/rvc/a b.pth", "--index=/rvc/a.index", ""]'
    done = run(submit, api)
    assert done["warning"] == '["default", "", "", "--weights", "", "--index=", ""]'
    model("default", **weights("base"))
    assert run(submit, api, model_id="default")["warning"].startswith('["default", "gpt-base", "sovits-base"')


def test_a_cover_with_an_unknown_or_disabled_model_is_refused(submit: Callable[..., Any]) -> None:
    model("anna", **weights("anna"))
    model("hidden", enabled=False)
    for model_id in ("hidden", "nobody"):
        assert refusal(submit(model_id=model_id)).endswith("; there are: default, anna.")
    assert CoverJob.objects.count() == 0


@pytest.mark.parametrize("end", ["disabled", "deleted"])
def test_a_model_that_was_taken_away_before_its_job_ran_fails_the_job_with_the_reason(
    submit: Callable[..., Any], api: APIClient, shown: None, end: str
) -> None:
    row = model("anna", **weights("anna"))
    job = submit(model_id="anna").json()
    EngineModel.objects.filter(pk=row.pk).update(enabled=False) if end == "disabled" else row.delete()
    tasks.run_covers.fn()
    done = api.get(job["links"]["self"]).json()
    assert (done["status"], done["error"]) == ("failed", "inference_failed")
    assert done["error_message"] == "The model anna is not offered any more."
    assert done["stage"] == "queued", "and not after the song was separated"


def test_a_command_that_cannot_be_told_the_model_says_so(submit: Callable[..., Any], api: APIClient, settings: Any,
                                                         tmp_path: Path) -> None:  # fmt: skip
    (tmp_path / "copy.py").write_text("import shutil, sys\nshutil.copy(*sys.argv[1:])\n")
    settings.COVER_INFER_CMD_TEMPLATE = f"{sys.executable} {tmp_path}/copy.py {{input_vocal}} {{output_vocal}}"
    commands.template.cache_clear()
    model("anna", **weights("anna"))
    assert run(submit, api, model_id="anna")["warning"] == "The cover engine of this server makes no use of model_id."
    assert run(submit, api)["warning"] is None
    commands.template.cache_clear()


# --- operators --------------------------------------------------------------------------------------------------------


def test_the_console_offers_and_takes_away_models(
    operator: Client,
    sovits: Callable[..., FakeGptSovits],
) -> None:
    sovits()
    form = {"model_id": "anna", "name": "Anna", "engine": "gptsovits", "enabled": "on", "languages": ["en"],
            "gpt_weights": "gpt-anna", "sovits_weights": "sovits-anna", "version": "v2"}  # fmt: skip
    add = reverse("admin:voices_enginemodel_add")
    assert "can be used for covers only" in operator.post(add, form, follow=True).content.decode()
    form |= {"model_id": "default", "gpt_weights": "gpt-base", "sovits_weights": "sovits-base"}
    assert "covers only" not in operator.post(add, form, follow=True).content.decode()
    assert "no dots" not in operator.post(add, form | {"model_id": "a/b"}).content.decode()
    assert list(EngineModel.objects.values_list("model_id", "languages")) == [("anna", ["en"]), ("default", ["en"])]
    changelist = reverse("admin:voices_enginemodel_changelist")
    chosen = EngineModel.objects.get(model_id="anna").pk
    for action, enabled in (("disable", False), ("enable", True)):
        operator.post(changelist, {"action": action, "_selected_action": [chosen]})
        assert EngineModel.objects.get(pk=chosen).enabled is enabled


def test_system_checks_find_what_would_fail_at_the_first_sentence(settings: Any, tmp_path: Path) -> None:
    def found() -> list[str]:
        return [str(problem.id) for problem in checks.gptsovits_servers(None)]

    assert found() == []  # the built-in engine
    settings.VOICE_ENGINE = "gptsovits"
    settings.SOVITS_BASE_URLS = ["http://127.0.0.1:9880", "http://localhost:9881"]
    assert found() == []
    settings.SOVITS_BASE_URLS = ["http://gpu:9880"]
    assert found() == ["voiceproject.W003"]
    settings.SOVITS_REFERENCE_DIR = tmp_path / "shared" / "references"
    assert found() == []
    (tmp_path / "shared").write_text("a file")
    assert found() == ["voiceproject.E004"]
    settings.SOVITS_PROTOCOL = "voiceproject"
    assert found() == ["voiceproject.W004"]
    settings.SOVITS_TOKEN = "secret"
    assert found() == []
    settings.SOVITS_PINNED_MODELS = {"http://gpu:9880": "anna"}
    assert [problem.id for problem in checks.pinned_models(None, databases=["default"])] == ["voiceproject.W005"]
    model("anna")
    assert checks.pinned_models(None, databases=["default"]) == []
    call_command("check", databases=["default"])
