"""What a test needs and this machine lacks: it is skipped; in CI, which installs and starts it all, it fails."""

from __future__ import annotations

import os
import shutil

import pytest


def lacking(message: str) -> None:
    pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)


def needs(program: str) -> None:
    if shutil.which(program) is None:
        lacking(f"{program} is not installed")


def url_of(variable: str) -> str:
    """Of a server that the environment names."""
    url = os.environ.get(variable, "")
    if not url:
        lacking(f"{variable} is not set")
    return url
