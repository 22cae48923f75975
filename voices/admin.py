"""The console's pages for keys, models, saved voices, consents and syntheses."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.urls import path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from voiceproject.api import file_response
from voiceproject.console import JobAdmin
from voiceproject.errors import PublicError, json_response
from voices import keys, registry, saved
from voices.forms import KeyForm, LanguagesField
from voices.models import DEFAULT_MODEL, ApiKey, Consent, EngineModel, Synthesis, Voice


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


class TakedownMixin:
    """The action that ends a voice and everything that was made with it. Rows have the voice's id in `voice_field`."""

    voice_field: str

    @admin.action(description="Take the voice down: cancel its jobs, revoke what it made", permissions=["change"])
    def take_down(self, request: HttpRequest, queryset: QuerySet) -> None:
        voice_ids = set(queryset.values_list(self.voice_field, flat=True))
        count = sum(saved.take_down(voice_id, request) for voice_id in voice_ids)
        messages.success(request, f"{len(voice_ids)} voices taken down, {count} jobs revoked.")


class ReadOnlyAdmin(admin.ModelAdmin):
    """Rows that are looked at, and changed by actions alone."""

    list_per_page = 50

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is None and super().has_change_permission(request)


@admin.register(Voice)
class VoiceAdmin(TakedownMixin, ReadOnlyAdmin):
    voice_field = "pk"
    list_display = ("name", "tenant", "language", "length", "taken_down_at", "created_at")
    list_filter = ("taken_down_at", "language", "created_at")
    list_select_related = ("tenant",)
    search_fields = ("id", "name", "tenant__username", "samples__uploaded_hash")
    fields = readonly_fields = (
        "listen", "id", "tenant", "name", "description", "language", "reference_transcript", "length", "consents",
        "taken_down_at", "created_at", "updated_at",
    )  # fmt: skip
    actions = ("take_down",)

    @admin.display(description="length")
    def length(self, voice: Voice) -> str:
        return f"{voice.reference_frames / max(voice.reference_rate, 1):.1f} s"

    @admin.display(description="consents")
    def consents(self, voice: Voice) -> SafeString:
        rows = Consent.objects.filter(voice_id=voice.pk)
        return format_html_join("", "<p>{}: {}</p>", ((row.created_at, row.statement) for row in rows))

    @admin.display(description="listen")
    def listen(self, voice: Voice) -> SafeString:
        url = reverse("admin:voices_voice_file", args=[voice.pk])
        return format_html('<audio controls preload="none" src="{}"></audio>', url)

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.serve_file)
        return [path("<uuid:pk>/reference", view, name="voices_voice_file"), *super().get_urls()]

    def serve_file(self, request: HttpRequest, pk: str) -> HttpResponseBase:
        voice = Voice.objects.filter(pk=pk).first()
        if voice is None:
            raise Http404
        if not self.has_view_permission(request, voice):
            raise PermissionDenied
        try:
            return file_response(request, voice.reference, content_type="audio/flac", filename=f"{pk}.flac")
        except PublicError as error:
            return json_response(error)


@admin.register(Consent)
class ConsentAdmin(TakedownMixin, ReadOnlyAdmin):
    """The records that outlive voices; a voice that its tenant has deleted is taken down from here."""

    voice_field = "voice_id"
    list_display = ("created_at", "voice_name", "tenant_name", "statement", "address", "key_prefix")
    list_filter = ("created_at",)
    search_fields = ("voice_id", "voice_name", "tenant_name", "statement", "sample_hash")
    actions = ("take_down",)


@admin.register(Synthesis)
class SynthesisAdmin(JobAdmin):
    list_display = ("short_id", "tenant", "status", "error", "engine", "language", "length", "created_at")
    list_filter = ("status", "error", "engine", "language", "created_at")
    players = ("reference_audio", "audio")
