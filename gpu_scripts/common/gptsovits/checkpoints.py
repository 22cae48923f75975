"""What GPT-SoVITS's training leaves and says: its checkpoints by their epochs, and the lines of s2_train.py."""

from __future__ import annotations

import math
import re
from pathlib import Path

from common import script_io
from common.training.children import Ended
from common.training.tell import Progress

KEEP_SOVITS, KEEP_GPT = 4, 5  # epochs, as the engine's own page keeps them
REPEATED_TO = 100  # clips: fewer are repeated by the engine
LEAST_PHONES, MOST_PHONES = 3, 25  # a second; s1 drops others in silence
NOT_FINITE_LINES = 3  # 16-bit floats skip a step now and then
_LOSSES = re.compile(r"\[((?:-?(?:[\d.]+(?:e[-+]?\d+)?|nan|inf)(?:, )?){8})\]")
_BAR = re.compile(r"(\d+)/(\d+) \[")
_SAVED = re.compile(r"_e(\d+)_s(\d+)$")


class SovitsLines:
    """What s2_train.py prints: how far it is, whether it loaded its base, saved, and has a loss that is a number."""

    def __init__(self, epochs: int, progress: Progress) -> None:
        self.epochs, self.progress = epochs, progress
        self.loaded, self.resumed, self.unsaved = 0, False, False
        self.epoch = 0
        self.broken = 0

    def __call__(self, line: str) -> None:
        if "loaded pretrained" in line and "All keys matched" in line:
            self.loaded += 1
        elif "Loaded checkpoint" in line:
            self.resumed = True
        elif match := re.search(r"start training from epoch (\d+)", line):
            self.epoch = int(match[1])
        elif match := re.search(r"====> Epoch: (\d+)", line):
            self.epoch = int(match[1]) + 1
            self.progress(int(match[1]) / self.epochs)
        elif "saving ckpt" in line:
            self.unsaved = not line.endswith("Success.")
        elif match := _LOSSES.search(line):
            numbers = [float(part) for part in match[1].rstrip(", ").split(", ")]
            self.broken = 0 if all(math.isfinite(number) for number in numbers) else self.broken + 1
            if self.broken >= NOT_FINITE_LINES:
                raise Ended(script_io.NOT_FINITE, f"the loss of SoVITS is no number any more (epoch {self.epoch})")
        elif self.epoch and (match := _BAR.search(line)):
            done = int(match[1]) / max(1, int(match[2]))
            self.progress((self.epoch - 1 + done) / self.epochs)


def gpt_progress(line: str, epochs: int) -> float:
    """How far s1_train.py is, 0 to 1, by the bar that Lightning draws for each batch; 0 for other lines."""
    match = re.search(r"Epoch (\d+): .*?(\d+)/(\d+) \[", line)
    return (int(match[1]) + int(match[2]) / max(1, int(match[3]))) / epochs if match else 0.0


def lines_of(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text("utf-8").split("\n") if line.strip()]
    except (FileNotFoundError, UnicodeDecodeError):  # not there, or half written
        return []


def count_in(folder: Path) -> int:
    return sum(1 for _ in folder.glob("*.pt"))


def is_filled(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 100


def epochs_in(folder: Path, pattern: str) -> dict[int, Path]:
    found = {}
    for path in folder.glob(pattern):
        match = _SAVED.search(path.stem) or re.search(r"-e(\d+)$", path.stem)
        if match and path.stat().st_size:
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def steps_of(path: Path) -> int:
    match = _SAVED.search(path.stem)
    return int(match[2]) if match else 0


def kept_epochs(epochs: int, every: int) -> list[int]:
    return sorted({*range(every, epochs + 1, every), epochs})


def repeated(clips: int) -> int:
    return clips * max(2, REPEATED_TO // clips) if clips < REPEATED_TO else clips
