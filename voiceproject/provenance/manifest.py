"""C2PA manifests: signing what is made here, and reading what a file carries."""

from __future__ import annotations

import functools
import io
import logging
import os
import struct
import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import c2pa
import numpy as np
import soundfile as sf
from django.conf import settings
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from voiceproject import __version__
from voiceproject.media.content_type import NotTaken, sniff
from voiceproject.provenance import signer
from voiceproject.provenance.models import Mark, SigningCertificate

log = logging.getLogger(__name__)

GENERATOR = "Voiceproject"
JOB_LABEL = "org.voiceproject.job"
CHUNK = b"C2PA"  # of a WAV file, that holds the manifest
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
# Nothing of an upload makes us ask another server.
_OFFLINE = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True}}
# To read each manifest again once it is written takes longer than to write it. The tests read them.
_UNCHECKED = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_after_sign": False}}


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


def without_manifest(wav: bytes) -> bytes:
    """A WAV file of ours as it was before it was signed.

    C2PA wants its chunk to be the last one (2.4, A.3.7), and many clients of speech take all that follows the header of
    `data` for samples: they would play it.
    """
    kept, at = [], 12
    while at + 8 <= len(wav):
        size = struct.unpack_from("<I", wav, at + 4)[0]
        end = at + 8 + size + size % 2
        if wav[at : at + 4] != CHUNK:
            kept.append(memoryview(wav)[at:end])
        at = end
    return b"".join([b"RIFF", struct.pack("<I", 4 + sum(map(len, kept))), b"WAVE", *kept])


def _sign(by: c2pa.Signer, source: Any, target: Any, format: str, what: str, job_id: uuid.UUID) -> None:
    now = timezone.now().replace(microsecond=0).isoformat().replace("+00:00", "Z")
    source_type = f"http://cv.iptc.org/newscodes/digitalsourcetype/{SOURCE_TYPES[what]}"
    agent = {"name": GENERATOR, "version": __version__}
    action = {"action": "c2pa.created", "when": now, "digitalSourceType": source_type, "softwareAgent": agent}
    manifest = {
        "claim_generator_info": [agent],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [action]}},
            {"label": JOB_LABEL, "data": {"id": str(job_id), "kind": kind_of(what), "made_at": now}},
        ],
    }
    c2pa.Builder(manifest, _signing_context(os.getpid())).sign(by, MIME_TYPES[format], source, target)


@functools.lru_cache(maxsize=1)  # A process that was forked cannot use its parent's.
def _signing_context(process: int) -> c2pa.Context:
    return c2pa.Context(c2pa.Settings.from_dict(_UNCHECKED))


def kind_of(what: str) -> str:
    return Mark.Kind.SYNTHESIS if what == "speech" else Mark.Kind.COVER


@dataclass(frozen=True)
class Manifest:
    """state: ours, foreign (somebody else's, and intact) or broken (altered since it was signed, or not readable)."""

    state: str
    made_at: datetime | None = None
    kind: str | None = None


def read_manifest(path: Path) -> Manifest | None:
    """What a file's manifest is worth; None where it has none."""
    try:
        with path.open("rb") as file:
            mime = READ_TYPES.get(sniff(file).kind)
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
