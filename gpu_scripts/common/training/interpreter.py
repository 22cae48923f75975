"""The engine's interpreter: what it has, where it may write, and the steps that run in it beside the engine's own."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common import script_io
from common.script_io import ScriptError

from . import children
from .tell import Progress, Teller
from .work import remove, write_json

STEPS = Path(__file__).with_name("steps.py")
# Of no word from a program that tells of each step. A step takes seconds on a GPU, minutes on a CPU; RVC-Project tells
# of each 200th, or of each epoch.
GPU_STALL_SECONDS, CPU_STALL_SECONDS = 1800.0, 4 * 3600.0


class Interpreter:
    """This interpreter with the device that was asked for (auto, cuda, cuda:N, cpu).

    device: `cuda` or `cpu`; cuda: the number of the GPU as CUDA_VISIBLE_DEVICES has it, None on a CPU; gpu_bytes: its
    memory; stall_seconds: how long a trainer may say nothing (asked for, or 0: as the device has it). Raises
    ScriptError: 2, 8 no such GPU, 14 packages or programs are missing.
    """

    def __init__(
        self,
        folder: Path,
        asked: str,
        threads: int,
        packages: Sequence[str],
        programs: Sequence[str],
        teller: Teller,
        stall_seconds: float = 0.0,
    ) -> None:
        self.folder = folder
        self.threads = threads
        self.stall_seconds = stall_seconds or GPU_STALL_SECONDS
        self.cuda = _number_of(asked)
        for name in programs:
            if shutil.which(name) is None:
                raise ScriptError(script_io.MISSING_PACKAGE, f"{name}, which the engine wants, is not on PATH")
        for name in ("orders", "tmp", "cache"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        answer = self.step("probe", {"packages": list(packages)})
        if answer["missing"]:
            raise ScriptError(
                script_io.MISSING_PACKAGE, f"{sys.executable} lacks {', '.join(answer['missing'])}, needed for training"
            )
        self.torch: str = answer["torch"]
        self.gpu_bytes: int = answer["gpu_bytes"] if answer["cuda"] else 0
        self.device = "cuda" if answer["cuda"] else "cpu"
        on_gpu = folder / "on-gpu"
        if answer["cuda"]:
            on_gpu.touch()
            return
        self.cuda = None
        self.stall_seconds = stall_seconds or CPU_STALL_SECONDS
        if asked.startswith("cuda"):
            raise ScriptError(script_io.NO_CUDA, f"torch finds no GPU for --device {asked}; a CPU takes days")
        if asked == "auto" and on_gpu.exists():
            raise ScriptError(script_io.NO_CUDA, "this training began on a GPU, and there is none any more")
        if asked == "auto":
            teller.warn("cpu", "There is no GPU: training on the CPU takes days for more than a trial.")

    @property
    def environment(self) -> dict[str, str]:
        """Of every child: one GPU or none, no network, and caches in WORK instead of the home folder and the root."""
        cache = self.folder / "cache"
        threads = {f"{name}_NUM_THREADS": str(self.threads) for name in ("OMP", "MKL", "OPENBLAS", "NUMBA", "NUMEXPR")}
        return threads | {
            "CUDA_VISIBLE_DEVICES": self.cuda or "",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONIOENCODING": "utf-8",
            "TMPDIR": str(self.folder / "tmp"),
            "XDG_CACHE_HOME": str(cache),
            "HF_HOME": str(cache / "huggingface"),
            "NUMBA_CACHE_DIR": str(cache / "numba"),
            "MPLCONFIGDIR": str(cache / "matplotlib"),
            "TRITON_CACHE_DIR": str(cache / "triton"),
        }

    def step(
        self,
        step: str,
        order: dict[str, Any],
        progress: Progress | None = None,
        *,
        cpu: bool = False,
        program: Path = STEPS,
    ) -> Any:
        """The answer of a step of `program`. Raises ScriptError: the step's own, or as a child's."""
        paths = [self.folder / "orders" / f"{step}{suffix}.json" for suffix in ("", "-answer")]
        remove(paths[1])
        write_json(paths[0], order)

        def on_line(line: str) -> None:
            if progress is not None and (match := re.fullmatch(r"DONE (\d+) (\d+)", line)):
                progress(int(match[1]) / max(1, int(match[2])))

        child = children.run(
            step,
            [sys.executable, program, step, *paths],
            cwd=self.folder,
            log=self.folder / "logs" / f"{step}.log",
            environment=self.environment | ({"CUDA_VISIBLE_DEVICES": ""} if cpu else {}),
            on_line=on_line,
            stall_seconds=self.stall_seconds,
        )
        if child.code == 0 and paths[1].is_file():
            return json.loads(paths[1].read_text("utf-8"))
        if script_io.BAD_ARGUMENTS <= child.code <= script_io.DISK_FULL and child.last:
            raise ScriptError(child.code, child.last)
        raise child.failure(self.folder)

    def inspect(
        self, files: Sequence[Path], base: Path | None, path: Sequence[Path], progress: Progress | None = None
    ) -> None:
        """Raises ScriptError: 11 a file cannot be loaded or is the base, 17 it holds what is no number.

        path: where the classes are that are in the files."""
        order = {
            "files": [[str(file), str(base) if base else ""] for file in files],
            "path": [str(folder) for folder in path],
        }
        for file, facts in self.step("inspect", order, progress, cpu=True).items():
            name = Path(file).name
            if "error" in facts:
                raise ScriptError(script_io.ENGINE_FAILED, f"{name} cannot be loaded: {facts['error']}")
            if not facts["finite"]:
                raise ScriptError(script_io.NOT_FINITE, f"{name} holds weights that are no numbers")
            if base and not facts["changed"]:
                raise ScriptError(script_io.ENGINE_FAILED, f"{name} is the base unchanged: nothing was trained")


def _number_of(asked: str) -> str | None:
    match = re.fullmatch(r"cpu|auto|cuda(?::(\d+))?", asked)
    if not match:
        raise ScriptError(script_io.BAD_ARGUMENTS, f"--device must be cpu, cuda, cuda:N or auto, not {asked}")
    visible = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    number = int(match[1] or 0)
    if asked == "cpu" or ("CUDA_VISIBLE_DEVICES" in os.environ and not visible):
        return None
    if visible and number >= len(visible):
        raise ScriptError(script_io.NO_CUDA, f"there is no GPU {number}: {len(visible)} are visible")
    gpu = visible[number] if visible else str(number)
    if not gpu.isdigit():
        raise ScriptError(
            script_io.BAD_ARGUMENTS,
            f"CUDA_VISIBLE_DEVICES names a GPU as {gpu}; the engines' training understands numbers alone",
        )
    return gpu


def with_a_batch_that_fits(
    train: Callable[[int], list[Path]], batch: int, stage: str, teller: Teller, hint: str
) -> tuple[list[Path], int]:
    """(what `train` made, with which batch): half of it as long as memory does not do. Raises ScriptError (7, ...)."""
    first = batch
    while True:
        try:
            files = train(batch)
            break
        except ScriptError as error:
            if error.exit_code != script_io.OUT_OF_MEMORY:
                raise
            if batch == 1:
                message = f"out of memory in {stage}, even with batch 1: {hint}"
                raise ScriptError(script_io.OUT_OF_MEMORY, message) from error
            batch //= 2
    if batch < first:
        teller.warn("batch_halved", f"Out of memory in {stage} with batch {first}; batch {batch} fits.")
    return files, batch
