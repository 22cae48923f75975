"""A fine-tuning from recordings to a published voice: the stages, in order."""

from __future__ import annotations

import argparse
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from common import audio, recognition, script_io
from common.script_io import ScriptError
from common.training import dataset, publishing, transcripts
from common.training.dataset import Clip
from common.training.interpreter import Interpreter, with_a_batch_that_fits
from common.training.report import MIN_CLIPS, Report, look_at_files, look_at_speakers, look_at_texts
from common.training.tell import Progress, Teller
from common.training.work import Work, remove, require_free, sha256, write_json

from . import checkpoints, finetuning, selection
from .finetuning import Bases, FineTuning
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
MARKER = "GPT_SoVITS/s2_train.py"
STEPS = Path(__file__).with_name("steps.py")
CPU_BATCH, MAX_BATCH = 2, 16
LEAST_BATCHES = 8  # of an epoch


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
        self.found, unusable = dataset.sources(arguments.dataset)
        self.asr = recognition.find_model(arguments.asr_model, self.root)
        self.work = Work(self.folder)
        bases = Bases.of(self.root, arguments.version)
        self.python = Interpreter(
            self.folder,
            arguments.device,
            arguments.threads,
            finetuning.PACKAGES,
            ["ffmpeg"],
            teller,
            arguments.stall_seconds,
        )
        self.device = self.python.device
        require_free(self.folder, bases.training_bytes(arguments.sovits_epochs, arguments.gpt_epochs))
        self.tuning = FineTuning(
            self.root,
            arguments.version,
            bases,
            self.python,
            teller,
            is_half=arguments.is_half,
            seed=arguments.seed,
            segment_size=arguments.segment_size,
        )
        self.bases = bases
        teller.progress("check", 0)
        self.check(unusable)
        if arguments.until == "check":
            return
        self.slice()
        self.transcribe()
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

    # --- preparation ----------------------------------------------------------------------------------------

    def check(self, unusable: list[dataset.Dropped]) -> None:
        arguments = self.arguments
        self.report = Report(language=arguments.language)
        progress = self.teller.within("check", 0, 0.5)

        def work() -> dict[str, Any]:
            report = self.report
            report.drop(unusable)
            files, clips, dropped = dataset.measure_all(self.found, arguments.max_seconds, progress)
            report.drop(dropped)
            look_at_files(report, files)
            clips = look_at_texts(report, clips, files, arguments.language)
            vectors = self.embeddings(clips)
            clips, vectors = look_at_speakers(report, clips, vectors)
            if not report.problems:
                report.count(clips)
            report.look_at_length()
            report.finish(self.folder / "report.json", lambda code, sentence: None)
            speaker = vectors.mean(axis=0).tolist() if vectors is not None else None
            return {
                "clips": [clip.as_json() for clip in clips],
                "speaker": speaker,
                "report": vars(report),
            }

        made_from = [dataset.digest(self.found), arguments.max_seconds, arguments.language, self.bases.sv is not None]
        try:
            outcome = self.work.run("check", made_from, work, ["report.json"])
        finally:
            for known in self.report.warnings:
                self.teller.warn(known["code"], known["message"])
        self.take(outcome)
        self.speaker: list[float] | None = outcome["speaker"]
        self.teller.progress("check", 1)

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
        answer = self.python.step("embed", order, self.teller.within("check", 0.5, 1), cpu=True, program=STEPS)
        return np.array(answer["embeddings"], np.float64)

    def slice(self) -> None:
        progress = self.teller.within("slice")
        progress(0)

        def work() -> None:
            folder = self.folder / "clips"
            remove(folder)
            folder.mkdir()
            for number, clip in enumerate(self.clips):
                dataset.write_clip(clip, folder / f"{clip.name}.wav", 32000)
                progress((number + 1) / len(self.clips))

        self.work.run("slice", None, work, ["clips"])
        self.teller.progress("slice", 1)

    def transcribe(self) -> None:
        progress = self.teller.within("transcribe")
        progress(0)

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
                heard = self.python.step("transcribe", order, progress)
            clips = transcripts.complete(self.report, self.clips, self.found, heard)
            self.enough(clips)
            return {"clips": [clip.as_json() for clip in clips], "report": vars(self.report)}

        outcome = self.work.run("transcribe", [str(self.asr) if self.asr else None], work)
        self.take(outcome)
        self.teller.progress("transcribe", 1)

    def enough(self, clips: list[Clip]) -> None:
        """Writes the report again. Raises ScriptError (15)."""
        if not self.report.problems:
            self.report.count(clips)
        if clips and max(clip.seconds for clip in clips) < MIN_REFERENCE_SECONDS:
            message = f"No clip lasts {MIN_REFERENCE_SECONDS} s, which the voice needs as its reference."
            self.report.problem("no_reference", message)
        self.report.finish(self.folder / "report.json", self.teller.warn)

    def take(self, outcome: dict[str, Any]) -> None:
        """What a stage left, here: an earlier run of it may have been in other folders."""
        self.report = Report(**outcome["report"])
        self.clips = [Clip(**clip) for clip in outcome["clips"]]
        for clip in self.clips:
            clip.file = str(self.found[clip.source].path)
            clip.path = str(self.folder / "clips" / f"{clip.name}.wav")

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
        self.teller.progress("features", 0)
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
            if clip.name in left and not checkpoints.LEAST_PHONES < rate < checkpoints.MOST_PHONES:
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
                raise ScriptError(
                    script_io.ENGINE_FAILED,
                    f"GPT-SoVITS could prepare {len(self.training)} of {len(clips)} clips only: "
                    f"{next(iter(lost.values()))}; see {self.folder / 'logs'}",
                )
            self.enough(self.training + self.held)
        tuning.keep(self.training)
        self.teller.progress("features", 1)

    # --- training -------------------------------------------------------------------------------------------

    def batch(self) -> int:
        if self.arguments.batch:
            return int(self.arguments.batch)
        if not self.python.gpu_bytes:
            return CPU_BATCH
        most = max(1, round(self.python.gpu_bytes / 2**30) // (2 if self.tuning.is_half else 4))
        return min(most, MAX_BATCH, max(1, checkpoints.repeated(len(self.training)) // LEAST_BATCHES))

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
        """Trains with the batch, or with half of it as long as memory does not do. Raises ScriptError (7, 17, ...).

        made: the folders of the weights and of the state in which a stopped one goes on.
        """
        states = self.folder / made[1]
        self.teller.progress(stage, 0)  # what it imports and loads takes minutes before its first step

        def work() -> dict[str, Any]:
            progress = self.teller.within(stage, 0, 0.98)
            hint = f"take clips shorter than {self.arguments.max_seconds:g} s (--max-seconds)"
            files, batch = with_a_batch_that_fits(
                lambda size: train(size, progress), self.batch(), stage, self.teller, hint
            )
            classes = [self.root, self.root / "GPT_SoVITS"]
            self.python.inspect(files, base, classes, self.teller.within(stage, 0.98, 1))
            for state in states.rglob("*"):
                if state.suffix in (".pth", ".ckpt"):  # gigabytes that are needed no more
                    state.unlink()
            return {"files": [str(path.relative_to(self.folder)) for path in files], "batch": batch}

        outcome = self.work.run(stage, made_from, work, made)
        self.teller.progress(stage, 1)
        return [self.folder / name for name in outcome["files"]]

    # --- the choice -----------------------------------------------------------------------------------------

    def evaluate(self) -> dict[str, Any]:
        """The chosen pair and the table. Raises ScriptError: 11 none of the trained pairs spoke, 16."""

        def epoch(path: Path) -> int:
            found = checkpoints.epochs_in(path.parent, f"*{path.suffix}")
            return next((number for number, own in found.items() if own == path), 0)

        pairs = [(self.bases.gpt, self.bases.sovits), *itertools.product(self.gpt, self.sovits)]
        seeds = [self.arguments.seed + number for number in range(self.arguments.takes)]
        self.teller.progress("evaluate", 0)

        def work() -> dict[str, Any]:
            path, text, language = self.reference()
            if not self.held:
                self.teller.warn("not_scored", "No clips are held out: the last epochs are taken unheard.")
                pair = {"gpt_epoch": epoch(self.gpt[-1]), "sovits_epoch": epoch(self.sovits[-1])}
                return {"chosen": pair, "table": [], "reference": [path.name, text, language]}
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
            answer = self.python.step("speak", order, self.teller.within("evaluate"), program=STEPS)["pairs"]
            failed = [[take["error"] for take in one["takes"] if "error" in take] for one in answer]
            if all(len(errors) == len(one["takes"]) for errors, one in zip(failed[1:], answer[1:], strict=True)):
                raise ScriptError(
                    script_io.ENGINE_FAILED,
                    f"nothing was compared: no held-out sentence could be spoken with what was trained: {failed[1][0]}",
                )
            if len(failed[0]) == len(answer[0]["takes"]):
                message = "The untrained model could not speak: what was trained is compared with itself alone."
                self.teller.warn("base_failed", message)
            seconds = [clip.seconds for clip in self.held]
            rows = [
                selection.row(
                    (epoch(Path(one["gpt"])) if number else 0, epoch(Path(one["sovits"])) if number else 0),
                    one["takes"],
                    seconds,
                )
                for number, one in enumerate(answer)
            ]
            if all(one.errors is None for one in rows):
                self.teller.warn("words_unknown", "There is no recogniser: whether words are right was not scored.")
            if all(one.likeness is None for one in rows):
                self.teller.warn("likeness_unknown", "Likeness was not scored: the longest trained pair is taken.")
            best, judged = selection.choose(rows[0], rows[1:])
            table = [one.as_json() for one in (rows[0], *judged)]
            write_json(self.folder / "evaluation.json", table)
            chosen = {"gpt_epoch": best.gpt_epoch, "sovits_epoch": best.sovits_epoch} if best else None
            return {"chosen": chosen, "table": table, "reference": [path.name, text, language]}

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
        self.teller.progress("publish", 0)
        chosen = outcome["chosen"]
        gpt = checkpoints.epochs_in(self.folder / "gpt", "*.ckpt")[chosen["gpt_epoch"]]
        sovits = checkpoints.epochs_in(self.folder / "sovits", "*.pth")[chosen["sovits_epoch"]]
        name, text, language = outcome["reference"]
        reference = self.folder / "reference" / name
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
                    "torch": self.python.torch,
                },
                "evaluation": outcome["table"],
                "seed": self.arguments.seed,
            }
            write_json(folder / "model.json", model)
        self.teller.progress("publish", 1)
