"""One synthesis, from a checked request to stored audio: whole, as a stream, or by a worker."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr
from django.conf import settings
from django.core.files.base import ContentFile
from django.db import transaction

from voiceproject.errors import EngineTimeout, PublicError, StreamBroken
from voiceproject.jobs.heartbeat import Heartbeat
from voiceproject.jobs.queue import key_admission
from voiceproject.media import audio, memory
from voiceproject.provenance.manifest import sign, without_manifest
from voiceproject.provenance.marks import mark_partial, mark_sent, mark_synthesis
from voiceproject.telemetry import metrics, tracing
from voiceproject.telemetry.logging import bind, bound, note
from voiceproject.web.errors import as_public_error
from voiceproject.web.slots import close_connection, desk, waiting_slot
from voices.engines.configured import get_engine
from voices.engines.interface import Model, Reference, SynthesisRequest
from voices.speech.dialogue import Dialogue, speak
from voices.speech.models import Synthesis
from voices.text.reading import Reading

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Speech:
    """sample_rate in Hz, of what the engine made; encoded: the file as the client asked for it, with its manifest.

    spoken: each sentence with the seconds at which it begins and ends, its pause included.
    """

    duration_seconds: float
    sample_rate: int
    encoded: bytes
    spoken: list[tuple[str, float, float]]


def start(synthesis: Synthesis) -> None:
    """Accepts a new synthesis that this process makes itself, now. Raises PublicError quota_exceeded, too_many_jobs."""
    with key_admission(synthesis.api_key):
        synthesis.accept_running(f"web@{settings.WORKER_HOST}", stage="infer")


def request_for(
    synthesis: Synthesis,
    reference: Reference,
    model: Model | None,
    *,
    early: bool = False,
    reading: Reading | None = None,
) -> SynthesisRequest:
    """The engine's request for a row. early, reading: as there."""
    return SynthesisRequest(
        synthesis.text,
        synthesis.language,
        reference,
        synthesis.speed,
        synthesis.temperature,
        synthesis.seed,
        synthesis.model_id or None,
        early=early,
        tenant=str(synthesis.tenant_id),
        model=model,
        lexicon=synthesis.pronunciations,
        reading=reading,
    )


def perform(synthesis: Synthesis, request: SynthesisRequest | Dialogue, gone: threading.Event | None = None) -> Speech:
    """Speaks a running synthesis' text, encodes and stores the audio, and ends the job.

    gone: set when who waits has hung up: the work stops then. Raises PublicError.
    """
    work = Work(synthesis, request, time.monotonic() + settings.SYNTHESIS_TIMEOUT_SECONDS, "wait")
    note(job=synthesis.pk)
    with work.ended():
        with waiting_slot(synthesis.tenant_id), Heartbeat(synthesis, client=gone) as heartbeat:
            parts = list(work.pieces(heartbeat))
        stored = work.succeed(audio.encode(np.concatenate(parts), work.sample_rate, work.format))
    metrics.first_byte(synthesis.engine, "wait")
    return Speech(work.seconds, work.sample_rate, stored, work.spoken)


def stored_audio(synthesis: Synthesis) -> bytes:
    """The file of a succeeded synthesis. Raises PublicError result_expired, too_many_waiting."""
    file = synthesis.audio
    try:
        with memory.claim(2 * file.size), file.open("rb") as opened:
            content: bytes = opened.read()
    except FileNotFoundError:
        raise PublicError("result_expired", "The file was deleted after its time.") from None
    return content


def bare_wav(synthesis: Synthesis) -> bytes:
    """The WAV of a succeeded synthesis without its manifest, remembered by its hash. Raises as `stored_audio`."""
    content = without_manifest(stored_audio(synthesis))
    mark_sent(synthesis.pk, hashlib.sha256(content).hexdigest(), what="speech")
    return content


EDGE_SECONDS, EDGE_FADE_SECONDS = 0.005, 0.005
QUIET = 0.01  # of the peak: what the ear takes for the end of a word


def silence(seconds: float, sample_rate: int) -> np.ndarray:
    return np.zeros(round(seconds * sample_rate), np.float32)


def trimmed(samples: np.ndarray, sample_rate: int, *, start: bool, end: bool) -> np.ndarray:
    """Speech without the quiet at its start or end, so that a pause beside it lasts as long as it says."""
    if not (start or end):
        return samples
    loud = np.flatnonzero(np.abs(samples) > QUIET * np.abs(samples).max(initial=0.0))
    if not len(loud):
        return samples
    margin = round(EDGE_SECONDS * sample_rate)
    first = max(0, int(loud[0]) - margin) if start else 0
    last = min(len(samples), int(loud[-1]) + 1 + margin) if end else len(samples)
    cut = samples[first:last].copy()
    ramp = np.linspace(0, 1, min(round(EDGE_FADE_SECONDS * sample_rate), len(cut) // 2), dtype=np.float32)
    if start:
        cut[: len(ramp)] *= ramp
    if end:
        cut[len(cut) - len(ramp) :] *= ramp[::-1]
    return cut


STREAM_BLOCK_BYTES = 32 * 1024  # so much the client must take within the time that a silent connection may last


class SpeechStream:
    """A running synthesis whose audio is sent while it is made: an iterator of bytes, to be closed in any case.

    Made like this, it has spoken its first piece: what fails before that raises PublicError here. What fails later, or
    is canceled, ends the iteration with StreamBroken, so that the client sees the end of the stream missing; the job
    has then ended as it would have without a stream. A client that hangs up cancels the job. At its end the audio is
    stored as any other is, before the last block is given out. A stream carries no manifest, the stored file does; what
    was sent is remembered by its sound and its hash, also where it broke off.

    sample_rate in Hz; request and gone as for `perform`.
    """

    def __init__(
        self, synthesis: Synthesis, request: SynthesisRequest | Dialogue, gone: threading.Event | None = None
    ) -> None:
        note(job=synthesis.pk)
        self.job_id = synthesis.pk
        self._ids = bound()
        self._work = Work(synthesis, request, time.monotonic() + settings.SYNTHESIS_TIMEOUT_SECONDS, "stream")
        self._synthesis = synthesis
        self._sent_hash = hashlib.sha256()
        self._blocks = self._make(gone)
        self._first: bytes | None = next(self._blocks)
        metrics.first_byte(synthesis.engine, "stream")
        self.sample_rate = self._work.sample_rate

    @property
    def spoken(self) -> list[tuple[str, float, float]]:
        """The sentences so far, as in Speech."""
        return self._work.spoken

    def __iter__(self) -> SpeechStream:
        return self

    def __next__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        with self._bound():
            try:
                return next(self._blocks)
            except StopIteration:
                raise
            except Exception as error:
                public = as_public_error(error)
                if public.code == "job_canceled":
                    log.info("a stream ends early: %s", public.message)
                else:
                    log.error("a stream broke off: %s", public, exc_info=error)
                raise StreamBroken from error

    def close(self) -> None:
        with self._bound():
            self._blocks.close()

    def _bound(self) -> AbstractContextManager[None]:
        # The response is sent after the middleware has been left.
        return bind(**self._ids)

    def _make(self, gone: threading.Event | None) -> Generator[bytes, None, None]:
        work = self._work
        encoder: audio.StreamEncoder | None = None
        done = False
        try:
            with (
                work.ended(),
                waiting_slot(self._synthesis.tenant_id),
                Heartbeat(self._synthesis, client=gone) as heartbeat,
            ):
                for samples in work.pieces(heartbeat):
                    encoder = encoder or audio.StreamEncoder(work.sample_rate, work.format)
                    yield from self._sent(encoder.write(samples))
                assert encoder is not None
                end = encoder.close()
                whole = self._sent_hash.copy()
                whole.update(end)
                with desk.seat(self._synthesis.tenant_id):
                    work.succeed(encoder.content(), whole.hexdigest())
                done = True
                log.info("streamed %.1f s of audio in %.1f s", work.seconds, time.monotonic() - work.started)
                yield from self._sent(end)
        finally:
            if encoder is not None:
                encoder.abandon()
                if not done:
                    content, sent = encoder.content(), self._sent_hash.hexdigest()
                    mark_partial(self._synthesis.pk, content, work.format, work.sample_rate, sent)

    def _sent(self, data: bytes) -> Iterator[bytes]:
        # A slow client must not hold a database connection.
        close_connection()
        for start in range(0, len(data), STREAM_BLOCK_BYTES):
            block = data[start : start + STREAM_BLOCK_BYTES]
            self._sent_hash.update(block)
            yield block


def failure(error: Exception) -> tuple[str, str, str]:
    """An exception as arguments of Job.fail: a key of ERROR_MESSAGES, a message for the client, one for operators."""
    public = as_public_error(error)
    code = {"engine_timeout": "timed_out", "storage_full": "storage_full"}.get(public.code, "engine_error")
    message = public.message if isinstance(error, PublicError) else ""
    cause = error.__cause__ if isinstance(error, PublicError) else error
    return code, message, repr(cause or "")


class Work:
    """One running synthesis on its way to an end. seconds, sample_rate: of what has been made so far.

    deadline: the time.monotonic() at which it is given up; mode: `wait`, `stream` or `background`.
    """

    def __init__(self, synthesis: Synthesis, request: SynthesisRequest | Dialogue, deadline: float, mode: str) -> None:
        self.mode = mode
        self.synthesis = synthesis
        self.request = request
        self.format = synthesis.response_format
        self.started = time.monotonic()
        self.deadline = deadline
        self.sample_rate = 0
        self.spoken: list[tuple[str, float, float]] = []
        self._frames = 0

    @property
    def seconds(self) -> float:
        return self._frames / self.sample_rate if self.sample_rate else 0.0

    def pieces(self, heartbeat: Heartbeat) -> Iterator[np.ndarray]:
        """The text's audio, float32 (n,), a piece after the other, all at one sample rate. Raises PublicError."""
        spoken = 0
        pause = 0.0  # the exact one before what comes next
        for piece in speak(get_engine(), self.request, self.deadline, heartbeat.gone):
            self.sample_rate = self.sample_rate or piece.sample_rate
            samples = piece.samples
            if piece.sample_rate not in (0, self.sample_rate):
                samples = soxr.resample(samples, piece.sample_rate, self.sample_rate)
            samples = trimmed(samples, self.sample_rate, start=pause > 0, end=piece.pause_seconds > 0)
            spoken += len(piece.text)
            heartbeat.progress = min(99, 100 * spoken // len(self.synthesis.text))
            begin = self.seconds + (pause if len(samples) else 0.0)
            if len(samples):
                # Until then a pause has no rate.
                samples = np.concatenate([silence(pause, self.sample_rate), samples])
                pause = 0.0
            self._frames += len(samples)
            if piece.text:
                self.spoken.append((piece.text, begin, self.seconds))
            pause += piece.pause_seconds
            if time.monotonic() > self.deadline:
                raise EngineTimeout
            if len(samples):
                yield samples
            # Nobody waits for the rest. The engine checks this too, while it waits.
            if heartbeat.gone():
                break
        # The engine has made no more if it was told so; this is also the answer for the last sentence.
        if heartbeat.gone():
            if not heartbeat.client_left.is_set():
                self._correct()
                raise PublicError("job_canceled", "This synthesis was canceled.")
            self._cancel()
            raise PublicError("job_canceled", "The client has gone away.")
        if not self._frames:
            raise PublicError("engine_error", "The speech engine made no audio.")
        if pause:
            last = silence(pause, self.sample_rate)
            self._frames += len(last)
            yield last

    def succeed(self, content: bytes, sent: str = "") -> bytes:
        """Signs and stores the encoded audio, and ends the job; returns the file as it is stored.

        sent: the SHA-256 of what was streamed of it. Raises PublicError job_canceled where it has ended otherwise.
        """
        sent = sent or hashlib.sha256(content).hexdigest()  # It may be given out without its manifest.
        signed = sign(content, self.format, what="speech", job_id=self.synthesis.pk)
        storage = self.synthesis.audio.storage
        name = f"{self.synthesis.folder}/{self.synthesis.attempt}-audio.{self.format}"
        with desk.away():
            stored = storage.save(name, ContentFile(signed))
        with transaction.atomic():
            won = self.synthesis.succeed(
                settings.SYNTHESIS_TTL_HOURS,
                duration_seconds=self.seconds,
                sample_rate=self.sample_rate,
                engine_seconds=self._elapsed,
                spoken=[[text, round(begin, 3), round(end, 3)] for text, begin, end in self.spoken],
                **self.synthesis.with_output(len(signed), audio=stored),
                **self._turns(),
            )
            if won:
                mark_synthesis(self.synthesis.pk, signed, stored, self.sample_rate, sent)
        if not won:
            storage.delete(stored)
            self._correct()
            raise PublicError("job_canceled", "This synthesis was canceled.")
        metrics.synthesis_made(self.synthesis.engine, self.mode, self._elapsed, self.seconds)
        return signed

    def _turns(self) -> dict[str, Any]:
        """Of a dialogue, its turns with the times at which they are said."""
        if not isinstance(self.request, Dialogue):
            return {}
        times = self.request.times(self.spoken)
        turns = [{**turn, "times": list(said)} for turn, said in zip(self.synthesis.turns, times, strict=True)]
        return {"turns": turns}

    def failed(self, error: Exception) -> None:
        """Counts the failure in the metrics if the engine has caused it."""
        public = as_public_error(error)
        if public.status >= 500:
            metrics.engine_failed(self.synthesis.engine, public.code)

    @contextmanager
    def ended(self) -> Iterator[None]:
        """Ends the job according to the exception that leaves the block."""
        # A stream outlives its request, so its span cannot be the current one.
        ids = {"job": str(self.synthesis.pk), "engine": self.synthesis.engine, "mode": self.mode}
        span = tracing.start("synthesis", self.synthesis.trace_parent, ids)
        failure = ""
        try:
            with self._ended():
                yield
        except BaseException as error:
            failure = as_public_error(error).code if isinstance(error, Exception) else type(error).__name__
            raise
        finally:
            tracing.end(span, failure)

    @contextmanager
    def _ended(self) -> Iterator[None]:
        try:
            yield
        except GeneratorExit:  # the client has closed the stream
            if self._cancel():
                log.info("the client went away from a stream")
            raise
        except Exception as error:
            public = as_public_error(error)
            if public.status == 400 and not self._frames:
                self.synthesis.withdraw()  # A text that the engine refuses is a bad request, not a failed synthesis.
                raise
            self.failed(error)
            ttl = settings.SYNTHESIS_TTL_HOURS
            self.synthesis.fail(*failure(error), ttl, engine_seconds=self._elapsed)
            raise
        except BaseException as error:
            self.synthesis.fail("engine_error", detail=repr(error), engine_seconds=self._elapsed)
            raise

    def _cancel(self) -> bool:
        canceled = self.synthesis.cancel(settings.SYNTHESIS_TTL_HOURS)
        self._correct()
        return canceled

    def _correct(self) -> None:
        """Writes how much was really made: a cancellation elsewhere could only estimate it."""
        self.synthesis.correct_usage(self.seconds, self._elapsed)

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self.started
