"""Damaged audio files for fuzzing, each made of a number: the same number gives the same file."""

from __future__ import annotations

import random
import struct
from functools import cache

from tests.support.recordings.audio_files import FORMATS, encoded, voice

# FFmpeg's child costs a tenth of a second where libsndfile costs a millisecond: fewer of those.
IN_A_CHILD = ("m4a", "alac", "aac", "webm", "webm-vorbis")
LENGTHS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


@cache
def whole(format: str) -> bytes:
    rate = 48_000 if format in ("opus", "webm", "webm-vorbis") else 16_000
    return encoded(voice(3.2, rate), rate, format)


@cache
def signed(format: str) -> bytes:
    """With a manifest of a certificate authority of its own."""
    import io

    import c2pa

    from voiceproject.provenance import signer

    pem = signer._local()
    begin = pem.index(b"-----BEGIN CERTIFICATE")
    claim = {
        "claim_generator_info": [{"name": "fuzz", "version": "1"}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [
            {"action": "c2pa.created",
             "digitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"}]}}],
    }  # fmt: skip
    out = io.BytesIO()
    mime = {"wav": "audio/wav", "flac": "audio/flac", "mp3": "audio/mpeg"}[format]
    with signer.as_signer(signer.Identity(pem[begin:], pem[:begin], "es256")) as by:
        c2pa.Builder(claim).sign(by, mime, io.BytesIO(whole(format)), out)
    return out.getvalue()


def mutated(number: int) -> tuple[str, bytes]:
    """(format, content): a good file of some format with one to four kinds of damage."""
    draw = random.Random(number)
    quick = [format for format in FORMATS if format not in IN_A_CHILD]
    format = draw.choice(IN_A_CHILD if draw.random() < 0.1 else quick)
    manifest = format in ("wav", "flac", "mp3") and draw.random() < 0.4
    data = bytearray(signed(format) if manifest else whole(format))
    for _ in range(draw.randint(1, 4)):
        _damage(data, draw, format)
    return f"{format}, signed" if manifest else format, bytes(data)


def _damage(data: bytearray, draw: random.Random, format: str) -> None:
    if len(data) < 16:
        data += draw.randbytes(64)
    # Half of it where headers are.
    end = min(len(data), 4096) if draw.random() < 0.5 else len(data)
    at = draw.randrange(end)
    size = draw.choice((1, 2, 4, 16, 256, 4096))
    match draw.randrange(9):
        case 0:
            for _ in range(draw.randint(1, 64)):
                data[draw.randrange(end)] ^= 1 << draw.randrange(8)
        case 1:
            data[at : at + size] = draw.randbytes(size)
        case 2:
            del data[at : at + size]
        case 3:
            data[at:at] = draw.randbytes(size)
        case 4:
            del data[at + 1 :]
        case 5:
            data[at : at + size] = bytes(size)
        case 6:
            order = draw.choice("<>")
            data[at : at + 4] = struct.pack(f"{order}I", draw.choice(LENGTHS))
        case 7:
            start = draw.randrange(len(data))
            data[at:at] = data[start : start + size]
        case 8:
            other = whole(draw.choice(FORMATS))
            start = draw.randrange(len(other))
            data[at : at + size] = other[start : start + size]
