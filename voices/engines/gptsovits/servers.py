"""HTTP to an engine's server: bounded in time and size, and each failure told apart.

Connections are kept. Redirects are never followed and proxies of the environment never used: what is called
is what the operator wrote.
"""

from __future__ import annotations

import json
import logging
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from voiceproject import __version__, http_client
from voiceproject.errors import EngineError, EngineTimeout, EngineUnavailable, PublicError

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0


class CallFailed(Exception):
    """A call went wrong. error: what the client is told.

    unsettled: the server may still be working on it; unreachable: nothing took the connection; refused: it answered
    that it takes no work now.
    """

    def __init__(
        self, error: PublicError, *, unsettled: bool = False, unreachable: bool = False, refused: bool = False
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.unsettled = unsettled
        self.unreachable = unreachable
        self.refused = refused


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


class Server:
    """HTTP to one base URL (http or https, with a path and basic authentication where it has them)."""

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("a server's URL is http://host:port or https://host:port")
        # Without the secret: this names the server in the database and in logs.
        self.name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
        self._session = http_client.Session(connect_seconds=CONNECT_SECONDS)
        self._session.headers["Accept"] = "audio/wav, application/json"
        self._session.headers["User-Agent"] = f"voiceproject/{__version__}"
        if parts.username:
            secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._session.headers["Authorization"] = "Basic " + b64encode(secret.encode()).decode("ascii")

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
