"""What the console's pages share: the audit log behind every change, confirmed actions, and the pages of jobs."""

from __future__ import annotations

import functools
import re
import threading
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import get_language, gettext, ngettext
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin
from unfold.forms import ActionForm
from unfold.paginator import InfinitePaginator
from unfold.widgets import UnfoldAdminIntegerFieldWidget

from voiceproject.commands.scratch import scratch
from voiceproject.errors import PublicError
from voiceproject.jobs.job import Job
from voiceproject.jobs.models import WorkerHost
from voiceproject.jobs.status import ERROR_MESSAGES, LIVE, JobStatus
from voiceproject.media import storage
from voiceproject.media.uploads import Bounds, opened
from voiceproject.tenants import audit
from voiceproject.web.api import file_response
from voiceproject.web.errors import json_response

# Uploads were checked when they came in; here the browser only has to be told what it plays.
_MAGIC = (
    (0, b"RIFF", "audio/wav"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (4, b"ftyp", "audio/mp4"),
    (0, b"\x1aE\xdf\xa3", "audio/webm"),
    (0, b"\xff\xf1", "audio/aac"),
    (0, b"\xff\xf9", "audio/aac"),
)
WAVEFORM_BARS = 240
_waveform_lock = threading.Lock()  # A page asks for six at once; one at a time leaves the machine to its work.


def _content_type(head: bytes) -> str:
    return next((type_ for place, magic, type_ in _MAGIC if head[place:].startswith(magic)), "audio/mpeg")


def _plain(value: Any) -> Any:
    """As JSON can hold it, and no longer than a line."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple | QuerySet):
        return [_plain(item) for item in list(value)[:20]]
    return str(value)[:200]


# Of errors whose own words tell of numbers, so that they stand in no catalogue.
_TOLD = {
    "quota_exceeded": _("A quota of audio or of storage is used up."),
    "conflict": _("That is not possible as things stand."),
    "validation_error": _("What was sent is not valid."),
}


def told(error: PublicError) -> str:
    """What went wrong, for the reader of a page: in the page's language, where the API's own words are English."""
    words = gettext(error.message)
    if words == error.message and get_language() != settings.LANGUAGE_CODE and error.code in _TOLD:
        return str(_TOLD[error.code])
    return words


def utc(field: str, description: Any) -> Callable[[Any, Any], SafeString | str]:
    """A column for a time, to the second: what an operator compares with logs."""

    @admin.display(description=description)
    def shown(self: Any, row: Any) -> SafeString | str:
        value = getattr(row, field)
        return format_html('<span class="console-time">{}</span>', f"{value:%Y-%m-%d %H:%M:%S}") if value else ""

    return shown


def confirmed(question: Callable[[int], str]) -> Callable[[Callable], Callable]:
    """An action on the selected rows that is done only after a page with `question(how many)` was answered.

    Afterwards the page of the job is shown again where the action was asked for there.
    """

    def decorate(action: Callable) -> Callable:
        @functools.wraps(action)
        def ask_first(self: Any, request: HttpRequest, queryset: QuerySet) -> HttpResponseBase | None:
            selected = request.POST.getlist("_selected_action")
            chosen = list(queryset.filter(pk__in=selected))
            if "confirmed" not in request.POST:
                passed_on = [
                    (name, value)
                    for name in request.POST
                    if name not in ("csrfmiddlewaretoken", "select_across", "index")
                    for value in request.POST.getlist(name)
                ]
                context = {
                    **self.admin_site.each_context(request),
                    "title": _("Are you sure?"),
                    "opts": self.model._meta,
                    "question": question(len(chosen)),
                    "chosen": chosen[:100],
                    "passed_on": passed_on,
                }
                return TemplateResponse(request, "voiceproject/console/confirm.html", context)
            action(self, request, chosen)
            if "from_page" in request.POST and len(chosen) == 1:
                return redirect(self.change_url(chosen[0]))
            return None

        return ask_first

    return decorate


class ConsoleAdmin(ModelAdmin):
    """Every change is an entry of the audit log, which stands in for Django's own history of an object."""

    paginator = InfinitePaginator  # Counts nothing: a table may have millions of rows.
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by: Any = ()
    list_per_page = 50
    list_disable_select_all = True
    actions_selection_counter = True

    def act(self, request: HttpRequest, verb: str, target: Model, **details: Any) -> None:
        audit.record(f"{self.audit_name}.{verb}", target, request=request, details=details)

    @property
    def audit_name(self) -> str:
        """What its things are called in the audit log."""
        return str(self.model._meta.model_name)

    def change_url(self, target: Model) -> str:
        return reverse(f"admin:{self.model._meta.app_label}_{self.model._meta.model_name}_change", args=[target.pk])

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        self.act(request, "create", obj, **self._changes(request))

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        self.act(request, "change", obj, **self._changes(request))

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        for target in queryset:
            self.act(request, "delete", target)

    @staticmethod
    def _changes(request: HttpRequest) -> dict[str, Any]:
        return getattr(request, "console_changes", {})

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:
        # For the log: what it was and what it is, but for what is secret.
        request.console_changes = {  # type: ignore[attr-defined]
            name: "changed"
            if "password" in name
            else [None if add else _plain(form.initial.get(name)), _plain(form.cleaned_data.get(name))]
            for name in form.changed_data
        }
        return super().construct_change_message(request, form, formsets, add)

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        query = urlencode({"target_type": self.model._meta.model_name, "target_id": object_id})
        return HttpResponseRedirect(f"{reverse('admin:voiceproject_auditentry_changelist')}?{query}")


class LogAdmin(ConsoleAdmin):
    """Rows that are neither made nor edited nor deleted by hand, also not by a superuser; there may be actions."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # For the actions alone: saving a page would write the whole row back, state and claims included.
        return obj is None and super().has_change_permission(request)


class ErrorFilter(admin.SimpleListFilter):
    title = _("error")
    parameter_name = "error"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(code, code) for code in sorted(ERROR_MESSAGES)]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        if not self.value():
            return queryset
        # The second is what the index is limited to: SQLite uses it only where that is said.
        return queryset.filter(error=self.value()).exclude(error="")


class RunningOnFilter(admin.SimpleListFilter):
    title = _("running on")
    parameter_name = "running_on"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in WorkerHost.objects.order_by("name").values_list("name", flat=True)[:100]]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(status=JobStatus.RUNNING, host=self.value()) if self.value() else queryset


def since_filter(field: str) -> type[admin.SimpleListFilter]:
    """The last hour, day, week, month, by an indexed time."""

    class Since(admin.SimpleListFilter):
        title = _("time")
        parameter_name = "since"
        hours = {"hour": 1, "day": 24, "week": 168, "month": 720}

        def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
            return [
                ("hour", _("last hour")),
                ("day", _("last 24 hours")),
                ("week", _("last 7 days")),
                ("month", _("last 30 days")),
            ]

        def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
            hours = self.hours.get(self.value() or "")
            if hours is None:
                return queryset
            return queryset.filter(**{f"{field}__gt": timezone.now() - timedelta(hours=hours)})

    return Since


def find_jobs(queryset: QuerySet, words: str) -> QuerySet:
    """Jobs by their id or its beginning, a request id, the name of a tenant, or the beginning of a key.

    One of them, each by its index: a search for a part of any text would read the whole table.
    """
    from django.contrib.auth.models import User

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


class JobActionForm(ActionForm):
    priority = forms.IntegerField(
        label=_("Priority"),
        required=False,
        min_value=-1000,
        max_value=1000,
        widget=UnfoldAdminIntegerFieldWidget(attrs={"class": "console-priority"}),
    )


class JobAdmin(LogAdmin):
    """Jobs are looked at, listened to and acted upon here, never edited: their state belongs to jobs.py."""

    players: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    search_fields = ("id",)  # shows the field; what is found is in get_search_results
    search_help_text = _("An id or its beginning, a request id, a tenant, or the beginning of a key")
    list_filter = ("status", ErrorFilter, RunningOnFilter, since_filter("created_at"))
    list_select_related = ("tenant",)
    actions = ("cancel_jobs", "retry_jobs", "requeue_jobs", "prioritize_jobs")
    action_form = JobActionForm
    change_form_outer_before_template = "voiceproject/console/job.html"

    @property
    def audit_name(self) -> str:
        return "job"

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[QuerySet, bool]:
        return (find_jobs(queryset, search_term) if search_term.strip() else queryset), False

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        hidden = {*self.model.file_fields(), "marks", "tenant", "api_key", "error_message", "error_detail"}
        names = [field.name for field in self.model._meta.fields if field.name not in hidden]
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
            "audio": [
                {"label": self.audio_label(name), "url": reverse(f"admin:{self._url_name}", args=[job.pk, name])}
                for name in self.players
                if getattr(job, name)
            ],
            "changelist": reverse(f"admin:{self.model._meta.app_label}_{self.model._meta.model_name}_changelist"),
            "may_cancel": may_act and job.status in LIVE,
            "may_requeue": may_act and job.status == JobStatus.RUNNING and job.resumable,
            "may_retry": may_act and over and job.retryable,
            # Of a canceled one nothing is kept that could be kept or not.
            "stages": [(name, stage_label(name)) for name in self.stages] if job.status == JobStatus.FAILED else [],
            "error_words": error_words(job),
            "key_link": request.user.has_perm("voices.view_apikey"),
            "tenant_link": request.user.has_perm("auth.view_user"),
        }
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    def audio_label(self, name: str) -> Any:
        return {
            "song": _("Song"),
            "reference_voice": _("Reference"),
            "reference_audio": _("Reference"),
            "vocals": _("Vocals"),
            "instrumental": _("Accompaniment"),
            "converted": _("Converted vocals"),
            "result": _("Result"),
            "audio": _("Result"),
        }.get(name, name)

    # --- files for staff, by session ---

    @property
    def _url_name(self) -> str:
        return f"{self.model._meta.app_label}_{self.model._meta.model_name}_file"

    def get_urls(self) -> list[Any]:
        return [
            path("<uuid:pk>/files/<str:name>", self.admin_site.admin_view(self.serve_file), name=self._url_name),
            path(
                "<uuid:pk>/files/<str:name>/waveform",
                self.admin_site.admin_view(self.serve_waveform),
                name=f"{self._url_name}_waveform",
            ),
            *super().get_urls(),
        ]

    def _file(self, request: HttpRequest, pk: Any, name: str) -> tuple[Job, Any]:
        job = self.model.objects.filter(pk=pk).first()
        if not self.has_view_permission(request, job):
            raise PermissionDenied
        if job is None or name not in self.players or not getattr(job, name):
            raise Http404
        return job, getattr(job, name)

    def serve_file(self, request: HttpRequest, pk: Any, name: str) -> HttpResponseBase:
        job, stored = self._file(request, pk, name)
        try:
            content_type = _content_type(b"".join(storage.read_blocks(stored.storage, stored.name, 0, 64)))
        except FileNotFoundError:
            raise Http404 from None
        if request.headers.get("Range", "bytes=0-").startswith("bytes=0-"):
            self.act(request, "listen", job, file=name)  # once, and not for each part that a player asks for
        try:
            return file_response(request, stored, content_type=content_type, filename=f"{pk}-{name}")
        except PublicError as error:
            return json_response(error)

    def serve_waveform(self, request: HttpRequest, pk: Any, name: str) -> HttpResponseBase:
        _job, stored = self._file(request, pk, name)
        try:
            with _waveform_lock, scratch(settings.UPLOAD_DIR, f"waveform-{uuid.uuid4()}") as folder:
                storage.fetch(stored.storage, stored.name, folder / "audio")
                svg = waveform(folder / "audio")
        except (FileNotFoundError, PublicError):
            raise Http404 from None
        # The name of a stored file holds the attempt; its content never changes.
        return HttpResponse(svg, content_type="image/svg+xml", headers={"Cache-Control": "private, max-age=3600"})

    # --- actions ---

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
            request, "prioritize", list(queryset), lambda job: job.prioritize(priority),
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
        changed = 0
        for job in jobs:
            was = str(job.status)
            try:
                happened = change(job)
            except PublicError as error:  # A quota is full.
                messages.error(request, f"{job.tenant}: {told(error)}")
                happened = False
            if happened:
                changed += 1
                self.act(request, verb, job, status=was, **details)
        if changed:
            messages.success(request, done % changed)
        if changed < len(jobs):
            messages.warning(request, not_done % (len(jobs) - changed))


def waveform(file: Any) -> str:
    """An SVG of how loud an audio file is over its length, as bars; read in blocks. Raises PublicError."""
    longest = max(settings.COVER_MAX_DURATION_SECONDS, settings.SYNTHESIS_ASYNC_TIMEOUT_SECONDS)
    peaks: list[float] = []
    with opened(file, Bounds("audio", 0.0, float(longest))) as source:
        step = max(1, source.sample_rate // 20)
        rest = np.zeros(0, np.float32)
        for block in source.blocks:
            loud = np.abs(block).max(axis=1) if block.ndim > 1 else np.abs(block)
            rest = np.concatenate([rest, loud])
            whole = len(rest) // step * step
            peaks += rest[:whole].reshape(-1, step).max(axis=1).tolist()
            rest = rest[whole:]
        if len(rest):
            peaks.append(float(rest.max()))
    places = np.array_split(np.array(peaks), min(WAVEFORM_BARS, len(peaks)))
    top = max(max(peaks), 1e-6)
    heights = [max(1.0, 48 * float(part.max()) / top) for part in places]
    width = WAVEFORM_BARS * 3 / len(heights)
    bars = "".join(
        f'<rect x="{number * width:.2f}" y="{(48 - height) / 2:.1f}" width="{width * 0.67:.2f}" height="{height:.1f}"/>'
        for number, height in enumerate(heights)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WAVEFORM_BARS * 3} 48" preserveAspectRatio="none">'
        f"{bars}</svg>"
    )


STAGE_LABELS = {
    "queued": _("queued"),
    "waiting": _("waiting"),
    "claimed": _("claimed"),
    "preprocess": _("preprocess"),
    "separate": _("separate"),
    "infer": _("infer"),
    "mix": _("mix"),
    "finalize": _("finalize"),
    "succeeded": _("succeeded"),
    "failed": _("failed"),
    "canceled": _("canceled"),
    "handed back": _("handed back at shutdown"),
    "put back": _("put back after an outage"),
    "taken over": _("taken over from a lost worker"),
    "requeued": _("queued again by an operator"),
}


def error_words(job: Job) -> list[str]:
    """Why a job failed, in the page's language. What was written for this job alone is added as it was written."""
    if not job.error_message:
        return []
    told, usual = gettext(job.error_message), gettext(ERROR_MESSAGES.get(job.error, ""))
    if told != job.error_message or get_language() == settings.LANGUAGE_CODE or not usual:
        return [told]
    return [usual, job.error_message]


def stage_label(stage: str) -> Any:
    return STAGE_LABELS.get(stage, stage)


ENDS = ("succeeded", "failed", "canceled", "handed back", "put back", "taken over", "requeued")


def spans(job: Job) -> list[dict[str, Any]]:
    """What the job did when, in order: each with its label, attempt, start, seconds and place on a scale of 0 to 100.

    How an attempt ended has no seconds; what still goes on lasts until now.
    """
    marks: list[dict[str, Any]] = [{"attempt": 0, "stage": "waiting", "at": job.created_at.isoformat()}]
    for mark in job.marks:
        marks.append(mark)
        if mark["stage"] in ("handed back", "put back", "taken over", "requeued"):
            marks.append({"attempt": mark["attempt"], "stage": "waiting", "at": mark["at"]})
    end = job.finished_at or timezone.now()
    times = [datetime.fromisoformat(mark["at"]) for mark in marks] + [end]
    total = max((times[-1] - times[0]).total_seconds(), 1e-3)
    found: list[dict[str, Any]] = []
    host = ""
    for mark, start, until in zip(marks, times, times[1:], strict=False):
        host = "" if mark["stage"] == "waiting" else mark.get("host", host)
        seconds = max(0.0, (until - start).total_seconds())
        if mark["stage"] in ENDS:
            seconds = 0.0
        elif mark["stage"] == "claimed" and seconds < 1:
            continue
        found.append(
            {
                "stage": mark["stage"],
                "label": stage_label(mark["stage"]),
                "attempt": mark["attempt"] or "",
                "host": host,
                "start": start,
                "seconds": None if mark["stage"] in ENDS else seconds,
                "x": f"{100 * (start - times[0]).total_seconds() / total:.2f}",
                "width": f"{max(0.4, 100 * seconds / total):.2f}",
                "kind": mark["stage"].split()[0],
            }
        )
    return found
