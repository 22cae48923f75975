"""What an operator may do to jobs from a list or from the page of one: cancel, retry, requeue, prioritize."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from unfold.forms import ActionForm
from unfold.widgets import UnfoldAdminIntegerFieldWidget

from voiceproject.console.base import MOST_AT_ONCE, LogAdmin, confirmed, told
from voiceproject.errors import PublicError
from voiceproject.jobs.job import Job

PATIENCE_SECONDS = 20.0  # of whoever waits for an action on many jobs; proxies have less than a minute


class JobActionForm(ActionForm):
    priority = forms.IntegerField(
        label=_("Priority"),
        required=False,
        min_value=-1000,
        max_value=1000,
        widget=UnfoldAdminIntegerFieldWidget(attrs={"class": "console-priority"}),
    )


class JobActionsAdmin(LogAdmin):
    """The actions are transitions of `Job`, and each job that one changes is an entry of the audit log."""

    stages: tuple[str, ...] = ()  # Where a retry may begin.
    actions = ("cancel_jobs", "retry_jobs", "requeue_jobs", "prioritize_jobs")
    action_form = JobActionForm
    list_disable_select_all = False

    @admin.action(description=_("Cancel the selected jobs"), permissions=["change"])
    @confirmed(lambda n: ngettext("Cancel %d job? What it has made is deleted.",
                                  "Cancel %d jobs? What they have made is deleted.", n) % n)  # fmt: skip
    def cancel_jobs(self, request: HttpRequest, jobs: list[Job]) -> None:
        self._each(request, "cancel", jobs, lambda job: job.cancel(), _("%d canceled."), _("%d had ended already."))

    @admin.action(description=_("Retry the selected failed or canceled jobs"), permissions=["change"])
    @confirmed(lambda n: ngettext("Try %d job again?", "Try %d jobs again?", n) % n)
    def retry_jobs(self, request: HttpRequest, jobs: list[Job]) -> None:
        stage = request.POST.get("stage", "")
        stage = stage if stage in self.stages else ""

        def retry(job: Job) -> bool:
            return job.retryable and job.retry(stage)

        details = {"stage": stage} if stage else {}
        self._each(
            request, "retry", jobs, retry, _("%d queued again."), _("%d cannot be tried again."), **details
        )  # fmt: skip

    @admin.action(description=_("Take the selected running jobs from their workers"), permissions=["change"])
    @confirmed(lambda n: ngettext("Stop %d job where it runs, and queue it again?",
                                  "Stop %d jobs where they run, and queue them again?", n) % n)  # fmt: skip
    def requeue_jobs(self, request: HttpRequest, jobs: list[Job]) -> None:
        self._each(request, "requeue", jobs, lambda job: job.requeue(), _("%d queued again."), _("%d did not run."))

    @admin.action(description=_("Give the selected queued jobs the priority"), permissions=["change"])
    def prioritize_jobs(self, request: HttpRequest, queryset: QuerySet) -> None:
        form = JobActionForm(request.POST, auto_id=False)
        form.fields["action"].choices = [("prioritize_jobs", "")]  # type: ignore[attr-defined]
        priority = form.cleaned_data["priority"] if form.is_valid() else None
        if priority is None:
            messages.error(request, _("Write a priority from -1000 to 1000; higher goes first, 0 is usual."))
            return
        self._each(
            request, "prioritize", list(queryset[:MOST_AT_ONCE]), lambda job: job.prioritize(priority),
            _("%d have the priority now."), _("%d do not wait any more."), priority=priority,
        )  # fmt: skip

    def _each(
        self,
        request: HttpRequest,
        verb: str,
        jobs: list[Job],
        change: Callable[[Job], bool],
        done: Any,
        not_done: Any,
        **details: Any,
    ) -> None:
        changed, seen = 0, 0
        over: dict[tuple[str, str], int] = {}
        until = time.monotonic() + PATIENCE_SECONDS
        for job in jobs:
            if time.monotonic() > until:
                break
            seen += 1
            was = str(job.status)
            try:
                happened = change(job)
            except PublicError as error:  # A quota is full.
                key = (str(job.tenant), told(error))
                over[key] = over.get(key, 0) + 1
                continue
            if happened:
                changed += 1
                self.act(request, verb, job, status=was, **details)
        for (tenant, words), count in over.items():  # One line a tenant, and not one a job.
            messages.error(request, f"{tenant}: {words}" + (f" ({count})" if count > 1 else ""))
        if changed:
            messages.success(request, done % changed)
        if missed := seen - changed:
            messages.warning(request, not_done % missed)
        if left := len(jobs) - seen:
            text = ngettext("%d is left, since this took long. Ask again.",
                            "%d are left, since this took long. Ask again.", left)  # fmt: skip
            messages.warning(request, text % left)
