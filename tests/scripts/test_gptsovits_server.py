"""gpu_scripts/gptsovits_server.py as it is run: a process in a project root, HTTP over loopback."""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import soundfile as sf

from tests.scripts import fake_gptsovits_root as fake
from tests.scripts.script_server import SCRIPTS
from tests.support.recordings import speech
from voiceproject.errors import EngineUnavailable
from voiceproject.leases.lease import Leases
from voices.engines.gptsovits.engine import GptSovitsEngine
from voices.engines.interface import Model, Reference, SynthesisRequest

SCRIPT = SCRIPTS / "gptsovits_server.py"
TOKEN = "a-token-of-this-test-alone"
TEXT = "Seventeen herons stood in the marsh."


class Running:
    """A server process on a port of its own."""

    def __init__(self, root: Path, folder: Path, *arguments: str, token: str | None = TOKEN) -> None:
        self.root = root
        self.log_path = folder / "log"
        environment = {**os.environ, "TMPDIR": str(folder)}
        environment.pop("VOICEPROJECT_TOKEN", None)
        if token is not None:
            environment["VOICEPROJECT_TOKEN"] = token
        argv = [sys.executable, str(SCRIPT), "--project-root", str(root), "--port", "0", *arguments]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, env=environment, cwd=folder)
        assert self.process.stdout
        listening = re.fullmatch(r"LISTENING (http://127.0.0.1:\d+)\n", self.process.stdout.readline().decode())
        self.url = listening[1] if listening else ""
        self.headers = {"Authorization": f"Bearer {token}"}

    def health(self, **keywords: Any) -> dict[str, Any]:
        answer = requests.get(f"{self.url}/health", **{"headers": self.headers, "timeout": 10, **keywords})
        assert answer.status_code == 200
        return answer.json()

    def until(self, what: Any) -> dict[str, Any]:
        """Waits until the health report is such."""
        deadline = time.monotonic() + 90
        while not what(found := self.health()):
            assert time.monotonic() < deadline, found
            time.sleep(0.01)
        return found

    def speak(self, reference: bytes, headers: dict[str, str] | None = None, **fields: Any) -> requests.Response:
        fields = {"text": TEXT, "language": "en", "reference_text": "", "reference_language": "en", **fields}
        return requests.post(
            f"{self.url}/synthesize",
            data={name: value for name, value in fields.items() if value is not None},
            files={"reference_audio": ("r.wav", reference)},
            headers={**self.headers, **(headers or {})},
            timeout=60,
        )

    def log(self) -> str:
        return self.log_path.read_text("utf-8")

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        code = self.process.wait(30)
        assert self.process.stdout
        self.process.stdout.close()
        return code


def reference_of(peak: float = 0.25, seconds: float = 4, rate: int = 24000, channels: int = 1, **form: str) -> bytes:
    at = np.arange(round(seconds * rate))
    sound = np.repeat((peak * np.sin(at * 0.05))[:, None], channels, axis=1)
    out = io.BytesIO()
    sf.write(out, sound, rate, **{"format": "WAV", "subtype": "PCM_16", **form})
    return out.getvalue()


def samples_of(answer: requests.Response) -> tuple[np.ndarray, int]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "audio/wav"
    with sf.SoundFile(io.BytesIO(answer.content)) as audio:
        assert (audio.channels, audio.subtype) == (1, "PCM_16")
        return audio.read(dtype="float32"), audio.samplerate


def refused(answer: requests.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["error"] == code and set(body) == {"error", "message"}
    return body["message"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = fake.build(tmp_path_factory.mktemp("engine") / "root")
    fake.add_trained(root, "anna", pitch=0.7)
    return root


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("server")
    running = Running(root, folder, "--max-waiting", "2", "--max-upload-bytes", "3000000")
    running.until(lambda report: report["status"] == "ready")
    yield running
    assert running.stop() == 0
    assert not list(folder.glob("gptsovits*"))  # the uploads are gone


def behave(root: Path, **how: Any) -> None:
    """How the engine behaves from now on. It speaks with a voice, which takes it long, only where `tone` is False."""
    fake.set_mood(root, **{"tone": True, **how})


@pytest.fixture(autouse=True)
def all_is_well(root: Path) -> Iterator[None]:
    behave(root)
    fake.clear_calls(root)
    yield
    behave(root)


@pytest.fixture
def spoken(root: Path, all_is_well: None) -> None:
    """With a voice that can be heard."""
    behave(root, tone=False)


@pytest.fixture
def own(root: Path, tmp_path: Path) -> Iterator[Any]:
    """Makes servers of this test's own."""
    made: list[Running] = []

    def make(*arguments: str, **keywords: Any) -> Running:
        made.append(Running(root, tmp_path, *arguments, **keywords))
        return made[-1]

    yield make
    behave(root)
    for running in made:
        running.stop()


@pytest.fixture(scope="module")
def shared(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Servers for tests that want the same arguments and leave them as they were; ready to speak."""
    made: dict[tuple[str, ...], Running] = {}

    def make(*arguments: str) -> Running:
        if arguments not in made:
            made[arguments] = Running(root, tmp_path_factory.mktemp("shared"), *arguments)
        made[arguments].until(lambda report: report["status"] == "ready")
        return made[arguments]

    yield make
    for running in made.values():
        running.stop()


def in_background(call: Any, *arguments: Any, **keywords: Any) -> Future[requests.Response]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(call, *arguments, **keywords)
    pool.shutdown(wait=False)
    return future


@pytest.mark.usefixtures("spoken")
def test_it_speaks_with_the_uploaded_reference_and_tells_the_seed(server):
    answer = server.speak(reference_of(0.25), headers={"X-Request-ID": "abc-1"})
    samples, rate = samples_of(answer)
    assert rate == 32000 and 1.5 < len(samples) / rate < 5
    assert np.abs(samples).max() == pytest.approx(0.25, rel=0.02)
    assert 170 < speech.pitch(samples, rate) < 260
    assert answer.headers["X-Request-ID"] == "abc-1"
    again = server.speak(reference_of(0.25), seed=answer.headers["X-Seed"])
    np.testing.assert_array_equal(samples_of(again)[0], samples)
    assert "request abc-1: 200" in server.log()


def test_what_is_asked_for_reaches_the_engine(server):
    asked = {"speed": "1.5", "temperature": "0.4", "seed": "7", "reference_text": "A sentence.", "language": "EN"}
    samples_of(server.speak(reference_of(), **asked))
    (run,) = fake.calls(server.root, "run")
    assert (run["speed_factor"], run["temperature"], run["seed"]) == (1.5, 0.4, 7)
    assert (run["text_lang"], run["prompt_text"], run["prompt_lang"]) == ("en", "A sentence.", "en")
    assert run["text_split_method"] == "cut0"


def test_references_are_told_apart_by_their_content(server):
    loud, quiet = reference_of(0.8), reference_of(0.1)
    peaks = [np.abs(samples_of(server.speak(upload))[0]).max() for upload in (loud, quiet, loud)]
    assert peaks == [pytest.approx(peak, rel=0.02) for peak in (0.8, 0.1, 0.8)]


@pytest.mark.parametrize(
    "form", [{"format": "FLAC"}, {"format": "OGG", "subtype": "VORBIS"}, {"subtype": "FLOAT"}, {"format": "MP3"}]
)
def test_references_of_many_formats_are_taken(server, form):
    form = {"subtype": "MPEG_LAYER_III", **form} if form.get("format") == "MP3" else {"subtype": "PCM_16", **form}
    upload = reference_of(0.5, rate=44100, channels=2, **form)
    samples, _ = samples_of(server.speak(upload))
    assert np.abs(samples).max() == pytest.approx(0.5, rel=0.1)
    (call,) = fake.calls(server.root, "reference")
    assert re.fullmatch(r"[0-9a-f]{64}\.wav", Path(call["path"]).name)


@pytest.mark.usefixtures("spoken")
def test_weights_are_switched_for_each_request(server):
    usual = speech.pitch(*samples_of(server.speak(reference_of(), seed=3)))
    deep = speech.pitch(*samples_of(server.speak(reference_of(), seed=3, model_id="anna")))
    assert server.health()["loaded_model"] == "anna"
    gpt, sovits = "GPT_weights_v2/anna-e8.ckpt", "SoVITS_weights_v2/anna_e8_s96.pth"
    same = speech.pitch(
        *samples_of(server.speak(reference_of(), seed=3, model_id="nobody", gpt_weights=gpt, sovits_weights=sovits))
    )
    assert server.health()["loaded_model"] == f"{gpt}+{sovits}"
    assert server.health()["loaded_weights"] == {"gpt": gpt, "sovits": sovits}
    assert f"model={gpt}+{sovits} " in server.log()
    back = speech.pitch(*samples_of(server.speak(reference_of(), seed=3)))
    assert deep < 0.85 * usual and same == deep and back == usual


def test_health_names_models_to_whoever_has_the_token(server):
    report = server.health()
    assert report == {
        "status": "ready",
        "engine": "gptsovits",
        "version": "v2",
        "queue_length": 0,
        "models": ["default", "anna"],
        "loaded_model": report["loaded_model"],
        "loaded_weights": report["loaded_weights"],
        "started_at": report["started_at"],
        "uptime_seconds": report["uptime_seconds"],
    }
    since = datetime.now(timezone.utc) - datetime.fromisoformat(report["started_at"])  # noqa: UP017
    assert since.total_seconds() == pytest.approx(report["uptime_seconds"], abs=5)
    stranger = server.health(headers={})
    assert (stranger["status"], stranger["models"], stranger["loaded_model"]) == ("ready", [], None)
    assert stranger["loaded_weights"] is None


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"text": ""}, 400, "bad_request"),
        ({"text": None}, 400, "bad_request"),
        ({"text": "x" * 5001}, 400, "bad_request"),
        ({"text": "…?!"}, 422, "unspeakable"),
        ({"language": "de"}, 400, "bad_request"),
        ({"language": "../en"}, 400, "bad_request"),
        ({"speed": "0"}, 400, "bad_request"),
        ({"speed": "nan"}, 400, "bad_request"),
        ({"temperature": "0"}, 400, "bad_request"),
        ({"temperature": "hot"}, 400, "bad_request"),
        ({"seed": "1.5"}, 400, "bad_request"),
        ({"seed": "4294967296"}, 400, "bad_request"),
        ({"model_id": "nobody"}, 404, "unknown_model"),
        ({"model_id": "../anna"}, 404, "unknown_model"),
        ({"gpt_weights": "GPT_weights_v2/anna-e8.ckpt"}, 400, "bad_request"),
        ({"gpt_weights": "../a.ckpt", "sovits_weights": "a.pth"}, 400, "bad_request"),
        ({"gpt_weights": "/etc/a.ckpt", "sovits_weights": "/etc/a.pth"}, 400, "bad_request"),
        ({"gpt_weights": "weight.json", "sovits_weights": "weight.json"}, 400, "bad_request"),
        ({"gpt_weights": "no.ckpt", "sovits_weights": "no.pth"}, 404, "unknown_model"),
    ],
)
def test_wrong_requests_are_refused_before_the_engine_works(server, fields, status, code):
    refused(server.speak(reference_of(), **fields), status, code)
    assert not fake.calls(server.root, "run")


@pytest.mark.parametrize(
    "upload",
    [
        b"",
        b"RIFF" + b"\0" * 200,
        reference_of(seconds=2.9),
        reference_of(seconds=10.1),
        reference_of(peak=0),
        reference_of(rate=4000),
        reference_of()[: 24000 * 4],  # cut short: two of the four seconds
    ],
)
def test_references_that_cannot_be_used_are_refused(server, upload):
    message = refused(server.speak(upload), 400, "bad_request")
    assert "reference_audio" in message
    assert not fake.calls(server.root, "run")


def test_a_body_that_is_no_form_or_has_no_file_is_refused(server):
    url = f"{server.url}/synthesize"
    refused(requests.post(url, json={"text": TEXT}, headers=server.headers, timeout=10), 400, "bad_request")
    only_text = {"text": (None, TEXT)}
    refused(requests.post(url, files=only_text, headers=server.headers, timeout=10), 400, "bad_request")
    as_field = {**only_text, "reference_audio": (None, "x")}
    refused(requests.post(url, files=as_field, headers=server.headers, timeout=10), 400, "bad_request")
    broken = {**server.headers, "Content-Type": "multipart/form-data; boundary=x"}
    refused(requests.post(url, data=b"--y\r\nnonsense", headers=broken, timeout=10), 400, "bad_request")
    endless = requests.post(url, data=iter([b"x"]), headers=server.headers, timeout=10)
    assert "Content-Length" in refused(endless, 400, "bad_request")


def test_other_paths_and_methods_answer_in_json(server):
    refused(requests.get(f"{server.url}/nothing", timeout=10), 404, "not_found")
    refused(requests.get(f"{server.url}/synthesize", timeout=10), 405, "method_not_allowed")
    assert requests.get(f"{server.url}/openapi.json", timeout=10).status_code == 404


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer ü"])
def test_a_wrong_token_is_refused_with_an_answer_though_the_upload_is_large(server, header):
    answer = server.speak(reference_of(seconds=10, rate=48000), headers={"Authorization": header.encode()})
    refused(answer, 401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert not fake.calls(server.root)


def test_a_large_upload_is_refused_with_an_answer(server):
    refused(server.speak(b"\0" * 3_100_000), 413, "too_large")


@pytest.mark.parametrize(
    ("mood", "status", "code"),
    [("oom", 507, "out_of_memory"), ("raise", 500, "synthesis_failed"), ("silence", 500, "synthesis_failed")],
)
def test_failures_of_the_engine_are_told_apart_and_survived(server, mood, status, code):
    behave(server.root, run=mood)
    message = refused(server.speak(reference_of()), status, code)
    assert "herons" not in message and "/" not in message
    behave(server.root)
    samples_of(server.speak(reference_of()))


def test_one_works_few_wait_in_turn_and_the_rest_is_told_to_come_back(server):
    behave(server.root, run="hang")
    running = in_background(server.speak, reference_of(), seed=1)
    report = server.until(lambda report: report["status"] == "busy")
    assert report["queue_length"] == 0
    waiting = []
    for number in (2, 3):
        waiting.append(in_background(server.speak, reference_of(), seed=number))
        server.until(lambda report, number=number: report["queue_length"] == number - 1)
    answer = server.speak(reference_of(), seed=4)
    refused(answer, 503, "busy")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    behave(server.root)
    for future in (running, *waiting):
        samples_of(future.result(60))
    assert [run["seed"] for run in fake.calls(server.root, "run")] == [1, 2, 3]
    assert server.health()["status"] == "ready"


def test_who_goes_away_while_waiting_leaves_the_queue(server):
    behave(server.root, run="hang")
    running = in_background(server.speak, reference_of(), seed=1)
    server.until(lambda report: report["status"] == "busy")
    prepared = requests.Request(
        "POST",
        f"{server.url}/synthesize",
        data={"text": TEXT, "language": "en", "seed": "2"},
        files={"reference_audio": reference_of()},
        headers=server.headers,
    ).prepare()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        head = "".join(f"{name}: {value}\r\n" for name, value in prepared.headers.items())
        client.sendall(f"POST /synthesize HTTP/1.1\r\nHost: {host}\r\n{head}\r\n".encode() + prepared.body)
        server.until(lambda report: report["queue_length"] == 1)
    server.until(lambda report: report["queue_length"] == 0)
    behave(server.root)
    samples_of(running.result(60))
    samples_of(server.speak(reference_of(), seed=3))
    assert [run["seed"] for run in fake.calls(server.root, "run")] == [1, 3]


def test_neither_texts_nor_the_token_are_logged(server):
    behave(server.root, run="raise")
    server.speak(reference_of(), reference_text="Nineteen curlews called.", headers={"X-Request-ID": "bad\tid"})
    found = server.log()
    assert "no phonemes" not in found and "RuntimeError" in found
    for secret in ("herons", "Seventeen", "curlews", TOKEN, "bad\tid"):
        assert secret not in found


# --- servers of their own ---------------------------------------------------------------------------------------


def test_when_it_is_stopped_the_running_one_is_finished_and_the_others_are_refused(own, root):
    server = own("--grace-seconds", "30")
    server.until(lambda report: report["status"] == "ready")
    behave(root, run="hang")
    running = in_background(server.speak, reference_of())
    server.until(lambda report: report["status"] == "busy")
    waiting = in_background(server.speak, reference_of())
    server.until(lambda report: report["queue_length"] == 1)
    server.process.send_signal(signal.SIGTERM)
    refused(waiting.result(30), 503, "stopping")
    assert server.health()["status"] == "stopping"
    refused(server.speak(reference_of()), 503, "stopping")
    behave(root)
    samples_of(running.result(30))
    assert server.process.wait(30) == 0
    assert not list(server.log_path.parent.glob("gptsovits*"))


def test_a_synthesis_that_hangs_is_given_up_after_the_grace(own, root):
    server = own("--grace-seconds", "0.2")
    behave(root, run="hang")
    running = in_background(server.speak, reference_of())
    server.until(lambda report: report["loaded_model"] == "default")
    server.until(lambda report: report["status"] == "busy" and fake.calls(root, "run"))
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    refused(running.result(30), 503, "stopping")


def test_it_answers_while_it_loads_and_speaks_when_it_has(own, root):
    behave(root, load_seconds=0.5)
    server = own()
    assert server.health()["status"] == "busy"
    samples_of(server.speak(reference_of()))


def test_a_lost_cuda_context_ends_the_process_for_a_new_one(own, root):
    server = own()
    server.until(lambda report: report["status"] == "ready")
    behave(root, run="cuda_error")
    refused(server.speak(reference_of()), 500, "synthesis_failed")
    assert server.process.wait(30) == 11


def test_without_cuda_it_ends_with_a_reason(own, root):
    behave(root, cuda=False)
    server = own()
    assert server.process.wait(30) == 8
    assert "CUDA" in server.log()


def test_an_unused_reference_is_swept(own, root, tmp_path):
    behave(root)
    server = own("--keep-minutes", "0.001")
    paths = []
    for peak in (0.2, 0.4):
        samples_of(server.speak(reference_of(peak)))
        time.sleep(0.1)
        paths = [path.name for path in tmp_path.glob("gptsovits-server-*/*.wav")]
    assert len(paths) == 1
    mode = next(tmp_path.glob("gptsovits-server-*")).stat().st_mode
    assert mode & 0o077 == 0


def test_without_a_token_only_this_machine_is_served(own, root, tmp_path):
    argv = [sys.executable, str(SCRIPT), "--project-root", str(root), "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if name != "VOICEPROJECT_TOKEN"}
    for more in (["--host", "0.0.0.0"], ["--token-file", str(tmp_path / "none")]):
        ended = subprocess.run([*argv, *more], env=environment, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 2 and len(ended.stderr.splitlines()) == 1, ended.stderr
    (tmp_path / "token").write_text("another-token-from-a-file\n")
    with_file = own("--token-file", str(tmp_path / "token"), token=None)
    refused(with_file.speak(reference_of()), 401, "unauthorized")
    with_file.headers = {"Authorization": "Bearer another-token-from-a-file"}
    refused(with_file.speak(reference_of(), text=""), 400, "bad_request")


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("spoken")
def test_the_product_s_own_client_speaks_through_it(server: Running, tmp_path: Path) -> None:
    at = np.arange(4 * 24_000)
    reference = Reference((0.25 * np.sin(at * 0.05)).astype(np.float32), 24_000, "hash", None, "en")
    engine = GptSovitsEngine(
        [server.url], 60, tmp_path, str(tmp_path), 10, 4, Leases, protocol="voiceproject", token=TOKEN
    )  # fmt: skip
    assert engine.health().available
    asked = SynthesisRequest(f"{TEXT} {TEXT}", "en", reference, seed=7)
    pieces = list(engine.synthesize(asked, time.monotonic() + 120, lambda: False))
    assert len(pieces) == 2
    for piece in pieces:
        assert np.sqrt(np.mean(piece.samples**2)) > 0.01
        assert 1.0 < len(piece.samples) / piece.sample_rate < 6.0
    anna = Model("anna", gpt_weights="", sovits_weights="")
    other = list(engine.synthesize(replace(asked, model_id="anna", model=anna), time.monotonic() + 120, lambda: False))
    assert speech.pitch(other[0].samples, other[0].sample_rate) < 0.85 * speech.pitch(
        pieces[0].samples, pieces[0].sample_rate
    )
    wrong = GptSovitsEngine(
        [server.url], 60, tmp_path, str(tmp_path), 10, 4, Leases, protocol="voiceproject", token="x" * 24
    )
    with pytest.raises(EngineUnavailable):
        list(wrong.synthesize(asked, time.monotonic() + 60, lambda: False))


class Stalled:
    """Connections that have sent a part of a request."""

    def __init__(self, server: Running, count: int, sent: bytes) -> None:
        host, port = server.url.removeprefix("http://").split(":")
        self.sockets = [socket.create_connection((host, int(port)), timeout=20) for _ in range(count)]
        for connection in self.sockets:
            connection.sendall(sent)

    def __enter__(self) -> Stalled:
        return self

    def __exit__(self, *error: object) -> None:
        for connection in self.sockets:
            connection.close()

    def ends(self, drip: bytes = b"") -> list[bytes]:
        """What each got until the server ended it; meanwhile a byte of `drip` is sent now and then."""
        got = dict.fromkeys(self.sockets, b"")
        open_ones = set(self.sockets)
        deadline = time.monotonic() + 20
        while open_ones:
            assert time.monotonic() < deadline, f"{len(open_ones)} are still open"
            readable, _, _ = select.select(list(open_ones), [], [], 0.2)
            for connection in readable:
                try:
                    block = connection.recv(65536)
                except ConnectionResetError:
                    block = b""
                got[connection] += block
                if not block:
                    open_ones.discard(connection)
            for connection in open_ones if drip else ():
                with contextlib.suppress(OSError):
                    connection.send(drip)
        return list(got.values())


def sockets(server: Running) -> int:
    """How many the server has open."""
    found = 0
    for descriptor in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(descriptor).startswith("socket:")
    return found


HALF_A_HEAD = b"GET /health HTTP/1.1\r\nHost: box\r\nX-Half: "
HALF_A_BODY = b"POST /synthesize HTTP/1.1\r\nHost: box\r\nContent-Length: 100000\r\n"


@pytest.mark.parametrize("drip", [b"", b"x"])
@pytest.mark.parametrize("sent", [b"", b"G", HALF_A_HEAD])
def test_half_sent_heads_are_ended_and_nobody_waits_for_them(shared, sent, drip):
    server = shared("--head-seconds", "1.5", "--max-connections", "400")
    before = sockets(server)
    with Stalled(server, 300, sent) as stalled:
        began = time.monotonic()
        assert server.health()["status"] == "ready" and time.monotonic() - began < 1
        for answer in stalled.ends(drip):
            assert answer == b"" or (answer.startswith(b"HTTP/1.1 408 ") and b'"too_slow"' in answer)
        assert 1 < time.monotonic() - began < 6
    server.until(lambda report: sockets(server) <= before + 2)
    samples_of(server.speak(reference_of()))


@pytest.mark.parametrize(
    "head", [f"Authorization: Bearer {TOKEN}\r\nContent-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n", "\r\n"]
)
def test_half_sent_bodies_are_ended_whoever_sends_them(shared, head):
    server = shared("--head-seconds", "1", "--body-seconds", "2")
    with Stalled(server, 20, HALF_A_BODY + head.encode()) as stalled:
        stalled.ends(b"x")
    server.until(lambda report: report["status"] == "ready" and report["queue_length"] == 0)
    samples_of(server.speak(reference_of()))


def test_a_body_that_goes_on_after_its_answer_is_ended(own):
    server = own("--body-seconds", "1.5")
    sent = b"GET /health HTTP/1.1\r\nHost: box\r\nContent-Length: 1000000\r\n\r\nx"
    with Stalled(server, 10, sent) as stalled:
        assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in stalled.ends(b"x"))


def test_a_second_head_that_stalls_on_an_answered_connection_is_ended(shared):
    server = shared("--head-seconds", "1.5", "--max-connections", "400")
    sent = b"GET /health HTTP/1.1\r\nHost: box\r\n\r\n"
    with Stalled(server, 10, sent) as stalled:
        time.sleep(0.5)
        for connection in stalled.sockets:
            connection.sendall(HALF_A_HEAD)
        for answer in stalled.ends(b"x"):
            assert answer.startswith(b"HTTP/1.1 200 ") and b"HTTP/1.1 408 " in answer


def test_more_connections_than_the_limit_cost_those_that_ask_for_nothing(own):
    server = own("--max-connections", "20", "--head-seconds", "60")
    server.until(lambda report: report["status"] == "ready")
    before = sockets(server)
    with Stalled(server, 100, HALF_A_HEAD):
        for _ in range(5):
            samples_of(server.speak(reference_of()))
        assert sockets(server) <= before + 25


def test_an_answer_that_nobody_takes_is_given_up(shared):
    server = shared("--head-seconds", "1", "--body-seconds", "2")
    form = {"text": f"{TEXT} " * 120, "language": "en", "reference_text": "", "reference_language": "en"}
    request = requests.Request(
        "POST", f"{server.url}/synthesize", data=form, files={"reference_audio": reference_of()}, headers=server.headers
    ).prepare()
    assert isinstance(request.body, bytes)
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    host, port = server.url.removeprefix("http://").split(":")
    before = len(server.log())
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((host, int(port)))
        connection.sendall(f"POST /synthesize HTTP/1.1\r\nHost: box\r\n{head}\r\n".encode() + request.body)
        server.until(lambda report: ": 200 " in server.log()[before:])
        server.until(lambda report: "a connection is given up" in server.log()[before:])
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while block := connection.recv(65536):
                got += block
    length = re.search(rb"(?i)content-length: (\d+)", got)
    assert length and len(got) < int(length[1])


def test_a_long_synthesis_and_a_kept_connection_are_not_given_up(own, root):
    server = own("--head-seconds", "0.5", "--body-seconds", "0.5")
    server.until(lambda report: report["status"] == "ready")
    with requests.Session() as session:
        assert session.get(f"{server.url}/health", timeout=10).status_code == 200
        behave(root, run="hang")
        running = in_background(server.speak, reference_of())
        server.until(lambda report: report["status"] == "busy")
        time.sleep(2)
        behave(root)
        samples_of(running.result(60))
        assert session.get(f"{server.url}/health", timeout=10).status_code == 200
