"""Voices by whatever name a client has for them: ids, names, aliases, presets, the premade ids of tutorials."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from model_bakery import baker

from tests.fakes.engine import FakeEngine
from tests.support.owned import voice as make_voice
from tests.support.tenants import Tenant
from voiceproject.tenants.models import AuditEntry
from voices.account import personal_data
from voices.engines import configured
from voices.library.models import Voice, VoiceAlias
from voices.speech.models import Synthesis

pytestmark = pytest.mark.django_db(transaction=True)
ALIASES = "/api/v1/voice/aliases"


@pytest.fixture(autouse=True)
def engine(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    monkeypatch.setattr(FakeEngine, "presets", ("female", "male"), raising=False)
    return engine


def saved(owner: User, name: str) -> Voice:
    # The reference is read as audio only by an engine, which is a fake here.
    voice = Voice.objects.get(pk=make_voice(owner)["pk"])
    Voice.objects.filter(pk=voice.pk).update(name=name, reference_hash=voice.pk.hex)
    voice.refresh_from_db()
    return voice


def spoken_by(tenant: Tenant, engine: FakeEngine, name: str) -> str:
    """The preset, or the id of the saved voice, that both compatible routes give to the engine; else the refusal."""
    answers = []
    for url, body in (
        ("/openai/v1/audio/speech", {"input": "Hello.", "voice": name, "response_format": "wav"}),
        (f"/elevenlabs/v1/text-to-speech/{name}", {"text": "Hello."}),
    ):
        engine.requests.clear()
        response = tenant.client.post(url, body, format="json")
        if response.status_code != 200:
            answers.append(str(response.status_code))
        else:
            reference = engine.requests[0].reference
            voice_id = Synthesis.objects.latest("created_at").voice_id
            answers.append(reference.preset or str(voice_id))
    assert len(set(answers)) == 1, answers
    return answers[0]


def test_a_voice_is_found_by_id_name_alias_preset_and_premade_id(
    tenant: Tenant, other: Tenant, engine: FakeEngine
) -> None:
    older, jane, strangers = saved(tenant.user, "Jane Doe"), saved(tenant.user, "jane doe"), saved(other.user, "Eve")
    Voice.objects.filter(pk=older.pk).update(created_at=timezone.now() - timezone.timedelta(days=1))
    saved(other.user, "Jane Doe")
    for name in (str(jane.pk), f"voice_{jane.pk.hex}", "JANE DOE", "Jane Doe"):
        assert spoken_by(tenant, engine, name) == str(jane.pk), name
    assert spoken_by(tenant, engine, str(older.pk)) == str(older.pk)
    for name in (str(strangers.pk), "Eve", "nobody", "50%", "JANE_DOE", "x" * 300):
        assert spoken_by(tenant, engine, name) == "404", name
    assert [spoken_by(tenant, engine, name) for name in ("alloy", "Onyx")] == ["female", "male"]
    assert spoken_by(tenant, engine, "JBFqnCBsd6RMkjVDRZzb") == "male"
    assert spoken_by(tenant, engine, "21m00Tcm4TlvDq8ikWAM") == "female"

    Voice.objects.filter(pk=jane.pk).update(taken_down_at=timezone.now())
    assert spoken_by(tenant, engine, "Jane Doe") == str(older.pk), "the newest that can be used"
    Voice.objects.filter(pk=older.pk).update(taken_down_at=timezone.now())
    assert spoken_by(tenant, engine, "Jane Doe") == "410"


def test_an_alias_goes_before_presets_and_names_and_is_its_tenants_alone(
    tenant: Tenant, other: Tenant, engine: FakeEngine
) -> None:
    jane = saved(tenant.user, "Jane")
    given = tenant.client.put(ALIASES, {"alias": "Alloy", "voice": "jane"}, format="json")
    assert (given.status_code, given.json()) == (
        200, {"alias": "alloy", "voice_id": str(jane.pk), "voice_name": "Jane", "preset": None},
    )  # fmt: skip
    tenant.client.put(ALIASES, {"alias": "JBFqnCBsd6RMkjVDRZzb", "voice": str(jane.pk)}, format="json")
    tenant.client.put(ALIASES, {"alias": "narrator", "voice": "onyx"}, format="json")
    assert [spoken_by(tenant, engine, name) for name in ("alloy", "ALLOY", "JBFqnCBsd6RMkjVDRZzb", "narrator")] == [
        str(jane.pk), str(jane.pk), str(jane.pk), "male",
    ]  # fmt: skip
    assert [spoken_by(other, engine, name) for name in ("alloy", "narrator")] == ["female", "404"]
    assert [row["alias"] for row in tenant.client.get(ALIASES).json()["aliases"]] == [
        "alloy", "jbfqncbsd6rmkjvdrzzb", "narrator",
    ]  # fmt: skip
    tenant.client.put(ALIASES, {"alias": "alloy", "voice": "onyx"}, format="json")
    assert spoken_by(tenant, engine, "alloy") == "male"
    assert tenant.client.delete(f"{ALIASES}/ALLOY").status_code == 204
    assert tenant.client.delete(f"{ALIASES}/alloy").status_code == 404
    assert spoken_by(tenant, engine, "alloy") == "female"
    tenant.client.delete(f"/api/v1/voice/voices/{jane.pk}")
    assert spoken_by(tenant, engine, "JBFqnCBsd6RMkjVDRZzb") == "male", "the alias went with its voice"
    told = AuditEntry.objects.filter(action__startswith="voice.alias").order_by("pk")
    assert [entry.action for entry in told] == [*4 * ["voice.alias"], "voice.alias_removed"]
    assert told[0].details == {"alias": "alloy", "voice_id": str(jane.pk), "preset": None}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"alias": "alloy"}, 400, "voice"),
        ({"alias": "alloy", "voice": "nobody"}, 404, "voice_id"),
        ({"alias": "", "voice": "onyx"}, 400, "alias"),
        ({"alias": "x" * 101, "voice": "onyx"}, 400, "alias"),
        ({"alias": "11111111-1111-1111-1111-111111111111", "voice": "onyx"}, 400, "alias"),
        ({"alias": "a", "voice": "onyx", "name": "b"}, 400, "name"),
    ],
)
def test_an_alias_that_cannot_be_is_refused(tenant: Tenant, body: dict[str, str], status: int, field: str) -> None:
    refused = tenant.client.put(ALIASES, body, format="json")
    assert (refused.status_code, list(refused.json()["details"])) == (status, [field])
    assert not VoiceAlias.objects.exists()


def test_our_own_api_takes_a_name_too_and_says_what_it_does_not_take(tenant: Tenant, engine: FakeEngine) -> None:
    jane = saved(tenant.user, "Jane")

    def say(**fields: str) -> Any:
        return tenant.client.post("/api/v1/voice/synthesize", {"text": "Hello.", **fields}, format="json")

    answer = say(voice="jane")
    assert answer.status_code == 200, answer.content
    assert Synthesis.objects.get(pk=answer["X-Synthesis-ID"]).voice_id == jane.pk
    assert (say(voice="nobody").status_code, say(voice="alloy").json()["error"]) == (404, "validation_error")
    both = say(voice="jane", voice_id=str(jane.pk)).json()
    assert both["details"] == {"voice": ["Both voice_id and voice were sent; send one of them."]}
    background = tenant.client.post(
        "/api/v1/voice/synthesize",
        {"text": "Hello.", "voice": "Jane"},
        format="json",
        headers={"Prefer": "respond-async"},
    )
    assert (background.status_code, background.json()["voice_id"]) == (202, str(jane.pk))


def test_aliases_are_exported_and_erased(tenant: Tenant) -> None:
    jane = saved(tenant.user, "Jane")
    for number, name in enumerate((str(jane.pk), "onyx")):
        tenant.client.put(ALIASES, {"alias": f"name {number}", "voice": name}, format="json")
    with zipfile.ZipFile(io.BytesIO(b"".join(personal_data.archive(tenant.user)))) as archive:
        told = json.loads(archive.read("voice_aliases.json"))
    assert told == [
        {"alias": "name 0", "voice": str(jane.pk), "preset": ""}, {"alias": "name 1", "voice": None, "preset": "onyx"},
    ]  # fmt: skip
    User.objects.filter(pk=tenant.user.pk).update(is_staff=True)  # The account stays, and is emptied.
    personal_data.request_erasure(tenant.user)
    assert personal_data.erase_requested() == 1
    assert not VoiceAlias.objects.exists()
    assert User.objects.filter(pk=tenant.user.pk).exists()


def test_an_engine_without_presets_says_so(tenant: Tenant, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    baker.make(VoiceAlias, tenant=tenant.user, alias="narrator", preset="onyx")
    monkeypatch.setattr(FakeEngine, "presets", (), raising=False)
    assert configured.get_engine() is engine
    assert [spoken_by(tenant, engine, name) for name in ("alloy", "narrator", "21m00Tcm4TlvDq8ikWAM")] == 3 * ["404"]
