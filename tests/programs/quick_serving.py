"""voiceproject.serving with short times for clients that stall, for `--config python:tests.programs.quick_serving`."""

from typing import Any

from voiceproject.web import serving
from voiceproject.web.serving import *  # noqa: F403
from voiceproject.web.serving import Worker

Worker.HEAD_SECONDS = 1.0


def post_worker_init(worker: Any) -> None:  # type: ignore[no-redef]
    from voiceproject.web.middleware import RequestMiddleware  # Django is set up in workers, not where this is read.

    RequestMiddleware.IDLE_SECONDS = 1.0
    RequestMiddleware.DRAIN_SECONDS = 0.2
    serving.post_worker_init(worker)
