"""The console's pages for keys and syntheses."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from voiceproject.console import JobAdmin
from voices import registry
from voices.forms import LanguagesField, ScopesField
from voices.models import DEFAULT_MODEL, ApiKey, EngineModel, Synthesis


@admin.register(ApiKey)
class ApiKeyAdmin(admin.ModelAdmin):
    list_display = ("name", "prefix", "user", "scope_names", "state", "last_used_at", "created_at")
    list_filter = ("revoked_at", "expires_at")
    search_fields = ("name", "prefix", "user__username")
    list_select_related = ("user",)
    autocomplete_fields = ("user",)
    readonly_fields = ("prefix", "created_at", "last_used_at", "revoked_at")
    actions = ("revoke",)

    @admin.display(description="scopes")
    def scope_names(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    @admin.display(description="state")
    def state(self, key: ApiKey) -> str:
        if key.revoked_at:
            return "revoked"
        return "valid" if key.is_valid(timezone.now()) else "expired"

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        return ("user", "name", "scopes", "expires_at", *(self.readonly_fields if obj else ()))

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        return (*self.readonly_fields, "user") if obj else ()

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        if "scopes" in form.base_fields:
            form.base_fields["scopes"] = ScopesField()
        return form

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        if change:
            # Only what was changed: the key may have been revoked or used since the page was opened.
            if form.changed_data:
                obj.save(update_fields=form.changed_data)
            return
        fields = {name: form.cleaned_data[name] for name in ("scopes", "expires_at")}
        key, secret = ApiKey.objects.issue(obj.user, obj.name, **fields)
        obj.__dict__.update(key.__dict__)
        messages.warning(request, f"The key is {secret} - copy it now, it is not shown again.")

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False  # A revoked key stays as a record of who had access.

    @admin.action(description="Revoke the selected keys", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        count = sum(key.revoke() for key in queryset)
        messages.success(request, f"{count} keys revoked.")


@admin.register(EngineModel)
class EngineModelAdmin(admin.ModelAdmin):
    list_display = ("model_id", "name", "engine", "version", "speaks", "enabled")
    list_filter = ("engine", "enabled")
    search_fields = ("model_id", "name")
    fieldsets = (
        (None, {"fields": ("model_id", "name", "engine", "enabled")}),
        ("GPT-SoVITS", {"fields": ("gpt_weights", "sovits_weights", "version", "languages")}),
        ("RVC", {"fields": ("voice_weights", "voice_index")}),
    )
    actions = ("enable", "disable")

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        if "languages" in form.base_fields:
            form.base_fields["languages"] = LanguagesField()
        return form

    @admin.display(description="can speak here", boolean=True)
    def speaks(self, model: EngineModel) -> bool:
        return registry.speaks(model.model_id)

    def save_model(self, request: HttpRequest, obj: EngineModel, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if obj.enabled and obj.engine == EngineModel.Engine.GPTSOVITS and not registry.speaks(obj.model_id):
            messages.warning(
                request,
                f"{obj} can be used for covers only. To speak with it, the server has to be told its weights, and the "
                f"model {DEFAULT_MODEL} needs weights too, so that its own can be brought back; or pin a server to it "
                "(SOVITS_PINNED_MODELS).",
            )

    @admin.action(description="Offer the selected models", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[EngineModel]) -> None:
        messages.success(request, f"{queryset.update(enabled=True)} models are offered.")

    @admin.action(description="Offer the selected models no longer", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[EngineModel]) -> None:
        messages.success(request, f"{queryset.update(enabled=False)} models are offered no longer.")


@admin.register(Synthesis)
class SynthesisAdmin(JobAdmin):
    list_display = ("short_id", "tenant", "status", "error", "engine", "language", "length", "created_at")
    list_filter = ("status", "error", "engine", "language", "created_at")
    players = ("reference_audio", "audio")
