"""Trains a voice for GPT-SoVITS on some minutes of one person's speech, by the official steps in its own project.

    python gptsovits_train.py --project-root DIR --dataset DIR|FILE.list --work DIR --output DIR --model-id ID
                              --version v2|v2Pro|v2ProPlus [--language auto] [--asr-model DIR]
                              [--sovits-epochs 8] [--gpt-epochs 15] [--batch auto|N] [--max-seconds 15] [--holdout 5]
                              [--takes 3] [--until check|prepare|train|select|publish] [--device auto|cuda|cuda:N|cpu]
                              [--is-half true] [--seed 1234] [--threads 2] [--segment-size 20480] [--stall-seconds N]

Run by the engine's interpreter, which needs what its training needs (also pandas, tensorboard, pytorch-lightning and
ffmpeg). `--dataset` holds NAME.wav (or .flac, .ogg, .mp3) and, where it is known what is said, NAME.txt beside it in
UTF-8; a FILE.list has lines `path|speaker|language|text`. What has no text is heard by faster-whisper, in `--asr-model`
or the largest model under DIR/tools/asr/models; there texts are compared with what is heard. Nothing is downloaded.

Stages: check, slice, transcribe, features, train_sovits, train_gpt, evaluate, publish. After check, WORK/report.json
says what is usable and what is not; it is written again when more is left out. Run again with the same arguments, a
training goes on with the stage that was stopped, SoVITS and the GPT with their last epoch; what comes after a changed
input begins anew. Nothing is written but in WORK and OUTPUT. Training on a CPU is for trials (`--segment-size 2560`).

OUTPUT appears whole: sovits.pth, gpt.ckpt, reference.wav and reference.txt (3 to 10 s of the speaker, to speak with),
model.json. Held-out sentences are spoken by each kept pair of epochs and by the base; the pair most like the speaker,
among those that say no more wrong words, is published. If none is better than the base, nothing is.

A trainer that says nothing for `--stall-seconds` (1800; 14400 on a CPU) is ended, and sooner one that waits for data
that its loaders have lost.

stdout: `PROGRESS 0.42 train_sovits`, `WARNING code A sentence.` stderr: one line on failure.

Exit codes
    0   done, as far as --until
    1   unexpected
    2   bad arguments, or no root of a GPT-SoVITS
    3   the dataset cannot be read
    6   WORK or OUTPUT cannot be written, or another training is at work in WORK
    7   out of memory, even with batch 1; a batch that is too large is halved, and a warning names the one that fits
    8   no CUDA, or the GPU was lost
    9   no pretrained base, or it is not the version's
    11  the engine failed, hangs, or spoke no held-out sentence with what was trained
    13  no transcripts, and no recogniser; or the one that is named is not complete
    14  a package or ffmpeg is missing
    15  the dataset is refused: WORK/report.json has the problems
    16  no checkpoint is better than the base
    17  the loss or the weights are no numbers
    18  the disk is full
    130, 143  ended by SIGINT or SIGTERM
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # Python itself leaves it out with -I or -P

from common import options, script_io

THREADS = script_io.limit_threads(sys.argv[1:])


def main(argv: list[str]) -> None:
    parser = script_io.OneLineParser(description="Train a voice for GPT-SoVITS.")
    options.add_training_arguments(parser, "a folder of recordings, or a .list file", holdout=5, most=50, seed=1234)
    parser.add_argument("--version", choices=("v2", "v2Pro", "v2ProPlus"), required=True)
    parser.add_argument("--language", choices=("auto", "zh", "en", "ja", "ko", "yue"), default="auto")
    parser.add_argument("--asr-model", type=options.optional_path, help="folder of a faster-whisper model")
    parser.add_argument("--sovits-epochs", type=options.within(1, 100, int), default=8)
    parser.add_argument("--gpt-epochs", type=options.within(1, 100, int), default=15)
    parser.add_argument("--takes", type=options.within(1, 10, int), default=3, help="of each held-out sentence")
    parser.add_argument("--segment-size", type=options.within(1280, 40960, int), default=20480, help="for trials: 2560")
    arguments = parser.parse_args(argv)
    if arguments.segment_size % 640:
        parser.error("--segment-size must be a multiple of 640")
    options.check_training(parser, arguments)
    script_io.require_packages("numpy", "soundfile", "soxr")
    # It imports what has just been looked for.
    from common.gptsovits.training import Training

    Training(arguments).run()


if __name__ == "__main__":
    script_io.run(main)
