"""gpu_scripts/gptsovits_train.py in a root whose scripts behave, and fail, as the official ones."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from common.gptsovits import training
from common.training import guard
from tests.scripts import fake_gptsovits_root as fake
from tests.scripts.script_server import SCRIPTS
from tests.support.recordings import audio_files

SCRIPT = SCRIPTS / "gptsovits_train.py"
RATE = 24000
TEXT = "The speaker of line {} says a whole sentence, and then a little more of it."
STAGES = ["check", "slice", "transcribe", "features", "train_sovits", "train_gpt", "evaluate", "publish"]
HZ = 130.0


def record(folder: Path, count: int = 14, seconds: float = 5.2, hz: float = HZ, first: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(first, first + count):
        sf.write(folder / f"line{number:02d}.wav", audio_files.voice(seconds, RATE, hz, seed=number), RATE)
        (folder / f"line{number:02d}.txt").write_text(TEXT.format(number))
    return folder


class Place:
    """A root, a dataset, and where the results go."""

    def __init__(self, folder: Path, root: Path, packages: Path, dataset: Path) -> None:
        self.folder, self.root, self.packages, self.dataset = folder, root, packages, dataset
        self.work, self.output = folder / "work", folder / "out"

    def command(self, *more: str, version: str = "v2") -> list[str]:
        command = [sys.executable, str(SCRIPT), "--project-root", str(self.root), "--dataset", str(self.dataset)]
        command += ["--work", str(self.work), "--output", str(self.output), "--model-id", "anna", "--version", version]
        return [*command, "--sovits-epochs", "2", "--gpt-epochs", "2", "--batch", "4", "--holdout", "2", *more]

    def environment(self, **mood: Any) -> dict[str, str]:
        path = os.pathsep.join([str(self.packages), str(self.root)])  # the engine's interpreter has torch
        told = json.dumps({"tone": True, "cuda": False, **mood})
        return {**os.environ, "PYTHONPATH": path, "FAKE_GPTSOVITS_MOOD": told, "PYTHONDONTWRITEBYTECODE": "1"}

    def run(self, *more: str, version: str = "v2", **mood: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*more, version=version),
            env=self.environment(**mood),
            capture_output=True,
            text=True,
            timeout=180,
        )

    def start(self, **mood: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(),
            env=self.environment(**mood),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def calls(self, event: str) -> list[dict[str, Any]]:
        return fake.calls(self.work / "cwd", event)

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.work / "report.json").read_text())
        return found

    def reasons(self) -> str:
        return json.dumps(self.report()["dropped"])


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    versions = ("v2", "v2Pro")
    root = fake.build(tmp_path_factory.mktemp("root"), versions)
    return root, fake.add_training(root, versions)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("recordings"))


@pytest.fixture
def place(tmp_path: Path, engine: tuple[Path, Path], recordings: Path) -> Place:
    return Place(tmp_path, *engine, recordings)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, engine: tuple[Path, Path], recordings: Path) -> Place:
    """As far as the features."""
    place = Place(tmp_path_factory.mktemp("prepared"), *engine, recordings)
    result = place.run("--until", "prepare")
    assert result.returncode == 0, result.stderr
    return place


@pytest.fixture
def further(place: Place, prepared: Place) -> Iterator[Place]:
    """A copy of the prepared one: what is done is known by its inputs, wherever it lies."""
    shutil.copytree(prepared.work, place.work, symlinks=True)
    (place.work / "cwd" / "calls.jsonl").unlink(missing_ok=True)
    yield place
    assert not place.calls("prepare")


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*")
        if path.is_file() and path.name != "calls.jsonl"
    }


def progress(result: subprocess.CompletedProcess[str]) -> list[tuple[float, str]]:
    lines = [line.split() for line in result.stdout.splitlines() if line.startswith("PROGRESS ")]
    return [(float(fraction), stage) for _, fraction, stage in lines]


@pytest.mark.parametrize("version", ["v2", "v2Pro"])
def test_a_voice_is_trained_and_the_root_stays_as_it_was(place: Place, version: str) -> None:
    before = snapshot(place.root)
    result = place.run(version=version)
    assert result.returncode == 0, result.stderr
    assert snapshot(place.root) == before
    told = progress(result)
    assert [fraction for fraction, _ in told] == sorted(fraction for fraction, _ in told)
    assert list(dict.fromkeys(stage for _, stage in told)) == STAGES and told[-1] == (1.0, "publish")
    began = [(last, first) for last, first in itertools.pairwise(told) if last[1] != first[1]]
    assert all(last[0] == first[0] for last, first in began), "a stage is told when something of it is done"
    assert sorted(path.name for path in place.output.iterdir()) == [
        "gpt.ckpt",
        "model.json",
        "reference.txt",
        "reference.wav",
        "sovits.pth",
    ]
    assert sorted(path.name for path in place.folder.iterdir()) == ["out", "work"]
    assert (place.output / "sovits.pth").read_bytes()[:2] == {"v2": b"PK", "v2Pro": b"05"}[version]
    assert 3 <= sf.info(place.output / "reference.wav").duration <= 10
    assert (place.output / "reference.txt").read_text().startswith("The speaker of line ")
    model = json.loads((place.output / "model.json").read_text())
    assert (model["version"], model["language"], model["model_id"]) == (version, "en", "anna")
    assert model["epochs"] == {"gpt_epoch": 2, "sovits_epoch": 2}
    base, trained = model["evaluation"]
    assert (base["gpt_epoch"], base["sovits_epoch"]) == (0, 0)
    assert trained["likeness"] > base["likeness"] + 0.1  # of the pitch that the speaker has
    assert model["trained"]["clips"] == 12 and model["trained"]["held_out"] == 2
    again = place.run(version=version)
    assert again.returncode == 0 and len(place.calls("s2")) == 1 and len(place.calls("s1")) == 1


def test_children_work_on_the_disk_of_work_and_see_no_gpu(place: Place, prepared: Place) -> None:
    steps = fake.calls(prepared.work / "cwd", "prepare")
    assert [step["script"] for step in steps] == ["1-get-text", "2-get-hubert-wav32k", "3-get-semantic"]
    assert {step["cwd"] for step in steps} == {str(prepared.work / "cwd")}
    assert {step["is_half"] for step in steps} == {"False"} and {step["lines"] for step in steps} == {12}
    report = prepared.report()
    assert (report["clips"], report["speakers"], report["language"]) == (14, 1, "en")
    assert report["problems"] == [] and report["dropped"] == []
    assert {warning["code"] for warning in report["warnings"]} >= {"short", "no_recogniser"}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_training_leaves_no_process_and_goes_on_at_the_last_epoch(further: Place, how: int) -> None:
    process = further.start(s2_stop=1)
    wait_for(lambda: list((further.work / "sovits").glob("*_e1_*")))
    [trainer] = [call["pid"] for call in further.calls("s2")]
    session = os.getsid(trainer)
    assert len(guard.members(session)) >= 2
    shared = guard.shared_by(guard.members(session))
    assert any("/sem." in path for path in shared)
    process.send_signal(how)
    assert process.wait(timeout=30) == (143 if how == signal.SIGTERM else -9)
    wait_for(lambda: not guard.members(session), 20)
    wait_for(lambda: not any(os.path.exists(path) for path in shared), 10)
    assert not further.output.exists()
    result = further.run("--until", "train")
    assert result.returncode == 0, result.stderr
    log = (further.work / "logs" / "sovits.log").read_text()
    assert log.count("start training from epoch 1\n") == 1 and log.count("start training from epoch 2\n") == 1
    # Its state, gigabytes, goes once the weights are there.
    assert not list(further.work.glob("features/logs_*/**/*.pth"))


def wait_for(found: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_stopped_gpt_goes_on_with_its_last_epoch(further: Place) -> None:
    process = further.start(s1_stop=1)
    wait_for(lambda: list((further.work / "gpt").glob("*-e1.ckpt")))
    process.kill()
    process.wait()
    result = further.run("--until", "train")
    assert result.returncode == 0, result.stderr
    assert [call["epoch"] for call in further.calls("s1_resumes")] == [1]
    assert len(further.calls("s2")) == 1


def test_a_finished_stage_that_is_looked_at_again_costs_no_other_its_state(further: Place) -> None:
    process = further.start(s1_stop=1)
    wait_for(lambda: list((further.work / "gpt").glob("*-e1.ckpt")))
    process.kill()
    process.wait()
    shutil.rmtree(further.work / "features" / "logs_s2_v2")  # as where a copy has left the empty folder out
    result = further.run("--until", "train")
    assert result.returncode == 0, result.stderr
    assert [call["epoch"] for call in further.calls("s1_resumes")] == [1]


def test_a_broken_checkpoint_is_told_and_trained_anew(further: Place) -> None:
    process = further.start(s2_stop=1)
    wait_for(lambda: list((further.work / "sovits").glob("*_e1_*")))
    process.kill()
    process.wait()
    [state] = further.work.glob("features/logs_s2_v2/G_*.pth")
    state.write_bytes(state.read_bytes()[:100])
    result = further.run("--until", "train")
    assert result.returncode == 0 and "WARNING checkpoint_broken " in result.stdout, result.stderr
    assert (further.work / "logs" / "sovits.log").read_text().count("start training from epoch 1\n") == 2


def test_other_recordings_undo_what_was_made_of_the_former(place: Place, prepared: Place) -> None:
    shutil.copytree(prepared.work, place.work, symlinks=True)
    place.dataset = shutil.copytree(place.dataset, place.folder / "changed")
    (place.dataset / "line01.txt").write_text("Something else is said in the first line, in as many words.")
    assert place.run("--until", "prepare").returncode == 0
    assert len(place.calls("prepare")) == 6  # of both runs
    assert "Something else" in (place.work / "features" / "2-name2text.txt").read_text()


@pytest.mark.parametrize(
    ("mood", "code", "words"),
    [
        ({"s2": "mismatch"}, 9, "keys do not match"),
        ({"s2": "nan"}, 17, "no number"),
        ({"s2": "nan_weights"}, 17, "no numbers"),
        ({"s2": "unsaved"}, 18, "disk"),
        ({"s2": "enospc"}, 18, "is full"),
        ({"s2": "no_change"}, 11, "nothing was trained"),
        ({"s2": "lost_gpu"}, 8, "the GPU was lost"),
        ({"s2_fits": 0}, 7, "even with batch 1"),
        ({"s1": "nan"}, 17, "no numbers"),
        ({"s2": "worse"}, 16, "no more like the speaker"),
        ({"run": "raise"}, 11, "nothing was compared: no held-out sentence could be spoken with what was trained: "),
        ({"run": "raise_trained"}, 11, "RuntimeError"),
    ],
)
def test_a_training_that_came_to_nothing_says_why(further: Place, mood: dict[str, Any], code: int, words: str) -> None:
    result = further.run(**mood)
    assert result.returncode == code, result.stderr
    assert words in result.stderr.splitlines()[-1]
    assert not further.output.exists() and sorted(path.name for path in further.folder.iterdir()) == ["work"]


def test_a_base_that_cannot_speak_leaves_the_trained_ones_to_be_compared(further: Place) -> None:
    result = further.run(run="raise_base")
    assert result.returncode == 0, result.stderr
    assert "WARNING base_failed " in result.stdout and "WARNING likeness_unknown " not in result.stdout
    base, trained = json.loads((further.output / "model.json").read_text())["evaluation"]
    assert base["failed"] == 1 and trained["failed"] == 0 and trained["likeness"] > 0


def test_what_could_not_be_compared_is_compared_when_it_runs_again(further: Place) -> None:
    assert further.run(run="raise").returncode == 11
    result = further.run()
    assert result.returncode == 0, result.stderr
    assert len(further.calls("s2")) == len(further.calls("s1")) == 1


def test_a_gpt_whose_loaders_lost_a_batch_is_ended_soon_and_says_why(further: Place) -> None:
    started = time.monotonic()
    result = further.run("--until", "train", s1="no_shared_memory")
    assert result.returncode == 11, result.stderr
    assert time.monotonic() - started < 120  # it would wait for ever
    reason = result.stderr.splitlines()[-1]
    assert "a data loader of gpt lost a batch: RuntimeError: unable to write to file </torch_" in reason
    result = further.run("--until", "train")
    assert result.returncode == 0 and len(further.calls("s2")) == 1, result.stderr


def test_a_trainer_that_says_nothing_is_ended(further: Place) -> None:
    result = further.run("--until", "train", "--stall-seconds", "8", s1="silent")
    assert result.returncode == 11, result.stderr
    assert "gpt hangs: it said nothing for 8 s" in result.stderr.splitlines()[-1]
    [pid] = [call["pid"] for call in further.calls("s1")]
    assert not os.path.exists(f"/proc/{pid}")
    assert further.run("--until", "train", "--stall-seconds", "8", s1="silent").returncode == 0


def test_each_long_stage_tells_of_every_fiftieth_of_its_way(further: Place) -> None:
    result = further.run("--batch", "2")
    assert result.returncode == 0, result.stderr
    told = progress(result)
    for stage, count in {"train_sovits": 2 * 48, "train_gpt": 2 * 48, "evaluate": 2 * 2 * 3}.items():
        share = training.SHARES[stage] / sum(training.SHARES.values())
        before = max(fraction for fraction, own in told if STAGES.index(own) < STAGES.index(stage))
        steps = np.diff([before, *(fraction for fraction, own in told if own == stage)]) / share
        # A line has thousandths of the whole.
        assert steps.max() < max(0.02, 1 / count) + 0.0015 / share, stage


def test_each_clip_is_told_whose_text_is_read(place: Place) -> None:
    result = place.run("--until", "prepare")
    first = training.SHARES["check"] + training.SHARES["slice"] + training.SHARES["transcribe"]
    read = [fraction for fraction, stage in progress(result) if stage == "features"]
    assert len([fraction for fraction in read if fraction < first + training.SHARES["features"] / 3]) >= 10


def test_a_training_that_began_on_a_gpu_does_not_go_on_for_days_without_it(place: Place) -> None:
    assert place.run("--until", "check", cuda=True).returncode == 0
    result = place.run("--until", "prepare")
    assert result.returncode == 8 and "began on a GPU" in result.stderr, result.stderr
    assert not place.calls("prepare")
    assert place.run("--until", "check", "--device", "cpu").returncode == 0


def test_a_batch_that_does_not_fit_is_halved_until_it_does(further: Place) -> None:
    result = further.run("--until", "train", "--batch", "8", s2_fits=2)
    assert result.returncode == 0, result.stderr
    assert [call["batch"] for call in further.calls("s2")] == [8, 4, 2]
    assert "WARNING batch_halved Out of memory in train_sovits with batch 8; batch 2 fits." in result.stdout


def test_a_port_in_use_is_tried_once_more(further: Place) -> None:
    result = further.run("--until", "train", s2="port")
    assert result.returncode == 0 and len(further.calls("s2")) == 2, result.stderr


def test_the_gpt_gets_five_batches_an_epoch_or_it_would_learn_nothing(further: Place) -> None:
    assert further.run("--until", "train", "--batch", "64").returncode == 0
    assert [call["batch"] for call in further.calls("s1")] == [96 // 5]


def test_clips_that_the_engine_leaves_out_in_silence_are_told(place: Place) -> None:
    left_out = ["f0003c0000", "f0004c0000", "f0005c0000"]  # of which one may be held out
    result = place.run("--until", "prepare", text=left_out)
    assert result.returncode == 0, result.stderr
    assert "GPT-SoVITS made no text of it" in place.reasons()
    semantic = (place.work / "features" / "6-name2semantic.tsv").read_text()
    assert len(semantic.splitlines()) > 9 and not any(name in semantic for name in left_out)
    other = Place(place.folder / "b", place.root, place.packages, place.dataset)
    other.folder.mkdir()
    result = other.run("--until", "prepare", hubert="oom")
    assert result.returncode == 7, result.stderr


def test_what_is_of_no_use_is_left_out_and_told(place: Place) -> None:
    place.dataset = record(place.folder / "mixed", 15)
    folder = place.dataset
    (folder / "line00.wav").write_bytes(b"RIFF of nothing")
    shutil.copy(folder / "line01.wav", folder / "line01-again.wav")
    (folder / "line02.txt").write_text("A text | with a bar")
    samples, _ = sf.read(folder / "line03.wav")
    sf.write(folder / "line03.wav", np.clip(4 * samples, -1, 1), RATE)
    samples, _ = sf.read(folder / "line04.wav")
    sf.write(folder / "line04.wav", samples + np.random.default_rng(0).normal(0, 0.05, len(samples)), RATE)
    sf.write(folder / "line05.wav", np.zeros(5 * RATE), RATE)
    sf.write(folder / "short.wav", audio_files.voice(0.7, RATE), RATE)
    (folder / "line06.txt").write_text("Hm.")
    (folder / "nobody.txt").write_text("A text alone.")
    record(folder, 15, first=30)
    result = place.run("--until", "check")
    assert result.returncode == 0, result.stderr
    dropped = {(one["file"], one["reason"].split(":")[0]) for one in place.report()["dropped"]}
    assert dropped >= {
        ("line00.wav", "unreadable"),
        ("line01.wav", "the same as line01-again.wav"),
        ("line02.wav", "its text has a |"),
        ("line03.wav", "clipped"),
        ("line04.wav", "noise"),
        ("line05.wav", "silent"),
        ("short.wav", "shorter than a second"),
        ("line06.wav", "odd rate"),
        ("nobody.txt", "a text without a recording of its name"),
    }
    assert place.report()["clips"] == 24 and "WARNING unreadable line00.wav cannot be read." in result.stdout


def silence(folder: Path) -> None:
    for number in range(14):
        sf.write(folder / f"s{number}.wav", np.zeros(6 * RATE), RATE)


def two_speakers(folder: Path) -> None:
    record(folder, 8)
    record(folder, 8, hz=88.0, first=20)  # Of a higher one the stand-in hears the octave below.


def half_a_minute(folder: Path) -> None:
    record(folder, 6)


def in_other_words(folder: Path) -> None:
    record(folder)
    for path in folder.glob("*.txt"):
        path.write_text("今天天气很好，我们一起去公园散步吧。")


def broken(folder: Path) -> None:
    (folder / "a.wav").write_bytes(b"nothing")


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (silence, "too_short"),
        (half_a_minute, "too_short"),
        (two_speakers, "several_speakers"),
        (in_other_words, "wrong_language"),
        (broken, "unreadable"),
        (lambda folder: None, "unreadable"),
    ],
)
def test_what_cannot_come_to_anything_is_refused_before_anything_is_made(
    place: Place, make: Callable[[Path], None], code: str
) -> None:
    place.dataset = place.folder / "refused"
    place.dataset.mkdir()
    make(place.dataset)
    result = place.run("--language", "en")
    assert result.returncode == 15, result.stderr
    assert f"({code})" in result.stderr.splitlines()[-1]
    assert [problem["code"] for problem in place.report()["problems"]] == [code]
    assert not place.calls("prepare") and not place.calls("s2")


def test_a_list_of_the_engine_is_read_as_it_does(place: Place) -> None:
    lines = [f"line{number:02d}.wav|anna|EN|{TEXT.format(number)}" for number in range(14)]
    lines += ["line00.wav|anna|fr|Bonjour.", "line01.wav|anna|EN|one|two"]
    place.dataset = shutil.copytree(place.dataset, place.folder / "listed") / "my.list"
    place.dataset.write_text("\n".join(lines))
    result = place.run("--until", "check")
    assert result.returncode == 0, result.stderr
    assert place.report()["clips"] == 14 and place.report()["language"] == "en"
    assert "not trained for the language 'fr'" in place.reasons() and "line 16" in place.reasons()


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (("--device", "cuda"), 8, "no GPU"),
        (("--asr-model", "/nowhere"), 2, "/nowhere"),
        (("--dataset", "/nowhere"), 3, "there is no dataset"),
        (("--version", "v2ProPlus"), 9, "s2Gv2ProPlus.pth"),
        (("--output", "/proc/none/out"), 6, "cannot write"),
        (("--batch", "0"), 2, "--batch"),
    ],
)
def test_what_is_missing_is_said_first(place: Place, more: tuple[str, ...], code: int, words: str) -> None:
    result = place.run(*more)
    assert result.returncode == code, result.stderr
    assert words in result.stderr


def test_a_disk_that_is_too_small_is_told_before_anything_is_made(place: Place, small_disk: Path) -> None:
    place.work = small_disk / "work"
    result = place.run()
    assert result.returncode == 18 and "the training needs about" in result.stderr
    assert not place.calls("prepare")


def test_a_disk_that_is_full_when_the_result_is_written_leaves_none_and_costs_no_training(
    further: Place, small_disk: Path
) -> None:
    further.output = small_disk / "out"
    with contextlib.suppress(OSError), open(small_disk / "others", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    result = further.run()
    assert result.returncode == 18 and "No space left on device" in result.stderr, result.stderr
    assert [path.name for path in small_disk.iterdir()] == ["others"]
    (small_disk / "others").unlink()
    result = further.run()
    assert result.returncode == 0, result.stderr
    assert (further.output / "model.json").is_file()
    assert len(further.calls("s2")) == len(further.calls("s1")) == 1


def test_one_training_works_in_a_folder_and_no_other_files_are_replaced(further: Place) -> None:
    process = further.start(s2_stop=1)
    wait_for(lambda: further.calls("s2"))
    result = further.run()
    process.terminate()
    process.wait()
    assert result.returncode == 6 and "another training" in result.stderr
    further.output.mkdir()
    (further.output / "mine.txt").write_text("kept")
    result = further.run()
    assert result.returncode == 6 and (further.output / "mine.txt").read_text() == "kept"


def test_a_missing_package_is_named(place: Place) -> None:
    place.packages = shutil.copytree(place.packages, place.folder / "packages")
    shutil.rmtree(place.packages / "pandas")
    result = place.run()
    assert result.returncode == 14 and "pandas" in result.stderr
