"""Who speaks next where several texts want one GPT-SoVITS server, or one text has several servers to choose from."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import pytest

from tests.fakes.gptsovits import FakeGptSovits
from tests.support.gptsovits_client import Engines, ask, failure, pitch, refused_url, speak, voice
from tests.support.threads import in_thread
from tests.support.waiting import until
from voiceproject.leases.lease import Leases
from voiceproject.leases.models import EngineLease, EngineWaiter

# --- the line -----------------------------------------------------------------------------------------------


def test_waiting_is_bounded_in_time_and_in_number(fake: FakeGptSovits, engine_for: Engines) -> None:
    engine = engine_for(fake.url, queue_seconds=0.5, max_waiting=1)
    fake.moods.append("hang")
    holder = in_thread(lambda: speak(engine, seconds=60))
    until(lambda: len(fake.log) == 1)
    started = time.monotonic()
    error = failure(engine)
    assert (error.code, error.status) == ("engine_busy", 503)
    assert error.retry_after is not None and error.retry_after >= 1
    assert time.monotonic() - started >= 0.5
    patient = engine_for(fake.url, max_waiting=1)
    waiter = in_thread(lambda: speak(patient))
    until(lambda: EngineWaiter.objects.count() == 1)
    started = time.monotonic()
    error = failure(patient)
    assert (error.code, error.status) == ("engine_busy", 503)
    assert time.monotonic() - started < 10, "the line was full: no use in waiting"
    fake.wake()
    holder.join()
    waiter.join()
    assert len(fake.log) == 2 and fake.overlaps() == 0


def test_long_texts_take_turns(fake: FakeGptSovits, engine_for: Engines) -> None:
    fake.seconds = 0.1
    engine = engine_for(fake.url)
    text = " ".join(f"Sentence {number} of this text is spoken now." for number in range(4))
    other = in_thread(lambda: speak(engine, ask(text, voice(200))))
    until(lambda: len(fake.log) == 1)
    speak(engine, ask(text, voice(100)))
    other.join()
    order = [round(call["pitch"], -2) for call in fake.log]
    assert sorted(order) == [100] * 4 + [200] * 4
    assert order[:7] in ([200, 100] * 3 + [200], [200, 200, 100, 200, 100, 200, 100])
    assert fake.overlaps() == 0


# --- several servers ----------------------------------------------------------------------------------------


def test_two_servers_work_at_once(engine_for: Engines) -> None:
    with FakeGptSovits() as one, FakeGptSovits() as two:
        engine = engine_for(one.url, two.url)
        one.mood = two.mood = "hang"
        threads = [in_thread(lambda: speak(engine)) for _ in range(2)]
        until(lambda: len(one.log) == len(two.log) == 1)
        one.wake()
        two.wake()
        for thread in threads:
            thread.join()


def test_a_server_that_is_down_is_replaced_by_another_and_comes_back(engine_for: Engines) -> None:
    dead = refused_url()
    with FakeGptSovits() as good:
        engine = engine_for(dead, good.url, set_aside_seconds=0.3)
        for _ in range(4):
            assert pitch(speak(engine)) == pytest.approx(120, rel=0.03)
        assert len(good.log) == 4
        with FakeGptSovits(port=urlsplit(dead).port or 0) as back:
            until(lambda: bool(speak(engine)) and len(back.log) > 0)
    error = failure(engine)
    assert error.code == "engine_unavailable"


def test_one_text_stays_on_one_server(engine_for: Engines) -> None:
    text = " ".join(f"Sentence {number} of this text is spoken now." for number in range(6))
    with FakeGptSovits() as one, FakeGptSovits() as two:
        speak(engine_for(one.url, two.url), ask(text))
        assert sorted([len(one.log), len(two.log)]) == [0, 6]


def test_a_time_out_is_not_tried_on_another_server(engine_for: Engines) -> None:
    # It may be the text that is slow: it would hold up one server after another.
    with FakeGptSovits() as one, FakeGptSovits() as two:
        one.mood = two.mood = "hang"
        assert failure(engine_for(one.url, two.url, timeout_seconds=0.5)).code == "engine_timeout"
        assert len(one.log) + len(two.log) == 1


def test_a_server_that_failed_comes_back_without_anybodys_request(engine_for: Engines) -> None:
    dead = refused_url()
    with FakeGptSovits() as good:
        engine = engine_for(dead, good.url, set_aside_seconds=0.2)
        while not EngineLease.objects.filter(unreachable=True).exists():
            speak(engine)
        with FakeGptSovits(port=urlsplit(dead).port or 0) as back:
            until(lambda: not EngineLease.objects.filter(needs_probe=True).exists())
            assert back.probes == 1 and back.log == []
            state = Leases([dead]).states()[dead]
            assert not state.set_aside and not state.needs_probe


def test_a_crowd_of_one_tenant_does_not_hold_up_a_sentence_of_another(fake: FakeGptSovits, engine_for: Engines) -> None:
    fake.moods.append("hang")
    engine = engine_for(fake.url, max_waiting=6)
    crowd = [in_thread(lambda: speak(engine, ask(reference=voice(100), tenant="crowd"))) for _ in range(6)]
    until(lambda: EngineWaiter.objects.count() == 5 and len(fake.log) == 1)
    one = in_thread(lambda: speak(engine_for(fake.url), ask(reference=voice(200), tenant="one")))
    until(lambda: EngineWaiter.objects.count() == 6)
    fake.wake()
    for thread in [*crowd, one]:
        thread.join()
    assert [round(call["pitch"], -2) for call in fake.log] == [100, 200, *[100] * 5]
