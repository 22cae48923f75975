"""Weights that were trained here: kept in the storage, and fetched to this host when something is about to load them.

The folder MODEL_CACHE_DIR holds what was fetched, each file under a name with its hash. When it has more than
MODEL_CACHE_MAX_BYTES, those go that were not used for longest.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings

from voiceproject.errors import EngineUnavailable
from voiceproject.media import storage

log = logging.getLogger(__name__)

IN_USE_SECONDS = 900.0  # an engine may be about to load what was asked for so lately


def cache_name(model_id: str, sha256: str, suffix: str) -> str:
    return f"{model_id}-{sha256[:16]}{suffix}"


def local_path(name: str) -> str:
    """Where commands on this host find a file of the cache; empty for an empty name."""
    return str(settings.MODEL_CACHE_DIR / name) if name else ""


def engine_path(name: str) -> str:
    """The same for a GPT-SoVITS server, which may see the folder elsewhere."""
    return f"{settings.MODEL_CACHE_DIR_ON_SERVER.rstrip('/')}/{name}" if name else ""


def ensure(names: list[str], files: Any) -> None:
    """Has these files of the cache at hand. files: the rows of WeightsFile that they are copies of.

    Raises EngineUnavailable where one is not in the storage any more, or is another than was stored.
    """
    missing = [name for name in names if not _touch(settings.MODEL_CACHE_DIR / name)]
    if not missing:
        return
    rows = {row.cached_as: row for row in files}
    settings.MODEL_CACHE_DIR.mkdir(parents=True, exist_ok=True)
    with _locked():
        for name in missing:
            path = settings.MODEL_CACHE_DIR / name
            if _touch(path):
                continue  # Another process has fetched it meanwhile.
            if name not in rows:
                raise EngineUnavailable("The weights of this model are gone.")
            _fetch(rows[name], path)
        _evict(keep=set(names))


def _fetch(row: Any, path: Path) -> None:
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        storage.fetch(row.file.storage, str(row.file.name), part)
        with part.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != row.sha256:
            log.error("stored weights are not those that were stored: %s", row.file.name)
            raise EngineUnavailable("The weights of this model are damaged.")
        os.replace(part, path)
    except FileNotFoundError as error:
        raise EngineUnavailable("The weights of this model are gone.") from error
    finally:
        part.unlink(missing_ok=True)
    log.info("weights fetched", extra={"file": path.name})


def _touch(path: Path) -> bool:
    """Notes a use; False where the file is not there."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    with (settings.MODEL_CACHE_DIR / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _files() -> list[tuple[Path, os.stat_result]]:
    found = []
    for path in settings.MODEL_CACHE_DIR.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and not path.name.startswith("."):
                found.append((path, path.stat()))
    return found


def _evict(keep: set[str]) -> None:
    files = sorted(_files(), key=lambda found: found[1].st_mtime)
    total = sum(info.st_size for _, info in files)
    for path, info in files:
        if total <= settings.MODEL_CACHE_MAX_BYTES:
            return
        if path.name not in keep and time.time() - info.st_mtime > IN_USE_SECONDS:
            path.unlink(missing_ok=True)
            total -= info.st_size


def forget(known: set[str], older_than_seconds: float) -> int:
    """Deletes what is no model's any more, and parts that a killed process left; how many."""
    if not settings.MODEL_CACHE_DIR.is_dir():
        return 0
    count = 0
    for path in settings.MODEL_CACHE_DIR.iterdir():
        with contextlib.suppress(FileNotFoundError):
            abandoned = path.name.startswith(".") and time.time() - path.stat().st_mtime > older_than_seconds
            if path.name != ".lock" and (abandoned or (not path.name.startswith(".") and path.name not in known)):
                path.unlink()
                count += 1
    return count
