"""What one tenant can hold of what requests wait in, and that others are served beside it."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.jobs import queued
from tests.support.running.quick_server import Answer, Server, ask, serving
from tests.support.running.sockets import head
from tests.support.tenants import Tenant
from tests.support.waiting import until
from voiceproject.leases.models import EngineWaiter
from voiceproject.web.slots import Desk, Places
from voices.keys.models import ApiKey
from voices.speech.models import Synthesis

PROCESSES = 2
SENTENCE = "This is one sentence of a dozen words, which anybody can speak."
OTHERS = "Somebody else would like to say one sentence, which has other words."
SPEAK = "/api/v1/voice/synthesize"


def fill(places: Places, tenant: str) -> list[Any]:
    """All that a tenant gets."""
    taken = []
    while release := places.acquire(tenant):
        taken.append(release)
    return taken


@pytest.mark.parametrize(
    ("most", "first", "second"), [(1, 1, 0), (2, 2, 0), (4, 3, 1), (16, 14, 1), (76, 64, 8), (5000, 4168, 463)]
)
def test_whoever_takes_all_that_it_gets_leaves_places_for_others(most: int, first: int, second: int) -> None:
    places = Places(most)
    assert len(fill(places, "crowd")) == first
    assert len(fill(places, "another")) == second
    assert len(fill(places, "third")) > 0 or most < Places.RESERVE


def test_tenants_without_a_place_get_one_beside_one_that_takes_all_it_gets() -> None:
    places = Places(76)
    held = [fill(places, "0")]
    assert all(places.acquire(f"newcomer {number}") for number in range(12))
    assert places.acquire("0") is None
    for release in held[0]:
        release()
        release()  # counts once
    assert len(fill(places, "0")) == 54


def at_desk(desk: Desk, tenant: str, began: list[str], go: threading.Event) -> threading.Thread:
    """A thread of this tenant that has a place, or waits for one, until `go` is set."""

    def compute() -> None:
        with desk.seat(tenant):
            began.append(tenant)
            go.wait(10)

    thread = threading.Thread(target=compute)
    thread.start()
    return thread


def test_who_computes_leaves_a_place_for_others_and_turns_go_by_tenants() -> None:
    desk, go = Desk(3), threading.Event()
    began: list[str] = []
    threads = [at_desk(desk, "anna", began, go) for _ in range(6)]
    until(lambda: len(began) == 2)
    for other in ("ben", "carl"):
        threads.append(at_desk(desk, other, began, go))
    until(lambda: "ben" in began)
    assert began == ["anna", "anna", "ben"]
    go.set()
    for thread in threads:
        thread.join(10)
    assert sorted(began) == ["anna"] * 6 + ["ben", "carl"]
    assert began.index("carl") < 7, "not behind all of anna's"


def test_who_waits_for_something_gives_its_place_at_the_desk_away() -> None:
    desk, go = Desk(2), threading.Event()
    began: list[str] = []
    with desk.seat("anna"), desk.seat("anna"):  # The inner one is the same place.
        second = at_desk(desk, "anna", began, go)
        with desk.away():
            until(lambda: began == ["anna"])
            go.set()
            second.join(10)
        third = at_desk(desk, "anna", began, go)
        third.join(0.05)
        assert began == ["anna"]
    third.join(10)
    assert began == ["anna", "anna"]


def test_a_block_away_from_the_desk_may_end_in_another_thread() -> None:
    desk = Desk(2)

    def steps() -> Iterator[None]:
        with desk.away():
            yield

    generator = steps()
    with desk.seat("anna"):
        next(generator)
    other = threading.Thread(target=lambda: list(generator))
    other.start()
    other.join(10)
    began: list[str] = []
    go = threading.Event()
    go.set()
    at_desk(desk, "anna", began, go).join(10)
    assert began == ["anna"]


def test_shares_of_bytes_are_counted_in_bytes() -> None:
    bodies = Places(1000, name="uploads on their way")
    assert bodies.acquire("crowd", 850) is not None
    assert bodies.acquire("crowd", 50) is None, "it has its share"
    assert bodies.acquire("another", 151) is None, "there is no room"
    assert bodies.acquire("another", 150) is not None
    refusal = bodies.refusal("crowd")
    assert (refusal.code, refusal.status) == ("too_many_waiting", 503)
    assert refusal.message.startswith("Too many uploads on their way. You have as many as you may have.")
    assert "The server has as many as it can hold" in bodies.refusal("third").message


@pytest.fixture
def server(tmp_path: Path, transactional_db: None) -> Any:
    with serving(tmp_path, WEB_THREADS="20") as found:  # so that 16 may wait
        yield found
        found.fake.gate.set()
        until(lambda: not Synthesis.objects.filter(status="running").exists(), 60)


def test_a_tenant_that_fills_everything_does_not_delay_another_by_more_than_a_sentence(
    server: Server, tenant: Tenant, other: Tenant
) -> None:
    server.fake.hold_at = 0
    jobs = queued("alice", 4)
    paths = [f"/api/v1/cover/jobs/{jobs[number % 4].pk}/events" for number in range(100)]
    streams = [server.connect() for _ in paths]
    for connection, path in zip(streams, paths, strict=True):
        connection.sendall(head(f"GET {path}", key=tenant.secret))
    crowd = [ask(server, tenant, text=SENTENCE) for _ in range(20)]
    # It gets 14 slots of 16: one speaks, and the others wait.
    until(lambda: EngineWaiter.objects.count() == 13, 60)
    until(lambda: server.log.read_text().count(f"POST {SPEAK} 503") == 6, 60)
    one = ask(server, other, text=OTHERS)
    until(lambda: EngineWaiter.objects.filter(tenant=str(other.user.pk)).exists(), 60)
    assert len(server.fake.log) == 1
    server.fake.gate.set()
    answer = Answer(one)
    assert answer.status == 200
    assert answer.file.read(int(answer.headers["content-length"]))[:4] == b"RIFF"
    spoken = [call["body"]["text"] for call in list(server.fake.log)]
    assert spoken.index(OTHERS) == 1, "it was not the next that the engine heard of"
    found: Counter[int] = Counter()
    for connection in crowd:
        answer = Answer(connection)
        found[answer.status] += 1
        if answer.status == 503:
            refusal = answer.json()
            assert refusal["error"] == "too_many_waiting" and "You have as many as you may have" in refusal["message"]
            assert int(answer.headers["retry-after"]) > 0
        answer.hang_up()
    assert found == {200: 14, 503: 6}
    for connection in streams:
        assert Answer(connection).status == 200
        connection.close()


@pytest.fixture
def processes(tmp_path: Path, transactional_db: None) -> Any:
    with serving(tmp_path, WEB_PROCESSES=str(PROCESSES), WEB_THREADS="20", WEB_STREAMS_PER_TENANT="6") as found:
        yield found
        found.fake.gate.set()
        until(lambda: not Synthesis.objects.filter(status="running").exists(), 60)


def test_several_web_processes_share_the_engines_line_the_limits_and_the_end_of_a_key(
    processes: Server, tenant: Tenant, other: Tenant
) -> None:
    server, url = processes, f"http://127.0.0.1:{processes.port}"
    (job,) = queued("alice")
    # As many streams of one tenant as each process holds, and no more; which process is asked is the kernel's to say.
    streams = [Answer(opened(server, f"GET /api/v1/cover/jobs/{job.pk}/events", tenant)) for _ in range(60)]
    held = [stream for stream in streams if stream.status == 200]
    assert 6 < len(held) <= 6 * PROCESSES, "it is not served by two processes"
    assert {stream.status for stream in streams} == {200, 503}
    # The line for the engine is one for all.
    server.fake.hold_at = 0
    crowd = [ask(server, tenant, text=SENTENCE) for _ in range(12)]
    until(lambda: EngineWaiter.objects.count() >= 3, 60)
    one = ask(server, other, text=OTHERS)
    until(lambda: EngineWaiter.objects.filter(tenant=str(other.user.pk)).exists(), 60)
    assert len(server.fake.log) == 1, "two processes use one engine at the same time"
    server.fake.gate.set()
    assert Answer(one).status == 200
    assert [call["body"]["text"] for call in list(server.fake.log)].index(OTHERS) == 1
    assert {Answer(connection).status for connection in crowd} <= {200, 503}
    # So are requests a minute.
    ApiKey.objects.filter(pk=other.key.pk).update(requests_per_minute=9)
    answers = [requests.get(f"{url}/api/v1/me", headers={"X-API-Key": other.secret}, timeout=30) for _ in range(20)]
    assert [answer.status_code for answer in answers].count(200) == 9
    # A revoked key ends what is open in each of them.
    tenant.key.revoke()
    for stream in held:
        assert stream.rest()[1], "it was cut off, or goes on"
    for stream in streams:
        stream.hang_up()


def opened(server: Server, line: str, tenant: Tenant) -> socket.socket:
    connection = server.connect()
    connection.sendall(head(line, key=tenant.secret))
    return connection
