"""What a request for a training brings: recordings, what is said in them, and the consent to it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.files import File
from django.db import transaction
from django.db.models.fields.files import FieldFile

from voiceproject.errors import PublicError
from voiceproject.jobs.files import delete_folder
from voiceproject.jobs.idempotency import Submission
from voiceproject.media import audio
from voiceproject.tenants import usage
from voiceproject.web.uploads import as_text, clean_title, is_binary, title_of, upload_path
from voices.library.consents import Provider, record_consent
from voices.library.models import Consent, Voice, VoiceSample
from voices.training.models import Training, TrainingRecording

MAX_TRANSCRIPT_CHARACTERS = 20_000
OPTIONS = ("sovits_epochs", "gpt_epochs", "epochs", "batch", "seed")


@dataclass(frozen=True)
class Material:
    """Where one recording comes from, its name, what is said in it, and its SHA-256."""

    source: Path | FieldFile
    name: str
    transcript: str
    content_hash: str


def material_of(fields: dict[str, Any], voice: Voice | None) -> tuple[list[Material], list[dict[str, str]]]:
    """The recordings of a request, each once, and what is to be said of them. Raises PublicError validation_error."""
    warnings: list[dict[str, str]] = []
    sent = [(title_of(upload), upload_path(upload)) for upload in fields["recordings"]]
    texts = transcripts_of([(title_of(file), upload_path(file)) for file in fields["transcripts"]])
    names = {_key(name) for name, _ in sent}
    if texts and not names & texts.keys():
        found, known = ", ".join(sorted(texts)[:3]), ", ".join(sorted(names)[:3])
        message = f"None is of a recording that was sent: they are of {found}, and the recordings are {known}."
        raise PublicError("validation_error", f"transcripts: {message}", {"transcripts": [message]})
    if strangers := sorted(texts.keys() - names):
        message = f"{len(strangers)} transcripts are of no recording that was sent, such as {strangers[0]}."
        warnings.append({"code": "transcript_unused", "message": message})
    found_material: dict[str, Material] = {}
    for name, path in sent:
        content_hash = audio.sha256_file(path)
        if (same := found_material.get(content_hash)) is not None:
            message = f"{name or 'A recording'} is the same file as {same.name}, and was left out."
            warnings.append({"code": "duplicate", "message": message})
            continue
        found_material[content_hash] = Material(path, name, texts.get(_key(name), ""), content_hash)
    for number, sample in enumerate(voice.samples.all() if voice else ()):
        if sample.uploaded_hash not in found_material:
            name = f"sample {number + 1}"
            found_material[sample.uploaded_hash] = Material(sample.audio, name, sample.transcript, sample.uploaded_hash)
    return list(found_material.values()), warnings


def _key(name: str) -> str:
    return name.casefold()


def transcripts_of(files: list[tuple[str, Path]]) -> dict[str, str]:
    """Texts by the names of their recordings, without endings and in small letters.

    A file each of whose lines has three bars is a `.list`; any other is the text of the recording that has its name.
    """
    found: dict[str, str] = {}
    for name, path in files:
        content = path.read_bytes()
        if is_binary(content[:512]):
            message = f"{name or 'A file'} is no text."
            raise PublicError("validation_error", f"transcripts: {message}", {"transcripts": [message]})
        text = as_text(content).removeprefix("\ufeff")
        lines = [line for line in text.splitlines() if line.strip()]
        if lines and all(line.count("|") >= 3 for line in lines):
            for line in lines:
                recording, _, _, said = line.split("|", 3)
                found[_key(clean_title(recording))] = _said(said)
        else:
            found[_key(name)] = _said(text)
    return found


def _said(text: str) -> str:
    return " ".join(text.replace("\x00", " ").split())[:MAX_TRANSCRIPT_CHARACTERS]


def submit(who: Provider, job: Training, material: list[Material], statement: str, submission: Submission) -> Training:
    """Stores the recordings and queues the job, with the consents to them; gives the job that the same request has made
    before, where there is one. Raises PublicError as Submission.admit does."""
    recordings = [
        TrainingRecording(
            training=job, number=number, name=one.name, transcript=one.transcript, uploaded_hash=one.content_hash
        )
        for number, one in enumerate(material)
    ]
    try:
        for recording, one in zip(recordings, material, strict=True):
            with one.source.open("rb") as file:
                storage = recording.audio.storage
                recording.audio.name = storage.save(f"{job.folder}/0-recording-{recording.number:04}", File(file))
            recording.audio_bytes = usage.size_of(one.source)
            job.input_bytes += recording.audio_bytes
        with transaction.atomic():
            kept = submission.admit(job, settings.TRAINING_MAX_QUEUED)
            if kept is job:
                TrainingRecording.objects.bulk_create(recordings)
                _record_consents(who, job, recordings, statement)
    except BaseException:
        delete_folder(job.folder)
        raise
    if kept is not job:
        delete_folder(job.folder)
    assert isinstance(kept, Training)
    return kept


def _record_consents(who: Provider, job: Training, recordings: list[TrainingRecording], statement: str) -> None:
    """One record for each recording, as for the samples of a saved voice. Those that are its samples have theirs."""
    assert job.voice_id is not None  # new_job gives it one
    known = set(Consent.objects.filter(voice_id=job.voice_id).values_list("sample_hash", flat=True))
    voice = Voice(pk=job.voice_id, name=job.name)
    for recording in recordings:
        if statement and recording.uploaded_hash not in known:
            record_consent(who, voice, VoiceSample(pk=recording.pk, uploaded_hash=recording.uploaded_hash), statement)


def new_job(tenant: Any, key: Any, fields: dict[str, Any], voice: Voice | None, **more: Any) -> Training:
    return Training(
        id=uuid.uuid4(),
        tenant=tenant,
        api_key=key,
        name=fields["name"] or (voice.name if voice else ""),
        language=voice.language if voice and fields["language"] == "auto" else fields["language"],
        engine=fields["engine"],
        base=fields["base"],
        options={name: fields[name] for name in OPTIONS if fields.get(name) is not None},
        voice_id=voice.pk if voice else uuid.uuid4(),
        makes_voice=voice is None,
        callback_url=fields["callback_url"],
        **more,
    )
