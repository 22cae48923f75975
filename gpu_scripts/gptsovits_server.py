"""A small server for a GPU box without a shared disk: GPT-SoVITS over HTTP, one synthesis at a time.

Run by the engine's interpreter; it needs what that environment has (torch, fastapi, uvicorn, python-multipart, numpy,
soundfile), and no more:

    VOICEPROJECT_TOKEN=... python gptsovits_server.py --project-root /opt/GPT-SoVITS --host 0.0.0.0 --port 9881

POST /synthesize, multipart/form-data, `Authorization: Bearer <token>`, optional `X-Request-ID`. Parts: `text`;
`language` and `reference_language` (the engine's names, `auto`); `reference_audio` (3 to 10 s of what libsndfile
reads); `reference_text` (may be empty); `speed` (0.25 to 4, 1); `temperature` (up to 2, 1); `seed` (0 to 2**32 - 1,
drawn if it is left out); `model_id` (`default`); `gpt_weights` and `sovits_weights`, paths below the project root that
win over `model_id`. 200 is `audio/wav`, mono, 16 bits, with `X-Seed`. Everything else is JSON, {"error", "message"}:
400 bad_request, 401 unauthorized, 404 unknown_model, 413 too_large, 422 unspeakable, 500 synthesis_failed (for silence
too), 503 busy (with Retry-After) or stopping, 507 out_of_memory.

GET /health: {"status": "ready"|"busy"|"stopping", "engine", "version", "queue_length", "models", "loaded_model"}. It
answers while a synthesis runs; the names of models are told only to whoever has the token.

stdout: `LISTENING <url>` once it accepts connections. stderr: a line a request, without its text. SIGTERM: new and
waiting requests are refused, the running one is finished within --grace-seconds. Exit codes: 0 stopped; 1 the port is
taken, or unexpected; 2 bad arguments; 7 no memory for the models; 8 no CUDA; 11 the engine cannot be loaded, or has
lost its CUDA context: only a new process helps, so let systemd or the like start one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import hmac
import io
import ipaddress
import logging
import math
import os
import queue
import re
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

sys.path.insert(0, str(Path(__file__).resolve().parent))  # Python itself leaves it out with -I or -P

from common import options, script_io
from common.gptsovits_runtime import MAX_REFERENCE_SECONDS, MAX_SEED, MIN_REFERENCE_SECONDS, Runtime, failure
from common.script_io import ScriptError

log = logging.getLogger("gptsovits_server")

MAX_TEXT, MAX_REFERENCE_TEXT = 5000, 1000
CUT_FROM = 200  # characters: a longer text is cut by the engine at its punctuation, since it forgets where it was
UPLOAD_SECONDS = 60
SWEEP_SECONDS = 60
MODELS_SECONDS = 10
_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
_LANGUAGE = re.compile(r"[a-z_]{2,10}")


class Refusal(Exception):
    """An answer that is not audio: HTTP status, code, and a sentence for a person."""

    def __init__(self, status: int, error: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.retry_after = retry_after


@dataclass(frozen=True)
class Order:
    """A request whose parts have been checked. reference: mono PCM16 WAV."""

    text: str
    language: str
    reference: bytes
    reference_text: str
    reference_language: str
    speed: float
    temperature: float
    seed: int
    model_id: str
    gpt_weights: str
    sovits_weights: str


# --- what comes in ----------------------------------------------------------------------------------------------


def parse(form: Any, root: Path) -> Order:
    """Checks the parts of a form. Raises Refusal (400, 422)."""
    text = _text(form, "text", MAX_TEXT)
    if not text:
        raise Refusal(400, "bad_request", "text is required.")
    if not any(char.isalnum() for char in text):
        raise Refusal(422, "unspeakable", "The text has no letter and no digit.")
    seed = _number(form, "seed", -1, -1, MAX_SEED)
    if seed != int(seed):
        raise Refusal(400, "bad_request", "seed must be a whole number.")
    weights = {name: _text(form, name, 1000) for name in ("gpt_weights", "sovits_weights")}
    if any(weights.values()) and not all(weights.values()):
        raise Refusal(400, "bad_request", "gpt_weights and sovits_weights are given together or not at all.")
    for name, suffix in (("gpt_weights", ".ckpt"), ("sovits_weights", ".pth")):
        path = weights[name]
        # Lexically: operators link folders of weights into the root, clients can make no links.
        below = Path(os.path.normpath(root / path)).is_relative_to(root) and "\x00" not in path
        if path and not (below and path.endswith(suffix)):
            raise Refusal(400, "bad_request", f"{name} must be a {suffix} file below the project root.")
    upload = form.get("reference_audio")
    if not isinstance(upload, UploadFile):
        raise Refusal(400, "bad_request", "reference_audio must be a file.")
    return Order(
        text=text,
        language=_language(form, "language"),
        reference=decode_reference(upload.file),
        reference_text=_text(form, "reference_text", MAX_REFERENCE_TEXT),
        reference_language=_language(form, "reference_language"),
        speed=_number(form, "speed", 1.0, 0.25, 4.0),
        temperature=_number(form, "temperature", 1.0, 0.01, 2.0),
        seed=secrets.randbelow(MAX_SEED + 1) if seed < 0 else int(seed),
        model_id=_text(form, "model_id", 128) or "default",
        **weights,
    )


def _text(form: Any, name: str, longest: int) -> str:
    value = form.get(name, "")
    if not isinstance(value, str):
        raise Refusal(400, "bad_request", f"{name} must be text, not a file.")
    value = value.strip()
    if len(value) > longest:
        raise Refusal(400, "bad_request", f"{name} may have at most {longest} characters.")
    return value


def _language(form: Any, name: str) -> str:
    value = _text(form, name, 100).lower() or "auto"
    if not _LANGUAGE.fullmatch(value):
        raise Refusal(400, "bad_request", f"{name} is no language.")
    return value


def _number(form: Any, name: str, default: float, least: float, most: float) -> float:
    value = _text(form, name, 100)
    try:
        number = float(value) if value else default
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise Refusal(400, "bad_request", f"{name} must be a number from {least:g} to {most:g}.")
    return number


def decode_reference(file: Any) -> bytes:
    """An upload as mono PCM16 WAV at its own sample rate. Raises Refusal (400)."""
    try:
        with soundfile.SoundFile(file) as audio:
            rate, channels = audio.samplerate, audio.channels
            if not 8000 <= rate <= 192000 or channels > 8:
                raise Refusal(400, "bad_request", f"reference_audio has {channels} channels at {rate} Hz.")
            # One frame more than may be there: what a header says is not what a file holds.
            most = int(MAX_REFERENCE_SECONDS * rate)
            samples = audio.read(most + 1, dtype="float32", always_2d=True).mean(axis=1)
    except (soundfile.SoundFileError, OSError, RuntimeError, ValueError) as error:
        raise Refusal(400, "bad_request", "reference_audio cannot be decoded.") from error
    if not MIN_REFERENCE_SECONDS * rate <= len(samples) <= most:
        bounds = f"{MIN_REFERENCE_SECONDS} to {MAX_REFERENCE_SECONDS} s"
        found = "more" if len(samples) > most else f"{len(samples) / rate:.2f} s"
        raise Refusal(400, "bad_request", f"reference_audio must last {bounds}; it lasts {found}.")
    if not np.isfinite(samples).all() or float(np.abs(samples).max()) < 1e-3:
        raise Refusal(400, "bad_request", "reference_audio is silent, or holds samples that are not numbers.")
    return wav(samples, rate)


def wav(samples: Any, rate: int) -> bytes:
    """float (n,) as mono PCM16 WAV."""
    steps = np.clip(np.round(np.asarray(samples, np.float64) * 32768), -32768, 32767).astype(np.int16)
    out = io.BytesIO()
    soundfile.write(out, steps, rate, format="WAV", subtype="PCM_16")
    return out.getvalue()


class References:
    """Uploaded references in a private folder, each under the hash of its content: the engine caches them by path."""

    def __init__(self, folder: Path, keep_seconds: float) -> None:
        self._folder = folder
        self._keep_seconds = keep_seconds
        self._swept = time.monotonic()

    def put(self, content: bytes) -> Path:
        path = self._folder / f"{hashlib.sha256(content).hexdigest()}.wav"
        try:
            os.utime(path)
        except FileNotFoundError:
            partial = path.with_suffix(".part")  # one thread writes here
            partial.write_bytes(content)
            partial.replace(path)
        return path

    def sweep(self) -> None:
        """Removes what was not used for so long, at most once a minute."""
        if time.monotonic() - self._swept < min(SWEEP_SECONDS, self._keep_seconds):
            return
        self._swept = time.monotonic()
        for path in self._folder.iterdir():
            if time.time() - path.stat().st_mtime > self._keep_seconds:
                path.unlink()


# --- the engine's thread ----------------------------------------------------------------------------------------


class Worker:
    """The thread in which the engine is loaded and works, one call after the other."""

    def __init__(self, make: Callable[[], Runtime], references: References) -> None:
        self._make = make
        self._references = references
        self._calls: queue.Queue[tuple[Callable[[], Any], asyncio.Future[Any]]] = queue.Queue()
        self.runtime: Runtime | None = None
        # A daemon, since nothing can interrupt a synthesis that hangs.
        threading.Thread(target=self._work, name="engine", daemon=True).start()

    async def load(self) -> None:
        """Raises ScriptError."""
        await self._do(self._load)

    async def speak(self, order: Order) -> tuple[bytes, float]:
        """(WAV, its seconds). Raises ScriptError."""
        result: tuple[bytes, float] = await self._do(lambda: self._speak(order))
        return result

    async def _do(self, call: Callable[[], Any]) -> Any:
        future = asyncio.get_running_loop().create_future()
        self._calls.put((call, future))
        # A handler that is cancelled while it waits must not cancel the answer under the thread's hands.
        return await asyncio.shield(future)

    def _work(self) -> None:
        while True:
            call, future = self._calls.get()
            loop = future.get_loop()
            try:
                value = call()
            except Exception as error:
                found = error if isinstance(error, ScriptError) else failure(error)
                loop.call_soon_threadsafe(_settle, future, None, found)
            else:
                loop.call_soon_threadsafe(_settle, future, value, None)

    def _load(self) -> None:
        self.runtime = self._make()
        try:
            self.runtime.load(self.runtime.find())
        except ScriptError as error:
            if error.exit_code != script_io.NO_WEIGHTS:
                raise
            log.warning("no default voice: %s", error)

    def _speak(self, order: Order) -> tuple[bytes, float]:
        assert self.runtime is not None
        self._references.sweep()
        samples, rate = self.runtime.speak(
            order.text,
            order.language,
            self._references.put(order.reference),
            order.reference_text,
            order.reference_language,
            order.speed,
            order.temperature,
            order.seed,
            model_id=order.model_id,
            gpt_weights=order.gpt_weights,
            sovits_weights=order.sovits_weights,
            text_split_method="cut5" if len(order.text) > CUT_FROM else "cut0",
        )
        return wav(samples, rate), len(samples) / rate


def _settle(future: asyncio.Future[Any], value: Any, error: Exception | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


# --- HTTP -------------------------------------------------------------------------------------------------------


class Service:
    """What the routes share: the queue for the engine's thread, and its state."""

    def __init__(self, worker: Worker, root: Path, token: str, max_waiting: int, max_upload_bytes: int) -> None:
        self._worker = worker
        self._root = root
        self._token = token
        self._max_waiting = max_waiting
        self._max_upload_bytes = max_upload_bytes
        self._turn = asyncio.Lock()  # first come, first served
        self._waiting = 0
        self._seconds = 5.0  # of a synthesis, lately
        self._loaded: str | None = None
        self._models: list[str] = []
        self._models_at = -math.inf
        self.stopping = asyncio.Event()
        self.late = asyncio.Event()  # what still runs is given up
        self.exit_code = 0
        self.open = 0  # requests that are not answered yet

    async def start(self) -> None:
        """Loads the models; requests that come meanwhile wait for their turn."""
        async with self._turn:
            began = time.monotonic()
            try:
                await self._worker.load()
            except ScriptError as error:
                self._give_up(error)
                return
            self._loaded = "default" if self._worker.runtime and self._worker.runtime.loaded else None
            log.info("loaded in %.1f s", time.monotonic() - began)

    def _give_up(self, error: ScriptError) -> None:
        log.error("%s", error)
        self.exit_code = error.exit_code
        self.stopping.set()

    def authorized(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        given = given.strip() if scheme.lower() == "bearer" else ""
        return not self._token or hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode())

    async def health(self, request: Request) -> dict[str, Any]:
        runtime = self._worker.runtime
        known = self.authorized(request)
        if known and runtime is not None and time.monotonic() - self._models_at > MODELS_SECONDS:
            self._models_at = time.monotonic()
            with contextlib.suppress(ScriptError):
                self._models = await asyncio.to_thread(runtime.models)
        state = "busy" if self._turn.locked() else "ready"
        return {
            "status": "stopping" if self.stopping.is_set() else state,
            "engine": "gptsovits",
            "version": runtime.version if runtime is not None else None,
            "queue_length": self._waiting,
            "models": self._models if known else [],
            "loaded_model": self._loaded if known else None,
        }

    async def synthesize(self, request: Request, facts: dict[str, Any]) -> Response:
        """The answer to a request. facts: what its log line tells. Raises Refusal."""
        try:
            length = int(request.headers.get("content-length", ""))
        except ValueError:
            raise Refusal(400, "bad_request", "A body with Content-Length is required.") from None
        if not self.authorized(request):
            await self._drain(request, length)
            raise Refusal(401, "unauthorized", "The token is missing or wrong.")
        if length > self._max_upload_bytes:
            await self._drain(request, length)
            raise Refusal(413, "too_large", f"The request may have at most {self._max_upload_bytes} bytes.")
        try:
            self._admit()
        except Refusal:
            await self._drain(request, length)
            raise
        order = await self._receive(request)
        facts.update(model=order.model_id, characters=len(order.text), seed=order.seed)
        await self._find(order)
        self._admit()
        async with self._my_turn(request):
            began = time.monotonic()
            try:
                audio, seconds = await self._unless_late(self._worker.speak(order))
            except ScriptError as error:
                facts["reason"] = str(error)
                if self._worker.runtime and self._worker.runtime.broken:
                    self._give_up(error)
                raise _refusal(error) from error
            finally:
                taken = time.monotonic() - began
                self._seconds = 0.7 * self._seconds + 0.3 * taken
                facts["seconds"] = round(taken, 3)
            self._loaded = order.sovits_weights or order.model_id
        facts["audio_seconds"] = round(seconds, 3)
        return Response(audio, media_type="audio/wav", headers={"X-Seed": str(order.seed)})

    async def _unless_late(self, speaking: Any) -> tuple[bytes, float]:
        work = asyncio.ensure_future(speaking)
        late = asyncio.ensure_future(self.late.wait())
        await asyncio.wait({work, late}, return_when=asyncio.FIRST_COMPLETED)
        late.cancel()
        if not work.done():
            raise Refusal(503, "stopping", "This server is being stopped and did not finish in time.")
        return work.result()

    def _admit(self) -> None:
        if self.stopping.is_set():
            raise Refusal(503, "stopping", "This server is being stopped.")
        if (self._turn.locked() or self._waiting) and self._waiting >= self._max_waiting:
            expected = math.ceil(self._seconds * (self._waiting + 1) / 2)
            raise Refusal(503, "busy", f"{self._waiting} requests are waiting already.", min(60, max(1, expected)))

    async def _drain(self, request: Request, length: int) -> None:
        """Reads a body that is not wanted, if it is small: a client that can't finish sending sees no answer."""
        if length > 2 * self._max_upload_bytes:
            return
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._discard(request), 10)

    @staticmethod
    async def _discard(request: Request) -> None:
        async for _ in request.stream():
            pass

    async def _receive(self, request: Request) -> Order:
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise Refusal(400, "bad_request", "multipart/form-data is expected.")
        try:
            form = await asyncio.wait_for(request.form(max_files=1, max_fields=20), UPLOAD_SECONDS)
        except asyncio.TimeoutError:  # noqa: UP041 (it is another one before Python 3.11)
            raise Refusal(400, "bad_request", f"The request did not arrive within {UPLOAD_SECONDS} s.") from None
        except ClientDisconnect as error:
            raise Refusal(499, "gone", "The client has gone away.") from error
        except (HTTPException, ValueError, KeyError) as error:  # which one depends on the version of starlette
            raise Refusal(400, "bad_request", "The form cannot be read.") from error
        try:
            return await asyncio.to_thread(parse, form, self._root)
        finally:
            await form.close()

    async def _find(self, order: Order) -> None:
        """A model that is not there is told at once, not after its turn has come."""
        runtime = self._worker.runtime
        if runtime is None:
            return
        try:
            await asyncio.to_thread(runtime.find, order.model_id, order.gpt_weights, order.sovits_weights)
        except ScriptError as error:
            raise _refusal(error) from error

    @contextlib.asynccontextmanager
    async def _my_turn(self, request: Request) -> Any:
        """Waits for the engine. Raises Refusal where the client goes away meanwhile, or the server stops."""
        if self._turn.locked() or self._waiting:
            await self._wait(request)
        else:
            await self._turn.acquire()  # at once
        try:
            yield
        finally:
            self._turn.release()

    async def _wait(self, request: Request) -> None:
        turn = asyncio.ensure_future(self._turn.acquire())
        gone = asyncio.ensure_future(_disconnected(request))
        stop = asyncio.ensure_future(self.stopping.wait())
        self._waiting += 1
        try:
            await asyncio.wait({turn, gone, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiting -= 1
            gone.cancel()
            stop.cancel()
            left = gone.done() and not gone.cancelled()
            refused = left or self.stopping.is_set() or not turn.done()
            if refused and not turn.cancel():
                self._turn.release()
        if left:
            raise Refusal(499, "gone", "The client has gone away.")
        if refused:
            raise Refusal(503, "stopping", "This server is being stopped.")

    async def finished(self) -> None:
        """Returns when every request has its answer."""
        while self.open:
            await asyncio.sleep(0.02)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _refusal(error: ScriptError) -> Refusal:
    """What a client is told. Paths of this machine stay in its log."""
    if error.exit_code in (script_io.BAD_ARGUMENTS, script_io.BAD_REFERENCE):
        return Refusal(400, "bad_request", str(error))
    if error.exit_code == script_io.UNKNOWN_MODEL:
        return Refusal(404, "unknown_model", "There is no such model on this server.")
    if error.exit_code == script_io.NO_WEIGHTS:
        return Refusal(404, "unknown_model", "The weights of this model are not complete on this server.")
    if error.exit_code == script_io.UNSPEAKABLE:
        return Refusal(422, "unspeakable", "There is nothing to speak in the text.")
    if error.exit_code == script_io.OUT_OF_MEMORY:
        return Refusal(507, "out_of_memory", "The GPU is out of memory.")
    return Refusal(500, "synthesis_failed", "The engine failed; the reason is in the log of this server.")


def application(service: Service) -> FastAPI:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    def refuse(refusal: Refusal) -> JSONResponse:
        headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
        if refusal.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if refusal.error == "stopping":
            headers["Connection"] = "close"
        return JSONResponse({"error": refusal.error, "message": str(refusal)}, refusal.status, headers)

    @app.get("/health")
    async def health(request: Request) -> JSONResponse:
        return JSONResponse(await service.health(request))

    @app.post("/synthesize")
    async def synthesize(request: Request) -> Response:
        given = request.headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        facts: dict[str, Any] = {}
        began = time.monotonic()
        service.open += 1
        try:
            response = await service.synthesize(request, facts)
        except Refusal as refusal:
            facts["error"] = refusal.error
            response = refuse(refusal)
        finally:
            service.open -= 1
        response.headers["X-Request-ID"] = request_id
        facts["total_seconds"] = round(time.monotonic() - began, 3)
        told = " ".join(f"{name}={value}" for name, value in facts.items())
        log.info("request %s: %d %s", request_id, response.status_code, told)
        return response

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
        return JSONResponse({"error": code, "message": str(error.detail)}, error.status_code)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": "synthesis_failed", "message": "Something unexpected failed."}, 500)

    return app


class Server(uvicorn.Server):
    """uvicorn, but SIGTERM first tells `service`; a second signal ends it at once."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._loop = asyncio.get_running_loop()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets=sockets)
        for bound in sockets:
            # Not sys.stdout, which is nowhere for as long as the engine loads.
            print(f"LISTENING http://{self.config.host}:{bound.getsockname()[1]}", file=sys.__stdout__, flush=True)

    def handle_exit(self, sig: int, frame: Any) -> None:
        if self._service.stopping.is_set():
            self.should_exit = self.force_exit = True
        self._loop.call_soon_threadsafe(self._service.stopping.set)


async def serve(arguments: argparse.Namespace, token: str) -> int:
    """Serves until it is stopped; returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="gptsovits-server-") as folder:  # for this user alone
        root = Path(os.path.abspath(arguments.project_root))
        worker = Worker(
            lambda: Runtime(root, arguments.device, arguments.is_half, arguments.default_version),
            References(Path(folder), 60 * arguments.keep_minutes),
        )
        service = Service(worker, root, token, arguments.max_waiting, arguments.max_upload_bytes)
        config = uvicorn.Config(
            application(service),
            host=arguments.host,
            port=arguments.port,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=2,
        )
        server = Server(config, service)
        serving = asyncio.ensure_future(server.serve(sockets=[config.bind_socket()]))
        loading = asyncio.ensure_future(service.start())
        stop = asyncio.ensure_future(service.stopping.wait())
        await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            log.info("stopping")
            try:
                await asyncio.wait_for(service.finished(), arguments.grace_seconds)
            except asyncio.TimeoutError:  # noqa: UP041 (it is another one before Python 3.11)
                log.warning("the running synthesis is given up after %g s", arguments.grace_seconds)
                service.late.set()
            await asyncio.sleep(0.1)  # the last answer is on its way
            server.should_exit = True
            await serving
        loading.cancel()
        stop.cancel()
        if worker.runtime is not None:
            worker.runtime.close()
    return service.exit_code


def main(argv: list[str] | None = None) -> None:
    parser = script_io.OneLineParser(description="GPT-SoVITS over HTTP, one synthesis at a time.")
    parser.add_argument("--project-root", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9881)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--is-half", type=options.boolean, default=True)
    parser.add_argument("--default-version", default="", help="whose pretrained weights `default` means, as v2ProPlus")
    parser.add_argument("--token-file", type=Path, help="instead of VOICEPROJECT_TOKEN in the environment")
    parser.add_argument("--max-waiting", type=int, default=8, help="requests beside the running one")
    parser.add_argument("--max-upload-bytes", type=int, default=12 * 2**20)
    parser.add_argument("--grace-seconds", type=float, default=30, help="for the running synthesis, at SIGTERM")
    parser.add_argument("--keep-minutes", type=float, default=60, help="how long an unused reference is kept")
    arguments = parser.parse_args(argv)
    # Out of the environment, so that nothing that the engine starts inherits it.
    token = os.environ.pop("VOICEPROJECT_TOKEN", "").strip()
    if arguments.token_file:
        try:
            token = arguments.token_file.read_text("utf-8").strip()
        except OSError as error:
            parser.error(f"--token-file cannot be read: {error.strerror}")
        if not token:
            parser.error("--token-file is empty")
    if not token and not _is_loopback(arguments.host):
        parser.error("without a token (VOICEPROJECT_TOKEN or --token-file) only a loopback address is served")
    if token and not 16 <= len(token) <= 512:
        parser.error("the token must have 16 to 512 characters")
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for name in ("uvicorn", "multipart", "python_multipart", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    code = asyncio.run(serve(arguments, token))
    logging.shutdown()
    sys.stdout.flush()
    # At once, and not after the engine's thread, which may still be at a synthesis that was given up.
    os._exit(code)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    script_io.run(main)
