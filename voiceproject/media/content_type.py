"""What an uploaded file is, told by its own bytes, and where the audio in it lies. Nothing is decoded."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal

# Kinds that are named in the refusal, because people do send them.
_OTHER_KINDS = {
    rb"MThd": "MIDI",
    rb"\x00\x00\x01\xba": "an MPEG program stream",
    rb"FLV\x01": "Flash video",
    rb"DSD |FRM8": "DSD",
    rb"RIFF.{4}AVI ": "AVI",
    rb"\x7f\xfe\x80\x01": "DTS",
    rb"Creative Voice File": "VOC",
    rb"G.{187}G": "an MPEG transport stream",
    rb"\xff[\xf4\xf5\xfc\xfd]": "MPEG audio of layer II",
}
_MOV_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_ASF = bytes.fromhex("3026b2758e66cf11")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11")
_W64 = b"riff\x2e\x91\xcf\x11"
_OGG_CODECS = (
    (b"OpusHead", "opus"),
    (b"\x01vorbis", "vorbis"),
    (b"\x7fFLAC", "flac"),
    (b"Speex   ", "speex"),
)
# Writers that cannot seek back leave 0 or one of these where a length belongs.
_UNKNOWN_LENGTH = 0x7FFF_F000
# What may stand in front of audio costs work as well: no real file has more tags, chunks or boxes, or junk so long.
_MAX_TAGS, _MAX_PARTS, _MAX_JUNK = 16, 20_000, 256 * 1024
# LAME's delay, and that of every decoder; what an MP3 that tells nothing has in front of its first sample.
_MP3_DECODER_DELAY, _MP3_DELAY = 529, 576 + 529
_EXACT_BITS = {1: (8, 16, 24, 32), 3: (32, 64)}  # of the WAV formats that libsndfile reads without a doubt


class NotTaken(Exception):
    """The file is refused. reason: not_audio, unsupported_format, empty, truncated or corrupt; found:
    JSON-ready."""

    def __init__(self, reason: str, found: str | int) -> None:
        super().__init__(reason, found)
        self.reason = reason
        self.found = found


@dataclass
class Content:
    """kind: what clients are told; demuxer: FFmpeg's; start, end: the bytes that it is given.

    exact: a WAV of plain samples whose chunks all fit; its header can be believed. cut: the container's own structure,
    or the last frame of a stream of them, runs on behind the end of the file. joined: where it ends, another file
    begins. options: for the demuxer. patches: bytes that it is shown instead of the file's, by their place: lengths
    that the writer left open. stated_share: how many times as long as the audio is a header says that it is. delay:
    samples that the encoder put in front, where only the file's first frame tells; stated_frames: of that frame, the
    samples that follow it; padding: how many of those are the encoder's filling.
    """

    kind: str
    demuxer: str
    start: int
    end: int
    exact: bool = False
    cut: bool = False
    joined: bool = False
    options: dict[str, str] = field(default_factory=dict)
    patches: dict[int, bytes] = field(default_factory=dict)
    stated_share: float | None = None
    delay: int | None = None
    stated_frames: int | None = None
    padding: int = 0


def sniff(file: BinaryIO) -> Content:
    """What an open file holds. kind: wav, w64, aiff, au, caf, flac, mp3, aac, ac3, eac3, vorbis, opus, speex, amr, m4a,
    webm, wma, ape, wavpack or tta. Raises NotTaken."""
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise NotTaken("empty", 0)
    start = _after_tags(file, size)
    head = _read(file, start, 256)
    if (content := _by_magic(file, head, start, size)) is not None:
        return content
    if _is_free_format(_read(file, start, 8192)):
        raise NotTaken("unsupported_format", "an mp3 of free format, whose frames do not tell their bit rate")
    if (content := _by_frames(file, start, size)) is not None:
        return content
    if start > 0:
        raise NotTaken("not_audio" if head.strip(b"\0") else "empty", "a tag without audio behind it")
    for magic, name in _OTHER_KINDS.items():
        if re.match(magic, head, re.DOTALL):
            raise NotTaken("unsupported_format", name)
    raise NotTaken("not_audio", _describe(head))


def _by_magic(file: BinaryIO, head: bytes, start: int, size: int) -> Content | None:
    def found(kind: str, demuxer: str | None = None, **more: Any) -> Content:
        return Content(kind, demuxer or kind, start, size, **more)

    if head.startswith(b"fLaC"):
        return Content("flac", "flac", start, _before_tags(file, start, size))
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return _wav(file, start, size)
    if head.startswith(b"OggS"):
        return _ogg(file, start, size)
    if head[4:8] in _MOV_BOXES:
        content = found("m4a", "mov")
        _walk_boxes(file, content)
        return content
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return found("webm", "matroska", cut=_segment_is_cut(file, start, size))
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _chunked(file, found("aiff"), _AIFF)
    if head.startswith(_W64):
        return _chunked(file, found("w64"), _WAVE64)
    if head.startswith(b"caff"):
        return _chunked(file, found("caf"), _CAF)
    if head.startswith(b"#!AMR"):
        return found("amr")
    if head.startswith(_ASF):
        content = found("wma", "asf")
        _walk_asf(file, content)
        return content
    for magic, kind, demuxer in (
        (b".snd", "au", "au"),
        (b"MAC ", "ape", "ape"),
        (b"wvpk", "wavpack", "wv"),
        (b"TTA1", "tta", "tta"),
    ):
        if head.startswith(magic):
            return Content(kind, demuxer, start, _before_tags(file, start, size))
    return None


# --- streams of frames, which have no header: mp3, ADTS and AC-3


def _frame(head: bytes) -> tuple[str, int, bytes] | None:
    """(kind, length in bytes, what stays the same from frame to frame) of the frame that begins here."""
    if len(head) < 7:
        return None
    if head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x18 != 0x08 and head[1] & 0x06 == 0x02:
        bit_rate, rate = head[2] >> 4, head[2] >> 2 & 3
        if not 0 < bit_rate < 15 or rate == 3:
            return None
        first = head[1] & 0x18 == 0x18  # MPEG 1
        kbps = (_MPEG1_KBPS if first else _MPEG2_KBPS)[bit_rate]
        hz = (44_100, 48_000, 32_000)[rate] >> {0x18: 0, 0x10: 1, 0x00: 2}[head[1] & 0x18]
        length = (144 if first else 72) * 1000 * kbps // hz + (head[2] >> 1 & 1)
        return "mp3", length, bytes([head[1] & 0x1E, head[2] & 0x0C])
    if head[0] == 0xFF and head[1] & 0xF6 == 0xF0 and (head[2] >> 2) & 0x0F < 13:
        length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
        return ("aac", length, bytes([head[1] & 0xF8, head[2] & 0xFD])) if length > 7 else None
    if head[:2] == b"\x0b\x77":
        if head[5] >> 3 > 10:
            return "eac3", 2 * ((head[2] & 7) << 8 | head[3]) + 2, bytes([head[5] >> 3])
        code = head[4] & 0x3F
        if code < 38 and head[4] >> 6 < 3:
            kbps = _AC3_KBPS[code >> 1]
            words = (2 * kbps, 320 * kbps // 147 + (code & 1), 3 * kbps)[head[4] >> 6]
            return "ac3", 2 * words, bytes([head[4] & 0xC0])
    return None


_MPEG1_KBPS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG2_KBPS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_AC3_KBPS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_SYNC = re.compile(rb"\xff[\xe0-\xff]|\x0b\x77")


def _by_frames(file: BinaryIO, start: int, size: int) -> Content | None:
    """Where the first frames in a row are: broken recordings begin with the rest of one, some writers with zeros."""
    end = _before_tags(file, start, size)
    junk = _read(file, start, _MAX_JUNK + 8)
    for match in _SYNC.finditer(junk):
        position = start + match.start()
        first = _frame(junk[match.start() : match.start() + 8])
        if first is None or not _continues(file, position, first, end):
            continue
        content = Content(first[0], first[0], position, end)
        if first[0] == "mp3":
            _read_mp3_header(file, content, first[1])
        content.cut = not _ends_whole(file, content)
        return content
    return None


def _is_free_format(data: bytes) -> bool:
    """Whether frames of MPEG layer III of an unstated length, which FFmpeg does not decode, follow each other here."""
    if len(data) < 4 or data[0] != 0xFF or data[1] & 0xE6 != 0xE2 or data[2] & 0xF0 or data[2] & 0x0C == 0x0C:
        return False
    rate = data[2] & 0x0C
    same = re.escape(data[:2]) + b"[" + re.escape(bytes([rate])) + b"-" + re.escape(bytes([rate + 3])) + b"]"
    places = {match.start() for match in re.finditer(same, data)}
    return any(2 * place + filling in places for place in places if place for filling in (-1, 0, 1))


def _ends_whole(file: BinaryIO, content: Content) -> bool:
    """Whether a frame ends where the file does, or zeros do."""
    start = max(content.start, content.end - 8192)
    tail = _read(file, start, content.end - start)
    if not tail[-16:].strip(b"\0"):
        return True
    ends = ((match.start(), _frame(tail[match.start() : match.start() + 8])) for match in _SYNC.finditer(tail))
    return any(frame is not None and at + frame[1] == len(tail) for at, frame in ends)


def _continues(file: BinaryIO, position: int, first: tuple[str, int, bytes], end: int) -> bool:
    """Whether two more frames follow, or the end. At the very start of a file the first one may be a damaged one."""
    kind, length, same = first
    for _ in range(2):
        position += length
        if position >= end:
            return True
        following = _frame(_read(file, position, 8))
        if following is None or following[0] != kind or following[2] != same:
            return end - position < 8
        length = following[1]
    return True


def _read_mp3_header(file: BinaryIO, content: Content, length: int) -> None:
    """The first frame may be none, but tell the encoder's delay and filling (LAME) and a number of frames (Xing).

    FFmpeg is not shown it, for it would believe it. The number is only good for telling that the filling ends the file.
    """
    frame = _read(file, content.start, length)
    content.delay = _MP3_DELAY
    at = max(frame.find(b"Xing", 0, 64), frame.find(b"Info", 0, 64))
    if at < 0:
        if frame[36:40] == b"VBRI":
            content.start += length
        return
    flags = int.from_bytes(frame[at + 4 : at + 8], "big")
    position = at + 8
    per_frame = 1152 if frame[1] & 0x18 == 0x18 else 576
    if flags & 1:
        count = int.from_bytes(frame[position : position + 4], "big")
        position += 4
        content.stated_frames = count * per_frame
    position += 4 * bool(flags & 2) + 100 * bool(flags & 4) + 4 * bool(flags & 8)
    lame = frame[position : position + 24]
    if len(lame) == 24 and lame[:4] in (b"LAME", b"Lavf", b"Lavc", b"GOGO"):
        both = int.from_bytes(lame[21:24], "big")
        content.delay = (both >> 12) + _MP3_DECODER_DELAY
        content.padding = max(0, (both & 0xFFF) - _MP3_DECODER_DELAY)
    if content.start + length < content.end:
        content.start += length


# --- tags


def _read(file: BinaryIO, position: int, count: int) -> bytes:
    if position >= 1 << 40:  # As a damaged header may have it.
        return b""
    file.seek(position)
    return file.read(count)


def _describe(head: bytes) -> str:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
        return "a web page or XML"
    if text.startswith(b"#extm3u"):
        return "a playlist"
    if head.startswith(b"PK\x03\x04"):
        return "a ZIP archive"
    if head and all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        return "text"
    return f"unknown data starting with {head[:8].hex(' ')}"


def _after_tags(file: BinaryIO, size: int) -> int:
    """Where the content starts, behind any ID3v2 and APE tags. The lengths of ID3 are four 7-bit bytes."""
    position = 0
    for _ in range(_MAX_TAGS):
        head = _read(file, position, 16)
        if head.startswith(b"ID3") and len(head) >= 10 and max(head[6:10]) <= 0x7F:
            length = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
            position += 10 + length + (10 if head[5] & 0x10 else 0)
        elif head.startswith(b"APETAGEX") and len(head) == 16:
            position += 32 + int.from_bytes(head[12:16], "little")
        else:
            return position
        if position >= size:
            raise NotTaken("empty", "a tag and no audio")
    raise NotTaken("corrupt", f"more than {_MAX_TAGS} tags in front of the audio")


def _before_tags(file: BinaryIO, start: int, size: int) -> int:
    """Where the content ends, before any ID3v1, Lyrics3 and APE tags."""
    end = size
    for _ in range(4):
        if end - start > 128 and _read(file, end - 128, 3) == b"TAG":
            end -= 128
            continue
        tail = _read(file, max(start, end - 32), 32)
        if tail.startswith(b"APETAGEX") and len(tail) == 32:
            whole = int.from_bytes(tail[12:16], "little") + (32 if tail[23] & 0x80 else 0)
            if whole < end - start:
                end -= whole
                continue
        if tail[-9:] == b"LYRICS200" and tail[-15:-9].isdigit() and int(tail[-15:-9]) + 15 < end - start:
            end -= int(tail[-15:-9]) + 15
            continue
        return end
    return end


# --- containers


def _wav(file: BinaryIO, start: int, size: int) -> Content:
    """Walk the chunks to the samples, and see whether what follows them are chunks too."""
    content = Content("wav", "wav", start, size)
    position, long_size, plain = start + 12, None, False
    for _ in range(_MAX_PARTS):
        head = _read(file, position, 8)
        if len(head) < 8:
            raise NotTaken("truncated" if position > size else "empty", "a WAV header without samples")
        name, length = head[:4], int.from_bytes(head[4:], "little")
        if name == b"ds64":
            long_size = int.from_bytes(_read(file, position + 16, 8), "little")
        if name == b"fmt ":
            plain = _is_plain(_read(file, position + 8, min(length, 40)))
        if name == b"data":
            there = size - position - 8
            if there <= 0:
                raise NotTaken("empty", "a WAV header without samples")
            if length == 0xFFFF_FFFF and long_size is not None:
                length = long_size
            elif length == 0 or length >= _UNKNOWN_LENGTH:
                content.options["ignore_length"] = "1"
                return content
            if length > there:
                content.stated_share = length / there
                return content
            if not _are_chunks(file, position + 8 + length, size):
                content.options["ignore_length"] = "1"
                return content
            content.exact = plain and start == 0
            return content
        position += 8 + length + length % 2
    raise NotTaken("corrupt", "too many chunks")


def _is_plain(fmt: bytes) -> bool:
    """Whether a `fmt ` chunk tells of one or two channels of samples that are as they are heard."""
    if len(fmt) < 16:
        return False
    tag, channels, bits = (int.from_bytes(fmt[at : at + 2], "little") for at in (0, 2, 14))
    if tag == 0xFFFE and len(fmt) >= 26:
        tag = int.from_bytes(fmt[24:26], "little")
    align = int.from_bytes(fmt[12:14], "little")
    return channels in (1, 2) and bits in _EXACT_BITS.get(tag, ()) and align == channels * bits // 8


def _are_chunks(file: BinaryIO, position: int, size: int) -> bool:
    """Whether all from here on are chunks of a WAV with no audio in them, or a few bytes of filling."""
    for _ in range(_MAX_PARTS):
        if size - position < 64:
            return True
        # Where a chunk has an odd length, not every writer adds the byte that makes it even.
        head = _read(file, position, 9)
        if position % 2 and head[0] == 0:
            head, position = head[1:], position + 1
        name = head[:4]
        if head.startswith(b"ID3") or head.startswith(b"TAG") or name == b"APET":
            return True
        if not re.fullmatch(rb"[ -~]{4}", name) or name in (b"RIFF", b"RF64", b"data"):
            return False
        length = int.from_bytes(head[4:8], "little")
        if length > size - position - 8:
            return False
        position += 8 + length
    return False


def _ogg(file: BinaryIO, start: int, size: int) -> Content:
    """The codec in the first page."""
    head = _read(file, start, 27)
    if len(head) < 27:
        raise NotTaken("truncated", "an Ogg page is cut")
    first = _read(file, start + 27 + head[26], 8)
    kind = next((kind for magic, kind in _OGG_CODECS if first.startswith(magic)), None)
    if kind is None:
        raise NotTaken("unsupported_format", "an Ogg stream that starts with neither Opus nor Vorbis")
    return Content(kind, "ogg", start, _before_tags(file, start, size))


def _walk_boxes(file: BinaryIO, content: Content) -> None:
    """The top-level boxes of an MP4 file: whether the last one ends behind the file's end, and whether a second file
    begins."""
    position, size = content.start, content.end
    for _ in range(_MAX_PARTS):
        head = _read(file, position, 16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        # A box of length 0 goes to the end; anything else is filling, a tag or junk.
        if len(head) < 8 or length < 8 or not re.fullmatch(rb"[ -~\xa9]{4}", head[4:8]):
            return
        content.cut = position + length > size
        content.joined = content.joined or (head[4:8] == b"ftyp" and position > content.start)
        position += length
    raise NotTaken("corrupt", "too many MP4 boxes")


def _walk_asf(file: BinaryIO, content: Content) -> None:
    """The objects of an ASF file: whether the last one ends behind the file's end, and whether a second file begins."""
    position = content.start
    for _ in range(_MAX_PARTS):
        head = _read(file, position, 24)
        length = int.from_bytes(head[16:24], "little")
        content.joined = content.joined or (position > content.start and head.startswith(_ASF))
        if len(head) < 24 or length < 24 or (head.startswith(_ASF_DATA) and length == 50):  # A live recording
            return
        content.cut = position + length > content.end
        position += length
    raise NotTaken("corrupt", "too many ASF objects")


@dataclass(frozen=True)
class _Chunks:
    """How a container of chunks is written. name, length: bytes of these in a chunk's head; inclusive: the length
    counts the head; whole: where the length of all lies, None for nowhere; first: where the first chunk begins."""

    name: int
    length: int
    order: Literal["big", "little"]
    align: int
    inclusive: bool
    whole: int | None
    first: int
    audio: bytes

    @property
    def head(self) -> int:
        return self.name + self.length


_AIFF = _Chunks(4, 4, "big", 2, False, 4, 12, b"SSND")
_CAF = _Chunks(4, 8, "big", 1, False, None, 8, b"data")
_WAVE64 = _Chunks(16, 8, "little", 8, True, 16, 40, b"data")


def _chunked(file: BinaryIO, content: Content, form: _Chunks) -> Content:
    """Find the chunk of samples, and see whether its length can be."""
    position, size, unknown = content.start + form.first, content.end, (1 << 8 * form.length) - 1024
    for _ in range(_MAX_PARTS):
        head = _read(file, position, form.head)
        if len(head) < form.head:
            raise NotTaken("truncated" if position > size else "empty", "a header without samples")
        length = int.from_bytes(head[form.name :], form.order) - form.head * form.inclusive
        there = size - position - form.head
        if head[: len(form.audio)] != form.audio:
            if length < 0:
                raise NotTaken("corrupt", "a chunk without a length")
            position += form.head + length + -length % form.align
            continue
        if length <= 0 or length >= unknown >> 1:
            if form.whole is not None:
                open_length = there + form.head * form.inclusive
                content.patches[position + form.name] = open_length.to_bytes(form.length, form.order)
                content.patches[form.whole] = (size - content.start - 8).to_bytes(form.length, form.order)
        elif length > there:
            content.stated_share = length / max(there, 1)
        elif size > (end := position + form.head + length + -length % form.align) + 64:
            following = _read(file, end, 4)
            content.joined = following in (b"FORM", b"caff", b"riff") or not re.fullmatch(rb"[ -~]{4}", following)
        return content
    raise NotTaken("corrupt", "too many chunks")


def _segment_is_cut(file: BinaryIO, start: int, size: int) -> bool:
    """Whether a Matroska segment that states its length ends behind the file's end; live recordings state none."""
    length, width = _vint(_read(file, start + 4, 8))
    position = start + 4 + width + length
    head = _read(file, position, 12)
    if len(head) < 5:
        raise NotTaken("truncated", "a webm header without content")
    if not head.startswith(b"\x18\x53\x80\x67"):
        raise NotTaken("corrupt", "no Matroska segment")
    length, width = _vint(head[4:])
    unknown = length == (1 << 7 * width) - 1
    # What follows a segment, such as another one, FFmpeg goes on with.
    return not unknown and position + 4 + width + length > size


def _vint(data: bytes) -> tuple[int, int]:
    """An EBML number and how many bytes it takes."""
    if not data or data[0] == 0:
        raise NotTaken("corrupt", "a damaged webm header")
    width = 9 - data[0].bit_length()
    return int.from_bytes(data[:width], "big") & ((1 << 7 * width) - 1), width
