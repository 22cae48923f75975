"""The built-in engine: what it says, in whose voice, and its processes."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.recordings import speech
from tests.support.recordings.speech import MAN, REFERENCE_TEXT, WOMAN, Person
from voiceproject.errors import EngineError, EngineTimeout, EngineUnavailable, PublicError
from voices.engines.builtin import base_voices, child, conversion, pool
from voices.engines.builtin.base_voices import PRECOMPUTED, base_file, load_base
from voices.engines.builtin.engine import CLEAR, BuiltinEngine
from voices.engines.builtin.languages import english
from voices.engines.builtin.profiles import BORDER_F0_HZ, VoiceProfile
from voices.engines.builtin.synthesizer import Synthesizer
from voices.engines.interface import Model, Piece, Reference, StoredReference, SynthesisRequest

TEXT = "The train to the coast leaves early in the morning."
LONG_TEXT = "This is the first sentence. This is the second one. Here is another. And one more. That was the last."
PATIENCE_SECONDS = 120.0


@pytest.fixture(scope="module")
def synthesizer() -> Synthesizer:
    return Synthesizer()


@pytest.fixture(scope="module")
def man(synthesizer: Synthesizer) -> VoiceProfile:
    return synthesizer.prepare(MAN.reference())


@pytest.fixture(scope="module")
def builtin() -> Iterator[BuiltinEngine]:
    made = BuiltinEngine()
    yield made
    made.close()


def synthesize(
    builtin: BuiltinEngine, text: str = TEXT, seconds: float = PATIENCE_SECONDS, reference: Reference | None = None
) -> list[Piece]:
    request = SynthesisRequest(text, "en", reference or MAN.reference(), seed=1)
    return list(builtin.synthesize(request, time.monotonic() + seconds, lambda: False))


def child_of(builtin: BuiltinEngine) -> pool.Child:
    """The idle process of an engine that has one."""
    return builtin._pool._idle[0]


def until(condition: Callable[[], object]) -> None:
    """Waits for what another thread or process does."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


class InThread(threading.Thread):
    """Runs a function and keeps what it returned or raised."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.work = work
        self.result: object = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self.work()
        except PublicError as error:
            self.result = error


# What is said.


@pytest.mark.parametrize("text", ["😀😀😀", "...", "— —", "$ € £", "\u200b", " ", "مرحبا"])
def test_a_text_with_nothing_to_speak_is_an_error(text: str) -> None:
    with pytest.raises(PublicError) as caught:
        english.phonemes()(text)
    assert caught.value.code == "validation_error" and "text" in caught.value.details


@pytest.mark.parametrize(
    "text, found",
    [
        ("Привет.", "the Cyrillic alphabet"),
        ("안녕하세요.", "Korean"),
        ("Hello. 안녕하세요. مرحبا.", "Korean and the Arabic alphabet"),
        ("Guten Morgen, wie geht es Ihnen heute?", "German"),
    ],
)
def test_a_text_in_another_language_is_refused_in_plain_words(text: str, found: str) -> None:
    with pytest.raises(PublicError) as caught:
        BuiltinEngine.check(text, "auto")
    assert caught.value.code == "unsupported_language"
    assert caught.value.details["supported"] == ["en", "ja", "zh"]
    assert caught.value.details["text"] == [
        f"This text has {found} in it, which is not spoken here. Spoken: en (English), ja (Japanese), zh (Chinese)."
    ]


def test_a_sentence_longer_than_the_network_takes_is_cut_between_words() -> None:
    pieces = english.phonemes()("one two three four five six seven eight nine ten " * 30)
    assert len(pieces) > 2 and max(map(len, pieces)) <= english.MAX_PHONEMES + 1
    assert "".join(pieces).count("wˈʌn") == 30


def test_phonemes_are_written_as_the_male_voice_knows_them() -> None:
    assert english.to_espeak("ðə hˈæpi ɡˈɜɹl sˈiz ˌA ʧˈɪldɹən, bi kwˈIət!") == (
        "ðə hˈæpi ɡˈɜːl sˈiːz ˌeɪ tʃˈɪldɹən, biː kwˈaɪət!"
    )


@pytest.mark.parametrize("name", english.NAMES)
def test_base_voices_draw_their_chance_from_the_generator(name: str) -> None:
    voice = speech.base_voice(name)
    first, again, other = (voice.speak(TEXT, 1.0, np.random.default_rng(seed), 0.7)[0] for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert len(first) != len(other) or not np.array_equal(first, other)


def test_the_package_carries_the_features_of_its_english_voices() -> None:
    for name in {*english.NAMES, *english.SOURCES}:
        path = PRECOMPUTED / base_file(speech.base_voice(name))
        assert path.exists(), "run python -m bench.engines.bases"


class Unknown:
    """A base voice that the package has nothing of, with two sentences to measure it by."""

    name = "unknown"

    def __init__(self, voice: english.BaseVoice) -> None:
        self._voice = voice

    def __getattr__(self, name: str) -> Any:
        return getattr(self._voice, name)

    def calibration(self) -> list[str]:
        return self._voice.calibration()[:2]

    def prose(self) -> list[str]:
        return []


def test_features_that_the_package_lacks_are_made_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice: Any = Unknown(speech.base_voice("heart"))
    made = load_base(voice, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [base_file(voice)]
    assert made.level > 0 and np.isfinite(made.frames.cepstrum).all()
    monkeypatch.delattr(base_voices, "make_base")
    np.testing.assert_array_equal(load_base(voice, tmp_path).frames.cepstrum, made.frames.cepstrum)


# In whose voice.


@pytest.mark.parametrize(("person", "base"), [(MAN, "low_heart"), (WOMAN, "heart")], ids=["man", "woman"])
def test_base_voice_and_pitch_follow_the_reference(synthesizer: Synthesizer, person: Person, base: str) -> None:
    profile = synthesizer.prepare(person.reference())
    assert synthesizer.choose_base("en", profile).voice.name == base
    samples = synthesizer.speak(TEXT, "en", profile, temperature=0.1).samples
    spoken, _ = speech.base_voice("heart").speak(TEXT, 1.0, np.random.default_rng(0), 0.1)
    said = speech.pitch(person.say(TEXT))
    assert abs(12 * np.log2(speech.pitch(samples) / said)) < 2
    assert abs(12 * np.log2(speech.pitch(spoken) / said)) > 2.5


def test_a_high_voice_with_a_mans_formants_is_a_mans(synthesizer: Synthesizer) -> None:
    high = Person("joe", pitch=2.0, formants=1.05)
    assert speech.pitch(high.say(TEXT)) > BORDER_F0_HZ
    assert synthesizer.prepare(high.reference()).femininity < 0


@pytest.mark.parametrize("speed", [0.5, 1.5, 2.0])
def test_speed_changes_the_duration_and_not_the_pitch(
    synthesizer: Synthesizer, man: VoiceProfile, speed: float
) -> None:
    normal = synthesizer.speak(TEXT, "en", man, pause_seconds=0.3).samples
    changed = synthesizer.speak(TEXT, "en", man, speed=speed, pause_seconds=0.3).samples
    assert len(changed) == pytest.approx(len(normal) / speed, rel=0.02)
    assert speech.pitch(changed) == pytest.approx(speech.pitch(normal), rel=0.1)


@pytest.mark.parametrize("person", [MAN, WOMAN], ids=["man", "woman"])
def test_a_seed_gives_its_own_samples_again(synthesizer: Synthesizer, person: Person) -> None:
    profile = synthesizer.prepare(person.reference())
    first, again, other = (synthesizer.speak(TEXT, "en", profile, seed=(seed, 0)).samples for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert len(first) != len(other)


def test_temperature_is_how_much_differs_between_seeds(synthesizer: Synthesizer) -> None:
    profile = synthesizer.prepare(WOMAN.reference())

    def spread(temperature: float) -> float:
        said = [synthesizer.speak(TEXT, "en", profile, 1.0, temperature, seed).samples for seed in range(6)]
        levels = np.log([(speech.pitch(samples), len(samples)) for samples in said])
        return float(np.hypot(*np.std(levels, axis=0)))

    assert spread(1.0) > 3 * spread(0.1) > 0


def test_a_transcript_that_fits_is_used_and_another_is_not(synthesizer: Synthesizer) -> None:
    right = synthesizer.prepare(MAN.reference(transcript=speech.REFERENCE_TEXT))
    synthesizer.speak(TEXT, "en", right)
    assert [aligned for _, aligned in right.pairs] == [True]
    other = "My uncle bought three green apples because his doctor told him to eat better and to sleep more at night."
    wrong = synthesizer.prepare(MAN.reference(transcript=other))
    synthesizer.speak(TEXT, "en", wrong)
    assert [aligned for _, aligned in wrong.pairs] == [False]


def test_a_reference_without_a_voice_is_refused(synthesizer: Synthesizer) -> None:
    noise = (np.random.default_rng(5).standard_normal(4 * 24000) * 0.05).astype(np.float32)
    with pytest.raises(PublicError) as caught:
        synthesizer.prepare(Reference(noise, 24000, "noise"))
    assert caught.value.code == "invalid_audio" and caught.value.details["field"] == "reference_audio"


def test_references_used_longest_ago_are_forgotten_first(synthesizer: Synthesizer) -> None:
    small = Synthesizer(profile_bytes=1)
    first = small.prepare(MAN.reference())
    assert small.prepare(MAN.reference()) is first
    small.prepare(WOMAN.reference())
    assert small.prepare(MAN.reference()) is not first


@pytest.mark.parametrize("transcript", [None, REFERENCE_TEXT, "Words of another text altogether, which do not fit."])
def test_a_voice_that_is_read_back_sounds_the_same(
    synthesizer: Synthesizer, monkeypatch: pytest.MonkeyPatch, transcript: str | None
) -> None:
    profile = synthesizer.prepare(MAN.reference(transcript=transcript))
    spoken = synthesizer.speak("It rains.", "en", profile, seed=3).samples
    data = synthesizer.keep(profile, "en")
    assert synthesizer.take("key", "en", data)
    read = synthesizer.known("key", "en")
    assert read is not None
    assert read.frames is None
    assert list(read.pairs) == [("low_heart", transcript == REFERENCE_TEXT)]
    assert np.array_equal(synthesizer.speak("It rains.", "en", read, seed=3).samples, spoken)
    assert synthesizer.known("key", "ja") is None


def test_what_was_kept_by_an_engine_that_computed_otherwise_is_not_taken(
    synthesizer: Synthesizer, man: VoiceProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = synthesizer.keep(man, "en")
    assert not synthesizer.take("key", "en", data[: len(data) // 2])
    assert not synthesizer.take("key", "en", b"no archive")
    assert not synthesizer.take("key", "en", data.replace(b"delta", b"dxlta"))
    monkeypatch.setattr(conversion, "PAIR_NEIGHBOURS", conversion.PAIR_NEIGHBOURS + 1)
    assert not synthesizer.take("key", "en", data)


class KeptInMemory:
    def __init__(self) -> None:
        self.data: dict[tuple[str, str], bytes] = {}

    def load(self, engine: str, language: str) -> bytes | None:
        return self.data.get((engine, language))

    def store(self, engine: str, language: str, data: bytes) -> None:
        self.data[engine, language] = data


def test_a_saved_voice_is_computed_once_and_its_samples_are_not_asked_for_again(builtin: BuiltinEngine) -> None:
    kept = KeptInMemory()
    plain = WOMAN.reference("This is another reference, to which nobody has listened before, and it is long enough.")
    reference = dataclasses.replace(plain, kept=kept)
    builtin.prepare(reference, "en", time.monotonic() + PATIENCE_SECONDS)
    assert list(kept.data) == [("builtin", "en")]
    first = synthesize(builtin, "It rains.", reference=reference)

    def read() -> NDArray[np.float32]:
        raise AssertionError("the samples are not needed")

    another = BuiltinEngine()
    stored = StoredReference(read, len(plain.samples), plain.sample_rate, plain.content_hash, None, "en", kept)
    try:
        again = synthesize(another, "It rains.", reference=stored)
        assert np.array_equal(first[0].samples, again[0].samples)
        kept.data["builtin", "en"] = b"damaged"
        fresh = dataclasses.replace(plain, content_hash="other", kept=kept)
        assert len(synthesize(another, "It rains.", reference=fresh)) == 1
        assert kept.data["builtin", "en"] != b"damaged"
    finally:
        another.close()


def test_the_clear_model_keeps_the_voices_waveform_and_has_the_references_pitch(
    builtin: BuiltinEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def say(model: Model | None, reference: Reference) -> NDArray[np.float32]:
        request = SynthesisRequest(TEXT, "en", reference, temperature=0.1, seed=1, model=model)
        (piece,) = builtin.synthesize(request, time.monotonic() + PATIENCE_SECONDS, lambda: False)
        return piece.samples

    for person in (MAN, WOMAN):
        clear, plain = (say(model, person.reference()) for model in (Model(CLEAR.id), None))
        assert len(clear) == pytest.approx(len(plain), rel=0.05)
        assert np.sqrt(np.mean(clear**2)) == pytest.approx(np.sqrt(np.mean(plain**2)), rel=0.1)
        assert abs(12 * np.log2(speech.pitch(clear) / speech.pitch(person.say(TEXT)))) < 2
        assert np.array_equal(clear, say(Model(CLEAR.id), person.reference()))
    preset = Reference(np.zeros(0, np.float32), 24_000, "preset:male", preset="male")
    assert np.array_equal(say(Model(CLEAR.id), preset), say(None, preset))


def test_presets_are_the_base_voices_as_they_are(builtin: BuiltinEngine) -> None:
    spoken = {}
    for preset in builtin.presets:
        reference = Reference(np.zeros(0, np.float32), 24_000, f"preset:{preset}", preset=preset)
        pieces = synthesize(builtin, "It rains. The train leaves early in the morning.", reference=reference)
        assert [piece.text for piece in pieces] == ["It rains.", "The train leaves early in the morning."]
        spoken[preset] = np.concatenate([piece.samples for piece in pieces])
        assert 2.0 < len(spoken[preset]) / 24_000 < 6.0
        assert 0.03 < np.sqrt(np.mean(spoken[preset] ** 2)) < 0.12
    assert speech.pitch(spoken["female"]) > 1.1 * speech.pitch(spoken["male"])


def test_a_reference_of_a_minute_works(synthesizer: Synthesizer) -> None:
    samples = np.tile(MAN.say(speech.REFERENCE_TEXT), 8)[: 60 * 24000]
    profile = synthesizer.prepare(Reference(samples, 24000, "minute"))
    assert 25 < profile.active_seconds < 60
    assert profile.femininity < 0


# Its processes.


def test_pieces_are_sentences_with_pauses_between(builtin: BuiltinEngine) -> None:
    pieces = synthesize(builtin, "Good morning, everyone. How are you today?")
    assert [piece.text for piece in pieces] == ["Good morning, everyone.", "How are you today?"]
    assert all(piece.sample_rate == 24000 and 0.05 < np.abs(piece.samples).max() <= 0.97 for piece in pieces)
    pause = round(0.3 * 24000)
    assert not pieces[0].samples[-pause:].any() and pieces[1].samples[-pause:].any()


def test_an_answer_does_not_depend_on_what_was_said_before(builtin: BuiltinEngine) -> None:
    first = np.concatenate([piece.samples for piece in synthesize(builtin)])
    synthesize(builtin, "Something else.", reference=WOMAN.reference())
    again = np.concatenate([piece.samples for piece in synthesize(builtin)])
    assert np.array_equal(first, again)


@pytest.mark.parametrize("text", ["😀", "Привет, мир"])
def test_a_text_that_the_engine_cannot_speak_is_an_error(builtin: BuiltinEngine, text: str) -> None:
    request = SynthesisRequest(text, "auto", MAN.reference())
    with pytest.raises(PublicError) as caught:
        list(builtin.synthesize(request, time.monotonic() + 60, lambda: False))
    assert caught.value.status == 400 and "text" in caught.value.details


def test_a_crash_costs_one_request(builtin: BuiltinEngine) -> None:
    synthesize(builtin)
    child = child_of(builtin)
    os.kill(child.pid, signal.SIGSTOP)  # so that it is killed in the middle of the sentence, however fast it is
    request = InThread(lambda: synthesize(builtin))
    until(lambda: builtin.health().extra["busy"])
    os.kill(child.pid, signal.SIGKILL)
    request.join()
    assert isinstance(request.result, EngineError)
    assert len(synthesize(builtin)) == 1
    assert child_of(builtin).pid != child.pid


def test_past_the_deadline_the_process_is_killed(builtin: BuiltinEngine) -> None:
    synthesize(builtin)
    child = child_of(builtin)
    os.kill(child.pid, signal.SIGSTOP)
    with pytest.raises(EngineTimeout, match="shorter"):
        synthesize(builtin, seconds=0.3)
    assert not child.running
    assert builtin.health().extra == {"open": True, "children": 0, "busy": 0, "waiting": 0}


def test_who_waits_too_long_for_a_process_times_out_and_harms_nobody(builtin: BuiltinEngine) -> None:
    synthesize(builtin)
    child = child_of(builtin)
    os.kill(child.pid, signal.SIGSTOP)
    first = InThread(lambda: synthesize(builtin))
    until(lambda: builtin.health().extra["busy"])
    with pytest.raises(EngineTimeout):
        synthesize(builtin, seconds=0.2)
    os.kill(child.pid, signal.SIGCONT)
    first.join()
    assert isinstance(first.result, list) and len(first.result) == 1
    assert child_of(builtin).pid == child.pid


def test_a_short_text_does_not_wait_for_the_end_of_a_long_one(builtin: BuiltinEngine) -> None:
    events: list[str] = []
    started = threading.Event()

    def speak_long() -> None:
        request = SynthesisRequest(LONG_TEXT, "en", MAN.reference(), seed=1)
        for _ in builtin.synthesize(request, time.monotonic() + PATIENCE_SECONDS, lambda: False):
            events.append("long")
            started.set()

    long = InThread(speak_long)
    assert started.wait(PATIENCE_SECONDS)
    synthesize(builtin, "A short one.")
    events.append("short")
    long.join()
    assert events.count("long") == 5
    assert events.index("short") <= 3


def test_a_canceled_request_ends_between_sentences_and_leaves_the_process_free(builtin: BuiltinEngine) -> None:
    said: list[Piece] = []
    request = SynthesisRequest(LONG_TEXT, "en", MAN.reference(), seed=1)
    for piece in builtin.synthesize(request, time.monotonic() + PATIENCE_SECONDS, lambda: len(said) == 2):
        said.append(piece)
    assert len(said) == 2
    pieces = builtin.synthesize(request, time.monotonic() + PATIENCE_SECONDS, lambda: False)
    next(pieces)
    del pieces
    assert builtin.health().extra["busy"] == 0
    assert len(synthesize(builtin)) == 1


def test_a_process_with_too_much_memory_is_replaced() -> None:
    small = BuiltinEngine(max_child_bytes=1 << 20)
    try:
        assert len(synthesize(small, "One. Two.")) == 2
        assert small.health().extra["children"] == 0
    finally:
        small.close()


def test_closing_ends_the_process_and_the_request_that_it_works_for() -> None:
    closing = BuiltinEngine()
    synthesize(closing)
    child = child_of(closing)
    os.kill(child.pid, signal.SIGSTOP)
    request = InThread(lambda: synthesize(closing))
    until(lambda: closing.health().extra["busy"])
    waiting = InThread(lambda: synthesize(closing))
    until(lambda: closing.health().extra["waiting"])
    closing.close()
    request.join()
    waiting.join()
    assert isinstance(request.result, EngineUnavailable) and isinstance(waiting.result, EngineUnavailable)
    assert not child.running
    assert not closing.health().available
    with pytest.raises(EngineUnavailable):
        synthesize(closing)


def test_the_process_does_not_outlive_a_killed_server() -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", "from voices.engines.builtin.pool import Child; c = Child(None); print(c.pid); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=pool.PROJECT_ROOT,
        text=True,
    )
    assert server.stdin and server.stdout
    pid = int(server.stdout.readline())
    os.kill(pid, 0)
    server.kill()
    server.communicate()

    def gone() -> bool:
        try:
            with open(f"/proc/{pid}/stat") as file:
                return file.read().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    until(gone)


def test_a_process_forgets_whose_voice_was_not_used_for_long(
    man: VoiceProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Synthesizer()
    now = time.monotonic()
    own._profiles |= {"old": man, "young": man}
    own._used |= {"old": now - child.KEPT_SECONDS, "young": now}
    references = OrderedDict({"old": MAN.reference(), "young": MAN.reference()})
    child.forget(own, references, {"old": now - child.KEPT_SECONDS, "young": now})
    assert list(references) == ["young"] and list(own._profiles) == ["young"]
    assert own.known("old", "en") is None

    # Also while nobody asks for anything.
    monkeypatch.setattr(child, "IDLE_SECONDS", 0.01)
    looks: list[int] = []
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as orders, os.fdopen(writing, "wb", buffering=0) as server:

        def idle() -> None:
            looks.append(1)
            if len(looks) == 3:
                server.write(b"{}\n")

        assert child._next(orders, idle) == b"{}\n"
    assert len(looks) == 3


def test_nothing_is_reported_to_the_maker_of_onnxruntime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What it would send, it keeps in a database in the home folder first."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    engine = BuiltinEngine()
    try:
        assert len(synthesize(engine)) > 0
    finally:
        engine.close()
    assert not [path for path in tmp_path.rglob("*") if "onnxruntime" in str(path)]
