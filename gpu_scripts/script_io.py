"""What the command-line scripts of this folder share: arguments, progress, warnings, exit codes, atomic WAV files.

Only the standard library is imported here at first, so that a script can call `limit_threads` before numpy is loaded.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import soundfile

UNEXPECTED = 1
BAD_ARGUMENTS = 2
UNREADABLE = 3
SILENT = 4
BAD_REFERENCE = 5
UNWRITABLE = 6
OUT_OF_MEMORY = 7  # the computer's or the GPU's
NO_CUDA = 8
NO_WEIGHTS = 9
UNKNOWN_MODEL = 10
ENGINE_FAILED = 11
UNSPEAKABLE = 12


class ScriptError(Exception):
    """An expected failure: `exit_code` for the caller, one line for whoever reads stderr."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line and exits with 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_ARGUMENTS, f"{self.prog}: {message}\n")


def limit_threads(arguments: list[str], default: int = 2) -> int:
    """Holds BLAS and OpenMP to the number after --threads; it has to be called before numpy is imported."""
    parser = OneLineParser(add_help=False)
    parser.add_argument("--threads", type=int, default=default)
    threads = max(1, parser.parse_known_args(arguments)[0].threads)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        os.environ[name] = str(threads)
    return threads


class Progress:
    """Prints `PROGRESS 0.42` lines: a fraction that never falls, at most one for each hundredth, the last one 1."""

    def __init__(self) -> None:
        self._printed = -1

    def __call__(self, fraction: float) -> None:
        hundredths = int(100 * min(max(fraction, 0.0), 1.0) + 1e-9)
        if hundredths > self._printed:
            self._printed = hundredths
            print(f"PROGRESS {hundredths / 100:g}", flush=True)


def warn(message: str) -> None:
    """A `WARNING ...` line on stderr: for the person who gets the result."""
    print(f"WARNING {message}", file=sys.stderr, flush=True)


@contextmanager
def wav_writer(path: Path, sample_rate: int, channels: int) -> Iterator[soundfile.SoundFile]:
    """A 32-bit float WAV that appears under `path` only when the block ends well; otherwise nothing is left of it.

    Written beside `path`, flushed to the disk, then renamed. Raises ScriptError (6) where it cannot be written.
    """
    import soundfile

    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise ScriptError(UNWRITABLE, f"cannot write {path}: {error.strerror}") from error
    try:
        with open(descriptor, "w+b") as raw:
            with soundfile.SoundFile(
                raw, "w", samplerate=sample_rate, channels=channels, format="WAV", subtype="FLOAT"
            ) as wav:
                yield wav
            raw.flush()
            os.fsync(raw.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except (OSError, soundfile.SoundFileError) as error:
        raise ScriptError(UNWRITABLE, f"cannot write {path}: {error}") from error
    finally:
        Path(name).unlink(missing_ok=True)


def open_wav(path: Path, max_channels: int = 2) -> soundfile.SoundFile:
    """An audio file opened for reading. Raises ScriptError (3): no such file, not audio, empty, too many channels."""
    import soundfile

    try:
        audio = soundfile.SoundFile(path)
    except (OSError, soundfile.SoundFileError) as error:
        raise ScriptError(UNREADABLE, f"cannot read {path}: {error}") from error
    if audio.channels > max_channels or audio.frames == 0 or audio.samplerate < 4000:
        facts = f"{audio.channels} channels, {audio.frames} samples at {audio.samplerate} Hz"
        audio.close()
        raise ScriptError(UNREADABLE, f"cannot use {path}: {facts}; wanted 1 to {max_channels} channels with audio")
    return audio


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def run(main: Callable[[], None]) -> NoReturn:
    """Runs a script: SIGTERM and SIGINT unwind it, so that unfinished files go; a ScriptError is one line on stderr."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    try:
        main()
    except ScriptError as error:
        print(str(error).replace("\n", " "), file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
    except MemoryError:
        print("out of memory", file=sys.stderr, flush=True)
        sys.exit(UNEXPECTED)
    sys.exit(0)
