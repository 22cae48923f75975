"""Uploaded files."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def upload_path(upload: Any) -> Path:
    """The temporary file that Django has written an upload to: always a file, never memory (FILE_UPLOAD_HANDLERS)."""
    return Path(upload.temporary_file_path())
