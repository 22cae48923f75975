"""The check of the whole suite's logs (secrets_in_logs.py) finds what it is there to find."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from django.contrib.auth.models import User

from tests.fakes.engine import FakeEngine
from tests.support import secrets_in_logs
from tests.support.audio import upload
from tests.support.secrets_in_logs import Watch, watched
from tests.support.tenants import Tenant

log = logging.getLogger("somewhere.deep")


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite's own check does not see what is leaked here on purpose."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(subprocess.Popen, "__init__", subprocess.Popen.__init__.__wrapped__)
    monkeypatch.setattr(subprocess, "run", subprocess.run.__wrapped__)


def test_a_key_a_text_and_a_webhook_secret_in_a_log_are_found(
    elsewhere: None, tenant: Tenant, engine: FakeEngine, reference_wav: bytes
) -> None:
    text = 'Nobody but me\nshould read "this".'
    with watched() as watch:
        form = {"text": text, "reference_audio": upload(reference_wav)}
        assert tenant.client.post("/api/v1/voice/synthesize", form).status_code == 200
        secret = tenant.client.get("/api/v1/webhooks/secret").json()["secret"]
        assert watch.leaks() == []
        for leak in (tenant.secret, text, secret):
            before = len(watch.leaks())
            log.warning("it broke at %s", leak)
            assert len(watch.leaks()) == before + 1
        log.warning("it broke", extra={"detail": text})
        log.warning("it broke", extra={"sent": json.dumps({"key": tenant.secret})})
        try:
            raise ValueError(tenant.secret)
        except ValueError:
            log.exception("it broke")
        assert len(watch.leaks()) == 6
    assert isinstance(watch, Watch)
    assert {tenant.secret, secret, text} <= watch.secrets


def serve(output: Any, said: str, **environment: str) -> None:
    """Something that is started as a server is, and writes this."""
    arguments = [sys.executable, "-c", f"print({said!r})", "--serve"]
    subprocess.Popen(arguments, stdout=output, stderr=subprocess.STDOUT, env=environment).wait(30)


@pytest.mark.parametrize(
    ("variable", "value", "secret"),
    [
        ("METRICS_TOKEN", "a-token-for-scraping", "a-token-for-scraping"),
        ("DATABASE_URL", "postgres://voice:long-pass%2Fword@db/voice", "long-pass/word"),
        ("STORAGE_URL", "s3://AKIA:the-buckets-own-key@voices", "the-buckets-own-key"),
        ("SENTRY_DSN", "https://0123456789abcdef@host/1", "0123456789abcdef"),
        ("OTHER", "nothing", "vck_" + "k" * 40),
        ("OTHER", "nothing", "-----BEGIN EC PRIVATE KEY-----"),
    ],
)
def test_what_a_server_writes_is_looked_through_too(
    elsewhere: None, tmp_path: Path, variable: str, value: str, secret: str
) -> None:
    with watched() as watch, (tmp_path / "log").open("wb") as log:
        serve(log, "all is well", **{variable: value})
        assert watch.leaks() == []
        serve(log, f"cannot go on with {secret}", **{variable: value})
        assert watch.leaks() == [f"cannot go on with {secret}"] * 2  # Two servers share the file.
        (tmp_path / "log").unlink()
        assert len(watch.leaks()) == 2


def test_a_session_a_password_and_what_is_sent_to_a_server_are_secrets(
    elsewhere: None, tenant: Tenant, live_server: Any, client: Any
) -> None:
    with watched() as watch:
        User.objects.create_user("carol", password="carols-own-password")
        client.login(username="carol", password="carols-own-password")
        form = {"username": "carol", "password": "not-carols-password"}
        headers = {
            "Authorization": "Bearer a-key-of-somebody",
            "Cookie": "sessionid=a-stolen-session; theme=dark-and-long",
        }
        requests.post(f"{live_server.url}/account/signin", data=form, headers=headers, timeout=30)
        known = {"carols-own-password", "not-carols-password", "a-key-of-somebody", "a-stolen-session"}
        assert known | {client.session.session_key} <= watch.secrets
        assert "dark-and-long" not in watch.secrets


def test_a_server_whose_output_nobody_reads_is_not_started(elsewhere: None) -> None:
    with watched():
        for output in (None, subprocess.PIPE, subprocess.DEVNULL):
            with pytest.raises(AssertionError, match="Give its standard error a file"):
                serve(output, "nothing")


def test_what_quickstart_shows_once_is_no_leak_and_a_secret_from_then_on() -> None:
    key, password = "vck_" + "k" * 40, "a-password-of-its-own"
    greeting = f"  API key     {key}\n  Login       admin / {password}\n{secrets_in_logs.GREETING_ENDS}\n"
    early, late = f"2026-11-24T10:00:00.000Z INFO web: {key}", f"[2026-11-24 10:00:01] {password}"
    found: list[str] = []
    left = secrets_in_logs.without_greeting(f"{early}\n{greeting}{late}", found.append)
    assert (left.split("\n"), found) == ([early, late], [password])
    assert secrets_in_logs.without_greeting(late, found.append) == late


def test_a_name_of_ours_that_was_sent_as_a_text_is_no_secret(elsewhere: None) -> None:
    with watched() as watch:
        for name in ("missing_api_key", "voiceproject.access", "/api/v1/voice/models"):
            watch.add(name)
        for secret in ("k3j5h2k4j5h2k3j4", "a-token-for-scraping", "Nobody_but me"):
            watch.add(secret)
    assert watch.secrets == {"k3j5h2k4j5h2k3j4", "a-token-for-scraping", "Nobody_but me"}
