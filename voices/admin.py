"""The console's pages for keys, models, saved voices, consents and syntheses."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.template.defaultfilters import filesizeformat
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget

from voiceproject.console.base import ConsoleAdmin, LogAdmin, confirmed, utc
from voiceproject.console.filters import since_filter
from voiceproject.console.jobs import Fact, JobAdmin
from voiceproject.console.tags import duration, told_time
from voiceproject.errors import PublicError
from voiceproject.tenants.models import AuditEntry
from voiceproject.web.api import file_response
from voiceproject.web.errors import json_response
from voices.keys import grants
from voices.keys.forms import KeyForm
from voices.keys.models import ApiKey
from voices.lexicons.models import Lexicon
from voices.lexicons.stored import entries_of, newest
from voices.library import saved
from voices.library.models import Consent, Voice
from voices.speech import registry
from voices.speech.forms import LanguagesField
from voices.speech.models import DEFAULT_MODEL, EngineModel, Synthesis
from voices.training.models import STAGES, Training

SHOWN_ENTRIES = 50  # of a lexicon

KEY_STATES = {"valid": _("valid"), "expired": _("expired"), "revoked": _("revoked")}


@admin.register(ApiKey)
class ApiKeyAdmin(ConsoleAdmin):
    list_display = ("name", "prefix", "kind", "user", "scope_names", "state", "last_used", "created")
    last_used = utc("last_used_at", _("last used (UTC)"))
    created = utc("created_at", _("created (UTC)"))
    list_filter = (("revoked_at", admin.EmptyFieldListFilter),)
    search_fields = ("prefix__startswith", "user__username")
    search_help_text = _("The beginning of a key, or a tenant")
    list_select_related = ("user",)
    autocomplete_fields = ("user",)
    readonly_fields = ("prefix", "kind", "created_at", "last_used_at", "revoked_at")
    form = KeyForm
    actions = ("revoke",)

    @property
    def audit_name(self) -> str:
        return "key"

    @admin.display(description=_("scopes"))
    def scope_names(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    @admin.display(description=_("networks"))
    def network_names(self, key: ApiKey) -> str:
        return ", ".join(key.allowed_networks)

    @admin.display(description=_("state"))
    def state(self, key: ApiKey) -> Any:
        return KEY_STATES.get(key.state, key.state)

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        fields: tuple[str, ...] = grants.FIELDS
        if not self.has_change_permission(request, obj):
            # In words: JSON as unfold shows it has inline styles, which the CSP forbids.
            words = {"scopes": "scope_names", "allowed_networks": "network_names"}
            fields = tuple(words.get(name, name) for name in fields)
        if obj is None:
            return ("user", "name", "kind", *fields[1:])
        if obj.kind != ApiKey.Kind.HEADER and "scopes" in fields:
            fields = tuple(name if name != "scopes" else "scope_names" for name in fields)
        return ("user", *fields, *self.readonly_fields)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        # Copies: the account's form has the same fields, and other widgets.
        for name in {"allowed_networks", "kind"} & form.base_fields.keys():
            form.base_fields[name] = deepcopy(form.base_fields[name])
        if "allowed_networks" in form.base_fields:
            form.base_fields["allowed_networks"].widget = UnfoldAdminTextareaWidget(attrs={"rows": 3})
        if "kind" in form.base_fields:
            kind = form.base_fields["kind"]
            kind.widget = UnfoldAdminSelectWidget(choices=kind.choices)
        return form

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        return (*self.readonly_fields, "user", "scope_names", "network_names") if obj else ()

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        actor = grants.Actor(request)
        try:
            if change:
                # Only what was changed: the key may have been used since the page was opened.
                changes = {name: form.cleaned_data[name] for name in form.changed_data}
                obj.__dict__.update(grants.update(ApiKey.objects.get(pk=obj.pk), actor, **changes).__dict__)
                return
            fields = {name: form.cleaned_data[name] for name in (*grants.FIELDS, "kind")}
            key, secret = grants.create(obj.user, actor, **fields)
            obj.__dict__.update(key.__dict__)
        except PublicError as error:
            raise PermissionDenied(error.message) from error
        request.issued_secret = secret  # type: ignore[attr-defined] # for response_add, and nothing that lasts

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """voices.keys.grants has done it."""

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """voices.keys.grants has done it."""

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: Any = None) -> Any:
        """The secret, in the answer to the form itself: it is in no session, no cookie, no message and no URL."""
        context = {
            **self.admin_site.each_context(request),
            "title": _("The new key"),
            "opts": self.model._meta,
            "key": obj,
            "secret": "" if obj.kind == ApiKey.Kind.ADDRESS else request.issued_secret,  # type: ignore[attr-defined]
            "in_url": obj.kind == ApiKey.Kind.PATH,
            "key_url": self.change_url(obj),
        }
        response = TemplateResponse(request, "voiceproject/console/secret.html", context)
        response["Cache-Control"] = "no-store"
        return response

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        # Revoked is final.
        return not (obj and obj.revoked_at) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False  # A revoked key stays as a record of who had access.

    @admin.action(description=_("Revoke the selected keys"), permissions=["change"])
    @confirmed(lambda n: ngettext("Revoke %d key? Nothing brings it back.",
                                  "Revoke %d keys? Nothing brings them back.", n) % n)  # fmt: skip
    def revoke(self, request: HttpRequest, selected: list[ApiKey]) -> None:
        count = sum(grants.revoke(key, grants.Actor(request)) for key in selected)
        messages.success(request, ngettext("%d key revoked.", "%d keys revoked.", count) % count)


@admin.register(EngineModel)
class EngineModelAdmin(ConsoleAdmin):
    list_display = ("model_id", "name", "owner", "engine", "version", "speaks", "enabled")
    list_filter = ("engine", "enabled", ("owner", admin.EmptyFieldListFilter))
    list_select_related = ("owner",)
    search_fields = ("model_id", "name", "=owner__username")
    fieldsets: Any = (
        (None, {"fields": ("model_id", "name", "engine", "enabled")}),
        ("GPT-SoVITS", {"fields": ("gpt_weights", "sovits_weights", "version", "languages")}),
        ("RVC", {"fields": ("voice_weights", "voice_index")}),
    )
    actions = ("enable", "disable")

    readonly_fields = ("language_names", "owner", "voice_id", "training_id", "scores")

    @admin.display(description=_("evaluation"))
    def scores(self, model: EngineModel) -> SafeString:
        rows = ((", ".join(f"{name} {value}" for name, value in row.items()),) for row in model.evaluation)
        return format_html_join("", "<p>{}</p>", rows)

    @admin.display(description=_("languages"))
    def language_names(self, model: EngineModel) -> str:
        return ", ".join(model.languages)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is not None and obj.owner_id is not None:
            # Its weights are the storage's, and an id that is known.
            own = ("name", "engine", "version", "enabled", "owner", "voice_id", "training_id", "scores")
            return ((None, {"fields": own}),)
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
        return registry.speaks(model.model_id, model.owner_id)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        owned = obj is not None and obj.owner_id is not None
        return (*self.readonly_fields, *(("engine", "version") if owned else ()))

    def delete_model(self, request: HttpRequest, obj: EngineModel) -> None:
        obj.remove()

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[EngineModel]) -> None:
        for model in queryset:
            model.remove()

    def save_model(self, request: HttpRequest, obj: EngineModel, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        of_engine = obj.enabled and obj.engine == EngineModel.Engine.GPTSOVITS
        if of_engine and not registry.speaks(obj.model_id, obj.owner_id):
            message = _(
                "%(model)s can be used for covers only. To speak with it, the server has to be told its weights, and "
                "the model %(default)s needs weights too, so that its own can be brought back; or pin a server to it "
                "(SOVITS_PINNED_MODELS)."
            )
            messages.warning(request, message % {"model": obj, "default": DEFAULT_MODEL})

    @admin.action(description=_("Offer the selected models"), permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[EngineModel]) -> None:
        count = self._set(request, queryset, True)
        messages.success(request, ngettext("%d model is offered.", "%d models are offered.", count) % count)

    @admin.action(description=_("Offer the selected models no longer"), permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[EngineModel]) -> None:
        count = self._set(request, queryset, False)
        words = ngettext("%d model is offered no longer.", "%d models are offered no longer.", count)
        messages.success(request, words % count)

    def _set(self, request: HttpRequest, queryset: QuerySet[EngineModel], enabled: bool) -> int:
        models = list(queryset)
        for model in models:
            if EngineModel.objects.filter(pk=model.pk, enabled=not enabled).update(enabled=enabled):
                self.act(request, "enable" if enabled else "disable", model)
        return len(models)


def voice_fact(job: Any) -> tuple[str, str]:
    """The name of the saved voice that a job is made with, and its page; both empty where there is none."""
    if job.voice_id is None:
        return "", ""
    voice = Voice.objects.filter(pk=job.voice_id).only("name").first()
    if voice is None:
        return gettext("deleted (%s)") % str(job.voice_id)[:8], ""
    return voice.name, reverse("admin:voices_voice_change", args=[voice.pk])


class TakedownAdmin(LogAdmin):
    """With the action that ends a voice and all that was made with it. Rows have the voice's id in `voice_field`."""

    voice_field: str
    actions = ("take_down",)

    @admin.action(description=_("Take the voice down: cancel its jobs, revoke what it made"), permissions=["change"])
    @confirmed(lambda n: ngettext("Take %d voice down? Its jobs end and what it made is deleted, for good. Its own "
                                  "recording and its consents stay, and operators can hear it, until its tenant "
                                  "deletes it.",
                                  "Take %d voices down? Their jobs end and what they made is deleted, for good. Their "
                                  "own recordings and their consents stay, and operators can hear them, until their "
                                  "tenants delete them.",
                                  n) % n,
               ask_reason=_("Why? Operators see it on the voice's page and in the audit log."))  # fmt: skip
    def take_down(self, request: HttpRequest, rows: list[Any]) -> None:
        voice_ids = {getattr(row, self.voice_field) for row in rows}
        count = sum(
            saved.take_down(voice_id, request, request.POST["reason"].strip()[:200]) for voice_id in voice_ids
        )  # It writes the audit log.
        found = {"voices": len(voice_ids), "jobs": count}
        messages.success(request, _("%(voices)d voices taken down, %(jobs)d jobs revoked.") % found)


@admin.register(Voice)
class VoiceAdmin(TakedownAdmin):
    voice_field = "pk"
    list_display = ("name", "tenant", "language", "length", "taken_down", "created")
    taken_down = utc("taken_down_at", _("taken down (UTC)"))
    created = utc("created_at", _("created (UTC)"))
    list_filter = (("taken_down_at", admin.EmptyFieldListFilter), since_filter("created_at"))
    list_select_related = ("tenant",)
    search_fields = ("=id", "=tenant__username", "=samples__uploaded_hash")
    search_help_text = _("A whole id, a tenant, or the SHA-256 of a sample")
    fields = readonly_fields = (
        "listen", "id", "tenant", "name", "description", "language", "reference_transcript", "length", "consents",
        "takedown", "created_at", "updated_at",
    )  # fmt: skip

    @admin.display(description=_("taken down"))
    def takedown(self, voice: Voice) -> SafeString | str:
        if voice.taken_down_at is None:
            return _("no")  # type: ignore[return-value]
        entry = AuditEntry.objects.filter(target_id=str(voice.pk), action="voice.takedown").order_by("-id").first()
        by = entry.actor_name if entry else ""
        reason = str(entry.details.get("reason", "")) if entry else ""
        return format_html("{} {} {}", told_time(voice.taken_down_at), by, reason)

    @admin.display(description=_("length"))
    def length(self, voice: Voice) -> str:
        return duration(voice.reference_frames / max(voice.reference_rate, 1))

    @admin.display(description=_("consents"))
    def consents(self, voice: Voice) -> SafeString:
        rows = Consent.objects.filter(voice_id=voice.pk)
        return format_html_join("", "<p>{}: {}</p>", ((told_time(row.created_at), row.statement) for row in rows))

    @admin.display(description=_("listen"))
    def listen(self, voice: Voice) -> SafeString:
        url = reverse("admin:voices_voice_file", args=[voice.pk])
        return format_html('<audio controls preload="none" src="{}"></audio>', url)

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.serve_file)
        return [path("<uuid:pk>/reference", view, name="voices_voice_file"), *super().get_urls()]

    def serve_file(self, request: HttpRequest, pk: str) -> HttpResponseBase:
        voice = Voice.objects.filter(pk=pk).first()
        if not self.has_view_permission(request, voice):
            raise PermissionDenied
        if voice is None or not voice.reference:
            raise Http404
        if request.headers.get("Range", "bytes=0-").startswith("bytes=0-"):
            self.act(request, "listen", voice)
        try:
            return file_response(request, voice.reference, content_type="audio/flac", filename=f"{pk}.flac")
        except PublicError as error:
            return json_response(error)


@admin.register(Lexicon)
class LexiconAdmin(LogAdmin):
    """To look at: a lexicon is its tenant's."""

    list_display = ("name", "tenant", "language", "entries_count", "is_default", "created")
    created = utc("created_at", _("created (UTC)"))
    list_filter = ("is_default", since_filter("created_at"))
    list_select_related = ("tenant",)
    search_fields = ("=id", "=tenant__username")
    search_help_text = _("A whole id, or a tenant")
    fields = readonly_fields = (
        "id", "tenant", "name", "description", "language", "is_default", "entries_count", "first_entries", "used_by",
        "archived_at", "created_at", "updated_at",
    )  # fmt: skip

    @admin.display(description=_("first entries"))
    def first_entries(self, lexicon: Lexicon) -> SafeString:
        entries = entries_of(newest(lexicon))[:SHOWN_ENTRIES]
        shown = ((entry.word, entry.say, f"{entry.alphabet} {entry.language}".strip()) for entry in entries)
        return format_html_join("", "<p>{}: {} ({})</p>", shown)

    @admin.display(description=_("voices"))
    def used_by(self, lexicon: Lexicon) -> str:
        return ", ".join(voice.name for voice in lexicon.voices.all()[:SHOWN_ENTRIES])


@admin.register(Consent)
class ConsentAdmin(TakedownAdmin):
    """The records that outlive voices; a voice that its tenant has deleted is taken down from here."""

    voice_field = "voice_id"
    list_display = ("created", "voice_name", "tenant_name", "said", "address", "key_prefix")
    created = utc("created_at", _("created (UTC)"))
    list_filter = (since_filter("created_at"),)
    search_fields = ("=voice_id", "voice_name", "tenant_name", "statement", "=sample_hash")
    search_help_text = _("A voice's id or name, a tenant, words of the statement, or a sample's SHA-256")

    @admin.display(description=_("statement"))
    def said(self, consent: Consent) -> str:
        return Truncator(consent.statement).chars(120)


@admin.register(Synthesis)
class SynthesisAdmin(JobAdmin):
    list_display = ("short_id", "short_title", "tenant", "badge", "error", "engine", "language", "length", "created")
    players = {"reference_audio": _("Reference"), "audio": _("Result")}

    def facts(self, job: Synthesis) -> list[Fact]:
        return [
            Fact(_("Text"), job.text, wide=True),
            Fact(_("Voice"), *voice_fact(job)),
            Fact(_("Length"), duration(job.duration_seconds)),
            Fact(_("Language"), job.language),
            Fact(_("Engine"), job.engine),
            Fact(_("Model"), job.model_id),
            Fact(_("Format"), job.response_format),
        ]


@admin.register(Training)
class TrainingAdmin(JobAdmin):
    list_display = (
        "short_id", "short_title", "tenant", "badge", "stage_name", "error", "engine", "length", "created",
        "host",
    )  # fmt: skip
    stages = STAGES

    def facts(self, job: Training) -> list[Fact]:
        return [
            Fact(_("Voice"), *voice_fact(job)),
            Fact(_("Engine"), job.get_engine_display()),
            Fact(_("Length"), duration(job.duration_seconds)),
        ]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        return [*super().get_fields(request, obj), "problems", "recordings_sent", "scores"]

    @admin.display(description=_("report"))
    def problems(self, job: Training) -> SafeString:
        told = [*job.report.get("problems", ()), *job.report.get("dropped", ())]
        rows = ((one.get("file", ""), one.get("message") or one.get("reason", "")) for one in told)
        return format_html_join("", "<p>{} {}</p>", rows)

    @admin.display(description=_("recordings"))
    def recordings_sent(self, job: Training) -> SafeString:
        rows = ((one.label, filesizeformat(one.audio_bytes)) for one in job.recordings.all())
        return format_html_join("", "<p>{}: {}</p>", rows)

    @admin.display(description=_("evaluation"))
    def scores(self, job: Training) -> SafeString:
        rows = ((", ".join(f"{name} {value}" for name, value in row.items()),) for row in job.evaluation)
        return format_html_join("", "<p>{}</p>", rows)
