"""Where the lead stands between the two channels.

A first guess at the voice that knows nothing of places (what does not repeat, and lies on the partials of one melody)
weighs every bin of a coarse spectrogram. The lead stands where this guess has much and the rest has little. Delays
between the sides are the peaks of the generalised cross-correlation (C. H. Knapp, G. C. Carter, IEEE TASSP 24(4), 1976)
with the phase transform.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.audio import RATE
from common.separation import spectra
from common.separation.spectra import BIN_HZ, EPSILON, FFT, Complex64, Float32

HOP = 2048
BINS = 512  # up to 5.5 kHz
LOWEST_HZ = 150.0
MAX_DELAY = round(0.032 * RATE)
MIN_DELAY = 100  # samples; a peak nearer to another one is its slope
MIN_COHERENCE = 0.1  # of a peak of the cross-correlation, 1 where all of the song has this delay
SHARPNESS = 8
REST_WEIGHT = 0.5
SURE = 0.4  # a mask of the first guess above it: mostly voice
ANGLES = np.radians(np.arange(-180, 180, 5))
FAR = 7  # steps of ANGLES between two singers' places
SECOND_SHARE, SECOND_LEAST = 0.58, 0.17
SNAP, SNAP_WITHIN = np.pi / 2, np.radians(7)  # within 1 dB of the middle or of a side is there
SPREAD_BELOW = 0.27  # no peak above it: the voice is at no one place
NEIGHBOURS = (1.0, 0.7, 0.45, 0.3, 0.2)
FAR_AWAY = 0.1


@dataclass(frozen=True)
class Place:
    """`angle` in radians: pi/2 the middle, 0 the left alone, pi the right alone, -pi/2 the middle with a side inverted;
    a voice v is cos(angle / 2) v in the left and sin(angle / 2) v in the right, which is `delay` samples late.

    `second`: the angle of another singer. `clarity`: 0 (nowhere in particular) to about 0.6.
    """

    angle: float = np.pi / 2
    delay: int = 0
    second: float | None = None
    clarity: float = 0.5

    @property
    def spread(self) -> bool:
        return self.second is None and self.clarity < SPREAD_BELOW

    @property
    def pan_db(self) -> float:
        """How much louder it is at the left: -40 to 40."""
        left, right = abs(np.cos(self.angle / 2)), abs(np.sin(self.angle / 2))
        return float(20 * np.log10(max(left, 0.01) / max(right, 0.01)))

    @property
    def inverted(self) -> bool:
        return bool(np.sin(self.angle) < -0.3)

    def as_dict(self) -> dict[str, Any]:
        second = {} if self.second is None else {"second_pan_db": round(Place(self.second).pan_db, 1)}
        return {
            "pan_db": round(self.pan_db, 1),
            "inverted": self.inverted,
            "delay_ms": round(1000 * self.delay / RATE, 1),
            "spread": self.spread,
            "clarity": round(self.clarity, 2),
            **second,
        }


@dataclass(frozen=True)
class Evidence:
    """Of a stretch of song, by delay: how much more of the guessed voice than of the rest is at each of ANGLES.
    `weight`: how much voice there is. `sure`: bool (frames, BINS), the bins that are the voice's by the first guess.
    """

    found: dict[int, NDArray[np.float64]]
    weight: float
    sure: NDArray[np.bool_]

    def left_behind(self, voice: Sequence[Complex64], mix: Sequence[Complex64]) -> NDArray[np.float64]:
        """(amplitude of the lead that is missing in `voice`, amplitude of the lead), in any one unit: by the bins that
        are surely its own. Both are (frames, bins) of each side, every second frame of `spectra.stft` from the same
        sample on."""
        missing = all_of_it = 0.0
        frames = len(self.sure)
        for got, whole in zip(voice, mix, strict=True):
            whole, got = whole[:frames, :BINS][self.sure], got[:frames, :BINS][self.sure]
            all_of_it += float(np.vdot(whole, whole).real)
            missing += float(np.vdot(whole, whole - got).real)
        return np.array([missing, all_of_it])


def listen(mix: Float32, threads: int) -> Evidence:
    """Of a stretch of song (n, 2)."""
    left, right = (_coarse(mix[:, side], threads) for side in (0, 1))
    magnitude: Float32 = ((np.abs(left) + np.abs(right)) / 2).astype(np.float32)
    repeated: Float32 = spectra.repeating_magnitude(magnitude, HOP) / (magnitude + np.float32(EPSILON))
    mask: Float32 = (BIN_HZ[:BINS] > LOWEST_HZ).astype(np.float32)
    mask = mask * (1 - repeated**1.5)
    mask = spectra.comb_mask(mask, magnitude)
    amplitude = np.sqrt(np.abs(left) ** 2 + np.abs(right) ** 2) * (BIN_HZ[:BINS] > LOWEST_HZ)
    voice, rest = (amplitude * mask**2).ravel(), (amplitude * (1 - mask)).ravel()
    weight = float(voice.sum())
    contrast = (voice / (weight + EPSILON) - REST_WEIGHT * rest / (rest.sum() + EPSILON)).astype(np.float32)
    found = {}
    for delay in delays(left, right):
        if delay:
            right = _coarse(shifted(mix[:, 1], -delay), threads)
        found[delay] = _by_angle(left, right, contrast)
    return Evidence(found, weight, mask > SURE)


def places(evidence: Sequence[Evidence]) -> list[Place]:
    """The lead's place in each stretch, from its own evidence and, less and less, from that of all others."""
    near = np.array([*NEIGHBOURS, *[FAR_AWAY] * len(evidence)])
    out = []
    for here in range(len(evidence)):
        total: dict[int, NDArray[np.float64]] = {}
        weights = 0.0
        for there, one in enumerate(evidence):
            weight = near[abs(here - there)] * one.weight + EPSILON
            weights += weight
            for delay, curve in one.found.items():
                known = next((d for d in total if abs(d - delay) <= 4), delay)
                total[known] = total.get(known, 0) + weight * curve
        out.append(_best({delay: curve / weights for delay, curve in total.items()}))
    return out


def delays(left: Complex64, right: Complex64) -> list[int]:
    """0, and by how many samples the right side may be late (negative: early), the likeliest first."""
    size = np.sqrt(np.abs(left) * np.abs(right))
    size = np.minimum(size / (4 * np.median(size, axis=0) + EPSILON), 1)
    cross = left * right.conj()
    phases = np.zeros(FFT // 2 + 1, np.complex128)
    phases[:BINS] = (cross / (np.abs(cross) + EPSILON) * size).sum(axis=0) / (size.sum(axis=0) + EPSILON)
    phases[BIN_HZ < 110] = 0
    correlation = np.fft.irfft(phases)
    lags = np.arange(-MAX_DELAY, MAX_DELAY + 1)
    height = np.abs(correlation[-lags]) * FFT / (2 * np.count_nonzero(phases) + EPSILON)
    found = [0]
    for _ in range(3):
        top = int(height.argmax())
        if height[top] < MIN_COHERENCE:
            break
        if all(abs(lags[top] - other) >= MIN_DELAY for other in found):
            found.append(int(lags[top]))
        height[max(0, top - MIN_DELAY) : top + MIN_DELAY + 1] = 0
    return found


def shifted(samples: Float32, late: int) -> Float32:
    """`late` samples later, and as long."""
    out = np.zeros_like(samples)
    if late >= 0:
        out[late:] = samples[: len(samples) - late]
    else:
        out[:late] = samples[-late:]
    return out


def _coarse(samples: Float32, threads: int) -> Complex64:
    return np.ascontiguousarray(spectra.stft(samples, threads, HOP)[:, :BINS])


def _by_angle(left: Complex64, right: Complex64, contrast: Float32) -> NDArray[np.float64]:
    own_left, own_right = np.abs(left) ** 2, np.abs(right) ** 2
    power = own_left + own_right + EPSILON
    east = ((own_left - own_right) / power).ravel()
    north = (2 * (left * right.conj()).real / power).ravel()
    # Bins of the same direction and coherence are counted together: 72 angles of all bins would take 20 times as long.
    coherence = np.hypot(east, north)
    direction = np.arctan2(north, east)
    fine = 360
    index = ((direction + np.pi) * (fine / (2 * np.pi))).astype(int) % fine
    counted = np.bincount(index, contrast * coherence**SHARPNESS, fine)
    centres = (np.arange(fine) + 0.5) * 2 * np.pi / fine - np.pi
    kernel = np.clip(np.cos(ANGLES[:, None] - centres), 0, 1) ** SHARPNESS
    curve: NDArray[np.float64] = kernel @ counted
    return curve


def _best(curves: dict[int, NDArray[np.float64]]) -> Place:
    delay = max(curves, key=lambda d: float(curves[d].max()))
    curve = curves[delay]
    top = int(curve.argmax())
    before, here, after = curve[top - 1], curve[top], curve[(top + 1) % len(curve)]
    bend = before - 2 * here + after
    step = ANGLES[1] - ANGLES[0]
    angle = ANGLES[top] + (step * 0.5 * (before - after) / bend if bend < 0 else 0.0)
    apart = np.abs((np.arange(len(curve)) - top + len(curve) // 2) % len(curve) - len(curve) // 2)
    peak = (curve >= np.roll(curve, 1)) & (curve >= np.roll(curve, -1)) & (apart >= FAR)
    other = int(np.where(peak, curve, -1).argmax())
    second = peak[other] and curve[other] > max(SECOND_SHARE * here, SECOND_LEAST)
    exact = SNAP * round(float(angle) / SNAP)
    return Place(
        exact if abs(angle - exact) < SNAP_WITHIN else float(angle),
        delay,
        float(ANGLES[other]) if second else None,
        max(0.0, float(here)),
    )
