"""Commands that stay between jobs: real processes, on the real protocol of gpu_scripts/common/script_io.py."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from tests.support.audio import speech_like
from tests.support.running.processes import live
from tests.support.waiting import wait_until
from voiceproject.commands import resident, runner
from voiceproject.commands.resident_child import folder_in_use
from voiceproject.commands.runner import (
    CommandFailed,
    CommandOutputTooLarge,
    CommandResult,
    CommandStopped,
    CommandTimedOut,
)
from voiceproject.commands.scratch import sweep_scratch
from voiceproject.commands.template import CommandTemplate, child_environment, identity

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks through /proc")

PROJECT = Path(runner.__file__).resolve().parents[2]
SCRIPT = Path(__file__).parents[1] / "programs" / "serving_command.py"
TEMPLATE = CommandTemplate(
    f"{{python_exec}} {SCRIPT} --output {{output}} --load 0 --habit {{habit}}",
    frozenset({"python_exec", "output", "habit"}),
)
LASTING = frozenset({"python_exec"})


class Place:
    """A pool and the folders of its jobs; every process below carries a tag."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.scratch = root / "scratch"
        self.scratch.mkdir()
        self.tag = f"TEST_TREE={uuid.uuid4().hex}"
        self.pools: list[resident.Pool] = []
        self.pool = self.new_pool()

    def new_pool(self, **options: Any) -> resident.Pool:
        options = {"max_children": 2, "max_jobs": 20, "idle_seconds": 60.0} | options
        self.pools.append(resident.Pool(self.scratch, **options))
        self.pool = self.pools[-1]
        return self.pool

    def folder(self, name: str = "") -> Path:
        folder = self.root / (name or uuid.uuid4().hex)
        folder.mkdir(exist_ok=True)
        return folder

    def run(
        self, habit: str = "", folder: Path | None = None, template: CommandTemplate = TEMPLATE, **options: Any
    ) -> tuple[dict[str, Any], CommandResult]:
        """What the job knew of its process, and the result."""
        folder = folder or self.folder()
        values = {"python_exec": sys.executable, "output": str(folder / "out.json"), "habit": habit}
        env = child_environment(folder, {"REQUEST_ID": folder.name, **dict([self.tag.split("=")])})
        settings: dict[str, Any] = {"cwd": folder, "env": env, "deadline_seconds": 60.0, "poll_seconds": 0.02}
        settings |= {"stop_every_seconds": 0.02}
        serving = template.serving(values, LASTING)
        result = self.pool.run(template.argv(values), serving, **settings | options)
        return json.loads((folder / "out.json").read_text()), result

    def live(self) -> list[str]:
        return live(self.tag, [])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    for pool in place.pools:
        pool.close()
    assert place.live() == []
    assert os.listdir(place.scratch) == []


def pids(folder: Path) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [int(line) for line in (folder / "out.json.ready").read_text().split()]
    return []


# --- one process, many jobs ---


def test_jobs_share_a_process_and_see_their_own_folder_and_request(place: Place) -> None:
    first, second = place.folder("first"), place.folder("second")
    one, result = place.run(folder=first)
    two, _ = place.run(folder=second)
    assert one["pid"] == two["pid"]
    assert (one["jobs"], two["jobs"]) == (1, 2)
    assert (one["cwd"], two["cwd"]) == (str(first), str(second))
    assert (one["request"], two["request"]) == ("first", "second")
    told = identity({"request_id": "r", "job": "j"}, "00-trace")
    three, _ = place.run(env=child_environment(first, {**told, **dict([place.tag.split("=")])}))
    four, _ = place.run()
    assert three["pid"] == four["pid"] == one["pid"]
    assert (three["request"], three["job"], three["trace"]) == ("r", "j", "00-trace")
    assert (four["job"], four["trace"]) == (None, None), "what a job was told ends with it"
    assert Path(one["tmpdir"]).parent == place.scratch
    # What is the same for all jobs is on its command line, and nothing of the first one.
    assert one["serve"] == ["--serve", "--load", "0"]
    assert (result.returncode, result.stderr_tail, result.warnings) == (0, "", ())
    assert result.peak_rss_bytes > 1_000_000


def test_a_process_is_replaced_after_its_number_of_jobs(place: Place) -> None:
    place.new_pool(max_jobs=2)
    seen = [place.run()[0] for _ in range(5)]
    assert [facts["jobs"] for facts in seen] == [1, 2, 1, 2, 1]
    assert len({facts["pid"] for facts in seen}) == 3


def test_two_jobs_at_a_time_get_two_processes_and_a_third_keeps_none(place: Place) -> None:
    folders = [place.folder(str(number)) for number in range(3)]
    threads = [threading.Thread(target=place.run, args=["wait", folder]) for folder in folders]
    for thread in threads:
        thread.start()
    for folder in folders:
        wait_until((folder / "out.json.ready").exists, "the job runs")
    for folder in folders:
        (folder / "out.go").touch()
    for thread in threads:
        thread.join(30)
    assert len({json.loads((folder / "out.json").read_text())["pid"] for folder in folders}) == 3
    assert len(os.listdir(place.scratch)) == 2  # as many as the pool keeps


def test_progress_and_warnings_arrive_with_the_job_they_belong_to(place: Place) -> None:
    seen: list[float] = []
    _, result = place.run("tell", on_progress=seen.append)
    assert seen == [0.25, 0.5, 1.0]
    assert result.warnings == ("The song is mono. Very.",)
    assert result.stderr_tail == "WARNING from a library\n"
    seen.clear()
    _, result = place.run("", on_progress=seen.append)
    assert (seen, result.warnings, result.stderr_tail) == ([], (), "")


def test_what_is_printed_breaks_nothing(place: Place) -> None:
    """By the script, its libraries and its children, on stdout; and a child that reads stdin takes no job away."""
    seen: list[float] = []
    facts, result = place.run("print", on_progress=seen.append)
    assert result.stderr_tail.endswith("raw from a child\n")
    assert seen in ([], [1.0])  # 1e999 is read as more than all
    assert place.run()[0]["pid"] == facts["pid"]


def test_a_gigabyte_of_stderr_takes_no_memory_and_the_tail_is_the_jobs_own(place: Place) -> None:
    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    place.run()
    sizes = [resident_bytes()]

    def sample() -> bool:
        sizes.append(resident_bytes())
        return False

    _, result = place.run("noise", should_stop=sample)
    assert len(sizes) > 3
    assert max(sizes) - sizes[0] < 8_000_000
    assert result.stderr_tail.endswith("noise noise and the end")
    assert len(result.stderr_tail) == 8192
    facts, result = place.run()
    assert (facts["jobs"], result.stderr_tail) == (3, "")


def test_many_jobs_leave_no_descriptor_thread_or_memory(place: Place) -> None:
    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    place.new_pool(max_jobs=1000)
    facts, _ = place.run()
    status = Path(f"/proc/{facts['pid']}/statm")
    for _ in range(10):
        place.run()
    before, size = held(), int(status.read_text().split()[1])
    for _ in range(60):
        place.run()
    assert held() == before
    assert (int(status.read_text().split()[1]) - size) * os.sysconf("SC_PAGE_SIZE") < 2_000_000
    place.new_pool(max_jobs=1)
    place.run()
    before = held()
    for _ in range(3):
        place.run()
    assert held() == before


# --- the job fails ---


def test_a_failed_job_is_that_jobs_alone(place: Place) -> None:
    pid = place.run()[0]["pid"]
    for habit, status, tail in (("fail", 4, "nothing is sung\n"), ("argue", 2, "script: that is no pitch\n")):
        with pytest.raises(CommandFailed, match=f"status {status}") as caught:
            place.run(habit)
        assert (caught.value.returncode, caught.value.stderr_tail) == (status, tail)
    assert place.run()[0]["pid"] == pid


def test_the_last_job_of_a_process_fails_as_any_other(place: Place) -> None:
    place.new_pool(max_jobs=2)
    place.run()
    folder = place.folder()
    with pytest.raises(CommandFailed, match="status 4"):
        place.run("fail", folder)
    assert place.run()[0]["jobs"] == 1


ENDINGS = {
    "crash": (-signal.SIGSEGV, "signal 11", "about to crash\n"),
    "break": (1, "status 1", "LookupError: no such layer\n"),
    "memory": (7, "status 7", "out of memory\n"),
    "leave": (0, "before it answered", ""),
}


@pytest.mark.parametrize("habit", ENDINGS)
def test_a_job_that_takes_the_process_along_fails_and_the_next_gets_a_fresh_one(place: Place, habit: str) -> None:
    status, message, tail = ENDINGS[habit]
    with pytest.raises(CommandFailed, match=message) as caught:
        place.run(habit)
    assert caught.value.returncode == status
    assert caught.value.stderr_tail.endswith(tail)
    assert place.live() == []
    assert place.run()[0]["jobs"] == 1


@pytest.mark.parametrize("habit", ["crash later", "memory later"])
def test_a_job_that_suffers_from_earlier_ones_is_run_again_in_a_fresh_process(place: Place, habit: str) -> None:
    place.run()
    facts, result = place.run(habit)
    assert (facts["jobs"], result.returncode) == (1, 0)


def test_a_job_that_crashes_everywhere_is_not_run_for_ever(place: Place) -> None:
    place.run()
    with pytest.raises(CommandFailed, match="signal 11"):
        place.run("crash")


def test_memory_that_idle_processes_hold_is_freed_for_a_job_that_needs_it(place: Place) -> None:
    other = CommandTemplate(TEMPLATE.template.replace("--load 0", "--load 0.0"), TEMPLATE.placeholders)
    pid = place.run(template=other)[0]["pid"]
    folder = place.folder()
    (folder / "out.json.other").write_text(str(pid))
    assert place.run("memory while another lives", folder)[1].returncode == 0
    assert not Path(f"/proc/{pid}").exists()


def test_a_script_that_closes_its_stdout_fails_the_job(place: Place) -> None:
    with pytest.raises(CommandFailed, match="closed its stdout"):
        place.run("close")
    assert place.live() == []


# --- the job is ended ---


@pytest.mark.parametrize("habit", ["hang", "stubborn"])
def test_cancel_ends_the_process_with_its_children_within_two_seconds(place: Place, habit: str) -> None:
    place.run()
    folder = place.folder()
    asked: list[float] = []

    def canceled() -> bool:
        if len(pids(folder)) < (2 if habit == "stubborn" else 1):
            return False
        asked.append(time.monotonic())
        return True

    with pytest.raises(CommandStopped):
        place.run(habit, folder, should_stop=canceled)
    assert time.monotonic() - asked[0] < 2.0
    assert place.live() == []
    assert place.run()[0]["jobs"] == 1


def test_a_canceled_job_leaves_no_half_file(place: Place) -> None:
    folder = place.folder()
    with pytest.raises(CommandStopped):
        place.run("half", folder, should_stop=lambda: bool(pids(folder)))
    assert [name for name in os.listdir(folder) if "wav" in name] == []


def test_cancel_does_not_wait_for_a_script_to_be_ready(place: Place) -> None:
    slow = CommandTemplate("sh -c 'sleep 600' {output} {habit}", TEMPLATE.placeholders)
    with pytest.raises(CommandStopped):
        place.run(template=slow, should_stop=lambda: bool(place.live()))
    assert place.live() == []


def test_each_job_has_a_deadline_of_its_own(place: Place) -> None:
    for _ in range(3):
        pid = place.run(deadline_seconds=20)[0]["pid"]
    with pytest.raises(CommandTimedOut, match=r"longer than 0\.5 s"):
        place.run("hang", deadline_seconds=0.5)
    assert place.live() == []
    assert place.run()[0]["pid"] != pid


def test_the_deadline_holds_while_the_runner_is_stuck(place: Place) -> None:
    place.run()
    folder = place.folder()

    def stuck() -> bool:
        wait_until(lambda: pids(folder), "the job runs")
        wait_until(lambda: not place.live(), "the guard ends it without the runner")
        return False

    with pytest.raises(CommandTimedOut, match=r"longer than 0\.5 s"):
        place.run("hang", folder, should_stop=stuck, deadline_seconds=0.5)


def test_a_silent_job_has_stalled(place: Place) -> None:
    with pytest.raises(CommandTimedOut, match=r"silent for 0\.5 s"):
        place.run("hang", stall_seconds=0.5)


@pytest.mark.parametrize("habit", ["fill", "fill its own"])
def test_a_job_writes_no_more_than_it_may(place: Place, habit: str) -> None:
    with pytest.raises(CommandOutputTooLarge, match="more than 1000000 bytes"):
        place.run(habit, max_output_bytes=1_000_000)
    assert place.live() == []
    place.run(max_output_bytes=1_000_000)


@pytest.mark.parametrize("callback", ["on_progress", "should_stop"])
def test_a_callback_that_raises_ends_the_process(place: Place, callback: str) -> None:
    folder = place.folder()

    def raising(*_: float) -> bool:
        if callback == "on_progress" or pids(folder):
            raise LookupError("the database is away")
        return False

    with pytest.raises(LookupError):
        place.run("tell" if callback == "on_progress" else "hang", folder, **{callback: raising})
    assert place.live() == []


# --- programs that do not serve ---

FOREIGN = {
    "it exits at once": "import sys; '--serve' in sys.argv and sys.exit('unrecognised: --serve')",
    "it ends without a word": "import sys; '--serve' in sys.argv and sys.exit(0)",
    "it says nothing": "import sys, time; '--serve' in sys.argv and time.sleep(600)",
}


@pytest.mark.parametrize("how", FOREIGN)
def test_a_program_that_does_not_serve_gets_a_process_for_each_job_and_one_line_in_the_log(
    place: Place, how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = tmp_path / "foreign.py"
    script.write_text(
        f"{FOREIGN[how]}\nimport json, os\nprint('PROGRESS 0.5')\nprint('WARNING rough', file=sys.stderr)\n"
        "print('SEPARATION [1]'), print('SEPARATION {1}'), print('SEPARATION {\"leftover_db\":-9.5}')\n"
        "open(sys.argv[1], 'w').write(json.dumps({'pid': os.getpid(), 'argv': sys.argv[1:]}))"
    )
    template = CommandTemplate(f"{{python_exec}} {script} {{output}} {{habit}}", TEMPLATE.placeholders)
    place.new_pool(ready_seconds=1.0)
    seen: list[float] = []
    (one, result), (two, _) = (place.run("x", template=template, on_progress=seen.append) for _ in range(2))
    assert one["pid"] != two["pid"]
    assert "--serve" not in one["argv"]
    assert (seen, result.warnings) == ([0.5, 0.5], ("rough",))
    assert result.separation == {"leftover_db": -9.5}
    assert len([record for record in caplog.records if "does not serve" in record.getMessage()]) == 1


def test_a_missing_program_fails_as_it_would_alone(place: Place) -> None:
    with pytest.raises(CommandFailed, match="'no-such-program' cannot be started") as caught:
        place.run(template=CommandTemplate("no-such-program {output} {habit}", TEMPLATE.placeholders))
    assert caught.value.returncode == 127


def test_a_job_too_long_for_a_pipe_gets_a_process_of_its_own(place: Place) -> None:
    with pytest.raises(CommandFailed, match="status 4"):
        place.run("fail")
    facts, _ = place.run("x" * 60_000)
    assert "--serve" not in facts["serve"]


@pytest.mark.parametrize(
    ("template", "serving"),
    [
        ("py x.py --in {song} --half true", (["py", "/p/x.py", "--serve", "--half", "true"], "--in S --half true")),
        (
            "py -u x.py -v --in={song} --m {model}",
            (["py", "-u", "/p/x.py", "--serve", "-v", "--m", "M"], "-v --in=S --m M"),
        ),
        ("prog convert {song} -n 3", (["prog", "--serve", "convert", "-n", "3"], "convert S -n 3")),
        ("py {song} x.py --m {model}", None),
        ("{song}", None),
    ],
)
def test_what_all_jobs_share_is_what_a_script_starts_with(template: str, serving: Any) -> None:
    parsed = CommandTemplate(template, frozenset({"song", "model"}), Path("/p"))
    found = parsed.serving({"song": "S", "model": "M"}, frozenset({"model"}))
    assert found == (serving and (serving[0], serving[1].split()))


# --- idle, ended, killed ---


def test_an_idle_process_is_ended_by_its_guard_and_put_away(place: Place) -> None:
    place.new_pool(idle_seconds=0.3)
    place.run()
    wait_until(lambda: not place.live(), "nobody needs it")

    def put_away() -> bool:
        place.pool.tidy()  # Its process is gone a moment before its guard has been waited for.
        return os.listdir(place.scratch) == []

    wait_until(put_away, "its folder goes with it")
    assert place.run()[0]["jobs"] == 1


def test_a_process_that_died_in_its_sleep_costs_no_job(place: Place) -> None:
    pid = place.run()[0]["pid"]
    os.kill(pid, signal.SIGKILL)
    assert place.run()[0]["jobs"] == 1


def test_a_closed_pool_ends_what_is_idle_and_what_ends_later(place: Place) -> None:
    place.run()
    folder = place.folder()
    thread = threading.Thread(target=place.run, args=["wait", folder])
    thread.start()
    wait_until((folder / "out.json.ready").exists, "the job runs")
    place.pool.close()
    assert place.live()
    (folder / "out.go").touch()
    thread.join(30)
    assert place.live() == []
    assert "--serve" not in place.run()[0]["serve"]


WORKER = """
import os, sys, time
sys.path.insert(0, {project!r})
from voiceproject.commands import resident
pool = resident.Pool({root!r}, max_children=1, max_jobs=9, idle_seconds=60.0)
for habit in {habits!r}:
    job = ["--output", {output!r}, "--habit", habit]
    pool.run([], ({start!r}, job), cwd={folder!r}, env={env!r}, deadline_seconds=60)
open({ready!r}, "w").write("0\\n0\\n")
time.sleep(60)
"""


@pytest.mark.parametrize("habits", [["", "stubborn"], [""]])
def test_a_worker_killed_with_sigkill_takes_its_resident_processes_along(place: Place, habits: list[str]) -> None:
    folder = place.folder()
    ready = folder / "out.json.ready"
    source = WORKER.format(
        project=str(PROJECT),
        root=str(place.scratch),
        habits=habits,
        start=[sys.executable, str(SCRIPT), "--serve"],
        output=str(folder / "out.json"),
        folder=str(folder),
        env=child_environment(folder, dict([place.tag.split("=")])),
        ready=str(ready),
    )
    with subprocess.Popen([sys.executable, "-c", source]) as worker:
        wait_until(lambda: len(pids(folder)) == 2, "it is in the middle of a job, or idle")
        assert place.live()
        # Another process sweeps meanwhile: it keeps what is in use.
        assert sweep_scratch(place.scratch, lambda name: folder_in_use(place.scratch / name)) == 0
        worker.kill()
        assert wait_until(lambda: not place.live(), "the tree is gone") < 2.0
        worker.wait()
    assert sweep_scratch(place.scratch, lambda name: folder_in_use(place.scratch / name)) == 1


def test_a_folder_that_is_just_made_is_not_swept(place: Place) -> None:
    folder = place.scratch / "resident-new"
    folder.mkdir()
    assert folder_in_use(folder)
    os.utime(folder, (time.time() - 600, time.time() - 600))
    assert not folder_in_use(folder)
    folder.rmdir()
    assert not folder_in_use(folder)
    assert not folder_in_use(place.scratch / "cover-1")


# --- the scripts themselves ---


def serve(
    script: Path, jobs: list[Any], **options: Any
) -> tuple[list[dict[str, Any]], subprocess.CompletedProcess[str]]:
    lines = "".join((job if isinstance(job, str) else json.dumps(job)) + "\n" for job in jobs)
    ended = subprocess.run(
        [sys.executable, str(script), "--serve"], input=lines, capture_output=True, text=True, timeout=120, **options
    )
    return [json.loads(line[line.find("{") :]) for line in ended.stdout.splitlines()], ended


def test_a_script_ends_when_stdin_does_and_after_a_job_that_broke(tmp_path: Path) -> None:
    job = {"argv": ["--output", str(tmp_path / "out"), "--habit", "break"]}
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    good = {"id": "1", "argv": job["argv"][:2]}
    answers, ended = serve(SCRIPT, [good], env=env)
    assert answers == [{"ready": True}, {"id": "1", "done": True, "exit_code": 0}]
    assert ended.returncode == 0
    answers, ended = serve(SCRIPT, [{"id": "2", **job}, good], env=env)
    message = "LookupError: no such layer"
    assert answers[1:] == [{"id": "2", "done": True, "exit_code": 1, "message": message, "last": True}]
    assert "Traceback" in ended.stderr


def test_a_second_song_in_one_process_is_sample_for_sample_what_a_fresh_one_makes(tmp_path: Path) -> None:
    folder = PROJECT / "gpu_scripts"
    sf.write(tmp_path / "reference.wav", speech_like(2.0), 16_000)
    sung = [speech_like(1.0, 44_100, pitch) for pitch in (220.0, 330.0)]
    jobs: list[dict[str, Any]] = []
    for number, line in enumerate((0, 1)):
        sf.write(tmp_path / f"{line}.wav", sung[line], 44_100, subtype="FLOAT")
        files = ["--reference", f"{tmp_path}/reference.wav", "--input", f"{tmp_path}/{line}.wav"]
        argv = [*files, "--output", f"{tmp_path}/out{number}.wav", "--pitch", str(3 * line)]
        jobs.append({"id": str(number), "argv": argv})
    answers, _ = serve(folder / "builtin_infer.py", jobs)
    assert [answer["exit_code"] for answer in answers if "done" in answer] == [0, 0]
    progress = [answer["progress"] for answer in answers if answer.get("id") == "1" and "progress" in answer]
    assert progress == sorted(progress)
    assert progress[-1] == 1
    argv = [*jobs[1]["argv"][:5], f"{tmp_path}/fresh.wav", *jobs[1]["argv"][6:]]
    subprocess.run([sys.executable, str(folder / "builtin_infer.py"), *argv], check=True, capture_output=True)
    second, fresh = (sf.read(tmp_path / f"{name}.wav")[0] for name in ("out1", "fresh"))
    assert np.max(np.abs(fresh)) > 0.01
    assert np.array_equal(second, fresh)
