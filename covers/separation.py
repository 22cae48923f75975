"""What the stems of a song tell of its separation: where somebody sings, and how well the lead was found.

Only stems are looked at, so that it works alike for whatever has separated them.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
from django.utils.translation import gettext_noop
from numpy.typing import NDArray

from voices.engines.builtin import voice_activity
from voices.engines.builtin.voice_activity import FRAME, SAMPLE_RATE, Activity, Float32

# Part of what stems are known by: stems that an older release has stored are not taken for those of this one.
VERSION = 1

BLOCK_FRAMES = 65_536
FFT = 2048
BIN_GROUP = 2
PARTIALS = 24
HIGHEST_HZ = 3500.0
RUN_FRAMES = 500

# A stem with less of the song's energy is what is left of a voice that was not found.
LEAST_SHARE = 0.003
# The old singer is heard above this: 0 is as loud as the new one.
LEFT_DB = -10.0
FAINT_SHARE = 0.02
# A recording of a bare voice has a pitch for at least so long.
PITCHED_SECONDS = 0.5

NO_VOCALS = gettext_noop(
    "No singing was found in the song. Send on_no_vocals=convert if somebody sings all the same, or on_no_vocals=keep "
    "to get it back as it is. If it is a bare voice, send input_kind=vocals, and its accompaniment in instrumental."
)
NOT_SEPARATED = gettext_noop(
    "A voice is heard in the song, but the separation did not get hold of it. Separate it with another separator, and "
    "send the voice with input_kind=vocals and the accompaniment in instrumental."
)
KEPT = gettext_noop("No singing was found, so that nothing was converted: the result is the song as it was sent.")
KEPT_NOT_SEPARATED = gettext_noop(
    "A voice is heard in the song, but the separation did not get hold of it, so that nothing was converted: the "
    "result is the song as it was sent."
)
NOT_RECOGNISED = gettext_noop(
    "No words were recognised in the song. It was converted all the same, since input_kind=vocals says that it is a "
    "bare voice."
)
MELODY = gettext_noop(
    "No words were recognised, but a melody that may be sung: it was converted. If an instrument plays it, nobody "
    "sings. If the wrong part was taken, send the voice with input_kind=vocals and the accompaniment in instrumental."
)
CONVERTED = gettext_noop(
    "No singing was found. All of the vocal stem was converted, as on_no_vocals=convert asks. To choose what is sung, "
    "send the voice with input_kind=vocals and the accompaniment in instrumental."
)
LEFT = gettext_noop(
    "The old singer is still heard in the accompaniment, at about %s dB. Separate the song with another separator, and "
    "send the voice with input_kind=vocals and the accompaniment in instrumental."
)
OTHER_VOICE = gettext_noop(
    "A voice is still heard in the accompaniment: backing singers, or a part of the lead. If it should go, separate "
    "the song with another separator, and send the voice with input_kind=vocals and the accompaniment in instrumental."
)
FAINT = gettext_noop(
    "The voice that was found is faint: %s %% of the song. If it is not all of the lead, separate the song with "
    "another separator, and send the voice with input_kind=vocals and the accompaniment in instrumental."
)

OTHER_KEY = gettext_noop(
    "The melody was moved by %d semitones and the accompaniment was not: they are in different keys. Send "
    "shift_instrumental=true, or a pitch_shift of 0, 12 or -12."
)
LENGTHS = gettext_noop(
    "The song is %.2f s long and the instrumental %.2f s. Both begin at 0; the shorter one goes on with silence."
)

Warnings = list[dict[str, str]]


def warning(code: str, message: str) -> dict[str, str]:
    return {"code": code, "message": message}


def examine(vocals: Path, instrumental: Path, told_db: object = None) -> tuple[Activity, dict[str, Any]]:
    """Where somebody sings, and what a job tells as `details.separation`. Both are WAVs of one length.

    heard: words, melody (which may be sung, or an instrument's) or nobody; place: centre, left, right, inverted (the
    sides have opposite signs) or wide; lead_share: of the song's energy; leftover_db: the lead that is left in the
    accompaniment, over all of the lead, None where that is not known; sung_seconds; voice_left: whether a voice is
    heard in the accompaniment alone. told_db: what the separator itself thinks is left over, if it says so. It hears
    another singer whom the stems alone do not show, and errs elsewhere.
    """
    voice, rest = voice_activity.read(vocals), voice_activity.read(instrumental)
    length = min(len(voice), len(rest))
    voice, rest = voice[:length], rest[:length]
    activity = voice_activity.detect(voice_activity.mono(voice), voice_activity.mono(rest))
    own, other = (float(np.vdot(x, x)) for x in (voice, rest))
    left = _leftover_db(voice, rest, activity) if activity.seconds else None
    if left is not None and isinstance(told_db, float) and math.isfinite(told_db):
        left = 10 * math.log10((10 ** (left / 10) + 10 ** (min(told_db, 0.0) / 10)) / 2)
    return activity, {
        "heard": activity.heard,
        "place": _place(voice),
        "lead_share": round(own / (own + other), 4) if own + other else 0.0,
        "leftover_db": None if left is None else round(left, 1),
        "sung_seconds": round(activity.seconds, 2),
        "voice_left": voice_activity.heard(rest),
    }


def lead_found(found: dict[str, Any]) -> bool:
    """Whether the vocal stem holds a voice, or may, and not just the rest of one. found: as `examine` tells it."""
    heard = found.get("heard", "words")  # Jobs of older releases say nothing of it.
    if heard == "nobody" or (found["lead_share"] < LEAST_SHARE and found["voice_left"]):
        return False
    return heard == "words" or not found["voice_left"]


def warnings_of(found: dict[str, Any]) -> Warnings:
    """What somebody should know of such stems. found: as `examine` tells it, of a song that is converted."""
    unsure = {"melody": MELODY, "nobody": CONVERTED}.get(found.get("heard", ""))
    told = [warning("voice_not_recognised", unsure)] if unsure else []
    left = found.get("leftover_db")
    if left is not None and left > LEFT_DB:
        told.append(warning("lead_left", LEFT % f"{left:.0f}"))
    elif found.get("voice_left"):
        told.append(warning("voice_left", OTHER_VOICE))
    elif found.get("lead_share", 1.0) < FAINT_SHARE:
        told.append(warning("lead_faint", FAINT % f"{100 * found['lead_share']:.1f}"))
    return told


def silence_elsewhere(vocals: Path, instrumental: Path, activity: Activity) -> None:
    """Leaves in `vocals` only what is sung, with smooth edges, and gives the rest of it back to `instrumental`.

    Both become float32 WAVs; their sum stays what it was.
    """
    halves = [path.with_suffix(".gated") for path in (vocals, instrumental)]
    with sf.SoundFile(vocals) as voice, sf.SoundFile(instrumental) as rest:
        channels = max(voice.channels, rest.channels)
        rate = voice.samplerate
        with (
            sf.SoundFile(halves[0], "w", rate, channels, "FLOAT", format="WAV") as voice_out,
            sf.SoundFile(halves[1], "w", rate, channels, "FLOAT", format="WAV") as rest_out,
        ):
            at = 0
            while len(block := voice.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                other = rest.read(len(block), dtype="float32", always_2d=True)
                gain = voice_activity.gains(activity.sung, at, len(block), rate)[:, None]
                # A stem of one channel stands on both sides.
                voice_out.write(np.broadcast_to(block * gain, (len(block), channels)))
                rest_out.write(np.broadcast_to(other + block * (1 - gain), (len(block), channels)))
                at += len(block)
    for path, half in zip((vocals, instrumental), halves, strict=True):
        half.replace(path)


def _place(voice: Float32) -> str:
    left, right = np.ascontiguousarray(voice.T)
    own_left, own_right, cross = (
        float(np.vdot(one, two)) for one, two in ((left, left), (right, right), (left, right))
    )
    if own_left + own_right == 0:
        return "centre"
    balance = 10 * math.log10((own_left + 1e-12) / (own_right + 1e-12))
    if abs(balance) > 2.0:
        return "left" if balance > 0 else "right"
    likeness = cross / math.sqrt(own_left * own_right + 1e-24)
    return "inverted" if likeness < -0.5 else "centre" if likeness > 0.5 else "wide"


def _leftover_db(voice: Float32, rest: Float32, activity: Activity) -> float | None:
    """How much of the lead is in the accompaniment, over all of it, in dB at most 0.

    On the singer's partials, where the accompaniment has what the voice has, at a fixed ratio and phase a frequency,
    that is the lead: of other instruments the phases differ. Sides count alike, so that panned and delayed leads do.
    """
    frames = np.flatnonzero(activity.sung & (activity.pitch_hz > 0))
    groups = (FFT // 2 + 1) // BIN_GROUP
    lead = voice_activity.mono(voice)
    in_rest, in_voice = np.zeros((2, groups), complex), np.zeros((2, groups), complex)
    power, count, rest_power = np.zeros(groups), np.zeros(groups), np.zeros((2, groups))
    window = np.hanning(FFT).astype(np.float32)
    for start in range(0, len(frames), RUN_FRAMES):
        chosen = frames[start : start + RUN_FRAMES]
        spectrum, *sides = (_spectra(x, chosen, window) for x in (lead, *voice.T, *rest.T))
        for partial in range(1, PARTIALS + 1):
            hz = activity.pitch_hz[chosen] * partial
            row = np.flatnonzero(hz < HIGHEST_HZ)
            nearest = np.round(hz[row] * FFT / SAMPLE_RATE).astype(int)
            for bin_ in (nearest - 1, nearest, nearest + 1):
                group = np.minimum(bin_ // BIN_GROUP, groups - 1)
                of_lead = spectrum[row, bin_]
                power += np.bincount(group, np.abs(of_lead) ** 2, groups)
                count += np.bincount(group, minlength=groups)
                for side in (0, 1):
                    in_voice[side] += _sums(group, sides[side][row, bin_] * of_lead.conj(), groups)
                    of_rest = sides[2 + side][row, bin_]
                    in_rest[side] += _sums(group, of_rest * of_lead.conj(), groups)
                    rest_power[side] += np.bincount(group, np.abs(of_rest) ** 2, groups)
    used = power > 1e-9
    left = whole = 0.0
    for side in (0, 1):
        ratio = in_rest[side][used] / power[used]
        shared = np.abs(ratio) ** 2 * power[used]
        # What comes out of so few frames by chance; of three neighbours one is counted.
        chance = np.maximum(rest_power[side][used] - shared, 0) / np.maximum(count[used] / 3, 1)
        left += float(np.maximum(shared - chance, 0).sum())
        whole += float((np.abs(ratio + in_voice[side][used] / power[used]) ** 2 * power[used]).sum())
    return 10 * math.log10(max(left, 1e-4 * whole) / whole) if whole > 0 else None


def _spectra(samples: Float32, frames: NDArray[np.intp], window: Float32) -> NDArray[np.complex64]:
    """(len(frames), 1025): the spectra around those frames."""
    margin = (FFT - FRAME) // 2
    first, last = int(frames[0]), int(frames[-1])
    begin, end = first * FRAME - margin, last * FRAME + FRAME + margin
    part = np.pad(samples[max(0, begin) : end], (max(0, -begin), max(0, end - len(samples))))
    views = np.lib.stride_tricks.sliding_window_view(part, FFT)[::FRAME]
    return np.asarray(np.fft.rfft(views[frames - first] * window, axis=1), np.complex64)


def _sums(groups: NDArray[np.intp], values: NDArray[np.complex64], size: int) -> NDArray[np.complex128]:
    return np.bincount(groups, values.real, size) + 1j * np.bincount(groups, values.imag, size)
