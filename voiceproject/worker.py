"""Kept for operators whose units name it: `dramatiq voiceproject.worker`."""

from voiceproject.operations.worker import *  # noqa: F403
