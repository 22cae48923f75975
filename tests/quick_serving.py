"""voiceproject.serving with short times for clients that stall, for `--config python:tests.quick_serving`."""

from voiceproject.middleware import RequestMiddleware
from voiceproject.serving import *  # noqa: F403
from voiceproject.serving import Worker

RequestMiddleware.IDLE_SECONDS = 1.0
RequestMiddleware.DRAIN_SECONDS = 0.2
Worker.HEAD_SECONDS = 1.0
