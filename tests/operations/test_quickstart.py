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
from tests.support.waiting import until

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
    running = Quickstart(data, CORS_ORIGINS=page_origin["origin"]).ready()
    yield running
    running.stop(signal.SIGKILL)


def test_the_three_printed_lines_work_as_pasted(quickstart: Quickstart, tmp_path: Path) -> None:
    needs("curl")
    lines = re.findall(r"^curl .*$", quickstart.output, re.MULTILINE)
    assert len(lines) == 3

    def paste(line: str) -> str:
        return subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=120
        ).stdout

    paste(lines[0])
    speech, rate = sf.read(tmp_path / "hello.wav")
    assert 1.0 < len(speech) / rate < 5.0
    assert np.sqrt(np.mean(speech**2)) > 0.01
    job = json.loads(paste(lines[1]))
    assert job["status"] == "queued"
    assert [item["job_id"] for item in json.loads(paste(lines[2]))["results"]] == [job["job_id"]]

    def finished() -> dict[str, Any] | None:
        state = requests.get(job["links"]["self"], headers={"X-API-Key": quickstart.key}, timeout=10).json()
        return state if state["status"] in ("succeeded", "failed") else None

    done = until(finished, 180)
    assert done["status"] == "succeeded", done
    content = requests.get(done["links"]["result"], headers={"X-API-Key": quickstart.key}, timeout=60).content
    (tmp_path / "cover.wav").write_bytes(content)
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


def speak_at_length(quickstart: Quickstart) -> None:
    """A request that is still being answered when everything stops."""
    files = {"reference_audio": REFERENCE.read_bytes()}
    form = {"text": "This takes a while, and nobody will wait for it. " * 100}
    try:
        requests.post(
            f"{quickstart.base}/api/v1/voice/synthesize",
            data=form,
            files=files,
            headers={"X-API-Key": quickstart.key},
            timeout=60,
        )
    except requests.ConnectionError:
        pass  # As it must be.


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_ctrl_c_ends_everything_and_a_later_run_goes_on_until_it_is_killed(quickstart: Quickstart, data: Path) -> None:
    key = {"X-API-Key": quickstart.key}
    jobs = f"{quickstart.base}/api/v1/cover/jobs"
    with (SAMPLES / "song.ogg").open("rb") as song, REFERENCE.open("rb") as reference:
        files = {"song": song, "reference_voice": reference}
        job = requests.post(jobs, files=files, headers=key, timeout=30).json()["job_id"]
    speaking = threading.Thread(target=speak_at_length, args=(quickstart,), daemon=True)
    speaking.start()
    for running in (jobs, f"{quickstart.base}/api/v1/voice/syntheses"):
        until(lambda url=running: requests.get(f"{url}?status=running", headers=key, timeout=10).json()["results"], 20)
    # The promise is five seconds, on a machine that is not busy with other things.
    busy = os.getloadavg()[0] > 2 * (os.cpu_count() or 1)
    narrow = {"name": "narrow", "scopes": ["usage"]}
    assert requests.post(f"{quickstart.base}/api/v1/keys", json=narrow, headers=key, timeout=10).status_code == 201
    assert quickstart.stop() < (15 if busy else 5)
    speaking.join(10)
    assert quickstart.process.returncode == 0
    assert "Stopped." in quickstart.output
    until(lambda: not quickstart.tree(), 2)

    later = Quickstart(data).ready()
    try:
        assert re.findall(r"vck_[\w-]{40,}", later.output) == []
        assert f"{quickstart.key[:11]}…" in later.output  # Not the newer key, with which the printed lines fail.
        assert "create_api_key demo" in later.output
        url = f"{later.base}/api/v1/cover/jobs/{job}"
        until(lambda: processes_of(job), 60)
        assert requests.get(url, headers=key, timeout=10).json()["status"] == "running"
        # Whatever becomes of it, it leaves nothing behind: not the worker, not the command of its job.
        assert len(later.tree()) >= 5
        later.process.kill()
        later.process.wait()
        until(lambda: not later.tree() and not processes_of(job), 15)
    finally:
        later.stop(signal.SIGKILL)


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
