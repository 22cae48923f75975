"""Measures whether it is found that somebody sings, words or none, and that nobody does.

    python -m venv bench-venv && bench-venv/bin/pip install -r requirements.txt -r bench/requirements.txt
    apt-get install -y --no-install-recommends neverball-data frozen-bubble-data pingus-data openmpt123 fluidsynth
    bench-venv/bin/python -m bench.voice_detection [--data FOLDER] [--only KIND]

From the root of the project; about ten minutes. Voices are those of `bench.engine`, put on melodies: their words, a
held vowel (`ah`, `oo`: one frame of the voice, the lips open or round) and a hum (that frame through closed lips).
Instruments are played by FluidSynth from Debian's fluid-soundfont-gm, which is downloaded into FOLDER (120 MB). All are
leads over the same band, as loud as it, in 16 s of stereo. Music is that of the games, without a lead of ours.

For each kind: how many are taken for words, for a melody that may be sung, and for nobody, from the stems of the
built-in separator, and from the true ones. Exit status 1 where a voice is taken for nobody, or music for words.
"""

from __future__ import annotations

import argparse
import collections
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyworld
import soundfile as sf
import soxr

from bench.engines import corpus, singing
from tests.scripts.script_server import ScriptServer
from tests.support.recordings import songs
from voices.engines.builtin import voice_activity

Audio = np.ndarray
RATE = songs.RATE
SECONDS = 16
FONT = "usr/share/sounds/sf2/FluidR3_GM.sf2"
PROGRAMS = {
    "keys and plucked": (0, 4, 11, 19, 24, 46),
    "guitars and synths": (29, 30, 80, 81),
    "bowed strings": (40, 41, 42, 48, 110),
    "wind": (56, 57, 59, 60, 64, 65, 66, 68, 71, 73, 74, 75, 78, 79, 109, 111),
    "sampled choirs": (52, 53, 54),
}
# Hz around which most of a vowel's energy lies, to choose its frame by
VOWELS = {"ah": 900.0, "oo": 350.0, "hum": 300.0}
FRAME_SECONDS = 0.005
NOBODY, VOICES = ("keys and plucked", "guitars and synths", "music"), ("words", *VOWELS)


def vocalise(spoken: Audio, rate: int, vowel: str, seed: int) -> Audio:
    """One frame of a voice, held on a melody with breaths: mono at RATE."""
    x = np.ascontiguousarray(spoken, np.float64)
    f0, times = pyworld.harvest(x, rate)
    spectrum, aperiodicity = pyworld.cheaptrick(x, f0, times, rate), pyworld.d4c(x, f0, times, rate)
    hz = np.linspace(0, rate / 2, spectrum.shape[1])
    level = np.log(spectrum.sum(axis=1))
    loud = np.flatnonzero((f0 > 0) & (level > np.percentile(level[f0 > 0], 70)))
    heard = spectrum[loud][:, hz < 4000]
    frame = loud[np.argmin(np.abs(heard @ hz[hz < 4000] / heard.sum(axis=1) - VOWELS[vowel]))]
    envelope = spectrum[frame]
    if vowel == "hum":
        envelope = envelope * np.maximum(hz / 250, 1) ** -4 * (1 - 0.9 * np.exp(-(((hz - 900) / 250) ** 2)))
    notes = np.repeat(songs.melody(SECONDS / 2, float(np.median(f0[f0 > 0])) * 0.94, seed), 2)
    at = np.arange(len(notes)) * FRAME_SECONDS
    breath = at % 4.1 > 3.6
    loudness = np.where(breath, 1e-6, 1 + 0.25 * np.sin(2 * np.pi * 0.4 * at + seed)) ** 2
    held = loudness[:, None] * envelope
    sung = pyworld.synthesize(np.where(breath, 0, notes), held, np.repeat(aperiodicity[frame][None], len(at), 0), rate)
    return np.asarray(soxr.resample(sung, rate, RATE))


def played(program: int, font: Path, work: Path) -> Audio:
    """A melody on an instrument of General MIDI: mono at RATE."""
    rng = np.random.default_rng(program)
    events, at, degree = bytes([0, 0xC0, program]), 0, 2
    while at < SECONDS * 1000:
        length = int(rng.uniform(350, 1100))
        degree = int(np.clip(degree + rng.integers(-2, 3), 0, 7))
        note, force = 60 + songs.MAJOR[degree], int(rng.integers(80, 110))
        events += bytes([0, 0x90, note, force, 0x80 | length >> 7, length & 0x7F, 0x80, note, 0])
        at += length
    events += b"\0\xff\x2f\0"
    midi, wav = work / "notes.mid", work / "notes.wav"
    midi.write_bytes(b"MThd" + struct.pack(">IHHH", 6, 0, 1, 500) + b"MTrk" + struct.pack(">I", len(events)) + events)
    command = ["fluidsynth", "-ni", "-F", str(wav), "-r", str(RATE), "-g", "0.6", str(font), str(midi)]
    subprocess.run(command, check=True, capture_output=True)
    return np.asarray(sf.read(wav, always_2d=True)[0].mean(axis=1))


def leads(kinds: list[str], folder: Path, work: Path) -> Iterator[tuple[str, Audio | None, Audio]]:
    """(kind, lead as mono or None, its band (n, 2))"""
    band = songs.at_loudness(songs.band(SECONDS, 3), -20)
    voices = [kind for kind in VOICES if kind in kinds]
    for seed, speaker in enumerate(corpus.speakers(folder) if voices else []):
        spoken = speaker.held_out.astype(np.float64)[: 12 * corpus.SAMPLE_RATE]
        for kind in voices:
            if kind == "words":
                yield kind, songs.sing(np.tile(spoken, 2), corpus.SAMPLE_RATE, seed), band
            else:
                yield kind, vocalise(spoken, corpus.SAMPLE_RATE, kind, 100 + seed), band
    for kind in (kind for kind in PROGRAMS if kind in kinds):
        font = corpus.fetch(folder, ("fluid-soundfont-gm",)) / FONT
        for program in PROGRAMS[kind]:
            yield kind, played(program, font, work), band
    for _, what, _ in singing.MIXES if "music" in kinds else ():
        music = singing.load_music(singing.GAMES / what, work)
        start = int(singing.MUSIC_START_SECONDS * RATE)
        yield "music", None, songs.at_loudness(music[start : start + SECONDS * RATE], -20)


def stems(mix: Audio, server: ScriptServer, work: Path) -> list[Audio]:
    names = [work / f"{name}.wav" for name in ("input", "vocal", "inst")]
    sf.write(names[0], mix, RATE, subtype="FLOAT")
    done = server.run("--input", str(names[0]), "--vocal", str(names[1]), "--inst", str(names[2]))
    if done.exit_code:
        raise SystemExit(done.message)
    return [voice_activity.read(name) for name in names[1:]]


def low(stereo: Audio) -> Audio:
    return np.asarray(soxr.resample(stereo, RATE, voice_activity.SAMPLE_RATE), np.float32)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "bench-engine")
    kinds = [*VOICES, *PROGRAMS, "music"]
    parser.add_argument("--only", choices=kinds, help="one kind")
    options = parser.parse_args()
    counts: dict[tuple[str, str], collections.Counter[str]] = collections.defaultdict(collections.Counter)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        server = ScriptServer(work, str(singing.SCRIPTS / "builtin_separate.py"))
        for kind, lead, band in leads([options.only] if options.only else kinds, options.data, work):
            pairs: dict[str, list[Audio]] = {}
            if lead is not None:
                voice = songs.at_loudness(songs.room(lead[: len(band)]), -20)
                band = band[: len(voice)]
                pairs["true"] = [low(voice), low(band)]
            pairs["separated"] = stems(band if lead is None else voice + band, server, work)
            for which, (vocal, rest) in pairs.items():
                found = voice_activity.detect(voice_activity.mono(vocal), voice_activity.mono(rest))
                counts[kind, which][found.heard] += 1
        server.close()
    print("| lead | stems | words | melody | nobody |\n|---|---|---|---|---|")
    for (kind, which), count in counts.items():
        print(
            f"| {kind} | {which} | " + " | ".join(str(count[heard]) for heard in ("words", "melody", "nobody")) + " |"
        )
    missed = sum(counts[kind, which]["nobody"] for kind in VOICES for which in ("true", "separated"))
    taken = sum(counts[kind, which]["words"] for kind in NOBODY for which in ("true", "separated"))
    singing.verdict(missed == taken == 0)
    return int(missed + taken > 0)


if __name__ == "__main__":
    sys.exit(main())
