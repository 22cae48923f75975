"""Measures what commands that stay between jobs gain over one process a job: jobs per minute, in turn, in one run.

    python -m bench.resident [--jobs 8] [--load 3] [--work 1] [--only loading|separate|infer]

`loading` is a script that computes for 3 s before its first job, as loading a model would take, and for 1 s in each.
`separate` and `infer` are the built-in engine's own scripts on 5 s of audio, which load nothing but libraries.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile as sf

from voiceproject.commands import resident, runner
from voiceproject.commands.template import CommandTemplate, child_environment

RATE = 44_100
PLACEHOLDERS = frozenset({"python_exec", "folder"})


def voice(seconds: float, pitch_hz: float) -> np.ndarray:
    """float (n,): a buzz with the rhythm of syllables."""
    t = np.arange(round(seconds * RATE)) / RATE
    buzz = sum(np.sin(2 * np.pi * pitch_hz * k * t) / k for k in range(1, 15))
    return 0.2 * buzz * (0.55 + 0.45 * np.sin(2 * np.pi * 3 * t))


def song(seconds: float = 5.0) -> np.ndarray:
    """float (n, 2): a voice in the middle, and a chord at both sides."""
    t = np.arange(round(seconds * RATE)) / RATE
    chords = [sum(np.sin(2 * np.pi * hz * t) for hz in chord) for chord in ((131, 165, 196), (262, 330, 392))]
    return np.stack([voice(seconds, 220) + 0.1 * chord for chord in chords], axis=1)


def measure(name: str, template: str, jobs: int, folder: Path) -> None:
    parsed = CommandTemplate(template, PLACEHOLDERS)
    values = {"python_exec": sys.executable, "folder": str(folder)}
    argv, serving = parsed.argv(values), parsed.serving(values, frozenset({"python_exec"}))
    options = {"cwd": folder, "env": child_environment(folder), "deadline_seconds": 600.0, "poll_seconds": 0.1}
    pool = resident.Pool(folder, max_children=1, max_jobs=1000, idle_seconds=600)
    seconds: dict[str, list[float]] = {"process a job": [], "resident": []}
    ways: dict[str, Callable[[], object]] = {
        "process a job": lambda: runner.run(argv, **options),
        "resident": lambda: pool.run(argv, serving, **options),
    }
    try:
        for _ in range(jobs):
            for way, run in ways.items():
                started = time.monotonic()
                run()
                seconds[way].append(time.monotonic() - started)
    finally:
        pool.close()
    rates = {way: 60 * len(taken) / sum(taken) for way, taken in seconds.items()}
    for way, taken in seconds.items():
        first, median = taken[0], statistics.median(taken)
        print(f"{name:10}{way:15}{rates[way]:7.1f} jobs/min   first {first:.2f} s, median {median:.2f} s", flush=True)
    print(f"{name:10}ratio {rates['resident'] / rates['process a job']:.2f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--load", type=float, default=3.0)
    parser.add_argument("--work", type=float, default=1.0)
    parser.add_argument("--only", choices=("loading", "separate", "infer"))
    options = parser.parse_args()
    script = Path(__file__).with_name("engines") / "resident_script.py"
    templates = {
        "loading": f"{{python_exec}} {script} --output {{folder}}/out --load {options.load} --work {options.work}",
        "separate": "{python_exec} gpu_scripts/builtin_separate.py --input {folder}/song.wav --vocal {folder}/v.wav "
        "--inst {folder}/i.wav",
        "infer": "{python_exec} gpu_scripts/builtin_infer.py --reference {folder}/voice.wav --input {folder}/vocal.wav "
        "--output {folder}/o.wav --pitch 0",
    }
    with tempfile.TemporaryDirectory() as folder:
        sf.write(f"{folder}/song.wav", song(), RATE)
        sf.write(f"{folder}/vocal.wav", voice(5.0, 220), RATE)
        sf.write(f"{folder}/voice.wav", voice(4.0, 120), RATE)
        for name, template in templates.items():
            if options.only in (None, name):
                measure(name, template, options.jobs, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
