"""Ten covers by the built-in engine, from the upload's file to the result, each measured.

    python -m bench.covers_end_to_end [--seconds 16] [--out FOLDER]

Songs are made of tests/support/recordings/songs.py, so that the singer and the band are known apart. The pipeline is
the product's own, in this process, on a database of its own; the commands are those of the settings. What it prints:

| ms       | result against the song's length                                                              |
| band ms  | how late the accompaniment is in the result, by cross-correlation with the true one           |
| voice ms | how late the new voice is, by cross-correlation of its loudness with the old one's            |
| LUFS, dBTP | of the result                                                                               |
| left dB  | the old singer in the accompaniment, over the whole of him: by projection onto the true voice |
| told dB  | what the job says of that                                                                     |
| quiet dB | the new voice where nobody sings, against where somebody does                                 |

It exits with 1 where a result is not as long as its song, is late by more than 5 ms (a voice: 15, where most of it was
found), is over -1 dBTP, or has more than -9 dB of the old singer and no warning.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyloudnorm
import soundfile as sf
import soxr
from scipy.signal import correlate

from tests.support.recordings import songs

Audio = np.ndarray
RATE = songs.RATE


@dataclass
class Case:
    """One cover: the song as it is sent, and what it is made of, all (n, 2)."""

    name: str
    mix: Audio
    voice: Audio
    band: Audio
    fields: dict[str, Any] = field(default_factory=dict)
    own: Audio | None = None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=16.0, help="of each song")
    parser.add_argument("--only", help="cases whose name contains this")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="covers-") as folder:
        os.environ |= {
            "LOG_LEVEL": "ERROR",
            "DATA_DIR": folder,
            "ENV_FILE": os.devnull,
            "DJANGO_SETTINGS_MODULE": "voiceproject.settings",
        }
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        print(f"{'song':20} {'status':10} {'ms':>5} {'band':>6} {'voice':>6} {'LUFS':>6} {'dBTP':>6} "
              f"{'left':>6} {'told':>6} {'quiet':>6}  warnings")  # fmt: skip
        chosen = [case for case in cases(options.seconds) if (options.only or "") in case.name]
        met = [run(case, Path(folder)) for case in chosen]
        return 0 if all(met) else 1


def cases(seconds: float) -> list[Case]:
    mix, vocal, band = (part[: int(seconds * RATE)] for part in songs.song(seconds, 1))
    dry = vocal.mean(axis=1)

    def placed(name: str, voice: Audio, **fields: Any) -> Case:
        return Case(name, voice + band, voice, band, fields)

    def panned(db: float) -> Audio:
        gain = 10 ** (db / 20)
        return vocal * np.sqrt(2) * np.array([gain, 1]) / np.hypot(gain, 1)

    late = np.stack([dry, np.pad(dry, (round(0.015 * RATE), 0))[: len(dry)]], axis=1)
    sign = np.array([1.0, -1.0])
    half = len(band) // 2
    intro = np.concatenate([np.zeros_like(vocal[:half]), vocal[:half]])
    return [
        placed("centre", vocal),
        placed("pan 3 dB", panned(3)),
        placed("pan 6 dB", panned(6)),
        placed("hard left", np.stack([1.41 * dry, 0 * dry], axis=1)),
        placed("voice inverted", vocal * sign),
        Case("channel inverted", mix * sign, vocal * sign, band * sign),
        placed("15 ms between sides", late),
        placed("intro", intro),
        Case("instrumental, keep", band, np.zeros_like(band), band, {"on_no_vocals": "keep"}),
        Case("own stems, +3", vocal, vocal, band,
             {"input_kind": "vocals", "pitch_shift": 3, "shift_instrumental": True}, own=band),
    ]  # fmt: skip


def run(case: Case, folder: Path) -> bool:
    """Makes the cover, prints its line; whether it is what it should be."""
    from django.conf import settings
    from django.core.files import File

    from covers import pipeline
    from covers.models import CoverJob
    from voiceproject.operations.terminal import terminal_user

    files = {"song": case.mix, "own_instrumental": case.own}
    job = CoverJob(tenant=terminal_user(), duration_seconds=len(case.mix) / RATE, **case.fields)
    reference = folder / "reference.wav"
    sf.write(reference, songs.other_speaker(songs.speech(songs.LINES[1], 3), 24_000), 24_000)
    paths = {"reference_voice": reference}
    for name, samples in files.items():
        if samples is not None:
            paths[name] = folder / f"{name}.wav"
            sf.write(paths[name], samples, RATE, subtype="FLOAT")
    for name, path in paths.items():
        with path.open("rb") as file:
            setattr(job, name, job.song.storage.save(f"{job.folder}/0-{name}", File(file)))
    job.accept_running("bench", settings.WORKER_HOST)
    pipeline.run(job, threading.Event())
    job.refresh_from_db()
    codes = [told["code"] for told in job.warnings]
    if job.status != "succeeded":
        print(f"{case.name:20} {job.error:10} {' '.join(codes)} {job.error_message}", flush=True)
        return job.error == "separation_failed"  # Told, and nothing was made.
    result = read(job.result)
    backing = read(job.instrumental) if job.instrumental else result
    exact = 1000 * (len(result) - len(case.mix)) / RATE
    shifted = bool(case.fields.get("shift_instrumental"))
    band_ms = late_ms(loudness(case.band), loudness(result)) if shifted else waves_late_ms(case.band, backing)
    loud = pyloudnorm.Meter(RATE).integrated_loudness(result)
    peak = 20 * np.log10(np.max(np.abs(soxr.resample(result, RATE, 4 * RATE))) + 1e-9)
    line = [exact, band_ms]
    voice_ms = left = quiet = float("nan")
    if job.converted:
        new = read(job.converted)
        voice_ms = late_ms(loudness(case.voice), loudness(new))
        left = left_db(backing - case.band, case.voice) if case.own is None else float("nan")
        silent = loudness(case.voice) < 1e-4
        quiet = 20 * np.log10(np.std(loudness(new)[silent]) / np.std(loudness(new)[~silent]) + 1e-6)
    told = (job.details.get("separation") or {}).get("leftover_db")
    line += [voice_ms, loud, peak, left, float("nan") if told is None else told, quiet]
    print(f"{case.name:20} {job.status:10} " + f"{line[0]:5.1f} " + " ".join(f"{x:6.1f}" for x in line[1:]),
          " ".join(codes), flush=True)  # fmt: skip
    right = exact == 0 and abs(band_ms) <= 5 and peak <= -1.0
    right &= "lead_left" in codes or np.isnan(voice_ms) or abs(voice_ms) <= 15
    job.remove()
    return bool(right and (np.isnan(left) or left <= -9 or "lead_left" in codes or "voice_left" in codes))


def read(stored: Any) -> Audio:
    with stored.open("rb") as file:
        samples, _ = sf.read(file, always_2d=True)
    return np.asarray(samples if samples.shape[1] == 2 else np.repeat(samples, 2, axis=1))


def loudness(samples: Audio) -> Audio:
    """Root mean square over 10 ms, every millisecond."""
    energy = np.convolve(np.sum(samples**2, axis=1), np.ones(441) / 441, mode="same")[::44]
    return np.sqrt(np.maximum(energy, 0))


def late_ms(before: Audio, after: Audio) -> float:
    """How much later `after` is: two loudnesses, a value every 44 samples."""
    size = min(len(before), len(after))
    one, two = (np.log(x[:size] + 1e-3) for x in (before, after))
    found = correlate(two - two.mean(), one - one.mean(), mode="full")
    near = found[size - 1 - 300 : size + 300]
    return float((near.argmax() - 300) * 44 / RATE * 1000)


def waves_late_ms(before: Audio, after: Audio) -> float:
    size = min(len(before), len(after))
    found = correlate(after[:size].mean(axis=1), before[:size].mean(axis=1), mode="full", method="fft")
    if np.max(np.abs(found)) < 1e-6:  # one side inverted: nothing in the middle
        found = correlate(after[:size, 0], before[:size, 0], mode="full", method="fft")
    return float((np.abs(found).argmax() - (size - 1)) / RATE * 1000)


def left_db(rest: Audio, voice: Audio) -> float:
    """What of `voice` is in `rest`, over all of it: per frequency and 1 s, by least squares on both sides."""
    middle = voice.sum(axis=1) if np.sum(voice.sum(axis=1) ** 2) > 1e-6 else voice[:, 0] - voice[:, 1]
    of_voice = _spectra(middle)
    left = whole = 0.0
    for side in (0, 1):
        found = _spectra(rest[:, side])
        whole += float(np.sum(np.abs(_spectra(voice[:, side])) ** 2))
        for start in range(0, len(found), 30):
            a, b = found[start : start + 30], of_voice[start : start + 30]
            left += float(np.sum(np.abs(np.sum(a * b.conj(), axis=0)) ** 2 / (np.sum(np.abs(b) ** 2, axis=0) + 1e-9)))
    return 10 * np.log10(left / whole + 1e-9)


def _spectra(samples: Audio) -> Audio:
    low = np.pad(soxr.resample(samples, RATE, 16_000), (0, 2048))
    return np.fft.rfft(np.lib.stride_tricks.sliding_window_view(low, 2048)[::512] * np.hanning(2048), axis=1)


if __name__ == "__main__":
    sys.exit(main())
