"""The console's pages for keys and syntheses."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from voiceproject.console import ConsoleAdmin, JobAdmin, confirmed, utc
from voices import registry
from voices.forms import LanguagesField, ScopesField
from voices.models import DEFAULT_MODEL, ApiKey, EngineModel, Synthesis


@admin.register(ApiKey)
class ApiKeyAdmin(ConsoleAdmin):
    list_display = ("name", "prefix", "user", "scope_names", "state", "last_used", "created")
    last_used = utc("last_used_at", _("last used (UTC)"))
    created = utc("created_at", _("created (UTC)"))
    list_filter = (("revoked_at", admin.EmptyFieldListFilter),)
    search_fields = ("prefix__startswith", "user__username")
    search_help_text = _("The beginning of a key, or a tenant")
    list_select_related = ("user",)
    autocomplete_fields = ("user",)
    readonly_fields = ("prefix", "created_at", "last_used_at", "revoked_at")
    actions = ("revoke",)

    @property
    def audit_name(self) -> str:
        return "key"

    @admin.display(description=_("scopes"))
    def scope_names(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    @admin.display(description=_("state"))
    def state(self, key: ApiKey) -> Any:
        if key.revoked_at:
            return _("revoked")
        return _("valid") if key.is_valid(timezone.now()) else _("expired")

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        # Who may not change them sees words: JSON as unfold shows it needs inline styles, which the CSP forbids.
        scopes = "scopes" if self.has_change_permission(request, obj) else "scope_names"
        return ("user", "name", scopes, "expires_at", *(self.readonly_fields if obj else ()))

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        return (*self.readonly_fields, "user", "scope_names") if obj else ()

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
        request.issued_secret = secret  # type: ignore[attr-defined] # for response_add, and nothing that lasts

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: Any = None) -> Any:
        """The secret, in the answer to the form itself: it is in no session, no cookie, no message and no URL."""
        context = {
            **self.admin_site.each_context(request),
            "title": _("The new key"),
            "opts": self.model._meta,
            "key": obj,
            "secret": request.issued_secret,  # type: ignore[attr-defined]
            "key_url": self.change_url(obj),
        }
        response = TemplateResponse(request, "voiceproject/console/secret.html", context)
        response["Cache-Control"] = "no-store"
        return response

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False  # A revoked key stays as a record of who had access.

    @admin.action(description=_("Revoke the selected keys"), permissions=["change"])
    @confirmed(lambda n: ngettext("Revoke %d key? Nothing brings it back.",
                                  "Revoke %d keys? Nothing brings them back.", n) % n)  # fmt: skip
    def revoke(self, request: HttpRequest, keys: list[ApiKey]) -> None:
        revoked = [key for key in keys if key.revoke()]
        for key in revoked:
            self.act(request, "revoke", key)
        messages.success(request, ngettext("%d key revoked.", "%d keys revoked.", len(revoked)) % len(revoked))


@admin.register(EngineModel)
class EngineModelAdmin(ConsoleAdmin):
    list_display = ("model_id", "name", "engine", "version", "speaks", "enabled")
    list_filter = ("engine", "enabled")
    search_fields = ("model_id", "name")
    fieldsets = (
        (None, {"fields": ("model_id", "name", "engine", "enabled")}),
        ("GPT-SoVITS", {"fields": ("gpt_weights", "sovits_weights", "version", "languages")}),
        ("RVC", {"fields": ("voice_weights", "voice_index")}),
    )
    actions = ("enable", "disable")

    readonly_fields = ("language_names",)

    @admin.display(description=_("languages"))
    def language_names(self, model: EngineModel) -> str:
        return ", ".join(model.languages)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if self.has_change_permission(request, obj):
            return self.fieldsets
        shown = ("gpt_weights", "sovits_weights", "version", "language_names")
        return (self.fieldsets[0], ("GPT-SoVITS", {"fields": shown}), self.fieldsets[2])

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        if "languages" in form.base_fields:
            form.base_fields["languages"] = LanguagesField()
        return form

    @property
    def audit_name(self) -> str:
        return "model"

    @admin.display(description=_("can speak here"), boolean=True)
    def speaks(self, model: EngineModel) -> bool:
        return registry.speaks(model.model_id)

    def save_model(self, request: HttpRequest, obj: EngineModel, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if obj.enabled and obj.engine == EngineModel.Engine.GPTSOVITS and not registry.speaks(obj.model_id):
            message = _(
                "%(model)s can be used for covers only. To speak with it, the server has to be told its weights, and "
                "the model %(default)s needs weights too, so that its own can be brought back; or pin a server to it "
                "(SOVITS_PINNED_MODELS)."
            )
            messages.warning(request, message % {"model": obj, "default": DEFAULT_MODEL})

    @admin.action(description=_("Offer the selected models"), permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[EngineModel]) -> None:
        messages.success(request, _("%d models are offered.") % self._set(request, queryset, True))

    @admin.action(description=_("Offer the selected models no longer"), permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[EngineModel]) -> None:
        messages.success(request, _("%d models are offered no longer.") % self._set(request, queryset, False))

    def _set(self, request: HttpRequest, queryset: QuerySet[EngineModel], enabled: bool) -> int:
        models = list(queryset)
        for model in models:
            if EngineModel.objects.filter(pk=model.pk, enabled=not enabled).update(enabled=enabled):
                self.act(request, "enable" if enabled else "disable", model)
        return len(models)


@admin.register(Synthesis)
class SynthesisAdmin(JobAdmin):
    list_display = ("short_id", "tenant", "badge", "error", "engine", "language", "length", "created")
    players = ("reference_audio", "audio")
