"""Uploaded files: forms that bring them, and what their names are good for."""

from __future__ import annotations

import re
import unicodedata
import urllib.parse
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig, TooManyFieldsSent, TooManyFilesSent
from django.core.files.uploadhandler import StopFutureHandlers
from django.http import QueryDict
from django.utils.datastructures import MultiValueDict
from python_multipart.decoders import Base64Decoder
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser, DataAndFiles

from voiceproject.web.names import tidy

MAX_TITLE = 200
# 255 characters of four bytes each, percent-encoded, and again in another spelling.
MAX_HEADER_BYTES = 16 * 1024
MAX_BOUNDARY_BYTES = 200
BLOCK_BYTES = 64 * 1024
# A part without a name for its file is a field, unless so much of it shows that it is no text.
LOOK_BYTES = 512
_QUOTED_NAME = re.compile(rb';\s*filename\s*=\s*"(.*?)"\s*(?:;\s*[\w*]+\s*=|$)', re.DOTALL | re.IGNORECASE)


def upload_path(upload: Any) -> Path:
    """The temporary file that Django has written an upload to: always a file, never memory (FILE_UPLOAD_HANDLERS)."""
    return Path(upload.temporary_file_path())


def title_of(upload: Any) -> str:
    """What an upload may be called, of its own name: at most 200 characters, nothing that a page or a path minds; empty
    where nothing is left. Decides nothing."""
    return clean_title(getattr(upload, "client_name", getattr(upload, "name", None)) or "")


def clean_title(name: str) -> str:
    parts = [part for part in re.split(r"[/\\]", unicodedata.normalize("NFC", name)) if part.strip(". ")]
    name = re.sub(r"\.(?:[A-Za-z][A-Za-z0-9]{1,4}|3gpp?|3g2)$", "", parts[-1]) if parts else ""
    return tidy(name).strip(". ")[:MAX_TITLE].strip()


class MultiPartParser(BaseParser):
    """multipart/form-data into Django's upload handlers, with the limits of Django's own parser.

    That one drops parts whose names it does not like, and refuses heads of more than a kilobyte. Here no name refuses
    anything: the files' own is "upload", what the client said is their `client_name`.
    """

    media_type = "multipart/form-data"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> DataAndFiles:
        request = parser_context["request"]
        if not int(request.META.get("CONTENT_LENGTH") or 0):
            return DataAndFiles(QueryDict(), MultiValueDict())
        boundary = parse_options_header(media_type or "")[1].get(b"boundary", b"")
        if not re.fullmatch(rb"[ -~]{0,199}[!-~]", boundary):
            raise ParseError("Multipart form parse error - Invalid boundary in multipart")
        limit = getattr(parser_context.get("view"), "max_files", None) or settings.DATA_UPLOAD_MAX_NUMBER_FILES
        form = _Form(request.upload_handlers, limit)
        parser = MultipartParser(boundary, form.callbacks(), max_header_size=MAX_HEADER_BYTES)
        try:
            while block := stream.read(BLOCK_BYTES):
                parser.write(block)
            if not form.whole:
                raise ParseError("Multipart form parse error - The form breaks off before its last boundary")
            for handler in request.upload_handlers:
                handler.upload_complete()
        except FormParserError as error:
            form.interrupt()
            raise ParseError(f"Multipart form parse error - {error}") from None
        except BaseException:
            form.interrupt()
            raise
        return DataAndFiles(form.fields, form.files)


class _Form:
    """The parts of one form, as they are found."""

    def __init__(self, handlers: Any, max_files: int) -> None:
        self._max_files = max_files
        self.fields: Any = QueryDict(mutable=True)
        self.files: MultiValueDict[str, Any] = MultiValueDict()
        self.whole = False
        self._handlers = handlers
        self._files = self._count = self._bytes = 0
        self._part: _Part | None = None
        self._name, self._value = b"", b""

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def interrupt(self) -> None:
        for handler in self._handlers:
            handler.upload_interrupted()
        for _, files in self.files.lists():
            for file in files:
                file.close()

    def _begin(self) -> None:
        self._part = _Part()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        assert self._part is not None
        self._part.headers[self._name.decode("latin-1").lower()] = self._value
        self._name, self._value = b"", b""

    def _headers_finished(self) -> None:
        assert self._part is not None
        self._part.read_headers()
        if self._part.encoding == "base64":
            self._part.decoder = Base64Decoder(_Sink(self._take))

    def _data(self, data: bytes, start: int, end: int) -> None:
        assert self._part is not None
        if self._part.decoder is None:
            self._take(data[start:end])
        else:
            self._part.decoder.write(data[start:end])

    def _take(self, data: bytes) -> None:
        part = self._part
        assert part is not None
        if part.field is None:
            return
        if part.is_file:
            self._to_handlers(part, data)
            return
        part.held += data
        if part.guessed and len(part.held) >= LOOK_BYTES:
            self._decide(part)
        elif self._bytes + len(part.held) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            raise RequestDataTooBig("Request body exceeded settings.DATA_UPLOAD_MAX_MEMORY_SIZE.")

    def _decide(self, part: _Part) -> None:
        part.guessed = False
        if is_binary(part.held[:LOOK_BYTES]):
            held, part.held, part.is_file = bytes(part.held), bytearray(), True
            self._to_handlers(part, held)

    def _to_handlers(self, part: _Part, data: bytes) -> None:
        if not part.counters:
            if not data:
                return
            self._open(part)
        chunk: bytes | None = data
        for index, handler in enumerate(self._handlers):
            if chunk is None:
                break
            length = len(chunk)
            chunk = handler.receive_data_chunk(chunk, part.counters[index])
            part.counters[index] += length

    def _open(self, part: _Part) -> None:
        self._files += 1
        if self._files > self._max_files:
            raise TooManyFilesSent("The number of files exceeded settings.DATA_UPLOAD_MAX_NUMBER_FILES.")
        part.counters = [0] * len(self._handlers)
        for handler in self._handlers:
            try:
                handler.new_file(part.field, "upload", part.content_type, None, None, {})
            except StopFutureHandlers:
                break

    def _end(self) -> None:
        part, self._part = self._part, None
        if part is None or part.field is None:
            return
        field = part.field
        if part.decoder is not None:
            self._part = part
            part.decoder.finalize()
            self._part = None
        if part.guessed:
            self._decide(part)
        if part.is_file:
            if not part.counters:
                if not part.filename:
                    return  # A browser's input that nobody has filled.
                self._open(part)
            self._close(part)
            return
        self._bytes += len(part.held) + len(part.field) + 2
        if self._bytes > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            raise RequestDataTooBig("Request body exceeded settings.DATA_UPLOAD_MAX_MEMORY_SIZE.")
        self.fields.appendlist(field, part.held.decode("utf-8", errors="replace"))
        self._count += 1
        if self._count > settings.DATA_UPLOAD_MAX_NUMBER_FIELDS:
            raise TooManyFieldsSent("The number of GET/POST parameters exceeded DATA_UPLOAD_MAX_NUMBER_FIELDS.")

    def _close(self, part: _Part) -> None:
        for index, handler in enumerate(self._handlers):
            if (file := handler.file_complete(part.counters[index])) is not None:
                file.client_name = part.filename
                self.files.appendlist(str(part.field), file)
                return

    def _finish(self) -> None:
        self.whole = True


class _Part:
    """field: its name, None where it has none; guessed: it has no name of a file and may be one all the same."""

    def __init__(self) -> None:
        self.headers: dict[str, bytes] = {}
        self.field: str | None = None
        self.filename = self.content_type = self.encoding = ""
        self.is_file = self.guessed = False
        self.held = bytearray()
        self.counters: list[int] = []
        self.decoder: Any = None

    def read_headers(self) -> None:
        disposition = self.headers.get("content-disposition", b"")
        _, options = parse_options_header(disposition)
        if b"name" in options:
            self.field = options[b"name"].strip().decode("utf-8", errors="replace")
        self.content_type = parse_options_header(self.headers.get("content-type", b""))[0].decode("latin-1")
        self.encoding = self.headers.get("content-transfer-encoding", b"").strip().lower().decode("latin-1")
        extended = re.search(rb";\s*filename\*\s*=\s*\"?([^;\"]*)", disposition, re.IGNORECASE)
        self.is_file = b"filename" in options or extended is not None
        if extended is not None:
            charset, _, encoded = extended[1].strip().partition(b"'")
            data = urllib.parse.unquote_to_bytes(encoded.partition(b"'")[2])
            self.filename = data.decode("latin-1") if charset.lower() == b"iso-8859-1" else as_text(data)
        elif self.is_file:
            # A path of Windows may end in a backslash, which then is no escape of the quote behind it.
            quoted = _QUOTED_NAME.search(disposition)
            name = re.sub(rb'\\(["\\])', rb"\1", quoted[1]) if quoted else options[b"filename"]
            # Browsers write these three as percent codes, and nothing else.
            for code, character in ((b"%22", b'"'), (b"%0D", b"\r"), (b"%0A", b"\n")):
                name = name.replace(code, character)
            self.filename = as_text(name)
        typed = self.content_type and not self.content_type.startswith(("text/", "application/json"))
        self.is_file = self.is_file or bool(typed)
        self.guessed = not self.is_file


class _Sink:
    """What a decoder writes to."""

    def __init__(self, take: Any) -> None:
        self._take = take

    def write(self, data: bytes) -> int:
        self._take(data)
        return len(data)

    def finalize(self) -> None:
        pass


def is_binary(data: bytes | bytearray) -> bool:
    """Whether these first bytes are no text; a stray null byte in a text is not enough."""
    try:
        data[: len(data) - 3].decode()
        return data.count(0) >= 4
    except UnicodeDecodeError:
        return any(byte < 9 for byte in data)


def as_text(name: bytes) -> str:
    """A file's name, of which nobody says how it is encoded: UTF-8, or what old programs of Windows send."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        pass
    try:
        japanese = name.decode("cp932")
    except UnicodeDecodeError:
        return name.decode("latin-1")
    others = [character for character in japanese if ord(character) > 0x7F]
    readable = all(0x3000 <= ord(character) <= 0x9FFF or 0xFF00 <= ord(character) <= 0xFF5E for character in others)
    return japanese if readable else name.decode("latin-1")
