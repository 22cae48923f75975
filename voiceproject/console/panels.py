"""What the apps add to the console: how their jobs are shown, and the lists that the side bar leads to.

The console imports no app. Each app registers here in `AppConfig.ready`, as it does with voiceproject.registry, which
has all that is not about looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext_lazy as _

from voiceproject.jobs.job import Job


@dataclass(frozen=True)
class StageTimes:
    """The dashboard's chart of the mean time in each stage. note: the line below it; none: the text of an empty one."""

    note: Any
    none: Any


@dataclass(frozen=True)
class JobPanel:
    """How a kind of job is shown.

    label: the heading of its panel. place: kinds stand in this order. stages: the label of each stage, in the order in
    which a job passes through them. stage_times: where the dashboard shows how long they take.
    """

    model: type[Job]
    label: Any
    place: int
    stages: Mapping[str, Any] = field(default_factory=dict)
    stage_times: StageTimes | None = None

    @property
    def view_permission(self) -> str:
        return f"{self.model._meta.app_label}.view_{self.model._meta.model_name}"


@dataclass(frozen=True)
class Section:
    """A part of the side bar. Sections stand in the order of their places."""

    title: Any
    place: int


JOBS = Section(_("Jobs"), 10)
TENANTS = Section(_("Tenants"), 30)
MACHINES = Section(_("Machines"), 40)


@dataclass(frozen=True)
class Link:
    """An entry of the side bar: the list of a model's rows, for whoever may view them.

    model: `app_label.model_name`, in small letters. icon: a name of Material Symbols. place: within the section.
    """

    section: Section
    place: int
    model: str
    label: Any
    icon: str

    @property
    def url_name(self) -> str:
        return f"admin:{self.model.replace('.', '_')}_changelist"

    @property
    def permission(self) -> str:
        return self.model.replace(".", ".view_")


@dataclass(frozen=True)
class TenantPart:
    """What a tenant's page counts and leads to: rows of a model whose `field` names the tenant.

    The model's list finds them by the tenant's name.
    """

    place: int
    model: Any
    label: Any
    field: str = "tenant"

    @property
    def view_permission(self) -> str:
        return f"{self.model._meta.app_label}.view_{self.model._meta.model_name}"


_tenant_parts: dict[Any, TenantPart] = {}
_panels: dict[type[Job], JobPanel] = {}
_links: dict[str, Link] = {}


def register_jobs(panel: JobPanel) -> None:
    _panels[panel.model] = panel


def register_links(*links: Link) -> None:
    _links.update({link.model: link for link in links})


def register_tenant_parts(*parts: TenantPart) -> None:
    _tenant_parts.update({part.model: part for part in parts})


def tenant_parts() -> list[TenantPart]:
    return sorted(_tenant_parts.values(), key=lambda part: part.place)


def job_kinds() -> list[JobPanel]:
    """All kinds of jobs in their order. The first is the main one: who may view its jobs may see the dashboard."""
    return sorted(_panels.values(), key=lambda panel: panel.place)


def links() -> list[Link]:
    """All entries of the side bar in their order."""
    return sorted(_links.values(), key=lambda link: (link.section.place, link.place))


def stage_labels() -> dict[str, Any]:
    """The label of each stage of any kind of job."""
    return {stage: label for panel in job_kinds() for stage, label in panel.stages.items()}


def link(model: type, **query: Any) -> str:
    """Of the console's list of this model's rows."""
    url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")  # type: ignore[attr-defined]
    return f"{url}?{urlencode(query)}" if query else url
