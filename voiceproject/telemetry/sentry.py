"""Errors to Sentry, where SENTRY_DSN is set: what was logged as an error, and where it happened.

Nothing that a client has sent goes there. An exception's message, a log line's values and local variables may hold a
text to be spoken, a file name or a key, so an event is not stripped of what is known to be secret, but put together
anew from what cannot be: types, code, line numbers, the fixed part of the log line, and our own ids. The whole story is
in the log, under the same request id.
"""

from __future__ import annotations

import logging
from typing import Any

from django.conf import settings

from voiceproject import __version__
from voiceproject.telemetry.logging import bound

log = logging.getLogger(__name__)

PACKAGES = "sentry-sdk==2.75.0"
IDS = ("request_id", "job", "synthesis", "tenant", "key", "trace_id", "stage")


def start() -> None:
    """Does nothing where SENTRY_DSN is empty; a missing package is logged, and checks.py says so too."""
    if not settings.SENTRY_DSN:
        return
    try:
        import sentry_sdk
        from sentry_sdk.integrations.atexit import AtexitIntegration
        from sentry_sdk.integrations.logging import LoggingIntegration
    except ImportError:
        log.error("nothing is sent to Sentry: pip install %s", PACKAGES)
        return
    sentry_sdk.init(
        dsn=settings.SENTRY_DSN,
        release=f"voiceproject@{__version__}",
        server_name=settings.WORKER_HOST,
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[
            LoggingIntegration(level=None, event_level=logging.ERROR),
            AtexitIntegration(callback=lambda pending, timeout: None),
        ],
        before_send=scrub,
        before_send_transaction=lambda event, hint: None,
        max_breadcrumbs=0,
        max_request_body_size="never",
        include_local_variables=False,
        send_default_pii=False,
        auto_session_tracking=False,
        send_client_reports=False,
        shutdown_timeout=2,
    )


def flush() -> None:
    """Sends what has not been sent yet; at the end of a process that calls no atexit handlers."""
    if settings.SENTRY_DSN:
        try:
            import sentry_sdk
        except ImportError:
            return
        sentry_sdk.flush(timeout=2)


_KEPT = ("event_id", "timestamp", "level", "platform", "logger", "release", "environment", "server_name", "sdk")
_FRAME = (
    "filename", "abs_path", "function", "module", "lineno", "in_app", "pre_context", "context_line", "post_context",
)  # fmt: skip


def scrub(event: Any, hint: Any = None) -> Any:
    """The event anew, from what may leave this machine."""
    kept = {name: event[name] for name in _KEPT if name in event}
    kept["tags"] = {name: value for name, value in bound().items() if name in IDS}
    template = event.get("logentry", {}).get("message") or event.get("message")
    if template:
        kept["logentry"] = {"message": str(template)}
    if event.get("exception"):
        kept["exception"] = {"values": [_exception(value) for value in event["exception"].get("values", ())]}
    return kept


def _exception(value: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value[name] for name in ("type", "module") if value.get(name)}
    mechanism = value.get("mechanism") or {}
    kept["mechanism"] = {
        name: mechanism[name]
        for name in ("type", "handled", "exception_id", "parent_id", "is_exception_group")
        if name in mechanism
    }
    frames = (value.get("stacktrace") or {}).get("frames", ())
    kept["stacktrace"] = {"frames": [{name: frame[name] for name in _FRAME if name in frame} for frame in frames]}
    return kept
