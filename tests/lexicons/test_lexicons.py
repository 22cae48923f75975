"""/api/v1/voice/lexicons, and what speaks by lexicons."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from rest_framework.test import APIClient

from tests.fakes.engine import FakeEngine
from tests.support.audio import upload
from tests.support.tenants import Tenant
from voiceproject.tenants.models import AuditEntry
from voiceproject.tenants.models import Tenant as Limits
from voices.account import personal_data
from voices.lexicons import pls, stored
from voices.lexicons.models import Lexicon, LexiconVersion
from voices.library.models import Voice
from voices.speech import tasks
from voices.speech.models import Synthesis

pytestmark = pytest.mark.django_db
URL = "/api/v1/voice/lexicons"
SQL = {"word": "SQL", "say": "sequel"}
TOMATO = {"word": "tomato", "say": "təˈmɑːtəʊ", "alphabet": "ipa"}


def make(api: APIClient, *entries: dict[str, Any], **fields: Any) -> dict[str, Any]:
    answer = api.post(URL, {"name": "Names", "entries": list(entries), **fields}, format="json")
    assert answer.status_code == 201, answer.content
    return answer.json()


def refused(answer: Any, *what: str, status: int = 400) -> dict[str, Any]:
    body = answer.json()
    assert answer.status_code == status, body
    assert body["message"] or body["details"]
    for text in what:
        assert text in str(body["details"]), body
    return body


def words(api: APIClient, text: str, **fields: Any) -> list[str]:
    answer = api.post("/api/v1/voice/normalize", {"text": text, **fields}, format="json")
    assert answer.status_code == 200, answer.content
    return [sentence["words"] for sentence in answer.json()["sentences"]]


def test_a_lexicon_is_made_read_changed_and_deleted(api: APIClient, tenant: Tenant) -> None:
    made = make(api, SQL, TOMATO, description="Ours", language="en")
    assert made["entries"][0] == {
        "word": "SQL", "say": "sequel", "alphabet": "respelling", "language": "", "case_sensitive": False,
        "whole_word": True,
    }  # fmt: skip
    assert (made["language"], made["entries_count"], made["is_default"]) == ("en", 2, False)
    url = f"{URL}/{made['lexicon_id']}"
    assert made["links"]["self"].endswith(url)
    listed = api.get(URL).json()["results"]
    assert [one["lexicon_id"] for one in listed] == [made["lexicon_id"]]
    assert "entries" not in listed[0]
    changed = api.patch(url, {"entries": [SQL], "name": "Fewer"}, format="json").json()
    assert (changed["name"], changed["entries_count"], len(changed["entries"])) == ("Fewer", 1, 1)
    assert changed["version_id"] != made["version_id"]
    assert api.get(url).json()["entries"] == changed["entries"]
    assert api.delete(url).status_code == 204
    refused(api.get(url), status=404)
    actions = list(AuditEntry.objects.filter(tenant_id=tenant.user.pk).values_list("action", flat=True))
    assert {"lexicon.create", "lexicon.change", "lexicon.delete"} <= set(actions)


def test_only_the_newest_versions_are_kept(api: APIClient) -> None:
    made = make(api, SQL)
    for number in range(stored.KEPT_VERSIONS + 2):
        entries = [{"word": "SQL", "say": f"number {number}"}]
        assert api.patch(f"{URL}/{made['lexicon_id']}", {"entries": entries}, format="json").status_code == 200
    assert LexiconVersion.objects.count() == stored.KEPT_VERSIONS
    assert words(api, "SQL.", lexicon_id=made["lexicon_id"]) == ["number eleven."]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"word": "", "say": "x"}], "word is missing"),
        ([{"word": "a"}], "say is missing"),
        ([{"word": "a", "say": "  "}], "say is missing"),
        ([{"word": "a" * 101, "say": "x"}], "word has 101 characters, at most 100"),
        ([{"word": "a", "say": "x" * 10_000}], "say has 10000 characters, at most 200"),
        ([{"word": "a", "say": "…!"}], "nothing to speak"),
        ([{"word": "🙂", "say": "smile"}], "nothing is left of"),
        ([{"word": "a\x00b", "say": "x"}], "control characters"),
        ([{"word": "a", "say": "x", "alphabet": "klingon"}], '"klingon" is no alphabet that is known here: respelling'),
        ([{"word": "a", "say": "ʘ7", "alphabet": "ipa"}], "no sign of the IPA that is known here: ʘ 7"),
        ([{"word": "a", "say": "zhongguo", "alphabet": "pinyin"}], "its tones are missing"),
        ([{"word": "a", "say": "xyz1", "alphabet": "pinyin"}], "is no pinyin"),
        ([{"word": "a", "say": "漢字", "alphabet": "kana"}], "not kana alone"),
        ([{"word": "a", "say": "QQ1", "alphabet": "arpabet"}], "is no sound of ARPAbet"),
        ([{"word": "a", "say": "a1", "alphabet": "pinyin", "language": "en"}], "pinyin cannot say a word of English"),
        ([{"word": "a", "say": "x", "language": "tlh"}], '"tlh" is no language'),
        ([{"word": "a", "say": "x", "case_sensitive": "yes"}], "case_sensitive is true or false"),
        ([{"word": "a", "say": "x", "sai": "y"}], "unknown field sai"),
        ([{"word": "Bob", "say": "x"}, {"word": "bob", "say": "y"}], "is there already, as entries[0]"),
        (["SQL"], "it is no object"),
        ("SQL", "Must be a list"),
        ([SQL] * 10_001, "at most 10000 entries; these are 10001"),
    ],
)  # fmt: skip
def test_what_cannot_be_an_entry_is_refused_by_its_place(api: APIClient, entries: Any, message: str) -> None:
    refused(api.post(URL, {"name": "Bad", "entries": entries}, format="json"), message)
    assert not Lexicon.objects.exists()


def test_sounds_that_only_come_near_are_told(api: APIClient) -> None:
    made = make(api, {"word": "Bach", "say": "bax", "alphabet": "ipa"})
    assert made["warnings"] == ['entries[0]: "Bach": x is said as k.']


def test_a_request_comes_before_its_voice_and_the_voice_before_the_default(
    api: APIClient, save: Callable[..., Any], engine: FakeEngine
) -> None:
    ids = {
        name: make(
            api, {"word": "SQL", "say": name}, *([{"word": name, "say": f"the {name}"}]), is_default=name == "base"
        )["lexicon_id"]
        for name in ("base", "voice", "named", "second")
    }
    voice_id = save(lexicon_id=ids["voice"]).json()["voice_id"]
    assert api.get(f"/api/v1/voice/voices/{voice_id}").json()["lexicon_id"] == ids["voice"]
    assert words(api, "SQL.") == ["base."]
    assert words(api, "SQL.", voice_id=voice_id) == ["voice."]
    assert words(api, "SQL.", voice_id=voice_id, lexicon_id=ids["named"]) == ["named."]
    assert words(api, "SQL.", lexicon_ids=[ids["second"], ids["named"]]) == ["second."]
    # All of them count for what only they have, and none is looked up in what another says.
    assert words(api, "SQL named voice base.", voice_id=voice_id, lexicon_id=ids["named"]) == [
        "named the named the voice the base."
    ]
    answer = api.post("/api/v1/voice/synthesize", {"text": "SQL.", "voice_id": voice_id, "lexicon_ids": ids["named"]})
    assert answer.status_code == 200
    assert [entry.say for entry in engine.requests[-1].lexicon.entries] == ["named", "voice", "base"]
    api.patch(f"/api/v1/voice/voices/{voice_id}", {"lexicon_id": None}, format="json")
    assert words(api, "SQL.", voice_id=voice_id) == ["base."]
    make(api, {"word": "SQL", "say": "newer"}, is_default=True)
    assert words(api, "SQL.") == ["newer."]
    assert Lexicon.objects.filter(is_default=True).count() == 1


@pytest.mark.parametrize("form", ["whole", "stream", "job", "openai"])
def test_every_form_of_synthesis_speaks_by_its_lexicon(
    api: APIClient, engine: FakeEngine, reference_wav: bytes, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeEngine, "presets", ("female", "male"), raising=False)
    made = make(api, SQL, is_default=form == "openai")
    fields = {"text": "We use SQL here.", "lexicon_id": made["lexicon_id"], "stream": form == "stream"}
    url = "/api/v1/voice/synthesize"
    if form == "openai":
        answer = api.post(
            "/openai/v1/audio/speech", {"input": "We use SQL here.", "model": "tts-1", "voice": "alloy"}, format="json"
        )
    elif form == "job":
        fields["reference_audio"] = upload(reference_wav)
        answer = api.post(url, fields, headers={"Prefer": "respond-async"})
        assert answer.status_code == 202
        job = Synthesis.objects.get()
        # What it needs is its own: the lexicon may be changed or deleted while it waits, and before it is retried.
        assert api.delete(f"{URL}/{made['lexicon_id']}").status_code == 204
        engine.failure = RuntimeError("broken")
        tasks.run(Synthesis.claim("w", "h", 9, 9), threading.Event())
        engine.failure = None
        assert api.post(f"/api/v1/voice/syntheses/{job.pk}/retry").status_code == 202
        tasks.run(Synthesis.claim("w", "h", 9, 9), threading.Event())
        job.refresh_from_db()
        assert job.status == "succeeded"
        assert [request.lexicon.entries[0].say for request in engine.requests] == ["sequel", "sequel"]
    else:
        answer = api.post(url, {**fields, "reference_audio": upload(reference_wav)})
        if form == "stream":
            assert b"".join(answer.streaming_content)
    assert answer.status_code in (200, 202), answer.content
    assert [entry.say for entry in engine.requests[-1].lexicon.entries] == ["sequel"]
    assert Synthesis.objects.get().lexicon[0]["word"] == "SQL"


def test_a_job_keeps_only_what_its_text_has_in_it(api: APIClient, engine: FakeEngine, reference_wav: bytes) -> None:
    many = [{"word": f"word{number}", "say": "x"} for number in range(1000)]
    made = make(api, *many, SQL)
    fields = {"text": "Some sql.", "lexicon_id": made["lexicon_id"], "reference_audio": upload(reference_wav)}
    assert api.post("/api/v1/voice/synthesize", fields).status_code == 200
    assert [row["word"] for row in Synthesis.objects.get().lexicon] == ["SQL"]


def test_a_lexicon_that_a_voice_speaks_by_is_not_deleted(api: APIClient, save: Callable[..., Any]) -> None:
    made = make(api, SQL)
    voice_id = save(lexicon_id=made["lexicon_id"]).json()["voice_id"]
    body = refused(api.delete(f"{URL}/{made['lexicon_id']}"), status=409)
    assert (body["error"], body["details"]["voices"]) == ("conflict", [voice_id])
    api.patch(f"/api/v1/voice/voices/{voice_id}", {"lexicon_id": None}, format="json")
    assert api.delete(f"{URL}/{made['lexicon_id']}").status_code == 204
    assert Voice.objects.get().lexicon is None


def test_strangers_lexicons_are_not_there(
    api: APIClient, other: Tenant, save: Callable[..., Any], reference_wav: bytes
) -> None:
    theirs = make(other.client, SQL)["lexicon_id"]
    make(other.client, SQL, is_default=True)
    voice_id = save().json()["voice_id"]
    for pk in (theirs, str(uuid.uuid4())):
        for answer in (
            api.post("/api/v1/voice/normalize", {"text": "SQL", "lexicon_id": pk}, format="json"),
            api.post("/api/v1/voice/synthesize", {"text": "SQL", "voice_id": voice_id, "lexicon_id": pk}),
            api.post("/api/v1/voice/synthesize", {"text": "SQL", "voice_id": voice_id, "lexicon_ids": f"{pk},{pk}"}),
            api.patch(f"/api/v1/voice/voices/{voice_id}", {"lexicon_id": pk}, format="json"),
            save(lexicon_id=pk),
        ):
            refused(answer, "There is no such lexicon, or it is not yours.", status=404)
    assert words(api, "SQL") == ["SQL"]


def test_scopes_and_limits_hold(api: APIClient, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "MAX_LEXICONS", 2)
    make(api, SQL)
    made = make(api, SQL)
    refused(api.post(URL, {"name": "Third", "entries": [SQL]}, format="json"), status=409)
    Limits.objects.update_or_create(user=tenant.user, defaults={"max_storage_bytes": 50})
    body = refused(api.patch(f"{URL}/{made['lexicon_id']}", {"entries": [SQL, TOMATO]}, format="json"), status=429)
    assert body["error"] == "quota_exceeded"
    assert Lexicon.held_bytes(tenant.user.pk) == sum(version.bytes for version in LexiconVersion.objects.all()) > 0
    refused(api.post("/api/v1/voice/normalize", {"text": "x", "lexicon_id": "x"}, format="json"), "no id of a lexicon")


PLS = """<?xml version="1.0" encoding="UTF-8"?>
<lexicon version="1.0" xmlns="http://www.w3.org/2005/01/pronunciation-lexicon" alphabet="ipa" xml:lang="en-US">
  <lexeme><grapheme>judgment</grapheme><grapheme>judgement</grapheme><phoneme>ˈdʒʌdʒ.mənt</phoneme></lexeme>
  <lexeme><grapheme>W3C</grapheme><alias>World Wide Web Consortium</alias></lexeme>
  <lexeme><grapheme>data</grapheme><phoneme>ˈdɑːtə</phoneme><phoneme prefer="true">ˈdeɪtə</phoneme></lexeme>
  <lexeme xml:lang="zh-CN"><grapheme>重庆</grapheme><phoneme alphabet="x-pinyin">chong2 qing4</phoneme></lexeme>
</lexicon>"""


@pytest.mark.parametrize("way", ["raw", "form"])
def test_a_pls_file_comes_in_and_goes_out_again(api: APIClient, way: str) -> None:
    content = PLS.encode()
    if way == "raw":
        answer = api.post(f"{URL}?name=W3C%20words&language=en", content, content_type="application/pls+xml")
    else:
        answer = api.post(URL, {"name": "W3C words", "language": "en", "file": upload(content, "words.pls")})
    assert answer.status_code == 201, answer.content
    made = answer.json()
    assert made["name"] == "W3C words"
    assert [(entry["word"], entry["say"], entry["alphabet"], entry["language"]) for entry in made["entries"]] == [
        ("judgment", "ˈdʒʌdʒ.mənt", "ipa", "en"),
        ("judgement", "ˈdʒʌdʒ.mənt", "ipa", "en"),
        ("W3C", "World Wide Web Consortium", "respelling", "en"),
        ("data", "ˈdeɪtə", "ipa", "en"),
        ("重庆", "chong2 qing4", "pinyin", "zh"),
    ]
    assert made["warnings"] == ['"data" is said in 2 ways; one counts: "ˈdeɪtə".']
    flags = {"word": "Us", "say": "you ess", "case_sensitive": True, "whole_word": False}
    entries = [*made["entries"], flags]
    changed = api.patch(f"{URL}/{made['lexicon_id']}", {"entries": entries}, format="json").json()
    given = api.get(f"{URL}/{made['lexicon_id']}/pls")
    assert (given.status_code, given["Content-Type"]) == (200, "application/pls+xml")
    back = api.patch(f"{URL}/{made['lexicon_id']}", given.content, content_type="application/pls+xml").json()
    same = [{**entry, "language": entry["language"] or "en"} for entry in changed["entries"]]
    assert [{**entry, "language": entry["language"] or "en"} for entry in back["entries"]] == same
    assert words(api, "W3C data.", lexicon_id=made["lexicon_id"]) == ["World Wide Web Consortium /ˈdeɪtə/."]


BOMB = """<!DOCTYPE lexicon [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<lexicon><lexeme><grapheme>&b;</grapheme><alias>x</alias></lexeme></lexicon>"""
OUTSIDE = """<!DOCTYPE lexicon [<!ENTITY x SYSTEM "file:///etc/passwd">]>
<lexicon><lexeme><grapheme>a</grapheme><alias>&x;</alias></lexeme></lexicon>"""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "document type or entities"),
        (OUTSIDE, "document type or entities"),
        ("<lexicon><lexeme>", "no well-formed XML"),
        ("nothing", "no well-formed XML"),
        ("<html/>", "Its root is <html>"),
        ("<lexicon/>", "There is no <lexeme>"),
        ("<lexicon><lexeme><grapheme>a</grapheme></lexeme></lexicon>", "needs a grapheme, and a phoneme or an alias"),
        ("<lexicon alphabet='x-klingon'><lexeme><grapheme>a</grapheme><phoneme>b</phoneme></lexeme></lexicon>",
         '"x-klingon" is no alphabet'),
        ("<lexicon xml:lang='de'><lexeme><grapheme>a</grapheme><alias>b</alias></lexeme></lexicon>", "is no language"),
        ("<lexicon><lexeme><grapheme>a</grapheme><phoneme>7</phoneme></lexeme></lexicon>", "cannot be said"),
        ("<a>" * 60_000, "no well-formed XML"),
        (f"<lexicon>{'<lexeme><grapheme>a</grapheme><alias>b</alias></lexeme>' * 10_001}</lexicon>", "at most 10000"),
        (b"\xff\xfe\x00", "no well-formed XML"),
    ],
)  # fmt: skip
def test_files_that_are_no_lexicon_are_refused(api: APIClient, content: str | bytes, message: str) -> None:
    sent = content if isinstance(content, bytes) else content.encode()
    refused(api.post(f"{URL}?name=Bad", sent, content_type="application/pls+xml"), message)
    refused(api.post(URL, {"name": "Bad", "file": upload(sent, "bad.pls")}), message)
    assert not Lexicon.objects.exists()


def test_a_whole_lexicon_fits_into_json_and_more_is_too_large(api: APIClient) -> None:
    entries = [{"word": f"a longer word {number}", "say": "as it is said"} for number in range(10_000)]
    assert make(api, *entries)["entries_count"] == 10_000
    answer = api.post(URL, {"name": "Big", "entries": [{**TOMATO, "say": "z" * 1_100_000}]}, format="json")
    assert (answer.status_code, answer.json()["error"]) == (413, "file_too_large")
    too_large = b" " * (pls.MAX_BYTES + 1)
    for answer in (
        api.post(URL, {"name": "Big", "file": upload(too_large, "big.pls")}),
        api.post(f"{URL}?name=Big", too_large, content_type="application/pls+xml"),
    ):
        assert (answer.status_code, answer.json()["error"]) == (413, "file_too_large")


def test_operators_look_at_a_lexicon_and_its_words_run_nowhere(api: APIClient, operator: Client) -> None:
    made = make(api, {"word": "<script>x</script>", "say": "ecks"}, name="<b>Ours</b>")
    for path in ("", f"{made['lexicon_id']}/change/"):
        page = operator.get(f"/admin/voices/lexicon/{path}")
        assert page.status_code == 200
        assert "<script>x" not in page.content.decode() and "<b>Ours" not in page.content.decode()
    assert "&lt;script&gt;x&lt;/script&gt;: ecks" in page.content.decode()


def test_lexicons_are_exported_and_erased_with_their_tenant(api: APIClient, tenant: Tenant, other: Tenant) -> None:
    make(api, SQL)
    make(other.client, TOMATO)
    archive = b"".join(personal_data.archive(tenant.user))
    assert b"lexicon_versions.json" in archive
    personal_data.request_erasure(tenant.user)
    personal_data.erase_requested()
    assert not User.objects.filter(pk=tenant.user.pk).exists()
    assert [lexicon.tenant for lexicon in Lexicon.objects.all()] == [other.user]
