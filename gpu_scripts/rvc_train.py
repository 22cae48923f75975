"""Trains a voice for RVC on one person's speech or singing, by the steps of Applio or of RVC-Project.

    python rvc_train.py --project-root DIR --engine applio|rvc --dataset DIR --work DIR --output DIR --model-id ID
                        [--sample-rate 40000] [--f0 rmvpe] [--epochs 200] [--batch auto|N] [--max-seconds 15]
                        [--holdout 3] [--until check|prepare|train|select|publish] [--device auto|cuda|cuda:N|cpu]
                        [--is-half true] [--seed 0] [--threads 2]

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

import argparse
import errno
import json
import os
import random
import re
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # Python itself leaves it out with -I or -P

from common import options, script_io

THREADS = script_io.limit_threads(sys.argv[1:])

NAME = "training"
SHARES = {
    "check": 0.03,
    "slice": 0.02,
    "features": 0.1,
    "train": 0.74,
    "index": 0.02,
    "evaluate": 0.08,
    "publish": 0.01,
}
CPU_BATCH, MAX_BATCH = 2, 16
MIN_BATCHES = 3  # of an epoch; Applio gives up with fewer
CANDIDATES = 4
PACKAGES = ("torch", "faiss", "sklearn", "librosa", "scipy", "soundfile", "soxr", "tensorboard", "tqdm")
PROJECTS = ".git .github .venv env venv logs assets __pycache__".split()  # what of a root gets no link, or another one
OWN_ASSETS = ("weights", "indices")


class Applio:
    """Scripts in rvc/train; an experiment in logs/NAME."""

    marker = "rvc/train/train.py"
    index = f"{NAME}.index"
    saved = re.compile(rf"{NAME}_(\d+)e_(\d+)s")
    parts = ("sliced_audios", "sliced_audios_16k", "f0", "f0_voiced", "extracted")

    def __init__(self, root: Path, sample_rate: int, f0: str) -> None:
        self.root, self.rate = root, sample_rate
        kilo = sample_rate // 1000
        base = root / "rvc/models/pretraineds/hifi-gan"
        self.generator, self.discriminator = base / f"f0G{kilo}k.pth", base / f"f0D{kilo}k.pth"
        self.needed = [str(path.relative_to(root)) for path in (self.generator, self.discriminator)] + [
            "rvc/models/embedders/contentvec/pytorch_model.bin",
            "rvc/models/embedders/contentvec/config.json",
        ]
        self.needed += [f"rvc/configs/{sample_rate}.json", f"logs/mute/sliced_audios/mute{sample_rate}.wav"]
        if f0 == "rmvpe":
            self.needed.append("rvc/models/predictors/rmvpe.pt")
        self.f0 = f0

    def prepare(self, clips: Path, experiment: Path, gpu: str | None, threads: int, is_half: bool) -> list[list[str]]:
        cores = str(threads)
        options_of_preprocess = ["Automatic", "False", "False", "0.5", "3.0", "0.3", "none"]
        return [
            ["rvc/train/preprocess/preprocess.py", str(experiment), str(clips), str(self.rate), cores]
            + options_of_preprocess,
            ["rvc/train/extract/extract.py", str(experiment), self.f0, cores, "0" if gpu else "-", str(self.rate)]
            + ["contentvec", "None", "2"],
        ]

    def finish_preparation(self, experiment: Path) -> None:
        """It writes its own list."""

    def train(self, epochs: int, every: int, batch: int) -> list[str]:
        flags = ["True", "True", "False", "False", "HiFi-GAN", "False"]  # latest only, weights, cache, cleanup
        base = [str(self.generator), str(self.discriminator)]
        return ["rvc/train/train.py", NAME, str(every), str(epochs), *base, "0", str(batch), str(self.rate), *flags]

    def weights(self, cwd: Path) -> Path:
        return cwd / "logs" / NAME

    def index_command(self, experiment: Path, threads: int) -> list[str]:
        return ["rvc/train/process/extract_index.py", str(experiment), "Auto"]

    def epoch_of(self, line: str) -> int:
        match = re.search(r"\| epoch=(\d+) \|", line)
        return int(match[1]) if match else 0


class RvcProject:
    """Scripts in train; an experiment in logs/NAME, weights in assets/weights. The caller writes list and settings."""

    marker = "train/train.py"
    index = f"added_*_{NAME}_v2.index"
    saved = re.compile(rf"{NAME}_e(\d+)_s(\d+)")
    parts = ("0_gt_wavs", "1_16k_wavs", "2a_f0", "2b-f0nsf", "3_feature768")

    def __init__(self, root: Path, sample_rate: int, f0: str) -> None:
        self.root, self.rate, self.f0 = root, sample_rate, f0
        self.kilo = f"{sample_rate // 1000}k"
        base = root / "assets/pretrained_v2"
        self.generator, self.discriminator = base / f"f0G{self.kilo}.pth", base / f"f0D{self.kilo}.pth"
        self.config = root / "configs" / ("v1" if self.kilo == "40k" else "v2") / f"{self.kilo}.json"
        self.needed = [str(path.relative_to(root)) for path in (self.generator, self.discriminator, self.config)]
        self.needed += ["assets/hubert_base/config.json", f"logs/mute/0_gt_wavs/mute{self.kilo}.wav"]
        if f0 == "rmvpe":
            self.needed.append("assets/rmvpe/rmvpe.pt")

    def prepare(self, clips: Path, experiment: Path, gpu: str | None, threads: int, is_half: bool) -> list[list[str]]:
        half = str(is_half)
        f0 = ["cuda", "1", "0", gpu, str(experiment), half] if gpu else ["cpu", str(experiment), str(threads), self.f0]
        device = ["cuda:0" if gpu else "cpu", "1", "0", gpu or "", str(experiment), "v2", half]
        return [
            ["train/preprocess.py", str(clips), str(self.rate), str(threads), str(experiment), "False", "3.7"],
            ["train/dataset/extract_f0.py", *f0],
            ["train/dataset/extract_hubert_feature.py", *device],
        ]

    def finish_preparation(self, experiment: Path) -> None:
        wavs, _, f0, voiced, features = (experiment / name for name in self.parts)
        names = stems(wavs) & stems(f0) & stems(voiced) & stems(features)
        lines = [
            f"{wavs}/{name}.wav|{features}/{name}.npy|{f0}/{name}.wav.npy|{voiced}/{name}.wav.npy|0"
            for name in sorted(names)
        ]
        mute = experiment.parent / "mute"
        silence = f"{mute}/0_gt_wavs/mute{self.kilo}.wav|{mute}/3_feature768/mute.npy"
        lines += [f"{silence}|{mute}/2a_f0/mute.wav.npy|{mute}/2b-f0nsf/mute.wav.npy|0"] * 2
        random.Random(0).shuffle(lines)
        (experiment / "filelist.txt").write_text("\n".join(lines), "utf-8")
        shutil.copyfile(self.config, experiment / "config.json")

    def train(self, epochs: int, every: int, batch: int) -> list[str]:
        command = ["train/train.py", "-e", NAME, "-sr", self.kilo, "-f0", "1", "-bs", str(batch), "-g", "0"]
        command += ["-te", str(epochs), "-se", str(every), "-pg", str(self.generator), "-pd", str(self.discriminator)]
        return [*command, "-l", "1", "-c", "0", "-sw", "1", "-v", "v2"]

    def weights(self, cwd: Path) -> Path:
        return cwd / "assets" / "weights"

    def index_command(self, experiment: Path, threads: int) -> list[str]:
        return ["train/train_index.py", NAME, "v2", str(experiment.parents[1] / "assets" / "indices"), str(threads)]

    def epoch_of(self, line: str) -> int:
        match = re.search(r"====>\D*(\d+)", line)
        return int(match[1]) if match else 0


ENGINES = {"applio": Applio, "rvc": RvcProject}


def main(argv: list[str]) -> None:
    parser = script_io.OneLineParser(description="Train a voice for RVC.")
    parser.add_argument("--project-root", type=Path, required=True, help="Applio's or RVC-Project's")
    parser.add_argument("--engine", choices=sorted(ENGINES), required=True)
    parser.add_argument("--dataset", type=Path, required=True, help="a folder of recordings")
    parser.add_argument("--work", type=Path, required=True, help="scratch, with what is needed to go on")
    parser.add_argument("--output", type=Path, required=True, help="the folder that appears")
    parser.add_argument("--model-id", required=True)
    parser.add_argument("--sample-rate", type=int, choices=(32000, 40000, 48000), default=40000)
    parser.add_argument("--f0", choices=("rmvpe", "fcpe", "crepe", "pm"), default="rmvpe")
    parser.add_argument("--epochs", type=options.within(1, 2000, int), default=200)
    parser.add_argument("--batch", type=options.batch, default=0, help="auto, or 1 to 128")
    parser.add_argument("--max-seconds", type=options.within(3, 30), default=15.0, help="of a clip")
    parser.add_argument("--holdout", type=options.within(0, 20, int), default=3, help="clips to choose by")
    parser.add_argument("--until", choices=("check", "prepare", "train", "select", "publish"), default="publish")
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:N or cpu")
    parser.add_argument("--is-half", type=options.boolean, nargs="?", const=True, default=True)
    parser.add_argument("--seed", type=options.within(0, 2**31 - 1, int), default=0, help="of the choice alone")
    parser.add_argument("--threads", type=options.within(1, 64, int), default=2)
    arguments = parser.parse_args(argv)
    options.check_training(parser, arguments)
    script_io.require_packages("numpy", "soundfile", "soxr")
    from common.rvc_training import Training

    Training(arguments, ENGINES[arguments.engine]).run()


def stems(folder: Path) -> set[str]:
    return {path.name.partition(".")[0] for path in folder.iterdir()}


if __name__ == "__main__":
    script_io.run(main)
