"""The console and the account page in Simplified Chinese, whole; the API in English, whoever asks."""

from __future__ import annotations

import re
import uuid
from html.parser import HTMLParser
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone, translation
from model_bakery import baker
from rest_framework.test import APIClient

from covers.models import CoverJob
from tests import translations
from tests.fakes.engine import FakeEngine
from voiceproject.console import numbers
from voiceproject.console.base import told
from voiceproject.console.tags import duration
from voiceproject.errors import PublicError
from voiceproject.jobs.models import WorkerHost
from voiceproject.leases.models import EngineLease
from voiceproject.tenants import audit
from voiceproject.tenants.models import AuditEntry, Tenant
from voiceproject.webhooks.models import WebhookDelivery
from voices.keys.models import ApiKey
from voices.lexicons.models import Lexicon
from voices.library.models import Consent, Voice
from voices.speech.models import EngineModel, Synthesis
from voices.training.models import Training

CHINESE = {"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.5"}
PLACEHOLDER = re.compile(r"%(?:\(\w+\))?[-+ 0#]*\d*(?:\.\d+)?[a-zA-Z%]|\{\w*\}")


# --- the catalogue ---


def test_the_catalogue_has_every_marked_text_and_no_other() -> None:
    found, kept = ({(text.context, text.id) for text in catalog if text.id}
                   for catalog in (translations.template(), translations.read()))  # fmt: skip
    assert len(found) > 600  # The search itself works.
    assert found == kept, "run python -m tests.translations, and translate what is new"


def test_every_text_is_translated_with_its_placeholders() -> None:
    for text in translations.read():
        if not text.id:
            continue
        originals = [text.id] if isinstance(text.id, str) else list(text.id)
        strings = [text.string] if isinstance(text.string, str) else list(text.string)
        assert len(strings) == 1  # Chinese has one form.
        assert strings[0].strip(), originals
        assert not text.fuzzy, originals
        wanted = sorted(PLACEHOLDER.findall(originals[-1]))
        assert sorted(PLACEHOLDER.findall(strings[0])) == wanted, originals


def test_the_compiled_catalogue_is_that_of_the_texts() -> None:
    assert translations.MO.read_bytes() == translations.compiled(translations.read())


def test_templates_and_code_are_searched_as_django_marks_them(tmp_path: Any) -> None:
    page, code = tmp_path / "page.html", tmp_path / "code.py"
    page.write_text(
        "{% load i18n %}It's\n  {% translate 'One' %}\n"
        "{% blocktranslate count n=n %}a {{ n }}{% plural %}b {{ n }}{% endblocktranslate %}"
        "{% include 'x' with title=_('Two') %}{% translate variable %}"
    )
    code.write_text("_('Three' ' four')\npgettext('at sea', 'Five')\n_(variable)\nngettext('six', 'seven', n)\n")
    assert [text for _, text in translations.texts(page)] == [
        (None, "One"), (None, ("a %(n)s", "b %(n)s")), (None, "Two"),
    ]  # fmt: skip
    assert [text for _, text in translations.texts(code)] == [
        (None, "Three four"), ("at sea", "Five"), (None, ("six", "seven")),
    ]  # fmt: skip


# --- the pages ---


class Words(HTMLParser):
    """What a reader of a page sees or hears: texts, and the attributes that are read out."""

    SILENT = ("script", "style", "template", "code", "pre")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._silent: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        # The icons' font draws a picture for each of its words.
        if tag in self.SILENT or "material-symbols" in values.get("class", "") or self._silent:
            if tag not in ("input", "img", "meta", "link", "br", "hr", "path", "rect", "line"):
                self._silent.append(tag)
            return
        self.found += [values[name] for name in ("title", "aria-label", "placeholder", "alt") if name in values]
        if tag == "input" and values.get("type") in ("submit", "button"):
            self.found.append(values.get("value", ""))

    def handle_endtag(self, tag: str) -> None:
        if self._silent and self._silent[-1] == tag:
            self._silent.pop()

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.found.append(data)


# Names of things, which are the same in both languages, and what the fixtures below have put there, all with an x.
SAME = re.compile(
    r"\b[xX][\w.-]*x\b|\bx[0-9]\b|vck_[\w-]+|\b(?=[0-9a-f-]*\d)[0-9a-f-]{4,}\b|"
    r"\b(?:API|SHA-256|UTC|ID|URL|GPT-SoVITS|GPT|SoVITS|RVC|OpenTelemetry|FLAC|MP3|dB|k?Hz|KB|MB|GB|TB|LDAP|md5|db8|"
    r"V2 Pro(?: Plus)?|English|zh-hans|en|zh|ja|yue|ko|auto|wav|mix|vocals|v[1234]\w*|builtin|gptsovits|default|"
    r"keep|fail|convert|synthesize|covers|voices|usage|keys|POST|ckpt|pth|index|esc)\b|Webhook|SOVITS_\w+|API_KEY|\w+\*{3,}|curl.*|"
    r"/api/v1/[\w/]*|\b[a-z]+_[a-z_]+\b|\b[A-Za-z]+\.[a-z_]+\b",  # Codes, such as voice.takedown
    re.ASCII,
)


def english_in(html: str) -> list[str]:
    words = Words()
    words.feed(html)
    texts = {" ".join(text.split()) for text in words.found}
    return sorted(text for text in texts if re.search(r"[A-Za-z]{2,}", SAME.sub("", text)))


def assert_chinese(pages: dict[str, str]) -> None:
    left = [f"{page}: {text}" for page, html in pages.items() for text in english_in(html)]
    assert not left, "\n".join(["English:", *left])


@pytest.fixture
def operator(db: None, engine: FakeEngine) -> Client:
    for kept in (numbers.HISTORY, numbers.ENGINE_HEALTH, numbers.MEDIA_BYTES):
        kept.forget()
    client = Client(headers=CHINESE)
    user = User.objects.create_superuser("xrootx", password="x")
    client.force_login(user)
    return client


@pytest.fixture
def rows(operator: Client) -> dict[type, Any]:
    """One of each thing that the console shows, with names that no page can be blamed for."""
    user = User.objects.create_user("xtenantx", password="x")
    key, _secret = ApiKey.objects.issue(user, "xkeyx", requests_per_minute=60, allowed_networks=["192.0.2.7"])
    now = timezone.now()
    ids = [uuid.UUID(int=1000 + number) for number in range(3)]
    marks = [
        {"attempt": attempt, "stage": stage, "at": now.isoformat()}
        for attempt, stage in enumerate(("claimed", "separate", "handed back", "put back", "taken over", "requeued"))
    ]
    job = baker.make(
        CoverJob, pk=ids[0], tenant=user, api_key=key, status="failed", stage="infer", error="timed_out", marks=marks,
        error_message="The work took longer than it may.", attempt=1, host="x1", worker="x1", duration_seconds=3.0,
        song_hash="0" * 64,
    )  # fmt: skip
    baker.make(CoverJob, pk=ids[1], tenant=user, status="succeeded", stage="finalize", marks=marks)
    baker.make(CoverJob, pk=ids[2], tenant=user, status="running", stage="separate", host="x1", worker="x1")
    voice = baker.make(Voice, tenant=user, name="xvoicex", description="x1", reference_rate=24000,
                       reference_frames=48000, taken_down_at=now)  # fmt: skip
    consent = Consent.objects.create(
        tenant=user, tenant_name="xtenantx", statement="x1", voice_id=voice.pk, voice_name="xvoicex",
        sample_id=uuid.uuid4(), sample_hash="0" * 64,
    )  # fmt: skip
    EngineLease.objects.create(server="x2", updated_at=now)
    Tenant.objects.update_or_create(user=user, defaults={"max_running": 2})
    for action in audit.ACTIONS:
        audit.record(action, job, details={})
    return {
        CoverJob: job,
        Synthesis: baker.make(
            Synthesis, tenant=user, status="running", text="x1", audio="x1", engine="builtin", reference_hash="0" * 64
        ),
        Training: baker.make(
            Training,
            tenant=user,
            status="running",
            stage="train_gpt",
            name="x1",
            engine="rvc",
            model_id="x1",
            report={"problems": [{"code": "x1", "message": "x1"}]},
            evaluation=[{"x1": 1}],
        ),
        WebhookDelivery: baker.make(WebhookDelivery, tenant=user, type="cover.succeeded", url="x1", payload="x1"),
        Voice: voice,
        Consent: consent,
        Lexicon: baker.make(Lexicon, tenant=user, name="x1", description="x1", language="en"),
        EngineModel: EngineModel.objects.create(model_id="xmodelx", name="xmodelx", languages=["zh"]),
        User: user,
        Tenant: Tenant.objects.get(user=user),
        ApiKey: key,
        WorkerHost: WorkerHost.objects.create(name="x1", seen_at=now),
        AuditEntry: AuditEntry.objects.first(),
    }


def read(client: Client, url: str, form: dict[str, Any] | None = None) -> str:
    response = client.get(url) if form is None else client.post(url, form)
    assert response.status_code in (200, 400), (url, response.status_code)
    assert response["Content-Language"] == "zh-hans"
    html: str = response.content.decode()
    assert '<html lang="zh-hans"' in html or "console-fresh" in html, url
    return html


def test_every_page_of_the_console_is_chinese(operator: Client, rows: dict[type, Any]) -> None:
    from django.contrib import admin

    assert set(rows) == set(admin.site._registry)  # A model that is added to the console belongs here.
    pages = [reverse(f"admin:{name}") for name in ("index", "dashboard", "failures", "password_change")]
    for model, row in rows.items():
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        pages += [reverse(f"{name}_changelist"), reverse(f"{name}_change", args=[row.pk])]
        if admin.site._registry[model].has_add_permission(operator.get("/admin/").wsgi_request):
            pages.append(reverse(f"{name}_add"))
    assert_chinese({page: read(operator, page) for page in pages})


@pytest.mark.parametrize(
    ("seconds", "english", "chinese"),
    [(12.34, "12.3 s", "12.3 秒"), (210, "3 min 30 s", "3 分 30 秒"), (7800, "2 h 10 min", "2 小时 10 分"),
     (86400, "1 d", "1 天"), (None, "–", "–")],
)  # fmt: skip
def test_a_span_of_time_is_told_in_the_pages_language(seconds: float | None, english: str, chinese: str) -> None:
    with translation.override("en"):
        assert duration(seconds).replace("\N{NO-BREAK SPACE}", " ") == english
    with translation.override("zh-hans"):
        assert duration(seconds).replace("\N{NO-BREAK SPACE}", " ") == chinese


def test_its_questions_answers_and_errors_are_chinese(operator: Client, rows: dict[type, Any]) -> None:
    lists = {model: reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist") for model in rows}
    pages = {}
    model: Any
    for model, action in (
        (CoverJob, "cancel_jobs"), (CoverJob, "retry_jobs"), (CoverJob, "requeue_jobs"), (WorkerHost, "drain"),
        (WebhookDelivery, "redeliver"), (ApiKey, "revoke"), (Voice, "take_down"), (Tenant, "block"),
    ):  # fmt: skip
        form = {"action": action, "_selected_action": [rows[model].pk]}
        pages[f"{action}?"] = read(operator, lists[model], form)
        answer = operator.post(lists[model], form | {"confirmed": "1", "reason": "x1"}, follow=True)
        pages[action] = answer.content.decode()
        assert 'class="' in pages[action] and answer.status_code == 200
    for model, action in ((CoverJob, "prioritize_jobs"), (EngineModel, "disable"), (WorkerHost, "undrain"),
                          (Tenant, "unblock")):  # fmt: skip
        form = {"action": action, "_selected_action": [rows[model].pk], "priority": "x1"}
        pages[action] = operator.post(lists[model], form, follow=True).content.decode()
    bad_model = {"model_id": "..", "name": "", "engine": "rvc", "voice_weights": "-x1", "languages": ["ko"],
                 "version": "v1"}  # fmt: skip
    pages["bad model"] = read(operator, reverse("admin:voices_enginemodel_add"), bad_model)
    bad_key = {"name": "", "allowed_networks": "10.0.0.1/8", "expires_at_0": "2000-01-01", "expires_at_1": "00:00",
               "requests_per_minute": "0"}  # fmt: skip
    pages["bad key"] = read(operator, reverse("admin:voices_apikey_add"), bad_key)
    form = {"user": rows[User].pk, "name": "x1", "scopes": ["covers"]}
    pages["new key"] = read(operator, reverse("admin:voices_apikey_add"), form)
    pages["nothing found"] = read(operator, f"{lists[CoverJob]}?q=x2")
    assert_chinese(pages)


def test_signing_in_and_out_is_chinese(operator: Client) -> None:
    client = Client(headers=CHINESE)
    pages = {name: read(client, reverse(name)) for name in ("admin:login", "account-signin")}
    for name in list(pages):
        for attempt in range(11):
            html = client.post(reverse(name), {"username": f"x{name}x", "password": "x"}).content.decode()
            pages[f"{name}, wrong {attempt > 9}"] = html
    assert "15 分钟" in pages["admin:login, wrong True"]
    pages["signed out"] = operator.post(reverse("admin:logout")).content.decode()
    assert_chinese(pages)


def test_every_page_of_the_account_is_chinese(rows: dict[type, Any]) -> None:
    client, key = Client(headers=CHINESE), rows[ApiKey]
    client.force_login(rows[User])
    poor = {"duration_seconds": 2.0, "speech_ratio": 0.1, "snr_db": 5.0, "clipping_ratio": 0.5, "sample_rate": 8000,
            "bandwidth_hz": 3000.0, "warnings": ["It was kept in English."]}  # fmt: skip
    baker.make("voices.VoiceSample", voice=rows[Voice], quality=poor)
    fine = baker.make(Voice, tenant=rows[User], name="xfinex", description="x1")
    baker.make("voices.VoiceSample", voice=fine, quality=poor | {"bandwidth_hz": 5000.0, "snr_db": 12.0})
    for operation in ("cover", "remix", "synthesis"):
        baker.make("voiceproject.UsageEntry", tenant_id=rows[User].pk, operation=operation, job_id=uuid.uuid4(),
                   state="settled", day=timezone.now().date(), audio_ms=1000, key_name="xkeyx")  # fmt: skip
    ended, _secret = ApiKey.objects.issue(rows[User], "xendedx", expires_at=timezone.now())
    names = ("account", "account-usage", "account-voices", "account-new-key", "account-password",
             "account-erase")  # fmt: skip
    pages = {name: read(client, reverse(name)) for name in names}
    own = reverse("account-key", args=[key.public_id])
    pages["key"], pages["ended"] = read(client, own), read(client, reverse("account-key", args=[ended.public_id]))
    pages["bad key"] = read(client, own, {"name": "", "allowed_networks": "x1", "requests_per_minute": "0"})
    pages["bad password"] = read(client, reverse("account-password"), {"old_password": "x", "new_password1": "x",
                                                                     "new_password2": "x"})  # fmt: skip
    pages["bad erasure"] = read(client, reverse("account-erase"), {"username": "x1", "password": "x"})
    new_key = {"public_id": str(uuid.uuid4()), "name": "xnewx", "scopes": ["covers"]}
    pages["new key"] = read(client, reverse("account-new-key"), new_key)
    pages["rotated"] = read(client, reverse("account-key-rotate", args=[key.public_id]), {"overlap_seconds": "3600"})
    for name, form in (("rotate", {"overlap_seconds": "3600"}), ("revoke", {}), ("rotate", {"overlap_seconds": "x"})):
        url = reverse(f"account-key-{name}", args=[key.public_id])
        pages[f"{name} again"] = client.post(url, form, follow=True).content.decode()
    strange = client.get(reverse("account-key", args=[uuid.uuid4()]))
    assert strange.status_code == 404
    pages["not there"] = strange.content.decode()
    forged = Client(headers=CHINESE, enforce_csrf_checks=True).post(reverse("account-signin"))
    pages["forged"] = forged.content.decode()
    assert_chinese(pages)


# --- whose choice it is ---


def test_the_browser_decides_until_the_reader_has_chosen(db: None) -> None:
    german, chinese = Client(headers={"Accept-Language": "de"}), Client(headers=CHINESE)
    page = reverse("account-signin")
    assert (german.get(page)["Content-Language"], chinese.get(page)["Content-Language"]) == ("en", "zh-hans")
    assert "Accept-Language" in chinese.get(page)["Vary"]
    answer = chinese.post(reverse("set_language"), {"language": "en", "next": f"{page}?next=/account"})
    assert (answer.status_code, answer["Location"]) == (302, f"{page}?next=/account")
    cookie = answer.cookies["django_language"]
    assert (cookie.value, cookie["httponly"], cookie["samesite"]) == ("en", True, "Lax")
    assert cookie["max-age"] == 365 * 24 * 3600
    assert chinese.get(page)["Content-Language"] == "en"
    german.post(reverse("set_language"), {"language": "zh-hans"})
    assert "登录" in german.get(page).content.decode()
    german.post(reverse("set_language"), {"language": "de"})  # Which there is not.
    assert german.get(page)["Content-Language"] == "en"
    assert chinese.post(reverse("set_language"), {"next": "https://evil.example/"})["Location"] == "/"


def test_the_switch_is_on_every_page_and_needs_no_script(operator: Client) -> None:
    for client, page in ((operator, reverse("admin:index")), (operator, reverse("account")),
                         (Client(), reverse("admin:login")), (Client(), reverse("account-signin"))):  # fmt: skip
        html = client.get(page).content.decode()
        forms = re.findall(rf'<form[^>]*action="{reverse("set_language")}".*?</form>', html, re.S)
        assert {code for form in forms for code in re.findall(r'value="(en|zh-hans)"', form)} == {"en", "zh-hans"}
        for form in forms:
            assert "csrfmiddlewaretoken" in form
            assert f'value="{page}"' in form  # Where it goes on.


def test_the_language_of_one_request_is_not_that_of_the_next(operator: Client) -> None:
    operator.get(reverse("admin:index"))
    assert translation.get_language() == "en"


def test_what_is_kept_is_english_whoever_does_it(operator: Client, rows: dict[type, Any]) -> None:
    job = baker.make(CoverJob, status="queued", tenant=rows[User])
    url = reverse("admin:covers_coverjob_changelist")
    operator.post(url, {"action": "cancel_jobs", "_selected_action": [job.pk], "confirmed": "1"})
    assert AuditEntry.objects.get(action="job.cancel", target_id=job.pk).target_name == f"cover {job.pk}"
    assert str(CoverJob._meta.verbose_name) == "cover"


# --- the API ---

BAD_REQUESTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("post", "synthesize", {}),
    ("post", "synthesize", {"text": "", "language": "xx", "speed": 9, "stream": "perhaps", "seed": "x"}),
    ("post", "covers", {"pitch_shift": 99, "preview_seconds": 1}),
    ("post", "voices", {"name": ""}),
    ("post", "keys", {"name": "x" * 200, "scopes": [], "requests_per_minute": 0, "allowed_networks": ["x"]}),
    ("post", "key-rotate", {"overlap_seconds": "x"}),
    ("get", "covers", {"created_after": "yesterday", "cursor": "x", "limit": "x"}),
    ("get", "usage", {"from": "x", "group_by": "x"}),
    ("delete", "synthesize", {}),
    ("get", "cover-detail", {}),
    ("post", "openai-speech", {}),
    ("post", "elevenlabs-add-voice", {"name": ""}),
)


def test_the_api_is_english_whatever_is_asked(operator: Client, tenant: Any) -> None:
    headers = {"X-API-Key": tenant.secret, "X-Request-ID": "r"}
    client, chinese = APIClient(headers=headers), APIClient(headers=headers | CHINESE)
    chinese.cookies["django_language"] = "zh-hans"
    for method, name, data in BAD_REQUESTS:
        url = reverse(name, args=[uuid.uuid4()] if name in ("key-rotate", "cover-detail") else [])
        usual = getattr(client, method)(url, data)
        operator.get(reverse("account-signin"))  # A page in Chinese, on the same thread.
        asked = getattr(chinese, method)(url, data)
        assert 400 <= usual.status_code < 500, (name, usual.content)
        assert asked.json() == usual.json(), name
        assert asked.content.isascii() and "\\u" not in asked.content.decode(), name
        assert not asked.has_header("Content-Language")
        assert "Accept-Language" not in asked.get("Vary", "")


def test_the_openapi_document_is_english(db: None) -> None:
    usual, asked = (Client(headers=headers).get(reverse("schema")) for headers in ({}, CHINESE))
    assert asked.content == usual.content


def test_a_failure_is_told_in_the_language_of_the_page() -> None:
    quota = PublicError("quota_exceeded", "This account may make 5 seconds of audio a month.")
    known = PublicError("conflict", "This account is being erased.")
    assert [told(quota), told(known)] == [quota.message, known.message]
    with translation.override("zh-hans"):
        assert [told(quota), told(known)] == ["音频或存储配额已用完。", "此账户正在清除中。"]


def test_every_action_that_is_recorded_has_words() -> None:
    recorded: set[str] = set()
    for app in translations.APPS:
        for path in translations.sources(translations.ROOT / app):
            recorded.update(re.findall(r'(?:audit\.record|_record\w*)\(\s*(?:\w+, )?"([\w.]+)"', path.read_text()))
    assert len(recorded) > 15
    assert recorded <= set(audit.ACTIONS)
