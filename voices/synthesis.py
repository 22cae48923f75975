"""The journey of one synthesis: which engine, what it can speak, and from a checked request to stored audio."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from django.conf import settings
from django.core.files.base import ContentFile
from django.db import connection

from voiceproject import audio
from voiceproject.errors import EngineTimeout, PublicError
from voiceproject.pulse import Pulse
from voices.engines import Engine, SynthesisRequest
from voices.models import Synthesis


@functools.cache
def get_engine() -> Engine:
    """The one configured engine of this process. There is no fall-back from one to the other."""
    if settings.VOICE_ENGINE == "gptsovits":
        from voices.engines.gptsovits import GptSovitsEngine

        return GptSovitsEngine(
            settings.SOVITS_BASE_URLS,
            timeout_seconds=settings.SOVITS_TIMEOUT,
            reference_dir=settings.SOVITS_REFERENCE_DIR,
            reference_dir_on_server=settings.SOVITS_REFERENCE_DIR_ON_SERVER,
            queue_seconds=settings.SOVITS_QUEUE_SECONDS,
            max_waiting=settings.SOVITS_MAX_WAITING,
            protocol=settings.SOVITS_PROTOCOL,
            token=settings.SOVITS_TOKEN,
            pinned=settings.SOVITS_PINNED_MODELS,
        )
    from voices.engines.builtin import BuiltinEngine

    return BuiltinEngine(settings.CACHE_DIR / "builtin", concurrency=settings.BUILTIN_CONCURRENCY)


def check_language(field: str, language: str) -> str:
    known = sorted(get_engine().languages | {"auto"})
    if language not in known:
        message = f"The engine {get_engine().name} does not speak this; it speaks: {', '.join(known)}."
        raise PublicError("validation_error", f"{field}: {message}", {field: [message]})
    return language


# A thread that waits for an engine serves nobody else. Some are always left for short requests.
_held = threading.BoundedSemaphore(max(1, settings.WEB_THREADS - 4))


@contextmanager
def held_request() -> Iterator[None]:
    """Counts a request that waits long; refuses it (503) when too many do already. Holds no database connection."""
    if not _held.acquire(blocking=False):
        raise PublicError("too_many_waiting", "Too many requests wait here already. Try again later.", retry_after=5)
    try:
        # SQLite's are no scarce thing, and cost more to open than most queries.
        if connection.vendor != "sqlite" and not connection.in_atomic_block:
            connection.close()
        yield
    finally:
        _held.release()


@dataclass(frozen=True)
class Speech:
    """samples: float32 (n,) mono, -1..1; sample_rate in Hz; encoded: the file as the client asked for it."""

    samples: np.ndarray
    sample_rate: int
    encoded: bytes

    @property
    def duration_seconds(self) -> float:
        return len(self.samples) / self.sample_rate


def perform(synthesis: Synthesis, request: SynthesisRequest) -> Speech:
    """Speaks a running synthesis' text, encodes and stores the audio, and ends the job. Raises PublicError."""
    started = time.monotonic()
    deadline = started + settings.SYNTHESIS_TIMEOUT_SECONDS
    try:
        with held_request(), Pulse(synthesis) as pulse:
            samples, rate = _speak(synthesis, request, deadline, pulse)
        encoded = audio.encode(samples, rate, synthesis.response_format)
        speech = Speech(samples, rate, encoded)
        name = f"{synthesis.folder}/{synthesis.attempt}-audio.{synthesis.response_format}"
        storage = synthesis.audio.storage
        stored = storage.save(name, ContentFile(encoded))
    except PublicError as error:
        if error.status == 400:
            synthesis.delete()  # What the engine refuses to speak was never a synthesis.
            raise
        code = {"engine_timeout": "timed_out", "storage_full": "storage_full"}.get(error.code, "engine_error")
        synthesis.fail(code, error.message, detail=repr(error.__cause__ or ""))
        raise
    except BaseException as error:
        synthesis.fail("engine_error", detail=repr(error))
        raise
    if not synthesis.succeed(
        settings.SYNTHESIS_TTL_HOURS,
        audio=stored,
        duration_seconds=speech.duration_seconds,
        sample_rate=rate,
        engine_seconds=time.monotonic() - started,
    ):
        storage.delete(stored)
        raise PublicError("job_canceled", "This synthesis was canceled.")
    return speech


def _speak(synthesis: Synthesis, request: SynthesisRequest, deadline: float, pulse: Pulse) -> tuple[np.ndarray, int]:
    parts: list[np.ndarray] = []
    rate = 0
    spoken = 0
    for piece in get_engine().synthesize(request, deadline, pulse.gone):
        rate = rate or piece.sample_rate
        samples = piece.samples
        if piece.sample_rate != rate:
            samples = soxr.resample(samples, piece.sample_rate, rate)
        parts.append(samples)
        spoken += len(piece.text)
        pulse.progress = min(99, 100 * spoken // len(synthesis.text))
        if time.monotonic() > deadline:
            raise EngineTimeout
    # The engine has asked between the sentences, and made no more of them; this is also the answer for the last one.
    if pulse.gone():
        raise PublicError("job_canceled", "This synthesis was canceled.")
    if not parts or not sum(map(len, parts)):
        raise PublicError("engine_error", "The speech engine made no audio.")
    return np.concatenate(parts), rate


def upload_path(upload: Any) -> Path:
    """Where Django has put an upload: always a file, never memory (see FILE_UPLOAD_HANDLERS)."""
    return Path(upload.temporary_file_path())


def close_engine() -> None:
    """Ends what the engine of this process has started."""
    if get_engine.cache_info().currsize:
        close = getattr(get_engine(), "close", None)
        if close:
            close()
