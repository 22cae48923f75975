"""The `ffmpeg` program, which makes files as people have them. The product does not need it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.missing import needs


def ffmpeg(folder: Path, *arguments: str) -> bytes:
    """Runs it in a folder; returns what it wrote to its output. Without it the test is skipped, in CI it fails."""
    needs("ffmpeg")
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120)
    if done.returncode:
        pytest.fail(f"{arguments}: {done.stderr.decode()[-2000:]}")
    return done.stdout
