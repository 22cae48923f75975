"""Real speech to measure with: speakers from Debian packages, fetched with apt and unpacked without installing."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

SAMPLE_RATE = 24000
REFERENCE_SECONDS = 10.0
HELD_OUT_SECONDS = 40.0

PACKAGES = (
    "asterisk-core-sounds-en-g722",
    "asterisk-core-sounds-es-g722",
    "asterisk-core-sounds-fr-g722",
    "asterisk-core-sounds-it-g722",
    "asterisk-core-sounds-ru-g722",
    "pocketsphinx-testdata",
    "flite",
    "libflite1",
)

# Of these nothing was ever tuned on: amateurs who say single words into their own microphones, and telephone prompts.
UNSEEN_PACKAGES = (
    "ktuberling-data",
    "asterisk-prompt-es-co",
    "asterisk-prompt-fr-armelle",
    "asterisk-prompt-it-menardi-wav",
)

# Of these nothing was run before the figures of a release: the narrators of Unknown Horizons (its team; CC BY-SA
# 3.0) in English, German and French, with 5 to 8 s for a reference, and voices of Hedgewars (its players; GFDL 1.3),
# two of them acted.
NEW_PACKAGES = ("unknown-horizons", "hedgewars-data")

# What the speech synthesisers among the speakers say (the ten sentences of the flite and festival test pages' kind).
FLITE_TEXT = (
    "He knew the skill of the great young actress. Wild geese fly north in the spring of the year.",
    "Her purse was full of useless trash. The two met while playing on the sand near the pier.",
    "The ink stain dried on the finished page. The walled town was seized without a fight.",
    "The lease ran out in sixteen weeks. A tame squirrel makes a nice pet for any child.",
    "The horn of the car woke the sleeping cop. The heart beat strongly and with firm strokes.",
    "The pearl was worn in a thin silver ring. The fruit peel was cut in thick slices.",
    "The navy attacked the big task force. See the cat glaring at the scared mouse.",
    "There are more than two factors here. The hat brim was wide and too droopy.",
)


@dataclass(frozen=True)
class Speaker:
    """reference: about 10 s; held_out: other speech of the same speaker; both float32 mono at 24 kHz.

    text, said: sentences and the same speaker saying them (not in the reference), where somebody has written them down.
    """

    name: str
    reference: NDArray[np.float32]
    held_out: NDArray[np.float32]
    transcript: str | None
    text: str = ""
    said: NDArray[np.float32] | None = None


def fetch(folder: Path, packages: tuple[str, ...] = PACKAGES) -> Path:
    """Downloads and unpacks the packages once; the root of the unpacked tree. Needs apt-get and dpkg."""
    root = folder / "root"
    for package in packages:
        mark = folder / f"{package}.unpacked"
        if mark.exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", package], cwd=folder, check=True, capture_output=True)
        archive = next(folder.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg", "-x", str(archive), str(root)], check=True)
        archive.unlink()
        mark.touch()
    return root


def speakers(folder: Path) -> list[Speaker]:
    root = fetch(folder)
    sounds = root / "usr/share/asterisk/sounds"
    found = [_asterisk(sounds / name, name) for name in (
        "en_US_f_Allison", "fr_CA_f_June", "es_MX_f_Allison", "it_IT_m_Carlo", "ru_RU_f_IvrvoiceRU"
    )]  # fmt: skip
    found.append(_librivox(root / "usr/share/pocketsphinx/test/data/librivox"))
    return found + [_flite(root, folder, voice) for voice in ("rms", "slt", "awb", "kal16")]


def unseen(folder: Path) -> list[Speaker]:
    """Eight people of ktuberling, in as many languages, and three of telephone prompts at 8 kHz."""
    root = fetch(folder, UNSEEN_PACKAGES) / "usr/share"
    words = [root / "ktuberling/sounds" / language for language in ("ca", "el", "fr", "gl", "nn", "sl", "uk", "wa")]
    prompts = [root / "asterisk/sounds" / name for name in ("es", "fr", "it_IT_f_Menardi")]
    return [_clips(place) for place in words + prompts]


def new(folder: Path) -> list[Speaker]:
    """Three narrators and four players."""
    root = fetch(folder, NEW_PACKAGES) / "usr/share"
    told = root / "unknown-horizons/content/audio/voice"
    played = root / "games/hedgewars/Data/Sounds/voices"
    narrators = [_story(told / language / "0/new_world", f"narrator {language}") for language in ("en", "de", "fr")]
    return narrators + [_clips(played / name) for name in ("British", "Mobster", "Default_es", "Default_uk")]


GROUPS = {"known": speakers, "checked": unseen, "new": new}


def load(path: Path) -> NDArray[np.float32]:
    """Any audio file as mono at 24 kHz."""
    if path.suffix in (".g722", ".gsm"):
        with av.open(str(path), format=path.suffix[1:]) as container:
            blocks = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
        samples, rate = np.concatenate(blocks).astype(np.float32) / 32768, 16000 if path.suffix == ".g722" else 8000
    else:
        channels, rate = sf.read(path, dtype="float32", always_2d=True)
        samples = channels.mean(axis=1)
    return soxr.resample(samples, rate, SAMPLE_RATE).astype(np.float32)


def _asterisk(folder: Path, name: str) -> Speaker:
    """The reference is a few middle-sized prompts, the held-out speech others of them."""
    files = sorted(folder.glob("*.g722"), key=lambda f: (-f.stat().st_size, f.name))
    files = [f for f in files if 3.5 * 8000 < f.stat().st_size < 12 * 8000 and "conf" not in f.name]
    reference = _join(files[::2], REFERENCE_SECONDS)
    return Speaker(name, reference, _join(files[1::2], HELD_OUT_SECONDS), None)


def _clips(folder: Path) -> Speaker:
    """A folder of words or prompts: the longest ones under 6 s, every second for the reference."""
    files = [f for f in folder.iterdir() if f.suffix in (".ogg", ".opus", ".gsm", ".wav")]
    by_size = sorted(files, key=lambda f: (-f.stat().st_size, f.name))
    short = list(islice((f for f in by_size if len(load(f)) < 6 * SAMPLE_RATE), 60))
    name = f"{folder.parent.parent.name} {folder.name}"
    return Speaker(name, _join(short[::2], REFERENCE_SECONDS), _join(short[1::2], HELD_OUT_SECONDS), None)


def _story(folder: Path, name: str) -> Speaker:
    """A few sentences, about 15 s in all: every second one is the reference, the others are held out."""
    files = sorted(folder.glob("*.ogg"))
    return Speaker(name, _join(files[::2], REFERENCE_SECONDS), _join(files[1::2], HELD_OUT_SECONDS), None)


def _librivox(folder: Path) -> Speaker:
    texts = {}
    for line in (folder / "transcription").read_text().splitlines():
        words, _, name = line.rpartition(" ")
        texts[name.strip("()")] = words.removeprefix("<s> ").removesuffix(" </s>")
    names = sorted(texts)
    first = [names[0], names[1]]
    return Speaker(
        "librivox",
        _join([folder / f"{n}.wav" for n in first], REFERENCE_SECONDS),
        _join([folder / f"{n}.wav" for n in names[2:]], HELD_OUT_SECONDS),
        ". ".join(texts[n] for n in first) + ".",
        ". ".join(texts[n] for n in names[2:]) + ".",
        _join([folder / f"{n}.wav" for n in names[2:]], 60),
    )


def _flite(root: Path, folder: Path, voice: str) -> Speaker:
    libraries = next((root / "usr/lib").glob("*/libflite.so.1")).parent
    clips = []
    for number, text in enumerate(FLITE_TEXT):
        path = folder / f"flite-{voice}-{number}.wav"
        if not path.exists():
            subprocess.run(
                [str(root / "usr/bin/flite"), "-voice", voice, "-t", text, "-o", str(path)],
                check=True,
                env={**os.environ, "LD_LIBRARY_PATH": str(libraries)},
            )
        clips.append(path)
    return Speaker(
        f"flite {voice}",
        _join(clips[:2], 60),
        _join(clips[2:], 60),
        " ".join(FLITE_TEXT[:2]),
        " ".join(FLITE_TEXT[2:4]),
        _join(clips[2:4], 60),
    )


def _join(files: list[Path], seconds: float) -> NDArray[np.float32]:
    """Whole files, one after another, until `seconds` are reached."""
    gap = np.zeros(int(0.2 * SAMPLE_RATE), np.float32)
    parts: list[NDArray[np.float32]] = []
    for path in files:
        if sum(map(len, parts)) >= seconds * SAMPLE_RATE * 0.85:
            break
        parts += [load(path), gap]
    return np.concatenate(parts)
