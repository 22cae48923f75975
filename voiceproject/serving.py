"""Gunicorn's configuration: `gunicorn voiceproject.wsgi --config python:voiceproject.serving`.

Threads, not processes, carry the load: the work is done by engines and workers, and requests mostly wait. Under ASGI a
synchronous generator is buffered whole and an upload is read before its key is checked, so this is WSGI.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from voiceproject import settings

worker_class = "gthread"
workers = settings.WEB_PROCESSES
threads = settings.WEB_THREADS
# A thread that waits for an engine is not dead: gthread workers report by themselves.
timeout = 60
# `quickstart` promises to end within seconds; a server in production lets running requests finish.
graceful_timeout = 1 if os.environ.get("VOICEPROJECT_LIFELINE") else 30
keepalive = 15
# A hand-written request line or header may be long, but not this long.
limit_request_line = 4094
limit_request_field_size = 8190
accesslog = None  # RequestMiddleware writes it, with the request id.
loglevel = "warning"
control_socket_disable = True


def on_starting(server: Any) -> None:
    end_with_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))


def end_with_parent(end: Callable[[], None]) -> None:
    """Under `quickstart`, standard input is a pipe from it: its end means that it is gone, however it went.

    The descriptor is read, not `sys.stdin`, in whose place multiprocessing puts the null device.
    """
    if not os.environ.get("VOICEPROJECT_LIFELINE"):
        return

    def wait() -> None:
        while os.read(0, 64):
            pass
        end()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def worker_exit(server: Any, worker: Any) -> None:
    from voices.synthesis import close_engine

    close_engine()
