"""/api/v1/keys: what a key may do with its tenant's keys, and what no key may do."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.db import connection
from django.db.models import F
from django.utils import timezone
from rest_framework.test import APIClient

from tests.fakes.engine import FakeEngine
from tests.support.audio import upload
from tests.support.tenants import KEYS_URL as URL
from tests.support.tenants import MODELS_URL as MODELS
from tests.support.tenants import Tenant, with_key
from tests.support.tenants import change_key as change
from tests.support.tenants import key_works as works
from tests.support.tenants import made_key as made
from tests.support.tenants import make_key as make
from tests.support.tenants import revoke_key as revoke
from tests.support.tenants import rotate_key as rotate
from voiceproject.tenants.models import AuditEntry
from voiceproject.web.client_ip import parse_network
from voices.keys import grants
from voices.keys.models import ApiKey
from voices.speech.models import Synthesis


def test_a_new_keys_secret_is_in_this_answer_alone(tenant: Tenant, engine: FakeEngine) -> None:
    response = make(tenant.client, scopes=["synthesize"])
    data = response.json()
    assert works(data["secret"]) == 200
    assert data["secret"].startswith(data["prefix"])
    assert response["Cache-Control"] == "no-store"
    assert response["Location"] == f"http://testserver{URL}/{data['id']}"
    for path in (URL, f"{URL}/{data['id']}"):
        assert data["secret"] not in tenant.client.get(path).content.decode()
    again = tenant.client.get(response["Location"]).json()
    assert again == {name: value for name, value in data.items() if name != "secret"} | {
        "last_used_at": again["last_used_at"]
    }
    assert again["last_used_at"] is not None and data["last_used_at"] is None


def test_everything_that_a_key_has_can_be_said_and_is_shown(tenant: Tenant) -> None:
    end = (timezone.now() + timedelta(days=9)).replace(microsecond=0)
    said = {
        "name": "for the shop",
        "scopes": ["covers", "synthesize"],
        "expires_at": end.isoformat(),
        "allowed_networks": ["192.0.2.7/32", "2001:DB8::/32", "192.0.2.7"],
        "requests_per_minute": 5,
        "max_concurrent_jobs": 2,
        "monthly_audio_seconds": 3600,
    }
    data = made(tenant.client, **said)
    assert data["allowed_networks"] == ["192.0.2.7", "2001:db8::/32"]
    assert data["scopes"] == ["synthesize", "covers"]
    assert datetime.fromisoformat(data["expires_at"]) == end
    for name in ("name", "requests_per_minute", "max_concurrent_jobs", "monthly_audio_seconds"):
        assert data[name] == said[name]
    assert (data["state"], data["current"], data["replaced_by"], data["revoked_at"]) == ("valid", False, None, None)


def test_what_is_left_out_comes_from_the_key_that_asks(tenant: Tenant) -> None:
    end = timezone.now() + timedelta(days=1)
    bounds = {"scopes": ["keys"], "allowed_networks": ["127.0.0.1"], "requests_per_minute": 9, "expires_at": end}
    _, client = with_key(tenant, **bounds)
    made(client)
    key = ApiKey.objects.get(name="made")
    assert {name: getattr(key, name) for name in bounds} == bounds


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "a\x00b"),
        ("name", "x" * 101),
        ("scopes", []),
        ("scopes", ["synthesize", "admin"]),
        ("scopes", "synthesize"),
        ("expires_at", "soon"),
        ("expires_at", "2020-01-01T00:00:00Z"),
        ("allowed_networks", ["example.com"]),
        ("allowed_networks", ["10.0.0.5/8"]),
        ("allowed_networks", [7]),
        ("allowed_networks", [f"10.0.0.{n}" for n in range(101)]),
        ("requests_per_minute", 0),
        ("max_concurrent_jobs", -1),
        ("monthly_audio_seconds", 2**31),
        ("user", 1),
        ("from_environment", True),
        ("revoked_at", None),
    ],
)
def test_what_cannot_be_is_named(tenant: Tenant, field: str, value: Any) -> None:
    for response in (make(tenant.client, **{field: value}), change(tenant.client, tenant.key, **{field: value})):
        assert (response.status_code, response.json()["error"]) == (400, "validation_error"), field
        assert list(response.json()["details"]) == [field]
    assert ApiKey.objects.count() == 1
    assert not AuditEntry.objects.exists()


def test_a_list_is_newest_first_in_pages_and_by_state(tenant: Tenant, other: Tenant) -> None:
    now = timezone.now()
    for number in range(4):
        ApiKey.objects.issue(tenant.user, f"{number}", expires_at=now - timedelta(days=1) if number % 2 else None)
    gone, _ = ApiKey.objects.issue(tenant.user, "gone", expires_at=now - timedelta(days=1))
    gone.revoke()
    page = tenant.client.get(URL, {"page_size": 2}).json()
    names = [key["name"] for key in page["results"]]
    while page["next"]:
        page = tenant.client.get(page["next"]).json()
        names += [key["name"] for key in page["results"]]
    assert names == ["gone", "3", "2", "1", "0", "test"]
    for state, expected in (("valid", ["2", "0", "test"]), ("expired", ["3", "1"]), ("revoked", ["gone"])):
        results = tenant.client.get(URL, {"state": state}).json()["results"]
        assert [(key["name"], key["state"]) for key in results] == [(name, state) for name in expected]
    assert [key["current"] for key in tenant.client.get(URL).json()["results"]] == [False] * 5 + [True]
    for wrong in ({"state": "dead"}, {"cursor": "cD1h"}, {"cursor": "cD0tMQ=="}, {"cursor": "cD0z"}, {"page": "2"}):
        assert tenant.client.get(URL, wrong).status_code == 400, wrong


def test_a_page_does_not_tell_how_many_keys_others_have(tenant: Tenant) -> None:
    for number in range(4):
        ApiKey.objects.issue(tenant.user, f"{number}")
    ApiKey.objects.update(id=F("id") + 987_654_000)
    page = tenant.client.get(URL, {"page_size": 1}).json()
    following = tenant.client.get(page["next"]).json()
    assert [page["results"][0]["name"], following["results"][0]["name"]] == ["3", "2"]
    assert tenant.client.get(following["previous"]).json()["results"] == page["results"]
    for link in (page["next"], following["next"], following["previous"]):
        shown = base64.b64decode(parse_qs(urlsplit(link).query)["cursor"][0])
        sealed = base64.urlsafe_b64decode(parse_qs(shown.decode())["p"][0])
        for secret in (b"987", (987_654_000).to_bytes(4)[:3]):
            assert secret not in shown and secret not in sealed


def test_another_tenants_key_is_not_there(tenant: Tenant, other: Tenant) -> None:
    for response in (
        other.client.get(f"{URL}/{tenant.key.public_id}"),
        change(other.client, tenant.key, name="mine"),
        rotate(other.client, tenant.key),
        revoke(other.client, tenant.key),
    ):
        assert (response.status_code, response.json()["error"]) == (404, "not_found")
    tenant.key.refresh_from_db()
    assert (tenant.key.name, tenant.key.state) == ("test", "valid")


def test_keys_are_managed_with_the_scope_keys_only(tenant: Tenant) -> None:
    _, client = with_key(tenant, scopes=["synthesize", "covers", "voices", "usage"])
    for response in (
        client.get(URL), make(client), change(client, tenant.key, name="x"), rotate(client, tenant.key),
        revoke(client, tenant.key),
    ):  # fmt: skip
        assert (response.status_code, response.json()["details"]) == (403, {"scope": "keys"})


# --- a key grants nothing that it does not have ---


@pytest.mark.parametrize(
    ("own", "wanted", "granted"),
    [
        ({"scopes": ["keys", "covers"]}, {"scopes": ["covers"]}, True),
        ({"scopes": ["keys", "covers"]}, {"scopes": ["covers", "synthesize"]}, False),
        ({"requests_per_minute": 5}, {"requests_per_minute": 5}, True),
        ({"requests_per_minute": 5}, {"requests_per_minute": 6}, False),
        ({"requests_per_minute": 5}, {"requests_per_minute": None}, False),
        ({"max_concurrent_jobs": 1}, {"max_concurrent_jobs": 2}, False),
        ({"monthly_audio_seconds": 60}, {"monthly_audio_seconds": None}, False),
        ({}, {"monthly_audio_seconds": 60, "requests_per_minute": 1}, True),
        ({"expires_at": 9}, {"expires_at": 8}, True),
        ({"expires_at": 9}, {"expires_at": 10}, False),
        ({"expires_at": 9}, {"expires_at": None}, False),
        ({"allowed_networks": ["127.0.0.0/8"]}, {"allowed_networks": ["127.1.0.0/16"]}, True),
        ({"allowed_networks": ["127.0.0.0/8"]}, {"allowed_networks": ["127.1.0.0/16", "192.0.2.1"]}, False),
        ({"allowed_networks": ["127.0.0.0/8"]}, {"allowed_networks": ["0.0.0.0/0"]}, False),
        ({"allowed_networks": ["127.0.0.0/8"]}, {"allowed_networks": []}, False),
    ],
)
def test_a_key_grants_no_more_than_it_has(
    tenant: Tenant, own: dict[str, Any], wanted: dict[str, Any], granted: bool
) -> None:
    def days(fields: dict[str, Any]) -> dict[str, Any]:
        return {
            name: timezone.now() + timedelta(days=value) if name == "expires_at" and value else value
            for name, value in fields.items()
        }

    _, client = with_key(tenant, **days(own))
    response = make(client, **days(wanted))
    assert response.status_code == (201 if granted else 403), response.content
    if not granted:
        assert response.json()["error"] == "permission_denied"
        (field,) = wanted
        assert response.json()["details"].get("field", "scopes") == field
    # Nor can it give that to a key that lacks it: its own bounds are those of the key that is to be changed, too.
    poor, _ = with_key(tenant, **days(own))
    response = change(client, poor, **days(wanted))
    assert response.status_code == (200 if granted else 403), response.content
    # What the other key has already may be taken from it in part, however little the asking one has.
    rich, _ = with_key(tenant, **days(wanted))
    assert change(client, rich, name="renamed").status_code == 200
    assert change(client, rich, requests_per_minute=1, scopes=rich.scopes).status_code == 200


def test_a_stronger_keys_secret_cannot_be_had_by_rotating_it(tenant: Tenant, engine: FakeEngine) -> None:
    _, weak = with_key(tenant, scopes=["keys"])
    response = rotate(weak, tenant.key)
    assert (response.status_code, response.json()["details"]) == (403, {"scope": "synthesize"})
    assert works(tenant.secret) == 200
    narrow, client = with_key(tenant, allowed_networks=["127.0.0.1"], scopes=["keys"])
    assert rotate(client, narrow).status_code == 201


# --- ends ---


def test_revoking_is_final(tenant: Tenant, engine: FakeEngine) -> None:
    data = made(tenant.client)
    assert revoke(tenant.client, data["id"]).status_code == 204
    assert works(data["secret"]) == 401
    assert revoke(tenant.client, data["id"]).status_code == 204
    shown = tenant.client.get(f"{URL}/{data['id']}").json()
    assert shown["state"] == "revoked" and shown["revoked_at"]
    later = (timezone.now() + timedelta(days=9)).isoformat()
    for response in (
        change(tenant.client, data["id"], name="back"),
        change(tenant.client, data["id"], expires_at=later),
        rotate(tenant.client, data["id"]),
    ):
        assert (response.status_code, response.json()["error"]) == (410, "revoked")
    assert works(data["secret"]) == 401
    assert list(AuditEntry.objects.values_list("action", flat=True)) == ["key.revoke", "key.create"]


def test_an_expiry_ends_a_key_and_another_one_brings_it_back(tenant: Tenant, engine: FakeEngine) -> None:
    data = made(tenant.client)
    ApiKey.objects.filter(public_id=data["id"]).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert works(data["secret"]) == 401
    assert rotate(tenant.client, data["id"]).json()["error"] == "conflict"
    assert change(tenant.client, data["id"], expires_at=None).json()["state"] == "valid"
    assert works(data["secret"]) == 200


def test_rotation_replaces_a_key_with_all_its_bounds(tenant: Tenant, engine: FakeEngine) -> None:
    bounds = {"scopes": ["covers"], "requests_per_minute": 7, "max_concurrent_jobs": 2, "monthly_audio_seconds": 60,
              "allowed_networks": ["127.0.0.1"]}  # fmt: skip
    old = made(tenant.client, **bounds)
    response = rotate(tenant.client, old["id"])
    new = response.json()
    assert response.status_code == 201 and response["Cache-Control"] == "no-store"
    assert (works(old["secret"]), works(new["secret"])) == (401, 200)
    assert new["id"] != old["id"] and new["name"] == old["name"]
    assert {name: new[name] for name in bounds} == bounds
    shown = tenant.client.get(f"{URL}/{old['id']}").json()
    assert (shown["state"], shown["replaced_by"]) == ("revoked", new["id"])


def test_with_an_overlap_both_work_and_then_only_the_new_one(tenant: Tenant, engine: FakeEngine) -> None:
    old = made(tenant.client)
    new = rotate(tenant.client, old["id"], overlap_seconds=3600).json()
    assert (works(old["secret"]), works(new["secret"])) == (200, 200)
    row = ApiKey.objects.get(public_id=old["id"])
    assert timedelta(minutes=59) < row.expires_at - timezone.now() <= timedelta(hours=1)
    # It is neither replaced twice nor kept alive.
    assert rotate(tenant.client, old["id"]).json()["error"] == "conflict"
    assert change(tenant.client, old["id"], expires_at=None).json()["error"] == "conflict"
    ApiKey.objects.filter(pk=row.pk).update(expires_at=timezone.now())
    assert (works(old["secret"]), works(new["secret"])) == (401, 200)


def test_an_overlap_does_not_outlive_the_keys_own_end(tenant: Tenant) -> None:
    end = timezone.now() + timedelta(minutes=5)
    key, _ = with_key(tenant, expires_at=end)
    assert rotate(tenant.client, key, overlap_seconds=3600).status_code == 201
    key.refresh_from_db()
    assert key.expires_at == end
    assert rotate(tenant.client, tenant.key, overlap_seconds=-1).status_code == 400
    assert rotate(tenant.client, tenant.key, overlap_seconds=31 * 24 * 3600).status_code == 400


def test_a_key_may_rotate_itself(tenant: Tenant, engine: FakeEngine) -> None:
    new = rotate(tenant.client, tenant.key).json()
    assert (works(tenant.secret), works(new["secret"])) == (401, 200)


def test_the_environments_key_is_changed_where_it_stands(tenant: Tenant, engine: FakeEngine, settings: Any) -> None:
    settings.API_KEY = "N4pZ-q81xYw_73kfTbLmQe"
    client = APIClient(headers={"X-API-Key": settings.API_KEY})
    (row,) = client.get(URL).json()["results"]
    assert row["from_environment"] and row["current"]
    assert rotate(client, row["id"]).json()["error"] == "conflict"
    assert revoke(client, row["id"]).status_code == 409
    second = made(client)
    assert revoke(client, row["id"]).status_code == 204
    assert works(second["secret"]) == 200


# --- nobody locks itself out ---


def refused(response: Any) -> bool:
    if response.status_code != 409:
        return False
    assert response.json()["error"] == "conflict" and "locked out" in response.json()["message"]
    return True


def test_the_last_key_with_keys_stays(tenant: Tenant, engine: FakeEngine) -> None:
    with_key(tenant, scopes=["synthesize"])
    with_key(tenant, expires_at=timezone.now() - timedelta(seconds=1))
    with_key(tenant)[0].revoke()
    with_key(tenant, allowed_networks=["192.0.2.1"])
    # One of the environment that does not stand there any more.
    with_key(tenant, from_environment=True)
    end = (timezone.now() + timedelta(days=9)).isoformat()
    assert refused(revoke(tenant.client, tenant.key))
    assert refused(change(tenant.client, tenant.key, scopes=["synthesize"]))
    assert refused(change(tenant.client, tenant.key, expires_at=end))
    assert refused(change(tenant.client, tenant.key, allowed_networks=["192.0.2.1"]))
    assert tenant.client.get(URL).status_code == 200
    # What does not lock it out may be done.
    assert change(tenant.client, tenant.key, allowed_networks=["127.0.0.0/8"], scopes=["keys"]).status_code == 200
    made(tenant.client)
    assert revoke(tenant.client, tenant.key).status_code == 204
    assert tenant.client.get(URL).status_code == 401


def test_a_key_that_ends_soon_is_not_counted_on(tenant: Tenant) -> None:
    soon, _ = with_key(tenant, expires_at=timezone.now() + timedelta(hours=1))
    assert refused(revoke(tenant.client, tenant.key))
    ApiKey.objects.filter(pk=soon.pk).update(expires_at=timezone.now() + timedelta(days=30))
    assert revoke(tenant.client, tenant.key).status_code == 204


def test_a_replaced_key_is_not_counted_on(tenant: Tenant, engine: FakeEngine) -> None:
    new = rotate(tenant.client, tenant.key, overlap_seconds=30 * 24 * 3600).json()
    # The old one lives for a month, and then there would be none.
    assert refused(revoke(tenant.client, new["id"]))
    assert refused(change(tenant.client, new["id"], scopes=["covers"]))
    assert works(new["secret"]) == 200
    assert revoke(tenant.client, tenant.key).status_code == 204


def test_an_end_of_the_last_key_may_be_moved_on_but_not_nearer(tenant: Tenant) -> None:
    ApiKey.objects.update(expires_at=timezone.now() + timedelta(days=9))
    sooner, later = ((timezone.now() + timedelta(days=days)).isoformat() for days in (8, 9))
    assert refused(change(tenant.client, tenant.key, expires_at=sooner))
    assert change(tenant.client, tenant.key, expires_at=later).status_code == 403  # longer than its own
    assert change(tenant.client, tenant.key, name="still").status_code == 200


def raced(*calls: Callable[[], Any]) -> list[int]:
    """The calls at the same moment, each on a thread and a connection of its own; their statuses."""
    barrier, statuses = threading.Barrier(len(calls)), []

    def run(call: Callable[[], Any]) -> None:
        try:
            barrier.wait()
            statuses.append(call().status_code)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(statuses)


Ends = Callable[[APIClient, ApiKey], Any]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (revoke, revoke),
        (lambda client, key: change(client, key, scopes=["covers"]), revoke),
        (revoke, lambda client, key: change(client, key, allowed_networks=["192.0.2.1"])),
    ],
)
@pytest.mark.parametrize("crossed", [False, True])
def test_two_last_keys_that_end_at_once_leave_one(engine: FakeEngine, first: Ends, second: Ends, crossed: bool) -> None:
    tenant = Tenant("alice")
    other, client = with_key(tenant)
    mine, theirs = (other, tenant.key) if crossed else (tenant.key, other)
    statuses = raced(lambda: first(tenant.client, mine), lambda: second(client, theirs))
    assert statuses[0] in (200, 204) and statuses[1] in (401, 403, 409)
    left = [key for key in ApiKey.objects.filter(allowed_networks=[]) if key.is_valid() and "keys" in key.scopes]
    assert len(left) == 1


@pytest.mark.django_db(transaction=True)
def test_one_key_is_replaced_once_however_many_ask(engine: FakeEngine) -> None:
    tenant = Tenant("alice")
    key, _ = with_key(tenant)
    assert raced(*[lambda: rotate(tenant.client, key, overlap_seconds=60)] * 4) == [201, 409, 409, 409]
    assert ApiKey.objects.count() == 3


@pytest.mark.django_db(transaction=True)
def test_a_key_that_is_revoked_while_it_asks_makes_nothing(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stolen key must not leave another one behind: it is looked at again under the lock that revoking it takes."""
    tenant = Tenant("alice")
    stolen, client = with_key(tenant)
    real, asked, revoked = grants.create, threading.Event(), threading.Event()

    def late(*args: Any, **kwargs: Any) -> Any:
        asked.set()
        assert revoked.wait(20)
        return real(*args, **kwargs)

    monkeypatch.setattr(grants, "create", late)
    answers: list[Any] = []

    def steal() -> None:
        answers.append(make(client))
        connection.close()

    thread = threading.Thread(target=steal)
    thread.start()
    assert asked.wait(20)
    assert revoke(tenant.client, stolen).status_code == 204
    revoked.set()
    thread.join()
    assert (answers[0].status_code, answers[0].json()["error"]) == (401, "invalid_api_key")
    assert not ApiKey.objects.filter(name="made").exists()


def test_a_tenant_has_so_many_keys_and_no_more(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grants, "MAX_VALID_KEYS", 3)
    made(tenant.client)
    third = made(tenant.client)
    assert make(tenant.client).json()["error"] == "conflict"
    assert revoke(tenant.client, third["id"]).status_code == 204
    made(tenant.client)


# --- the log ---


def test_every_change_is_in_the_log_with_who_and_from_where(tenant: Tenant, settings: Any) -> None:
    settings.TRUSTED_PROXIES = []
    data = tenant.client.post(URL, {"name": "one", "scopes": ["covers"]}, format="json", REMOTE_ADDR="203.0.113.9")
    secret = data.json()["secret"]
    pk = data.json()["id"]
    change(tenant.client, pk, name="two", scopes=["covers"])
    new = rotate(tenant.client, pk, overlap_seconds=60).json()
    revoke(tenant.client, pk)
    entries = list(AuditEntry.objects.order_by("id"))
    assert [entry.action for entry in entries] == ["key.create", "key.update", "key.rotate", "key.revoke"]
    assert {(entry.actor_name, entry.key_prefix, entry.tenant_id, entry.target_type) for entry in entries} == {
        ("alice", tenant.key.prefix, tenant.user.pk, "apikey")
    }
    assert entries[0].address == "203.0.113.9"
    assert entries[1].details == {"name": ["one", "two"]}
    assert entries[2].details == {"replaced_by": new["prefix"], "overlap_seconds": 60}
    for shown in (secret, new["secret"]):
        assert shown not in str([vars(entry) for entry in entries])


def test_what_changes_nothing_is_not_logged(tenant: Tenant) -> None:
    assert change(tenant.client, tenant.key, name="test", requests_per_minute=None).status_code == 200
    assert change(tenant.client, tenant.key).status_code == 200
    assert not AuditEntry.objects.exists()


# --- where a key may be used from ---


def test_a_key_works_from_its_networks_only(engine: FakeEngine, db: None) -> None:
    tenant = Tenant("carol", allowed_networks=["192.0.2.0/24", "2001:db8::/32"])
    for address in ("192.0.2.9", "2001:db8::1", "::ffff:192.0.2.9"):
        assert works(tenant.secret, REMOTE_ADDR=address) == 200, address
    ApiKey.objects.update(last_used_at=None)
    for address in ("192.0.3.9", "2001:db9::1", "127.0.0.1", ""):
        response = tenant.client.get(MODELS, REMOTE_ADDR=address)
        assert (response.status_code, response.json()["error"]) == (403, "permission_denied")
        assert response.json()["details"] == {"address": address}
    assert ApiKey.objects.get().last_used_at is None


def test_behind_a_trusted_proxy_the_clients_own_address_counts(engine: FakeEngine, db: None, settings: Any) -> None:
    tenant = Tenant("carol", allowed_networks=["192.0.2.9"])
    forwarded = {"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": "192.0.2.9"}
    assert works(tenant.secret, **forwarded) == 403
    settings.TRUSTED_PROXIES = [parse_network("10.0.0.0/8")]
    assert works(tenant.secret, **forwarded) == 200
    assert works(tenant.secret, **forwarded | {"HTTP_X_FORWARDED_FOR": "192.0.2.9, 8.8.8.8"}) == 403
    assert works(tenant.secret, REMOTE_ADDR="8.8.8.8", HTTP_X_FORWARDED_FOR="192.0.2.9") == 403


def test_an_allow_list_costs_no_query(engine: FakeEngine, django_assert_num_queries: Any, db: None) -> None:
    tenant = Tenant("carol", allowed_networks=["127.0.0.1"], max_concurrent_jobs=1)
    tenant.client.get(MODELS)
    with django_assert_num_queries(2):
        tenant.client.get(MODELS)


# --- jobs at a time ---


def speak(client: APIClient, content: bytes, **headers: str) -> Any:
    return client.post(
        "/api/v1/voice/synthesize", {"text": "Hello there.", "reference_audio": upload(content)}, headers=headers
    )


def test_a_keys_jobs_at_a_time_are_bounded_whatever_they_are(
    engine: FakeEngine, db: None, reference_wav: bytes
) -> None:
    tenant = Tenant("carol", max_concurrent_jobs=1)
    queued = speak(tenant.client, reference_wav, Prefer="respond-async")
    assert queued.status_code == 202
    for prefer in ("respond-async", ""):
        refused = speak(tenant.client, reference_wav, Prefer=prefer)
        assert (refused.status_code, refused.json()["error"]) == (429, "too_many_jobs")
        assert refused.json()["details"] == {"limit": 1, "found": 1, "limit_of": "key"}
        assert int(refused["Retry-After"]) > 0
    # Another key of the same tenant has its own.
    assert speak(with_key(tenant)[1], reference_wav).status_code == 200
    tenant.client.post(f"/api/v1/voice/syntheses/{queued.json()['job_id']}/cancel")
    assert speak(tenant.client, reference_wav).status_code == 200
    again = tenant.client.post(f"/api/v1/voice/syntheses/{queued.json()['job_id']}/retry")
    assert again.status_code == 202
    assert speak(tenant.client, reference_wav).status_code == 429


@pytest.mark.django_db(transaction=True)
def test_submissions_that_race_never_exceed_a_keys_jobs(engine: FakeEngine, reference_wav: bytes) -> None:
    tenant = Tenant("carol", max_concurrent_jobs=2)
    release = threading.Event()
    engine.before_piece = lambda index: None if release.wait(20) else pytest.fail("nobody was refused")
    most: list[int] = []

    def one(prefer: str) -> Any:
        answer = speak(tenant.client, reference_wav, Prefer=prefer)
        if answer.status_code == 429:
            most.append(Synthesis.objects.filter(status__in=("queued", "running")).count())
            if len(most) == 4:
                release.set()
        return answer

    statuses = raced(*[lambda prefer=prefer: one(prefer) for prefer in ("respond-async", "") * 3])
    assert statuses[-4:] == [429] * 4 and set(statuses[:2]) <= {200, 202}
    assert most == [2] * 4


def test_a_wrong_scope_in_a_list_is_told_in_plain_words(tenant: Tenant) -> None:
    response = tenant.client.post("/api/v1/keys", {"name": "x", "scopes": ["covers", "nope"]}, format="json")
    assert response.status_code == 400
    (message,) = response.json()["details"]["scopes"]
    assert message.startswith('"nope" is not one of: synthesize, covers, ')
    assert response.json()["message"] == f"scopes: {message}"
