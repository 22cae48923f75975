"""Separation and singing conversion of the built-in engine, on made songs, against the bars.

Voices of corpus.py are put on a melody with WORLD, in a small room, over music of Debian's games. The scripts run as
the cover pipeline runs them, one process each, so that time and peak memory are theirs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from bench.engines import corpus, scorers
from tests.support.recordings import songs

Audio = NDArray[np.float64]

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "gpu_scripts"
RATE = songs.RATE
SING_SECONDS = 16.0  # of speech; 1.6 times as long when sung
MUSIC_START_SECONDS = 20.0
PACKAGES = ("neverball-data", "frozen-bubble-data", "pingus-data", "openmpt123")
GAMES = Path("/usr/share/games")
NEVERBALL, BUBBLE, PINGUS = "neverball/bgm/", "frozen-bubble/snd/", "pingus/data/music/"

# (speaker, music, seed of the melody). The bars are for the mean of the first four, all in stereo. The others are
# reported beside them: very wide, purely mono music.
MIXES = (
    ("librivox", NEVERBALL + "track1.ogg", 1),
    ("en_US_f_Allison", BUBBLE + "frozen-mainzik-1p.ogg", 2),
    ("flite rms", PINGUS + "pingus-4.it", 3),
    ("flite slt", NEVERBALL + "track3.ogg", 4),
    ("librivox", BUBBLE + "introzik.ogg", 5),
    ("en_US_f_Allison", NEVERBALL + "track5.ogg", 6),
    ("flite rms", PINGUS + "gd-ite.it", 7),
    ("flite slt", PINGUS + "pingus-1.it", 8),
)
# (who sings, whose voice it becomes, semitones, seed)
CONVERSIONS = (
    ("librivox", "flite rms", 0, 11),
    ("librivox", "en_US_f_Allison", 4, 12),
    ("en_US_f_Allison", "flite slt", 0, 13),
    ("en_US_f_Allison", "librivox", 0, 14),
    ("flite rms", "it_IT_m_Carlo", 0, 15),
    ("flite slt", "fr_CA_f_June", 0, 16),
    ("flite slt", "librivox", -5, 17),
    ("flite rms", "en_US_f_Allison", 0, 18),
)

METER = """
import resource, subprocess, sys, time
started = time.perf_counter()
code = subprocess.call([sys.executable, *sys.argv[1:]], stdout=subprocess.DEVNULL)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
sys.exit(code)
"""


@dataclass(frozen=True)
class Cost:
    """What one command took: wall time, and time of all cores together, over the duration of its audio; peak memory."""

    rtf: float
    cores: float
    megabytes: float


def run(folder: Path) -> bool:
    """Prints the tables; whether all bars are met. Takes about 15 minutes on two idle cores."""
    if any(not (GAMES / what).exists() for _, what, _ in MIXES) or shutil.which("openmpt123") is None:
        raise SystemExit("The music is not here: apt-get install -y --no-install-recommends " + " ".join(PACKAGES))
    people = {speaker.name: speaker for speaker in corpus.speakers(folder)}
    work = folder / "singing"
    work.mkdir(parents=True, exist_ok=True)
    met = separation(people, work)
    met &= conversion(people, work)
    met &= long_songs(people, work)
    return met


def separation(people: dict[str, corpus.Speaker], work: Path) -> bool:
    print("## separation  (bars, mean of the first four: vocal >= +7.5 dB, accompaniment >= +6 dB over the mixture)")
    print(f"{'voice':16} {'music':28} {'side':>6} {'vocal':>6} {'gain':>6} {'accomp':>6} {'gain':>6} {'RTF':>5}")
    gains = []
    for who, what, seed in MIXES:
        mix, vocal, backing = make_mix(people[who], GAMES / what, seed, work)
        stems = work / "vocal.wav", work / "inst.wav"
        cost = separate(mix, work / "song.wav", *stems)
        got_vocal, got_backing = (sf.read(path)[0] for path in stems)
        before, after = songs.sdr(vocal, mix), songs.sdr(vocal, got_vocal)
        before_inst, after_inst = songs.sdr(backing, mix), songs.sdr(backing, got_backing)
        gains.append((after - before, after_inst - before_inst))
        side = 20 * np.log10((np.std(backing[:, 0] - backing[:, 1]) + 1e-9) / np.std(backing.sum(axis=1)))
        print(
            f"{who:16} {what:28} {side:6.1f} {after:6.2f} {after - before:+6.2f} {after_inst:6.2f} "
            f"{after_inst - before_inst:+6.2f} {cost.rtf:5.2f}",
            flush=True,
        )
    first, every = np.mean(gains[:4], axis=0), np.mean(gains, axis=0)
    print(f"mean gain of the first four {first[0]:+.2f} {first[1]:+.2f}, of all {every[0]:+.2f} {every[1]:+.2f}")
    return verdict(bool(first[0] >= 7.5 and first[1] >= 6.0))


def conversion(people: dict[str, corpus.Speaker], work: Path) -> bool:
    print("## singing  (bars: F0 median error <= 10 cents, envelope r >= .93, duration within 20 ms)")
    print(
        f"{'singer':16} {'becomes':16} {'st':>3} {'cents':>6} {'<50c':>5} {'env r':>6} {'ms':>4} "
        f"{'VF':>6} {'gain':>6} {'Res':>6} {'gain':>6} {'RTF':>5}"
    )
    rows = []
    for who, whose, semitones, seed in CONVERSIONS:
        vocal = make_vocal(people[who], seed)
        target = people[whose]
        sf.write(work / "reference.wav", target.reference, corpus.SAMPLE_RATE)
        cost = infer(np.stack([vocal, vocal], axis=1), work, semitones)
        sung = sf.read(work / "out.wav")[0][:, 0]
        cents, close = pitch_error(vocal, sung, semitones)
        envelope = float(np.corrcoef(loudness(vocal), loudness(sung[: len(vocal)]))[0, 1])
        late = 1000 * abs(len(sung) - len(vocal)) / RATE
        likeness = [
            scorers.cosine(encoder(x.astype(np.float32), RATE), encoder(target.held_out, corpus.SAMPLE_RATE))
            for encoder in (scorers.voicefilter, scorers.resemblyzer)
            for x in (vocal, sung)
        ]
        gains = likeness[1] - likeness[0], likeness[3] - likeness[2]
        rows.append((cents, close, envelope, late, likeness[1], gains[0], likeness[3], gains[1], cost.rtf))
        print(f"{who:16} {whose:16} {semitones:+3d} " + _figures(rows[-1]), flush=True)
    table = np.array(rows)
    print(f"{'mean':37} " + _figures(tuple(table.mean(axis=0))))
    return verdict(bool(table[:, 0].max() <= 10 and table[:, 2].min() >= 0.93 and table[:, 3].max() <= 20))


def long_songs(people: dict[str, corpus.Speaker], work: Path) -> bool:
    """Time and memory of both scripts on 4 minutes, and of both on 8 minutes (the longest song that is taken)."""
    print("## long songs  (bars: 4 min separated in <= 1200 MB at RTF <= .5; infer RTF <= .8; 8 min under 1500 MB)")
    mix, _, _ = make_mix(people["en_US_f_Allison"], GAMES / MIXES[1][1], 2, work)
    sf.write(work / "reference.wav", people["librivox"].reference, corpus.SAMPLE_RATE)
    met = True
    for minutes in (4, 8):
        length = minutes * 60 * RATE
        long = np.tile(mix, (length // len(mix) + 1, 1))[:length]
        apart = separate(long, work / "song.wav", work / "vocal.wav", work / "inst.wav")
        sung = infer(sf.read(work / "vocal.wav")[0], work, 0)
        print(
            f"{minutes} min: separate RTF {apart.rtf:.2f} (cores {apart.cores:.2f}), {apart.megabytes:.0f} MB; "
            f"infer RTF {sung.rtf:.2f} (cores {sung.cores:.2f}), {sung.megabytes:.0f} MB",
            flush=True,
        )
        limit = 1200 if minutes == 4 else 1500
        met &= apart.megabytes <= limit and sung.megabytes <= limit and apart.rtf <= 0.5 and sung.rtf <= 0.8
    return verdict(met)


def make_vocal(speaker: corpus.Speaker, seed: int, seconds: float = SING_SECONDS) -> Audio:
    """The speaker's held-out speech, sung: mono at 44.1 kHz."""
    speech = np.tile(speaker.held_out, 3)[: int(seconds * corpus.SAMPLE_RATE)].astype(np.float64)
    return songs.at_loudness(songs.sing(speech, corpus.SAMPLE_RATE, seed), -20)


def make_mix(speaker: corpus.Speaker, music: Path, seed: int, work: Path) -> tuple[Audio, Audio, Audio]:
    """(mix, vocal, accompaniment), stereo (n, 2), both parts at -20 LUFS."""
    vocal = songs.room(make_vocal(speaker, seed))
    backing = load_music(music, work)
    start = int(MUSIC_START_SECONDS * RATE)
    backing = backing[start:] if len(backing) >= start + len(vocal) else backing
    length = min(len(vocal), len(backing))
    vocal, backing = songs.at_loudness(vocal[:length], -20), songs.at_loudness(backing[:length], -20)
    return vocal + backing, vocal, backing


def load_music(path: Path, work: Path) -> Audio:
    """Stereo at 44.1 kHz. Modules are rendered once with openmpt123."""
    if path.suffix != ".ogg":
        rendered = work / f"{path.name}.wav"
        if not rendered.exists():
            command = ["openmpt123", "--batch", "-q", "--samplerate", "44100", "--channels", "2", "-o", str(rendered)]
            subprocess.run([*command, str(path)], check=True, capture_output=True)
        path = rendered
    samples, rate = sf.read(path, always_2d=True)
    return samples if rate == RATE else np.asarray(soxr.resample(samples, rate, RATE))


def separate(mix: Audio, song: Path, vocal: Path, inst: Path) -> Cost:
    sf.write(song, mix, RATE, subtype="FLOAT")
    arguments = ["--input", str(song), "--vocal", str(vocal), "--inst", str(inst)]
    return measured([str(SCRIPTS / "builtin_separate.py"), *arguments], len(mix) / RATE)


def infer(vocal: Audio, work: Path, semitones: int) -> Cost:
    sf.write(work / "input.wav", vocal, RATE, subtype="FLOAT")
    files = ["--reference", str(work / "reference.wav"), "--input", str(work / "input.wav")]
    arguments = [*files, "--output", str(work / "out.wav"), "--pitch", str(semitones)]
    return measured([str(SCRIPTS / "builtin_infer.py"), *arguments], len(vocal) / RATE)


def measured(arguments: list[str], seconds: float) -> Cost:
    """Runs a script; SystemExit where it fails.

    Between this process and the script's stands a small one: Linux counts what a process held before `exec` into its
    peak, which would be this one's songs.
    """
    done = subprocess.run([sys.executable, "-c", METER, *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{arguments[0]} ended with {done.returncode}")
    elapsed, busy, kilobytes = map(float, done.stdout.split())
    return Cost(elapsed / seconds, busy / seconds, kilobytes / 1024)


def pitch_error(before: Audio, after: Audio, semitones: float) -> tuple[float, float]:
    """Median error in cents against the melody moved by `semitones`, and the share of frames within 50 cents."""
    first, second = (songs.pitch_track(soxr.resample(x, RATE, 24000), 24000) for x in (before, after))
    length = min(len(first), len(second))
    first, second = first[:length], second[:length]
    both = (first > 0) & (second > 0)
    cents = np.abs(1200 * np.log2(second[both] / first[both]) - 100 * semitones)
    return float(np.median(cents)), float(np.mean(cents < 50))


def loudness(samples: Audio) -> Audio:
    """Root mean square over 20 ms, every 5 ms."""
    return np.sqrt(np.convolve(samples**2, np.ones(882) / 882, mode="same")[::220])


def verdict(met: bool) -> bool:
    print("bars met\n" if met else "BARS MISSED\n", flush=True)
    return met


def _figures(row: tuple[float, ...]) -> str:
    cents, close, envelope, late, vf, vf_gain, res, res_gain, rtf = row
    return (
        f"{cents:6.1f} {close:5.2f} {envelope:6.3f} {late:4.0f} {vf:6.3f} {vf_gain:+6.3f} {res:6.3f} {res_gain:+6.3f} "
        f"{rtf:5.2f}"
    )
