"""Everything that the tests of a process log, held against every secret that they have used."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.signals import request_started
from django.db.models.signals import post_save

from voiceproject.logging import JsonFormatter

# Whatever has this form is one, also where nobody has sent it yet.
RECOGNISED = re.compile(r"vck_[\w-]{20,}|whsec_[\w+/=]{20,}")
HEADERS = ("HTTP_X_API_KEY", "HTTP_XI_API_KEY", "HTTP_AUTHORIZATION")
# Of rows: secrets, and what people had said. A model that is not there is passed over.
FIELDS = {
    "WebhookSecret": ("secret", "previous"),
    "Synthesis": ("text", "reference_text"),
    "CoverJob": ("lyrics", "reference_text"),
}
SHORTEST = 12  # A shorter word may stand in a log by chance.


class Watch(logging.Handler):
    """Keeps every line of the root logger in a file, and every secret in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.lines = tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogatepass")  # noqa: SIM115
        self.secrets: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.write(self.format(record) + "\n")

    def add(self, secret: Any) -> None:
        if isinstance(secret, str) and len(secret.strip()) >= SHORTEST:
            self.secrets.add(secret.strip())

    def of_request(self, environ: dict[str, Any] | None = None, **kwargs: Any) -> None:
        for name in HEADERS:
            self.add((environ or {}).get(name, "").rpartition(" ")[2])

    def of_row(self, sender: Any, instance: Any, **kwargs: Any) -> None:
        for name in FIELDS.get(sender.__name__, ()):
            self.add(getattr(instance, name, None))

    def leaks(self) -> list[str]:
        """The lines that show a secret."""
        self.flush()
        self.lines.seek(0)
        log = self.lines.read()
        # JSON writes a quotation mark, a backslash and a line break of a text in its own way.
        spelled = {
            secret: secret.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for secret in self.secrets
        }
        known = [spelling for spelling in spelled.values() if spelling in log]
        return [line for line in log.splitlines() if RECOGNISED.search(line) or any(part in line for part in known)]


@contextmanager
def watched() -> Iterator[Watch]:
    watch = Watch()
    logging.getLogger().addHandler(watch)
    request_started.connect(watch.of_request)
    post_save.connect(watch.of_row)
    try:
        yield watch
    finally:
        logging.getLogger().removeHandler(watch)
        request_started.disconnect(watch.of_request)
        post_save.disconnect(watch.of_row)
