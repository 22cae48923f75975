"""How long uploads take to decode: a reference of 10 s and a song of 8 minutes, in several formats.

    python -m bench.decoding [--runs 15] [--against CHECKOUT]

Needs the `ffmpeg` program. With --against, the same files are decoded by the code of another checkout too, in turns in
one run: on a machine that does other work, only the ratio says something. Times are medians in ms, on the wall; a
reference is decoded, checked and levelled, a song is written as WAV at 44.1 kHz too. The first decoding of a process,
which starts the decoder, is not counted, but for songs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile as sf

FORMATS = {
    "wav": "-c:a pcm_s16le", "mp3": "-c:a libmp3lame -b:a 192k", "flac": "", "oga": "-c:a libvorbis -q:a 5",
    "opus": "-c:a libopus -b:a 96k", "m4a": "-c:a aac -b:a 160k", "webm": "-c:a libopus -b:a 96k",
}  # fmt: skip
# Reads "reference|song PATH OUT" from standard input, and answers with the seconds and the most MB that it ever had.
PROGRAM = """
import resource, sys, time
from voiceproject.media import audio
for line in sys.stdin:
    kind, path, out = line.split()
    started = time.perf_counter()
    if kind == "reference":
        audio.load_reference(path, field="reference_audio")
    else:
        audio.decode_song(path, out, field="song", max_seconds=480)
    took = time.perf_counter() - started
    print(took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, flush=True)
"""


def made(folder: Path, seconds: int, rate: int, channels: int, name: str) -> dict[str, Path]:
    """Noise with a melody, which no codec finds easy."""
    random = np.random.default_rng(1)
    time = np.arange(10 * rate) / rate
    piece = 0.2 * np.sin(2 * np.pi * 220 * time * (1 + 0.1 * np.sin(time))) + random.normal(0, 0.02, len(time))
    samples = np.repeat(piece[:, None], channels, axis=1).astype(np.float32)
    source = folder / f"{name}.source.wav"
    with sf.SoundFile(source, "w", rate, channels, "PCM_16") as file:
        for _ in range(seconds // 10):
            file.write(samples)
    found = {}
    for extension, options in FORMATS.items():
        found[extension] = folder / f"{name}.{extension}"
        command = ["ffmpeg", "-v", "error", "-y", "-i", str(source), *options.split(), str(found[extension])]
        subprocess.run(command, check=True)
    return found


def measured(checkouts: list[Path], kind: str, path: Path, runs: int) -> list[tuple[float, int]]:
    """The median in ms for each checkout, and the most MB that its process had, without its decoders."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "voiceproject.settings"}
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM], cwd=checkout, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for checkout in checkouts
    ]  # fmt: skip
    times: list[list[float]] = [[] for _ in programs]
    memory = [0] * len(programs)
    warm = 1 if runs > 3 else 0
    for run in range(runs + warm):
        for number, (program, seconds) in enumerate(zip(programs, times, strict=True)):
            assert program.stdin is not None
            assert program.stdout is not None
            program.stdin.write(f"{kind} {path} {path}.out\n")
            program.stdin.flush()
            took, most = program.stdout.readline().split()
            memory[number] = int(most)
            if run >= warm:
                seconds.append(1000 * float(took))
    for program in programs:
        program.communicate()
    return [(statistics.median(seconds), most) for seconds, most in zip(times, memory, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15, help="of a reference; a song is decoded a fifth as often")
    parser.add_argument("--against", type=Path)
    options = parser.parse_args()
    checkouts = [Path.cwd(), *([options.against] if options.against else [])]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, seconds, rate, channels, runs in (
            ("reference", 10, 48_000, 1, options.runs),
            ("song", 480, 44_100, 2, max(1, options.runs // 5)),
        ):
            for extension, path in made(folder, seconds, rate, channels, kind).items():
                if kind == "song" and extension in ("oga", "opus", "webm"):
                    continue
                found = measured(checkouts, kind, path, runs)
                told = {"what": f"{kind}, {seconds} s, {extension}", "ms": [round(ms, 1) for ms, _ in found]}
                told["mb"] = [most for _, most in found]
                if len(found) > 1:
                    told["ratio"] = round(found[0][0] / found[1][0], 2)
                print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
