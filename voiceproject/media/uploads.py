"""Read one upload: its content decides how, bounds are checked before and while it is decoded, and refusals
say why."""

from __future__ import annotations

import json
import logging
import math
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from voiceproject.errors import PublicError
from voiceproject.media.content_type import NotTaken, mp3_states_its_length, sniff
from voiceproject.media.decoder import NO_DECODER, REFUSED

log = logging.getLogger(__name__)

Samples = NDArray[np.float32]

MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 4_000, 192_000
BLOCK_FRAMES = 65_536
# -60 dBFS. Where nothing is louder there is no speech to copy and no song to cover.
SILENCE = 1e-3

DECODER_COMMAND = [sys.executable, "-I", str(Path(__file__).with_name("decoder.py"))]
DECODER_DEADLINE_SECONDS = 120.0

# libsndfile's own names for what the first bytes promised; whatever else it finds in a file is not taken.
_SNDFILE_FORMATS = {
    "wav": (
        {"WAV", "WAVEX", "RF64"},
        {"PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"},
    ),
    "flac": ({"FLAC"}, {"PCM_S8", "PCM_16", "PCM_24"}),
    "mp3": ({"MP3"}, {"MPEG_LAYER_III"}),
    "vorbis": ({"OGG"}, {"VORBIS"}),
    "opus": ({"OGG"}, {"OPUS"}),
}
_SEEK_FAILED = 39  # libsndfile's SFE_BAD_SEEK
_DEMUXERS = {"m4a": "mov", "aac": "aac", "webm": "matroska"}
_TAKEN = "Send wav, mp3, flac, ogg, opus, m4a, aac or webm."

_MESSAGES = {
    "not_audio": f"is not an audio file. {_TAKEN}",
    "unsupported_format": f"is in a format that is not taken here. {_TAKEN}",
    "empty": "holds no audio. Send a recording.",
    "truncated": "breaks off before its end: part of the file is missing. Upload it again.",
    "corrupt": "is damaged and cannot be decoded. Export it again, as wav for instance.",
    "too_many_channels": "has more than two channels. Send mono or stereo.",
    "sample_rate": f"has a sample rate outside {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz. Send 44100 Hz.",
    "not_finite": "holds samples that are not numbers (NaN or infinity). Export it again as 16-bit wav.",
    "silent": "is silent. Send a recording that can be heard.",
    "too_slow": "took too long to decode. Send it as wav, mp3 or flac.",
}


@dataclass(frozen=True)
class Bounds:
    field: str
    min_seconds: float
    max_seconds: float
    reference: bool = False

    def refuse(self, reason: str, found: Any) -> NoReturn:
        details = {"field": self.field, "reason": reason, "found": found}
        raise PublicError("invalid_audio", f"{self.field} {_MESSAGES[reason]}", details)

    def check_maximum(self, seconds: float, *, exact: bool = True) -> None:
        """Not exact: the audio is at least that long, and nobody went on to find its end."""
        if seconds > self.max_seconds:
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
    format: str
    sample_rate: int
    channels: int
    promised: int | None  # frames, as the header has it
    blocks: Iterator[Samples]  # float32 (n, channels), n <= BLOCK_FRAMES
    frames: int = 0  # really read so far


@contextmanager
def opened(path: str | os.PathLike[str], bounds: Bounds) -> Iterator[Source]:
    """Open an upload by its content; its header has been checked here, and each block is as it is read."""
    with open(path, "rb") as file:
        try:
            kind = sniff(file)
        except NotTaken as refusal:
            bounds.refuse(refusal.reason, refusal.found)
        stated = kind != "mp3" or mp3_states_its_length(file)
        # libsndfile and the child go by the descriptor's own position; nothing here reads `file` after this.
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        child = kind in _DEMUXERS
        with _container(file, kind, bounds) if child else _sndfile(file, kind, stated, bounds) as source:
            if source.channels > 2:
                bounds.refuse("too_many_channels", source.channels)
            if not MIN_SAMPLE_RATE <= source.sample_rate <= MAX_SAMPLE_RATE:
                bounds.refuse("sample_rate", source.sample_rate)
            if source.promised is not None:
                bounds.check_maximum(source.promised / source.sample_rate)
            source.blocks = _checked(source, source.blocks, bounds)
            yield source


def _checked(source: Source, blocks: Iterator[Samples], bounds: Bounds) -> Iterator[Samples]:
    rate = source.sample_rate
    for block in blocks:
        source.frames += len(block)
        bounds.check_maximum(source.frames / rate, exact=False)
        if not np.isfinite(block).all():
            bounds.refuse("not_finite", "NaN" if np.isnan(block).any() else "infinity")
        yield block
    # An MP3 header may count the decoder's delay and the padding of the last frame.
    slack = 4 * 1152 if source.format == "mp3" else 0
    if source.promised is not None and source.frames < source.promised - slack:
        bounds.refuse("truncated", f"{source.frames / rate:.2f} of {source.promised / rate:.2f} s")
    if source.frames == 0:
        bounds.refuse("empty", 0)
    bounds.check_minimum(source.frames / rate)


@contextmanager
def _sndfile(file: BinaryIO, kind: str, stated: bool, bounds: Bounds) -> Iterator[Source]:
    formats, subtypes = _SNDFILE_FORMATS[kind]
    try:
        # By descriptor: no name reaches libsndfile, which would take some formats from it.
        sound = sf.SoundFile(file.fileno(), closefd=False)
    except sf.LibsndfileError as error:
        log.info("libsndfile refused a %s file: %s", kind, error.error_string)
        bounds.refuse("corrupt", f"a {kind} header that cannot be read")
    with sound:
        if sound.format not in formats or sound.subtype not in subtypes:
            bounds.refuse("unsupported_format", f"{sound.format} {sound.subtype}")
        # A FLAC stream of unknown length is "2**63 - 1" frames long.
        promised = sound.frames if stated and sound.frames < 2**62 else None
        source = Source(kind, sound.samplerate, sound.channels, promised, iter(()))
        source.blocks = _sndfile_blocks(sound, source, bounds)
        yield source


def _sndfile_blocks(sound: sf.SoundFile, source: Source, bounds: Bounds) -> Iterator[Samples]:
    while True:
        out = np.full((BLOCK_FRAMES, sound.channels), np.nan, np.float32)
        try:
            block = sound.read(dtype="float32", always_2d=True, out=out)
        except sf.LibsndfileError as error:
            # FLAC, at a cut or at the end of a stream of unknown length (where soundfile's own seek fails): the
            # read has filled part of its array. What a stream stated as its length is compared later.
            log.info("libsndfile stopped after %d frames: %s", source.frames, error.error_string)
            yield out[: np.count_nonzero(np.isfinite(out[:, 0]))]
            if source.promised is None and error.code != _SEEK_FAILED:
                bounds.refuse("corrupt", f"unreadable after {source.frames / source.sample_rate:.2f} s")
            return
        if not len(block):
            return
        yield block


@contextmanager
def _container(file: BinaryIO, kind: str, bounds: Bounds) -> Iterator[Source]:
    with tempfile.TemporaryFile() as errors:
        child = _Child(file, _DEMUXERS[kind], errors, bounds)
        try:
            rate, channels = child.header()
            yield Source(kind, rate, channels, None, child.blocks(channels))
        finally:
            child.end()


class _Child:
    """A decoder process (decoder.py) and the clock it is under."""

    def __init__(self, file: BinaryIO, demuxer: str, errors: BinaryIO, bounds: Bounds) -> None:
        self.bounds = bounds
        self.errors = errors
        self.deadline = time.monotonic() + DECODER_DEADLINE_SECONDS
        self.rest = b""
        self.process = subprocess.Popen(
            [*DECODER_COMMAND, demuxer, str(bounds.max_seconds), str(MAX_SAMPLE_RATE)],
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            cwd="/",
            start_new_session=True,
        )

    def header(self) -> tuple[int, int]:
        """Sample rate and channels, once the first samples are there."""
        while b"\n" not in self.rest and len(self.rest) < 4096:
            chunk = self.read()
            if not chunk:
                self.check_end()
                self.bounds.refuse("empty", 0)
            self.rest += chunk
        line, _, self.rest = self.rest.partition(b"\n")
        header = json.loads(line)
        return int(header["sample_rate"]), int(header["channels"])

    def blocks(self, channels: int) -> Iterator[Samples]:
        frame_bytes = 4 * channels
        while True:
            whole = len(self.rest) - len(self.rest) % frame_bytes
            for start in range(0, whole, BLOCK_FRAMES * frame_bytes):
                piece = self.rest[start : min(whole, start + BLOCK_FRAMES * frame_bytes)]
                yield np.frombuffer(piece, dtype="<f4").reshape(-1, channels).astype(np.float32)
            chunk = self.read()
            if not chunk:
                break
            self.rest = self.rest[whole:] + chunk
        self.check_end()

    def read(self) -> bytes:
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(max(0.0, self.deadline - time.monotonic())):
                self.bounds.refuse("too_slow", f"more than {DECODER_DEADLINE_SECONDS:g} s")
        return os.read(self.process.stdout.fileno(), 2**18)

    def check_end(self) -> None:
        """Return if the child ended well; otherwise raise the refusal that its end means."""
        try:
            status = self.process.wait(max(0.0, self.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.bounds.refuse("too_slow", f"more than {DECODER_DEADLINE_SECONDS:g} s")
        if status == 0:
            return
        self.errors.seek(0)
        text = self.errors.read(65_536).decode(errors="replace").strip()
        if status == NO_DECODER:
            message = "This server cannot decode m4a, aac or webm. Send wav, mp3, flac or ogg."
            raise PublicError("not_configured", message)
        if status == REFUSED and text:
            refusal = json.loads(text.splitlines()[-1])
            if refusal["reason"] == "too_long":
                self.bounds.check_maximum(float(refusal["found"]))
            self.bounds.refuse(refusal["reason"], refusal["found"])
        if status == -signal.SIGXCPU:
            self.bounds.refuse("too_slow", "the decoder's processor time ran out")
        log.warning("The audio decoder ended with status %d: %s", status, text[-2000:])
        self.bounds.refuse("corrupt", "the decoder gave up")

    def end(self) -> None:
        """Whatever happened, no process stays: it has a group of its own, which is killed as a whole."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
