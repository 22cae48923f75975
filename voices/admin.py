"""The console's pages for keys and syntheses."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest

from voiceproject.console import JobAdmin
from voiceproject.errors import PublicError
from voices import keys, registry
from voices.forms import KeyForm, LanguagesField
from voices.models import DEFAULT_MODEL, ApiKey, EngineModel, Synthesis


@admin.register(ApiKey)
class ApiKeyAdmin(admin.ModelAdmin):
    list_display = ("name", "prefix", "user", "scope_names", "state", "last_used_at", "created_at")
    list_filter = ("revoked_at", "expires_at")
    search_fields = ("name", "prefix", "user__username")
    list_select_related = ("user",)
    autocomplete_fields = ("user",)
    readonly_fields = ("prefix", "created_at", "last_used_at", "revoked_at")
    form = KeyForm
    actions = ("revoke",)

    @admin.display(description="scopes")
    def scope_names(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    @admin.display(description="state")
    def state(self, key: ApiKey) -> str:
        return key.state

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        return ("user", *keys.FIELDS, *(self.readonly_fields if obj else ()))

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        return (*self.readonly_fields, "user") if obj else ()

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        actor = keys.Actor(request)
        try:
            if change:
                # Only what was changed: the key may have been used since the page was opened.
                changes = {name: form.cleaned_data[name] for name in form.changed_data}
                obj.__dict__.update(keys.update(ApiKey.objects.get(pk=obj.pk), actor, **changes).__dict__)
                return
            fields = {name: form.cleaned_data[name] for name in keys.FIELDS}
            key, secret = keys.create(obj.user, actor, **fields)
            obj.__dict__.update(key.__dict__)
        except PublicError as error:
            raise PermissionDenied(error.message) from error
        messages.warning(request, f"The key is {secret} - copy it now, it is not shown again.")

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        # Revoked is final.
        return not (obj and obj.revoked_at) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False  # A revoked key stays as a record of who had access.

    @admin.action(description="Revoke the selected keys", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        count = sum(keys.revoke(key, keys.Actor(request)) for key in queryset)
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
