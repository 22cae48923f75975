"""How the command-line scripts talk to their caller: progress, warnings, exit codes, and the two ways to run: one job
from the command line, or with `--serve` job after job from stdin (see `run`).

Only the standard library is imported here, so that a script can call `limit_threads` before numpy is loaded.
"""

from __future__ import annotations

import argparse
import errno
import gc
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, BinaryIO, NoReturn

# onnxruntime, which some engines load, would tell its maker of each start and model.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

UNEXPECTED = 1
BAD_ARGUMENTS = 2
UNREADABLE = 3
SILENT = 4
BAD_REFERENCE = 5
UNWRITABLE = 6
OUT_OF_MEMORY = 7  # the computer's or the GPU's
NO_CUDA = 8
NO_WEIGHTS = 9
UNKNOWN_MODEL = 10
ENGINE_FAILED = 11
UNSPEAKABLE = 12
NO_LYRICS = 13  # no recogniser, and no lyrics either
MISSING_PACKAGE = 14  # of this interpreter
DATASET_REFUSED = 15  # of the scripts that train, as the next two
NONE_BETTER = 16  # no checkpoint is better than the base
NOT_FINITE = 17  # the loss, or the weights
DISK_FULL = 18

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)  # what an OSError says then

SERVE = "--serve"


class ScriptError(Exception):
    """An expected failure: `exit_code` for the caller, one line for whoever reads stderr."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line and exits with 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_ARGUMENTS, f"{self.prog}: {message}\n")


def limit_threads(arguments: list[str], default: int = 2) -> int:
    """Holds BLAS and OpenMP to the number after --threads; it has to be called before numpy is imported."""
    parser = OneLineParser(add_help=False)
    parser.add_argument("--threads", type=int, default=default)
    threads = max(1, parser.parse_known_args(arguments)[0].threads)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        os.environ[name] = str(threads)
    return threads


def require_packages(*names: str) -> None:
    """Raises ScriptError (14)."""
    for name in names:
        try:
            __import__(name)
        except ImportError as error:
            raise ScriptError(MISSING_PACKAGE, f"{sys.executable} cannot import {name}: {error}") from error


class Progress:
    """Tells how far the job is: a fraction that never falls, at most once for each hundredth, the last one 1.

    One job: a line `PROGRESS 0.42` on what is stdout when this is made, whatever foreign code puts in its place. In a
    server: `{"id": "...", "progress": 0.42}`.
    """

    def __init__(self) -> None:
        self._told = -1
        self._out = sys.stdout

    def __call__(self, fraction: float) -> None:
        hundredths = int(100 * min(max(fraction, 0.0), 1.0) + 1e-9)
        if hundredths <= self._told:
            return
        self._told = hundredths
        if _server is not None:
            _server.tell(progress=hundredths / 100)
        else:
            print(f"PROGRESS {hundredths / 100:g}", file=self._out, flush=True)


def warn(message: str) -> None:
    """For the person who gets the result: a line `WARNING ...` on stderr, in a server `{"id": ..., "warning": ...}`."""
    if _server is not None:
        _server.tell(warning=message)
    else:
        print(f"WARNING {message}", file=sys.stderr, flush=True)


def separation(facts: dict[str, Any]) -> None:
    """What a separator found, for the caller: a line `SEPARATION {json}` on stdout, in a server `{"id": ...,
    "separation": {...}}`. At most 240 characters, since callers cut long lines."""
    if _server is not None:
        _server.tell(separation=facts)
    else:
        print(f"SEPARATION {json.dumps(facts, separators=(',', ':'))}", flush=True)


class _Ended(SystemExit):
    """SIGTERM or SIGINT came: unlike another SystemExit, this one ends a server too."""


def _end(number: int, frame: FrameType | None) -> None:
    raise _Ended(128 + number)


def run(main: Callable[[list[str]], None]) -> NoReturn:
    """Runs a script whose `main` takes the arguments of one job (without the script's name).

    Once, with those of the command line: SIGTERM and SIGINT unwind it, so that unfinished files go; a ScriptError is
    one line on stderr and its exit code; out of memory is exit code 7.

    With `--serve` among them, job after job in this one process, so that what `main` keeps (a model in a variable of
    its module) is loaded once. stdin has a JSON object a line: `{"id": "7", "argv": ["--input", "a.wav"]}`, where
    argv is what the command line of that job alone would have; optional are `"env"` (variables of this job alone, such
    as VOICEPROJECT_REQUEST_ID), `"request_id"` (REQUEST_ID in the environment) and `"cwd"`. stdout has `{"ready":
    true}` first, then of each job `{"id": "7", "progress": 0.42}`, `{"id": "7", "warning": "..."}`, `{"id": "7",
    "separation": {...}}` and at its end `{"id": "7", "done": true, "exit_code": 0}`, with a one-line `"message"` unless
    that is 0. What else is printed, by
    whomever, goes to stderr. The process ends when stdin does, and after a job that broke in an unexpected way or ran
    out of memory, since nobody knows what that left behind: its end says `"last": true`. The other arguments of the
    command line are for what has to be known before anything is loaded, such as `--threads`; `main` never sees them.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    if SERVE in sys.argv[1:]:
        _serve(main)
        sys.exit(0)
    code, message, _ = _run_job(main, sys.argv[1:])
    if message:
        print(message + _identity(), file=sys.stderr, flush=True)
    sys.exit(code)


def _identity() -> str:
    """` request_id=... job=...` behind a line for operators, by which it is found beside the worker's own log lines."""
    named = (("request_id", "VOICEPROJECT_REQUEST_ID"), ("job", "VOICEPROJECT_JOB_ID"))
    return "".join(f" {name}={os.environ[variable]}" for name, variable in named if os.environ.get(variable))


def _run_job(main: Callable[[list[str]], None], argv: list[str]) -> tuple[int, str, bool]:
    """(exit code, one line for stderr or nothing, whether the process is still good for another job)."""
    try:
        main(argv)
    except _Ended:
        raise
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0, "", True
        return UNEXPECTED, _one_line(error.code), True
    except ScriptError as error:
        return error.exit_code, _one_line(error), error.exit_code != OUT_OF_MEMORY
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return DISK_FULL, f"the disk is full: {_one_line(error)}", False
        if isinstance(error, MemoryError) or re.search(r"OutOfMemory|out of memory", f"{type(error)} {error}"):
            return OUT_OF_MEMORY, "out of memory" if not str(error) else f"out of memory: {_one_line(error)}", False
        traceback.print_exc()
        return UNEXPECTED, _one_line(f"{type(error).__name__}: {error}"), False
    return 0, "", True


def _one_line(message: object) -> str:
    return " ".join(str(message).split())[:1000]


class _Server:
    """The answers of a process that serves, and the job that it is at."""

    def __init__(self, answers: BinaryIO) -> None:
        self._answers = answers
        self.job_id = ""

    def tell(self, **facts: Any) -> None:
        line = json.dumps({"id": self.job_id, **facts} if self.job_id else facts)
        self._answers.write(line.encode() + b"\n")
        self._answers.flush()


_server: _Server | None = None


def _serve(main: Callable[[list[str]], None]) -> None:
    global _server
    jobs, answers = _private_streams()
    _server = _Server(answers)
    _server.tell(ready=True)
    folder = os.getcwd()
    for line in jobs:
        job = json.loads(line)
        _server.job_id = job["id"]
        given = {"REQUEST_ID": job.get("request_id", ""), **job.get("env", {})}
        os.environ.update(given)
        os.chdir(job.get("cwd", folder))
        code, message, good = _run_job(main, job["argv"])
        if message:
            print(message + _identity(), file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        for name in given:
            os.environ.pop(name, None)
        _free_memory()
        ending = (
            {"exit_code": code}
            | ({"message": message or f"it exited with status {code}"} if code else {})
            | ({} if good else {"last": True})
        )
        _server.tell(done=True, **ending)
        _server.job_id = ""
        if not good:
            return
        os.chdir(folder)  # the job's own may be removed now


def _private_streams() -> tuple[BinaryIO, BinaryIO]:
    """stdin and stdout for the protocol alone: what anybody prints from here on, a library in C and a child process
    too, goes to stderr, and whoever reads stdin finds it empty."""
    sys.stdout.flush()
    jobs, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return open(jobs, "rb"), open(answers, "wb")


def _free_memory() -> None:
    """Gives back what the job no longer needs; other processes are on the same GPU."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
