"""At most N requests in any 60 seconds, over all threads, processes and hosts.

For each name that is limited the times of its last N accepted requests are kept: one more is accepted when the
N-th last is 60 seconds old. Nothing coarser keeps that promise: a window that starts anew each minute lets 2 N
through around its start, and a bucket that fills itself lets through what it holds and what flows in meanwhile.

They are kept in Redis where REDIS_URL is set (one script, on the server's clock), else in one row of the database (one
guarded statement, on its clock). While Redis is away everything is let through, and that is logged.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from voiceproject.tenants.models import RateLog

log = logging.getLogger(__name__)

WINDOW_SECONDS = 60.0
REDIS_SECONDS = 0.5  # so long an answer of Redis is waited for
REDIS_AWAY_SECONDS = 5.0  # so long it is not asked again after it gave none


@dataclass(frozen=True)
class Limit:
    """name: whose requests are counted; requests: how many of them are accepted in a window, at least 1."""

    name: str
    requests: int


@dataclass(frozen=True)
class Standing:
    """How one limit stands after a request. accepted: False where this limit refuses it.

    remaining: requests that it would accept now; reset_seconds: until there is one more than that, 0 where none is
    used. Where it refuses, that is when the next one is accepted.
    """

    limit: Limit
    accepted: bool
    remaining: int
    reset_seconds: float


def take(limits: list[Limit]) -> list[Standing]:
    """Counts one request under all limits, or, where one of them refuses it, under none. Empty: Redis is away.

    Several limits may stand under one name: each is compared with all that was accepted under it. Where several names
    are taken together, they are always in the same order.
    """
    if not limits:
        return []
    return _take_from_redis(limits) if settings.REDIS_URL else _take_from_database(limits)


# KEYS: lists of times in microseconds, the newest first. ARGV: the window, then the limit of each key.
# Answers for each key: whether it accepts, how many remain, and microseconds until there is one more.
SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local window = tonumber(ARGV[1])
local accepted = 1
local used = {}
for i, key in ipairs(KEYS) do
    local oldest = redis.call('LINDEX', key, -1)
    while oldest and tonumber(oldest) <= now - window do
        redis.call('RPOP', key)
        oldest = redis.call('LINDEX', key, -1)
    end
    used[i] = redis.call('LLEN', key)
    if used[i] >= tonumber(ARGV[i + 1]) then accepted = 0 end
end
local answer = {}
for i, key in ipairs(KEYS) do
    local limit = tonumber(ARGV[i + 1])
    local full = used[i] >= limit
    if accepted == 1 then
        redis.call('LPUSH', key, string.format('%.0f', now))
        redis.call('PEXPIRE', key, math.ceil(window / 1000))
        used[i] = used[i] + 1
    end
    local place = -1
    if used[i] > limit then place = limit - 1 end
    local freed = redis.call('LINDEX', key, place)
    answer[#answer + 1] = full and 0 or 1
    answer[#answer + 1] = math.max(0, limit - used[i])
    answer[#answer + 1] = freed and tonumber(freed) + window - now or 0
end
return answer
"""

_away_until = 0.0
_away_lock = threading.Lock()


@functools.cache
def _script(url: str) -> Any:
    import redis  # Its loading takes a tenth of a start, which those without a Redis do not wait for.
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    client = redis.Redis.from_url(
        url,
        socket_connect_timeout=REDIS_SECONDS,
        socket_timeout=REDIS_SECONDS,
        retry=Retry(NoBackoff(), 1),  # A connection that has lain idle may be closed on the other side.
    )
    return client.register_script(SCRIPT)


def _take_from_redis(limits: list[Limit]) -> list[Standing]:
    import redis

    global _away_until
    if time.monotonic() < _away_until:
        return []
    keys = [f"voiceproject:rate:{limit.name}" for limit in limits]
    try:
        answer = _script(settings.REDIS_URL)(keys, [round(WINDOW_SECONDS * 1e6), *(limit.requests for limit in limits)])
    except redis.RedisError as error:
        with _away_lock:
            if time.monotonic() >= _away_until:
                _away_until = time.monotonic() + REDIS_AWAY_SECONDS
                log.error("Redis cannot be reached, so requests are let through uncounted: %s", error)
        return []
    return [
        Standing(limit, bool(answer[3 * i]), answer[3 * i + 1], answer[3 * i + 2] / 1e6)
        for i, limit in enumerate(limits)
    ]


# A log is the times of the requests, milliseconds in 13 digits each, the newest first, without anything between them.
DIGITS = 13
NOW = {
    # Not the start of the transaction or of a wait for the row: the moment in which the row is looked at.
    "postgresql": "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint",
    "sqlite": "CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)",
}
# As many times are kept as the highest limit of this name has asked for, whoever asks.
GREATEST = {"postgresql": "greatest", "sqlite": "max"}
# Written where there is none yet, or where the N-th last time is longer ago than the window. Both times are cut to
# milliseconds, so one that is not longer ago might be a fraction of one too young.
STATEMENT = """
INSERT INTO {table} (name, times) VALUES (%s, CAST({now} AS TEXT))
ON CONFLICT (name) DO UPDATE SET times = substr(CAST({now} AS TEXT) || {table}.times, 1,
    {greatest}(%s, length({table}.times)))
WHERE substr({table}.times, %s, {digits}) < CAST({now} - %s AS TEXT)
RETURNING times, {now}
"""
LOOK = "SELECT times, {now} FROM {table} WHERE name = %s"


def _sql(statement: str) -> str:
    vendor = connection.vendor
    return statement.format(table=RateLog._meta.db_table, now=NOW[vendor], greatest=GREATEST[vendor], digits=DIGITS)


def _take_from_database(limits: list[Limit]) -> list[Standing]:
    if len(limits) == 1:
        return [_take_row(limits[0])]
    # Each in its own row: where one refuses, the others have not counted the request either.
    with transaction.atomic():
        standings = [_take_row(limit) for limit in limits]
        if not all(standing.accepted for standing in standings):
            transaction.set_rollback(True)
    return standings


def _take_row(limit: Limit) -> Standing:
    window = round(WINDOW_SECONDS * 1000)
    with connection.cursor() as cursor:
        cursor.execute(
            _sql(STATEMENT), [limit.name, DIGITS * limit.requests, DIGITS * (limit.requests - 1) + 1, window]
        )
        row = cursor.fetchone()
        accepted = row is not None
        if row is None:
            cursor.execute(_sql(LOOK), [limit.name])
            row = cursor.fetchone()
    times, now = row
    used = _count_since(times, int(now) - window)
    # Where the limit was lowered, more are counted than it has: the N-th last has to go.
    freed = _time_at(times, min(used, limit.requests) - 1) + window + 1 - int(now) if used else 0
    return Standing(limit, accepted, max(0, limit.requests - used), max(0, freed) / 1000)


def _time_at(times: str, place: int) -> int:
    return int(times[place * DIGITS : (place + 1) * DIGITS])


def _count_since(times: str, start: int) -> int:
    """How many of the times, which fall, are at `start` or later."""
    return bisect_right(range(len(times) // DIGITS), -start, key=lambda place: -_time_at(times, place))


def sweep() -> int:
    """Removes what is not counted any more; how many rows."""
    with connection.cursor() as cursor:
        cursor.execute(
            _sql("DELETE FROM {table} WHERE substr(times, 1, {digits}) < CAST({now} - %s AS TEXT)"),
            [round(WINDOW_SECONDS * 1000)],
        )
        return int(cursor.rowcount)
