"""Gunicorn's configuration: `gunicorn voiceproject.wsgi --config python:voiceproject.serving`.

Threads, not processes, carry the load: the work is done by engines and workers, and requests mostly wait. Under ASGI a
synchronous generator is buffered whole and an upload is read before its key is checked, so this is WSGI.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import selectors
import signal
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

from django.conf import settings
from gunicorn import util
from gunicorn.http import errors as refused
from gunicorn.workers.gthread import TConn, ThreadWorker

from voiceproject.env import log_unknown
from voiceproject.errors import PublicError, StreamBroken, envelope
from voiceproject.registry import registry

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voiceproject.settings")

# What gunicorn refuses by itself, before there is a request; every other malformed one is 400.
REFUSALS: dict[type[Exception], HTTPStatus] = {
    refused.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    refused.LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    refused.ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    refused.UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
    refused.ForbiddenProxyRequest: HTTPStatus.FORBIDDEN,
    # These are faults of ours: a header that the application made, a path outside SCRIPT_NAME.
    refused.InvalidResponseHeader: HTTPStatus.INTERNAL_SERVER_ERROR,
    refused.InvalidResponseHeaderName: HTTPStatus.INTERNAL_SERVER_ERROR,
    refused.ConfigurationProblem: HTTPStatus.INTERNAL_SERVER_ERROR,
}


def refusal(status: HTTPStatus, request_id: str) -> bytes:
    """A whole HTTP answer with the error envelope, for what never became a request."""
    error = PublicError("validation_error", f"The request was not understood: {status.phrase}.")
    if status == HTTPStatus.FORBIDDEN:
        error = PublicError("permission_denied", "This is not allowed.")
    elif status == HTTPStatus.INTERNAL_SERVER_ERROR:
        error = PublicError("internal_error", "Something went wrong here. Report the X-Request-ID to the operator.")
    body = json.dumps(envelope(error)).encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"X-Request-ID: {request_id}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection(TConn):
    """A client's connection. What a thread has closed is not closed again, and so not counted out twice."""

    def close(self, graceful: bool = False) -> None:
        if self.sock.fileno() >= 0:
            super().close(graceful)


class Worker(ThreadWorker):
    """Gunicorn's threads, with an answer in the envelope for everything, and no thread that waits for a stalled client.

    gthread gives a thread to each new connection for 5 s even if nothing comes, waits for the rest of a request's head
    without end, and lingers up to 2 s over the closing of a connection in the one thread that accepts all others.
    """

    HEAD_SECONDS = 15.0  # for the request line and all headers together

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._heads: dict[Connection, float] = {}  # whose head is being read, and since when

    def accept(self, listener: socket.socket) -> None:
        try:
            sock, address = listener.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                raise
            return
        self.nr_conns += 1
        connection = Connection(self.cfg, sock, address, listener.getsockname())
        connection.set_timeout()
        self.pending_conns.append(connection)
        readable = partial(self.on_pending_socket_readable, connection)
        self.poller.register(connection.sock, selectors.EVENT_READ, readable)

    def handle(self, conn: Connection) -> Any:
        self._heads[conn] = time.monotonic()
        try:
            going_on = super().handle(conn)
        finally:
            self._heads.pop(conn, None)
        if not going_on:
            conn.close(graceful=True)
        return going_on

    def handle_request(self, req: Any, conn: Connection) -> Any:
        self._heads.pop(conn, None)
        try:
            return super().handle_request(req, conn)
        except StreamBroken:
            if req.version < (1, 1):
                # Such a body has no chunks: it ends with the connection, and only a reset is no such end.
                conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                conn.sock.close()
            return False

    def murder_pending(self) -> None:
        """Called by gunicorn every second."""
        super().murder_pending()
        late = time.monotonic() - self.HEAD_SECONDS
        for conn, since in list(self._heads.items()):
            if since < late and self._heads.pop(conn, 0.0):
                try:
                    if not self.cfg.is_ssl:
                        answer = refusal(HTTPStatus.REQUEST_TIMEOUT, uuid.uuid4().hex)
                        conn.sock.send(answer, socket.MSG_DONTWAIT)
                    conn.sock.shutdown(socket.SHUT_RD)  # its thread reads the end, and closes
                except OSError:
                    self.log.debug("A stalled connection was gone already.")

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        request_id = uuid.uuid4().hex
        malformed = HTTPStatus.BAD_REQUEST if isinstance(exc, refused.ParseException | OSError) else None
        status = REFUSALS.get(type(exc), malformed) or HTTPStatus.INTERNAL_SERVER_ERROR
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            self.log.error("unhandled error request_id=%s", request_id, exc_info=exc)
        else:
            self.log.warning("refused with %d request_id=%s: %s", status, request_id, exc)
        try:
            util.write_nonblock(client, refusal(status, request_id))
        except OSError:
            self.log.debug("The client did not wait for its answer.")


worker_class = Worker
workers = settings.WEB_PROCESSES
threads = settings.WEB_THREADS
# A thread that waits for an engine is not dead: gthread workers report by themselves.
timeout = 60
# `quickstart` promises to end within seconds; a server in production lets running requests finish.
graceful_timeout = 1 if os.environ.get("VOICEPROJECT_LIFELINE") else 30
keepalive = 15
# No header moves a request to another path, or says that it came by TLS, whoever has connected. (By default gunicorn
# takes SCRIPT_NAME and PATH_INFO from this machine's own proxies, which pass on what a client sent.)
forwarder_headers = ""
forwarded_allow_ips = ""
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


def post_worker_init(worker: Any) -> None:
    # What has been loaded by now stays for good: looking through it again and again costs a twentieth of all work.
    gc.collect()
    gc.freeze()
    if worker.age == 1:  # One of all web processes tells it.
        log_unknown(settings.UNKNOWN_NAMES)


def worker_exit(server: Any, worker: Any) -> None:
    registry.engine.close()
