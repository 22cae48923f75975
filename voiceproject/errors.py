"""The one error envelope: its codes with their statuses, and the exceptions for expected failures.

    {"success": false, "error": "<code>", "message": "<human-readable>", "details": {}}

Knows neither Django nor REST framework: engines, texts and audio raise these too. `voiceproject.web.errors` makes
answers of them.
"""

from __future__ import annotations

import errno
from typing import Any

# Every code that a client can meet, and the status it comes with.
STATUS_OF_CODE: dict[str, int] = {
    "validation_error": 400,
    "invalid_audio": 400,
    "reference_too_short": 400,
    "reference_too_long": 400,
    "content_refused": 400,
    "unsupported_language": 400,
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


# Such a message tells its field itself, in its first words.
UNKNOWN_FIELD = "Unknown field: "


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
