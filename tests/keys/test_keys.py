"""API keys: what is kept of them, when they count, what they may do."""

from __future__ import annotations

import io
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import F
from django.utils import timezone
from model_bakery import baker
from rest_framework.test import APIClient

from tests.fakes.engine import FakeEngine
from tests.support.tenants import Tenant
from voiceproject.tenants import audit
from voiceproject.tenants.models import AuditEntry
from voices.keys.models import ApiKey

URL = "/api/v1/voice/models"


def call(**headers: str) -> Any:
    return APIClient(headers=headers).get(URL)


def test_only_a_hash_and_a_short_prefix_of_a_secret_are_kept(tenant: Tenant) -> None:
    values = " ".join(str(value) for value in ApiKey.objects.values_list().get())
    assert tenant.secret not in values
    assert tenant.secret.startswith(tenant.key.prefix)
    assert len(tenant.secret) - len(tenant.key.prefix) >= 32


def test_a_key_works_in_both_headers(tenant: Tenant, engine: FakeEngine) -> None:
    assert call(**{"X-API-Key": tenant.secret}).status_code == 200
    assert call(Authorization=f"Bearer {tenant.secret}").status_code == 200
    assert call(Authorization=f"bearer {tenant.secret}").status_code == 200


def test_no_key_and_a_key_elsewhere_are_401(tenant: Tenant, engine: FakeEngine) -> None:
    for response in (
        call(),
        APIClient().get(f"{URL}?api_key={tenant.secret}"),
        call(Authorization=f"Basic {tenant.secret}"),
        call(Cookie=f"api_key={tenant.secret}"),
    ):
        assert (response.status_code, response.json()["error"]) == (401, "missing_api_key")
        assert response["WWW-Authenticate"]
    assert "revoke" in APIClient().get(f"{URL}?key={tenant.secret}").json()["message"]


def test_unknown_expired_and_revoked_keys_read_alike(tenant: Tenant, engine: FakeEngine) -> None:
    _, old = ApiKey.objects.issue(tenant.user, "old", expires_at=timezone.now() - timedelta(seconds=1))
    revoked, gone = ApiKey.objects.issue(tenant.user, "gone")
    assert revoked.revoke()
    assert not revoked.revoke()
    answers = {call(**{"X-API-Key": secret}).content for secret in (old, gone, "vck_unknown", "ключ")}
    assert len(answers) == 1
    assert call(**{"X-API-Key": old}).json()["error"] == "invalid_api_key"


def test_a_session_of_the_console_is_no_key(tenant: Tenant, engine: FakeEngine, client: Any) -> None:
    client.force_login(User.objects.create_superuser("root"))
    assert client.get(URL).status_code == 401
    assert APIClient(headers={"X-API-Key": tenant.secret}).get("/admin/").status_code == 302


def test_a_blocked_user_is_told_so(tenant: Tenant, engine: FakeEngine) -> None:
    User.objects.update(is_active=False)
    response = tenant.client.get(URL)
    assert (response.status_code, response.json()["error"]) == (403, "tenant_blocked")


@pytest.mark.parametrize(
    "path",
    ["/media/covers", "/static/../manage.py", "/static/%2e%2e/manage.py", "/static//etc/passwd", "/data/db.sqlite3",
     "/api/v1/cover/jobs/../../../health", "/api/v1/cover/jobs/%2e%2e%2f", "/api/v1/cover/jobs/x/stems/..%2fsong"],
)  # fmt: skip
def test_no_path_leads_to_a_file_of_the_server(tenant: Tenant, engine: FakeEngine, path: str) -> None:
    response = tenant.client.get(path)
    assert (response.status_code, response.json()["error"]) == (404, "not_found")


def test_authentication_costs_one_query(tenant: Tenant, engine: FakeEngine, django_assert_num_queries: Any) -> None:
    tenant.client.get(URL)
    # The second one is the list of models, which this route is for.
    with django_assert_num_queries(2) as queries:
        tenant.client.get(URL)
    assert [query["sql"] for query in queries if "apikey" in query["sql"].lower()] == [queries[0]["sql"]]


def test_the_last_use_is_written_at_most_once_a_minute(tenant: Tenant, engine: FakeEngine) -> None:
    tenant.client.get(URL)
    first = ApiKey.objects.get().last_used_at
    tenant.client.get(URL)
    assert ApiKey.objects.get().last_used_at == first is not None
    ApiKey.objects.update(last_used_at=F("last_used_at") - timedelta(minutes=2))
    tenant.client.get(URL)
    assert ApiKey.objects.get().last_used_at >= first


class TestTheKeyOfTheEnvironment:
    SECRET = "N4pZ-q81xYw_73kfTbLmQe"

    def test_it_works_at_once_as_the_user_api(self, db: None, engine: FakeEngine, settings: Any) -> None:
        settings.API_KEY = self.SECRET
        assert call(**{"X-API-Key": self.SECRET}).status_code == 200
        assert call(**{"X-API-Key": self.SECRET}).status_code == 200
        key = ApiKey.objects.get()
        assert (key.user.username, key.from_environment) == ("api", True)
        assert self.SECRET not in f"{key} {key.prefix}"

    def test_changing_it_retires_the_old_one(self, db: None, engine: FakeEngine, settings: Any) -> None:
        settings.API_KEY = self.SECRET
        call(**{"X-API-Key": self.SECRET})
        settings.API_KEY = "Another-51Pq_long-secret"
        assert call(**{"X-API-Key": self.SECRET}).json()["error"] == "invalid_api_key"
        assert call(**{"X-API-Key": settings.API_KEY}).status_code == 200
        settings.API_KEY = ""
        assert call(**{"X-API-Key": self.SECRET}).status_code == 401

    def test_once_revoked_it_stays_revoked(self, db: None, engine: FakeEngine, settings: Any) -> None:
        settings.API_KEY = self.SECRET
        call(**{"X-API-Key": self.SECRET})
        ApiKey.objects.get().revoke()
        assert call(**{"X-API-Key": self.SECRET}).status_code == 401


@pytest.mark.django_db(transaction=True)
def test_first_uses_of_the_environments_key_at_the_same_time_make_one_row(engine: FakeEngine, settings: Any) -> None:
    settings.API_KEY = "N4pZ-q81xYw_73kfTbLmQe"
    barrier = threading.Barrier(6)
    statuses: list[int] = []

    def use() -> None:
        barrier.wait()
        statuses.append(call(**{"X-API-Key": settings.API_KEY}).status_code)
        connection.close()

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 6
    assert ApiKey.objects.count() == 1


def test_the_command_prints_a_key_that_works(db: None, engine: FakeEngine) -> None:
    baker.make(User, username="dora")
    out, err = io.StringIO(), io.StringIO()
    call_command("create_api_key", "dora", scopes=["covers"], expires_in_days=3, stdout=out, stderr=err)
    secret = out.getvalue().strip()
    assert call(**{"X-API-Key": secret}).status_code == 200
    key = ApiKey.objects.get()
    assert (key.user.username, key.scopes) == ("dora", ["covers"])
    assert timedelta(days=2) < key.expires_at - timezone.now() < timedelta(days=3, minutes=1)


def test_the_command_says_what_is_wrong(db: None) -> None:
    with pytest.raises(CommandError, match="--create-user"):
        call_command("create_api_key", "nobody")
    with pytest.raises(CommandError, match="expires"):
        call_command("create_api_key", "nobody", create_user=True, expires_in_days=0, stdout=io.StringIO())
    call_command("create_api_key", "nobody", create_user=True, stdout=io.StringIO(), stderr=io.StringIO())
    assert not User.objects.get(username="nobody").has_usable_password()
    with pytest.raises(CommandError, match=r"--allowed-networks: 10\.0\.0\.5/8 has bits"):
        call_command("create_api_key", "nobody", allowed_networks=["10.0.0.5/8"])
    with pytest.raises(CommandError, match="--max-concurrent-jobs must be from 1"):
        call_command("create_api_key", "nobody", max_concurrent_jobs=0)


def test_the_command_refuses_what_could_not_be_kept_and_makes_no_user(db: None) -> None:
    for user, options, problem in (
        ("two words", {}, "'two words' cannot be a user name. Enter a valid username"),
        ("", {}, "cannot be a user name"),
        ("eve", {"name": "n" * 1000}, "--name may have"),
        ("eve", {"expires_in_days": 10**9}, "--expires-in-days must be from 1 to"),
    ):
        with pytest.raises(CommandError, match=problem):
            call_command("create_api_key", user, create_user=True, stdout=io.StringIO(), **options)
    assert not User.objects.exists()


def test_the_command_bounds_a_key_and_the_log_says_so(db: None) -> None:
    baker.make(User, username="dora")
    bounds = {"allowed_networks": ["192.0.2.0/24"], "requests_per_minute": 5, "max_concurrent_jobs": 2,
              "monthly_audio_seconds": 60}  # fmt: skip
    call_command("create_api_key", "dora", **bounds, stdout=io.StringIO(), stderr=io.StringIO())
    assert {name: getattr(ApiKey.objects.get(), name) for name in bounds} == bounds
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.actor_name, entry.address) == ("key.create", "", "")


@pytest.mark.django_db
def test_an_audit_entry_is_neither_changed_nor_removed(tenant: Tenant) -> None:
    entry = audit.record("key.revoke", tenant.key, details={"reason": "leaked"})
    assert (entry.target_type, entry.tenant_id, entry.actor_name) == ("apikey", tenant.user.pk, "")
    with pytest.raises(TypeError, match="once"):
        entry.save()
    with pytest.raises(TypeError, match="kept"):
        entry.delete()
    tenant.user.delete()
    entry.refresh_from_db()
    assert entry.target_name.startswith(tenant.key.name)
