"""What Prometheus is told: counters and histograms of what processes do, added up over all processes of this machine.

Recording costs microseconds and touches memory only. A thread of each process writes its numbers to a file of its own
in DATA_DIR/metrics within seconds; whoever is asked adds the files up. Those of processes that have ended are folded
into one, so that no counter ever falls and no files gather. (prometheus_client's own way for several processes maps
its files into memory: on a full disk that kills the process that counts.)

Nothing is recorded unless METRICS_TOKEN is set. Labels take few values: route templates, statuses, names that stand in
the code; never an id, a tenant or what a client sent. deploy/grafana-dashboard.json and deploy/prometheus-alerts.yaml
name these metrics, and a test holds all three together.
"""

from __future__ import annotations

import fcntl
import json
import logging
import multiprocessing.util
import os
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from django.conf import settings
from django.utils.crypto import constant_time_compare
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import Metric

log = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
WRITE_SECONDS = 2.0

_registry = CollectorRegistry()
_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_SPEECH_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600)
_STAGE_BUCKETS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"voiceproject_{name}", text, labels, registry=_registry)


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(f"voiceproject_{name}", text, labels, buckets=buckets, registry=_registry)


_requests = _counter("http_requests_total", "HTTP requests that were answered", "method", "route", "status")
_request_seconds = _histogram(
    "http_request_seconds", "From a request's head to the start of its answer", _REQUEST_BUCKETS, "method", "route"
)
_refusals = _counter(
    "refusals_total", "Requests refused for a limit, a quota, or for want of room: 429 and 503 by error code", "error"
)
_synthesis_seconds = _histogram(
    "synthesis_seconds", "Making a synthesis, from its decoded reference to stored audio", _SPEECH_BUCKETS,
    "engine", "mode",
)  # fmt: skip
_first_byte_seconds = _histogram(
    "synthesis_first_byte_seconds", "From a request's head to the first byte of its audio", _SPEECH_BUCKETS,
    "engine", "mode",
)  # fmt: skip
_audio_seconds = _counter("synthesis_audio_seconds_total", "Seconds of speech that were made", "engine", "mode")
_stage_seconds = _histogram("cover_stage_seconds", "A stage of a cover that ended well", _STAGE_BUCKETS, "stage")
_engine_errors = _counter(
    "engine_errors_total", "Failures of a speech engine, or of a command of a cover, by class", "engine", "error"
)
_jobs_ended = _counter("jobs_ended_total", "Jobs that ended, by how", "kind", "status", "error")

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_request_started: ContextVar[float] = ContextVar("request_started")


def enabled() -> bool:
    return bool(settings.METRICS_TOKEN)


# --- What is told by those who do the work ---


def request_started() -> float:
    """Called once a request, before anything of it is read; the time.monotonic() that `request_answered` wants."""
    now = time.monotonic()
    _request_started.set(now)
    return now


def request_answered(method: str, route: str | None, status: int, started: float, error: str = "") -> float:
    """route: the template of the URL, None where none matched; error: the code in the answer, if it is one.

    Returns the seconds since `started`.
    """
    seconds = time.monotonic() - started
    if not enabled():
        return seconds
    method = method if method in _METHODS else "other"
    route = "none" if route is None else f"/{route}"
    _requests.labels(method, route, status).inc()
    _request_seconds.labels(method, route).observe(seconds)
    if status in (429, 503):
        _refusals.labels(error or "other").inc()
    _process.changed()
    return seconds


def first_byte(engine: str, mode: str) -> None:
    """The first audio of the current request is ready to be sent. mode: `wait` or `stream`."""
    started = _request_started.get(None)
    if enabled() and started is not None:
        _first_byte_seconds.labels(engine, mode).observe(time.monotonic() - started)
        _process.changed()


def synthesis_made(engine: str, mode: str, seconds: float, audio_seconds: float) -> None:
    """mode: `wait`, `stream` or `background`."""
    if enabled():
        _synthesis_seconds.labels(engine, mode).observe(seconds)
        _audio_seconds.labels(engine, mode).inc(audio_seconds)
        _process.changed()


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Around a stage of a cover; one that raises is not counted here."""
    started = time.monotonic()
    yield
    if enabled():
        _stage_seconds.labels(name).observe(time.monotonic() - started)
        _process.changed()


def engine_failed(engine: str, error: str) -> None:
    """engine: its name, or the stage whose command failed; error: a code of api.md."""
    if enabled():
        _engine_errors.labels(engine, error).inc()
        _process.changed()


def job_ended(kind: str, status: str, error: str = "") -> None:
    if enabled():
        _jobs_ended.labels(kind, status, error).inc()
        _process.changed()


# --- Over all processes ---

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def _own_samples() -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in _registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def _add(total: Samples, more: Samples) -> None:
    for key, value in more.items():
        total[key] = total.get(key, 0.0) + value


# Numbers that were counted in other buckets cannot be added to these: after such a change they begin anew.
_FORMAT = json.dumps([_REQUEST_BUCKETS, _SPEECH_BUCKETS, _STAGE_BUCKETS])


def _write(path: Path, samples: Samples, folded: Iterable[str] = ()) -> None:
    """Whole or not at all."""
    body = {
        "format": _FORMAT,
        "folded": sorted(folded),
        "samples": [[name, dict(labels), value] for (name, labels), value in samples.items()],
    }
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(body), encoding="utf-8")
    temporary.replace(path)


def _read(path: Path) -> tuple[Samples, set[str]]:
    """The samples, and the names of the files that are in them already."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, set()
    except ValueError:
        log.warning("%s is damaged; its numbers are left out", path)
        return {}, set()
    if body["format"] != _FORMAT:
        return {}, set(body["folded"])
    samples = {(name, tuple(sorted(labels.items()))): value for name, labels, value in body["samples"]}
    return samples, set(body["folded"])


class _Process:
    """This process' file, and the thread that writes it. It is locked while the process lives, also across containers
    that share DATA_DIR, where a process id says nothing."""

    ENDED = "ended.json"

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Also in a forked child, which has counted nothing of its own yet."""
        self._name = f"{os.getpid()}-{uuid.uuid4().hex}"
        self._news = threading.Event()
        self._starting = threading.Lock()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._held: Any = None  # the open file that is locked
        self._told = False  # that it cannot be written

    @property
    def folder(self) -> Path:
        return Path(settings.DATA_DIR) / "metrics"

    def changed(self) -> None:
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
                    self._thread.start()
                    # At the end of a process of multiprocessing, too, where atexit is not called.
                    multiprocessing.util.Finalize(None, self.write, exitpriority=1)
        if not self._news.is_set():
            self._news.set()

    def _run(self) -> None:
        while True:
            self._news.wait()
            time.sleep(WRITE_SECONDS)
            self._news.clear()
            self.write()

    def write(self) -> None:
        """What cannot be written is written later: counting goes on in memory."""
        with self._writing:
            try:
                if self._held is None:
                    self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                    held = open(self.folder / f"{self._name}.lock", "wb")  # noqa: SIM115 - open while the process lives
                    fcntl.flock(held, fcntl.LOCK_EX)
                    self._held = held
                _write(self.folder / f"{self._name}.json", _own_samples())
                self._told = False
            except OSError as error:
                if not self._told:
                    log.warning("metrics cannot be written: %s", error)
                self._told = True

    def total(self) -> Samples:
        """The numbers of all processes that are, and were, on this DATA_DIR."""
        total = _own_samples()
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(self.folder / "folding.lock", "wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                _add(total, self._fold())
        except OSError as error:
            log.warning("metrics of other processes cannot be read: %s", error)
        return total

    def _fold(self) -> Samples:
        """The numbers of all other processes; the files of those that have ended become one."""
        ended, folded = _read(self.folder / self.ENDED)
        others: Samples = {}
        gone: list[Path] = []
        for path in sorted(self.folder.glob("*-*.json")):
            if path.stem == self._name or path.name in folded:
                continue
            # Asked before its last numbers are read, which it may be writing.
            over = self._is_over(path.with_suffix(".lock"))
            samples, _ = _read(path)
            _add(ended if over else others, samples)
            gone += [path] if over else []
        _add(others, ended)
        folded = {name for name in folded if (self.folder / name).exists()} | {path.name for path in gone}
        try:
            if gone:
                _write(self.folder / self.ENDED, ended, folded)
            for name in folded:
                for suffix in (".json", ".new", ".lock"):
                    (self.folder / name).with_suffix(suffix).unlink(missing_ok=True)
        except OSError as error:
            log.warning("metrics of ended processes cannot be put together: %s", error)
        return others

    @staticmethod
    def _is_over(lock: Path) -> bool:
        try:
            with open(lock, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return True
        except BlockingIOError:
            return False
        return True


_process = _Process()


def _begin_anew() -> None:
    for collector in (_requests, _request_seconds, _refusals, _synthesis_seconds, _first_byte_seconds, _audio_seconds,
                      _stage_seconds, _engine_errors, _jobs_ended):  # fmt: skip
        collector.clear()
    _process.begin()


os.register_at_fork(after_in_child=_begin_anew)


def exposition(more: Iterable[Metric] = ()) -> bytes:
    """All metrics in Prometheus' text format, and `more` that the caller has found out."""
    families = {family.name: Metric(family.name, family.documentation, family.type) for family in _registry.collect()}
    names = {
        f"{name}{suffix}": family
        for name, family in families.items()
        for suffix in (("_total",) if family.type == "counter" else ("_bucket", "_count", "_sum"))
    }
    for (name, labels), value in sorted(_process.total().items(), key=_in_order):
        if name in names:  # One that an older version had is nothing any more.
            names[name].add_sample(name, dict(labels), value)
    # It asks a registry for nothing but this.
    return generate_latest(SimpleNamespace(collect=lambda: [*families.values(), *more]))  # type: ignore[arg-type]


def _in_order(item: tuple[tuple[str, tuple[tuple[str, str], ...]], float]) -> Any:
    """Buckets stand in the order of their bounds."""
    (name, labels), _ = item
    rest = [label for label in labels if label[0] != "le"]
    return name, rest, float(dict(labels).get("le", 0))


def is_authorized(authorization: str) -> bool:
    """Whether an Authorization header carries METRICS_TOKEN."""
    scheme, _, token = authorization.partition(" ")
    return enabled() and scheme.lower() == "bearer" and constant_time_compare(token.strip(), settings.METRICS_TOKEN)


# --- Of workers on a machine of their own ---


class _Handler(BaseHTTPRequestHandler):
    timeout = 10

    def do_GET(self) -> None:
        found = self.path.partition("?")[0] == "/metrics"
        allowed = is_authorized(self.headers.get("Authorization", ""))
        body = exposition() if found and allowed else b""
        self.send_response(404 if not found else 200 if allowed else 401)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a scrape broke off", exc_info=True)


def serve(port: int) -> None:
    """Answers /metrics on a port of its own, in a thread. Of several processes one does, and another when it ends."""

    def run() -> None:
        while True:
            try:
                server = _Server(("", port), _Handler)
            except OSError as error:
                log.debug("port %d is not free: %s", port, error)
                time.sleep(5)
                continue
            server.serve_forever()

    threading.Thread(target=run, name="metrics-server", daemon=True).start()
