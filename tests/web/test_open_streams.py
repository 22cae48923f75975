"""Event streams and waits that are open while something happens to their tenant, or to the next one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from django.utils import timezone

from covers.models import CoverJob
from tests.support.jobs import queued
from tests.support.running.quick_server import Answer, Server, ask
from tests.support.running.sockets import head, rest, status_of
from tests.support.tenants import Tenant
from tests.support.waiting import until
from voiceproject.jobs import suspension
from voices.keys.models import ApiKey

pytestmark = pytest.mark.django_db(transaction=True)

LAPSED_SECONDS = 5.0
SLACK_SECONDS = 3.0  # for a machine with much else to do


class Stream:
    """An event stream, read by a thread as it comes."""

    def __init__(self, server: Server, job: CoverJob, secret: str) -> None:
        self.seen = b""
        self.ended = threading.Event()
        self.connection = server.connect()
        self.connection.settimeout(60)
        self.connection.sendall(head(f"GET /api/v1/cover/jobs/{job.pk}/events", "Connection: close", key=secret))
        self.thread = threading.Thread(target=self.read)
        self.thread.start()
        until(lambda: b"\ndata:" in self.seen or self.ended.is_set(), 30)

    @property
    def held(self) -> bool:
        return status_of(self.seen) == 200 and b"\ndata:" in self.seen and not self.ended.is_set()

    def read(self) -> None:
        try:
            while content := self.connection.recv(65_536):
                self.seen += content
        except OSError:
            pass  # Cut off, or closed here.
        self.ended.set()

    def close(self) -> None:
        self.connection.close()


@pytest.fixture
def open_stream(server: Server) -> Iterator[Callable[[CoverJob, str], Stream]]:
    opened: list[Stream] = []

    def open_(job: CoverJob, secret: str) -> Stream:
        opened.append(Stream(server, job, secret))
        return opened[-1]

    yield open_
    for stream in opened:
        stream.connection.shutdown(2) if not stream.ended.is_set() else None
        stream.close()
        stream.thread.join(30)


def revoke(tenant: Tenant) -> None:
    tenant.key.revoke()


def expire(tenant: Tenant) -> None:
    ApiKey.objects.filter(pk=tenant.key.pk).update(expires_at=timezone.now() - timedelta(seconds=1))


def block(tenant: Tenant) -> None:
    suspension.block(tenant.user)


def lose_the_scope(tenant: Tenant) -> None:
    ApiKey.objects.filter(pk=tenant.key.pk).update(scopes=["synthesize"])


@pytest.mark.parametrize("change", [revoke, expire, block, lose_the_scope])
def test_what_is_open_ends_with_the_right_to_it(
    server: Server, tenant: Tenant, other: Tenant, open_stream: Callable[..., Stream], change: Callable[[Tenant], None]
) -> None:
    (mine,), (theirs,) = queued("alice"), queued("bob")
    streams = [open_stream(mine, tenant.secret) for _ in range(5)]
    another = open_stream(theirs, other.secret)
    waiting = server.connect()
    waiting.sendall(
        head(f"GET /api/v1/cover/jobs/{mine.pk}", "Prefer: wait=60", "Connection: close", key=tenant.secret)
    )
    time.sleep(0.5)
    assert all(stream.held for stream in [*streams, another])
    change(tenant)
    changed = time.monotonic()
    for stream in streams:
        assert stream.ended.wait(LAPSED_SECONDS + SLACK_SECONDS)
    assert status_of(rest(waiting)) in (401, 403)
    assert time.monotonic() - changed < LAPSED_SECONDS + SLACK_SECONDS
    waiting.close()
    told = [stream.seen for stream in streams]
    CoverJob.objects.filter(pk=mine.pk).update(revision=mine.revision + 7, progress=50)
    time.sleep(1)
    assert [stream.seen for stream in streams] == told
    assert another.held, "the other tenant's goes on"


def test_fifty_streams_of_one_tenant_stop_no_speech_of_another(
    server: Server, tenant: Tenant, other: Tenant, open_stream: Callable[..., Stream]
) -> None:
    jobs = queued("alice", 5)
    streams = [open_stream(jobs[number % 5], tenant.secret) for number in range(50)]
    assert all(stream.held for stream in streams)
    began = time.monotonic()
    answer = Answer(ask(server, other))
    assert answer.status == 200
    assert answer.file.read(int(answer.headers["content-length"]))[:4] == b"RIFF"
    assert time.monotonic() - began < 10
    answer.hang_up()
    assert all(stream.held for stream in streams)
