"""One request, spoken sentence by sentence: each on a server that is free, under its lease, with the right weights."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceproject.errors import EngineBusy, EngineError, EngineTimeout, EngineUnavailable, PublicError
from voices.engines.gptsovits.fleet import OTHER_PROBE_SECONDS, Fleet, Lease
from voices.engines.gptsovits.languages import LANGUAGES, prompt_language
from voices.engines.gptsovits.protocol import Utterance, weights_key
from voices.engines.gptsovits.references import Excerpt
from voices.engines.gptsovits.servers import CallFailed, Server
from voices.engines.gptsovits.speech import edges_faded, least_seconds, voiced_seconds
from voices.engines.interface import Piece, SynthesisRequest, pause_of
from voices.text.reading import Spoken

log = logging.getLogger(__name__)

# What a weights switch adds to a sentence: 0.4 to 6 s were measured, from a cold disk it may be more.
SWITCH_SECONDS = 120.0
UNKNOWN_WEIGHTS = "?"  # as voiceproject.leases has it


class GptSovitsSynthesis(Iterator[Piece]):
    """The pieces of one request, spoken as they are asked for.

    seed: the one in use, drawn where the request has none; reference_window: (start, end) in seconds of the
    part of the reference that the engine hears, None if it hears all of it.
    """

    def __init__(
        self,
        fleet: Fleet,
        request: SynthesisRequest,
        sentences: Sequence[Spoken],
        reference_window: tuple[float, float] | None,
        deadline: float,
        canceled: Callable[[], bool],
    ) -> None:
        self._fleet = fleet
        self._request = request
        self._deadline = deadline
        self._canceled = canceled
        self._server: str | None = None  # the one that spoke last: another may have other weights
        self._admitted = False
        self.seed = request.seed % 2**32 if request.seed is not None else random.SystemRandom().randrange(2**31)
        if request.model is None and request.model_id not in (None, "", "default"):
            raise ValueError("a model that nobody has looked up")
        self._model = request.model
        self._sentences = sentences
        language = prompt_language(request.reference.transcript, request.reference.language.lower())
        self._prompt_language = language if language in LANGUAGES else "auto"
        self.reference_window = reference_window
        self._suitable = fleet.servers_for(self._model)
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
            return edges_faded(reference.samples[start:end], reference.sample_rate)

        excerpt = Excerpt(reference.samples, window, reference.sample_rate, cut)
        return self._fleet.protocol.reference(excerpt, self._model)

    def _speak_all(self) -> Generator[Piece, None, None]:
        reference = self._reference()
        sample_rate = 0
        for sentence in self._sentences:
            if self._canceled():
                return
            if not sentence.words:
                yield pause_of(sentence.pause_seconds)
                continue
            if self._model is not None:
                self._model.fetch()  # For each sentence: between two, a cache may have let them go.
            piece = self._speak(self._utterance(sentence, reference))
            if piece is None:
                return
            piece = replace(piece, text=sentence.text, pause_seconds=sentence.pause_seconds)
            if sample_rate and piece.sample_rate != sample_rate:
                log.error("A sentence came at %d Hz after one at %d Hz", piece.sample_rate, sample_rate)
                raise EngineError()
            sample_rate = piece.sample_rate
            yield piece

    def _utterance(self, sentence: Spoken, reference: Any) -> Utterance:
        return Utterance(
            text=sentence.words,
            language=sentence.language,
            reference=reference,
            transcript=(self._request.reference.transcript or "").strip(),
            prompt_language=self._prompt_language,
            speed=min(2.0, max(0.5, self._request.speed * sentence.rate)),
            temperature=self._request.temperature,
            seed=self.seed,
            model=self._model,
        )

    def _rank(self, server: str, loaded: str) -> int:
        """Servers that need no switch first, then those where nothing is lost by one."""
        key = weights_key(self._model)
        if not key or server in self._fleet.pinned or loaded == key:
            return 0
        return 1 if loaded in ("", UNKNOWN_WEIGHTS) else 2

    def _speak(self, utterance: Utterance) -> Piece | None:
        """One sentence, on the server that is free first and can be reached. None when canceled."""
        fleet = self._fleet
        alone = len(self._suitable) == 1
        failed: set[str] = set()
        wait_until = self._deadline
        if not self._admitted:
            wait_until = min(wait_until, time.monotonic() + fleet.queue_seconds)
        while True:
            if time.monotonic() >= self._deadline:
                raise EngineTimeout()
            try:
                lease = fleet.leases.acquire(
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
            server = fleet.servers[lease.server]
            with lease:
                try:
                    if lease.needs_probe:
                        self._fence(server, wait_until if alone else time.monotonic() + OTHER_PROBE_SECONDS)
                        lease.answered()
                    self._admitted = True
                    return self._say(server, lease, utterance)
                except CallFailed as failure:
                    set_aside = failure.unreachable or failure.refused or (failure.unsettled and not alone)
                    in_doubt = failure.unsettled or failure.unreachable or lease.needs_probe
                    lease.release(needs_probe=in_doubt, set_aside=set_aside, unreachable=failure.unreachable)
                    if set_aside and in_doubt:
                        fleet.probe_back(server)
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
            self._fleet.protocol.fence(server, min(until, self._deadline))
        except CallFailed as failure:
            if not isinstance(failure.error, EngineTimeout):
                raise
            seconds = self._fleet.leases.retry_after_seconds(self._request.tenant, self._suitable)
            error: PublicError = EngineBusy(retry_after=seconds)
            if time.monotonic() >= self._deadline:
                error = EngineTimeout()
            raise CallFailed(error, unsettled=True) from failure

    def _say(self, server: Server, lease: Lease, utterance: Utterance) -> Piece:
        self._load(server, lease)
        try:
            return self._call(server, utterance)
        except CallFailed as failure:
            if not failure.restarted:
                raise
        self._load(server, lease)
        return self._call(server, utterance)

    def _load(self, server: Server, lease: Lease) -> None:
        """Brings the model's weights onto the server, where it keeps what it was last given until it is restarted."""
        fleet = self._fleet
        if not fleet.protocol.switches or server.name in fleet.pinned:
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
        if self._model is None or (lease.loaded == key and server.remembers(lease.loaded_at)):
            return
        server.watch(lease.loaded_at, self._deadline)
        lease.remember(UNKNOWN_WEIGHTS)  # so that whoever comes after an end half-way knows
        fleet.protocol.load(server, self._model, min(self._deadline, time.monotonic() + SWITCH_SECONDS))
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
        return Piece(edges_faded(samples, sample_rate), sample_rate, utterance.text)

    def _tts(self, server: Server, utterance: Utterance) -> tuple[NDArray[np.float32], int]:
        deadline = min(self._deadline, time.monotonic() + self._fleet.timeout_seconds)
        return self._fleet.protocol.speak(server, utterance, deadline)
