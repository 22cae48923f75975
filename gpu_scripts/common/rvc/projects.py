"""The training of Applio and of RVC-Project: their scripts, arguments, folders and files, read at the commits that
rvc_train.py names."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

NAME = "training"  # of the experiment, whatever the model is called


class Applio:
    """Scripts in rvc/train; an experiment in logs/NAME."""

    marker = "rvc/train/train.py"
    index = f"{NAME}.index"
    saved = re.compile(rf"{NAME}_(\d+)e_(\d+)s")
    parts = ("sliced_audios", "sliced_audios_16k", "f0", "f0_voiced", "extracted")
    steps = (("sliced_audios_16k",), ("f0", "extracted"))  # what each command of `prepare` makes
    piece_seconds = 2.7
    f0_methods = ("rmvpe", "fcpe", "crepe")

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
        # Its window makes this file when it is first opened. Without it a training ends with no weights, as a success.
        self.needed.append("assets/config.json")
        if f0 in ("rmvpe", "fcpe"):  # crepe's weights are in its package
            self.needed.append(f"rvc/models/predictors/{f0}.pt")
        self.f0 = f0

    def call(self, script: str) -> list[str]:
        """How Python is told to run a script: its trainer finds what lies beside it there."""
        return [str(self.root / script)]

    def prepare(self, clips: Path, experiment: Path, gpu: str | None, threads: int, is_half: bool) -> list[list[str]]:
        cores = str(threads)
        cutting = ["Automatic", "False", "False", "0.5", "3.0", "0.3", "none"]
        embedder = [str(self.rate), "contentvec", "None", "2"]
        return [
            ["rvc/train/preprocess/preprocess.py", str(experiment), str(clips), str(self.rate), cores, *cutting],
            ["rvc/train/extract/extract.py", str(experiment), self.f0, cores, "0" if gpu else "-", *embedder],
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
        """The epoch that has ended; 0 for other lines."""
        match = re.search(r"\| epoch=(\d+) \|", line)
        return int(match[1]) if match else 0

    def part_of(self, line: str) -> float:
        """How much of an epoch is done, by the bar of its batches; 0 for other lines."""
        match = re.search(r"(\d+)/(\d+) \[", line)
        return int(match[1]) / max(1, int(match[2])) if match else 0.0


class RvcProject:
    """Scripts in train; an experiment in logs/NAME, weights in assets/weights. The caller writes list and settings."""

    marker = "train/train.py"
    index = f"added_*_{NAME}_v2.index"
    saved = re.compile(rf"{NAME}_e(\d+)_s(\d+)")
    parts = ("0_gt_wavs", "1_16k_wavs", "2a_f0", "2b-f0nsf", "3_feature768")
    steps = (("1_16k_wavs",), ("2a_f0",), ("3_feature768",))
    piece_seconds = 3.4
    f0_methods = ("rmvpe", "pm")  # of its training; it sings with fcpe too

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

    def call(self, script: str) -> list[str]:
        """Scripts import the package `train`, and beside them lies train.py: by its path none finds the package."""
        return ["-m", script.removesuffix(".py").replace("/", ".")]

    def prepare(self, clips: Path, experiment: Path, gpu: str | None, threads: int, is_half: bool) -> list[list[str]]:
        half = str(is_half)
        f0 = ["cpu", str(experiment), str(threads), self.f0]
        if gpu and self.f0 == "rmvpe":  # on a GPU it asks for no method
            f0 = ["cuda", "1", "0", gpu, str(experiment), half]
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

    def part_of(self, line: str) -> float:
        """It tells of each 200th step, in several languages."""
        match = re.search(r"\d \[(\d+)%\]$", line)
        return int(match[1]) / 100 if match else 0.0


Project = Applio | RvcProject
ENGINES: dict[str, type[Applio] | type[RvcProject]] = {"applio": Applio, "rvc": RvcProject}


def stems(folder: Path) -> set[str]:
    return {path.name.partition(".")[0] for path in folder.iterdir()}
