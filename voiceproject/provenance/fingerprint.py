"""What a recording sounds like, as numbers that survive re-encoding and cutting: Chromaprint's sub-fingerprints.

Chromaprint (https://acoustid.org/chromaprint) makes 32 bits of what 2.7 s of sound do in the twelve pitch classes, one
such number every 124 ms. It is the library's job to make them alike after MP3; what is here asks it, and tells from the
numbers that two recordings share whether one is a part of the other. The library comes inside the FFmpeg of the package
imageio-ffmpeg, which runs as a process of its own. Samples are float32 mono (n,), nominally within [-1, 1].
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import soxr
from numpy.typing import NDArray

# Of Chromaprint's algorithm 1 (its default): 11.025 kHz, frames of 4096 samples, each 1365 after the last one; a
# number is made of 20 of them, five to a smoothed one and sixteen of those.
SAMPLE_RATE = 11_025
ALGORITHM = 1
FRAME, HOP, FRAMES = 4096, 1365, 20
SPAN = FRAME + (FRAMES - 1) * HOP
FRAMES_PER_SECOND = SAMPLE_RATE / HOP
# A cut recording's frames begin between those of the whole one: it is asked for with its start moved by so much.
SHIFTS = tuple(HOP * eighth // 8 for eighth in range(8))
# So many frames go to one process, which bounds the memory: two minutes.
PIECE_FRAMES = 960
TIMEOUT_SECONDS = 60.0
# What a query takes at most besides the samples: a piece of them with all its shifts, and FFmpeg's process.
QUERY_BYTES = 64 * 1024 * 1024

# One recording is part of another when so many different numbers lie in both at the same distance in time, not all of
# them of the same second, within four seconds. bench/provenance.py tells how far speech in the same voice stays below,
# and MP3 above.
MIN_MATCHES, MIN_SPREAD, WINDOW = 4, round(FRAMES_PER_SECOND), round(4 * FRAMES_PER_SECOND)


class NoFingerprint(Exception):
    """FFmpeg could not be started, has no Chromaprint, or failed."""


class Score(NamedTuple):
    """How well a recording fits a query, in the four seconds and at the distance in time that have most in common.

    matches: different numbers in both; spread: frames between the first and the last of them; asked: frames that the
    query has in those seconds.
    """

    matches: int = 0
    spread: int = 0
    asked: int = 0


def resampled(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    samples = np.ascontiguousarray(samples, np.float32)
    return samples if rate == SAMPLE_RATE else soxr.resample(samples, rate, SAMPLE_RATE, quality="HQ")


def landmarks(samples: NDArray[np.float32], rate: int) -> NDArray[np.int64]:
    """What is kept of a recording: int64 (k, 2), each row a number of 32 bits and the frame (of 124 ms) it begins in.

    Raises NoFingerprint.
    """
    return np.unique(_rows(resampled(samples, rate), (0,)), axis=0)


def query(samples: NDArray[np.float32], rate: int) -> NDArray[np.int64]:
    """What is asked of a recording that may be cut and re-encoded: rows as those of `landmarks`, about eight times as
    many. Raises NoFingerprint."""
    return np.unique(_rows(resampled(samples, rate), SHIFTS), axis=0)


def without(marks: NDArray[np.int64], *others: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those landmarks whose numbers are in none of the others."""
    known = np.concatenate([other[:, 0] for other in others]) if others else np.zeros(0, np.int64)
    return marks[~np.isin(marks[:, 0], known)]


def matches(asked: NDArray[np.int64], found: Iterable[tuple[int, int, int]]) -> dict[int, Score]:
    """How well the recordings of an index fit a query.

    found: (recording, number, frame) of every landmark of the index whose number was asked for.
    """
    frames = defaultdict(list)
    for value, frame in asked.tolist():
        frames[value].append(frame)
    # recording -> distance in frames -> number -> frame of the query
    aligned: dict[int, dict[int, dict[int, int]]] = defaultdict(lambda: defaultdict(dict))
    for recording, value, frame in found:
        for asked_frame in frames[value]:
            aligned[recording][frame - asked_frame][value] = asked_frame
    length = int(asked[:, 1].max(initial=-1)) + 1
    return {recording: _densest(distances, length) for recording, distances in aligned.items()}


def _densest(distances: dict[int, dict[int, int]], length: int) -> Score:
    best = Score()
    for distance in distances:
        near: dict[int, int] = {}
        for off in (-1, 1, 0):  # Rounding to frames puts some of them one off.
            near |= distances.get(distance + off, {})
        if len(near) < best.matches:
            continue
        lie = np.sort(np.fromiter(near.values(), np.int64, len(near)))
        ends = np.searchsorted(lie, lie + WINDOW)
        counts = ends - np.arange(len(lie))
        first = int(counts.argmax())
        spread = int(lie[ends[first] - 1] - lie[first])
        best = max(best, Score(int(counts[first]), spread, min(WINDOW, length)))
    return best


def is_match(score: Score, fewest: int = MIN_MATCHES, share: float = 0.0) -> bool:
    """fewest: matches that it takes; share: of the frames that were asked for, too."""
    return score.matches >= max(fewest, share * score.asked) and score.spread >= MIN_SPREAD


def problem() -> str | None:
    """Why no recording can be told by its sound; None when all is well."""
    tone = np.sin(np.arange(2 * SPAN) * 0.3).astype(np.float32)
    try:
        return None if len(landmarks(tone, SAMPLE_RATE)) else "FFmpeg has made no fingerprint."
    except NoFingerprint as error:
        return str(error)


def _rows(samples: NDArray[np.float32], shifts: tuple[int, ...]) -> NDArray[np.int64]:
    """Landmarks of the samples, and of what is left of them after each of the shifts."""
    rows = [np.zeros((0, 2), np.int64)]
    for start in range(0, max(0, (len(samples) - SPAN) // HOP + 1), PIECE_FRAMES):
        first = start * HOP
        piece = samples[first : first + (PIECE_FRAMES - 1) * HOP + SPAN + shifts[-1]]
        moved = [piece[shift : shift + (PIECE_FRAMES - 1) * HOP + SPAN] for shift in shifts]
        for numbers in _numbers(moved):
            rows.append(np.stack([numbers, np.arange(start, start + len(numbers))], axis=1))
    return np.concatenate(rows)


def _numbers(parts: list[NDArray[np.float32]]) -> Iterator[NDArray[np.int64]]:
    """Chromaprint's numbers of each part, all made by one process: one behind the other, each on a frame's border.

    What comes of sound on both sides of a border is left out; a number depends on its own span alone.
    """
    counts = [max(0, (len(part) - SPAN) // HOP + 1) for part in parts]
    frames = [-(-len(part) // HOP) for part in parts]
    stream = np.zeros(sum(frames) * HOP + FRAME, np.int16)
    starts = [sum(frames[:index]) for index in range(len(parts))]
    for part, start in zip(parts, starts, strict=True):
        stream[start * HOP : start * HOP + len(part)] = np.rint(np.clip(part, -1, 1) * 32_767)
    made = _chromaprint(stream)
    for start, count in zip(starts, counts, strict=True):
        yield made[start : start + count]


def _chromaprint(samples: NDArray[np.int16]) -> NDArray[np.int64]:
    arguments = [_ffmpeg(), "-hide_banner", "-loglevel", "error", "-f", "s16le", "-ar", str(SAMPLE_RATE), "-ac", "1"]
    arguments += ["-i", "pipe:0", "-f", "chromaprint", "-algorithm", str(ALGORITHM), "-fp_format", "raw", "pipe:1"]
    try:
        done = subprocess.run(
            arguments,
            input=samples.view(np.uint8).data,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},  # none of our secrets
            cwd="/",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoFingerprint(f"FFmpeg could not make a fingerprint: {error}") from error
    if done.returncode:
        raise NoFingerprint(f"FFmpeg could not make a fingerprint: {done.stderr.decode(errors='replace')[-500:]}")
    return np.frombuffer(done.stdout, "<u4").astype(np.int64)


@functools.cache
def _ffmpeg() -> str:
    """Raises NoFingerprint where the package brings none for this machine, and IMAGEIO_FFMPEG_EXE names none."""
    import imageio_ffmpeg

    try:
        path: str = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise NoFingerprint(str(error)) from error
    return os.path.abspath(shutil.which(path) or path)
