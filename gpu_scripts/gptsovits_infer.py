"""Sings a vocal again with GPT-SoVITS: its words spoken in the voice of a reference, on the vocal's time and melody.

    python gptsovits_infer.py --project-root DIR --reference REF.wav --input VOCAL.wav --output OUT.wav
                              --model-id ID --pitch N
                              [--reference-text TEXT | --reference-text-file FILE]
                              [--lyrics TEXT | --lyrics-file FILE]
                              [--device cuda] [--is-half true] [--gpt-weights FILE --sovits-weights FILE]
                              [--asr-model DIR] [--language auto] [--takes 3] [--seed 0] [--threads 2] [--serve]

GPT-SoVITS only speaks. The vocal is cut into phrases with times: the lines of the lyrics, placed by faster-whisper
where it is there and by the vocal's pauses where it is not, or what faster-whisper hears. Each is spoken by the
official `TTS.run` a few times at different speeds; the take that fits best is aligned with the vocal and given its
melody and dynamics (common/sung_speech). Run by the engine's interpreter, which needs one package more than the engine:
pyworld (`pip install pyworld-prebuilt`, or `pyworld` with a compiler).

In: whatever soundfile reads, one or two channels, any sample rate. Of a reference over 10 s the best stretch is used;
what is said in it comes from the reference text, or else is recognised. A file of text that is empty counts as none.
`--asr-model` is a folder with a faster-whisper model, and has to be one if it is named; by default it is the largest
under DIR/tools/asr/models. Nothing is ever downloaded. Out: a 44.1 kHz WAV (32-bit float) exactly as long as the vocal,
with as many channels.

stdout: lines `PROGRESS 0.42`, never falling, the last one `PROGRESS 1`. stderr: `WARNING ...`; one line on failure.
Exit codes: 0 done; 1 unexpected; 2 bad arguments, no model in --asr-model; 3 unreadable input; 4 nothing is sung in the
vocal; 5 the reference cannot be used; 6 the output cannot be written; 7 out of memory, the GPU's or the computer's; 8
no CUDA; 9 no weights; 10 unknown model; 11 the engine failed or gave silence; 12 nothing of the words can be spoken; 13
no lyrics, and no recogniser or nothing recognised; 14 pyworld, numpy, scipy or soundfile is missing; 18 the disk is
full; 143 and 130 ended by SIGTERM and SIGINT. With any of them but 0 no file is left behind.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # Python itself leaves it out with -I or -P

from common import options, script_io
from common.options import MAX_SEMITONES
from common.script_io import ScriptError

THREADS = script_io.limit_threads(sys.argv[1:])

LANGUAGES = ("auto", "zh", "en", "ja", "yue", "ko", "auto_yue", "all_zh", "all_ja", "all_yue", "all_ko")
MAX_TAKES = 8


def main(argv: list[str]) -> None:
    parser = script_io.OneLineParser(description="Sing a vocal with GPT-SoVITS.")
    parser.add_argument("--project-root", type=Path, required=True, help="GPT-SoVITS's")
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model-id", default="default")
    parser.add_argument("--pitch", type=float, required=True, help="semitones, -24 to 24")
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--reference-text", default="", help="what is said in the reference")
    prompt.add_argument("--reference-text-file", type=Path)
    words = parser.add_mutually_exclusive_group()
    words.add_argument("--lyrics", default="", help="what is sung, a line for each phrase")
    words.add_argument("--lyrics-file", type=Path)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--is-half", type=options.boolean, default=True)
    parser.add_argument("--gpt-weights", type=Path, help="instead of those of --model-id")
    parser.add_argument("--sovits-weights", type=Path)
    parser.add_argument("--asr-model", type=Path, help="folder of a faster-whisper model")
    parser.add_argument("--language", choices=LANGUAGES, default="auto", help="of the lyrics")
    parser.add_argument("--takes", type=int, default=3, help="how often each phrase is spoken, 1 to 8")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args(argv)
    if not abs(arguments.pitch) <= MAX_SEMITONES:
        parser.error(f"--pitch must be within {-MAX_SEMITONES} and {MAX_SEMITONES}")
    if not 1 <= arguments.takes <= MAX_TAKES:
        parser.error(f"--takes must be within 1 and {MAX_TAKES}")
    options.check_output(parser, arguments)
    arguments.reference_text = read_text(arguments.reference_text_file) or arguments.reference_text.strip()
    arguments.lyrics = read_text(arguments.lyrics_file) or arguments.lyrics.strip()
    # The engine changes the working folder.
    for name in ("project_root", "reference", "input", "output", "gpt_weights", "sovits_weights", "asr_model"):
        if getattr(arguments, name) is not None:
            setattr(arguments, name, Path(os.path.abspath(getattr(arguments, name))))
    check_packages()
    # It imports what has just been looked for: pyworld may not be there.
    from common.gptsovits.cover import Cover

    Cover(arguments).make()


def check_packages() -> None:
    """Raises ScriptError (14): pyworld is the one that the engine does not bring along."""
    for name in ("numpy", "scipy", "soundfile", "pyworld"):
        try:
            __import__(name)
        except ImportError as error:
            hint = " (pip install pyworld-prebuilt)" if name == "pyworld" else ""
            raise ScriptError(
                script_io.MISSING_PACKAGE, f"{sys.executable} cannot import {name}{hint}: {error}"
            ) from error


def read_text(path: Path | None) -> str:
    """ "" for no file. Raises ScriptError (3)."""
    if path is None:
        return ""
    try:
        return path.read_text("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ScriptError(script_io.UNREADABLE, f"cannot read {path} as UTF-8 text: {error}") from error


if __name__ == "__main__":
    script_io.run(main)
