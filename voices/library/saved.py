"""Saved voices: how one comes, changes and ends.

Samples are decoded, trimmed and brought to one level when they come (`recordings`). All samples of a voice together,
one after the other, are its reference (`reference_audio`), made anew when a sample comes or goes.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Sequence
from typing import Any

from django.core.files.base import ContentFile
from django.db import transaction
from django.db.models.functions import Now
from django.dispatch import Signal
from django.utils import timezone

from voiceproject.errors import PublicError
from voiceproject.jobs.files import delete_folder, sweep_folders
from voiceproject.jobs.job import Job
from voiceproject.media import audio, memory
from voiceproject.media.storage import is_passing
from voiceproject.tenants import audit, usage
from voices.engines.interface import Engine
from voices.lexicons.models import Lexicon
from voices.library.consents import Provider, record_consent
from voices.library.engine_data import KeptData, forget_engine_data
from voices.library.models import VOICES_FOLDER, Consent, Voice, VoiceSample
from voices.library.recordings import BYTES_PER_SECOND, MAX_SECONDS, Recording
from voices.library.reference_audio import decoded_name, decoded_names, renew_reference, set_reference
from voices.library.references import references
from voices.library.selection import prepare

log = logging.getLogger(__name__)

# voice_ids: of voices that were deleted or taken down, with everything that was made for them alone. Safe to repeat.
ended = Signal()

MAX_SAMPLES = 10
RENEWAL_BYTES = round(MAX_SECONDS * BYTES_PER_SECOND)  # what it takes to make a reference of samples


def create(
    who: Provider,
    recordings: Sequence[tuple[Recording, str]],
    statement: str,
    *,
    name: str,
    description: str = "",
    language: str = "auto",
    tags: Sequence[str] = (),
    lexicon: Lexicon | None = None,
    engine: Engine | None = None,
    voice_id: uuid.UUID | None = None,
) -> Voice:
    """A new voice of at least one recording with its transcript (or an empty text), and the consents to them.

    statement: empty where the consents are on record already, under the id that the voice is to have.

    engine: computes what it needs of the voice now. Raises PublicError invalid_audio where it hears no voice.
    """
    voice = Voice(
        id=voice_id or uuid.uuid4(),
        tenant=who.tenant,
        name=name,
        description=description,
        language=language,
        tag_lines=Voice.lines_of(list(tags)),
        lexicon=lexicon,
    )
    samples = [_sample(voice, recording, transcript) for recording, transcript in recordings]
    try:
        for sample, (recording, _) in zip(samples, recordings, strict=True):
            _save_sample(sample, recording)
        set_reference(voice, samples)
        computed = _Computed()
        if engine is not None:
            prepare(voice, engine, computed)
        with transaction.atomic():
            usage.check_storage(who.tenant, voice.reference_bytes + sum(sample.audio_bytes for sample in samples))
            voice.save(force_insert=True)
            VoiceSample.objects.bulk_create(samples)
            for sample in samples if statement else ():
                record_consent(who, voice, sample, statement)
    except BaseException:
        delete_folder(voice.folder)
        raise
    kept = KeptData.of(voice, voice.reference_hash, voice.reference_transcript or None)
    for place, data in computed.data.items():
        kept.store(*place, data)
    return voice


def add_sample(who: Provider, voice: Voice, recording: Recording, transcript: str, statement: str) -> VoiceSample:
    """One more sample; an empty statement repeats the voice's first one. Raises PublicError conflict."""
    if not statement:
        first = Consent.objects.filter(voice_id=voice.pk).last()
        statement = first.statement if first else ""
    sample = _sample(voice, recording, transcript)
    try:
        _save_sample(sample, recording)
        with transaction.atomic():
            Voice.objects.select_for_update().get(pk=voice.pk)
            if voice.samples.count() >= MAX_SAMPLES:
                raise PublicError("conflict", f"A voice has at most {MAX_SAMPLES} samples; delete one first.")
            # The reference grows by about as much.
            usage.check_storage(who.tenant, 2 * sample.audio_bytes)
            sample.save(force_insert=True)
            record_consent(who, voice, sample, statement)
    except BaseException:
        sample.audio.storage.delete(str(sample.audio.name))
        raise
    renew_reference(voice)
    return sample


def delete_sample(voice: Voice, sample: VoiceSample) -> None:
    """Raises PublicError conflict for the last one."""
    with memory.claim(RENEWAL_BYTES):
        with transaction.atomic():
            Voice.objects.select_for_update().get(pk=voice.pk)
            if voice.samples.count() <= 1:
                message = "This is the voice's only sample; delete the voice, or add another first."
                raise PublicError("conflict", message)
            VoiceSample.objects.filter(pk=sample.pk).delete()
        renew_reference(voice)
    sample.audio.storage.delete(str(sample.audio.name))
    references.forget(decoded_name(sample.audio_hash))


def change(voice: Voice, fields: dict[str, Any]) -> None:
    """name, description, language, lexicon, and a single sample's transcript (PublicError validation_error)."""
    transcript = fields.pop("transcript", None)
    if transcript is not None:
        samples = list(voice.samples.all())
        if len(samples) > 1:
            message = "It has several samples: delete one and send it again with its own transcript."
            raise PublicError("validation_error", f"transcript: {message}", {"transcript": [message]})
        VoiceSample.objects.filter(voice=voice).update(transcript=transcript)
        fields["reference_transcript"] = transcript
    if fields:
        Voice.objects.filter(pk=voice.pk).update(**fields, updated_at=timezone.now())
    voice.refresh_from_db()
    if "language" in fields or transcript is not None:
        forget_engine_data(voice)


def delete(voice: Voice, request: Any = None) -> None:
    """Deletes the rows and files of a voice. Consents stay; jobs have their own copy. request: for the audit log."""
    forget = decoded_names(voice)
    with transaction.atomic():
        if request is not None:
            audit.record("voice.delete", voice, request=request)
        Voice.objects.filter(pk=voice.pk).delete()
    ended.send(sender=Voice, voice_ids=[voice.pk])
    delete_folder(voice.folder)
    references.forget(*forget)


class _Computed:
    """Holds in memory what an engine computes of a voice that has no row yet: (engine, language) -> data."""

    def __init__(self) -> None:
        self.data: dict[tuple[str, str], bytes] = {}

    def load(self, engine: str, language: str) -> bytes | None:
        return self.data.get((engine, language))

    def store(self, engine: str, language: str, data: bytes) -> None:
        self.data[engine, language] = data


def _sample(voice: Voice, recording: Recording, transcript: str) -> VoiceSample:
    return VoiceSample(
        voice=voice,
        uploaded_hash=recording.uploaded_hash,
        transcript=transcript,
        duration_seconds=len(recording.samples) / recording.sample_rate,
        sample_rate=recording.sample_rate,
        quality=recording.quality.as_json(),
    )


def _save_sample(sample: VoiceSample, recording: Recording) -> None:
    data = audio.encode(recording.samples, recording.sample_rate, "flac")
    sample.audio_hash = hashlib.sha256(data).hexdigest()
    sample.audio_bytes = len(data)
    name = f"{sample.voice.folder}/sample-{sample.pk}.flac"
    sample.audio.name = sample.audio.storage.save(name, ContentFile(data))


def sweep_orphans(older_than_seconds: float) -> int:
    """Deletes the folders of voices that have no row; how many."""
    return sweep_folders(VOICES_FOLDER, lambda name: Voice.objects.filter(pk=name).exists(), older_than_seconds)


# --- the operator -----------------------------------------------------------------------------------------------------


def take_down(voice_id: uuid.UUID, request: Any = None, reason: str = "") -> int:
    """Ends a voice: it cannot be used, its jobs are canceled, what was made with it is gone (410 `revoked`).

    Its consents stay. Works for a voice that its tenant has deleted too. Safe to repeat. Returns how many jobs were
    revoked; those that a storage which is away keeps from it are revoked by the workers' sweep.
    """
    with transaction.atomic():
        voice = Voice.objects.filter(pk=voice_id).first()
        Voice.objects.filter(pk=voice_id, taken_down_at=None).update(taken_down_at=Now(), updated_at=timezone.now())
        consent = Consent.objects.filter(voice_id=voice_id).first()
        audit.record(
            "voice.takedown",
            voice or consent,
            request=request,
            target_type="voice",
            details={"voice_id": str(voice_id), "reason": reason} if reason else {"voice_id": str(voice_id)},
        )
    if voice is not None:
        references.forget(*decoded_names(voice))
    return _revoke_outputs([voice_id])


def finish_takedowns() -> int:
    """Revokes the jobs that an interrupted takedown has left. Returns how many."""
    return _revoke_outputs(list(Voice.objects.filter(taken_down_at__isnull=False).values_list("pk", flat=True)))


def _revoke_outputs(voice_ids: list[uuid.UUID]) -> int:
    count = 0
    if voice_ids:
        ended.send(sender=Voice, voice_ids=voice_ids)
    for model in Job.__subclasses__() if voice_ids else ():
        for job in model._default_manager.filter(model.made_with(voice_ids), revoked_at=None).iterator():
            try:
                count += job.revoke()
            except Exception as error:
                if not is_passing(error):
                    raise
                log.warning("a job is revoked later: %s", error, extra={"job": job.pk})
    return count
