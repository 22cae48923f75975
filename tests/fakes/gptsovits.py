"""GPT-SoVITS's api_v2.py as its clients meet it, over real sockets, without its models.

What it does was observed on the real server: one event loop that answers nothing while it speaks; no
/health; a cache of the prompt that is keyed by the reference's path alone, and of its words that is keyed by
their letters alone, whatever language and weights they were read with; 200 with a second of silence for a failed
synthesis; one 400 for nearly everything; streams that are not locked against each other, so that two at once swap
their voices; work that goes on after its client has gone; weights that are switched for everybody, until it is
started again with the configuration of then. A connection that nothing was sent on stays open; one that served a
request is closed when nothing follows.

It speaks a tone of the pitch of the reference file that it has read, times `ratios[SoVITS weights]`, as long
as its text, as loud as its seed says. So `pitch_of` its audio tells whose voice it was, and by which weights. What
it remembers of a reference that was read with other weights comes out an octave too low.

    with FakeGptSovits() as fake: ...                                   in this process
    python -m tests.fakes.gptsovits --port 9880 --seconds 0.5            by itself, with /_fake/log and
    /_fake/mood
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import re
import socket
import struct
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import soundfile

from tests.support.recordings.buzzing import buzz

SAMPLE_RATE = 32_000
CUTS = {f"cut{number}" for number in range(6)}
MEDIA_TYPES = {"wav", "raw", "ogg", "aac"}
LANGUAGES = {
    "v1": {"auto", "en", "zh", "ja", "all_zh", "all_ja"},
    "v2": {"auto", "auto_yue", "en", "zh", "ja", "yue", "ko", "all_zh", "all_ja", "all_yue", "all_ko"},
}
NUMBERS = {
    "top_k": 15, "top_p": 1, "temperature": 1, "batch_size": 1, "batch_threshold": 0.75, "speed_factor": 1.0,
    "fragment_interval": 0.3, "seed": -1, "repetition_penalty": 1.35, "sample_steps": 32, "overlap_length": 2,
    "min_chunk_length": 16,
}  # fmt: skip
STRINGS = (
    "text",
    "text_lang",
    "ref_audio_path",
    "prompt_lang",
    "prompt_text",
    "text_split_method",
    "media_type",
)


def pitch_of(samples: np.ndarray, sample_rate: int) -> float:
    """The fundamental in Hz of the loudest half second (60-500 Hz), by autocorrelation."""
    length = min(len(samples), sample_rate // 2)
    if len(samples) == 0 or not np.any(samples):
        return 0.0
    energy = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
    start = int(np.argmax(energy[length:] - energy[:-length]))
    part = samples[start : start + length].astype(np.float64)
    part = part - part.mean()
    spectrum = np.fft.rfft(part, 2 * length)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[:length]
    correlation /= np.maximum(1, length - np.arange(length))
    low, high = int(sample_rate / 500), min(length - 2, int(sample_rate / 60))
    lags = np.arange(low, high)
    best = correlation[lags].max()
    # The first peak that comes near the best one, so that its multiples do not win.
    for lag in lags:
        if correlation[lag] > 0.9 * best and correlation[lag] >= correlation[lag + 1]:
            return sample_rate / int(lag)
    return 0.0


def tone(pitch: float, seconds: float, sample_rate: int, peak: float = 0.5) -> np.ndarray:
    """float32 (n,): a buzz of ten harmonics."""
    sound = buzz(pitch, round(seconds * sample_rate), sample_rate, 10)
    return (peak * sound / max(1e-9, float(np.abs(sound).max(initial=0.0)))).astype(np.float32)


class TtsFailed(Exception):
    """What the server reports as 400 {"message": "tts failed"}."""


class FakeGptSovits:
    """A server on a loopback port. Its attributes may be changed while it runs.

    mood: how it answers /tts, see `_answer_tts`; moods: how it answers the next ones, one each, before
    `mood` again; seconds: how long it works on a call; unlocked: calls overlap, as streams do in the real
    one; api: `v2` or `old`; log: a dict for every call of /tts with its body, `arrived`, `started`, `ended`
    (time.monotonic()), `pitch`, `weights` (GPT, SoVITS) that spoke, and `prompt`: the language and the weights that the
    reference's words were read with; ratios: the SoVITS weights that there are,
    and how much higher each speaks; gpts: the GPT weights that there are; switches: the paths that were to be
    loaded, in order; configured: what its tts_infer.yaml has; original: what it had at first.
    """

    def __init__(self, port: int = 0, seconds: float = 0.0, version: str = "v2") -> None:
        self.mood = "speak"
        self.moods: deque[str] = deque()
        self.seconds = seconds
        self.unlocked = False
        self.api = "v2"
        self.version = version
        self.sample_rate = SAMPLE_RATE
        self.log: list[dict[str, Any]] = []
        self.probes = 0
        self.connections = 0
        self.keep_alive_seconds = 5.0
        self.redirect_to = ""
        self.oversize_mib = 0  # how much of an `oversize` answer was taken from it
        self.gpts = {"gpt-base", "gpt-anna", "gpt-ben"}
        self.ratios = {"sovits-base": 1.0, "sovits-anna": 1.25, "sovits-ben": 1.6}
        self.weights = ["gpt-base", "sovits-base"]
        self.original = tuple(self.weights)
        self.configured = list(self.original)
        self._named = list(self.original)  # what its configuration has in memory
        self.switches: list[str] = []
        self.switch_mood = "load"  # or `reset`, `hang`: how the next switches go
        self._woken = threading.Event()  # ends a hang
        self._loop = threading.Lock()  # the event loop, which everything needs
        self._prompt: dict[str, Any] = {"path": None, "pitch": 0.0}
        self._words: tuple[str, tuple[str, ...]] = "", ()  # of the reference: the text, and how it was read
        self._sockets: list[socket.socket] = []
        fake = self

        class Handler(_Handler):
            server_of = fake

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> FakeGptSovits:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.wake()
        self._http.shutdown()
        self._http.server_close()
        for connection in self._sockets:  # also those that are kept for the next call
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def wake(self) -> None:
        """Ends a `hang`."""
        self._woken.set()

    def restart(self, *, recreated: bool = True) -> None:
        """It ends and is started again at once: with the configuration that it had at first, or with what it has now,
        where a file that is missing is its version's default."""
        if recreated:
            self.configured = list(self.original)
        files: tuple[Any, ...] = self.gpts, self.ratios
        self._named = [
            path if path in known else base
            for path, known, base in zip(self.configured, files, ("gpt-base", "sovits-base"), strict=True)
        ]
        self.weights[:] = self._named
        self._prompt = {"path": None, "pitch": 0.0}
        self._words = "", ()
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()

    def overlaps(self) -> int:
        """How many pairs of calls of /tts were in the server at the same time."""
        calls = sorted(self.log, key=lambda call: call["arrived"])
        return sum(
            later["arrived"] < earlier.get("ended", math.inf)
            for index, earlier in enumerate(calls)
            for later in calls[index + 1 :]
        )

    # --- what the models would do ---------------------------------------------------------------------------

    def set_reference(self, path: str) -> None:
        """Reads the reference, unless it is the path that was read last: whatever is in the file by now."""
        if path == self._prompt["path"]:
            return
        if not os.path.exists(path):
            raise TtsFailed(f"{path} not exists")
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        if not 48_000 <= math.ceil(len(samples) * 16_000 / rate) <= 160_000:
            raise TtsFailed("参考音频在3~10秒范围外，请更换！")
        self._prompt["pitch"] = pitch_of(samples.mean(axis=1), rate)
        self._prompt["path"] = path
        self._prompt["weights"] = self.weights[1]

    def voice(self) -> float:
        """The pitch that comes out now."""
        matched = self._prompt.get("weights") == self.weights[1]
        return self._prompt["pitch"] * self.ratios[self.weights[1]] * (1.0 if matched else 0.5)

    def switch(self, kind: int, path: str) -> str:
        """Loads GPT (0) or SoVITS (1) weights; what went wrong. The configuration is saved before GPT weights are
        looked for, and after SoVITS weights were loaded, each time with both paths as they were asked for."""
        self.switches.append(path)
        self._named[kind] = path
        if kind == 0:
            self.configured = list(self._named)
        if path not in (self.gpts, self.ratios)[kind]:
            return f"[Errno 2] No such file or directory: '{path}'"
        self.configured = list(self._named)
        self.weights[kind] = path
        return ""

    def read_words(self, text: str, language: str) -> tuple[str, ...]:
        """How the reference's words are read: anew only where their text is another one than last time."""
        text = text.strip("\n")
        if text and text[-1] not in "，。？！,.?!~:：—…":
            text += "." if language == "en" else "。"
        if text and text != self._words[0]:
            self._words = text, (language, *self.weights)
        return self._words[1] if text else ()

    def speech(self, body: dict[str, Any], share: float = 1.0) -> tuple[int, np.ndarray]:
        """Sample rate and int16 (n,) in the voice of whatever reference is set now; a second of silence for
        no text.
        """
        words = re.sub(r"\W+", "", body["text"])
        if not words or body["top_k"] <= 0 or body["speed_factor"] <= 0:
            return 16_000, np.zeros(16_000, np.int16)
        seconds = sum(0.15 if char > "\u1100" else 0.06 for char in words) / body["speed_factor"] * share
        generator = np.random.default_rng(body["seed"] if body["seed"] != -1 else None)
        peak = 0.3 + 0.5 * generator.random()
        # It starts in full voice, as a cut piece of speech may: whoever joins pieces has to see to it.
        abrupt = round(self.sample_rate / max(60.0, self.voice()) / 20)
        voice = tone(self.voice(), seconds + 1 / self.sample_rate * abrupt, self.sample_rate, peak)[abrupt:]
        voice += body["temperature"] * 0.01 * peak * generator.standard_normal(len(voice)).astype(np.float32)
        pause = np.zeros(int(self.sample_rate * body["fragment_interval"]), np.float32)
        return self.sample_rate, (np.clip(np.concatenate([voice, pause]), -1, 1) * 32767).astype(np.int16)

    def work(self) -> None:
        time.sleep(self.seconds)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_of: FakeGptSovits

    @property
    def fake(self) -> FakeGptSovits:
        return self.server_of

    def setup(self) -> None:
        self.used = False
        self.fake._sockets.append(self.request)
        super().setup()

    def parse_request(self) -> bool:
        self.fake.connections += not self.used
        self.used = True
        self.connection.settimeout(self.fake.keep_alive_seconds)
        return super().parse_request()

    def log_message(self, format: str, *args: Any) -> None:
        """Tests read `log` instead."""

    def handle(self) -> None:
        # Whoever hung up is no concern of the server's.
        with contextlib.suppress(ConnectionError):
            super().handle()

    # --- routes ---------------------------------------------------------------------------------------------

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/_fake/log":
            self._json(200, {"calls": self.fake.log, "overlaps": self.fake.overlaps(), "probes": self.fake.probes})
            return
        with self.fake._loop:
            if path == "/openapi.json":
                self.fake.probes += 1
                routes = ["/"] if self.fake.api == "old" else ["/tts", "/control", "/set_refer_audio"]
                self._json(200, {"openapi": "3.1.0", "paths": {route: {} for route in routes}})
            elif path in ("/set_gpt_weights", "/set_sovits_weights") and self.fake.api == "v2":
                self._switch(path)
            elif path == "/tts" and self.fake.api == "v2":
                self._json(400, {"message": "ref_audio_path is required"})
            else:
                self._json(404, {"detail": "Not Found"})

    def _switch(self, path: str) -> None:
        kind = "gpt" if "gpt" in path else "sovits"
        wanted = parse_qs(urlsplit(self.path).query).get("weights_path", [""])[0]
        if not wanted:
            self._json(400, {"message": f"{kind} weight path is required"})
            return
        problem = self.fake.switch(int(kind == "sovits"), wanted)
        match self.fake.switch_mood:
            case "reset":
                self._hang_up(reset=True)
                return
            case "hang":
                self.fake._woken.wait()
                self.fake._woken.clear()
        if problem:
            self._json(400, {"message": f"change {kind} weight failed", "Exception": problem})
        else:
            self._json(200, {"message": "success"})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/_fake/mood":
            for name, value in json.loads(raw).items():
                setattr(self.fake, name, deque(value) if name == "moods" else value)
            self._json(200, {})
            return
        if self.path != "/tts" or self.fake.api == "old":
            with self.fake._loop:
                self._json(404, {"detail": "Not Found"})
            return
        call: dict[str, Any] = {"arrived": time.monotonic()}
        self.fake.log.append(call)
        call["body"] = body = json.loads(raw)
        call["headers"] = dict(self.headers)
        free = self.fake.unlocked or bool(body.get("streaming_mode"))
        with contextlib.nullcontext() if free else self.fake._loop:
            call["started"] = time.monotonic()
            self._answer_tts(call, body)

    def _answer_tts(self, call: dict[str, Any], body: dict[str, Any]) -> None:
        fake = self.fake
        mood = fake.moods.popleft() if fake.moods else fake.mood
        try:
            problem = self._problem_of(body)
            if problem is not None:
                call["ended"] = time.monotonic()
                self._json(*problem)
                return
            body = {**NUMBERS, **body}
            if mood == "hang" or body["batch_size"] == 0:
                fake._woken.wait()
                fake._woken.clear()
            fake.set_reference(body["ref_audio_path"])
            call["prompt"] = fake.read_words(body.get("prompt_text", ""), body["prompt_lang"].lower())
            fake.work()
            # Whose reference is set by now is whose voice it is.
            rate, samples = fake.speech(body, 0.1 if mood == "short" else 1.0)
            call["pitch"] = fake.voice()
            call["weights"] = tuple(fake.weights)
            call["ended"] = time.monotonic()
            self._send(mood, rate, samples, body)
        except TtsFailed as error:
            call["ended"] = time.monotonic()
            self._json(400, {"message": "tts failed", "Exception": str(error)})
        finally:
            call.setdefault("ended", time.monotonic())

    def _problem_of(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        wrong = [
            {
                "type": "string_type",
                "loc": ["body", name],
                "msg": "Input should be a valid string",
                "input": body[name],
            }
            for name in STRINGS
            if name in body and not isinstance(body[name], str)
        ] + [
            {
                "type": "float_parsing",
                "loc": ["body", name],
                "msg": "Input should be a number",
                "input": body[name],
            }
            for name in NUMBERS
            if name in body and (isinstance(body[name], bool) or not isinstance(body[name], int | float))
        ]
        if wrong:
            return 422, {"detail": wrong}
        for name in ("ref_audio_path", "text", "text_lang", "prompt_lang"):
            if not body.get(name):
                return 400, {"message": f"{name} is required"}
            if name.endswith("_lang") and body[name].lower() not in LANGUAGES[self.fake.version]:
                return 400, {"message": f"{name}: {body[name]} is not supported in version {self.fake.version}"}
        if body.get("media_type", "wav") not in MEDIA_TYPES:
            return 400, {"message": f"media_type: {body['media_type']} is not supported"}
        if body.get("text_split_method", "cut5") not in CUTS:
            return 400, {"message": f"text_split_method:{body['text_split_method']} is not supported"}
        return None

    # --- answers --------------------------------------------------------------------------------------------

    def _send(self, mood: str, rate: int, samples: np.ndarray, body: dict[str, Any]) -> None:
        match mood:
            case "silence":
                self._audio(_wav(np.zeros(16_000, np.int16), 16_000))
            case "tts_failed":
                self._json(400, {"message": "tts failed", "Exception": f"kaputt at {body['text']}"})
            case "empty_exception":
                self._json(400, {"message": "tts failed", "Exception": ""})
            case "unprocessable":
                detail = {"loc": ["body", "text"], "msg": "Input should be nicer", "input": body["text"]}
                self._json(422, {"detail": [detail]})
            case "server_error":
                self._respond(500, "text/plain; charset=utf-8", b"Internal Server Error")
            case "proxy 502" | "proxy 503" | "proxy 504":
                self._respond(int(mood[-3:]), "text/html", b"<html>Bad Gateway</html>")
            case "redirect":
                self._respond(307, "text/plain", b"", Location=self.fake.redirect_to)
            case "html":
                self._respond(200, "text/html", b"<html>Welcome to the router</html>")
            case "garbage":
                self._audio(b"RIFF\x10\x00\x00\x00WAVEnothing of the kind" + bytes(100))
            case "mp3":
                self._audio(b"ID3\x04" + bytes(2000))
            case "header_only":
                self._audio(_wav(samples, rate)[:44])
            case "nan":
                self._audio(_wav(np.full(rate, np.nan, np.float32), rate, "FLOAT"))
            case "cut":  # a WAV that ends early, in a complete answer
                self._audio(_wav(samples, rate)[:-2000])
            case "truncated":  # an answer that ends early
                whole = _wav(samples, rate)
                self._headers(200, "audio/wav", len(whole))
                self.wfile.write(whole[: len(whole) // 2])
                self._hang_up()
            case "broken_stream":  # how an error in a stream looks
                self._headers(200, "audio/wav", None)
                self._chunk(_wav(samples, rate)[:4000])
                self._hang_up()
            case "oversize":
                self._headers(200, "audio/wav", None)
                self._chunk(_wav(samples, rate)[:44])
                with contextlib.suppress(OSError):
                    for _ in range(400):
                        self._chunk(bytes(1024 * 1024))
                        self.fake.oversize_mib += 1
                self.close_connection = True
            case "drip":  # never silent for long, and never done
                self._headers(200, "audio/wav", 10_000_000)
                with contextlib.suppress(OSError):
                    while not self.fake._woken.wait(0.05):
                        self.wfile.write(b"R")
                self.close_connection = True
            case "drip_header":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                with contextlib.suppress(OSError):
                    while not self.fake._woken.wait(0.05):
                        self.wfile.write(b"x")
                self.close_connection = True
            case "reset":
                self._hang_up(reset=True)
            case "restart":
                self.close_connection = True
                self.fake.restart()
            case "not_http":
                self.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")
                self._hang_up()
            case "stereo":
                self._audio(_wav(np.stack([samples, samples], axis=1), rate))
            case _ if body.get("streaming_mode"):
                header = bytearray(_wav(samples, rate)[:44])
                header[4:8] = struct.pack("<I", 36)
                header[40:44] = struct.pack("<I", 0)
                self._headers(200, "audio/wav", None)
                self._chunk(bytes(header))
                self._chunk(samples.tobytes())
                self._chunk(b"")
            case _:
                self._audio(_wav(samples, rate))

    def _audio(self, content: bytes) -> None:
        self._respond(200, "audio/wav", content)

    def _json(self, status: int, value: dict[str, Any]) -> None:
        self._respond(status, "application/json", json.dumps(value, ensure_ascii=False).encode())

    def _respond(self, status: int, content_type: str, content: bytes, **headers: str) -> None:
        self._headers(status, content_type, len(content), **headers)
        self.wfile.write(content)

    def _headers(self, status: int, content_type: str, length: int | None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        if length is None:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _chunk(self, content: bytes) -> None:
        self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")

    def _hang_up(self, reset: bool = False) -> None:
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)


def _wav(samples: np.ndarray, rate: int, subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype=subtype)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description="A server that behaves as GPT-SoVITS's api_v2.py does")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.0, help="how long it works on a call")
    parser.add_argument("--unlocked", action="store_true", help="let calls overlap and swap their voices")
    arguments = parser.parse_args()
    with FakeGptSovits(arguments.port, arguments.seconds) as fake:
        fake.unlocked = arguments.unlocked
        print(fake.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
