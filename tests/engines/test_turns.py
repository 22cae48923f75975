"""Whose sentence the built-in engine speaks next: who waits takes turns, and who has gone is passed over.

The children are stood in for by a pool whose sentences last until the test lets them end, one at a time.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from django.http import HttpRequest
from rest_framework.test import APIClient

from tests.support.audio import speech_like, upload, wav_bytes
from tests.support.tenants import Tenant
from tests.support.waiting import until
from voiceproject.errors import EngineBusy, EngineTimeout, EngineUnavailable
from voices.engines import configured
from voices.engines.builtin.engine import BuiltinEngine
from voices.engines.builtin.turns import Canceled, Deadline, Turns
from voices.engines.interface import Piece, Reference, SynthesisRequest
from voices.speech.models import Synthesis

PATIENCE = 60.0
REFERENCE = Reference(speech_like(4), 16_000, "a")


class HeldEngine(BuiltinEngine):
    """A BuiltinEngine of one place; a sentence is begun (its text goes to `begun`) and lasts until `end` lets it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.begun: queue.Queue[str] = queue.Queue()
        self._ends = threading.Semaphore(0)
        self._pool.speak = self._held  # type: ignore[method-assign]

    def _held(self, order: dict[str, Any], reference: Reference, deadline: float) -> Piece:
        self.begun.put(order["text"])
        assert self._ends.acquire(timeout=PATIENCE)
        return Piece(np.full(2400, 0.1, np.float32), 24_000, order["text"])

    def next(self) -> str:
        """Which sentence is begun next."""
        return self.begun.get(timeout=PATIENCE)

    def end(self, sentences: int = 1) -> None:
        self._ends.release(sentences)

    def ask(self, text: str, tenant: str, canceled: Callable[[], bool] = lambda: False) -> Asked:
        """Has it spoken in a thread; returns once that waits, or speaks."""
        before = self.waiting + self.begun.qsize()
        asked = Asked(self, SynthesisRequest(text, "en", REFERENCE, seed=1, tenant=tenant), canceled)
        until(lambda: asked.done.is_set() or self.waiting + self.begun.qsize() > before)
        return asked

    @property
    def waiting(self) -> int:
        return self._pool.turns.waiting


class Asked:
    def __init__(self, engine: HeldEngine, request: SynthesisRequest, canceled: Callable[[], bool]) -> None:
        self.pieces: list[str] = []
        self.error: Exception | None = None
        self.done = threading.Event()
        threading.Thread(target=self._ask, args=(engine, request, canceled), daemon=True).start()

    def _ask(self, engine: HeldEngine, request: SynthesisRequest, canceled: Callable[[], bool]) -> None:
        try:
            for piece in engine.synthesize(request, time.monotonic() + PATIENCE, canceled):
                self.pieces.append(piece.text)
        except Exception as error:
            self.error = error
        finally:
            self.done.set()


@pytest.fixture
def engine() -> Iterator[HeldEngine]:
    made = HeldEngine(max_waiting=20)
    yield made
    made.end(1000)
    made.close()


def test_ten_sentences_of_one_tenant_hold_up_anothers_by_one(engine: HeldEngine) -> None:
    names = ("red", "green", "blue", "black", "white", "gold", "pink", "grey", "brown", "lime", "teal")
    sentences = [f"Sentence {name}." for name in names]
    crowd = [engine.ask(sentence, "crowd") for sentence in sentences]  # one is spoken, ten wait
    late = engine.ask("The first of the late one. And its second.", "late")
    order = []
    for _ in range(13):
        order.append(engine.next())
        engine.end()
        until(lambda: sum(len(asked.pieces) for asked in [*crowd, late]) == len(order))
    assert order[:4] == [sentences[0], "The first of the late one.", sentences[1], "And its second."]
    assert order[4:] == sentences[2:], "within a tenant, who came first"
    assert late.pieces == ["The first of the late one.", "And its second."]


def test_three_tenants_take_turns_and_the_one_served_longest_ago_goes_first(engine: HeldEngine) -> None:
    for tenant in ("a", "b", "a", "a", "c", "b"):
        engine.ask(f"{tenant} speaks.", tenant)
    order = []
    for _ in range(6):
        order.append(engine.next()[0])
        engine.end()
    assert "".join(order) == "abcaba"


def test_several_places_are_used_at_once_and_never_more() -> None:
    turns = Turns(2, 10)
    inside, most, lock = [0], [0], threading.Lock()

    def work(tenant: str) -> None:
        for _ in range(20):
            with turns.turn(tenant, time.monotonic() + PATIENCE):
                with lock:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                time.sleep(0.001)
                with lock:
                    inside[0] -= 1

    threads = [threading.Thread(target=work, args=(str(number % 3),)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert most[0] == 2 and inside[0] == 0 and turns.waiting == 0
    with turns.turn("x", 0), turns.turn("y", 0):  # both are free again: neither has to wait
        pass


def test_a_full_line_refuses_who_fills_it_and_lets_another_tenant_in() -> None:
    engine = HeldEngine(max_waiting=2)
    try:
        first = engine.ask("It is spoken first. It goes on.", "a")
        assert engine.next() == "It is spoken first."
        waiting = [engine.ask("It waits.", "a") for _ in range(2)]
        refused = engine.ask("It is too much.", "a")
        assert isinstance(refused.error, EngineBusy)
        assert (refused.error.status, refused.error.code) == (503, "engine_busy")
        assert (refused.error.retry_after or 0) >= 1
        other = engine.ask("Another comes.", "b")
        assert not other.done.is_set() and engine.waiting == 3
        engine.end()
        assert engine.next() == "Another comes."
        until(lambda: engine.waiting == 3)  # the first one's second sentence has a place in the full line
        engine.end(4)
        for asked in (first, other, *waiting):
            assert asked.done.wait(PATIENCE) and asked.error is None and asked.pieces
    finally:
        engine.close()


def test_a_wait_for_the_first_turn_is_bounded_and_a_later_one_is_not() -> None:
    engine = HeldEngine(queue_seconds=0.2)
    try:
        first = engine.ask("Its first sentence. Its second sentence.", "a")
        engine.next()
        late = engine.ask("Too late.", "b")
        assert late.done.wait(PATIENCE)
        assert isinstance(late.error, EngineBusy) and (late.error.retry_after or 0) >= 1
        assert engine.waiting == 0
        engine.end(2)
        assert first.done.wait(PATIENCE) and len(first.pieces) == 2, "though it has lasted longer than a wait may"
    finally:
        engine.close()


def test_past_the_deadline_nobody_waits_on() -> None:
    turns = Turns(1, 10)
    with turns.turn("a", 0):
        with pytest.raises(Deadline), turns.turn("b", time.monotonic() + 0.05):
            pytest.fail("there was no place")
        assert turns.waiting == 0
    engine = HeldEngine()
    engine.ask("It is spoken.", "a")
    request = SynthesisRequest("Too late.", "en", REFERENCE, tenant="b")
    with pytest.raises(EngineTimeout):
        list(engine.synthesize(request, time.monotonic() + 0.05, lambda: False))
    engine.end()


def test_who_has_gone_leaves_the_line_and_the_next_moves_up(engine: HeldEngine) -> None:
    gone = threading.Event()
    engine.ask("It is spoken.", "a")
    leaving = engine.ask("It is not spoken.", "b", gone.is_set)
    staying = engine.ask("It is spoken next.", "c")
    gone.set()
    assert leaving.done.wait(PATIENCE) and not leaving.pieces and leaving.error is None
    assert engine.waiting == 1
    assert engine.next() == "It is spoken."
    engine.end()
    assert engine.next() == "It is spoken next."
    engine.end()
    assert staying.done.wait(PATIENCE) and staying.pieces


def test_who_is_called_as_it_goes_gives_its_place_to_the_next() -> None:
    turns = Turns(1, 10)
    asked, order = threading.Event(), []

    def gone() -> bool:
        if asked.is_set():
            return True
        asked.set()
        until(lambda: turns.waiting == 1)  # it is called after it was asked for the last time in the line
        return False

    def wait(tenant: str, canceled: Callable[[], bool]) -> None:
        try:
            with turns.turn(tenant, time.monotonic() + PATIENCE, canceled=canceled):
                order.append(tenant)
        except Canceled:
            order.append(f"{tenant} gone")

    threads = []
    with turns.turn("a", 0):
        for tenant, canceled in (("b", gone), ("c", lambda: False)):
            threads.append(threading.Thread(target=wait, args=(tenant, canceled)))
            threads[-1].start()
            until(lambda: turns.waiting == len(threads))
        assert asked.wait(PATIENCE)
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(order) == ["b gone", "c"]
    assert turns.waiting == 0


def test_closing_tells_those_who_wait() -> None:
    engine = HeldEngine()
    engine.ask("It is spoken.", "a")
    waiting = engine.ask("It waits.", "b")
    engine.close()
    assert waiting.done.wait(PATIENCE) and isinstance(waiting.error, EngineUnavailable)
    with pytest.raises(EngineUnavailable), engine._pool.turns.turn("c", math.inf):
        pytest.fail("it is closed")
    engine.end()


# --- over the API -------------------------------------------------------------------------------------------


def ask_api(api: APIClient, **extra: Any) -> Any:
    reference = upload(wav_bytes(speech_like(), 16_000))
    return api.post("/api/v1/voice/synthesize", {"text": "One sentence.", "reference_audio": reference}, **extra)


@pytest.mark.django_db(transaction=True)
def test_a_busy_engine_is_answered_with_when_to_come_again(api: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = HeldEngine(queue_seconds=0.1)
    monkeypatch.setattr(configured, "load_engine", lambda: engine)
    engine.ask("It is spoken.", "another")
    response = ask_api(api)
    assert (response.status_code, response.json()["error"]) == (503, "engine_busy")
    assert int(response["Retry-After"]) >= 1
    assert Synthesis.objects.get().status == "failed"
    engine.end()


@pytest.mark.django_db(transaction=True)
def test_a_synthesis_that_waits_is_abandoned_when_its_client_hangs_up(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = HeldEngine()
    monkeypatch.setattr(configured, "load_engine", lambda: engine)
    engine.ask("It is spoken.", "another")
    gone = threading.Event()
    monkeypatch.setattr(HttpRequest, "client_gone", gone, raising=False)
    answers: list[Any] = []

    def hang_up() -> None:
        until(lambda: engine.waiting == 1)
        gone.set()

    thread = threading.Thread(target=hang_up)
    thread.start()
    answers.append(ask_api(tenant.client))
    thread.join(PATIENCE)
    assert answers[0].json()["error"] == "job_canceled"
    assert engine.waiting == 0
    assert Synthesis.objects.get().status == "canceled"
    assert engine.next() == "It is spoken." and engine.begun.empty(), "nothing was begun for it"
    engine.end()


def test_a_text_that_would_wait_too_long_is_refused_at_once_by_how_long_sentences_took() -> None:
    turns = Turns(1, 1000)

    def wait(tenant: str) -> threading.Thread:
        def work() -> None:
            with turns.turn(tenant, time.monotonic() + PATIENCE, wait_until=time.monotonic() + PATIENCE):
                pass

        before = turns.waiting
        thread = threading.Thread(target=work)
        thread.start()
        until(lambda: turns.waiting == before + 1)
        return thread

    def come(tenant: str) -> EngineBusy:
        with pytest.raises(EngineBusy) as refused, turns.turn(tenant, math.inf, wait_until=time.monotonic() + 1.5):
            pass
        return refused.value

    with turns.turn("a", math.inf):
        time.sleep(0.5)
    with turns.turn("a", math.inf):  # some .5 s a sentence
        threads = [wait("a") for _ in range(3)]
        began = time.monotonic()
        assert come("a").retry_after >= 2, "four times as much"  # type: ignore[operator]
        assert time.monotonic() - began < 1.4, "it waited"
        threads.append(wait("b"))
        assert turns.waiting == 4
    for thread in threads:
        thread.join(PATIENCE)
