"""Speech made to sing: the words of a speaking engine on the time and the melody of a vocal.

    source = analyze(vocal, rate)
    song = Song(source, phrases)
    for number in range(len(phrases)): song.add(number, take)     # what the engine said, up to a few takes of each
    song.align()
    for window in song.windows: place(out, window, *render(window, source, semitones), loudness)

Each phrase is spoken by the engine, aligned with the singing frame by frame (dynamic programming on cepstra that an
iterated linear map brings from the singer's to the speaker's), and synthesized again by WORLD with the singer's F0 and
dynamics. M. Morise, F. Yokomori, K. Ozawa, "WORLD: a vocoder-based high-quality speech synthesis system for real-time
applications", IEICE Trans. Inf. & Syst. E99-D(7), 2016.

Needs numpy, scipy and pyworld; knows no engine and no files (but `lyrics`, which knows a recogniser). Frames are 5 ms
apart throughout, times are seconds of the vocal, audio is mono float in -1..1.

`frames` takes audio apart, `windows` finds where a phrase is sung, `matching` and `alignment` lay what was spoken on
it, `rendering` makes it sing, `lyrics` says which words are sung when. The field calls it speech-to-singing conversion.
"""

from .alignment import Locate, Song, Weights, unsung_seconds
from .frames import (
    FRAME_SECONDS,
    OUTPUT_RATE,
    RATE,
    SUNG_TRIM_DB,
    Frames,
    Phrase,
    Span,
    Take,
    Unsingable,
    analyze,
    resample,
)
from .rendering import place, render, time_map
from .windows import STRETCH_LIMIT, Spoken, Window, anchored, check_phrases, voiced_share

__all__ = [
    "FRAME_SECONDS",
    "OUTPUT_RATE",
    "RATE",
    "STRETCH_LIMIT",
    "SUNG_TRIM_DB",
    "Frames",
    "Locate",
    "Phrase",
    "Song",
    "Span",
    "Spoken",
    "Take",
    "Unsingable",
    "Weights",
    "Window",
    "analyze",
    "anchored",
    "check_phrases",
    "place",
    "render",
    "resample",
    "time_map",
    "unsung_seconds",
    "voiced_share",
]
