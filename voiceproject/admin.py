"""The console's page for webhooks."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from voiceproject import webhooks
from voiceproject.models import WebhookDelivery


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
