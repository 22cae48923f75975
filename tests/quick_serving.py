"""voiceproject.serving with short times for clients that stall, for `--config python:tests.quick_serving`."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voiceproject.settings")

from voiceproject.web.middleware import RequestMiddleware  # noqa: E402
from voiceproject.web.serving import *  # noqa: E402, F403
from voiceproject.web.serving import Worker  # noqa: E402

RequestMiddleware.IDLE_SECONDS = 1.0
RequestMiddleware.DRAIN_SECONDS = 0.2
Worker.HEAD_SECONDS = 1.0
