"""Makes voiceproject/samples: a speaker to copy, with the transcript, and a song to cover.

    python -m bench.engines.make_samples [FOLDER]

From the root of the project. Nothing in them is anybody's: the speaker is the English base voice in another throat and
register, the song is that base voice put on a melody over a band of plain oscillators.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

from tests.support.recordings import songs

TRANSCRIPT = (
    "Good evening, and thank you for coming. Tonight I want to tell you about the old lighthouse, "
    "and about the family that kept it burning for a hundred years."
)
SPEECH_RATE = 24000
SONG_SECONDS = 24.0


def main() -> None:
    default = Path(__file__).resolve().parents[2] / "voiceproject" / "samples"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    folder.mkdir(parents=True, exist_ok=True)
    speech = songs.other_speaker(songs.speech(TRANSCRIPT, seed=11), SPEECH_RATE, pitch=0.56, tract=1.17)
    edge = np.zeros(SPEECH_RATE // 5)
    speech = np.concatenate([edge, songs.at_loudness(speech, -24, SPEECH_RATE), edge])
    sf.write(folder / "reference.flac", np.clip(speech, -0.98, 0.98), SPEECH_RATE, subtype="PCM_16")
    (folder / "reference.txt").write_text(TRANSCRIPT + "\n", encoding="utf-8")

    mix = songs.song(SONG_SECONDS, seed=8)[0].copy()
    fade = songs.RATE
    mix[-fade:] *= (0.5 + 0.5 * np.cos(np.pi * np.arange(fade) / fade))[:, None]
    mix *= 0.8 / np.max(np.abs(soxr.resample(mix, songs.RATE, 4 * songs.RATE)))
    with sf.SoundFile(folder / "song.ogg", "w", songs.RATE, 2, format="OGG", subtype="VORBIS") as out:
        for start in range(0, len(mix), songs.RATE):  # libvorbis overflows its stack on long writes
            out.write(mix[start : start + songs.RATE])
    for path in sorted(folder.iterdir()):
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
