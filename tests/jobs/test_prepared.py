"""Statements that are compiled once."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.utils.translation import gettext_lazy

from tests.support.tenants import Tenant
from voiceproject.prepared import Insert, Select, Slot, Update
from voiceproject.tenants.models import Tenant as Settings
from voices.keys.models import ApiKey
from voices.speech.models import Synthesis

pytestmark = pytest.mark.django_db(transaction=True)


def test_slots_take_other_values_each_time_and_the_rest_stays(tenant: Tenant) -> None:
    rows = [Synthesis.objects.create(tenant=tenant.user, text="x", seed=n, worker="a'%s%") for n in (1, 2)]
    update = Update(
        Synthesis.objects.filter(pk=Slot("pk", Synthesis, "id"), seed__lt=10, worker="a'%s%"),
        seed=F("seed") + Slot("more", Synthesis, "seed"),
        speed=Slot("speed", Synthesis),
        language="en",
        expires_at=Now() + timedelta(hours=2),
    )
    assert update(pk=rows[0].pk, more=100, speed=0.5) == 1
    assert update(pk=rows[0].pk, more=1, speed=0.5) == 0  # it is not below 10 any more
    assert update(pk=rows[1].pk, more=5, speed=1.5) == 1
    assert update(pk=uuid.uuid4(), more=5, speed=1.5) == 0
    for row in rows:
        row.refresh_from_db()
    assert [(row.seed, row.speed, row.language) for row in rows] == [(101, 0.5, "en"), (7, 1.5, "en")]
    assert all(timedelta(hours=1) < row.expires_at - row.created_at < timedelta(hours=3) for row in rows)


def test_a_row_is_written_as_save_writes_it(tenant: Tenant) -> None:
    insert = Insert(Synthesis)

    def new(**fields: Any) -> Synthesis:
        return Synthesis(tenant=tenant.user, api_key=tenant.key, marks=[{"it's": "100 %s"}], text="%s", **fields)

    for fields in ({"started_at": Now()}, {}, {"started_at": Now() + timedelta(hours=1)}, {"started_at": Now()}):
        ours, theirs = new(**fields), new(**fields)
        insert(ours)
        theirs.save(force_insert=True)
        assert (ours._state.adding, ours._state.db) == (False, "default")
        written, saved = (Synthesis.objects.filter(pk=row.pk).values().get() for row in (ours, theirs))
        for name in ("created_at", "updated_at", "started_at"):
            mine, other = written.pop(name), saved.pop(name)
            assert mine == other is None or abs(mine - other) < timedelta(seconds=5), name
        assert written.pop("id") != saved.pop("id")
        assert written == saved
    assert len(insert._statements) == 3
    with pytest.raises(DatabaseError):
        insert(ours)


def test_a_failure_inside_a_transaction_undoes_it(tenant: Tenant) -> None:
    row = Synthesis.objects.create(tenant=tenant.user, text="x")
    update = Update(Synthesis.objects.filter(pk=Slot("pk", Synthesis, "id")), seed=Slot("seed", Synthesis), text=None)
    with transaction.atomic():
        Synthesis.objects.filter(pk=row.pk).update(text="y")
        with pytest.raises(DatabaseError):
            update(pk=row.pk, seed=1)
    row.refresh_from_db()
    assert row.text == "x"


def test_objects_come_as_django_makes_them_with_what_belongs_to_them(tenant: Tenant, other: Tenant) -> None:
    Settings.objects.create(user=tenant.user, requests_per_minute=7)
    rows = ApiKey.objects.select_related("user__tenant").filter(prefix=Slot("prefix", ApiKey))
    select = Select(rows)
    with CaptureQueriesContext(connection) as sent:
        for asked in (tenant, other):
            (key,) = select(prefix=asked.key.prefix)
            expected = ApiKey.objects.get(pk=asked.key.pk)
            fields = [field.attname for field in ApiKey._meta.concrete_fields]
            assert [getattr(key, name) for name in fields] == [getattr(expected, name) for name in fields]
            assert key.user == asked.user and not key._state.adding
            limits = getattr(key.user, "tenant", None)
            assert (limits and limits.requests_per_minute) == (7 if asked is tenant else None)
    assert len(sent) == 4  # one of each, and the two that were compared with
    assert select(prefix="none") == []


def test_tuples_come_as_django_makes_them(tenant: Tenant) -> None:
    names = ("id", "scopes", "created_at", "allowed_networks", "public_id", "clock")
    rows = ApiKey.objects.annotate(clock=Now()).filter(user=Slot("user", ApiKey)).values_list(*names)
    (found,) = Select(rows)(user=tenant.user.pk)
    (expected,) = ApiKey.objects.filter(user=tenant.user).values_list(*names[:-1])
    assert found[:-1] == expected
    assert timedelta(0) <= found[-1] - tenant.key.created_at < timedelta(minutes=10)


def test_every_thread_asks_through_its_own_connection(tenant: Tenant) -> None:
    select = Select(ApiKey.objects.filter(user=Slot("user", ApiKey)))
    compiled_here = select(user=tenant.user.pk)

    def ask() -> list[ApiKey]:
        try:
            return select(user=tenant.user.pk)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(ask).result(30) == compiled_here == [tenant.key]


def test_a_value_of_another_type_than_its_field_is_written_as_the_field_writes_it(tenant: Tenant) -> None:
    row = Synthesis.objects.create(tenant=tenant.user, text="x", worker="w", sample_rate=8000)
    fields = ("speed", "background", "text", "worker", "sample_rate", "seed")
    write = Update(
        Synthesis.objects.filter(pk=Slot("pk", Synthesis, "id")), **{name: Slot(name, Synthesis) for name in fields}
    )
    plain: dict[str, Any] = {
        "speed": 0.5,
        "background": True,
        "text": "ä",
        "worker": "b",
        "sample_rate": 16000,
        "seed": 2**32 - 1,
    }
    others: dict[str, Any] = {
        "speed": "0.5",
        "background": 1,
        "text": 7,
        "worker": gettext_lazy("b"),
        "sample_rate": "9",
        "seed": None,
    }
    for values, written in ((plain, plain), (others, others | {"speed": 0.5, "text": "7", "worker": "b"})):
        assert write(pk=row.pk, **values) == 1
        found = Synthesis.objects.values(*fields).get(pk=row.pk)
        assert found == written | {"sample_rate": int(written["sample_rate"]), "background": True}
    with pytest.raises(ValueError, match="sample_rate"):
        write(pk=row.pk, **plain | {"sample_rate": "many"})
