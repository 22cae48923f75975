"""What takes long to find, found in the background."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from django.db import connection

log = logging.getLogger(__name__)


class Background:
    """What takes long to find, found by a thread; the page shows what was found last, and hardly waits."""

    def __init__(self, find: Callable[[], Any], seconds: float) -> None:
        self._find, self._seconds = find, seconds
        self._changed = threading.Condition()
        self._value: Any = None
        self._found_at: float | None = None
        self._busy = False

    def value(self, patience_seconds: float = 0.0) -> Any:
        """None where nothing was found yet, and is not within `patience_seconds` either."""
        with self._changed:
            old = self._found_at is None or time.monotonic() - self._found_at > self._seconds
            if old and not self._busy:
                self._busy = True
                threading.Thread(target=self._run, name="dashboard", daemon=True).start()
            if self._value is None and patience_seconds:
                self._changed.wait_for(lambda: not self._busy, patience_seconds)
            return self._value

    def forget(self) -> None:
        with self._changed:
            self._value = self._found_at = None

    def _run(self) -> None:
        value = None
        try:
            value = self._find()
        except Exception:
            # The page goes on with what it has; the next look tries again.
            log.warning("a part of the dashboard could not be found", exc_info=True)
        finally:
            connection.close()
            with self._changed:
                self._value = self._value if value is None else value
                self._busy, self._found_at = False, time.monotonic()
                self._changed.notify_all()
