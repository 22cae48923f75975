"""Kept for operators whose units name it: `gunicorn --config python:voiceproject.serving`."""

from voiceproject.web.serving import *  # noqa: F403
