"""A stand-in for an engine's script that serves, on the real script_io, with every bad habit.

    serving_command.py [--serve] --output OUT.json [--habit HABIT] [--load SECONDS] [--work SECONDS]

Writes what it knows of itself into OUT.json: its pid, the number of jobs that the process has had, working directory,
TMPDIR, REQUEST_ID. --load: how long it computes before its first job, as a model's loading would; --work: before each.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "gpu_scripts"))

from common import audio, script_io

print("a banner without an end, from a library that is imported", end="")
jobs = 0
others: list[subprocess.Popen[bytes]] = []


def compute(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(10_000))


def hang(ready: str) -> None:
    with open(ready, "a") as file:
        file.write(f"{os.getpid()}\n")
    while True:
        time.sleep(60)


def main(argv: list[str]) -> None:
    global jobs
    parser = script_io.OneLineParser()
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--habit", default="")
    parser.add_argument("--load", type=float, default=0.0)
    parser.add_argument("--work", type=float, default=0.0)
    arguments = parser.parse_args(argv)
    if jobs == 0:
        compute(arguments.load)
    jobs += 1
    compute(arguments.work)
    habit(arguments)
    facts = {"pid": os.getpid(), "jobs": jobs, "cwd": os.getcwd(), "tmpdir": os.environ["TMPDIR"]}
    facts |= {"request": os.environ.get("REQUEST_ID"), "serve": sys.argv[1:]}
    facts |= {"job": os.environ.get("VOICEPROJECT_JOB_ID"), "trace": os.environ.get("TRACEPARENT")}
    arguments.output.write_text(json.dumps(facts))


def habit(arguments: argparse.Namespace) -> None:
    ready = f"{arguments.output}.ready"
    answers = script_io._server._answers if script_io._server else sys.stdout.buffer
    match arguments.habit:
        case "tell":
            progress = script_io.Progress()
            for fraction in (0.25, 0.5, 0.4, 1.0):
                progress(fraction)
                time.sleep(0.1)
            script_io.warn("The song is mono.\nVery.")
            print("WARNING from a library", file=sys.stderr)
        case "print":
            print('{"id": "x", "done": true}', flush=True)
            os.write(1, b"raw " * 100_000)
            subprocess.run(["echo", "from a child"], check=True)
            assert sys.stdin.read() == ""
            assert subprocess.run(["cat"], capture_output=True, check=True).stdout == b""
            for line in (b"no JSON", b"{", b"[" * 50_000, b"{" * 70_000, b"\xff\x00", b"[]", b"{}", b"7",
                         b'{"id": "x", "done": true, "exit_code": 1}'):  # fmt: skip
                answers.write(line + b"\n")
            for value in ("NaN", "Infinity", "-1", "1e999", '"0.5"', "null", "[]", "9" * 5000):
                script_io._server and answers.write(
                    f'{{"id": "{script_io._server.job_id}", "progress": {value}}}\n'.encode()
                )
            answers.flush()
        case "noise":
            block = b"noise " * 174_763
            for _ in range(1000):
                os.write(2, block)
            os.write(2, b"and the end")
        case "fail":
            raise script_io.ScriptError(4, "nothing is sung")
        case "argue":
            script_io.OneLineParser(prog="script").error("that is no pitch")
        case "crash":
            print("about to crash", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        case "crash later" if jobs > 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        case "break":
            raise LookupError("no such layer")
        case "memory":
            raise MemoryError
        case "memory later" if jobs > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        case "memory while another lives":
            if Path(f"{arguments.output}.other").exists():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(Path(f"{arguments.output}.other").read_text()), 0)
                    raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        case "leave":
            os._exit(0)
        case "close":
            answers.close()
            hang(ready)
        case "hang":
            hang(ready)
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            code = (
                "import os, signal, sys, time; signal.signal(15, 1); open(sys.argv[1], 'a').write(f'{os.getpid()}\\n')"
            )
            others.append(
                subprocess.Popen([sys.executable, "-c", f"{code}; time.sleep(600)", ready], start_new_session=True)
            )
            hang(ready)
        case "half":
            with audio.wav_writer(arguments.output.with_suffix(".wav"), 44_100, 1) as wav:
                wav.write([0.0] * 1000)
                hang(ready)
        case "fill":
            while True:
                with open("filler", "ab") as file:
                    file.write(bytes(100_000))
                time.sleep(0.01)
        case "fill its own":
            Path(os.environ["TMPDIR"], "filler").write_bytes(bytes(2_000_000))
        case "wait":
            until = time.monotonic() + 60
            Path(ready).touch()
            while not arguments.output.with_suffix(".go").exists() and time.monotonic() < until:
                time.sleep(0.01)


if __name__ == "__main__":
    script_io.run(main)
