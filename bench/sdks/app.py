"""What the replayed apps share: a server, a key, and what is asked of an answer."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import av
import requests

from bench.sdks.telling import tail_is_speech

SAMPLE = Path(__file__).resolve().parent.parent.parent / "voiceproject" / "samples" / "reference.flac"
TEXT, JANE = "Hello from an app.", "Jane of the Bench"
AIOHTTP = {"User-Agent": "Python/3.12 aiohttp/3.13.3", "Accept": "*/*", "Accept-Encoding": "gzip, deflate, br, zstd"}
FETCH = {"User-Agent": "node", "Accept": "*/*", "Accept-Language": "*", "Sec-Fetch-Mode": "cors",
         "Accept-Encoding": "gzip, deflate"}  # fmt: skip
NODE_FETCH = {"User-Agent": "node-fetch", "Accept": "*/*", "Accept-Encoding": "gzip, deflate, br"}
AXIOS = {"Accept": "application/json, text/plain, */*", "User-Agent": "axios/1.13.2",
         "Accept-Encoding": "gzip, compress, deflate, br"}  # fmt: skip
LIBRECHAT = {**AXIOS, "User-Agent": "axios/1.20.0"}
PYTHON_REQUESTS = {"User-Agent": "python-requests/2.32.5", "Accept": "*/*"}
OPENAI_NODE = {"Accept": "application/octet-stream", "User-Agent": "OpenAI/JS 6.41.0", "X-Stainless-Lang": "js",
               "X-Stainless-Package-Version": "6.41.0", "X-Stainless-Retry-Count": "0"}  # fmt: skip
OPENAI_PYTHON = {"Accept": "application/octet-stream", "User-Agent": "AsyncOpenAI/Python 2.54.0",
                 "X-Stainless-Lang": "python", "X-Stainless-Raw-Response": "stream"}  # fmt: skip


def seconds_of(content: bytes) -> float:
    """How long a file of audio is, as it is decoded."""
    with av.open(io.BytesIO(content), "r") as container:
        rate = container.streams.audio[0].rate
        return float(sum(frame.samples for frame in container.decode(container.streams.audio[0])) / rate)


class App:
    """Its public methods are the features, in the order in which it comes to them; each returns whether it is so."""

    name: ClassVar[str]
    version: ClassVar[str]
    headers: ClassVar[dict[str, str]] = {}

    def __init__(self, base: str, key: str, path_key: str) -> None:
        self.openai, self.elevenlabs = f"{base}/openai/v1", f"{base}/elevenlabs/v1"
        self.gptsovits = f"{base}/gptsovits/{path_key}"
        self.bearer = {"Authorization": f"Bearer {key}"}
        self.xi = {"xi-api-key": key}

    def features(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        for name in type(self).__dict__:
            if not name.startswith("_") and callable(feature := getattr(self, name)):
                yield name.replace("_", " ").capitalize(), feature

    def _ask(self, method: str, url: str, headers: dict[str, str] | None = None, **sent: Any) -> requests.Response:
        session = requests.Session()
        session.headers.clear()
        return session.request(method, url, headers={**self.headers, **(headers or {})}, timeout=120, **sent)

    def _get(self, url: str, headers: dict[str, str] | None = None, **sent: Any) -> Any:
        answer = self._ask("GET", url, headers, **sent)
        answer.raise_for_status()
        return answer.json()

    def _heard(self, method: str, url: str, headers: dict[str, str], content_type: str, **sent: Any) -> bool:
        """Whether the answer is this kind of audio, and long enough to be the text."""
        answer = self._ask(method, url, headers, **sent)
        answer.raise_for_status()
        if answer.headers["Content-Type"].split(";")[0] != content_type:
            raise ValueError(answer.headers["Content-Type"])
        if content_type == "audio/wav" and "Content-Length" in answer.headers and not tail_is_speech(answer.content):
            raise ValueError("something stands behind the samples")
        return seconds_of(answer.content) > 0.5
