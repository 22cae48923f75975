"""Scratch folders: made for one attempt, removed after it, swept when a worker was killed; and what they hold."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

log = logging.getLogger(__name__)


@contextlib.contextmanager
def scratch(root: str | os.PathLike[str], name: str) -> Iterator[Path]:
    """A folder `root/name` of mode 0700 that is removed at the end, whatever happened and whatever is in it.

    The name should contain the attempt, so that a worker that comes back late removes only its own folder.
    What an earlier run left under the same name is removed first. Raises ValueError for a name that is no
    plain file name, and OSError when the folder cannot be made (a full disk).
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}", name):
        raise ValueError(f"not a name for a scratch folder: {name!r}")
    folder = Path(root) / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove(folder)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        _remove(folder)


def sweep_scratch(root: str | os.PathLike[str], keep: Callable[[str], bool]) -> int:
    """Removes what killed workers left below `root`: every entry whose name `keep` refuses; how many."""
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return 0
    return sum(_remove(Path(root) / name) for name in names if not keep(name))


def _remove(path: Path) -> bool:
    """Removes a file, link or folder; what cannot be removed is logged. True when it was there and went."""
    if not os.path.lexists(path):
        return False
    try:
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            return True
        try:
            shutil.rmtree(path)
        except PermissionError:
            # A command may have taken permissions away: they are put right, and it is tried once more.
            path.chmod(stat.S_IRWXU)
            for folder, names, _ in os.walk(path):
                for name in names:
                    if not os.path.islink(os.path.join(folder, name)):
                        os.chmod(os.path.join(folder, name), stat.S_IRWXU)
            shutil.rmtree(path)
    except FileNotFoundError:
        pass  # Another process of this host sweeps it too, and was faster.
    except OSError as error:
        log.error("cannot remove %s: %s", path, error)
    return not os.path.lexists(path)


def folder_bytes(folder: str | os.PathLike[str]) -> int:
    """The length of all files below a folder, links not followed; what vanishes meanwhile is not counted."""
    total = 0
    pending = [os.fspath(folder)]
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                    continue
                with contextlib.suppress(FileNotFoundError):
                    total += entry.stat(follow_symlinks=False).st_size
    return total
