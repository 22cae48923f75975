"""Webhooks: events written with a job's end, and sent to a real receiver on this machine."""

from __future__ import annotations

import functools
import http.server
import ipaddress
import json
import socket
import ssl
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone
from model_bakery import baker
from rest_framework.test import APIClient
from standardwebhooks import Webhook, WebhookVerificationError

from covers.models import CoverJob
from tests.fakes.engine import FakeEngine
from tests.support.audio import upload, wav_bytes
from tests.support.covers import RATE, song
from tests.support.jobs import claim, silent_for
from tests.support.missing import needs
from tests.support.tenants import Tenant
from tests.support.threads import in_thread, together
from tests.support.waiting import until
from voiceproject.jobs.broker import this_worker
from voiceproject.operations import worker
from voiceproject.tenants.models import AuditEntry
from voiceproject.tenants.models import Tenant as TenantRow
from voiceproject.webhooks import deliveries, safe_http
from voiceproject.webhooks.models import WebhookDelivery
from voices.speech.models import Synthesis

pytestmark = pytest.mark.django_db(transaction=True)

LOG = "/api/v1/webhooks/deliveries"
SECRET = "/api/v1/webhooks/secret"
URL = "/api/v1/cover/jobs"


class Receiver(http.server.ThreadingHTTPServer):
    """Answers `answers` in turn, the last one for ever; keeps what it was sent as (path, headers, body)."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[int] = [204]
        self.habit: Callable[[http.server.BaseHTTPRequestHandler], None] | None = None
        self.arrived = threading.Event()
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/hook?a=b"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up early are what some tests are about."""

    def stop(self) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answers = self.server.answers
        self.server.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        self.server.arrived.set()
        if self.server.habit:
            self.server.habit(self)
            return
        self.send_response(answers.pop(0) if len(answers) > 1 else answers[0])
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    settings.WEBHOOK_ALLOW_HTTP = True
    settings.WEBHOOK_ALLOWED_NETWORKS = [ipaddress.ip_network("127.0.0.0/8")]
    settings.PUBLIC_URL = "https://voice.example.com"
    server = Receiver()
    yield server
    server.stop()


def running(user: User, url: str, **fields: Any) -> CoverJob:
    """A job of the user that runs as this process's."""
    TenantRow.objects.get_or_create(user=user)
    baker.make(CoverJob, tenant=user, stage="queued", callback_url=url, callback_base="http://testserver", **fields)
    job = claim()
    assert job is not None
    return job


def ended(user: User, url: str) -> WebhookDelivery:
    job = running(user, url)
    assert job.fail("timed_out")
    return WebhookDelivery.objects.get(job_id=job.pk)


def make_due(delivery: WebhookDelivery) -> None:
    WebhookDelivery.objects.filter(pk=delivery.pk).update(next_attempt_at=Now() - timedelta(seconds=1))


def attempt(delivery: WebhookDelivery) -> WebhookDelivery:
    make_due(delivery)
    assert deliveries.deliver(delivery.pk)
    delivery.refresh_from_db()
    return delivery


def join_senders() -> None:
    """Waits for the threads that send, so that none of them reaches into the next test."""
    for thread in threading.enumerate():
        if thread.name == "webhook":
            thread.join(10)


def names(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Answers of the DNS for every name, in turn, the last one for ever; returns the list of names asked for."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: str, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host[0].isdigit() or ":" in host:
            return real(host, port, *args, **kwargs)
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


# --- what is sent ---


def test_a_cover_tells_its_receiver_what_the_api_would_say(
    receiver: Receiver, api: APIClient, engine: FakeEngine, reference_wav: bytes
) -> None:
    form = {"song": upload(wav_bytes(song(), RATE), "song.wav"), "reference_voice": upload(reference_wav)}
    response = api.post(URL, {**form, "callback_url": receiver.url})
    assert response.status_code == 202, response.content
    job = claim()
    assert job is not None
    job.result = job.result.storage.save(f"{job.folder}/1-result.wav", ContentFile(b"RIFF"))
    assert job.succeed(24, result=job.result)
    delivery = WebhookDelivery.objects.get()
    assert deliveries.deliver(delivery.pk)

    [(path, headers, body)] = receiver.requests
    assert path == "/hook?a=b"
    assert headers["host"] == f"127.0.0.1:{receiver.server_port}"
    secret = api.get(SECRET).json()["secret"]
    assert secret.startswith("whsec_")
    event = Webhook(secret).verify(body, headers)
    assert event["type"] == "cover.succeeded"
    shown = api.get(f"{URL}/{job.pk}").json()
    links = {name: link and link.replace("http://testserver", "https://voice.example.com")
             for name, link in shown["links"].items()}  # fmt: skip
    assert event["data"] == {**shown, "links": links}
    assert links["result"].startswith("https://voice.example.com/api/v1/cover/jobs/")
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body.replace(b"cover", b"c0ver"), headers)
    [row] = api.get(LOG).json()["results"]
    assert (row["status"], row["attempts"], row["last_status"], row["last_error"]) == ("delivered", 1, 204, None)
    assert row["webhook_id"] == headers["webhook-id"]


def test_every_end_writes_one_event_and_no_end_none(receiver: Receiver, tenant: Tenant) -> None:
    types = lambda job: list(WebhookDelivery.objects.filter(job_id=job.pk).values_list("type", flat=True))  # noqa: E731
    won = running(tenant.user, receiver.url)
    assert won.succeed(1) and not won.succeed(1) and not won.fail("timed_out") and not won.cancel()
    assert types(won) == ["cover.succeeded"]
    canceled = running(tenant.user, receiver.url, vocals="covers/x/1-vocals.wav")
    assert tenant.client.post(f"{URL}/{canceled.pk}/cancel").status_code == 200
    assert not canceled.succeed(1)
    assert types(canceled) == ["cover.canceled"]
    told = json.loads(WebhookDelivery.objects.get(job_id=canceled.pk).payload)["data"]["links"]
    assert told["vocals"] is None
    lost = running(tenant.user, receiver.url)
    silent_for(lost, 60)
    CoverJob.recover(30, max_attempts=1)
    assert types(lost) == ["cover.failed"]
    assert lost.retry() is True
    assert types(lost) == ["cover.failed"]
    assert lost.cancel() and not lost.cancel()
    assert sorted(types(lost)) == ["cover.canceled", "cover.failed"]
    quiet = running(tenant.user, "")
    assert quiet.succeed(1)
    assert types(quiet) == []
    synthesis = baker.make(Synthesis, tenant=tenant.user, status="running", callback_url=receiver.url)
    assert synthesis.succeed(1)
    assert types(synthesis) == ["synthesis.succeeded"]


def test_end_and_event_are_one_transaction(receiver: Receiver, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    job = running(tenant.user, receiver.url)

    def broken(**fields: Any) -> None:
        raise RuntimeError("the database went away")

    monkeypatch.setattr(WebhookDelivery.objects, "create", broken)
    for end in (lambda: job.succeed(1), job.cancel):
        with pytest.raises(RuntimeError):
            end()
        assert CoverJob.objects.get(pk=job.pk).status == "running"
    monkeypatch.undo()
    with pytest.raises(RuntimeError), transaction.atomic():
        assert CoverJob.objects.get(pk=job.pk).succeed(1)
        raise RuntimeError
    assert not WebhookDelivery.objects.exists()


def test_success_and_cancel_at_once_tell_of_one_end(receiver: Receiver, tenant: Tenant) -> None:
    for _ in range(5):
        job = running(tenant.user, receiver.url)
        twin = CoverJob.objects.get(pk=job.pk)
        results = together(functools.partial(job.succeed, 1), twin.cancel)
        assert sorted(results) == [False, True]
        told = WebhookDelivery.objects.get(job_id=job.pk)
        assert told.type == f"cover.{CoverJob.objects.get(pk=job.pk).status}"


# --- when it is sent ---


def test_two_workers_make_one_attempt(receiver: Receiver, tenant: Tenant) -> None:
    for _ in range(5):
        delivery = ended(tenant.user, receiver.url)
        receiver.requests.clear()
        assert sorted(together(*[functools.partial(deliveries.deliver, delivery.pk)] * 4)) == [False] * 3 + [True]
        assert len(receiver.requests) == 1


def test_a_receiver_that_was_down_is_told_when_it_is_up(receiver: Receiver, tenant: Tenant) -> None:
    port = receiver.server_port
    receiver.stop()
    delivery = attempt(ended(tenant.user, receiver.url))
    assert (delivery.status, delivery.last_status) == ("pending", None)
    assert delivery.last_error == "The connection was refused."
    wait = (delivery.next_attempt_at - timezone.now()).total_seconds()
    assert 0 < wait <= 5
    WebhookDelivery.objects.filter(pk=delivery.pk).update(next_attempt_at=Now() + timedelta(hours=1))
    assert not deliveries.deliver(delivery.pk)  # Not due.
    again = Receiver(port)
    try:
        again.answers = [503, 200]
        assert attempt(delivery).last_error == "The receiver answered 503."
        assert attempt(delivery).status == "delivered"
        first, second = (headers for _, headers, _ in again.requests)
        assert first["webhook-id"] == second["webhook-id"] == delivery.webhook_id
        assert delivery.attempts == 3
    finally:
        again.stop()


def test_retries_stretch_over_a_day_and_then_end(receiver: Receiver, tenant: Tenant) -> None:
    receiver.answers = [500]
    delivery = ended(tenant.user, receiver.url)
    waits = []
    while delivery.status == "pending":
        attempt(delivery)
        if delivery.next_attempt_at:
            waits.append((delivery.next_attempt_at - timezone.now()).total_seconds())
    assert (delivery.status, delivery.attempts) == ("failed", 11)
    assert waits == sorted(waits) and 18 * 3600 < sum(waits) <= 24 * 3600


def test_410_stops_and_a_redelivery_begins_anew(receiver: Receiver, tenant: Tenant) -> None:
    receiver.answers = [410, 500, 200]
    delivery = attempt(ended(tenant.user, receiver.url))
    assert (delivery.status, delivery.last_status, delivery.next_attempt_at) == ("failed", 410, None)
    assert not deliveries.deliver(delivery.pk)
    response = tenant.client.post(f"{LOG}/{delivery.pk}/redeliver")
    assert (response.status_code, response.json()["status"]) == (202, "pending")
    assert attempt(delivery).first_attempt == 1
    assert (delivery.next_attempt_at - timezone.now()).total_seconds() <= 5
    assert attempt(delivery).status == "delivered"
    assert len({(headers["webhook-id"], body) for _, headers, body in receiver.requests}) == 1


def test_an_attempt_under_way_is_not_doubled_and_a_dead_one_runs_out(receiver: Receiver, tenant: Tenant) -> None:
    delivery = ended(tenant.user, receiver.url)
    assert deliveries.claim(delivery.pk) is not None
    response = tenant.client.post(f"{LOG}/{delivery.pk}/redeliver")
    assert (response.status_code, response.json()["error"]) == (409, "conflict")
    assert deliveries.due() == []
    WebhookDelivery.objects.filter(pk=delivery.pk).update(claimed_until=Now() - timedelta(seconds=1))
    assert deliveries.due() == [delivery.pk]


def test_an_event_that_a_later_one_has_overtaken_is_not_sent_after_it(receiver: Receiver, tenant: Tenant) -> None:
    receiver.answers = [500, 200]
    failed = attempt(ended(tenant.user, receiver.url))
    job = CoverJob.objects.get()
    assert job.retry()
    again = claim()
    assert again is not None and again.succeed(24)
    succeeded = WebhookDelivery.objects.get(type="cover.succeeded")
    assert succeeded.sequence > failed.sequence
    assert attempt(succeeded).status == "delivered"
    make_due(failed)
    assert not deliveries.deliver(failed.pk)
    failed.refresh_from_db()
    assert (failed.status, failed.attempts, failed.next_attempt_at) == ("superseded", 1, None)
    told = [json.loads(body) for _, _, body in receiver.requests]
    assert [event["type"] for event in told] == ["cover.failed", "cover.succeeded"]
    assert [event["sequence"] for event in told] == [failed.sequence, succeeded.sequence]
    # Whoever asks for it gets it, and is told what it is.
    assert tenant.client.post(f"{LOG}/{failed.pk}/redeliver").status_code == 202
    assert attempt(failed).status == "delivered"
    last = json.loads(receiver.requests[-1][2])
    assert (last["type"], last["superseded"]) == ("cover.failed", True)


def test_a_later_event_waits_for_the_attempt_at_an_earlier_one(receiver: Receiver, tenant: Tenant) -> None:
    receiver.habit = _hang
    failed = ended(tenant.user, receiver.url)
    sending = in_thread(functools.partial(deliveries.deliver, failed.pk))
    try:
        assert receiver.arrived.wait(10)
        assert CoverJob.objects.get().cancel() is False and CoverJob.objects.get().retry()
        assert CoverJob.objects.get().cancel()
        canceled = WebhookDelivery.objects.get(type="cover.canceled")
        make_due(canceled)
        assert canceled.pk not in deliveries.due()
        assert not deliveries.deliver(canceled.pk)
    finally:
        receiver.released.set()
        sending.join(10)
    receiver.habit = None
    assert attempt(canceled).status == "delivered"
    assert [json.loads(body)["type"] for _, _, body in receiver.requests] == ["cover.failed", "cover.canceled"]


def test_the_workers_look_sends_and_a_hanging_receiver_holds_up_nothing(
    receiver: Receiver, tenant: Tenant, other: Tenant
) -> None:
    receiver.habit = _hang
    for _ in range(4):
        ended(tenant.user, receiver.url)
    quick = Receiver()
    try:
        begun = time.monotonic()
        worker.look()
        ended(other.user, quick.url)
        worker.look()
        assert quick.arrived.wait(10)
        until(lambda: len(receiver.requests) == 2)
        assert time.monotonic() - begun < safe_http.TIMEOUT_SECONDS
        assert WebhookDelivery.objects.under_way().filter(tenant=tenant.user).count() <= 2
        assert not deliveries.claim(WebhookDelivery.objects.filter(tenant=tenant.user, claimed_until=None)[0].pk)
    finally:
        receiver.released.set()
        quick.stop()
        join_senders()


def test_a_long_backlog_does_not_hide_another_tenants_event(receiver: Receiver, tenant: Tenant, other: Tenant) -> None:
    ended(tenant.user, receiver.url)
    fields = {"tenant": tenant.user, "url": receiver.url, "payload": "{}"}
    long_due = Now() - timedelta(minutes=1)
    WebhookDelivery.objects.bulk_create(
        WebhookDelivery(**fields, job_id=uuid.uuid4(), next_attempt_at=long_due) for _ in range(600)
    )
    late = ended(other.user, receiver.url)
    chosen = deliveries.due()
    assert late.pk in chosen and len(chosen) == 1 + deliveries.TENANT_SLOTS
    # One of the backlog is under way: who has none under way goes first.
    assert deliveries.claim(next(pk for pk in chosen if pk != late.pk)) is not None
    assert deliveries.due(1) == [late.pk]


@pytest.mark.parametrize("why", ["it has no way out", "it is stopping"])
def test_a_worker_that_may_not_send_leaves_the_event_to_others(
    why: str, receiver: Receiver, tenant: Tenant, settings: Any
) -> None:
    delivery = ended(tenant.user, receiver.url)
    if why == "it is stopping":
        this_worker.stopping.set()
    else:
        settings.WORKER_SENDS_WEBHOOKS = False
    try:
        worker.look()
        deliveries.send_webhook.fn(str(delivery.pk))
    finally:
        this_worker.stopping.clear()
    assert not [thread for thread in threading.enumerate() if thread.name == "webhook"]
    assert deliveries.due() == [delivery.pk]
    settings.WORKER_SENDS_WEBHOOKS = True
    deliveries.send_webhook.fn(str(delivery.pk))
    join_senders()
    assert WebhookDelivery.objects.get().status == "delivered"


# --- what is not called ---


FORBIDDEN = [
    "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.0.9", "192.0.2.1", "198.18.0.1", "198.51.100.1", "192.88.99.1",
    "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:808:808::", "2001::1", "2001:db8::1",
    "3fff::1", "::ffff:0:127.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("address", FORBIDDEN)
def test_an_address_that_is_not_public_is_not_called(address: str) -> None:
    assert not safe_http.is_allowed(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_a_public_address_is_called(address: str) -> None:
    assert safe_http.is_allowed(address)


@pytest.mark.parametrize(
    "url",
    ["http://example.com/", "ftp://example.com/", "https://user:pw@example.com/", "https://@example.com/",
     "https://example.com/#x", "https://example.com#", "https:///x", "https://example.com:0/", "https://example.com:x/",
     "https://exam ple.com/", "https://example.com/a\r\nX: y", "https://example.com\r\nX: y/", "https://exam\tple.com/",
     "https://example.com\x00/", "https://exa\x1fmple.com/", "https://example.com\\@127.0.0.1/", "//example.com/",
     "https://127.0.0.1/", "https://2130706433/", "https://0x7f.1/", "https://[::ffff:7f00:1]/", "https://localhost/",
     "https://[::1]:8000/", "https://0/", "https://example.com/" + "a" * 2000, "https://[fe80::1%25lo]/", "nonsense",
     "https://exa%6dple.com/", "https://example.com/\u00e9"],
)  # fmt: skip
def test_a_callback_that_is_not_called_is_refused_with_the_job(
    url: str, api: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def no_dns(host: str, *args: Any, **kwargs: Any) -> Any:
        if host == "example.com":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14", 443))]
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", no_dns)
    response = api.post(URL, {"callback_url": url})
    assert response.status_code == 400
    assert "callback_url" in response.json()["details"], response.json()
    good = api.post(URL, {"callback_url": "https://example.com/hook?x=%20y"})
    assert "callback_url" not in good.json()["details"]


def test_one_forbidden_address_among_others_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, ["93.184.215.14", "10.0.0.1"])
    with pytest.raises(safe_http.Refused):
        safe_http.resolve(safe_http.parse("https://hook.example/"))


def test_the_vetted_address_is_called_whatever_the_dns_says_then(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = names(monkeypatch, ["127.0.0.1"], ["10.255.255.1"])
    url = f"http://hook.example:{receiver.server_port}/x"
    assert safe_http.post(url, b"{}", {}, 5) == 204
    assert asked == ["hook.example"]
    assert receiver.requests[0][1]["host"] == f"hook.example:{receiver.server_port}"


def test_a_name_that_has_moved_inside_is_refused_at_the_delivery(
    receiver: Receiver, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    names(monkeypatch, ["127.0.0.1"], ["10.0.0.1"])
    url = f"http://hook.example:{receiver.server_port}/x"
    safe_http.resolve(safe_http.parse(url))
    delivery = attempt(ended(tenant.user, url))
    assert delivery.last_error.startswith("The host has an address that is not public.")
    assert receiver.requests == []


def test_a_redirect_is_not_followed(receiver: Receiver, tenant: Tenant) -> None:
    receiver.answers = [307]
    delivery = attempt(ended(tenant.user, receiver.url))
    assert (delivery.status, delivery.last_status, len(receiver.requests)) == ("pending", 307, 1)
    assert delivery.last_error == "The receiver answered 307. Redirects are not followed."


def _hang(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.server.released.wait(20)  # type: ignore[attr-defined]


def _drip(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 ")
    while not handler.server.released.wait(0.05):  # type: ignore[attr-defined]
        handler.wfile.write(b"x")


def _early_hints(handler: http.server.BaseHTTPRequestHandler) -> None:
    while True:
        handler.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")


def _endless_body(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        handler.wfile.write(b"x" * 65536)


@pytest.mark.parametrize("habit", [_hang, _drip, _early_hints])
def test_no_answer_in_time_is_none(receiver: Receiver, habit: Any) -> None:
    receiver.habit = habit
    begun = time.monotonic()
    with pytest.raises(safe_http.Unreachable):
        safe_http.post(receiver.url, b"{}", {}, 0.5)
    assert time.monotonic() - begun < 10


def test_of_an_endless_answer_only_the_status_is_read(receiver: Receiver) -> None:
    receiver.habit = _endless_body
    assert safe_http.post(receiver.url, b"{}", {}, 5) == 200


def _not_http(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")


def _status_600(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 600 Odd\r\n\r\n")


def _hang_up(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("habit", "reason"),
    [(_hang, "The receiver did not answer within 0.5 seconds."), (_not_http, "The receiver's answer was not HTTP."),
     (_status_600, "The receiver's answer was not HTTP."), (_hang_up, "The connection failed or broke off.")],
)  # fmt: skip
def test_the_log_says_what_was_wrong_with_an_answer(receiver: Receiver, habit: Any, reason: str) -> None:
    receiver.habit = habit
    with pytest.raises(safe_http.Unreachable) as caught:
        safe_http.post(receiver.url, b"{}", {}, 0.5)
    assert str(caught.value) == reason


def test_the_log_says_why_there_was_no_connection(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    def reason(url: str) -> str:
        with pytest.raises(safe_http.Unreachable) as caught:
            safe_http.post(url, b"{}", {}, 5)
        return str(caught.value)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        refused = f"https://127.0.0.1:{listener.getsockname()[1]}/"
    assert reason(refused) == "The connection was refused."
    assert reason(f"https://127.0.0.1:{receiver.server_port}/") == "A TLS connection could not be made."
    assert reason("https://no-such-host.invalid/") == "The host's name could not be resolved."
    ended = threading.Event()
    # Only here: at the end of the test its files are deleted, which may be in a bucket.
    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", lambda *args, **kwargs: ended.wait(20) and [])
        patched.setattr("voiceproject.http_client.RESOLVE_SECONDS", 0.2)
        assert reason("https://hook.example/") == "The host's name could not be resolved in time."
        ended.set()


def test_a_request_says_whom_it_is_for_and_is_the_last_of_its_connection(receiver: Receiver) -> None:
    assert safe_http.post(receiver.url, b"{}", {"webhook-id": "1"}, 5) == 204
    path, headers, body = receiver.requests[0]
    assert (path, body) == ("/hook?a=b", b"{}")
    assert headers == {
        "host": f"127.0.0.1:{receiver.server_port}", "content-length": "2", "webhook-id": "1", "connection": "close",
        "accept-encoding": "identity", "user-agent": headers["user-agent"],
    }  # fmt: skip


def test_tls_asks_for_the_names_certificate(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-keyout", str(key), "-out", str(certificate), "-subj", "/CN=hook.example",
         "-addext", "subjectAltName=DNS:hook.example"],
        check=True, capture_output=True,
    )  # fmt: skip
    seen: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.sni_callback = lambda connection, name, context: seen.append(name)
    receiver.socket = context.wrap_socket(receiver.socket, server_side=True)
    names(monkeypatch, ["127.0.0.1"])
    port = receiver.server_port
    with pytest.raises(safe_http.Unreachable, match="certificate"):
        safe_http.post(f"https://hook.example:{port}/", b"{}", {}, 5)  # Nobody vouches for it.
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with pytest.raises(safe_http.Unreachable, match="certificate"):
        safe_http.post(f"https://other.example:{port}/", b"{}", {}, 5)
    assert safe_http.post(f"https://hook.example:{port}/", b"{}", {}, 5) == 204
    assert seen == ["hook.example", "other.example", "hook.example"]
    assert len(receiver.requests) == 1


# --- whose it is ---


def test_a_rotated_secret_signs_on_for_a_day(receiver: Receiver, tenant: Tenant) -> None:
    first = tenant.client.get(SECRET).json()
    old = first["secret"]
    assert tenant.client.get(SECRET).json()["secret"] == old
    answer = tenant.client.post(f"{SECRET}/rotate")
    new = answer.json()["secret"]
    assert new != old and answer["Cache-Control"] == "no-store"
    entry = AuditEntry.objects.get(action="webhook_secret.rotate")
    assert (entry.tenant_id, entry.key_prefix, entry.address) == (tenant.user.pk, tenant.key.prefix, "127.0.0.1")
    assert not {old, new} & {str(value) for value in vars(entry).values()}
    assert answer.json()["created_at"] > first["created_at"]
    delivery = attempt(ended(tenant.user, receiver.url))
    _, headers, body = receiver.requests[-1]
    for secret in (old, new):
        assert Webhook(secret).verify(body, headers)["type"] == "cover.failed"
    type(deliveries.secret_of(tenant.user)).objects.update(previous_until=Now() - timedelta(seconds=1))
    deliveries.redeliver(delivery)
    attempt(delivery)
    _, headers, body = receiver.requests[-1]
    Webhook(new).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(old).verify(body, headers)


def test_another_tenants_deliveries_and_secret_are_not_there(receiver: Receiver, tenant: Tenant, other: Tenant) -> None:
    delivery = ended(tenant.user, receiver.url)
    response = other.client.post(f"{LOG}/{delivery.pk}/redeliver")
    assert (response.status_code, response.json()["error"]) == (404, "not_found")
    assert other.client.get(LOG).json()["results"] == []
    assert other.client.get(SECRET).json()["secret"] != tenant.client.get(SECRET).json()["secret"]


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [("get", SECRET, "keys"), ("post", f"{SECRET}/rotate", "keys"), ("get", LOG, "usage"),
     ("post", f"{LOG}/00000000-0000-0000-0000-000000000000/redeliver", "usage")],
)  # fmt: skip
def test_a_key_without_the_scope_may_not(method: str, path: str, scope: str) -> None:
    rest = [name for name in ("synthesize", "covers", "voices", "usage", "keys") if name != scope]
    response = getattr(Tenant("carol", scopes=rest).client, method)(path)
    assert (response.status_code, response.json()["details"]) == (403, {"scope": scope})


def test_the_log_is_filtered_and_paged(receiver: Receiver, tenant: Tenant) -> None:
    deliveries = [ended(tenant.user, receiver.url) for _ in range(3)]
    attempt(deliveries[0])
    get = lambda **query: tenant.client.get(LOG, query).json()["results"]  # noqa: E731
    assert [row["delivery_id"] for row in get(status="delivered")] == [str(deliveries[0].pk)]
    assert [row["delivery_id"] for row in get(job_id=str(deliveries[1].job_id))] == [str(deliveries[1].pk)]
    assert len(get(type="cover.failed")) == 3 and get(type="cover.succeeded") == []
    page = tenant.client.get(LOG, {"page_size": 2}).json()
    assert len(page["results"]) == 2
    assert len(tenant.client.get(page["next"]).json()["results"]) == 1
    for wrong in ({"status": "nonsense"}, {"type": "nonsense"}, {"type": "cover.queued"}):
        answer = tenant.client.get(LOG, wrong)
        assert (answer.status_code, answer.json()["error"]) == (400, "validation_error"), wrong
        assert list(answer.json()["details"]) == list(wrong)
    for kind in ("cover", "synthesis"):
        for status in ("succeeded", "failed", "canceled"):
            assert tenant.client.get(LOG, {"type": f"{kind}.{status}"}).status_code == 200


def test_old_deliveries_go_and_pending_ones_stay(receiver: Receiver, tenant: Tenant) -> None:
    done, pending, young = (ended(tenant.user, receiver.url) for _ in range(3))
    attempt(done)
    attempt(young)
    old = Now() - timedelta(hours=169)
    WebhookDelivery.objects.filter(pk__in=[done.pk, pending.pk]).update(updated_at=old)
    assert deliveries.expire() == 1
    assert set(WebhookDelivery.objects.values_list("pk", flat=True)) == {pending.pk, young.pk}


def test_the_console_sends_again(receiver: Receiver, tenant: Tenant, admin_client: Any) -> None:
    delivery = attempt(ended(tenant.user, receiver.url))
    url = "/admin/voiceproject/webhookdelivery/"
    assert admin_client.get(url).status_code == 200
    assert admin_client.get(f"{url}{delivery.pk}/change/").status_code == 200
    form = {"action": "redeliver", "_selected_action": [str(delivery.pk)]}
    assert admin_client.post(url, form).status_code == 200  # It asks first.
    assert deliveries.due() == []
    admin_client.post(url, {**form, "confirmed": "yes"})
    assert deliveries.due() == [delivery.pk]
