"""Bodies of requests as they come: counted, timed, in memory while they are small and then on the disk."""

from __future__ import annotations

import asyncio
import io
import tempfile
import time
from typing import IO, Any

from django.conf import settings

from voiceproject.errors import PublicError
from voiceproject.media.storage import is_disk_full
from voiceproject.server import EXTENSION
from voiceproject.web.threads import in_thread

FREE_BYTES = 64 * 1024  # A body of so many bytes is read before anything else is asked.
WRITE_BYTES = 256 * 1024
BROKEN_OFF = "The request's body did not arrive, or broke off."


class Body:
    """stated: the Content-Length, None for a chunked one; complete: it was read to its end.

    What goes wrong is kept, and raised for the view that reads it: so each API tells it in its own shape.
    """

    IDLE_SECONDS = 30.0  # without a byte
    GRACE_SECONDS = 30.0  # and all of it in this time, with this rate from then on
    MIN_BYTES_A_SECOND = 8 * 1024
    DRAIN_SECONDS = 2.0
    # So many bytes may stand around a chunked body's own, in proportion and beyond that.
    MAX_WRAPPING, FREE_WRAPPING_BYTES = 8, 512 * 1024

    def __init__(self, scope: Any, receive: Any) -> None:
        headers = dict(scope["headers"])
        self.chunked = b"transfer-encoding" in headers
        self.stated = None if self.chunked else int(headers.get(b"content-length", 0))
        self.awaited = b"expect" in headers  # The client sends it once it was told to go on.
        self.complete = not self.chunked and not self.stated
        self.received = 0
        self.gone = False
        self.error: PublicError | None = None
        self._receive = receive
        self._connection = scope.get("extensions", {}).get(EXTENSION)
        self._started = time.monotonic()
        self._pending = bytearray()
        self._file: IO[bytes] | None = None

    @property
    def seconds(self) -> float:
        """Since the head came."""
        return time.monotonic() - self._started

    async def read(self, limit: int) -> None:
        """Reads until it is complete, has failed, or has more than `limit` bytes."""
        while not self.complete and self.error is None and self.received <= limit:
            now = time.monotonic()
            rate = self._started + self.GRACE_SECONDS + self.received / self.MIN_BYTES_A_SECOND - now
            try:
                async with asyncio.timeout(max(0.0, min(self.IDLE_SECONDS, rate))):
                    message = await self._receive()
            except TimeoutError:
                self.error = PublicError("validation_error", "The request's body did not arrive in time.")
                return
            if message["type"] != "http.request":
                self.gone = True
                self.error = PublicError("validation_error", BROKEN_OFF)
                return
            block = message.get("body", b"")
            self.received += len(block)
            self._pending += block
            self.complete = not message.get("more_body", False)
            if self.chunked and self._connection is not None:
                allowed = self.MAX_WRAPPING * self.received + self.FREE_WRAPPING_BYTES
                if self._connection.body_bytes > allowed:
                    self.error = PublicError("validation_error", "The request's body is sent in too small chunks.")
                    return
            if len(self._pending) > WRITE_BYTES or (self._file is not None and self.complete):
                await self._write()

    async def _write(self) -> None:
        block, self._pending = self._pending, bytearray()
        try:
            await in_thread(self._append, block)
        except OSError as error:
            if not is_disk_full(error):
                raise
            self.error = PublicError("storage_full", "The server's disk is full. Try again later.", retry_after=60)

    def _append(self, block: bytes) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=settings.FILE_UPLOAD_TEMP_DIR)  # noqa: SIM115 - `close` closes it
        self._file.write(block)

    def stream(self) -> Any:
        """For the view: what was read, from its start, or what raises why it cannot be."""
        if self.error is not None:
            return _Failed(self.error)
        if self._file is None:
            self._file, self._pending = io.BytesIO(self._pending), bytearray()
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        """Frees what was read: the request holds it for as long as nobody looks for garbage."""
        if self._file is not None:
            self._file.close()

    async def drain(self) -> None:
        """Throws away what still comes, for a bounded time: a reset would take the answer from who still sends."""
        left = 4 * (settings.MAX_UPLOAD_SIZE + 1024 * 1024)
        try:
            async with asyncio.timeout(self.DRAIN_SECONDS):
                while left > 0:
                    message = await self._receive()
                    if message["type"] != "http.request" or not message.get("more_body", False):
                        return
                    left -= len(message.get("body", b""))
        except TimeoutError:
            return


class _Failed:
    def __init__(self, error: PublicError) -> None:
        self._error = error

    def read(self, *_: Any) -> bytes:
        raise self._error

    readline = read

    def close(self) -> None:
        pass
