"""What the GPT-SoVITS client asks of the server, and what it takes for speech of what is answered."""

from __future__ import annotations

import io
import logging
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from tests.fakes.gptsovits import FakeGptSovits
from tests.support.gptsovits_client import TEXT, Engines, ask, failure, pitch, speak, voice
from voiceproject.errors import PublicError
from voiceproject.leases.models import EngineLease
from voices.engines.builtin.engine import BuiltinEngine
from voices.engines.gptsovits.servers import Answer
from voices.engines.gptsovits.speech import least_seconds, read_speech

# --- what is asked of the server ----------------------------------------------------------------------------


def test_the_call_has_what_the_server_needs(fake: FakeGptSovits, engine_for: Engines) -> None:
    reference = voice(transcript="  What I say here. ", language="auto")
    speak(engine_for(fake.url), ask(reference=reference, speed=1.25, temperature=0.4, seed=7))
    body = dict(fake.log[0]["body"])
    assert Path(body.pop("ref_audio_path")).exists()
    assert body.pop("prompt_text").lstrip(" ") == "What I say here."  # Spaces tell languages apart, see `_prompt_text`.
    assert body == {
        "text": TEXT, "text_lang": "en", "prompt_lang": "en",
        "temperature": 0.4, "speed_factor": 1.25, "seed": 7, "text_split_method": "cut0", "batch_size": 1,
        "media_type": "wav", "streaming_mode": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Good morning to all of you.", "auto", ["en"]),
        ("今天天气很好，我们去公园吧。", "auto", ["zh"]),
        ("今日はとてもいい天気ですね。", "auto", ["ja"]),
        ("안녕하세요, 반갑습니다.", "auto", ["ko"]),
        ("今日天氣好好。", "yue", ["yue"]),
        ("Good morning to all of you. 今天天气很好。今日はいい天気です。", "auto", ["en", "zh", "ja"]),
    ],
)
def test_each_sentence_goes_in_its_own_language(
    fake: FakeGptSovits, engine_for: Engines, text: str, language: str, expected: list[str]
) -> None:
    pieces = speak(engine_for(fake.url), ask(text, language=language))
    assert [call["body"]["text_lang"] for call in fake.log] == expected
    assert [piece.text for piece in pieces] == [call["body"]["text"] for call in fake.log]


def test_it_gets_the_words_that_the_built_in_engine_says(fake: FakeGptSovits, engine_for: Engines) -> None:
    text = "World War II cost $2,000.50 on Oct. 3, 1944. 邮编518001，共2.5元。 電話は03-1234-5678です。# Not 😀 read"
    speak(engine_for(fake.url), ask(text, language="auto"))
    sent = [(call["body"]["text"], call["body"]["text_lang"]) for call in fake.log]
    assert sent == [(sentence.words, sentence.language) for sentence in BuiltinEngine.check(text, "auto").sentences]
    first = "World War two cost two thousand dollars and fifty cents on October third, nineteen forty four."
    assert sent[0] == (first, "en")
    assert sent[1] == ("邮编五一八零零一，共二点五元。", "zh")


def test_a_text_that_was_read_when_it_was_checked_is_not_read_again(fake: FakeGptSovits, engine_for: Engines) -> None:
    engine = engine_for(fake.url)
    reading = engine.check("Said instead.", "en", None, "en", None)
    speak(engine, ask("Not looked at.", language="en", reading=reading))
    assert [call["body"]["text"] for call in fake.log] == ["Said instead."]


@pytest.mark.parametrize(("text", "language"), [("?!… 🎉🎉", "auto"), ("Добрый день, друзья.", "auto"), (TEXT, "de")])
def test_what_it_cannot_speak_never_reaches_the_server(
    fake: FakeGptSovits, engine_for: Engines, text: str, language: str
) -> None:
    assert failure(engine_for(fake.url), ask(text, language=language)).status == 400
    assert fake.log == []


def test_a_language_that_the_loaded_version_lacks_is_an_engine_error(fake: FakeGptSovits, engine_for: Engines) -> None:
    fake.version = "v1"
    assert failure(engine_for(fake.url), ask("안녕하세요, 반갑습니다.", language="ko")).code == "engine_error"


def test_a_long_text_is_spoken_in_bounded_calls_and_joins_without_clicks(
    fake: FakeGptSovits, engine_for: Engines
) -> None:
    text = " ".join(f"Sentence number {number} tells of a thing that has happened to somebody." for number in range(12))
    pieces = speak(engine_for(fake.url), ask(text))
    assert len(fake.log) == 12 and max(len(call["body"]["text"]) for call in fake.log) <= 220
    assert " ".join(piece.text for piece in pieces) == text
    # Nothing is lost, and every piece begins and ends at rest.
    letters = sum(char.isalnum() for call in fake.log for char in call["body"]["text"])
    seconds = sum(len(piece.samples) / piece.sample_rate for piece in pieces)
    assert seconds == pytest.approx(letters * 0.06 + 12 * 0.3, rel=0.01)
    assert all(abs(piece.samples[0]) < 0.01 and abs(piece.samples[-1]) < 0.01 for piece in pieces)
    assert len({call["body"]["seed"] for call in fake.log}) == 1, "one seed for the whole request"


def test_pieces_come_as_they_are_made_and_stop_when_nobody_listens(fake: FakeGptSovits, engine_for: Engines) -> None:
    text = "The first sentence is here. The second one follows it. The third one ends it."
    pieces = engine_for(fake.url).synthesize(ask(text), time.monotonic() + 20, lambda: False)
    assert next(pieces).text == "The first sentence is here."
    assert len(fake.log) == 1
    assert EngineLease.objects.get().owner == "", "nobody is kept from the server while the listener thinks"
    pieces.close()
    assert list(pieces) == [] and len(fake.log) == 1


def test_a_cancel_stops_before_the_next_sentence(fake: FakeGptSovits, engine_for: Engines) -> None:
    text = "The first sentence is here. The second one follows it. The third one ends it."
    pieces = list(engine_for(fake.url).synthesize(ask(text), time.monotonic() + 20, lambda: len(fake.log) >= 2))
    assert len(pieces) == len(fake.log) == 2


def test_the_same_seed_gives_the_same_audio_and_no_seed_gives_another(fake: FakeGptSovits, engine_for: Engines) -> None:
    engine = engine_for(fake.url)
    first, again, other = (speak(engine, ask(seed=seed))[0].samples for seed in (5, 5, 6))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    drawn = [engine.synthesize(ask(), time.monotonic() + 20, lambda: False) for _ in range(2)]
    assert drawn[0].seed != drawn[1].seed
    list(drawn[0])
    assert fake.log[-1]["body"]["seed"] == drawn[0].seed >= 0


def test_speed_is_the_servers_to_keep(fake: FakeGptSovits, engine_for: Engines) -> None:
    lengths = [
        len(speak(engine_for(fake.url), ask(speed=speed, temperature=0.1))[0].samples) / 32_000 - 0.3
        for speed in (0.5, 1.0, 2.0)
    ]
    assert lengths[0] / lengths[1] == pytest.approx(2, rel=0.02)
    assert lengths[1] / lengths[2] == pytest.approx(2, rel=0.02)


# --- answers that are no speech -----------------------------------------------------------------------------

BAD_ANSWERS = [
    "silence", "tts_failed", "empty_exception", "unprocessable", "server_error", "redirect", "html",
    "garbage", "mp3", "header_only", "nan", "cut", "truncated", "broken_stream", "oversize", "not_http",
]  # fmt: skip


@pytest.mark.parametrize("mood", BAD_ANSWERS)
def test_an_answer_that_is_no_speech_is_an_engine_error(
    fake: FakeGptSovits, engine_for: Engines, caplog: pytest.LogCaptureFixture, mood: str
) -> None:
    engine = engine_for(fake.url)
    fake.moods.append(mood)
    fake.redirect_to = f"{fake.url}/tts"
    with caplog.at_level(logging.INFO):
        error = failure(engine)
    assert (error.code, error.status) == ("engine_error", 502)
    assert error.message == "The speech engine could not make this audio." and error.details == {}
    assert len(fake.log) == 1, "neither a redirect nor another attempt"
    # An operator can see what it was; what was to be spoken is not in the logs.
    assert fake.url in caplog.text
    assert TEXT not in caplog.text and "dozen words" not in caplog.text
    # The server is used again at once.
    assert pitch(speak(engine)) == pytest.approx(120, rel=0.03)


def test_what_the_server_says_is_logged_in_short(
    fake: FakeGptSovits, engine_for: Engines, caplog: pytest.LogCaptureFixture
) -> None:
    fake.mood = "tts_failed"
    failure(engine_for(fake.url))
    assert "answered 400" in caplog.text and "kaputt at [text]" in caplog.text
    fake.mood = "unprocessable"
    failure(engine_for(fake.url))
    assert "answered 422" in caplog.text and "Input should be nicer" in caplog.text


def test_an_endless_answer_is_cut_off(
    fake: FakeGptSovits, engine_for: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voices.engines.gptsovits.api_v2.MAX_ANSWER_BYTES", 500_000)
    fake.moods.append("oversize")
    assert failure(engine_for(fake.url)).code == "engine_error"
    assert fake.oversize_mib < 40, "what the sockets hold, and no more"
    # An answer under the cap is not concerned.
    assert len(speak(engine_for(fake.url))) == 1


def test_stereo_is_mixed_down(fake: FakeGptSovits, engine_for: Engines) -> None:
    fake.mood = "stereo"
    pieces = speak(engine_for(fake.url))
    assert pieces[0].samples.ndim == 1 and pitch(pieces) == pytest.approx(120, rel=0.03)


def test_a_change_of_the_sample_rate_within_a_text_is_an_engine_error(fake: FakeGptSovits, engine_for: Engines) -> None:
    text = "The first sentence is here. The second one follows it."
    pieces = engine_for(fake.url).synthesize(ask(text), time.monotonic() + 20, lambda: False)
    assert next(pieces).sample_rate == 32_000
    fake.sample_rate = 48_000
    with pytest.raises(PublicError) as caught:
        next(pieces)
    assert caught.value.code == "engine_error"


def test_a_sentence_that_was_swallowed_is_said_again_with_another_seed(
    fake: FakeGptSovits, engine_for: Engines
) -> None:
    fake.moods.append("short")
    whole = sum(char.isalnum() for char in TEXT) * 0.06
    pieces = speak(engine_for(fake.url), ask(seed=2**32 - 1))
    assert len(pieces[0].samples) / 32_000 == pytest.approx(whole + 0.3, rel=0.01)
    assert [call["body"]["seed"] for call in fake.log] == [2**32 - 1, 0]
    # Only once: a text can be that short.
    fake.log.clear()
    fake.mood = "short"
    assert len(speak(engine_for(fake.url))) == 1 and len(fake.log) == 2


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Yes.", 0.25),
        ("It was 1999.", 1.4),
        ("The quick brown fox jumps over the lazy dog.", 2.0),
        ("今天天气很好。", 1.0),
    ],
)
def test_ordinary_and_fast_speech_is_not_taken_for_swallowed(text: str, spoken: float) -> None:
    assert least_seconds(text, 1.0) < spoken / 1.5
    assert least_seconds(text, 2.0) == pytest.approx(least_seconds(text, 1.0) / 2)


def test_a_wav_whose_head_counts_too_little_is_read_to_the_end_of_its_samples() -> None:
    body = io.BytesIO()
    sf.write(body, np.full(1000, 0.25), 32_000, format="WAV", subtype="PCM_16")
    short = bytearray(body.getvalue())
    short[4:8] = (len(short) - 108).to_bytes(4, "little")
    samples, rate = read_speech(Answer(200, "audio/wav", bytes(short)))
    assert (len(samples), rate) == (1000, 32_000)
    assert samples == pytest.approx(0.25, abs=1e-4)
