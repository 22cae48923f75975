"""The operators' console: what it shows, what it lets do, and that nothing of a tenant's runs in it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.files.base import ContentFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from model_bakery import baker
from rest_framework.test import APIClient

from covers.models import CoverJob
from tests.conftest import FakeEngine, speech_like, wav_bytes
from voiceproject.jobs import JobStatus
from voiceproject.models import AuditEntry, Tenant, WorkerHost
from voices.models import ApiKey, Synthesis

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


def with_permissions(*codenames: str) -> Client:
    user = User.objects.create(username="staff", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def job() -> CoverJob:
    job = baker.make(CoverJob, status="running", stage="separate", progress=20, attempt=1, worker="h:1:x")
    job.song.save("covers/x/song", ContentFile(wav_bytes(speech_like(1.0), 16_000)), save=False)
    CoverJob.objects.update(song=job.song.name)
    return job


LIST = "admin:covers_coverjob_changelist"


def test_the_list_shows_state_stage_and_progress(operator: Client, job: CoverJob) -> None:
    html = operator.get(reverse(LIST)).content.decode()
    for text in ("running", "separate", 'value="20"', "h:1:x", job.tenant.username):
        assert text in html


def test_a_job_page_plays_what_there_is_and_shows_the_commands_words(operator: Client, job: CoverJob) -> None:
    CoverJob.objects.update(error_detail="<script>alert(1)</script> CUDA error", status="failed")
    html = operator.get(reverse("admin:covers_coverjob_change", args=[job.pk])).content.decode()
    assert "<script>alert(1)" not in html
    assert "&lt;script&gt;alert(1)" in html
    (source,) = re.findall(r'<audio [^>]*src="([^"]+)"', html)
    response = operator.get(source)
    assert response["Content-Type"] == "audio/wav"
    assert b"".join(response.streaming_content) == job.song.read()
    assert operator.get(source, headers={"Range": "bytes=0-3"}).status_code == 206
    assert operator.get(source, headers={"Range": "bytes=99999999-"}).status_code == 416
    assert operator.get(source.replace("/song", "/error_detail")).status_code == 404
    assert operator.get(source.replace("/song", "/vocals")).status_code == 404


def test_players_are_for_staff_who_may_see_jobs(job: CoverJob) -> None:
    url = reverse("admin:covers_coverjob_file", args=[job.pk, "song"])
    assert Client().get(url).status_code == 302
    assert with_permissions("view_synthesis").get(url).status_code == 403


def act(client: Client, action: str, *jobs: CoverJob) -> Any:
    return client.post(reverse(LIST), {"action": action, "_selected_action": [job.pk for job in jobs]}, follow=True)


def test_cancel_cancels_and_says_what_had_ended(operator: Client, job: CoverJob) -> None:
    ended = baker.make(CoverJob, status="succeeded")
    html = act(operator, "cancel_jobs", job, ended).content.decode()
    assert "1 jobs canceled." in html
    assert "1 had ended already." in html
    job.refresh_from_db()
    ended.refresh_from_db()
    assert (job.status, ended.status) == ("canceled", "succeeded")


def test_retry_queues_failed_jobs_again(operator: Client, job: CoverJob) -> None:
    CoverJob.objects.update(status="failed", error="mix_failed")
    act(operator, "retry_jobs", job)
    job.refresh_from_db()
    assert (job.status, job.error) == (JobStatus.QUEUED, "")


def test_actions_need_the_permission_to_change(job: CoverJob) -> None:
    act(with_permissions("view_coverjob"), "cancel_jobs", job)
    job.refresh_from_db()
    assert job.status == "running"


def test_jobs_are_neither_made_nor_edited_nor_deleted_by_hand(operator: Client, job: CoverJob) -> None:
    assert operator.get(reverse("admin:covers_coverjob_add")).status_code == 403
    assert operator.post(reverse("admin:covers_coverjob_delete", args=[job.pk]), {"post": "yes"}).status_code == 403
    operator.post(reverse("admin:covers_coverjob_change", args=[job.pk]), {"status": "succeeded"})
    job.refresh_from_db()
    assert job.status == "running"


def test_saving_an_open_page_writes_no_state_back(operator: Client, job: CoverJob) -> None:
    url = reverse("admin:covers_coverjob_change", args=[job.pk])
    assert 'name="_save"' not in operator.get(url).content.decode()
    job.cancel()
    assert operator.post(url, {}).status_code == 403
    job.refresh_from_db()
    assert job.status == "canceled"


def test_a_new_keys_secret_is_shown_once_and_works(operator: Client, engine: FakeEngine) -> None:
    user = baker.make(User, username="dora")
    page = operator.post(
        reverse("admin:voices_apikey_add"),
        {"user": user.pk, "name": "for dora", "scopes": ["covers"], "expires_at_0": "", "expires_at_1": ""},
        follow=True,
    ).content.decode()
    (secret,) = set(re.findall(r"vck_[\w-]{40,}", page))
    assert "messages" not in operator.cookies
    assert APIClient(headers={"X-API-Key": secret}).get("/api/v1/cover/jobs").status_code == 200
    key = ApiKey.objects.get()
    assert (key.user, key.name, key.scopes) == (user, "for dora", ["covers"])
    for url in (reverse("admin:voices_apikey_changelist"), reverse("admin:voices_apikey_change", args=[key.pk])):
        assert secret not in operator.get(url).content.decode()


def test_a_key_can_be_narrowed_and_revoked_but_not_moved_or_deleted(operator: Client, engine: FakeEngine) -> None:
    user, stranger = baker.make(User), baker.make(User)
    key, secret = ApiKey.objects.issue(user, "one")
    change = reverse("admin:voices_apikey_change", args=[key.pk])
    operator.post(
        change, {"user": stranger.pk, "name": "two", "scopes": ["covers"], "expires_at_0": "", "expires_at_1": ""}
    )
    key.refresh_from_db()
    assert (key.user, key.name, key.scopes) == (user, "two", ["covers"])
    operator.post(reverse("admin:voices_apikey_changelist"), {"action": "revoke", "_selected_action": [key.pk]})
    assert APIClient(headers={"X-API-Key": secret}).get("/api/v1/cover/jobs").status_code == 401
    assert operator.post(reverse("admin:voices_apikey_delete", args=[key.pk]), {"post": "yes"}).status_code == 403


def test_an_operator_bounds_a_key_and_the_log_says_so(operator: Client) -> None:
    user = baker.make(User, username="dora")
    form = {"user": user.pk, "name": "one", "scopes": ["covers"], "expires_at_0": "", "expires_at_1": "",
            "allowed_networks": "192.0.2.7\n 2001:db8::/32", "requests_per_minute": "5", "max_concurrent_jobs": "2",
            "monthly_audio_seconds": "60"}  # fmt: skip
    add = reverse("admin:voices_apikey_add")
    for wrong in ({"allowed_networks": "example.com"}, {"requests_per_minute": "0"}, {"expires_at_0": "2020-01-01",
                  "expires_at_1": "00:00"}):  # fmt: skip
        assert operator.post(add, form | wrong).status_code == 200
    assert operator.post(add, form).status_code == 302
    key = ApiKey.objects.get()
    assert key.allowed_networks == ["192.0.2.7", "2001:db8::/32"]
    assert (key.requests_per_minute, key.max_concurrent_jobs, key.monthly_audio_seconds) == (5, 2, 60)
    change = reverse("admin:voices_apikey_change", args=[key.pk])
    assert "192.0.2.7\n2001:db8::/32" in operator.get(change).content.decode()
    operator.post(change, form | {"requests_per_minute": ""})
    operator.post(reverse("admin:voices_apikey_changelist"), {"action": "revoke", "_selected_action": [key.pk]})
    assert operator.post(change, form | {"name": "back"}).status_code == 403
    key.refresh_from_db()
    assert (key.requests_per_minute, key.name, key.state) == (None, "one", "revoked")
    entries = AuditEntry.objects.filter(action__startswith="key.").order_by("id")
    assert [entry.action for entry in entries] == ["key.create", "key.update", "key.revoke"]
    assert entries[1].details == {"requests_per_minute": [5, None]}
    assert {(entry.actor_name, entry.tenant_id) for entry in entries} == {("root", user.pk)}
    reader = with_permissions("view_apikey")
    assert reader.get(change).status_code == 200
    assert reader.post(change, form).status_code == 403


def test_every_page_of_the_console_opens(operator: Client, job: CoverJob) -> None:
    synthesis = baker.make(Synthesis, text="<b>bold</b>")
    pages = [reverse("admin:index"), reverse("admin:voices_synthesis_changelist"), reverse("admin:voices_apikey_add")]
    pages.append(reverse("admin:voices_synthesis_change", args=[synthesis.pk]))
    for page in pages:
        response = operator.get(page)
        assert response.status_code == 200, page
        html = response.content.decode()
        assert "<b>bold</b>" not in html
        assert " object at 0x" not in html, page


def test_an_operator_gives_queued_jobs_a_priority(operator: Client, job: CoverJob) -> None:
    waiting = baker.make(CoverJob, tenant=job.tenant)
    form = {"action": "prioritize_jobs", "_selected_action": [str(job.pk), str(waiting.pk)], "priority": "7"}
    html = operator.post(reverse(LIST), form, follow=True).content.decode()
    assert "1 jobs have priority 7 now" in html
    assert "1 do not wait any more" in html
    assert set(CoverJob.objects.values_list("status", "priority")) == {("running", 0), ("queued", 7)}
    for wrong in ("", "9999", "high"):
        operator.post(reverse(LIST), form | {"priority": wrong}, follow=True)
    assert CoverJob.objects.get(pk=waiting.pk).priority == 7


def test_an_operator_sets_a_tenants_limits(operator: Client, job: CoverJob) -> None:
    tenant = Tenant.objects.create(user=job.tenant)
    page = reverse("admin:voiceproject_tenant_change", args=[tenant.pk])
    assert operator.get(page).status_code == 200
    assert operator.post(page, {"max_running": "2", "max_queued": ""}).status_code == 302
    tenant.refresh_from_db()
    assert (tenant.max_running, tenant.max_queued) == (2, None)


def test_an_operator_drains_a_host_and_sees_what_it_works_on(operator: Client, job: CoverJob) -> None:
    hosts = "admin:voiceproject_workerhost_changelist"
    WorkerHost.objects.create(name="gpu-1", seen_at=timezone.now())
    CoverJob.objects.update(host="gpu-1")
    html = operator.get(reverse(hosts)).content.decode()
    for text in ("gpu-1", "works", str(job.pk)[:8], "separate 20", "h:1:x"):
        assert text in html
    for action, draining in (("drain", True), ("undrain", False)):
        operator.post(reverse(hosts), {"action": action, "_selected_action": ["gpu-1"]})
        assert WorkerHost.objects.get().draining is draining
    assert CoverJob.objects.get().status == "running"
    reader = with_permissions("view_workerhost")
    reader.post(reverse(hosts), {"action": "drain", "_selected_action": ["gpu-1"]})
    assert not WorkerHost.objects.get().draining
