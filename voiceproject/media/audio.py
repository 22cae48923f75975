"""Decode and check uploads, encode answers. All audio that a client sends passes through here, and is data,
never trusted.

What a file is, its first bytes say; its name and content type are not looked at. All is decoded by FFmpeg in a process
of its own (decoder.py), but for plain WAV, by libsndfile in this one. Either way the header is held against the limits
before anything is decoded, and then so is every block that really comes out, in blocks of bounded size.

A file is decoded until its bytes end: its length is what was decoded. Where a header promises more, `warnings` say so.
Where bytes are left that cannot be decoded, the file is refused as truncated, with what was found.

Sample rates from 4 kHz to 192 kHz are taken, and up to eight channels, which are mixed down by their layout. Samples
are float32, nominally within [-1, 1]. Refusals are PublicError: `invalid_audio` with details {"field", "reason",
"found"}, `reference_too_short` and `reference_too_long`. Reasons: not_audio, unsupported_format, empty, truncated,
corrupt, too_many_channels, sample_rate, not_finite, silent, too_short, too_long, too_slow. A server without PyAV
answers `not_configured` to all but plain WAV.
"""

from __future__ import annotations

import hashlib
import io
import os
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from voiceproject.media.mixing import MixInfo, loudness, mix, mix_as_they_are
from voiceproject.media.uploads import BLOCK_FRAMES, Bounds, Source, opened
from voiceproject.media.voice import read_voice

__all__ = [
    "CONTENT_TYPES",
    "EXTENSIONS",
    "STREAMED_FORMATS",
    "AudioInfo",
    "MixInfo",
    "StreamEncoder",
    "decode_song",
    "encode",
    "encode_file",
    "load_reference",
    "loudness",
    "mix",
    "mix_as_they_are",
    "sha256_file",
    "wav_info",
]

Samples = NDArray[np.float32]

# -60 dBFS. What a converter adds; less of it is music.
OFFSET = 1e-3

CONTENT_TYPES = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "opus": "audio/ogg; codecs=opus",
    "pcm": "audio/pcm",
}
# Of the files that covers are downloaded as.
EXTENSIONS = {"wav": "wav", "mp3": "mp3", "flac": "flac", "opus": "ogg", "pcm": "pcm"}
# FLAC is not among them: without its length in front, libsndfile and what stands on it refuse to read it.
STREAMED_FORMATS = ("wav", "pcm", "mp3", "opus")


@dataclass(frozen=True)
class AudioInfo:
    """What an audio file holds. format: as content_type.sniff names it; warnings: for people, what was left out or may
    be missing, each a sentence that begins with the field's name."""

    duration_seconds: float
    sample_rate: int
    channels: int
    format: str
    frames: int
    warnings: tuple[str, ...] = ()


def load_reference(
    path: str | os.PathLike[str],
    *,
    field: str,
    min_seconds: float = 3.0,
    max_seconds: float = 60.0,
    sample_rate: int | None = None,
    warnings: list[str] | None = None,
) -> tuple[Samples, int]:
    """Decode and check a recording of one voice.

    Returns (samples float32 mono (n,), rate in Hz): without its constant offset, peak at most 1, at its own
    rate up to 48 kHz, or at `sample_rate` where one is given. The lower bound of the duration is inclusive, the upper
    one has half a second of grace. Clipped recordings pass. Stereo is averaged; where the sides cancel out (one of them
    inverted) the left one is taken. What AudioInfo.warnings would say is added to `warnings`. Raises PublicError as the
    module says.
    """
    bounds = Bounds(field, min_seconds, max_seconds, reference=True)
    read = read_voice(path, bounds, sample_rate)
    if warnings is not None:
        warnings += read.warnings
    return read.samples, read.sample_rate


def decode_song(
    path: str | os.PathLike[str],
    wav_path: str | os.PathLike[str] | None,
    *,
    field: str,
    max_seconds: float,
    min_seconds: float = 1.0,
    sample_rate: int = 44_100,
) -> AudioInfo:
    """Decode and check a song, and write it as stereo float32 WAV at `sample_rate`; mono is put on both
    sides.

    float32, because resampling and lossy decoders overshoot full scale, and 16 bits would clip that away. A constant
    offset is removed, and where the peak is above 1 in the end, the whole file is scaled to 1. Without a `wav_path` the
    song is only checked, with nothing resampled or written. Memory does not grow with the song. A refused song leaves
    no file. Returns the upload's own rate and channels, and as `frames` the length of the WAV (of the upload,
    without one). Raises PublicError as the module says, `invalid_audio` with too_short or too_long for the
    duration.
    """
    bounds = Bounds(field, min_seconds, max_seconds)
    with opened(path, bounds, sample_rate if wav_path is not None else None) as source:
        if wav_path is None:
            for _ in source.blocks:
                pass
            bounds.check_loudness(source.loudest)
            return _info(source, source.frames / source.upload_rate, source.frames)
        try:
            written, lowest, highest, offset = _write_song(source, wav_path)
            bounds.check_loudness(source.loudest)
            offset = np.where(np.abs(offset) > OFFSET, offset, 0)
            peak = float(max((highest - offset).max(), (offset - lowest).max()))
            if peak > 1 or offset.any():
                _adjust_wav(wav_path, offset.astype(np.float32), np.float32(1 / max(peak, 1)))
        except BaseException:
            Path(wav_path).unlink(missing_ok=True)
            raise
    return _info(source, written / sample_rate, written)


def _info(source: Source, seconds: float, frames: int) -> AudioInfo:
    upload = source.upload_rate, source.upload_channels, source.format
    return AudioInfo(seconds, *upload, frames, tuple(source.warnings))


def encode(samples: Samples, rate: int, format: str) -> bytes:
    """Encode float32 samples (n,) or (n, 2), clipped to [-1, 1].

    wav, flac: 16 bits at `rate`. mp3: LAME's variable rate of libsndfile; a rate that MP3 lacks is raised to
    the next one it has. opus: Ogg at 48 kHz. pcm: bare signed 16-bit little-endian samples at `rate`,
    interleaved. Encoder delay and padding are written down (LAME tag, Ogg granule positions), so that
    decoders that heed them give back exactly the duration that went in; those that do not add up to 50 ms to
    an mp3.
    """
    if format == "pcm":
        return _steps(samples).astype("<i2").tobytes()
    samples = np.asarray(samples, dtype=np.float32)
    target = _encodable_rate(rate, format)
    if target != rate:
        samples = soxr.resample(samples, rate, target, quality="HQ").astype(np.float32)
    buffer = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    if format == "wav":  # The same bytes as libsndfile's, in a third of the time.
        with wave.open(buffer, "wb") as wav:
            wav.setparams((channels, 2, target, len(samples), "NONE", ""))
            wav.writeframesraw(_steps(samples).astype("<i2", copy=False).data.cast("B") if samples.size else b"")
        return buffer.getvalue()
    with _writer(buffer, target, channels, format) as out:
        # In pieces: libsndfile's Ogg encoders put a whole call's samples on the stack.
        for start in range(0, len(samples), BLOCK_FRAMES):
            block = samples[start : start + BLOCK_FRAMES]
            # Rounded here, which takes a sixth of the time that libsndfile takes; its lossy formats want floats.
            out.write(_steps(block) if _WRITTEN[format][1] == "PCM_16" else np.clip(block, -1, 1))
    return buffer.getvalue()


def _steps(samples: Samples) -> NDArray[np.int16]:
    """float32 as 16-bit samples, clipped to [-1, 1]."""
    steps = np.clip(samples, -1, 1)
    steps *= steps.dtype.type(32_767)  # In place: memory of this size is asked of the system anew each time.
    return np.rint(steps, out=steps).astype(np.int16)


class StreamEncoder:
    """One continuous stream of audio, encoded while it is made; at its end it is a file as well.

    `write` and `close` return the bytes that can be sent by then. What differs from a file is only what a file
    says of its length in front: a WAV stream states the greatest length there is, which players take for
    unknown; an MP3 stream has a constant bit rate, from which its length can be estimated, and no LAME tag, so
    that about 0.1 s of encoder delay and padding is heard as silence. `content()` is the file, with its length.
    Audio that was written and not yet returned is at most 0.1 s long.

    rate: of the samples, in Hz; format: one of STREAMED_FORMATS, with the rates of `encode`; mono.
    """

    def __init__(self, rate: int, format: str) -> None:
        if format not in STREAMED_FORMATS:
            raise ValueError(f"{format} cannot be streamed")
        self._format = format
        self._buffer = io.BytesIO()
        self._sent = 0
        self._resampler = self._file = None
        if format == "pcm":
            return
        target = _encodable_rate(rate, format)
        if target != rate:
            self._resampler = soxr.ResampleStream(rate, target, 1, dtype="float32", quality="HQ")
        options: dict[str, Any] = {}
        if format == "mp3":
            # 64 kbit/s up to 24 kHz, 96 kbit/s above: MPEG 1 and 2 have other bit rates.
            options = {"bitrate_mode": "CONSTANT", "compression_level": 0.6 if target <= 24_000 else 0.8}
        self._file = _writer(self._buffer, target, 1, format, **options)
        if format == "opus":
            # libsndfile would keep a second of audio back until its page is full. soundfile has no name for this.
            latency = sf._ffi.new("double *", OGG_PAGE_MILLISECONDS)
            sf._snd.sf_command(self._file._file, _SET_OGG_PAGE_LATENCY_MS, latency, sf._ffi.sizeof("double"))

    def write(self, samples: Samples) -> bytes:
        """Takes float32 (n,), clipped to [-1, 1]."""
        if self._format == "pcm":
            self._buffer.write(encode(samples, 0, "pcm"))
        else:
            self._encode(np.asarray(samples, dtype=np.float32), last=False)
        return self._fresh()

    def close(self) -> bytes:
        if self._file is not None:
            if self._resampler is not None:
                self._encode(np.zeros(0, np.float32), last=True)
            self._file.close()
        return self._fresh()

    def abandon(self) -> None:
        """Ends the encoder of a stream that is not finished; nothing where it is."""
        if self._file is not None:
            self._file.close()

    def content(self) -> bytes:
        """After `close`: the whole as a file."""
        return self._buffer.getvalue()

    def _encode(self, samples: Samples, *, last: bool) -> None:
        assert self._file is not None
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=last)
        for start in range(0, len(samples), BLOCK_FRAMES):
            self._file.write(np.clip(samples[start : start + BLOCK_FRAMES], -1, 1))

    def _fresh(self) -> bytes:
        """What has been added to the buffer; what was rewritten in front of it has been sent as it was."""
        data = bytes(self._buffer.getbuffer()[self._sent :])
        if self._sent == 0 and self._format == "wav" and data:
            data = data[:4] + _UNKNOWN_LENGTH + data[8:40] + _UNKNOWN_LENGTH + data[44:]
        self._sent += len(data)
        return data


def encode_file(wav_path: str | os.PathLike[str], out_path: str | os.PathLike[str], format: str) -> AudioInfo:
    """Encode a WAV file of our own as `encode` does, a block at a time; format: wav, flac, mp3 or opus."""
    with sf.SoundFile(wav_path) as source:
        target = _encodable_rate(source.samplerate, format)
        resampler = None
        if target != source.samplerate:
            resampler = soxr.ResampleStream(source.samplerate, target, source.channels, dtype="float32", quality="HQ")
        with _writer(out_path, target, source.channels, format) as out:
            for block in _with_end(source.blocks(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                if resampler:
                    block = resampler.resample_chunk(block, last=len(block) == 0)
                out.write(np.clip(block, -1, 1))
            frames = out.frames
    return AudioInfo(frames / target, target, source.channels, format, frames)


def wav_info(path: str | os.PathLike[str]) -> AudioInfo:
    """What the header of an audio file of our own says, nothing checked."""
    with sf.SoundFile(path) as file:
        return AudioInfo(
            file.frames / file.samplerate, file.samplerate, file.channels, file.format.lower(), file.frames
        )


def sha256_file(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _peak(samples: Samples) -> float:
    return max(float(samples.max(initial=0.0)), -float(samples.min(initial=0.0)))


def _write_song(
    source: Source, wav_path: str | os.PathLike[str]
) -> tuple[int, NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """Write a source as stereo float32 WAV. Returns (frames; lowest, highest and mean of each side (2,))."""
    written = 0
    lowest, highest, total = np.zeros(2, np.float32), np.zeros(2, np.float32), np.zeros(2)
    with sf.SoundFile(wav_path, "w", source.sample_rate, 2, "FLOAT", format="WAV") as out:
        for block in source.blocks:
            stereo = block if block.shape[1] == 2 else np.repeat(block, 2, axis=1)
            for side in (0, 1):  # Over both at once numpy takes ten times as long.
                lowest[side] = min(lowest[side], stereo[:, side].min())
                highest[side] = max(highest[side], stereo[:, side].max())
                total[side] += stereo[:, side].sum(dtype=np.float64)
            out.write(stereo)
            written += len(stereo)
    return written, lowest, highest, total / max(written, 1)


def _with_end(blocks: Iterator[Samples]) -> Iterator[Samples]:
    """The blocks, and an empty one behind them."""
    empty = np.zeros((0, 2), np.float32)
    for block in blocks:
        empty = block[:0]
        yield block
    yield empty


def _adjust_wav(path: str | os.PathLike[str], offset: NDArray[np.float32], factor: np.float32) -> None:
    """Subtract an offset (2,) from each side, then scale."""
    with sf.SoundFile(path, "r+") as file:
        for start in range(0, file.frames, BLOCK_FRAMES):
            file.seek(start, whence=sf.SEEK_SET)
            block = file.read(BLOCK_FRAMES, dtype="float32")
            file.seek(start)
            file.write((block - offset) * factor)


_MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
OGG_PAGE_MILLISECONDS = 60.0
_SET_OGG_PAGE_LATENCY_MS = 0x1302  # libsndfile's SFC_SET_OGG_PAGE_LATENCY_MS
_UNKNOWN_LENGTH = b"\xff\xff\xff\xff"
_WRITTEN = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "opus": ("OGG", "OPUS"),
}


def _encodable_rate(rate: int, format: str) -> int:
    if format == "opus":
        return 48_000
    if format == "mp3":
        return next((allowed for allowed in _MP3_RATES if allowed >= rate), _MP3_RATES[-1])
    return rate


def _writer(target: Any, rate: int, channels: int, format: str, **options: Any) -> sf.SoundFile:
    container, subtype = _WRITTEN[format]
    return sf.SoundFile(target, "w", rate, channels, subtype, format=container, **options)
