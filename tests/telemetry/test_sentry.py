"""What leaves for Sentry: against an HTTP endpoint that takes its envelopes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from django.conf import settings

from tests.fakes.collectors import Collectors
from voiceproject.telemetry.sentry import scrub

# Everything that could give a secret away does: the exception's and its cause's message, local variables, the values
# and extras of the log line, its other ids, the command line.
BROKEN = """
import logging, sys
from django.conf import settings
settings.configure(SENTRY_DSN=sys.argv[2], WORKER_HOST="host-1")
from voiceproject.telemetry import sentry
sentry.start()
logging.basicConfig()
from voiceproject.telemetry.logging import bind
log = logging.getLogger("voiceproject.errors")
SECRET = sys.argv[1]
def speak(text):
    try:
        int(text)
    except ValueError as error:
        raise RuntimeError(f"cannot speak {text!r}") from error
with bind(request_id="r-1", job="j-1", tenant=7, key=9, text=SECRET):
    log.info("about %s", SECRET)
    log.warning("a warning about %s", SECRET)
    try:
        speak(SECRET)
    except RuntimeError as error:
        log.error("no speech of %s", SECRET, exc_info=error, extra={"path": SECRET})
"""
SECRET = "vck_swordfish-秘密"


@pytest.fixture
def collectors() -> Iterator[Collectors]:
    collectors = Collectors()
    yield collectors
    collectors.close()


def test_an_error_tells_where_and_which_but_nothing_that_a_client_sent(collectors: Collectors) -> None:
    process = subprocess.run(
        [sys.executable, "-c", BROKEN, SECRET, f"http://public@127.0.0.1:{collectors.port}/1"],
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    assert SECRET in process.stderr, "the operator's own log has it"
    (event,) = collectors.events
    assert b"swordfish" not in collectors.raw
    assert "秘密".encode() not in collectors.raw and b"\\u79d8" not in collectors.raw
    assert event["tags"] == {"request_id": "r-1", "job": "j-1", "tenant": "7", "key": "9"}
    assert event["logentry"] == {"message": "no speech of %s"}
    assert [value["type"] for value in event["exception"]["values"]] == ["ValueError", "RuntimeError"]
    frames = event["exception"]["values"][-1]["stacktrace"]["frames"]
    assert (frames[-1]["function"], frames[-1]["module"]) == ("speak", "__main__")
    assert BROKEN.splitlines()[frames[-1]["lineno"] - 1].strip().startswith("raise RuntimeError")
    assert (event["level"], event["logger"], event["server_name"]) == ("error", "voiceproject.errors", "host-1")


def test_what_a_newer_sdk_adds_stays_here() -> None:
    event = {
        "event_id": "1",
        "request": {"headers": {"X-API-Key": SECRET}, "data": SECRET},
        "user": {"id": SECRET},
        "breadcrumbs": {"values": [{"message": SECRET}]},
        "extra": {"sys.argv": [SECRET]},
        "contexts": {"anything": SECRET},
        "logentry": {"message": "fixed %s", "formatted": SECRET, "params": [SECRET]},
        "exception": {
            "values": [
                {
                    "type": "KeyError",
                    "value": SECRET,
                    "mechanism": {"type": "logging", "handled": True, "data": {"x": SECRET}},
                    "stacktrace": {"frames": [{"function": "f", "vars": {"text": SECRET}}], "registers": SECRET},
                }
            ]
        },
        "threads": {"values": [{"name": SECRET}]},
    }
    kept = scrub(event)
    assert SECRET not in repr(kept)
    assert kept["exception"]["values"][0]["type"] == "KeyError"
    assert kept["exception"]["values"][0]["stacktrace"]["frames"] == [{"function": "f"}]


def test_what_is_off_is_not_even_imported() -> None:
    code = (
        "import sys\nfrom django.conf import settings\n"
        "settings.configure(SENTRY_DSN='', OTEL_EXPORTER_OTLP_ENDPOINT='')\n"
        "from voiceproject.telemetry import sentry, tracing\n"
        "sentry.start()\nwith tracing.span('x') as span: assert span is None\n"
        "print([name for name in sys.modules if name.startswith(('sentry_sdk', 'opentelemetry'))])"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=settings.BASE_DIR, capture_output=True, text=True, timeout=60
    )
    assert process.stdout == "[]\n", process.stderr
