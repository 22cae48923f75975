"""The mark on everything synthetic, and how it is found again.

A file that leaves as WAV, FLAC or MP3 carries a signed C2PA manifest: made by AI, with what, when, in which job, and
nothing of whom. It is signed once, before it is stored, so that every download of it is the same bytes. What cannot
carry a manifest (Opus, bare PCM, a stream) or has lost it is found by what a Mark keeps of it: the SHA-256 of the file
and of what was streamed, and landmarks of its sound (Chromaprint's numbers, see fingerprint.py). Marks name no tenant,
and stay when the file, its job and its tenant go.

Hashes are kept with the file. Landmarks take a process of FFmpeg, so a synthesis' are made afterwards, by a worker
within seconds, and at the latest when the file is deleted.
"""

from __future__ import annotations

import functools
import hashlib
import io
import logging
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import c2pa
import numpy as np
import soundfile as sf
import soxr
from django.conf import settings
from django.core.files.storage import default_storage
from django.db import transaction
from django.db.models import Count, Q
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from numpy.typing import NDArray

from voiceproject import __version__
from voiceproject.errors import PublicError
from voiceproject.media.content_type import NotTaken, sniff
from voiceproject.media.storage import fetch
from voiceproject.media.uploads import Bounds, opened
from voiceproject.prepared import Insert
from voiceproject.provenance import fingerprint, signer
from voiceproject.provenance.models import Landmark, Mark, SigningCertificate

log = logging.getLogger(__name__)

GENERATOR = "Voiceproject"
JOB_LABEL = "org.voiceproject.job"
# Formats that carry a manifest, as C2PA names them.
MIME_TYPES = {"wav": "audio/wav", "flac": "audio/flac", "mp3": "audio/mpeg"}
# Those that are not made here may carry one as well.
READ_TYPES = {**MIME_TYPES, "m4a": "audio/mp4"}
# https://cv.iptc.org/newscodes/digitalsourcetype/
SOURCE_TYPES = {
    "speech": "trainedAlgorithmicMedia",
    "singing": "trainedAlgorithmicMedia",
    # A voice that a model has made, over music that it has not.
    "cover": "compositeWithTrainedAlgorithmicMedia",
}
# A hash that so many recordings have tells none of them apart, and a look-up that met more would grow with the index.
MAX_SAME_HASH = 8
# What it takes to be a part of each kind: how many landmarks in common, and what share of those that were asked for. A
# song, and other covers of it, have by chance some of those that are left of a cover's after all of the song's own were
# taken away; a part of the cover itself has most of them.
NEEDED: dict[str, tuple[int, float]] = {
    Mark.Kind.SYNTHESIS: (fingerprint.MIN_MATCHES, 0.0),
    Mark.Kind.COVER: (6, 1 / 3),
}
VERIFY_SECONDS = 1200.0
VERIFY_PENDING = 20  # marks whose landmarks a verification makes itself, where no worker came to it
CLAIM_SECONDS = 300
PARTIAL_SECONDS = 3.5  # less of a broken stream is not found again anyhow

# Nothing of an upload makes us ask another server.
_OFFLINE = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True}}
# To read each manifest again once it is written takes longer than to write it. The tests read them.
_UNCHECKED = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_after_sign": False}}


# --- Signing ---


def sign(content: bytes, format: str, *, what: str, job_id: uuid.UUID) -> bytes:
    """An encoded file with its manifest; unchanged in a format that cannot carry one.

    what: a key of SOURCE_TYPES. Raises C2paError or BadSigner: nothing leaves unsigned.
    """
    if format not in MIME_TYPES:
        return content
    signed = io.BytesIO()
    _sign(signer.signer(), io.BytesIO(content), signed, format, what, job_id)
    return signed.getvalue()


def sign_file(path: Path, format: str, *, what: str, job_id: uuid.UUID) -> None:
    """As `sign`, for a file of our own that is large, in its place."""
    if format not in MIME_TYPES:
        return
    signed = path.with_name(f"{path.name}.signed")
    with path.open("rb") as source, signed.open("w+b") as target:
        _sign(signer.signer(), source, target, format, what, job_id)
    signed.replace(path)


def _sign(by: c2pa.Signer, source: Any, target: Any, format: str, what: str, job_id: uuid.UUID) -> None:
    now = timezone.now().replace(microsecond=0).isoformat().replace("+00:00", "Z")
    source_type = f"http://cv.iptc.org/newscodes/digitalsourcetype/{SOURCE_TYPES[what]}"
    agent = {"name": GENERATOR, "version": __version__}
    action = {"action": "c2pa.created", "when": now, "digitalSourceType": source_type, "softwareAgent": agent}
    manifest = {
        "claim_generator_info": [agent],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [action]}},
            {"label": JOB_LABEL, "data": {"id": str(job_id), "kind": _kind(what), "made_at": now}},
        ],
    }
    c2pa.Builder(manifest, _signing_context(os.getpid())).sign(by, MIME_TYPES[format], source, target)


@functools.lru_cache(maxsize=1)  # A process that was forked cannot use its parent's.
def _signing_context(process: int) -> c2pa.Context:
    return c2pa.Context(c2pa.Settings.from_dict(_UNCHECKED))


def _kind(what: str) -> str:
    return Mark.Kind.SYNTHESIS if what == "speech" else Mark.Kind.COVER


# --- Marks ---

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
        _keep(mark, landmarks)


def mark_sent(job_id: uuid.UUID, digest: str, *, what: str) -> None:
    """Remembers the SHA-256 of what was made of a recording for one answer and is stored nowhere: in a format that
    carries no manifest, or as a stream. Its sound is remembered with the recording. what: a key of SOURCE_TYPES."""
    Mark.objects.create(kind=_kind(what), job_id=job_id, sha256=digest)


def mark_partial(job_id: uuid.UUID, content: bytes, format: str, rate: int, sent: str) -> None:
    """Remembers what was sent of a stream that broke off. rate: of PCM, in Hz."""
    try:
        samples, rate = _decoded(io.BytesIO(content), format, rate)
    except sf.LibsndfileError:
        return  # Nothing was sent that could be heard.
    if len(samples) >= PARTIAL_SECONDS * rate:
        mark = Mark.objects.create(kind=Mark.Kind.SYNTHESIS, job_id=job_id, sha256=sent)
        try:
            _keep(mark, fingerprint.landmarks(samples, rate))
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
                samples, rate = _decoded(content, format, mark.sample_rate or 0)
        except (FileNotFoundError, sf.LibsndfileError) as error:
            log.warning("no landmarks of a file: %r", error, extra={"job": mark.job_id})
            Mark.objects.filter(pk=mark.pk).update(landmarks_due_at=None)
            return
    try:
        landmarks = fingerprint.landmarks(samples, rate)
    except fingerprint.NoFingerprint as error:
        log.error("no landmarks of a file yet: %s", error, extra={"job": mark.job_id})
        return  # They stay due, and are tried again.
    with transaction.atomic():
        _keep(mark, landmarks)
        Mark.objects.filter(pk=mark.pk).update(landmarks_due_at=None)


def _keep(mark: Mark, landmarks: NDArray[np.int64]) -> None:
    crowded: set[int] = set()
    hashes = sorted(set(landmarks[:, 0].tolist()))
    for some in _chunks(hashes):
        same = Landmark.objects.filter(hash__in=some).values("hash").annotate(n=Count("mark"))
        crowded.update(row["hash"] for row in same if row["n"] >= MAX_SAME_HASH)
    rows = [Landmark(hash=value, mark=mark, frame=frame) for value, frame in landmarks.tolist() if value not in crowded]
    Landmark.objects.bulk_create(rows, batch_size=300, ignore_conflicts=True)


def _chunks(values: list[int], size: int = 500) -> Iterator[list[int]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _decoded(file: BinaryIO, format: str, rate: int) -> tuple[NDArray[np.float32], int]:
    if format == "pcm":
        return np.frombuffer(file.read(), "<i2").astype(np.float32) / np.float32(32_768), rate
    return sf.read(file, dtype="float32")


def _mono(path: Path) -> NDArray[np.float32]:
    """An audio file of our own at the fingerprint's rate, read in blocks."""
    with sf.SoundFile(path) as file:
        return _low(
            file.samplerate, (block.mean(axis=1) for block in file.blocks(65_536, dtype="float32", always_2d=True))
        )


def _low(rate: int, blocks: Iterator[NDArray[np.float32]]) -> NDArray[np.float32]:
    resampler = soxr.ResampleStream(rate, fingerprint.SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    parts = [resampler.resample_chunk(np.ascontiguousarray(block, np.float32)) for block in blocks]
    parts.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    return np.concatenate(parts)


# --- Verification ---


@dataclass(frozen=True)
class Manifest:
    """state: ours, foreign (somebody else's, and intact) or broken (altered since it was signed, or not readable)."""

    state: str
    made_at: datetime | None = None
    kind: str | None = None


@dataclass(frozen=True)
class Finding:
    """how: manifest, hash or fingerprint; manifest: none, ours, foreign or broken; made_at and kind where made here."""

    made_here: bool
    manifest: str
    how: str | None = None
    made_at: datetime | None = None
    kind: str | None = None

    @property
    def manifest_valid(self) -> bool | None:
        return None if self.manifest == "none" else self.manifest != "broken"


def verify(path: Path) -> Finding:
    """Whether and when a file was made here. Raises PublicError invalid_audio where nothing is known of it and it is no
    audio that could be listened to."""
    manifest = read_manifest(path)
    state = manifest.state if manifest else "none"
    if manifest and manifest.state == "ours":
        return Finding(True, state, "manifest", manifest.made_at, manifest.kind)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    mark = Mark.objects.filter(Q(sha256=digest) | Q(stream_sha256=digest)).order_by("id").first()
    how = "hash"
    if mark is None:
        mark, how = _heard(path), "fingerprint"
    if mark is None:
        return Finding(False, state)
    return Finding(True, state, how, mark.made_at, mark.kind)


def read_manifest(path: Path) -> Manifest | None:
    """What a file's manifest is worth; None where it has none."""
    try:
        with path.open("rb") as file:
            mime = READ_TYPES.get(sniff(file))
    except NotTaken:
        return None
    if mime is None:
        return None
    chains = {row.serial_number: row for row in SigningCertificate.objects.all()}
    # The signer's own certificate is not among them: it certifies nobody.
    anchors = "".join(part for row in chains.values() for part in row.issuers)
    options: dict[str, Any] = {**_OFFLINE, "trust": {"trust_anchors": anchors}} if anchors else _OFFLINE
    try:
        with (
            path.open("rb") as file,
            c2pa.Context.from_dict(options) as context,
            c2pa.Reader(mime, file, context=context) as reader,
        ):
            state = reader.get_validation_state()
            active = reader.get_active_manifest() or {}
    except c2pa.C2paError.ManifestNotFound:
        return None
    except c2pa.C2paError as error:
        log.info("a manifest could not be read: %s", error)
        return Manifest("broken")
    serial = active.get("signature_info", {}).get("cert_serial_number")
    if state == "Trusted" and serial in chains:
        data: dict[str, Any] = next(
            (part["data"] for part in active.get("assertions", ()) if part["label"] == JOB_LABEL), {}
        )
        return Manifest("ours", parse_datetime(str(data.get("made_at", ""))), data.get("kind"))
    return Manifest("foreign" if state in ("Valid", "Trusted") else "broken")


def _heard(path: Path) -> Mark | None:
    """The recording that an upload is, or is a part of."""
    bounds = Bounds("file", 0.0, VERIFY_SECONDS)
    with opened(path, bounds) as source:
        samples = _low(source.sample_rate, (block.mean(axis=1) for block in source.blocks))
    try:
        asked = fingerprint.query(samples, fingerprint.SAMPLE_RATE)
    except fingerprint.NoFingerprint as error:
        log.error("a recording cannot be told by its sound: %s", error)
        message = "Recordings cannot be told by their sound on this server now, and nothing else is known of this one."
        raise PublicError("not_configured", message) from error
    found = _search(asked)
    if found is None and make_landmarks(VERIFY_PENDING):
        found = _search(asked)
    return None if found is None else Mark.objects.filter(pk=found).first()


def _search(asked: NDArray[np.int64]) -> int | None:
    rows: list[tuple[int, int, int]] = []
    for some in _chunks(sorted(set(asked[:, 0].tolist()))):
        rows += Landmark.objects.filter(hash__in=some).values_list("mark_id", "hash", "frame")
    scores = {pk: score for pk, score in fingerprint.matches(asked, rows).items() if fingerprint.is_match(score)}
    kinds = dict(Mark.objects.filter(pk__in=list(scores)[:500]).values_list("pk", "kind"))
    fits = [pk for pk, kind in kinds.items() if fingerprint.is_match(scores[pk], *NEEDED[kind])]
    return max(fits, key=lambda pk: (scores[pk], -pk), default=None)


# --- Checks ---


def problem() -> str | None:
    """Why nothing can be signed with C2PA_CERT and C2PA_KEY; None when all is well, and when the local CA signs."""
    if not settings.C2PA_CERT:
        return None
    try:
        silence = io.BytesIO()
        sf.write(silence, np.zeros(100, np.float32), 8000, format="WAV", subtype="PCM_16")
        silence.seek(0)
        with signer.as_signer(signer.load()) as by:
            _sign(by, silence, io.BytesIO(), "wav", "speech", uuid.uuid4())
    except (signer.BadSigner, c2pa.C2paError) as error:
        return str(error)
    return None
