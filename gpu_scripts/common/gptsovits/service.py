"""The HTTP side of gptsovits_server.py: who waits for the engine's thread, and the two routes."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import math
import os
import re
import secrets
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from common.script_io import ScriptError

from .orders import Order, Refusal, parse, refusal_of
from .worker import Worker

log = logging.getLogger("gptsovits_server")

UPLOAD_SECONDS = 60
MODELS_SECONDS = 10
_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)


class Service:
    """What the routes share: the queue for the engine's thread, and its state."""

    def __init__(self, worker: Worker, root: Path, token: str, max_waiting: int, max_upload_bytes: int) -> None:
        self._worker = worker
        self._root = root
        self._token = token
        self._max_waiting = max_waiting
        self._max_upload_bytes = max_upload_bytes
        self._started = time.monotonic()
        self._started_at = datetime.now(timezone.utc)  # noqa: UP017 (datetime.UTC is not there before Python 3.11)
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
                self._models = await asyncio.to_thread(runtime.catalogue.models)
        state = "busy" if self._turn.locked() else "ready"
        return {
            "status": "stopping" if self.stopping.is_set() else state,
            "engine": "gptsovits",
            "version": runtime.version if runtime is not None else None,
            "queue_length": self._waiting,
            "models": self._models if known else [],
            "loaded_model": self._loaded if known else None,
            "loaded_weights": self._weights() if known else None,
            "started_at": self._started_at.isoformat(timespec="milliseconds"),
            "uptime_seconds": round(time.monotonic() - self._started, 3),
        }

    def _weights(self) -> dict[str, str] | None:
        loaded = self._worker.runtime.loaded if self._worker.runtime else None
        if loaded is None:
            return None
        return {"gpt": os.path.relpath(loaded.gpt, self._root), "sovits": os.path.relpath(loaded.sovits, self._root)}

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
        facts.update(model=order.model, characters=len(order.text), seed=order.seed)
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
                raise refusal_of(error) from error
            finally:
                taken = time.monotonic() - began
                self._seconds = 0.7 * self._seconds + 0.3 * taken
                facts["seconds"] = round(taken, 3)
            self._loaded = order.model
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
            await asyncio.to_thread(runtime.catalogue.find, order.model_id, order.gpt_weights, order.sovits_weights)
        except ScriptError as error:
            raise refusal_of(error) from error

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
