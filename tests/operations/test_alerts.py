"""Alerts by e-mail and webhook: each once, with an all-clear."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from django.core import mail
from django.utils import timezone
from model_bakery import baker

from covers.models import CoverJob
from tests.fakes.engine import FakeEngine
from voiceproject.jobs.models import WorkerHost
from voiceproject.operations import alerts
from voiceproject.operations.models import Alert
from voices.engines.interface import EngineHealth

pytestmark = pytest.mark.django_db


class Receiver(HTTPServer):
    """Takes webhooks, and answers with `status`."""

    def __init__(self) -> None:
        self.status = 204
        self.told: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.server.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def receiver(settings: Any, engine: FakeEngine) -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    settings.ALERT_WEBHOOK_URL = f"http://127.0.0.1:{server.server_port}/hook"
    settings.ALERT_EMAILS = ["ops@example.com"]
    settings.PUBLIC_URL = ""
    settings.ALERT_DISK_PERCENT = 100
    WorkerHost.objects.create(name="gpu-1", seen_at=timezone.now())
    yield server
    server.shutdown()
    server.server_close()


def later(seconds: float = 61.0) -> None:
    """The times of all alerts move into the past."""
    for alert in Alert.objects.all():
        past = {name: getattr(alert, name) - timedelta(seconds=seconds) for name in ("since", "seen_at")}
        Alert.objects.filter(pk=alert.pk).update(**past)


def states(receiver: Receiver) -> list[tuple[str, str]]:
    return [(told["alert"], told["state"]) for told in receiver.told]


def test_what_is_wrong_is_told_once_and_its_end_once(receiver: Receiver) -> None:
    alerts.look()
    assert not Alert.objects.exists()
    WorkerHost.objects.update(draining=True)
    alerts.look()
    assert receiver.told == []  # It may be over in a moment.
    for _ in range(3):
        later()
        alerts.look()
    assert states(receiver) == [("workers", "firing")]
    assert "No worker takes jobs (1 alive, all draining)." in receiver.told[0]["text"]
    (email,) = mail.outbox
    assert email.to == ["ops@example.com"] and "No worker takes jobs" in email.subject
    WorkerHost.objects.update(draining=False)
    alerts.look()
    assert len(receiver.told) == 1  # It may come back in a moment.
    for _ in range(3):
        later()
        alerts.look()
    assert states(receiver) == [("workers", "firing"), ("workers", "resolved")]
    assert "All clear" in mail.outbox[1].subject and len(mail.outbox) == 2
    assert not Alert.objects.exists()


def test_two_processes_tell_it_once(receiver: Receiver) -> None:
    WorkerHost.objects.update(draining=True)
    alerts.look()
    later()
    stale = Alert.objects.get()
    alerts.look()
    alerts._still(stale.name, stale.summary)
    assert states(receiver) == [("workers", "firing")]


def test_what_is_over_before_it_was_told_is_never_told(receiver: Receiver) -> None:
    WorkerHost.objects.update(draining=True)
    alerts.look()
    WorkerHost.objects.update(draining=False)
    later()
    alerts.look()
    assert receiver.told == [] and mail.outbox == [] and not Alert.objects.exists()


def test_a_message_that_nobody_took_is_sent_again(receiver: Receiver, settings: Any) -> None:
    settings.ALERT_EMAILS = []
    receiver.status = 500
    WorkerHost.objects.update(draining=True)
    alerts.look()
    later()
    alerts.look()
    assert Alert.objects.get().told_at is None
    receiver.status = 204
    alerts.look()
    assert states(receiver) == [("workers", "firing")] * 2
    assert Alert.objects.get().told_at is not None


def test_many_failures_a_full_disk_and_an_engine_that_is_away(
    receiver: Receiver, settings: Any, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = timezone.now()
    baker.make(CoverJob, status="succeeded", finished_at=now, _quantity=4)
    baker.make(CoverJob, status="failed", error="mix_failed", finished_at=now, _quantity=4)
    baker.make(CoverJob, status="failed", error="mix_failed", finished_at=now - timedelta(hours=2), _quantity=9)
    assert dict(alerts.failures()) == {}  # Four are few.
    baker.make(CoverJob, status="failed", error="mix_failed", finished_at=now)
    assert dict(alerts.failures()) == {"failures covers": "5 of 9 jobs of covers failed in the last hour."}
    settings.ALERT_FAILED_PERCENT = 60
    assert dict(alerts.failures()) == {}
    settings.ALERT_DISK_PERCENT = 1
    ((name, text),) = alerts.disk()
    assert name == f"disk {settings.WORKER_HOST}" and "% full" in text
    monkeypatch.setattr(engine, "health", lambda: EngineHealth("gptsovits", available=False, detail="refused"))
    assert dict(alerts.engine()) == {"engine": "The speech engine gptsovits is not available: refused"}


def test_one_host_does_not_clear_the_disk_of_another_whose_name_begins_alike(receiver: Receiver, settings: Any) -> None:
    past = timezone.now() - timedelta(hours=1)
    other = Alert.objects.create(name=f"disk {settings.WORKER_HOST}0", summary="full", seen_at=past, told_at=past)
    alerts.look()
    assert Alert.objects.filter(pk=other.pk).exists() and receiver.told == []


def test_a_certificate_is_told_before_it_ends(settings: Any) -> None:
    settings.ALERT_CERTIFICATE_DAYS = 14
    for days, words in ((20, None), (13, "ends on"), (-1, "ended on")):
        found = list(alerts.ending("certificate", "It", timezone.now() + timedelta(days=days)))
        assert found[0][1].startswith(f"It {words}") if words else found == [], days


def test_a_look_that_breaks_leaves_the_others_and_what_it_knew(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks() -> Any:
        raise RuntimeError("no")
        yield

    Alert.objects.create(name="engine", summary="away", seen_at=timezone.now() - timedelta(hours=1))
    monkeypatch.setattr(alerts, "LOOKS", (("engine", breaks), ("workers", alerts.workers)))
    WorkerHost.objects.update(draining=True)
    alerts.look()
    assert set(Alert.objects.values_list("name", flat=True)) == {"engine", "workers"}
