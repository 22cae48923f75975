"""What the apps tell the frame of themselves.

The frame (this package) imports neither `voices` nor `covers`. Each app registers what it has in `AppConfig.ready`:
its kinds of jobs, the speech engine, what a worker does for it now and then, and the models that take storage. Health,
metrics, the worker, the dashboard and the quotas ask here.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol


class EngineHealth(Protocol):
    """How the speech engine is. latency_ms: of the last look at it; extra: what only this engine has."""

    @property
    def name(self) -> str: ...
    @property
    def available(self) -> bool: ...
    @property
    def latency_ms(self) -> float | None: ...
    @property
    def detail(self) -> str: ...
    @property
    def extra(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class SpeechEngine:
    """The engine of this process. It is made when it is first asked for, and lives until `close`."""

    health: Callable[[], EngineHealth]
    close: Callable[[], None]


@dataclass(frozen=True)
class JobKind:
    """A kind of job, as the frame has to know it.

    model: a subclass of voiceproject.jobs.job.Job. queue: its name in metrics and in the broker. actor: the Dramatiq
    actor that claims jobs until nothing is left. has_room: whether a claim on this host could succeed. recover: takes
    over the jobs of workers that were silent for so many seconds; returns how many. scratch_in_use: whether a scratch
    folder of this name belongs to work that is running. serialize: a job and a request (for absolute links) as the
    API's JSON.
    """

    model: Any
    queue: str
    actor: Any
    has_room: Callable[[], bool]
    recover: Callable[[float], int]
    scratch_in_use: Callable[[str], bool]
    serialize: Callable[[Any, Any], dict[str, Any]]


@dataclass(frozen=True)
class WebSocketRoute:
    """Where WebSockets are taken. path: matches whole paths; template: what metrics and logs call it, as Django writes
    routes. scopes: the key needs one of them.

    handle: a coroutine function, given the Socket and the groups of the path; the socket is closed when it returns.
    secret_in: where a key may also come in the first message: finds it there, "" where there is none.
    error_body: the JSON of a refusal that is an ordinary HTTP answer, given the error and the request id.
    last_message: what is sent before a socket is closed for an error, given that and the close code.
    refuses_open: what is wrong with a key is told by such a message over an open socket, and not as an HTTP answer.
    """

    path: re.Pattern[str]
    scopes: tuple[str, ...]
    handle: Callable[..., Coroutine[Any, Any, None]]
    template: str
    secret_in: Callable[[str | bytes], str] | None = None
    error_body: Callable[[Any, str], dict[str, Any]] | None = None
    last_message: Callable[[Any, int], str] | None = None
    refuses_open: bool = False


@dataclass
class Registry:
    """Filled once, while Django starts; only read afterwards."""

    job_kinds: list[JobKind] = field(default_factory=list)
    # Each returns the bytes that a tenant's files take, given the user's primary key.
    held_bytes: list[Callable[[int], int]] = field(default_factory=list)
    # A web process and a worker call these once they serve, in a thread: what is slow to load is there when it is used.
    at_start: list[Callable[[], Any]] = field(default_factory=list)
    # A worker calls these at each look, every two seconds.
    at_look: list[Callable[[], Any]] = field(default_factory=list)
    # And these once an hour, with the age in seconds from which a file that nobody knows is abandoned.
    at_sweep: list[Callable[[float], Any]] = field(default_factory=list)
    at_worker_stop: list[Callable[[], Any]] = field(default_factory=list)
    speech_engine: SpeechEngine | None = None
    # Of the API keys with these primary keys, those that are valid, of tenants that are not blocked, with their scopes.
    scopes_of_keys: Callable[[set[Any]], dict[Any, set[str]]] | None = None

    # Given a request's META, a secret and scopes: the tenant and the key, counted as one request. Raises PublicError.
    admit: Callable[[dict[str, Any], str, tuple[str, ...]], tuple[Any, Any]] | None = None
    websockets: list[WebSocketRoute] = field(default_factory=list)

    def start(self) -> None:
        """Runs what `at_start` has, in a thread."""

        def run() -> None:
            for duty in self.at_start:
                duty()

        threading.Thread(target=run, name="at-start", daemon=True).start()

    def kind_of(self, job: Any) -> JobKind:
        """Raises LookupError for a model that nobody has registered."""
        for kind in self.job_kinds:
            if isinstance(job, kind.model):
                return kind
        raise LookupError(f"{type(job).__name__} is not a registered kind of job")

    def job_models(self) -> list[Any]:
        return [kind.model for kind in self.job_kinds]

    @property
    def engine(self) -> SpeechEngine:
        if self.speech_engine is None:
            raise LookupError("no app has registered a speech engine")
        return self.speech_engine


registry = Registry()
