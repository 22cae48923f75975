"""Read one upload: its content decides how, bounds are checked before and while it is decoded, and refusals
say why."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NoReturn

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from voiceproject.errors import PublicError
from voiceproject.media import decoding
from voiceproject.media.content_type import Content, NotTaken, sniff
from voiceproject.media.decoder import FIELDS

log = logging.getLogger(__name__)

Samples = NDArray[np.float32]

MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 4_000, 192_000
# Nothing behind this module has more.
HIGHEST_RATE = 48_000
BLOCK_FRAMES = 65_536
# -60 dBFS. Where nothing is louder there is no speech to copy and no song to cover.
SILENCE = 1e-3
# Above it sums would be infinite.
MOST = 1e37
# Encoders fill their last frames up; who cuts a song to the limit shall not be refused for that.
GRACE_SECONDS = 0.5

TAKEN = "Send wav, mp3, flac, ogg, opus, m4a, aac or webm."

_MESSAGES = {
    "not_audio": f"is not an audio file. {TAKEN}",
    "unsupported_format": f"is in a format that is not taken here. {TAKEN}",
    "empty": "holds no audio. Send a recording.",
    "truncated": "breaks off before its end: part of the file is missing. Upload it again.",
    "corrupt": "is damaged and cannot be decoded. Export it again, as wav for instance.",
    "too_many_channels": "has more than eight channels. Send mono or stereo.",
    "sample_rate": f"has a sample rate outside {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz. Send 44100 Hz.",
    "not_finite": "holds samples that are not numbers (NaN or infinity). Export it again as 16-bit wav.",
    "silent": "is silent. Send a recording that can be heard.",
    "too_slow": "took too long to decode. Send it as wav, mp3 or flac.",
}
_BREAKS_OFF = (
    "breaks off: {found} of audio were found, and the rest of the file is missing or damaged. Upload it again."
)


@dataclass(frozen=True)
class Bounds:
    field: str
    min_seconds: float
    max_seconds: float
    reference: bool = False

    def refuse(self, reason: str, found: Any) -> NoReturn:
        details = {"field": self.field, "reason": reason, "found": found}
        message = _MESSAGES[reason]
        if reason == "truncated" and " s" in str(found):
            message = _BREAKS_OFF.format(found=str(found).partition(" s")[0] + " s")
        raise PublicError("invalid_audio", f"{self.field} {message}", details)

    def check_maximum(self, seconds: float, *, exact: bool = True) -> None:
        """Not exact: the audio is at least that long, and nobody went on to find its end."""
        if seconds > self.max_seconds + GRACE_SECONDS:
            length = f"is {seconds:.2f} s long" if exact else f"is longer than {self.max_seconds:g} s"
            self._refuse_length("too_long", seconds, length)

    def check_minimum(self, seconds: float) -> None:
        if seconds < self.min_seconds:
            self._refuse_length("too_short", seconds, f"is {seconds:.2f} s long")

    def check_loudness(self, loudest: float) -> None:
        if loudest < SILENCE:
            found = "digital silence" if loudest == 0 else f"{20 * math.log10(loudest):.0f} dBFS at its loudest"
            self.refuse("silent", found)

    def _refuse_length(self, reason: str, seconds: float, length: str) -> NoReturn:
        what = "speech" if self.reference else "music"
        message = f"{self.field} {length}; send {self.min_seconds:g} to {self.max_seconds:g} s of {what}."
        details = {
            "field": self.field,
            "reason": reason,
            "found": round(seconds, 3),
            "minimum": self.min_seconds,
            "maximum": self.max_seconds,
        }
        raise PublicError(f"reference_{reason}" if self.reference else "invalid_audio", message, details)


@dataclass
class Source:
    """sample_rate: of the blocks, float32 (n, channels) with one or two channels and at most BLOCK_FRAMES frames.

    upload_rate, upload_channels: of the file; frames: of the file, read so far; loudest: the highest RMS of any 50 ms;
    warnings: complete after the last block.
    """

    format: str
    sample_rate: int
    channels: int
    upload_rate: int
    upload_channels: int
    blocks: Iterator[Samples] = field(default_factory=lambda: iter(()))
    frames: int = 0
    loudest: float = 0.0
    listen: Callable[[Samples], object] | None = None  # called with each block at the file's own rate
    warnings: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.frames / self.upload_rate


@contextmanager
def opened(path: str | os.PathLike[str], bounds: Bounds, sample_rate: int | None = None) -> Iterator[Source]:
    """Open an upload by its content. Its blocks come at `sample_rate`, or at its own up to HIGHEST_RATE.

    All audio of clients comes in here. Bounds are held against the header, and against each block as it is read. Raises
    PublicError.
    """
    with open(path, "rb") as file:
        try:
            content = sniff(file)
        except NotTaken as refusal:
            bounds.refuse(refusal.reason, refusal.found)
        with _plain_wav(file, content, bounds) if content.exact else _decoded(file, content, bounds) as source:
            if not MIN_SAMPLE_RATE <= source.upload_rate <= MAX_SAMPLE_RATE:
                bounds.refuse("sample_rate", source.upload_rate)
            source.sample_rate = sample_rate or min(source.upload_rate, HIGHEST_RATE)
            source.blocks = _checked(source, source.blocks, bounds)
            if source.sample_rate != source.upload_rate:
                source.blocks = _resampled(source, source.blocks)
            yield source


def _checked(source: Source, blocks: Iterator[Samples], bounds: Bounds) -> Iterator[Samples]:
    for block in blocks:
        source.frames += len(block)
        bounds.check_maximum(source.seconds, exact=False)
        highest = float(np.abs(block).max(initial=0.0))
        if not highest < MOST:
            bounds.refuse(
                "not_finite", "NaN" if math.isnan(highest) else "infinity" if highest == math.inf else highest
            )
        source.loudest = max(source.loudest, _loudest(block, source.upload_rate))
        if source.listen is not None:
            source.listen(block)
        yield block
    if source.frames == 0:
        bounds.refuse("empty", 0)
    bounds.check_minimum(source.seconds)


def _loudest(samples: Samples, rate: int) -> float:
    """The highest RMS of any 50 ms of (n,) or (n, channels) samples, each piece without its own offset."""
    size = max(1, min(len(samples), rate // 20))
    pieces = samples[: len(samples) // size * size].reshape(-1, size, *samples.shape[1:])
    moving = pieces - pieces.mean(axis=1, keepdims=True)
    return math.sqrt(float(np.einsum("ij...,ij...->i...", moving, moving).max(initial=0.0)) / size)


def _resampled(source: Source, blocks: Iterator[Samples]) -> Iterator[Samples]:
    stream = soxr.ResampleStream(source.upload_rate, source.sample_rate, source.channels, dtype="float32", quality="HQ")
    made = 0
    for block in blocks:
        out = stream.resample_chunk(np.ascontiguousarray(block))
        made += len(out)
        if len(out):
            yield out
    # The resampler may round its last frame up or down.
    out = stream.resample_chunk(np.zeros((0, source.channels), np.float32), last=True)
    left = round(source.frames * source.sample_rate / source.upload_rate) - made
    out = np.pad(out, ((0, max(0, left - len(out))), (0, 0)))[: max(0, left)]
    if len(out):
        yield out


@contextmanager
def _plain_wav(file: BinaryIO, content: Content, bounds: Bounds) -> Iterator[Source]:
    """By libsndfile in this process, which takes a tenth of the time."""
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    try:
        # By descriptor: no name reaches libsndfile, which would take some formats from it.
        sound = sf.SoundFile(file.fileno(), closefd=False)
    except sf.LibsndfileError as error:
        log.info("libsndfile refused a wav file: %s", error.error_string)
        bounds.refuse("corrupt", "a wav header that cannot be read")
    with sound:
        if sound.format not in ("WAV", "WAVEX", "RF64") or sound.channels > 2:
            bounds.refuse("unsupported_format", f"{sound.format} {sound.subtype}")
        bounds.check_maximum(sound.frames / sound.samplerate)
        source = Source(content.kind, sound.samplerate, sound.channels, sound.samplerate, sound.channels)
        source.blocks = sound.blocks(BLOCK_FRAMES, dtype="float32", always_2d=True)
        yield source


@contextmanager
def _decoded(file: BinaryIO, content: Content, bounds: Bounds) -> Iterator[Source]:
    """By FFmpeg in a process of its own."""
    request = {name: getattr(content, name) for name in FIELDS}
    request["patches"] = {place: data.hex() for place, data in content.patches.items()}
    request |= {"max_seconds": bounds.max_seconds, "max_sample_rate": MAX_SAMPLE_RATE}
    child = decoding.server.decode(file.fileno(), request)
    try:
        with _told(content, bounds):
            header = child.header()
        rate, channels = int(header["sample_rate"]), int(header["channels"])
        source = Source(content.kind, rate, channels, rate, int(header["upload_channels"]))
        source.blocks = _blocks(child, source, content, bounds)
        yield source
    finally:
        child.close()


def _blocks(child: decoding.Decoding, source: Source, content: Content, bounds: Bounds) -> Iterator[Samples]:
    with _told(content, bounds):
        yield from child.blocks(source.channels)
    source.warnings += [f"{bounds.field} {warning}" for warning in child.warnings]


@contextmanager
def _told(content: Content, bounds: Bounds) -> Iterator[None]:
    try:
        yield
    except decoding.NoDecoder:
        message = f"This server can decode plain wav files only, and {bounds.field} is {content.kind}."
        raise PublicError("not_configured", message) from None
    except decoding.Refused as refusal:
        if refusal.reason == "too_long":
            bounds.check_maximum(float(refusal.found))
        bounds.refuse(refusal.reason, refusal.found)
    except decoding.Crashed as error:
        log.warning("The audio decoder gave up: %s", error)
        bounds.refuse("corrupt", "the decoder gave up")
