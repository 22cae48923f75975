"""The ASGI application: `gunicorn voiceproject.asgi --config python:voiceproject.serving`."""

from __future__ import annotations

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voiceproject.settings")
django.setup(set_prefix=False)

from voiceproject.server.edge import Application  # noqa: E402 - needs the settings

application = Application()
