"""Models of the GPT-SoVITS client: whose weights a server has loaded, and which server is asked."""

from __future__ import annotations

import http.client
import logging
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
from django.db.models.functions import Now

from tests.fakes.gptsovits import FakeGptSovits, pitch_of, tone
from tests.support.gptsovits_client import (
    ANNA,
    TEXT,
    Engines,
    ask,
    failure,
    pitch,
    plain,
    post,
    speak,
    voice,
    with_model,
)
from tests.support.threads import in_thread
from tests.support.waiting import until
from voiceproject.errors import PublicError
from voiceproject.leases.lease import UNKNOWN
from voiceproject.leases.models import EngineLease, EngineWaiter
from voiceproject.leases.rows import LOADED_SECONDS
from voices.engines.gptsovits.engine import GptSovitsEngine
from voices.engines.interface import Model

BASE = Model("default", "gpt-base", "sovits-base")
BEN = Model("ben", "gpt-ben", "sovits-ben")


def get(url: str) -> int:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    connection.request("GET", f"{parts.path}?{parts.query}")
    status = connection.getresponse().status
    connection.close()
    return status


def test_the_fakes_weights_are_everybodys(fake: FakeGptSovits, tmp_path: Path) -> None:
    path = tmp_path / "voice.wav"
    soundfile.write(path, tone(120, 4, 16_000), 16_000)

    def heard() -> float:
        _, content = post(fake.url, **plain(path))
        return pitch_of(np.frombuffer(content[44:], np.int16).astype(np.float32), 32_000)

    assert heard() == pytest.approx(120, rel=0.03)
    assert get(f"{fake.url}/set_sovits_weights?weights_path=sovits-anna") == 200
    assert heard() == pytest.approx(75, rel=0.03), "what it remembers of the path was made with other weights"
    assert get(f"{fake.url}/set_sovits_weights?weights_path=nowhere.pth") == 400
    assert (fake.weights[1], fake.configured[1]) == ("sovits-anna", "sovits-anna")
    assert get(f"{fake.url}/set_gpt_weights?weights_path=gpt-anna") == 200
    assert (fake.weights[1], fake.configured[1]) == ("sovits-anna", "nowhere.pth"), "it is saved with the next switch"
    fake.restart(recreated=False)
    assert fake.weights == ["gpt-anna", "sovits-base"], "what is missing is the default"
    assert get(f"{fake.url}/set_gpt_weights") == 400


def test_a_models_weights_are_loaded_once_and_the_defaults_brought_back(
    fake: FakeGptSovits, engine_for: Engines
) -> None:
    engine = engine_for(fake.url)
    for model, ratio in ((ANNA, 1.25), (ANNA, 1.25), (BASE, 1.0), (BEN, 1.6), (ANNA, 1.25), (BASE, 1.0)):
        # The same reference all the time: what was computed of it for one model serves no other.
        assert pitch(speak(engine, with_model(model))) == pytest.approx(120 * ratio, rel=0.03)
        assert fake.log[-1]["weights"] == (model.gpt_weights, model.sovits_weights)
    assert [name for name in fake.switches if name.startswith("sovits")] == [
        "sovits-anna", "sovits-base", "sovits-ben", "sovits-anna", "sovits-base",
    ]  # fmt: skip
    assert len(fake.switches) == 10


def test_another_process_knows_what_is_loaded_from_its_second_call_on(fake: FakeGptSovits, engine_for: Engines) -> None:
    engines = [engine_for(fake.url) for _ in range(2)]
    for engine in engines * 3:
        speak(engine, with_model(ANNA))
    # A process that starts does not know whether the server is still the one that was told.
    assert fake.switches == ["gpt-anna", "sovits-anna"] * 2
    # What one of them loads from now on, the other believes.
    for model, engine in ((BEN, engines[0]), (BEN, engines[1]), (ANNA, engines[1]), (ANNA, engines[0])):
        speak(engine, with_model(model))
    assert fake.switches[4:] == ["gpt-ben", "sovits-ben", "gpt-anna", "sovits-anna"]


def test_after_a_restart_with_its_own_configuration_the_voice_is_the_models(
    fake: FakeGptSovits, engine_for: Engines
) -> None:
    engines = [engine_for(fake.url) for _ in range(2)]
    for engine in engines * 2:
        assert pitch(speak(engine, with_model(ANNA))) == pytest.approx(150, rel=0.03)
    for engine in [*engines, engines[0]]:
        fake.restart()
        assert fake.weights == ["gpt-base", "sovits-base"]
        assert pitch(speak(engine, with_model(ANNA))) == pytest.approx(150, rel=0.03)
        assert fake.log[-1]["weights"] == ("gpt-anna", "sovits-anna")


def test_a_restart_between_two_sentences_does_not_change_the_voice(fake: FakeGptSovits, engine_for: Engines) -> None:
    request = with_model(ANNA, text="Here is the first of them. And now comes the second one. That was the third.")
    pieces = engine_for(fake.url).synthesize(request, time.monotonic() + 30, lambda: False)
    heard = []
    for piece in pieces:
        heard.append(pitch([piece]))
        fake.restart()
    assert heard == pytest.approx([150] * 3, rel=0.03)


def test_a_restart_just_as_a_call_arrives_is_no_failure(fake: FakeGptSovits, engine_for: Engines) -> None:
    engine = engine_for(fake.url)
    speak(engine, with_model(ANNA))
    fake.moods.append("restart")
    assert pitch(speak(engine, with_model(ANNA))) == pytest.approx(150, rel=0.03)
    assert fake.switches == ["gpt-anna", "sovits-anna"] * 2


def test_a_kept_connection_that_was_idle_too_long_is_no_restart(fake: FakeGptSovits, engine_for: Engines) -> None:
    fake.keep_alive_seconds = 0.1
    engine = engine_for(fake.url)
    for _ in range(3):
        speak(engine, with_model(ANNA))
        used = [connection for connection in fake._sockets if connection.fileno() != -1]
        until(lambda used=used: sum(connection.fileno() != -1 for connection in used) <= 1)  # type: ignore[misc]
    assert fake.connections > 1 and fake.switches == ["gpt-anna", "sovits-anna"]


def test_what_is_loaded_is_believed_for_a_time_from_its_switch_on_however_busy_the_server_is(
    fake: FakeGptSovits, engine_for: Engines
) -> None:
    engine = engine_for(fake.url)
    speak(engine, with_model(ANNA))
    EngineLease.objects.update(loaded_at=Now() - timedelta(seconds=LOADED_SECONDS - 60))
    for _ in range(2):
        speak(engine, with_model(ANNA))
    assert len(fake.switches) == 2
    EngineLease.objects.update(loaded_at=Now() - timedelta(seconds=LOADED_SECONDS + 1))
    speak(engine, with_model(ANNA))
    assert len(fake.switches) == 4


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_that_could_not_reach_the_server_leaves_nothing_believed(
    fake: FakeGptSovits, engine_for: Engines, status: int
) -> None:
    engine = engine_for(fake.url)
    speak(engine, with_model(ANNA))
    fake.moods.append(f"proxy {status}")
    error = failure(engine, with_model(ANNA))
    assert (error.code, error.status) == ("engine_unavailable", 503)
    fake.weights[:] = ["gpt-base", "sovits-base"]
    assert pitch(speak(engine, with_model(ANNA))) == pytest.approx(150, rel=0.03)


def test_the_words_of_a_reference_are_read_anew_for_each_language_and_weights(
    fake: FakeGptSovits, engine_for: Engines
) -> None:
    engine = engine_for(fake.url)
    for words in ("Hello there, my friend.", "Hello there, my friend", "你好，我的朋友。", "What? What"):
        for language in ("en", "zh", "ja", "en", "auto"):
            for model in (ANNA, BEN, ANNA):
                asked = with_model(model, reference=voice(transcript=words, language=language))
                speak(engine, asked)
                read = fake.log[-1]["prompt"]
                assert read == (fake.log[-1]["body"]["prompt_lang"], model.gpt_weights, model.sovits_weights)
                if language != "auto":
                    assert read[0] == language


def test_the_words_of_a_reference_are_read_once_where_nothing_else_changed(
    fake: FakeGptSovits, engine_for: Engines
) -> None:
    engine = engine_for(fake.url)
    sent = []
    for version in ("v2", "v2Pro", "v1", "v2"):
        model = Model(f"anna {version}", "gpt-anna", "sovits-anna", version=version)
        for _ in range(2):
            speak(engine, with_model(model, reference=voice(transcript="Hello there.", language="en")))
            sent.append(fake.log[-1]["body"]["prompt_text"])
    assert {text.strip() for text in sent} == {"Hello there."}
    assert sent[0] == sent[1] == sent[2] == sent[6] != sent[4] == sent[5]
    speak(engine, with_model(ANNA))
    assert fake.log[-1]["body"]["prompt_text"] == ""


def test_threads_with_different_models_never_speak_with_each_others(fake: FakeGptSovits, engine_for: Engines) -> None:
    fake.unlocked = True  # only the client keeps them apart
    fake.seconds = 0.02
    heard: dict[str, list[float]] = {"anna": [], "ben": [], "default": []}

    def work(model: Model, engine: GptSovitsEngine) -> None:
        for _ in range(3):
            heard[model.id].append(pitch(speak(engine, with_model(model, tenant=model.id))))

    engines = [engine_for(fake.url) for _ in range(2)]
    threads = [
        in_thread(lambda model=model, number=number: work(model, engines[number % 2]))  # type: ignore[misc]
        for number, model in enumerate((ANNA, BEN, BASE))
    ]
    for thread in threads:
        thread.join()
    assert fake.overlaps() == 0
    for model_id, ratio in (("anna", 1.25), ("ben", 1.6), ("default", 1.0)):
        assert heard[model_id] == pytest.approx([120 * ratio] * 3, rel=0.03)


def test_a_switch_that_fails_is_an_engine_error_and_nothing_is_taken_for_loaded(
    fake: FakeGptSovits, engine_for: Engines, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_for(fake.url)
    speak(engine, with_model(ANNA))
    for lost in (Model("lost", "gpt-ben", "gone.pth"), Model("lost", "gone.ckpt", "sovits-ben")):
        with caplog.at_level(logging.ERROR):
            error = failure(engine, with_model(lost))
        assert (error.code, error.status) == ("engine_error", 502)
        assert "gone" in caplog.text and "gone" not in error.message
        assert EngineLease.objects.get().loaded == UNKNOWN
        # Half of it may have been switched: both are loaded again for the next.
        assert pitch(speak(engine, with_model(ANNA))) == pytest.approx(150, rel=0.03)
        assert fake.log[-1]["weights"] == ("gpt-anna", "sovits-anna")
    assert fake.configured == ["gpt-anna", "sovits-anna"], "it starts with weights that exist again"


@pytest.mark.parametrize("mood", ["reset", "hang"])
def test_after_a_switch_whose_end_is_not_known_the_weights_are_loaded_again(
    fake: FakeGptSovits, engine_for: Engines, mood: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voices.engines.gptsovits.synthesis.SWITCH_SECONDS", 0.5)
    engine = engine_for(fake.url)
    speak(engine, with_model(BASE))
    fake.switch_mood = mood
    assert failure(engine, with_model(ANNA)).code == {"reset": "engine_unavailable", "hang": "engine_timeout"}[mood]
    fake.switch_mood = "load"
    fake.wake()
    assert pitch(speak(engine, with_model(BASE))) == pytest.approx(120, rel=0.03)
    assert fake.log[-1]["weights"] == ("gpt-base", "sovits-base")


def test_after_a_time_out_the_weights_are_loaded_again(fake: FakeGptSovits, engine_for: Engines) -> None:
    # The server may have been restarted because of it.
    speak(engine_for(fake.url), with_model(ANNA))
    fake.moods.append("hang")
    assert failure(engine_for(fake.url, timeout_seconds=0.4), with_model(ANNA)).code == "engine_timeout"
    fake.weights[:] = ["gpt-base", "sovits-base"]
    fake.wake()
    assert pitch(speak(engine_for(fake.url), with_model(ANNA))) == pytest.approx(150, rel=0.03)


def test_work_goes_to_the_server_that_has_the_weights(engine_for: Engines) -> None:
    with FakeGptSovits() as one, FakeGptSovits() as two:
        engine = engine_for(one.url, two.url)
        for model in (ANNA, BEN, ANNA, BEN, BEN, ANNA):
            speak(engine, with_model(model))
        assert len(one.switches) == len(two.switches) == 2
        assert len(one.log) == len(two.log) == 3


def test_a_pinned_server_speaks_with_its_model_alone_and_is_never_switched(engine_for: Engines) -> None:
    with FakeGptSovits() as free, FakeGptSovits() as pinned:
        pinned.weights[:] = ["gpt-anna", "sovits-anna"]
        engine = engine_for(free.url, pinned.url, pinned={pinned.url: "anna"})
        for model in (None, ANNA, None, ANNA):
            speak(engine, with_model(model))
        assert [call["weights"] for call in free.log] == [("gpt-base", "sovits-base")] * 2
        assert [call["weights"] for call in pinned.log] == [("gpt-anna", "sovits-anna")] * 2
        assert free.switches == pinned.switches == []
        # Who waits for the one does not hold up the other.
        pinned.moods.append("hang")
        waiting = [in_thread(lambda: speak(engine, with_model(Model("anna")))) for _ in range(2)]
        until(lambda: len(pinned.log) == 3 and EngineWaiter.objects.count() == 1)
        speak(engine, with_model(None))
        assert len(free.log) == 3
        pinned.wake()
        for thread in waiting:
            thread.join()


def test_a_server_that_was_switched_does_not_speak_for_a_default_that_nobody_knows(
    fake: FakeGptSovits, engine_for: Engines
) -> None:
    engine = engine_for(fake.url)
    assert engine.serves(ANNA, BASE) and not engine.serves(ANNA, None)
    assert engine.serves(ANNA, None, offers_default=False)
    speak(engine, with_model(ANNA))
    error = failure(engine, with_model(None))  # the operator has deleted the row meanwhile
    assert (error.code, error.status) == ("not_configured", 503)
    assert len(fake.log) == 1


def test_a_model_that_no_server_has_is_not_spoken_with(fake: FakeGptSovits, engine_for: Engines) -> None:
    bare = Model("bare")
    assert failure(engine_for(fake.url), with_model(bare)).code == "not_configured"
    assert not engine_for(fake.url).serves(bare, BASE)
    assert not engine_for(fake.url, pinned={fake.url: "anna"}).serves(None, None)
    with pytest.raises(ValueError):
        speak(engine_for(fake.url), ask(model_id="anna"))


V1, V3 = Model("old", version="v1"), Model("new", version="v3")


@pytest.mark.parametrize(
    ("model", "fields", "field"),
    [
        (V1, {"text": "今日天氣好好。", "language": "yue"}, "language"),
        (V1, {"text": "안녕하세요, 반갑습니다.", "language": "auto"}, "text"),
        (V1, {"text": TEXT, "reference_language": "ko"}, "reference_language"),
        (V1, {"text": TEXT, "transcript": "안녕하세요."}, "reference_text"),
        (Model("anna", languages=frozenset({"en"})), {"text": "今天天气很好。", "language": "auto"}, "text"),
        (Model("anna", languages=frozenset({"en"})), {"text": "今天天气很好。", "language": "zh"}, "language"),
        (V3, {"text": TEXT}, "reference_text"),
        (V3, {"text": TEXT, "transcript": "  "}, "reference_text"),
    ],
)
def test_what_a_models_version_cannot_do_is_refused(model: Model, fields: dict[str, Any], field: str) -> None:
    fields = {"language": "en", "transcript": None, "reference_language": "auto"} | fields
    with pytest.raises(PublicError) as caught:
        GptSovitsEngine.check(model=model, **fields)
    assert caught.value.status == 400
    assert caught.value.details[field]
    # And nothing of that is, where it can.
    able = Model("able", version="v2")
    assert GptSovitsEngine.check(model=able, **fields)


def test_version_3_speaks_where_the_words_of_the_reference_are_known() -> None:
    assert GptSovitsEngine.check(TEXT, "en", "What I say.", "auto", V3)
