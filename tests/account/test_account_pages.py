"""/account: what a tenant sees and does there, and what nobody does there."""

from __future__ import annotations

import io
import re
import uuid
import zipfile
from datetime import date, timedelta
from html import unescape
from typing import Any

import pytest
import soundfile
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from tests.fakes.engine import FakeEngine
from tests.support.audio import upload
from tests.support.tenants import Tenant
from voiceproject.tenants import signin
from voiceproject.tenants.models import AuditEntry, UsageEntry
from voiceproject.tenants.models import Tenant as TenantRow
from voices.account import personal_data, sessions
from voices.keys.models import ApiKey
from voices.library.models import Voice

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"
MODELS = "/api/v1/voice/models"
PAGES = ("/account", "/account/erase", "/account/keys/new", "/account/password", "/account/usage", "/account/voices")


def signed_in(tenant: Tenant) -> Client:
    client = Client()
    client.force_login(tenant.user)
    return client


@pytest.fixture
def page(tenant: Tenant) -> Client:
    return signed_in(tenant)


def text_of(response: Any) -> str:
    return unescape(response.content.decode())


def key_form(**fields: Any) -> dict[str, Any]:
    return {"public_id": str(uuid.uuid4()), "name": "shop", "scopes": ["covers"]} | fields


def secret_on(response: Any) -> str:
    (secret,) = set(re.findall(r"vck_[\w-]{40,}", text_of(response)))
    return secret


def works(secret: str) -> int:
    return APIClient(headers={"X-API-Key": secret}).get(MODELS).status_code


# --- signing in ---


def sign_in(client: Client, username: str, password: str, **extra: Any) -> Any:
    return client.post("/account/signin", {"username": username, "password": password, **extra})


def token_on(response: Any) -> dict[str, str]:
    return {"csrfmiddlewaretoken": re.findall(r'csrfmiddlewaretoken" value="(\w+)', text_of(response))[0]}


def test_a_tenant_signs_in_and_out_with_its_password(tenant: Tenant) -> None:
    tenant.user.set_password(PASSWORD)
    tenant.user.save()
    client = Client(enforce_csrf_checks=True)
    assert client.get("/account")["Location"] == "/account/signin?next=/account"
    token = token_on(client.get("/account/signin"))
    wrong = sign_in(client, "alice", "wrong", **token)
    assert wrong.status_code == 200 and "correct username and password" in text_of(wrong)
    assert sign_in(client, "alice", tenant.secret, **token).status_code == 200
    right = sign_in(client, "alice", PASSWORD, next="/account/keys/new", **token)
    assert (right.status_code, right["Location"]) == (302, "/account/keys/new")
    token = token_on(client.get("/account"))
    assert client.get("/account/signout").status_code == 405
    assert client.post("/account/signout", token)["Location"] == "/account/signin"
    assert client.get("/account").status_code == 302


def test_wrong_passwords_are_throttled(tenant: Tenant, other: Tenant) -> None:
    for each in (tenant, other):
        each.user.set_password(PASSWORD)
        each.user.save()
    statuses = [sign_in(Client(), "alice", f"wrong {number}").status_code for number in range(signin.PAIR_LIMIT)]
    assert statuses == [200] * signin.PAIR_LIMIT
    refused = sign_in(Client(), "alice", PASSWORD)
    assert refused.status_code == 429 and int(refused["Retry-After"]) > 0
    assert "Too many" in text_of(refused)
    assert sign_in(Client(), "bob", PASSWORD).status_code == 302


def test_signing_in_leads_to_no_other_site(tenant: Tenant) -> None:
    tenant.user.set_password(PASSWORD)
    tenant.user.save()
    assert sign_in(Client(), "alice", PASSWORD, next="https://evil.example/")["Location"] == "/account"


def test_a_form_from_elsewhere_is_refused_on_a_page(page: Client, tenant: Tenant) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = page.cookies
    response = strict.post(f"/account/keys/{tenant.key.public_id}/revoke")
    assert response.status_code == 403 and "out of date" in text_of(response)
    tenant.key.refresh_from_db()
    assert tenant.key.state == "valid"


def test_the_api_takes_no_session_and_the_page_no_key(page: Client, tenant: Tenant, engine: FakeEngine) -> None:
    assert page.get(MODELS).status_code == 401
    assert page.get("/api/v1/keys").status_code == 401
    for path in PAGES:
        assert APIClient(headers={"X-API-Key": tenant.secret}).get(path)["Location"].startswith("/account/signin")


def test_a_blocked_tenant_is_signed_out(page: Client, tenant: Tenant) -> None:
    User.objects.update(is_active=False)
    assert page.get("/account").status_code == 302


def test_a_new_password_ends_other_sessions_and_is_in_the_log(page: Client, tenant: Tenant) -> None:
    tenant.user.set_password(PASSWORD)
    tenant.user.save()
    here, elsewhere = signed_in(tenant), signed_in(tenant)
    form = {"old_password": "wrong", "new_password1": "a new long one 7", "new_password2": "a new long one 7"}
    assert here.post("/account/password", form).status_code == 200
    assert here.post("/account/password", form | {"old_password": PASSWORD}).status_code == 302
    assert "has been changed" in text_of(here.get("/account"))
    assert elsewhere.get("/account").status_code == 302
    entry = AuditEntry.objects.get(action="password.change")
    assert (entry.actor_name, entry.tenant_id) == ("alice", tenant.user.pk)


@pytest.mark.parametrize(
    ("agent", "shown"),
    [
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox, Windows"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1", "Safari, iPhone"),
        ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36", "Chrome, Linux"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Chrome/140 Safari/537.36 Edg/140.0", "Edge, macOS"),
        ("curl/8.5.0", "curl/8.5.0"),
        ("", "–"),
    ],
)
def test_a_session_is_told_by_its_browser_and_system(agent: str, shown: str) -> None:
    assert sessions.browser_of(agent) == shown


def test_the_form_of_a_key_is_the_accounts_own_whatever_the_console_has_shown(page: Client, operator: Client) -> None:
    shown = page.get("/account/keys/new").content
    assert operator.get("/admin/voices/apikey/add/").status_code == 200
    again = page.get("/account/keys/new").content
    assert b"expand_more" not in shown + again


# --- one's data ---


def test_everything_that_is_held_of_a_tenant_is_downloaded(page: Client, tenant: Tenant, other: Tenant) -> None:
    assert "/account/export" in text_of(page.get("/account"))
    assert page.get("/account/export")["Location"] == "/account"
    response = page.post("/account/export")
    assert response["Content-Type"] == "application/zip"
    assert response["Content-Disposition"] == 'attachment; filename="account.zip"'
    with zipfile.ZipFile(io.BytesIO(b"".join(response.streaming_content))) as archive:
        assert archive.testzip() is None and "manifest.json" in archive.namelist()
        told = b"".join(archive.read(name) for name in archive.namelist()).decode()
    assert "alice" in told and "bob" not in told and tenant.secret not in told
    entry = AuditEntry.objects.get(action="account.export")
    assert (entry.actor_name, entry.tenant_id) == ("alice", tenant.user.pk)


def test_an_account_is_erased_by_who_knows_its_password_and_types_its_name(tenant: Tenant, other: Tenant) -> None:
    tenant.user.set_password(PASSWORD)
    tenant.user.save()
    page = signed_in(tenant)
    for username, password, field in (
        ("alice", "wrong", "password"),
        ("bob", PASSWORD, "username"),
        ("", PASSWORD, "username"),
        ("alice", "", "password"),
    ):
        refused = page.post("/account/erase", {"username": username, "password": password})
        assert refused.status_code == 400 and list(refused.context["form"].errors) == [field]
        assert password not in text_of(refused) or not password
    assert works(tenant.secret) == 200
    assert not AuditEntry.objects.filter(action="account.erase").exists()
    done = page.post("/account/erase", {"username": "alice", "password": PASSWORD})
    assert done.status_code == 200 and "is being erased" in text_of(done)
    assert page.get("/account").status_code == 302 and works(tenant.secret) == 401
    entry = AuditEntry.objects.get(action="account.erase")
    assert (entry.actor_name, entry.tenant_id) == ("alice", tenant.user.pk)
    assert personal_data.erase_requested() == 1
    assert not User.objects.filter(username="alice").exists() and works(other.secret) == 200


def test_a_password_is_not_guessed_where_accounts_are_erased(tenant: Tenant) -> None:
    tenant.user.set_password(PASSWORD)
    tenant.user.save()
    page = signed_in(tenant)
    tries = [page.post("/account/erase", {"username": "alice", "password": f"{n}"}) for n in range(11)]
    assert [each.status_code for each in tries] == [400] * signin.SESSION_LIMIT + [429]
    right = page.post("/account/erase", {"username": "alice", "password": PASSWORD})
    assert right.status_code == 429 and int(right["Retry-After"]) > 0
    assert User.objects.get(username="alice").is_active


# --- keys ---


def test_a_keys_secret_is_shown_once_and_kept_nowhere(page: Client, tenant: Tenant, engine: FakeEngine) -> None:
    assert page.get("/account/keys/new").status_code == 200
    form = key_form(allowed_networks="127.0.0.1\n2001:db8::/32", requests_per_minute="5")
    made = page.post("/account/keys/new", form)
    secret = secret_on(made)
    assert "no-store" in made["Cache-Control"]
    assert works(secret) == 200
    key = ApiKey.objects.get(name="shop")
    assert (key.user, key.scopes, key.requests_per_minute) == (tenant.user, ["covers"], 5)
    assert key.allowed_networks == ["127.0.0.1", "2001:db8::/32"]
    # The page loaded again, or a second click: nothing new, and nothing shown.
    again = page.post("/account/keys/new", form, follow=True)
    assert "made already" in text_of(again)
    assert ApiKey.objects.count() == 2
    for path in (*PAGES, f"/account/keys/{key.public_id}"):
        assert secret not in text_of(page.get(path))
    assert not any(secret in str(session.get_decoded()) for session in Session.objects.all())


def test_a_key_for_clients_without_headers_is_a_url_that_is_shown_once(
    page: Client, tenant: Tenant, engine: FakeEngine
) -> None:
    made = page.post("/account/keys/new", key_form(name="tavern", kind="path", scopes=["covers", "keys"]))
    (url,) = set(re.findall(r"http://testserver(/gptsovits/vcp_[a-z0-9]+)", text_of(made)))
    assert "X-API-Key" not in text_of(made)
    assert Client().get(f"{url}/speakers").status_code == 200
    key = ApiKey.objects.get(name="tavern")
    assert (key.kind, key.scopes) == ("path", ["synthesize"])
    own = f"/account/keys/{key.public_id}"
    assert url.rpartition("/")[2] not in text_of(page.get(own)) and "scopes" not in page.get(own).context["form"].fields
    assert page.post(own, {"name": "silly tavern"}).status_code == 302
    replaced = page.post(f"{own}/rotate", {"overlap_seconds": 0})
    (fresh,) = set(re.findall(r"http://testserver(/gptsovits/vcp_[a-z0-9]+)", text_of(replaced)))
    assert (Client().get(f"{url}/speakers").status_code, Client().get(f"{fresh}/speakers").status_code) == (401, 200)
    assert page.post(f"/account/keys/{ApiKey.objects.get(replaced_by=None, name='silly tavern').public_id}/revoke")
    assert Client().get(f"{fresh}/speakers").status_code == 401


def test_a_key_by_address_is_offered_where_it_is_allowed_and_has_no_secret(
    page: Client, tenant: Tenant, engine: FakeEngine, settings: Any
) -> None:
    wanted = key_form(name="lan", kind="address", allowed_networks="127.0.0.1")
    assert page.post("/account/keys/new", wanted).context["form"].errors["kind"]
    offered = dict(page.get("/account/keys/new").context["form"].fields["kind"].choices)
    assert list(offered) == ["header", "path"]
    settings.GPTSOVITS_ADDRESS_KEYS = True
    for networks, told in (("", "Name the addresses"), ("10.0.0.0/8", "too wide")):
        refused = page.post("/account/keys/new", {**wanted, "allowed_networks": networks})
        assert refused.status_code == 400 and told in refused.context["form"].errors["allowed_networks"][0]
    assert Client().get("/gptsovits/speakers").status_code == 401
    made = text_of(page.post("/account/keys/new", wanted))
    assert not re.findall(r"vc[kp]_\w+", made) and "It has no secret" in made
    assert Client().get("/gptsovits/speakers").status_code == 200
    key = ApiKey.objects.get(name="lan")
    own = f"/account/keys/{key.public_id}"
    assert 'id="rotate"' not in text_of(page.get(own))
    again = page.post("/account/keys/new", {**wanted, "public_id": str(uuid.uuid4())})
    assert "Another key" in again.context["form"].errors["allowed_networks"][0]
    page.post(f"{own}/revoke")
    assert Client().get("/gptsovits/speakers").status_code == 401


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("name", "", "required"),
        ("scopes", [], "required"),
        ("scopes", ["admin"], "Select a valid choice"),
        ("expires_at", "2020-01-01T00:00:00", "in the future"),
        ("allowed_networks", "example.com", "example.com"),
        ("requests_per_minute", "0", "From 1 to"),
        ("max_concurrent_jobs", "99999999999999", "2147483647"),
    ],
)
def test_what_is_wrong_with_a_form_stands_at_its_field(
    page: Client, tenant: Tenant, field: str, value: Any, told: str
) -> None:
    for path in ("/account/keys/new", f"/account/keys/{tenant.key.public_id}"):
        response = page.post(path, key_form(**{field: value}))
        assert response.status_code == 400
        assert told in " ".join(response.context["form"].errors[field])
        assert "aria-invalid" in text_of(response)
    assert list(ApiKey.objects.values_list("name", flat=True)) == ["test"]


def test_a_key_is_changed_replaced_and_revoked(page: Client, tenant: Tenant, engine: FakeEngine) -> None:
    key, old = ApiKey.objects.issue(tenant.user, "shop", expires_at=timezone.now() + timedelta(days=9))
    path = f"/account/keys/{key.public_id}"
    form = page.get(path).context["form"]
    sent = {name: form[name].value() for name in form.fields if form[name].value() is not None}
    sent["expires_at"] = sent["expires_at"].strftime("%Y-%m-%dT%H:%M:%S")
    assert page.post(path, sent | {"name": "the shop"}).status_code == 302
    end = key.expires_at
    key.refresh_from_db()
    assert (key.name, key.expires_at) == ("the shop", end)
    rotated = page.post(f"{path}/rotate", {"overlap_seconds": "3600"})
    new = secret_on(rotated)
    assert (works(old), works(new)) == (200, 200)
    assert "works until" in text_of(rotated)
    # The page loaded again.
    assert "replaced already" in text_of(page.post(f"{path}/rotate", {"overlap_seconds": "3600"}, follow=True))
    assert page.post(f"{path}/revoke").status_code == 302
    assert (works(old), works(new)) == (401, 200)
    assert "been revoked" in text_of(page.post(path, sent, follow=True))
    assert page.get(path).status_code == 200
    assert "works no longer" in text_of(
        page.post(f"/account/keys/{ApiKey.objects.first().public_id}/rotate", {"overlap_seconds": "0"})
    )
    entries = AuditEntry.objects.filter(action__startswith="key.").order_by("id")
    assert [entry.action for entry in entries] == ["key.update", "key.rotate", "key.revoke", "key.rotate"]
    assert {(entry.actor_name, entry.key_prefix, entry.address) for entry in entries} == {("alice", "", "127.0.0.1")}


def test_a_leaked_last_key_can_be_revoked_and_another_be_made(page: Client, tenant: Tenant, engine: FakeEngine) -> None:
    page.post(f"/account/keys/{tenant.key.public_id}/revoke")
    assert works(tenant.secret) == 401
    assert "no key that works" in text_of(page.get("/account"))
    assert works(secret_on(page.post("/account/keys/new", key_form(scopes=["keys"])))) == 200


def test_an_account_that_is_being_erased_gets_no_more_keys(page: Client, tenant: Tenant) -> None:
    TenantRow.objects.create(user=tenant.user, erase_requested_at=timezone.now())
    assert "being erased" in text_of(page.post("/account/keys/new", key_form(), follow=True))
    assert "being erased" in text_of(page.post(f"/account/keys/{tenant.key.public_id}/rotate", {"overlap_seconds": "0"},
                                               follow=True))  # fmt: skip
    assert ApiKey.objects.count() == 1


def test_nobody_sees_or_changes_what_is_another_tenants(page: Client, other: Tenant) -> None:
    root = User.objects.create_superuser("root")
    staff = Client()
    staff.force_login(root)
    path = f"/account/keys/{other.key.public_id}"
    for client in (page, staff):
        assert other.key.prefix not in text_of(client.get("/account"))
        assert client.get(path).status_code == 404
        assert client.post(path, key_form(name="mine")).status_code == 404
        for action in ("rotate", "revoke"):
            assert client.post(f"{path}/{action}", {"overlap_seconds": "0"}).status_code == 404
    other.key.refresh_from_db()
    assert (other.key.name, other.key.state) == ("test", "valid")


def test_after_signing_in_again_an_action_leads_to_its_key(page: Client, tenant: Tenant) -> None:
    path = f"/account/keys/{tenant.key.public_id}"
    response = Client().post(f"{path}/revoke")
    assert response["Location"] == f"/account/signin?next={path}/revoke"
    assert page.get(f"{path}/revoke")["Location"] == path


# --- the pages ---


def test_pages_hold_nothing_inline_and_nothing_of_others(page: Client, tenant: Tenant) -> None:
    ApiKey.objects.issue(tenant.user, "<script>alert(1)</script>")
    for path in (*PAGES, "/account/signin", f"/account/keys/{tenant.key.public_id}", f"/account/keys/{uuid.uuid4()}"):
        response = (Client() if path.endswith("signin") else page).get(path)
        html = response.content.decode()
        assert "default-src 'self'" in response["Content-Security-Policy"]
        assert not re.findall(r"<script|<style| style=| on\w+=|(?:src|href|action)=\"(?:https?:)?//", html), path
        assert len(re.findall(r"<h1[ >]", html)) == 1 and "<title></title>" not in html
        # Each field has its label.
        fields = re.findall(r'<(?:input|select|textarea) (?![^>]*type="hidden")[^>]*id="([^"]+)"', html)
        assert set(fields) <= set(re.findall(r'<label for="([^"]+)"', html)), path
        assert len(fields) == len(set(fields))


def test_limits_are_those_of_the_tenant(page: Client, tenant: Tenant, settings: Any) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 33
    assert "<dd>33</dd>" in text_of(page.get("/account"))
    TenantRow.objects.create(user=tenant.user, requests_per_minute=44, max_running=7)
    html = text_of(page.get("/account"))
    assert "<dd>44</dd>" in html and "<dd>7</dd>" in html and "<dd>33</dd>" not in html


# --- usage and voices ---


def spent(tenant: Tenant, **fields: Any) -> UsageEntry:
    now = timezone.now()
    entry = {"tenant_id": tenant.user.pk, "key_id": tenant.key.public_id, "key_prefix": tenant.key.prefix,
             "key_name": "test", "operation": "synthesis", "job_id": uuid.uuid4(), "state": "settled",
             "reserved_ms": 0, "audio_ms": 2500, "characters": 40, "day": now.date(), "accepted_at": now,
             "ended_at": now}  # fmt: skip
    return UsageEntry.objects.create(**entry | fields)


def test_usage_is_told_by_month_operation_key_and_day(page: Client, tenant: Tenant, other: Tenant) -> None:
    spent(tenant)
    spent(tenant, operation="cover", audio_ms=180_000, characters=0, key_id=None, key_prefix="", key_name="")
    spent(tenant, day=date(2020, 2, 29), audio_ms=7000)
    spent(other, audio_ms=999_000)
    html = text_of(page.get("/account/usage"))
    for text in ("3\xa0min 2\xa0s", "3\xa0min", "Covers", "Speech", f"test ({tenant.key.prefix}…)", "no key",
                 timezone.now().date().isoformat()):  # fmt: skip
        assert text in html, text
    assert "16\xa0min" not in html and "7.0" not in html
    html = text_of(page.get("/account/usage?month=2020-02"))
    assert "2020-02-29" in html and "7.0" in html and "?month=2020-03" in html
    for nonsense in ("2020-13", "x", "0001-01", "9999-12"):
        assert "3\xa0min 2\xa0s" in text_of(page.get("/account/usage", {"month": nonsense}))
    assert "Nothing was made" in text_of(page.get("/account/usage?month=2019-01"))


def test_the_account_tells_what_is_used_of_a_quota(page: Client, tenant: Tenant) -> None:
    spent(tenant)
    assert "<dd>2.5\xa0s</dd>" in text_of(page.get("/account"))
    TenantRow.objects.create(user=tenant.user, monthly_audio_seconds=10, max_queued=0)
    html = text_of(page.get("/account"))
    assert "2.5\xa0s of 10.0\xa0s" in html and '<meter max="10" value="2.5"' in html
    assert "<dd>0</dd>" in html  # Nothing may wait; that is not the same as no limit.


def test_a_voice_is_heard_and_deleted_and_the_log_says_so(
    page: Client, tenant: Tenant, other: Tenant, engine: FakeEngine, reference_wav: bytes
) -> None:
    form = {"name": "Anna", "sample": upload(reference_wav), "consent": "I am the speaker, and I agree to this."}
    voice = tenant.client.post("/api/v1/voice/voices", form)
    assert voice.status_code == 201, voice.content
    pk = voice.json()["voice_id"]
    html = text_of(page.get("/account/voices"))
    assert "Anna" in html and f'src="/account/voices/{pk}/sample"' in html
    sample = page.get(f"/account/voices/{pk}/sample")
    heard = soundfile.info(io.BytesIO(b"".join(sample)))
    assert abs(heard.duration - voice.json()["quality"]["duration_seconds"]) < 0.5
    assert page.get(f"/account/voices/{pk}/sample", headers={"Range": "bytes=0-9"}).status_code == 206
    stranger = signed_in(other)
    assert "Anna" not in text_of(stranger.get("/account/voices"))
    assert stranger.get(f"/account/voices/{pk}/sample").status_code == 404
    assert stranger.post(f"/account/voices/{pk}/delete").status_code == 404
    assert "1 voice is saved" in text_of(page.get("/account"))
    assert page.get(f"/account/voices/{pk}/delete").status_code == 302
    assert Voice.objects.count() == 1
    assert "Anna has been deleted" in text_of(page.post(f"/account/voices/{pk}/delete", follow=True))
    assert not Voice.objects.exists()
    assert tenant.client.get(f"/api/v1/voice/voices/{pk}").status_code == 404
    assert AuditEntry.objects.get(action="voice.delete").actor_name == "alice"


def test_a_voice_that_was_taken_down_is_shown_and_not_heard(
    page: Client, tenant: Tenant, engine: FakeEngine, reference_wav: bytes
) -> None:
    form = {"name": "Anna", "sample": upload(reference_wav), "consent": "I am the speaker, and I agree to this."}
    pk = tenant.client.post("/api/v1/voice/voices", form).json()["voice_id"]
    Voice.objects.update(taken_down_at=timezone.now())
    html = text_of(page.get("/account/voices"))
    assert "taken down" in html and "<audio" not in html
    assert page.get(f"/account/voices/{pk}/sample").status_code == 410


def test_a_person_sees_where_it_is_signed_in_and_signs_out_elsewhere(page: Client) -> None:
    User.objects.create_user("dora-2", password="a long password")
    stranger = Client()
    stranger.login(username="dora-2", password="a long password")
    user = User.objects.get(pk=page.session["_auth_user_id"])
    user.set_password("another long password")
    user.save()
    here, there = (
        Client(headers={"User-Agent": agent})
        for agent in ("Here <b>1</b>", "There \u202e 2".encode().decode("latin-1"))
    )
    for client in (here, there):
        form = {"username": user.username, "password": "another long password"}
        assert client.post("/account/signin", form).status_code == 302
    html = here.get("/account").content.decode()
    section = html[html.index('id="sessions"') : html.index('id="data"')]
    assert section.index("this browser") < section.index("Here &lt;b&gt;1&lt;/b&gt;") < section.index("There")
    assert "127.0.0.1" in section
    assert here.get("/account/sessions").status_code == 302  # A link ends nothing.
    html = here.post("/account/sessions", follow=True).content.decode()
    assert re.search(r"\d other sessions? w(as|ere) ended", html)
    assert there.get("/account").status_code == 302
    assert here.get("/account").status_code == stranger.get("/account").status_code == 200


def test_amounts_are_read_as_minutes_and_a_month_as_a_chart(page: Client) -> None:
    user_id = int(page.session["_auth_user_id"])
    today = timezone.now().date()
    UsageEntry.objects.create(
        tenant_id=user_id, operation="cover", job_id=uuid.uuid4(), state="settled", reserved_ms=213_800,
        audio_ms=213_800, day=today, accepted_at=timezone.now(), ended_at=timezone.now(),
    )  # fmt: skip
    assert "3\xa0min 34\xa0s" in page.get("/account").content.decode()
    html = page.get("/account/usage").content.decode()
    assert f"<title>{today}: 3\xa0min 34\xa0s</title>" in html
    assert len(re.findall(r"<g><title>", html)) in (28, 29, 30, 31)


def test_a_new_key_has_a_button_that_copies_it_and_pages_lead_to_the_studio(page: Client) -> None:
    html = page.post("/account/keys/new", key_form()).content.decode()
    assert 'data-copy="#secret"' in html and 'id="secret"' in html
    assert '<a href="/">Studio</a>' in html
