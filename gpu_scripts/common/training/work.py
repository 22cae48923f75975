"""The scratch folder of a training: whose it is, what is done already, and from what it was made."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from common import script_io
from common.script_io import ScriptError

FORMAT = 1  # of the stages' outcomes; what another release left is made anew


class Work:
    """The folder WORK, held by this process alone. Raises ScriptError (6): it cannot be made, or another training is
    at work in it.

    state.json: {"format": FORMAT, "stages": {stage: {"key": hash of what it was made from, "done": bool, "outcome":
    {...}}}}, replaced as a whole. A stage whose key is another than before begins anew, and so does all that comes
    after it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = open(folder / "lock", "w")  # noqa: SIM115  # held until this process ends
        except OSError as error:
            raise ScriptError(script_io.UNWRITABLE, f"cannot write {folder}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ScriptError(script_io.UNWRITABLE, f"another training is at work in {folder}") from error
        try:
            state = json.loads((folder / "state.json").read_text("utf-8"))
            self._stages: dict[str, dict[str, Any]] = state["stages"] if state["format"] == FORMAT else {}
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            self._stages = {}
        self._key = ""
        self._changed = False

    def run(
        self,
        stage: str,
        made_from: Any,
        work: Callable[[], dict[str, Any] | None],
        made: Iterable[str] = (),
    ) -> dict[str, Any]:
        """The outcome of a stage: of now, or of an earlier run from the same.

        made_from: what it depends on beside the stages before it, anything that JSON can hold; made: the files and
        folders in WORK that it makes. They are removed before it begins anew, and kept where it was stopped: `work` has
        to go on from what is there.
        """
        text = json.dumps([self._key, stage, made_from], sort_keys=True, ensure_ascii=False)
        self._key = hashlib.sha256(text.encode()).hexdigest()
        known = self._stages.get(stage, {})
        same = known.get("key") == self._key and not self._changed
        if same and known.get("done") and all((self.folder / name).exists() for name in made):
            return dict(known["outcome"])
        if not same:
            self._changed = True
            for name in made:
                remove(self.folder / name)
            self._stages[stage] = {"key": self._key, "done": False, "outcome": {}}
            self._save()
        outcome = work() or {}
        self._stages[stage] = {"key": self._key, "done": True, "outcome": outcome}
        self._save()
        return outcome

    def _save(self) -> None:
        write_json(self.folder / "state.json", {"format": FORMAT, "stages": self._stages})


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all."""
    partial = path.with_name(f".{path.name}.part")
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def require_free(folder: Path, needed: int) -> None:
    """Raises ScriptError (18)."""
    free = free_bytes(folder)
    if free < needed:
        raise ScriptError(
            script_io.DISK_FULL,
            f"the disk of {folder} has {free / 1e9:.1f} GB free, and the training needs about {needed / 1e9:.1f} GB",
        )
