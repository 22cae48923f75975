"""The console's pages for tenants' limits, for the hosts that work, and for webhooks."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from voiceproject import blocking, webhooks
from voiceproject.jobs import Job, JobStatus
from voiceproject.models import Tenant, WebhookDelivery, WorkerHost

HEARD_LATELY_SECONDS = 30


@admin.register(Tenant)
class TenantAdmin(admin.ModelAdmin):
    list_display = ("user", "max_running", "max_queued", "served_at")
    search_fields = ("user__username",)
    list_select_related = ("user",)
    autocomplete_fields = ("user",)
    actions = ("block", "unblock")
    # Not the secrets of its webhooks.
    fields = ("user", "max_running", "max_queued", "requests_per_minute", "monthly_audio_seconds",
              "max_storage_bytes", "served_at", "synthesis_served_at")  # fmt: skip
    readonly_fields = ("served_at", "synthesis_served_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Tenant | None = None) -> tuple[str, ...]:
        return ("user", *self.readonly_fields) if obj else self.readonly_fields

    def save_model(self, request: HttpRequest, obj: Tenant, form: Any, change: bool) -> None:
        # Only what was changed: a worker may have served the tenant since the page was opened.
        obj.save(update_fields=form.changed_data if change else None)

    def has_delete_permission(self, request: HttpRequest, obj: Tenant | None = None) -> bool:
        return False  # It goes with its user.

    @admin.action(description="Block the selected tenants and cancel what runs", permissions=["change"])
    def block(self, request: HttpRequest, queryset: QuerySet[Tenant]) -> None:
        # Nobody locks operators out of the console here, least of all themselves.
        tenants = [tenant for tenant in queryset if not (tenant.user.is_staff or tenant.user.is_superuser)]
        blocked = sum(blocking.block(tenant.user, request) for tenant in tenants)
        messages.success(request, f"{blocked} tenants blocked.")
        if blocked < len(queryset):
            messages.warning(request, f"{len(queryset) - blocked} are blocked already, or are staff.")

    @admin.action(description="Unblock the selected tenants", permissions=["change"])
    def unblock(self, request: HttpRequest, queryset: QuerySet[Tenant]) -> None:
        unblocked = sum(blocking.unblock(tenant.user, request) for tenant in queryset)
        messages.success(request, f"{unblocked} tenants unblocked.")


@admin.register(WorkerHost)
class WorkerHostAdmin(admin.ModelAdmin):
    list_display = ("name", "state", "works_on", "seen_at")
    list_filter = ("draining",)
    search_fields = ("name",)
    actions = ("drain", "undrain")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # A host makes its row itself.

    def has_change_permission(self, request: HttpRequest, obj: WorkerHost | None = None) -> bool:
        return obj is None and super().has_change_permission(request)  # for the actions

    @admin.display(description="state", ordering="draining")
    def state(self, host: WorkerHost) -> str:
        if host.seen_at is None or (timezone.now() - host.seen_at).total_seconds() > HEARD_LATELY_SECONDS:
            return "silent"
        return "draining" if host.draining else "works"

    @admin.display(description="works on")
    def works_on(self, host: WorkerHost) -> SafeString | str:
        """Each running job with its worker and stage."""
        jobs = [
            (reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[job.pk]), job)
            for model in Job.__subclasses__()
            for job in model.objects.filter(host=host.name, status=JobStatus.RUNNING).order_by("worker")  # type: ignore[attr-defined]
        ]
        rows = [
            (format_html('<a href="{}">{}</a>', url, str(job.pk)[:8]), job.stage, job.progress, job.worker)
            for url, job in jobs
        ]
        return format_html_join("", "<div>{} {} {}&nbsp;% <small>{}</small></div>", rows) or "nothing"

    @admin.action(description="Drain: start no more jobs on the selected hosts", permissions=["change"])
    def drain(self, request: HttpRequest, queryset: QuerySet[WorkerHost]) -> None:
        messages.success(request, f"{queryset.update(draining=True)} hosts take no more jobs.")

    @admin.action(description="Let the selected hosts take jobs again", permissions=["change"])
    def undrain(self, request: HttpRequest, queryset: QuerySet[WorkerHost]) -> None:
        messages.success(request, f"{queryset.update(draining=False)} hosts take jobs again.")


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(admin.ModelAdmin):
    """A log: it is read here, and what is in it can be sent again."""

    list_display = ("type", "tenant", "status", "attempts", "last_status", "last_error", "next_attempt_at",
                    "created_at")  # fmt: skip
    list_filter = ("status", "type", "created_at")
    list_select_related = ("tenant",)
    search_fields = ("id", "job_id", "tenant__username")
    list_per_page = 50
    show_full_result_count = False
    actions = ("redeliver",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # For the action alone: saving a page would write the whole row back, claims included.
        return obj is None and super().has_change_permission(request)

    @admin.action(description="Send the selected webhooks again", permissions=["change"])
    def redeliver(self, request: HttpRequest, queryset: QuerySet[WebhookDelivery]) -> None:
        deliveries = list(queryset)
        sent = sum(webhooks.redeliver(delivery) for delivery in deliveries)
        messages.success(request, f"{sent} webhooks will be sent again.")
        if sent < len(deliveries):
            messages.warning(request, f"{len(deliveries) - sent} are being sent this moment.")
