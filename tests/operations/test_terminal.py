"""`manage.py synthesize` and `manage.py cover`: files from a terminal, and nothing left behind."""

from __future__ import annotations

import io
import os
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command

from covers.models import CoverJob
from tests.fakes.engine import FakeEngine
from tests.support.audio import decode, wav_bytes
from tests.support.covers import INFER, RATE, SEPARATE, level_at, song
from tests.support.running.processes import processes_of
from tests.support.waiting import until
from voiceproject.operations.terminal import Bar
from voiceproject.tenants.models import UsageEntry
from voices.library import saved
from voices.speech.models import Synthesis

# The quick command wants no reference, but a template without one does not pass the system checks.
INFER_WITH_REFERENCE = f"{INFER} stubborn".replace("{python_exec}", "{python_exec} -X reference={reference_voice}")
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("fresh_covers")]


@pytest.fixture
def reference(tmp_path: Path, reference_wav: bytes) -> Path:
    (tmp_path / "voice.wav").write_bytes(reference_wav)
    return tmp_path / "voice.wav"


@pytest.fixture
def tune(tmp_path: Path) -> Path:
    (tmp_path / "song.wav").write_bytes(wav_bytes(song(), RATE))
    return tmp_path / "song.wav"


def ran(name: str, *arguments: Any) -> tuple[str, str]:
    """What the command wrote on stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    call_command(name, *map(str, arguments), stdout=out, stderr=err, no_color=True)
    return out.getvalue(), err.getvalue()


@pytest.mark.parametrize("ending", ["wav", "mp3"])
def test_a_text_becomes_a_file(
    engine: FakeEngine, reference: Path, tmp_path: Path, leftovers: Callable[[], list[str]], ending: str
) -> None:
    output = tmp_path / f"said.{ending}"
    told, stages = ran(
        "synthesize", "Ten chars.", "--reference", reference, "--speed", "2", "--seed", "7", "-o", output
    )
    samples, rate = decode(output.read_bytes())
    assert len(samples) / rate == pytest.approx(0.5, abs=0.01), "a second at speed 1"
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.1)
    assert f"{output}: 0.5 s of {ending} by builtin, seed 7" in told
    assert stages.splitlines()[-1] == "infer (100 %)"
    assert (engine.requests[0].text, engine.requests[0].seed) == ("Ten chars.", 7)
    assert leftovers() == [] and not Synthesis.objects.exists()
    entry = UsageEntry.objects.get()
    assert (entry.state, entry.audio_ms) == (UsageEntry.State.SETTLED, pytest.approx(500, abs=10))
    assert not list(tmp_path.glob(".*"))


def test_a_song_becomes_a_cover(
    reference: Path, tune: Path, tmp_path: Path, leftovers: Callable[[], list[str]]
) -> None:
    output = tmp_path / "cover.flac"
    told, stages = ran("cover", tune, "--reference", reference, "--instrumental-gain-db=-24", "-o", output)
    samples, rate = sf.read(output, always_2d=True)
    assert (rate, samples.shape, sf.info(output).format) == (RATE, (3 * RATE, 2), "FLAC")
    assert level_at(samples[:, 0], 220) > 0.05, "with the accompaniment turned down, the vocal is heard"
    assert "3.0 s of flac" in told
    assert "quick and untrue" in stages
    assert [line.split()[0] for line in stages.splitlines() if line.endswith("%)")][-1] == "finalize"
    assert leftovers() == [] and not CoverJob.objects.exists()


def test_a_saved_voice_speaks_and_sings_until_it_is_taken_down(
    save: Callable[..., Any], engine: FakeEngine, tune: Path, tmp_path: Path, leftovers: Callable[[], list[str]]
) -> None:
    voice_id = save(transcript="What she says.").json()["voice_id"]
    before = leftovers()
    ran("synthesize", "Ten chars.", "--voice", voice_id, "-o", tmp_path / "said.wav")
    assert sf.info(tmp_path / "said.wav").duration == pytest.approx(1.0)
    assert engine.requests[-1].reference.transcript == "What she says."
    ran("cover", tune, "--voice", voice_id, "-o", tmp_path / "cover.wav")
    assert sf.info(tmp_path / "cover.wav").duration == pytest.approx(3.0)
    assert leftovers() == before
    saved.take_down(uuid.UUID(voice_id))
    for command in (("synthesize", "Ten chars."), ("cover", tune)):
        with pytest.raises(CommandError, match="taken this voice down"):
            ran(*command, "--voice", voice_id, "-o", tmp_path / "again.wav")
    with pytest.raises(CommandError, match="no such voice"):
        ran("synthesize", "Ten chars.", "--voice", uuid.uuid4(), "-o", tmp_path / "again.wav")
    assert not (tmp_path / "again.wav").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("synthesize", "Hello.", "--speed", "3"), "speed"),
        (("synthesize", "...",), "nothing to speak"),
        (("synthesize", "Hello.", "--language", "ko"), "does not speak"),
        (("cover", "{song}", "--pitch=99"), "pitch_shift"),
        (("cover", "{reference}", "--pitch", "auto", "--preview-seconds", "3"), "preview_seconds"),
        (("cover", "{noise}"), "song"),
    ],
)  # fmt: skip
def test_what_the_api_refuses_is_one_line_here_and_makes_no_job(
    engine: FakeEngine, reference: Path, tune: Path, tmp_path: Path, arguments: tuple[str, ...], said: str,
    leftovers: Callable[[], list[str]],
) -> None:  # fmt: skip
    (tmp_path / "noise").write_bytes(b"no audio")
    files = {"{song}": tune, "{reference}": reference, "{noise}": tmp_path / "noise"}
    with pytest.raises(CommandError) as refused:
        ran(*[files.get(part, part) for part in arguments], "--reference", reference, "-o", tmp_path / "out.wav")
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert leftovers() == [] and not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize("output", ["out.aiff", "nowhere/out.wav", "out"])
def test_an_output_that_cannot_be_is_told_before_anything_is_worked_on(
    reference: Path, tune: Path, tmp_path: Path, output: str
) -> None:
    with pytest.raises(CommandError, match=r"--output|written"):
        ran("cover", tune, "--reference", reference, "-o", tmp_path / output)


def test_a_failure_tells_the_operator_what_the_command_said(
    reference: Path,
    tune: Path,
    tmp_path: Path,
    habits: Callable[..., None],
    leftovers: Callable[[], list[str]],
) -> None:
    habits(infer="fail")
    with pytest.raises(CommandError, match="could not be converted") as failed:
        ran("cover", tune, "--reference", reference, "-o", tmp_path / "out.wav")
    assert "x.pth is broken" in str(failed.value)
    assert leftovers() == [] and not CoverJob.objects.exists() and not (tmp_path / "out.wav").exists()


def test_ctrl_c_ends_the_command_and_leaves_nothing_of_a_first_run(reference: Path, tune: Path, tmp_path: Path) -> None:
    """On a database that nobody has set up yet, with a command that does not end by itself."""
    data, output, log = tmp_path / "data", tmp_path / "out.wav", tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "cover", str(tune), "--reference", str(reference), "-o", str(output)],
            cwd=django_settings.BASE_DIR,
            env={
                **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
                "ENV_FILE": os.devnull,
                "DATA_DIR": str(data),
                "COVER_SEPARATE_CMD_TEMPLATE": SEPARATE,
                "COVER_FIND_VOICE": "false",
                "COVER_INFER_CMD_TEMPLATE": INFER_WITH_REFERENCE,
            },
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        until(lambda: "infer" in log.read_text() or process.poll() is not None, 60)
        until(lambda: processes_of(str(data)) != [] or process.poll() is not None, 20)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all in the foreground
        assert process.wait(20) == 130, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    said = log.read_text()
    assert said.rstrip().endswith("Canceled; nothing is left of it."), said
    assert "Traceback" not in said
    assert not output.exists() and not list(tmp_path.glob(".out*"))
    assert [
        path for folder in ("media", "scratch", "uploads") for path in (data / folder).rglob("*") if path.is_file()
    ] == []
    until(lambda: processes_of(str(data)) == [], 20)
    with sqlite3.connect(data / "db.sqlite3") as database:
        assert database.execute("SELECT count(*) FROM covers_coverjob").fetchone() == (0,)
        assert database.execute("SELECT username FROM auth_user").fetchall() == [("terminal",)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_line_is_drawn_again_and_again() -> None:
    terminal = Terminal()
    bar = Bar(terminal)
    bar.show("separate", 5)
    bar.show("infer", 50)
    bar.end("finalize", 100)
    drawn = terminal.getvalue()
    assert drawn.count("\n") == 1 and drawn.endswith("\n")
    first, second, third = drawn.strip("\r\n").split("\r")
    assert first.startswith("[#.............................]   5 %") and first.rstrip().endswith("separate")
    assert second.startswith("[###############...............]  50 %")
    assert third.startswith(f"[{'#' * 30}] 100 %")
