"""The model that comes of a training, and the voice that speaks with it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

import soundfile as sf
from django.conf import settings
from django.core.files import File
from django.core.files.storage import default_storage
from django.db import transaction

from voiceproject.errors import PublicError
from voiceproject.jobs.attempt import NotOurs
from voiceproject.jobs.status import JobStatus
from voiceproject.tenants import usage
from voices.library import recordings, saved
from voices.library.consents import Provider
from voices.library.models import Voice
from voices.speech.models import WEIGHTS, EngineModel, WeightsFile
from voices.speech.weights import cache_name
from voices.training.models import Training

# What the commands leave, by the field of EngineModel that it is for.
FILES = {
    "gptsovits": {"gpt_weights": "gpt.ckpt", "sovits_weights": "sovits.pth"},
    "rvc": {"voice_weights": "model.pth", "voice_index": "model.index"},
}
REFERENCE_SECONDS = 30.0


def publish(job: Training, output: Path, dataset: Path, warnings: list[dict[str, str]]) -> None:
    """Ends the job with its model, in the storage and in the registry. Safe to repeat.

    Raises NotOurs where the job has ended otherwise, PublicError quota_exceeded, not_found, and OSError.
    """
    assert job.voice_id is not None
    if Training.objects.filter(pk=job.pk, status=JobStatus.SUCCEEDED, model_id=job.new_model_id).exists():
        return  # It was written, and the answer was lost.
    if not job.beat():
        raise NotOurs
    told = json.loads((output / "model.json").read_text(encoding="utf-8"))
    for earlier in EngineModel.objects.filter(training_id=job.pk):
        earlier.remove()  # An attempt that was lost in the last moment.
    row = EngineModel(
        model_id=job.new_model_id,
        name=job.name,
        engine=job.engine,
        version=job.base,
        owner_id=job.tenant_id,
        voice_id=job.voice_id,
        training_id=job.pk,
        evaluation=told.get("evaluation") or [],
    )
    paths = {kind: output / name for kind, name in FILES[job.engine].items()}
    with transaction.atomic():
        usage.check_storage(job.tenant, sum(path.stat().st_size for path in paths.values()))
    if not Voice.objects.filter(pk=job.voice_id).exists():
        if not job.makes_voice:
            raise PublicError("not_found", "The voice was deleted while it was trained.")
        _save_voice(job, output, dataset)
    files: list[WeightsFile] = []
    try:
        for kind, path in paths.items():
            files.append(_store(row, kind, path))
        with transaction.atomic():
            usage.check_storage(job.tenant, sum(file.bytes for file in files))
            row.save(force_insert=True)
            WeightsFile.objects.bulk_create(files)
            ended = {"stage": "publish", "model_id": row.model_id, "evaluation": row.evaluation, "warnings": warnings}
            if not job.succeed(settings.TRAINING_TTL_HOURS, engine_seconds=job.engine_seconds, **ended):
                raise NotOurs
    except BaseException:
        for file in files:
            default_storage.delete(str(file.file.name))
        with contextlib.suppress(OSError):
            default_storage.delete(row.folder)  # Empty, unless another attempt has put its own there.
        raise
    if not Voice.objects.filter(pk=job.voice_id, taken_down_at=None).exists():
        row.remove()  # Its voice ended this moment.


def _store(row: EngineModel, kind: str, path: Path) -> WeightsFile:
    with path.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        opened.seek(0)
        # A name of its own: another attempt may be at the same.
        stored = default_storage.save(f"{row.folder}/{uuid.uuid4().hex[:8]}-{path.name}", File(opened))
    setattr(row, kind, cache_name(row.model_id, sha256, WEIGHTS[kind]))
    return WeightsFile(model=row, kind=kind, file=stored, sha256=sha256, bytes=path.stat().st_size)


def _save_voice(job: Training, output: Path, dataset: Path) -> None:
    """The voice of the recordings: what the command recommends as its reference, else the best that was sent."""
    reference, transcript = output / "reference.wav", output / "reference.txt"
    text = transcript.read_text(encoding="utf-8") if transcript.exists() else ""
    if not reference.exists():
        reference, text = dataset.parent / "reference.wav", ""
        longest = max(dataset.glob("*.wav"), key=lambda path: sf.info(path).duration)
        with sf.SoundFile(longest) as file:
            samples = file.read(round(REFERENCE_SECONDS * file.samplerate), dtype="int16")
            sf.write(reference, samples, file.samplerate, subtype="PCM_16")
    with recordings.reading([reference], "reference") as [recording]:
        saved.create(
            Provider(job.tenant, "", ""),
            [(recording, text.strip())],
            "",  # On record since it was submitted.
            name=job.name,
            language=job.language,
            voice_id=job.voice_id,
        )


def remove_of_voices(voice_ids: list[Any], **kwargs: Any) -> None:
    """The models that were trained for these voices end with them."""
    for model in EngineModel.objects.filter(voice_id__in=voice_ids, owner__isnull=False):
        model.remove()
