"""Trains a voice for RVC on one person's speech or singing, by the steps of Applio or of RVC-Project.

    python rvc_train.py --project-root DIR --engine applio|rvc --dataset DIR --work DIR --output DIR --model-id ID
                        [--sample-rate 40000] [--f0 rmvpe] [--epochs 200] [--batch auto|N] [--max-seconds 15]
                        [--holdout 3] [--until check|prepare|train|select|publish] [--device auto|cuda|cuda:N|cpu]
                        [--is-half true] [--seed 0] [--threads 2] [--stall-seconds N]

Run by that project's interpreter, with what its training needs; read at commit b9c0ccb1 of IAHispano/Applio and 4338f12
of RVC-Project/Retrieval-based-Voice-Conversion-WebUI. Words do not matter, and texts beside the recordings are not
read. 10 to 50 minutes of audio are advised; 20 to 30 epochs if it is noisy, up to 200 if it is clean.

Stages: check, slice, features, train, index, evaluate, publish. WORK/report.json, going on where it was stopped and
what begins anew are as gptsovits_train.py has them. Both projects keep their state under `logs` of the working folder:
here that is a folder in WORK with links to the project, whose own files are never written. A status proves nothing in
either of them (Applio ends with one number after a training and after none): files and epochs are counted.

OUTPUT appears whole: model.pth, model.index, model.json. Up to four checkpoints of the second half sing held-out clips
again by rvc_infer.py, and the one whose spectrum is nearest to the clips' own is published. Nobody hears likeness
here: no base voice is there to be better than.

stdout: `PROGRESS 0.42 train`, `WARNING code A sentence.` stderr: one line on failure. Exit codes: as gptsovits_train.py
has them, without 13 and 16.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # Python itself leaves it out with -I or -P

from common import options, script_io

THREADS = script_io.limit_threads(sys.argv[1:])


def main(argv: list[str]) -> None:
    parser = script_io.OneLineParser(description="Train a voice for RVC.")
    options.add_training_arguments(parser, "a folder of recordings", holdout=3, most=20, seed=0)
    parser.add_argument("--engine", choices=("applio", "rvc"), required=True)
    parser.add_argument("--sample-rate", type=int, choices=(32000, 40000, 48000), default=40000)
    parser.add_argument("--f0", choices=("rmvpe", "fcpe", "crepe", "pm"), default="rmvpe")
    parser.add_argument("--epochs", type=options.within(1, 2000, int), default=200)
    arguments = parser.parse_args(argv)
    options.check_training(parser, arguments)
    script_io.require_packages("numpy", "soundfile", "soxr")
    from common.rvc.training import Training

    Training(arguments).run()


if __name__ == "__main__":
    script_io.run(main)
