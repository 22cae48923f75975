"""OpenTelemetry traces, where OTEL_EXPORTER_OTLP_ENDPOINT is set: request -> job -> stage, over all processes.

A job's row keeps the trace context of the request that made it (`trace_parent`), so that whichever worker takes it goes
on with the same trace; a stage's command finds its own in TRACEPARENT. Spans carry ids and codes, never a text, a file
name, a key or the message of an exception.

opentelemetry-sdk and its exporter are imported with the first span, and need not be installed where nothing asks for
them; checks.py says so where something does.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.conf import settings

from voiceproject import __version__
from voiceproject.telemetry.logging import bind

log = logging.getLogger(__name__)

PACKAGES = "opentelemetry-sdk==1.45.2 opentelemetry-exporter-otlp-proto-http==1.45.2"

_lock = threading.Lock()


@functools.cache
def _provider() -> Any:
    """The SDK's tracer provider of this process; None where tracing is off or its packages are missing."""
    if not settings.OTEL_EXPORTER_OTLP_ENDPOINT:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        log.error("no traces are sent: %s; pip install %s", error, PACKAGES)
        return None
    attributes = {"service.version": __version__}
    if "OTEL_SERVICE_NAME" not in os.environ and "service.name" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        attributes["service.name"] = "voiceproject"
    provider = TracerProvider(resource=Resource.create(attributes))
    exporter = OTLPSpanExporter(endpoint=f"{settings.OTEL_EXPORTER_OTLP_ENDPOINT}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def enabled() -> bool:
    if not settings.OTEL_EXPORTER_OTLP_ENDPOINT:
        return False
    with _lock:
        return _provider() is not None


@contextmanager
def span(
    name: str, parent: str = "", attributes: Mapping[str, Any] | None = None, *, server: bool = False
) -> Iterator[Any]:
    """A span around the block, current within it; gives the SDK's span, or None while tracing is off.

    parent: a `traceparent` from another process; the current span where it is empty. A block that
    raises marks the span as failed, with the exception's type and no more. Log lines carry the trace's id.
    """
    if not enabled():
        yield None
        return
    from opentelemetry import trace

    started = start(name, parent, attributes, server=server)
    with trace.use_span(started, end_on_exit=False, record_exception=False, set_status_on_exception=False):
        try:
            with bind(trace_id=f"{started.get_span_context().trace_id:032x}"):
                yield started
        except BaseException as error:
            end(started, type(error).__name__)
            raise
        end(started)


def start(name: str, parent: str = "", attributes: Mapping[str, Any] | None = None, *, server: bool = False) -> Any:
    """A span that is not made current, for what outlives a block; to be given to `end`. None while tracing is off."""
    if not enabled():
        return None
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract({"traceparent": parent}) if parent else None
    kind = trace.SpanKind.SERVER if server else trace.SpanKind.INTERNAL
    return _provider().get_tracer("voiceproject").start_span(name, context, kind, attributes)


def end(started: Any, failure: str = "") -> None:
    """Ends a span of `start`; failure: a code or an exception's type."""
    if started is None:
        return
    if failure:
        mark_failed(started, failure)
    started.end()


def mark_failed(started: Any, failure: str) -> None:
    """A span stands for what went wrong, though no exception leaves its block."""
    if started is None:
        return
    from opentelemetry.trace import Status, StatusCode

    started.set_attribute("error.type", failure)
    started.set_status(Status(StatusCode.ERROR))


def traceparent() -> str:
    """The current span for another process, as W3C Trace Context writes it; empty where there is none."""
    if not enabled():
        return ""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent", "")


def close() -> None:
    """Sends what has not been sent yet; at the end of a process that calls no atexit handlers."""
    with _lock:
        if _provider.cache_info().currsize and (provider := _provider()) is not None:
            provider.shutdown()
