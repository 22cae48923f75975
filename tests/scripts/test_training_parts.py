"""What the scripts that train are made of: cutting, transcripts, speakers, the choice, and children that are ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from common import script_io
from common.gptsovits import selection
from common.script_io import ScriptError
from common.training import children, publishing, sound, transcripts, work
from common.training.children import Child
from common.training.dataset import Clip, Source
from common.training.report import Report, script_of, speakers
from common.training.tell import Teller
from tests.support.recordings import audio_files, songs

RATE = 24000


def test_long_speech_is_cut_at_its_pauses_and_never_longer_than_allowed() -> None:
    parts = []
    for number in range(12):
        parts += [audio_files.voice(3.1, RATE, seed=number), np.zeros(round(0.4 * RATE), np.float32)]
    samples = np.concatenate([np.zeros(2 * RATE, np.float32), *parts, np.zeros(3 * RATE, np.float32), parts[0]])
    spans = sound.cut(samples, RATE, 10.0)
    assert max(span.end - span.start for span in spans) <= 10.0 + sound.FRAME_SECONDS
    assert not any(span.cut for span in spans) and len(spans) >= 5
    assert spans[0].start == pytest.approx(2 - sound.KEPT_SECONDS, abs=0.05)
    gap = [b.start - a.end for a, b in pairwise(spans)]
    assert gap[-1] > 2  # the silence of three seconds is in no clip
    level = sound.levels(samples, RATE)
    for span in spans[:-1]:
        assert level[round(span.end / sound.FRAME_SECONDS) - 1] < -60


def test_speech_without_a_pause_is_cut_where_it_is_quietest_and_said_so() -> None:
    loud = np.random.default_rng(0).normal(0, 0.1, 20 * RATE).astype(np.float32)
    loud[9 * RATE : 9 * RATE + RATE // 10] *= 0.3
    spans = sound.cut(loud, RATE, 12.0)
    assert spans[0].cut and spans[0].end == pytest.approx(9.05, abs=0.1)


def test_a_song_is_told_from_speech_and_a_clipped_recording_from_a_loud_one() -> None:
    speech = songs.speech("The quick brown fox jumps over the lazy dog, and nobody minded that it was late.")
    low = np.asarray(songs.soxr.resample(speech, 24000, 16000), np.float32)
    times = np.arange(5 * 16000) / 16000
    notes = 220 * 2 ** (np.floor(times * 1.5) % 5 / 12)
    sung = np.asarray(0.3 * np.sign(np.sin(2 * np.pi * np.cumsum(notes) / 16000)), np.float32)
    assert sound.held_share(low, 16000) < sound.HELD_SHARE < sound.held_share(sung, 16000)
    peak = np.asarray(speech / np.abs(speech).max(), np.float32)
    assert sound.clipped_share(peak) < sound.MAX_CLIPPED < sound.clipped_share(np.clip(3 * peak, -1, 1))


def clip(name: str, file: str, start: float, end: float, text: str | None = None) -> Clip:
    return Clip(name, 0, file, start, end, text is not None, text=text)


def heard(*words: str) -> dict[str, Any]:
    return {"language": "en", "words": [[f" {word}", number, number + 1] for number, word in enumerate(words)]}


def test_a_text_of_a_long_recording_goes_to_the_clips_in_which_it_is_heard() -> None:
    text = "Follow the river, down to the sea! Where nobody knows your name."
    clips = [clip("a", "long.wav", 0, 3), clip("b", "long.wav", 3, 6)]
    said = {
        "a": heard(*["follow", "a", "river", "down", "to", "the", "sea"]),
        "b": heard(*["nobody", "knows", "your", "name"]),
    }
    report = Report(language="en")
    kept = transcripts.complete(report, clips, [Source(Path("long.wav"), text)], said)
    assert [one.text for one in kept] == ["Follow the river, down to the sea!", "Where nobody knows your name."]


def test_texts_of_other_recordings_are_a_problem_and_one_wrong_text_is_left_out() -> None:
    right = "We have been waiting for the train since noon."
    clips = [clip(str(number), f"{number}.wav", 0, 4, right) for number in range(5)]
    clips[2].text = "Please put the heavy box on the table over there."
    said = {one.name: heard(*right.lower().strip(".").split()) for one in clips}
    report = Report(language="en")
    kept = transcripts.complete(report, clips, [], said)
    assert [one.name for one in kept] == ["0", "1", "3", "4"] and not report.problems
    assert "not what is heard" in report.dropped[0]["reason"]
    other = {one.name: heard("my", "brother", "repairs", "clocks") for one in clips}
    transcripts.complete(report, clips, [], other)
    assert [problem["code"] for problem in report.problems] == ["wrong_transcripts"]


def test_without_texts_and_a_recogniser_nothing_is_trained() -> None:
    with pytest.raises(ScriptError) as caught:
        transcripts.complete(Report(), [clip("a", "a.wav", 0, 5)], [], None)
    assert caught.value.exit_code == script_io.NO_LYRICS


@pytest.mark.parametrize(
    ("wanted", "said", "rate"),
    [
        ("Hello, you.", "hello you", 0),
        ("abcd", "abxd", 0.25),
        ("abcd", "", 1),
        ("ab", "abcd", 1),
        ("你好", "你号", 0.5),
    ],
)
def test_errors_are_counted_in_letters(wanted: str, said: str, rate: float) -> None:
    assert transcripts.error_rate(wanted, said) == pytest.approx(rate)


def test_languages_are_told_by_their_letters() -> None:
    texts = ("I saw it.", "今天天气很好", "今日はいい天気", "오늘은 날씨가", "12 - 3", "这个 GPT 模型很好")
    assert [script_of(text) for text in texts] == ["en", "zh", "ja", "ko", "", "zh"]


def test_clips_of_two_people_are_two_groups_and_of_one_person_one() -> None:
    random = np.random.default_rng(1)
    one, two = random.normal(size=(2, 192))
    mixed = np.stack([*(one + 0.6 * random.normal(size=(30, 192))), *(two + 0.6 * random.normal(size=(12, 192)))])
    groups = speakers(mixed)
    assert len(set(groups)) == 2 and len(set(groups[:30])) == 1 and len(set(groups[30:])) == 1
    assert len(set(speakers(mixed[:30]))) == 1
    many = np.stack([one + 0.6 * random.normal(size=192) for _ in range(450)])
    assert len(set(speakers(many))) == 1


def takes(likeness: float, cer: float = 0.1, seconds: float = 4.0) -> list[dict[str, Any]]:
    return [{"sentence": 0, "likeness": likeness, "cer": cer, "seconds": seconds} for _ in range(3)]


def test_the_most_alike_pair_that_says_its_words_is_chosen() -> None:
    base = selection.row((0, 0), takes(0.5), [4.0])
    rows = [
        selection.row((5, 4), takes(0.6), [4.0]),
        selection.row((10, 4), takes(0.7), [4.0]),
        selection.row((15, 4), takes(0.8, cer=0.3), [4.0]),
        selection.row((15, 8), takes(0.9, seconds=12.0), [4.0]),
        selection.row((5, 8), [{"sentence": 0, "error": "silence"}] * 3, [4.0]),
    ]
    best, judged = selection.choose(base, rows)
    assert best is not None and (best.gpt_epoch, best.sovits_epoch) == (10, 4)
    assert [bool(one.out) for one in judged] == [False, False, True, True, True]
    best, judged = selection.choose(selection.row((0, 0), takes(0.95), [4.0]), rows)
    assert best is None and "no more like the speaker" in judged[0].out


def test_a_child_is_ended_with_what_it_started_in_another_group(tmp_path: Path) -> None:
    source = (
        "import subprocess, sys, os\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'], process_group=0)\n"
        "print('child', p.pid, flush=True); import time; time.sleep(300)\n"
    )
    pids: list[int] = []

    def on_line(line: str) -> None:
        pids.append(int(line.split()[1]))
        raise children.Ended(script_io.NOT_FINITE, "enough")

    with pytest.raises(ScriptError) as caught:
        children.run(
            "stub", [sys.executable, "-c", source], cwd=tmp_path, log=tmp_path / "log", environment={}, on_line=on_line
        )
    assert caught.value.exit_code == script_io.NOT_FINITE
    state = Path(f"/proc/{pids[0]}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_what_a_child_printed_last_is_its_reason(tmp_path: Path) -> None:
    child = children.run(
        "stub",
        [sys.executable, "-c", "print('bar 1\\rbar 2', flush=True); raise RuntimeError('CUDA out of memory')"],
        cwd=tmp_path,
        log=tmp_path / "log",
        environment={},
    )
    assert child.code == 1 and list(child.lines)[:2] == ["bar 1", "bar 2"]
    assert child.failure(tmp_path).exit_code == script_io.OUT_OF_MEMORY and "out of memory" in child.reason


def test_an_output_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(ZeroDivisionError), publishing.output_folder(output) as folder:
        (folder / "a").write_text("half")
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []
    for text in ("one", "two"):
        with publishing.output_folder(output) as folder:
            (folder / "a").write_text(text)
    assert (output / "a").read_text() == "two" and os.listdir(tmp_path) == ["out"]


def test_stages_are_made_once_from_the_same_and_again_from_another(tmp_path: Path) -> None:
    made: list[str] = []

    def stages(first: int) -> None:
        scratch = work.Work(tmp_path / "work")
        for name, made_from in (("one", first), ("two", 0)):
            scratch.run(name, made_from, lambda name=name: made.append(name))  # type: ignore[misc]
        scratch._lock.close()

    stages(1)
    stages(1)
    assert made == ["one", "two"]
    stages(2)
    assert made == ["one", "two"] * 2
    (tmp_path / "work" / "state.json").write_text("{broken")
    stages(2)
    assert made == ["one", "two"] * 3


def test_progress_never_falls_and_says_its_stage(capsys: pytest.CaptureFixture[str]) -> None:
    teller = Teller({"a": 1.0, "b": 3.0})
    for stage, done in (("a", 0.5), ("a", 0.2), ("b", 0.5), ("b", 2.0)):
        teller.progress(stage, done)
    assert capsys.readouterr().out.splitlines() == ["PROGRESS 0.125 a", "PROGRESS 0.625 b", "PROGRESS 1 b"]


def test_a_wave_of_noise_is_heard_as_noise(tmp_path: Path) -> None:
    from common.training import dataset

    voice = audio_files.voice(6.0, RATE)
    noisy = voice + np.random.default_rng(0).normal(0, 0.03, len(voice))
    for name, samples in (("clean", voice), ("noisy", noisy)):
        sf.write(tmp_path / f"{name}.wav", samples, RATE)
    found, _ = dataset.sources(tmp_path)
    _, clips, dropped = dataset.measure_all(found, 15.0, lambda done: None)
    assert [Path(one.file).name for one in clips] == ["clean.wav"]
    assert dropped[0].file == "noisy.wav" and dropped[0].reason.startswith("noise")


NO_ROOM = "OSError: [Errno 28] No space left on device"
BUS_ERROR = (
    "ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm)."
)


@pytest.mark.parametrize(
    ("lines", "code", "words"),
    [
        (["sl = self._semlock = _multiprocessing.SemLock(", NO_ROOM], 11, "--shm-size"),
        ([BUS_ERROR, "RuntimeError: DataLoader worker (pid 71) is killed by signal: Bus error."], 11, "--shm-size"),
        ([NO_ROOM], 18, "is full"),
    ],
)
def test_too_little_shared_memory_is_not_taken_for_a_full_disk(
    tmp_path: Path, lines: list[str], code: int, words: str
) -> None:
    failure = Child("gpt", 1, deque(lines)).failure(tmp_path)
    assert failure.exit_code == code and words in str(failure)


def test_an_error_while_another_is_handled_does_not_hide_it() -> None:
    lines = [
        "OSError: [Errno 5] Input/output error",
        "During handling of the above exception, another exception occurred:",
        "Traceback (most recent call last):",
        "RuntimeError: Please call `iter(combined_loader)` first.",
    ]
    reason = Child("gpt", 1, deque(lines)).reason
    assert reason.startswith("RuntimeError: Please call") and "OSError: [Errno 5] Input/output error" in reason


LEAKED = [
    "/opt/venv/lib/python3.11/site-packages/joblib/externals/loky/backend/resource_tracker.py:354: UserWarning: "
    "resource_tracker: There appear to be 12 leaked semlock objects to clean up at shutdown",
    "warnings.warn(",
    "/opt/venv/lib/python3.11/site-packages/joblib/externals/loky/backend/resource_tracker.py:371: UserWarning: "
    "resource_tracker: /dev/shm/x: FileNotFoundError(2, 'No such file or directory')",
    "warnings.warn(f'resource_tracker: {name}: {error!r}')",
] * 20
CAUGHT = "An error occurred extracting the model: [Errno 2] No such file or directory: 'assets/config.json'"
DONE = "Training has been successfully completed with 1 epoch, 10 steps and 43.2 loss gen."


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["Starting training...", DONE, CAUGHT, *LEAKED], CAUGHT),
        ([CAUGHT, DONE, *LEAKED], CAUGHT),
        ([DONE, *LEAKED], DONE),
        (["[HuBERT][failed] The model does not exist", "Completed | Success: 0 | Failed: 0", DONE], "[HuBERT][failed]"),
        ([f"11%|█         | 1/9 [00:30<04:02, 30.26s/it]{CAUGHT}", "22%|██        | 2/9 [00:31<"], CAUGHT),
        (["Traceback (most recent call last):", "KeyError: 'precision'", "Unable to say more.", *LEAKED], "KeyError"),
        (
            ["Error(s) in loading state_dict for Synthesizer:", "size mismatch for dec.conv_pre.weight"],
            "Error(s) in loading state_dict for Synthesizer: size mismatch for dec.conv_pre.weight",
        ),
        (["<string>:1: FutureWarning: soon", "The root has no config", "[W1130 socket.cpp:9] no IPv6"], "The root has"),
        (LEAKED[:2], "it said nothing but warnings"),
        ([], "it said nothing"),
    ],
)
def test_the_line_that_tells_why_is_found_above_the_warnings_of_the_end(lines: list[str], reason: str) -> None:
    assert Child("train", 0, deque(lines)).reason.startswith(reason)


HOLDS_A_SEMAPHORE = """
import multiprocessing, os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
semaphore = multiprocessing.get_context("spawn").Semaphore()
print(os.getpid(), semaphore._semlock.name.strip("/"), flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /dev/shm")
def test_shared_memory_is_freed_though_the_guard_is_killed_before_what_it_guards_has_ended() -> None:
    lifeline, ours = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(children.GUARD), str(lifeline), sys.executable, "-c", HOLDS_A_SEMAPHORE],
        pass_fds=[lifeline],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    pid, name = process.stdout.readline().split()
    try:
        semaphore = Path("/dev/shm") / f"sem.{name}"
        assert semaphore.exists()
        process.terminate()
        deadline = time.monotonic() + 4  # of the five that the program has
        while semaphore.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
        assert not semaphore.exists()
    finally:
        os.kill(int(pid), signal.SIGKILL)
        process.wait()
        os.close(lifeline)
        os.close(ours)
