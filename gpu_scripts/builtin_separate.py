"""Separates a song into vocal and accompaniment on the CPU: no model, numpy and scipy only.

    python builtin_separate.py --input SONG.wav --vocal OUT.wav --inst OUT.wav [--model NAME] [--threads 2]

In: whatever soundfile reads, one or two channels, any sample rate. Out: two 44.1 kHz stereo WAVs (32-bit float) as long
as the song, whose sum is the song. They appear only when they are complete. `--model` is taken and ignored: other
separators have models, and the caller passes the same arguments to all.

stdout: lines `PROGRESS 0.42`, never falling, the last one `PROGRESS 1`, and before it one line `SEPARATION {json}`:
`place` ("mono", or where most of the lead was found: `pan_db`, positive to the left, 40 for a side alone; `inverted`;
`delay_ms` of the right side; `spread`, at no one place; `clarity`, 0 to about 0.6; `second_pan_db` of another singer),
`lead_share` (energy of the vocal over the song's) and `leftover_db` (an estimate of how much of the lead is still in
the accompaniment). stderr: `WARNING ...`; one line on failure.
Exit codes: 0 done; 1 unexpected; 2 bad arguments; 3 unreadable input, more than two channels, or no finite samples;
4 the song is silent; 6 an output cannot be written; 7 out of memory; 18 the disk is full; 143 and 130 ended by
SIGTERM and SIGINT (nothing is left behind). With `--serve` it takes job after job (script_io.run).

Method, on chunks of 24 s: where the lead stands is found first (common/separation/place.py). Then what is at this place
(C. Avendano, WASPAA 2003), and is not repeated elsewhere in the chunk (REPET-SIM: Z. Rafii, B. Pardo, ISMIR 2012),
refined by a comb on the singer's F0 (harmonic summation after D. J. Hermes, JASA 83(1), 1988, tracked by Viterbi's
algorithm), and then by a two-channel Wiener filter on the spatial covariance of both parts (N. Q. K. Duong, E. Vincent,
R. Gribonval, IEEE TASLP 18(7), 2010).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # Python itself leaves it out with -I or -P

from common import audio, options, script_io
from common.audio import RATE, SILENCE_RMS
from common.script_io import Progress, ScriptError

THREADS = script_io.limit_threads(sys.argv[1:])

import numpy as np  # noqa: E402 (the number of threads is read when numpy is loaded)
import soundfile  # noqa: E402
import soxr  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from common.separation import filters, place, spectra  # noqa: E402
from common.separation.filters import Covariance, place_mask  # noqa: E402
from common.separation.place import Evidence, Place  # noqa: E402
from common.separation.spectra import BIN_HZ, EPSILON, Complex64, Float32  # noqa: E402

CHUNK = 24 * RATE
FADE = 2 * RATE
BLOCK = 10 * RATE
LOWEST_HZ, HIGHEST_HZ = 110.0, 12000.0
LISTENED = 0.1  # of the progress, when the lead's place is known
MONO_RATIO = 1e-3  # energy of the sides under this share of the middle's: no stereo image to speak of


class Finding:
    """What is told about a separation, gathered over its chunks."""

    def __init__(self, mono: bool) -> None:
        self.mono = mono
        self._places: list[tuple[float, Place]] = []
        self._energies = np.zeros(2)
        self._left = np.zeros(2)

    def add(self, lead: Place, vocal: Float32, mix: Float32, left_behind: NDArray[np.float64]) -> None:
        voice = float(np.vdot(vocal, vocal))
        self._energies += voice, float(np.vdot(mix, mix))
        self._left += left_behind
        self._places.append((voice, lead))

    def as_dict(self) -> dict[str, Any]:
        _, lead = max(self._places, key=lambda one: one[0])
        missing, whole = self._left
        return {
            "place": "mono" if self.mono else lead.as_dict(),
            "lead_share": round(float(self._energies[0] / self._energies[1]), 3),
            "leftover_db": round(20 * float(np.log10(abs(missing) / (whole + EPSILON) + 1e-3)), 1),
        }


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
            finding = separate(song, arguments.vocal, arguments.inst, progress)
        else:
            resampled = Path(scratch) / "song.wav"
            _resample(song, resampled)
            with soundfile.SoundFile(resampled) as again:
                finding = separate(again, arguments.vocal, arguments.inst, progress)
    script_io.separation(finding.as_dict())
    progress(1)


def separate(song: soundfile.SoundFile, vocal: Path, inst: Path, progress: Progress) -> Finding:
    """Reads `song` (44.1 kHz, 1 or 2 channels) by chunks, writes both stems. Memory does not grow with its length."""
    scan = _scan(song)
    if scan.level < SILENCE_RMS:
        raise ScriptError(script_io.SILENT, "the song is silent")
    if scan.mono:
        script_io.warn(
            "The song is mono or nearly so: the voice cannot be told by its place, and more accompaniment stays in it."
        )
    progress(0.02)
    spans = list(chunk_spans(song.frames))
    evidence = _listen(song, spans, progress)
    leads = [Place()] * len(spans) if scan.mono else place.places(evidence)
    finding = Finding(scan.mono)
    with (
        audio.wav_writer(inst, RATE, 2) as inst_out,
        audio.wav_writer(vocal, RATE, 2) as vocal_out,
    ):
        tail = np.zeros((0, 2), np.float32)
        for number, (start, stop, keep_from, keep_to) in enumerate(spans):
            mix = _read(song, start, stop)

            def report(done: float, number: int = number) -> None:
                progress(LISTENED + (0.99 - LISTENED) * (number + done) / len(spans))

            vocal_part, left_behind = extract_vocal(mix, scan.mono, leads[number], evidence[number], report)
            finding.add(leads[number], vocal_part, mix, left_behind)
            part = vocal_part[keep_from - start : keep_to - start]
            overlap = len(tail)
            if overlap:
                rise = (0.5 - 0.5 * np.cos(np.pi * (np.arange(overlap) + 0.5) / overlap)).astype(np.float32)
                part[:overlap] = part[:overlap] * rise[:, None] + tail * (1 - rise)[:, None]
            last = number == len(spans) - 1
            ready = len(part) if last else len(part) - FADE
            tail = part[ready:].copy()
            vocal_out.write(part[:ready])
            inst_out.write(mix[keep_from - start : keep_from - start + ready] - part[:ready])
    return finding


def _listen(song: soundfile.SoundFile, spans: list[tuple[int, int, int, int]], progress: Progress) -> list[Evidence]:
    """Of each chunk."""
    evidence = []
    for number, (start, stop, _, _) in enumerate(spans):
        evidence.append(place.listen(_read(song, start, stop), THREADS))
        progress(0.02 + (LISTENED - 0.02) * (number + 1) / len(spans))
    return evidence


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


def extract_vocal(
    mix: Float32, mono: bool, lead: Place, evidence: Evidence, tell: Callable[[float], None]
) -> tuple[Float32, NDArray[np.float64]]:
    """The voice in a stretch of song, float32 (n, 2) both, and what is missing of it (see `Evidence.left_behind`).

    lead: where it stands; evidence: of this stretch; mono: there is no stereo image to use.
    """
    margin = -(-abs(lead.delay) // place.HOP) * place.HOP  # the frames of `evidence` are among ours
    padded = np.pad(mix, ((margin, margin), (0, 0)))
    sides = padded[:, 0], place.shifted(padded[:, 1], -lead.delay)
    left, right = (spectra.stft(side, THREADS) for side in sides)
    turn = np.pi / 4 - lead.angle / 2
    if not mono:
        left, right = _turned(left, right, turn)  # the lead is in the middle from here on
    magnitude = ((np.abs(left) + np.abs(right)) / 2).astype(np.float32, copy=False)
    band = ((BIN_HZ > LOWEST_HZ) & (BIN_HZ < HIGHEST_HZ)).astype(np.float32)
    mask: Float32 = np.tile(band, (len(magnitude), 1))
    voice = Covariance.towards(np.pi / 2)
    if not mono and not lead.spread:
        mask *= place_mask(left, right, np.pi / 2)
        if lead.second is not None:
            angle = lead.second + 2 * turn
            other: Float32 = band * place_mask(left, right, angle)
            share: Float32 = mask / (mask + other + np.float32(EPSILON))
            voice = voice.mixed(Covariance.towards(angle), share)
            mask = np.maximum(mask, other)
    elif lead.spread:
        voice = Covariance(1, 1, 0)
    tell(0.1)
    repeating = spectra.repeating_magnitude(magnitude, spectra.HOP, lambda fraction: tell(0.1 + 0.7 * fraction))
    mask *= 1 - (repeating / (magnitude + EPSILON)) ** 1.5
    mask = spectra.comb_mask(mask, magnitude)
    tell(0.9)
    mixed = left, right
    if mono:
        left, right = left * mask, right * mask
    else:
        left, right = filters.wiener(left, right, mask, band, voice)
    same = slice(margin // spectra.HOP, None, place.HOP // spectra.HOP)
    got, whole = [left[same], right[same]], [side[same] for side in mixed]
    if not (mono or lead.spread or lead.second is not None):
        # The lead is in the middle: what is missing at the sides is the band's.
        got, whole = [got[0] + got[1]], [whole[0] + whole[1]]
    left_behind = evidence.left_behind(got, whole)
    del mixed, mask, repeating, magnitude
    if not mono:
        left, right = _turned(left, right, -turn)
    out = np.stack([spectra.istft(side, len(padded), THREADS) for side in (left, right)], axis=1)
    out[:, 1] = place.shifted(out[:, 1], lead.delay)
    return out[margin : margin + len(mix)], left_behind


def _turned(left: Complex64, right: Complex64, turn: float) -> tuple[Complex64, Complex64]:
    """The stereo image turned: what was at the place `angle` is at angle + 2 * turn."""
    if turn == 0:
        return left, right
    cosine, sine = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    return cosine * left - sine * right, sine * left + cosine * right


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
