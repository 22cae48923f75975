"""The result of a training: a folder that is there whole, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import script_io
from common.script_io import ScriptError

from .work import remove


def is_whole(checkpoint: Path) -> bool:
    """torch saves zip files, whose table stands at their end."""
    return zipfile.is_zipfile(checkpoint)


def check_output(output: Path, model_id: str) -> None:
    """Before hours of work: raises ScriptError (6) where OUTPUT is something else than a former result of this model,
    or cannot be made."""
    if output.exists() and not output.is_dir():
        raise ScriptError(script_io.UNWRITABLE, f"{output} is a file")
    if output.is_dir() and any(output.iterdir()):
        try:
            former = json.loads((output / "model.json").read_text("utf-8"))["model_id"]
        except (OSError, ValueError, KeyError, TypeError):
            former = None
        if former != model_id:
            raise ScriptError(script_io.UNWRITABLE, f"{output} is not empty, and no model {model_id!r} is in it")
    parent = output.parent
    if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        raise ScriptError(script_io.UNWRITABLE, f"cannot write into {parent}")


@contextmanager
def output_folder(output: Path) -> Iterator[Path]:
    """A folder beside OUTPUT that becomes it when the block ends well. Raises ScriptError (6, 18)."""
    partial = output.with_name(f".{output.name}.part")
    try:
        remove(partial)
        partial.mkdir()
        yield partial
        for path in partial.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        if output.is_dir():
            former = output.with_name(f".{output.name}.former")
            remove(former)
            output.rename(former)
            partial.rename(output)
            remove(former)
        else:
            partial.rename(output)
    except OSError as error:
        code = script_io.DISK_FULL if error.errno in script_io.NO_ROOM else script_io.UNWRITABLE
        raise ScriptError(code, f"cannot write {output}: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
