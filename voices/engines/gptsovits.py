"""GPT-SoVITS (https://github.com/RVC-Boss/GPT-SoVITS) over HTTP, through one or several servers.

A server keeps its reference, its prompt and its weights in the process, and interleaved calls have swapped voices. So
one call of one sentence is in flight per server, under a lease, and never a streamed one; the weights of a model are
switched under the same lease as the sentence that needs them. What goes over the wire is in `protocols.py`.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from django.utils.translation import gettext_noop
from numpy.typing import NDArray

from voiceproject.errors import EngineBusy, EngineError, EngineTimeout, EngineUnavailable, PublicError
from voices.engines.interface import EngineHealth, Model, Piece, Reference, SynthesisRequest
from voices.engines.protocols import (
    SWITCH_SECONDS,
    ApiV2,
    EngineProtocol,
    Excerpt,
    ServerReport,
    Utterance,
    VoiceProject,
    weights_key,
)
from voices.engines.servers import CallFailed, Server
from voices.text.languages import detect_language
from voices.text.sentences import Sentence, split

log = logging.getLogger(__name__)

MIN_REFERENCE_SECONDS = 3.0
MAX_REFERENCE_SECONDS = 10.0
HEALTH_SECONDS = 1.8
OTHER_PROBE_SECONDS = 2.0  # how long to wait for a server that may still work, where there are others
EDGE_FADE_SECONDS = 0.005
KEPT_WINDOWS = 1000
UNKNOWN_WEIGHTS = "?"  # as voiceproject.leases.lease has it

LANGUAGES = frozenset({"auto", "zh", "en", "ja", "yue", "ko"})
V1_LANGUAGES = LANGUAGES - {"yue", "ko"}
VERSIONS = ("v1", "v2", "v2Pro", "v2ProPlus", "v3", "v4")
NEED_TRANSCRIPT = frozenset({"v3", "v4"})


class Lease(Protocol):
    """The right to call one server (voiceproject.leases.lease)."""

    server: str
    needs_probe: bool
    loaded: str

    def __enter__(self) -> Lease: ...
    def __exit__(self, *error: Any) -> None: ...
    def answered(self) -> None: ...
    def remember(self, loaded: str) -> None: ...
    def release(self, *, needs_probe: bool, set_aside: bool = False, unreachable: bool = False) -> None: ...


class Leases(Protocol):
    """Who may call which server now (voiceproject.leases.lease)."""

    def acquire(
        self,
        wait_until: float,
        *,
        tenant: str = "",
        servers: Collection[str] = (),
        admitted: bool = False,
        prefer: str | None = None,
        rank: Callable[[str, str], int] = ...,
        avoid: frozenset[str] = frozenset(),
        canceled: Callable[[], bool] = ...,
    ) -> Lease | None: ...
    def probe_back(self, server: str, probe: Callable[[], bool | None]) -> None: ...
    def states(self) -> Mapping[str, Any]: ...
    def waiting(self) -> int: ...
    def expected_wait_seconds(self) -> float: ...
    def retry_after_seconds(self) -> float: ...
    def close(self) -> None: ...


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
    frames = samples[: count * hop].reshape(count, hop)
    decibels = 10 * np.log10(np.einsum("ij,ij->i", frames, frames).astype(np.float64) / hop + 1e-10)
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
    # To cut into full voice costs as much as two seconds of speech; of equals the shorter one has fewer
    # pauses. What an end is worth does not hang on the start, so each start takes the best of those in its reach.
    at = np.arange(count + 1)
    worth = np.concatenate([speech - 2.0 * around - 1e-3 * step * at, np.full(longest - shortest, -np.inf)])
    reach = np.lib.stride_tricks.sliding_window_view(worth[shortest:], longest - shortest + 1)
    cost = (speech + 2.0 * around - 1e-3 * step * at)[: len(reach)]
    row = int(np.argmax(reach.max(axis=1) - cost))
    column = int(np.argmax(reach[row]))
    start, end = row * hop / sample_rate, (row + shortest + column) * hop / sample_rate
    return start, min(end, start + max_seconds)


def _edges_faded(samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """A copy that begins and ends at zero, so that pieces join without clicks."""
    faded = samples.copy()
    count = min(round(EDGE_FADE_SECONDS * sample_rate), len(faded) // 2)
    if count:
        ramp = np.linspace(0.0, 1.0, count, endpoint=False, dtype=np.float32)
        faded[:count] *= ramp
        faded[-count:] *= ramp[::-1]
    return faded


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
    size = np.abs(samples)
    loud = size > 0.01 * float(size.max(initial=0.0))
    return (len(loud) - int(loud[::-1].argmax()) - int(loud.argmax())) / sample_rate if loud.any() else 0.0


# --- the engine ---------------------------------------------------------------------------------------------


class GptSovitsEngine:
    """Speaks through one or several GPT-SoVITS servers, a sentence at a time, each under a lease.

    base_urls: of the servers; timeout_seconds: for one sentence; reference_dir: where we write references for
    api_v2.py, and reference_dir_on_server: the same folder as the server sees it; queue_seconds: the longest wait for
    a first turn, max_waiting: how many may wait at once; lease_factory: called as (servers, max_waiting=...), gives
    `Leases`; protocol: `api_v2` or `voiceproject` (protocols.py), token: of the latter; pinned: base URL -> the one
    model that this server speaks with, whose weights it was started with and keeps.
    """

    name = "gptsovits"
    languages = LANGUAGES
    max_reference_seconds = MAX_REFERENCE_SECONDS

    def __init__(
        self,
        base_urls: Sequence[str],
        timeout_seconds: float,
        reference_dir: Path,
        reference_dir_on_server: str,
        queue_seconds: float,
        max_waiting: int,
        lease_factory: Callable[..., Leases] | None = None,
        *,
        protocol: str = "api_v2",
        token: str = "",
        pinned: Mapping[str, str] | None = None,
    ) -> None:
        if lease_factory is None:
            # Only here, since it is rows of Django's: the module itself can be imported without.
            from voiceproject.leases import lease

            lease_factory = lease.Leases
        servers = [Server(url) for url in base_urls]
        self._servers = {server.name: server for server in servers}
        if not self._servers:
            raise ValueError("no server is given")
        self._protocol: EngineProtocol = VoiceProject(token)
        if protocol == "api_v2":
            self._protocol = ApiV2(reference_dir, reference_dir_on_server)
        self._pinned = {Server(url).name: model_id for url, model_id in (pinned or {}).items()}
        self._timeout_seconds = timeout_seconds
        self._queue_seconds = queue_seconds
        self._windows: dict[tuple[str, int, int], tuple[float, float]] = {}
        self._leases = lease_factory(list(self._servers), max_waiting=max_waiting)

    @classmethod
    def from_settings(cls, settings: Any) -> Self:
        return cls(
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

    def serves(self, model: Model | None, default: Model | None, offers_default: bool = True) -> bool:
        """Whether any server can speak with this model (None: the default).

        default: the registry's row of that name, if there is one. Where the default is offered and its weights are not
        known, no server's weights are switched, since nothing could bring its own back.
        """
        if not self.servers_for(model):
            return False
        is_default = model is None or model.id == "default"
        pinned = not is_default and model is not None and model.id in self._pinned.values()
        if is_default or pinned or not self._protocol.switches:
            return True
        return not offers_default or bool(weights_key(default))

    def servers_for(self, model: Model | None) -> list[str]:
        """The servers that may speak with this model: those pinned to it, and those pinned to none, if they can."""
        model_id = model.id if model else "default"
        can_load = self._protocol.can_load(model)
        return [
            name
            for name in self._servers
            if self._pinned.get(name) == model_id or (name not in self._pinned and can_load)
        ]

    def synthesize(
        self, request: SynthesisRequest, deadline: float, canceled: Callable[[], bool]
    ) -> GptSovitsSynthesis:
        """As voices.engines.interface.Engine; what is wrong with the request is raised here, before anything is spoken.

        Raises PublicError also with reference_too_short, reference_too_long (longer than 10 s with a
        transcript) and as `check` does.
        """
        return GptSovitsSynthesis(self, request, deadline, canceled)

    @staticmethod
    def check(
        text: str,
        language: str,
        transcript: str | None,
        reference_language: str,
        model: Model | None,
        early: bool = False,
    ) -> list[Sentence]:
        """The sentences to speak (early: see voices.text.sentences.split).

        PublicError validation_error: a language that the model does not speak, a text with nothing in it to speak, no
        transcript where the model needs one.
        """
        version = model.version if model else ""
        known = V1_LANGUAGES if version == "v1" else LANGUAGES
        speaks = known & (model.languages | {"auto"}) if model and model.languages else known
        name = f"The model {model.id}" + (f" ({version})" if version else "") if model else "This engine"
        language, reference_language = language.lower(), reference_language.lower()
        if language not in speaks:
            raise _refused("language", f"{name} does not speak that; it speaks: {', '.join(sorted(speaks))}.")
        if reference_language not in known:
            raise _refused("reference_language", f"{name} does not know that; it knows: {', '.join(sorted(known))}.")
        if version in NEED_TRANSCRIPT and not (transcript or "").strip():
            advice = "send reference_text, and a reference of 3 to 10 seconds."
            raise _refused("reference_text", f"{name} needs the words of the reference: {advice}")
        if prompt_language(transcript, reference_language) not in known | {"und"}:
            raise _refused("reference_text", f"{name} does not know the language that this is in.")
        sentences = split(text, language, early=early)
        if not sentences:
            raise _refused("text", "There is nothing to speak: it has no letters.")
        if any(sentence.language not in LANGUAGES for sentence in sentences):
            raise _refused("text", "It has letters of a language that this engine does not speak.")
        foreign = sorted({sentence.language for sentence in sentences} - speaks)
        if foreign:
            raise _refused("text", f"{name} does not speak what is in it: {', '.join(foreign)}.")
        return sentences

    def reference_window(self, reference: Reference) -> tuple[float, float] | None:
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
        # Looked for once: every request asks twice, and most bring a reference that was here before.
        key = reference.content_hash, len(reference.samples), reference.sample_rate
        window = self._windows.get(key)
        if window is None:
            window = best_window(reference.samples, reference.sample_rate)
            if len(self._windows) >= KEPT_WINDOWS:
                self._windows.clear()
            self._windows[key] = window
        return window

    def health(self) -> EngineHealth:
        """Asks all servers for /openapi.json at once, except those that work for us and could not answer."""
        try:
            states: Mapping[str, Any] = self._leases.states()
            waiting, expected = self._leases.waiting(), self._leases.expected_wait_seconds()
        except Exception:  # the database's own check reports that it is down
            log.warning("The leases cannot be read", exc_info=True)
            states, waiting, expected = {}, 0, 0.0
        found: dict[str, ServerReport] = {}

        def ask(server: Server) -> None:
            found[server.name] = self._protocol.report(server, time.monotonic() + HEALTH_SECONDS)

        threads = []
        for server in self._servers.values():
            state = states.get(server.name)
            if state is not None and state.held:
                found[server.name] = (True, None, gettext_noop("busy"))
                continue
            threads.append(threading.Thread(target=ask, args=(server,), daemon=True))
            threads[-1].start()
        until = time.monotonic() + HEALTH_SECONDS + 0.1
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))  # looking up a name knows no time limit
        unanswered = (False, None, gettext_noop("no answer within 2 s: busy or down"))
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
                "queue_length": waiting + sum(state.held for state in states.values()),
                "expected_wait_seconds": round(expected, 1),
            },
        )

    def close(self) -> None:
        """Ends what goes on behind the requests."""
        self._leases.close()

    def probe_back(self, server: Server) -> None:
        """Has a server that failed asked from time to time, behind the requests, until it answers."""

        def probe() -> bool | None:
            try:
                self._protocol.fence(server, time.monotonic() + OTHER_PROBE_SECONDS)
            except CallFailed as failure:
                return False if failure.unreachable else None
            return True

        self._leases.probe_back(server.name, probe)


def _refused(field: str, message: str) -> PublicError:
    return PublicError("validation_error", f"{field}: {message}", {field: [message]})


def prompt_language(transcript: str | None, language: str) -> str:
    """The language of the reference's words: as given, or told from them; `auto` where there are none."""
    words = (transcript or "").strip()
    return detect_language(words) if language == "auto" and words else language


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
        if request.model is None and request.model_id not in (None, "", "default"):
            raise ValueError("a model that nobody has looked up")
        self._model = request.model
        transcript = request.reference.transcript
        self._sentences = engine.check(
            request.text, request.language, transcript, request.reference.language, self._model, request.early
        )
        language = prompt_language(transcript, request.reference.language.lower())
        self._prompt_language = language if language in LANGUAGES else "auto"
        self.reference_window = engine.reference_window(request.reference)
        self._suitable = engine.servers_for(self._model)
        if not self._suitable:
            raise PublicError("not_configured", "No server of the speech engine is set up for this model.")
        self._pieces = self._speak_all()

    def __next__(self) -> Piece:
        return next(self._pieces)

    def close(self) -> None:
        self._pieces.close()

    def _reference(self) -> Any:
        reference, window = self._request.reference, self.reference_window

        def cut() -> NDArray[np.float32]:
            if window is None:
                return reference.samples
            start, end = (round(at * reference.sample_rate) for at in window)
            return _edges_faded(reference.samples[start:end], reference.sample_rate)

        excerpt = Excerpt(reference.samples, window, reference.sample_rate, cut)
        return self._engine._protocol.reference(excerpt, self._model)

    def _speak_all(self) -> Generator[Piece, None, None]:
        reference = self._reference()
        sample_rate = 0
        for sentence in self._sentences:
            if self._canceled():
                return
            piece = self._speak(self._utterance(sentence, reference))
            if piece is None:
                return
            if sample_rate and piece.sample_rate != sample_rate:
                log.error("A sentence came at %d Hz after one at %d Hz", piece.sample_rate, sample_rate)
                raise EngineError()
            sample_rate = piece.sample_rate
            yield piece

    def _utterance(self, sentence: Sentence, reference: Any) -> Utterance:
        return Utterance(
            text=sentence.text,
            language=sentence.language,
            reference=reference,
            transcript=(self._request.reference.transcript or "").strip(),
            prompt_language=self._prompt_language,
            speed=self._request.speed,
            temperature=self._request.temperature,
            seed=self.seed,
            model=self._model,
        )

    def _rank(self, server: str, loaded: str) -> int:
        """Servers that need no switch first, then those where nothing is lost by one."""
        key = weights_key(self._model)
        if not key or server in self._engine._pinned or loaded == key:
            return 0
        return 1 if loaded in ("", UNKNOWN_WEIGHTS) else 2

    def _speak(self, utterance: Utterance) -> Piece | None:
        """One sentence, on the server that is free first and can be reached. None when canceled."""
        engine = self._engine
        alone = len(self._suitable) == 1
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
                    tenant=self._request.tenant,
                    servers=self._suitable,
                    admitted=self._admitted,
                    prefer=self._server,
                    rank=self._rank,
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
                    self._load(server, lease)
                    return self._call(server, utterance)
                except CallFailed as failure:
                    set_aside = failure.unreachable or failure.refused or (failure.unsettled and not alone)
                    in_doubt = failure.unsettled or failure.unreachable or lease.needs_probe
                    lease.release(needs_probe=in_doubt, set_aside=set_aside, unreachable=failure.unreachable)
                    if set_aside and in_doubt:
                        engine.probe_back(server)
                    if failure.refused and isinstance(failure.error, EngineBusy):
                        # Somebody else has filled its queue: as good as a server that is held.
                        continue
                    failed.add(lease.server)
                    if not isinstance(failure.error, EngineUnavailable | EngineBusy) or len(failed) == len(
                        self._suitable
                    ):
                        raise failure.error from failure
                    log.warning("%s is set aside", lease.server)
                except PublicError:
                    # It answered in full, so nothing goes on there; only the answer was no speech.
                    lease.release(needs_probe=False)
                    raise

    def _fence(self, server: Server, until: float) -> None:
        """Waits until nothing that began before runs on the server any more."""
        try:
            self._engine._protocol.fence(server, min(until, self._deadline))
        except CallFailed as failure:
            if not isinstance(failure.error, EngineTimeout):
                raise
            error: PublicError = EngineBusy(retry_after=self._engine._leases.retry_after_seconds())
            if time.monotonic() >= self._deadline:
                error = EngineTimeout()
            raise CallFailed(error, unsettled=True) from failure

    def _load(self, server: Server, lease: Lease) -> None:
        """Brings the model's weights onto the server, where it keeps what it was last given."""
        engine = self._engine
        if not engine._protocol.switches or server.name in engine._pinned:
            return
        key = weights_key(self._model)
        if not key:
            if lease.loaded:
                log.error(
                    "%s was given other weights, and those it had before are not known: fill in the model `default`, "
                    "or restart the server with its own weights and delete its lease",
                    server.name,
                )
                raise PublicError("not_configured", "The default model of the speech engine is not known any more.")
            return
        if lease.loaded == key or self._model is None:
            return
        lease.remember(UNKNOWN_WEIGHTS)  # so that whoever comes after an end half-way knows
        engine._protocol.load(server, self._model, min(self._deadline, time.monotonic() + SWITCH_SECONDS))
        lease.remember(key)

    def _call(self, server: Server, utterance: Utterance) -> Piece:
        """One sentence, said again with another seed if too little of it was said."""
        samples, sample_rate = self._tts(server, utterance)
        least = least_seconds(utterance.text, utterance.speed)
        if (spoken := voiced_seconds(samples, sample_rate)) < least:
            log.warning("%s spoke %.2f s where at least %.2f s were expected", server.name, spoken, least)
            again, rate = self._tts(server, replace(utterance, seed=(self.seed + 1) % 2**32))
            if rate == sample_rate and voiced_seconds(again, rate) > spoken:
                samples = again
        return Piece(_edges_faded(samples, sample_rate), sample_rate, utterance.text)

    def _tts(self, server: Server, utterance: Utterance) -> tuple[NDArray[np.float32], int]:
        deadline = min(self._deadline, time.monotonic() + self._engine._timeout_seconds)
        return self._engine._protocol.speak(server, utterance, deadline)
