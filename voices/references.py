"""References that were decoded and checked a moment ago: most requests bring the one that the last ones brought."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from voiceproject import audio

KEPT_BYTES = 64 * 1024 * 1024  # per process; the longest reference at 192 kHz, the highest rate, takes 46 MB


class ReferenceCache:
    """What audio.load_reference makes of an upload, under the SHA-256 of its bytes; the least used goes first."""

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
        with self._lock:
            kept = self._kept.get(content_hash)
            if kept is not None:
                self._kept.move_to_end(content_hash)
                return *kept, content_hash
        samples, rate = audio.load_reference(path, field=field)
        samples.flags.writeable = False
        with self._lock:
            if content_hash not in self._kept and samples.nbytes <= self._max_bytes:
                self._kept[content_hash] = samples, rate
                self._bytes += samples.nbytes
                while self._bytes > self._max_bytes:
                    _, (oldest, _) = self._kept.popitem(last=False)
                    self._bytes -= oldest.nbytes
        return samples, rate, content_hash


references = ReferenceCache()
