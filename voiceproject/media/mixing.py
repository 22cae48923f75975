"""Loudness after ITU-R BS.1770-4 and the mix of a cover, in blocks: memory does not grow with the song."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from voiceproject.errors import EngineError

Samples = NDArray[np.float32]

SAMPLE_RATE = 44_100
BLOCK_FRAMES = 65_536
TARGET_LUFS = -14.0
# The ceiling is -1 dBTP; the rest is what another oversampling filter, or 16 bits, may read differently.
CEILING_DBTP = -1.05
# What a nearly empty stem may be raised by before only its noise would be heard.
MAX_RAISE_DB = 20.0
_SILENCE_LUFS = -70.0


@dataclass(frozen=True)
class MixInfo:
    """What was mixed. Gains in dB as applied; loudness in LUFS and true peak in dBTP of the result."""

    frames: int
    vocal_gain_db: float
    master_gain_db: float
    loudness_lufs: float
    true_peak_dbtp: float


class LoudnessMeter:
    """Gated integrated loudness of a stream, ITU-R BS.1770-4: K-weighting, 400 ms blocks at 75 % overlap,
    gates at -70 LUFS and 10 LU below the mean. Every channel counts once (mono, stereo).

    Below 400 ms there is no block to gate: the level of what there is, ungated, is told instead.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._sos = k_weighting(sample_rate)
        self._state = np.zeros((len(self._sos), 2, channels))
        self._hop = sample_rate // 10
        self._rest = np.zeros((0, channels))
        self._hops: list[NDArray[np.float64]] = []

    def add(self, block: Samples) -> None:
        """block: (n, channels)."""
        from scipy import signal  # A second of loading, which only those who mix wait for.

        weighted, self._state = signal.sosfilt(self._sos, block.astype(np.float64), axis=0, zi=self._state)
        weighted = np.concatenate([self._rest, weighted])
        whole = len(weighted) // self._hop * self._hop
        pieces = weighted[:whole].reshape(-1, self._hop, weighted.shape[1])
        self._hops.append(np.mean(np.square(pieces), axis=1).sum(axis=1))
        self._rest = weighted[whole:]

    def lufs(self) -> float:
        """Integrated loudness so far; -inf for silence."""
        hops = np.concatenate(self._hops) if self._hops else np.zeros(0)
        if len(hops) < 4:
            energy = hops.sum() * self._hop + np.square(self._rest).sum()
            frames = len(hops) * self._hop + len(self._rest)
            level = _to_lufs(energy / frames) if frames else -math.inf
            return level if level >= _SILENCE_LUFS else -math.inf
        blocks = np.convolve(hops, np.full(4, 0.25), mode="valid")
        blocks = blocks[blocks > 10 ** ((_SILENCE_LUFS + 0.691) / 10)]
        if not len(blocks):
            return -math.inf
        blocks = blocks[blocks > 0.1 * blocks.mean()]
        return _to_lufs(float(blocks.mean()))


def k_weighting(sample_rate: int) -> NDArray[np.float64]:
    """The two filters of BS.1770 at any rate, as second-order sections (2, 6).

    The standard lists 48 kHz only; the analogue prototypes behind that table, and so these numbers, are from
    B. De Man, "Evaluation of Implementations of the EBU R128 Loudness Measurement", AES 145 (2018).
    """
    k, q = math.tan(math.pi * 1681.974450955533 / sample_rate), 0.7071752369554196
    high = 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    norm = 1 + k / q + k * k
    shelf = [
        (high + band * k / q + k * k) / norm,
        2 * (k * k - high) / norm,
        (high - band * k / q + k * k) / norm,
        1.0,
        2 * (k * k - 1) / norm,
        (1 - k / q + k * k) / norm,
    ]
    k, q = math.tan(math.pi * 38.13547087602444 / sample_rate), 0.5003270373238773
    norm = 1 + k / q + k * k
    high_pass = [1.0, -2.0, 1.0, 1.0, 2 * (k * k - 1) / norm, (1 - k / q + k * k) / norm]
    return np.array([shelf, high_pass])


def loudness(blocks: Iterable[Samples], sample_rate: int) -> float:
    """Integrated LUFS of blocks (n, channels); -inf for silence."""
    meter: LoudnessMeter | None = None
    for block in blocks:
        meter = meter or LoudnessMeter(sample_rate, block.shape[1])
        meter.add(block)
    return meter.lufs() if meter else -math.inf


def mix(
    vocal_wav: str | os.PathLike[str],
    original_vocal_wav: str | os.PathLike[str],
    instrumental_wav: str | os.PathLike[str] | None,
    out_wav: str | os.PathLike[str],
    *,
    vocal_gain_db: float = 0.0,
    instrumental_gain_db: float = 0.0,
    frames: int,
) -> MixInfo:
    """Put a converted vocal in the place of the separated one, and write stereo 16-bit WAV at 44.1 kHz.

    The vocal is brought to the loudness (LUFS) of `original_vocal_wav`, raised by at most 20 dB, then by
    `vocal_gain_db`; where either of the two is silent there is nothing to match. The sum is aimed at -14 LUFS
    by one gain for the whole song, held back so that its true peak (4x oversampled) stays under -1 dBTP;
    there is no limiter, so peaky songs stay below -14. Without an instrumental the vocal stands alone at its own
    level, held back only where it would clip. Inputs may be mono or stereo at any rate; the result
    has exactly `frames` frames, inputs are cut or continued with silence.

    Raises EngineError where an input is no audio or holds NaN or infinity.
    """
    wanted = loudness(_stereo(original_vocal_wav, frames), SAMPLE_RATE)
    heard = loudness(_stereo(vocal_wav, frames), SAMPLE_RATE)
    if math.isfinite(wanted) and math.isfinite(heard):
        vocal_gain_db += min(wanted - heard, MAX_RAISE_DB)
    gains = 10 ** (vocal_gain_db / 20), 10 ** (instrumental_gain_db / 20)

    def summed() -> Iterator[Samples]:
        if instrumental_wav is None:
            yield from (vocal * np.float32(gains[0]) for vocal in _stereo(vocal_wav, frames))
            return
        both = zip(_stereo(vocal_wav, frames), _stereo(instrumental_wav, frames), strict=True)
        for vocal, instrumental in both:
            yield vocal * np.float32(gains[0]) + instrumental * np.float32(gains[1])

    return _write(summed, out_wav, frames, vocal_gain_db, aim=instrumental_wav is not None)


def _write(
    summed: Callable[[], Iterator[Samples]],
    out_wav: str | os.PathLike[str],
    frames: int,
    vocal_gain_db: float,
    aim: bool,
) -> MixInfo:
    """`summed` twice: its level, then its samples times one gain. aim: at TARGET_LUFS."""
    meter = LoudnessMeter(SAMPLE_RATE, 2)
    oversampler = soxr.ResampleStream(SAMPLE_RATE, 4 * SAMPLE_RATE, 2, dtype="float32", quality="HQ")
    peak = 0.0
    for block in summed():
        meter.add(block)
        peak = max(peak, _peak(block), _peak(oversampler.resample_chunk(block)))
    peak = max(peak, _peak(oversampler.resample_chunk(np.zeros((0, 2), np.float32), last=True)))

    level, peak_db = meter.lufs(), 20 * math.log10(peak) if peak else -math.inf
    master = 0.0 if peak == 0 else CEILING_DBTP - peak_db
    if not aim:
        master = min(master, 0.0)
    elif math.isfinite(level):
        master = min(master, TARGET_LUFS - level)
    gain = np.float32(10 ** (master / 20))
    with sf.SoundFile(out_wav, "w", SAMPLE_RATE, 2, "PCM_16", format="WAV") as out:
        for block in summed():
            out.write(block * gain)
    return MixInfo(frames, vocal_gain_db, master, level + master, peak_db + master)


def mix_as_they_are(wavs: Sequence[str | os.PathLike[str]], out_wav: str | os.PathLike[str], *, frames: int) -> MixInfo:
    """The sum of `wavs`, as `mix` writes it, each at its own level; all are held back where it would clip.

    Raises EngineError as `mix` does.
    """

    def summed() -> Iterator[Samples]:
        for blocks in zip(*(_stereo(wav, frames) for wav in wavs), strict=True):
            yield np.sum(blocks, axis=0, dtype=np.float32)

    return _write(summed, out_wav, frames, 0.0, aim=False)


def _stereo(path: str | os.PathLike[str], frames: int) -> Iterator[Samples]:
    """A file as exactly `frames` frames of stereo float32 at 44.1 kHz, in blocks of BLOCK_FRAMES and a last
    shorter one."""
    pending: list[Samples] = []
    held = given = 0
    for part in _resampled(path):
        part = part[: frames - given - held]
        pending.append(part)
        held += len(part)
        if held >= BLOCK_FRAMES:
            joined = np.concatenate(pending)
            whole = held // BLOCK_FRAMES * BLOCK_FRAMES
            for start in range(0, whole, BLOCK_FRAMES):
                yield joined[start : start + BLOCK_FRAMES]
            given, pending, held = given + whole, [joined[whole:]], held - whole
    silence = np.zeros((BLOCK_FRAMES, 2), np.float32)
    while given < frames:
        size = min(BLOCK_FRAMES, frames - given)
        yield np.concatenate([*pending, silence[: size - held]])
        given, pending, held = given + size, [], 0


def _resampled(path: str | os.PathLike[str]) -> Iterator[Samples]:
    try:
        with sf.SoundFile(path) as file:
            resampler = None
            if file.samplerate != SAMPLE_RATE:
                resampler = soxr.ResampleStream(file.samplerate, SAMPLE_RATE, 2, dtype="float32", quality="HQ")
            for block in file.blocks(BLOCK_FRAMES, dtype="float32", always_2d=True):
                if not np.isfinite(block).all():
                    raise EngineError("A stem of this song holds samples that are not numbers.")
                stereo = np.repeat(block, 2, axis=1) if file.channels == 1 else np.ascontiguousarray(block[:, :2])
                yield resampler.resample_chunk(stereo) if resampler else stereo
            if resampler:
                yield resampler.resample_chunk(np.zeros((0, 2), np.float32), last=True)
    except sf.LibsndfileError as error:
        raise EngineError("A stem of this song cannot be read.") from error


def _peak(block: Samples) -> float:
    return float(np.max(np.abs(block), initial=0.0))


def _to_lufs(energy: float) -> float:
    return 10 * math.log10(energy) - 0.691 if energy > 0 else -math.inf
