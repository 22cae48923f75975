"""What GPT-SoVITS needs of the process that it runs in, and what went wrong in it as one exception."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from common import script_io
from common.failures import OUT_OF_MEMORY
from common.script_io import ScriptError

# Never closed: the log handlers that the engine makes keep what stdout was at that time.
_SINK = open(os.devnull, "w")  # noqa: SIM115


@contextlib.contextmanager
def inside(project_root: Path) -> Iterator[None]:
    """In `project_root` (absolute) as the working folder, with it first on sys.path: the engine captures both when it
    is imported, and opens files by relative paths later too. The former working folder is back afterwards.

    Raises ScriptError (2): it is no GPT-SoVITS.
    """
    if not (project_root / "GPT_SoVITS" / "TTS_infer_pack" / "TTS.py").is_file():
        raise ScriptError(script_io.BAD_ARGUMENTS, f"{project_root} is not the root of a GPT-SoVITS (no TTS.py)")
    os.environ.setdefault("TQDM_DISABLE", "1")
    for folder in (str(project_root / "GPT_SoVITS"), str(project_root)):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    before = os.getcwd()
    os.chdir(project_root)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.chdir(before)


def check_device(device: str) -> None:
    """Raises ScriptError (8, 2) where torch cannot use `device`: the engine would take the CPU without a word."""
    if device == "cpu":
        return
    if not re.fullmatch(r"cuda(:\d+)?", device):
        raise ScriptError(script_io.BAD_ARGUMENTS, f"--device must be cuda, cuda:N or cpu, not {device!r}")
    try:
        with quiet():
            import torch
    except ImportError as error:
        raise ScriptError(script_io.ENGINE_FAILED, f"this interpreter has no torch: {sys.executable}") from error
    number = int(device.partition(":")[2] or 0)
    if not torch.cuda.is_available() or number >= torch.cuda.device_count():
        raise ScriptError(
            script_io.NO_CUDA, f"torch finds no CUDA device for --device {device} (CPU only by --device cpu)"
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallows what the engine prints: it prints the text it speaks, and stdout is for PROGRESS lines."""
    with contextlib.redirect_stdout(_SINK), contextlib.redirect_stderr(_SINK):
        yield


def failure(error: BaseException, secrets: tuple[str, ...] = (), doing: str = "GPT-SoVITS failed") -> ScriptError:
    """What went wrong in the engine as a ScriptError (7, 11): its kind, its place, and its own words unless they
    repeat what it was asked to speak."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    # Its clean-up loads the models again, and where that fails too, the first error is only in the chain.
    for link in chain:
        if type(link).__name__ == "OutOfMemoryError" or OUT_OF_MEMORY.search(str(link)):
            return ScriptError(script_io.OUT_OF_MEMORY, f"{doing}: the GPU is out of memory")
    message = " ".join(str(error).split())[:200]
    words = {word for secret in secrets for word in re.findall(r"\w{4,}|[^\W\d_a-zA-Z]{2,}", secret)}
    if any(word in message for word in words):
        message = "its message repeats the text and is left out"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return ScriptError(script_io.ENGINE_FAILED, f"{doing}: {type(error).__name__}{place}: {message}".rstrip(": "))
