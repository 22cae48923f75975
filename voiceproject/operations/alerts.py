"""Alerts without Prometheus: an e-mail or a webhook for operators, once when something is wrong, once when it is over.

Each web and worker process looks once a minute. What it finds is a row of `Alert`, which all of them share: whoever
sets its time first sends the message, and takes it back where that did not work, so that the next look tries again.
Something has to be wrong, and to be well again, for a minute before it is told.
"""

from __future__ import annotations

import json
import logging
import shutil
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.db import DatabaseError, close_old_connections, connection
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from voiceproject import __version__
from voiceproject.http_client import CallError, Session
from voiceproject.jobs.status import JobStatus
from voiceproject.operations.health import check_storage, check_workers
from voiceproject.operations.models import Alert
from voiceproject.provenance import signer
from voiceproject.registry import registry

log = logging.getLogger(__name__)

LOOK_SECONDS = 60.0
LASTING_SECONDS = 60.0  # how long something is wrong, or well again, before it is told
SEND_SECONDS = 10.0
FAILED_LEAST = 5  # of one kind of job in an hour, whatever their share
CERTIFICATE_SECONDS = 3600.0  # between two looks at certificates

Trouble = tuple[str, str]  # the name of an alert, and what is wrong


class NotSent(Exception):
    """The message could not be delivered; the text is for the log."""


# --- what is looked at: each yields what is wrong, and names what it could look at ---


def workers() -> Iterator[Trouble]:
    fine, told = check_workers()
    if not fine:
        yield "workers", f"No worker takes jobs ({told})."


def failures() -> Iterator[Trouble]:
    if not settings.ALERT_FAILED_PERCENT:
        return
    since = timezone.now() - timedelta(hours=1)
    for kind in registry.job_kinds:
        failed = kind.model.objects.exclude(error="").filter(finished_at__gt=since).order_by().count()
        if failed < FAILED_LEAST:
            continue
        done = kind.model.objects.filter(status=JobStatus.SUCCEEDED, created_at__gt=since).order_by().count()
        share = 100 * failed / (failed + done)
        if share >= settings.ALERT_FAILED_PERCENT:
            yield f"failures {kind.queue}", f"{failed} of {failed + done} jobs of {kind.queue} failed in the last hour."


def disk() -> Iterator[Trouble]:
    usage = shutil.disk_usage(settings.DATA_DIR)
    used = 100 * (usage.total - usage.free) / usage.total
    state = check_storage()
    name = f"disk {settings.WORKER_HOST}"
    if used >= settings.ALERT_DISK_PERCENT:
        yield name, f"The disk of {settings.WORKER_HOST} is {used:.0f} % full."
    elif state != "ok":
        yield name, f"The storage of {settings.WORKER_HOST} is {state}."


def engine() -> Iterator[Trouble]:
    health = registry.engine.health()
    if not health.available:
        yield "engine", f"The speech engine {health.name} is not available: {health.detail}"


def certificates() -> Iterator[Trouble]:
    url = urlsplit(settings.PUBLIC_URL)
    if url.scheme == "https" and url.hostname:
        shown = _site.shown(url.hostname, url.port or 443)
        if isinstance(shown, datetime):
            yield from ending("certificate of the site", f"The certificate of {url.hostname}", shown)
        else:
            yield "certificate of the site", f"The certificate of {url.hostname} cannot be looked at: {shown}"
    if settings.C2PA_CERT:
        try:
            yield from ending("certificate of the signer", "The signing certificate", signer.load().expires_at)
        except signer.BadSigner as error:
            yield "certificate of the signer", f"The signing certificate cannot be used: {error}"


def ending(name: str, what: str, at: datetime) -> Iterator[Trouble]:
    left = at - timezone.now()
    if left < timedelta(0):
        yield name, f"{what} ended on {at:%Y-%m-%d}."
    elif left < timedelta(days=settings.ALERT_CERTIFICATE_DAYS):
        yield name, f"{what} ends on {at:%Y-%m-%d}."


def tls_ends_at(host: str, port: int) -> datetime:
    """When the certificate that a server shows ends, whoever has signed it. Raises OSError, ValueError."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((host, port), timeout=SEND_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        shown = secure.getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(shown or b"").not_valid_after_utc


class _Site:
    """The certificate of PUBLIC_URL, asked for once an hour only."""

    def __init__(self) -> None:
        self._asked_at = -CERTIFICATE_SECONDS
        self._found: datetime | str = ""

    def shown(self, host: str, port: int) -> datetime | str:
        """When it ends, or why that is not known."""
        if time.monotonic() - self._asked_at > CERTIFICATE_SECONDS or isinstance(self._found, str):
            self._asked_at = time.monotonic()
            try:
                self._found = tls_ends_at(host, port)
            except (OSError, ValueError) as error:
                self._found = str(error)
        return self._found


_site = _Site()

# Each with what the names of its alerts begin with: one that it does not find any more is over.
LOOKS: tuple[tuple[str, Callable[[], Iterator[Trouble]]], ...] = (
    ("workers", workers),
    ("failures", failures),
    (f"disk {settings.WORKER_HOST}", disk),
    ("engine", engine),
    ("certificate", certificates),
)


# --- telling ---


def wanted() -> bool:
    return bool(settings.ALERT_EMAILS or settings.ALERT_WEBHOOK_URL)


def look() -> None:
    """Finds what is wrong, and tells what is new and what is over. What cannot be looked at stays as it was."""
    for prefix, find in LOOKS:
        try:
            found = dict(find())
        except DatabaseError:
            raise
        except Exception:
            log.warning("one thing could not be looked at for alerts: %s", prefix, exc_info=True)
            continue
        for name, summary in found.items():
            _still(name, summary[:300])
        known = Alert.objects.filter(Q(name=prefix) | Q(name__startswith=f"{prefix} "))
        for alert in known.exclude(name__in=found):
            _over(alert)


def _still(name: str, summary: str) -> None:
    alert, _new = Alert.objects.get_or_create(name=name, defaults={"summary": summary})
    # Wrong again before its all-clear was sent: it was never over.
    Alert.objects.filter(pk=name).update(seen_at=Now(), summary=summary, cleared_at=None)
    due = Alert.objects.filter(pk=name, told_at=None, since__lte=Now() - timedelta(seconds=LASTING_SECONDS))
    if due.update(told_at=Now()):
        alert.refresh_from_db()
        _tell(alert, firing=True, take_back={"told_at": None})


def _over(alert: Alert) -> None:
    quiet = Alert.objects.filter(pk=alert.pk, seen_at__lte=Now() - timedelta(seconds=LASTING_SECONDS))
    if alert.told_at is None:
        quiet.filter(told_at=None).delete()  # Nobody heard of it.
    elif quiet.filter(cleared_at=None).update(cleared_at=Now()):
        if _tell(alert, firing=False, take_back={"cleared_at": None}):
            Alert.objects.filter(pk=alert.pk, cleared_at__isnull=False).delete()
    else:
        # Whoever was to send the all-clear ended on the way.
        stuck = Now() - timedelta(seconds=10 * LASTING_SECONDS)
        quiet.filter(cleared_at__lte=stuck).update(cleared_at=None)


def _tell(alert: Alert, *, firing: bool, take_back: dict[str, Any]) -> bool:
    try:
        send(alert.name, alert.summary, alert.since, firing=firing)
    except NotSent as error:
        log.error("an alert could not be sent: %s", error, extra={"alert": alert.name})
        Alert.objects.filter(pk=alert.pk).update(**take_back)
        return False
    log.warning("operators were alerted: %s", alert.summary, extra={"alert": alert.name, "firing": firing})
    return True


def send(name: str, summary: str, since: datetime, *, firing: bool) -> None:
    """To each channel that is set. Raises NotSent when none of them took it."""
    site = urlsplit(settings.PUBLIC_URL).netloc or settings.WORKER_HOST
    title = f"[{site}] {summary}" if firing else f"[{site}] All clear: {summary}"
    lines = [summary if firing else f"This is over: {summary}", f"Since {since:%Y-%m-%d %H:%M:%S} UTC."]
    if settings.PUBLIC_URL:
        lines.append(f"{settings.PUBLIC_URL.rstrip('/')}/admin/")
    channels: list[Callable[[], None]] = []
    if settings.ALERT_EMAILS:
        channels.append(lambda: _send_email(title, "\n".join(lines)))
    if settings.ALERT_WEBHOOK_URL:
        told = {"text": f"{title}\n{lines[1]}", "alert": name, "state": "firing" if firing else "resolved",
                "summary": summary, "since": since.isoformat(), "site": site}  # fmt: skip
        channels.append(lambda: _send_webhook(told))
    wrong = []
    for channel in channels:
        try:
            channel()
        except NotSent as error:
            wrong.append(str(error))
    if wrong and len(wrong) == len(channels):
        raise NotSent("; ".join(wrong))
    for text in wrong:
        log.error("an alert went to one of two places: %s", text, extra={"alert": name})


def _send_email(subject: str, body: str) -> None:
    message = EmailMessage(" ".join(subject.split())[:200], body, settings.DEFAULT_FROM_EMAIL, settings.ALERT_EMAILS)
    message.connection = get_connection()
    try:
        message.send()
    except (OSError, smtplib.SMTPException) as error:
        raise NotSent(f"e-mail: {error}") from error


def _send_webhook(told: dict[str, Any]) -> None:
    headers = {"Content-Type": "application/json", "User-Agent": f"voiceproject/{__version__}"}
    deadline = time.monotonic() + SEND_SECONDS
    try:
        with (
            Session() as session,
            session.call("POST", settings.ALERT_WEBHOOK_URL, deadline, body=json.dumps(told).encode(), headers=headers)
            as answer,
        ):  # fmt: skip
            if not 200 <= answer.status_code < 300:
                raise NotSent(f"webhook: answered {answer.status_code}")
    except CallError as error:
        raise NotSent(f"webhook: {error}") from error


# --- the thread ---


def start() -> None:
    """In each web and worker process, where there is somebody to tell."""
    if wanted():
        threading.Thread(target=_run, name="alerts", daemon=True).start()


def _run() -> None:
    while True:
        time.sleep(LOOK_SECONDS)
        try:
            close_old_connections()
            look()
        except DatabaseError as error:
            log.warning("no look for alerts, the database cannot be reached: %s", error)
        finally:
            connection.close()
