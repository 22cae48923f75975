"""How well an accompaniment is moved into another key, beside Rubber Band as FFmpeg has it.

    python -m bench.moved_accompaniment

Of tones and chords from 110 to 1760 Hz the worst error in cents; of drum hits how late the worst is and what share of
its energy lies within 5 ms of where it lay; of a band the change of spectral flatness (0 is none; noise adds, smearing
takes away), and the time over the audio's.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import soundfile as sf

from tests.support.recordings import songs
from voiceproject.media.transposing import transpose

Audio = np.ndarray
RATE = songs.RATE
SHIFTS = (-5, -2, 1, 3, 5)
TONES = ((110.0,), (220.0,), (220.0, 277.2, 329.6), (440.0, 523.3, 659.3), (880.0, 1318.5, 1760.0))


def rubberband(source: Path, target: Path, semitones: float, options: str) -> None:
    shift = f"rubberband=pitch={2 ** (semitones / 12)!r}:pitchq=quality:{options}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-i", str(source), "-af", shift]
    subprocess.run([*command, "-c:a", "pcm_f32le", str(target)], check=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:

        def through(method: Callable[[Path, Path, float], None], samples: Audio, semitones: float) -> Audio:
            source, target = Path(folder, "in.wav"), Path(folder, "out.wav")
            sf.write(source, np.stack([samples] * 2, axis=1) if samples.ndim == 1 else samples, RATE, subtype="FLOAT")
            method(source, target, semitones)
            return np.asarray(sf.read(target)[0])

        print(f"{'':24} {'shift':>5} {'cents':>6} {'samples':>7} {'late ms':>7} {'in 5 ms':>7} {'flat':>6} {'RTF':>6}")
        for name, method in {
            "ours": transpose,
            "Rubber Band, crisp": lambda a, b, n: rubberband(a, b, n, "transients=crisp"),
            "Rubber Band, smooth": lambda a, b, n: rubberband(a, b, n, "transients=smooth"),
        }.items():
            rows = []
            for shift in SHIFTS:
                cents = max(worst_cents(through(method, chord(tones), shift)[:, 0], tones, shift) for tones in TONES)
                hits = drums()
                late, kept = attacks(hits, through(method, hits, shift)[:, 0])
                band = songs.band(12.0)
                started = time.perf_counter()
                moved = through(method, band, shift)
                rtf = (time.perf_counter() - started) / 12
                rows.append((cents, len(moved) - len(band), late, kept, flatness(moved) - flatness(band), rtf))
                print(f"{name:24} {shift:+5d} " + figures(rows[-1]), flush=True)
            worst = [max(row[k] for row in rows) for k in (0, 1, 2)]
            print(f"{name:24} {'':5} " + figures((*worst, *np.mean([row[3:] for row in rows], axis=0))))


def figures(row: tuple[float, ...]) -> str:
    return f"{row[0]:6.1f} {row[1]:7.0f} {row[2]:7.1f} {row[3]:7.2f} {row[4]:+6.3f} {row[5]:6.2f}"


def chord(tones: tuple[float, ...]) -> Audio:
    at = np.arange(8 * RATE) / RATE
    return np.asarray(sum(0.1 * np.sin(2 * np.pi * hz * at) for hz in tones))


def worst_cents(samples: Audio, tones: tuple[float, ...], shift: float) -> float:
    size = 1 << 21
    spectrum = np.abs(np.fft.rfft(samples[RATE : 7 * RATE] * np.hanning(6 * RATE), size))
    found = []
    for hz in tones:
        wanted = hz * 2 ** (shift / 12)
        low, high = (int(wanted * factor * size / RATE) for factor in (0.95, 1.05))
        found.append(abs(1200 * np.log2((low + spectrum[low:high].argmax()) * RATE / size / wanted)))
    return float(max(found))


def drums() -> Audio:
    """(n,): hits over a soft chord, which is what makes transients hard."""
    out = chord((220.0, 277.2, 329.6)) * 0.15
    rng = np.random.default_rng(5)
    for k in range(1, 15):
        start = round((k * 0.5 + rng.uniform(-0.05, 0.05)) * RATE)
        out[start : start + 2000] += 0.4 * rng.normal(0, 1, 2000) * np.exp(-np.arange(2000) / 200)
    return out


def attacks(before: Audio, after: Audio) -> tuple[float, float]:
    """(how late or early the worst attack is in ms, the mean share of its energy within 5 ms of where it lay)."""
    size = 44
    loud = [np.convolve(x**2, np.ones(size), mode="same") for x in (before, after)]
    rise = [np.diff(np.log(x + 1e-4)) for x in loud]
    late, kept = [], []
    near, reach = round(0.005 * RATE), round(0.06 * RATE)
    for k in range(1, 15):
        window = slice(round((k * 0.5 - 0.1) * RATE), round((k * 0.5 + 0.15) * RATE))
        places = [window.start + int(x[window].argmax()) for x in rise]
        late.append(abs(places[1] - places[0]) / RATE * 1000)
        around = after[places[0] - reach : places[0] + reach] ** 2
        own = before[places[0] - reach : places[0] + reach] ** 2
        close = slice(reach - near, reach + near)
        kept.append((around[close].sum() / around.sum()) / (own[close].sum() / own.sum()))
    return max(late), float(np.mean(kept))


def flatness(samples: Audio) -> float:
    """Mean over time of the geometric over the arithmetic mean of the power from 100 Hz to 8 kHz."""
    mono = samples.mean(axis=1)
    views = np.lib.stride_tricks.sliding_window_view(mono, 2048)[::1024]
    power = np.abs(np.fft.rfft(views * np.hanning(2048), axis=1))[:, 5:370] ** 2 + 1e-9
    return float(np.mean(np.exp(np.mean(np.log(power), axis=1)) / np.mean(power, axis=1)))


if __name__ == "__main__":
    main()
