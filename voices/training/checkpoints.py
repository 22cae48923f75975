"""What a training has made so far, as one file in the storage, from which another host goes on.

It holds the folders `dataset` and `work` of an attempt's scratch, and the name of that folder.
"""

from __future__ import annotations

import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

FOLDERS = ("dataset", "work")
PLACE = "place.txt"
NOTES = (".json", ".txt", ".list", ".csv", ".tsv", ".yaml")
WEIGHTS = (".pth", ".ckpt", ".index")
# Weights are written within seconds, in place: what was touched so lately may be half of a file.
SETTLED_SECONDS = 5.0
PATIENCE_SECONDS = 120.0


def pack(folder: Path, target: Path, gone: Callable[[], bool], *, working: bool = False) -> bool:
    """Writes a checkpoint of a scratch folder. False, and nothing left, where it could not be had whole.

    working: the command is at work meanwhile: only a moment is taken at which no weights are being written.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while working and not _settled(folder):
        if gone() or time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    before = weights_in(folder)
    (folder / PLACE).write_text(str(folder), encoding="utf-8")
    try:
        with tarfile.open(target, "w") as archive:
            for name in (PLACE, *FOLDERS):
                _add(archive, folder / name, name)
                if gone():
                    raise InterruptedError
    except OSError as error:
        target.unlink(missing_ok=True)
        if isinstance(error, InterruptedError) or (working and isinstance(error, FileNotFoundError)):
            return False  # Nobody wants it any more, or a file went while it was read.
        raise
    if working and weights_in(folder) != before:
        target.unlink(missing_ok=True)
        return False
    return True


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    if path.is_dir() and not path.is_symlink():
        archive.add(path, name, recursive=False)  # An empty one says something too.
        for entry in sorted(os.listdir(path)):
            _add(archive, path / entry, f"{name}/{entry}")
    elif path.is_file() and not path.is_symlink() and path.name != "lock":
        with path.open("rb") as file:
            info = archive.gettarinfo(arcname=name, fileobj=file)
            archive.addfile(info, _Padded(file, info.size))


class _Padded:
    """A file as long as it was when it was looked at: a log may grow or be cut while it is read."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left = file, size

    def read(self, count: int = -1, /) -> bytes:
        wanted = self._left if count < 0 else min(count, self._left)
        data = self._file.read(wanted)
        self._left -= wanted
        return data + bytes(wanted - len(data))


def unpack(source: Path, folder: Path) -> None:
    """Brings a checkpoint back, into another scratch folder. Raises tarfile.TarError."""
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
    was = (folder / PLACE).read_text(encoding="utf-8")
    # Of what the engines' steps have noted, many names are whole paths.
    for path in (folder / "work").rglob("*"):
        if path.suffix in NOTES and path.is_file() and was.encode() in (noted := path.read_bytes()):
            path.write_bytes(noted.replace(was.encode(), str(folder).encode()))


def weights_in(folder: Path) -> dict[str, tuple[int, int]]:
    """The weights that the command has written so far: their sizes and times by their paths."""
    found = {}
    for path in (folder / "work").rglob("*"):
        if path.suffix in WEIGHTS:
            try:
                info = path.stat()
            except FileNotFoundError:
                continue
            found[str(path)] = (info.st_size, info.st_mtime_ns)
    return found


def _settled(folder: Path) -> bool:
    newest = max((at for _, at in weights_in(folder).values()), default=0)
    return time.time() - newest / 1e9 > SETTLED_SECONDS
