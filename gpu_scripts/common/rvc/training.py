"""A voice for RVC from recordings to a published model: the stages, in order."""

from __future__ import annotations

import argparse
import math
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from common import audio, foreign, script_io
from common.script_io import ScriptError
from common.training import children, dataset, publishing
from common.training.children import Child
from common.training.dataset import Clip
from common.training.interpreter import Interpreter, with_a_batch_that_fits
from common.training.report import Report, look_at_files
from common.training.tell import Progress, Teller
from common.training.work import Work, remove, require_free, sha256, write_json

from .projects import ENGINES, NAME

SHARES = {
    "check": 0.03,
    "slice": 0.02,
    "features": 0.1,
    "train": 0.74,
    "index": 0.02,
    "evaluate": 0.08,
    "publish": 0.01,
}
PACKAGES = ("torch", "faiss", "sklearn", "librosa", "scipy", "soundfile", "soxr", "tensorboard", "tqdm")
UNLINKED = {"logs", "assets", "__pycache__"}  # of a root: folders of ours stand there
OWN_ASSETS = {"weights", "indices"}
CPU_BATCH, MAX_BATCH = 2, 16
MIN_BATCHES = 3  # of an epoch; Applio gives up with fewer, with the status of a success
SAVE_EVERY = 10  # epochs at most
CANDIDATES = 4
INFER = Path(__file__).resolve().parents[2] / "rvc_infer.py"


class Training:
    """One run of rvc_train.py."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.root: Path = arguments.project_root
        self.folder: Path = arguments.work
        self.cwd = self.folder / "cwd"
        self.experiment = self.cwd / "logs" / NAME
        self.teller = Teller(SHARES)
        self.project = ENGINES[arguments.engine](self.root, arguments.sample_rate, arguments.f0)

    def run(self) -> None:
        """Raises ScriptError."""
        arguments, teller, project = self.arguments, self.teller, self.project
        if not (self.root / project.marker).is_file():
            raise ScriptError(
                script_io.BAD_ARGUMENTS, f"{self.root} is no root of {arguments.engine} (no {project.marker})"
            )
        if arguments.f0 not in project.f0_methods:  # hours later, the choice would fail by it
            message = f"{arguments.engine} trains with --f0 {' or '.join(project.f0_methods)}, not {arguments.f0}"
            raise ScriptError(script_io.BAD_ARGUMENTS, message)
        publishing.check_output(arguments.output, arguments.model_id)
        if not arguments.dataset.is_dir():
            raise ScriptError(script_io.UNREADABLE, f"there is no folder {arguments.dataset}")
        found, unusable = dataset.sources(arguments.dataset)
        self.found = [dataset.Source(source.path) for source in found]
        self.work = Work(self.folder)
        foreign.require_files(self.root, *project.needed)
        self.python = Interpreter(
            self.folder, arguments.device, arguments.threads, PACKAGES, [], teller, arguments.stall_seconds
        )
        self.is_half = arguments.is_half and self.python.device == "cuda"
        base = project.generator.stat().st_size + project.discriminator.stat().st_size
        saved = arguments.epochs // self.save_every + 1
        require_free(self.folder, 6 * base + saved * project.generator.stat().st_size + 500_000_000)
        self.link()
        teller.progress("check", 0)
        self.check([one for one in unusable if "text" not in one.reason])
        if arguments.until == "check":
            return
        self.slice()
        self.prepare()
        if arguments.until == "prepare":
            return
        self.train()
        if arguments.until == "train":
            return
        chosen = self.evaluate()
        if arguments.until != "select":
            self.publish(chosen)

    @property
    def save_every(self) -> int:
        return max(1, min(SAVE_EVERY, self.arguments.epochs // CANDIDATES))

    def link(self) -> None:
        """The working folder: links to all of the root but to where it writes."""
        for folder in ("logs", "assets/weights", "assets/indices"):
            (self.cwd / folder).mkdir(parents=True, exist_ok=True)
        wanted = {name: self.root / name for name in os.listdir(self.root) if name not in UNLINKED and name[0] != "."}
        for path in (self.root / "assets").glob("*"):
            if path.name not in OWN_ASSETS:
                wanted[f"assets/{path.name}"] = path
        for path in (self.root / "logs").glob("mute*"):
            wanted[f"logs/{path.name}"] = path
        wanted["tmp"] = self.folder / "tmp"
        for name, target in wanted.items():
            link = self.cwd / name
            if link.is_symlink():
                link.unlink()
            if not link.exists():
                link.symlink_to(target)

    def program(
        self,
        name: str,
        command: list[str],
        on_line: Callable[[str], None] | None = None,
        on_look: Callable[[], None] | None = None,
        stall_seconds: float = math.inf,
    ) -> Child:
        path = [str(self.cwd), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = self.python.environment | {"PYTHONPATH": os.pathsep.join(path), "weight_root": "assets/weights"}
        if Path("/proc/self/cwd").exists():
            # Loaders of data pass tensors on over sockets there, whose path may have 107 bytes; that of WORK is longer.
            environment["TMPDIR"] = "/proc/self/cwd/tmp"
        for attempt in (1, 2):
            child = children.run(
                name,
                [sys.executable, "-s", *self.project.call(command[0]), *command[1:]],
                cwd=self.cwd,
                log=self.folder / "logs" / f"{name}.log",
                environment=environment,
                on_line=on_line,
                on_look=on_look,
                stall_seconds=stall_seconds,
            )
            if attempt == 2 or not child.said(children.NO_PORT):
                break
        return child

    # --- preparation ----------------------------------------------------------------------------------------

    def check(self, unusable: list[dataset.Dropped]) -> None:
        self.report = Report()

        def work() -> dict[str, Any]:
            report = self.report
            report.drop(unusable)
            progress = self.teller.within("check")
            files, clips, dropped = dataset.measure_all(self.found, self.arguments.max_seconds, progress)
            report.drop(dropped)
            look_at_files(report, files)
            report.warnings = [one for one in report.warnings if one["code"] != "music"]  # a singer may be meant
            report.warn("no_embedder", "Whether one person is heard was not checked: RVC has no model for it.")
            if not report.problems:
                report.count(clips)
            report.look_at_length()
            report.finish(self.folder / "report.json", lambda code, sentence: None)
            return {"clips": [clip.as_json() for clip in clips], "report": vars(report)}

        try:
            made_from = [dataset.digest(self.found), self.arguments.max_seconds]
            outcome = self.work.run("check", made_from, work, ["report.json"])
        finally:
            for known in self.report.warnings:
                self.teller.warn(known["code"], known["message"])
        self.report = Report(**outcome["report"])
        self.clips = [Clip(**clip) for clip in outcome["clips"]]
        for clip in self.clips:
            clip.file = str(self.found[clip.source].path)
        self.teller.progress("check", 1)

    def slice(self) -> None:
        """Clips to train on in WORK/clips, those to choose by in WORK/held."""
        count = min(self.arguments.holdout, len(self.clips) // 5)
        order = sorted(self.clips, key=lambda clip: (abs(clip.seconds - 6), clip.name))
        self.held = order[:count]
        names = {clip.name for clip in self.held}
        progress = self.teller.within("slice")
        progress(0)

        def work() -> None:
            for name in ("clips", "held"):
                remove(self.folder / name)
                (self.folder / name).mkdir()
            for number, clip in enumerate(self.clips):
                folder = self.folder / ("held" if clip.name in names else "clips")
                dataset.write_clip(clip, folder / f"{clip.name}.wav", self.arguments.sample_rate)
                progress((number + 1) / len(self.clips))

        self.work.run("slice", [count, self.arguments.sample_rate], work, ["clips", "held"])
        self.teller.progress("slice", 1)

    def prepare(self) -> None:
        arguments, project = self.arguments, self.project
        clips = self.folder / "clips"
        self.teller.progress("features", 0)
        commands = project.prepare(clips, self.experiment, self.python.cuda, arguments.threads, self.is_half)

        def work() -> dict[str, Any]:
            self.experiment.mkdir(exist_ok=True)
            pieces = sum(clip.seconds for clip in self.clips) / project.piece_seconds  # until they are counted
            for number, (command, made) in enumerate(zip(commands, project.steps, strict=True)):
                progress = self.teller.within("features", number / len(commands), (number + 1) / len(commands))

                def look(made: Sequence[str] = made, progress: Progress = progress, pieces: float = pieces) -> None:
                    found = sum(len(list((self.experiment / name).glob("*"))) for name in made)
                    progress(found / len(made) / max(1.0, pieces))

                child = self.program(Path(command[0]).stem, command, on_look=look)
                if child.code:
                    raise child.failure(self.folder)
                progress(1)
                pieces = len(list((self.experiment / project.steps[0][0]).glob("*")))
            counts = {name: len(list((self.experiment / name).glob("*"))) for name in project.parts}
            least = min(counts.values())
            if not least:
                if child.out_of_memory():
                    raise child.failure(self.folder)
                empty = next(name for name, count in counts.items() if not count)
                raise ScriptError(script_io.ENGINE_FAILED, f"nothing was made for {empty}: {child.reason}")
            if least < max(counts.values()):
                self.report.warn(
                    "left_out_by_engine", f"RVC prepared {least} of {max(counts.values())} pieces; see WORK/logs."
                )
            project.finish_preparation(self.experiment)  # also below: WORK may lie elsewhere by then
            if not foreign.is_filled(self.experiment / "filelist.txt"):
                raise ScriptError(script_io.ENGINE_FAILED, "the list of what is trained on was not written")
            return {"pieces": least}

        made_from = [arguments.engine, arguments.f0, arguments.sample_rate]
        outcome = self.work.run("features", made_from, work, [f"cwd/logs/{NAME}"])
        project.finish_preparation(self.experiment)
        self.pieces = int(outcome["pieces"])
        for known in self.report.warnings:
            self.teller.warn(known["code"], known["message"])
        self.teller.progress("features", 1)

    # --- training -------------------------------------------------------------------------------------------

    def saved(self) -> dict[int, Path]:
        """The weights of each epoch that was saved after a step."""
        found = {}
        for path in self.project.weights(self.cwd).glob(f"{NAME}_*.pth"):
            match = self.project.saved.fullmatch(path.stem)
            if match and int(match[2]) and path.stat().st_size:
                found[int(match[1])] = path
        return dict(sorted(found.items()))

    @property
    def is_trained(self) -> bool:
        """One of the epochs may have been added."""
        return max(self.saved(), default=0) >= self.arguments.epochs

    def train(self) -> None:
        arguments = self.arguments
        batch = arguments.batch
        if not batch:
            batch = min(MAX_BATCH, max(1, self.python.gpu_bytes // 2**31)) if self.python.gpu_bytes else CPU_BATCH
        batch = max(1, min(batch, self.pieces // MIN_BATCHES))
        progress = self.teller.within("train", 0, 0.98)
        progress(0)  # what it imports and loads takes minutes before its first step

        def work() -> dict[str, Any]:
            files, used = with_a_batch_that_fits(
                lambda size: self.fit(size, progress), batch, "train", self.teller, "the GPU is too small"
            )
            self.python.inspect(files, None, [self.root], self.teller.within("train", 0.98, 1))
            for path in self.experiment.glob("[GD]_*.pth"):  # gigabytes that are needed no more
                path.unlink()
            return {"batch": used, "epochs": sorted(self.saved())}

        made_from = [arguments.epochs, sha256(self.project.generator), sha256(self.project.discriminator)]
        self.work.run("train", made_from, work)
        self.teller.progress("train", 1)
        self.teller.progress("index", 0)
        self.work.run("index", None, self.make_index)
        self.teller.progress("index", 1)

    def fit(self, batch: int, progress: Progress) -> list[Path]:
        epochs = self.arguments.epochs
        states = list(self.experiment.glob("[GD]_*.pth"))
        if states and (len(states) != 2 or not all(publishing.is_whole(path) for path in states)):
            self.teller.warn("checkpoint_broken", "The last checkpoint is broken: the training begins anew.")
            states = []
        if not states:
            for path in [*self.experiment.glob("[GD]_*.pth"), *self.saved().values()]:
                path.unlink()

        ended = max(self.saved(), default=0) if states else 0

        def on_line(line: str) -> None:
            nonlocal ended
            ended = max(ended, self.project.epoch_of(line))
            progress((ended + self.project.part_of(line)) / epochs)

        def train(until: int) -> Child:
            command = self.project.train(until, self.save_every, batch)
            return self.program("train", command, on_line, stall_seconds=self.python.stall_seconds)

        before = ended
        child = train(epochs)
        if states and not self.is_trained and ended == before and not child.error and not child.out_of_memory():
            # It goes on after the epoch of its state, here the last one: only what followed it was not written.
            self.teller.warn("one_more_epoch", "The weights of the last epoch were not saved: one more was trained.")
            child = train(epochs + 1)
        if not self.is_trained:
            if child.said(r"Not enough data present"):
                raise ScriptError(script_io.ENGINE_FAILED, f"{self.pieces} pieces are too few for batch {batch}")
            raise child.failure(self.folder)
        return self.candidates()

    def candidates(self) -> list[Path]:
        """Up to four of the second half, the last one among them."""
        made = {epoch: path for epoch, path in self.saved().items() if epoch * 2 >= self.arguments.epochs}
        epochs = list(made)
        count = min(CANDIDATES, len(epochs))
        return [made[epochs[(number + 1) * len(epochs) // count - 1]] for number in range(count)]

    def make_index(self) -> None:
        for path in self.experiment.glob("*.index"):
            path.unlink()  # an old one would be taken again
        child = self.program("index", self.project.index_command(self.experiment, self.arguments.threads))
        if child.code or not self.index():
            raise child.failure(self.folder)

    def index(self) -> Path | None:
        return next((path for path in self.experiment.glob(self.project.index) if path.stat().st_size), None)

    # --- the choice -----------------------------------------------------------------------------------------

    def evaluate(self) -> dict[str, Any]:
        """Each candidate sings the held-out clips again; the one whose spectrum is nearest to theirs."""
        epoch_of = {path: epoch for epoch, path in self.saved().items()}
        candidates = self.candidates()
        folder = self.folder / "sung"
        self.teller.progress("evaluate", 0)

        def work() -> dict[str, Any]:
            remove(folder)
            folder.mkdir()
            if not self.held:
                self.teller.warn("not_scored", "No clips are held out: the last epoch is taken unheard.")
                return {"epoch": epoch_of[candidates[-1]], "table": []}
            table = []
            for number, path in enumerate(candidates):
                distances = []
                for clip_number, clip in enumerate(self.held):
                    done = (number * len(self.held) + clip_number) / len(candidates) / len(self.held)
                    share = 1 / len(candidates) / len(self.held)
                    told = self.teller.within("evaluate", done, done + share)
                    distances.append(self.distance(path, clip, folder, number, told))
                    told(1)
                table.append({"epoch": epoch_of[path], "distance_db": round(float(np.mean(distances)), 3)})
            write_json(self.folder / "evaluation.json", table)
            return {"epoch": min(table, key=lambda row: row["distance_db"])["epoch"], "table": table}

        outcome = self.work.run("evaluate", [self.arguments.seed], work)
        self.teller.progress("evaluate", 1)
        return outcome

    def distance(self, weights: Path, clip: Clip, folder: Path, number: int, progress: Progress) -> float:
        """Between a clip and itself sung again, dB. Raises ScriptError as rvc_infer.py does."""
        source = self.folder / "held" / f"{clip.name}.wav"
        made = folder / f"{number}_{clip.name}.wav"
        index = self.index()
        assert index is not None
        command: list[str | Path] = [
            sys.executable,
            INFER,
            "--project-root",
            self.root,
            "--input",
            source,
            "--output",
            made,
        ]
        command += ["--pitch", "0", "--weights", weights, "--index", index, "--f0-method", self.arguments.f0]
        command += ["--device", self.python.device, "--is-half", str(self.is_half), "--seed", str(self.arguments.seed)]
        log = self.folder / "logs" / "infer.log"
        environment = self.python.environment
        if "trained" in environment["TMPDIR"]:  # both projects take that word in an index's path for another file's
            environment["TMPDIR"] = tempfile.gettempdir()

        def on_line(line: str) -> None:
            if match := re.fullmatch(r"PROGRESS ([\d.]+)", line):
                progress(float(match[1]))

        child = children.run("infer", command, cwd=self.folder, log=log, environment=environment, on_line=on_line)
        if child.code:
            known = child.last and script_io.BAD_ARGUMENTS <= child.code <= script_io.DISK_FULL
            raise ScriptError(child.code, child.last) if known else child.failure(self.folder)
        spectra = [_log_spectrum(*soundfile.read(path, dtype="float32", always_2d=True)) for path in (source, made)]
        count = min(len(spectrum) for spectrum in spectra)
        return float(np.mean(np.abs(spectra[0][:count] - spectra[1][:count])))

    def publish(self, outcome: dict[str, Any]) -> None:
        self.teller.progress("publish", 0)
        index, held = self.index(), {clip.name for clip in self.held}
        assert index is not None
        with publishing.output_folder(self.arguments.output) as folder:
            shutil.copyfile(self.saved()[outcome["epoch"]], folder / "model.pth")
            shutil.copyfile(index, folder / "model.index")
            base = {"generator": self.project.generator, "discriminator": self.project.discriminator}
            model = {
                "model_id": self.arguments.model_id,
                "engine": self.arguments.engine,
                "sample_rate": self.arguments.sample_rate,
                "f0": self.arguments.f0,
                "base": {name: sha256(path) for name, path in base.items()},
                "files": {name: sha256(folder / name) for name in ("model.pth", "model.index")},
                "epochs": {"epoch": outcome["epoch"], "trained": self.arguments.epochs},
                "trained": {
                    "clips": len(self.clips) - len(held),
                    "seconds": round(sum(clip.seconds for clip in self.clips if clip.name not in held), 1),
                    "held_out": len(held),
                    "device": self.python.device,
                    "torch": self.python.torch,
                },
                "evaluation": outcome["table"],
                "seed": self.arguments.seed,
            }
            write_json(folder / "model.json", model)
        self.teller.progress("publish", 1)


def _log_spectrum(sides: audio.Float32, rate: int) -> np.ndarray:
    """(frames, bands) in dB: 80 Hz to 8 kHz, 20 ms apart, of the whole at one level."""
    samples = audio.resampled(audio.middle(sides), rate, 16000)
    samples = samples / max(audio.level(samples), 1e-6)
    count = max(0, (len(samples) - 1024) // 320)
    frames = samples[np.arange(count)[:, None] * 320 + np.arange(1024)] * np.hanning(1024)
    power = np.abs(np.fft.rfft(frames)) ** 2
    edges = np.unique(np.geomspace(5, 512, 65).astype(int))
    return np.asarray(10 * np.log10(np.add.reduceat(power, edges[:-1], axis=1) + 1e-3))
