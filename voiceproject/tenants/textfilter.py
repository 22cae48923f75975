"""Which texts are not spoken or sung here: the operator's own filter, where TEXT_FILTER names one.

A filter is a callable `(text, tenant_id, operation) -> str | None`: None lets the text through, a string is the reason
that the client reads. operation: `synthesis` or `cover`. It is called in the web process, outside of a transaction, for
each request, and by several threads at once. One that raises, or answers anything else, lets nothing through.
"""

from __future__ import annotations

import functools
import logging
import re
import traceback
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from voiceproject.errors import PublicError
from voiceproject.tenants import audit

log = logging.getLogger(__name__)

Filter = Callable[[str, int, str], str | None]
RETRY_SECONDS = 60


@functools.lru_cache(maxsize=4)
def load(path: str) -> Filter:
    """The callable with this dotted path. Raises ImportError, TypeError."""
    found = import_string(path)
    if not callable(found):
        raise TypeError(f"{path} is not callable")
    return found  # type: ignore[no-any-return]


def check(request: Any, text: str, operation: str, field: str) -> None:
    """Asks the filter about one text of a request. Raises PublicError: content_refused, not_configured (503).

    field: what the text is called in the request. The audit log is told of a refusal, and not of the text.
    """
    if not settings.TEXT_FILTER or not text:
        return
    tenant_id = request.user.pk
    try:
        reason = load(settings.TEXT_FILTER)(text, tenant_id, operation)
        if reason is not None and (not isinstance(reason, str) or not reason.strip()):
            raise TypeError(f"a filter answers None or a reason, not {type(reason).__name__}")
    except Exception as error:
        # Without its message, which may quote the text.
        where = "".join(traceback.format_tb(error.__traceback__))
        log.error("TEXT_FILTER failed: %s\n%s", type(error).__name__, where)
        message = "Texts cannot be checked now, and none is taken unchecked. Try again later."
        raise PublicError("not_configured", message, retry_after=RETRY_SECONDS) from None
    if reason is None:
        return
    reason = reason.strip()[:300]
    details = {"operation": operation, "field": field, "reason": reason, "characters": len(text)}
    audit.record("content.refuse", request=request, tenant_id=tenant_id, details=details)
    raise PublicError("content_refused", f"{field}: {reason}", {"field": field, "reason": reason})


# --- the built-in filter ---

REASON = "This text has a word that is not allowed here."
# Scripts that put no spaces between words: there a listed word is found inside of others too.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


def words(text: str, tenant_id: int, operation: str) -> str | None:
    """Refuses texts with a word or phrase of the file TEXT_FILTER_WORDS: UTF-8, one a line, `#` begins a comment.

    Whole words, whatever their case or width, and whatever stands between those of a phrase. A file that is changed is
    read again. It stops who writes plainly; who writes around it needs a filter that understands.
    """
    path = Path(settings.TEXT_FILTER_WORDS)
    status = path.stat()
    plain = _plain(text)
    for phrase in _phrases(path, status.st_mtime_ns, status.st_size):
        # Looked for first as it stands: a list may be long, and a pattern is slow.
        if all(word in plain for word in phrase) and _pattern(phrase).search(plain):
            return REASON
    return None


@functools.lru_cache(maxsize=2)
def _phrases(path: Path, changed_ns: int, size: int) -> frozenset[tuple[str, ...]]:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return frozenset(tuple(_plain(line.partition("#")[0]).split()) for line in lines) - {()}


@functools.lru_cache(maxsize=1024)
def _pattern(phrase: tuple[str, ...]) -> re.Pattern[str]:
    before = "" if _UNSPACED.match(phrase[0][0]) else r"(?<!\w)"
    after = "" if _UNSPACED.match(phrase[-1][-1]) else r"(?!\w)"
    return re.compile(before + r"[\W_]+".join(map(re.escape, phrase)) + after)


def _plain(text: str) -> str:
    """In one case and width, without what nobody sees."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(char for char in folded if unicodedata.category(char) != "Cf")
