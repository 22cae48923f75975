"""Which headers pages of other origins (CORS_ORIGINS) may send and read."""

from __future__ import annotations

from corsheaders.defaults import default_headers

# What the clients of OpenAI and ElevenLabs send along by themselves: a browser would send nothing without leave.
_STAINLESS = (
    "arch", "async", "custom-event-handler", "custom-poll-interval", "helper-method", "lang", "os", "package-version",
    "poll-helper", "raw-response", "read-timeout", "retry-count", "runtime", "runtime-version", "stream-helper",
    "timeout",
)  # fmt: skip
_FERN = ("language", "platform", "runtime", "runtime-version", "sdk-name", "sdk-version")
ALLOWED = [
    *default_headers, "x-api-key", "xi-api-key", "idempotency-key", "prefer", "range", "if-range", "last-event-id",
    "x-request-id", "openai-beta", "openai-organization", "openai-project",
    *(f"x-stainless-{name}" for name in _STAINLESS), *(f"x-fern-{name}" for name in _FERN),
]  # fmt: skip
EXPOSED = [
    "X-Request-ID", "X-Synthesis-ID", "X-Audio-Duration", "X-Audio-Sample-Rate", "X-Engine", "X-Warning",
    "X-Reference-Window", "Location", "Preference-Applied", "Idempotency-Replayed", "Retry-After", "Content-Range",
    "Content-Disposition", "ETag", "Accept-Ranges", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset",
    "X-Quota-Remaining", "X-Speed-Clamped", "X-Should-Retry", "Request-ID", "History-Item-ID", "Character-Cost",
    "Current-Concurrent-Requests", "Maximum-Concurrent-Requests",
]  # fmt: skip
