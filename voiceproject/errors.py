"""The one error envelope: codes, statuses, the expected-failure exception and DRF's exception handler.

    {"success": false, "error": "<code>", "message": "<human-readable>", "details": {}}

Django and REST framework are imported only inside the functions that answer a request, so that code without Django
(engines, text, audio) can raise these exceptions too.
"""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django.http import HttpRequest, JsonResponse
    from rest_framework.response import Response

log = logging.getLogger(__name__)

# Every code that a client can meet, and the status it comes with.
STATUS_OF_CODE: dict[str, int] = {
    "validation_error": 400,
    "invalid_audio": 400,
    "reference_too_short": 400,
    "reference_too_long": 400,
    "content_refused": 400,
    "missing_api_key": 401,
    "invalid_api_key": 401,
    "permission_denied": 403,
    "tenant_blocked": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "not_acceptable": 406,
    "job_not_ready": 409,
    "job_finished": 409,
    "job_failed": 409,
    "job_canceled": 409,
    "conflict": 409,
    "result_expired": 410,
    "revoked": 410,
    "file_too_large": 413,
    "unsupported_media_type": 415,
    "range_not_satisfiable": 416,
    "idempotency_key_reused": 422,
    "rate_limited": 429,
    "quota_exceeded": 429,
    "too_many_jobs": 429,
    "internal_error": 500,
    "engine_error": 502,
    "engine_unavailable": 503,
    "engine_busy": 503,
    "not_configured": 503,
    "too_many_waiting": 503,
    "storage_full": 503,
    "engine_timeout": 504,
}

# Answers of these statuses always say when to come back.
RETRY_AFTER_SECONDS = {429: 5, 503: 5}


class PublicError(Exception):
    """An expected failure with a code and a text that a client may see.

    code: a key of STATUS_OF_CODE; details: JSON-ready; retry_after: seconds, sent as a whole number.
    """

    def __init__(
        self, code: str, message: str, details: dict[str, Any] | None = None, retry_after: float | None = None
    ) -> None:
        if code not in STATUS_OF_CODE:
            raise ValueError(f"unknown error code {code!r}")
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details or {}
        self.retry_after = retry_after
        self.headers: dict[str, str] = {}

    @property
    def status(self) -> int:
        return STATUS_OF_CODE[self.code]

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class EngineError(PublicError):
    """The engine answered, and what it answered is no speech."""

    def __init__(self, message: str = "The speech engine could not make this audio.", **kwargs: Any) -> None:
        super().__init__("engine_error", message, **kwargs)


class EngineUnavailable(PublicError):
    """The engine cannot be reached."""

    def __init__(self, message: str = "The speech engine cannot be reached.", **kwargs: Any) -> None:
        super().__init__("engine_unavailable", message, **kwargs)


class EngineBusy(PublicError):
    """The engine is working for others, and the wait is over its bound."""

    def __init__(self, message: str = "The speech engine is busy. Try again later.", **kwargs: Any) -> None:
        super().__init__("engine_busy", message, **kwargs)


class EngineTimeout(PublicError):
    """The engine did not answer in time."""

    def __init__(self, message: str = "The speech engine did not finish in time.", **kwargs: Any) -> None:
        super().__init__("engine_timeout", message, **kwargs)


class StreamBroken(ConnectionResetError):
    """Raised out of a streamed body that will not be whole: the server must cut it off, never end it in good order.

    An OSError like that of a client who has gone, which a server takes without a word: what went wrong has been logged.
    """

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "the stream broke off")


def envelope(error: PublicError) -> dict[str, Any]:
    return {"success": False, "error": error.code, "message": error.message, "details": error.details}


def _headers(error: PublicError) -> dict[str, str]:
    headers = dict(error.headers)
    retry_after = error.retry_after or RETRY_AFTER_SECONDS.get(error.status)
    if retry_after:
        headers["Retry-After"] = str(math.ceil(retry_after))
    if error.status == 401:
        headers.setdefault("WWW-Authenticate", 'ApiKey realm="api", header="X-API-Key"')
    return headers


def json_response(error: PublicError) -> JsonResponse:
    """The envelope as a plain Django response, for what fails outside REST framework."""
    from django.http import JsonResponse

    response = JsonResponse(envelope(error), status=error.status, headers=_headers(error))
    response.error_code = error.code  # type: ignore[attr-defined] # for the access log and the metrics
    return response


def exception_handler(exc: Exception, context: dict[str, Any]) -> Response:
    """REST framework's EXCEPTION_HANDLER: every exception becomes the envelope, unknown ones a logged 500."""
    from rest_framework.renderers import JSONRenderer
    from rest_framework.response import Response
    from rest_framework.views import set_rollback

    set_rollback()
    error = as_public_error(exc)
    if error.code == "internal_error":
        log.error("unhandled error", exc_info=exc)
    elif error.status >= 500:
        log.warning("%s", error, exc_info=exc.__cause__)
    headers = _headers(error)
    if error.code == "method_not_allowed":
        headers["Allow"] = ", ".join(context["view"].allowed_methods)
    request = context.get("request")
    if request is not None:
        # Whatever the view would have rendered (a page, a schema), an error is JSON.
        request.accepted_renderer, request.accepted_media_type = JSONRenderer(), JSONRenderer.media_type
    response = Response(envelope(error), status=error.status, headers=headers)
    response.error_code = error.code  # type: ignore[attr-defined] # for the access log and the metrics
    return response


def as_public_error(exc: Exception) -> PublicError:
    from django.core.exceptions import (
        BadRequest,
        ObjectDoesNotExist,
        PermissionDenied,
        RequestDataTooBig,
        SuspiciousOperation,
        TooManyFieldsSent,
        TooManyFilesSent,
    )
    from django.db import OperationalError
    from django.http import Http404, UnreadablePostError
    from django.http.multipartparser import MultiPartParserError
    from rest_framework import exceptions

    from voiceproject.media.storage import is_disk_full

    match exc:
        case PublicError():
            return exc
        case exceptions.ValidationError():
            return validation_error(exc.detail)
        case Http404() | exceptions.NotFound() | ObjectDoesNotExist():
            return PublicError("not_found", "There is nothing here, or it is not yours.")
        case exceptions.MethodNotAllowed():
            return PublicError("method_not_allowed", str(exc.detail))
        case exceptions.UnsupportedMediaType():
            return PublicError("unsupported_media_type", str(exc.detail))
        case exceptions.NotAcceptable():
            return PublicError("not_acceptable", str(exc.detail))
        case exceptions.ParseError() | MultiPartParserError():
            return PublicError("validation_error", f"The request body cannot be read: {exc}")
        case PermissionDenied() | exceptions.PermissionDenied():
            return PublicError("permission_denied", "This key may not do that.")
        case RequestDataTooBig():
            return PublicError("file_too_large", "The form fields are too large; only files may be this large.")
        case TooManyFieldsSent() | TooManyFilesSent():
            return PublicError("validation_error", "The form has too many fields or files.")
        case UnreadablePostError():
            return PublicError("validation_error", "The request's body did not arrive, or broke off.")
        case BadRequest() | SuspiciousOperation():
            return PublicError("validation_error", "The request is malformed.")
        case _ if is_disk_full(exc):
            return PublicError("storage_full", "The server's disk is full. Try again later.", retry_after=60)
        case OperationalError() if "database is locked" in str(exc):
            return PublicError("too_many_waiting", "The database is busy. Try again later.")
        case _:
            return PublicError(
                "internal_error", "Something went wrong here. Report the X-Request-ID of this answer to the operator."
            )


def validation_error(detail: Any) -> PublicError:
    """details: field -> list of messages; messages that belong to no field stand under `non_field_errors`."""
    if not isinstance(detail, dict):
        detail = {"non_field_errors": detail if isinstance(detail, list) else [detail]}
    details = {sendable(field): list(_texts(messages)) for field, messages in detail.items()}
    field, messages = next(iter(details.items()), ("", [""]))
    message = messages[0] if field == "non_field_errors" else f"{field}: {messages[0]}"
    return PublicError("validation_error", message, details)


def _texts(messages: Any) -> Iterator[str]:
    """The messages in REST framework's tree of them: a list's are by index, those of an object by field."""
    if isinstance(messages, dict):
        for name, inner in messages.items():
            yield from (text if isinstance(name, int) else sendable(f"{name}: {text}") for text in _texts(inner))
    elif isinstance(messages, (list, tuple)):
        for inner in messages:
            yield from _texts(inner)
    else:
        yield sendable(messages)


def sendable(text: Any) -> str:
    """What a client sent may hold half a surrogate pair, which cannot be sent back."""
    return str(text).encode("utf-8", "replace").decode()


def csrf_failure(request: HttpRequest, reason: str = "") -> Any:
    """CSRF_FAILURE_VIEW: people at the console or at their account get a page, everybody else the envelope."""
    from django.shortcuts import render
    from django.utils.translation import gettext as _
    from django.views.csrf import csrf_failure as page

    if request.path.startswith("/admin/"):
        return page(request, reason)
    if request.path.startswith(("/account", "/language")):
        problem = {
            "problem": _("This form is out of date"),
            "advice": _("Open the page again, and send it from there."),
        }
        return render(request, "voiceproject/account/problem.html", problem, status=403)
    return json_response(PublicError("method_not_allowed", "Nothing can be sent here."))


def server_error(request: HttpRequest) -> JsonResponse:
    """handler500: what failed outside REST framework. Django calls this with the exception being handled."""
    import sys

    exc = sys.exc_info()[1]
    error = as_public_error(exc) if isinstance(exc, Exception) else as_public_error(RuntimeError())
    if error.code == "internal_error":
        log.error("unhandled error", exc_info=exc)
    return json_response(error)


def not_found(request: HttpRequest, exception: Exception) -> JsonResponse:
    """handler404"""
    return json_response(PublicError("not_found", "There is no such path here."))


def bad_request(request: HttpRequest, exception: Exception) -> JsonResponse:
    """handler400: a host name that ALLOWED_HOSTS does not have, a malformed path."""
    from django.core.exceptions import DisallowedHost

    if isinstance(exception, DisallowedHost):
        # Anybody can send one: a line for who has forgotten a name, and no traceback.
        log.warning("refused the host name %.100r, which ALLOWED_HOSTS does not have", request.META.get("HTTP_HOST"))
        return json_response(PublicError("validation_error", "This host name is not served here; see ALLOWED_HOSTS."))
    return json_response(as_public_error(exception))


def forbidden(request: HttpRequest, exception: Exception) -> JsonResponse:
    """handler403"""
    return json_response(PublicError("permission_denied", "This is not allowed."))
