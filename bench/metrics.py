"""What counting costs a request: `python -m bench.metrics` prints microseconds, and how long a scrape takes.

In-process, without HTTP: the calls that the middleware and a synthesis make, with metrics off and on, beside the thread
that writes them to disk; then the exposition over the files of 8 processes.
"""

import shutil
import tempfile
import time

from django.conf import settings

folder = tempfile.mkdtemp(prefix="bench-metrics-")
settings.configure(METRICS_TOKEN="", DATA_DIR=folder, OTEL_EXPORTER_OTLP_ENDPOINT="")

from voiceproject.telemetry import metrics, tracing  # noqa: E402

REQUESTS = 50_000


def microseconds() -> float:
    started = time.perf_counter()
    for number in range(REQUESTS):
        with tracing.span("GET"):
            begun = metrics.request_started()
        metrics.request_answered("POST", f"api/v1/route{number % 40}", 200, begun)
        metrics.first_byte("builtin", "wait")
        metrics.synthesis_made("builtin", "wait", 0.2, 2.0)
    return 1e6 * (time.perf_counter() - started) / REQUESTS


try:
    print(f"off: {microseconds():.1f} us a request")
    settings.METRICS_TOKEN = "on"
    print(f"on: {microseconds():.1f} us a request")
    metrics._process.write()
    first = next(metrics._process.folder.glob("*-*.json"))
    for number in range(7):
        shutil.copy(first, first.with_name(f"{number}-other.json"))
        first.with_name(f"{number}-other.lock").touch()
    for what in ("first, folds 7 ended processes", "second"):
        started = time.perf_counter()
        size = len(metrics.exposition())
        print(f"a scrape ({what}): {1000 * (time.perf_counter() - started):.0f} ms, {size} bytes")
    started = time.perf_counter()
    metrics._process.write()
    print(f"a write: {1000 * (time.perf_counter() - started):.1f} ms")
finally:
    shutil.rmtree(folder)
