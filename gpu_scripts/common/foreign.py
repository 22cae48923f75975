"""Running other projects' engines in this process: their device, working directory, prints, network and failures.

Such a wrapper runs in the engine's own interpreter. Besides what the engine itself needs, that must have soundfile,
soxr and numpy (audio.py). Nothing heavy is imported here at first: the device is chosen before torch is loaded.
"""

from __future__ import annotations

import io
import os
import random
import re
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from common import script_io
from common.failures import BROKEN_CUDA, OUT_OF_MEMORY
from common.script_io import Progress, ScriptError

BAR = re.compile(r"\b(\d{1,3})%\|")  # as tqdm draws one
ENDED = frozenset((130, 143))  # what SIGINT and SIGTERM raise SystemExit with, see script_io

_device = ""
_network_allowed = True


def use_device(device: str) -> str:
    """Hides the GPUs that are not meant from everything loaded later, since most engines take the first they see.

    Returns `cuda` or `cpu`. To be called before anything imports torch. Raises ScriptError: no such GPU, or this
    process already uses another device.
    """
    global _device
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if not match:
        raise ScriptError(script_io.BAD_ARGUMENTS, f"--device must be cpu, cuda or cuda:N, not {device}")
    if _device and device != _device:
        raise ScriptError(script_io.BAD_ARGUMENTS, f"this process runs on {_device} already, not on {device}")
    kind = device.partition(":")[0]
    if not _device:
        if kind == "cpu":
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        elif match[1]:
            visible = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
            number = int(match[1])
            if visible and number >= len(visible):
                raise ScriptError(script_io.NO_CUDA, f"there is no GPU {number}: {len(visible)} are visible")
            os.environ["CUDA_VISIBLE_DEVICES"] = visible[number] if visible else match[1]
    try:
        import torch
    except ImportError as error:
        raise ScriptError(
            script_io.ENGINE_FAILED, f"{sys.executable} has no torch: it is not the engine's interpreter"
        ) from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ScriptError(script_io.NO_CUDA, f"there is no usable GPU for --device {device}; --device cpu is slow")
    _device = device
    return kind


def set_seed(seed: int) -> None:
    """Seeds every generator that an engine draws from. Same seed, same machine, same output, as far as it is able."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # all GPUs too


class _Prints(io.TextIOBase):
    """Where engines print to: stderr, each line marked, so that it is never taken for ours. Bars (\\r) are left out."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=200)
        self.bar: Callable[[float], None] | None = None
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.bar is not None and (shares := BAR.findall(text)):
            self.bar(int(shares[-1]) / 100)
        *whole, self._rest = (self._rest + text).split("\n")
        self._rest = self._rest[-4096:]
        for line in whole:
            line = line.rpartition("\r")[2].strip()
            if line:
                self.lines.append(line)
                print(f"engine: {line}", file=sys.__stderr__, flush=True)
        return len(text)


_prints = _Prints()  # one for the life of the process: loggers keep the stream that they were made with


@contextmanager
def inside(root: Path, name: str, environment: dict[str, str] | None = None) -> Iterator[deque[str]]:
    """Foreign code runs in this block: in its own folder, first on sys.path, with no arguments and no network.

    Yields the lines it prints. What it throws becomes a ScriptError, sys.exit() in a library too: out of memory is
    told apart, the rest is 11 with the place and the message. A CUDA error that spoils the whole process passes
    through, so that a process which serves ends.
    """
    global _network_allowed
    folder, arguments = os.getcwd(), sys.argv
    os.environ.update({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"} | (environment or {}))
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    os.chdir(root)
    sys.argv = sys.argv[:1]
    _prints.lines.clear()
    _network_allowed = False
    try:
        with redirect_stdout(_prints), redirect_stderr(_prints):
            yield _prints.lines
    except ScriptError:
        raise
    except SystemExit as error:
        if error.code in ENDED:
            raise
        said = "; ".join(list(_prints.lines)[-3:]) or "it said nothing"
        check_memory(said)
        raise ScriptError(script_io.ENGINE_FAILED, f"{name} gave up: {said}") from error
    except MemoryError:
        raise
    except Exception as error:
        check_memory(f"{type(error).__name__}: {error}")
        if BROKEN_CUDA.search(str(error)):
            raise
        _prints.write(traceback.format_exc())
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
        raise ScriptError(script_io.ENGINE_FAILED, f"{name} failed: {where}: {error}") from error
    finally:
        _network_allowed = True
        sys.argv = arguments
        os.chdir(folder)


@contextmanager
def loading(what: str) -> Iterator[None]:
    """An engine loads weights in this block, which libraries do that know of many ways to fail: ScriptError (8), unless
    memory, the GPU or the installation is the reason."""
    try:
        yield
    except (ScriptError, ImportError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, SystemExit):
            if error.code in ENDED:
                raise
            reason = "; ".join(list(_prints.lines)[-3:])
        check_memory(reason)
        if BROKEN_CUDA.search(reason):
            raise
        raise ScriptError(script_io.NO_WEIGHTS, f"{what} cannot be loaded: {reason[:300]}") from error


def check_memory(text: str) -> None:
    """Raises ScriptError where an engine's error text says that memory ran out."""
    if OUT_OF_MEMORY.search(text):
        if re.search(r"cuda|cublas|cudnn|hip|gpu", text, re.IGNORECASE):
            raise ScriptError(script_io.OUT_OF_MEMORY, "the GPU is out of memory")
        raise ScriptError(script_io.OUT_OF_MEMORY, "out of memory")


def _watch_network(event: str, arguments: tuple[Any, ...]) -> None:
    if _network_allowed or event not in {"socket.connect", "socket.getaddrinfo"}:
        return
    host = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
    host = host[0] if isinstance(host, tuple) else host
    if isinstance(host, str) and (host.startswith(("/", "127.")) or host in {"localhost", "::1", ""}):
        return
    raise ScriptError(script_io.NO_WEIGHTS, "the engine wanted to download something: its files are not complete")


sys.addaudithook(_watch_network)


@contextmanager
def told_by_bars(tell: Callable[[float], None]) -> Iterator[None]:
    """Within the block `tell` hears how far the progress bars are that foreign code draws with tqdm, 0 to 1. Several
    bars each go through all of it."""
    _prints.bar = tell
    try:
        yield
    finally:
        _prints.bar = None


def share_of(progress: Progress, start: float, end: float) -> Callable[[float], None]:
    """A callback for foreign code: its 0 to 1 is our `start` to `end`."""
    return lambda done: progress(start + (end - start) * min(max(done, 0.0), 1.0))


def stamp(*paths: Path | None) -> tuple[object, ...]:
    """What a model in memory depends on: a file changed in place has another stamp."""
    facts: list[object] = []
    for path in paths:
        state = path.stat() if path else None
        facts.append((str(path), state.st_mtime_ns, state.st_size) if state else None)
    return tuple(facts)


def is_filled(path: Path) -> bool:
    """A file is there, and something is in it."""
    return path.is_file() and path.stat().st_size > 0


def require_files(root: Path, *groups: str) -> None:
    """Raises ScriptError (no weights) unless each group, alternatives parted by |, has a file that is not empty.

    They are patterns relative to `root`; of all that is missing the first of each group is named.
    """
    missing = [
        group.partition("|")[0]
        for group in groups
        if not any(
            path.is_file() and path.stat().st_size for pattern in group.split("|") for path in root.glob(pattern)
        )
    ]
    if missing:
        raise ScriptError(script_io.NO_WEIGHTS, f"files are missing or empty in {root}: {', '.join(missing)}")
