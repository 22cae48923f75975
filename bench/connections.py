"""What many connections cost: the last release's server and this one, by the same clients, in one run.

    .venv/bin/python -m bench.connections [--old PATH] [--new PATH] [--only NAME ...] [--scale 1.0]

Prints a Markdown table, whose last column says whether this one meets the goal, and below it how busy the machine was.
NAME: cost, crowd, fair, quality or churn; all by default. What fails is a cell of its own, and the rest goes on.

Every server runs as in production with its own defaults, one web process, a data folder of its own, four stand-ins for
GPT-SoVITS (bench.api_overhead), and no worker: jobs stay queued. The clients are plain sockets of another process
(bench.serving.load), on loopback. The last release comes from a temporary work tree of its commit, or from PATH;
without either it is left out. --scale makes the crowd smaller. Needs nothing beyond requirements.txt, 1.5 GB of disk,
and for the last release's quality reports 7 GB of memory. Takes 12 minutes. Run it on an idle machine with two cores:
`taskset -c 0,1` for one that has more.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import io
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile as sf
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import connect

from bench.api_overhead import TEXT, Caller, direct, form, throughput, with_upload, with_voice
from bench.api_overhead import tone as tone_of
from bench.serving.servers import (
    GUNICORN,
    LAST_RELEASE,
    NEW_COMMAND,
    ROOT,
    TENANTS,
    Build,
    Server,
    checkout,
    engines,
    serving,
)

SENTENCE_MS = 50.0
PATHS = ("/api/v1/me", "/health")
PATIENCE_SECONDS = 60.0  # for slow clients to be ended
FAIR_CALLS = 40
SOCKETS, SOCKET_ROUNDS = 20, 6
FLAT_MB = 20


class Row(NamedTuple):
    """met: None where there is no goal."""

    what: str
    goal: str
    found: str
    met: bool | None = None


class Bench:
    """What is measured of one server. Each part gives rows of the table."""

    def __init__(self, build: Build, engine_ports: list[int], capacity: float, scale: float) -> None:
        self.build, self.engine_ports, self.capacity, self.scale = build, engine_ports, capacity, scale

    def many(self, count: int) -> int:
        return max(1, round(count * self.scale))

    def run(self, part: str) -> dict[str, Row]:
        """By what they say was done. Nothing of a part that fails."""
        try:
            with serving(self.build, self.engine_ports) as server:
                return {row.what: row for row in getattr(self, part)(server)}
        except Exception as error:
            print(f"{self.build.name}: {part} failed: {error!r}", file=sys.stderr, flush=True)
            return {}

    # --- one at a time --------------------------------------------------------------------------------------

    def cost(self, server: Server) -> list[Row]:
        rows = []
        reference = tone_of(5.0, 24_000)
        straight = direct(self.engine_ports[0])
        for name, kind, bar in (("saved voice", with_voice, 10), ("upload of 240 kB", with_upload, 11)):
            api = kind(server.port, server.keys[0], reference)
            for _ in range(10):  # the first calls load code and open connections
                straight.call(), api.call()
            added = [1000 * (api.call() - straight.call()) for _ in range(100)]
            found = statistics.median(added)
            rows.append(Row(f"above the engine, idle, {name}: p50, ms", f"<= {bar}", f"{found:.1f}", found <= bar))
        return rows

    # --- many -----------------------------------------------------------------------------------------------

    def crowd(self, server: Server) -> list[Row]:
        keys, guest = server.keys[:10], server.keys[10]
        syntheses = [server.synthesis(key) for key in keys]
        recording = server.recording(keys[0])
        jobs = [(path, key) for key in keys for path in server.queue(key, 10)]
        waited = [(path, key) for key in keys for path in server.queue(key, 1)]
        gets(server, guest, 2)
        idle = gets(server, guest, 8)
        memory = server.memory()
        rows = self._syntheses(server, syntheses, "64 syntheses alone")

        streams = cycle([{"path": f"{path}/events", "key": key} for path, key in jobs], self.many(1000))
        waits = cycle([{"path": path, "key": key} for path, key in waited], self.many(100))
        with server.watched() as peak:
            server.load("open", "streams", kind="stream", targets=streams)
            server.load("open", "waits", kind="wait", targets=waits)
            time.sleep(5)
            under = gets(server, guest, 8)
        held = [server.load("report", group)["states"] for group in ("streams", "waits")]
        for name, wanted, states in (
            (f"{len(streams)} event streams, 10 tenants: held", len(streams), held[0]),
            (f"{len(waits)} `Prefer: wait` beside them: held", len(waits), held[1]),
        ):
            found = states.get("held", 0)
            rows.append(Row(name, "all", str(found), found == wanted))
        more = peak[0] - memory
        rows += [
            *compare(idle, under, "with them", 1.5),
            Row("memory, MB more", "<= 150", f"{more:.0f}", more <= 150),
        ]

        slow = {
            f"{self.many(200)} half-sent heads": ("half_head", [{"path": PATHS[0]}], self.many(200)),
            f"{self.many(200)} bodies of 1 byte/5 s without a key": (
                "slow_body", [{"path": "/account/signin"}, {"path": "/api/v1/voice/synthesize"}], self.many(200),
            ),
            f"{self.many(50)} downloads at 4 KB/s": (
                "download", [{"path": recording, "key": keys[0]}], self.many(50),
            ),
        }  # fmt: skip
        began = time.monotonic()
        for name, (kind, targets, number) in slow.items():
            server.load("open", name, kind=kind, targets=cycle(targets, number))
        rows += compare(idle, gets(server, guest, 8), "and with the slow ones", 2)
        rows += self._syntheses(server, syntheses, "and with 64 syntheses")
        rows.append(self._sockets(server, keys[0]))
        while time.monotonic() < began + PATIENCE_SECONDS:
            found = {name: server.load("report", name) for name in slow}
            if all("held" not in report["states"] for report in found.values()):
                break
            time.sleep(1)
        for name in slow:
            report = server.load("close", name)
            ended, states = report["ended_after"], Counter(report["states"])
            last = f"{len(ended)}, the last after {max(ended):.0f} s" if ended else "0"
            refused = f", {states['refused']} refused" if states["refused"] else ""
            if gone := states["lost"] + states["unanswered"]:
                refused += f", {gone} not served"
            all_ended = len(ended) + states["refused"] == states.total() and not gone
            rows.append(Row(f"{name}: ended within {PATIENCE_SECONDS:.0f} s", "all", last + refused, all_ended))
        return [*rows, self._told(server, jobs + waited)]

    def _syntheses(self, server: Server, targets: list[dict[str, Any]], name: str) -> list[Row]:
        server.load("open", "syntheses", kind="synthesis", targets=cycle(targets, 64), parallel=64)
        time.sleep(2)  # what is loaded and opened by the first ones
        before, used = server.load("report", "syntheses"), server.cpu_seconds()
        time.sleep(10)
        after, used = server.load("close", "syntheses"), server.cpu_seconds() - used
        seconds = after["seconds"] - before["seconds"]
        did = Counter(after["statuses"])
        did.subtract(before["statuses"])
        answered = did.pop("200", 0)
        errors = {status: count for status, count in sorted(did.items()) if count}
        told = ", ".join(f"{count} x {'no answer' if status == '0' else status}" for status, count in errors.items())
        share = answered / seconds / self.capacity
        # On a machine that has other work too, this tells more than the share.
        each = f", {1000 * used / answered:.0f} ms CPU each" if answered else ""
        return [
            Row(
                f"{name}, 10 s: refused or failed", "0", told or ("0" if answered else "none was answered"),
                bool(answered) and not errors,
            ),
            Row(f"{name}: share of the engines' capacity", ">= .85", f"{share:.2f}{each}", share >= 0.85),
        ]  # fmt: skip

    def _sockets(self, server: Server, key: str) -> Row:
        """ElevenLabs' stream-input against its HTTP stream: both from the connecting to the first audio."""
        what = f"and {SOCKETS} WebSockets that speak: first audio, p50, x that of as many HTTP streams"
        voice = server.voice(key)
        path = f"127.0.0.1:{server.port}/elevenlabs/v1/text-to-speech/{voice}"
        try:
            first_of_socket(path, key)
        except (WebSocketException, OSError, EOFError) as error:
            status = error.response.status_code if isinstance(error, InvalidStatus) else 0
            return Row(what, "<= 1.3", "no such route" if status == 404 else f"none ({status or error!r})", False)
        first_of_stream(path, key)
        sockets = together(lambda: first_of_socket(path, key), SOCKETS, SOCKET_ROUNDS)
        streams = together(lambda: first_of_stream(path, key), SOCKETS, SOCKET_ROUNDS)
        failed = sum(map(np.isinf, sockets + streams))
        socket, stream = statistics.median(sockets), statistics.median(streams)
        found = f"{socket / stream:.2f} ({socket:.0f} and {stream:.0f} ms{f', {failed} failed' if failed else ''})"
        return Row(what, "<= 1.3", found, socket <= 1.3 * stream and not failed)

    def _told(self, server: Server, jobs: list[tuple[str, str]]) -> Row:
        """Cancels the jobs: who was held learns of it."""
        held = sum(server.load("report", group)["states"].get("held", 0) for group in ("streams", "waits"))
        try:
            for path, key in jobs:
                server.ask("POST", f"{path}/cancel", key, timeout=60)
            time.sleep(3)
        except OSError:
            print(f"{server.build.name}: no answer to a cancel", file=sys.stderr)
        told = sum(server.load("close", group)["states"].get("told", 0) for group in ("streams", "waits"))
        what = "of those still held, told within 3 s of their job's end"
        return Row(what, "all", f"{told} of {held}", bool(held) and told == held)

    # --- fairness -------------------------------------------------------------------------------------------

    def fair(self, server: Server) -> list[Row]:
        one, other = server.keys[0], server.keys[11]
        server.synthesis(other)
        recording = server.recording(one)
        jobs = [f"{path}/events" for path in server.queue(one, 50)]
        empty = speak(server, other)
        server.queue_covers(one, 30)
        server.load("open", "streams", kind="stream", targets=cycle([{"path": p, "key": one} for p in jobs], 500))
        server.load("open", "downloads", kind="download", targets=cycle([{"path": recording, "key": one}], 20))
        server.load("open", "line", kind="synthesis", targets=cycle([server.synthesis(one)], 64), parallel=64)
        time.sleep(3)
        busy = speak(server, other)
        streams = server.load("close", "streams")["states"].get("held", 0)
        own = Counter(server.load("close", "line")["statuses"])
        server.load("close", "downloads")
        what = (
            "tenant A: 500 streams, 64 syntheses in line, 20 slow downloads, 30 queued covers. B's synthesis: p95, ms"
        )
        bar = 1.5 * empty[0] + SENTENCE_MS
        goal = "<= 1.5 x that of an empty server + 50"
        refused = f"; {busy[1]} of {FAIR_CALLS} not spoken" if busy[1] else ""
        found = f"{busy[0]:.0f}{refused} (empty {empty[0]:.0f}, so <= {bar:.0f})"
        told = f"{streams}; {own['200']} spoken, {own.total() - own['200']} refused"
        return [
            Row(what, goal, found, busy[0] <= bar and not busy[1]),
            Row("A meanwhile: streams held; syntheses", "", told),
        ]

    # --- memory ---------------------------------------------------------------------------------------------

    def quality(self, server: Server) -> list[Row]:
        body, kind = form({}, "sample", tone_of(5.0, 24_000))
        server.must("POST", "/api/v1/voice/quality", server.keys[0], body, Content_Type=kind)
        body, kind = form({}, "sample", recording_of_192_khz())
        rows = [self._together(server, "quality reports", "/api/v1/voice/quality", [(body, kind)])]
        # References that differ, each as long as an engine takes it whole, and as fine as there is.
        fields = {"text": TEXT, "language": "en"}
        bodies = [form(fields, "reference_audio", recording_of_192_khz(number)) for number in range(len(server.keys))]
        return [*rows, self._together(server, "syntheses with a reference", "/api/v1/voice/synthesize", bodies)]

    def _together(self, server: Server, what: str, path: str, bodies: list[tuple[bytes, str]]) -> Row:
        """One of each tenant at the same time, and what the server and its children grew by meanwhile."""
        memory = server.memory()
        statuses: list[int] = []

        def ask(key: str, body: bytes, kind: str) -> None:
            try:
                statuses.append(server.ask("POST", path, key, body, 300, Content_Type=kind)[0])
            except (OSError, http.client.HTTPException):
                statuses.append(0)

        with server.watched() as peak:
            pairs = zip(server.keys, cycle(bodies, TENANTS), strict=True)
            threads = [threading.Thread(target=ask, args=(key, *body)) for key, body in pairs]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        told = ", ".join(f"{count} x {status or 'no answer'}" for status, count in sorted(Counter(statuses).items()))
        size, more = len(bodies[0][0]) / 1e6, peak[0] - memory
        row = f"{len(statuses)} {what} of 192 kHz stereo in parallel ({size:.1f} MB each): memory, MB more"
        return Row(row, "<= 300", f"{more:.0f} ({told})", more <= 300)

    def churn(self, server: Server) -> list[Row]:
        targets = [{"path": f"{path}/events", "key": key} for key in server.keys[:10] for path in server.queue(key, 5)]
        count = self.many(10_000)
        first = server.load("churn", targets=targets, count=count // 5, parallel=50, seconds=60)["states"]
        memory = server.memory()
        rest = server.load("churn", targets=targets, count=count - count // 5, parallel=50, seconds=180)["states"]
        states = Counter(first) + Counter(rest)
        more = server.memory() - memory
        found = f"{more:.0f} ({states['held']} opened, {states['refused']} refused)"
        what = f"{count} event streams opened and dropped: MB more after the first fifth"
        return [Row(what, f"<= {FLAT_MB}", found, more <= FLAT_MB and states["held"] == count)]


PARTS = ("cost", "crowd", "fair", "quality", "churn")


def cycle(targets: list[Any], count: int) -> list[Any]:
    return [targets[number % len(targets)] for number in range(count)]


def gets(server: Server, key: str, seconds: float) -> dict[str, float]:
    """The median in ms of GETs over kept connections, one after the other; infinite where two had no answer."""
    times: dict[str, list[float]] = {path: [] for path in PATHS}
    unanswered = 0
    connections = {path: http.client.HTTPConnection("127.0.0.1", server.port, timeout=10) for path in PATHS}
    end = time.monotonic() + seconds
    while time.monotonic() < end and unanswered < 2:
        for path, connection in connections.items():
            began = time.perf_counter()
            try:
                connection.request("GET", path, headers={"X-API-Key": key})
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    times[path].append(1000 * (time.perf_counter() - began))
            except (OSError, http.client.HTTPException):
                unanswered += 1
                connection.close()
        time.sleep(0.01)
    for connection in connections.values():
        connection.close()
    return {path: statistics.median(found) if found and unanswered < 2 else np.inf for path, found in times.items()}


def compare(idle: dict[str, float], under: dict[str, float], name: str, bar: float) -> list[Row]:
    def row(path: str) -> Row:
        ratio = under[path] / idle[path]
        found = f"{ratio:.2f} ({under[path]:.1f}, idle {idle[path]:.1f})"
        if np.isinf(under[path]):
            found = f"no answer (idle {idle[path]:.1f})"
        return Row(f"GET {path} {name}: p50, x idle (ms)", f"<= {bar:g}", found, bool(ratio <= bar))

    return [row(path) for path in PATHS]


def first_of_socket(path: str, key: str) -> float:
    """Milliseconds until the first audio came; the rest is heard too. Raises WebSocketException."""
    began = time.perf_counter()
    url = f"ws://{path}/stream-input?output_format=pcm_24000"
    with connect(url, additional_headers={"xi-api-key": key}, proxy=None, compression=None) as socket:
        for text in (" ", f"{TEXT} ", ""):
            socket.send(json.dumps({"text": text}))
        first = np.inf
        for message in socket:
            audio = json.loads(message).get("audio")
            if audio and base64.b64decode(audio) and np.isinf(first):
                first = 1000 * (time.perf_counter() - began)
    return first


def first_of_stream(path: str, key: str) -> float:
    """The same over HTTP."""
    began = time.perf_counter()
    host, _, rest = path.partition("/")
    connection = http.client.HTTPConnection(host, timeout=60)
    headers = {"xi-api-key": key, "Content-Type": "application/json"}
    body = json.dumps({"text": TEXT})
    try:
        connection.request("POST", f"/{rest}/stream?output_format=pcm_24000", body, headers)
        answer = connection.getresponse()
        first = 1000 * (time.perf_counter() - began) if answer.status == 200 and answer.read(2) else np.inf
        answer.read()
    finally:
        connection.close()
    return first


def together(action: Callable[[], float], count: int, rounds: int) -> list[float]:
    """What `count` threads that do it at the same time found, round after round; infinite for what failed."""
    found: list[float] = []

    def run() -> None:
        for _ in range(rounds):
            try:
                found.append(action())
            except Exception as error:
                print(f"{error!r}", file=sys.stderr)
                found.append(np.inf)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def speak(server: Server, key: str) -> tuple[float, int]:
    """p95 in ms of syntheses one after the other, and how many failed; infinite where more than four did."""
    target = server.synthesis(key)
    times, failed = [], 0
    headers = {"X-API-Key": key, "Content-Type": "application/json"}
    caller = Caller(server.port, target["path"], json.dumps(target["json"]).encode(), headers)
    caller.connection.timeout = 20
    for number in range(5 + FAIR_CALLS):
        began = time.perf_counter()
        try:
            caller.call()
        except (OSError, http.client.HTTPException, RuntimeError):
            failed += number >= 5
            caller.connection.close()
        if number >= 5:
            times.append(1000 * (time.perf_counter() - began))
        if failed > 4:
            break
    return (float(np.percentile(times, 95)) if failed <= 4 else np.inf), failed


def recording_of_192_khz(number: int = 0) -> bytes:
    """A minute, stereo, FLAC: some MB on the way, 184 MB as float64. Each number is another voice."""
    rate = 192_000
    at = np.arange(58 * rate) / rate
    voice = 0.2 * np.sin(2 * np.pi * (120 + number) * at) * (0.55 + 0.45 * np.sin(2 * np.pi * 3 * at))
    voice += 0.1 * np.sin(2 * np.pi * 1100 * at) * (np.sin(2 * np.pi * 3 * at) > 0)
    file = io.BytesIO()
    sf.write(file, np.stack([voice, voice], axis=1), rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, metavar="PATH", help="a checkout of the last release")
    parser.add_argument("--new", type=Path, metavar="PATH", default=ROOT, help="by default this checkout")
    parser.add_argument("--new-command", default=NEW_COMMAND, help="a Python module and its arguments; {port}")
    parser.add_argument("--builds", nargs="+", choices=("old", "new"), default=["old", "new"])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="NAME")
    parser.add_argument("--scale", type=float, default=1.0, help="of the crowd, for a quick look")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # What was started is ended then too.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # The servers inherit it.
    with contextlib.ExitStack() as stack:
        builds = []
        if "old" in options.builds:
            try:
                old = options.old or stack.enter_context(checkout(LAST_RELEASE))
                builds.append(Build(f"last release ({LAST_RELEASE})", old, GUNICORN))
            except (OSError, subprocess.CalledProcessError):
                print(
                    f"There is no {LAST_RELEASE} in this checkout's history: its column is left out.", file=sys.stderr
                )
        if "new" in options.builds:
            builds.append(Build("this one", options.new, options.new_command))
        cores, load = len(os.sched_getaffinity(0)), [os.getloadavg()[0]]
        ports = stack.enter_context(engines(4))
        capacity, _, failed = throughput([direct(port) for port in ports], 5)
        benches = [Bench(build, ports, capacity, options.scale) for build in builds]
        print(f"| at the same time | goal | {' | '.join(build.name for build in builds)} | met |")
        print("|---|---|" + "---|" * (len(builds) + 1), flush=True)
        for part in options.only:
            began = time.monotonic()
            columns = [bench.run(part) for bench in benches]
            for what in dict.fromkeys(what for column in columns for what in column):
                cells = [column.get(what) for column in columns]
                known = next(cell for cell in cells if cell is not None)
                last = cells[-1]
                met = "no" if last is None else {None: "", True: "yes", False: "no"}[last.met]
                found = " | ".join(cell.found if cell else "failed" for cell in cells)
                print(f"| {what} | {known.goal} | {found} | {met} |", flush=True)
            load.append(os.getloadavg()[0])
            print(f"{part}: {time.monotonic() - began:.0f} s, load {load[-1]:.1f}", file=sys.stderr, flush=True)
        print(
            f"\nMeasured {date.today()} on {cores} cores. Load at the start {load[0]:.1f}, after each part "
            f"{', '.join(f'{one:.1f}' for one in load[1:])}. The engines, asked directly: {capacity:.1f} sentences/s, "
            f"{failed} errors."
        )


if __name__ == "__main__":
    main()
