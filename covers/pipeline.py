"""One cover, stage by stage: preprocess -> separate -> infer -> mix -> finalize.

Each stage's output is stored as soon as it is finished, so that another attempt, on this host or another, goes on after
it. Commands see only the job's scratch folder. A thread writes the job's heartbeat twice a second and learns whether
the job is still ours; everything stops within two seconds when it is not, or when the worker is told to stop.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import soundfile as sf
from django.conf import settings
from django.db import transaction
from django.db.models.fields.files import FieldFile

from covers import listening, separation
from covers.commands import MODEL_PLACEHOLDERS, SAMPLE_RATE, fit_output, lengthen, run_command, stems_key, template
from covers.failures import code_of_stage
from covers.models import STAGES, CoverJob
from voiceproject.errors import PublicError
from voiceproject.jobs import attempt
from voiceproject.jobs.attempt import NotOurs, Progress, StageFailed, Terms
from voiceproject.media import audio, storage, transposing
from voiceproject.media.storage import OUTAGE_SECONDS, patiently
from voiceproject.provenance.manifest import sign_file
from voiceproject.provenance.marks import cover_landmarks, mark_cover
from voiceproject.telemetry import metrics, tracing
from voiceproject.telemetry.logging import bind
from voices.engines.builtin import voice_activity
from voices.engines.interface import Model
from voices.speech import registry

log = logging.getLogger(__name__)
T = TypeVar("T")

# Where each stage begins on the scale of 0 to 100.
STARTS = {"preprocess": 0, "separate": 5, "infer": 45, "mix": 90, "finalize": 97, "end": 100}


def run(job: CoverJob, stopping: threading.Event) -> None:
    """Runs a claimed job to its end, whatever that is. Raises nothing that belongs to the job."""
    heartbeat = _Progress(job, stopping)
    terms = Terms(
        settings.COVER_MAX_ATTEMPTS, settings.COVER_RESULT_TTL_HOURS, code_of_stage, engine_stages=("separate", "infer")
    )
    attempt.run(job, heartbeat, terms, lambda folder: _Cover(job, folder, heartbeat).run())


class _Progress(Progress):
    starts = STARTS


class _Cover:
    def __init__(self, job: CoverJob, folder: Path, heartbeat: _Progress) -> None:
        self.job = job
        self.folder = folder
        self.heartbeat = heartbeat
        self.deadline = time.monotonic() + settings.COVER_TIMEOUT_SECONDS
        self.frames = 0
        # Those of finished stages are in the row.
        self.warnings: separation.Warnings = list(job.warnings) if job.vocals and job.instrumental else []
        self.made = True

    def run(self) -> None:
        if not self.job.song:
            self.run_remix()
            return
        self.heartbeat.check()
        if not self.job.converted:
            self.model()  # Known now, and not after an hour of separating.
        for stage in STAGES:
            self.enter(stage)

    def run_remix(self) -> None:
        """New gains for the stems of another job: nothing is separated or converted again."""
        self.heartbeat.enter("preprocess")
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
        self.warnings = separation.warnings_of(self.job.details.get("separation") or {})
        for stage in ("mix", "finalize"):
            self.enter(stage)

    def enter(self, stage: str) -> None:
        self.heartbeat.enter(stage)
        with bind(stage=stage), tracing.span(stage, attributes={"job": str(self.job.pk)}), metrics.stage(stage):
            getattr(self, stage)()

    def preprocess(self) -> None:
        """song.wav: stereo float32 at 44.1 kHz; reference.wav: mono 16 bits at its own rate.

        Where it was sent, instrumental.wav too, both as long as the longer one.
        """
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
            told = list(info.warnings)
            samples, rate = audio.load_reference(
                self.folder / "reference.upload", field="reference_voice", warnings=told
            )
        except PublicError as error:
            code = "too_long" if error.details.get("reason") == "too_long" else "preprocess_failed"
            raise StageFailed(code, error.message) from error
        self.warn_of_upload(told)
        sf.write(self.folder / "reference.wav", samples, rate, subtype="PCM_16")
        self.frames = info.frames
        (self.folder / "song.upload").unlink()
        if self.job.own_instrumental:
            self.align_instrumental()
        if self.job.preview_seconds:
            self.cut_preview(self.job.preview_seconds)

    def align_instrumental(self) -> None:
        self.fetch(self.job.own_instrumental, "instrumental.upload")
        upload, wav = self.folder / "instrumental.upload", self.folder / "instrumental.wav"
        limit = settings.COVER_MAX_DURATION_SECONDS
        try:
            info = audio.decode_song(upload, wav, field="instrumental", max_seconds=limit, sample_rate=SAMPLE_RATE)
        except PublicError as error:
            raise StageFailed("preprocess_failed", error.message) from error
        upload.unlink()
        self.warn_of_upload(info.warnings)
        if abs(info.frames - self.frames) > SAMPLE_RATE // 20:
            message = separation.LENGTHS % (self.frames / SAMPLE_RATE, info.frames / SAMPLE_RATE)
            self.warn("lengths_differ", message)
        self.frames = max(self.frames, info.frames)
        for path in (self.folder / "song.wav", wav):
            lengthen(path, self.frames)

    def cut_preview(self, seconds: int) -> None:
        """song.wav becomes its most vocal stretch; every attempt takes the same one."""
        path = self.folder / "song.wav"
        start = self.job.preview_start_seconds
        if start is None:
            start = listening.most_vocal_start(path, seconds)
            self.note(preview_start_seconds=start)
        first = min(round(start * SAMPLE_RATE), max(0, self.frames - seconds * SAMPLE_RATE))
        for part in (path, self.folder / "instrumental.wav"):
            if part.exists():
                cut, _ = sf.read(part, seconds * SAMPLE_RATE, first, dtype="float32", always_2d=True)
                sf.write(part, cut, SAMPLE_RATE, subtype="FLOAT")
                self.frames = len(cut)

    def separate(self) -> None:
        """vocals.wav and instrumental.wav: the song's stems, as long as the song."""
        if self.job.input_kind == "vocals":
            self.take_vocals()
            return
        if self.job.vocals and self.job.instrumental:
            self.fetch(self.job.vocals, "vocals.wav")
            self.fetch(self.job.instrumental, "instrumental.wav")
            return
        if self.reuse_stems():
            return
        told = self.command(
            "separate",
            {
                "song_input": str(self.folder / "song.wav"),
                "vocal_output": str(self.folder / "vocals.wav"),
                "inst_output": str(self.folder / "instrumental.wav"),
            },
        )
        for name in ("vocals", "instrumental"):
            fit_output(self.folder / f"{name}.wav", self.frames, "separation_failed")
        if settings.COVER_FIND_VOICE and not self.find_voice(told):
            return
        self.keep_stems()

    def keep_stems(self) -> None:
        self.note(warnings=self.warnings)
        self.keep("vocals")
        self.keep("instrumental")
        (self.folder / "song.wav").unlink()

    def take_vocals(self) -> None:
        """vocals.wav is the song, which is a bare voice."""
        vocals = self.folder / "vocals.wav"
        (self.folder / "song.wav").rename(vocals)
        if settings.COVER_FIND_VOICE:
            samples = voice_activity.mono(voice_activity.read(vocals))
            heard = voice_activity.detect(samples, samples * np.float32(0))
            if heard.pitched_seconds < separation.PITCHED_SECONDS and self.job.on_no_vocals != "convert":
                self.without_vocals(separation.NO_VOCALS, separation.KEPT)
                return
            if heard.heard != "words":
                self.warn("voice_not_recognised", separation.NOT_RECOGNISED)
        if self.job.own_instrumental and not (self.job.vocals and self.job.instrumental):
            self.keep("vocals")
            self.keep("instrumental")

    def find_voice(self, told: dict[str, Any]) -> bool:
        """Leaves nothing in vocals.wav but what is sung, and tells how well it was found; False where nobody sings.

        With on_no_vocals=convert, all of it stays where nobody does.
        """
        vocals, instrumental = self.folder / "vocals.wav", self.folder / "instrumental.wav"
        activity, found = separation.examine(vocals, instrumental, told.get("leftover_db"))
        self.heartbeat.check()
        self.note(details={**self.job.details, "separation": found})
        if not separation.lead_found(found):
            if self.job.on_no_vocals == "convert" and found["lead_share"]:
                self.warnings += separation.warnings_of(found)
                return True
            if found["voice_left"]:
                self.without_vocals(separation.NOT_SEPARATED, separation.KEPT_NOT_SEPARATED, "separation_failed")
            else:
                self.without_vocals(separation.NO_VOCALS, separation.KEPT)
            return False
        separation.silence_elsewhere(vocals, instrumental, activity)
        self.warnings += separation.warnings_of(found)
        return True

    def without_vocals(self, failure: str, kept: str, code: str = "no_vocals") -> None:
        """Nothing can be converted: the job fails, or the song itself becomes its result."""
        if self.job.on_no_vocals != "keep":
            raise StageFailed(code, failure)
        self.made = False
        self.warn("kept", kept)

    def reuse_stems(self) -> bool:
        """The stems that another job of the tenant has of the same song, separated in the same way."""
        self.job.stems_key = stems_key(self.job)
        donors = CoverJob.objects.for_tenant(self.job.tenant_id).filter(
            stems_key=self.job.stems_key, files_expired=False
        )
        donor = self.patiently(donors.exclude(pk=self.job.pk).exclude(vocals="").exclude(instrumental="").first)
        self.note(stems_key=self.job.stems_key)
        found = donor.details.get("separation") if donor else None
        if donor is None or (found and self.job.on_no_vocals != "convert" and not separation.lead_found(found)):
            return False
        try:
            for name in ("vocals", "instrumental"):
                self.fetch(getattr(donor, name), f"{name}.wav")
                if audio.wav_info(self.folder / f"{name}.wav").frames != self.frames:
                    return False
        except FileNotFoundError:
            return False  # It was deleted this moment.
        log.info("stems reused", extra={"donor": donor.pk})
        if found:
            self.note(details={**self.job.details, "separation": found})
            self.warnings += separation.warnings_of(found)
        self.keep_stems()
        return True

    def infer(self) -> None:
        """converted.wav: the vocals in the reference's voice."""
        if not self.made:
            return
        if self.job.converted:
            self.fetch(self.job.converted, "converted.wav")
            return
        if self.job.pitch_auto:
            shift = listening.home_shift(self.folder / "vocals.wav", self.folder / "reference.wav")
            self.note(pitch_shift=shift)
        for name, text in (("reference_text", self.job.reference_text), ("lyrics", self.job.lyrics)):
            (self.folder / f"{name}.txt").write_text(text, encoding="utf-8")
        model = self.model()
        self.patiently(model.fetch)
        if model.id != "default" and not MODEL_PLACEHOLDERS & template("infer").placeholders:
            self.warn("model_unused", "The cover engine of this server makes no use of model_id.")
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
        fit_output(self.folder / "converted.wav", self.frames, "inference_failed")
        landmarks = cover_landmarks(self.folder / "converted.wav", self.folder / "vocals.wav")
        self.keep_made("converted", self.folder / "converted.wav", "wav", "singing", landmarks)

    def mix(self) -> None:
        """result.wav: stereo 16 bits at 44.1 kHz, as long as the song."""
        try:
            if not self.made:
                self.mix_as_sent()
                return
            audio.mix(
                self.folder / "converted.wav",
                self.folder / "vocals.wav",
                self.accompaniment(),
                self.folder / "result.wav",
                frames=self.frames,
                vocal_gain_db=self.job.vocal_gain_db,
                instrumental_gain_db=self.job.instrumental_gain_db,
            )
        except (PublicError, ValueError, sf.LibsndfileError) as error:
            raise StageFailed("mix_failed", detail=repr(error)) from error

    def mix_as_sent(self) -> None:
        """The song at its own level, with its own accompaniment at its own, held back only where it would clip."""
        names = ["song.wav" if (self.folder / "song.wav").exists() else "vocals.wav"]
        if self.job.own_instrumental:
            names.append("instrumental.wav")
        audio.mix_as_they_are([self.folder / name for name in names], self.folder / "result.wav", frames=self.frames)

    def accompaniment(self) -> Path | None:
        """What the converted vocal is mixed with, in the melody's key where that was asked for; None of a bare voice.

        An octave changes no key, and of the others the nearest is taken: what moves less suffers less.
        """
        path = self.folder / "instrumental.wav"
        semitones = ((self.job.pitch_shift or 0) + 6) % 12 - 6
        if not path.exists():
            return None
        if semitones and not self.job.shift_instrumental:
            self.warn("accompaniment_key", separation.OTHER_KEY % self.job.pitch_shift)
        elif semitones:
            shifted = self.folder / "shifted.wav"
            if not shifted.exists():
                transposing.transpose(path, shifted, semitones)
                self.heartbeat.check()
            return shifted
        return path

    def finalize(self) -> None:
        wanted = self.job.response_format
        result = self.folder / "result.wav"
        if not self.made:
            self.finalize_as_sent(result, wanted)
            return
        names = ("vocals.wav", "shifted.wav", "instrumental.wav")
        originals = [self.folder / name for name in names if (self.folder / name).exists()]
        landmarks = cover_landmarks(result, *originals)
        if wanted != "wav":
            encoded = self.folder / f"result.{wanted}"
            audio.encode_file(result, encoded, wanted)
            self.keep_made(f"result_{wanted}", encoded, wanted, "cover")
        self.keep_made("result", result, "wav", "cover", landmarks)
        self.succeed()

    def finalize_as_sent(self, result: Path, wanted: str) -> None:
        """Without the mark of what was made here, which it was not."""
        if wanted != "wav":
            encoded = self.folder / f"result.{wanted}"
            audio.encode_file(result, encoded, wanted)
            self.keep(f"result_{wanted}", encoded)
        self.keep("result", result)
        self.succeed()

    def succeed(self) -> None:
        self.heartbeat.check()
        told = " ".join(warning["message"] for warning in self.warnings)
        fields = {"stage": "finalize", "warning": told[:500], "warnings": self.warnings}
        if not self.patiently(lambda: self.job.succeed(settings.COVER_RESULT_TTL_HOURS, **fields)):
            raise NotOurs
        log.info("cover succeeded")

    # --- tools ---

    def model(self) -> Model:
        """What the job's model_id names now: an operator may have taken it away since the job was submitted."""
        try:
            return self.patiently(lambda: registry.for_cover(self.job.model_id, self.job.tenant_id)) or Model("default")
        except PublicError as error:
            message = f"The model {self.job.model_id or 'default'} is not offered any more."
            raise StageFailed("inference_failed", message, detail=str(error)) from error

    def command(self, kind: str, values: dict[str, str]) -> dict[str, Any]:
        """Returns what the command has told of a separation."""
        on_progress = self.heartbeat.within(kind)
        result = run_command(kind, self.job, values, self.folder, self.heartbeat, self.deadline, on_progress)
        for message in result.warnings:
            self.warn("engine", message)
        return result.separation

    def warn(self, code: str, message: str) -> None:
        self.warnings.append(separation.warning(code, message))

    def warn_of_upload(self, messages: Iterable[str]) -> None:
        for message in messages:
            if separation.warning("upload", message) not in self.warnings:  # another attempt may have said it
                self.warn("upload", message)

    def note(self, **fields: Any) -> None:
        """Writes fields to the row and to `job`."""
        if not self.patiently(lambda: self.job.note(**fields)):
            raise NotOurs

    def keep(self, field: str, path: Path | None = None) -> None:
        """Stores a part of the song itself."""
        path = path or self.folder / f"{field}.wav"
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
        return patiently(action, self.heartbeat.gone, seconds)
