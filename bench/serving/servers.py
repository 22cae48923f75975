"""The servers that bench.connections measures, what they need, and what they hold."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.api_overhead import TEXT, form, free_port, tone, wait_for

ROOT = Path(__file__).resolve().parents[2]
LAST_RELEASE = "6326d54"
GUNICORN = "gunicorn voiceproject.wsgi --config python:voiceproject.serving --bind 127.0.0.1:{port}"
NEW_COMMAND = GUNICORN.replace("wsgi", "asgi")
TENANTS = 12
MB = 1024 * 1024
KEYS = """
from django.core.management import call_command
for number in range({}): call_command("create_api_key", f"tenant-{{number}}", create_user=True)
"""


@dataclass(frozen=True)
class Build:
    """A server to measure: a checkout, and what starts it there (a Python module and its arguments; {port})."""

    name: str
    root: Path
    command: str


@contextlib.contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """A temporary work tree of a commit of this repository."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "tree")
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "-q", "--detach", str(root), commit], check=True)
        try:
            yield root
        finally:
            subprocess.run([*git, "remove", "--force", str(root)], check=True)


def tree(pid: int) -> list[int]:
    """A process and all that it has started, as far as they live."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def born(pid: int) -> str:
    """What tells a process from a later one of the same id; empty for one that has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def resident_bytes(pid: int) -> int:
    """0 for one that has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


@contextlib.contextmanager
def ending(processes: list[subprocess.Popen[Any]], seconds: float) -> Iterator[None]:
    """Ends processes with all that they have started, asked first, at the latest `seconds` after the block."""
    try:
        yield
    finally:
        alive = {pid: born(pid) for process in processes for pid in tree(process.pid)}
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + seconds
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        for pid, when in alive.items():
            if when and born(pid) == when:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for process in processes:
            process.wait()


@contextlib.contextmanager
def engines(count: int) -> Iterator[list[int]]:
    """The ports of stand-ins for GPT-SoVITS that are busy for 50 ms with each sentence (bench.api_overhead)."""
    ports = [free_port() for _ in range(count)]
    started: list[subprocess.Popen[Any]] = []
    with ending(started, 10):
        for port in ports:
            command = [sys.executable, "-m", "bench.api_overhead", "--serve", str(port)]
            started.append(subprocess.Popen(command, cwd=ROOT))
        for port in ports:
            wait_for(port)
        yield ports


class Load:
    """bench.serving.load as a process of its own."""

    def __init__(self, port: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.serving.load", str(port)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __call__(self, do: str, group: str = "", **more: Any) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps({"do": do, "group": group, **more}), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


class Server:
    """One that runs, on a data folder of its own, with one web process and its tenants' keys, voices and jobs.

    No worker runs, so jobs stay queued.
    """

    def __init__(self, build: Build, port: int, process: subprocess.Popen[Any], keys: list[str], load: Load) -> None:
        self.build, self.port, self.process, self.keys, self.load = build, port, process, keys, load
        self._voices: dict[str, str] = {}

    def ask(
        self, method: str, path: str, key: str = "", body: bytes = b"", timeout: float = 120, **headers: str
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body or None, {"X-API-Key": key, **sent} if key else sent)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def must(self, method: str, path: str, key: str, body: bytes = b"", **headers: str) -> Any:
        """The JSON of an answer that is no error."""
        status, content = self.ask(method, path, key, body, **headers)
        if status >= 400:
            raise RuntimeError(f"{method} {path}: {status} {content[:300]!r}")
        return json.loads(content)

    # --- what tenants have ----------------------------------------------------------------------------------

    def voice(self, key: str) -> str:
        """The id of a saved voice of a tenant."""
        if key not in self._voices:
            fields = {"name": "bench", "consent": "I am the speaker and agree to the cloning of my voice."}
            fields |= {"transcript": "What I say in it.", "language": "en"}
            body, kind = form(fields, "sample", tone(5.0, 24_000))
            made = self.must("POST", "/api/v1/voice/voices", key, body, Content_Type=kind)
            self._voices[key] = made["voice_id"]
        return self._voices[key]

    def synthesis(self, key: str, text: str = TEXT) -> dict[str, Any]:
        """What a client of bench.serving.load needs for a synthesis."""
        fields = {"text": text, "language": "en", "voice_id": self.voice(key)}
        return {"path": "/api/v1/voice/synthesize", "key": key, "json": fields}

    def queue(self, key: str, count: int) -> list[str]:
        """Queues syntheses of a tenant; their paths."""
        body = json.dumps(self.synthesis(key)["json"]).encode()
        headers = {"Content_Type": "application/json", "Prefer": "respond-async"}
        jobs = [self.must("POST", "/api/v1/voice/synthesize", key, body, **headers) for _ in range(count)]
        return [f"/api/v1/voice/syntheses/{job['synthesis_id']}" for job in jobs]

    def queue_covers(self, key: str, count: int) -> None:
        reference, kind = form({}, "reference_voice", tone(5.0, 24_000))
        boundary = kind.partition("boundary=")[2]
        song, _ = form({}, "song", tone(10.0, 44_100))
        other = song.partition(b"\r\n")[0]
        body = reference.removesuffix(f"--{boundary}--\r\n".encode()) + song.replace(other, f"--{boundary}".encode())
        for _ in range(count):
            self.must("POST", "/api/v1/cover/jobs", key, body, Content_Type=kind)

    def recording(self, key: str, sentences: int = 80) -> str:
        """The path of some minutes of audio of a tenant, some 15 MB."""
        body = json.dumps(self.synthesis(key, " ".join([TEXT] * sentences)[:5000])["json"]).encode()
        status, content = self.ask("POST", "/api/v1/voice/synthesize", key, body, Content_Type="application/json")
        if status != 200:
            raise RuntimeError(f"no recording: {status} {content[:300]!r}")
        newest = self.must("GET", "/api/v1/voice/syntheses", key)["results"][0]
        return f"/api/v1/voice/syntheses/{newest['synthesis_id']}/audio"

    # --- what it holds --------------------------------------------------------------------------------------

    def memory(self) -> float:
        """MB that the server and its children have in memory."""
        return sum(map(resident_bytes, tree(self.process.pid))) / MB

    def cpu_seconds(self) -> float:
        """That it and its living children have used so far."""
        ticks = 0
        for pid in tree(self.process.pid):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    @contextlib.contextmanager
    def watched(self) -> Iterator[list[float]]:
        """The block's largest memory in MB; in the list once the block has ended."""
        peak = [self.memory()]
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.02):
                peak[0] = max(peak[0], self.memory())

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield peak
        finally:
            done.set()
            thread.join()


@contextlib.contextmanager
def serving(build: Build, engine_ports: Iterable[int]) -> Iterator[Server]:
    port = free_port()
    started: list[subprocess.Popen[Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ, "DATA_DIR": folder, "ENV_FILE": os.devnull, "LOG_LEVEL": "ERROR", "WEB_PROCESSES": "1",
            "SOVITS_BASE_URL": ",".join(f"http://127.0.0.1:{at}" for at in engine_ports), "PYTHONPATH": "",
        }  # fmt: skip
        manage = [sys.executable, "manage.py"]
        subprocess.run([*manage, "migrate", "-v0"], cwd=build.root, env=environment, check=True)
        made = subprocess.run(
            [*manage, "shell", "-v0", "-c", KEYS.format(TENANTS)],
            cwd=build.root, env=environment, check=True, capture_output=True, text=True,
        )  # fmt: skip
        keys = [word for word in made.stdout.split() if word.startswith("vck_")]
        with ending(started, 10):
            command = [sys.executable, "-m", *build.command.format(port=port).split()]
            with open(os.path.join(folder, "server.log"), "wb") as log:
                started.append(subprocess.Popen(command, cwd=build.root, env=environment, stderr=log))
            wait_for(port)
            time.sleep(1)
            load = Load(port)
            server = Server(build, port, started[0], keys, load)
            try:
                yield server
            finally:
                load.process.send_signal(signal.SIGKILL)  # Its connections end with it.
                load.process.wait()
