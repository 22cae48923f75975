"""What the API costs above a direct call to GPT-SoVITS, and how much of several servers' capacity it can use.

    .venv/bin/python -m bench.api_overhead [--calls 100] [--seconds 10] [--servers 4] [--parallel 16] [--processes 1]

The servers are stand-ins that are busy for 50 ms with each sentence, one at a time, and answer with 3 s of audio, so
that what is measured is this product and not speech. The API runs under gunicorn as in production, on a data folder of
its own. Direct calls and calls of the API take turns, and both throughputs are measured in the same run: compare
numbers of one run only. Needs nothing beyond requirements.txt. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import soundfile as sf

ROOT = Path(__file__).resolve().parent.parent
SENTENCE_SECONDS = 0.05
TEXT = "This is one sentence of a dozen words, which anybody can speak."


def tone(seconds: float, rate: int) -> bytes:
    at = np.arange(round(seconds * rate)) / rate
    buzz = sum(np.sin(2 * np.pi * 120 * k * at) / k for k in range(1, 12))
    buffer = io.BytesIO()
    sf.write(buffer, 0.2 * buzz * (0.55 + 0.45 * np.sin(2 * np.pi * 3 * at)), rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def serve(port: int) -> None:
    """A stand-in for api_v2.py on a port, until it is ended."""
    speech = tone(3.0, 32_000)
    at_work = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self.answer("application/json", b'{"paths": {"/tts": {}}}')

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            with at_work:
                time.sleep(SENTENCE_SECONDS)
            self.answer("audio/wav", speech)

        def answer(self, content_type: str, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


class Caller:
    """Calls of one kind over one kept connection."""

    def __init__(self, port: int, path: str, body: bytes, headers: dict[str, str]) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self.path, self.body, self.headers = path, body, headers

    def call(self) -> float:
        """Seconds that it took; raises where the answer is no audio."""
        started = time.perf_counter()
        self.connection.request("POST", self.path, self.body, self.headers)
        response = self.connection.getresponse()
        content = response.read()
        if response.status != 200 or content[:4] != b"RIFF":
            raise RuntimeError(f"{response.status}: {content[:300]!r}")
        return time.perf_counter() - started


def direct(port: int) -> Caller:
    payload = {"text": TEXT, "text_lang": "en", "prompt_lang": "en", "ref_audio_path": "/x.wav"}
    return Caller(port, "/tts", json.dumps(payload).encode(), {"Content-Type": "application/json"})


def with_upload(port: int, key: str, reference: bytes) -> Caller:
    """The reference goes along with each call."""
    fields = {"text": TEXT, "language": "en", "reference_text": "What I say in it.", "reference_language": "en"}
    body, content_type = form(fields, "reference_audio", reference)
    return Caller(port, "/api/v1/voice/synthesize", body, {"X-API-Key": key, "Content-Type": content_type})


def with_voice(port: int, key: str, reference: bytes) -> Caller:
    """The reference was saved before, as a direct call finds it on the server's disk."""
    consent = "I am the speaker and agree to the cloning of my voice."
    fields = {"name": "bench", "consent": consent, "transcript": "What I say in it.", "language": "en"}
    body, content_type = form(fields, "sample", reference)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", "/api/v1/voice/voices", body, {"X-API-Key": key, "Content-Type": content_type})
    voice = json.load(connection.getresponse())
    fields = {"text": TEXT, "language": "en", "voice_id": voice["voice_id"]}
    headers = {"X-API-Key": key, "Content-Type": "application/json"}
    return Caller(port, "/api/v1/voice/synthesize", json.dumps(fields).encode(), headers)


def form(fields: dict[str, str], name: str, file: bytes) -> tuple[bytes, str]:
    """A multipart body with one WAV file, and its content type."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    ]
    head = f'Content-Disposition: form-data; name="{name}"; filename="a.wav"\r\nContent-Type: audio/wav'
    parts += [f"--{boundary}\r\n{head}\r\n\r\n".encode(), file, f"\r\n--{boundary}--\r\n".encode()]
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"


def throughput(callers: list[Caller], seconds: float) -> tuple[float, list[float], int]:
    """Calls a second of all callers together, the seconds of each call, and how many failed."""
    times: list[float] = []
    errors: list[str] = []
    end = time.perf_counter() + seconds

    def work(caller: Caller) -> None:
        while time.perf_counter() < end:
            try:
                times.append(caller.call())
            except (RuntimeError, OSError, http.client.HTTPException) as error:
                errors.append(str(error))
                caller.connection.close()

    started = time.perf_counter()
    threads = [threading.Thread(target=work, args=(caller,)) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in sorted(set(errors))[:5]:
        print(f"error: {error}", file=sys.stderr)
    return len(times) / (time.perf_counter() - started), times, len(errors)


def cpu_seconds(parent: int) -> float:
    """What a process's children have used so far: gunicorn's workers. On a busy machine it tells more than time."""
    ticks = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise SystemExit(f"nothing listens on port {port}") from None
            time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100, help="for the latency, of each kind")
    parser.add_argument("--seconds", type=float, default=10, help="for each throughput")
    parser.add_argument("--servers", type=int, default=4)
    parser.add_argument("--parallel", type=int, default=16)
    parser.add_argument("--processes", type=int, default=1, help="web processes")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    ports = [free_port() for _ in range(options.servers)]
    port = free_port()
    started: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ, "DATA_DIR": folder, "ENV_FILE": os.devnull, "LOG_LEVEL": "WARNING",
            "SOVITS_BASE_URL": ",".join(f"http://127.0.0.1:{at}" for at in ports),
            "SOVITS_MAX_WAITING": str(2 * options.parallel), "WEB_THREADS": str(options.parallel + 8),
            "WEB_PROCESSES": str(options.processes),
        }  # fmt: skip
        manage = [sys.executable, "manage.py"]
        subprocess.run([*manage, "migrate", "-v0"], cwd=ROOT, env=environment, check=True)
        made = subprocess.run(
            [*manage, "create_api_key", "bench", "--create-user"],
            cwd=ROOT, env=environment, check=True, capture_output=True, text=True,
        )  # fmt: skip
        key = next(word for word in made.stdout.split() if word.startswith("vck_"))
        commands = [["bench.api_overhead", "--serve", str(at)] for at in ports]
        serving = ["--config", "python:voiceproject.serving", "--bind", f"127.0.0.1:{port}"]
        commands.append(["gunicorn", "voiceproject.asgi", *serving])
        try:
            for command in commands:
                started.append(subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, env=environment))
            for at in (*ports, port):
                wait_for(at)
            measure(ports, port, key, started[-1].pid, options)
        finally:
            for process in reversed(started):
                process.terminate()
            for process in started:
                process.wait(60)


def measure(ports: list[int], port: int, key: str, gunicorn: int, options: argparse.Namespace) -> None:
    reference = tone(5.0, 24_000)
    straight = direct(ports[0])
    kinds = {"with an upload of 240 kB": with_upload, "with a saved voice": with_voice}
    print("| one at a time, ms | direct | through the API | added: p50 | p95 | CPU |\n|---|---|---|---|---|---|")
    for name, kind in kinds.items():
        api = kind(port, key, reference)
        for _ in range(10):  # the first calls load code and open connections
            straight.call(), api.call()
        before = cpu_seconds(gunicorn)
        pairs = [(straight.call(), api.call()) for _ in range(options.calls)]
        used = 1000 * (cpu_seconds(gunicorn) - before) / options.calls
        calls, through = (1000 * statistics.median(times) for times in zip(*pairs, strict=True))
        added = [1000 * (api - direct) for direct, api in pairs]
        print(
            f"| {name} | {calls:.1f} | {through:.1f} | {statistics.median(added):.1f} | {np.percentile(added, 95):.1f} "
            f"| {used:.1f} |", flush=True
        )  # fmt: skip
    most, _, failed = throughput([direct(at) for at in ports], options.seconds)
    print(f"\n| {options.servers} servers | sentences/s | of their capacity | p50 ms | errors | CPU ms a call |")
    print(f"|---|---|---|---|---|---|\n| direct, one caller each | {most:.1f} | 1 | | {failed} | |")
    for name, kind in kinds.items():
        before = cpu_seconds(gunicorn)
        callers = [kind(port, key, reference) for _ in range(options.parallel)]
        got, times, errors = throughput(callers, options.seconds)
        p50 = 1000 * statistics.median(times)
        used = 1000 * (cpu_seconds(gunicorn) - before) / max(1, len(times))
        print(
            f"| {options.parallel} at a time, {name} | {got:.1f} | {got / most:.2f} | {p50:.0f} | {errors} "
            f"| {used:.1f} |", flush=True
        )  # fmt: skip


if __name__ == "__main__":
    main()
