"""The two ways to speak through a GPT-SoVITS server: its own `api_v2.py`, and our `gpu_scripts/gptsovits_server.py`.

Each says how a reference reaches the server, how weights are loaded, what tells that nothing runs there any more, and
what an answer means. `api_v2.py` reads the reference from its own disk and remembers it by its path alone, has no
`/health`, answers nothing while it works, switches weights for everybody, and reports a failed synthesis as a 200 with
a second of silence. Ours takes everything with the request and says what is wrong.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import numpy as np
import soundfile
from django.utils.translation import gettext_noop as _  # for the console, which translates it
from numpy.typing import NDArray

from voiceproject.errors import EngineBusy, EngineError, EngineTimeout, EngineUnavailable, PublicError
from voiceproject.telemetry.logging import current
from voices.engines.interface import Model
from voices.engines.servers import Answer, CallFailed, Server

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 16 * 1024 * 1024  # 170 s at 48 kHz; a sentence is a tenth of it
MAX_PROBE_BYTES = 1024 * 1024
KEPT_NAMES = 1000
FENCE_PAUSE_SECONDS = 0.2
SILENCE = 1.5 / 32768  # a peak of one step of 16 bits is no sound
# What a weights switch adds to a sentence: 0.4 to 6 s were measured, from a cold disk it may be more.
SWITCH_SECONDS = 120.0

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


@dataclass(frozen=True)
class Excerpt:
    """The part of a reference that the engine hears: `cut` makes it, float32 (n,), of the `whole`.

    window: (start, end) in seconds, None for all of it; what is cut is the same for the same array and window.
    """

    whole: NDArray[np.float32]
    window: tuple[float, float] | None
    sample_rate: int
    cut: Callable[[], NDArray[np.float32]]


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


# --- references -------------------------------------------------------------------------------------------------------


def wav_bytes(samples: NDArray[np.float32], sample_rate: int) -> bytes:
    """Mono 16-bit WAV of float32 samples (n,)."""
    buffer = io.BytesIO()
    steps = np.clip(np.rint(samples * np.float32(32767.0)), -32768, 32767).astype(np.int16)
    soundfile.write(buffer, steps, sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def store_reference(samples: NDArray[np.float32], sample_rate: int, folder: Path, mark: str = "") -> str:
    """Writes mono 16-bit WAV into `folder` once, under the SHA-256 of its bytes; returns the file's name.

    mark: stands in the name too, where the same audio needs several. Raises PublicError: storage_full, not_configured.
    """
    content = wav_bytes(samples, sample_rate)
    name = f"{hashlib.sha256(content).hexdigest()}{mark}.wav"
    final = folder / name
    if _still_there(final):
        return name
    try:
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


def _still_there(path: Path) -> bool:
    """Whether a reference is stored; what is still used is not old."""
    try:
        os.utime(path)
    except OSError:  # whatever else is wrong with it, its writing will tell
        return False
    return True


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


# --- answers ----------------------------------------------------------------------------------------------------------


def _hidden(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        for form in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1]):
            text = text.replace(form, "[text]") if len(form) > 3 else text
    return text


def _log_excerpt(answer: Answer, secrets: Sequence[str] = ()) -> str:
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
            # What the server sends is 16 bits, and libsndfile makes floats of them three times as slowly.
            kind, scale = ("int16", 2.0**-15) if file.subtype == "PCM_16" else ("float32", 1.0)
            read = file.read(dtype=kind, always_2d=True)
            mono = read[:, 0] if file.channels == 1 else read.mean(axis=1)
            samples = np.multiply(mono, np.float32(scale), dtype=np.float32)
    except (soundfile.LibsndfileError, ValueError, RuntimeError) as error:
        raise EngineError() from error
    if not 8000 <= rate <= 192000:
        raise EngineError() from ValueError(f"{rate} Hz")
    lowest, highest = float(samples.min(initial=0.0)), float(samples.max(initial=0.0))
    if not np.isfinite([lowest, highest]).all():
        raise EngineError() from ValueError("samples that are no numbers")
    if max(-lowest, highest) < SILENCE:
        raise EngineError() from ValueError("silence, which is how this engine reports a failed synthesis")
    if max(-lowest, highest) > 1.0:
        np.clip(samples, -1.0, 1.0, out=samples)
    return samples, rate


def _speech_or_log(server: Server, answer: Answer) -> tuple[NDArray[np.float32], int]:
    try:
        return read_speech(answer)
    except EngineError as error:
        log.error("%s answered 200 with %s", server.name, error.__cause__)
        raise


def _asked(server: Server, path: str, until: float, headers: dict[str, str]) -> tuple[Answer | None, ServerReport]:
    """The answer to a probe, or what is to be reported of a server that gave none."""
    start = time.monotonic()
    try:
        answer = server.request("GET", path, until, MAX_PROBE_BYTES, headers=headers)
    except CallFailed as failure:
        if isinstance(failure.error, EngineTimeout):
            return None, (False, None, _("no answer within 2 s: busy or down"))
        return None, (False, None, _("cannot be reached") if failure.unreachable else _("broke off its answer"))
    return answer, (True, round((time.monotonic() - start) * 1000, 1), "")


# --- api_v2.py --------------------------------------------------------------------------------------------------------


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
        if array is None or array() is not audio.whole or not _still_there(self._folder / name):
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
                    "%s could not load %s for the model %r; it keeps the old weights, but has written this path into "
                    "its tts_infer.yaml and will start with it: %s",
                    server.name, weights, model.id, _log_excerpt(answer),
                )  # fmt: skip
                raise EngineError()

    def speak(self, server: Server, utterance: Utterance, deadline: float) -> tuple[NDArray[np.float32], int]:
        payload = {
            "text": utterance.text,
            "text_lang": utterance.language,
            "ref_audio_path": utterance.reference,
            "prompt_text": utterance.transcript,
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
            excerpt = _log_excerpt(answer, (utterance.text, utterance.transcript))
            log.error("%s answered %d: %s", server.name, answer.status, excerpt)
            raise EngineError()
        return _speech_or_log(server, answer)

    def fence(self, server: Server, until: float) -> None:
        # Any answer will do: the server does one thing at a time, so what began before has then ended.
        server.request("GET", "/openapi.json", until, MAX_PROBE_BYTES)

    def report(self, server: Server, until: float) -> ServerReport:
        answer, report = _asked(server, "/openapi.json", until, {})
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


# --- gpu_scripts/gptsovits_server.py ----------------------------------------------------------------------------------


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
            excerpt = _log_excerpt(answer, (utterance.text, utterance.transcript))
            log.error("%s answered %d: %s", server.name, answer.status, excerpt)
            raise _refusal(answer)
        return _speech_or_log(server, answer)

    def fence(self, server: Server, until: float) -> None:
        # It answers while it works, so an answer alone says nothing: it has to be idle.
        while True:
            answer = server.request("GET", "/health", until, MAX_PROBE_BYTES, headers=self._authorization)
            status = answer.json().get("status")
            if answer.status == 200 and status == "ready":
                return
            if answer.status != 200 or status != "busy":
                log.warning("%s answers its probe with %d, %s", server.name, answer.status, _log_excerpt(answer))
                raise CallFailed(EngineUnavailable(), unsettled=True)
            left = until - time.monotonic()
            if left <= FENCE_PAUSE_SECONDS:
                raise CallFailed(EngineTimeout(), unsettled=True)
            time.sleep(FENCE_PAUSE_SECONDS)

    def report(self, server: Server, until: float) -> ServerReport:
        answer, report = _asked(server, "/health", until, self._authorization)
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
