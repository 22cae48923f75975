"""WORLD analysis and synthesis, and the mel cepstrum that voice conversion works on.

Everything here is at 24 kHz with a frame every 5 ms and a 1024-point FFT (513 bins), one channel.
M. Morise, F. Yokomori and K. Ozawa, "WORLD: a vocoder-based high-quality speech synthesis system for real-time
applications", IEICE Trans. Inf. & Syst. E99-D(7), 2016.

WORLD holds matrices of 513 columns a frame (about .8 MB a second of audio each, in double precision): callers work a
sentence, or 30 s, at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyworld
import scipy.fft
import scipy.linalg
import scipy.signal
import soxr
from numpy.typing import ArrayLike, NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

SAMPLE_RATE = 24000
FRAME_SECONDS = 0.005
FFT_SIZE = 1024
BINS = FFT_SIZE // 2 + 1
MEL_BANDS = 80
CEPSTRUM_SIZE = 40
F0_FLOOR_HZ = 60.0
F0_CEILING_HZ = 800.0
HARMONICS_HZ = (90.0, 1200.0)
OCTAVE_UP = 1.7
ACTIVE_RANGE_DB = 40.0
LOG_FLOOR = 1e-14  # power under which a spectrum counts as silence: keeps the logarithm finite

FORMANT_RANGE_HZ = 5000.0
LPC_ORDER = 10


@dataclass(frozen=True)
class Analysis:
    """One stretch of voice, taken apart.

    f0: float64 (frames,), Hz, 0 where unvoiced; log_spectrum: float32 (frames, 513), natural log of power;
    cepstrum: float32 (frames, 40); active: bool (frames,), not a pause; sample_count: length of the audio at 24 kHz;
    level: its root mean square.
    """

    f0: Float64
    log_spectrum: Float32
    cepstrum: Float32
    active: NDArray[np.bool_]
    sample_count: int
    level: float

    @property
    def voiced(self) -> NDArray[np.bool_]:
        return self.f0 > 0

    def __len__(self) -> int:
        return len(self.f0)


def resample(samples: ArrayLike, sample_rate: int, to_rate: int = SAMPLE_RATE) -> Float64:
    """Mono audio at `to_rate`, float64."""
    x = np.ascontiguousarray(samples, dtype=np.float64)
    return x if sample_rate == to_rate else np.ascontiguousarray(soxr.resample(x, sample_rate, to_rate))


def track_f0(samples: Float64) -> tuple[Float64, Float64]:
    """F0 of speech in Hz (0 where unvoiced) and frame times in seconds, by DIO with StoneMask.

    DIO looks for the fundamental itself. Where recordings have none left (microphones, telephones and models that were
    trained on such cut it off), it takes the second harmonic for it, or finds nothing: then it is brought back first.
    """
    rough, times = _dio(samples)
    restored, _ = _dio(_with_fundamental(samples))
    both = (rough > 0) & (restored > 0)
    octave_up = rough[both] > OCTAVE_UP * restored[both]
    if both.sum() < 0.5 * (restored > 0).sum() or octave_up.sum() > 0.5 * both.sum():
        rough = restored
    return pyworld.stonemask(samples, rough, times, SAMPLE_RATE), times


def _dio(samples: Float64) -> tuple[Float64, Float64]:
    return pyworld.dio(
        samples, SAMPLE_RATE, f0_floor=F0_FLOOR_HZ, f0_ceil=F0_CEILING_HZ, frame_period=FRAME_SECONDS * 1000
    )


def _with_fundamental(samples: Float64) -> Float64:
    """The half wave of the lower harmonics, on the side where their peaks are: it repeats at F0 whatever is missing."""
    padding = min(len(samples) - 1, SAMPLE_RATE // 20)
    harmonics = scipy.signal.sosfiltfilt(_harmonics_band(), samples, padlen=padding)
    return np.maximum(harmonics * (1 if np.sum(harmonics**3) > 0 else -1), 0)


@lru_cache(maxsize=1)
def _harmonics_band() -> Float64:
    sections: Float64 = scipy.signal.butter(2, HARMONICS_HZ, "bandpass", fs=SAMPLE_RATE, output="sos")
    return sections


def analyze(samples: ArrayLike, sample_rate: int = SAMPLE_RATE) -> Analysis:
    """Mono audio (any rate, -1..1) taken apart by WORLD at 24 kHz. At least 30 ms of audio is needed (ValueError)."""
    x = resample(samples, sample_rate)
    if len(x) < 0.03 * SAMPLE_RATE:
        raise ValueError("WORLD needs at least 30 ms of audio")
    f0, times = track_f0(x)
    spectrum = pyworld.cheaptrick(x, f0, times, SAMPLE_RATE, fft_size=FFT_SIZE)
    log_spectrum = np.log(np.maximum(spectrum, LOG_FLOOR)).astype(np.float32)
    del spectrum
    return Analysis(
        f0=f0,
        log_spectrum=log_spectrum,
        cepstrum=mel_cepstrum(log_spectrum),
        active=active_frames(log_spectrum),
        sample_count=len(x),
        level=float(np.sqrt(np.mean(x**2))),
    )


def aperiodicity(samples: Float64, f0: Float64) -> Float32:
    """How much of each frequency is noise, by D4C: float32 (frames, 513), 0..1, for `f0` of the same 24 kHz audio."""
    times = np.arange(len(f0)) * FRAME_SECONDS
    return pyworld.d4c(samples, f0, times, SAMPLE_RATE, fft_size=FFT_SIZE).astype(np.float32)


def synthesize(f0: Float64, log_spectrum: Float32, aperiodicity: Float32, sample_count: int) -> Float64:
    """WORLD's waveform from its three parts, shaped as the functions above have them: float64 (sample_count,)."""
    y = pyworld.synthesize(
        np.ascontiguousarray(f0, dtype=np.float64),
        np.exp(log_spectrum.astype(np.float64)),
        np.ascontiguousarray(aperiodicity, dtype=np.float64),
        SAMPLE_RATE,
        FRAME_SECONDS * 1000,
    )
    return np.pad(y, (0, max(0, sample_count - len(y))))[:sample_count]


def mel_cepstrum(log_spectrum: Float32) -> Float32:
    """(frames, 513) log power -> (frames, 40): 80 triangular mel bands of the log spectrum, orthonormal DCT-II."""
    bands = log_spectrum @ _mel_matrix()
    return scipy.fft.dct(bands, axis=1, norm="ortho")[:, :CEPSTRUM_SIZE].astype(np.float32)


def log_envelope(cepstrum: Float32) -> Float32:
    """(frames, 40) -> (frames, 513): the smooth log power (or difference of it) that the cepstrum stands for."""
    bands = scipy.fft.idct(cepstrum, n=MEL_BANDS, axis=1, norm="ortho")
    return (bands @ _band_to_bin_matrix()).astype(np.float32)


def active_frames(log_spectrum: Float32) -> NDArray[np.bool_]:
    """True for frames above the 95th percentile of energy less 40 dB, so for speech and not for pauses."""
    energy_db = 10 * np.log10(np.maximum(np.exp(log_spectrum).mean(axis=1), LOG_FLOOR))
    return energy_db > np.percentile(energy_db, 95) - ACTIVE_RANGE_DB


def upper_formants(analyses: Sequence[Analysis], max_frames: int = 400) -> float | None:
    """Geometric mean (Hz) of the third and fourth formants of voiced frames, which go by the speaker's vocal tract.

    Linear prediction of order 10 on the envelope below 5 kHz; medians over frames. None without enough clear frames.
    """
    top = round(FORMANT_RANGE_HZ / (SAMPLE_RATE / 2) * (BINS - 1))
    rows = np.concatenate([a.log_spectrum[a.active & a.voiced, : top + 1] for a in analyses])
    rows = rows[:: max(1, len(rows) // max_frames)]
    lift = 1 + 0.95**2 - 2 * 0.95 * np.cos(np.pi * np.arange(top + 1) / top)  # 6 dB an octave, as in speech analysis
    correlation = np.fft.irfft(np.exp(rows.astype(np.float64)) * lift, axis=1)[:, : LPC_ORDER + 1]
    found = []
    for r in correlation:
        r[0] *= 1 + 1e-9
        poles = np.roots(np.concatenate(([1.0], -scipy.linalg.solve_toeplitz(r[:-1], r[1:]))))
        poles = poles[poles.imag > 0]
        frequency = np.angle(poles) / np.pi * FORMANT_RANGE_HZ
        width = -np.log(np.abs(poles)) / np.pi * FORMANT_RANGE_HZ
        formants = np.sort(frequency[(frequency > 200) & (width < 500)])
        if len(formants) >= 4:
            found.append(formants[2:4])
    return float(np.sqrt(np.prod(np.median(found, axis=0)))) if len(found) >= 20 else None


def bandwidth(samples: Float64, threshold_db: float = -62.0) -> float:
    """The highest frequency (Hz) at which 24 kHz audio still has energy, against the strongest frequency.

    The power of each frequency is that of the loudest tenth of 85 ms windows at least: enough of them hold a hiss, and
    the clicks of a spliced telephone recording, which a mean would take for a wide band, are fewer.
    """
    size = min(2048, len(samples))
    frequency, _, windows = scipy.signal.spectrogram(samples, SAMPLE_RATE, nperseg=size, noverlap=size // 2)
    power = np.percentile(windows, 90, axis=1)
    level_db = 10 * np.log10(np.maximum(power, 1e-20) / max(float(power.max()), 1e-20))
    above = np.flatnonzero(level_db > threshold_db)
    return float(frequency[above[-1]]) if len(above) else SAMPLE_RATE / 2


def _mel(frequency: ArrayLike) -> Float64:
    return 2595 * np.log10(1 + np.asarray(frequency, dtype=np.float64) / 700)


@lru_cache(maxsize=1)
def _mel_centres() -> Float64:
    """Centre frequencies in mel of the 80 bands, with the two edges: (82,)."""
    return np.linspace(0, _mel(SAMPLE_RATE / 2), MEL_BANDS + 2)


@lru_cache(maxsize=1)
def _mel_matrix() -> Float32:
    """(513, 80): column b averages the bins under band b's triangle."""
    mel = _mel(np.linspace(0, SAMPLE_RATE / 2, BINS))
    edges = _mel_centres()
    width = edges[1] - edges[0]
    weights = np.maximum(0, 1 - np.abs(mel[:, None] - edges[None, 1:-1]) / width)
    # The lowest bands are narrower than a bin: interpolate there between the two bins around the centre.
    for band in np.flatnonzero((weights > 0).sum(axis=0) < 2):
        right = int(np.clip(np.searchsorted(mel, edges[band + 1]), 1, BINS - 1))
        share = (edges[band + 1] - mel[right - 1]) / (mel[right] - mel[right - 1])
        weights[:, band] = 0
        weights[right - 1, band], weights[right, band] = 1 - share, share
    return (weights / weights.sum(axis=0)).astype(np.float32)


@lru_cache(maxsize=1)
def _band_to_bin_matrix() -> Float32:
    """(80, 513): linear interpolation on the mel scale from band centres to bins, held at both ends."""
    mel = _mel(np.linspace(0, SAMPLE_RATE / 2, BINS))
    centres = _mel_centres()[1:-1]
    position = np.clip(np.interp(mel, centres, np.arange(MEL_BANDS)), 0, MEL_BANDS - 1)
    return np.maximum(0, 1 - np.abs(position[None, :] - np.arange(MEL_BANDS)[:, None])).astype(np.float32)
