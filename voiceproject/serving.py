"""Kept for operators whose units name it: `gunicorn --config python:voiceproject.serving`."""

from voiceproject.server.serving import *  # noqa: F403
