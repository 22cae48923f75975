"""How good a recording of a voice is to clone from: measures of the audio, and what to do about what is poor.

Speech is told from pauses by energy, noise is what is left in every frequency at its quietest. No model, and 60 s take
a fraction of a second. Spectra are taken of some frames at a time, so that a minute at 48 kHz takes some 30 MB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from django.utils.translation import gettext as _
from numpy.typing import NDArray

from voiceproject.media.clipping import ClippingMeter

Samples = NDArray[np.float32]

FRAME_SECONDS, HOP_SECONDS = 0.032, 0.016
BRIDGED_SECONDS = 0.15  # shorter gaps belong to speech: the closure of a stop, a breath between words
SPEECH_BAND_HZ = (100.0, 4000.0)
SPEECH_RANGE_DB = 35.0  # below the loudest frames
ABOVE_FLOOR_DB = 8.0
DIGITAL_SILENCE = 1e-9  # mean square, -90 dBFS
QUIET_SHARE = 0.1
BANDWIDTH_RANGE_DB = 60.0
MAX_SNR_DB = 60.0
FRAMES_AT_A_TIME, BINS_AT_A_TIME = 128, 64

GOOD_SPEECH_SECONDS = 6.0
GOOD_SPEECH_RATIO = 0.5
GOOD_SNR_DB = 20.0
BAD_SNR_DB = 10.0
GOOD_CLIPPING_RATIO = 1e-4
GOOD_BANDWIDTH_HZ = 6500.0
TELEPHONE_BANDWIDTH_HZ = 4200.0


@dataclass(frozen=True)
class Quality:
    """Measures of one recording.

    duration_seconds; speech_ratio: share of the time in which somebody speaks; snr_db: speech over the noise under it,
    an estimate, at most 60; clipping_ratio: share of samples in peaks that were cut off; sample_rate in Hz;
    bandwidth_hz: the highest frequency with something in it; warnings: for people, what is poor and what helps.
    """

    duration_seconds: float
    speech_ratio: float
    snr_db: float
    clipping_ratio: float
    sample_rate: int
    bandwidth_hz: float
    warnings: list[str]

    @property
    def speech_seconds(self) -> float:
        return self.duration_seconds * self.speech_ratio

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "duration_seconds": round(self.duration_seconds, 3),
            "speech_ratio": round(self.speech_ratio, 3),
            "snr_db": round(self.snr_db, 1),
            "clipping_ratio": round(self.clipping_ratio, 6),
            "bandwidth_hz": round(self.bandwidth_hz),
        }


def measure(
    samples: Samples, sample_rate: int, *, own_rate: int | None = None, clipping: float | None = None
) -> Quality:
    """Of float32 mono (n,), at least half a second.

    own_rate: of the file, where that is higher than the samples' is; clipping: its clipping ratio, found there.
    """
    power, frequency = _power(samples, sample_rate)
    speech = _speech_frames(power, frequency)
    duration = len(samples) / sample_rate
    ratio = float(speech.mean())
    snr = _snr(power, frequency, speech)
    clipping = clipping_ratio(samples) if clipping is None else clipping
    bandwidth = _bandwidth(power, frequency, speech)
    warnings = advice(duration * ratio, ratio, snr, clipping, bandwidth)
    return Quality(duration, ratio, snr, clipping, own_rate or sample_rate, bandwidth, warnings)


def speech_range(samples: Samples, sample_rate: int, margin_seconds: float = 0.15) -> tuple[int, int]:
    """Where the first speech begins and the last ends, with a margin: (start, stop) in samples; all, without any."""
    speech = np.flatnonzero(_speech_frames(*_power(samples, sample_rate)))
    if not len(speech):
        return 0, len(samples)
    hop, margin = HOP_SECONDS * sample_rate, margin_seconds * sample_rate
    start = speech[0] * hop - margin
    stop = speech[-1] * hop + FRAME_SECONDS * sample_rate + margin
    return max(0, round(start)), min(len(samples), round(stop))


def speech_level(samples: Samples, sample_rate: int) -> float:
    """Root mean square of the parts with speech in them, of all where there is none."""
    speech = _speech_frames(*_power(samples, sample_rate))
    size, hop = round(FRAME_SECONDS * sample_rate), round(HOP_SECONDS * sample_rate)
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[::hop]
    squares = np.concatenate([np.mean(np.square(some, dtype=np.float64), axis=1) for some in _some(frames)])
    count = min(len(squares), len(speech))
    chosen = squares[:count][speech[:count]]
    if len(chosen):
        return float(np.sqrt(chosen.mean()))
    return float(np.sqrt(np.dot(samples, samples) / len(samples)))


def clipping_ratio(samples: Samples) -> float:
    """The share of samples that lie in flat tops at the audio's own extremes, wherever those are.

    What a lossy codec has made round again is not found.
    """
    meter = ClippingMeter()
    meter.add(samples)
    return meter.samples / len(samples)


def _power(samples: Samples, sample_rate: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """(frames, bins) mean squares a bin, and the bins' frequencies in Hz."""
    import scipy.fft  # Its loading takes a sixth of a start, which only those who measure wait for.

    size, hop = round(FRAME_SECONDS * sample_rate), round(HOP_SECONDS * sample_rate)
    padded = np.pad(samples, (0, size - len(samples))) if len(samples) < size else samples
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    window = np.hanning(size + 1)[:-1].astype(np.float32)
    scale = np.float32(2 / (size * float(np.square(window).sum())))
    power = np.empty((len(frames), size // 2 + 1), np.float32)
    for number, some in enumerate(_some(frames)):
        spectrum = scipy.fft.rfft(some * window, axis=1)  # complex64
        at = number * FRAMES_AT_A_TIME
        power[at : at + len(some)] = (np.square(spectrum.real) + np.square(spectrum.imag)) * scale
    return power, np.fft.rfftfreq(size, 1 / sample_rate)


def _some(frames: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(frames), FRAMES_AT_A_TIME):
        yield frames[start : start + FRAMES_AT_A_TIME]


def _speech_frames(power: NDArray[np.float32], frequency: NDArray[np.float64]) -> NDArray[np.bool_]:
    """True for frames with speech in them."""
    band = (frequency >= SPEECH_BAND_HZ[0]) & (frequency <= SPEECH_BAND_HZ[1])
    energy = power[:, band].sum(axis=1)
    sounding = energy > DIGITAL_SILENCE
    if not sounding.any():
        return sounding
    decibels = 10 * np.log10(np.maximum(energy, 1e-12))
    floor = float(np.percentile(decibels, 100 * QUIET_SHARE))
    top = float(np.percentile(decibels[sounding], 95))
    # Between the room's noise and the voice; where nobody pauses, the floor is quiet speech and must not hide it.
    threshold = max(top - SPEECH_RANGE_DB, min(floor + ABOVE_FLOOR_DB, top - ABOVE_FLOOR_DB))
    if top - floor < ABOVE_FLOOR_DB:
        return np.zeros(len(power), bool)  # One steady sound: a hum, a hiss.
    speech = decibels > threshold
    edges = np.flatnonzero(np.diff(np.concatenate(([1], speech, [1]))))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if start > 0 and stop < len(speech) and (stop - start) * HOP_SECONDS <= BRIDGED_SECONDS:
            speech[start:stop] = True
    return speech


def _snr(power: NDArray[np.float32], frequency: NDArray[np.float64], speech: NDArray[np.bool_]) -> float:
    """Speech over noise in dB, in the band of speech.

    The noise in a frequency is what is there at its quietest moments, pauses or not: a tenth of the time it is under
    the tenth part, by its distribution, of its mean. Frames of digital silence, as gates leave them, tell nothing.
    """
    band = (frequency >= SPEECH_BAND_HZ[0]) & (frequency <= SPEECH_BAND_HZ[1])
    chosen = power[:, band]
    sounding = chosen.sum(axis=1) > DIGITAL_SILENCE
    if not speech.any() or sounding.sum() < 10:
        return 0.0
    # Power of a noise's bin is exponentially distributed.
    bias = -np.log1p(-QUIET_SHARE)
    noise = float(np.percentile(chosen[sounding], 100 * QUIET_SHARE, axis=0).sum()) / bias
    total = float(chosen[speech].sum(axis=1).mean())
    ratio = max(total - noise, 1e-12) / max(noise, 1e-12)
    return float(np.clip(10 * np.log10(ratio), 0.0, MAX_SNR_DB))


def _bandwidth(power: NDArray[np.float32], frequency: NDArray[np.float64], speech: NDArray[np.bool_]) -> float:
    """The highest frequency in Hz that the loudest tenth of the speech reaches, against its strongest one."""
    rows = power[speech] if speech.any() else power
    columns = [rows[:, start : start + BINS_AT_A_TIME] for start in range(0, rows.shape[1], BINS_AT_A_TIME)]
    level = np.concatenate([np.percentile(some, 90, axis=0) for some in columns])
    above = np.flatnonzero(
        10 * np.log10(np.maximum(level, 1e-16) / max(float(level.max()), 1e-16)) > -BANDWIDTH_RANGE_DB
    )
    return float(frequency[above[-1]])


def advice(seconds: float, ratio: float, snr: float, clipping: float, bandwidth: float) -> list[str]:
    """What is poor and what helps, in the page's language, or English; seconds: of speech, others as in Quality."""
    found = []
    if seconds < GOOD_SPEECH_SECONDS:
        found.append(
            _("There are only %(n).1f s of speech. Send 10 to 30 s, in the tone in which the voice shall speak.")
            % {"n": seconds}
        )
    if ratio < GOOD_SPEECH_RATIO:
        found.append(
            _("Somebody speaks in only %(n).0f %% of the recording. Cut out pauses, music and other sounds.")
            % {"n": 100 * ratio}
        )
    if snr < GOOD_SNR_DB and seconds > 0:
        strong = _(
            "Strong noise or echo lies under the voice (about %(n).0f dB below it). Record in a quiet room with soft "
            "furnishings, close to the microphone, without music."
        )
        audible = _(
            "Audible noise or echo lies under the voice (about %(n).0f dB below it). Record in a quiet room with soft "
            "furnishings, close to the microphone, without music."
        )
        found.append((strong if snr < BAD_SNR_DB else audible) % {"n": snr})
    if clipping > GOOD_CLIPPING_RATIO:
        found.append(_("The loudest parts are cut off (clipping), which sounds harsh. Record again at a lower level."))
    if bandwidth < TELEPHONE_BANDWIDTH_HZ:
        found.append(
            _(
                "It sounds like a telephone: nothing is above %(n).0f Hz. Record with a microphone at 24 kHz or more, "
                "not over a call."
            )
            % {"n": bandwidth}
        )
    elif bandwidth < GOOD_BANDWIDTH_HZ:
        found.append(
            _(
                "It sounds dull: nothing is above %(n).0f Hz. Send the original recording at 24 kHz or more, not a "
                "strongly compressed copy."
            )
            % {"n": bandwidth}
        )
    return found


def together(qualities: Sequence[dict[str, Any]], anew: bool = False) -> dict[str, Any]:
    """The quality of several samples as that of one recording: the whole length, means by length, the worst peaks.

    The warnings are those of the whole; what is poor in one sample alone is said there. anew: the warnings of an only
    sample are worded again too, for a page in another language than they are kept in.
    """
    if len(qualities) == 1 and not anew:
        return qualities[0]
    seconds = sum(q["duration_seconds"] for q in qualities)

    def mean(name: str) -> float:
        return sum(q[name] * q["duration_seconds"] for q in qualities) / max(seconds, 1e-6)

    ratio, snr, bandwidth = mean("speech_ratio"), mean("snr_db"), mean("bandwidth_hz")
    clipping = max((q["clipping_ratio"] for q in qualities), default=0.0)
    return Quality(
        seconds,
        ratio,
        snr,
        clipping,
        max((q["sample_rate"] for q in qualities), default=0),
        bandwidth,
        advice(seconds * ratio, ratio, snr, clipping, bandwidth),
    ).as_json()
