"""HTTP to an engine's server: bounded in time and size, and each failure told apart.

Connections are kept. Redirects are never followed and proxies of the environment never used: what is called
is what the operator wrote.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from voiceproject import __version__, http_client
from voiceproject.errors import EngineError, EngineTimeout, EngineUnavailable, PublicError

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0


class CallFailed(Exception):
    """A call went wrong. error: what the client is told.

    unsettled: the server may still be working on it; unreachable: nothing took the connection; refused: it answered
    that it takes no work now; restarted: it has done nothing, since another process answers there than before.
    """

    def __init__(
        self,
        error: PublicError,
        *,
        unsettled: bool = False,
        unreachable: bool = False,
        refused: bool = False,
        restarted: bool = False,
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.unsettled = unsettled
        self.unreachable = unreachable
        self.refused = refused
        self.restarted = restarted


@dataclass(frozen=True)
class Answer:
    status: int
    content_type: str
    body: bytes
    retry_after: str = ""

    def json(self) -> dict[str, Any]:
        """The object that the body is; empty where it is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


class Witness:
    """A connection that nothing is ever sent on. It is open for as long as the process at its other end lives: a
    server closes an idle connection only after its first request. `since`: see Server.watch."""

    def __init__(self, host: str, port: int, seconds: float, since: datetime | None) -> None:
        """Raises OSError, UnicodeError."""
        until = time.monotonic() + seconds
        self.since = since
        for address in (addresses := http_client.resolve(host, port, seconds)):
            try:
                self._socket = socket.create_connection((address, port), max(0.01, until - time.monotonic()))
                break
            except OSError:
                if address == addresses[-1]:
                    raise
        # A machine that went down has told nobody.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):
                self._socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._socket.setblocking(False)

    def lives(self) -> bool:
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False  # It ended, or it is a proxy that says so.

    def close(self) -> None:
        self._socket.close()


class Server:
    """HTTP to one base URL (http or https, with a path and basic authentication where it has them)."""

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("a server's URL is http://host:port or https://host:port")
        # Without the secret: this names the server in the database and in logs.
        self.name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
        self._address = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        self._witness: Witness | None = None
        self._session = http_client.Session(connect_seconds=CONNECT_SECONDS)
        self._session.headers["Accept"] = "audio/wav, application/json"
        self._session.headers["User-Agent"] = f"voiceproject/{__version__}"
        if parts.username:
            secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._session.headers["Authorization"] = "Basic " + b64encode(secret.encode()).decode("ascii")

    # What a server was told last, it has forgotten after a restart, and nothing that it answers tells of one.

    def watch(self, since: datetime | None, deadline: float) -> None:
        """Notices a restart from now on. since: the last time known that the server was told something."""
        if self._witness is not None and self._witness.lives():
            return
        self.close()
        with contextlib.suppress(OSError, UnicodeError):  # Then the next call to it fails, and tells why.
            seconds = min(CONNECT_SECONDS, deadline - time.monotonic())
            self._witness = Witness(*self._address, seconds, since)

    def remembers(self, told: datetime | None) -> bool:
        """Whether it is still the process that was told something at that time, by whichever process of ours."""
        witness = self._witness
        return witness is not None and witness.since != told and witness.lives()

    def close(self) -> None:
        if self._witness is not None:
            self._witness.close()
            self._witness = None

    def request(
        self,
        method: str,
        path: str,
        deadline: float,
        max_bytes: int,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The whole answer, at most max_bytes of body. Raises CallFailed; deadline: time.monotonic()."""
        try:
            while True:
                try:
                    response = self._session.call(method, self.name + path, deadline, body=body, headers=headers)
                    break
                except http_client.NoAnswer as error:
                    if not error.stale:
                        raise
                    witness = self._witness
                    if method == "POST" and witness is not None and not witness.lives():
                        log.warning("%s was restarted", self.name)
                        raise CallFailed(EngineUnavailable(), unsettled=True, restarted=True) from error
                    log.debug("%s closed an idle connection", self.name)
            with response:
                content = http_client.read_body(response, max_bytes)
        except http_client.NotConnected as error:
            log.warning("%s cannot be reached: %s", self.name, error)
            raise CallFailed(EngineUnavailable(), unreachable=True) from error
        except http_client.DeadlinePassed as error:  # before it was sent, that says nothing of the server
            raise CallFailed(EngineTimeout(), unsettled=error.sent) from error
        except http_client.NoAnswer as error:
            log.warning("%s closed the connection without an answer: %s", self.name, error)
            raise CallFailed(EngineUnavailable(), unsettled=True) from error
        except http_client.BadAnswer as error:
            log.error("%s broke off its answer, sent too much or does not speak HTTP: %s", self.name, error)
            raise CallFailed(EngineError(), unsettled=True) from error
        content_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        return Answer(response.status_code, content_type, content, response.headers.get("Retry-After", ""))
