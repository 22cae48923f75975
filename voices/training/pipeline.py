"""One training, stage by stage: check -> slice -> transcribe -> features -> train -> evaluate -> publish.

The recordings are looked at here; the rest is a command's work, run up to one stage after the other. What it has made
is stored after its stages, and now and then while it trains, so that another host goes on from there.
"""

from __future__ import annotations

import functools
import json
import logging
import tarfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from django.conf import settings
from django.db import connection

from voiceproject.commands import runner
from voiceproject.commands.template import CommandTemplate
from voiceproject.errors import PublicError
from voiceproject.jobs import attempt
from voiceproject.jobs.attempt import NotOurs, Progress, StageFailed, Terms
from voiceproject.media import storage
from voiceproject.media.storage import OUTAGE_SECONDS, patiently
from voiceproject.telemetry.logging import bind
from voices.training import checkpoints, dataset, published
from voices.training.models import Training

log = logging.getLogger(__name__)
T = TypeVar("T")

# Where each stage begins on the scale of 0 to 100.
STARTS = {
    "gptsovits": {"check": 0, "slice": 4, "transcribe": 5, "features": 9, "train_sovits": 15, "train_gpt": 60,
                  "evaluate": 80, "publish": 98, "end": 100},
    "rvc": {"check": 0, "slice": 4, "features": 8, "train": 15, "index": 88, "evaluate": 90, "publish": 98, "end": 100},
}  # fmt: skip
# How far the command is told to go (`--until`), and the checkpoint that is stored then. The last one has no `--until`.
STEPS = (("check", ""), ("prepare", "prepared"), ("train", "trained"), ("select", "evaluated"), ("", ""))
AFTER = {"": 0, "prepared": 2, "trained": 2, "evaluated": 4}  # the first step that a checkpoint leaves to be done
DEFAULTS = {"sovits_epochs": 8, "gpt_epochs": 15, "epochs": 200, "batch": "auto", "seed": 1234}

# The exit codes of the scripts that train: the error, and what the client is told where that is more than its usual
# message. Their docstrings list them.
GPU_LOST = 8
EXITS: dict[int, tuple[str, str]] = {
    3: ("dataset_refused", "None of the recordings can be read."),
    7: (
        "out_of_memory",
        "The GPU has too little memory for this training. Send a smaller batch.",
    ),
    9: ("training_failed", "The weights that training begins at are not installed on this server."),
    13: ("dataset_refused", "This server transcribes nothing: send transcripts of the recordings."),
    15: ("dataset_refused", ""),
    16: ("not_better", ""),
    17: ("training_failed", "The training came to no numbers. Send a smaller batch, or leave poor recordings out."),
    18: ("storage_full", ""),
}


@functools.cache
def template(engine: str) -> CommandTemplate:
    line = settings.TRAINING_GPTSOVITS_CMD_TEMPLATE if engine == "gptsovits" else settings.TRAINING_RVC_CMD_TEMPLATE
    return CommandTemplate(line, settings.TRAINING_PLACEHOLDERS)


def run(job: Training, stopping: threading.Event) -> bool:
    """Runs a claimed job to its end, whatever that is. Raises nothing that belongs to the job.

    False where this host's GPU was lost.
    """
    heartbeat = _Progress(job, stopping)
    work = _Work(job, heartbeat)
    terms = Terms(
        settings.TRAINING_MAX_ATTEMPTS,
        settings.TRAINING_TTL_HOURS,
        lambda stage: "training_failed",
        engine_stages=("features", "train", "train_sovits", "train_gpt", "evaluate"),
        fields=lambda: {
            "warnings": work.warnings,
            "report": job.report,
            "evaluation": job.evaluation,
            "duration_seconds": job.duration_seconds,
        },
    )
    attempt.run(job, heartbeat, terms, work.run)
    # The ledger has it of a job that has ended here; of one that was canceled, only its worker knows.
    job.correct_usage(0.0, job.engine_seconds or 0.0)
    return not work.gpu_lost


class _Progress(Progress):
    def __init__(self, job: Training, stopping: threading.Event) -> None:
        super().__init__(job, stopping)
        self.starts = STARTS[job.engine]  # type: ignore[misc] # of this engine's stages

    def enter(self, stage: str) -> None:
        if stage != self.stage:
            super().enter(stage)


class _Work:
    def __init__(self, job: Training, heartbeat: _Progress) -> None:
        self.job = job
        self.heartbeat = heartbeat
        self.deadline = time.monotonic() + settings.TRAINING_TIMEOUT_SECONDS
        self.warnings: list[dict[str, str]] = list(job.warnings)
        self.folder: Path
        self._saving = threading.Lock()
        self.gpu_lost = False
        self._first = "check"  # the first stage that a checkpoint has left to be done

    def run(self, folder: Path) -> None:
        self.folder = folder
        self.heartbeat.check()
        checkpoint = self.job.checkpoint
        if checkpoint:
            self._first = "publish" if checkpoint == "evaluated" else self.job.after_features
            self.restore(checkpoint)
        else:
            self.check()
        for until, field in STEPS[AFTER[checkpoint] :]:
            with bind(stage=until or "publish"):
                self.command(until)
                if field:
                    self.save(field)
        self.publish()

    # --- the recordings ---

    def check(self) -> None:
        """dataset/: what can be used. Raises StageFailed dataset_refused."""
        self.heartbeat.enter("check")
        folder = self.folder / "dataset"
        folder.mkdir()
        found = []
        for row in self.patiently(lambda: list(self.job.recordings.all())):
            path = self.folder / f"upload-{row.number}"
            self.patiently(functools.partial(storage.fetch, row.audio.storage, str(row.audio.name), path))
            found.append(dataset.Recording(f"rec{row.number:04}", row.label, path, row.transcript))
        report = dataset.look(
            found,
            folder,
            language=self.job.language,
            max_seconds=60.0 * settings.TRAINING_MAX_MINUTES,
            check=self.heartbeat.check,
            progress=self.heartbeat.within("check"),
        )
        for recording in found:
            recording.path.unlink()
        for told in report.warnings:
            self.warn(told["code"], told["message"])
        self.note(report=report.as_json(), duration_seconds=report.usable_seconds, warnings=self.warnings)
        if report.problems:
            raise StageFailed("dataset_refused", " ".join(problem["message"] for problem in report.problems))

    # --- the command ---

    def command(self, until: str) -> None:
        job, values = self.job, {**DEFAULTS, **self.job.options}
        argv = template(job.engine).argv(
            {
                "python_exec": settings.GPT_SOVITS_PYTHON,
                "project_root": str(settings.GPT_SOVITS_PROJECT_ROOT),
                "dataset": str(self.folder / "dataset"),
                "work": str(self.folder / "work"),
                "output": str(self.folder / "output"),
                "model_id": job.new_model_id,
                "version": job.base,
                "language": job.language,
                **{name: str(values[name]) for name in DEFAULTS},
            }
        )
        limits: dict[str, Any] = {
            "deadline_seconds": max(1.0, self.deadline - time.monotonic()),
            "max_output_bytes": settings.TRAINING_SCRATCH_MAX_BYTES,
            # Each look counts the bytes of thousands of files.
            "poll_seconds": 1.0,
            "stop_every_seconds": 1.0,
            "on_stage": self._enter,
            "on_progress": self._progress,
            "log_context": {"stage": until or "publish"},
        }
        saver = _Saver(self) if until == "train" else None
        try:
            result = attempt.run_command(
                [*argv, *(["--until", until] if until else [])],
                job,
                self.folder,
                self.heartbeat,
                "training_failed",
                refused=self._refused,
                **limits,
            )
        finally:
            if saver is not None:
                saver.stop()
            self._take_report()
        for line in result.warnings:
            code, _, message = line.partition(" ")
            self.warn(code, message)
        self.note(
            warnings=self.warnings,
            report=job.report,
            duration_seconds=job.duration_seconds,
            engine_seconds=job.engine_seconds,
        )

    def _enter(self, stage: str) -> None:
        """The command has come to a stage: a new one, or one of those that were done in an earlier run of it."""
        order = self.job.stages
        now = self.heartbeat.stage if self.heartbeat.stage in order else "check"
        if stage in order and order.index(stage) >= max(order.index(now) + 1, order.index(self._first)):
            self.heartbeat.enter(stage)

    def _progress(self, fraction: float) -> None:
        first, last = self.heartbeat.starts["slice"], self.heartbeat.starts["publish"]
        self.heartbeat.progress = max(self.heartbeat.progress, int(first + (last - first) * fraction))

    def _refused(self, error: runner.CommandFailed) -> StageFailed | None:
        detail = f"{error}\n{error.stderr_tail}"
        if error.returncode == GPU_LOST:
            self.gpu_lost = True
            if self.job.put_back(settings.TRAINING_MAX_ATTEMPTS):
                log.warning("training put back: this host has no GPU that works")
                raise NotOurs from error
            return StageFailed("training_failed", "The GPU was lost each time. Try again later.", detail)
        if error.returncode not in EXITS:
            return None
        code, message = EXITS[error.returncode]
        self._take_report()
        if code == "not_better":
            self._take_evaluation()
        if problems := self.job.report.get("problems"):
            message = " ".join(str(problem["message"]) for problem in problems)
        return StageFailed(code, message if code == "dataset_refused" else EXITS[error.returncode][1], detail)

    def _take_report(self) -> None:
        """What the command says of the recordings goes over what was known before; files by the names people know."""
        try:
            told = json.loads((self.folder / "work" / "report.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return
        labels = {f"rec{row.number:04}": row.label for row in self.job.recordings.all()}
        for one in (*told.get("problems", ()), *told.get("dropped", ())):
            if "file" in one:
                stem = Path(str(one["file"])).stem
                one["file"] = labels.get(stem, stem)
        known = self.job.report
        before = [one for one in known.get("dropped", ()) if "start" not in one]
        self.job.report = {
            **known,
            **{name: told[name] for name in ("usable_seconds", "clips", "speakers", "language") if name in told},
            "problems": told.get("problems", []),
            "dropped": [*before, *told.get("dropped", [])],
        }
        self.job.duration_seconds = told.get("usable_seconds", self.job.duration_seconds)

    def _take_evaluation(self) -> None:
        """The table of a choice that took none, where the command has written it."""
        try:
            told = json.loads((self.folder / "work" / "evaluation.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return
        self.job.evaluation = told

    # --- what is kept ---

    def save(self, field: str, *, working: bool = False) -> None:
        """Stores a checkpoint in place of the one that the field had.

        Where there is no room for it, that is logged: the training itself may come to its end.
        """
        with self._saving:
            path = self.folder / f"checkpoint-{uuid.uuid4().hex}.tar"
            try:
                if checkpoints.pack(self.folder, path, self.heartbeat.gone, working=working):
                    self._store(field, path)
                else:
                    self.heartbeat.check()
            except OSError as error:
                if not storage.is_disk_full(error):
                    raise
                log.warning("no room for a checkpoint: %s", error, extra={"checkpoint": field})
            finally:
                path.unlink(missing_ok=True)

    def _store(self, field: str, path: Path) -> None:
        # A name of its own: an attempt that was handed back has the number of the next one.
        stored = self.patiently(lambda: self.job.upload(field, path, path.name))
        file = getattr(self.job, field)
        before, files = file.name, file.storage
        freed = files.size(before) if before and files.exists(before) else 0
        held = max(0, self.job.output_bytes - freed) + path.stat().st_size
        told = {field: stored, "output_bytes": held, "engine_seconds": self.job.engine_seconds}
        if not self.patiently(lambda: self.job.note(**told)):
            files.delete(stored)
            raise NotOurs
        if before:
            files.delete(before)

    def restore(self, field: str) -> None:
        stored, path = getattr(self.job, field), self.folder / "checkpoint.tar"
        try:
            self.patiently(lambda: storage.fetch(stored.storage, str(stored.name), path))
            checkpoints.unpack(path, self.folder)
        except (FileNotFoundError, tarfile.TarError) as error:
            raise StageFailed("training_failed", "Its checkpoint is damaged: retry from check.", repr(error)) from error
        path.unlink()
        log.info("training goes on", extra={"checkpoint": field})

    def publish(self) -> None:
        self.heartbeat.enter("publish")
        try:
            self.patiently(
                lambda: published.publish(self.job, self.folder / "output", self.folder / "dataset", self.warnings)
            )
        except PublicError as error:
            code = "storage_full" if error.code == "quota_exceeded" else "training_failed"
            raise StageFailed(code, error.message) from error
        log.info("training succeeded", extra={"model": self.job.model_id})
        self.job.delete_files(self.job.output_fields())

    # --- tools ---

    def warn(self, code: str, message: str) -> None:
        told = {"code": code, "message": message}
        if told not in self.warnings:
            self.warnings.append(told)

    def note(self, **fields: Any) -> None:
        if not self.patiently(lambda: self.job.note(**fields)):
            raise NotOurs

    def patiently(self, action: Callable[[], T]) -> T:
        seconds = min(OUTAGE_SECONDS, max(1.0, self.deadline - time.monotonic()))
        return patiently(action, self.heartbeat.gone, seconds)


class _Saver(threading.Thread):
    """Stores checkpoints while the command trains, so that a host that is lost costs minutes and not hours."""

    def __init__(self, work: _Work) -> None:
        super().__init__(name="checkpoints", daemon=True)
        self._work = work
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        stored = checkpoints.weights_in(self._work.folder)
        while not self._over.wait(settings.TRAINING_CHECKPOINT_SECONDS):
            found = checkpoints.weights_in(self._work.folder)
            if found == stored:
                continue  # Gigabytes that would say what the last one does.
            try:
                self._work.save("trained", working=True)
                stored = found
            except NotOurs:
                return
            except Exception:
                log.warning("a checkpoint could not be stored; the next one may", exc_info=True)
            finally:
                connection.close()

    def stop(self) -> None:
        self._over.set()
        self.join()
