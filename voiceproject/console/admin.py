"""The console's pages for users, tenants' limits, hosts, webhooks, and the audit log."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from voiceproject.console import panels
from voiceproject.console.base import ConsoleAdmin, LogAdmin, confirmed, utc
from voiceproject.console.filters import since_filter
from voiceproject.console.numbers import host_state
from voiceproject.console.pages import tenant as tenant_page
from voiceproject.console.timeline import stage_label
from voiceproject.jobs import suspension
from voiceproject.jobs.models import WorkerHost
from voiceproject.jobs.status import JobStatus
from voiceproject.registry import registry
from voiceproject.tenants import audit
from voiceproject.tenants.models import AuditEntry, Tenant
from voiceproject.tenants.roles import LABELS, ROLES
from voiceproject.webhooks import deliveries
from voiceproject.webhooks.models import WebhookDelivery


def role_label(group: Group) -> str:
    return str(LABELS.get(group.name, group.name))


admin.site.unregister(User)
admin.site.unregister(Group)  # Roles are the product's own: voiceproject.tenants.roles.


@admin.register(User)
class ConsoleUserAdmin(UserAdmin, ConsoleAdmin):
    """Whoever is no superuser makes none, changes none, and gives roles only."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "is_active", "is_staff", "role_names", "last_login")
    list_filter = ("is_active", "is_staff", "is_superuser")
    search_fields = ("username__startswith", "email")
    search_help_text = _("The beginning of a name, or an e-mail address")
    ordering = ("username",)
    filter_horizontal = ()
    readonly_fields = ("is_staff", "last_login", "date_joined")  # Staff is who has a role: voiceproject.tenants.roles.

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        return super().get_queryset(request).prefetch_related("groups")

    @admin.display(description=_("roles"))
    def role_names(self, user: User) -> str:
        return _("superuser") if user.is_superuser else ", ".join(role_label(group) for group in user.groups.all())  # type: ignore[return-value]

    def get_fieldsets(self, request: HttpRequest, obj: User | None = None) -> Any:
        if obj is None:
            return super().get_fieldsets(request, obj)
        rights = ["is_active", "is_staff", "groups"]
        if request.user.is_superuser:
            rights.append("is_superuser")
        return (
            (None, {"fields": ("username", "password", "email")}),
            (_("Permissions"), {"fields": rights}),
            (_("Times"), {"fields": ("last_login", "date_joined")}),
        )

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        obj.is_staff = obj.is_staff or obj.is_superuser
        super().save_model(request, obj, form, change)

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "groups":
            kwargs["queryset"] = Group.objects.filter(name__in=ROLES).order_by("pk")
        field: Any = super().formfield_for_manytomany(db_field, request, **kwargs)
        if db_field.name == "groups":
            field.label, field.help_text = _("Roles"), _("Each may do what those before it may.")
            field.label_from_instance = role_label
        return field

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        if obj is not None and obj.is_superuser and not request.user.is_superuser:
            return False  # Also not its password.
        return super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return False  # Its jobs would go with it, and leave their files; an inactive one can do nothing.

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return ConsoleAdmin.lookup_allowed(self, lookup, value, request)  # not what UserAdmin lets pass


@admin.register(Tenant)
class TenantAdmin(ConsoleAdmin):
    list_display = (
        "user",
        "state",
        "max_running",
        "max_queued",
        "requests_per_minute",
        "monthly_audio_seconds",
        "served",
    )
    served = utc("served_at", _("last cover taken (UTC)"))
    search_fields = ("user__username__startswith",)
    search_help_text = _("The beginning of a name")
    list_select_related = ("user",)
    autocomplete_fields = ("user",)
    actions = ("block", "unblock")
    ordering = ("user__username",)
    # Not the secrets of its webhooks.
    fields = ("user", "max_running", "max_queued", "requests_per_minute", "monthly_audio_seconds",
              "max_storage_bytes", "served_at", "synthesis_served_at")  # fmt: skip
    readonly_fields = ("served_at", "synthesis_served_at")
    change_form_outer_before_template = "voiceproject/console/tenant.html"
    # What an empty field stands for.
    DEFAULTS = ("COVER_MAX_RUNNING", "COVER_MAX_QUEUED", "RATE_LIMIT_PER_MINUTE", "MONTHLY_AUDIO_SECONDS",
                "MAX_STORAGE_BYTES")  # fmt: skip

    @admin.display(description=_("state"))
    def state(self, tenant: Tenant) -> SafeString | str:
        if tenant.erase_requested_at is not None:
            return format_html('<span class="console-badge is-failed">{}</span>', _("being erased"))
        if not tenant.user.is_active:
            return format_html('<span class="console-badge is-failed">{}</span>', _("blocked"))
        return ""

    def change_view(self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None) -> Any:
        tenant = self.get_object(request, object_id)
        about = (
            tenant_page.about(tenant, request.user) if tenant and self.has_view_permission(request, tenant) else None
        )
        context = {"about": about, "may_change": self.has_change_permission(request), **(extra_context or {})}
        return super().change_view(request, object_id, form_url, context)

    def get_fieldsets(self, request: HttpRequest, obj: Tenant | None = None) -> Any:
        values = ", ".join(f"<code>{name}={getattr(settings, name)}</code>" for name in self.DEFAULTS)
        text = _("An empty field stands for what every tenant has by the environment, where 0 is no limit: %s") % values
        return [(None, {"fields": self.fields, "description": text})]

    def get_readonly_fields(self, request: HttpRequest, obj: Tenant | None = None) -> tuple[str, ...]:
        return ("user", *self.readonly_fields) if obj else self.readonly_fields

    def save_model(self, request: HttpRequest, obj: Tenant, form: Any, change: bool) -> None:
        # Only what was changed: a worker may have served the tenant since the page was opened.
        obj.save(update_fields=form.changed_data if change else None)

    def has_delete_permission(self, request: HttpRequest, obj: Tenant | None = None) -> bool:
        return False  # It goes with its user.

    @admin.action(description=_("Block the selected tenants, and cancel what runs"), permissions=["change"])
    @confirmed(lambda n: ngettext("Block %d tenant, and cancel what runs?",
                                  "Block %d tenants, and cancel what runs?", n) % n,
               ask_reason=_("Why? Operators see it on the tenant's page and in the audit log."))  # fmt: skip
    def block(self, request: HttpRequest, tenants: list[Tenant]) -> None:
        # Nobody locks operators out of the console here, least of all themselves.
        users = [tenant.user for tenant in tenants if not (tenant.user.is_staff or tenant.user.is_superuser)]
        reason = request.POST["reason"].strip()[:200]
        blocked = sum(suspension.block(user, request, reason) for user in users)
        if blocked:
            messages.success(request, ngettext("%d tenant blocked.", "%d tenants blocked.", blocked) % blocked)
        if blocked < len(tenants):
            left = len(tenants) - blocked
            words = ngettext("%d is blocked already, or is staff.", "%d are blocked already, or are staff.", left)
            messages.warning(request, words % left)

    @admin.action(description=_("Unblock the selected tenants"), permissions=["change"])
    def unblock(self, request: HttpRequest, queryset: QuerySet[Tenant]) -> None:
        unblocked = sum(suspension.unblock(tenant.user, request) for tenant in queryset)
        words = ngettext("%d tenant unblocked.", "%d tenants unblocked.", unblocked)
        messages.success(request, words % unblocked)


@admin.register(WorkerHost)
class WorkerHostAdmin(LogAdmin):
    list_display = ("name", "state", "works_on", "seen")
    seen = utc("seen_at", _("heard of (UTC)"))
    list_filter = ("draining",)
    search_fields = ("name__startswith",)
    search_help_text = _("The beginning of a name")
    fields = readonly_fields = ("name", "state", "works_on", "failed", "seen", "draining")
    actions = ("drain", "undrain")

    @property
    def audit_name(self) -> str:
        return "host"

    @admin.display(description=_("state"))
    def state(self, host: WorkerHost) -> Any:
        return host_state(host, timezone.now())[1]

    @admin.display(description=_("works on"))
    def works_on(self, host: WorkerHost) -> SafeString | Any:
        """Each running job with its worker and stage."""
        jobs = [
            (reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[job.pk]), job)
            for model in registry.job_models()
            for job in model.objects.filter(host=host.name, status=JobStatus.RUNNING).order_by("worker")
        ]
        rows = [
            (format_html('<a href="{}">{}</a>', url, str(job.pk)[:8]), stage_label(job.stage), job.progress, job.worker)
            for url, job in jobs
        ]
        return format_html_join("", "<div>{} {} {}&nbsp;% <small>{}</small></div>", rows) or _("nothing")

    @admin.display(description=_("failed in 24 hours"))
    def failed(self, host: WorkerHost) -> SafeString:
        """How many jobs of each kind failed there, with the list of them."""
        since = timezone.now() - timedelta(hours=24)
        counts = []
        for panel in panels.job_kinds():
            meta = panel.model._meta
            n = panel.model.objects.filter(host=host.name, finished_at__gte=since).exclude(error="").count()
            query = urlencode({"failed_on": host.name, "failed_since": "day"})
            url = f"{reverse(f'admin:{meta.app_label}_{meta.model_name}_changelist')}?{query}"
            counts.append((panel.label, url, n))
        return format_html_join("", '<div>{}: <a class="console-link" href="{}">{}</a></div>', counts)

    @admin.action(description=_("Drain: start no more jobs on the selected hosts"), permissions=["change"])
    @confirmed(lambda n: ngettext("Start no more jobs on %d host? What runs there is finished.",
                                  "Start no more jobs on %d hosts? What runs there is finished.", n) % n)  # fmt: skip
    def drain(self, request: HttpRequest, hosts: list[WorkerHost]) -> None:
        self._set(request, hosts, True)
        words = ngettext("%d host takes no more jobs.", "%d hosts take no more jobs.", len(hosts))
        messages.success(request, words % len(hosts))

    @admin.action(description=_("Let the selected hosts take jobs again"), permissions=["change"])
    def undrain(self, request: HttpRequest, queryset: QuerySet[WorkerHost]) -> None:
        hosts = list(queryset)
        self._set(request, hosts, False)
        words = ngettext("%d host takes jobs again.", "%d hosts take jobs again.", len(hosts))
        messages.success(request, words % len(hosts))

    def _set(self, request: HttpRequest, hosts: list[WorkerHost], draining: bool) -> None:
        for host in hosts:
            if WorkerHost.objects.filter(pk=host.pk, draining=not draining).update(draining=draining):
                self.act(request, "drain" if draining else "undrain", host)


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(LogAdmin):
    """A log: it is read here, and what is in it can be sent again."""

    list_display = ("type", "tenant", "status", "attempts", "last_status", "last_error", "next_attempt",
                    "created")  # fmt: skip
    next_attempt = utc("next_attempt_at", _("next attempt (UTC)"))
    created = utc("created_at", _("created (UTC)"))
    list_filter = ("status", since_filter("created_at"))
    list_select_related = ("tenant",)
    search_fields = ("id",)
    search_help_text = _("The id of a delivery or a job, or a tenant")
    actions = ("redeliver",)

    @property
    def audit_name(self) -> str:
        return "webhook"

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[QuerySet, bool]:
        words = search_term.strip()
        if not words:
            return queryset, False
        user = User.objects.filter(username=words).first()
        if user is not None:
            return queryset.filter(tenant=user), False
        try:
            asked = uuid.UUID(words)
        except ValueError:
            return queryset.none(), False
        return queryset.filter(Q(pk=asked) | Q(job_id=asked)), False

    @admin.action(description=_("Send the selected webhooks again"), permissions=["change"])
    @confirmed(lambda n: ngettext("Send %d webhook again?", "Send %d webhooks again?", n) % n)
    def redeliver(self, request: HttpRequest, chosen: list[WebhookDelivery]) -> None:
        sent = [delivery for delivery in chosen if deliveries.redeliver(delivery)]
        for delivery in sent:
            self.act(request, "redeliver", delivery)
        words = ngettext("%d webhook will be sent again.", "%d webhooks will be sent again.", len(sent))
        messages.success(request, words % len(sent))
        if len(sent) < len(chosen):
            left = len(chosen) - len(sent)
            words = ngettext("%d is being sent this moment.", "%d are being sent this moment.", left)
            messages.warning(request, words % left)


class AreaFilter(admin.SimpleListFilter):
    """By the first word of the action: what was acted on."""

    title = _("area")
    parameter_name = "area"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [
            ("key", _("keys")),
            ("job", _("jobs")),
            ("voice", _("voices")),
            ("host", _("hosts")),
            ("webhook", _("webhooks")),
            ("tenant", _("limits")),
            ("model", _("models")),
            ("user", _("users")),
            ("signin", _("signing in")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        area = self.value()
        return queryset.filter(Q(action=area) | Q(action__startswith=f"{area}.")) if area else queryset


@admin.register(AuditEntry)
class AuditEntryAdmin(LogAdmin):
    """Read only, for everybody: the model itself refuses to be changed."""

    counted = _("entries")  # "13 audit log" is no English.
    list_display = ("when", "who", "did", "target_kind", "target_shown", "address", "request_id")
    list_display_links = ("when",)
    when = utc("at", _("when (UTC)"))
    fields = ("when", "who", "key_prefix", "tenant_id", "did", "target_kind", "target_id", "target_shown", "address",
              "request_id", "shown_details")  # fmt: skip
    readonly_fields = fields
    list_filter = (AreaFilter, since_filter("at"))
    search_fields = ("id",)
    search_help_text = _("A user, the id of what was acted on, an address, or a whole action (key.revoke)")
    linked_lookups = ("target_type", "target_id")  # history_view leads here

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[QuerySet, bool]:
        words = search_term.strip()
        if not words:
            return queryset, False
        found = Q(target_id=words) | Q(address=words) | Q(action=words)
        user = User.objects.filter(username=words).first()
        if user is not None:
            found |= Q(actor=user) | Q(tenant_id=user.pk)
        return queryset.filter(found), False

    @admin.display(description=_("who"))
    def who(self, entry: AuditEntry) -> Any:
        return entry.actor_name or entry.key_prefix or _("system")

    @admin.display(description=_("action"))
    def did(self, entry: AuditEntry) -> SafeString:
        """In words, and as it is searched for."""
        code = format_html('<code class="console-code">{}</code>', entry.action)
        return format_html("{} {}", audit.ACTIONS.get(entry.action, ""), code)

    @admin.display(description=_("on"))
    def target_kind(self, entry: AuditEntry) -> Any:
        models = (*apps.get_models(), *self.admin_site._registry)  # Links, for one, have no pages here.
        names = {model._meta.model_name: model._meta.verbose_name for model in models}
        return names.get(entry.target_type, entry.target_type)

    @admin.display(description=_("target name"))
    def target_shown(self, entry: AuditEntry) -> str:
        return entry.target

    @admin.display(description=_("details"))
    def shown_details(self, entry: AuditEntry) -> SafeString:
        text = json.dumps(entry.details, ensure_ascii=False, indent=2)
        return format_html('<pre class="console-stderr">{}</pre>', text)
