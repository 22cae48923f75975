"""A blocked tenant: nothing of it starts, runs or is sent, and what waited goes on when it is unblocked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from model_bakery import baker

from covers.models import CoverJob
from tests.fakes.engine import FakeEngine
from tests.support.audio import upload
from tests.support.jobs import claim, queued
from tests.support.tenants import Tenant
from tests.support.threads import together
from voiceproject.errors import StreamBroken
from voiceproject.jobs import suspension
from voiceproject.jobs.status import JobStatus
from voiceproject.operations import worker
from voiceproject.tenants.models import AuditEntry
from voiceproject.tenants.models import Tenant as Limits
from voiceproject.webhooks import deliveries
from voiceproject.webhooks.models import WebhookDelivery
from voices.speech.models import Synthesis

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_blocked_tenants_jobs_wait_and_others_go_on(tenant: Tenant, other: Tenant) -> None:
    mine = queued("alice", 2, priority=5)
    (theirs,) = queued("bob")
    assert theirs.queue_position() == 3
    assert suspension.block(tenant.user)
    assert theirs.queue_position() == 1
    first = claim()
    assert first is not None
    assert first.pk == theirs.pk
    assert claim() is None
    assert not CoverJob.has_room("h9", 9)
    assert not suspension.block(tenant.user), "it is blocked"
    assert suspension.unblock(tenant.user)
    assert {job.pk for job in (claim(), claim()) if job} == {job.pk for job in mine}
    assert not suspension.unblock(tenant.user)


def test_what_runs_is_canceled_and_can_be_tried_again(tenant: Tenant, other: Tenant) -> None:
    queued("alice", song="covers/song")
    queued("bob")
    mine, theirs = (claim(), claim())
    assert mine is not None
    assert theirs is not None
    if mine.tenant_id != tenant.user.pk:
        mine, theirs = theirs, mine
    suspension.block(tenant.user)
    assert not mine.beat()
    assert theirs.beat()
    assert tenant.client.get(f"/api/v1/cover/jobs/{mine.pk}").status_code == 403
    suspension.unblock(tenant.user)
    assert tenant.client.get(f"/api/v1/cover/jobs/{mine.pk}").json()["status"] == "canceled"
    assert tenant.client.post(f"/api/v1/cover/jobs/{mine.pk}/retry").status_code == 202


def test_whoever_is_made_inactive_elsewhere_is_stopped_by_the_next_look(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "start", lambda actor: None)
    queued("alice")
    job = claim()
    assert job is not None
    User.objects.filter(pk=tenant.user.pk).update(is_active=False)
    assert job.beat()
    worker.look(take_over=False)
    assert not job.beat()


def test_a_block_loses_to_no_claim(tenant: Tenant) -> None:
    for _ in range(6):
        queued("alice", 3)
        together(*[lambda n=n: claim(f"w{n}", f"h{n}") for n in range(3)], lambda: suspension.block(tenant.user))  # type: ignore[misc]
        assert not CoverJob.objects.filter(status=JobStatus.RUNNING).exists()
        assert claim() is None
        suspension.unblock(tenant.user)
        for job in CoverJob.objects.filter(status=JobStatus.QUEUED):
            job.cancel()


def test_a_stream_ends_and_downloads_are_refused(tenant: Tenant, engine: FakeEngine, reference_wav: bytes) -> None:
    text = "Here is the first sentence of three. This is the second one of them. And that was the third and last."
    send: Callable[..., Any] = tenant.client.post
    done = send("/api/v1/voice/synthesize", {"text": "Hello.", "reference_audio": upload(reference_wav)})
    url = f"/api/v1/voice/syntheses/{done['X-Synthesis-ID']}/audio"
    stream = send(
        "/api/v1/voice/synthesize", {"text": text, "reference_audio": upload(reference_wav), "stream": "true"}
    )
    next(iter(stream.streaming_content))
    gone = []

    def block(index: int) -> None:
        if index == 1:
            suspension.block(tenant.user)
            assert not Synthesis.objects.get(status=JobStatus.CANCELED).beat()
            gone.append(index)

    engine.before_piece = block
    with pytest.raises(StreamBroken):
        list(stream.streaming_content)
    stream.close()
    assert gone == [1]
    refused = tenant.client.get(url)
    assert (refused.status_code, refused.json()["error"]) == (403, "tenant_blocked")
    suspension.unblock(tenant.user)
    assert tenant.client.get(url).status_code == 200


def test_webhooks_of_a_blocked_tenant_wait(tenant: Tenant) -> None:
    delivery = baker.make(WebhookDelivery, tenant=tenant.user, url="https://example.org/", payload="{}",
                          next_attempt_at=timezone.now())  # fmt: skip
    assert deliveries.due() == [delivery.pk]
    suspension.block(tenant.user)
    assert deliveries.due() == []
    assert deliveries.claim(delivery.pk) is None
    suspension.unblock(tenant.user)
    assert deliveries.due() == [delivery.pk]
    assert deliveries.claim(delivery.pk) is not None


def test_operators_block_and_unblock_in_the_console_and_the_log_says_who(tenant: Tenant, client: Any) -> None:
    queued("alice")
    root = User.objects.create_superuser("root")
    Limits.objects.create(user=root)
    client.force_login(root)

    def act(action: str, **more: str) -> str:
        selected = [str(pk) for pk in Limits.objects.values_list("pk", flat=True)]
        form = {"action": action, "_selected_action": selected, "confirmed": "1", **more}
        answer = client.post("/admin/voiceproject/tenant/", form, follow=True)
        return str(answer.content.decode())

    assert 'name="reason"' in act("block", reason=" ")  # It is asked for again.
    assert tenant.client.get("/api/v1/me").status_code == 200
    page = act("block", reason="Sang <b>hymns</b>")
    assert "1 tenant blocked." in page
    assert "1 is blocked already, or is staff." in page
    about = client.get(f"/admin/voiceproject/tenant/{tenant.user.pk}/change/").content.decode()
    assert "Blocked since" in about and "by root: <b>Sang &lt;b&gt;hymns&lt;/b&gt;</b>" in about
    assert tenant.client.get("/api/v1/me").json()["error"] == "tenant_blocked"
    assert User.objects.get(username="root").is_active
    assert "1 tenant unblocked." in act("unblock")
    assert tenant.client.get("/api/v1/me").status_code == 200
    rows = AuditEntry.objects.filter(tenant_id=tenant.user.pk).order_by("pk").values_list("action", "actor_name")
    assert list(rows) == [("tenant.block", "root"), ("tenant.unblock", "root")]


def test_who_is_being_erased_is_not_unblocked(tenant: Tenant) -> None:
    Limits.objects.create(user=tenant.user, erase_requested_at=timezone.now())
    User.objects.filter(pk=tenant.user.pk).update(is_active=False)
    assert not suspension.unblock(tenant.user)
