"""Where a user is signed in. Sessions have no user of their own: it stands in what each holds, which is signed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.utils import timezone

LOOKED_AT = 2000  # sessions of all users for one page, those used last
SHOWN = 20


def _of(user: User, most: int | None) -> Iterator[tuple[Session, dict[str, Any]]]:
    live = Session.objects.filter(expire_date__gt=timezone.now()).order_by("-expire_date")
    for session in live[:most] if most else live.iterator():
        held = session.get_decoded()
        if held.get(SESSION_KEY) == str(user.pk):
            yield session, held


def of_user(user: User, here: str | None) -> list[dict[str, Any]]:
    """Those of a user, this one (`here`: its key) first: browser, address, since when (None: not known), until when."""
    found = []
    for session, held in _of(user, LOOKED_AT):
        told = held.get("signed_in", {})
        at = datetime.fromisoformat(told["at"]) if "at" in told else None
        found.append({"here": session.session_key == here, "at": at, "address": told.get("address", ""),
                      "browser": browser_of(told.get("agent", "")), "ends": session.expire_date})  # fmt: skip
    return sorted(found, key=lambda session: not session["here"])[:SHOWN]


# Most name themselves and those that they stand for: the first that is found here is the one.
BROWSERS = {"Edg": "Edge", "OPR/": "Opera", "Firefox/": "Firefox", "FxiOS/": "Firefox", "Chrome/": "Chrome",
            "CriOS/": "Chrome", "Safari/": "Safari"}  # fmt: skip
SYSTEMS = {"iPhone": "iPhone", "iPad": "iPad", "Android": "Android", "Windows": "Windows", "Mac OS": "macOS",
           "CrOS": "ChromeOS", "Linux": "Linux"}  # fmt: skip


def browser_of(agent: str) -> str:
    """`Firefox, Windows` of a User-Agent; the beginning of one that is not known, a dash for none."""
    names = [next((name for mark, name in known.items() if mark in agent), "") for known in (BROWSERS, SYSTEMS)]
    return ", ".join(name for name in names if name) or agent[:60] or "–"


def end_others(user: User, here: str | None) -> int:
    """Ends all sessions of a user but this one; how many."""
    keys = [session.session_key for session, _held in _of(user, None) if session.session_key != here]
    for start in range(0, len(keys), 500):
        Session.objects.filter(session_key__in=keys[start : start + 500]).delete()
    return len(keys)
