"""Where uploads, stems and answers are kept: Django's storage of files, which leaves no half of one."""

from __future__ import annotations

import errno
from typing import Any

from django.core.files.storage import FileSystemStorage
from django.db import OperationalError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that there is no room left: the file system's, or SQLite's word for it."""
    return (isinstance(error, OSError) and error.errno in DISK_FULL) or (
        isinstance(error, OperationalError) and "disk is full" in str(error)
    )


class WholeFileStorage(FileSystemStorage):
    """A file that cannot be written to its end, on a full disk for instance, is not left there."""

    def _save(self, name: str, content: Any) -> str:
        try:
            return super()._save(name, content)  # type: ignore[misc, no-any-return]
        except BaseException:
            # Names are never used twice, so this is what the failed write has made of it.
            self.delete(name)
            raise
