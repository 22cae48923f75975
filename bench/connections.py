"""What many connections cost: the last release's server and this one, by the same clients, in one run.

    .venv/bin/python -m bench.connections [--old PATH] [--new PATH] [--only NAME ...] [--scale 1.0]

Prints a Markdown table. NAME: cost, crowd, fair, quality or churn; all by default. Every server runs as in production
with its own defaults, one web process, a data folder of its own, four stand-ins for GPT-SoVITS (bench.api_overhead),
and no worker: jobs stay queued. The clients are plain sockets of another process (bench.serving.load), on loopback.
The last release comes from a temporary work tree of its commit, or from PATH. --scale makes the crowd smaller.
Needs nothing beyond requirements.txt, 1.5 GB of disk, and for the last release's quality reports 7 GB of memory.
Takes 12 minutes. Run it on an idle machine with two cores: `taskset -c 0,1` for one that has more.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import os
import resource
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

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
Row = tuple[str, str, str]  # what, goal, found


class Bench:
    """What is measured of one server. Each part gives rows of the table."""

    def __init__(self, build: Build, engine_ports: list[int], capacity: float, scale: float) -> None:
        self.build, self.engine_ports, self.capacity, self.scale = build, engine_ports, capacity, scale

    def many(self, count: int) -> int:
        return max(1, round(count * self.scale))

    def run(self, part: str) -> list[Row]:
        with serving(self.build, self.engine_ports) as server:
            return getattr(self, part)(server)

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
            found = f"{statistics.median(added):.1f}"
            rows.append((f"above the engine, idle, {name}: p50, ms", f"<= {bar}", found))
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
        count = len(streams) + len(waits)
        rows += [
            (f"{len(streams)} event streams, 10 tenants: held", "all", str(held[0].get("held", 0))),
            (f"{len(waits)} `Prefer: wait` beside them: held", "all", str(held[1].get("held", 0))),
            ("refused, or answered at once", "0", str(count - sum(states.get("held", 0) for states in held))),
            *compare(idle, under, "with them", "1.5"),
            ("memory, MB more", "<= 150", f"{peak[0] - memory:.0f}"),
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
        rows += compare(idle, gets(server, guest, 8), "and with the slow ones", "2")
        rows += self._syntheses(server, syntheses, "and with 64 syntheses")
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
            rows.append((f"{name}: ended within {PATIENCE_SECONDS:.0f} s", "all", last + refused))
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
            (f"{name}, 10 s: refused or failed", "0", told or ("0" if answered else "none was answered")),
            (f"{name}: share of the engines' capacity", ">= .85", f"{share:.2f}{each}"),
        ]

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
        return "of those still held, told within 3 s of their job's end", "all", f"{told} of {held}"

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
        return [(what, goal, found), ("A meanwhile: streams held; syntheses", "", told)]

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
        size = len(bodies[0][0]) / 1e6
        row = f"{len(statuses)} {what} of 192 kHz stereo in parallel ({size:.1f} MB each): memory, MB more"
        return row, "<= 300", f"{peak[0] - memory:.0f} ({told})"

    def churn(self, server: Server) -> list[Row]:
        targets = [{"path": f"{path}/events", "key": key} for key in server.keys[:10] for path in server.queue(key, 5)]
        count = self.many(10_000)
        first = server.load("churn", targets=targets, count=count // 5, parallel=50, seconds=60)["states"]
        memory = server.memory()
        rest = server.load("churn", targets=targets, count=count - count // 5, parallel=50, seconds=180)["states"]
        states = Counter(first) + Counter(rest)
        found = f"{server.memory() - memory:.0f} ({states['held']} opened, {states['refused']} refused)"
        return [(f"{count} event streams opened and dropped: MB more after the first fifth", "flat", found)]


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


def compare(idle: dict[str, float], under: dict[str, float], name: str, bar: str) -> list[Row]:
    def cell(path: str) -> str:
        if np.isinf(under[path]):
            return f"no answer (idle {idle[path]:.1f})"
        return f"{under[path] / idle[path]:.2f} ({under[path]:.1f}, idle {idle[path]:.1f})"

    return [(f"GET {path} {name}: p50, x idle (ms)", f"<= {bar}", cell(path)) for path in PATHS]


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
            old = options.old or stack.enter_context(checkout(LAST_RELEASE))
            builds.append(Build(f"last release ({LAST_RELEASE})", old, GUNICORN))
        if "new" in options.builds:
            builds.append(Build("this one", options.new, options.new_command))
        print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at the start", file=sys.stderr)
        ports = stack.enter_context(engines(4))
        capacity, _, failed = throughput([direct(port) for port in ports], 5)
        print(f"the engines, asked directly: {capacity:.1f} sentences/s, {failed} errors", file=sys.stderr)
        benches = [Bench(build, ports, capacity, options.scale) for build in builds]
        print(f"| at the same time | goal | {' | '.join(build.name for build in builds)} |")
        print("|---|---|" + "---|" * len(builds), flush=True)
        for part in options.only:
            began = time.monotonic()
            columns = [bench.run(part) for bench in benches]
            for rows in zip(*columns, strict=True):
                what, goal, _ = rows[0]
                print(f"| {what} | {goal} | {' | '.join(found for _, _, found in rows)} |", flush=True)
            took = time.monotonic() - began
            print(f"{part}: {took:.0f} s, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
