"""Measures how well the built-in separator finds the lead, wherever it stands in the stereo image.

    python -m venv bench-venv && bench-venv/bin/pip install -r requirements.txt -r bench/requirements.txt
    apt-get install -y --no-install-recommends neverball-data frozen-bubble-data pingus-data openmpt123
    bench-venv/bin/python -m bench.separation_places [--set tuning|held-out] [--before FILE] [--case NAME]

From the root of the project; about 10 minutes on two idle cores with `--before`. Voices and music are those of
`bench.engine`; for `held-out` (the default), which nothing was tuned on, other voices and other music, downloaded with
apt-get into FOLDER (`--data`) at the first run (60 MB). `--before` names another builtin_separate.py, with its `common`
folder beside it, that is measured in the same run, song by song.

leftover: how much of the true lead is still in the accompaniment, in dB of its own level, by the lead's share in what
is missing from the separated vocal. SDR: energy of the true stem over that of the error, both channels.
`no voice` has no lead: there the level of the "vocal" against the song is given instead of the leftover.
off: what is thought to be left over less what is, mean (lowest to highest): by the script, from the stems alone, and
by both, as a job tells it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
from django.conf import settings
from numpy.typing import NDArray

settings.configure()

from bench.engines import corpus, singing  # noqa: E402 (what follows asks for settings when it is loaded)
from covers import separation  # noqa: E402
from tests.scripts.script_server import ScriptServer  # noqa: E402
from tests.support.recordings import songs  # noqa: E402

Audio = NDArray[np.float64]

RATE = songs.RATE
SCRIPT = singing.SCRIPTS / "builtin_separate.py"
DELAY = round(0.015 * RATE)
SECONDS = 20
INTRO_SHARE = 0.4
# Bars, of the mean: leftover, and how far the vocal's SDR may lie under that of the centred case.
LEFTOVER_BAR, SDR_BAR = -9.0, 3.0
BARRED = ("6 dB", "a side inverted", "voice's side inverted")

HELD_OUT_PACKAGES = ("btanks-data",)
# (speaker, music, seed of the melody, wetness of the room)
TUNING = (
    ("librivox", singing.NEVERBALL + "track1.ogg", 1, 0.12),
    ("en_US_f_Allison", singing.BUBBLE + "frozen-mainzik-1p.ogg", 2, 0.0),
    ("flite rms", singing.PINGUS + "pingus-4.it", 3, 0.12),
    ("flite slt", singing.NEVERBALL + "track3.ogg", 4, 0.2),
    ("hibari", "band", 5, 0.06),
    ("flite awb", singing.NEVERBALL + "track5.ogg", 6, 0.12),
)
HELD_OUT = (
    ("it_IT_m_Carlo", "btanks/data/tunes/nostalgy.ogg", 21, 0.12),
    ("fr_CA_f_June", "btanks/data/tunes/karbofos.ogg", 22, 0.0),
    ("ru_RU_f_IvrvoiceRU", singing.NEVERBALL + "track4.ogg", 23, 0.12),
    ("ktuberling el", "btanks/data/tunes/batterie.ogg", 24, 0.06),
    ("ktuberling uk", "btanks/data/tunes/utrennik.ogg", 25, 0.2),
    ("es_MX_f_Allison", "btanks/data/tunes/gameboy.ogg", 26, 0.12),
    ("asterisk fr", singing.NEVERBALL + "track2.ogg", 27, 0.12),
    ("flite kal16", singing.BUBBLE + "frozen-mainzik-2p.ogg", 28, 0.0),
)


@dataclass(frozen=True)
class Parts:
    """What mixes are made of: `lead` and `other` are dry and mono (n,), `take` is the lead sung once more, `backing`
    is stereo (n, 2) and at -20 LUFS."""

    lead: Audio
    take: Audio
    other: Audio
    backing: Audio
    wet: float
    seed: int


@dataclass(frozen=True)
class Song:
    """The true stems, (n, 2) each; the mix is their sum."""

    vocal: Audio
    backing: Audio

    @property
    def mix(self) -> Audio:
        return self.vocal + self.backing


def placed(parts: Parts, voice: Audio, pan_db: float = 0.0) -> Audio:
    """A dry voice panned so that the left is `pan_db` louder than the right, in the mix's room: (n, 2)."""
    ratio = 10 ** (pan_db / 20)
    sides = np.sqrt(2) * np.array([ratio, 1.0]) / np.hypot(ratio, 1.0)
    return voice[:, None] * sides + room(voice, parts)


def room(voice: Audio, parts: Parts, wet: float | None = None, seconds: float = 0.35) -> Audio:
    """The reverberation alone."""
    wet = parts.wet if wet is None else wet
    return songs.room(voice, parts.seed, wet, seconds) - voice[:, None] if wet else np.zeros((len(voice), 2))


def mixed(parts: Parts, vocal: Audio, backing: Audio | None = None) -> Song:
    vocal = songs.at_loudness(vocal[: len(parts.backing)], -20)
    return Song(vocal, (parts.backing if backing is None else backing)[: len(vocal)])


def flipped(audio: Audio, left: int = 1, right: int = -1) -> Audio:
    return audio * (left, right)


def delayed(audio: Audio, samples: int = DELAY) -> Audio:
    """The right side so much later."""
    out = audio.copy()
    out[samples:, 1], out[:samples, 1] = audio[:-samples, 1], 0
    return out


def whole(change: Callable[[Audio], Audio]) -> Callable[[Parts], Song]:
    def make(parts: Parts) -> Song:
        song = panned(0)(parts)
        return Song(change(song.vocal), change(song.backing))

    return make


def voice_only(change: Callable[[Audio], Audio]) -> Callable[[Parts], Song]:
    return lambda parts: mixed(parts, change(placed(parts, parts.lead)))


def panned(pan_db: float) -> Callable[[Parts], Song]:
    """To the left, and in every second mix to the right."""
    return lambda parts: mixed(parts, placed(parts, parts.lead, pan_db if parts.seed % 2 else -pan_db))


def doubled(parts: Parts) -> Song:
    """Two takes, at the left and at the right."""
    takes = parts.lead, parts.take[: len(parts.lead)]
    return mixed(parts, sum(placed(parts, voice, pan) for voice, pan in zip(takes, (12.0, -12.0), strict=True)))


def reverberant(parts: Parts) -> Song:
    return mixed(parts, parts.lead[:, None] + room(parts.lead, parts, 0.7, 1.6))


def mono(parts: Parts) -> Song:
    song = panned(0)(parts)
    return Song(*(np.repeat(part.mean(axis=1), 2).reshape(-1, 2) for part in (song.vocal, song.backing)))


def no_voice(parts: Parts) -> Song:
    return Song(np.zeros_like(parts.backing), parts.backing)


def long_intro(parts: Parts) -> Song:
    silent = np.zeros(int(INTRO_SHARE * len(parts.backing)))
    return mixed(parts, placed(parts, np.concatenate([silent, parts.lead[: len(parts.backing) - len(silent)]]), 4.5))


def duet(parts: Parts) -> Song:
    """Two singers in turn, each 5 s, and together at the end; one at the left by 5 dB, one at the right."""
    time = np.arange(len(parts.lead)) / RATE
    together = time > time[-1] - 6
    first = parts.lead * ((time % 10 < 5) | together)
    second = parts.other[: len(time)] * ((time % 10 >= 5) | together)
    return mixed(parts, placed(parts, first, 5) + placed(parts, second, -5))


CASES: dict[str, Callable[[Parts], Song]] = {
    "centred": panned(0),
    "3 dB": panned(3),
    "4.5 dB": panned(4.5),
    "6 dB": panned(6),
    "hard side": panned(60),
    "a side inverted": whole(flipped),
    "voice's side inverted": voice_only(flipped),
    "both inverted": whole(lambda audio: flipped(audio, -1, -1)),
    "15 ms delay": whole(delayed),
    "voice's side 15 ms late": voice_only(delayed),
    "doubled wide": doubled,
    "reverb": reverberant,
    "mono": mono,
    "long intro, 4.5 dB": long_intro,
    "duet": duet,
    "no voice": no_voice,
}


def make_parts(choice: tuple[str, str, int, float], people: dict[str, corpus.Speaker], folder: Path) -> Parts:
    who, what, seed, wet = choice
    partner = "flite slt" if who != "flite slt" else "flite rms"
    lead, take, other = (sung(*one, people) for one in ((who, seed), (who, -seed), (partner, seed + 50)))
    if what == "band":
        music = songs.band(len(lead) / RATE, seed)
    else:
        music = singing.load_music(find_music(what, folder), folder)
    start = int(singing.MUSIC_START_SECONDS * RATE)
    music = music[start:] if len(music) >= start + len(lead) else music
    length = min(len(lead), len(take), len(other), len(music))
    backing = songs.at_loudness(music[:length], -20)
    return Parts(*(voice[:length] for voice in (lead, take, other)), backing, wet, seed)


def find_music(what: str, folder: Path) -> Path:
    installed = singing.GAMES / what
    return installed if installed.exists() else folder / "root/usr/share/games" / what


def sung(name: str, seed: int, people: dict[str, corpus.Speaker]) -> Audio:
    """A voice on the melody of that seed: dry, mono, about 26 s. A negative seed is another take of the same melody:
    up to 27 ms later and 26 cents off."""
    if name == "hibari":
        spoken, rate = np.concatenate([songs.speech(line) for line in songs.LINES]), 24000
    else:
        spoken, rate = people[name].held_out.astype(np.float64), corpus.SAMPLE_RATE
    spoken = np.tile(spoken, 3)[: int(singing.SING_SECONDS * rate)]
    voice = songs.at_loudness(songs.sing(spoken, rate, abs(seed)), -20)
    if seed > 0:
        return voice
    time = np.arange(len(voice)) / RATE
    late = 0.015 + 0.012 * np.sin(2 * np.pi * 0.2 * time + abs(seed))
    return np.interp(time - late, time, voice, left=0)


def all_parts(which: str, folder: Path) -> list[Parts]:
    """Of the mixes of a set, kept in `folder` once they are made."""
    choices = TUNING if which == "tuning" else HELD_OUT
    paths = [folder / f"parts-{zlib.crc32(repr(choice).encode()):08x}.npz" for choice in choices]
    missing = [(choice, path) for choice, path in zip(choices, paths, strict=True) if not path.exists()]
    if missing:
        people = {speaker.name: speaker for speaker in corpus.speakers(folder)}
        if which != "tuning":
            people |= {speaker.name: speaker for speaker in corpus.unseen(folder)}
            corpus.fetch(folder, HELD_OUT_PACKAGES)
    for choice, path in missing:
        parts = make_parts(choice, people, folder)
        np.savez(path, **{name: getattr(parts, name) for name in ("lead", "take", "other", "backing")})
    made = []
    for (_, _, seed, wet), path in zip(choices, paths, strict=True):
        with np.load(path) as kept:
            length = int(SECONDS * RATE)
            made.append(Parts(**{name: kept[name][:length] for name in kept.files}, wet=wet, seed=seed))
    return made


Row = tuple[float, float, float, float, float, float]


def measure(song: Song, case: str, server: ScriptServer, work: Path) -> Row:
    """(leftover, or level of the vocal where there is none; SDR of the vocal; of the accompaniment; what is thought to
    be left over by the script, from the stems alone, and by the two together, as a job tells it)."""
    names = {name: work / f"{name}.wav" for name in ("input", "vocal", "inst")}
    sf.write(names["input"], song.mix, RATE, subtype="FLOAT")
    done = server.run(*(part for name, path in names.items() for part in (f"--{name}", str(path))))
    if done.exit_code:
        raise SystemExit(f"{case}: {done.message}")
    estimate = done.separation.get("leftover_db", np.nan)
    vocal, inst = (sf.read(names[name])[0] for name in ("vocal", "inst"))
    accompaniment = songs.sdr(song.backing, inst)
    thought = [separation.examine(names["vocal"], names["inst"], say)[1]["leftover_db"] for say in (None, estimate)]
    own, stems, job = (np.nan if db is None else float(db) for db in (estimate, *thought))
    if case == "no voice":
        return 10 * float(np.log10(np.sum(vocal**2) / np.sum(song.mix**2))), np.nan, accompaniment, own, stems, job
    return songs.leftover_db(song.vocal, vocal), songs.sdr(song.vocal, vocal), accompaniment, own, stems, job


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=("tuning", "held-out"), default="held-out")
    parser.add_argument("--before", type=Path, help="another builtin_separate.py to compare with")
    parser.add_argument("--case", action="append", choices=tuple(CASES), help="only this one; may be repeated")
    parser.add_argument("--mixes", type=int, default=99, help="only the first so many")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "bench-engine")
    options = parser.parse_args()
    scripts = ({"before": options.before.resolve()} if options.before else {}) | {"now": SCRIPT}
    parts = all_parts(options.set, options.data)[: options.mixes]
    print(f"{options.set}, {len(parts)} mixes: mean (worst), dB")
    print("| case | | leftover | vocal SDR | accompaniment SDR | off: its own estimate | the stems' | a job's |")
    print("|---|---|---|---|---|---|---|---|")
    centred = -np.inf
    met = True
    with tempfile.TemporaryDirectory() as work:
        servers = {name: ScriptServer(Path(work), str(script)) for name, script in scripts.items()}
        for case in options.case or CASES:
            rows: dict[str, list[Row]] = {name: [] for name in scripts}
            for one in parts:
                song = CASES[case](one)
                for name, server in servers.items():
                    rows[name].append(measure(song, case, server, Path(work)))
            for name, found in rows.items():
                left, vocal, inst, *told = np.array(found).T
                off = " | ".join(f"{x.mean():.1f} ({x.min():.1f} to {x.max():.1f})" for x in np.array(told) - left)
                print(
                    f"| {case} | {name} | {left.mean():.1f} ({left.max():.1f}) | {vocal.mean():.1f} ({vocal.min():.1f})"
                    f" | {inst.mean():.1f} ({inst.min():.1f}) | {off} |",
                    flush=True,
                )
            left, vocal, *_ = np.array(rows["now"]).T
            if case == "centred":
                centred = float(vocal.mean())
            if case in BARRED:
                met &= bool(left.mean() <= LEFTOVER_BAR and vocal.mean() >= centred - SDR_BAR)
        for server in servers.values():
            server.close()
    singing.verdict(met)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
