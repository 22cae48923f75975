"""What all API views share: content negotiation, limits on bodies, strict forms, downloads with ranges."""

from __future__ import annotations

import base64
import contextlib
import copy
import hashlib
import re
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from datetime import UTC
from difflib import get_close_matches
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from django.conf import settings
from django.db.models.fields.files import FieldFile
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.dateparse import parse_datetime
from django.utils.http import parse_etags
from django.utils.translation import gettext_noop
from rest_framework import pagination, serializers
from rest_framework.exceptions import NotFound, ParseError
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import JSONParser
from rest_framework.request import Request
from rest_framework.validators import ProhibitSurrogateCharactersValidator

from voiceproject.errors import UNKNOWN_FIELD, PublicError
from voiceproject.media.storage import presigned_url, read_blocks
from voiceproject.web import slots
from voiceproject.web.names import attachment
from voiceproject.web.streams import BodyWanted

# Room for the form fields and the part headers around the files.
FORM_OVERHEAD_BYTES = 1024 * 1024


class IgnoreAccept(BaseContentNegotiation):
    """`Accept` never refuses anything: errors are JSON, audio is audio."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        from rest_framework.negotiation import DefaultContentNegotiation

        return DefaultContentNegotiation().select_parser(request, parsers)

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


class BoundedJSONParser(JSONParser):
    """JSON; a text of nothing but brackets is malformed, not a crash."""

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            return super().parse(stream, media_type, parser_context)
        except RecursionError:
            raise ParseError("JSON parse error - nested too deeply") from None
        except ParseError as error:
            cause = error.__context__
            if isinstance(cause, UnicodeDecodeError):
                raise ParseError("JSON parse error - not UTF-8") from None
            if isinstance(cause, ValueError) and "integer string conversion" in str(cause):
                raise ParseError("JSON parse error - a number has too many digits") from None
            raise


def refuse_compressed(request: HttpRequest | Request) -> None:
    """Bodies are read as they come, and a compressed one would be found malformed. Raises PublicError."""
    encoding = request.META.get("HTTP_CONTENT_ENCODING", "").strip()
    if encoding.lower() not in ("", "identity") and request.method not in ("GET", "HEAD", "OPTIONS"):
        message = f"The body is compressed (Content-Encoding: {encoding[:50]}). Send it as it is, without that header."
        raise PublicError("unsupported_media_type", message)


class BodyUnread(Exception):
    """All is well with the head of a request, and its body has not been read."""


class BodyLimitMixin:
    """A view's mixin: after authentication and before the body is parsed, its length is checked.

    Where only the head is there, that is all: see voiceproject.server.edge.

    `max_body_bytes`: what all files of the request may weigh together; None takes MAX_UPLOAD_SIZE. Only multipart
    bodies bring files, and are read to the disk. JSON and URL-encoded forms are parsed in memory, where JSON becomes
    many times as large: they may have what a form's fields may have. `max_plain_bytes`: of other bodies, if that
    is more.

    `at_desk`: it computes for as long as many others might at the same time (voiceproject.web.slots.desk).
    """

    max_body_bytes: int | None = None
    max_plain_bytes = 0
    at_desk = False

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        with contextlib.ExitStack() as self._places:
            return super().dispatch(request, *args, **kwargs)  # type: ignore[misc]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)  # type: ignore[misc]
        refuse_compressed(request)
        files = self.get_max_body_bytes() if request.content_type.lower().startswith("multipart/") else 0
        limit = files + FORM_OVERHEAD_BYTES
        if not files and "json" not in request.content_type.lower():
            limit = max(limit, self.max_plain_bytes)
        found = int(request.META.get("CONTENT_LENGTH") or 0)
        if found > limit and not files:
            message = f"The request has {found} bytes; only multipart/form-data may have more than {limit}."
            raise PublicError("file_too_large", message, {"limit": limit, "found": found})
        if found > limit:
            raise PublicError(
                "file_too_large",
                f"The request has {found} bytes; its files may have {files} together.",
                {"limit": files, "found": found},
            )
        if getattr(request._request, "head_only", False):
            if not hasattr(self, str(request.method).lower()):
                self.http_method_not_allowed(request)  # type: ignore[attr-defined]
            request._request.body_limit = limit  # type: ignore[attr-defined]
            raise BodyUnread
        if self.at_desk and request.user.pk is not None:
            self._places.enter_context(slots.desk.seat(request.user.pk))

    def handle_exception(self, exc: Exception) -> Any:
        if isinstance(exc, BodyUnread):
            return BodyWanted()
        return super().handle_exception(exc)  # type: ignore[misc]

    def get_max_body_bytes(self) -> int:
        return self.max_body_bytes or settings.MAX_UPLOAD_SIZE


def client_gone(request: Request) -> threading.Event | None:
    """Set when who waits for the answer has hung up; None where the server does not tell."""
    return getattr(request._request, "client_gone", None)


def warning_headers(messages: Iterable[str]) -> dict[str, str]:
    """X-Warning of an answer that is no JSON: printable ASCII, 1000 characters at most; no header without a message."""
    text = " ".join(messages).encode("ascii", "backslashreplace").decode()[:1000]
    return {"X-Warning": text} if text else {}


def preferences(request: Request) -> dict[str, str]:
    """The `Prefer` header (RFC 7240): names in lower case -> values; parameters behind a `;` are left out."""
    found: dict[str, str] = {}
    for part in request.headers.get("Prefer", "").split(","):
        name, _, value = part.partition(";")[0].partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))
    found.pop("", None)
    return found


class _AnyCase(dict):
    """Choices by their names, in capitals or not."""

    def __missing__(self, name: str) -> Any:
        wanted = name.strip().casefold()
        for known, value in self.items():
            if known.casefold() == wanted:
                return value
        raise KeyError(name)


def tell_choices(field: serializers.Field) -> None:
    """Takes a choice in any case; a refusal lists them all, which REST framework's "is not a valid choice" does not."""
    if isinstance(field, serializers.ChoiceField):
        field.choice_strings_to_values = _AnyCase(field.choice_strings_to_values)
        choices = ", ".join(str(choice) for choice in field.choices).replace("{", "{{").replace("}", "}}")
        field.error_messages["invalid_choice"] = f'"{{input}}" is not one of: {choices}.'


def _copy(field: serializers.Field) -> serializers.Field:
    """As `copy.copy`, in a fifth of the time."""
    made: serializers.Field = object.__new__(type(field))
    vars(made).update(vars(field))
    return made


class StrictSerializer(serializers.Serializer):
    """Refuses what it does not know: an unknown field, a field sent twice, a field that is not served yet.

    `not_yet`: fields of the API that this server does not offer, with what to do instead.
    """

    not_yet: dict[str, str] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for field in cls._declared_fields.values():
            tell_choices(field)

    def get_fields(self) -> dict[str, Any]:
        # REST framework makes each field anew, from its arguments, for each request. A copy will do, since nobody
        # changes a field's validators and messages; those that hold other fields are still made anew.
        fields = {
            name: copy.deepcopy(field)
            if isinstance(field, serializers.BaseSerializer) or hasattr(field, "child")
            else _copy(field)
            for name, field in self._declared_fields.items()
        }
        for field in fields.values():
            if hasattr(field, "child"):
                tell_choices(field.child)
        return fields

    def unknown(self, name: str) -> str:
        """That nothing has this name, and which name may have been meant."""
        known = [known for known, field in self.fields.items() if not field.read_only]
        near = get_close_matches(name.lower(), known, n=1) or [it for it in known if name and name.lower() in it]
        advice = f" Did you mean {near[0]}?" if near else ""
        return f"{UNKNOWN_FIELD}{name[:100]}.{advice} Known fields: {', '.join(known)}."

    def to_internal_value(self, data: Any) -> Any:
        if not hasattr(data, "keys"):
            raise serializers.ValidationError(
                {"non_field_errors": ["The body is not a JSON object. Send one, or form fields."]}
            )
        if hasattr(data, "getlist") and len(data) == 1 and next(iter(data)).lstrip().startswith("{"):
            message = "The body is JSON, and was sent as a form. Send it with Content-Type: application/json."
            raise serializers.ValidationError({"non_field_errors": [message]})
        errors: dict[str, list[str]] = {}
        for name in data:
            if name in self.not_yet:
                errors[name] = [self.not_yet[name]]
            elif name not in self.fields or self.fields[name].read_only:
                errors[str(name)[:100]] = [self.unknown(str(name))]
            elif (
                hasattr(data, "getlist")
                and len(data.getlist(name)) > 1
                and not isinstance(self.fields[name], serializers.ListField)
            ):
                errors[name] = ["Sent more than once; send it once."]
        try:
            fields = super().to_internal_value(data)
        except serializers.ValidationError as error:
            # Unknown ones first: a misspelt name is why another one is missing.
            raise serializers.ValidationError({**errors, **(error.detail | errors)}) from None  # type: ignore[operator]
        if errors:
            raise serializers.ValidationError(errors)
        return fields


class SizedFileField(serializers.FileField):
    """An upload of at most `max_bytes`; the content is judged later, by decoding it."""

    def __init__(self, *, max_bytes_setting: str, **kwargs: Any) -> None:
        self.max_bytes_setting = max_bytes_setting
        super().__init__(allow_empty_file=True, use_url=False, **kwargs)

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, str):
            raise serializers.ValidationError(
                "This is no file. Send one as multipart/form-data with a file name, as curl does with -F "
                f"{self.field_name}=@FILE."
            )
        limit = getattr(settings, self.max_bytes_setting)
        size = getattr(data, "size", 0) or 0
        if size > limit:
            raise PublicError(
                "file_too_large",
                f"{self.field_name} has {size} bytes; at most {limit} are taken.",
                {"field": self.field_name, "limit": limit, "found": size},
            )
        return super().to_internal_value(data)


class TextField(serializers.CharField):
    """Text of people: null bytes, lone surrogates and other control characters are refused, spaces are stripped."""

    CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # It asks of each character what CONTROL has asked of all at once.
        self.validators = [one for one in self.validators if not isinstance(one, ProhibitSurrogateCharactersValidator)]

    def to_internal_value(self, data: Any) -> str:
        if isinstance(data, str) and self.CONTROL.search(data):
            raise serializers.ValidationError("Contains control characters, such as a null byte.")
        return super().to_internal_value(data)


class CursorPages(pagination.CursorPagination):
    """Newest first; `next` and `previous` are URLs to follow."""

    ordering = ("-created_at", "-id")
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 200
    cursor_query_description = "Where to go on; taken from `next` or `previous` of another page."

    def decode_cursor(self, request: Request) -> Any:
        try:
            cursor = super().decode_cursor(request)
            if cursor is not None and cursor.position is not None:
                self.check_position(str(cursor.position))
        except (NotFound, ValueError, OverflowError):
            message = "Take it from `next` or `previous` of another page."
            raise PublicError("validation_error", f"cursor: {message}", {"cursor": [message]}) from None
        return cursor

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        # REST framework's own says `nullable`, which OpenAPI 3.1 does not know: a generated client refused null.
        link = {"type": ["string", "null"], "format": "uri"}
        return {
            "type": "object",
            "required": ["next", "previous", "results"],
            "properties": {"next": link, "previous": link, "results": schema},
        }

    @staticmethod
    def check_position(position: str) -> None:
        """Raises ValueError or OverflowError for what was not taken from a page."""
        at = parse_datetime(position)
        if at is None:
            raise ValueError
        at.astimezone(UTC)


class CursorPagesById(CursorPages):
    """For rows whose time of creation is the database's: SQLite's has less digits than what it is compared with.

    The number of a row counts all tenants' rows, so a cursor has it encrypted.
    """

    ordering = ("-id",)  # type: ignore[assignment]

    @staticmethod
    def _cipher() -> AESSIV:
        return AESSIV(hashlib.sha512(b"cursor of a page" + settings.SECRET_KEY.encode()).digest())

    def encode_cursor(self, cursor: Any) -> str:
        if cursor.position is not None:
            sealed = self._cipher().encrypt(int(cursor.position).to_bytes(8), None)
            cursor = cursor._replace(position=base64.urlsafe_b64encode(sealed).decode())
        return str(super().encode_cursor(cursor))

    def decode_cursor(self, request: Request) -> Any:
        cursor = super().decode_cursor(request)  # Which opens the seal to check what is under it.
        if cursor is not None and cursor.position is not None:
            cursor = cursor._replace(position=str(self._opened(cursor.position)))
        return cursor

    @classmethod
    def _opened(cls, position: str) -> int:
        """Raises ValueError for what was not sealed here."""
        try:
            return int.from_bytes(cls._cipher().decrypt(base64.urlsafe_b64decode(position), None))
        except InvalidTag:
            raise ValueError from None

    @classmethod
    def check_position(cls, position: str) -> None:
        cls._opened(position)


def file_response(
    request: HttpRequest,
    stored: FieldFile,
    *,
    content_type: str,
    filename: str,
    plain: str = "download",
    tenant: int | None = None,
) -> HttpResponseBase:
    """A stored file with `Range` (206, 416), `If-Range`, `ETag` and `If-None-Match`, as RFC 9110 has them.

    filename, plain: as `attachment` takes them. tenant: whose download it is, where the request has no key. One range
    is served; of several the whole file is sent, as the RFC allows. Raises PublicError result_expired,
    range_not_satisfiable, too_many_waiting.
    """
    name = str(stored.name)
    try:
        size = stored.size
    except FileNotFoundError:
        raise PublicError("result_expired", gettext_noop("The file was deleted after its time.")) from None
    etag = f'"{name.rsplit("/", 1)[-1]}-{size:x}"'  # A name holds the attempt and is never written twice.
    disposition = attachment(filename, plain)
    # Our own pages may load nothing from elsewhere, and a script's key would go along to the bucket.
    own_page = request.headers.get("Sec-Fetch-Site") == "same-origin"
    if settings.STORAGE_PRESIGNED_REDIRECTS and not own_page:
        url = presigned_url(stored.storage, name, content_type, disposition)
        if url is not None:
            return HttpResponse(status=307, headers={"Location": url, "Cache-Control": "private, no-store"})
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Cache-Control": "private, no-transform",
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": disposition,
    }
    known = request.headers.get("If-None-Match", "")
    if known and (known.strip() == "*" or etag in [tag.removeprefix("W/") for tag in parse_etags(known)]):
        unchanged = HttpResponse(status=304, headers=headers)
        del unchanged["Content-Type"]  # A cache would take it over for what it has.
        return unchanged
    wanted = request.headers.get("Range", "")
    if request.headers.get("If-Range", etag) != etag:
        wanted = ""
    start, stop, status = 0, size, 200
    match = re.fullmatch(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", wanted)
    if match and (match[1] or match[2]):
        if match[1]:
            start, stop = int(match[1]), min(int(match[2]) + 1, size) if match[2] else size
            valid = match[2] == "" or int(match[2]) >= int(match[1])
        else:
            start, valid = max(0, size - int(match[2])), int(match[2]) > 0
        if (valid and start >= size) or (not match[1] and not valid):
            error = PublicError("range_not_satisfiable", f"The file has {size} bytes.", {"size": size})
            error.headers = {"Content-Range": f"bytes */{size}"}
            raise error
        if valid:
            status = 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        else:
            start, stop = 0, size
    headers["Content-Length"] = str(stop - start)
    if request.method == "HEAD":
        return HttpResponse(status=status, headers=headers, content_type=content_type)
    blocks = read_blocks(stored.storage, name, start, stop - start)
    if tenant is None:
        known_as = getattr(request, "credentials", None)
        tenant = known_as[0].pk if known_as else request.user.pk
    body = _Download(blocks, slots.downloads.take(tenant))
    return StreamingHttpResponse(body, status=status, headers=headers, content_type=content_type)


class _Download:
    """The blocks of a file, and its place among the downloads, which is given back when it is closed."""

    def __init__(self, blocks: Generator[bytes, None, None], release: Callable[[], None]) -> None:
        self._blocks, self._release = blocks, release

    def __iter__(self) -> Iterator[bytes]:
        return self._blocks

    def close(self) -> None:
        self._blocks.close()
        self._release()


class QueryTimeField(serializers.DateTimeField):
    """A time in a query string, where the `+` of its offset, sent as it is, arrives as a space."""

    LOST_PLUS = re.compile(r"(T[0-9:.]+) (\d\d:?\d\d)")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, help_text="ISO 8601", **kwargs)

    def to_internal_value(self, value: Any) -> Any:
        return super().to_internal_value(self.LOST_PLUS.sub(r"\1+\2", value) if isinstance(value, str) else value)


class PageParameters(StrictSerializer):
    """The query string of a list without filters, and what all lists take."""

    cursor = serializers.CharField(required=False)
    page_size = serializers.IntegerField(required=False, min_value=1, max_value=CursorPages.max_page_size)
