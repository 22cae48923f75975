"""Audio in the formats, rates and bit rates that other services' clients ask for: whole files, and as it is made.

audio.py has the formats of our own API. What is encoded here is mono.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from voiceproject.errors import PublicError
from voiceproject.media.audio import _SET_OGG_PAGE_LATENCY_MS, OGG_PAGE_MILLISECONDS, _encodable_rate
from voiceproject.media.uploads import BLOCK_FRAMES

Samples = NDArray[np.float32]

CONTENT_TYPES = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "pcm": "audio/pcm",
    "ulaw": "audio/basic",
    "alaw": "audio/x-alaw-basic",
}
_SUBTYPES = {
    "wav": ("WAV", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "flac": ("FLAC", "PCM_16"),
    "opus": ("OGG", "OPUS"),
    "ulaw": ("RAW", "ULAW"),
    "alaw": ("RAW", "ALAW"),
    "pcm": ("RAW", "PCM_16"),
}


CODED_LATENCY_SECONDS = 0.2  # frames that look ahead, pages of Ogg, and a resampler in front of them


@dataclass(frozen=True)
class Output:
    """format: a key of CONTENT_TYPES; sample_rate in Hz, None as it is made (or the next that the format knows);
    kbps: bit rate of mp3, opus and aac, None the encoder's own."""

    format: str
    sample_rate: int | None = None
    kbps: int | None = None

    @property
    def content_type(self) -> str:
        return CONTENT_TYPES[self.format]


class Encoder:
    """One stream of audio. `write` and `close` return what can be sent by then; FLAC comes whole at the end, since its
    length stands in front. `content` is the file after `close`.

    rate: of the samples, in Hz. Raises PublicError not_configured for aac on a server without PyAV.
    """

    def __init__(self, rate: int, output: Output) -> None:
        self._format = output.format
        self._buffer = io.BytesIO()
        self._sent = 0
        wanted = output.sample_rate or rate
        self.sample_rate = wanted if self._format in ("pcm", "ulaw", "alaw") else _encodable_rate(wanted, self._format)
        self._resampler = None
        if self.sample_rate != rate:
            self._resampler = soxr.ResampleStream(rate, self.sample_rate, 1, dtype="float32", quality="HQ")
        self._file: sf.SoundFile | None = None
        self._aac: _AacWriter | None = None
        if self._format == "aac":
            self._aac = _AacWriter(self._buffer, self.sample_rate, output.kbps or 96)
            return
        container, subtype = _SUBTYPES[self._format]
        self._file = sf.SoundFile(
            self._buffer, "w", self.sample_rate, 1, subtype, endian="FILE" if container != "RAW" else "LITTLE",
            format=container, **_options(self._format, self.sample_rate, output.kbps),
        )  # fmt: skip
        if self._format == "opus":
            latency = sf._ffi.new("double *", OGG_PAGE_MILLISECONDS)
            sf._snd.sf_command(self._file._file, _SET_OGG_PAGE_LATENCY_MS, latency, sf._ffi.sizeof("double"))

    @property
    def latency_seconds(self) -> float:
        """So much silence behind the last sound, and `write` has given out all of that sound."""
        if self._format in ("pcm", "ulaw", "alaw"):
            return 0.0 if self._resampler is None else 0.05
        return CODED_LATENCY_SECONDS

    def write(self, samples: Samples) -> bytes:
        """Takes float32 (n,), clipped to [-1, 1]."""
        self._encode(np.asarray(samples, np.float32), last=False)
        return self._fresh()

    def close(self) -> bytes:
        if self._resampler is not None:
            self._encode(np.zeros(0, np.float32), last=True)
        self.abandon()
        return self._fresh(last=True)

    def abandon(self) -> None:
        """Ends the encoder of a stream that is not finished; nothing where it is."""
        if self._file is not None:
            self._file.close()
        if self._aac is not None:
            self._aac.close()

    def content(self) -> bytes:
        return self._buffer.getvalue()

    def _encode(self, samples: Samples, *, last: bool) -> None:
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=last)
        for start in range(0, len(samples), BLOCK_FRAMES):
            block = np.clip(samples[start : start + BLOCK_FRAMES], -1, 1)
            if self._aac is not None:
                self._aac.write(block)
            elif self._file is not None:
                self._file.write(block)

    def _fresh(self, last: bool = False) -> bytes:
        if self._format == "flac" and not last:
            return b""
        data = bytes(self._buffer.getbuffer()[self._sent :])
        if self._sent == 0 and self._format == "wav" and data and not last:
            # The length is not known yet; players take the greatest one for that.
            data = data[:4] + b"\xff\xff\xff\xff" + data[8:40] + b"\xff\xff\xff\xff" + data[44:]
        self._sent += len(data)
        return data


def encode_file(file: Any, output: Output) -> bytes:
    """An audio file of our own in another format, the mean of its sides; read in blocks. Raises as Encoder.

    file: a path or a file object, as soundfile takes them.
    """
    with sf.SoundFile(file) as source:
        encoder = Encoder(source.samplerate, output)
        for block in source.blocks(BLOCK_FRAMES, dtype="float32", always_2d=True):
            encoder.write(block.mean(axis=1))
        encoder.close()
    return encoder.content()


def _options(format: str, rate: int, kbps: int | None) -> dict[str, Any]:
    """libsndfile knows bit rates as a level from 0, the most, to 1."""
    if format == "mp3":
        # MPEG 1 (from 32 kHz) has 32 to 320 kbit/s, MPEG 2 has 8 to 160.
        least, most = (32, 320) if rate >= 32_000 else (8, 160)
        level = (most - (kbps or 2 * most // 5)) / (most - least)
        return {"bitrate_mode": "CONSTANT", "compression_level": min(level, 0.999)}
    if format == "opus":
        return {"compression_level": (256 - (kbps or 64)) / (256 - 6)}
    return {}


class _AacWriter:
    """AAC in ADTS by FFmpeg, of which PyAV is the binding."""

    def __init__(self, buffer: io.BytesIO, rate: int, kbps: int) -> None:
        try:
            import av
        except ImportError:
            raise PublicError(
                "not_configured", "This server cannot encode AAC. Ask for mp3, opus, flac or wav."
            ) from None
        self._av = av
        self._container = av.open(buffer, "w", format="adts")
        self._stream = self._container.add_stream("aac", rate=rate)
        self._stream.layout = "mono"
        self._stream.bit_rate = 1000 * kbps
        self._rate = rate
        self._frames = 0
        self._open = True

    def write(self, samples: Samples) -> None:
        if not len(samples):
            return
        frame = self._av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None, :]), format="fltp", layout="mono")
        frame.sample_rate = self._rate
        frame.pts = self._frames
        self._frames += len(samples)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        if self._open:
            self._open = False
            self._container.mux(self._stream.encode(None))
            self._container.close()
