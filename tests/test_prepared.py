"""UPDATEs that are compiled once."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.db import DatabaseError, transaction
from django.db.models import F
from django.db.models.functions import Now

from tests.conftest import Tenant
from voiceproject.prepared import Slot, Update
from voices.models import Synthesis

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


def test_a_failure_inside_a_transaction_undoes_it(tenant: Tenant) -> None:
    row = Synthesis.objects.create(tenant=tenant.user, text="x")
    update = Update(Synthesis.objects.filter(pk=Slot("pk", Synthesis, "id")), seed=Slot("seed", Synthesis), text=None)
    with transaction.atomic():
        Synthesis.objects.filter(pk=row.pk).update(text="y")
        with pytest.raises(DatabaseError):
            update(pk=row.pk, seed=1)
    row.refresh_from_db()
    assert row.text == "x"
