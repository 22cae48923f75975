"""The Dramatiq broker: Redis where REDIS_URL is set, else messages inside the worker's own process.

The database is the queue of record; a message only means "look". So nothing is lost with a broker's memory, and a
worker without Redis lives by its own look at the database (see worker.py).
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field

import dramatiq
from django.conf import settings
from django.db import transaction
from dramatiq.brokers.stub import StubBroker
from dramatiq.errors import BrokerError
from dramatiq.middleware import AgeLimit, Callbacks, Retries, ShutdownNotifications

log = logging.getLogger(__name__)

# What sending a message raises when the broker is away; Redis' own errors come through as they are.
UNREACHABLE: tuple[type[Exception], ...] = (BrokerError, OSError)
if settings.REDIS_URL:
    import redis  # Its loading takes a tenth of a start, which those without a Redis do not wait for.

    UNREACHABLE += (redis.RedisError,)


def make_broker() -> dramatiq.Broker:
    """Dramatiq's defaults are wrong for hour-long work, so its middleware is named here, one by one.

    No TimeLimit: it raises in a thread that waits in a system call only once that call returns; the command runner has
    deadlines of its own. No retries: the database says what is still to be done, and the next look finds it.
    A "look" that is older than ten minutes has been overtaken by others.
    """
    middleware = [AgeLimit(max_age=10 * 60 * 1000), ShutdownNotifications(notify_shutdown=False), Callbacks(),
                  Retries(max_retries=0)]  # fmt: skip
    if not settings.REDIS_URL:
        return StubBroker(middleware=middleware)
    import redis
    from dramatiq.brokers.redis import RedisBroker

    # A server that has vanished from the network is noticed within seconds: by a socket's own patience a look at the
    # database, or a client's submission, would wait for minutes.
    client = redis.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=2, socket_timeout=5)
    return RedisBroker(
        client=client,
        middleware=middleware,
        namespace="voiceproject",
        heartbeat_timeout=60_000,
        dead_message_ttl=24 * 3600 * 1000,
    )


broker = make_broker()
dramatiq.set_broker(broker)


@dataclass
class ThisWorker:
    """Of this worker process: its name in claims, and whether it was told to stop."""

    name: str = "unnamed"
    stopping: threading.Event = field(default_factory=threading.Event)


this_worker = ThisWorker()


def wake_workers(actor: dramatiq.Actor) -> None:
    """After the current transaction: tells the workers to look now, where there is a broker to tell them through."""
    if settings.REDIS_URL:
        transaction.on_commit(lambda: _send_look(actor), robust=True)


def _send_look(actor: dramatiq.Actor) -> None:
    try:
        actor.send()
    except UNREACHABLE as error:
        # The row is written; the workers' own look finds it within seconds.
        log.warning("the broker cannot be reached: %s", error)
