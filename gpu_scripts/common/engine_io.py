"""What the wrappers of other projects' engines share: device, working directory, prints, network, audio in and out.

Such a wrapper runs in the engine's own interpreter. Besides what the engine itself needs, that must have soundfile,
soxr and numpy. Nothing heavy is imported here at first: the device is chosen before torch is loaded.
"""

from __future__ import annotations

import argparse
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
from typing import TYPE_CHECKING, Any

from common import script_io
from common.script_io import Progress, ScriptError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]

RATE = 44100
MAX_SEMITONES = 24
SILENCE_RMS = 10 ** (-70 / 20)
ENDED = frozenset((130, 143))  # what SIGINT and SIGTERM raise SystemExit with, see script_io
MAX_DRIFT_SECONDS = 0.25  # engines round to frames of 10 to 12 ms; a greater difference means that they lost something
_OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemory|can't allocate memory|(CUBLAS|CUDNN)_STATUS_ALLOC_FAILED|Failed to allocate memory",
    re.IGNORECASE,
)
_BROKEN_CUDA = re.compile(r"CUDA error|CUDA failure|device-side assert|CUDNN_STATUS_EXECUTION", re.IGNORECASE)


# ------------------------------------------------------------------------------
# Arguments


def boolean(text: str) -> bool:
    """The type of `--is-half true`. Raises ValueError, which argparse reports."""
    if text.lower() not in {"true", "false", "1", "0", "yes", "no"}:
        raise ValueError(text)
    return text.lower() in {"true", "1", "yes"}


def within(low: float, high: float, kind: type = float) -> Callable[[str], Any]:
    """The type of a number between two bounds, `low` and `high` included; kind: int or float."""

    def parse(text: str) -> Any:
        number = kind(text)
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {high:g}")
        return number

    return parse


def optional_path(text: str) -> Path | None:
    """The type of a path that counts as not given where it is empty, as a template's placeholder may be."""
    return Path(text).resolve() if text.strip() else None


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--project-root", type=Path, required=True, help="the engine's own folder")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu; what is not there is an error")
    parser.add_argument("--is-half", type=boolean, default=True, help="16-bit floats on the GPU, where the engine can")
    parser.add_argument("--seed", type=within(0, 2**32 - 1, int), default=0)


def add_infer_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that every engine which sings a vocal in another voice is called with."""
    add_engine_arguments(parser)
    parser.add_argument("--reference", type=optional_path, default=None)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model-id", default="")
    pitch = within(-MAX_SEMITONES, MAX_SEMITONES, int)
    parser.add_argument("--pitch", type=pitch, required=True, help="semitones, a whole number from -24 to 24")


def resolve(parser: argparse.ArgumentParser, arguments: argparse.Namespace, *names: str) -> None:
    """Makes paths absolute, because engines want to be run in their own folder, and checks that outputs are apart."""
    arguments.project_root = arguments.project_root.resolve()
    if not arguments.project_root.is_dir():
        parser.error(f"--project-root {arguments.project_root} is not a folder")
    for name in names:
        setattr(arguments, name, getattr(arguments, name).resolve())
    if len({getattr(arguments, name) for name in names}) < len(names):
        parser.error(f"{', '.join('--' + name for name in names)} must be different files")


# ------------------------------------------------------------------------------
# Running foreign code

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
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
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
        if _BROKEN_CUDA.search(str(error)):
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
        if _BROKEN_CUDA.search(reason):
            raise
        raise ScriptError(script_io.NO_WEIGHTS, f"{what} cannot be loaded: {reason[:300]}") from error


def check_memory(text: str) -> None:
    """Raises ScriptError where an engine's error text says that memory ran out."""
    if _OUT_OF_MEMORY.search(text):
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


def share_of(progress: Progress, start: float, end: float) -> Callable[[float], None]:
    """A callback for foreign code: its 0 to 1 is our `start` to `end`, told on our own stdout."""

    def tell(done: float) -> None:
        with redirect_stdout(sys.__stdout__):
            progress(start + (end - start) * min(max(done, 0.0), 1.0))

    return tell


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


# ------------------------------------------------------------------------------
# Audio


class Clip:
    """An audio file as float32 (frames, channels) at its own rate, all finite.

    `length`: its frames at 44.1 kHz. Raises ScriptError (3).
    """

    def __init__(self, path: Path) -> None:
        import numpy as np

        with script_io.open_wav(path) as audio:
            self.rate: int = audio.samplerate
            self.samples: Float32 = audio.read(dtype="float32", always_2d=True)
            if len(self.samples) != audio.frames or not np.isfinite(self.samples).all():
                raise ScriptError(script_io.UNREADABLE, f"{path} is cut short or holds samples that are not numbers")
        self.channels = self.samples.shape[1]
        self.length = round(len(self.samples) * RATE / self.rate)

    @property
    def silent(self) -> bool:
        return level(self.samples) < SILENCE_RMS

    def mono(self, rate: int) -> Float32:
        """The middle, (n,); the louder side where the two cancel each other out."""
        import numpy as np

        middle = self.samples.mean(axis=1)
        energies = [float(np.vdot(side, side)) for side in self.samples.T]
        if float(np.vdot(middle, middle)) < 0.1 * max(energies):
            middle = self.samples[:, int(np.argmax(energies))]
        return resampled(middle, self.rate, rate)

    def stereo(self, rate: int = RATE) -> Float32:
        """(n, 2); a mono file is on both sides."""
        both = self.samples if self.channels == 2 else self.samples.repeat(2, axis=1)
        return resampled(both, self.rate, rate)


def made(path: Path) -> Clip:
    """A file that an engine wrote. Raises ScriptError (11): it cannot be read, or holds NaN."""
    try:
        return Clip(path)
    except ScriptError as error:
        raise ScriptError(script_io.ENGINE_FAILED, f"what the engine made is of no use: {error}") from error


def level(samples: Float32) -> float:
    """Root mean square."""
    import numpy as np

    flat = np.ravel(samples)
    return float(np.sqrt(np.mean(np.square(flat, dtype=np.float64)))) if len(flat) else 0.0


def resampled(samples: Float32, rate: int, new_rate: int) -> Float32:
    """(n,) or (n, channels), contiguous; its length is n * new_rate / rate, rounded."""
    import numpy as np
    import soxr

    if rate == new_rate:
        return np.ascontiguousarray(samples, np.float32)
    return exactly(
        np.asarray(soxr.resample(samples, rate, new_rate), np.float32), round(len(samples) * new_rate / rate)
    )


def exactly(samples: Float32, length: int) -> Float32:
    """Cut, or filled with silence, to `length` frames."""
    import numpy as np

    lacking = max(0, length - len(samples))
    padding = [(0, lacking)] + [(0, 0)] * (samples.ndim - 1)
    return np.ascontiguousarray(np.pad(samples[:length], padding), np.float32)


def fitted(samples: Float32, rate: int, length: int, what: str) -> Float32:
    """What an engine made, at 44.1 kHz and `length` frames. Raises ScriptError: NaN, silence, or a part is missing."""
    import numpy as np

    if not np.isfinite(samples).all():
        raise ScriptError(script_io.ENGINE_FAILED, f"the engine's {what} holds samples that are not numbers")
    samples = resampled(samples, rate, RATE)
    if abs(len(samples) - length) > MAX_DRIFT_SECONDS * RATE:
        lengths = f"{len(samples) / RATE:.2f} s instead of {length / RATE:.2f} s"
        raise ScriptError(script_io.ENGINE_FAILED, f"the engine's {what} has {lengths}")
    if level(samples) < SILENCE_RMS:
        raise ScriptError(script_io.ENGINE_FAILED, f"the engine's {what} is silent")
    return exactly(samples, length)


def write(path: Path, samples: Float32, channels: int) -> None:
    """44.1 kHz, 32-bit float, at once and complete; a mono signal goes to all channels. Raises ScriptError (6)."""
    import numpy as np

    frames = samples[:, None] if samples.ndim == 1 else samples
    with script_io.wav_writer(path, RATE, channels) as out:
        for start in range(0, len(frames), 10 * RATE):
            block = frames[start : start + 10 * RATE]
            out.write(np.repeat(block, channels // block.shape[1], axis=1))


def check_folder(path: Path) -> None:
    """Before minutes of work: raises ScriptError (6) where an output could not be written."""
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ScriptError(script_io.UNWRITABLE, f"cannot write into {path.parent}")
