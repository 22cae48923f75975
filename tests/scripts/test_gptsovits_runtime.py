"""gpu_scripts/common/gptsovits/runtime.py in a process of its own, in a root whose engine is as odd as the real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import yaml

from tests.scripts import fake_gptsovits_root as fake
from tests.scripts.fake_gptsovits_root.speaking import PRETRAINED, TTS_Config
from tests.scripts.script_server import SCRIPTS
from tests.support.recordings import speech

TEXT = "The train leaves early in the morning."

# Takes one call a line, answers in kind: a Runtime can't live in the tests' process, whose working folder it changes.
DRIVER = """
import json, sys, numpy
sys.path.insert(0, sys.argv[1])
from common.gptsovits import runtime as module
from common.script_io import ScriptError
runtime = None
for line in sys.stdin:
    name, arguments, keywords = json.loads(line)
    try:
        if name == "Runtime":
            runtime = module.Runtime(*arguments, **keywords)
            value = None
        elif name == "speak":
            samples, rate = runtime.speak(*arguments, **keywords)
            numpy.save("speech.npy", samples)
            value = rate
        elif name == "joined":
            samples, rate = module._joined([(16000, numpy.array(*arguments, dtype=numpy.int16))])
            value = samples.tolist()
        elif name == "find":
            found = runtime.catalogue.find(*arguments, **keywords)
            value = [str(found.gpt), str(found.sovits)]
        elif name == "models":
            value = runtime.catalogue.models()
        else:
            value = getattr(runtime, name)
        answer = {"value": value}
    except ScriptError as error:
        answer = {"code": error.exit_code, "message": str(error)}
    print(json.dumps(answer), flush=True)
"""


class Refused(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Driver:
    """A process with a Runtime for `root` in it."""

    def __init__(self, root: Path, *arguments: Any, cwd: Path | None = None, mood: str = "{}") -> None:
        self.root = root
        self._cwd = cwd or root.parent  # where it comes back to after each call
        self._process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(SCRIPTS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self._cwd,
            env={**os.environ, "FAKE_GPTSOVITS_MOOD": mood},
        )
        try:
            self.call("Runtime", str(root), *arguments)
        except Refused:
            self.close()
            raise

    def call(self, name: str, *arguments: Any, **keywords: Any) -> Any:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([name, arguments, keywords]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()  # and so nothing that the engine prints may be there
        answer = json.loads(line)
        if "code" in answer:
            raise Refused(answer["code"], answer["message"])
        return answer["value"]

    def speak(self, reference: Path, text: str = TEXT, language: str = "en", **keywords: Any) -> tuple[np.ndarray, int]:
        rate = self.call("speak", text, language, str(reference), **{"seed": 1, **keywords})
        samples = np.load(self._cwd / "speech.npy")
        assert samples.dtype == np.float32 and samples.ndim == 1
        return samples, rate

    def refused(self, *arguments: Any, **keywords: Any) -> tuple[int, str]:
        with pytest.raises(Refused) as caught:
            self.speak(*arguments, **keywords)
        assert "\n" not in str(caught.value)
        return caught.value.code, str(caught.value)

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = fake.build(tmp_path_factory.mktemp("engine") / "root", versions=("v2", "v1", "v3", "v4", "v2Pro"))
    fake.add_trained(root, "anna", pitch=0.7)
    fake.add_trained(root, "annabel")
    fake.add_trained(root, "anna_new")
    return root


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reference(tmp_path_factory.mktemp("references") / "quiet.wav", 0.25)


def write_reference(path: Path, peak: float, seconds: float = 4) -> Path:
    at = np.arange(round(seconds * 16000))
    sf.write(path, (peak * np.sin(at * 0.06)).astype(np.float32), 16000, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def engine(root: Path) -> Iterator[Driver]:
    driver = Driver(root)
    yield driver
    driver.close()


@pytest.fixture(autouse=True)
def all_is_well(root: Path) -> None:
    fake.set_mood(root)
    fake.clear_calls(root)


def test_it_speaks_the_text_in_the_voice_of_the_reference(engine, reference):
    samples, rate = engine.speak(reference, prompt_text="A reference.", prompt_language="EN", language="EN")
    assert rate == 32000
    assert 1.5 < len(samples) / rate < 4
    assert np.abs(samples).max() == pytest.approx(0.25, rel=0.01)
    assert 170 < speech.pitch(samples, rate) < 260
    (run,) = fake.calls(engine.root, "run")
    assert (run["text_lang"], run["prompt_lang"], run["prompt_text"]) == ("en", "en", "A reference.")
    assert run["used"] == {"prompt_lang": "en", "prompt_version": "v2"}


def test_the_same_seed_gives_the_same_samples_and_another_one_others(engine, reference):
    first, again, other = (engine.speak(reference, seed=seed)[0] for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert len(first) != len(other) or np.abs(first - other).max() > 0.01


def test_the_same_seed_gives_the_same_samples_where_the_reference_is_read_anew(engine, reference, tmp_path):
    first = engine.speak(reference, seed=5)[0]
    engine.speak(write_reference(tmp_path / "other.wav", 0.25))
    np.testing.assert_array_equal(engine.speak(reference, seed=5)[0], first)
    engine.speak(reference, model_id="anna")
    np.testing.assert_array_equal(engine.speak(reference, seed=5)[0], first)
    np.testing.assert_array_equal(engine.speak(reference, seed=5)[0], first)


def test_speed_shortens_what_is_said(engine, reference):
    usual, fast = engine.speak(reference, pause_seconds=0)[0], engine.speak(reference, speed=1.6, pause_seconds=0)[0]
    assert len(fast) / len(usual) == pytest.approx(1 / 1.6, rel=0.15)


def test_another_model_speaks_at_once_with_a_reference_that_was_cached(engine, reference):
    usual = speech.pitch(*engine.speak(reference))
    deep = speech.pitch(*engine.speak(reference, model_id="anna"))
    back = speech.pitch(*engine.speak(reference))
    assert 0.65 < deep / usual < 0.85
    assert back == pytest.approx(usual)


def test_weights_are_loaded_only_when_they_differ(engine, reference):
    engine.speak(reference)
    fake.clear_calls(engine.root)
    for _ in range(2):
        engine.speak(reference)
    assert {call["event"] for call in fake.calls(engine.root)} == {"run"}
    gpt, sovits = engine.call("find", "default")
    anna = engine.call("find", "anna")
    engine.speak(reference, model_id="anna", gpt_weights=gpt, sovits_weights=anna[1])
    assert not fake.calls(engine.root, "load_gpt")
    assert [call["path"] for call in fake.calls(engine.root, "load_sovits")] == [anna[1]]
    assert engine.call("find", gpt_weights=os.path.relpath(gpt, engine.root), sovits_weights=sovits) == [gpt, sovits]


@pytest.mark.parametrize(("version", "rate"), [("v1", 32000), ("v3", 24000), ("v4", 48000), ("v2Pro", 32000)])
def test_the_version_is_read_from_the_weights(engine, reference, version, rate):
    config = TTS_Config.default_configs[version]
    paths = {"gpt_weights": config["t2s_weights_path"], "sovits_weights": config["vits_weights_path"]}
    prompt = {"prompt_text": "A reference.", "prompt_language": "en"}
    engine.speak(reference, **prompt)
    samples, found = engine.speak(reference, **prompt, **paths)
    assert (found, engine.call("version")) == (rate, version)
    assert 1.5 < len(samples) / rate < 4
    # The transcript's phonemes are those of the version that speaks.
    assert fake.calls(engine.root, "run")[-1]["used"]["prompt_version"] == version
    if version in ("v3", "v4"):
        code, message = engine.refused(reference, **paths)
        assert code == 2 and "transcript" in message
    if version == "v1":
        code, message = engine.refused(reference, language="ko", **paths)
        assert code == 2 and "'ko'" in message


def test_a_transcript_in_another_language_is_read_anew(engine, reference):
    engine.speak(reference, prompt_text="Chat", prompt_language="en")
    engine.speak(reference, prompt_text="Chat", prompt_language="ja")
    assert [run["used"]["prompt_lang"] for run in fake.calls(engine.root, "run")] == ["en", "ja"]


@pytest.mark.parametrize(("mood", "code"), [("oom", 7), ("raise", 11), ("cuda_error", 11), ("silence", 11)])
def test_a_failure_raises_instead_of_a_second_of_silence(engine, reference, mood, code):
    fake.set_mood(engine.root, run=mood)
    found, message = engine.refused(reference)
    assert found == code
    assert "morning" not in message and "train" not in message
    fake.set_mood(engine.root)
    assert len(engine.speak(reference)[0]) > 40000


def test_a_failure_without_memory_to_load_the_models_again_heals_when_there_is_some(engine, reference):
    fake.set_mood(engine.root, run="oom", reload="oom")
    assert engine.refused(reference)[0] == 7
    assert engine.call("loaded") is None
    fake.set_mood(engine.root)
    assert len(engine.speak(reference)[0]) > 40000


def test_a_reference_that_failed_half_way_leaves_nothing_of_itself(engine, reference, tmp_path):
    loud = write_reference(tmp_path / "loud.wav", 0.8)
    engine.speak(reference)
    fake.set_mood(engine.root, reference="oom")
    assert engine.refused(loud)[0] == 7
    fake.set_mood(engine.root)
    fake.clear_calls(engine.root)
    engine.speak(reference)
    assert [call["path"] for call in fake.calls(engine.root, "reference")] == [str(reference)]


def test_a_failed_switch_does_not_leave_half_of_it(engine, reference):
    before = speech.pitch(*engine.speak(reference))
    fake.set_mood(engine.root, load="oom")
    assert engine.refused(reference, model_id="anna")[0] == 7
    fake.set_mood(engine.root)
    assert speech.pitch(*engine.speak(reference)) == pytest.approx(before)
    assert engine.call("version") == "v2"


@pytest.mark.parametrize("text", ["", "  \n", "…!?", "🎉"])
def test_a_text_without_letters_is_refused(engine, reference, text):
    assert engine.refused(reference, text)[0] == 12


@pytest.mark.parametrize(
    "keywords",
    [
        {"speed": 0},
        {"speed": float("nan")},
        {"temperature": 0},
        {"top_k": 0},
        {"top_p": 2},
        {"seed": 2**32},
        {"seed": -2},
    ],
)
def test_numbers_that_hang_or_silence_the_engine_are_refused(engine, reference, keywords):
    assert engine.refused(reference, **keywords)[0] == 2
    assert not fake.calls(engine.root, "run")


@pytest.mark.parametrize("seconds", [2.99, 10.01])
def test_a_reference_outside_three_to_ten_seconds_is_refused(engine, tmp_path, seconds):
    code, message = engine.refused(write_reference(tmp_path / "r.wav", 0.5, seconds))
    assert code == 5 and f"{seconds:.2f} s" in message


@pytest.mark.parametrize("seconds", [3.0, 10.0])
def test_references_of_exactly_three_and_ten_seconds_are_used(engine, tmp_path, seconds):
    engine.speak(write_reference(tmp_path / "r.wav", 0.5, seconds))


def test_a_missing_reference_is_refused_though_it_was_cached(engine, tmp_path):
    path = write_reference(tmp_path / "r.wav", 0.5)
    engine.speak(path)
    path.unlink()
    assert engine.refused(path)[0] == 5


def test_a_sample_that_wrapped_round_at_full_scale_is_no_click(engine):
    rising = engine.call("joined", [0, 32000, -32768, 32100, -5, -32000, -32768, -32100])
    assert np.round(np.array(rising) * 32768).tolist() == [0, 32000, 32767, 32100, -5, -32000, -32768, -32100]


# --- which weights ----------------------------------------------------------------------------------------------


def test_models_are_found_by_list_by_folder_and_by_name(engine):
    root = engine.root
    gpt, sovits = fake.add_trained(root / "elsewhere", "x", epoch=3)
    listed, other = (str(path.relative_to(root)) for path in (gpt, sovits))
    label = "不训练直接推v3底模！"  # what the engine's web page may leave there
    by_gpt = {"listed": listed, "anna": [listed], "v3": label, "half": listed}
    by_sovits = {"listed": other, "anna": [other], "gone": "nowhere/x.pth"}
    (root / "weight.json").write_text(json.dumps({"GPT": by_gpt, "SoVITS": by_sovits}))
    for epoch in (4, 12):
        for path in fake.add_trained(root / "made", "zoe", epoch=epoch):
            (root / "trained" / "zoe").mkdir(parents=True, exist_ok=True)
            path.rename(root / "trained" / "zoe" / path.name)
    fake.add_trained(root, "声音", epoch=9)
    _, newest = fake.add_trained(root, "声音", epoch=10)
    try:
        assert engine.call("find", "listed") == [str(gpt), str(sovits)]
        assert engine.call("find", "anna") == [str(gpt), str(sovits)]  # the list comes before the folders
        zoe = root / "trained" / "zoe"
        assert engine.call("find", "zoe") == [str(zoe / "zoe-e12.ckpt"), str(zoe / "zoe_e12_s144.pth")]
        assert engine.call("find", "声音")[1] == str(newest)
        assert Path(engine.call("find", "annabel")[1]).name == "annabel_e8_s96.pth"
        for model_id, code in {"half": 9, "gone": 9, "v3": 10, "ann": 10, "../a": 10, "a*": 10, "x" * 200: 10}.items():
            with pytest.raises(Refused) as caught:
                engine.call("find", model_id)
            assert caught.value.code == code, model_id
        found = engine.call("models")
        assert found == ["default", "anna", "anna_new", "annabel", "listed", "zoe", "声音"]
    finally:
        (root / "weight.json").unlink()


def test_a_model_is_not_taken_for_one_whose_name_begins_alike(engine):
    assert Path(engine.call("find", "anna")[1]).name == "anna_e8_s96.pth"
    assert Path(engine.call("find", "anna_new")[1]).name == "anna_new_e8_s96.pth"


def test_both_files_come_from_folders_of_one_version(engine):
    fake.add_trained(engine.root, "twice", version="v1", epoch=20)
    fake.add_trained(engine.root, "twice", version="v2Pro", epoch=5)
    (engine.root / "SoVITS_weights" / "twice_e20_s240.pth").unlink()
    gpt, sovits = map(Path, engine.call("find", "twice"))
    assert (gpt.parent.name, sovits.parent.name) == ("GPT_weights_v2Pro", "SoVITS_weights_v2Pro")


def test_a_missing_file_never_becomes_the_default_voice(engine, reference):
    gpt, sovits = fake.add_trained(engine.root, "lost")
    sovits.unlink()
    assert engine.refused(reference, model_id="lost")[0] == 9
    assert engine.refused(reference, gpt_weights=str(gpt), sovits_weights=str(sovits))[0] == 9
    assert engine.refused(reference, gpt_weights=str(gpt))[0] == 2
    assert engine.refused(reference, model_id="nobody")[0] == 10
    assert not fake.calls(engine.root, "run")


def test_what_a_version_needs_beside_its_weights_is_looked_for_first(engine, reference):
    config = TTS_Config.default_configs["v4"]
    vocoder = engine.root / PRETRAINED / "gsv-v4-pretrained" / "vocoder.pth"
    vocoder.rename(vocoder.with_suffix(".away"))
    try:
        paths = {"gpt_weights": config["t2s_weights_path"], "sovits_weights": config["vits_weights_path"]}
        code, message = engine.refused(reference, **paths)
        assert code == 9 and "vocoder.pth" in message
    finally:
        vocoder.with_suffix(".away").rename(vocoder)


# --- processes of their own -------------------------------------------------------------------------------------


def test_without_cuda_it_refuses_instead_of_taking_the_cpu(root):
    with pytest.raises(Refused) as caught:
        Driver(root, mood='{"cuda": false}')
    assert caught.value.code == 8
    with pytest.raises(Refused) as caught:
        Driver(root, "cuda:3")
    assert caught.value.code == 8


def test_a_folder_that_is_no_project_root_is_refused(tmp_path):
    with pytest.raises(Refused) as caught:
        Driver(tmp_path)
    assert caught.value.code == 2


def test_paths_are_those_of_the_folder_it_was_started_in_and_their_configuration_is_left_alone(tmp_path, root):
    theirs = root / "GPT_SoVITS" / "configs" / "tts_infer.yaml"
    before = theirs.read_bytes()
    write_reference(tmp_path / "r.wav", 0.5)
    driver = Driver(Path(os.path.relpath(root, tmp_path)), "cpu", False, "v2Pro", cwd=tmp_path)
    driver.root = root
    try:
        driver.speak(Path("r.wav"))
        driver.speak(Path("r.wav"), model_id="anna")
        assert driver.call("version") == "v2"
    finally:
        driver.close()
    assert fake.calls(root, "load_sovits")[0]["path"].endswith("s2Gv2Pro.pth")
    assert theirs.read_bytes() == before
    assert yaml.safe_load(before)["custom"]["version"] == "v2"
