"""The console's and the account's pages in a browser: no violation of axe, wide and on a phone, and a live job."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from model_bakery import baker

from covers.models import CoverJob
from tests.support.browser import Browser
from tests.support.missing import needs
from voiceproject.jobs.models import WorkerHost
from voiceproject.tenants.models import Tenant
from voices.library.models import Consent, Voice

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

LONG = "Łukasz \u202eمرحبا 🎤 <b>x</b> " + "n" * 120


@pytest.fixture
def browser(operator: Client, live_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    needs("chromium")
    monkeypatch.setattr("django.contrib.staticfiles.handlers.StaticFilesHandler._should_handle", lambda *args: False)
    with Browser(tmp_path / "profile") as browser:
        session = {"name": "sessionid", "value": operator.cookies["sessionid"].value, "url": live_server.url}
        browser.call("Network.setCookie", **session)
        yield browser


def wide(browser: Browser, pixels: int) -> None:
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=pixels, height=900, deviceScaleFactor=1, mobile=pixels < 600
    )


def test_axe_finds_nothing_wide_and_on_a_phone(browser: Browser, live_server: Any) -> None:
    user = User.objects.create(username=LONG[:150])
    Tenant.objects.create(user=user)
    WorkerHost.objects.create(name="gpu-1", seen_at=timezone.now(), draining=True)
    job = baker.make(CoverJob, tenant=user, title=LONG, status="running", attempt=1, worker="w", host="gpu-1")
    job.fail("inference_failed", detail=f"it exited with status 1\nRuntimeError: {LONG}")
    running = baker.make(CoverJob, tenant=user, title="Song", status="running", attempt=1, worker="w", host="gpu-1")
    baker.make(CoverJob, tenant=user, status="queued")
    voice = baker.make(Voice, tenant=user, name=LONG[:100], description="n" * 500)
    consent = baker.make(Consent, voice_name=LONG[:100], statement="n" * 500)
    pages = [
        reverse("admin:index"), reverse("admin:failures"), reverse("admin:covers_coverjob_changelist"),
        f"{reverse('admin:covers_coverjob_changelist')}?status__exact=failed",
        reverse("admin:covers_coverjob_change", args=[job.pk]),
        reverse("admin:covers_coverjob_change", args=[running.pk]),
        reverse("admin:voiceproject_tenant_change", args=[user.pk]),
        reverse("admin:voiceproject_workerhost_changelist"),
        reverse("admin:voiceproject_auditentry_changelist"), reverse("account"), reverse("account-usage"),
        reverse("admin:voices_voice_changelist"), reverse("admin:voices_voice_change", args=[voice.pk]),
        reverse("admin:voices_consent_change", args=[consent.pk]), reverse("admin:voices_apikey_add"),
        reverse("admin:voiceproject_tenant_add"),
    ]  # fmt: skip
    for pixels, dark in ((1400, False), (360, True)):
        browser.size(pixels, 900, dark=dark)
        for page in pages:
            nothing_is_wrong(browser, f"{live_server.url}{page}", pixels)
    browser.call("Network.clearBrowserCookies")
    for page in (reverse("admin:index"), reverse("account-signin"), "/nowhere", "/account/nothing"):
        nothing_is_wrong(browser, f"{live_server.url}{page}", 360)


def nothing_is_wrong(browser: Browser, url: str, pixels: int) -> None:
    """axe finds no violation, and the page is not wider than the screen."""
    axe = importlib.resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    browser.open(url)
    browser.evaluate(f"{axe}; true")
    found = browser.evaluate(
        """axe.run(document, {resultTypes: ['violations']}).then(({violations}) =>
           violations.map((found) => `${found.id}: ${found.nodes.slice(0, 3).map((node) => node.html)}`))"""
    )
    assert found == [], (url, pixels)
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), (url, pixels)


def test_a_row_is_one_card_on_a_phone(browser: Browser, live_server: Any) -> None:
    user = User.objects.create(username="radio")
    baker.make(
        CoverJob,
        tenant=user,
        title="Summer song",
        status="failed",
        error="mix_failed",
        attempt=2,
        duration_seconds=200.0,
    )
    wide(browser, 400)
    browser.open(f"{live_server.url}{reverse('admin:covers_coverjob_changelist')}")
    height = browser.evaluate("document.querySelector('#result_list .data-row').getBoundingClientRect().height")
    assert height < 320  # Ten rows of 45 before.


def test_ids_states_and_hosts_of_a_list_stay_in_one_piece_beside_long_names(browser: Browser, live_server: Any) -> None:
    user = User.objects.create(username=LONG[:150])
    baker.make(CoverJob, tenant=user, title=LONG * 3, status="failed", error="inference_failed", host="gpu-2")
    for pixels in (1440, 1024):
        wide(browser, pixels)
        browser.open(f"{live_server.url}{reverse('admin:covers_coverjob_changelist')}")
        lines = browser.evaluate("""Object.fromEntries(['short_id', 'badge', 'error', 'host'].map((name) => {
            const range = document.createRange();
            range.selectNodeContents(document.querySelector(`#result_list tbody .field-${name}`));
            return [name, new Set([...range.getClientRects()].map(({top}) => Math.round(top / 12))).size];
        }))""")
        assert lines["short_id"] == lines["error"] == lines["host"] == 1, (pixels, lines)


def test_a_failed_job_tells_its_cause_with_the_figures_that_its_group_goes_without(operator: Client) -> None:
    job = baker.make(CoverJob, title="Song", status="running", stage="infer", attempt=1, worker="w", host="gpu-1")
    job.fail("inference_failed", detail="it exited with status 1\ntorch.OutOfMemoryError: Tried to allocate 2.31 GiB")
    job.refresh_from_db()
    assert "#" in job.cause
    html = operator.get(reverse("admin:covers_coverjob_change", args=[job.pk])).content.decode()
    assert "<code>torch.OutOfMemoryError: Tried to allocate 2.31 GiB</code>" in html


def test_a_jobs_page_changes_while_it_runs_and_shows_its_result_when_it_has_ended(
    browser: Browser, live_server: Any
) -> None:
    job = baker.make(CoverJob, title="Song", status="running", stage="infer", progress=20, attempt=1, worker="w")
    browser.open(f"{live_server.url}{reverse('admin:covers_coverjob_change', args=[job.pk])}")
    browser.wait("document.body.innerText.includes('20 %')")
    assert job.beat("infer", 61, "engine: <b>singing</b> part 3")
    browser.wait("document.body.innerText.includes('61 %')")
    browser.wait("document.querySelector('.console-stderr').innerText.includes('<b>singing</b> part 3')")
    assert job.succeed(24)
    browser.wait("document.querySelector('.console-badge.is-succeeded')")
    assert browser.wait("!document.getElementById('console-live').dataset.refresh")
    assert not browser.complaints
