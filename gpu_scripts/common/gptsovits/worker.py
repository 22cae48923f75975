"""The thread of gptsovits_server.py in which the engine is loaded and works, one call after the other."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import script_io
from common.script_io import ScriptError

from .orders import Order, wav
from .process import failure
from .runtime import Runtime

log = logging.getLogger("gptsovits_server")

CUT_FROM = 200  # characters: a longer text is cut by the engine at its punctuation, since it forgets where it was
SWEEP_SECONDS = 60


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
            self.runtime.load(self.runtime.catalogue.find())
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
