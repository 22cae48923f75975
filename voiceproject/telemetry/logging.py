"""Log lines with the ids of the request, tenant, key and job they belong to, as text or as JSON.

The ids live in a context variable: `bind(request_id=...)` sets them for the current thread of execution, and every line
logged below carries them. Secrets and texts to be spoken are never logged; nothing here has to filter them out.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_context: ContextVar[dict[str, Any]] = ContextVar("log_context", default={})  # noqa: B039 - never mutated


@contextmanager
def bind(**ids: Any) -> Iterator[None]:
    """Within this block every log line carries these ids; None values are left out."""
    token = _context.set({**_context.get(), **{key: str(value) for key, value in ids.items() if value is not None}})
    try:
        yield
    finally:
        _context.reset(token)


def note(**ids: Any) -> None:
    """From here to the end of the `bind` around it, log lines carry these ids too: what a request turns out to be."""
    _context.set({**_context.get(), **{key: str(value) for key, value in ids.items() if value is not None}})


def bound() -> dict[str, str]:
    """All ids bound now, to bind them again elsewhere: in another thread, or after a middleware has been left."""
    return dict(_context.get())


def current(name: str) -> str:
    """The id bound under this name, or an empty string."""
    return str(_context.get().get(name, ""))


_PATH_KEY = re.compile(r"(?<=/)(vc[kp]_)[^/]+", re.IGNORECASE)


def loggable(path: str) -> str:
    """A request's path without the key that may stand in it, on purpose or not."""
    return _PATH_KEY.sub(r"\1...", path)


_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    extra.pop("request", None)  # Django puts the whole request object there.
    return {**_context.get(), **extra}


def _timestamp(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the bound ids and the `extra` of the call."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _timestamp(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """The same for people: `time level logger: message key=value ...`; line breaks in values are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        pairs = "".join(f" {key}={_plain(value)}" for key, value in _fields(record).items())
        line = f"{_timestamp(record)} {record.levelname} {record.name}: {_plain(record.getMessage())}{pairs}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _plain(value: Any) -> str:
    # A client's bytes must not be able to forge a second log line.
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))
