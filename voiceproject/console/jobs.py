"""The console's lists of jobs, the search in them, and the page of one job."""

from __future__ import annotations

import re
import uuid
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import User
from django.db.models import JSONField, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import get_language, gettext
from django.utils.translation import gettext_lazy as _

from voiceproject.console.audio import AudioAdmin
from voiceproject.console.base import utc
from voiceproject.console.filters import ErrorFilter, RunningOnFilter, since_filter
from voiceproject.console.job_actions import JobActionsAdmin
from voiceproject.console.timeline import spans, stage_label
from voiceproject.jobs.job import Job
from voiceproject.jobs.status import ERROR_MESSAGES, LIVE, JobStatus


def find_jobs(queryset: QuerySet, words: str) -> QuerySet:
    """Jobs by their id or its beginning, a request id, the name of a tenant, or the beginning of a key.

    One of them, each by its index: a search for a part of any text would read the whole table.
    """
    words = words.strip()
    digits = words.replace("-", "").lower()
    if words.startswith("vck_"):
        keys = queryset.model._meta.get_field("api_key").related_model.objects
        return queryset.filter(api_key__in=list(keys.filter(prefix__startswith=words[:12]).values_list("pk")[:100]))
    user = User.objects.filter(username=words).first()
    if user is not None:
        return queryset.filter(tenant=user)
    if re.fullmatch(r"[0-9a-f]{4,32}", digits):
        first, last = uuid.UUID(digits.ljust(32, "0")), uuid.UUID(digits.ljust(32, "f"))
        found = queryset.filter(pk__range=(first, last))
        if len(digits) < 32 or found.exists():
            return found
    # In two steps: planners have read all jobs in their order, looking for one request id.
    named = queryset.model.objects.filter(request_id=words).order_by().values_list("pk", flat=True)
    return queryset.filter(pk__in=list(named[:50]))


def error_words(job: Job) -> list[str]:
    """Why a job failed, in the page's language. What was written for this job alone is added as it was written."""
    if not job.error_message:
        return []
    told, usual = gettext(job.error_message), gettext(ERROR_MESSAGES.get(job.error, ""))
    if told != job.error_message or get_language() == settings.LANGUAGE_CODE or not usual:
        return [told]
    return [usual, job.error_message]


def warning_words(job: Job) -> list[str]:
    """What a job that succeeded was warned of, in the page's language where it holds no figures."""
    words = [told["message"] for told in getattr(job, "warnings", [])]
    return [gettext(text) for text in words]


class JobAdmin(JobActionsAdmin, AudioAdmin):
    """Jobs are looked at, listened to and acted upon here, never edited: their state belongs to `Job`."""

    search_fields = ("id",)  # shows the field; what is found is in get_search_results
    search_help_text = _("An id or its beginning, a request id, a tenant, or the beginning of a key")
    list_filter = ("status", ErrorFilter, RunningOnFilter, since_filter("created_at"))
    list_select_related = ("tenant",)
    change_form_outer_before_template = "voiceproject/console/job.html"

    @property
    def audit_name(self) -> str:
        return "job"

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[QuerySet, bool]:
        return (find_jobs(queryset, search_term) if search_term.strip() else queryset), False

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        hidden = {*self.model.file_fields(), "tenant", "api_key", "error_message", "error_detail"}
        # What is JSON would be shown with styles of its own, which the pages' policy forbids.
        fields = [field for field in self.model._meta.fields if not isinstance(field, JSONField)]
        names = [field.name for field in fields if field.name not in hidden]
        return ["stage_name" if name == "stage" else name for name in names]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        return self.get_fields(request, obj)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return ((_("Everything else"), {"fields": self.get_fields(request, obj), "classes": ["collapse"]}),)

    @admin.display(description=_("id"))
    def short_id(self, job: Job) -> str:
        return str(job.pk)[:8]  # All of it is on the job's own page; here it would take the room of four columns.

    @admin.display(description=_("length"))
    def length(self, job: Any) -> str:
        return "" if job.duration_seconds is None else f"{job.duration_seconds:.1f}\N{NO-BREAK SPACE}s"

    created = utc("created_at", _("created (UTC)"))

    @admin.display(description=_("status"))
    def badge(self, job: Job) -> SafeString:
        return format_html('<span class="console-badge is-{}">{}</span>', job.status, job.get_status_display())  # type: ignore[attr-defined]

    @admin.display(description=_("stage"))
    def stage_name(self, job: Job) -> SafeString:
        return format_html('<span class="console-word">{}</span>', stage_label(job.stage))

    @admin.display(description=_("progress"))
    def progress_bar(self, job: Job) -> SafeString | str:
        if job.status != JobStatus.RUNNING:
            return ""
        return format_html('<progress max="100" value="{}"></progress> {}&nbsp;%', job.progress, job.progress)

    # --- the page of one job ---

    def change_view(self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None) -> Any:
        try:
            job = self.model.objects.select_related("tenant", "api_key").filter(pk=uuid.UUID(object_id)).first()
        except ValueError:
            job = None
        if job is None or not self.has_view_permission(request, job):
            return super().change_view(request, object_id, form_url, extra_context)
        may_act = self.has_change_permission(request)
        over = job.status in (JobStatus.FAILED, JobStatus.CANCELED)
        context = {
            "job": job,
            "spans": spans(job),
            "audio": self.audio_of(job),
            "changelist": reverse(f"admin:{self.model._meta.app_label}_{self.model._meta.model_name}_changelist"),
            "may_cancel": may_act and job.status in LIVE,
            "may_requeue": may_act and job.status == JobStatus.RUNNING and job.resumable,
            "may_retry": may_act and over and job.retryable,
            # Of a canceled one nothing is kept that could be kept or not.
            "stages": [(name, stage_label(name)) for name in self.stages] if job.status == JobStatus.FAILED else [],
            "error_words": error_words(job),
            "warning_words": warning_words(job),
            "key_link": request.user.has_perm("voices.view_apikey"),
            "tenant_link": request.user.has_perm("auth.view_user"),
        }
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})
