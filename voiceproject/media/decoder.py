"""Decode the audio of one m4a, aac or webm upload; a program, run as a child process by voiceproject.media.audio.

    python -I decoder.py DEMUXER MAX_SECONDS MAX_SAMPLE_RATE  < upload  > pcm

DEMUXER is one of DEMUXERS (the parent found it from the file's first bytes; FFmpeg never guesses). Standard
output is one line of JSON, {"sample_rate": Hz, "channels": 1|2, "codec": str}, and then interleaved
little-endian float32 samples, at most MAX_SECONDS + 1 of them. A refusal is exit status 3 and one line of
JSON on standard error, {"reason": str, "found": ...}; status 4 means that PyAV is not installed.

FFmpeg's parsers are large and read what strangers send, so they get a process that can do nothing but this:
memory, processor time, written bytes and core dumps are limited before PyAV is imported, and once the three
standard streams are all it needs, the limit on open files is lowered to three: from then on no other file and
no socket can be opened, whatever a container says about where its data lies. The parent keeps the clock.
Nothing here needs numpy, Django or the project.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import math
import pkgutil
import resource
import sys
from typing import Any, NoReturn

DEMUXERS = ("mov", "aac", "matroska")
CODECS = {
    "aac",
    "alac",
    "mp3",
    "mp3float",
    "opus",
    "vorbis",
    "flac",
    "pcm_s16le",
    "pcm_s16be",
    "pcm_s24le",
    "pcm_s24be",
    "pcm_f32le",
    "pcm_f32be",
}
# PyAV maps about 120 MB by itself; an hour-long m4a has index tables of a few MB.
MEMORY_BYTES = 768 * 2**20
CPU_SECONDS = 60
STDERR_BYTES = 64 * 2**10
REFUSED, NO_DECODER = 3, 4


def limit(name: int, value: int) -> None:
    """Lower one limit for good. A platform that has no such limit (macOS has no RLIMIT_AS) goes without
    it."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(name, (value, value))


def refuse(reason: str, found: Any) -> NoReturn:
    print(json.dumps({"reason": reason, "found": found}), file=sys.stderr, flush=True)
    sys.exit(REFUSED)


def import_av() -> Any:
    try:
        import av

        # PyAV imports parts of itself when it first meets a stream of their kind: too late, below.
        for module in pkgutil.walk_packages(av.__path__, "av."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    except ImportError as error:
        print(error, file=sys.stderr)
        sys.exit(NO_DECODER)
    return av


class Output:
    """Writes decoded frames to standard output, the header before the first.

    seconds: the length that an MP4's edit list states, if any. An AAC encoder fills its last packets up, and
    only that length tells by how much: as many frames more than it are dropped as filling can be; a longer
    excess is kept.
    """

    FILLING = 4096

    def __init__(self, av: Any, codec: str, seconds: float | None, max_sample_rate: int) -> None:
        self.av = av
        self.codec = codec
        self.seconds = seconds
        self.max_sample_rate = max_sample_rate
        self.pipe = io.FileIO(1, "wb", closefd=False)
        self.rate = self.channels = self.frames = 0
        self.resampler: Any = None
        self.held = b""

    def add(self, frame: Any) -> None:
        if self.resampler is None:
            self.start(frame)
        elif (frame.sample_rate, frame.layout.nb_channels) != (self.rate, self.channels):
            refuse("corrupt", "the sample rate or the number of channels changes on the way")
        frame.pts = None
        for packed in self.resampler.resample(frame):
            data = bytes(packed.planes[0])[: packed.samples * self.channels * 4]
            stated = math.inf if self.seconds is None else round(self.seconds * self.rate)
            before, self.frames = self.frames, self.frames + packed.samples
            if self.frames <= stated:
                self.write(data)
            elif self.frames <= stated + self.FILLING:
                cut = max(0, int(stated) - before) * self.channels * 4
                self.write(data[:cut])
                self.held += data[cut:]
            else:
                self.write(self.held + data)
                self.held = b""

    def start(self, frame: Any) -> None:
        self.rate, self.channels = frame.sample_rate, frame.layout.nb_channels
        if self.channels > 2:
            refuse("too_many_channels", self.channels)
        if not 0 < self.rate <= self.max_sample_rate:
            refuse("sample_rate", self.rate)
        # Packs planes into interleaved float32; rate and channels stay as they are.
        self.resampler = self.av.AudioResampler(format="flt", layout=frame.layout, rate=self.rate)
        header = {"sample_rate": self.rate, "channels": self.channels, "codec": self.codec}
        self.write(json.dumps(header).encode() + b"\n")

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while len(rest):
            rest = rest[self.pipe.write(rest) :]


def decode(av: Any, demuxer: str, max_seconds: float, max_sample_rate: int) -> None:
    # The whitelists are FFmpeg's own second lock on the same doors: no protocol has the name "none".
    options = {
        "protocol_whitelist": "none",
        "format_whitelist": demuxer,
        "codec_whitelist": ",".join(sorted(CODECS)),
    }
    container = av.open(io.FileIO(0, "rb", closefd=False), mode="r", format=demuxer, options=options)
    if not container.streams.audio:
        refuse("not_audio", "no audio stream")
    stream = container.streams.audio[0]
    context = stream.codec_context
    if context is None or context.codec.name not in CODECS:
        refuse("unsupported_format", context.codec.name if context else "unknown codec")
    if context.channels > 2:
        refuse("too_many_channels", context.channels)
    # Elsewhere FFmpeg guesses a duration from the bit rate.
    seconds = float(stream.duration * stream.time_base) if demuxer == "mov" and stream.duration else None
    if seconds is not None and seconds > max_seconds + 1:
        refuse("too_long", round(seconds, 3))
    context.thread_count = 1

    output = Output(av, context.codec.name, seconds, max_sample_rate)
    packets = bad_packets = 0
    try:
        for packet in container.demux(stream):
            packets += 1
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                bad_packets += 1
                if bad_packets > 3 and bad_packets > packets // 100:
                    refuse("corrupt", f"{bad_packets} of {packets} packets could not be decoded")
                continue
            for frame in frames:
                output.add(frame)
            if output.frames > (max_seconds + 1) * output.rate > 0:
                return
    except av.error.FFmpegError as error:
        if output.frames:
            refuse("truncated", f"{output.frames / output.rate:.2f} s, then: {error.strerror}")
        raise
    if not output.frames:
        refuse("corrupt" if bad_packets else "empty", "no audio could be decoded")


def main() -> None:
    limit(resource.RLIMIT_AS, MEMORY_BYTES)
    limit(resource.RLIMIT_CPU, CPU_SECONDS)
    limit(resource.RLIMIT_FSIZE, STDERR_BYTES)
    limit(resource.RLIMIT_CORE, 0)
    demuxer, max_seconds, max_sample_rate = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    if demuxer not in DEMUXERS:
        sys.exit(f"unknown demuxer {demuxer!r}")
    av = import_av()
    limit(resource.RLIMIT_NOFILE, 3)
    try:
        decode(av, demuxer, max_seconds, max_sample_rate)
    except MemoryError:
        refuse("corrupt", "needs more memory than decoding may take")
    except av.error.FFmpegError as error:
        refuse("corrupt", error.strerror or type(error).__name__)
    except BrokenPipeError:
        # The parent has heard enough, or is gone.
        sys.exit(REFUSED)


if __name__ == "__main__":
    main()
