"""Template tags of the console: times and sizes as people read them."""

from __future__ import annotations

from datetime import datetime

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from django.utils.translation import gettext, ngettext, pgettext_lazy

register = template.Library()

DAY, HOUR, MINUTE, SECOND = (
    pgettext_lazy("a span of time", "d"),
    pgettext_lazy("a span of time", "h"),
    pgettext_lazy("a span of time", "min"),
    pgettext_lazy("a span of time", "s"),
)
# A unit, its seconds, and the next smaller one with its own.
UNITS = ((DAY, 86400, HOUR, 3600), (HOUR, 3600, MINUTE, 60), (MINUTE, 60, SECOND, 1))


@register.simple_tag
def when(time: datetime | None) -> SafeString | str:
    """A time in UTC, to the second, and how long ago that is."""
    return "–" if time is None else told_time(time)


def told_time(time: datetime) -> SafeString:
    shown = f"{time:%Y-%m-%d %H:%M:%S} UTC"
    return format_html(
        '<time class="console-time" datetime="{}">{}</time> <small>{}</small>', time.isoformat(), shown, ago(time)
    )


@register.filter
def ago(time: datetime) -> str:
    """`5 minutes ago`, in the page's language; `in 5 minutes` for what is to come."""
    now = timezone.now()
    seconds = abs((now - time).total_seconds())
    if seconds < 60:
        span = ngettext("%d second", "%d seconds", int(seconds)) % seconds
    else:
        span = timesince(min(time, now), max(time, now), depth=1)
    return (gettext("%s ago") if time <= now else gettext("in %s")) % span


@register.filter
def grouped(number: int) -> str:
    """`131,628`: a number that is read, not copied."""
    return f"{number:,}"


@register.filter
def duration(seconds: float | None) -> str:
    """`12.3 s`, `4 min 5 s`, `2 h 10 min`, `3 d 4 h`, in the page's language; a dash for none."""
    if seconds is None:
        return "–"
    space = "\N{NO-BREAK SPACE}"
    if seconds < 60:
        return f"{seconds:.1f}{space}{SECOND}"
    whole = round(seconds)
    for unit, size, lower, part in UNITS:
        if whole >= size:
            rest = whole % size // part
            more = f" {rest}{space}{lower}" if rest else ""
            return f"{whole // size}{space}{unit}{more}"
    return ""
