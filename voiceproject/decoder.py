"""Decode the audio of one m4a, aac or webm upload; a program, run as a child process by voiceproject.audio.

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


def decode(demuxer: str, max_seconds: float, max_sample_rate: int) -> None:
    try:
        import av

        # PyAV imports parts of itself when it first meets a stream of their kind: too late, below.
        for module in pkgutil.walk_packages(av.__path__, "av."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    except ImportError as error:
        print(error, file=sys.stderr)
        sys.exit(NO_DECODER)

    upload = io.FileIO(0, "rb", closefd=False)
    out = io.FileIO(1, "wb", closefd=False)
    limit(resource.RLIMIT_NOFILE, 3)
    # The whitelists are FFmpeg's own second lock on the same doors: no protocol has the name "none".
    options = {
        "protocol_whitelist": "none",
        "format_whitelist": demuxer,
        "codec_whitelist": ",".join(sorted(CODECS)),
    }
    packets = bad_packets = frames_out = 0
    rate = channels = 0
    resampler = None
    try:
        container = av.open(upload, mode="r", format=demuxer, options=options)
        if not container.streams.audio:
            refuse("not_audio", "no audio stream")
        stream = container.streams.audio[0]
        context = stream.codec_context
        if context is None or context.codec.name not in CODECS:
            refuse("unsupported_format", context.codec.name if context else "unknown codec")
        if context.channels > 2:
            refuse("too_many_channels", context.channels)
        if stream.duration and stream.time_base and stream.duration * stream.time_base > max_seconds + 1:
            refuse("too_long", round(float(stream.duration * stream.time_base), 3))
        context.thread_count = 1
        for packet in container.demux(stream):
            packets += 1
            try:
                decoded = packet.decode()
            except av.error.InvalidDataError:
                bad_packets += 1
                if bad_packets > 3 and bad_packets > packets // 100:
                    refuse("corrupt", f"{bad_packets} of {packets} packets could not be decoded")
                continue
            for frame in decoded:
                if resampler is None:
                    rate, channels = frame.sample_rate, frame.layout.nb_channels
                    if channels > 2:
                        refuse("too_many_channels", channels)
                    if not 0 < rate <= max_sample_rate:
                        refuse("sample_rate", rate)
                    # Packs planes into interleaved float32; rate and channels stay as they are.
                    resampler = av.AudioResampler(format="flt", layout=frame.layout, rate=rate)
                    header = {"sample_rate": rate, "channels": channels, "codec": context.codec.name}
                    out.write(json.dumps(header).encode() + b"\n")
                elif (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
                    refuse("corrupt", "the sample rate or the number of channels changes on the way")
                frame.pts = None
                for packed in resampler.resample(frame):
                    size = packed.samples * channels * 4
                    data = memoryview(packed.planes[0])[:size]
                    while len(data):
                        data = data[out.write(data) :]
                    frames_out += packed.samples
                if frames_out > (max_seconds + 1) * rate:
                    return
    except (MemoryError, av.error.FFmpegError) as error:
        if isinstance(error, MemoryError):
            refuse("corrupt", "needs more memory than decoding may take")
        refuse(
            "truncated" if frames_out else "corrupt", getattr(error, "strerror", None) or type(error).__name__
        )
    if not frames_out:
        refuse("corrupt" if bad_packets else "empty", "no audio could be decoded")


def main() -> None:
    limit(resource.RLIMIT_AS, MEMORY_BYTES)
    limit(resource.RLIMIT_CPU, CPU_SECONDS)
    limit(resource.RLIMIT_FSIZE, STDERR_BYTES)
    limit(resource.RLIMIT_CORE, 0)
    demuxer, max_seconds, max_sample_rate = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    if demuxer not in DEMUXERS:
        sys.exit(f"unknown demuxer {demuxer!r}")
    try:
        decode(demuxer, max_seconds, max_sample_rate)
    except BrokenPipeError:
        # The parent has heard enough, or is gone.
        sys.exit(REFUSED)


if __name__ == "__main__":
    main()
