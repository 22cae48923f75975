"""The WSGI application: `gunicorn voiceproject.wsgi --config python:voiceproject.serving`."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable
from typing import Any

import django
from django.core.handlers.wsgi import WSGIHandler

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voiceproject.settings")
django.setup(set_prefix=False)


class Application(WSGIHandler):
    """Django's handler, guarded against a charset that is none: `charset=hex` would fail before any middleware."""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # type: ignore[override]
        content_type = environ.get("CONTENT_TYPE", "")
        _, _, charset = content_type.lower().partition("charset=")
        if charset and not _is_text_encoding(charset.split(";")[0].strip(" \"'")):
            environ["CONTENT_TYPE"] = content_type.split(";")[0]
        return super().__call__(environ, start_response)


def _is_text_encoding(name: str) -> bool:
    try:
        "".encode(name)
        return bool(codecs.lookup(name))
    except (LookupError, ValueError):
        return False


application = Application()
