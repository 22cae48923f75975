"""Damaged audio files for fuzzing, each made of a number: the same number gives the same file."""

from __future__ import annotations

import io
import random
import struct
from functools import cache
from typing import Any

import av

from tests.support.recordings.audio_files import FORMATS, Samples, encoded, voice

# Made by PyAV: the name of the container and of the codec.
OTHERS = {
    "aiff": ("aiff", "pcm_s16be"), "au": ("au", "pcm_mulaw"), "caf": ("caf", "alac"), "w64": ("w64", "pcm_s16le"),
    "adpcm": ("wav", "adpcm_ms"), "wav of mp3": ("wav", "libmp3lame"), "ac3": ("ac3", "ac3"), "eac3": ("eac3", "eac3"),
    "wma": ("asf", "wmav2"), "wavpack": ("wv", "wavpack"), "tta": ("tta", "tta"), "amr": ("amr", "libopencore_amrnb"),
    "3gp": ("3gp", "libopencore_amrnb"), "mov": ("mov", "pcm_s16le"), "mkv": ("matroska", "ac3"),
    "ogg of flac": ("ogg", "flac"), "fragmented": ("mp4", "aac"),
}  # fmt: skip
LENGTHS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


@cache
def whole(format: str) -> bytes:
    rate = 48_000 if format in ("opus", "webm", "webm-vorbis") else 16_000
    if format in OTHERS:
        container, codec = OTHERS[format]
        rate = 8_000 if "amr" in codec else 48_000 if "ac3" in codec else 44_100 if codec == "wmav2" else 16_000
        return contained(voice(3.2, rate), rate, container, codec, fragmented=format == "fragmented")
    return encoded(voice(3.2, rate), rate, format)


def contained(samples: Samples, rate: int, container: str, codec: str, *, fragmented: bool = False) -> bytes:
    """Mono (n,) by PyAV."""
    buffer = io.BytesIO()
    options = {"movflags": "frag_keyframe+empty_moov", "frag_duration": "500000"} if fragmented else {}
    with av.open(buffer, "w", format=container, options=options) as out:
        stream: Any = out.add_stream(codec, rate=rate, layout="mono")
        if (bit_rate := {"libopencore_amrnb": 12_200, "wmav2": 32_000}.get(codec)) is not None:
            stream.bit_rate = bit_rate
        wanted = stream.codec_context.codec.audio_formats[0].name
        size = 0 if codec.startswith("pcm") else 1024
        frame = av.AudioFrame.from_ndarray(samples[None, :], format="flt", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(format=wanted, layout="mono", rate=rate, frame_size=size or None)
        for converted in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(stream.encode(converted))
        out.mux(stream.encode(None))
    return buffer.getvalue()


@cache
def signed(format: str) -> bytes:
    """With a manifest of a certificate authority of its own."""
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
    format = draw.choice((*FORMATS, *OTHERS))
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
