"""Separates a song into vocal and accompaniment on the CPU: no model, numpy and scipy only.

    python builtin_separate.py --input SONG.wav --vocal OUT.wav --inst OUT.wav [--model NAME] [--threads 2]

In: whatever soundfile reads, one or two channels, any sample rate. Out: two 44.1 kHz stereo WAVs (32-bit float) as long
as the song, whose sum is the song. They appear only when they are complete. `--model` is taken and ignored: other
separators have models, and the caller passes the same arguments to all.

stdout: lines `PROGRESS 0.42`, never falling, the last one `PROGRESS 1`. stderr: `WARNING ...`; one line on failure.
Exit codes: 0 done; 1 unexpected; 2 bad arguments; 3 unreadable input, more than two channels, or no finite samples;
4 the song is silent; 6 an output cannot be written; 7 out of memory; 143 and 130 ended by SIGTERM and SIGINT (nothing
is left behind). With `--serve` it takes job after job (script_io.run).

Method, on chunks of 24 s: what is in the centre of the stereo image (C. Avendano, WASPAA 2003), and is not repeated
elsewhere in the chunk (REPET-SIM: Z. Rafii, B. Pardo, ISMIR 2012), refined by a comb on the singer's F0 (harmonic
summation after D. J. Hermes, JASA 83(1), 1988, tracked by Viterbi's algorithm), and then by a two-channel Wiener filter
on the spatial covariance of both parts (N. Q. K. Duong, E. Vincent, R. Gribonval, IEEE TASLP 18(7), 2010).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parent))  # Python itself leaves it out with -I or -P

from common import audio, options, script_io
from common.audio import RATE, SILENCE_RMS
from common.script_io import Progress, ScriptError

THREADS = script_io.limit_threads(sys.argv[1:])

import numpy as np  # noqa: E402 (the number of threads is read when numpy is loaded)
import soundfile  # noqa: E402
import soxr  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from scipy.fft import irfft, rfft  # noqa: E402

Float32 = NDArray[np.float32]
Complex64 = NDArray[np.complex64]

FFT = 4096
HOP = 1024
CHUNK = 24 * RATE
FADE = 2 * RATE
BLOCK = 10 * RATE
LOWEST_HZ, HIGHEST_HZ = 110.0, 12000.0
MONO_RATIO = 1e-3  # energy of the sides under this share of the middle's: no stereo image to speak of

CENTRE_EXPONENT = 4
SIMILAR_FRAMES = 20
NOT_NEARER_SECONDS = 1.0  # repetitions are looked for at least so far away
APART_SECONDS = 0.8  # and so far from each other, lest all of them are one moment
COMB_SHARE = 0.85

PARTIALS = 12
F0_GRID_HZ = 90 * 2 ** (np.arange(0, 1200 * np.log2(700 / 90), 20) / 1200)
BIN_HZ = np.arange(FFT // 2 + 1) * RATE / FFT
WINDOW = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)).astype(np.float32)
EPSILON = 1e-9


@dataclass(frozen=True)
class Scan:
    """What one pass over the song tells: its level (root mean square), and whether it has a stereo image."""

    level: float
    mono: bool


def main(argv: list[str]) -> None:
    parser = script_io.OneLineParser(description="Separate a song into vocal and accompaniment.")
    options.add_separate_arguments(parser)
    parser.add_argument("--model", default="", help="ignored: there is one method")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args(argv)
    options.absolute(parser, arguments, "input", "vocal", "inst")
    progress = Progress()
    progress(0)
    with (
        TemporaryDirectory(prefix=".separate-", dir=_folder(arguments.vocal)) as scratch,
        audio.open_wav(arguments.input) as song,
    ):
        if song.samplerate == RATE:
            separate(song, arguments.vocal, arguments.inst, progress)
        else:
            resampled = Path(scratch) / "song.wav"
            _resample(song, resampled)
            with soundfile.SoundFile(resampled) as again:
                separate(again, arguments.vocal, arguments.inst, progress)
    progress(1)


def separate(song: soundfile.SoundFile, vocal: Path, inst: Path, progress: Progress) -> None:
    """Reads `song` (44.1 kHz, 1 or 2 channels) by chunks, writes both stems. Memory does not grow with its length."""
    scan = _scan(song)
    if scan.level < SILENCE_RMS:
        raise ScriptError(script_io.SILENT, "the song is silent")
    if scan.mono:
        script_io.warn(
            "The song is mono or nearly so: the voice cannot be told by its place, and more accompaniment stays in it."
        )
    progress(0.02)
    with (
        audio.wav_writer(inst, RATE, 2) as inst_out,
        audio.wav_writer(vocal, RATE, 2) as vocal_out,
    ):
        tail = np.zeros((0, 2), np.float32)
        spans = list(chunk_spans(song.frames))
        for number, (start, stop, keep_from, keep_to) in enumerate(spans):
            mix = _read(song, start, stop)

            def report(done: float, number: int = number) -> None:
                progress(0.02 + 0.97 * (number + done) / len(spans))

            part = extract_vocal(mix, scan.mono, report)[keep_from - start : keep_to - start]
            overlap = len(tail)
            if overlap:
                rise = (0.5 - 0.5 * np.cos(np.pi * (np.arange(overlap) + 0.5) / overlap)).astype(np.float32)
                part[:overlap] = part[:overlap] * rise[:, None] + tail * (1 - rise)[:, None]
            last = number == len(spans) - 1
            ready = len(part) if last else len(part) - FADE
            tail = part[ready:].copy()
            vocal_out.write(part[:ready])
            inst_out.write(mix[keep_from - start : keep_from - start + ready] - part[:ready])


def chunk_spans(length: int) -> Iterator[tuple[int, int, int, int]]:
    """(start, stop, keep_from, keep_to) of each chunk, in samples: even steps, and the parts that are kept overlap by
    `FADE` in the middle of what two chunks share."""
    if length <= CHUNK:
        yield 0, length, 0, length
        return
    count = -(-(length - FADE) // (CHUNK - FADE))
    starts = [round(i * (length - CHUNK) / (count - 1)) for i in range(count)]
    middles = [(starts[i] + CHUNK + starts[i + 1]) // 2 for i in range(count - 1)]
    for i, start in enumerate(starts):
        keep_from = 0 if i == 0 else middles[i - 1] - FADE // 2
        keep_to = length if i == count - 1 else middles[i] + FADE // 2
        yield start, start + CHUNK, keep_from, keep_to


def extract_vocal(mix: Float32, mono: bool, tell: Callable[[float], None]) -> Float32:
    """The voice in a stretch of song: float32 (n, 2) -> (n, 2). `mono`: there is no stereo image to use."""
    left, right = stft(mix[:, 0]), stft(mix[:, 1])
    magnitude = ((np.abs(left) + np.abs(right)) / 2).astype(np.float32, copy=False)
    band = ((BIN_HZ > LOWEST_HZ) & (BIN_HZ < HIGHEST_HZ)).astype(np.float32)
    mask: Float32 = np.tile(band, (len(magnitude), 1))
    if not mono:
        mask *= centre_mask(left, right)
    tell(0.1)
    repeating = repeating_magnitude(magnitude, lambda fraction: tell(0.1 + 0.7 * fraction))
    mask *= 1 - (repeating / (magnitude + EPSILON)) ** 1.5
    mask = comb_mask(mask, magnitude)
    tell(0.9)
    if mono:
        voice_left, voice_right = left * mask, right * mask
    else:
        voice_left, voice_right = wiener(left, right, mask, band)
    return np.stack([istft(voice_left, len(mix)), istft(voice_right, len(mix))], axis=1)


def stft(samples: Float32) -> Complex64:
    """(n,) -> (frames, 2049), square-root Hann window, 4096 points every 1024."""
    padded = np.pad(samples, (FFT, FFT + HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT)[::HOP]
    return rfft(frames * WINDOW, axis=1, workers=THREADS)


def istft(spectrum: Complex64, length: int) -> Float32:
    """The inverse of `stft`: (frames, 2049) -> (length,)."""
    frames = irfft(spectrum, axis=1, workers=THREADS) * WINDOW
    steps = FFT // HOP
    out = np.zeros((len(frames) + steps, HOP), np.float32)
    for step in range(steps):
        out[step : step + len(frames)] += frames[:, step * HOP : (step + 1) * HOP]
    gain = (WINDOW**2).reshape(steps, HOP).sum(axis=0)
    return (out / gain).reshape(-1)[FFT : FFT + length]


def centre_mask(left: Complex64, right: Complex64) -> Float32:
    """How much of each bin is equal in both channels: 1 in the centre, 0 at a side."""
    cross = 2 * (left * right.conj()).real
    total = left.real**2 + left.imag**2 + right.real**2 + right.imag**2
    return np.clip(cross / (total + EPSILON), 0, 1) ** CENTRE_EXPONENT


def repeating_magnitude(magnitude: Float32, tell: Callable[[float], None]) -> Float32:
    """The part of a spectrogram (frames, bins) that recurs: per frame the median of up to 20 frames that sound alike.

    Frames are compared by the cosine of their square-rooted magnitudes.
    """
    features = np.sqrt(magnitude)
    features /= np.linalg.norm(features, axis=1, keepdims=True) + EPSILON
    likeness = features @ features.T
    gap, apart = round(NOT_NEARER_SECONDS * RATE / HOP), round(APART_SECONDS * RATE / HOP)
    out = magnitude.copy()
    count = len(magnitude)
    for frame in range(count):
        free = np.ones(count, bool)
        free[max(0, frame - gap) : frame + gap + 1] = False
        alike: list[int] = []
        for candidate in np.argsort(-likeness[frame]):
            if free[candidate]:
                alike.append(int(candidate))
                free[max(0, candidate - apart) : candidate + apart + 1] = False
                if len(alike) == SIMILAR_FRAMES:
                    break
        if alike:
            np.minimum(magnitude[frame], np.median(magnitude[alike], axis=0), out=out[frame])
        elif count > 1:
            out[frame] = 0
        if frame % 64 == 0:
            tell(frame / count)
    return out


def comb_mask(mask: Float32, magnitude: Float32) -> Float32:
    """Gives the bins on the singer's partials more of the mask, and those between them less."""
    salience = harmonic_salience(np.sqrt(magnitude * mask))
    path = viterbi(salience)
    strength = salience[np.arange(len(path)), path]
    sure = np.clip(strength / (0.5 * np.percentile(strength, 90) + EPSILON), 0, 1)[:, None].astype(np.float32)
    f0 = F0_GRID_HZ[path][:, None]
    nearest = np.maximum(np.round(BIN_HZ / f0), 1) * f0
    comb = np.exp(-0.5 * ((BIN_HZ - nearest) / (15 + 0.004 * BIN_HZ)) ** 2).astype(np.float32)
    refined = comb * sure * np.sqrt(mask) + (1 - comb) * 0.35 * mask
    return (1 - COMB_SHARE) * mask + COMB_SHARE * refined


def harmonic_salience(spectrum: Float32) -> Float32:
    """(frames, bins) -> (frames, F0 candidates): energy at 12 partials less half of that between them."""
    salience = np.zeros((len(spectrum), len(F0_GRID_HZ)), np.float32)
    for partial in range(1, PARTIALS + 1):
        for place, weight in ((partial, 1.0), (partial - 0.5, -0.5)):
            position = place * F0_GRID_HZ * FFT / RATE
            low = position.astype(int)
            share = (position - low).astype(np.float32)
            at = spectrum[:, low] * (1 - share) + spectrum[:, low + 1] * share
            salience += np.float32(weight * 0.9 ** (partial - 1)) * at
    return salience


def viterbi(salience: Float32, reach: int = 12, step_cost: float = 0.125, leap_cost: float = 4.0) -> NDArray[np.intp]:
    """The smoothest strong path through (frames, candidates): a candidate a frame. All leaps cost the same."""
    scores = salience / (salience.std() + EPSILON)
    frames, candidates = scores.shape
    steps = np.arange(-reach, reach + 1)
    cost = step_cost * np.abs(steps)
    came_from = np.zeros((frames, candidates), np.intp)
    total = scores[0].astype(np.float64)
    own = np.arange(candidates)
    for frame in range(1, frames):
        padded = np.pad(total, reach, constant_values=-1e18)
        options = np.lib.stride_tricks.sliding_window_view(padded, len(steps)) - cost
        choice = options.argmax(axis=1)
        best, source = options[own, choice], own + choice - reach
        top = int(total.argmax())
        leap = total[top] - leap_cost > best
        came_from[frame] = np.where(leap, top, source)
        total = np.where(leap, total[top] - leap_cost, best) + scores[frame]
    path = np.empty(frames, np.intp)
    path[-1] = total.argmax()
    for frame in range(frames - 1, 0, -1):
        path[frame - 1] = came_from[frame, path[frame]]
    return path


def wiener(left: Complex64, right: Complex64, mask: Float32, band: Float32) -> tuple[Complex64, Complex64]:
    """The voice by a two-channel Wiener filter, given a first guess by `mask`: (frames, bins) each for left and right.

    The voice is taken to stand in the centre; where the accompaniment stands is measured, bin by bin, over time.
    """
    voice_power = mask**2 * (np.abs(left) ** 2 + np.abs(right) ** 2) / 2 + EPSILON
    rest_left, rest_right = left * (1 - mask), right * (1 - mask)
    rest_power = (np.abs(rest_left) ** 2 + np.abs(rest_right) ** 2) / 2 + EPSILON
    cross = (rest_left * rest_right.conj()).sum(axis=0)
    own_left, own_right = (np.abs(rest_left) ** 2).sum(axis=0), (np.abs(rest_right) ** 2).sum(axis=0)
    scale = (own_left + own_right) / 2 + EPSILON
    blur = np.float32(0.02)  # keeps both covariance matrices invertible
    own_left, own_right, cross = own_left / scale + blur, own_right / scale + blur, cross / scale
    del rest_left, rest_right
    a = voice_power * (1 + blur) + rest_power * own_left
    d = voice_power * (1 + blur) + rest_power * own_right
    b = voice_power + rest_power * cross
    determinant = a * d - np.abs(b) ** 2
    inverse_left = (d * left - b * right) / determinant
    inverse_right = (a * right - b.conj() * left) / determinant
    gain = voice_power * band
    return (
        gain * ((1 + blur) * inverse_left + inverse_right),
        gain * (inverse_left + (1 + blur) * inverse_right),
    )


def _folder(path: Path) -> Path:
    if not path.parent.is_dir():
        raise ScriptError(script_io.UNWRITABLE, f"no such folder: {path.parent}")
    return path.parent


def _read(song: soundfile.SoundFile, start: int, stop: int) -> Float32:
    """Samples start to stop as float32 (n, 2). Raises ScriptError (3) where the file ends early or is not finite."""
    song.seek(start)
    samples = song.read(stop - start, dtype="float32", always_2d=True)
    if len(samples) != stop - start or not np.isfinite(samples).all():
        raise ScriptError(script_io.UNREADABLE, "the song is cut short or holds samples that are not numbers")
    return np.repeat(samples, 2, axis=1) if samples.shape[1] == 1 else samples


def _scan(song: soundfile.SoundFile) -> Scan:
    energies = np.zeros(4)
    for start in range(0, song.frames, BLOCK):
        block = _read(song, start, min(start + BLOCK, song.frames)).astype(np.float64)
        left, right = block[:, 0], block[:, 1]
        middle, side = (left + right) / 2, (left - right) / 2
        energies += np.array([left @ left, right @ right, middle @ middle, side @ side])
    left_energy, right_energy, middle_energy, side_energy = energies
    one_sided = min(left_energy, right_energy) < MONO_RATIO * max(left_energy, right_energy)
    return Scan(
        level=float(np.sqrt((left_energy + right_energy) / 2 / song.frames)),
        mono=bool(one_sided or side_energy < MONO_RATIO * middle_energy or middle_energy < MONO_RATIO * side_energy),
    )


def _resample(song: soundfile.SoundFile, path: Path) -> None:
    """Writes the song at 44.1 kHz to `path` (float WAV), block by block."""
    channels = song.channels
    stream = soxr.ResampleStream(song.samplerate, RATE, channels, dtype="float32")
    missing = round(song.frames * RATE / song.samplerate)
    with soundfile.SoundFile(path, "w", RATE, channels, subtype="FLOAT") as out:
        while missing > 0:
            block = song.read(BLOCK, dtype="float32", always_2d=True)
            done = stream.resample_chunk(block, last=len(block) < BLOCK)[:missing]
            out.write(done)
            missing -= len(done)
            if len(block) < BLOCK:
                out.write(np.zeros((missing, channels), np.float32))
                return


if __name__ == "__main__":
    script_io.run(main)
