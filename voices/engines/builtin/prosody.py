"""The prosody that is drawn anew for each sentence, and tempo."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from . import world
from .world import Float32, Float64

# Standard deviations at temperature 1.
MELODY_SEMITONES = 0.7
MELODY_SMOOTH_FRAMES = 30
REGISTER_SEMITONES = 0.3
TEMPO = 0.02


def vary_melody(f0: Float64, rng: np.random.Generator, temperature: float) -> Float64:
    """F0 with a slow random movement and a random register, both in proportion to the temperature."""
    noise = rng.standard_normal(len(f0) + 1)
    movement = gaussian_filter1d(noise[1:], MELODY_SMOOTH_FRAMES, mode="reflect")
    movement *= np.sqrt(2 * np.sqrt(np.pi) * MELODY_SMOOTH_FRAMES)  # back to unit deviation
    semitones = temperature * (MELODY_SEMITONES * movement + REGISTER_SEMITONES * noise[0])
    moved = f0 * 2 ** (np.clip(semitones, -2.5, 2.5) / 12)
    return np.where(f0 > 0, np.clip(moved, world.F0_FLOOR_HZ, world.F0_CEILING_HZ), 0.0)


def stretch(
    f0: Float64, log_spectrum: Float32, aperiodicity: Float32, speed: float
) -> tuple[Float64, Float32, Float32]:
    """WORLD's frames resampled in time to 1/speed of their number; pitch stays as it is."""
    if abs(speed - 1) < 1e-3:
        return f0, log_spectrum, aperiodicity
    count = max(2, round(len(f0) / speed))
    position = np.linspace(0, len(f0) - 1, count)
    low = np.minimum(position.astype(np.intp), len(f0) - 2)
    share = (position - low)[:, None].astype(np.float32)
    near = np.rint(position).astype(np.intp)
    both = (f0[low] > 0) & (f0[low + 1] > 0)
    mixed = f0[low] + share[:, 0] * (f0[low + 1] - f0[low])
    return (
        np.where(both, mixed, f0[near]),
        log_spectrum[low] + share * (log_spectrum[low + 1] - log_spectrum[low]),
        aperiodicity[low] + share * (aperiodicity[low + 1] - aperiodicity[low]),
    )
