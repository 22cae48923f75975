"""References that were decoded and checked a moment ago: most requests bring the one that the last ones brought."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from voiceproject import audio

KEPT_BYTES = 64 * 1024 * 1024  # per process; the longest reference at 192 kHz, the highest rate, takes 46 MB


class ReferenceCache:
    """Decoded audio, that of uploads under the SHA-256 of their bytes; the least used goes first."""

    def __init__(self, max_bytes: int = KEPT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, tuple[NDArray[np.float32], int]] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, path: str | os.PathLike[str], *, field: str) -> tuple[NDArray[np.float32], int, str]:
        """(samples, rate in Hz, SHA-256 of the upload in hexadecimal) of an upload that stays as it is meanwhile.

        samples: as of audio.load_reference, but read-only, since others may have them too. Raises PublicError as that
        does; what was refused is not kept.
        """
        content_hash = audio.sha256_file(path)
        return *self.kept(content_hash, lambda: audio.load_reference(path, field=field)), content_hash

    def kept(self, name: str, read: Callable[[], tuple[NDArray[np.float32], int]]) -> tuple[NDArray[np.float32], int]:
        """What `read` gives, the same each time for a name: float32 (n,), read-only, and the rate in Hz."""
        with self._lock:
            kept = self._kept.get(name)
            if kept is not None:
                self._kept.move_to_end(name)
                return kept
        samples, rate = read()
        samples.flags.writeable = False
        with self._lock:
            if name not in self._kept and samples.nbytes <= self._max_bytes:
                self._kept[name] = samples, rate
                self._bytes += samples.nbytes
                while self._bytes > self._max_bytes:
                    _, (oldest, _) = self._kept.popitem(last=False)
                    self._bytes -= oldest.nbytes
        return samples, rate


references = ReferenceCache()
