"""Errors as answers: the envelope for REST framework, for Django's own handlers, and for what is not expected."""

from __future__ import annotations

import logging
import math
import re
import sys
from collections.abc import Iterator
from typing import Any

from django.core.exceptions import (
    BadRequest,
    DisallowedHost,
    ObjectDoesNotExist,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
    TooManyFieldsSent,
    TooManyFilesSent,
)
from django.db import OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.shortcuts import render
from django.urls import reverse
from django.utils import translation
from django.utils.cache import patch_vary_headers
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.csrf import csrf_failure as csrf_page
from rest_framework import exceptions
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.views import set_rollback

from voiceproject.errors import RETRY_AFTER_SECONDS, UNKNOWN_FIELD, PublicError, envelope
from voiceproject.media.storage import is_disk_full

log = logging.getLogger(__name__)


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
    response = JsonResponse(envelope(error), status=error.status, headers=_headers(error))
    response.error_code = error.code  # type: ignore[attr-defined] # for the access log and the metrics
    return response


def exception_handler(exc: Exception, context: dict[str, Any]) -> Response:
    """REST framework's EXCEPTION_HANDLER: every exception becomes the envelope, unknown ones a logged 500."""
    set_rollback()
    error = as_public_error(exc)
    if error.code == "internal_error":
        log.error("unhandled error", exc_info=exc)
    elif error.status >= 500:
        log.warning("%s", error, exc_info=exc.__cause__)
    headers = _headers(error)
    if error.code == "method_not_allowed":
        allowed = context["view"].allowed_methods
        headers["Allow"] = ", ".join(allowed)
        *most, last = [method for method in allowed if method not in ("HEAD", "OPTIONS")]
        use = f"{', '.join(most)} or {last}" if most else last
        error.message = f"{context['request'].method} is not allowed here; use {use}."
    request = context.get("request")
    if request is not None:
        # Whatever the view would have rendered (a page, a schema), an error is JSON.
        request.accepted_renderer, request.accepted_media_type = JSONRenderer(), JSONRenderer.media_type
    response = Response(envelope(error), status=error.status, headers=headers)
    response.error_code = error.code  # type: ignore[attr-defined] # for the access log and the metrics
    return response


def as_public_error(exc: Exception) -> PublicError:
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
            advice = "Send a form (multipart/form-data, curl's -F), or application/json where no file goes along."
            return PublicError("unsupported_media_type", f"{exc.detail} {advice}")
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
    tells_its_field = field == "non_field_errors" or messages[0].startswith(UNKNOWN_FIELD)
    message = messages[0] if tells_its_field else f"{field}: {messages[0]}"
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
    if request.path.startswith("/admin/"):
        return csrf_page(request, reason)
    if request.path.startswith(("/account", "/language")):
        problem = {
            "problem": _("This form is out of date"),
            "advice": _("Open the page again, and send it from there."),
        }
        return render(request, "voiceproject/account/problem.html", problem, status=403)
    return json_response(PublicError("method_not_allowed", "Nothing can be sent here."))


# Where programs ask, whatever they say that they accept.
_FOR_PROGRAMS = re.compile(r"/(?:api|openai|elevenlabs|gptsovits)(?:/|$)")


def _for_people(request: HttpRequest) -> bool:
    """Whether a browser asks for a page: it names HTML before JSON, which no library does of its own accord."""
    if _FOR_PROGRAMS.match(request.path_info):
        return False
    return request.get_preferred_type(["application/json", "text/html"]) == "text/html"


def _answer(request: HttpRequest, error: PublicError, problem: Any, advice: Any) -> HttpResponse:
    """An error outside REST framework: a page in the reader's language where a browser asks for one, else the envelope.

    problem and advice are lazy: they are put into words in that language.
    """
    response: HttpResponse
    if _for_people(request):
        with translation.override(translation.get_language_from_request(request)):
            context: dict[str, Any] = {"problem": problem, "advice": advice}
            if request.path_info.startswith("/admin/"):
                context |= {"back": reverse("admin:index"), "back_words": _("To the console")}
            elif request.path_info.startswith("/account"):
                context |= {"back": reverse("account"), "back_words": _("To your account")}
            response = render(request, "voiceproject/lost.html", context, status=error.status)
        response["Cache-Control"] = "no-store"
        patch_vary_headers(response, ("Accept-Language", "Cookie"))
        response.error_code = error.code  # type: ignore[attr-defined] # for the access log and the metrics
    else:
        response = json_response(error)
    patch_vary_headers(response, ("Accept",))
    return response


def server_error(request: HttpRequest) -> HttpResponse:
    """handler500: what failed outside REST framework. Django calls this with the exception being handled."""
    exc = sys.exc_info()[1]
    error = as_public_error(exc) if isinstance(exc, Exception) else as_public_error(RuntimeError())
    if error.code == "internal_error":
        log.error("unhandled error", exc_info=exc)
    return _answer(
        request, error, gettext_lazy("Something went wrong here"),
        gettext_lazy("It was noted for the operator. Try again in a moment."),
    )  # fmt: skip


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """handler404"""
    path = sendable(request.path)[:200]
    error = PublicError("not_found", f"There is no such path here: {path} (/docs lists all of them).")
    return _answer(
        request, error, gettext_lazy("There is nothing here"),
        gettext_lazy("The address may be mistyped, or what it led to is gone."),
    )  # fmt: skip


def bad_request(request: HttpRequest, exception: Exception) -> JsonResponse:
    """handler400: a host name that ALLOWED_HOSTS does not have, a malformed path."""
    if isinstance(exception, DisallowedHost):
        # Anybody can send one: a line for who has forgotten a name, and no traceback.
        log.warning("refused the host name %.100r, which ALLOWED_HOSTS does not have", request.META.get("HTTP_HOST"))
        return json_response(PublicError("validation_error", "This host name is not served here; see ALLOWED_HOSTS."))
    return json_response(as_public_error(exception))


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """handler403"""
    return _answer(
        request, PublicError("permission_denied", "This is not allowed."), gettext_lazy("This is not allowed"),
        gettext_lazy("Nobody may do this, or your role may not."),
    )  # fmt: skip
