"""voiceproject.serving with short times for clients that stall, for `--config python:tests.quick_serving`."""

import voiceproject.wsgi  # noqa: F401 - the middleware needs Django set up
from voiceproject.web.middleware import RequestMiddleware
from voiceproject.web.serving import *  # noqa: F403
from voiceproject.web.serving import Worker

RequestMiddleware.IDLE_SECONDS = 1.0
RequestMiddleware.DRAIN_SECONDS = 0.2
Worker.HEAD_SECONDS = 1.0
