"""Masks by place, and the two-channel Wiener filter."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from common.separation.spectra import EPSILON, Complex64, Float32

PLACE_EXPONENT = 4


@dataclass(frozen=True)
class Covariance:
    """A 2 x 2 spatial covariance whose trace is 2: numbers, or arrays (frames, bins) where it is not everywhere one."""

    left: Float32 | float
    right: Float32 | float
    cross: Complex64 | Float32 | float

    @classmethod
    def towards(cls, angle: float) -> Covariance:
        """Of what stands at one place (see `place.Place`)."""
        return cls(1 + math.cos(angle), 1 - math.cos(angle), math.sin(angle))

    def mixed(self, other: Covariance, share: Float32) -> Covariance:
        """`share` of it, and the rest of `other`."""
        return Covariance(*(share * a + (1 - share) * b for a, b in zip(self._parts, other._parts, strict=True)))

    @property
    def _parts(self) -> tuple[Float32 | float, Float32 | float, Complex64 | Float32 | float]:
        return self.left, self.right, self.cross


def place_mask(left: Complex64, right: Complex64, angle: float) -> Float32:
    """How much of each bin comes from one place (C. Avendano, WASPAA 2003): 1 there, 0 where it is half or less."""
    own_left, own_right = _power(left), _power(right)
    near = (own_left - own_right) * np.float32(np.cos(angle))
    near += 2 * (left.real * right.real + left.imag * right.imag) * np.float32(np.sin(angle))
    near /= own_left + own_right + EPSILON
    mask: Float32 = np.clip(near, 0, 1) ** PLACE_EXPONENT
    return mask


def wiener(
    left: Complex64, right: Complex64, mask: Float32, band: Float32, voice: Covariance
) -> tuple[Complex64, Complex64]:
    """The voice by a two-channel Wiener filter (N. Q. K. Duong, E. Vincent, R. Gribonval, IEEE TASLP 18(7), 2010).

    A first guess is given by `mask`: (frames, bins) each for left and right. Where the accompaniment stands is
    measured, bin by bin, over time.
    """
    voice_power = mask**2 * (_power(left) + _power(right)) / 2 + EPSILON
    rest_left, rest_right = left * (1 - mask), right * (1 - mask)
    rest_power = (_power(rest_left) + _power(rest_right)) / 2 + EPSILON
    cross = (rest_left * rest_right.conj()).sum(axis=0)
    own_left, own_right = _power(rest_left).sum(axis=0), _power(rest_right).sum(axis=0)
    del rest_left, rest_right
    scale = (own_left + own_right) / 2 + EPSILON
    blur = np.float32(0.02)  # keeps both covariance matrices invertible
    own_left, own_right, cross = own_left / scale + blur, own_right / scale + blur, cross / scale
    voice_left, voice_right = voice.left + blur, voice.right + blur
    a = voice_power * voice_left + rest_power * own_left
    d = voice_power * voice_right + rest_power * own_right
    b = voice_power * voice.cross + rest_power * cross
    determinant = a * d - _power(b)
    inverse_left = (d * left - b * right) / determinant
    inverse_right = (a * right - b.conj() * left) / determinant
    gain = voice_power * band
    return (
        gain * (voice_left * inverse_left + voice.cross * inverse_right),
        gain * (voice.cross * inverse_left + voice_right * inverse_right),
    )


def _power(spectrum: Complex64) -> Float32:
    return spectrum.real**2 + spectrum.imag**2
