"""What is heard in a song before it is sung again: where it is sung most, and how far it lies from a voice's home."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

FRAME_SECONDS = 0.1
FFT_SIZE = 4096
BAND_HZ = (150.0, 5000.0)
PITCH_HZ = (90.0, 700.0)
LISTEN_SECONDS = 45.0
MIN_VOICED_FRAMES = 40  # 0.2 s

# People sing higher than they speak, by about a third.
SUNG_ABOVE_SPOKEN_SEMITONES = 4.0
# Whole octaves keep the song's harmony, fifths rub against it here and there: they have to be worth it.
SHIFTS = {0: 0.0, 12: 0.0, -12: 0.0, 24: 0.0, -24: 0.0, 7: 2.0, -7: 2.0, 19: 2.0, -19: 2.0}


def most_vocal_start(path: Path, seconds: float) -> float:
    """Where the stretch of `seconds` begins in which most is sung, in seconds from the song's start.

    path: mono or stereo WAV. A voice is what has a pitch, changes, and stands in the middle of the stereo image; of a
    mono song, or a bare vocal, all stands there. A song that is not longer begins at 0.
    """
    scores = _vocal_scores(path)
    count = round(seconds / FRAME_SECONDS)
    if len(scores) <= count:
        return 0.0
    sums = np.concatenate([[0.0], np.cumsum(scores)])
    return float(np.argmax(sums[count:] - sums[:-count]) * FRAME_SECONDS)


def _vocal_scores(path: Path) -> Float64:
    """(frames,) of 0.1 s: how much a voice there seems to be."""
    with sf.SoundFile(path) as file:
        rate, hop = file.samplerate, round(FRAME_SECONDS * file.samplerate)
        window = np.hanning(FFT_SIZE).astype(np.float32)
        frequencies = np.fft.rfftfreq(FFT_SIZE, 1 / rate)
        band = (frequencies >= BAND_HZ[0]) & (frequencies <= BAND_HZ[1])
        lags = slice(int(rate / PITCH_HZ[1]), min(int(rate / PITCH_HZ[0]), FFT_SIZE // 2))
        pitched, energy = [], []
        for block in file.blocks(blocksize=max(hop, FFT_SIZE), overlap=max(hop, FFT_SIZE) - hop, dtype="float32",
                                 always_2d=True, fill_value=0):  # fmt: skip
            spectra = np.fft.rfft(block[:FFT_SIZE].T * window, FFT_SIZE)
            left, right = spectra[0], spectra[-1]
            total = np.abs(left) ** 2 + np.abs(right) ** 2 + 1e-9
            alike = np.clip(2 * (left * right.conj()).real / total, 0, 1)
            power = np.where(band, alike**4 * total, 0.0)
            correlation = np.fft.irfft(power)
            pitched.append(float(correlation[lags].max() / max(correlation[0], 1e-12)))
            energy.append(float(power.sum()))
    level = np.log10(np.asarray(energy) + 1e-9)
    loud = np.clip((level - level.max() + 3.0) / 3.0, 0, 1)  # 1 at the loudest, 0 at 30 dB below it
    return np.clip(np.asarray(pitched), 0, 1) ** 2 * loud


def home_shift(vocals: Path, reference: Path) -> int:
    """Semitones, whole octaves or fifths, by which the melody comes nearest to where the reference's voice is at home.

    0 where no pitch is found in either.
    """
    sung, spoken = _median_semitones(vocals, sung=True), _median_semitones(reference, sung=False)
    if sung is None or spoken is None:
        return 0
    distance = spoken + SUNG_ABOVE_SPOKEN_SEMITONES - sung
    return min(SHIFTS, key=lambda shift: (abs(distance - shift) + SHIFTS[shift], abs(shift)))


def _median_semitones(path: Path, sung: bool) -> float | None:
    """The median pitch, in semitones above 1 Hz, of up to 45 s around where it is loudest."""
    from voices.engines.builtin import melody, world  # A second of loading, which only those who listen wait for.

    samples, rate = sf.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    count = round(LISTEN_SECONDS * rate)
    if len(mono) > count:
        sums = np.concatenate([[0.0], np.cumsum(mono.astype(np.float64) ** 2)])
        start = int(np.argmax(sums[count:] - sums[:-count]))
        mono = mono[start : start + count]
    samples = world.resample(mono, rate)
    f0 = melody.track(samples) if sung else world.track_f0(samples)[0]
    voiced = f0[f0 > 0]
    return 12 * float(np.log2(np.median(voiced))) if len(voiced) >= MIN_VOICED_FRAMES else None
