"""The operators' console: what it shows, what it lets do, and that nothing of a tenant's runs in it."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.core.files.base import ContentFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from model_bakery import baker
from rest_framework.test import APIClient

from covers.models import CoverJob
from tests.fakes.engine import FakeEngine
from tests.support.audio import speech_like, wav_bytes
from tests.support.browser import Browser
from tests.support.missing import needs
from voiceproject.console.timeline import spans
from voiceproject.jobs.models import WorkerHost
from voiceproject.jobs.status import JobStatus
from voiceproject.tenants.models import AuditEntry, Tenant
from voiceproject.webhooks.models import WebhookDelivery
from voices.keys.models import ApiKey
from voices.speech.models import EngineModel, Synthesis

pytestmark = pytest.mark.django_db


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
    for text in ("running", "separate", 'value="20"', job.tenant.username):
        assert text in html


def test_an_empty_list_tells_whether_it_was_narrowed(operator: Client) -> None:
    assert "Nothing here yet" in operator.get(reverse(LIST)).content.decode()
    for narrowed in ({"q": "nowhere"}, {"status__exact": "failed"}):
        html = operator.get(reverse(LIST), narrowed).content.decode()
        assert "Nothing matches" in html and '<a href="?">Show all</a>' in html


def test_the_audit_log_names_what_has_no_pages_of_its_own(operator: Client) -> None:
    entry = AuditEntry.objects.create(action="share.make", target_type="share", target_id="1", target_name="x")
    html = operator.get(reverse("admin:voiceproject_auditentry_change", args=[entry.pk])).content.decode()
    assert re.search(r"readonly[^>]*>\s*link\s*<", html)


def test_a_job_page_plays_what_there_is_and_shows_the_commands_words(operator: Client, job: CoverJob) -> None:
    CoverJob.objects.update(error_detail="<script>alert(1)</script> CUDA error", status="failed")
    html = operator.get(reverse("admin:covers_coverjob_change", args=[job.pk])).content.decode()
    assert "<script>alert(1)" not in html
    assert "&lt;script&gt;alert(1)" in html
    (source,) = re.findall(r'<audio [^>]*src="([^"]+)"', html)
    assert operator.get(f"{source}/waveform").content.startswith(b"<svg ")
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


def act(client: Client, action: str, *jobs: CoverJob, **more: Any) -> Any:
    """Asks for an action on the list, and says yes to the question."""
    form = {"action": action, "_selected_action": [job.pk for job in jobs], "confirmed": "1", **more}
    return client.post(reverse(LIST), form, follow=True)


def test_cancel_cancels_and_says_what_had_ended(operator: Client, job: CoverJob) -> None:
    ended = baker.make(CoverJob, status="succeeded")
    html = act(operator, "cancel_jobs", job, ended).content.decode()
    assert "1 canceled." in html
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
    assert APIClient(headers={"X-API-Key": secret}).get("/api/v1/cover/jobs").status_code == 200
    key = ApiKey.objects.get()
    assert (key.user, key.name, key.scopes) == (user, "for dora", ["covers"])
    for url in (reverse("admin:voices_apikey_changelist"), reverse("admin:voices_apikey_change", args=[key.pk])):
        assert secret not in operator.get(url).content.decode()


def test_a_new_key_for_clients_without_headers_is_shown_as_a_url_once(operator: Client, engine: FakeEngine) -> None:
    user = baker.make(User, username="dora")
    add = reverse("admin:voices_apikey_add")
    form = {"user": user.pk, "name": "tavern", "kind": "path", "scopes": ["covers"], "expires_at_0": "",
            "expires_at_1": ""}  # fmt: skip
    (url,) = set(re.findall(r"http://testserver(/gptsovits/vcp_[a-z0-9]+)", operator.post(add, form).content.decode()))
    assert Client().get(f"{url}/speakers").status_code == 200
    key = ApiKey.objects.get()
    assert (key.kind, key.scopes) == ("path", ["synthesize"])
    shown = operator.get(reverse("admin:voices_apikey_change", args=[key.pk])).content.decode()
    assert "stands in the URL" in shown and url.rpartition("/")[2] not in shown
    # By address only where that is switched on, and then it says which networks it may stand for.
    refused = operator.post(add, {**form, "kind": "address", "allowed_networks": "10.0.0.0/8"})
    assert refused.context["adminform"].form.errors["kind"]


def test_a_key_can_be_narrowed_and_revoked_but_not_moved_or_deleted(operator: Client, engine: FakeEngine) -> None:
    user, stranger = baker.make(User), baker.make(User)
    key, secret = ApiKey.objects.issue(user, "one")
    change = reverse("admin:voices_apikey_change", args=[key.pk])
    operator.post(
        change, {"user": stranger.pk, "name": "two", "scopes": ["covers"], "expires_at_0": "", "expires_at_1": ""}
    )
    key.refresh_from_db()
    assert (key.user, key.name, key.scopes) == (user, "two", ["covers"])
    form = {"action": "revoke", "_selected_action": [key.pk]}
    assert b"Revoke 1 key?" in operator.post(reverse("admin:voices_apikey_changelist"), form).content
    key.refresh_from_db()
    assert key.revoked_at is None
    operator.post(reverse("admin:voices_apikey_changelist"), {**form, "confirmed": "1"})
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
    assert b"shown this once" in operator.post(add, form).content
    key = ApiKey.objects.get()
    assert key.allowed_networks == ["192.0.2.7", "2001:db8::/32"]
    assert (key.requests_per_minute, key.max_concurrent_jobs, key.monthly_audio_seconds) == (5, 2, 60)
    change = reverse("admin:voices_apikey_change", args=[key.pk])
    assert "192.0.2.7\n2001:db8::/32" in operator.get(change).content.decode()
    operator.post(change, form | {"requests_per_minute": ""})
    revoke = {"action": "revoke", "_selected_action": [key.pk], "confirmed": "1"}
    operator.post(reverse("admin:voices_apikey_changelist"), revoke)
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
    assert "1 have the priority now" in html
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
        operator.post(reverse(hosts), {"action": action, "_selected_action": ["gpu-1"], "confirmed": "1"})
        assert WorkerHost.objects.get().draining is draining
    assert CoverJob.objects.get().status == "running"
    reader = with_permissions("view_workerhost")
    reader.post(reverse(hosts), {"action": "drain", "_selected_action": ["gpu-1"], "confirmed": "1"})
    assert not WorkerHost.objects.get().draining


# --- secrets ---


def test_a_secret_is_in_the_answer_to_the_form_and_nowhere_else(operator: Client, caplog: Any) -> None:
    user = baker.make(User)
    form = {"user": user.pk, "name": "n", "scopes": ["covers"], "expires_at_0": "", "expires_at_1": ""}
    response = operator.post(reverse("admin:voices_apikey_add"), form)
    assert response.status_code == 200  # No redirect: nothing has to be carried to another page.
    assert "no-store" in response["Cache-Control"]
    (secret,) = set(re.findall(r"vck_[\w-]{40,}", response.content.decode()))
    key = ApiKey.objects.get()
    change = reverse("admin:voices_apikey_change", args=[key.pk])
    assert f'data-replace-url="{change}"' in response.content.decode()  # A reload asks for that, and sends no form.
    part = secret[len(key.prefix) :]
    kept = [str([session.get_decoded() for session in Session.objects.all()]), operator.cookies.output(), caplog.text]
    kept += [str(list(AuditEntry.objects.values())), str(list(ApiKey.objects.values())), str(response.headers)]
    for page in (change, reverse("admin:voices_apikey_changelist"), reverse("admin:voices_apikey_add")):
        kept.append(operator.get(page).content.decode())
    for text in kept:
        assert part not in text


# --- the audit log ---


def entries() -> list[tuple[str, str, str]]:
    return list(AuditEntry.objects.order_by("pk").values_list("action", "target_id", "address"))


def test_every_action_on_a_job_is_in_the_audit_log(operator: Client, job: CoverJob) -> None:
    act(operator, "requeue_jobs", job)
    act(operator, "prioritize_jobs", job, priority="5")
    act(operator, "cancel_jobs", job)
    act(operator, "cancel_jobs", job)  # It has ended already: nothing was done, and nothing is noted.
    operator.get(reverse("admin:covers_coverjob_file", args=[job.pk, "song"]), headers={"Range": "bytes=0-"})
    operator.get(reverse("admin:covers_coverjob_file", args=[job.pk, "song"]), headers={"Range": "bytes=500-"})
    act(operator, "retry_jobs", job)
    found = [entry for entry in entries() if not entry[0].startswith("signin")]
    assert [action for action, _, _ in found] == [
        "job.requeue", "job.prioritize", "job.cancel", "job.listen", "job.retry",
    ]  # fmt: skip
    assert {(target, address) for _, target, address in found} == {(str(job.pk), "127.0.0.1")}
    entry = AuditEntry.objects.get(action="job.prioritize")
    assert (entry.actor_name, entry.tenant_id, entry.details) == (
        "root", job.tenant_id, {"status": "queued", "priority": 5},
    )  # fmt: skip


def test_every_change_of_the_console_says_what_it_was_and_what_it_is(operator: Client, job: CoverJob) -> None:
    tenant = Tenant.objects.create(user=job.tenant, max_running=1)
    operator.post(reverse("admin:voiceproject_tenant_change", args=[tenant.pk]), {"max_running": "2", "max_queued": ""})
    assert AuditEntry.objects.get(action="tenant.change").details == {"max_running": [1, 2]}
    model = {"model_id": "anna", "name": "Anna", "engine": "rvc", "voice_weights": "a.pth", "enabled": "on"}
    operator.post(reverse("admin:voices_enginemodel_add"), model)
    created = AuditEntry.objects.get(action="model.create")
    assert created.details["model_id"] == [None, "anna"]
    operator.post(reverse("admin:voices_enginemodel_delete", args=[created.target_id]), {"post": "yes"})
    assert AuditEntry.objects.get(action="model.delete").target_name == "anna"
    new = {
        "username": "dora",
        "usable_password": "true",
        "password1": "correct horse 7",
        "password2": "correct horse 7",
    }
    operator.post(reverse("admin:auth_user_add"), new)
    user = User.objects.get(username="dora")
    url = reverse("admin:auth_user_password_change", args=[user.pk])
    operator.post(url, {"password1": "battery staple 8", "password2": "battery staple 8", "usable_password": "true"})
    assert AuditEntry.objects.filter(action__in=("user.create", "user.change"), target_id=user.pk).count() == 2
    log = str(list(AuditEntry.objects.values()))
    assert "horse" not in log and "staple" not in log


def test_the_audit_log_is_read_only_for_superusers_too(operator: Client, job: CoverJob) -> None:
    act(operator, "cancel_jobs", job)
    entry = AuditEntry.objects.get(action="job.cancel")
    page = reverse("admin:voiceproject_auditentry_change", args=[entry.pk])
    assert operator.get(page).status_code == 200
    assert operator.post(page, {"action": "nothing"}).status_code == 403
    assert operator.post(reverse("admin:voiceproject_auditentry_delete", args=[entry.pk])).status_code == 403
    assert operator.get(reverse("admin:voiceproject_auditentry_add")).status_code == 403
    changelist = reverse("admin:voiceproject_auditentry_changelist")
    operator.post(changelist, {"action": "delete_selected", "_selected_action": [entry.pk], "post": "yes"})
    assert AuditEntry.objects.get(pk=entry.pk).action == "job.cancel"


@pytest.mark.parametrize(
    ("query", "found"),
    [("q=root", 2), ("q=127.0.0.1", 2), ("q=job.cancel", 1), ("q=nobody", 0), ("area=job", 2), ("area=key", 0),
     ("since=hour", 2), ("q=root&area=job", 2)],
)  # fmt: skip
def test_the_audit_log_is_searched_and_filtered(query: str, found: int, operator: Client, job: CoverJob) -> None:
    act(operator, "requeue_jobs", job)
    act(operator, "cancel_jobs", job)
    response = operator.get(f"{reverse('admin:voiceproject_auditentry_changelist')}?{query}")
    assert len([row for row in response.context["cl"].result_list if row.action != "signin"]) == found


def test_the_history_of_a_job_is_its_part_of_the_audit_log(operator: Client, job: CoverJob) -> None:
    act(operator, "cancel_jobs", job)
    response = operator.get(reverse("admin:covers_coverjob_history", args=[job.pk]), follow=True)
    assert [row.action for row in response.context["cl"].result_list] == ["job.cancel"]


# --- jobs ---


def test_an_action_asks_first_and_comes_back_to_the_page_where_it_was_asked_for(
    operator: Client, job: CoverJob
) -> None:
    form = {"action": "cancel_jobs", "_selected_action": [job.pk], "from_page": "1"}
    question = operator.post(reverse(LIST), form).content.decode()
    assert "Cancel 1 job?" in question
    assert str(job.pk) in question
    job.refresh_from_db()
    assert job.status == "running"
    answer = operator.post(reverse(LIST), {**form, "confirmed": "1"})
    assert answer["Location"] == reverse("admin:covers_coverjob_change", args=[job.pk])
    job.refresh_from_db()
    assert job.status == "canceled"


def test_a_failed_job_is_tried_again_from_a_stage_that_the_operator_picks(operator: Client, job: CoverJob) -> None:
    CoverJob.objects.update(status="failed", error="mix_failed", vocals=job.song.name, converted="covers/x/gone")
    html = operator.get(reverse("admin:covers_coverjob_change", args=[job.pk])).content.decode()
    assert re.findall(r'<option value="(\w+)"', html) == ["separate", "infer", "finalize"]
    act(operator, "retry_jobs", job, stage="infer")
    job.refresh_from_db()
    assert (job.status, bool(job.vocals), bool(job.converted)) == ("queued", True, False)
    assert AuditEntry.objects.get(action="job.retry").details == {"status": "failed", "stage": "infer"}


def test_a_running_job_is_taken_from_its_worker(operator: Client, job: CoverJob) -> None:
    act(operator, "requeue_jobs", job)
    job.refresh_from_db()
    assert (job.status, job.worker) == ("queued", "")
    speaking = baker.make(Synthesis, status="running")  # Its client waits for it: no worker could do it.
    form = {"action": "requeue_jobs", "_selected_action": [speaking.pk], "confirmed": "1"}
    operator.post(reverse("admin:voices_synthesis_changelist"), form)
    speaking.refresh_from_db()
    assert speaking.status == "running"


def test_the_timeline_shows_waiting_stages_and_a_second_attempt(job: CoverJob) -> None:
    start = timezone.now() - timedelta(seconds=100)

    def mark(attempt: int, stage: str, seconds: float, **more: str) -> dict[str, Any]:
        return {"attempt": attempt, "stage": stage, "at": (start + timedelta(seconds=seconds)).isoformat(), **more}

    job.created_at, job.finished_at = start, start + timedelta(seconds=60)
    job.marks = [
        mark(1, "claimed", 10, host="a"), mark(1, "separate", 10.1), mark(1, "taken over", 30),
        mark(2, "claimed", 35, host="b"), mark(2, "infer", 35), mark(2, "failed", 60),
    ]  # fmt: skip
    shown = [(span["stage"], span["attempt"], span["host"], span["seconds"]) for span in spans(job)]
    assert [row[:3] for row in shown] == [
        ("waiting", "", ""), ("separate", 1, "a"), ("taken over", 1, "a"), ("waiting", 1, ""), ("infer", 2, "b"),
        ("failed", 2, "b"),
    ]  # fmt: skip
    assert [row[3] for row in shown] == pytest.approx([10, 19.9, None, 5, 25, None])


@pytest.mark.parametrize("field", ["pk", "short", "request_id", "tenant", "key"])
def test_a_job_is_found_by(field: str, operator: Client, job: CoverJob) -> None:
    baker.make(CoverJob, request_id="another", _quantity=3)
    key, _ = ApiKey.objects.issue(job.tenant, "k")
    CoverJob.objects.filter(pk=job.pk).update(request_id="req-77", api_key=key)
    words = {"pk": str(job.pk), "short": str(job.pk)[:8], "request_id": "req-77", "tenant": job.tenant.username,
             "key": key.prefix}[field]  # fmt: skip
    response = operator.get(reverse(LIST), {"q": words})
    assert [row.pk for row in response.context["cl"].result_list] == [job.pk]


def test_a_synthesis_is_listed_and_found_by_its_title_or_how_its_text_begins(operator: Client) -> None:
    user = User.objects.create_user("reader")
    named = baker.make(Synthesis, tenant=user, text="Call me Ishmael.", title="The whale, take 2")
    plain = baker.make(Synthesis, tenant=user, text="It was a bright cold day in April.", title="")
    for words, job in (("WHALE", named), ("ishmael", named), ("cold day", plain)):
        page = operator.get(reverse("admin:voices_synthesis_changelist"), {"q": words})
        assert [row.pk for row in page.context["cl"].result_list] == [job.pk]
        assert (job.title or "It was a bright") in page.content.decode()


def test_no_list_counts_the_whole_table(operator: Client, job: CoverJob) -> None:
    for query in ("", "?status__exact=running", "?error=mix_failed", "?running_on=gpu-1", "?since=day", "?q=nothing"):
        with CaptureQueriesContext(connection) as queries:
            assert operator.get(f"{reverse(LIST)}{query}").status_code == 200
        for captured in queries:
            assert "COUNT(" not in captured["sql"].upper() or "LIMIT 10001" in captured["sql"].upper()
            assert "DISTINCT" not in captured["sql"].upper()


# --- what a browser is let do ---

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture
def evil(operator: Client) -> list[str]:
    """The pages of things of which every text is hostile that a tenant, or an engine, can choose."""
    user = User.objects.create(username=EVIL[:150], email="a@b.example")
    tenant = Tenant.objects.create(user=user)
    key, _ = ApiKey.objects.issue(user, EVIL)
    fields = ("request_id", "worker", "error_message", "error_detail", "callback_url", "callback_base", "model_id",
              "reference_text")  # fmt: skip
    texts: Any = dict.fromkeys(fields, EVIL)
    cover = baker.make(CoverJob, tenant=user, api_key=key, status="failed", host=EVIL, stage="<b>x</b>", lyrics=EVIL,
                       error="<b>e</b>", warning=EVIL, marks=[{"attempt": 1, "stage": EVIL, "host": EVIL,
                       "at": timezone.now().isoformat()}], **texts)  # fmt: skip
    synthesis = baker.make(Synthesis, tenant=user, text=EVIL, status="running", engine=EVIL[:32], host=EVIL, **texts)
    # Not the text of the synthesis: the access log has the path, which names the host.
    host = WorkerHost.objects.create(name=EVIL.replace("alert", "confirm"), seen_at=timezone.now())
    webhook = baker.make(WebhookDelivery, tenant=user, url=EVIL, payload=EVIL, last_error=EVIL, type=EVIL)
    model = EngineModel.objects.create(model_id="m", name=EVIL, voice_weights=EVIL, engine="rvc")
    entry = AuditEntry.objects.create(action="x", actor_name=EVIL, target_name=EVIL, details={EVIL: EVIL}, address="1")
    lists = [f"admin:{page}_changelist" for page in ("covers_coverjob", "voices_synthesis", "voices_apikey",
             "voices_enginemodel", "voiceproject_tenant", "voiceproject_workerhost", "voiceproject_webhookdelivery",
             "voiceproject_auditentry", "auth_user")]  # fmt: skip
    pages = [reverse(name) for name in ("admin:index", "admin:password_change", *lists)]
    pages += [
        reverse(f"admin:{thing._meta.app_label}_{thing._meta.model_name}_change", args=[thing.pk])
        for thing in (cover, synthesis, key, tenant, host, webhook, model, entry, user)
    ]
    pages += [reverse(f"admin:{name}_add") for name in ("voices_apikey", "voices_enginemodel", "auth_user",
              "voiceproject_tenant")]  # fmt: skip
    pages += [reverse("admin:voices_enginemodel_delete", args=[model.pk]),
              reverse("admin:auth_user_password_change", args=[user.pk])]  # fmt: skip
    return pages


def test_no_text_of_a_tenant_is_markup_and_nothing_is_inline(operator: Client, evil: list[str]) -> None:
    answers = {page: operator.get(page) for page in evil}
    form = {"action": "cancel_jobs", "_selected_action": [str(job.pk) for job in CoverJob.objects.all()]}
    answers["the question"] = operator.post(reverse(LIST), form)
    answers["the sign-in page"] = Client().get(reverse("admin:login"))
    for page, response in answers.items():
        assert response.status_code == 200, page
        html = response.content.decode()
        for hostile in ("<script>alert", "<img src=x", "<b>x</b>", "<b>e</b>"):
            assert hostile not in html, page
        assert not re.findall(r"<script(?![^>]*\bsrc=)[^>]*>", html), page
        assert not re.findall(r"<style", html), page
        assert not re.findall(r"<[^>]*\s(?:style|on[a-z]+)=\"", html), page
        policy = response["Content-Security-Policy"]
        assert "script-src 'self' 'unsafe-eval'" in policy
        assert "unsafe-inline" not in policy


def test_only_the_console_lets_scripts_evaluate(operator: Client) -> None:
    for page in ("studio", "docs", "redoc"):
        policy = operator.get(reverse(page))["Content-Security-Policy"]
        assert "unsafe-eval" not in policy
        assert "unsafe-inline" not in policy


@pytest.mark.browser
@pytest.mark.django_db(transaction=True)
def test_no_page_violates_its_policy_in_a_browser(
    operator: Client, evil: list[str], live_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("chromium")
    # As in production: the server that tests start would serve static files itself, and knows no hashed names.
    monkeypatch.setattr("django.contrib.staticfiles.handlers.StaticFilesHandler._should_handle", lambda *args: False)
    with Browser(tmp_path / "profile") as browser:
        session = {"name": "sessionid", "value": operator.cookies["sessionid"].value, "url": live_server.url}
        browser.call("Network.setCookie", **session)
        for page in evil:
            browser.open(f"{live_server.url}{page}")
            assert browser.evaluate("typeof Alpine") == "object", page
            assert not browser.complaints, page
        # The menus of a list need Alpine's expressions; an action's bar is shown, and asks.
        browser.open(f"{live_server.url}{reverse(LIST)}")
        browser.evaluate("document.querySelector('input.action-select').click()")
        browser.evaluate(
            "(() => { const s = document.querySelector('select[name=action]'); s.value = 'cancel_jobs';"
            "s.dispatchEvent(new Event('change')); document.querySelector('.console-actions button').click(); })()"
        )
        browser.wait("document.querySelector('.console-question')")
        assert not browser.complaints
        assert not browser.other_hosts(live_server.url)


def test_limits_say_what_an_empty_field_stands_for(operator: Client, settings: Any) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 77
    page = operator.get(reverse("admin:voiceproject_tenant_add")).content.decode()
    assert "<code>RATE_LIMIT_PER_MINUTE=77</code>" in page
