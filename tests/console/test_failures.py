"""Failures by their cause, and all of one cause tried again."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.files.base import ContentFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from model_bakery import baker

from covers.models import CoverJob
from voiceproject.console import job_actions
from voiceproject.console.pages import failures
from voiceproject.console.panels import job_kinds
from voiceproject.jobs.models import WorkerHost
from voiceproject.tenants.models import AuditEntry, Tenant
from voiceproject.tenants.roles import VIEWER

pytestmark = pytest.mark.django_db
LIST = "admin:covers_coverjob_changelist"
MEMORY = "it exited with status 1\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate {} GiB"


def failed(
    number: int, *, host: str = "gpu-2", detail: str = MEMORY, error: str = "inference_failed", **more: Any
) -> list:
    made = []
    for index in range(number):
        job = baker.make(
            CoverJob, status="running", attempt=1, worker="w", host=host, stage="infer", song="covers/x/song", **more
        )
        assert job.fail(error, detail=detail.format(index + 2))
        made.append(job)
    return made


def test_forty_failures_with_one_cause_are_one_group_with_its_hosts_and_times(operator: Client) -> None:
    many = failed(40)
    failed(2, host="gpu-1")
    (other,) = failed(1, error="separation_failed", detail="it took longer than 600 s")
    CoverJob.objects.filter(pk=many[0].pk).update(finished_at=timezone.now() - timedelta(hours=5))
    CoverJob.objects.filter(pk=other.pk).update(finished_at=timezone.now() - timedelta(days=3))
    found = failures.find(job_kinds()[0], "day")
    (group,) = found.groups
    assert (group.error, group.count, group.last_hour) == ("inference_failed", 42, 41)
    assert group.cause == "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate # GiB"
    assert [(host["name"], host["count"]) for host in group.hosts] == [("gpu-2", 40), ("gpu-1", 2)]
    assert group.first is not None and group.last is not None
    assert timedelta(hours=4.9) < group.last - group.first < timedelta(hours=5.1)
    assert group.an_hour == pytest.approx(42 / 5, abs=0.2)
    assert [g.error for g in failures.find(job_kinds()[0], "week").groups] == ["inference_failed", "separation_failed"]
    html = operator.get(reverse("admin:failures")).content.decode()
    assert (
        "CUDA out of memory. Tried to allocate # GiB" in html and ">42</a>" in html and "separation_failed" not in html
    )
    # The links lead to lists of just these.
    for host in group.hosts:
        listed = operator.get(host["url"]).context["cl"]
        assert (listed.result_count, {job.host for job in listed.result_list}) == (host["count"], {host["name"]})


def test_failures_are_found_by_a_word_of_their_cause_or_code_in_any_case(operator: Client) -> None:
    memory = failed(3)
    disk = failed(1, detail="OSError: [Errno 28] No space left on device", error="separation_failed")
    for words, wanted in (("cuda OUT of", memory), ("SPACE LEFT", disk), ("inference_f", memory), ("no such", [])):
        listed = operator.get(reverse(LIST), {"q": words}).context["cl"].result_list
        assert {job.pk for job in listed} == {job.pk for job in wanted}, words


def test_all_of_one_cause_are_tried_again_after_a_question_in_words(operator: Client) -> None:
    mine = failed(60)
    (other,) = failed(1, detail="it was killed by signal 9")
    (group, _other) = failures.find(job_kinds()[0], "day").groups
    page = operator.get(reverse("admin:failures")).content.decode()
    (shown,) = (part for part in page.split("<tr>") if "CUDA out of memory" in part)
    form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', shown))
    form.pop("csrfmiddlewaretoken", None)
    asked = operator.post(group.retry_url, form).content.decode()
    assert "Try 60 jobs again?" in asked
    assert (
        re.search(r"error: <b>inference_failed</b>", asked)
        and "CUDA out of memory" in asked
        and "last 24 hours" in asked
    )
    assert str(mine[0].pk) not in asked
    assert CoverJob.objects.filter(status="queued").count() == 0
    passed_on = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', asked))
    passed_on.pop("csrfmiddlewaretoken", None)
    done = operator.post(group.retry_url, passed_on, follow=True).content.decode()
    assert "60 queued again." in done, re.findall(r"\d+ (?:are|cannot|queued)[^<]*", done)
    # It was asked for from the page of failures, which goes on with what is left.
    assert "it was killed by signal 9" in done and "CUDA out of memory" not in done
    assert CoverJob.objects.filter(status="queued", cause="", error_detail="").count() == 60
    other.refresh_from_db()
    assert (other.status, other.cause) == ("failed", "it was killed by signal 9")
    assert AuditEntry.objects.filter(action="job.retry").count() == 60


def test_what_takes_too_long_stops_and_says_how_many_are_left(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed(3)
    monkeypatch.setattr(job_actions, "PATIENCE_SECONDS", -1.0)
    form = {
        "action": "retry_jobs",
        "select_across": "1",
        "_selected_action": CoverJob.objects.all()[0].pk,
        "confirmed": "1",
    }
    html = operator.post(f"{reverse(LIST)}?error=inference_failed", form, follow=True).content.decode()
    assert "3 are left, since this took long. Ask again." in html
    assert CoverJob.objects.filter(status="failed").count() == 3


def test_a_full_quota_is_told_once_a_tenant_and_not_once_a_job(operator: Client) -> None:
    user = User.objects.create_user("full")
    jobs = failed(5, tenant=user, duration_seconds=100.0)
    Tenant.objects.update_or_create(user=user, defaults={"monthly_audio_seconds": 1})
    form = {"action": "retry_jobs", "_selected_action": [job.pk for job in jobs], "confirmed": "1"}
    html = operator.post(reverse(LIST), form, follow=True).content.decode()
    assert html.count("full: ") == 1 and "(5)" in html, re.findall(r"\d+ (?:are|cannot|queued)[^<]*", html)
    assert "5 cannot be tried again." in html


def test_who_may_only_look_sees_the_groups_and_retries_nothing() -> None:
    user = User.objects.create_user("viewer", is_staff=True)
    user.groups.add(Group.objects.get(name=VIEWER))
    client = Client()
    client.force_login(user)
    failed(1)
    html = client.get(reverse("admin:failures")).content.decode()
    assert "CUDA out of memory" in html and "Retry all" not in html
    nobody = Client()
    nobody.force_login(User.objects.create_user("nobody", is_staff=True))
    assert nobody.get(reverse("admin:failures")).status_code == 403


def test_a_cause_is_hostile_text_like_any_other(operator: Client) -> None:
    failed(1, host="<i>h</i>", detail="it exited with status 1\nError: <script>alert(1)</script> \u202eabc 🎤")
    html = operator.get(reverse("admin:failures")).content.decode()
    assert "<script>alert(1)" not in html and "<i>h" not in html and "&lt;script&gt;alert(" in html
    (group,) = failures.find(job_kinds()[0], "day").groups
    assert operator.get(group.url).context["cl"].result_count == 1
    assert operator.get(f"{reverse(LIST)}?cause=%00").status_code == 200
    assert operator.get(f"{reverse('admin:failures')}?period=nonsense").status_code == 200


def test_a_retried_job_has_its_files_and_no_cause(operator: Client) -> None:
    (job,) = failed(1)
    job.song.save("covers/x/song", ContentFile(b"x"), save=False)
    assert job.retry() and job.cause == ""


def test_the_dashboard_tells_in_one_look_what_fails_and_where(operator: Client) -> None:
    assert "console-failing" not in operator.get(reverse("admin:dashboard")).content.decode()
    WorkerHost.objects.create(name="gpu-2", seen_at=timezone.now())
    failed(6)
    failed(2, host="gpu-1", detail="OSError: <b>No space left</b> on device", error="separation_failed")
    old = failed(1, host="gpu-3")
    CoverJob.objects.filter(pk=old[0].pk).update(finished_at=timezone.now() - timedelta(hours=2))
    html = operator.get(reverse("admin:dashboard")).content.decode()
    card = html.partition("console-failing")[2].partition("</section>")[0]
    first, second = card.split("<li>")[1:]
    assert "<b>6</b>" in first and "CUDA out of memory" in first and "gpu-2" in first
    assert "OSError: &lt;b&gt;No space left" in second
    assert "gpu-3" not in card
    host = html.partition('class="console-host"')[2]
    assert "gpu-2" in host and "6 failed in the last hour" in host
    # The first link leads to a list of just these.
    (url, *_) = re.findall(r'href="([^"]+)"', first)
    assert operator.get(url.replace("&amp;", "&")).context["cl"].result_count == 6


def test_the_dashboard_reads_no_more_failures_than_it_says(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "GLANCED", 3)
    for number in range(5):
        failed(1, detail=f"Error{'abcde'[number]}: one of its own")
    found = failures.lately()
    assert found is not None
    assert (len(found["groups"]), found["others"]) == (3, 0)
