"""Where somebody sings, from the two stems of a song alone, whatever has separated them.

Silero's detector of speech (MIT, silero/vad_16k.onnx, from silero-vad 6.2.3) listens to the vocal stem with the
accompaniment 12 dB down beside it: what a separator has torn out of instruments flutters like speech where it stands
alone, and is masked by what it was torn out of; a voice is not. On strings, reeds, flutes and brass near a voice's
range it stays silent.

It wants syllables. A note that is held, or a run of vowels, is taken for singing where it hangs together with them: as
loud, as far above the accompaniment, and with a pitch. Where no syllables are, a pitch that glides is a melody that may
be sung, hummed or played: few instruments glide, but for strings.

Memory: both stems at 16 kHz, 4 bytes a sample (60 MB for 8 minutes).
"""

from __future__ import annotations

import functools
import itertools
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Flags = NDArray[np.bool_]

SAMPLE_RATE = 16_000
FRAME = 512  # of the detector, in samples
FRAME_SECONDS = FRAME / SAMPLE_RATE

_MODEL = Path(__file__).with_name("silero") / "vad_16k.onnx"
_CONTEXT = 64  # samples before its frame that the detector sees too
_RUN_FRAMES = 1000
_LEVEL = 0.1  # root mean square of what it listens to
_SILENT = 1e-4  # -80 dBFS

ACCOMPANIMENT_GAIN = 0.25
SURE = 0.5
# Nobody sings where the detector is sure for less than this in the best eight seconds.
WINDOW_SECONDS = 8.0
LEAST_SECONDS = 2.0
LEAST_SHARE = 0.25  # of a song that is shorter
# What stands alone was misheard: a syllable has others within a second.
ALONE_SECONDS = 0.3

MARGIN_SECONDS = 0.25
GAP_SECONDS = 0.6
HELD_SECONDS = 6.0
HELD_BELOW_DB = 18.0  # what is held may be so far below the median of what is sure
HELD_NEARER_DB = 9.0  # and so much nearer to the accompaniment
PITCHED = 0.7
PITCH_HZ = (65.0, 1000.0)
# A pitch glides where it moves so far from frame to frame, twice the same way.
GLIDE_CENTS = (10.0, 80.0)
GLIDE_BELOW_DB = 25.0  # the loudest
# Nobody is thought to sing where it does so for less than this in the best eight seconds.
GLIDING_SHARE = 0.075
_PITCH_WINDOW = 1024


@dataclass(frozen=True)
class Activity:
    """Of each frame of FRAME_SECONDS: `sung`, and `pitch_hz`, 0 where none is found in the vocal stem.

    heard: words, a melody (that may be sung), or nobody; seconds: how long; pitched_seconds: how long anything has a
    pitch.
    """

    sung: Flags
    pitch_hz: Float32
    heard: Literal["words", "melody", "nobody"]

    @property
    def seconds(self) -> float:
        return float(self.sung.sum() * FRAME_SECONDS)

    @property
    def pitched_seconds(self) -> float:
        return float((self.pitch_hz > 0).sum() * FRAME_SECONDS)


def find(vocals: Path, accompaniment: Path) -> Activity:
    """Where somebody sings in `vocals`. Both are WAVs of one length, of any rate and one or two channels."""
    return detect(mono(read(vocals)), mono(read(accompaniment)))


def heard(stereo: Float32) -> bool:
    """Whether somebody sings or speaks in all of this, float32 (n, 2) at 16 kHz: of an accompaniment, what stays in it.

    On either side, as ears have it: in their difference one would hear the room of a voice that is gone.
    Only a voice that stands out is heard so.
    """
    return any(_enough(_probabilities(side) > SURE) for side in np.ascontiguousarray(stereo.T))


def detect(voice: Float32, rest: Float32) -> Activity:
    """As `find`: both float32 (n,) at 16 kHz."""
    length = min(len(voice), len(rest))
    voice, rest = voice[:length], rest[:length]
    frames = -(-length // FRAME)
    pitched, pitch, level = _pitch(voice, frames)
    pitch[~pitched] = 0
    if _rms(voice) < _SILENT:
        return Activity(np.zeros(frames, bool), pitch, "nobody")
    heard: Literal["words", "melody"] = "words"
    sure = _probabilities(voice + np.float32(ACCOMPANIMENT_GAIN) * rest) > SURE
    sure &= level > level.max() - 50.0
    if _enough(sure):
        near = round(1.0 / FRAME_SECONDS)
        beside = np.convolve(sure, np.ones(2 * near + 1), mode="full")[near : near + frames]
        sure &= beside * FRAME_SECONDS > ALONE_SECONDS
    else:
        heard, sure = "melody", _gliding(pitch) & (level > level.max() - GLIDE_BELOW_DB)
        if not _enough(sure, GLIDING_SHARE * WINDOW_SECONDS, GLIDING_SHARE):
            return Activity(np.zeros(frames, bool), pitch, "nobody")
    apart = level - _levels(rest, frames)
    held = pitched & (level > np.median(level[sure]) - HELD_BELOW_DB)
    held &= apart > np.median(apart[sure]) - HELD_NEARER_DB
    sung = _grown(sure, held | sure, round(HELD_SECONDS / FRAME_SECONDS))
    sung = _closed(_widened(sung, round(MARGIN_SECONDS / FRAME_SECONDS)), round(GAP_SECONDS / FRAME_SECONDS))
    return Activity(sung, pitch, heard)


def gains(sung: Flags, start: int, count: int, sample_rate: int, fade_seconds: float = 0.03) -> Float32:
    """(count,) of 0 to 1 for the samples from `start`: 1 where somebody sings, with smooth edges outside of it."""
    fade = max(1, round(fade_seconds * sample_rate))
    at = np.arange(start - fade, start + count + fade)
    index = np.clip((at * (SAMPLE_RATE / FRAME) / sample_rate).astype(np.int64), 0, max(0, len(sung) - 1))
    flat = sung[index].astype(np.float64) if len(sung) else np.zeros(len(at))
    window = np.hanning(2 * fade + 1)
    sums = np.convolve(flat, window / window.sum(), mode="valid")
    return np.asarray(sums[:count], np.float32)


def read(path: Path) -> Float32:
    """A WAV of one or two channels as float32 (n, 2) at 16 kHz."""
    with sf.SoundFile(path) as file:
        resampler = soxr.ResampleStream(file.samplerate, SAMPLE_RATE, 2, dtype="float32", quality="HQ")
        parts: list[Float32] = []
        for block in file.blocks(65_536, dtype="float32", always_2d=True):
            parts.append(resampler.resample_chunk(np.stack([block[:, 0], block[:, -1]], axis=1)))
        parts.append(resampler.resample_chunk(np.zeros((0, 2), np.float32), last=True))
    return np.concatenate(parts)


def mono(stereo: Float32) -> Float32:
    """(n, 2) -> (n,): the middle of the stereo image, or the sides where more is there, as where one is inverted."""
    left, right = stereo[:, 0], stereo[:, 1]
    middle, side = (left + right) / np.float32(2), (left - right) / np.float32(2)
    return middle if middle @ middle >= side @ side else side


@functools.cache
def _session() -> Any:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # Half a second of loading, which only those who listen wait for.

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(_MODEL), options, providers=["CPUExecutionProvider"])


def _probabilities(samples: Float32) -> Float32:
    """(frames,): how likely each frame is speech to the detector."""
    frames = -(-len(samples) // FRAME)
    level = _rms(samples)
    if level < _SILENT:
        return np.zeros(frames, np.float32)
    padded = np.zeros(_CONTEXT + frames * FRAME, np.float32)
    padded[_CONTEXT : _CONTEXT + len(samples)] = samples * np.float32(_LEVEL / level)
    windows = np.lib.stride_tricks.sliding_window_view(padded, _CONTEXT + FRAME)[::FRAME]
    h = c = np.zeros((1, 1, 128), np.float32)
    found = []
    for start in range(0, frames, _RUN_FRAMES):
        block = np.ascontiguousarray(windows[start : start + _RUN_FRAMES])
        speech, h, c = _session().run(None, {"input": block, "h": h, "c": c})
        found.append(speech)
    return np.concatenate(found)


def _enough(sure: Flags, seconds: float = LEAST_SECONDS, share: float = LEAST_SHARE) -> bool:
    window = min(len(sure), round(WINDOW_SECONDS / FRAME_SECONDS))
    if not window:
        return False
    sums = np.concatenate([[0], np.cumsum(sure)])
    most = float((sums[window:] - sums[:-window]).max()) * FRAME_SECONDS
    return most >= min(seconds, share * window * FRAME_SECONDS)


def _gliding(pitch: Float32) -> Flags:
    """(frames,): where the pitch goes on to rise or to fall. pitch: in Hz, 0 where there is none."""
    cents = 1200 * np.log2(np.maximum(pitch, 1.0))
    step = np.diff(cents, prepend=cents[:1])
    there = (pitch > 0) & (np.roll(pitch, 1) > 0)
    moved = there & (np.abs(step) > GLIDE_CENTS[0]) & (np.abs(step) < GLIDE_CENTS[1])
    gliding = np.zeros(len(pitch), bool)
    gliding[2:] = (moved[1:] & moved[:-1] & (np.sign(step[1:]) == np.sign(step[:-1])))[1:]
    return gliding


def _rms(samples: Float32) -> float:
    return math.sqrt(float(np.vdot(samples, samples)) / len(samples)) if len(samples) else 0.0


def _levels(samples: Float32, frames: int) -> NDArray[np.float64]:
    """(frames,) in dB."""
    padded = np.pad(samples, (0, frames * FRAME - len(samples))).reshape(frames, FRAME)
    return np.asarray(10 * np.log10(np.einsum("ij,ij->i", padded, padded) / FRAME + 1e-12), np.float64)


def _pitch(samples: Float32, frames: int) -> tuple[Flags, Float32, NDArray[np.float64]]:
    """Whether each frame has a pitch, that pitch in Hz, and the frame's level in dB: by autocorrelation."""
    window = np.hanning(_PITCH_WINDOW).astype(np.float32)
    size = 2 * _PITCH_WINDOW
    own = np.fft.irfft(np.abs(np.fft.rfft(window, size)) ** 2)
    lags = slice(int(SAMPLE_RATE / PITCH_HZ[1]), int(SAMPLE_RATE / PITCH_HZ[0]) + 1)
    hz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    padded = np.pad(samples, ((_PITCH_WINDOW - FRAME) // 2, _PITCH_WINDOW + FRAME))
    views = np.lib.stride_tricks.sliding_window_view(padded, _PITCH_WINDOW)[::FRAME][:frames]
    strength, pitch = np.zeros(frames), np.zeros(frames, np.float32)
    for start in range(0, frames, _RUN_FRAMES):
        power = np.abs(np.fft.rfft(views[start : start + _RUN_FRAMES] * window, size, axis=1)) ** 2
        # Of a constant offset next to nothing is left in the band, and that has a pitch of its own.
        least = np.maximum(1e-3 * power.sum(axis=1, keepdims=True), _SILENT**2 * size * (window @ window))
        power[:, (hz < PITCH_HZ[0]) | (hz > 4000)] = 0
        power *= power.sum(axis=1, keepdims=True) > least
        correlation = np.fft.irfft(power, axis=1)
        normal = correlation[:, lags] / np.maximum(correlation[:, :1], 1e-9) / (own[lags] / own[0])
        best = normal.max(axis=1, keepdims=True)
        # The shortest of the lags that are nearly as good: a multiple of the period is as good as the period.
        first = np.argmax(normal >= 0.93 * best, axis=1)
        near = np.clip(first[:, None] + np.arange(-2, 6), 1, normal.shape[1] - 2)
        row = np.arange(len(near))
        peak = near[row, np.take_along_axis(normal, near, axis=1).argmax(axis=1)]
        # Between the lags, by a parabola through three: a whole one is half a semitone of a high voice.
        before, at, after = (normal[row, peak + side] for side in (-1, 0, 1))
        between = np.clip(0.5 * (before - after) / np.minimum(before - 2 * at + after, -1e-9), -0.5, 0.5)
        strength[start : start + len(power)] = best[:, 0]
        pitch[start : start + len(power)] = SAMPLE_RATE / (peak + lags.start + between)
    return strength > PITCHED, pitch, _levels(samples, frames)


def _grown(seeds: Flags, allowed: Flags, most: int) -> Flags:
    """`seeds`, and what of `allowed` hangs together with one of them and is at most `most` frames away from it."""
    out = seeds.copy()
    for order in (slice(None), slice(None, None, -1)):
        left = 0
        for index in np.arange(len(seeds))[order]:
            left = most if seeds[index] else max(0, left - 1) if allowed[index] else 0
            if left:
                out[index] = True
    return out


def _widened(flags: Flags, frames: int) -> Flags:
    return np.convolve(flags, np.ones(2 * frames + 1), mode="full")[frames : frames + len(flags)] > 0.5


def _closed(flags: Flags, frames: int) -> Flags:
    """Without the gaps of at most `frames` between what is set."""
    out = flags.copy()
    at = np.flatnonzero(flags)
    for before, after in itertools.pairwise(at):
        if after - before - 1 <= frames:
            out[before:after] = True
    return out
