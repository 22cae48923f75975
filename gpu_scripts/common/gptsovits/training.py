"""A fine-tuning from recordings to a published voice: the stages, in order."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from common import audio, recognition, script_io
from common.script_io import ScriptError
from common.training import children, dataset, publishing, transcripts
from common.training.dataset import Clip
from common.training.report import MIN_CLIPS, Report, look_at_files, look_at_speakers, look_at_texts
from common.training.tell import Progress, Teller
from common.training.work import Work, remove, require_free, sha256, write_json

from . import finetuning, selection
from .finetuning import PACKAGES, Bases, FineTuning
from .references import MAX_REFERENCE_SECONDS, MIN_REFERENCE_SECONDS, best_reference, store_reference

SHARES = {
    "check": 0.03,
    "slice": 0.01,
    "transcribe": 0.05,
    "features": 0.07,
    "train_sovits": 0.44,
    "train_gpt": 0.2,
    "evaluate": 0.19,
    "publish": 0.01,
}
UNTIL = ("check", "prepare", "train", "select", "publish")
STEPS = Path(dataset.__file__).with_name("steps.py")
MARKER = "GPT_SoVITS/s2_train.py"
CPU_BATCH, MAX_BATCH = 2, 16
LEAST_BATCHES = 8  # of an epoch
MANY_PAIRS_ON_A_CPU = 100  # sentences to be spoken


class Training:
    """One run of gptsovits_train.py."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.root: Path = arguments.project_root
        self.teller = Teller(SHARES)
        self.folder: Path = arguments.work

    def run(self) -> None:
        """Raises ScriptError."""
        arguments, teller = self.arguments, self.teller
        if not (self.root / MARKER).is_file():
            raise ScriptError(script_io.BAD_ARGUMENTS, f"{self.root} is not the root of a GPT-SoVITS (no {MARKER})")
        publishing.check_output(arguments.output, arguments.model_id)
        found, unusable = dataset.sources(arguments.dataset)
        self.asr = recognition.find_model(arguments.asr_model, self.root)
        self.work = Work(self.folder)
        for name in ("orders", "stubs"):
            (self.folder / name).mkdir(exist_ok=True)
        bases = Bases.of(self.root, arguments.version)
        self.device, self.cuda, self.gpu_bytes = self.probe()
        require_free(self.folder, bases.training_bytes(arguments.sovits_epochs, arguments.gpt_epochs))
        self.tuning = FineTuning(
            self.root,
            self.folder,
            arguments.version,
            bases,
            teller,
            cuda=self.cuda,
            is_half=arguments.is_half,
            seed=arguments.seed,
            threads=arguments.threads,
            segment_size=arguments.segment_size,
        )
        self.bases = bases
        teller.progress("check", 0)
        self.check(found, unusable)
        if arguments.until == "check":
            return
        self.slice()
        self.transcribe(found)
        self.features()
        if arguments.until == "prepare":
            return
        self.train()
        if arguments.until == "train":
            return
        chosen = self.evaluate()
        if arguments.until == "select":
            return
        self.publish(chosen)

    # --- what is needed -------------------------------------------------------------------------------------

    def step(self, step: str, order: dict[str, Any], progress: Progress | None = None, cpu: bool = False) -> Any:
        """Runs one of common/training/steps.py; its answer. Raises ScriptError: the step's own, or as a child's."""
        paths = [self.folder / "orders" / f"{step}{suffix}.json" for suffix in ("", "-answer")]
        remove(paths[1])
        write_json(paths[0], order)
        environment = {"CUDA_VISIBLE_DEVICES": "" if cpu else (self.cuda or "")} | {
            name: value
            for name, value in getattr(self, "tuning_environment", lambda: {})().items()
            if not name.endswith("CUDA_VISIBLE_DEVICES") and name != "PYTHONPATH"
        }

        def on_line(line: str) -> None:
            if progress is not None and (match := re.fullmatch(r"DONE (\d+) (\d+)", line)):
                progress(int(match[1]) / max(1, int(match[2])))

        child = children.run(
            step,
            [sys.executable, STEPS, step, *paths],
            cwd=self.folder,
            log=self.folder / "logs" / f"{step}.log",
            environment=environment,
            on_line=on_line,
        )
        if child.code == 0 and paths[1].is_file():
            return json.loads(paths[1].read_text("utf-8"))
        if 2 <= child.code <= script_io.DISK_FULL and child.lines:
            raise ScriptError(child.code, child.lines[-1])
        raise child.failure(self.folder)

    def tuning_environment(self) -> dict[str, str]:
        return self.tuning.environment if hasattr(self, "tuning") else {"PYTHONDONTWRITEBYTECODE": "1"}

    def probe(self) -> tuple[str, str | None, int]:
        """(`cuda` or `cpu`, the number of the GPU, its bytes). Raises ScriptError: 8, 14."""
        asked = self.arguments.device
        match = re.fullmatch(r"cpu|auto|cuda(?::(\d+))?", asked)
        if not match:
            raise ScriptError(script_io.BAD_ARGUMENTS, f"--device must be cpu, cuda, cuda:N or auto, not {asked}")
        if shutil.which("ffmpeg") is None:
            raise ScriptError(script_io.MISSING_PACKAGE, "GPT-SoVITS reads its clips by ffmpeg, which is not on PATH")
        visible = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
        number = int(match[1] or 0)
        if visible and number >= len(visible):
            raise ScriptError(script_io.NO_CUDA, f"there is no GPU {number}: {len(visible)} are visible")
        self.cuda = None if asked == "cpu" else visible[number] if visible else str(number)
        if "CUDA_VISIBLE_DEVICES" in os.environ and not visible:
            self.cuda = None
        if self.cuda and not self.cuda.isdigit():
            raise ScriptError(
                script_io.BAD_ARGUMENTS,
                f"CUDA_VISIBLE_DEVICES names a GPU as {self.cuda}; GPT-SoVITS's training understands numbers alone",
            )
        answer = self.step("probe", {"packages": PACKAGES})
        if answer["missing"]:
            raise ScriptError(
                script_io.MISSING_PACKAGE, f"{sys.executable} lacks {', '.join(answer['missing'])}, needed for training"
            )
        self.torch = answer["torch"]
        if answer["cuda"]:
            return "cuda", self.cuda, int(answer["gpu_bytes"])
        if asked not in ("cpu", "auto"):
            raise ScriptError(script_io.NO_CUDA, f"torch finds no GPU for --device {asked}; a CPU takes days")
        if asked == "auto":
            self.teller.warn("cpu", "There is no GPU: training on the CPU takes days for more than a trial.")
        return "cpu", None, 0

    # --- preparation ----------------------------------------------------------------------------------------

    def check(self, found: list[dataset.Source], unusable: list[dataset.Dropped]) -> None:
        arguments = self.arguments
        self.report = Report(language=arguments.language)
        progress = self.teller.within("check", 0, 0.5)

        def work() -> dict[str, Any]:
            report = self.report
            report.drop(unusable)
            files, clips, dropped = dataset.measure_all(found, arguments.max_seconds, progress)
            report.drop(dropped)
            look_at_files(report, files)
            clips = look_at_texts(report, clips, files, arguments.language)
            vectors = self.embeddings(clips)
            clips, vectors = look_at_speakers(report, clips, vectors)
            if not report.problems:
                report.count(clips)
            self.warn_of_length()
            report.finish(self.folder / "report.json", lambda code, sentence: None)
            speaker = vectors.mean(axis=0).tolist() if vectors is not None else None
            return {
                "clips": [clip.as_json() for clip in clips],
                "speaker": speaker,
                "report": vars(report),
            }

        made_from = [dataset.digest(found), arguments.max_seconds, arguments.language, self.bases.sv is not None]
        try:
            outcome = self.work.run("check", made_from, work, ["report.json"])
        finally:
            for known in self.report.warnings:
                self.teller.warn(known["code"], known["message"])
        self.report = Report(**outcome["report"])
        self.clips = [Clip(**clip) for clip in outcome["clips"]]
        self.speaker: list[float] | None = outcome["speaker"]
        self.teller.progress("check", 1)

    def warn_of_length(self) -> None:
        from common.training.report import FEW_SECONDS, MANY_SECONDS

        if self.report.usable_seconds < FEW_SECONDS:
            self.report.warn("short", "Less than three minutes of speech: more makes a better voice.")
        elif self.report.usable_seconds > MANY_SECONDS:
            self.report.warn("long", "More than 40 minutes of speech: take fewer epochs, or the best part of it.")

    def embeddings(self, clips: list[Clip]) -> np.ndarray | None:
        if self.bases.sv is None:
            self.report.warn("no_embedder", "The engine's speaker model is not there: nobody knows whether one speaks.")
            return None
        if not clips:
            return None
        order = {
            "root": str(self.root),
            "sv": str(self.bases.sv),
            "device": "cpu",
            "parts": [[clip.file, clip.start, clip.end] for clip in clips],
        }
        answer = self.step("embed", order, self.teller.within("check", 0.5, 1), cpu=True)
        return np.array(answer["embeddings"], np.float64)

    def slice(self) -> None:
        progress = self.teller.within("slice")

        def work() -> None:
            folder = self.folder / "clips"
            remove(folder)
            folder.mkdir()
            for number, clip in enumerate(self.clips):
                dataset.write_clip(clip, folder / f"{clip.name}.wav", 32000)
                progress((number + 1) / len(self.clips))

        self.work.run("slice", None, work, ["clips"])
        for clip in self.clips:
            clip.path = str(self.folder / "clips" / f"{clip.name}.wav")
        self.teller.progress("slice", 1)

    def transcribe(self, found: list[dataset.Source]) -> None:
        progress = self.teller.within("transcribe")

        def work() -> dict[str, Any]:
            heard = None
            if self.asr is not None:
                language = self.report.language
                order = {
                    "model": str(self.asr),
                    "device": self.device,
                    "is_half": self.arguments.is_half,
                    "language": language if language in dataset.LANGUAGES else "",
                    "clips": [[clip.name, clip.path] for clip in self.clips],
                }
                heard = self.step("transcribe", order, progress)
            clips = transcripts.complete(self.report, self.clips, found, heard)
            self.enough(clips)
            return {"clips": [clip.as_json() for clip in clips], "report": vars(self.report)}

        outcome = self.work.run("transcribe", [str(self.asr) if self.asr else None], work)
        self.take(outcome)
        self.teller.progress("transcribe", 1)

    def enough(self, clips: list[Clip]) -> None:
        """Writes the report again. Raises ScriptError (15)."""
        if not self.report.problems:
            self.report.count(clips)
        self.report.finish(self.folder / "report.json", self.teller.warn)

    def take(self, outcome: dict[str, Any]) -> None:
        self.report = Report(**outcome["report"])
        self.clips = [Clip(**clip) for clip in outcome["clips"]]

    def held_out(self) -> list[Clip]:
        """The clips that are only spoken afterwards: of middle length, spread over the recordings."""
        wanted = min(self.arguments.holdout, max(1, len(self.clips) // 4)) if self.arguments.holdout else 0
        if wanted < self.arguments.holdout:
            self.teller.warn("holdout", f"Only {wanted} of {len(self.clips)} clips are held out for the choice.")
        order = sorted(self.clips, key=lambda clip: (abs(clip.seconds - 6), clip.name))
        pool = sorted(order[: max(wanted, len(order) // 2)], key=lambda clip: clip.name)
        return [pool[number * len(pool) // wanted] for number in range(wanted)]

    def features(self) -> None:
        tuning = self.tuning
        self.held = self.held_out()
        names = {clip.name for clip in self.held}
        clips = [clip for clip in self.clips if clip.name not in names]
        base = sha256(self.bases.sovits)
        made_from: list[Any] = [self.arguments.version, base, [clip.name for clip in self.held]]
        parts: list[tuple[str, Callable[..., Any]]] = [("text", tuning.text), ("hubert", tuning.hubert)]
        if self.arguments.version != "v2":
            parts.append(("sv", tuning.sv))
        parts.append(("semantic", tuning.semantic))
        left = {clip.name for clip in clips}
        rates: dict[str, int] = {}
        lost: dict[str, str] = {}
        for number, (name, part) in enumerate(parts):
            progress = self.teller.within("features", number / len(parts), (number + 1) / len(parts))

            def work(part: Callable[..., Any] = part, progress: Progress = progress) -> dict[str, Any]:
                tuning.features.mkdir(exist_ok=True)
                tuning.write_list(clips)
                made = part(clips, progress)
                return {"made": made if isinstance(made, dict) else sorted(made)}

            outcome = self.work.run(name, made_from, work, ["features"] if name == "text" else [])
            if name == "text":
                rates = outcome["made"]
            for missing in left - set(outcome["made"]):
                lost[missing] = f"GPT-SoVITS made no {name} of it"
            left &= set(outcome["made"])
        for clip in clips:
            rate = rates.get(clip.name, 0) / clip.seconds
            if clip.name in left and not finetuning.LEAST_PHONES < rate < finetuning.MOST_PHONES:
                lost[clip.name] = f"odd rate: {rate:.1f} phonemes a second"
                left.discard(clip.name)
        self.training = [clip for clip in clips if clip.name in left]
        by_name = {clip.name: clip for clip in clips}
        self.report.drop(
            [
                dataset.Dropped(Path(by_name[name].file).name, by_name[name].start, by_name[name].end, reason)
                for name, reason in sorted(lost.items())
            ]
        )
        if lost:
            if len(self.training) + len(self.held) < MIN_CLIPS:
                log = self.folder / "logs"
                raise ScriptError(
                    script_io.ENGINE_FAILED,
                    f"GPT-SoVITS could prepare {len(self.training)} of {len(clips)} clips only ({next(iter(lost.values()))}); "
                    f"see {log}",
                )
            self.enough(self.training + self.held)
        tuning.keep(self.training)
        self.teller.progress("features", 1)

    # --- training -------------------------------------------------------------------------------------------

    def batch(self) -> int:
        if self.arguments.batch:
            return int(self.arguments.batch)
        if not self.gpu_bytes:
            return CPU_BATCH
        most = max(1, round(self.gpu_bytes / 2**30) // (2 if self.tuning.is_half else 4))
        return min(most, MAX_BATCH, max(1, finetuning._repeated(len(self.training)) // LEAST_BATCHES))

    def train(self) -> None:
        arguments, tuning = self.arguments, self.tuning
        seed = [arguments.seed, arguments.segment_size]
        count = len(self.training)
        self.sovits = self.fitting(
            "train_sovits",
            [arguments.sovits_epochs, sha256(self.bases.discriminator), seed],
            lambda batch, progress: tuning.train_sovits(arguments.sovits_epochs, batch, progress),
            ["sovits", f"features/logs_s2_{arguments.version}"],
            self.bases.sovits,
        )
        self.gpt = self.fitting(
            "train_gpt",
            [arguments.gpt_epochs, sha256(self.bases.gpt), seed],
            lambda batch, progress: tuning.train_gpt(arguments.gpt_epochs, batch, count, progress),
            ["gpt", f"features/logs_s1_{arguments.version}"],
            self.bases.gpt,
        )

    def fitting(
        self,
        stage: str,
        made_from: Any,
        train: Callable[[int, Progress], list[Path]],
        made: list[str],
        base: Path,
    ) -> list[Path]:
        """Trains with the batch, or with half of it as long as memory does not do. Raises ScriptError (7, 17, ...)."""

        def work() -> dict[str, Any]:
            batch = first = self.batch()
            while True:
                try:
                    files = train(batch, self.teller.within(stage, 0, 0.98))
                    break
                except ScriptError as error:
                    if error.exit_code != script_io.OUT_OF_MEMORY:
                        raise
                    if batch == 1:
                        raise ScriptError(
                            script_io.OUT_OF_MEMORY,
                            f"out of memory in {stage}, even with batch 1 and clips of at most "
                            f"{self.arguments.max_seconds:g} s: take shorter clips (--max-seconds)",
                        ) from error
                    batch //= 2
            if batch < first:
                self.teller.warn("batch_halved", f"Out of memory in {stage} with batch {first}; batch {batch} fits.")
            self.inspect(files, base)
            for state in (self.folder / "features").glob(f"logs_s?_{self.arguments.version}/**/*"):
                if state.suffix in (".pth", ".ckpt"):  # gigabytes that are needed no more
                    state.unlink()
            return {"files": [str(path.relative_to(self.folder)) for path in files], "batch": batch}

        outcome = self.work.run(stage, made_from, work, made)
        self.teller.progress(stage, 1)
        return [self.folder / name for name in outcome["files"]]

    def inspect(self, files: list[Path], base: Path) -> None:
        """Raises ScriptError: 11 a file cannot be loaded or is the base, 17 it holds what is no number."""
        order = {
            "files": [[str(path), str(base)] for path in files],
            "path": [str(self.root), str(self.root / "GPT_SoVITS")],
        }
        for path, facts in self.step("inspect", order, cpu=True).items():
            name = Path(path).name
            if "error" in facts:
                raise ScriptError(script_io.ENGINE_FAILED, f"{name} cannot be loaded: {facts['error']}")
            if not facts["finite"]:
                raise ScriptError(script_io.NOT_FINITE, f"{name} holds weights that are no numbers")
            if not facts["changed"]:
                raise ScriptError(script_io.ENGINE_FAILED, f"{name} is the base unchanged: nothing was trained")

    # --- the choice -----------------------------------------------------------------------------------------

    def evaluate(self) -> dict[str, Any]:
        """The chosen pair and the table. Raises ScriptError (16)."""

        def epoch(path: Path) -> int:
            found = finetuning._epochs(path.parent, f"*{path.suffix}")
            return next((number for number, own in found.items() if own == path), 0)

        pairs = [(self.bases.gpt, self.bases.sovits), *itertools.product(self.gpt, self.sovits)]
        seeds = [self.arguments.seed + number for number in range(self.arguments.takes)]

        def work() -> dict[str, Any]:
            path, text, language = self.reference()
            if not self.held:
                self.teller.warn("not_scored", "No clips are held out: the last epochs are taken unheard.")
                pair = {"gpt_epoch": epoch(self.gpt[-1]), "sovits_epoch": epoch(self.sovits[-1])}
                return {"chosen": pair, "table": [], "reference": [str(path), text, language]}
            folder = self.folder / "speech"
            remove(folder)
            folder.mkdir()
            order = {
                "root": str(self.root),
                "device": self.device,
                "is_half": self.arguments.is_half and self.device != "cpu",
                "asr": str(self.asr) if self.asr else "",
                "sv": str(self.bases.sv) if self.bases.sv and self.speaker else "",
                "speaker": self.speaker,
                "pairs": [list(map(str, pair)) for pair in pairs],
                "sentences": [[clip.text, clip.language] for clip in self.held],
                "seeds": seeds,
                "reference": str(path),
                "reference_text": text,
                "reference_language": language,
                "folder": str(folder),
            }
            answer = self.step("speak", order, self.teller.within("evaluate"))["pairs"]
            seconds = [clip.seconds for clip in self.held]
            rows = [
                selection.row(
                    (epoch(Path(one["gpt"])) if number else 0, epoch(Path(one["sovits"])) if number else 0),
                    one["takes"],
                    seconds,
                )
                for number, one in enumerate(answer)
            ]
            if rows[0].errors is None:
                self.teller.warn("words_unknown", "There is no recogniser: whether words are right was not scored.")
            if rows[0].likeness is None:
                self.teller.warn("likeness_unknown", "Likeness was not scored: the longest trained pair is taken.")
            best, judged = selection.choose(rows[0], rows[1:])
            table = [one.as_json() for one in (rows[0], *judged)]
            write_json(self.folder / "evaluation.json", table)
            chosen = {"gpt_epoch": best.gpt_epoch, "sovits_epoch": best.sovits_epoch} if best else None
            return {"chosen": chosen, "table": table, "reference": [str(path), text, language]}

        outcome = self.work.run("evaluate", [seeds, str(self.asr) if self.asr else None], work, ["reference"])
        if outcome["chosen"] is None:
            reasons = sorted({str(row["out"]) for row in outcome["table"][1:]})
            raise ScriptError(
                script_io.NONE_BETTER,
                f"no checkpoint is better than the base ({'; '.join(reasons)}): nothing is published",
            )
        self.teller.progress("evaluate", 1)
        return outcome

    def reference(self) -> tuple[Path, str, str]:
        """(3 to 10 s of the speaker, what is said in it, its language), of the clips that are trained on."""
        folder = self.folder / "reference"
        folder.mkdir(exist_ok=True)
        fitting = [c for c in self.training if MIN_REFERENCE_SECONDS + 0.2 <= c.seconds <= MAX_REFERENCE_SECONDS - 0.2]
        if fitting:
            best = max(fitting, key=lambda clip: min(clip.snr, 40) - 4 * abs(clip.seconds - 6))
            samples, rate, _ = audio.read_mono(Path(best.path))
            return store_reference(samples, rate, folder), best.text or "", best.language
        longest = max(self.training, key=lambda clip: clip.seconds)
        samples, rate, _ = audio.read_mono(Path(longest.path))
        samples, rate = best_reference(samples, rate)
        self.teller.warn("reference_text", "No clip is 3 to 10 s long: the reference is a part of one, without a text.")
        return store_reference(samples, rate, folder), "", longest.language

    def publish(self, outcome: dict[str, Any]) -> None:
        chosen = outcome["chosen"]
        gpt = finetuning._epochs(self.folder / "gpt", "*.ckpt")[chosen["gpt_epoch"]]
        sovits = finetuning._epochs(self.folder / "sovits", "*.pth")[chosen["sovits_epoch"]]
        reference, text, language = outcome["reference"]
        with publishing.output_folder(self.arguments.output) as folder:
            shutil.copyfile(gpt, folder / "gpt.ckpt")
            shutil.copyfile(sovits, folder / "sovits.pth")
            shutil.copyfile(reference, folder / "reference.wav")
            (folder / "reference.txt").write_text(text, "utf-8")
            model = {
                "model_id": self.arguments.model_id,
                "engine": "gptsovits",
                "version": self.arguments.version,
                "language": self.report.language,
                "reference_language": language,
                "base": {"gpt": sha256(self.bases.gpt), "sovits": sha256(self.bases.sovits)},
                "files": {name: sha256(folder / name) for name in ("gpt.ckpt", "sovits.pth", "reference.wav")},
                "epochs": chosen,
                "trained": {
                    "clips": len(self.training),
                    "seconds": round(sum(clip.seconds for clip in self.training), 1),
                    "held_out": len(self.held),
                    "sovits_epochs": self.arguments.sovits_epochs,
                    "gpt_epochs": self.arguments.gpt_epochs,
                    "device": self.device,
                    "torch": self.torch,
                },
                "evaluation": outcome["table"],
                "seed": self.arguments.seed,
            }
            write_json(folder / "model.json", model)
        self.teller.progress("publish", 1)
