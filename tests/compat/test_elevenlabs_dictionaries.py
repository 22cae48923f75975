"""Pronunciation dictionaries, by ElevenLabs' own client against a live server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from elevenlabs import PronunciationDictionaryVersionLocator as Locator
from elevenlabs.client import ElevenLabs
from elevenlabs.core.api_error import ApiError
from elevenlabs.pronunciation_dictionaries import (
    BodyAddAPronunciationDictionaryV1PronunciationDictionariesAddFromRulesPostRulesItem_Alias as Alias,
)
from elevenlabs.pronunciation_dictionaries import (
    BodyAddAPronunciationDictionaryV1PronunciationDictionariesAddFromRulesPostRulesItem_Phoneme as Phoneme,
)

from tests.fakes.engine import FakeEngine
from tests.support.tenants import Tenant
from voices.compat.elevenlabs.messages import MessageSerializer
from voices.lexicons.models import Lexicon

pytestmark = pytest.mark.django_db(transaction=True)
PLS = b"""<?xml version="1.0"?>
<lexicon version="1.0" xmlns="http://www.w3.org/2005/01/pronunciation-lexicon" alphabet="cmu-arpabet" xml:lang="en-GB">
  <lexeme><grapheme>apple</grapheme><phoneme>AE1 P AH0 L</phoneme></lexeme>
  <lexeme><grapheme>UN</grapheme><alias>United Nations</alias></lexeme>
</lexicon>"""


@pytest.fixture
def client(live_server: Any, tenant: Tenant, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> ElevenLabs:
    monkeypatch.setattr(FakeEngine, "presets", ("female", "male"), raising=False)
    return ElevenLabs(api_key=tenant.secret, base_url=f"{live_server.url}/elevenlabs")


def test_a_dictionary_is_made_of_rules_changed_listed_and_downloaded(client: ElevenLabs, tenant: Tenant) -> None:
    dictionaries = client.pronunciation_dictionaries
    made = dictionaries.create_from_rules(
        name="Names",
        description="Ours",
        rules=[
            Alias(string_to_replace="UN", alias="United Nations"),
            Phoneme(
                string_to_replace="tomato", phoneme="T AH0 M EY1 T OW0", alphabet="cmu-arpabet", case_sensitive=False
            ),
        ],
    )
    assert (made.name, made.description, made.version_rules_num) == ("Names", "Ours", 2)
    found = dictionaries.get(made.id)
    assert (found.latest_version_id, found.archived_time_unix) == (made.version_id, None)
    assert [(rule.type, rule.string_to_replace, rule.case_sensitive, rule.word_boundaries) for rule in found.rules] == [
        ("alias", "UN", True, True),
        ("phoneme", "tomato", False, True),
    ]
    added = dictionaries.rules.add(
        made.id, rules=[Alias(string_to_replace="UN", alias="you en"), Alias(string_to_replace="EU", alias="ee you")]
    )  # fmt: skip
    assert (added.id, added.version_rules_num, added.version_id != made.version_id) == (made.id, 3, True)
    assert dictionaries.rules.remove(made.id, rule_strings=["tomato"]).version_rules_num == 2
    assert {rule.alias for rule in dictionaries.get(made.id).rules} == {"you en", "ee you"}
    assert dictionaries.rules.set(made.id, rules=[Alias(string_to_replace="a", alias="b")]).version_rules_num == 1
    first = b"".join(dictionaries.download(made.id, made.version_id))
    assert b"United Nations" in first and b"T AH0 M EY1 T OW0" in first
    dictionaries.create_from_rules(name="Another", rules=[])
    page = dictionaries.list(page_size=1, sort="name", sort_direction="ascending")
    assert ([one.name for one in page.pronunciation_dictionaries], page.has_more) == (["Another"], True)
    page = dictionaries.list(page_size=1, sort="name", sort_direction="ascending", cursor=page.next_cursor)
    assert ([one.name for one in page.pronunciation_dictionaries], page.has_more) == (["Names"], False)
    changed = dictionaries.update(made.id, archived=True, name="Older")
    assert (changed.name, changed.archived_time_unix is not None) == ("Older", True)
    assert [one.name for one in dictionaries.list().pronunciation_dictionaries] == ["Another"]
    assert len(dictionaries.list(include_archived=True).pronunciation_dictionaries) == 2
    assert Lexicon.objects.filter(tenant=tenant.user).count() == 2


def test_speech_follows_the_version_that_is_named_else_the_newest(client: ElevenLabs, engine: FakeEngine) -> None:
    made = client.pronunciation_dictionaries.create_from_file(name="A file", file=("words.pls", PLS))
    assert made.version_rules_num == 2
    client.pronunciation_dictionaries.rules.set(made.id, rules=[Alias(string_to_replace="UN", alias="newer")])
    text = "The UN, an apple, the un."
    for locator in (Locator(pronunciation_dictionary_id=made.id, version_id=made.version_id),
                    Locator(pronunciation_dictionary_id=made.id)):  # fmt: skip
        assert b"".join(client.text_to_speech.convert("alloy", text=text, pronunciation_dictionary_locators=[locator]))
    b"".join(client.text_to_speech.stream("alloy", text=text, pronunciation_dictionary_locators=[locator]))
    old, newest, streamed = ([(entry.word, entry.say) for entry in one.lexicon.entries] for one in engine.requests)
    assert old == [("apple", "AE1 P AH0 L"), ("UN", "United Nations")]
    assert newest == streamed == [("UN", "newer")]


def test_what_is_not_there_is_said(client: ElevenLabs, other: Tenant) -> None:
    made = client.pronunciation_dictionaries.create_from_rules(name="x", rules=[])
    theirs = ElevenLabs(api_key=other.secret, base_url=client._client_wrapper.get_base_url())
    for locator in (
        Locator(pronunciation_dictionary_id=made.id),
        Locator(pronunciation_dictionary_id="nothing"),
        Locator(pronunciation_dictionary_id=made.id, version_id=made.id),
    ):
        asked = client if locator.version_id else theirs
        with pytest.raises(ApiError) as refused:
            b"".join(asked.text_to_speech.convert("alloy", text="Hi.", pronunciation_dictionary_locators=[locator]))
        assert refused.value.status_code == 404
    with pytest.raises(ApiError) as refused:
        client.pronunciation_dictionaries.create_from_rules(
            name="x", rules=[Phoneme(string_to_replace="a", phoneme="QQ9", alphabet="cmu")]
        )
    assert "no sound of ARPAbet" in refused.value.body["detail"][0]["msg"]
    with pytest.raises(ApiError) as refused:
        theirs.pronunciation_dictionaries.get(made.id)
    assert refused.value.status_code == 404


def test_messages_of_sockets_may_name_dictionaries() -> None:
    sent = json.loads('{"text": " ", "pronunciation_dictionary_locators": [{"pronunciation_dictionary_id": "a"}]}')
    serializer = MessageSerializer(data=sent)
    assert serializer.is_valid()
    assert serializer.validated_data["pronunciation_dictionary_locators"] == [{"pronunciation_dictionary_id": "a"}]
    sent["pronunciation_dictionary_locators"] *= 4
    assert not MessageSerializer(data=sent).is_valid()
