"""The rhythm and the melody of a sentence: a speaker's own tempo and pauses, questions, and what is left to chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_closing, gaussian_filter1d

from . import world
from .languages.questions import Question
from .world import Analysis, Float32, Float64

Bool = NDArray[np.bool_]

# Standard deviations at temperature 1.
MELODY_SEMITONES = 0.7
MELODY_SMOOTH_FRAMES = 30
REGISTER_SEMITONES = 0.3
TEMPO = 0.02

PAUSE_FRAMES = 40  # 200 ms; shorter gaps are stops and belong to the speech
# Whoever speaks faster moves faster from sound to sound, but by a smaller factor: sounds are cut short too. Found on
# seven recordings whose words are known.
MOVEMENT_FRAMES = 4
MOVEMENT_SIZE = 6
TEMPO_OF_MOVEMENT = 1.5
SLOWEST, FASTEST = 0.75, 1.25
ENOUGH_SECONDS = 4.0

# Pauses are what is so far under the loud parts and so long; half a second of speech has none of its speaker's own.
QUIET_DB = 30.0
SHORTEST_PAUSE_FRAMES = 30
LONGEST_PAUSE_FRAMES = 300
USUAL_PAUSE_SECONDS = 0.26
DOUBT_PAUSES = 3.0  # how many pauses of the usual length each speaker is taken to have made besides
LEAST_PAUSES, MOST_PAUSES = 0.6, 1.6
DIGITAL_SILENCE_FRAMES = 30

CREAK_SEMITONES = 9.0
FADED_DB = 20.0


def movement(cepstra: Sequence[Float32], active: Sequence[Bool]) -> float:
    """How far the sound moves in 20 ms of speech, pauses left out: in deviations of each of c1 to c5 of the speaker.

    cepstra: of stretches of consecutive frames, (frames, 40) each; active: (frames,) each. 0 where there is no speech.
    """
    deviation = np.concatenate([c[a, 1:MOVEMENT_SIZE] for c, a in zip(cepstra, active, strict=True)]).std(axis=0)
    steps = []
    for cepstrum, speech in zip(cepstra, active, strict=True):
        spoken = binary_closing(np.pad(speech, PAUSE_FRAMES), np.ones(PAUSE_FRAMES))[PAUSE_FRAMES:-PAUSE_FRAMES]
        smooth = gaussian_filter1d(cepstrum[:, 1:MOVEMENT_SIZE], 2.0, axis=0, mode="nearest") / (deviation + 1e-6)
        step = np.sqrt(np.mean((smooth[MOVEMENT_FRAMES:] - smooth[:-MOVEMENT_FRAMES]) ** 2, axis=1))
        half = MOVEMENT_FRAMES // 2
        steps.append(step[spoken[half : half + len(step)]])
    every = np.concatenate(steps)
    return float(every.mean()) if len(every) else 0.0


def tempo_by_movement(source: float, target: float, usual: float, seconds: float = ENOUGH_SECONDS) -> float:
    """How much faster than a base voice a speaker is by what `movement` says of both; usual where one is not known.

    usual: what people are on average, against that base voice. seconds: of the speaker's speech; little says little.
    """
    if source <= 0 or target <= 0:
        return usual
    trust = min(1.0, seconds / ENOUGH_SECONDS)
    return float(np.clip(usual * (target / source) ** (TEMPO_OF_MOVEMENT * trust), SLOWEST, FASTEST))


def pause_factor(analyses: Sequence[Analysis]) -> float:
    """The length of a speaker's pauses against usual ones, .6 to 1.6; nearer to 1 the fewer are heard.

    Silence to the last bit is where recordings were joined or muted, and is nobody's pause.
    """
    levels = [10 * np.log10(np.exp(a.log_spectrum).mean(axis=1) + world.LOG_FLOOR) for a in analyses]
    floor = np.percentile(np.concatenate(levels), 95) - QUIET_DB
    lengths = []
    for analysis, level in zip(analyses, levels, strict=True):
        mute = analysis.log_spectrum.max(axis=1) < np.log(10 * world.LOG_FLOOR)
        for start, stop in gaps(level > floor, SHORTEST_PAUSE_FRAMES):
            if stop - start <= LONGEST_PAUSE_FRAMES and mute[start:stop].sum() < DIGITAL_SILENCE_FRAMES:
                lengths.append((stop - start) * world.FRAME_SECONDS)
    trust = len(lengths) / (len(lengths) + DOUBT_PAUSES)
    mean = float(np.mean(np.log(lengths))) - np.log(USUAL_PAUSE_SECONDS) if lengths else 0.0
    return float(np.clip(np.exp(trust * mean), LEAST_PAUSES, MOST_PAUSES))


def gaps(active: Bool, least: int) -> list[tuple[int, int]]:
    """(start, stop) frames of each stretch of `least` or more that is not active, between two that are."""
    at = np.flatnonzero(active)
    return [(int(at[i]) + 1, int(at[i + 1])) for i in np.flatnonzero(np.diff(at) > least)]


def speeds(active: Bool, tempo: float, pauses: float) -> Float64:
    """(frames,) how much faster each frame is said: speech by `tempo`, pauses inside the sentence 1 / `pauses`.

    The first and the last 50 ms of a pause are those of the sounds around it.
    """
    out = np.full(len(active), tempo)
    edge = 10
    for start, stop in gaps(active, 2 * edge + 5):
        whole = stop - start
        # What remains in the middle makes the whole as long as it shall be.
        wanted = max(whole * pauses / tempo - 2 * edge / tempo, 1.0)
        out[start + edge : stop - edge] = max((whole - 2 * edge) / wanted, 0.25)
    return out


def without_creak(f0: Float64) -> Float64:
    """F0 (Hz, 0 unvoiced) with every frame that is an octave too low doubled, as trackers find creaky ends."""
    voiced = f0 > 0
    if not voiced.any():
        return f0
    middle = np.median(f0[voiced])
    low = voiced & (12 * np.log2(np.where(voiced, f0, middle) / middle) < -CREAK_SEMITONES)
    doubled = np.where(low, 2 * f0, f0)
    return np.where(low & (12 * np.log2(np.where(voiced, doubled, middle) / middle) < -CREAK_SEMITONES), 2 * doubled,
                    doubled)  # fmt: skip


def rise(f0: Float64, analysis: Analysis, mean: float, deviation: float, question: Question) -> Float64:
    """F0 (Hz, 0 unvoiced) whose end rises, as the melody of a question does; the rest stays as it is.

    analysis: of the audio whose frames `f0` is for; mean, deviation: of the speaker's natural log of F0. A lively
    speaker rises higher.
    """
    level = 10 * np.log10(np.exp(analysis.log_spectrum).mean(axis=1) + world.LOG_FLOOR)
    voiced = (f0 > 0) & analysis.active
    # What fades out behind the last vowel is not heard as melody.
    if not voiced.any():
        return f0
    at = np.flatnonzero(voiced & (level > np.median(level[voiced]) - FADED_DB))
    if len(at) < 5:
        return f0
    last = int(at[-1])
    reach = min(question.frames, round(0.6 * (last - int(at[0]) + 1)))
    every = np.flatnonzero(f0 > 0)
    part = every[(every > last - reach) & (every <= last)]
    height = float(np.clip(question.deviations * deviation, np.log(2) / 12 * question.least, np.log(2) / 12 * 7))
    place = (part - (last - reach)) / reach
    own = np.log(f0[part])
    if question.keeps_tones:
        new = own + height * place
    else:
        # Its own fall is taken out, its small movements stay.
        slope, offset = np.polyfit(place, own, 1) if len(part) > 2 else (0.0, own.mean())
        small = 0.4 * (own - (slope * place + offset))
        start = float(np.clip(own[: max(1, len(own) // 6)].mean(), mean - 1.5 * deviation, mean + 0.5 * deviation))
        new = small + start + (mean + height - start) * place**1.2
    out = f0.copy()
    out[part] = np.exp(new)
    behind = every[every > last]
    out[behind] = f0[behind] * out[last] / f0[last] if question.keeps_tones else out[last]
    out[out > 0] = np.clip(out[out > 0], world.F0_FLOOR_HZ, world.F0_CEILING_HZ)
    return out


def vary_melody(f0: Float64, rng: np.random.Generator, temperature: float) -> Float64:
    """F0 with a slow random movement and a random register, both in proportion to the temperature."""
    noise = rng.standard_normal(len(f0) + 1)
    movement_ = gaussian_filter1d(noise[1:], MELODY_SMOOTH_FRAMES, mode="reflect")
    movement_ *= np.sqrt(2 * np.sqrt(np.pi) * MELODY_SMOOTH_FRAMES)  # back to unit deviation
    semitones = temperature * (MELODY_SEMITONES * movement_ + REGISTER_SEMITONES * noise[0])
    moved = f0 * 2 ** (np.clip(semitones, -2.5, 2.5) / 12)
    return np.where(f0 > 0, np.clip(moved, world.F0_FLOOR_HZ, world.F0_CEILING_HZ), 0.0)
