"""The same for servers that speak WSGI. There, whatever waits or streams holds a thread.

`gunicorn voiceproject.wsgi --config python:voiceproject.serving`, as units say that were written for earlier releases,
serves voiceproject.asgi.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import django
from django.core.handlers.wsgi import WSGIHandler

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voiceproject.settings")
django.setup(set_prefix=False)

from voiceproject.server.edge import readable_content_type  # noqa: E402 - needs the settings


class Application(WSGIHandler):
    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # type: ignore[override]
        environ["CONTENT_TYPE"] = readable_content_type(environ.get("CONTENT_TYPE", ""))
        return super().__call__(environ, start_response)


application = Application()
