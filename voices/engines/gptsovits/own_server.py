"""Our own `gpu_scripts/gptsovits_server.py`: it takes everything with the request, and says what is wrong."""

from __future__ import annotations

import logging
import time
import uuid

import numpy as np
from django.utils.translation import gettext_noop as _  # for the console, which translates it
from numpy.typing import NDArray

from voiceproject.errors import EngineBusy, EngineError, EngineTimeout, EngineUnavailable, PublicError
from voiceproject.telemetry.logging import current
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
from voices.engines.gptsovits.references import Excerpt, wav_bytes
from voices.engines.gptsovits.servers import Answer, CallFailed, Server
from voices.engines.interface import Model

log = logging.getLogger(__name__)

FENCE_PAUSE_SECONDS = 0.2


class VoiceProject:
    """token: what the server was started with; empty for none."""

    name = "voiceproject"
    switches = False

    def __init__(self, token: str) -> None:
        self._authorization = {"Authorization": f"Bearer {token}"} if token else {}

    def can_load(self, model: Model | None) -> bool:
        return True  # By its weights, or by a name that the server knows.

    def reference(self, audio: Excerpt, model: Model | None) -> bytes:
        return wav_bytes(audio.cut(), audio.sample_rate)

    def load(self, server: Server, model: Model, deadline: float) -> None:
        """Nothing: the weights come with each request."""

    def speak(self, server: Server, utterance: Utterance, deadline: float) -> tuple[NDArray[np.float32], int]:
        fields = {
            "text": utterance.text,
            "language": utterance.language,
            "reference_text": utterance.transcript,
            "reference_language": utterance.prompt_language,
            "speed": repr(utterance.speed),
            "temperature": repr(utterance.temperature),
            "seed": str(utterance.seed),
            "model_id": utterance.model.id if utterance.model else "default",
        }
        if utterance.model and weights_key(utterance.model):
            fields["gpt_weights"] = utterance.model.gpt_weights
            fields["sovits_weights"] = utterance.model.sovits_weights
        content_type, body = _form(fields, "reference_audio", utterance.reference)
        headers = {**self._authorization, "Content-Type": content_type}
        if current("request_id"):
            headers["X-Request-ID"] = current("request_id")
        answer = server.request("POST", "/synthesize", deadline, MAX_ANSWER_BYTES, body=body, headers=headers)
        if answer.status != 200:
            excerpt = log_excerpt(answer, (utterance.text, utterance.transcript))
            log.error("%s answered %d: %s", server.name, answer.status, excerpt)
            raise _refusal(answer)
        return speech_or_log(server, answer)

    def fence(self, server: Server, until: float) -> None:
        # It answers while it works, so an answer alone says nothing: it has to be idle.
        while True:
            answer = server.request("GET", "/health", until, MAX_PROBE_BYTES, headers=self._authorization)
            status = answer.json().get("status")
            if answer.status == 200 and status == "ready":
                return
            if answer.status != 200 or status != "busy":
                log.warning("%s answers its probe with %d, %s", server.name, answer.status, log_excerpt(answer))
                raise CallFailed(EngineUnavailable(), unsettled=True)
            left = until - time.monotonic()
            if left <= FENCE_PAUSE_SECONDS:
                raise CallFailed(EngineTimeout(), unsettled=True)
            time.sleep(FENCE_PAUSE_SECONDS)

    def report(self, server: Server, until: float) -> ServerReport:
        answer, report = asked(server, "/health", until, self._authorization)
        if answer is None:
            return report
        status = answer.json().get("status")
        if answer.status == 200 and status in ("ready", "busy"):
            return True, report[1], _("busy") if status == "busy" else _("ready")
        if answer.status == 401:
            return False, report[1], _("it refuses our SOVITS_TOKEN")
        if status == "stopping":
            return False, report[1], _("it is stopping")
        return False, report[1], _("something answers, but not gptsovits_server.py; for api_v2.py set SOVITS_PROTOCOL")


def _refusal(answer: Answer) -> Exception:
    code = answer.json().get("error")
    if answer.status == 422:
        message = "The engine finds nothing to speak in a part of this text."
        return PublicError("validation_error", f"text: {message}", {"text": [message]})
    if answer.status == 429 or (answer.status == 503 and code == "busy"):
        seconds = float(answer.retry_after) if answer.retry_after.isdigit() else 5.0
        return CallFailed(EngineBusy(retry_after=max(1.0, min(seconds, 3600.0))), refused=True)
    if answer.status in (401, 403, 503):
        return CallFailed(EngineUnavailable(), refused=True)
    return EngineError()


def _form(fields: dict[str, str], file_field: str, content: bytes) -> tuple[str, bytes]:
    """multipart/form-data: its content type, and its body with one WAV file."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = f'Content-Disposition: form-data; name="{file_field}"; filename="reference.wav"\r\nContent-Type: audio/wav'
    parts += [f"--{boundary}\r\n{head}\r\n\r\n".encode(), content, f"\r\n--{boundary}--\r\n".encode()]
    return f"multipart/form-data; boundary={boundary}", b"".join(parts)
