"""What an uploaded file is, told by its own bytes, and whether all of it is there. Nothing is decoded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

# Kinds that are named in the refusal, because people do send them.
_OTHER_KINDS = (
    (b"FORM", "AIFF"),
    (b"caff", "CAF"),
    (b".snd", "AU"),
    (b"#!AMR", "AMR"),
    (b"MThd", "MIDI"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "WMA"),
    (b"wvpk", "WavPack"),
    (b"MAC ", "Monkey's Audio"),
    (b"riff", "Wave64"),
)
# Writers that cannot seek back put one of these where a length belongs.
_UNKNOWN_LENGTH = 0x7FFF_F000
_MAX_PARTS = 500_000


class NotTaken(Exception):
    """The file is refused. reason: not_audio, unsupported_format, empty, truncated or corrupt; found:
    JSON-ready."""

    def __init__(self, reason: str, found: str | int) -> None:
        super().__init__(reason, found)
        self.reason = reason
        self.found = found


def sniff(file: BinaryIO) -> str:
    """The kind of an open file: wav, flac, mp3, vorbis, opus, m4a, aac or webm. Raises NotTaken."""
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise NotTaken("empty", 0)
    start = _after_id3(file, size)
    head = _read(file, start, 64)
    tagged = start > 0
    if head.startswith(b"fLaC"):
        return "flac"
    if _is_mp3_frame(head):
        return "mp3"
    if _is_adts_frame(head):
        return "aac"
    if tagged:
        raise NotTaken("not_audio" if head.strip(b"\0") else "empty", "an ID3 tag without MP3 audio behind it")
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        _check_wav(file, size)
        return "wav"
    if head.startswith(b"OggS"):
        return _ogg_kind(file, size)
    if head[4:8] == b"ftyp":
        _check_boxes(file, size)
        return "m4a"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        _check_segment(file, size)
        return "webm"
    for magic, name in _OTHER_KINDS:
        if head.startswith(magic):
            raise NotTaken("unsupported_format", name)
    raise NotTaken("not_audio", _describe(head))


def mp3_states_its_length(file: BinaryIO) -> bool:
    """Whether the first frame is a Xing or Info tag; without one a length is a guess from the bit rate."""
    head = _read(file, _after_id3(file, os.fstat(file.fileno()).st_size), 64)
    return b"Xing" in head or b"Info" in head


def _read(file: BinaryIO, position: int, count: int) -> bytes:
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


def _after_id3(file: BinaryIO, size: int) -> int:
    """Where the content starts, behind any ID3v2 tags; their lengths are four 7-bit bytes."""
    position = 0
    while True:
        head = _read(file, position, 10)
        if len(head) < 10 or not head.startswith(b"ID3") or max(head[6:10]) > 0x7F:
            return position
        length = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        position += 10 + length + (10 if head[5] & 0x10 else 0)
        if position >= size:
            raise NotTaken("empty", "an ID3 tag and no audio")


def _is_mp3_frame(head: bytes) -> bool:
    # Frame sync, a known version, layer III, a bit rate and a sample rate that exist.
    return (
        len(head) >= 4
        and head[0] == 0xFF
        and head[1] & 0xE0 == 0xE0
        and head[1] & 0x18 != 0x08
        and head[1] & 0x06 == 0x02
        and 0 < head[2] >> 4 < 15
        and head[2] & 0x0C != 0x0C
    )


def _is_adts_frame(head: bytes) -> bool:
    return len(head) >= 7 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 and (head[2] >> 2) & 0x0F < 13


def _check_wav(file: BinaryIO, size: int) -> None:
    """Walk the chunks to the samples, and see that as many bytes follow as the chunk says."""
    position, long_size = 12, None
    for _ in range(_MAX_PARTS):
        head = _read(file, position, 8)
        if len(head) < 8:
            raise NotTaken("truncated" if position > size else "empty", "a WAV header without samples")
        name, length = head[:4], int.from_bytes(head[4:], "little")
        if name == b"ds64":
            long_size = int.from_bytes(_read(file, position + 16, 8), "little")
        if name == b"data":
            there = size - position - 8
            if length == 0xFFFF_FFFF and long_size is not None:
                length = long_size
            elif length >= _UNKNOWN_LENGTH:
                length = there
            if length == 0 or there == 0:
                raise NotTaken("empty", "a WAV header without samples")
            if there < length:
                raise NotTaken("truncated", f"{there} of {length} bytes of samples")
            return
        position += 8 + length + length % 2
    raise NotTaken("corrupt", "too many chunks")


def _ogg_kind(file: BinaryIO, size: int) -> str:
    """The codec in the first page; every page of the file has to be whole."""
    first = b""
    for index, (position, head, length) in enumerate(_ogg_pages(file)):
        if position + length > size:
            raise NotTaken("truncated", f"the last of {index + 1} Ogg pages is cut")
        if index == 0:
            first = _read(file, position + 27 + head[26], 8)
    if first.startswith(b"OpusHead"):
        return "opus"
    if first.startswith(b"\x01vorbis"):
        return "vorbis"
    raise NotTaken("unsupported_format", "an Ogg stream that starts with neither Opus nor Vorbis")


def _ogg_pages(file: BinaryIO) -> Iterator[tuple[int, bytes, int]]:
    position = 0
    for _ in range(_MAX_PARTS):
        head = _read(file, position, 27)
        if not head.startswith(b"OggS"):
            return
        if len(head) < 27:
            raise NotTaken("truncated", "an Ogg page is cut")
        table = file.read(head[26])
        length = 27 + head[26] + sum(table)
        yield position, head, length
        position += length


def _check_boxes(file: BinaryIO, size: int) -> None:
    """The top-level boxes of an MP4 file have to lie inside the file."""
    position = 0
    for _ in range(_MAX_PARTS):
        if position == size:
            return
        head = _read(file, position, 16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:
            return
        if len(head) < 8 or position + length > size:
            raise NotTaken("truncated", f"{size - position} of {length} bytes of an MP4 box")
        if length < 8:
            raise NotTaken("corrupt", "an MP4 box without a length")
        position += length
    raise NotTaken("corrupt", "too many MP4 boxes")


def _check_segment(file: BinaryIO, size: int) -> None:
    """A Matroska segment that states its length has to lie inside the file; live recordings state none."""
    length, width = _vint(_read(file, 4, 8))
    position = 4 + width + length
    head = _read(file, position, 12)
    if len(head) < 5:
        raise NotTaken("truncated", "a webm header without content")
    if not head.startswith(b"\x18\x53\x80\x67"):
        raise NotTaken("corrupt", "no Matroska segment")
    length, width = _vint(head[4:])
    unknown = length == (1 << 7 * width) - 1
    end = position + 4 + width + length
    if not unknown and end > size:
        raise NotTaken("truncated", f"{size} of {end} bytes")


def _vint(data: bytes) -> tuple[int, int]:
    """An EBML number and how many bytes it takes."""
    if not data or data[0] == 0:
        raise NotTaken("corrupt", "a damaged webm header")
    width = 9 - data[0].bit_length()
    return int.from_bytes(data[:width], "big") & ((1 << 7 * width) - 1), width
