"""Decode the audio of one upload, in a process that decoder_server.py has forked for it.

Descriptor 0 is the upload, 1 a socket. What is decoded comes in parts: a letter, four bytes of length (big-endian),
content.

    H  JSON: {"sample_rate": Hz, "channels": 1|2, "upload_channels": n, "codec": str}
    S  interleaved little-endian float32 samples
    E  the end, JSON: {"warnings": [str]}, or {"reason": str, "found": ...} for a refusal, or {"crashed": str}

Samples are at the upload's own rate. More than two channels are mixed down by their layout (ITU-R BS.775, by
libswresample). Audio that begins late in its container begins with silence, and what an encoder puts in front of it is
left out. Where the rate or the channels change, all is brought to the first ones. The bytes' end is the audio's: what
a header states of its length serves to refuse early, and to say what is missing. FFmpeg never guesses a format.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import os
import re
import resource
import struct
import traceback
from typing import Any

DEMUXERS = (
    "wav", "w64", "aiff", "au", "caf", "flac", "mp3", "aac", "ac3", "eac3", "ogg", "amr", "mov", "matroska", "asf",
    "ape", "wv", "tta",
)  # fmt: skip
CODECS = {
    "aac", "ac3", "eac3", "alac", "amrnb", "amrwb", "ape", "flac", "mp3", "mp3float", "mp2", "mp2float", "opus",
    "speex", "tta", "vorbis", "wavpack", "wmav1", "wmav2", "wmapro", "wmalossless", "adpcm_ms", "adpcm_ima_wav",
    "adpcm_ima_qt", "pcm_mulaw", "pcm_alaw", "pcm_u8", "pcm_s8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be",
    "pcm_s32le", "pcm_s32be", "pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be",
}  # fmt: skip
MAX_CHANNELS = 8
BLOCK_FRAMES = 32_768
SMALL_FRAMES, COLLECTED_FRAMES = 5000, 8192
FIELDS = (
    "demuxer", "start", "end", "options", "patches", "cut", "joined", "stated_share", "delay", "stated_frames",
    "padding",
)  # fmt: skip

# Frames that stand for themselves: a stream of them may begin and break off anywhere. FFmpeg guesses its length.
STREAMS = ("mp3", "aac", "ac3", "eac3", "amr")
# Where audio may begin later than its container.
TIMED = ("mov", "matroska", "asf")
# Their audio lies among other things, so that what follows its last packet says nothing.
CONTAINERS = ("mov", "matroska", "asf", "ogg", "wav", "w64", "aiff", "caf")
# What encoders put in front, in samples; one whole frame of AAC.
PRIMING = {"mp3": 1105, "mp3float": 1105, "ac3": 256, "eac3": 256}
# An encoder fills its last frames up; where a length is stated, what is beyond it and no more than this is filling.
FILLING = 4096
MAX_TAIL_BYTES = 4096
STATED_SLACK_SECONDS = 0.15
EXACT_SLACK_SECONDS = 0.01
MOVED_SECONDS = 0.1
INDEX_MISSING = "0.00 s: what tells where the audio lies is missing"
DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}
# The first page of a stream in an Ogg file: what is chained begins with one again.
OGG_BEGIN = re.compile(rb"OggS\0[\x02\x06]\0{8}")
OGG_BEGIN_BYTES = 14
OGG_PAGE_HEAD = 27
SCAN_BYTES = 2**20
MAX_PARTS = 4096


class Refused(Exception):
    def __init__(self, reason: str, found: Any) -> None:
        super().__init__(reason, found)
        self.reason, self.found = reason, found


class Window:
    """A part of the file that is descriptor 0, with some bytes replaced: place in the file -> content."""

    def __init__(self, start: int, end: int, patches: dict[int, bytes]) -> None:
        self.start, self.size, self.position, self.patches = start, end - start, 0, patches

    def read(self, count: int = -1) -> bytes:
        left = self.size - self.position
        place = self.start + self.position
        data = os.pread(0, left if count < 0 else min(count, left), place) if left > 0 else b""
        self.position += len(data)
        for at, content in self.patches.items():
            if place <= at and at + len(content) <= place + len(data):
                data = data[: at - place] + content + data[at - place + len(content) :]
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        self.position = max(0, offset + (0, self.position, self.size)[whence])
        return self.position

    def tell(self) -> int:
        return self.position


class Output:
    """Sends decoded samples to descriptor 1. frames: sent or held back, without the `skip` first ones."""

    def __init__(self, np: Any) -> None:
        self.np = np
        self.rate = self.channels = self.frames = self.skip = self.waiting = 0
        self.buffer: Any = None

    @property
    def seconds(self) -> float:
        return self.frames / max(self.rate, 1)

    def begin(self, rate: int, channels: int, skip: int, silence: int, header: dict[str, Any]) -> None:
        """silence: frames of it in front, which nothing is left out of."""
        self.rate, self.channels = rate, channels
        self.buffer = self.np.empty((BLOCK_FRAMES + FILLING, channels), "<f4")
        self.part(b"H", {"sample_rate": rate, "channels": channels, **header})
        self.add(self.np.zeros((silence, channels), self.np.float32))
        self.skip = skip

    def add(self, samples: Any) -> None:
        """(n, channels) in float"""
        if self.skip:
            left_out = min(self.skip, len(samples))
            self.skip -= left_out
            samples = samples[left_out:]
        self.frames += len(samples)
        while len(samples):
            some = samples[: len(self.buffer) - self.waiting]
            self.buffer[self.waiting : self.waiting + len(some)] = some
            self.waiting += len(some)
            samples = samples[len(some) :]
            if self.waiting == len(self.buffer):
                self.flush(FILLING)

    def finish(self, stated: float) -> None:
        """stated: the length in frames, infinite where none is."""
        surplus = min(int(self.frames - stated), self.waiting) if stated <= self.frames <= stated + FILLING else 0
        self.frames -= surplus
        self.flush(surplus)

    def flush(self, keep: int) -> None:
        ready = self.waiting - keep
        if ready > 0:
            self.write(b"S", memoryview(self.buffer[:ready]).cast("B"))
        self.buffer[:keep] = self.buffer[ready : ready + keep]
        self.waiting = keep

    def part(self, letter: bytes, content: Any) -> None:
        self.write(letter, json.dumps(content).encode())

    @staticmethod
    def write(letter: bytes, content: Any) -> None:
        """content: bytes or a view of them."""
        head = letter + struct.pack(">I", len(content))
        rest = memoryview(content)[os.writev(1, [head, content]) - len(head) :]
        while len(rest):
            rest = rest[os.write(1, rest) :]


class Decoding:
    """request: FIELDS as content_type.Content has them, bytes in hexadecimal; max_seconds; max_sample_rate."""

    def __init__(self, av: Any, np: Any, request: dict[str, Any]) -> None:
        self.av, self.np, self.request = av, np, request
        self.demuxer: str = request["demuxer"]
        self.max_seconds: float = request["max_seconds"]
        self.output = Output(np)
        self.warnings: list[str] = []
        self.codec = ""
        self.cut: bool = request["cut"]
        self.first_packet_seconds: float | None = None
        self.begun = False  # Whether the part that is read has given a frame.
        self.resampler: Any = None
        self.form: tuple[Any, ...] = ()  # of the frames that it takes
        self.collected: Any = None  # frames that wait to be added together: each call has its price
        self.changed = False
        self.last_byte = self.packets = self.bad_packets = self.left = 0
        self.last_is_bad = False

    def run(self) -> None:
        # The whitelists are FFmpeg's own second lock on the same doors: no protocol has the name "none".
        options = {
            "protocol_whitelist": "none",
            "format_whitelist": self.demuxer,
            "codec_whitelist": ",".join(sorted(CODECS)),
            **self.request["options"],
        }
        patches = {int(place): bytes.fromhex(content) for place, content in self.request["patches"].items()}
        window = Window(0, 0, patches)
        stated: float | None = 0.0
        error = ""
        try:
            for start, end in self.parts():
                window = Window(start, end, patches)
                container = self.av.open(window, mode="r", format=self.demuxer, options=options)
                stream = self.choose(container)
                own = self.stated_seconds(container, stream)
                longest = self.output.seconds + max(own or 0.0, self.container_seconds(container))
                if longest > self.max_seconds + 1:
                    raise Refused("too_long", round(longest, 3))
                stated = None if stated is None or own is None else stated + own
                self.read(container, stream)
        except self.av.error.FFmpegError as failure:
            if not self.output.rate:
                raise
            error = failure.strerror or type(failure).__name__
        if not self.output.rate:
            if self.cut:
                raise Refused("truncated", INDEX_MISSING)
            raise Refused("corrupt" if self.bad_packets else "empty", "0.00 s could be decoded")
        frames = math.inf
        if self.request["stated_frames"] is not None:
            frames = self.request["stated_frames"] - self.request["delay"] - self.request["padding"]
            stated = frames / self.output.rate
        elif self.demuxer == "mov" and stated is not None:
            frames = round(stated * self.output.rate)
        self.output.finish(frames)
        if self.output.seconds <= self.max_seconds + 1:
            self.judge(window, stated, error)

    def parts(self) -> list[tuple[int, int]]:
        """Where the parts of the file begin and end. Those of a chained Ogg file may differ in all, codec included."""
        start, end = self.request["start"], self.request["end"]
        if self.demuxer != "ogg":
            return [(start, end)]
        found, after = [start], start
        for block in range(start, end, SCAN_BYTES):
            data = os.pread(0, min(SCAN_BYTES + OGG_BEGIN_BYTES - 1, end - block), block)
            for match in OGG_BEGIN.finditer(data):
                place = block + match.start()
                # Streams side by side begin with one such page behind the other.
                if place > after:
                    found.append(place)
                after = place + page_bytes(os.pread(0, OGG_PAGE_HEAD + 255, place))
        if len(found) > MAX_PARTS:
            raise Refused("corrupt", f"more than {MAX_PARTS} parts")
        spans = list(itertools.pairwise([*found, end]))
        ends = [last_page_end(*span) for span in spans]
        *earlier, self.cut = (page_end > span[1] for page_end, span in zip(ends, spans, strict=True))
        if any(earlier):
            self.warnings.append("has parts that break off before their end.")
        # FFmpeg guesses at the length of a part with other things behind it.
        parts = [(first, min(page_end, last)) for page_end, (first, last) in zip(ends, spans, strict=True)]
        self.left = max(left_over(part[1], last) for part, (_, last) in zip(parts, spans, strict=True))
        return parts

    def choose(self, container: Any) -> Any:
        """The audio that a player plays: the default track, or the first."""
        streams = container.streams.audio
        if not streams:
            raise (
                Refused("truncated", INDEX_MISSING) if self.request["cut"] else Refused("not_audio", "no audio stream")
            )
        default = self.av.stream.Disposition.default
        stream = next((stream for stream in streams if stream.disposition & default), streams[0])
        if len(streams) > 1:
            number = list(streams).index(stream) + 1
            self.warnings.append(f"has {len(streams)} audio tracks; number {number}, the default one, was taken.")
        context = stream.codec_context
        if context is None or context.codec.name not in CODECS:
            raise Refused("unsupported_format", context.codec.name if context else "unknown codec")
        self.codec = context.codec.name
        self.check(context.sample_rate or 0, context.channels)
        context.thread_count = 1
        return stream

    def check(self, rate: int, channels: int) -> None:
        if channels > MAX_CHANNELS:
            raise Refused("too_many_channels", channels)
        if rate > self.request["max_sample_rate"]:
            raise Refused("sample_rate", rate)

    def stated_seconds(self, container: Any, stream: Any) -> float | None:
        """What the header says of the track. FFmpeg guesses at an ASF file's where it is cut."""
        if self.demuxer in (*STREAMS, "asf") or "ignore_length" in self.request["options"]:
            return None
        if stream.duration:
            return float(stream.duration * stream.time_base)
        return self.container_seconds(container) if len(container.streams) == 1 else None

    def container_seconds(self, container: Any) -> float:
        """0 where the header says nothing."""
        if self.demuxer in STREAMS or "ignore_length" in self.request["options"] or not container.duration:
            return 0.0
        return float(container.duration / self.av.time_base)

    def read(self, container: Any, stream: Any) -> None:
        self.begun, self.first_packet_seconds = False, None
        for packet in container.demux(stream):
            if self.first_packet_seconds is None and packet.pts is not None:
                self.first_packet_seconds = float(packet.pts * packet.time_base)
            if packet.size:
                self.packets += 1
                self.last_is_bad = False
                self.last_byte = max(self.last_byte, (packet.pos or 0) + packet.size)
            try:
                frames = packet.decode()
            except self.av.error.InvalidDataError:
                self.bad_packets += 1
                self.last_is_bad = True
                if self.bad_packets > 3 and self.bad_packets > self.packets // 50:
                    self.drain()
                    told = f"{self.output.seconds:.2f} s; {self.bad_packets} of {self.packets} packets are damaged"
                    raise Refused("corrupt", told) from None
                continue
            for frame in frames:
                self.take(frame)
            if self.output.seconds > self.max_seconds + 1:
                return
        self.drain()

    def take(self, frame: Any) -> None:
        if not self.begun:
            self.begin(frame)
            self.begun = True
        form = frame.sample_rate, frame.layout.name, frame.format.name
        if form != self.form:
            self.drain()
            self.prepare(frame)
            self.form = form
        for piece in (frame,) if self.resampler is None else self.resampler.resample(frame):
            self.collect(piece)

    def prepare(self, frame: Any) -> None:
        """For frames of another form than those before it. Most need no resampler, which takes time."""
        rate, channels = frame.sample_rate, frame.layout.nb_channels
        self.check(rate, channels)
        changed = rate != self.output.rate or min(channels, 2) != self.output.channels
        if changed and not self.changed:
            self.changed = True
            sides = "mono" if self.output.channels == 1 else "stereo"
            form = f"{rate} Hz, {channels} channel{'s' * (channels > 1)} after {self.output.seconds:.2f} s"
            self.warnings.append(f"changes to {form}; all of it was brought to {self.output.rate} Hz, {sides}.")
        if rate != self.output.rate or channels > 2:
            layout = "mono" if channels == 1 else "stereo"
            self.resampler = self.av.AudioResampler(format="flt", layout=layout, rate=self.output.rate)

    def drain(self) -> None:
        """What a resampler still has is added, and what is collected."""
        for piece in self.resampler.resample(None) if self.resampler is not None else ():
            self.collect(piece)
        if self.collected is not None and self.collected.samples:
            self.add(self.collected.read(partial=True))
        self.resampler = self.collected = None
        self.form = ()

    def collect(self, frame: Any) -> None:
        if frame.samples >= SMALL_FRAMES and self.collected is None:
            self.add(frame)
            return
        if self.collected is None:
            self.collected = self.av.AudioFifo()
        frame.pts = None  # Gaps between times are no gaps in the audio.
        self.collected.write(frame)
        if self.collected.samples >= COLLECTED_FRAMES:
            self.add(self.collected.read(partial=True))

    def add(self, frame: Any) -> None:
        samples = as_float(self.np, frame)
        if samples.shape[1] < self.output.channels:
            samples = self.np.repeat(samples, 2, axis=1)
        elif samples.shape[1] > self.output.channels:
            samples = samples.mean(axis=1, keepdims=True)
        self.output.add(samples)

    def begin(self, frame: Any) -> None:
        channels = frame.layout.nb_channels
        self.check(frame.sample_rate, channels)
        # From here on there is audio to show for the processor's time.
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))
        first, seconds = self.first_packet_seconds, frame.time
        skip, silence = self.request["delay"], 0
        if skip is None:
            # Where the first packet is heard from its beginning, nobody has left out what the encoder put in front.
            whole = first is None or seconds is None or seconds <= first + 1e-3
            skip = (frame.samples if self.codec == "aac" else PRIMING.get(self.codec, 0)) if whole else 0
            if seconds is not None and -1 < seconds < 0:
                skip = max(skip, round(-seconds * frame.sample_rate))
        if self.demuxer in TIMED and seconds is not None:
            late = seconds
            if self.demuxer == "asf":  # Its clock starts before its audio does, and that with a frame of priming.
                late -= (first or 0.0) + frame.samples / frame.sample_rate
            if late > self.max_seconds + 1:
                raise Refused("too_long", round(late, 3))
            # Muxers move what begins before 0 to 0; elsewhere the time is that of what the encoder put in front.
            silence = max(0, round(late * frame.sample_rate)) + (skip if late > MOVED_SECONDS else 0)
        if self.output.rate:  # A later part
            self.output.skip = round(skip * self.output.rate / frame.sample_rate)
            return
        header = {"upload_channels": channels, "codec": self.codec}
        self.output.begin(frame.sample_rate, min(channels, 2), skip, silence, header)

    def judge(self, window: Window, stated: float | None, error: str) -> None:
        """Raises Refused where audio is left that was not decoded, and adds warnings for what may be missing."""
        found = f"{self.output.seconds:.2f} s"
        if error:
            raise Refused("truncated", f"{found}, then: {error}")
        cut = self.cut or self.last_is_bad
        if cut and self.demuxer not in STREAMS:
            of = f" of {stated:.2f} s" if stated and stated > self.output.seconds else ""
            raise Refused("truncated", f"{found}{of}")
        if self.request["joined"]:
            raise Refused("truncated", f"{found}, then another file begins in this one")
        if self.demuxer not in CONTAINERS:
            self.left = left_over(window.start + self.last_byte, window.start + window.size)
        if self.left > MAX_TAIL_BYTES:
            raise Refused("truncated", f"{found}, then {self.left} bytes that could not be decoded")
        slack = EXACT_SLACK_SECONDS if self.demuxer == "au" else STATED_SLACK_SECONDS
        if self.request["stated_share"]:
            stated, slack = self.output.seconds * self.request["stated_share"], EXACT_SLACK_SECONDS
        if stated and stated > self.output.seconds + slack:
            self.warnings.append(f"should be {stated:.2f} s long by its header; all that is in it are {found}.")
        elif cut:
            self.warnings.append(f"breaks off within a frame; all that is in it are {found}.")
        if self.bad_packets > self.last_is_bad:
            self.warnings.append(f"is damaged: {self.bad_packets} of its {self.packets} packets were left out.")


def as_float(np: Any, frame: Any) -> Any:
    """(n, 1) or (n, 2) in float, whatever the decoder gives. Valid while the frame is."""
    dtype, count, channels = DTYPES[frame.format.name.removesuffix("p")], frame.samples, frame.layout.nb_channels
    if frame.format.is_planar:
        sides = [np.frombuffer(plane, dtype, count) for plane in frame.planes]
        samples = sides[0][:, None] if channels == 1 else np.stack(sides, axis=1)
    else:
        samples = np.frombuffer(frame.planes[0], dtype, count * channels).reshape(count, channels)
    if dtype == "u1":
        return (samples.astype(np.float32) - 128) / np.float32(128)
    return samples if dtype[0] == "f" else np.multiply(samples, 2.0 ** (1 - 8 * int(dtype[1])), dtype=np.float32)


def page_bytes(head: bytes) -> int:
    """The length of the Ogg page that begins so."""
    return OGG_PAGE_HEAD + (head[26] + sum(head[27 : 27 + head[26]]) if len(head) > 26 else 0)


def last_page_end(start: int, end: int) -> int:
    """Where the last page of Ogg that begins between the two ends: behind `end` where it is cut."""
    for block in range(end, start, -SCAN_BYTES):
        first = max(start, block - SCAN_BYTES)
        data = os.pread(0, min(block + 3, end) - first, first)
        if (last := data.rfind(b"OggS")) >= 0:
            return first + last + page_bytes(os.pread(0, min(OGG_PAGE_HEAD + 255, end - first - last), first + last))
    return end


def left_over(start: int, end: int) -> int:
    """The bytes between the two, 0 where they are nothing but zeros."""
    return end - start if os.pread(0, min(2**16, end - start), start).strip(b"\0") else 0


def warm(av: Any, np: Any) -> None:
    """Decodes a second of silence to descriptor 1: what a fork touches first is copied for it, which takes as long as
    to decode ten seconds."""
    frame = b"\xff\xfb\x90\xc4" + bytes(413)  # of an mp3: 128 kbit/s, 44.1 kHz, mono
    decoding = Decoding(
        av, np, {"demuxer": "mp3", "cut": False, "delay": 0, "max_seconds": 9, "max_sample_rate": 48_000}
    )
    container = av.open(io.BytesIO(40 * frame), mode="r", format="mp3")
    decoding.read(container, decoding.choose(container))
    decoding.output.finish(math.inf)


def decode(av: Any, np: Any, request: dict[str, Any]) -> None:
    """In the process for one upload: descriptor 0 is that, 1 the socket."""
    end: dict[str, Any]
    try:
        if request["demuxer"] not in DEMUXERS:
            raise ValueError(f"unknown demuxer {request['demuxer']!r}")
        decoding = Decoding(av, np, request)
        decoding.run()
        end = {"warnings": decoding.warnings}
    except Refused as refusal:
        end = {"reason": refusal.reason, "found": refusal.found}
    except MemoryError:
        end = {"reason": "corrupt", "found": "needs more memory than decoding may take"}
    except av.error.FFmpegError as error:
        end = {"reason": "corrupt", "found": f"0.00 s: {error.strerror or type(error).__name__}"}
        if request["cut"] or isinstance(error, av.error.EOFError):
            end = {"reason": "truncated", "found": INDEX_MISSING}
    except (BrokenPipeError, ConnectionResetError):
        return  # The parent has heard enough, or is gone.
    except Exception:
        end = {"crashed": traceback.format_exc()[-2000:]}
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        Output(np).part(b"E", end)
