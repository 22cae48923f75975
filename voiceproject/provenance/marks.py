"""The mark on everything synthetic, and how it is found again.

A file that leaves as WAV, FLAC or MP3 carries a signed C2PA manifest: made by AI, with what, when, in which job, and
nothing of whom; a WAV for clients of speech does not (see manifest.without_manifest). It is signed once, before it is
stored, so that every download of it is the same bytes. What cannot carry a manifest (Opus, bare PCM, a stream) or has
lost it is found by what a Mark keeps of it: the SHA-256 of the file and of what was streamed, and landmarks of its
sound (Chromaprint's numbers, see fingerprint.py). Marks name no tenant, and stay when the file, its job and its tenant
go.

Hashes are kept with the file. Landmarks take a process of FFmpeg, so a synthesis' are made afterwards, by a worker
within seconds, and at the latest when the file is deleted.
"""

from __future__ import annotations

import hashlib
import io
import logging
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile as sf
from django.conf import settings
from django.core.files.storage import default_storage
from django.db import transaction
from django.db.models import Count, Q
from django.db.models.functions import Now
from numpy.typing import NDArray

from voiceproject.media.storage import fetch
from voiceproject.media.uploads import BLOCK_FRAMES
from voiceproject.media.voice import resampled
from voiceproject.prepared import Insert
from voiceproject.provenance import fingerprint
from voiceproject.provenance.manifest import kind_of
from voiceproject.provenance.models import Landmark, Mark

log = logging.getLogger(__name__)

# A hash that so many recordings have tells none of them apart, and a look-up that met more would grow with the index.
MAX_SAME_HASH = 8
CLAIM_SECONDS = 300
PARTIAL_SECONDS = 3.5  # less of a broken stream is not found again anyhow


_insert_mark = Insert(Mark)


def mark_synthesis(job_id: uuid.UUID, content: bytes, stored: str, rate: int, sent: str = "") -> None:
    """Remembers a stored synthesis. rate: in Hz; sent: the SHA-256 of what was streamed, where that is not the file."""
    _insert_mark(
        Mark(
            kind=Mark.Kind.SYNTHESIS,
            job_id=job_id,
            sha256=hashlib.sha256(content).hexdigest(),
            stream_sha256=sent,
            file=stored,
            sample_rate=rate,
            landmarks_due_at=Now(),
        )
    )


def mark_cover(job_id: uuid.UUID, path: Path, landmarks: NDArray[np.int64] | None = None) -> None:
    """Remembers a file of a cover. landmarks: of its sound, for the first of the formats that it is kept in."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    mark = Mark.objects.create(kind=Mark.Kind.COVER, job_id=job_id, sha256=digest)
    if landmarks is not None:
        keep_landmarks(mark, landmarks)


def mark_sent(job_id: uuid.UUID, digest: str, *, what: str) -> None:
    """Remembers the SHA-256 of what was made of a recording for one answer and is stored nowhere: in a format that
    carries no manifest, or as a stream. Its sound is remembered with the recording. what: a key of SOURCE_TYPES."""
    if Mark.objects.filter(Q(sha256=digest) | Q(stream_sha256=digest)).exists():
        return  # The same file was given out before.
    Mark.objects.create(kind=kind_of(what), job_id=job_id, sha256=digest)


def mark_partial(job_id: uuid.UUID, content: bytes, format: str, rate: int, sent: str) -> None:
    """Remembers what was sent of a stream that broke off. rate: of PCM, in Hz."""
    try:
        samples = _decoded(io.BytesIO(content), format, rate)
    except sf.LibsndfileError:
        return  # Nothing was sent that could be heard.
    if len(samples) >= PARTIAL_SECONDS * fingerprint.SAMPLE_RATE:
        mark = Mark.objects.create(kind=Mark.Kind.SYNTHESIS, job_id=job_id, sha256=sent)
        try:
            keep_landmarks(mark, fingerprint.landmarks(samples, fingerprint.SAMPLE_RATE))
        except fingerprint.NoFingerprint as error:
            log.error("a broken stream is known by its hash alone: %s", error, extra={"job": job_id})


def cover_landmarks(path: Path, *originals: Path) -> NDArray[np.int64]:
    """What is new in a cover: landmarks of its sound that are not of the originals' (WAV files of our own).

    Without that, the song itself, and everything else with the same accompaniment, would be found to be made here.
    None, and an error in the log, where they cannot be made: a cover is signed all the same.
    """
    tracks = [_mono(original) for original in originals]
    if len(tracks) > 1:
        length = min(map(len, tracks))
        tracks.append(np.stack([track[:length] for track in tracks]).sum(axis=0))
    try:
        known = [fingerprint.query(track, fingerprint.SAMPLE_RATE) for track in tracks]
        return fingerprint.without(fingerprint.landmarks(_mono(path), fingerprint.SAMPLE_RATE), *known)
    except fingerprint.NoFingerprint as error:
        log.error("a cover is known by its manifest and its hash alone: %s", error)
        return np.zeros((0, 2), np.int64)


def make_landmarks(limit: int | None = None, seconds: float | None = None, only: Q | None = None) -> int:
    """Makes the landmarks that are due, the oldest first; how many. Safe on many hosts at once."""
    until = None if seconds is None else time.monotonic() + seconds
    due = Mark.objects.filter(only or Q(landmarks_due_at__lte=Now()), landmarks_due_at__isnull=False)
    count = 0
    for mark in due.order_by("id")[:limit]:
        if until is not None and time.monotonic() > until:
            break
        # Not equal: SQLite has written fewer digits than it is asked for.
        mine = Mark.objects.filter(pk=mark.pk, landmarks_due_at__lte=mark.landmarks_due_at)
        if mine.update(landmarks_due_at=Now() + timedelta(seconds=CLAIM_SECONDS)):
            _make(mark)
            count += 1
    return count


def on_deleting_files(sender: Any, folder: str, **kwargs: Any) -> None:
    """Receiver of jobs.signals.deleting_files: makes the landmarks of what is about to go."""
    make_landmarks(only=Q(file__startswith=f"{folder}/"))


def _make(mark: Mark) -> None:
    format = mark.file.rpartition(".")[2]
    with tempfile.NamedTemporaryFile(dir=settings.UPLOAD_DIR) as file:
        try:
            fetch(default_storage, mark.file, Path(file.name))
            with open(file.name, "rb") as content:
                samples = _decoded(content, format, mark.sample_rate or 0)
        except (FileNotFoundError, sf.LibsndfileError) as error:
            log.warning("no landmarks of a file: %r", error, extra={"job": mark.job_id})
            Mark.objects.filter(pk=mark.pk).update(landmarks_due_at=None)
            return
    try:
        landmarks = fingerprint.landmarks(samples, fingerprint.SAMPLE_RATE)
    except fingerprint.NoFingerprint as error:
        log.error("no landmarks of a file yet: %s", error, extra={"job": mark.job_id})
        return  # They stay due, and are tried again.
    with transaction.atomic():
        keep_landmarks(mark, landmarks)
        Mark.objects.filter(pk=mark.pk).update(landmarks_due_at=None)


def keep_landmarks(mark: Mark, landmarks: NDArray[np.int64]) -> None:
    crowded: set[int] = set()
    hashes = sorted(set(landmarks[:, 0].tolist()))
    for some in in_chunks(hashes):
        same = Landmark.objects.filter(hash__in=some).values("hash").annotate(n=Count("mark"))
        crowded.update(row["hash"] for row in same if row["n"] >= MAX_SAME_HASH)
    rows = [Landmark(hash=value, mark=mark, frame=frame) for value, frame in landmarks.tolist() if value not in crowded]
    Landmark.objects.bulk_create(rows, batch_size=300, ignore_conflicts=True)


def in_chunks(values: list[int], size: int = 500) -> Iterator[list[int]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _decoded(file: BinaryIO, format: str, rate: int) -> NDArray[np.float32]:
    """A file of our own at the fingerprint's rate; rate: of bare PCM, mono, in Hz."""
    if format == "pcm":
        return _mono(file, format="RAW", subtype="PCM_16", endian="LITTLE", samplerate=rate, channels=1)
    return _mono(file)


def _mono(file: Path | BinaryIO, **options: Any) -> NDArray[np.float32]:
    """An audio file of our own at the fingerprint's rate, read in blocks."""
    with sf.SoundFile(file, **options) as source:
        blocks = source.blocks(BLOCK_FRAMES, dtype="float32", always_2d=True)
        return at_low_rate(source.samplerate, (block.mean(axis=1) for block in blocks))


def at_low_rate(rate: int, blocks: Iterator[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate([np.zeros(0, np.float32), *resampled(blocks, rate, fingerprint.SAMPLE_RATE)])
