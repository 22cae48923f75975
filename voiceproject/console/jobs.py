"""The console's lists of jobs, the search in them, and the page of one job."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.db.models import JSONField, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import get_language, gettext
from django.utils.translation import gettext_lazy as _

from voiceproject.commands.telling import telling_line
from voiceproject.console.audio import AudioAdmin
from voiceproject.console.base import utc
from voiceproject.console.filters import (
    CauseFilter,
    ErrorFilter,
    FailedOnFilter,
    RunningOnFilter,
    since_filter,
)
from voiceproject.console.job_actions import JobActionsAdmin
from voiceproject.console.tags import duration
from voiceproject.console.timeline import spans, stage_label
from voiceproject.jobs.job import Job
from voiceproject.jobs.status import ERROR_MESSAGES, LIVE, JobStatus

MOST_FOUND = 500  # jobs, by a search for words
TENANTS_FOUND = 10
CAUSES = 2000  # that are known to a search for words; there are few, since numbers are not part of them
NEWEST = 10_000  # jobs whose song's name or text is looked at


def find_jobs(queryset: QuerySet, words: str) -> QuerySet:
    """Jobs by any prefix of their id or request id, of a tenant's name, of a key, or by words of a song's name, of a
    text or of why they failed.

    Each by an index: a search for a part of any text would read the whole table. Names of songs and texts have none,
    so those of the newest jobs are read; of tenants whose names only begin so, their newest jobs are found.
    """
    words = words.strip()
    digits = words.replace("-", "").lower()
    model = queryset.model
    if words.startswith("vck_"):
        keys = model._meta.get_field("api_key").related_model.objects
        return queryset.filter(api_key__in=list(keys.filter(prefix__startswith=words[:12]).values_list("pk")[:100]))
    user = User.objects.filter(username=words).first()
    if user is not None:
        return queryset.filter(tenant=user)
    if re.fullmatch(r"[0-9a-f]{4,32}", digits):
        first, last = uuid.UUID(digits.ljust(32, "0")), uuid.UUID(digits.ljust(32, "f"))
        found = queryset.filter(pk__range=(first, last))
        if found.exists():
            return found
    return queryset.filter(pk__in=_found_by_words(queryset.order_by(), words))


def _found_by_words(queryset: QuerySet, words: str) -> list[Any]:
    """The primary keys of jobs, MOST_FOUND at most."""
    # In steps: planners have read all jobs in their order, looking for one request id.
    model = queryset.model
    named = model.objects.filter(_begins("request_id", words)).order_by().values_list("pk", flat=True)
    found = dict.fromkeys(named[:50])
    users = User.objects.filter(username__istartswith=words).order_by("username")[:TENANTS_FOUND]
    for user in users:
        newest = queryset.filter(tenant=user).order_by("-created_at", "-pk").values_list("pk", flat=True)
        found |= dict.fromkeys(newest[: MOST_FOUND // TENANTS_FOUND])
    part = words.casefold()
    codes = [code for code in ERROR_MESSAGES if part in code]
    causes = [cause for cause in known_causes(model) if part in cause.casefold()]
    if codes or causes:
        failed = queryset.exclude(error="").filter(Q(cause__in=causes) | Q(error__in=codes))
        found |= dict.fromkeys(failed.values_list("pk", flat=True)[:MOST_FOUND])
    if model.searched_fields:
        oldest = queryset.order_by("-created_at", "-pk").values_list("created_at", flat=True)[NEWEST : NEWEST + 1]
        newest = queryset.filter(reduce(or_, (Q(**{f"{name}__icontains": words}) for name in model.searched_fields)))
        for moment in oldest:
            newest = newest.filter(created_at__gt=moment)
        found |= dict.fromkeys(newest.order_by("-created_at", "-pk").values_list("pk", flat=True)[:MOST_FOUND])
    return list(found)[:MOST_FOUND]


def known_causes(model: Any) -> list[str]:
    """The causes that failed jobs have, CAUSES at most; each is one step in their index, however many have it."""
    quoted = connection.ops.quote_name
    table, cause, error = quoted(model._meta.db_table), quoted("cause"), quoted("error")
    # The partial index is used where its condition is said in its own words.
    least = f"SELECT MIN({cause}) FROM {table} WHERE NOT ({error} = '') AND {cause} > "
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH RECURSIVE known(cause) AS ({least} '' UNION ALL SELECT ({least} known.cause) FROM known "
            f"WHERE known.cause IS NOT NULL) SELECT cause FROM known WHERE cause IS NOT NULL LIMIT {CAUSES}"
        )
        return [cause for (cause,) in cursor.fetchall()]


def _begins(field: str, words: str) -> Q:
    """That a field begins so, by its index: SQLite's LIKE uses none, and PostgreSQL orders texts by a language."""
    if connection.vendor == "postgresql":
        return Q(**{f"{field}__startswith": words})
    return Q(**{f"{field}__gte": words, f"{field}__lt": words + "\U0010ffff"})


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


@dataclass(frozen=True)
class Fact:
    """One line of what a job is about. wide: a text that takes the whole width."""

    label: Any
    value: Any
    url: str = ""
    wide: bool = False


class JobAdmin(JobActionsAdmin, AudioAdmin):
    """Jobs are looked at, listened to and acted upon here, never edited: their state belongs to `Job`."""

    sortable_by = ("created",)  # An index is read from either end.
    search_fields = ("id",)  # shows the field; what is found is in get_search_results
    search_help_text = _("Beginning of an id, a request id, a tenant, a key; a song; an error")
    list_filter = (
        "status", ErrorFilter, CauseFilter, FailedOnFilter,
        # When it failed may be long after it was submitted.
        since_filter("finished_at", "failed_since", _("failed in"), failed=True),
        RunningOnFilter, since_filter("created_at"),
    )  # fmt: skip
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

    @admin.display(description=_("title"))
    def short_title(self, job: Job) -> str:
        return Truncator(job.shown_title).chars(60)

    @admin.display(description=_("length"))
    def length(self, job: Any) -> str:
        return "" if job.duration_seconds is None else duration(job.duration_seconds)

    created = utc("created_at", _("created (UTC)"))

    @admin.display(description=_("status"))
    def badge(self, job: Job) -> SafeString:
        return format_html('<span class="console-badge is-{}">{}</span>', job.status, job.get_status_display())  # type: ignore[attr-defined]

    @admin.display(description=_("stage"))
    def stage_name(self, job: Job) -> SafeString:
        """Where it is, or where it ended; how far it is while it runs."""
        stage = format_html('<span class="console-word">{}</span>', stage_label(job.stage))
        if job.status != JobStatus.RUNNING:
            return stage
        bar = format_html('<progress max="100" value="{}"></progress> {}&nbsp;%', job.progress, job.progress)
        return format_html('{} <span class="console-word">{}</span>', stage, bar)

    # --- the page of one job ---

    def get_urls(self) -> list[Any]:
        name = f"{self.model._meta.app_label}_{self.model._meta.model_name}_live"
        return [path("<uuid:pk>/live/", self.admin_site.admin_view(self.live), name=name), *super().get_urls()]

    def facts(self, job: Any) -> list[Fact]:
        """What matters of a job of this kind, first: what it is made of and how."""
        return []

    def live_context(self, request: HttpRequest, job: Any) -> dict[str, Any]:
        may_act = self.has_change_permission(request)
        over = job.status in (JobStatus.FAILED, JobStatus.CANCELED)
        meta = self.model._meta
        ended = job.finished_at or timezone.now()
        return {
            "job": job,
            "facts": [fact for fact in self.facts(job) if fact.value not in ("", None)],
            "is_live": job.status in LIVE,
            "live_url": reverse(f"admin:{meta.app_label}_{meta.model_name}_live", args=[job.pk]),
            "waited": max(0.0, ((job.started_at or ended) - job.created_at).total_seconds()),
            "took": (ended - job.started_at).total_seconds() if job.started_at else None,
            "spans": spans(job),
            "changelist": reverse(f"admin:{meta.app_label}_{meta.model_name}_changelist"),
            "may_cancel": may_act and job.status in LIVE,
            "may_requeue": may_act and job.status == JobStatus.RUNNING and job.resumable,
            "may_retry": may_act and over and job.retryable,
            # Of a canceled one nothing is kept that could be kept or not.
            "stages": [(name, stage_label(name)) for name in self.stages] if job.status == JobStatus.FAILED else [],
            "stage": stage_label(job.stage),
            "error_words": error_words(job),
            # With the numbers that its group of failures goes without.
            "cause": telling_line(job.error_detail) or job.cause if job.error else "",
            "warning_words": warning_words(job),
            "key_link": request.user.has_perm("voices.view_apikey"),
            "tenant_link": request.user.has_perm("voiceproject.view_tenant"),
            "host_link": request.user.has_perm("voiceproject.view_workerhost"),
        }

    def live(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        """The upper part of a job's page as it is now; the page asks for it while the job lives."""
        job = self.model.objects.select_related("tenant", "api_key").filter(pk=pk).first()
        if not self.has_view_permission(request, job):
            raise PermissionDenied
        if job is None:
            raise Http404
        context = self.live_context(request, job)
        response = TemplateResponse(request, "voiceproject/console/job_live.html", context)
        response["Cache-Control"] = "no-store"
        return response

    def change_view(self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None) -> Any:
        try:
            job = self.model.objects.select_related("tenant", "api_key").filter(pk=uuid.UUID(object_id)).first()
        except ValueError:
            job = None
        if job is None or not self.has_view_permission(request, job):
            return super().change_view(request, object_id, form_url, extra_context)
        context = {**self.live_context(request, job), "audio": self.audio_of(job), "is_audible": bool(self.players)}
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})
