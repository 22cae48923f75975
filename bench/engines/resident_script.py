"""A script in whose time loading counts, for bench.resident: it computes before its first job, and for each."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "gpu_scripts"))

from common import script_io

loaded = False


def compute(seconds: float) -> None:
    """Of this process' own time, so that a busy machine makes it slower, not easier."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        sum(range(10_000))


def main(argv: list[str]) -> None:
    global loaded
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--load", type=float, required=True)
    parser.add_argument("--work", type=float, required=True)
    arguments = parser.parse_args(argv)
    if not loaded:
        compute(arguments.load)
        loaded = True
    compute(arguments.work)
    arguments.output.write_text("done")


if __name__ == "__main__":
    script_io.run(main)
