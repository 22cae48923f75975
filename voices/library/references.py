"""A cache of decoded and checked references. Most requests send the same reference as the requests before.

The process that deletes a reference drops it at once. Other processes drop it KEPT_SECONDS after its last use.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceproject.media import audio, memory, voice
from voiceproject.web.slots import waiting_slot
from voices.engines.interface import StoredReference

KEPT_BYTES = 64 * 1024 * 1024  # per process; the longest reference takes 11.5 MB
# While it is decoded, and looked through once.
BYTES_PER_SECOND = 2 * 4 * voice.MAX_SAMPLE_RATE
MAX_SECONDS = 60.0  # as audio.load_reference has it
KEPT_SECONDS = 600.0  # after the last use


class ReferenceCache:
    """Decoded audio, that of uploads under the SHA-256 of their bytes; the least used goes first.

    max_seconds: so long after its last use something is kept at most, also in a process that does nothing any more.
    """

    def __init__(self, max_bytes: int = KEPT_BYTES, max_seconds: float = KEPT_SECONDS) -> None:
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._bytes = 0
        # name -> samples, rate, when it was used; in the order of that
        self._kept: OrderedDict[str, tuple[NDArray[np.float32], int, float]] = OrderedDict()
        self._warnings: dict[str, list[str]] = {}  # of uploads that are kept and have any
        self._lock = threading.Lock()
        self._sweeper: threading.Timer | None = None

    def load(self, path: str | os.PathLike[str], *, field: str) -> tuple[NDArray[np.float32], int, str]:
        """Decodes an upload: (samples, rate in Hz, SHA-256 of the upload in hexadecimal). Its file must not change.

        samples: as of audio.load_reference, but read-only, since others may have them too. Raises PublicError as that
        does; what was refused is not kept.
        """
        content_hash = audio.sha256_file(path)
        told: list[str] = []
        found = self.kept(content_hash, lambda: _decode(path, field, told))
        if told:
            with self._lock:
                self._warnings[content_hash] = told
        return *found, content_hash

    def warnings(self, content_hash: str) -> list[str]:
        """What was left out or may be missing of an upload that was just loaded: sentences."""
        with self._lock:
            return self._warnings.get(content_hash, [])

    def reference(
        self, path: str | os.PathLike[str], transcript: str | None, language: str, *, field: str, tenant: Any
    ) -> StoredReference:
        """An upload as engines take it; decoded and checked now. Its file must not change while it is used.

        tenant: whose (a primary key). The samples are held by the cache alone: of what waits for an engine there may be
        more than fits in memory. What fell out of it is decoded again. Raises PublicError as audio.load_reference, and
        too_many_waiting.
        """
        with waiting_slot(tenant):
            samples, rate, content_hash = self.load(path, field=field)
        return StoredReference(
            lambda: self.kept(content_hash, lambda: _decode(path, field, []))[0],
            len(samples), rate, content_hash, transcript, language,
        )  # fmt: skip

    def kept(self, name: str, read: Callable[[], tuple[NDArray[np.float32], int]]) -> tuple[NDArray[np.float32], int]:
        """The cached result of `read` for a name: float32 (n,), read-only, and the rate in Hz."""
        with self._lock:
            kept = self._kept.pop(name, None)
            if kept is not None:
                self._kept[name] = *kept[:2], time.monotonic()
                return kept[:2]
        samples, rate = read()
        samples.flags.writeable = False
        with self._lock:
            if name not in self._kept and samples.nbytes <= self._max_bytes:
                self._kept[name] = samples, rate, time.monotonic()
                self._bytes += samples.nbytes
                while self._bytes > self._max_bytes:
                    self._drop(next(iter(self._kept)))
                self._sweep_later()
        return samples, rate

    def forget(self, *names: str) -> None:
        """Drops these names from the cache."""
        with self._lock:
            for name in names:
                self._drop(name)

    def _drop(self, name: str) -> None:
        self._warnings.pop(name, None)
        if name in self._kept:
            self._bytes -= self._kept.pop(name)[0].nbytes

    def _sweep_later(self) -> None:
        # A thread does not live on in a process that was forked.
        if self._kept and not (self._sweeper and self._sweeper.is_alive()):
            oldest = next(iter(self._kept.values()))[2]
            self._sweeper = threading.Timer(max(0.0, oldest + self._max_seconds - time.monotonic()), self._sweep)
            self._sweeper.daemon = True
            self._sweeper.start()

    def _sweep(self) -> None:
        with self._lock:
            limit = time.monotonic() - self._max_seconds
            for name in [name for name, kept in self._kept.items() if kept[2] <= limit]:
                self._drop(name)
            self._sweeper = None  # It is this thread, which is still alive.
            self._sweep_later()


def _decode(path: str | os.PathLike[str], field: str, warnings: list[str]) -> tuple[NDArray[np.float32], int]:
    with memory.claim(memory.to_decode(path, MAX_SECONDS, BYTES_PER_SECOND)):
        return audio.load_reference(path, field=field, warnings=warnings)


references = ReferenceCache()
