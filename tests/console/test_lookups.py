"""Lists of the console are narrowed by their filters and nothing else: no lookup tells a field letter by letter."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.db.models import Field, Model
from django.test import Client, RequestFactory
from django.urls import reverse
from model_bakery import baker

from voiceproject.tenants.models import AuditEntry
from voiceproject.tenants.roles import VIEWER
from voiceproject.webhooks.models import WebhookDelivery
from voices.keys.models import ApiKey

LOOKUPS = ("", "exact", "iexact", "startswith", "istartswith", "contains", "icontains", "endswith", "regex", "iregex",
           "gt", "gte", "lt", "lte", "range", "in", "isnull", "length", "date", "year", "isempty")  # fmt: skip
SINCE = {"since"}
JOBS = {"status__exact", "status__isnull", "error", "cause", "failed_on", "failed_since", "running_on", *SINCE}

# What each list may be narrowed by. A new filter, and a new list, is decided on here.
ALLOWED: dict[str, set[str]] = {
    "auth.User": {f"{name}__{lookup}" for name in ("is_active", "is_staff", "is_superuser")
                  for lookup in ("exact", "isnull")},
    "voiceproject.Tenant": set(),
    "voiceproject.WorkerHost": {"draining__exact", "draining__isnull"},
    "voiceproject.WebhookDelivery": {"status__exact", "status__isnull", *SINCE},
    "voiceproject.AuditEntry": {"target_type", "target_id", "area", *SINCE},
    "voices.ApiKey": {"revoked_at__isempty"},
    "voices.EngineModel": {"engine__exact", "engine__isnull", "enabled__exact", "enabled__isnull", "owner__isempty"},
    "voices.Voice": {"taken_down_at__isempty", *SINCE},
    "voices.Lexicon": {"is_default__exact", "is_default__isnull", *SINCE},
    "voices.Consent": SINCE,
    "voices.Synthesis": JOBS,
    "voices.Training": JOBS,
    "covers.CoverJob": JOBS,
}  # fmt: skip


def paths(model: type[Model], depth: int = 2) -> list[str]:
    """Every field, and those of the models that it leads to."""
    found: list[str] = []
    for field in model._meta.get_fields():
        name = field.name if isinstance(field, Field) else field.get_accessor_name() or field.name
        found += [field.name, name, getattr(field, "attname", field.name)]
        related = field.related_model
        if depth > 1 and isinstance(related, type):
            found += [f"{field.name}__{rest}" for rest in paths(related, depth - 1)]
    return [*dict.fromkeys(found), "pk"]


def test_every_list_is_decided_on() -> None:
    assert {model._meta.label for model in admin.site._registry} == set(ALLOWED)


@pytest.mark.parametrize("label", ALLOWED)
def test_no_lookup_but_those_of_the_filters_is_allowed(label: str) -> None:
    model, own = next((model, own) for model, own in admin.site._registry.items() if model._meta.label == label)
    request = RequestFactory().get("/")
    tried = {f"{path}__{lookup}".removesuffix("__") for path in paths(model) for lookup in LOOKUPS}
    assert len(tried) > 80
    allowed = {lookup for lookup in tried | ALLOWED[label] if own.lookup_allowed(lookup, "x", request)}
    assert allowed == ALLOWED[label]


@pytest.fixture
def viewer(db: None) -> Client:
    user = User.objects.create_user("viewer", is_staff=True)
    user.groups.add(Group.objects.get(name=VIEWER))
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.parametrize("query", ["key_hash__startswith=a", "user__password__startswith=pbkdf2", "key_hash=a",
                                   "name__regex=a", "nonsense=1"])  # fmt: skip
def test_a_viewer_reads_no_hash_by_a_filter(query: str, viewer: Client) -> None:
    ApiKey.objects.issue(User.objects.create_user("dora"), "dora's")
    assert viewer.get(f"{reverse('admin:voices_apikey_changelist')}?{query}").status_code == 400


@pytest.mark.parametrize("label", ALLOWED)
def test_the_filters_that_pages_use_go_on_working(label: str, viewer: Client) -> None:
    page = reverse(f"admin:{label.lower().replace('.', '_')}_changelist")
    values = {"isempty": "1", "isnull": "False"}
    for lookup in ALLOWED[label]:
        query: dict[str, Any] = {lookup: values.get(lookup.rpartition("__")[2], "1")}
        assert viewer.get(page, query).status_code == 200, lookup
    for query in ({"q": "dora"}, {"q": "vck_abcd"}, {"q": "abcd"}, {"p": "1"}, {"o": "1"}):
        assert viewer.get(page, query).status_code == 200, query


def test_the_history_of_a_thing_is_the_audit_log_of_it(viewer: Client) -> None:
    key, _ = ApiKey.objects.issue(User.objects.create_user("dora"), "dora's")
    baker.make(AuditEntry, action="key.create", target_type="apikey", target_id=str(key.pk))
    response = viewer.get(reverse("admin:voices_apikey_history", args=[key.pk]), follow=True)
    assert response.status_code == 200
    assert "key.create" in response.content.decode()


def test_a_webhook_is_found_by_its_id_its_job_and_its_tenant(viewer: Client) -> None:
    delivery = baker.make(WebhookDelivery, tenant=User.objects.create_user("dora"), type="cover.succeeded")
    baker.make(WebhookDelivery, type="cover.failed")
    page = reverse("admin:voiceproject_webhookdelivery_changelist")
    for words in (str(delivery.pk), str(delivery.job_id), "dora"):
        html = viewer.get(page, {"q": words}).content.decode()
        assert ("cover.succeeded" in html, "cover.failed" in html) == (True, False), words
