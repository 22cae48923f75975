"""Gunicorn's configuration: `gunicorn voiceproject.asgi --config python:voiceproject.serving`.

Gunicorn keeps the processes, uvicorn serves in each of them. Threads, not processes, carry the load: the work is done
by engines and workers, and who waits costs no thread (see voiceproject.server.edge).
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from django.conf import settings
from gunicorn.arbiter import Arbiter
from uvicorn_worker import UvicornWorker

from voiceproject.env import log_unknown
from voiceproject.registry import registry
from voiceproject.server.connection import MAX_HEAD_BYTES, MAX_MESSAGE_BYTES, Connection, SocketConnection, look_at_all

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voiceproject.settings")

# `quickstart` promises to end within seconds; a server in production lets running requests finish.
STOP_SECONDS = 1 if os.environ.get("VOICEPROJECT_LIFELINE") else 28
SENTENCE_SECONDS = STOP_SECONDS / 3  # of them, for who speaks over a WebSocket to come to a sentence's end


# So long a thread waits for a connection: as long as one may take to be made (connect_timeout), and one more.
POOL_TIMEOUT_SECONDS = 10.0


class Server(uvicorn.Server):
    """Ends who stalls, and itself when gunicorn's main process is gone, whose socket it would hold for ever."""

    def __init__(self, config: uvicorn.Config, parent: int) -> None:
        super().__init__(config)
        self.parent = parent  # its process id

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # about once a second
            look_at_all(self.server_state.connections)
            if os.getppid() != self.parent:  # It was killed; gunicorn's own workers look for it too.
                self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: Any = None) -> None:
        from voiceproject.web.streams import streams  # Django is not set up when gunicorn reads this file.

        streams.stop()
        for server in self.servers:
            server.close()  # Nobody new comes while those who speak finish their sentence.
        began = time.monotonic()
        await streams.finished(SENTENCE_SECONDS)
        self.config.timeout_graceful_shutdown = max(1, round(STOP_SECONDS - (time.monotonic() - began)))
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own raises the signal again at the end, before gunicorn's hooks have run.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            asyncio.get_running_loop().add_signal_handler(number, self.handle_exit, number, None)
        yield


class Worker(UvicornWorker):
    CONFIG_KWARGS = {
        "interface": "asgi3",
        "lifespan": "off",
        "loop": "uvloop",
        "http": Connection,
        "ws": SocketConnection,
        "ws_max_size": MAX_MESSAGE_BYTES,
        "ws_per_message_deflate": False,
        "h11_max_incomplete_event_size": MAX_HEAD_BYTES,
        "timeout_graceful_shutdown": STOP_SECONDS,
        # Who has connected is told as it is; TRUSTED_PROXIES says whose word is taken for others.
        "proxy_headers": False,
        "server_header": False,
        "access_log": False,  # RequestMiddleware writes it, with the request id.
    }

    async def _serve(self) -> None:
        # The command may name voiceproject.wsgi, as it did in earlier releases.
        self.config.app = "voiceproject.asgi:application"
        server = Server(self.config, self.ppid)
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


worker_class = Worker
workers = settings.WEB_PROCESSES
timeout = 60
graceful_timeout = STOP_SECONDS + 2
keepalive = 15
# No header moves a request to another path, or says that it came by TLS, whoever has connected.
forwarder_headers = ""
forwarded_allow_ips = ""
accesslog = None  # RequestMiddleware writes it, with the request id.
loglevel = "warning"
control_socket_disable = True


# glibc's number of the option, and from which size on an array is memory of its own, which goes back when it is freed.
# By itself glibc raises that size to 32 MB, and keeps such arrays in an arena of each thread that had one.
_M_MMAP_THRESHOLD, OWN_MEMORY_BYTES = -3, 1024 * 1024


def give_back_arrays() -> None:
    """Lets this process and those that it forks give large arrays back to the system. Nothing where it is not glibc."""
    if "MALLOC_MMAP_THRESHOLD_" not in os.environ and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, OWN_MEMORY_BYTES)


def on_starting(server: Any) -> None:
    give_back_arrays()
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


def share_connections() -> None:
    """Has this process' threads share connections to PostgreSQL (Django's own pool), of which there are so few.

    For a web process alone, before it has one: a worker has as many threads as it works on jobs, and each needs its
    own.
    """
    database = settings.DATABASES["default"]
    if settings.DATABASE_POOL_SIZE and database["ENGINE"].endswith("postgresql"):
        database["CONN_MAX_AGE"] = 0  # Whoever has done with a connection gives it back at once.
        database["OPTIONS"]["pool"] = {
            "min_size": 0,
            "max_size": settings.DATABASE_POOL_SIZE,
            "timeout": POOL_TIMEOUT_SECONDS,
            "max_idle": 60.0,
        }


def post_fork(server: Any, worker: Any) -> None:
    share_connections()


def post_worker_init(worker: Any) -> None:
    # A connection is a file, and the usual limit of 1,024 is low for those who wait.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # What has been loaded by now stays for good: looking through it again and again costs a twentieth of all work.
    gc.collect()
    gc.freeze()
    # And of what comes later little is in cycles: looking for each 700 objects cost another twentieth.
    gc.set_threshold(5_000, 10, 10)
    registry.start()
    if worker.age == 1:  # One of all web processes tells it.
        log_unknown(settings.UNKNOWN_NAMES)


def worker_exit(server: Any, worker: Any) -> None:
    registry.engine.close()
