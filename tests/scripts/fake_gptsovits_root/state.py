"""What goes wrong in a root, and what it has done: files in it, so that tests and the root's processes share them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

now_dir = ""  # the root, once its TTS.py has been imported


class OutOfMemoryError(RuntimeError):
    """As torch names it; what matters to a caller is its name and its words."""


def set_mood(folder: Path, **mood: Any) -> None:
    """Replaces the mood of the root in `folder`; without arguments all is well again."""
    partial = folder / "mood.json.part"
    partial.write_text(json.dumps(mood))
    partial.replace(folder / "mood.json")


def mood() -> dict[str, Any]:
    """The mood of the root in the working folder."""
    try:
        told = json.loads(Path("mood.json").read_text())
    except FileNotFoundError:
        told = {}
    return {**told, **json.loads(os.environ.get("FAKE_GPTSOVITS_MOOD", "{}"))}


def calls(folder: Path, event: str = "") -> list[dict[str, Any]]:
    """What the root in `folder` has done, or only such events."""
    try:
        lines = (folder / "calls.jsonl").read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [call for call in map(json.loads, lines) if event in ("", call["event"])]


def log(event: str, **facts: Any) -> None:
    """Into the working folder, or the file that FAKE_GPTSOVITS_CALLS names: a working folder goes with its host."""
    with open(os.environ.get("FAKE_GPTSOVITS_CALLS", "calls.jsonl"), "a", encoding="utf-8") as file:
        file.write(json.dumps({"event": event, "pid": os.getpid(), **facts}) + "\n")


def clear_calls(folder: Path) -> None:
    (folder / "calls.jsonl").unlink(missing_ok=True)
