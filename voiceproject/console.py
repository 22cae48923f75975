"""What the console's pages for jobs share: read-only fields, players for staff, cancel and retry."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ActionForm
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.urls import path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from voiceproject.api import file_response
from voiceproject.errors import PublicError, json_response
from voiceproject.jobs import LIVE, Job
from voiceproject.storage import read_blocks

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


def _content_type(head: bytes) -> str:
    return next((type_ for place, magic, type_ in _MAGIC if head[place:].startswith(magic)), "audio/mpeg")


class PriorityForm(ActionForm):
    priority = forms.IntegerField(
        required=False, min_value=-1000, max_value=1000, widget=forms.NumberInput(attrs={"style": "width: 5em"})
    )


class JobAdmin(admin.ModelAdmin):
    """Jobs are looked at, listened to and acted upon here, never edited: their state belongs to jobs.py."""

    players: tuple[str, ...] = ()
    search_fields = ("id", "tenant__username", "request_id")
    list_select_related = ("tenant",)
    list_per_page = 50
    date_hierarchy = "created_at"
    show_full_result_count = False
    actions = ("cancel_jobs", "retry_jobs", "prioritize_jobs")
    action_form = PriorityForm

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        files = set(self.model.file_fields())
        names = [field.name for field in self.model._meta.fields if field.name not in files]
        return ["listen", *names]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        return self.get_fields(request, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # Deleting rows in bulk would leave their files and their running commands behind.
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # For the actions alone: saving the page of one job would write its whole row back, state included.
        return obj is None and super().has_change_permission(request)

    @admin.display(description="id", ordering="id")
    def short_id(self, job: Job) -> str:
        return str(job.pk)[:8]  # All of it is on the job's own page; here it would take the room of four columns.

    @admin.display(description="length", ordering="duration_seconds")
    def length(self, job: Any) -> str:
        return "" if job.duration_seconds is None else f"{job.duration_seconds:.1f} s"

    @admin.display(description="listen")
    def listen(self, job: Job) -> SafeString | str:
        rows = [
            (name.replace("_", " "), reverse(f"admin:{self._url_name}", args=[job.pk, name]))
            for name in self.players
            if getattr(job, name)
        ]
        if not rows:
            return "nothing to hear yet"
        return format_html_join("", '<p>{}<br><audio controls preload="none" src="{}"></audio></p>', rows)

    # --- files for staff, by session ---

    @property
    def _url_name(self) -> str:
        return f"{self.model._meta.app_label}_{self.model._meta.model_name}_file"

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.serve_file)
        return [path("<uuid:pk>/files/<str:name>", view, name=self._url_name), *super().get_urls()]

    def serve_file(self, request: HttpRequest, pk: str, name: str) -> HttpResponseBase:
        job = self.model.objects.filter(pk=pk).first()
        if job is None or name not in self.players or not getattr(job, name):
            raise Http404
        if not self.has_view_permission(request, job):
            raise PermissionDenied
        stored = getattr(job, name)
        try:
            content_type = _content_type(b"".join(read_blocks(stored.storage, stored.name, 0, 64)))
        except FileNotFoundError:
            raise Http404 from None
        try:
            return file_response(request, stored, content_type=content_type, filename=f"{pk}-{name}")
        except PublicError as error:
            return json_response(error)

    # --- actions ---

    @admin.action(description="Cancel the selected jobs", permissions=["change"])
    def cancel_jobs(self, request: HttpRequest, queryset: QuerySet) -> None:
        jobs = list(queryset)
        canceled = sum(job.cancel() for job in jobs)
        messages.success(request, f"{canceled} jobs canceled.")
        if canceled < len(jobs):
            messages.warning(request, f"{len(jobs) - canceled} had ended already.")

    @admin.action(description="Retry the selected failed or canceled jobs", permissions=["change"])
    def retry_jobs(self, request: HttpRequest, queryset: QuerySet) -> None:
        jobs = list(queryset)
        retried = 0
        for job in jobs:
            try:
                retried += job.resumable and not job.files_expired and job.retry()
            except PublicError as error:
                messages.error(request, f"{job.tenant}: {error.message}")
        messages.success(request, f"{retried} jobs queued again.")
        if retried < len(jobs):
            messages.warning(request, f"{len(jobs) - retried} cannot be tried again.")

    @admin.action(description="Give the selected queued jobs the priority", permissions=["change"])
    def prioritize_jobs(self, request: HttpRequest, queryset: QuerySet) -> None:
        form = PriorityForm(request.POST, auto_id=False)
        form.fields["action"].choices = [("prioritize_jobs", "")]  # type: ignore[attr-defined]
        priority = form.cleaned_data["priority"] if form.is_valid() else None
        if priority is None:
            messages.error(request, "Write a priority from -1000 to 1000; higher goes first, 0 is usual.")
            return
        jobs = list(queryset)
        moved = sum(job.prioritize(priority) for job in jobs)
        messages.success(request, f"{moved} jobs have priority {priority} now.")
        if moved < len(jobs):
            messages.warning(request, f"{len(jobs) - moved} do not wait any more.")

    @admin.display(description="progress", ordering="progress")
    def progress_bar(self, job: Job) -> SafeString | str:
        if job.status not in LIVE:
            return ""
        return format_html('<progress max="100" value="{}"></progress> {}&nbsp;%', job.progress, job.progress)
