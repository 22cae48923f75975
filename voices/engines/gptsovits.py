"""GPT-SoVITS over HTTP: the client of its `api_v2.py` (https://github.com/RVC-Boss/GPT-SoVITS).

That server keeps its reference, its prompt and its weights in the process, and interleaved calls have
swapped voices. So one call of one sentence is in flight per server, under a lease, and never a streamed one.
It reads the reference from its own disk and remembers it by its path alone, so a reference's file name is
the hash of its content. It has no `/health`, and while it works it answers nothing at all: slow is not dead.
A failed synthesis may well be a 200 with a second of silence: an answer is believed when it is audio.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from voiceproject.errors import EngineBusy, EngineError, EngineTimeout, EngineUnavailable, PublicError
from voices.engines import EngineHealth, Piece, Reference, SynthesisRequest
from voices.engines.servers import Answer, CallFailed, Server
from voices.text import Sentence, detect_language, split

log = logging.getLogger(__name__)

MIN_REFERENCE_SECONDS = 3.0
MAX_REFERENCE_SECONDS = 10.0
MAX_ANSWER_BYTES = 16 * 1024 * 1024  # 170 s at 48 kHz; a sentence is a tenth of it
MAX_PROBE_BYTES = 1024 * 1024
HEALTH_SECONDS = 1.8
OTHER_PROBE_SECONDS = 2.0  # how long to wait for a server that may still work, where there are others
EDGE_FADE_SECONDS = 0.005
SILENCE = 1.5 / 32768  # a peak of one step of 16 bits is no sound

LANGUAGES = frozenset({"auto", "zh", "en", "ja", "yue", "ko"})


class Lease(Protocol):
    """The right to call one server (voiceproject.lease)."""

    server: str
    needs_probe: bool

    def __enter__(self) -> Lease: ...
    def __exit__(self, *error: Any) -> None: ...
    def answered(self) -> None: ...
    def release(self, *, needs_probe: bool, set_aside: bool = False, unreachable: bool = False) -> None: ...


class Leases(Protocol):
    """Who may call which server now (voiceproject.lease)."""

    def acquire(
        self,
        wait_until: float,
        *,
        admitted: bool = False,
        prefer: str | None = None,
        avoid: frozenset[str] = frozenset(),
        canceled: Callable[[], bool] = ...,
    ) -> Lease | None: ...
    def states(self) -> Mapping[str, Any]: ...
    def waiting(self) -> int: ...
    def expected_wait_seconds(self) -> float: ...


# --- references ---------------------------------------------------------------------------------------------


def best_window(
    samples: NDArray[np.float32], sample_rate: int, max_seconds: float = MAX_REFERENCE_SECONDS
) -> tuple[float, float]:
    """The stretch of at most max_seconds with the most speech in it that begins and ends where it is quiet.

    samples: float32, (n,), mono. Returns (start, end) in seconds; audio that is short enough is taken whole.
    """
    duration = len(samples) / sample_rate
    if duration <= max_seconds:
        return 0.0, duration
    step = 0.02
    hop = round(step * sample_rate)
    count = len(samples) // hop
    frames = samples[: count * hop].reshape(count, hop).astype(np.float64)
    decibels = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-10)
    floor, top = np.percentile(decibels, [5, 95])
    # Speech lies in the upper part of the range between the room and the voice, and not 30 dB under the
    # voice.
    threshold = max(floor + 0.35 * (top - floor), top - 30.0)
    speech = np.concatenate([[0.0], np.cumsum((decibels > threshold) * step)])
    loudness = np.clip((decibels - floor) / max(top - floor, 1e-3), 0.0, 1.0)
    # A cut lies between two frames, and is as loud as what is within 60 ms of it. The ends of the audio are
    # quiet.
    around = np.convolve(loudness, np.ones(6) / 6, mode="full")[2 : count + 3]
    around[0] = around[-1] = 0.0
    longest = min(count, int(max_seconds / step + 1e-6))
    shortest = max(1, longest // 2)
    starts = np.arange(count - shortest + 1)
    ends = np.minimum(starts[:, None] + np.arange(shortest, longest + 1)[None, :], count)
    # To cut into full voice costs as much as two seconds of speech; of equals the shorter one has fewer
    # pauses.
    score = speech[ends] - speech[starts][:, None] - 2.0 * (around[ends] + around[starts][:, None])
    score -= 1e-3 * (ends - starts[:, None]) * step
    row, column = np.unravel_index(int(np.argmax(score)), score.shape)
    start, end = starts[row] * hop / sample_rate, ends[row, column] * hop / sample_rate
    return float(start), float(min(end, start + max_seconds))


def _edges_faded(samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """A copy that begins and ends at zero, so that pieces join without clicks."""
    faded = samples.copy()
    count = min(round(EDGE_FADE_SECONDS * sample_rate), len(faded) // 2)
    if count:
        ramp = np.linspace(0.0, 1.0, count, endpoint=False, dtype=np.float32)
        faded[:count] *= ramp
        faded[-count:] *= ramp[::-1]
    return faded


def store_reference(samples: NDArray[np.float32], sample_rate: int, folder: Path) -> str:
    """Writes mono 16-bit WAV into `folder` once, under the SHA-256 of its bytes; returns the file's name.

    Raises PublicError: storage_full, not_configured.
    """
    buffer = io.BytesIO()
    steps = np.clip(np.round(samples.astype(np.float64) * 32767.0), -32768, 32767).astype(np.int16)
    soundfile.write(buffer, steps, sample_rate, format="WAV", subtype="PCM_16")
    content = buffer.getvalue()
    name = f"{hashlib.sha256(content).hexdigest()}.wav"
    final = folder / name
    try:
        try:
            os.utime(final)  # what is still used is not old
            return name
        except FileNotFoundError:
            folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{name}.{os.getpid()}.{threading.get_ident()}"
        try:
            with open(partial, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, final)  # over nothing, or over the same bytes from another process
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        log.exception("The reference cannot be written to %s", folder)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise PublicError("storage_full", "There is no room left for reference audio.") from error
        raise PublicError("not_configured", "The folder for reference audio cannot be written.") from error
    return name


def sweep_references(folder: Path, older_than_seconds: float) -> int:
    """Removes the reference files that no synthesis has used for so long; returns how many."""
    removed = 0
    for path in [*folder.glob("*.wav"), *folder.glob(".*.wav.*")]:
        try:
            if time.time() - path.stat().st_mtime > older_than_seconds:
                path.unlink()
                removed += 1
        except FileNotFoundError:
            continue
    return removed


# --- answers ------------------------------------------------------------------------------------------------


def _hidden(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        for form in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1]):
            text = text.replace(form, "[text]") if len(form) > 3 else text
    return text


def _log_excerpt(answer: Answer, secrets: Sequence[str]) -> str:
    """What the server said of its failure, short, in one line, and without what it was asked to speak."""
    text = answer.body[:20_000].decode("utf-8", "replace")
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        parsed = None
    if isinstance(parsed, dict):
        detail = parsed.get("detail")
        if isinstance(detail, list):  # a validation error repeats its input
            parts = [f"{item.get('loc')} {item.get('msg')}" for item in detail if isinstance(item, dict)]
            text = "; ".join(parts)
        else:
            text = "; ".join(f"{key}={parsed[key]}" for key in ("message", "Exception", "detail") if key in parsed)
    return repr(_hidden(text, secrets)[:300])


def read_speech(answer: Answer) -> tuple[NDArray[np.float32], int]:
    """The audio of a 200 answer: float32 (n,) mono, and its sample rate in Hz.

    Raises EngineError where it is none, or silent.
    """
    if not answer.content_type.startswith("audio/"):
        raise EngineError() from ValueError(f"content type {answer.content_type!r}")
    body = answer.body
    # Sizes are checked first: a WAV that is cut short would be read as far as it goes.
    if (
        len(body) < 44
        or body[:4] != b"RIFF"
        or body[8:12] != b"WAVE"
        or int.from_bytes(body[4:8], "little") > len(body) - 8
    ):
        raise EngineError() from ValueError("not a whole WAV file")
    try:
        with soundfile.SoundFile(io.BytesIO(body)) as file:
            if file.subtype not in ("PCM_16", "PCM_24", "PCM_32", "FLOAT") or file.channels > 2:
                raise EngineError() from ValueError(f"{file.channels} channels of {file.subtype}")
            rate = file.samplerate
            samples = file.read(dtype="float32", always_2d=True).mean(axis=1)
    except (soundfile.LibsndfileError, ValueError, RuntimeError) as error:
        raise EngineError() from error
    if not 8000 <= rate <= 192000:
        raise EngineError() from ValueError(f"{rate} Hz")
    if not np.isfinite(samples).all():
        raise EngineError() from ValueError("samples that are no numbers")
    if not len(samples) or float(np.abs(samples).max()) < SILENCE:
        raise EngineError() from ValueError("silence, which is how this engine reports a failed synthesis")
    return np.clip(samples, -1.0, 1.0).astype(np.float32), rate


def least_seconds(text: str, speed: float) -> float:
    """The time under which nobody has spoken all of this text: about twice as fast as a fast speaker."""
    seconds = 0.0
    for char in text:
        if char.isdigit():
            seconds += 0.08
        elif char.isalpha():
            seconds += 0.02 if char < "\u1100" else 0.06
    return seconds / speed


def voiced_seconds(samples: NDArray[np.float32], sample_rate: int) -> float:
    """From the first to the last sample within 40 dB of the peak."""
    loud = np.flatnonzero(np.abs(samples) > 0.01 * float(np.abs(samples).max()))
    return (int(loud[-1]) - int(loud[0]) + 1) / sample_rate if len(loud) else 0.0


# --- the engine ---------------------------------------------------------------------------------------------


class GptSovitsEngine:
    """Speaks through one or several GPT-SoVITS servers, a sentence at a time, each under a lease.

    base_urls: of api_v2.py; timeout_seconds: for one sentence; reference_dir: where we write references, and
    reference_dir_on_server: the same folder as the server sees it; queue_seconds: the longest wait for a
    first turn, max_waiting: how many may wait at once; lease_factory: called as (servers, max_waiting=...),
    gives `Leases`.
    """

    name = "gptsovits"
    languages = LANGUAGES

    def __init__(
        self,
        base_urls: Sequence[str],
        timeout_seconds: float,
        reference_dir: Path,
        reference_dir_on_server: str,
        queue_seconds: float,
        max_waiting: int,
        lease_factory: Callable[..., Leases] | None = None,
    ) -> None:
        if lease_factory is None:
            # Only here, since it is rows of Django's: the module itself can be imported without.
            from voiceproject import lease

            lease_factory = lease.Leases
        servers = [Server(url) for url in base_urls]
        self._servers = {server.name: server for server in servers}
        if not self._servers:
            raise ValueError("no server is given")
        self._timeout_seconds = timeout_seconds
        self._reference_dir = Path(reference_dir)
        self._reference_dir_on_server = reference_dir_on_server.rstrip("/\\")
        self._queue_seconds = queue_seconds
        self._leases = lease_factory(list(self._servers), max_waiting=max_waiting)

    def synthesize(
        self, request: SynthesisRequest, deadline: float, canceled: Callable[[], bool]
    ) -> GptSovitsSynthesis:
        """As voices.engines.Engine; what is wrong with the request is raised here, before anything is spoken.

        Raises PublicError also with reference_too_short, reference_too_long (longer than 10 s with a
        transcript) and validation_error (a text that no language of this engine has).
        """
        return GptSovitsSynthesis(self, request, deadline, canceled)

    @staticmethod
    def reference_window(reference: Reference) -> tuple[float, float] | None:
        """(start, end) in seconds of the part that the server gets to hear, None where it hears all of it.

        Raises PublicError: reference_too_short, reference_too_long (more than 10 s with a transcript).
        """
        found = {"duration_seconds": round(reference.duration_seconds, 3)}
        if len(reference.samples) < MIN_REFERENCE_SECONDS * reference.sample_rate:
            raise PublicError("reference_too_short", "The reference must last at least 3 seconds.", found)
        if len(reference.samples) <= MAX_REFERENCE_SECONDS * reference.sample_rate:
            return None
        if (reference.transcript or "").strip():
            raise PublicError(
                "reference_too_long",
                "With a transcript the reference may last at most 10 seconds: no more of it is used.",
                found,
            )
        return best_window(reference.samples, reference.sample_rate)

    def health(self) -> EngineHealth:
        """Asks all servers for /openapi.json at once, except those that work for us and could not answer."""
        try:
            states: Mapping[str, Any] = self._leases.states()
            waiting = self._leases.waiting()
        except Exception:  # the database's own check reports that it is down
            log.warning("The leases cannot be read", exc_info=True)
            states, waiting = {}, 0
        found: dict[str, tuple[bool, float | None, str]] = {}

        def ask(server: Server) -> None:
            found[server.name] = self._ask(server)

        threads = []
        for server in self._servers.values():
            state = states.get(server.name)
            if state is not None and state.held:
                found[server.name] = (True, None, "busy")
                continue
            threads.append(threading.Thread(target=ask, args=(server,), daemon=True))
            threads[-1].start()
        until = time.monotonic() + HEALTH_SECONDS + 0.1
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))  # looking up a name knows no time limit
        unanswered = (False, None, "no answer within 2 s: busy or down")
        all_found = [found.get(name, unanswered) for name in self._servers]
        available = [server for server in all_found if server[0]]
        latencies = [latency for _, latency, _ in available if latency is not None]
        detail = all_found[0][2]
        if len(all_found) > 1:
            detail = f"{len(available)} of {len(all_found)} servers available"
        return EngineHealth(
            name=self.name,
            available=bool(available),
            latency_ms=min(latencies, default=None),
            detail=detail,
            extra={
                "servers": [{"available": ok, "latency_ms": ms, "detail": text} for ok, ms, text in all_found],
                "waiting": waiting,
            },
        )

    @staticmethod
    def _ask(server: Server) -> tuple[bool, float | None, str]:
        """Whether it can work, the milliseconds of the answer, and a word for a person."""
        start = time.monotonic()
        try:
            answer = server.request("GET", "/openapi.json", None, start + HEALTH_SECONDS, MAX_PROBE_BYTES)
        except CallFailed as failure:
            if isinstance(failure.error, EngineTimeout):
                return False, None, "no answer within 2 s: busy or down"
            return False, None, "cannot be reached" if failure.unreachable else "broke off its answer"
        milliseconds = round((time.monotonic() - start) * 1000, 1)
        try:
            paths = json.loads(answer.body)["paths"] if answer.status == 200 else {}
        except (ValueError, KeyError, TypeError, RecursionError):
            paths = {}
        if "/tts" in paths:
            return True, milliseconds, "ready"
        if "/" in paths:
            return (
                False,
                milliseconds,
                "this is GPT-SoVITS's older api.py, which is not supported: run its api_v2.py",
            )
        return False, milliseconds, "something answers, but not GPT-SoVITS's api_v2.py"


class GptSovitsSynthesis(Iterator[Piece]):
    """The pieces of one request, spoken as they are asked for.

    seed: the one in use, drawn where the request has none; reference_window: (start, end) in seconds of the
    part of the reference that the engine hears, None if it hears all of it.
    """

    def __init__(
        self,
        engine: GptSovitsEngine,
        request: SynthesisRequest,
        deadline: float,
        canceled: Callable[[], bool],
    ) -> None:
        self._engine = engine
        self._request = request
        self._deadline = deadline
        self._canceled = canceled
        self._server: str | None = None  # the one that spoke last: another may have other weights
        self._admitted = False
        self.seed = request.seed % 2**32 if request.seed is not None else random.SystemRandom().randrange(2**31)
        self._sentences = self._checked_text()
        self.reference_window = engine.reference_window(request.reference)
        self._pieces = self._speak_all()

    def __next__(self) -> Piece:
        return next(self._pieces)

    def close(self) -> None:
        self._pieces.close()

    def _checked_text(self) -> list[Sentence]:
        language = self._request.language.lower()
        if language not in LANGUAGES:
            raise PublicError(
                "validation_error",
                "This engine does not speak that language.",
                {"language": [f"One of {', '.join(sorted(LANGUAGES))}."]},
            )
        sentences = split(self._request.text, language, early=self._request.early)
        if not sentences:
            raise PublicError("validation_error", "There is nothing to speak.", {"text": ["It has no letters."]})
        if any(sentence.language not in LANGUAGES for sentence in sentences):
            raise PublicError(
                "validation_error",
                "This engine does not speak a language of this text.",
                {"text": ["A part of it is in an alphabet that this engine does not read."]},
            )
        return sentences

    def _reference_path(self) -> str:
        """Where the server finds the reference."""
        reference = self._request.reference
        samples = reference.samples
        if self.reference_window is not None:
            start, end = (round(at * reference.sample_rate) for at in self.reference_window)
            samples = _edges_faded(samples[start:end], reference.sample_rate)
        name = store_reference(samples, reference.sample_rate, self._engine._reference_dir)
        return f"{self._engine._reference_dir_on_server}/{name}"

    def _speak_all(self) -> Generator[Piece, None, None]:
        path = self._reference_path()
        sample_rate = 0
        for sentence in self._sentences:
            if self._canceled():
                return
            piece = self._speak(sentence, path)
            if piece is None:
                return
            if sample_rate and piece.sample_rate != sample_rate:
                log.error("A sentence came at %d Hz after one at %d Hz", piece.sample_rate, sample_rate)
                raise EngineError()
            sample_rate = piece.sample_rate
            yield piece

    def _payload(self, sentence: Sentence, path: str) -> dict[str, Any]:
        reference = self._request.reference
        transcript = (reference.transcript or "").strip()
        prompt_language = reference.language.lower()
        if prompt_language == "auto" and transcript:
            prompt_language = detect_language(transcript)
        return {
            "text": sentence.text,
            "text_lang": sentence.language,
            "ref_audio_path": path,
            "prompt_text": transcript,
            "prompt_lang": prompt_language if prompt_language in LANGUAGES else "auto",
            "temperature": self._request.temperature,
            "speed_factor": self._request.speed,
            "seed": self.seed,
            "text_split_method": "cut0",
            "batch_size": 1,
            "media_type": "wav",
            "streaming_mode": False,
        }

    def _speak(self, sentence: Sentence, path: str) -> Piece | None:
        """One sentence, on the server that is free first and can be reached. None when canceled."""
        engine = self._engine
        alone = len(engine._servers) == 1
        failed: set[str] = set()
        wait_until = self._deadline
        if not self._admitted:
            wait_until = min(wait_until, time.monotonic() + engine._queue_seconds)
        while True:
            if time.monotonic() >= self._deadline:
                raise EngineTimeout()
            try:
                lease = engine._leases.acquire(
                    wait_until,
                    admitted=self._admitted,
                    prefer=self._server,
                    avoid=frozenset(failed),
                    canceled=self._canceled,
                )
            except EngineBusy as error:
                if time.monotonic() >= self._deadline:
                    raise EngineTimeout() from error
                raise
            if lease is None:
                return None
            self._server = lease.server
            server = engine._servers[lease.server]
            with lease:
                try:
                    if lease.needs_probe:
                        self._fence(server, wait_until if alone else time.monotonic() + OTHER_PROBE_SECONDS)
                        lease.answered()
                    self._admitted = True
                    return self._call(server, self._payload(sentence, path))
                except CallFailed as failure:
                    lease.release(
                        needs_probe=failure.unsettled or lease.needs_probe,
                        set_aside=failure.unreachable or (failure.unsettled and not alone),
                        unreachable=failure.unreachable,
                    )
                    failed.add(lease.server)
                    if not isinstance(failure.error, EngineUnavailable | EngineBusy) or len(failed) == len(
                        engine._servers
                    ):
                        raise failure.error from failure
                    log.warning("%s is set aside", lease.server)
                except EngineError:
                    # It answered in full, so nothing goes on there; only the answer was no speech.
                    lease.release(needs_probe=False)
                    raise

    def _fence(self, server: Server, until: float) -> None:
        """Waits for any answer: the server does one thing at a time, so what began before has then ended."""
        try:
            server.request("GET", "/openapi.json", None, min(until, self._deadline), MAX_PROBE_BYTES)
        except CallFailed as failure:
            if not isinstance(failure.error, EngineTimeout):
                raise
            error: PublicError = EngineBusy(retry_after=self._engine._leases.expected_wait_seconds())
            if time.monotonic() >= self._deadline:
                error = EngineTimeout()
            raise CallFailed(error, unsettled=True) from failure

    def _call(self, server: Server, payload: dict[str, Any]) -> Piece:
        """One sentence, said again with another seed if too little of it was said."""
        samples, sample_rate = self._tts(server, payload)
        least = least_seconds(payload["text"], self._request.speed)
        if voiced_seconds(samples, sample_rate) < least:
            log.warning("%s spoke %.2f s where at least %.2f s were expected", server.name,
                        voiced_seconds(samples, sample_rate), least)  # fmt: skip
            again, rate = self._tts(server, payload | {"seed": (self.seed + 1) % 2**32})
            if rate == sample_rate and voiced_seconds(again, rate) > voiced_seconds(samples, sample_rate):
                samples = again
        return Piece(_edges_faded(samples, sample_rate), sample_rate, payload["text"])

    def _tts(self, server: Server, payload: dict[str, Any]) -> tuple[NDArray[np.float32], int]:
        deadline = min(self._deadline, time.monotonic() + self._engine._timeout_seconds)
        answer = server.request("POST", "/tts", payload, deadline, MAX_ANSWER_BYTES)
        if answer.status != 200:
            secrets = (payload["text"], payload["prompt_text"])
            log.error("%s answered %d: %s", server.name, answer.status, _log_excerpt(answer, secrets))
            raise EngineError()
        try:
            return read_speech(answer)
        except EngineError as error:
            log.error("%s answered 200 with %s", server.name, error.__cause__)
            raise
