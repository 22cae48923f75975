"""Where files are kept: a folder of this host, or an S3 bucket that all hosts share (`STORAGE_URL`).

Nothing here or elsewhere asks a stored file for its `.path`. A name holds the attempt and is written once.
"""

from __future__ import annotations

import errno
import logging
import shutil
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

from django.core.files.storage import FileSystemStorage, Storage
from django.db import InterfaceError, OperationalError, connection

if TYPE_CHECKING:
    from voiceproject.media.bucket import BucketStorage

log = logging.getLogger(__name__)
T = TypeVar("T")

BLOCK_BYTES = 256 * 1024
# How long an attempt waits for a database or a bucket that is away; then the job is put back for another attempt.
OUTAGE_SECONDS = 300.0
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
BUSY = ("SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "TooManyRequests")  # S3's words for it


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that there is no room left: the file system's, or SQLite's word for it."""
    return (isinstance(error, OSError) and error.errno in DISK_FULL) or (
        isinstance(error, OperationalError) and "disk is full" in str(error)
    )


def is_passing(error: BaseException | None) -> bool:
    """Whether an error says that the database or the bucket is away, so that the same may succeed in a while."""
    if error is None or is_disk_full(error):
        return False
    if isinstance(error, OperationalError | InterfaceError):
        return connection.vendor != "sqlite" or "locked" in str(error)
    from boto3.exceptions import RetriesExceededError, S3UploadFailedError
    from botocore import exceptions as s3

    match error:
        case s3.HTTPClientError() | s3.ConnectionError() | s3.IncompleteReadError() | RetriesExceededError():
            return True
        case S3UploadFailedError():
            return is_passing(error.__cause__ or error.__context__)
        case s3.ClientError():
            answer = error.response
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return status >= 500 or answer.get("Error", {}).get("Code") in BUSY
    return False


def patiently(action: Callable[[], T], gone: Callable[[], bool], seconds: float = OUTAGE_SECONDS) -> T:
    """What `action` returns, which is tried again while the database or the bucket is away; raises its last error after
    so many seconds, or when it is `gone`."""
    deadline = time.monotonic() + seconds
    pause = 0.1
    while True:
        try:
            return action()
        except Exception as error:
            if not is_passing(error) or gone() or time.monotonic() + pause > deadline:
                raise
            log.warning("waiting for the database or the storage: %s", error)
            connection.close()
        wake = time.monotonic() + pause
        while time.monotonic() < wake and not gone():
            time.sleep(0.1)
        pause = min(2 * pause, 5.0)


class WholeFileStorage(FileSystemStorage):
    """Files in a folder. One that cannot be written to its end, on a full disk for instance, is not left there."""

    def _save(self, name: str, content: Any) -> str:
        try:
            try:
                return super()._save(name, content)  # type: ignore[misc, no-any-return]
            except FileNotFoundError:
                # Its folder went between its making and the file's: the job is being deleted. Who stores learns so from
                # the job's row, and not from a broken stage.
                content.seek(0)
                return super()._save(name, content)  # type: ignore[misc, no-any-return]
        except BaseException:
            # Names are never used twice, so this is what the failed write has made of it.
            self.delete(name)
            raise


def in_bucket(storage: Storage) -> TypeGuard[BucketStorage]:
    """Whether a bucket keeps the files. Told by what it has: boto3 takes a tenth of a start to load, which those who
    keep files in a folder do not wait for."""
    return hasattr(storage, "bucket_name")


def read_blocks(storage: Storage, name: str, start: int, length: int) -> Generator[bytes, None, None]:
    """A part of a stored file, in blocks. Raises FileNotFoundError, on a folder at once, on a bucket when read."""
    if in_bucket(storage):
        yield from storage.blocks(name, start, length, BLOCK_BYTES)
        return
    with storage.open(name, "rb") as file:
        file.seek(start)
        while length > 0 and (block := file.read(min(BLOCK_BYTES, length))):
            length -= len(block)
            yield block


def fetch(storage: Storage, name: str, path: Path) -> None:
    """Copies a stored file to a local one. Raises FileNotFoundError."""
    if in_bucket(storage):
        storage.fetch(name, path)
        return
    with storage.open(name, "rb") as source, path.open("wb") as target:
        shutil.copyfileobj(source, target, 1024 * 1024)


def presigned_url(storage: Storage, name: str, content_type: str, disposition: str) -> str | None:
    """A URL of the bucket that gives the file to whoever has it, for five minutes; None where a folder keeps it."""
    if not in_bucket(storage):
        return None
    parameters = {"ResponseContentType": content_type, "ResponseContentDisposition": disposition}
    return storage.url(name, parameters=parameters)
