"""The check of the whole suite's logs (secrets_in_logs.py) finds what it is there to find."""

from __future__ import annotations

import json
import logging

import pytest

from tests.conftest import FakeEngine, Tenant, upload
from tests.secrets_in_logs import Watch, watched

log = logging.getLogger("somewhere.deep")


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite's own check does not see what is leaked here on purpose."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])


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
