"""What the console's pages share: the audit log behind every change, confirmed actions, logs that nobody edits."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import get_language, gettext
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin

from voiceproject.console.filters import HOURS
from voiceproject.console.paging import BoundedPaginator, IndexedChangeList
from voiceproject.errors import PublicError
from voiceproject.tenants import audit


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


def _may_be_key(model: type[Model], text: str) -> bool:
    """Whether the text could be the primary key of a row: of its type, and within its bounds."""
    field: Any = model._meta.pk
    while field.remote_field is not None:
        field = field.target_field
    try:
        field.clean(text, None)
    except ValidationError:
        return False
    return "\x00" not in text


def utc(field: str, description: Any) -> Callable[[Any, Any], SafeString | str]:
    """A column for a time, to the second: what an operator compares with logs."""

    @admin.display(description=description, ordering=field)
    def shown(self: Any, row: Any) -> SafeString | str:
        value = getattr(row, field)
        return format_html('<span class="console-time">{}</span>', f"{value:%Y-%m-%d %H:%M:%S}") if value else ""

    return shown


MOST_AT_ONCE = 1000  # rows that one action changes; the page says when there are more


def failures_page(request: HttpRequest) -> str:
    """The address of the page of failures, where an action was asked for there; else ""."""
    period = request.POST.get("from_failures", "")
    return f"{reverse('admin:failures')}?period={period}" if period in HOURS else ""


def confirmed(question: Callable[[int], str], ask_reason: Any = "") -> Callable[[Callable], Callable]:
    """An action that is done only after a page with `question(how many)` was answered.

    It is on the rows that were selected, or on all that the list's filters let through, MOST_AT_ONCE at a time; the
    page then says in words what they are. ask_reason: the label of a reason that has to be given; the action finds it
    in `request.POST["reason"]`. Afterwards the page of the job, or that of failures, is shown again where the action
    was asked for there.
    """

    def decorate(action: Callable) -> Callable:
        @functools.wraps(action)
        def ask_first(self: Any, request: HttpRequest, queryset: QuerySet) -> HttpResponseBase | None:
            across = request.POST.get("select_across") == "1"
            if not across:
                queryset = queryset.filter(pk__in=request.POST.getlist("_selected_action"))
            chosen = list(queryset[: MOST_AT_ONCE + 1])
            more, chosen = len(chosen) > MOST_AT_ONCE, chosen[:MOST_AT_ONCE]
            no_reason = bool(ask_reason) and not request.POST.get("reason", "").strip()
            if "confirmed" not in request.POST or no_reason:
                left_out = ("csrfmiddlewaretoken", "index", "confirmed", "reason")
                passed_on = [
                    (name, value)
                    for name in request.POST
                    if name not in left_out
                    for value in request.POST.getlist(name)
                ]
                context = {
                    **self.admin_site.each_context(request),
                    "title": _("Are you sure?"),
                    "opts": self.model._meta,
                    "question": question(len(chosen)),
                    "matching": self.narrowed_by(request) if across else [],
                    "across": across,
                    "more": MOST_AT_ONCE if more else 0,
                    "chosen": [] if across else chosen[:10],
                    "others": 0 if across else max(0, len(chosen) - 10),
                    "ask_reason": ask_reason if chosen else "",
                    "no_reason": no_reason and "confirmed" in request.POST,
                    "passed_on": passed_on,
                    "none": not chosen,
                    "back": failures_page(request) or request.get_full_path(),
                }
                return TemplateResponse(request, "voiceproject/console/confirm.html", context)
            action(self, request, chosen)
            if "from_page" in request.POST and len(chosen) == 1:
                return redirect(self.change_url(chosen[0]))
            # The list of what failed has nothing of it any more: the other causes are what matters next.
            return redirect(back) if (back := failures_page(request)) else None

        return ask_first

    return decorate


def narrowed_by(changelist: Any) -> list[dict[str, str]]:
    found = []
    if changelist.query:
        without = changelist.get_query_string(remove=["q", "p"])
        found.append({"name": gettext("search"), "value": changelist.query, "without": without})
    for spec in changelist.filter_specs:
        every, *choices = spec.choices(changelist)
        for choice in choices:
            if choice["selected"]:
                without = every["query_string"]
                found.append({"name": str(spec.title), "value": str(choice["display"]), "without": without})
    return found


class ConsoleAdmin(ModelAdmin):
    """Every change is an entry of the audit log, which stands in for Django's own history of an object."""

    paginator: Any = BoundedPaginator
    list_before_template = "voiceproject/console/narrowed.html"
    list_max_show_all = 0
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by: Any = ()
    list_per_page = 50
    list_disable_select_all = True
    actions_selection_counter = True
    # What a list may be narrowed by in its address, besides its filters. Each lookup of a field that is not shown is an
    # oracle: `?key_hash__startswith=` would give a hash away, letter for letter.
    linked_lookups: tuple[str, ...] = ()

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup in self.linked_lookups or lookup in self._filter_lookups()

    def _filter_lookups(self) -> set[str]:
        """The parameters that the filters of this list write into its address."""
        found: set[str] = set()
        for item in self.list_filter:
            if isinstance(item, str):
                found |= {f"{item}__exact", f"{item}__isnull"}
            elif isinstance(item, tuple):
                found.add(f"{item[0]}__isempty")
            else:
                found.add(item.parameter_name)
        return found

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        return IndexedChangeList

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        response = super().changelist_view(request, extra_context)
        changelist = (getattr(response, "context_data", None) or {}).get("cl")
        if changelist is not None:
            response.context_data["narrowed_by"] = narrowed_by(changelist)
        return response

    def narrowed_by(self, request: HttpRequest) -> list[dict[str, str]]:
        """What the list is narrowed by now: the name of each filter, its value, and the address without it."""
        return narrowed_by(self.get_changelist_instance(request))

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        # An id that no row can have would go to the database, which refuses some: numbers too big for it, NULs.
        if from_field is None and not _may_be_key(self.model, object_id):
            return None
        return super().get_object(request, object_id, from_field)

    def response_action(self, request: HttpRequest, queryset: QuerySet) -> Any:
        sent = request.POST.copy()
        selected = [key for key in sent.getlist(ACTION_CHECKBOX_NAME) if _may_be_key(self.model, key)]
        sent.setlist(ACTION_CHECKBOX_NAME, selected)
        request.POST = sent  # type: ignore[assignment]
        return super().response_action(request, queryset)

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
