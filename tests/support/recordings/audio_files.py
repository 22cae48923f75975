"""Audio files for the tests, made on the fly: every format that is taken, and all that has to be refused.

Signals are float32. `voice` is made up (pulses through three formants) and of a known pitch, `tone` a sine.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile as sf
from numpy.typing import NDArray
from scipy import signal

Samples = NDArray[np.float32]

# For programs that tests run: the peak of this process in MB. Not ru_maxrss, which a process inherits from its parent.
PEAK_MB = (
    "def peak_mb():\n"
    "    lines = open('/proc/self/status').read().splitlines()\n"
    "    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith('VmHWM'))\n"
)


# --- signals


def tone(seconds: float, rate: int = 44_100, hz: float = 220.0, amplitude: float = 0.5) -> Samples:
    """A sine (n,)."""
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def voice(seconds: float, rate: int = 24_000, hz: float = 120.0, seed: int = 0) -> Samples:
    """Pulses at `hz` through formants that change every 0.2 s, with pauses: nearly speech, peak 0.5 (n,)."""
    random = np.random.default_rng(seed)
    count = round(seconds * rate)
    source = np.diff(np.floor(np.cumsum(np.full(count + 1, hz / rate)))) + random.normal(0, 0.003, count)
    out = np.zeros(count)
    size = rate // 5
    for start in range(0, count, size):
        piece = source[start : start + size]
        loud = 0.0 if (start // size) % 6 == 5 else random.uniform(0.5, 1.0)
        for center in random.uniform([300, 900, 2200], [800, 2000, 3000]):
            band = signal.butter(2, [center * 0.9, center * 1.1], "bandpass", fs=rate, output="sos")
            out[start : start + size] += loud * signal.sosfilt(band, piece)
    return (0.5 * out / np.max(np.abs(out))).astype(np.float32)


def stereo(seconds: float, rate: int = 44_100, left_hz: float = 220.0, right_hz: float = 330.0) -> Samples:
    """Two sines (n, 2), the left 0.4 and the right 0.2 high."""
    return np.stack([tone(seconds, rate, left_hz, 0.4), tone(seconds, rate, right_hz, 0.2)], axis=1)


def pitch(samples: Samples, rate: int) -> float:
    """The frequency in Hz of the strongest partial of (n,) samples, to about 0.1 Hz for 3 s and more."""
    windowed = samples * np.hanning(len(samples))
    spectrum = np.abs(np.fft.rfft(windowed, 4 * len(samples)))
    return float(np.argmax(spectrum)) * rate / (4 * len(samples))


# --- good files

FORMATS = (
    "wav",
    "wav24",
    "wavfloat",
    "flac",
    "mp3",
    "vorbis",
    "opus",
    "m4a",
    "alac",
    "aac",
    "webm",
    "webm-vorbis",
)
# Nothing is lost in these, and their length is exact.
LOSSLESS = {"wav", "wav24", "wavfloat", "flac", "alac"}
EXTENSIONS = {
    "wav24": "wav",
    "wavfloat": "wav",
    "vorbis": "ogg",
    "opus": "ogg",
    "alac": "m4a",
    "webm-vorbis": "webm",
    "webm-video": "webm",
}
_SNDFILE = {
    "wav": ("WAV", "PCM_16"),
    "wav24": ("WAV", "PCM_24"),
    "wavfloat": ("WAV", "FLOAT"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "vorbis": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
}
_CONTAINERS = {
    "m4a": ("ipod", "aac"),
    "alac": ("ipod", "alac"),
    "aac": ("adts", "aac"),
    "webm": ("webm", "libopus"),
    "webm-vorbis": ("webm", "vorbis"),
    "webm-video": ("webm", "libopus"),
}


def encoded(samples: Samples, rate: int, format: str) -> bytes:
    """Samples (n,) or (n, channels) as a file of one of FORMATS, or "webm-video": webm with a picture."""
    buffer = io.BytesIO()
    if format in _SNDFILE:
        container, subtype = _SNDFILE[format]
        channels = 1 if samples.ndim == 1 else samples.shape[1]
        with sf.SoundFile(buffer, "w", rate, channels, subtype, format=container) as file:
            for start in range(0, len(samples), 65_536):
                file.write(samples[start : start + 65_536])
    else:
        _encode_container(buffer, samples, rate, *_CONTAINERS[format], video=format == "webm-video")
    return buffer.getvalue()


def _encode_container(
    buffer: io.BytesIO, samples: Samples, rate: int, container: str, codec: str, video: bool = False
) -> None:
    layout = "mono" if samples.ndim == 1 else {1: "mono", 2: "stereo", 6: "5.1"}[samples.shape[1]]
    if codec == "vorbis" and layout == "mono":
        # FFmpeg's own Vorbis encoder knows stereo only.
        layout, samples = "stereo", np.stack([samples, samples], axis=1)
    with av.open(buffer, "w", format=container) as out:
        picture: Any = out.add_stream("libvpx", rate=10, width=32, height=32, pix_fmt="yuv420p") if video else None
        stream: Any = out.add_stream(codec, rate=rate, layout=layout)
        if codec == "vorbis":
            stream.codec_context.options = {"strict": "experimental"}
        if picture is not None:
            for index in range(round(len(samples) / rate * 10)):
                image = np.full((32, 32, 3), index % 256, np.uint8)
                for packet in picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                    out.mux(packet)
            for packet in picture.encode(None):
                out.mux(packet)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples, dtype=np.float32).reshape(1, -1), format="flt", layout=layout
        )
        frame.sample_rate, frame.pts = rate, 0
        wanted = stream.codec_context.codec.audio_formats[0].name
        resampler = av.AudioResampler(format=wanted, layout=layout, rate=rate)
        for converted in [*resampler.resample(frame), *resampler.resample(None)]:
            for packet in stream.encode(converted):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)


def write(path: Path, samples: Samples, rate: int, format: str = "wav") -> Path:
    path.write_bytes(encoded(samples, rate, format))
    return path


# --- bad files


@cache
def hour_of_silence(channels: int = 1, rate: int = 44_100, seconds: int = 3600) -> bytes:
    """A FLAC file of half a megabyte that decodes to an hour of zeros."""
    buffer = io.BytesIO()
    with sf.SoundFile(buffer, "w", rate, channels, "PCM_16", format="FLAC") as file:
        zeros = np.zeros((rate * 10, channels), np.int16)
        for _ in range(seconds // 10):
            file.write(zeros)
    return buffer.getvalue()


def with_flac_length(flac: bytes, frames: int) -> bytes:
    """The same FLAC stream under a header that claims `frames` frames (0: unknown) and no checksum."""
    data = bytearray(flac)
    fields = int.from_bytes(data[18:26], "big")
    data[18:26] = (fields >> 36 << 36 | frames).to_bytes(8, "big")
    data[26:42] = bytes(16)
    return bytes(data)


def with_ogg_length(ogg: bytes, frames: int) -> bytes:
    """The same Ogg stream, its last page claiming that it ends at `frames`."""
    data = bytearray(ogg)
    last = data.rindex(b"OggS")
    data[last + 6 : last + 14] = frames.to_bytes(8, "little")
    data[last + 22 : last + 26] = bytes(4)
    data[last + 22 : last + 26] = _ogg_checksum(bytes(data[last:])).to_bytes(4, "little")
    return bytes(data)


def _ogg_checksum(page: bytes) -> int:
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 0x8000_0000 else 0)) & 0xFFFF_FFFF
    return value


def with_external_data(m4a: bytes, url: str) -> bytes:
    """The same MP4, its data reference pointing at `url` instead of at itself."""
    entry = m4a.index(b"url \x00\x00\x00\x01") - 4
    reference = url.encode() + b"\0"
    new = struct.pack(">I", 12 + len(reference)) + b"url \x00\x00\x00\x00" + reference
    return _replaced(m4a, entry, 12, new, (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"))


def with_alias(m4a: bytes, path: str) -> bytes:
    """The same MP4, its data reference an alias record (Mac OS) of another file's absolute path."""
    name = path.rsplit("/", 1)[-1].encode()
    place = path.encode()
    record = bytes(10) + b"\x01" + b"v".ljust(27, b"\0") + bytes(12)
    record += bytes([len(name)]) + name.ljust(63, b"\0") + bytes(16) + struct.pack(">hh", 1, 1) + bytes(16)
    record += struct.pack(">HH", 2, len(place)) + place + bytes(len(place) % 2) + struct.pack(">HH", 0xFFFF, 0)
    entry = m4a.index(b"url \x00\x00\x00\x01") - 4
    new = struct.pack(">I", 12 + len(record)) + b"alis\x00\x00\x00\x00" + record
    return _replaced(m4a, entry, 12, new, (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"))


def _replaced(data: bytes, at: int, length: int, new: bytes, parents: tuple[bytes, ...]) -> bytes:
    out = bytearray(data)
    out[at : at + length] = new
    for name in parents:
        start = data.rindex(name, 0, at) - 4
        size = int.from_bytes(data[start : start + 4], "big") + len(new) - length
        out[start : start + 4] = size.to_bytes(4, "big")
    return bytes(out)


def _zip_archive() -> bytes:
    body = b"not audio" * 50
    name = b"song.wav"
    fields = (20, 0, 0, 0, 0, zlib.crc32(body), len(body), len(body), len(name), 0)
    return b"PK\x03\x04" + struct.pack("<HHHHHIIIHH", *fields) + name + body


def _noise(size: int = 60_000) -> bytes:
    return np.random.default_rng(1).bytes(size)


def _wav(samples: Samples, rate: int = 16_000) -> bytes:
    return encoded(samples, rate, "wav")


def _flac(seconds: float) -> bytes:
    return encoded(voice(seconds, 16_000), 16_000, "flac")


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _with_bad_sample(value: float) -> bytes:
    samples = voice(5, 16_000)
    samples[40_000] = value
    return encoded(samples, 16_000, "wavfloat")


@dataclass(frozen=True)
class BadFile:
    """name: of the file; reason: in the refusal's details; make: its bytes. Refused as voice and as song."""

    name: str
    reason: str
    make: Callable[[], bytes]


_PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"

BAD_FILES = [
    BadFile("empty.wav", "empty", lambda: b""),
    BadFile("text.wav", "not_audio", lambda: b"This is not audio, whatever its name says.\n" * 100),
    BadFile("page.mp3", "not_audio", lambda: b"<!DOCTYPE html><html><body>404</body></html>"),
    BadFile("picture.flac", "not_audio", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><image/></svg>"),
    BadFile("archive.ogg", "not_audio", _zip_archive),
    BadFile("noise.wav", "not_audio", lambda: b"\x00" + _noise()),
    BadFile("playlist.m4a", "not_audio", lambda: _PLAYLIST),
    BadFile("concat.webm", "not_audio", lambda: b"ffconcat version 1.0\nfile /etc/passwd\n"),
    BadFile("song.mid", "unsupported_format", lambda: b"MThd\x00\x00\x00\x06" + _noise()),
    BadFile("film.avi", "unsupported_format", lambda: b"RIFF\xff\xff\0\0AVI LIST" + _noise()),
    BadFile("stream.ts", "unsupported_format", lambda: 9 * (b"G" + bytes(187))),
    BadFile("layer.mp2", "unsupported_format", lambda: 9 * (b"\xff\xfd\x84\x04" + bytes(413))),
    BadFile("noise-in-aiff.aiff", "truncated", lambda: b"FORM\x00\x00\x10\x00AIFF" + _noise()),
    BadFile("many-tags.mp3", "corrupt", lambda: b"ID3\x04\x00\x00\x00\x00\x00\x00" * 1_000_000),
    BadFile("header-only.wav", "empty", lambda: _wav(voice(5, 16_000))[:44]),
    BadFile("half-header.wav", "truncated", lambda: _wav(voice(5, 16_000))[:30]),
    BadFile("header-only.flac", "truncated", lambda: encoded(voice(5, 16_000), 16_000, "flac")[:42]),
    BadFile("tag-only.mp3", "empty", lambda: b"ID3\x04\x00\x00\x00\x00\x00\x10" + bytes(16)),
    BadFile("truncated.flac", "truncated", lambda: _half(encoded(voice(10, 16_000), 16_000, "flac"))),
    BadFile("truncated.ogg", "truncated", lambda: _half(encoded(voice(10, 16_000), 16_000, "vorbis"))),
    BadFile("truncated-opus.ogg", "truncated", lambda: _half(encoded(voice(10, 48_000), 48_000, "opus"))),
    BadFile("truncated.m4a", "truncated", lambda: _half(encoded(voice(10, 16_000), 16_000, "m4a"))),
    BadFile("truncated.webm", "truncated", lambda: _half(encoded(voice(10, 48_000), 48_000, "webm"))),
    BadFile("nan.wav", "not_finite", lambda: _with_bad_sample(np.nan)),
    BadFile("infinity.wav", "not_finite", lambda: _with_bad_sample(-np.inf)),
    BadFile("nearly-infinite.wav", "not_finite", lambda: _with_bad_sample(-3e38)),
    BadFile("silence.wav", "silent", lambda: _wav(np.zeros(80_000, np.float32))),
    BadFile("nearly-silent.wav", "silent", lambda: _wav(tone(5, 16_000, amplitude=5e-4))),
    BadFile("offset-only.wav", "silent", lambda: _wav(np.full(80_000, 0.3, np.float32))),
    BadFile("short.wav", "too_short", lambda: _wav(voice(0.2, 16_000))),
    BadFile("hour-of-silence.flac", "too_long", hour_of_silence),
    BadFile("unknown-length.flac", "too_long", lambda: with_flac_length(hour_of_silence(), 0)),
    BadFile("damaged-unknown-length.flac", "truncated", lambda: _half(with_flac_length(_flac(5), 0)) + bytes(9_000)),
    BadFile("long-claim.ogg", "too_long", lambda: with_ogg_length(encoded(tone(5), 44_100, "vorbis"), 10**9)),
    BadFile("ten-channels.wav", "too_many_channels", lambda: _wav(np.repeat(voice(5, 16_000)[:, None], 10, axis=1))),
    BadFile("eight-channel-hour.flac", "too_long", lambda: hour_of_silence(8, 8_000)),
    BadFile("384-khz.wav", "sample_rate", lambda: _wav(tone(4, 384_000), 384_000)),
    BadFile("2-khz.wav", "sample_rate", lambda: _wav(tone(5, 2_000), 2_000)),
    BadFile("noise-in-flac.flac", "corrupt", lambda: b"fLaC" + _noise()),
    BadFile("noise-in-wav.wav", "truncated", lambda: b"RIFF\xff\xff\xff\xffWAVE" + _noise()),
    BadFile("noise-in-ogg.ogg", "unsupported_format", lambda: b"OggS" + bytes(22) + b"\x01\x10" + _noise()),
    BadFile("noise-in-mp4.m4a", "corrupt", lambda: b"\x00\x00\x00\x18ftypM4A " + bytes(12) + b"\x7f" + _noise()),
    BadFile("noise-in-webm.webm", "corrupt", lambda: b"\x1a\x45\xdf\xa3\x80" + b"\x11" + _noise()),
    BadFile("noise-in-mp3.mp3", "not_audio", lambda: b"\xff\xfb\x90\x64" + bytes(500) + _noise()),
    BadFile("noise-in-aac.aac", "not_audio", lambda: b"\xff\xf1\x50\x80\x10\x1f\xfc" + _noise()),
    BadFile(
        "elsewhere.m4a",
        "empty",
        lambda: with_alias(encoded(voice(5, 16_000), 16_000, "m4a"), "/etc/passwd"),
    ),
]


def write_bad(path: Path, bad: BadFile) -> Path:
    path.write_bytes(bad.make())
    return path
