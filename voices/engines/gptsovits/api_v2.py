"""GPT-SoVITS's own `api_v2.py`.

It reads the reference from its own disk and remembers it by its path alone, and its words by their letters alone; it
has no `/health`, answers nothing while it
works, switches weights for everybody, and reports a failed synthesis as a 200 with a second of silence.
"""

from __future__ import annotations

import hashlib
import json
import logging
import weakref
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from django.utils.translation import gettext_noop as _  # for the console, which translates it
from numpy.typing import NDArray

from voiceproject.errors import EngineError, EngineUnavailable
from voices.engines.gptsovits.languages import LANGUAGES
from voices.engines.gptsovits.protocol import (
    MAX_ANSWER_BYTES,
    MAX_PROBE_BYTES,
    ServerReport,
    Utterance,
    asked,
    log_excerpt,
    speech_or_log,
    weights_key,
)
from voices.engines.gptsovits.references import Excerpt, still_there, store_reference
from voices.engines.gptsovits.servers import Answer, CallFailed, Server
from voices.engines.interface import Model

log = logging.getLogger(__name__)

KEPT_NAMES = 1000
UNKNOWN_TABLES = 251  # among so many, weights of an unknown version are taken to have a table of their own


class ApiV2:
    """reference_dir: where we write references; reference_dir_on_server: the same folder as the server sees it."""

    name = "api_v2"
    switches = True

    def __init__(self, reference_dir: Path, reference_dir_on_server: str) -> None:
        self._folder = Path(reference_dir)
        self._folder_on_server = reference_dir_on_server.rstrip("/\\")
        # What was stored of an array that is still there: the array, and the file's name.
        self._stored: dict[tuple[Any, ...], tuple[weakref.ref[NDArray[np.float32]], str]] = {}

    def can_load(self, model: Model | None) -> bool:
        return model is None or model.id == "default" or bool(weights_key(model))

    def reference(self, audio: Excerpt, model: Model | None) -> str:
        # What the server remembers of a path was computed with the weights of then, and a switch does not compute it
        # anew. So each pair of weights has paths of its own.
        weights = weights_key(model)
        mark = "-" + hashlib.sha256(weights.encode()).hexdigest()[:12] if weights else ""
        # To encode and hash it again for each text takes as long as all reading of the database. A name that the
        # caller has for it would not do, since two voices could bear it: an array that nobody can write to does.
        key = id(audio.whole), audio.window, audio.sample_rate, mark
        array, name = self._stored.get(key, (None, ""))
        if array is None or array() is not audio.whole or not still_there(self._folder / name):
            name = store_reference(audio.cut(), audio.sample_rate, self._folder, mark)
            if not audio.whole.flags.writeable:
                if len(self._stored) >= KEPT_NAMES:
                    self._stored.clear()
                self._stored[key] = weakref.ref(audio.whole), name
        return f"{self._folder_on_server}/{name}"

    def load(self, server: Server, model: Model, deadline: float) -> None:
        for path, weights in (
            ("/set_gpt_weights", model.gpt_weights),
            ("/set_sovits_weights", model.sovits_weights),
        ):
            answer = server.request("GET", f"{path}?weights_path={quote(weights, safe='')}", deadline, MAX_PROBE_BYTES)
            if answer.status != 200:
                log.error(
                    "%s could not load %s for the model %r. It keeps its old weights until it is restarted: by now its "
                    "tts_infer.yaml may have this path, and where the file is missing it starts with its version's "
                    "default. It said: %s",
                    server.name, weights, model.id, log_excerpt(answer),
                )  # fmt: skip
                raise _failure(answer)

    def speak(self, server: Server, utterance: Utterance, deadline: float) -> tuple[NDArray[np.float32], int]:
        payload = {
            "text": utterance.text,
            "text_lang": utterance.language,
            "ref_audio_path": utterance.reference,
            "prompt_text": _prompt_text(utterance),
            "prompt_lang": utterance.prompt_language,
            "temperature": utterance.temperature,
            "speed_factor": utterance.speed,
            "seed": utterance.seed,
            "text_split_method": "cut0",
            "batch_size": 1,
            "media_type": "wav",
            "streaming_mode": False,
        }
        headers = {"Content-Type": "application/json"}
        body = json.dumps(payload).encode()
        answer = server.request("POST", "/tts", deadline, MAX_ANSWER_BYTES, body=body, headers=headers)
        if answer.status != 200:
            excerpt = log_excerpt(answer, (utterance.text, utterance.transcript))
            log.error("%s answered %d: %s", server.name, answer.status, excerpt)
            raise _failure(answer)
        return speech_or_log(server, answer)

    def fence(self, server: Server, until: float) -> None:
        # Any answer will do: the server does one thing at a time, so what began before has then ended.
        server.request("GET", "/openapi.json", until, MAX_PROBE_BYTES)

    def report(self, server: Server, until: float) -> ServerReport:
        answer, report = asked(server, "/openapi.json", until, {})
        if answer is None:
            return report
        paths = answer.json().get("paths") if answer.status == 200 else None
        paths = paths if isinstance(paths, dict) else {}
        if "/tts" in paths:
            return True, report[1], _("ready")
        found = _("something answers, but not GPT-SoVITS's api_v2.py")
        if "/synthesize" in paths:
            found = _("this is gptsovits_server.py: set SOVITS_PROTOCOL=voiceproject")
        elif "/" in paths:
            found = _("this is GPT-SoVITS's older api.py, which is not supported: run its api_v2.py")
        return False, report[1], found


def _prompt_text(utterance: Utterance) -> str:
    """The words of the reference as the server is to read them.

    It keeps how it has read them, in the language and with the symbols of the weights of then, for as long as the text
    is the same. So each language and symbol table has a text of its own. Spaces before it change nothing of what is
    read: whatever their number, it makes one of them first.
    """
    if not utterance.transcript:
        return ""
    version = utterance.model.version if utterance.model else ""
    table = int(version != "v1")  # v1 has its own, all others share one
    if not version:
        table = 2 + int(hashlib.sha256(weights_key(utterance.model).encode()).hexdigest(), 16) % UNKNOWN_TABLES
    languages = sorted(LANGUAGES)
    return " " * (1 + languages.index(utterance.prompt_language) + len(languages) * table) + utterance.transcript


def _failure(answer: Answer) -> Exception:
    """api_v2.py has no such status: a proxy before it could not reach it, or did not wait for it."""
    if answer.status in (502, 503, 504):
        return CallFailed(EngineUnavailable(), unsettled=True)
    return EngineError()
