"""The reference of a voice: the file that engines hear, all samples one after the other, up to a minute."""

from __future__ import annotations

import hashlib
import io
import uuid
from collections.abc import Sequence

import numpy as np
import soundfile as sf
import soxr
from django.core.files.base import ContentFile
from django.db import transaction
from django.db.models.fields.files import FieldFile
from django.utils import timezone
from numpy.typing import NDArray

from voiceproject.errors import PublicError
from voiceproject.media import audio
from voices.engines.gptsovits.references import best_window
from voices.library.engine_data import forget_engine_data
from voices.library.models import Voice, VoiceSample
from voices.library.references import references

MAX_SECONDS = 60.0
PAUSE_SECONDS = 0.3  # between two samples

Samples = NDArray[np.float32]


def read_audio(file: FieldFile) -> tuple[Samples, int]:
    """float32 (n,) and the rate in Hz of a file of ours. Raises PublicError not_found where it was deleted."""
    try:
        with file.storage.open(str(file.name), "rb") as stored:
            samples, rate = sf.read(io.BytesIO(stored.read()), dtype="float32")
    except FileNotFoundError:
        raise PublicError("not_found", "This voice was changed or deleted this moment; try again.") from None
    return samples, rate


def decoded_names(voice: Voice) -> list[str]:
    """The names of a voice's files in the cache of decoded references."""
    hashes = [voice.reference_hash, *VoiceSample.objects.filter(voice_id=voice.pk).values_list("audio_hash", flat=True)]
    return [decoded_name(content_hash) for content_hash in hashes]


def decoded_name(content_hash: str) -> str:
    """The name of a file of ours in the cache. It differs from an upload of the same bytes, whose length is checked."""
    return f"saved {content_hash}"


def renew_reference(voice: Voice) -> None:
    """Makes the reference again from the current samples, and deletes the engine data of the old one."""
    while True:
        samples = list(VoiceSample.objects.filter(voice=voice))
        if not samples:
            return  # The voice was deleted.
        old, old_hash = str(voice.reference.name), voice.reference_hash
        set_reference(voice, samples)
        new = str(voice.reference.name)
        with transaction.atomic():
            Voice.objects.select_for_update().filter(pk=voice.pk).first()
            now = set(VoiceSample.objects.filter(voice=voice).values_list("pk", flat=True))
            same = now == {sample.pk for sample in samples}
            if same:
                names = (
                    "reference", "reference_hash", "reference_transcript", "reference_frames", "reference_rate",
                    "reference_bytes",
                )  # fmt: skip
                fields = {name: getattr(voice, name) for name in names} | {"updated_at": timezone.now()}
                Voice.objects.filter(pk=voice.pk).update(**fields)
        # If a sample was added or deleted in the meantime, do it again.
        voice.reference.storage.delete(old if same else new)
        if same:
            references.forget(decoded_name(old_hash))
            break
        voice.refresh_from_db()
    forget_engine_data(voice)
    voice.refresh_from_db()


def set_reference(voice: Voice, samples: Sequence[VoiceSample]) -> None:
    """Makes the reference's file and sets the fields of the voice that describe it; does not save the row.

    At the highest rate among the samples. Of more than a minute, each sample gives its share.
    """
    rate = max(sample.sample_rate for sample in samples)
    total = sum(sample.duration_seconds for sample in samples)
    pauses = PAUSE_SECONDS * (len(samples) - 1)
    share = min(1.0, (MAX_SECONDS - pauses) / total)
    parts: list[Samples] = []
    for sample in samples:
        audio_, own_rate = read_audio(sample.audio)
        if share < 1:
            start, end = best_window(audio_, own_rate, share * sample.duration_seconds)
            audio_ = audio_[round(start * own_rate) : round(end * own_rate)]
        if own_rate != rate:
            audio_ = soxr.resample(audio_, own_rate, rate, quality="HQ").astype(np.float32)
        parts += [np.zeros(round(PAUSE_SECONDS * rate), np.float32), audio_]
    data = audio.encode(np.concatenate(parts[1:]), rate, "flac")
    voice.reference_hash = hashlib.sha256(data).hexdigest()
    voice.reference_frames = sum(len(part) for part in parts[1:])
    voice.reference_rate = rate
    voice.reference_bytes = len(data)
    whole = share == 1 and all(sample.transcript for sample in samples)
    voice.reference_transcript = " ".join(sample.transcript for sample in samples) if whole else ""
    # A new name each time, so that two requests never write the same file.
    name = f"{voice.folder}/reference-{voice.reference_hash[:16]}-{uuid.uuid4().hex[:8]}.flac"
    voice.reference.name = voice.reference.storage.save(name, ContentFile(data))
