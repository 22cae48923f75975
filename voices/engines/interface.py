"""What every speech engine takes and gives. Nothing here imports Django."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from voices.text.lexicon import Lexicon
from voices.text.reading import Reading


class Kept(Protocol):
    """Where an engine finds what it has computed of a saved voice, in whatever form it likes; nothing else reads it."""

    def load(self, engine: str, language: str) -> bytes | None: ...

    def store(self, engine: str, language: str, data: bytes) -> None:
        """Never raises: what could not be kept is computed again."""
        ...


@dataclass(frozen=True)
class Reference:
    """The voice to copy.

    samples: float32, shape (n,), mono, -1..1; sample_rate in Hz; content_hash: SHA-256 (hex) that names this audio;
    transcript: what is said in the whole of it, or None; language: `auto` or a code of the engine; kept: of a saved
    voice, None for any other; preset: one of the engine's `presets`, whose own voice speaks then, and there are no
    samples.
    """

    samples: NDArray[np.float32]
    sample_rate: int
    content_hash: str
    transcript: str | None = None
    language: str = "auto"
    kept: Kept | None = field(default=None, compare=False)
    preset: str = ""

    @property
    def frames(self) -> int:
        return len(self.samples)

    @property
    def duration_seconds(self) -> float:
        return self.frames / self.sample_rate


class StoredReference(Reference):
    """A reference whose samples are read when somebody asks for them: engines that know the voice never do.

    They are not kept here. read: gives the samples; frames: how many they are.
    """

    def __init__(
        self,
        read: Callable[[], NDArray[np.float32]],
        frames: int,
        sample_rate: int,
        content_hash: str,
        transcript: str | None = None,
        language: str = "auto",
        kept: Kept | None = None,
    ) -> None:
        for name, value in {
            "_read": read,
            "_frames": frames,
            "sample_rate": sample_rate,
            "content_hash": content_hash,
            "transcript": transcript,
            "language": language,
            "kept": kept,
            "preset": "",
        }.items():
            object.__setattr__(self, name, value)

    @property
    def samples(self) -> NDArray[np.float32]:  # type: ignore[override]
        samples: NDArray[np.float32] = self._read()  # type: ignore[attr-defined]
        return samples

    @property
    def frames(self) -> int:
        frames: int = self._frames  # type: ignore[attr-defined]
        return frames


def profile_key(reference: Reference) -> str:
    """Names a reference together with its transcript."""
    parts = (reference.content_hash, reference.language, reference.transcript or "")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Model:
    """A trained model of the operator's registry (voices.speech.registry).

    Paths are as the machine sees them that loads them, empty where there are none; version: of GPT-SoVITS (`v2Pro`),
    empty if not known; languages: those that it speaks, empty for all of its engine and version. fetch: brings weights
    that are kept elsewhere to those paths; called before anything loads them. Raises PublicError engine_unavailable.
    """

    id: str
    gpt_weights: str = ""
    sovits_weights: str = ""
    voice_weights: str = ""
    voice_index: str = ""
    version: str = ""
    languages: frozenset[str] = frozenset()
    fetch: Callable[[], None] = field(default=lambda: None, compare=False, repr=False)


@dataclass(frozen=True)
class OwnModel:
    """A model that an engine brings along beside its default, in no row of the registry. name, description: for people.

    An engine that has some lists them as `models`; a request names one by its id.
    """

    id: str
    name: str
    description: str


@dataclass(frozen=True)
class SynthesisRequest:
    """One text to speak. speed 0.5-2 (2 is twice as fast); temperature 0.1-1; seed None draws one.

    text: as the client sent it; engines speak what voices.text.reading makes of it.
    early: somebody listens already, so a long first sentence is cut at a clause (voices.text.sentences.split).
    model: what the registry has under model_id, None for the engine's own default; tenant: any name of who asks, since
    engines that have a line serve tenants by turns; lexicon: how words of the text are said; reading: what the engine's
    `check` made of all this, where it was asked before.
    """

    text: str
    language: str
    reference: Reference
    speed: float = 1.0
    temperature: float = 0.7
    seed: int | None = None
    model_id: str | None = None
    early: bool = False
    tenant: str = ""
    model: Model | None = None
    lexicon: Lexicon = field(default_factory=Lexicon)
    reading: Reading | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Piece:
    """The audio of one sentence: float32, shape (n,), mono, -1..1; sample_rate in Hz.

    pause_seconds: of the exact pause behind it that the text asks for; whoever joins the pieces makes it. A pause by
    itself has neither samples nor a rate nor text.
    """

    samples: NDArray[np.float32]
    sample_rate: int
    text: str
    pause_seconds: float = 0.0


def pause_of(seconds: float) -> Piece:
    return Piece(np.zeros(0, np.float32), 0, "", seconds)


@dataclass(frozen=True)
class EngineHealth:
    """available: it can take work; latency_ms of the probe, None where nothing was asked; detail for a person."""

    name: str
    available: bool
    latency_ms: float | None = None
    detail: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """What every engine has. The class also has `from_settings(settings)`, which makes the engine of a process.

    These attributes and methods are optional. BuiltinEngine and GptSovitsEngine show their arguments:
    models, serves: which models it speaks with, if it has more than one; presets: names of voices of its own;
    check: refuses a text early; prepare: computes what it needs of a saved voice; max_reference_seconds: it hears no
    more of a reference; reference_window: which part of one it hears; pauses: seconds of silence, at speed 1, that it
    makes behind a sentence and behind a clause of a text, but not behind the last; letters: alphabets in which it takes
    words (voices.text.reading.LETTERS where there is none); close: ends what it has started.
    """

    name: str
    languages: frozenset[str]

    def synthesize(self, request: SynthesisRequest, deadline: float, canceled: Callable[[], bool]) -> Iterator[Piece]:
        """Yields a Piece a sentence. `deadline` is a time.monotonic() value, `canceled` is asked between sentences.

        Raises EngineError, EngineUnavailable, EngineBusy, EngineTimeout (voiceproject.errors).
        """
        ...

    def health(self) -> EngineHealth:
        """The engine's state, within 2 seconds. Never raises."""
        ...
