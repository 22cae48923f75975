"""One cover, stage by stage: preprocess -> separate -> infer -> mix -> finalize.

Each stage's output is stored as soon as it is finished, so that another attempt, on this host or another, goes on after
it. Commands see only the job's scratch folder. A thread beats for the job twice a second and learns so whether the job
is still ours; everything stops within two seconds when it is not, or when the worker is told to stop.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import soundfile as sf
from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models.fields.files import FieldFile

from covers import listening
from covers.models import STAGES, CoverJob
from voiceproject.commands import resident, runner
from voiceproject.commands.scratch import scratch
from voiceproject.commands.template import CommandTemplate, child_environment, identity
from voiceproject.errors import PublicError
from voiceproject.jobs.heartbeat import Pulse
from voiceproject.media import audio, storage
from voiceproject.media.storage import OUTAGE_SECONDS, is_passing, patiently
from voiceproject.provenance.manifest import sign_file
from voiceproject.provenance.marks import cover_landmarks, mark_cover
from voiceproject.telemetry import metrics, tracing
from voiceproject.telemetry.logging import bind
from voices.engines import Model
from voices.speech import registry

log = logging.getLogger(__name__)
T = TypeVar("T")

SAMPLE_RATE = 44_100

# Where each stage begins on the scale of 0 to 100.
STARTS = {"preprocess": 0, "separate": 5, "infer": 45, "mix": 90, "finalize": 97, "end": 100}

MAX_WAVEFORM_DRIFT_SECONDS = 2.0
# Any of them tells the infer command which model to use.
MODEL_PLACEHOLDERS = frozenset({"model_id", "gpt_weights", "sovits_weights", "voice_weights", "voice_index"})


class StageFailed(Exception):
    """code: a key of jobs.ERROR_MESSAGES; message: for the client, the code's own if empty; detail: for operators."""

    def __init__(self, code: str, message: str = "", detail: str = "") -> None:
        super().__init__(code)
        self.code, self.message, self.detail = code, message, detail


class NotOurs(Exception):
    """The job was canceled, taken over or deleted, or the worker is stopping."""


@functools.cache
def template(kind: str) -> CommandTemplate:
    """kind: `separate` or `infer`."""
    if kind == "separate":
        return CommandTemplate(settings.COVER_SEPARATE_CMD_TEMPLATE, settings.COVER_SEPARATE_PLACEHOLDERS)
    return CommandTemplate(settings.COVER_INFER_CMD_TEMPLATE, settings.COVER_INFER_PLACEHOLDERS)


def stems_key(job: CoverJob) -> str:
    """SHA-256 over all that decides what the stems of a job are: the song's content, the command, its parameters."""
    parts = [
        job.song_hash,
        settings.COVER_SEPARATE_CMD_TEMPLATE,
        settings.COVER_UVR_MODEL,
        str(settings.GPT_SOVITS_PROJECT_ROOT),
        job.preview_seconds,
        job.preview_start_seconds,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@functools.cache
def residents() -> resident.Pool:
    """The commands that stay between jobs of this process, where COVER_RESIDENT says so."""
    return resident.Pool(
        settings.SCRATCH_DIR,
        max_children=settings.COVER_CONCURRENCY,
        max_jobs=settings.COVER_RESIDENT_JOBS,
        idle_seconds=settings.COVER_RESIDENT_IDLE_SECONDS,
    )


def run(job: CoverJob, stopping: threading.Event) -> None:
    """Runs a claimed job to its end, whatever that is. Raises nothing that belongs to the job."""
    ids = job.log_ids()
    with bind(**ids), tracing.span("cover", job.trace_parent, {**ids, "attempt": job.attempt}) as span:
        log.info("cover started", extra={"attempt": job.attempt})
        pulse = _Progress(job, stopping)
        try:
            with pulse, scratch(settings.SCRATCH_DIR, f"cover-{job.pk}-{job.attempt}") as folder:
                _Cover(job, folder, pulse).run()
        except Exception as error:
            tracing.mark_failed(span, error.code if isinstance(error, StageFailed) else type(error).__name__)
            try:
                patiently(functools.partial(_settle, job, error, pulse), stopping.is_set)
            except DatabaseError as trouble:
                if not is_passing(trouble):
                    raise
                connection.close()
                log.warning("cover is left to be taken over: %s", trouble)


def _settle(job: CoverJob, error: Exception, pulse: _Progress) -> None:
    """Writes why an attempt has ended before its time. Safe to repeat when it is not known whether it was written."""
    if isinstance(error, NotOurs) or (is_passing(error) and pulse.stopping.is_set()):
        if pulse.stopping.is_set() and job.hand_back():
            log.info("cover handed back")
        elif pulse.cut_off() and job.put_back(settings.COVER_MAX_ATTEMPTS):
            log.warning("cover put back: the database could not be reached")
        else:
            log.info("cover is no longer ours")
        return
    if is_passing(error) and job.put_back(settings.COVER_MAX_ATTEMPTS):
        log.warning("cover put back: %s", error, extra={"stage": pulse.stage})
        return
    failure = _as_failure(error, pulse.stage)
    if pulse.stage in ("separate", "infer"):
        metrics.engine_failed(pulse.stage, failure.code)
    ttl = settings.COVER_RESULT_TTL_HOURS
    fields = {"stage": pulse.stage, "engine_seconds": job.engine_seconds}
    if job.fail(failure.code, failure.message, failure.detail, ttl, **fields):
        log.warning("cover failed: %s", failure.code, extra={"stage": pulse.stage})


def _as_failure(error: Exception, stage: str) -> StageFailed:
    match error:
        case StageFailed():
            return error
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return StageFailed("storage_full", detail=repr(error))
        case MemoryError():
            return StageFailed("out_of_memory", detail=repr(error))
    log.error("a stage broke", exc_info=error)
    return StageFailed(_code_of_stage(stage), detail=repr(error))


def _code_of_stage(stage: str) -> str:
    codes = {
        "separate": "separation_failed",
        "infer": "inference_failed",
        "mix": "mix_failed",
        "finalize": "mix_failed",
    }
    return codes.get(stage, "preprocess_failed")


class _Progress(Pulse):
    """A pulse that knows the stages of a cover."""

    def check(self) -> None:
        if self.gone():
            raise NotOurs

    def enter(self, stage: str) -> None:
        self.check()
        self.job.mark(stage)
        self.stage, self.progress = stage, STARTS[stage]
        self.tell()

    def within(self, stage: str) -> Callable[[float], None]:
        """A callback for a stage's own progress of 0..1."""
        following = list(STARTS)[list(STARTS).index(stage) + 1]
        start, end = STARTS[stage], STARTS[following]

        def report(fraction: float) -> None:
            self.progress = int(start + (end - start) * min(max(fraction, 0.0), 1.0))

        return report


class _Cover:
    def __init__(self, job: CoverJob, folder: Path, pulse: _Progress) -> None:
        self.job = job
        self.folder = folder
        self.pulse = pulse
        self.deadline = time.monotonic() + settings.COVER_TIMEOUT_SECONDS
        self.frames = 0
        self.warnings: list[str] = []

    def run(self) -> None:
        if not self.job.song:
            self.run_remix()
            return
        self.pulse.check()
        if not self.job.converted:
            self.model()  # Known now, and not after an hour of separating.
        for stage in STAGES:
            self.enter(stage)

    def run_remix(self) -> None:
        """New gains for the stems of another job: nothing is separated or converted again."""
        self.pulse.enter("preprocess")
        # None if it was deleted
        source = self.patiently(lambda: self.job.remix_of if self.job.remix_of_id else None)
        try:
            for name in ("vocals", "instrumental", "converted"):
                if source is None or source.files_expired or not getattr(source, name):
                    raise FileNotFoundError(name)
                self.fetch(getattr(source, name), f"{name}.wav")
        except FileNotFoundError as error:
            message = "The job whose stems were to be mixed again has been deleted."
            raise StageFailed("preprocess_failed", message, detail=repr(error)) from error
        self.frames = audio.wav_info(self.folder / "vocals.wav").frames
        for stage in ("mix", "finalize"):
            self.enter(stage)

    def enter(self, stage: str) -> None:
        self.pulse.enter(stage)
        with bind(stage=stage), tracing.span(stage, attributes={"job": str(self.job.pk)}), metrics.stage(stage):
            getattr(self, stage)()

    def preprocess(self) -> None:
        """song.wav: stereo float32 at 44.1 kHz; reference.wav: mono 16 bits at its own rate."""
        self.fetch(self.job.song, "song.upload")
        self.fetch(self.job.reference_voice, "reference.upload")
        try:
            info = audio.decode_song(
                self.folder / "song.upload",
                self.folder / "song.wav",
                field="song",
                max_seconds=settings.COVER_MAX_DURATION_SECONDS,
                sample_rate=SAMPLE_RATE,
            )
            samples, rate = audio.load_reference(self.folder / "reference.upload", field="reference_voice")
        except PublicError as error:
            code = "too_long" if error.details.get("reason") == "too_long" else "preprocess_failed"
            raise StageFailed(code, error.message) from error
        sf.write(self.folder / "reference.wav", samples, rate, subtype="PCM_16")
        self.frames = info.frames
        (self.folder / "song.upload").unlink()
        if self.job.preview_seconds:
            self.cut_preview(self.job.preview_seconds)

    def cut_preview(self, seconds: int) -> None:
        """song.wav becomes its most vocal stretch; every attempt takes the same one."""
        path = self.folder / "song.wav"
        start = self.job.preview_start_seconds
        if start is None:
            start = listening.most_vocal_start(path, seconds)
            self.note(preview_start_seconds=start)
        first = min(round(start * SAMPLE_RATE), max(0, self.frames - seconds * SAMPLE_RATE))
        cut, _ = sf.read(path, seconds * SAMPLE_RATE, first, dtype="float32", always_2d=True)
        sf.write(path, cut, SAMPLE_RATE, subtype="FLOAT")
        self.frames = len(cut)

    def separate(self) -> None:
        """vocals.wav and instrumental.wav: the song's stems, as long as the song."""
        if self.job.input_kind == "vocals":
            (self.folder / "song.wav").rename(self.folder / "vocals.wav")
            return
        if self.job.vocals and self.job.instrumental:
            self.fetch(self.job.vocals, "vocals.wav")
            self.fetch(self.job.instrumental, "instrumental.wav")
            return
        if self.reuse_stems():
            return
        self.command(
            "separate",
            {
                "song_input": str(self.folder / "song.wav"),
                "vocal_output": str(self.folder / "vocals.wav"),
                "inst_output": str(self.folder / "instrumental.wav"),
            },
        )
        for name in ("vocals", "instrumental"):
            self.fit("separation_failed", name)
        self.keep("vocals")
        self.keep("instrumental")
        (self.folder / "song.wav").unlink()

    def reuse_stems(self) -> bool:
        """The stems that another job of the tenant has of the same song, separated in the same way."""
        self.job.stems_key = stems_key(self.job)
        donors = CoverJob.objects.for_tenant(self.job.tenant_id).filter(
            stems_key=self.job.stems_key, files_expired=False
        )
        donor = self.patiently(donors.exclude(pk=self.job.pk).exclude(vocals="").exclude(instrumental="").first)
        self.note(stems_key=self.job.stems_key)
        if donor is None:
            return False
        try:
            for name in ("vocals", "instrumental"):
                self.fetch(getattr(donor, name), f"{name}.wav")
                if audio.wav_info(self.folder / f"{name}.wav").frames != self.frames:
                    return False
        except FileNotFoundError:
            return False  # It was deleted this moment.
        log.info("stems reused", extra={"donor": donor.pk})
        self.keep("vocals")
        self.keep("instrumental")
        (self.folder / "song.wav").unlink()
        return True

    def infer(self) -> None:
        """converted.wav: the vocals in the reference's voice."""
        if self.job.converted:
            self.fetch(self.job.converted, "converted.wav")
            return
        if self.job.pitch_auto:
            shift = listening.home_shift(self.folder / "vocals.wav", self.folder / "reference.wav")
            self.note(pitch_shift=shift)
        for name, text in (("reference_text", self.job.reference_text), ("lyrics", self.job.lyrics)):
            (self.folder / f"{name}.txt").write_text(text, encoding="utf-8")
        model = self.model()
        if model.id != "default" and not MODEL_PLACEHOLDERS & template("infer").placeholders:
            self.warnings.append("The cover engine of this server makes no use of model_id.")
        self.command(
            "infer",
            {
                "reference_voice": str(self.folder / "reference.wav"),
                "input_vocal": str(self.folder / "vocals.wav"),
                "output_vocal": str(self.folder / "converted.wav"),
                "model_id": model.id,
                "gpt_weights": model.gpt_weights,
                "sovits_weights": model.sovits_weights,
                "voice_weights": model.voice_weights,
                "voice_index": model.voice_index,
                "model_version": model.version,
                "pitch_shift": str(self.job.pitch_shift),
                "reference_text_file": str(self.folder / "reference_text.txt"),
                "lyrics_file": str(self.folder / "lyrics.txt"),
            },
        )
        self.fit("inference_failed", "converted")
        landmarks = cover_landmarks(self.folder / "converted.wav", self.folder / "vocals.wav")
        self.keep_made("converted", self.folder / "converted.wav", "wav", "singing", landmarks)

    def mix(self) -> None:
        """result.wav: stereo 16 bits at 44.1 kHz, as long as the song."""
        try:
            audio.mix(
                self.folder / "converted.wav",
                self.folder / "vocals.wav",
                self.folder / "instrumental.wav" if self.job.input_kind == "mix" else None,
                self.folder / "result.wav",
                frames=self.frames,
                vocal_gain_db=self.job.vocal_gain_db,
                instrumental_gain_db=self.job.instrumental_gain_db,
            )
        except (PublicError, ValueError, sf.LibsndfileError) as error:
            raise StageFailed("mix_failed", detail=repr(error)) from error

    def finalize(self) -> None:
        wanted = self.job.response_format
        result = self.folder / "result.wav"
        originals = [self.folder / "vocals.wav"]
        if self.job.input_kind == "mix":
            originals.append(self.folder / "instrumental.wav")
        landmarks = cover_landmarks(result, *originals)
        if wanted != "wav":
            encoded = self.folder / f"result.{wanted}"
            audio.encode_file(result, encoded, wanted)
            self.keep_made(f"result_{wanted}", encoded, wanted, "cover")
        self.keep_made("result", result, "wav", "cover", landmarks)
        self.pulse.check()
        fields = {"stage": "finalize", "warning": " ".join(self.warnings)[:500]}
        if not self.patiently(lambda: self.job.succeed(settings.COVER_RESULT_TTL_HOURS, **fields)):
            raise NotOurs
        log.info("cover succeeded")

    # --- tools ---

    def model(self) -> Model:
        """What the job's model_id names now: an operator may have taken it away since the job was submitted."""
        try:
            return self.patiently(lambda: registry.for_cover(self.job.model_id)) or Model("default")
        except PublicError as error:
            message = f"The model {self.job.model_id or 'default'} is not offered any more."
            raise StageFailed("inference_failed", message, detail=str(error)) from error

    def command(self, kind: str, values: dict[str, str]) -> None:
        code = _code_of_stage(kind)
        lasting = {
            "python_exec": settings.GPT_SOVITS_PYTHON,
            "project_root": str(settings.GPT_SOVITS_PROJECT_ROOT),
            "uvr_model": settings.COVER_UVR_MODEL,
        }
        argv = template(kind).argv(lasting | values)
        run: Callable[..., runner.CommandResult] = runner.run
        if settings.COVER_RESIDENT:
            serving = template(kind).serving(lasting | values, frozenset(lasting))
            run = functools.partial(residents().run, serving=serving)
        started = time.monotonic()
        try:
            result = run(
                argv,
                cwd=self.folder,
                env=child_environment(self.folder, identity(self.job.log_ids(), tracing.traceparent())),
                deadline_seconds=min(settings.COVER_STAGE_TIMEOUT_SECONDS, max(1.0, self.deadline - time.monotonic())),
                on_progress=self.pulse.within(kind),
                should_stop=self.pulse.gone,
                poll_seconds=0.1,
                stop_every_seconds=0.1,
                grace_seconds=0.8,
                max_output_bytes=settings.COVER_SCRATCH_MAX_BYTES,
                log_context={"stage": kind},
            )
        except runner.CommandStopped as error:
            raise NotOurs from error
        except runner.CommandTimedOut as error:
            raise StageFailed("timed_out", detail=f"{error}\n{error.stderr_tail}") from error
        except runner.CommandOutputTooLarge as error:
            raise StageFailed(code, detail=f"{error}\n{error.stderr_tail}") from error
        except runner.CommandFailed as error:
            if error.out_of_memory:
                code = "out_of_memory"
            elif "No space left on device" in error.stderr_tail:
                code = "storage_full"
            raise StageFailed(code, detail=f"{error}\n{error.stderr_tail}") from error
        finally:
            self.job.engine_seconds = (self.job.engine_seconds or 0.0) + time.monotonic() - started
        self.warnings += result.warnings

    def fit(self, code: str, name: str) -> None:
        """A command's output is checked, and cut or filled to the song's very length."""
        path = self.folder / f"{name}.wav"
        try:
            info = audio.wav_info(path)
        except (OSError, sf.LibsndfileError) as error:
            raise StageFailed(
                code, detail=f"the command ended well, but left no audio in {name}.wav: {error}"
            ) from error
        drift = abs(info.frames / info.sample_rate - self.frames / SAMPLE_RATE)
        if drift > MAX_WAVEFORM_DRIFT_SECONDS:
            raise StageFailed(code, detail=f"{name}.wav is {info.duration_seconds:.2f} s long, {drift:.2f} s off")
        if info.sample_rate == SAMPLE_RATE and info.frames == self.frames:
            return
        fitted = path.with_suffix(".fitted")
        audio.decode_song(
            path, fitted, field=name, max_seconds=info.duration_seconds + 1, min_seconds=0, sample_rate=SAMPLE_RATE
        )
        with sf.SoundFile(fitted, "r+") as file:
            missing = self.frames - file.frames
            if missing > 0:
                file.seek(0, sf.SEEK_END)
                file.write(np.zeros((missing, file.channels), dtype=np.float32))
            else:
                file.truncate(self.frames)
        fitted.replace(path)

    def note(self, **fields: Any) -> None:
        """Writes what was found into the row, and into `job`."""
        if not self.patiently(lambda: self.job.note(**fields)):
            raise NotOurs

    def keep(self, field: str) -> None:
        """Stores a part of the song itself."""
        path = self.folder / f"{field}.wav"
        stored = self.patiently(lambda: self.job.upload(field, path, path.name))
        found = self.job.with_output(path.stat().st_size, **{field: stored}, engine_seconds=self.job.engine_seconds)
        if not self.patiently(lambda: self.job.note(**found)):
            getattr(self.job, field).storage.delete(stored)
            raise NotOurs

    def keep_made(self, field: str, path: Path, format: str, what: str, landmarks: Any = None) -> None:
        """Signs, marks and stores what was made of it; what and landmarks as in voiceproject.provenance.marks."""
        self.patiently(lambda: sign_file(path, format, what=what, job_id=self.job.pk))
        stored = self.patiently(lambda: self.job.upload(field, path, path.name))
        found = self.job.with_output(path.stat().st_size, **{field: stored}, engine_seconds=self.job.engine_seconds)

        def note() -> bool:
            with transaction.atomic():
                noted = self.job.note(**found)
                if noted:
                    mark_cover(self.job.pk, path, landmarks)
            return noted

        if not self.patiently(note):
            getattr(self.job, field).storage.delete(stored)
            raise NotOurs

    def fetch(self, stored: FieldFile, name: str) -> None:
        self.patiently(lambda: storage.fetch(stored.storage, str(stored.name), self.folder / name))

    def patiently(self, action: Callable[[], T]) -> T:
        seconds = min(OUTAGE_SECONDS, max(1.0, self.deadline - time.monotonic()))
        return patiently(action, self.pulse.gone, seconds)
