"""A worker process: `dramatiq voiceproject.worker`.

Its actors claim jobs from the database until nothing is left. A thread looks every two seconds: it finds work whose
message was lost (or, without Redis, never sent), takes over jobs of lost workers and deletes what has expired.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import threading
import time
import uuid
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voiceproject.settings")
django.setup()

import dramatiq  # noqa: E402
from django.conf import settings  # noqa: E402
from django.db import close_old_connections, connection  # noqa: E402
from django.db.models.functions import Now  # noqa: E402

from voiceproject.commands.scratch import sweep_scratch  # noqa: E402
from voiceproject.env import log_unknown  # noqa: E402
from voiceproject.jobs import idempotency, suspension  # noqa: E402
from voiceproject.jobs.broker import UNREACHABLE, broker, this_worker  # noqa: E402
from voiceproject.jobs.models import WorkerHost  # noqa: E402
from voiceproject.jobs.queue import live_keys  # noqa: E402
from voiceproject.media.storage import is_passing  # noqa: E402
from voiceproject.provenance.marks import make_landmarks  # noqa: E402
from voiceproject.registry import registry  # noqa: E402
from voiceproject.server.serving import end_with_parent  # noqa: E402
from voiceproject.telemetry import metrics, sentry, tracing  # noqa: E402
from voiceproject.tenants import ratelimit, usage  # noqa: E402
from voiceproject.webhooks import deliveries  # noqa: E402

log = logging.getLogger(__name__)

SWEEP_SECONDS = 3600.0
STOP_SECONDS = 10.0  # Jobs are handed back within two.
# Longer than anything may work on a file.
ABANDONED_SECONDS = 2.0 * max(3600, settings.SYNTHESIS_TIMEOUT_SECONDS, settings.SYNTHESIS_ASYNC_TIMEOUT_SECONDS)


def look(take_over: bool = True) -> None:
    """One look: every step is safe to repeat, and to do on many hosts at once."""
    WorkerHost.objects.update_or_create(name=settings.WORKER_HOST, defaults={"seen_at": Now()})
    for kind in registry.job_kinds:
        if take_over:
            kind.recover(settings.WORKER_HEARTBEAT_TIMEOUT_SECONDS)
        kind.model.expire()
    suspension.cancel_running()
    deliveries.expire()
    deliveries.start_due()
    make_landmarks(seconds=1.0)
    sweep_scratch(settings.SCRATCH_DIR, scratch_in_use)
    for duty in registry.at_look:
        duty()
    for kind in registry.job_kinds:
        if kind.has_room():
            start(kind.actor)


def scratch_in_use(name: str) -> bool:
    return any(kind.scratch_in_use(name) for kind in registry.job_kinds)


def start(actor: dramatiq.Actor) -> None:
    """Lets a worker look for this actor's jobs."""
    try:
        actor.send()
    except UNREACHABLE as error:
        # Work goes on without a broker: the claim bounds how many of these threads find any.
        log.warning("the broker cannot be reached: %s", error)
        threading.Thread(target=run_here, args=(actor,), name=actor.queue_name, daemon=True).start()


def run_here(actor: dramatiq.Actor) -> None:
    try:
        actor.fn()
    finally:
        connection.close()


def sweep_files() -> None:
    """Removes what killed processes left: parts of uploads, files of jobs that are not there, unused references."""
    for path in settings.UPLOAD_DIR.iterdir():
        if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for kind in registry.job_kinds:
        kind.model.sweep_orphans(ABANDONED_SECONDS)
    for duty in registry.at_sweep:
        duty(ABANDONED_SECONDS)
    idempotency.sweep()
    usage.sweep(live_keys())
    ratelimit.sweep()


def check_threads(count: int) -> None:
    """One queue waits for another where jobs may hold all threads of a worker."""
    held = settings.COVER_CONCURRENCY + settings.SYNTHESIS_CONCURRENCY + settings.TRAINING_CONCURRENCY
    if count <= held:
        advice = f"start dramatiq with --threads {held + 2}"
        log.warning("%d threads, and %d jobs may hold one each: %s", count, held, advice)


class Look(threading.Thread):
    """Looks at once and then every WORKER_LOOK_SECONDS, until stopped. A failed look is logged; the next one comes.

    Nothing is taken over until the database has been there for CALM_SECONDS: while it is away nobody's heart can beat,
    and who has lived through that must have the time to say so first.
    """

    CALM_SECONDS = 6.0

    def __init__(self) -> None:
        super().__init__(name="look", daemon=True)
        self.stopping = threading.Event()

    def run(self) -> None:
        swept_at = -SWEEP_SECONDS
        calm_since = time.monotonic()
        while not self.stopping.is_set():
            try:
                close_old_connections()
                look(take_over=time.monotonic() - calm_since > self.CALM_SECONDS)
                if time.monotonic() - swept_at > SWEEP_SECONDS:
                    swept_at = time.monotonic()
                    sweep_files()
            except Exception as error:
                if is_passing(error):
                    calm_since = time.monotonic()
                    log.warning("the database or the storage cannot be reached: %s", error)
                else:
                    log.exception("a look at the database failed; trying again")
                connection.close()
            self.stopping.wait(settings.WORKER_LOOK_SECONDS)
        connection.close()


def end_with_main_process() -> None:
    """Watches dramatiq's main process: where that was killed, nobody passes a signal to stop on to this one.

    Logs nothing: what is logged here goes through a pipe to the main process, which this one inherited itself, so that
    it never breaks. It fills up, and then whoever logs hangs. A process that hangs is ended by force; its commands end
    with it, and its jobs are taken over.
    """
    main = multiprocessing.parent_process()
    if main is None:
        return

    def watch() -> None:
        while os.getppid() == main.pid:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOP_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="main-process", daemon=True).start()


class WorkerLife(dramatiq.Middleware):
    """Starts the look with the worker; at shutdown tells running jobs to hand themselves back."""

    look: Look | None = None

    def before_worker_boot(self, broker: dramatiq.Broker, worker: Any) -> None:
        # Its threads claim jobs before they all have started, and the claims name it.
        this_worker.name = f"{settings.WORKER_HOST}:{os.getpid()}:{uuid.uuid4().hex[:8]}"

    def after_worker_boot(self, broker: dramatiq.Broker, worker: Any) -> None:
        self.look = Look()
        self.look.start()
        registry.start()
        check_threads(worker.worker_threads)
        end_with_main_process()
        # Dramatiq's own main process passes the signal on to its workers, which hand their jobs back.
        main = os.getppid()
        end_with_parent(lambda: os.kill(main if os.getppid() == main else os.getpid(), signal.SIGTERM))
        if settings.METRICS_TOKEN and settings.WORKER_METRICS_PORT:
            metrics.serve(settings.WORKER_METRICS_PORT)
        if multiprocessing.current_process().name.endswith("-1"):  # One of all processes tells it.
            log_unknown(settings.UNKNOWN_NAMES)
        log.info("worker started", extra={"worker": this_worker.name})

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: Any) -> None:
        this_worker.stopping.set()
        if self.look:
            self.look.stopping.set()
        for duty in registry.at_worker_stop:
            duty()
        tracing.close()
        sentry.flush()

    def after_process_message(self, broker: dramatiq.Broker, message: Any, **kwargs: Any) -> None:
        close_old_connections()


broker.add_middleware(WorkerLife())
