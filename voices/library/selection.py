"""The voice that a request names: whether it can be used, and what an engine gets of it."""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np
from django.db.models.fields.files import FieldFile
from django.utils.translation import gettext_noop
from numpy.typing import NDArray

from voiceproject.errors import PublicError
from voiceproject.jobs.job import Job
from voiceproject.jobs.status import revoked
from voiceproject.media import memory
from voiceproject.prepared import Select, Slot
from voices.engines.interface import Engine, Kept, Reference, StoredReference
from voices.library.engine_data import KeptData
from voices.library.models import Voice
from voices.library.reference_audio import decoded_name, read_audio
from voices.library.references import references
from voices.text.languages import detect_language

log = logging.getLogger(__name__)

PREPARE_SECONDS = 30.0


_own = Select(Voice.objects.for_tenant(Slot("tenant", Voice)).filter(pk=Slot("pk", Voice, "id")))
_taken_down = Select(
    Voice.objects.filter(pk=Slot("pk", Voice, "id"), taken_down_at__isnull=False).values_list("taken_down_at")
)


def find(tenant: Any, voice_id: uuid.UUID) -> Voice:
    """The tenant's voice, to be used. Raises PublicError not_found, also for a stranger's, and revoked."""
    return _usable(next(iter(_own(tenant=tenant.pk, pk=voice_id)), None))


def find_any(voice_id: uuid.UUID) -> Voice:
    """A voice of whatever tenant, for an operator at a terminal. Raises as `find` does."""
    return _usable(Voice.objects.filter(pk=voice_id).first())


def _usable(voice: Voice | None) -> Voice:
    if voice is None:
        message = gettext_noop("There is no such voice, or it is not yours.")
        raise PublicError("not_found", message, {"voice_id": [message]})
    if voice.taken_down_at is not None:
        raise revoked()
    return voice


def check_still_there(job: Job) -> None:
    """Revokes a job whose voice was taken down while the request was handled.

    Call it after the job's row is written: a takedown before that cannot see the job.

    Raises PublicError revoked.
    """
    if any(_taken_down(pk=voice_id) for voice_id in job.voice_ids):
        job.revoke()
        raise revoked()


@dataclass(frozen=True)
class Chosen:
    """What an engine gets of a voice: the reference, and its file, FLAC, for a job that keeps a copy."""

    reference: Reference
    file: FieldFile


def choose(
    voice: Voice, engine: Engine, transcript: str = "", language: str = "auto", kept: Kept | None = None
) -> Chosen:
    """The reference that suits this engine best. transcript, language: from the request, for the whole voice."""
    file, frames, rate = voice.reference, voice.reference_frames, voice.reference_rate
    content_hash, known = voice.reference_hash, voice.reference_transcript
    language = voice.language if language == "auto" else language
    most = getattr(engine, "max_reference_seconds", None)
    if most is not None and not transcript and frames > most * rate:
        # It hears a part, and a transcript must be of just that: a sample that fits is better than a window.
        known = ""
        fitting = voice.samples.exclude(transcript="").filter(duration_seconds__lte=most)
        sample = fitting.order_by("-duration_seconds").first()
        if sample is not None:
            file, content_hash, known, rate = sample.audio, sample.audio_hash, sample.transcript, sample.sample_rate
            frames = round(sample.duration_seconds * rate)
    text = transcript or known or None
    kept = kept or KeptData.of(voice, content_hash, text, language)
    stored = StoredReference(
        lambda: references.kept(decoded_name(content_hash), lambda: _read(file, frames))[0],
        frames, rate, content_hash, text, language, kept,
    )  # fmt: skip
    return Chosen(stored, file)


def _read(file: FieldFile, frames: int) -> tuple[NDArray[np.float32], int]:
    with memory.claim(memory.BLOCKS_BYTES + 2 * 4 * frames):  # its samples, and the bytes of the file
        return read_audio(file)


def prepare(voice: Voice, engine: Engine, kept: Kept | None = None) -> None:
    """Lets the engine compute its data of a voice now, so that the first synthesis is fast.

    kept: where it goes, if not to the voice's own. Raises PublicError invalid_audio where the engine hears no voice;
    any other failure leaves the work to the first synthesis.
    """
    compute = getattr(engine, "prepare", None)
    if compute is None:
        return
    language = voice.language
    if language == "auto":
        language = detect_language(voice.reference_transcript) if voice.reference_transcript else "en"
    if language not in engine.languages:
        return
    try:
        compute(choose(voice, engine, kept=kept).reference, language, time.monotonic() + PREPARE_SECONDS)
    except PublicError as error:
        if error.code == "invalid_audio":
            raise
        log.warning("a voice is prepared at its first use: %s", error)
