"""Whether and when a file was made here: by its manifest, its hash, or its sound."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from django.db.models import Q
from numpy.typing import NDArray

from voiceproject.errors import PublicError
from voiceproject.media import memory
from voiceproject.media.uploads import Bounds, opened
from voiceproject.provenance import fingerprint
from voiceproject.provenance.manifest import read_manifest
from voiceproject.provenance.marks import at_low_rate, in_chunks, make_landmarks
from voiceproject.provenance.models import Landmark, Mark

log = logging.getLogger(__name__)

# What it takes to be a part of each kind: how many landmarks in common, and what share of those that were asked for. A
# song, and other covers of it, have by chance some of those that are left of a cover's after all of the song's own were
# taken away; a part of the cover itself has most of them.
NEEDED: dict[str, tuple[int, float]] = {
    Mark.Kind.SYNTHESIS: (fingerprint.MIN_MATCHES, 0.0),
    Mark.Kind.COVER: (6, 1 / 3),
}
VERIFY_SECONDS = 1200.0
BYTES_PER_SECOND = 2 * 4 * fingerprint.SAMPLE_RATE  # of a recording, twice while its blocks are joined
VERIFY_PENDING = 20  # marks whose landmarks a verification makes itself, where no worker came to it


@dataclass(frozen=True)
class Finding:
    """how: manifest, hash or fingerprint; manifest: none, ours, foreign or broken; made_at and kind where made here;
    warnings: where it was listened to, what may be missing of it."""

    made_here: bool
    manifest: str
    how: str | None = None
    made_at: datetime | None = None
    kind: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def manifest_valid(self) -> bool | None:
        return None if self.manifest == "none" else self.manifest != "broken"


def verify(path: Path) -> Finding:
    """Whether and when a file was made here. Raises PublicError invalid_audio where nothing is known of it and it is no
    audio that could be listened to, and too_many_waiting."""
    # To look for a manifest, C2PA reads the whole file into memory.
    to_hear = memory.to_decode(path, VERIFY_SECONDS, BYTES_PER_SECOND) + fingerprint.QUERY_BYTES
    with memory.claim(max(path.stat().st_size, to_hear)):
        manifest = read_manifest(path)
        state = manifest.state if manifest else "none"
        if manifest and manifest.state == "ours":
            return Finding(True, state, "manifest", manifest.made_at, manifest.kind)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        mark = Mark.objects.filter(Q(sha256=digest) | Q(stream_sha256=digest)).order_by("id").first()
        warnings: list[str] = []
        how = "hash"
        if mark is None:
            how = "fingerprint"
            mark, warnings = _heard(path)
    if mark is None:
        return Finding(False, state, warnings=tuple(warnings))
    return Finding(True, state, how, mark.made_at, mark.kind, tuple(warnings))


def _heard(path: Path) -> tuple[Mark | None, list[str]]:
    """The recording that an upload is, or is a part of, and what is to be said of the upload."""
    bounds = Bounds("file", 0.0, VERIFY_SECONDS)
    with opened(path, bounds) as source:
        samples = at_low_rate(source.sample_rate, (block.mean(axis=1) for block in source.blocks))
    try:
        asked = fingerprint.query(samples, fingerprint.SAMPLE_RATE)
    except fingerprint.NoFingerprint as error:
        log.error("a recording cannot be told by its sound: %s", error)
        message = "Recordings cannot be told by their sound on this server now, and nothing else is known of this one."
        raise PublicError("not_configured", message) from error
    found = _search(asked)
    if found is None and make_landmarks(VERIFY_PENDING):
        found = _search(asked)
    return None if found is None else Mark.objects.filter(pk=found).first(), source.warnings


def _search(asked: NDArray[np.int64]) -> int | None:
    rows: list[tuple[int, int, int]] = []
    for some in in_chunks(sorted(set(asked[:, 0].tolist()))):
        rows += Landmark.objects.filter(hash__in=some).values_list("mark_id", "hash", "frame")
    scores = {pk: score for pk, score in fingerprint.matches(asked, rows).items() if fingerprint.is_match(score)}
    kinds = dict(Mark.objects.filter(pk__in=list(scores)[:500]).values_list("pk", "kind"))
    fits = [pk for pk, kind in kinds.items() if fingerprint.is_match(scores[pk], *NEEDED[kind])]
    return max(fits, key=lambda pk: (scores[pk], -pk), default=None)
