"""The commands of the stages `separate` and `infer`: their templates, one run, and what it has left.

Commands see only the scratch folder of a job. With COVER_RESIDENT they stay between jobs.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile as sf
from django.conf import settings

from covers import separation
from covers.failures import code_of_stage
from covers.models import CoverJob
from voiceproject.commands import resident, runner
from voiceproject.commands.template import CommandTemplate
from voiceproject.jobs import attempt
from voiceproject.jobs.attempt import StageFailed
from voiceproject.jobs.heartbeat import Heartbeat
from voiceproject.media import audio
from voices.library.models import Voice
from voices.speech import registry

SAMPLE_RATE = 44_100

MAX_WAVEFORM_DRIFT_SECONDS = 2.0
# Any of them tells the infer command which model to use.
MODEL_PLACEHOLDERS = frozenset({"model_id", "gpt_weights", "sovits_weights", "voice_weights", "voice_index"})


@functools.cache
def template(kind: str) -> CommandTemplate:
    """kind: `separate` or `infer`."""
    if kind == "separate":
        return CommandTemplate(settings.COVER_SEPARATE_CMD_TEMPLATE, settings.COVER_SEPARATE_PLACEHOLDERS)
    return CommandTemplate(settings.COVER_INFER_CMD_TEMPLATE, settings.COVER_INFER_PLACEHOLDERS)


def model_of_voice(voice: Voice) -> str:
    """The id of the model that was trained for a saved voice, where the cover engine can sing with it."""
    weights = sorted({"gpt_weights", "voice_weights"} & template("infer").placeholders)
    return registry.of_voice(voice.pk, voice.tenant_id, weights) if weights else ""


def stems_key(job: CoverJob) -> str:
    """SHA-256 over all that decides what the stems of a job are: the song's content, the command, its parameters."""
    parts = [
        job.song_hash,
        settings.COVER_SEPARATE_CMD_TEMPLATE,
        settings.COVER_UVR_MODEL,
        str(settings.GPT_SOVITS_PROJECT_ROOT),
        job.preview_seconds,
        job.preview_start_seconds,
        f"separation {separation.VERSION}" if settings.COVER_FIND_VOICE else "",
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


def run_command(
    kind: str,
    job: CoverJob,
    values: dict[str, str],
    folder: Path,
    heartbeat: Heartbeat,
    deadline: float,
    on_progress: Callable[[float], None],
) -> runner.CommandResult:
    """Runs the command of the stage `separate` or `infer` in a job's scratch folder.

    values: for the placeholders of its template. deadline: a time.monotonic() value. The seconds that it took are added
    to job.engine_seconds. Raises NotOurs, StageFailed.
    """
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
    return attempt.run_command(
        argv,
        job,
        folder,
        heartbeat,
        code_of_stage(kind),
        run=run,
        deadline_seconds=min(settings.COVER_STAGE_TIMEOUT_SECONDS, max(1.0, deadline - time.monotonic())),
        on_progress=on_progress,
        max_output_bytes=settings.COVER_SCRATCH_MAX_BYTES,
        log_context={"stage": kind},
    )


def fit_output(path: Path, frames: int, code: str) -> None:
    """Checks a WAV that a command has made, and cuts or fills it to the length of the song.

    frames: of the song, at SAMPLE_RATE; code: of the StageFailed that is raised where the file is no such audio.
    """
    try:
        info = audio.wav_info(path)
    except (OSError, sf.LibsndfileError) as error:
        raise StageFailed(code, detail=f"the command ended well, but left no audio in {path.name}: {error}") from error
    drift = abs(info.frames / info.sample_rate - frames / SAMPLE_RATE)
    if drift > MAX_WAVEFORM_DRIFT_SECONDS:
        raise StageFailed(code, detail=f"{path.name} is {info.duration_seconds:.2f} s long, {drift:.2f} s off")
    if info.sample_rate == SAMPLE_RATE and info.frames == frames:
        return
    fitted = path.with_suffix(".fitted")
    audio.decode_song(
        path, fitted, field=path.stem, max_seconds=info.duration_seconds + 1, min_seconds=0, sample_rate=SAMPLE_RATE
    )
    with sf.SoundFile(fitted, "r+") as file:
        if file.frames > frames:
            file.truncate(frames)
    lengthen(fitted, frames)
    fitted.replace(path)


def lengthen(path: Path, frames: int) -> None:
    """Continues a WAV that is shorter with silence."""
    with sf.SoundFile(path, "r+") as file:
        if file.frames < frames:
            missing = frames - file.frames
            file.seek(0, sf.SEEK_END)
            file.write(np.zeros((missing, file.channels), dtype=np.float32))
