"""What both protocols of a GPT-SoVITS server do, and what they share.

Each says how a reference reaches the server, how weights are loaded, what tells that nothing runs there any more, and
what an answer means.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from django.utils.translation import gettext_noop as _  # for the console, which translates it
from numpy.typing import NDArray

from voiceproject.errors import EngineError, EngineTimeout
from voices.engines.gptsovits.references import Excerpt
from voices.engines.gptsovits.servers import Answer, CallFailed, Server
from voices.engines.gptsovits.speech import read_speech
from voices.engines.interface import Model

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 16 * 1024 * 1024  # 170 s at 48 kHz; a sentence is a tenth of it
MAX_PROBE_BYTES = 1024 * 1024

ServerReport = tuple[bool, float | None, str]  # can it work; milliseconds of its answer; a word for a person


@dataclass(frozen=True)
class Utterance:
    """One sentence to speak. reference: what the protocol's `reference` gave; the languages are the engine's codes."""

    text: str
    language: str
    reference: Any
    transcript: str
    prompt_language: str
    speed: float
    temperature: float
    seed: int
    model: Model | None


class EngineProtocol(Protocol):
    name: str
    # Whether a server's weights are switched by us, and stay so for whoever comes next.
    switches: bool

    def can_load(self, model: Model | None) -> bool:
        """Whether a server that is pinned to nothing can speak with this model; None is the server's default."""
        ...

    def reference(self, audio: Excerpt, model: Model | None) -> Any:
        """The reference as `Utterance` has it. Raises PublicError storage_full, not_configured."""
        ...

    def load(self, server: Server, model: Model, deadline: float) -> None:
        """Loads the model's weights. Raises CallFailed, EngineError (then it is not known what is loaded)."""
        ...

    def speak(self, server: Server, utterance: Utterance, deadline: float) -> tuple[NDArray[np.float32], int]:
        """float32 (n,) mono and its rate in Hz. Raises CallFailed, EngineError, PublicError validation_error."""
        ...

    def fence(self, server: Server, until: float) -> None:
        """Returns once nothing that began before runs there any more. Raises CallFailed."""
        ...

    def report(self, server: Server, until: float) -> ServerReport: ...


def weights_key(model: Model | None) -> str:
    """What names a pair of weights; empty for a model that has none."""
    return (
        f"{model.gpt_weights}\n{model.sovits_weights}" if model and model.gpt_weights and model.sovits_weights else ""
    )


def _hidden(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        for form in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1]):
            text = text.replace(form, "[text]") if len(form) > 3 else text
    return text


def log_excerpt(answer: Answer, secrets: Sequence[str] = ()) -> str:
    """What the server said of its failure, short, in one line, and without what it was asked to speak."""
    text = answer.body[:20_000].decode("utf-8", "replace")
    parsed = answer.json()
    if parsed:
        detail = parsed.get("detail")
        if isinstance(detail, list):  # a validation error repeats its input
            parts = [f"{item.get('loc')} {item.get('msg')}" for item in detail if isinstance(item, dict)]
            text = "; ".join(parts)
        else:
            names = ("error", "message", "Exception", "detail")
            text = "; ".join(f"{name}={parsed[name]}" for name in names if name in parsed)
    return repr(_hidden(text, secrets)[:300])


def speech_or_log(server: Server, answer: Answer) -> tuple[NDArray[np.float32], int]:
    try:
        return read_speech(answer)
    except EngineError as error:
        log.error("%s answered 200 with %s", server.name, error.__cause__)
        raise


def asked(server: Server, path: str, until: float, headers: dict[str, str]) -> tuple[Answer | None, ServerReport]:
    """The answer to a probe, or what is to be reported of a server that gave none."""
    start = time.monotonic()
    try:
        answer = server.request("GET", path, until, MAX_PROBE_BYTES, headers=headers)
    except CallFailed as failure:
        if isinstance(failure.error, EngineTimeout):
            return None, (False, None, _("no answer within 2 s: busy or down"))
        return None, (False, None, _("cannot be reached") if failure.unreachable else _("broke off its answer"))
    return answer, (True, round((time.monotonic() - start) * 1000, 1), "")
