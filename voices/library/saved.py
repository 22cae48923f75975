"""Saved voices: what is kept of a speaker, who has agreed to it, what engines get of it, and how it ends.

Samples are decoded, trimmed and brought to one level when they come. All samples of a voice together, one after the
other, are its reference: a file of its own, made anew when a sample comes or goes.
"""

from __future__ import annotations

import hashlib
import io
import logging
import time
import unicodedata
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import soxr
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection, transaction
from django.db.models.fields.files import FieldFile
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_noop
from numpy.typing import NDArray

from voiceproject.errors import PublicError
from voiceproject.jobs.files import delete_folder
from voiceproject.jobs.job import Job
from voiceproject.jobs.status import revoked
from voiceproject.media import audio
from voiceproject.media.storage import is_passing
from voiceproject.prepared import Select, Slot
from voiceproject.telemetry.logging import current
from voiceproject.tenants import audit, usage
from voices.engines.gptsovits import best_window
from voices.engines.interface import Engine, Kept, Reference, StoredReference
from voices.library import quality
from voices.library.models import VOICES_FOLDER, Consent, EngineData, Voice, VoiceSample
from voices.library.quality import Quality
from voices.library.references import references
from voices.text.languages import detect_language

log = logging.getLogger(__name__)
Samples = NDArray[np.float32]

MAX_SAMPLES = 10
MIN_SECONDS, MAX_SECONDS = 3.0, 60.0
MIN_SPEECH_SECONDS = 1.0
MAX_SAMPLE_RATE = 48_000
LEVEL = 0.1  # root mean square of the speech, -20 dBFS
PEAK = 0.95
PAUSE_SECONDS = 0.3  # between two samples
PREPARE_SECONDS = 30.0
# A statement that says something: letters, where one of a script that needs fewer of them counts thrice.
MIN_STATEMENT_LETTERS, MIN_DIFFERENT_LETTERS = 15, 5


@dataclass(frozen=True)
class Recording:
    """A sample as it is kept: float32 mono (n,), sample_rate at most 48 kHz, its quality before it was made louder."""

    samples: Samples
    sample_rate: int
    quality: Quality
    uploaded_hash: str


@dataclass(frozen=True)
class Provider:
    """Who brings a voice: what a consent says of them."""

    tenant: Any
    key_prefix: str
    address: str


def provider(request: Any) -> Provider:
    return Provider(request.user, str(getattr(request.auth, "prefix", "")), audit.client_address(request))


def is_statement(text: str) -> bool:
    """Whether a text can state that a speaker agreed; `yes`, `true` and `n/a` cannot."""
    letters = [char for char in text.casefold() if char.isalpha()]
    weight = sum(3 if "\u3040" <= char < "\ud800" else 1 for char in letters)
    return weight >= MIN_STATEMENT_LETTERS and len(set(letters)) >= MIN_DIFFERENT_LETTERS


def read_sample(path: Path, field: str) -> Recording:
    """Decodes and checks an upload. Raises PublicError as audio.load_reference, and invalid_audio without speech."""
    samples, rate = audio.load_reference(path, field=field, min_seconds=MIN_SECONDS, max_seconds=MAX_SECONDS)
    start, stop = quality.speech_range(samples, rate)
    missing = round(MIN_SECONDS * rate) - (stop - start)
    if missing > 0:  # An engine wants its three seconds; the upload has them.
        start = max(0, min(start - missing // 2, len(samples) - round(MIN_SECONDS * rate)))
        stop = start + round(MIN_SECONDS * rate)
    samples = samples[start:stop]
    found = quality.measure(samples, rate)
    if found.speech_seconds < MIN_SPEECH_SECONDS:
        message = f"{field} has no speech in it, or too much noise over it. Send 10 to 30 s of one person speaking."
        details = {"field": field, "reason": "no_voice", "found": round(found.speech_seconds, 2)}
        raise PublicError("invalid_audio", message, details)
    if rate > MAX_SAMPLE_RATE:
        samples = soxr.resample(samples, rate, MAX_SAMPLE_RATE, quality="HQ").astype(np.float32)
        rate = MAX_SAMPLE_RATE
    gain = LEVEL / max(quality.speech_level(samples, rate), 1e-6)
    gain = min(gain, PEAK / max(float(np.abs(samples).max()), 1e-6))
    return Recording(samples * np.float32(gain), rate, found, audio.sha256_file(path))


def create(
    who: Provider,
    recordings: Sequence[tuple[Recording, str]],
    statement: str,
    *,
    name: str,
    description: str = "",
    language: str = "auto",
    engine: Engine | None = None,
) -> Voice:
    """A new voice of at least one recording with its transcript (or an empty text), and the consents to them.

    engine: computes what it needs of the voice now. Raises PublicError invalid_audio where it hears no voice.
    """
    voice = Voice(tenant=who.tenant, name=name, description=description, language=language)
    samples = [_sample(voice, recording, transcript) for recording, transcript in recordings]
    try:
        for sample, (recording, _) in zip(samples, recordings, strict=True):
            _save_sample(sample, recording)
        _set_reference(voice, samples)
        computed = _Computed()
        if engine is not None:
            prepare(voice, engine, computed)
        with transaction.atomic():
            usage.check_storage(who.tenant, voice.reference_bytes + sum(sample.audio_bytes for sample in samples))
            voice.save(force_insert=True)
            VoiceSample.objects.bulk_create(samples)
            for sample in samples:
                _consent(who, voice, sample, statement)
    except BaseException:
        delete_folder(voice.folder)
        raise
    kept = _kept(voice, voice.reference_hash, voice.reference_transcript or None)
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
            _consent(who, voice, sample, statement)
    except BaseException:
        sample.audio.storage.delete(str(sample.audio.name))
        raise
    renew_reference(voice)
    return sample


def delete_sample(voice: Voice, sample: VoiceSample) -> None:
    """Raises PublicError conflict for the last one."""
    with transaction.atomic():
        Voice.objects.select_for_update().get(pk=voice.pk)
        if voice.samples.count() <= 1:
            raise PublicError("conflict", "This is the voice's only sample; delete the voice, or add another first.")
        VoiceSample.objects.filter(pk=sample.pk).delete()
    renew_reference(voice)
    sample.audio.storage.delete(str(sample.audio.name))
    references.forget(_decoded_name(sample.audio_hash))


def change(voice: Voice, fields: dict[str, Any]) -> None:
    """name, description, language, and the transcript of a voice of one sample (PublicError validation_error)."""
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
        _forget_engine_data(voice)


def delete(voice: Voice, request: Any = None) -> None:
    """Its rows and files go; its consents stay, and jobs have what they need of it. request: for the audit log."""
    forget = _decoded_names(voice)
    with transaction.atomic():
        if request is not None:
            audit.record("voice.delete", voice, request=request)
        Voice.objects.filter(pk=voice.pk).delete()
    delete_folder(voice.folder)
    references.forget(*forget)


def _decoded_names(voice: Voice) -> list[str]:
    """What its recordings are called among those that were decoded a moment ago."""
    hashes = [voice.reference_hash, *VoiceSample.objects.filter(voice_id=voice.pk).values_list("audio_hash", flat=True)]
    return [_decoded_name(content_hash) for content_hash in hashes]


def _decoded_name(content_hash: str) -> str:
    """Another one than that of an upload of the same bytes, which is held to bounds."""
    return f"saved {content_hash}"


def sweep_orphans(older_than_seconds: float) -> int:
    """Deletes the folders of voices that have no row; how many."""
    try:
        folders, _ = default_storage.listdir(VOICES_FOLDER)
    except FileNotFoundError:
        return 0
    limit = timezone.now() - timedelta(seconds=older_than_seconds)
    count = 0
    for name in folders:
        if Voice.objects.filter(pk=name).exists():
            continue
        _, files = default_storage.listdir(f"{VOICES_FOLDER}/{name}")
        if all(default_storage.get_modified_time(f"{VOICES_FOLDER}/{name}/{file}") <= limit for file in files):
            delete_folder(f"{VOICES_FOLDER}/{name}")
            count += 1
    return count


def together(qualities: Sequence[dict[str, Any]], anew: bool = False) -> dict[str, Any]:
    """The quality of several samples as that of one recording: the whole length, means by length, the worst peaks.

    The warnings are those of the whole; what is poor in one sample alone is said there. anew: the warnings of an only
    sample are worded again too, for a page in another language than they are kept in.
    """
    if len(qualities) == 1 and not anew:
        return qualities[0]
    seconds = sum(q["duration_seconds"] for q in qualities)

    def mean(name: str) -> float:
        return sum(q[name] * q["duration_seconds"] for q in qualities) / max(seconds, 1e-6)

    ratio, snr, bandwidth = mean("speech_ratio"), mean("snr_db"), mean("bandwidth_hz")
    clipping = max((q["clipping_ratio"] for q in qualities), default=0.0)
    return Quality(
        seconds,
        ratio,
        snr,
        clipping,
        max((q["sample_rate"] for q in qualities), default=0),
        bandwidth,
        quality.advice(seconds * ratio, ratio, snr, clipping, bandwidth),
    ).as_json()


# --- use -------------------------------------------------------------------------------------------------------------


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
    """To be asked once a job's row is written: who takes its voice down before that does not see the job.

    Raises PublicError revoked.
    """
    if job.voice_id and _taken_down(pk=job.voice_id):
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
    """The voice as this engine takes it best. transcript, language: the client's own, of the whole voice."""
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
    kept = kept or _kept(voice, content_hash, text, language)
    stored = StoredReference(
        lambda: references.kept(_decoded_name(content_hash), lambda: read_audio(file))[0],
        frames, rate, content_hash, text, language, kept,
    )  # fmt: skip
    return Chosen(stored, file)


def read_audio(file: FieldFile) -> tuple[Samples, int]:
    """float32 (n,) and the rate in Hz of a file of ours. Raises PublicError not_found where it was deleted."""
    try:
        with file.storage.open(str(file.name), "rb") as stored:
            samples, rate = sf.read(io.BytesIO(stored.read()), dtype="float32")
    except FileNotFoundError:
        raise PublicError("not_found", "This voice was changed or deleted this moment; try again.") from None
    return samples, rate


def prepare(voice: Voice, engine: Engine, kept: Kept | None = None) -> None:
    """Lets the engine compute what it needs of a voice, so that the first synthesis does not wait for it.

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


class _Computed:
    """What an engine has computed of a voice that has no row yet: (engine, language) -> data."""

    def __init__(self) -> None:
        self.data: dict[tuple[str, str], bytes] = {}

    def load(self, engine: str, language: str) -> bytes | None:
        return self.data.get((engine, language))

    def store(self, engine: str, language: str, data: bytes) -> None:
        self.data[engine, language] = data


def kept_data(voice_id: uuid.UUID | None, content_hash: str, transcript: str | None, language: str) -> KeptData | None:
    """What engines know of a waiting job's voice: None where it has none, or the voice was deleted.

    content_hash, transcript, language: of the reference that the job has kept.
    """
    voice = Voice.objects.filter(pk=voice_id).first() if voice_id else None
    return _kept(voice, content_hash, transcript, language) if voice else None


def _kept(voice: Voice, content_hash: str, transcript: str | None, language: str = "auto") -> KeptData:
    return KeptData(
        voice.pk, voice.folder, content_hash, transcript, voice.language if language == "auto" else language
    )


class KeptData:
    """What engines have computed of a voice (`Kept`): a file each, found by reference and transcript."""

    def __init__(
        self, voice_id: uuid.UUID, folder: str, content_hash: str, transcript: str | None, language: str
    ) -> None:
        self._voice_id = voice_id
        self._folder = folder
        parts = "\0".join((content_hash, language, transcript or ""))
        self._key = hashlib.sha256(parts.encode()).hexdigest()

    def load(self, engine: str, language: str) -> bytes | None:
        try:
            row = self._rows(engine, language).first()
            if row is None:
                return None
            with row.file.storage.open(str(row.file.name), "rb") as stored:
                data: bytes = stored.read()
            return data
        except FileNotFoundError:
            return None
        except Exception as error:
            if not is_passing(error):
                raise
            log.warning("what is kept of a voice cannot be read: %s", error)
            return None
        finally:
            _let_connection_go()

    def store(self, engine: str, language: str, data: bytes) -> None:
        name = ""
        try:
            name = default_storage.save(f"{self._folder}/{engine}-{language}-{uuid.uuid4().hex}.npz", ContentFile(data))
            with transaction.atomic():
                Voice.objects.select_for_update().get(pk=self._voice_id)
                old = self._rows(engine, language).first()
                EngineData.objects.update_or_create(
                    voice_id=self._voice_id, engine=engine, key=self._key, language=language,
                    defaults={"file": name, "bytes": len(data)},
                )  # fmt: skip
            if old is not None:
                default_storage.delete(str(old.file.name))
        except Exception as error:
            # A disk that is full, a database that is away, a voice that was deleted: the audio was made all the same.
            log.warning("what was computed of a voice is not kept: %s", error)
            if name:
                self._discard(name)
        finally:
            _let_connection_go()

    def _rows(self, engine: str, language: str) -> Any:
        return EngineData.objects.filter(voice_id=self._voice_id, engine=engine, key=self._key, language=language)

    @staticmethod
    def _discard(name: str) -> None:
        try:
            default_storage.delete(name)
        except Exception as error:
            if not (is_passing(error) or isinstance(error, OSError)):
                raise
            log.warning("a file could not be deleted yet: %s", error, extra={"file": name})


def _let_connection_go() -> None:
    # An engine works long after it has read or written this.
    if connection.vendor != "sqlite" and not connection.in_atomic_block:
        connection.close()


# --- the operator ----------------------------------------------------------------------------------------------------


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
        references.forget(*_decoded_names(voice))
    return _revoke_outputs([voice_id])


def finish_takedowns() -> int:
    """Revokes what a takedown has not come to; how many jobs."""
    return _revoke_outputs(list(Voice.objects.filter(taken_down_at__isnull=False).values_list("pk", flat=True)))


def _revoke_outputs(voice_ids: list[uuid.UUID]) -> int:
    count = 0
    for model in Job.__subclasses__() if voice_ids else ():
        for job in model._default_manager.filter(voice_id__in=voice_ids, revoked_at=None).iterator():
            try:
                count += job.revoke()
            except Exception as error:
                if not is_passing(error):
                    raise
                log.warning("a job is revoked later: %s", error, extra={"job": job.pk})
    return count


# --- internals -------------------------------------------------------------------------------------------------------


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


def _consent(who: Provider, voice: Voice, sample: VoiceSample, statement: str) -> None:
    Consent.objects.create(
        tenant=who.tenant,
        tenant_name=str(who.tenant.get_username())[:150],
        key_prefix=who.key_prefix,
        address=who.address[:64],
        request_id=current("request_id"),
        statement=unicodedata.normalize("NFC", statement),
        voice_id=voice.pk,
        voice_name=voice.name,
        sample_id=sample.pk,
        sample_hash=sample.uploaded_hash,
    )


def renew_reference(voice: Voice) -> None:
    """Makes the reference of the samples that there are, and forgets what engines know of the last one."""
    while True:
        samples = list(VoiceSample.objects.filter(voice=voice))
        if not samples:
            return  # The voice was deleted.
        old, old_hash = str(voice.reference.name), voice.reference_hash
        _set_reference(voice, samples)
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
        # Another sample came or went meanwhile: once more, with it.
        voice.reference.storage.delete(old if same else new)
        if same:
            references.forget(_decoded_name(old_hash))
            break
        voice.refresh_from_db()
    _forget_engine_data(voice)
    voice.refresh_from_db()


def _set_reference(voice: Voice, samples: Sequence[VoiceSample]) -> None:
    """At the highest rate among the samples; of more than a minute, each gives its share of it."""
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
    # Its own name each time: two requests that make it anew do not write one file.
    name = f"{voice.folder}/reference-{voice.reference_hash[:16]}-{uuid.uuid4().hex[:8]}.flac"
    voice.reference.name = voice.reference.storage.save(name, ContentFile(data))


def _forget_engine_data(voice: Voice) -> None:
    rows = list(EngineData.objects.filter(voice=voice))
    EngineData.objects.filter(pk__in=[row.pk for row in rows]).delete()
    for row in rows:
        row.file.storage.delete(str(row.file.name))
