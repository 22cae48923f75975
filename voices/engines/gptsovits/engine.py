"""The engine as `interface.Engine` has it: what can be asked of it, and the start of a synthesis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from voiceproject.errors import PublicError
from voices.engines.gptsovits.api_v2 import ApiV2
from voices.engines.gptsovits.fleet import Fleet, Leases
from voices.engines.gptsovits.languages import LANGUAGES, check
from voices.engines.gptsovits.own_server import VoiceProject
from voices.engines.gptsovits.protocol import EngineProtocol, weights_key
from voices.engines.gptsovits.references import MAX_REFERENCE_SECONDS, MIN_REFERENCE_SECONDS, best_window
from voices.engines.gptsovits.synthesis import GptSovitsSynthesis
from voices.engines.interface import EngineHealth, Model, Reference, SynthesisRequest

KEPT_WINDOWS = 1000


class GptSovitsEngine:
    """Speaks through one or several GPT-SoVITS servers, a sentence at a time, each under a lease.

    base_urls: of the servers; timeout_seconds: for one sentence; reference_dir: where we write references for
    api_v2.py, and reference_dir_on_server: the same folder as the server sees it; queue_seconds: the longest wait for
    a first turn, max_waiting: how many may wait at once; lease_factory: called as (servers, max_waiting=...), gives
    `Leases`; protocol: `api_v2` or `voiceproject` (own_server), token: of the latter; pinned: base URL -> the one
    model that this server speaks with, whose weights it was started with and keeps.
    """

    name = "gptsovits"
    languages = LANGUAGES
    letters: frozenset[str] = frozenset()
    max_reference_seconds = MAX_REFERENCE_SECONDS
    check = staticmethod(check)

    def __init__(
        self,
        base_urls: Sequence[str],
        timeout_seconds: float,
        reference_dir: Path,
        reference_dir_on_server: str,
        queue_seconds: float,
        max_waiting: int,
        lease_factory: Callable[..., Leases],
        *,
        protocol: str = "api_v2",
        token: str = "",
        pinned: Mapping[str, str] | None = None,
    ) -> None:
        self._protocol: EngineProtocol = VoiceProject(token)
        if protocol == "api_v2":
            self._protocol = ApiV2(reference_dir, reference_dir_on_server)
        self._windows: dict[tuple[str, int, int], tuple[float, float]] = {}
        self._fleet = Fleet(
            base_urls,
            self._protocol,
            pinned or {},
            lease_factory,
            timeout_seconds=timeout_seconds,
            queue_seconds=queue_seconds,
            max_waiting=max_waiting,
        )

    def serves(self, model: Model | None, default: Model | None, offers_default: bool = True) -> bool:
        """Whether any server can speak with this model (None: the default).

        default: the registry's row of that name, if there is one. Where the default is offered and its weights are not
        known, no server's weights are switched, since nothing could bring its own back.
        """
        if not self._fleet.servers_for(model):
            return False
        is_default = model is None or model.id == "default"
        pinned = not is_default and model is not None and model.id in self._fleet.pinned.values()
        if is_default or pinned or not self._protocol.switches:
            return True
        return not offers_default or bool(weights_key(default))

    def synthesize(
        self, request: SynthesisRequest, deadline: float, canceled: Callable[[], bool]
    ) -> GptSovitsSynthesis:
        """As voices.engines.interface.Engine; what is wrong with the request is raised here, before anything is spoken.

        Raises PublicError also with reference_too_short, reference_too_long (longer than 10 s with a
        transcript) and as `check` does.
        """
        reference = request.reference
        reading = request.reading or check(
            request.text, request.language, reference.transcript, reference.language, request.model, request.early,
            request.lexicon,
        )  # fmt: skip
        window = self.reference_window(reference)
        return GptSovitsSynthesis(self._fleet, request, reading.sentences, window, deadline, canceled)

    def reference_window(self, reference: Reference) -> tuple[float, float] | None:
        """(start, end) in seconds of the part that the server gets to hear, None where it hears all of it.

        Raises PublicError: reference_too_short, reference_too_long (more than 10 s with a transcript).
        """
        found = {"duration_seconds": round(reference.duration_seconds, 3)}
        if reference.frames < MIN_REFERENCE_SECONDS * reference.sample_rate:
            raise PublicError("reference_too_short", "The reference must last at least 3 seconds.", found)
        if reference.frames <= MAX_REFERENCE_SECONDS * reference.sample_rate:
            return None
        if (reference.transcript or "").strip():
            raise PublicError(
                "reference_too_long",
                "With a transcript the reference may last at most 10 seconds: no more of it is used.",
                found,
            )
        # Looked for once: every request asks twice, and most bring a reference that was here before.
        key = reference.content_hash, reference.frames, reference.sample_rate
        window = self._windows.get(key)
        if window is None:
            window = best_window(reference.samples, reference.sample_rate)
            if len(self._windows) >= KEPT_WINDOWS:
                self._windows.clear()
            self._windows[key] = window
        return window

    def health(self) -> EngineHealth:
        return self._fleet.health(self.name)

    def close(self) -> None:
        """Ends what goes on behind the requests."""
        self._fleet.leases.close()
