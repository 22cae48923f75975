"""What one tenant can hold of what requests wait in, and that others are served beside it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.jobs import queued
from tests.support.running.quick_server import Answer, Server, ask, serving
from tests.support.running.sockets import head
from tests.support.tenants import Tenant
from tests.support.waiting import until
from voiceproject.leases.models import EngineWaiter
from voiceproject.web.slots import Places
from voices.speech.models import Synthesis

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
    ("most", "first", "second"), [(1, 1, 0), (2, 2, 0), (16, 14, 1), (76, 64, 8), (5000, 4168, 463)]
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
