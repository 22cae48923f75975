"""The first command of the README, as a stranger runs it: the whole product in real processes, until Ctrl-C."""

from __future__ import annotations

import http.server
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import soundfile as sf
from django.conf import settings

from tests.fakes.gptsovits import FakeGptSovits, pitch_of
from tests.support.audio import speech_like, wav_bytes
from tests.support.missing import needs
from tests.support.running.processes import processes_of
from tests.support.running.quickstart import REFERENCE, SAMPLES, Quickstart
from tests.support.waiting import promised, until
from voiceproject.management.commands import quickstart as command

BASE_DIR = Path(settings.BASE_DIR)


@pytest.fixture(scope="module")
def page_origin() -> Iterator[dict[str, Any]]:
    """A web site on another origin: serves one page, and collects what the page reports."""
    reports: list[dict[str, Any]] = []
    pages: dict[str, bytes] = {"/reference.flac": REFERENCE.read_bytes()}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = pages.get(self.path)
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html" if self.path == "/" else "audio/flac")
            self.end_headers()
            self.wfile.write(body or b"")

        def do_POST(self) -> None:
            reports.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {"origin": f"http://127.0.0.1:{server.server_port}", "pages": pages, "reports": reports}
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quickstart") / "data"


@pytest.fixture(scope="module")
def quickstart(data: Path, page_origin: dict[str, Any]) -> Iterator[Quickstart]:
    running = Quickstart(data, empty=True, CORS_ORIGINS=page_origin["origin"]).ready()
    yield running
    running.stop(signal.SIGKILL)


def paste(folder: Path, *lines: str) -> str:
    """What a shell says to these lines, one after the other."""
    done = subprocess.run(["bash"], input="\n".join(lines), cwd=folder, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_the_three_printed_lines_work_as_pasted(quickstart: Quickstart, tmp_path: Path) -> None:
    needs("curl")
    assert len(quickstart.lines) == 3
    told = paste(tmp_path, *quickstart.lines).splitlines()
    speech, rate = sf.read(tmp_path / "hello.wav")
    assert 1.0 < len(speech) / rate < 5.0
    assert np.sqrt(np.mean(speech**2)) > 0.01
    assert told[0].endswith("hello.wav") and told[-1].endswith("cover.wav")
    (job,) = requests.get(
        f"{quickstart.base}/api/v1/cover/jobs", headers={"X-API-Key": quickstart.key}, timeout=10
    ).json()["results"]
    assert (told[1], job["status"]) == (job["job_id"], "succeeded")
    info, original = sf.info(tmp_path / "cover.wav"), sf.info(SAMPLES / "song.ogg")
    assert (info.samplerate, info.channels) == (44_100, 2)
    assert info.duration == pytest.approx(original.duration, abs=0.01)
    cover, _ = sf.read(tmp_path / "cover.wav")
    assert 0.05 < np.max(np.abs(cover)) < 10 ** (-1 / 20)


def test_a_refused_upload_is_answered_and_not_cut_off(quickstart: Quickstart) -> None:
    url = f"{quickstart.base}/api/v1/voice/synthesize"
    files = {"reference_audio": ("big.wav", b"\0" * (11 * 1024 * 1024 + 1024 * 1024))}
    for headers, status in (({"X-API-Key": quickstart.key}, 413), ({}, 401), ({"X-API-Key": "vck_wrong"}, 401)):
        response = requests.post(url, data={"text": "hello"}, files=files, headers=headers, timeout=60)
        assert response.status_code == status
        assert response.json()["success"] is False


def test_the_javascript_example_runs_in_a_browser_on_another_origin(
    quickstart: Quickstart, page_origin: dict[str, Any], tmp_path: Path
) -> None:
    needs("chromium")
    page_origin["pages"]["/"] = (
        """<script type="module">
        const report = (what) => fetch('/', {method: 'POST', body: JSON.stringify(what)});
        try {
          const audioFile = new File([await (await fetch('/reference.flac')).blob()], 'reference.flac');
          const formData = new FormData();
          formData.append('text', 'Hello, this is a test');
          formData.append('reference_audio', audioFile);
          formData.append('language', 'en');
          formData.append('speed', '1.0');
          formData.append('temperature', '0.7');
          const response = await fetch('URL/api/v1/voice/synthesize', {
            method: 'POST',
            headers: {'X-API-Key': 'KEY'},
            body: formData,
          });
          const audioBlob = await response.blob();
          const decoded = await new OfflineAudioContext(1, 24000, 24000).decodeAudioData(await audioBlob.arrayBuffer());
          const refused = await fetch('URL/api/v1/voice/synthesize', {method: 'POST', headers: {'X-API-Key': 'wrong'}});
          await report({status: response.status, type: audioBlob.type, duration: decoded.duration,
                        header: response.headers.get('X-Audio-Duration'), engine: response.headers.get('X-Engine'),
                        refused: refused.status, error: (await refused.json()).error});
        } catch (error) { await report({failed: String(error)}); }
        </script>""".replace("URL", quickstart.base)
        .replace("KEY", quickstart.key)
        .encode()
    )
    browser = subprocess.Popen(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         f"--user-data-dir={tmp_path / 'profile'}", page_origin["origin"] + "/"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        (report,) = until(lambda: page_origin["reports"], 120)
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()
    assert "failed" not in report, report
    assert (report["status"], report["type"], report["engine"]) == (200, "audio/wav", "builtin")
    assert report["duration"] == pytest.approx(float(report["header"]), abs=0.01)
    assert (report["refused"], report["error"]) == (401, "invalid_api_key")


def test_the_console_takes_the_printed_login(quickstart: Quickstart) -> None:
    password = re.findall(r"admin / (\S+)", quickstart.output)[0]
    session = requests.Session()
    login = f"{quickstart.base}/admin/login/"
    session.get(login, timeout=10)
    form = {
        "username": "admin",
        "password": password,
        "csrfmiddlewaretoken": session.cookies["csrftoken"],
        "next": "/admin/",
    }
    page = session.post(login, data=form, headers={"Referer": login}, timeout=10)
    assert page.ok
    assert "Log out" in page.text
    sheets = re.findall(r'href="(/static/[^"]+\.css)"', page.text)
    assert sheets
    assert all(session.get(quickstart.base + sheet, timeout=10).ok for sheet in sheets)


def test_a_port_that_is_taken_is_told(quickstart: Quickstart, data: Path) -> None:
    taken = subprocess.run(
        [sys.executable, "manage.py", "quickstart", "--port", str(quickstart.port)],
        cwd=BASE_DIR, env={**os.environ, "DATA_DIR": str(data)}, capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert taken.returncode == 1
    assert re.fullmatch(r"CommandError: Cannot listen on .*--port.*\n", taken.stderr)


def test_what_the_lines_say_when_something_is_wrong(quickstart: Quickstart, tmp_path: Path) -> None:
    """A key that was revoked, say: the second line shows the answer, and the third ends."""
    needs("curl")
    wrong = [line.replace(quickstart.key, "vck_wrong") for line in quickstart.lines[1:]]
    done = subprocess.run(["bash"], input="\n".join(wrong), cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert '"error":"invalid_api_key"' in done.stdout and "401" in done.stderr
    assert done.returncode != 0


# --- Ctrl-C ---


class Speaking(threading.Thread):
    """A long synthesis that is still being answered when everything stops, as a stream or whole."""

    def __init__(self, quickstart: Quickstart, key: str, stream: bool) -> None:
        super().__init__(daemon=True)
        self.quickstart, self.key, self.stream = quickstart, key, stream
        self.begun = threading.Event()
        self.start()

    def run(self) -> None:
        form = {"text": "This takes a while, and nobody will wait for it. " * 100, "stream": str(self.stream).lower()}
        try:
            with requests.post(
                f"{self.quickstart.base}/api/v1/voice/synthesize", data=form, timeout=60, stream=True,
                files={"reference_audio": REFERENCE.read_bytes()}, headers={"X-API-Key": self.key},
            ) as response:  # fmt: skip
                for _ in response.iter_content(4096):
                    self.begun.set()
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
            return  # As it must be.


def be_busy(quickstart: Quickstart, key: str) -> tuple[str, list[Speaking]]:
    """A cover and two syntheses, one of them streamed, all running; the id of the cover."""
    headers = {"X-API-Key": key}
    jobs = f"{quickstart.base}/api/v1/cover/jobs"
    with (SAMPLES / "song.ogg").open("rb") as song, REFERENCE.open("rb") as reference:
        files = {"song": song, "reference_voice": reference}
        job = requests.post(jobs, files=files, headers=headers, timeout=30).json()["job_id"]
    speaking = [Speaking(quickstart, key, stream) for stream in (True, False)]
    until(lambda: processes_of(job), 60)  # The command of its first stage.
    assert speaking[0].begun.wait(60)
    url = f"{quickstart.base}/api/v1/voice/syntheses?status=running"
    until(lambda: len(requests.get(url, headers=headers, timeout=10).json()["results"]) == 2, 60)
    return job, speaking


LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")


@LINUX
def test_ctrl_c_ends_everything_and_a_later_run_goes_on_until_it_is_killed(
    quickstart: Quickstart, data: Path, tmp_path: Path
) -> None:
    job, speaking = be_busy(quickstart, quickstart.key)
    assert len(quickstart.tree()) >= 6
    assert quickstart.stop(group=True) < promised(5)
    assert (quickstart.process.returncode, "\nStopped." in quickstart.output) == (0, True)
    assert not quickstart.tree() and not processes_of(job)
    for thread in speaking:
        thread.join(10)
        assert not thread.is_alive()

    later = Quickstart(data).ready()
    try:
        # No run keeps a secret, and without one the printed lines do not work.
        assert later.key != quickstart.key and "keys of earlier runs still work" in later.output
        assert "admin, with its password" in later.output
        paste(tmp_path, later.lines[0])
        assert (tmp_path / "hello.wav").stat().st_size > 10_000
        url = f"{later.base}/api/v1/cover/jobs/{job}"
        until(lambda: processes_of(job), 60)
        for key in (quickstart.key, later.key):
            assert requests.get(url, headers={"X-API-Key": key}, timeout=10).json()["status"] == "running"
        # Whatever becomes of it, it leaves nothing behind: not the worker, not the command of its job.
        assert len(later.tree()) >= 5
        later.process.kill()
        later.process.wait()
        until(lambda: not later.tree() and not processes_of(job), 15)
    finally:
        later.stop(signal.SIGKILL)


@LINUX
@pytest.mark.parametrize(("group", "busy"), [(True, False), (False, False), (False, True)])
def test_ctrl_c_leaves_no_process_whoever_it_reaches(data: Path, group: bool, busy: bool) -> None:
    running = Quickstart(data).ready()
    try:
        if busy:
            be_busy(running, running.key)
        else:
            time.sleep(1.5)  # The worker has looked, and waits.
        assert running.stop(group=group) < promised(5)
        assert running.process.returncode == 0 and "Traceback" not in running.output
        assert not running.tree()
    finally:
        running.stop(signal.SIGKILL)


@LINUX
@pytest.mark.parametrize("after", ["Starting.", ""])
def test_ctrl_c_while_it_starts(tmp_path: Path, after: str) -> None:
    running = Quickstart(tmp_path / "data", empty=True)
    try:
        if after:
            until(lambda: after in running.output, 60)
        else:
            time.sleep(0.4)  # It loads Django.
        assert running.stop(group=True) < promised(5)
        assert "Traceback" not in running.output and "Ctrl-C ends everything" not in running.output
        until(lambda: not running.tree(), 10)
    finally:
        running.stop(signal.SIGKILL)


# --- what can go wrong at the start ---


def test_a_server_that_dies_before_it_answers_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    running = Quickstart(tmp_path / "data", GUNICORN_CMD_ARGS="--no-such-option")
    try:
        assert running.process.wait(60) == 1
        assert "The web server ended with exit status 2. The end of its log:" in running.output
        assert "unrecognized arguments: --no-such-option" in running.output
        # No address and no key of a server that is not there.
        assert "http://" not in running.output and "vck_" not in running.output
        until(lambda: not running.tree(), 10)
    finally:
        running.stop(signal.SIGKILL)


@pytest.mark.parametrize(
    ("host", "allowed", "named", "answered"),
    [
        ("127.0.0.1", ["localhost"], False, {"localhost", "127.0.0.1"}),
        ("127.0.0.1", ["voice.example.com"], True, {"voice.example.com", "127.0.0.1"}),
        ("::1", ["localhost"], False, {"localhost", "[::1]"}),
        ("0.0.0.0", ["localhost"], False, {"localhost", "*"}),
        ("0.0.0.0", ["voice.example.com"], True, {"voice.example.com", "127.0.0.1"}),
    ],
)
def test_the_address_in_the_printed_lines_is_answered(
    settings: Any, monkeypatch: pytest.MonkeyPatch, host: str, allowed: list[str], named: bool, answered: set[str]
) -> None:
    settings.ALLOWED_HOSTS = allowed
    monkeypatch.setitem(command.env.values, "ALLOWED_HOSTS", ",".join(allowed) if named else "")
    assert set(command.environment(host)["ALLOWED_HOSTS"].split(",")) == answered


def test_an_engine_that_is_away_is_told_and_a_server_that_is_well_is_not() -> None:
    checks = {"database": "ok", "broker": "unreachable", "storage": "ok", "workers": "1 alive"}
    engine = {"name": "gptsovits", "available": False, "detail": "cannot be reached"}
    health = {"status": "degraded", "engine": engine, "checks": checks}
    assert command.what_is_wrong(health) == ["engine gptsovits: cannot be reached", "broker: unreachable"]
    assert command.what_is_wrong({**health, "status": "healthy"}) == []


def test_relative_places_are_the_same_for_all_its_processes_and_an_odd_setting_is_told_once(tmp_path: Path) -> None:
    key = f"relative-{'k' * 10}-key"
    (tmp_path / "env").write_text(f"API_KEY={key}\nCOVER_CONCURENCY=2\nAWS_ACCESS_KEY_ID=x\n")
    running = Quickstart(
        tmp_path / "data", cwd=tmp_path, DATA_DIR="kept", ENV_FILE="env", DATABASE_URL="sqlite:///kept/other.sqlite3"
    ).ready()
    try:
        for one in (key, running.key):
            response = requests.get(f"{running.base}/api/v1/me", headers={"X-API-Key": one}, timeout=20)
            assert response.status_code == 200
        assert (tmp_path / "kept" / "other.sqlite3").stat().st_size > 0
        assert not (tmp_path / "kept" / "db.sqlite3").exists() and not (BASE_DIR / "kept").exists()
        told = [line for line in running.output.splitlines() if "is not a setting" in line]
        assert len(told) == 1 and told[0].endswith("is not a setting; did you mean COVER_CONCURRENCY?")
    finally:
        running.stop()
    assert running.output.count("is not a setting") == 1


def test_an_env_file_with_a_key_and_the_url_of_gpt_sovits_just_works(tmp_path: Path) -> None:
    key = "only-tenant-" + "k" * 20
    with FakeGptSovits() as fake:
        environment = tmp_path / "env"
        environment.write_text(f"API_KEY={key}\nSOVITS_BASE_URL={fake.url}\n")
        alone = Quickstart(tmp_path / "data", "--no-worker", "--host", "0.0.0.0", ENV_FILE=str(environment)).ready()
        try:
            assert "engine: gptsovits" in alone.output
            assert "nothing encrypts" in alone.output
            assert not any(b"dramatiq" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in alone.tree())
            response = requests.post(
                f"http://127.0.0.2:{alone.port}/api/v1/voice/synthesize",
                data={"text": "Hello there."},
                files={"reference_audio": wav_bytes(speech_like(4.0, pitch=200.0), 16_000)},
                headers={"X-API-Key": key},
                timeout=60,
            )
            assert (response.status_code, response.headers["X-Engine"]) == (200, "gptsovits"), response.text
            samples, rate = sf.read(io.BytesIO(response.content))
            assert pitch_of(samples, rate) == pytest.approx(200, rel=0.02)
        finally:
            alone.stop(signal.SIGKILL)
        until(lambda: not alone.tree(), 15)
