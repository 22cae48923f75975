"""The actor that makes background syntheses.

It has a queue and a concurrency limit of its own, so that a cover, which may take an hour, never delays it.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import dramatiq
import numpy as np
import soundfile as sf
from django.conf import settings
from django.db import connection

from voiceproject.commands.scratch import scratch
from voiceproject.errors import PublicError
from voiceproject.jobs.broker import broker, this_worker
from voiceproject.jobs.heartbeat import Heartbeat
from voiceproject.jobs.status import JobStatus
from voiceproject.media import audio, storage
from voiceproject.media.storage import is_passing, patiently
from voiceproject.telemetry import tracing
from voiceproject.telemetry.logging import bind
from voiceproject.web.errors import as_public_error
from voices.engines import configured
from voices.engines.interface import Reference, SynthesisRequest
from voices.library import engine_data
from voices.speech import registry, synthesis
from voices.speech.dialogue import Dialogue, line_of, preset_reference, voice_file
from voices.speech.models import Synthesis

log = logging.getLogger(__name__)

AWAY_SECONDS = 120.0  # how long to wait for an engine that is unavailable, such as during a restart
RETRY_SECONDS = 5.0
MAX_RETRY_SECONDS = 30.0  # even if the engine expects a longer wait: a place may become free earlier
ENGINE_IDLE_SECONDS = 600.0


class _Use:
    """Counts the users of this process's engine, so that it is closed only when it is idle."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._idle_since: float | None = None

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._users -= 1
            self._idle_since = time.monotonic()

    def rest(self) -> None:
        with self._lock:
            since = self._idle_since
            if self._users or since is None or time.monotonic() - since < ENGINE_IDLE_SECONDS:
                return
            self._idle_since = None
            configured.close_engine()
            configured.load_engine.cache_clear()


_use = _Use()


def rest() -> None:
    """Closes an idle engine, since the built-in one holds half a gigabyte. The next job has to start it again."""
    _use.rest()


@dramatiq.actor(broker=broker, queue_name="synthesis")
def run_syntheses() -> None:
    """Safe to run twice, late, or on many hosts at once: the claim decides."""
    while not this_worker.stopping.is_set():
        job = Synthesis.claim_if_reachable(
            this_worker.name, settings.WORKER_HOST, settings.SYNTHESIS_CONCURRENCY, settings.SYNTHESIS_MAX_RUNNING
        )
        if job is None:
            return
        run(job, this_worker.stopping)


def has_room() -> bool:
    """Whether a claim on this host could succeed."""
    return Synthesis.has_room(settings.WORKER_HOST, settings.SYNTHESIS_CONCURRENCY)


def scratch_in_use(name: str) -> bool:
    """Whether a scratch folder belongs to an attempt that is running now."""
    match = re.fullmatch(r"synthesis-([0-9a-f-]{36})-(\d+)", name)
    return (
        match is not None and Synthesis.objects.filter(pk=match[1], attempt=match[2], status=JobStatus.RUNNING).exists()
    )


def run(job: Synthesis, stopping: threading.Event) -> None:
    """Makes a claimed synthesis, to whatever end. Raises nothing that belongs to the job."""
    ids = job.log_ids()
    with bind(**ids), tracing.span("synthesis", job.trace_parent, {**ids, "mode": "background"}) as span:
        log.info("synthesis started", extra={"attempt": job.attempt})
        started = time.monotonic()
        job.stage = "infer"
        try:
            with _use, Heartbeat(job, stopping) as heartbeat:
                _make(job, heartbeat)
            log.info("synthesis succeeded")
        except Exception as error:
            tracing.mark_failed(span, as_public_error(error).code)
            # The worker is stopping. The error may come from an engine that was closed, so the job is not to blame.
            if stopping.is_set() and job.hand_back():
                log.info("synthesis handed back")
                return
            if is_passing(error):
                # The database or the bucket is away: no fault of the job. Where even that cannot be written, its heart
                # has stopped, and it is taken over.
                connection.close()
                if job.put_back(settings.SYNTHESIS_MAX_ATTEMPTS):
                    log.warning("synthesis put back: %s", error)
                    return
            public = as_public_error(error)
            code, message, detail = synthesis.failure(error)
            elapsed = time.monotonic() - started
            if job.fail(code, message, detail, settings.SYNTHESIS_TTL_HOURS, engine_seconds=elapsed):
                log.warning("synthesis failed: %s", public, exc_info=error)
            else:
                log.info("synthesis is no longer ours")


def _make(job: Synthesis, heartbeat: Heartbeat) -> None:
    engine = configured.get_engine()
    job.mark("infer")
    if not patiently(lambda: job.note(stage="infer", engine=engine.name, marks=job.marks), heartbeat.gone):
        raise PublicError("job_canceled", "This synthesis was canceled.")
    request = patiently(lambda: _dialogue(job) if job.turns else _request(job), heartbeat.gone)
    deadline = time.monotonic() + settings.SYNTHESIS_ASYNC_TIMEOUT_SECONDS
    away_since = 0.0
    while True:
        work = synthesis.Work(job, request, deadline, "background")
        try:
            parts = list(work.pieces(heartbeat))
            break
        except PublicError as error:
            work.failed(error)
            now = time.monotonic()
            wait = min(error.retry_after or RETRY_SECONDS, MAX_RETRY_SECONDS)
            busy, away = error.code == "engine_busy", error.code == "engine_unavailable"
            if not away:
                away_since = 0.0
            elif not away_since or work.seconds:  # It has spoken since it was away before.
                away_since = now
            patient = busy or (away and now - away_since < AWAY_SECONDS)
            if not patient or heartbeat.gone() or now + wait > deadline:
                raise
            log.info("the engine takes no work; trying again in %.0f s", wait)
            again = time.monotonic() + wait
            while time.monotonic() < again and not heartbeat.gone():
                time.sleep(0.1)
    encoded = audio.encode(np.concatenate(parts), work.sample_rate, work.format)
    patiently(lambda: work.succeed(encoded), heartbeat.gone)


def _dialogue(job: Synthesis) -> Dialogue:
    """As `_request`, of a dialogue: each of its voices is read once."""
    models = {
        model_id: registry.for_synthesis(model_id, job.tenant_id)
        for model_id in {turn.get("model_id", job.model_id) for turn in job.turns}
    }
    voices: dict[str, Reference] = {}
    lines = []
    with scratch(settings.SCRATCH_DIR, f"synthesis-{job.pk}-{job.attempt}") as folder:
        for turn in job.turns:
            name = turn["reference"]
            if name not in voices:
                voices[name] = preset_reference(turn["preset"]) if turn["preset"] else _saved(job, turn, folder)
            chosen = turn.get("model_id", job.model_id)
            lines.append(line_of(turn, voices[name], chosen, models[chosen], str(job.tenant_id), early=False))
    return Dialogue(lines, early=False)


def _saved(job: Synthesis, turn: dict[str, Any], folder: Path) -> Reference:
    """The copy of a saved voice."""
    name, transcript, language = turn["reference"], turn["reference_text"] or None, turn["reference_language"]
    path = folder / f"{name}.flac"
    storage.fetch(job.reference_audio.storage, voice_file(job.folder, name), path)
    samples, rate = sf.read(path, dtype="float32")  # ours, checked when the voice was saved
    kept = engine_data.kept_data(uuid.UUID(turn["voice_id"]), name, transcript, language)
    return Reference(samples, rate, name, transcript, language, kept)


def _request(job: Synthesis) -> SynthesisRequest:
    """The engine's request for a row. Raises PublicError if its model is not offered any more."""
    with scratch(settings.SCRATCH_DIR, f"synthesis-{job.pk}-{job.attempt}") as folder:
        path = folder / "reference.upload"
        storage.fetch(job.reference_audio.storage, str(job.reference_audio.name), path)
        if job.voice_id:
            samples, rate = sf.read(path, dtype="float32")  # ours, checked when the voice was saved
        else:
            samples, rate = audio.load_reference(path, field="reference_audio")
    transcript, language = job.reference_text or None, job.reference_language
    kept = engine_data.kept_data(job.voice_id, job.reference_hash, transcript, language)
    reference = Reference(samples, rate, job.reference_hash, transcript, language, kept)
    return SynthesisRequest(
        job.text,
        job.language,
        reference,
        job.speed,
        job.temperature,
        job.seed,
        job.model_id or None,
        tenant=str(job.tenant_id),
        model=registry.for_synthesis(job.model_id, job.tenant_id),
        lexicon=job.pronunciations,
    )
