"""Sings a vocal again in the voice of a reference, on the CPU: WORLD and nearest-neighbour conversion, no model.

    python builtin_infer.py --reference REF.wav --input VOCAL.wav --output OUT.wav --pitch N
                            [--model-id ID] [--project-root DIR] [--threads 2]

In: whatever soundfile reads, one or two channels, any sample rate. The reference is speech, of which up to the first
minute is used. `--pitch` moves the melody by -24 to 24 semitones. `--model-id` is taken and ignored: other engines
have models, and the caller passes the same arguments to all. `--project-root` is the folder that holds `voices/`, by
default the one above this script's: this script is run by the product's own interpreter, and what sings is the
built-in engine's (voices/engines/builtin, which loads no Django). Out: a 44.1 kHz WAV (32-bit float) exactly as long
as the vocal, with as many channels. Of a stereo vocal the middle is converted and placed in the centre.

stdout: lines `PROGRESS 0.42`, never falling, the last one `PROGRESS 1`. stderr: `WARNING ...`; one line on failure.
Exit codes: 0 done; 1 unexpected; 2 bad arguments; 3 unreadable input, more than two channels, or no finite samples;
4 nothing is sung in the vocal; 5 no voice in the reference; 6 the output cannot be written; 7 out of memory; 18 the
disk is full; 143 and 130 ended by SIGTERM and SIGINT (nothing is left behind). With `--serve` it takes job after
job (script_io.run).
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # Python itself leaves it out with -I or -P

from common import audio, options, script_io
from common.audio import RATE
from common.options import MAX_SEMITONES
from common.script_io import Progress, ScriptError


def project_root(arguments: list[str]) -> Path:
    """The folder of --project-root, or the one above this script's, in which `voices` can be imported from now on."""
    parser = script_io.OneLineParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--project-root", type=Path, default=Path(__file__).resolve().parent.parent)
    root: Path = parser.parse_known_args(arguments)[0].project_root.resolve()
    if not (root / "voices" / "engines" / "builtin").is_dir():
        parser.error(f"--project-root {root} does not hold voices/engines/builtin")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return root


THREADS = script_io.limit_threads(sys.argv[1:])
PROJECT_ROOT = project_root(sys.argv[1:])

from voices.engines.builtin import singing  # noqa: E402 (the number of threads is read when numpy is loaded)

REFERENCE_SECONDS = 60


def main(argv: list[str]) -> None:
    parser = script_io.OneLineParser(description="Sing a vocal in another voice.")
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--pitch", type=float, required=True, help="semitones, -24 to 24")
    parser.add_argument("--model-id", default="", help="ignored: there is one method")
    parser.add_argument("--project-root", type=Path, default=PROJECT_ROOT, help="the folder that holds voices/")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args(argv)
    if not abs(arguments.pitch) <= MAX_SEMITONES:
        parser.error(f"--pitch must be within {-MAX_SEMITONES} and {MAX_SEMITONES}")
    options.check_output(parser, arguments)
    if arguments.project_root.resolve() != PROJECT_ROOT:
        parser.error(f"this process has loaded {PROJECT_ROOT}, not {arguments.project_root}")
    progress = Progress()
    progress(0)
    reference, reference_rate, _ = audio.read_mono(arguments.reference, REFERENCE_SECONDS)
    vocal, rate, channels = audio.read_mono(arguments.input)
    vocal = audio.resampled(vocal, rate, RATE)
    try:
        target = singing.prepare(reference, reference_rate)
        progress(0.02)
        sung = singing.convert(vocal, RATE, target, arguments.pitch, lambda done: progress(0.02 + 0.96 * done))
    except singing.NoVoice as error:
        code = script_io.BAD_REFERENCE if error.what == "reference" else script_io.SILENT
        raise ScriptError(code, str(error)) from error
    audio.write(arguments.output, sung, channels)
    progress(1)


if __name__ == "__main__":
    script_io.run(main)
