"""What the apps register with the console: kinds of jobs, stages and the entries of the side bar."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client, RequestFactory
from django.urls import reverse

from covers.models import STAGES, CoverJob
from tests.fakes.engine import FakeEngine
from voiceproject.console import numbers, panels
from voiceproject.console.panels import JOBS, Link, Section
from voiceproject.console.site import navigation
from voiceproject.console.timeline import stage_label
from voiceproject.registry import registry
from voices.speech.models import Synthesis
from voices.training.models import Training

FOLDER = Path(panels.__file__).parent


def side_bar(user: User) -> dict[str, list[str]]:
    request = RequestFactory().get("/admin/")
    request.user = user
    return {str(part["title"]): [str(item["title"]) for item in part["items"]] for part in navigation(request)}


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is gone after it."""
    monkeypatch.setattr(panels, "_links", dict(panels._links))
    monkeypatch.setattr(panels, "_panels", dict(panels._panels))
    yield


def imported(path: Path) -> set[str]:
    """The packages that a module imports, at its top and inside its functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
    return found


def test_the_console_imports_no_app() -> None:
    modules = list(FOLDER.glob("*.py"))
    assert len(modules) > 10
    for path in modules:
        assert not imported(path) & {"covers", "voices"}, path


def test_every_kind_of_job_that_runs_is_shown_covers_first() -> None:
    assert [kind.model for kind in panels.job_kinds()] == [CoverJob, Synthesis, Training]
    assert {kind.model for kind in panels.job_kinds()} == set(registry.job_models())


def test_every_stage_of_a_cover_has_a_label_in_the_order_of_the_pipeline() -> None:
    covers = panels.job_kinds()[0]
    assert tuple(covers.stages) == STAGES
    assert str(stage_label("handed back")) == "handed back at shutdown"
    assert stage_label("no such stage") == "no such stage"


@pytest.mark.django_db
def test_the_side_bar_stands_in_its_order_whichever_app_registered_first() -> None:
    assert side_bar(User.objects.create_superuser("root")) == {
        "": ["Dashboard", "Failures"],
        "Jobs": ["Covers", "Syntheses", "Trainings", "Webhook deliveries"],
        "Voices and models": ["Voices", "Consents", "Lexicons", "Models"],
        "Tenants": ["Users", "Tenants", "API keys"],
        "Machines": ["Worker hosts", "Audit log"],
    }


@pytest.mark.django_db
def test_an_entry_is_shown_to_whoever_may_view_its_rows(registered: None) -> None:
    panels.register_links(
        Link(Section("Groups", 15), 1, "auth.group", "Roles", "group"),
        Link(JOBS, 1, "covers.coverjob", "Songs", "music_note"),  # Instead of the one that the app registered.
    )
    nobody = User.objects.create(username="nobody", is_staff=True)
    assert side_bar(nobody) == {"": ["Dashboard"]}
    viewer = User.objects.create(username="viewer", is_staff=True)
    viewer.groups.add(Group.objects.get(name="viewer"))
    seen = side_bar(viewer)
    assert seen["Jobs"] == ["Songs", "Syntheses", "Trainings", "Webhook deliveries"]
    assert "Groups" not in seen


@pytest.mark.django_db
def test_the_dashboard_has_a_panel_of_stage_times_for_each_kind_that_asks_for_it(
    registered: None, engine: FakeEngine
) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    assert client.get(reverse("admin:dashboard")).content.decode().count("Time per stage") == 1
    times = panels.StageTimes(note="The last syntheses", none="No synthesis yet.")
    panels.register_jobs(panels.JobPanel(Synthesis, "Speech", 1, {"infer": "speaking"}, times))
    numbers.HISTORY.forget()
    html = client.get(reverse("admin:dashboard")).content.decode()
    assert html.count("Time per stage") == 2
    assert html.index("<h2>Speech</h2>") < html.index("<h2>Covers</h2>")
