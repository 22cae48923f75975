"""A quick stand-in for a separation or inference command, with the same kind of arguments and every bad habit.

    quick_command.py [--serve] separate INPUT VOCAL INST [HABIT]
    quick_command.py [--serve] infer INPUT OUTPUT [HABIT] [--reference FILE]

separate halves the song into both stems; infer turns the vocal upside down. HABIT: fail, silent-exit, oom, garbage,
short, refuse (tells its ids on stderr, then an expected failure), hang, stubborn (ignores SIGTERM and has a grandchild
that does), slow (about a second, with progress), fill (writes until the disk is full).

The WAV files between the product and its commands hold 32-bit floats. They are read and written here by hand: numpy and
soundfile take ten times as long to load as all of this takes.
"""

import json
import operator
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from array import array
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "gpu_scripts"))

from common import script_io


def main(argv: list[str]) -> None:
    if "--reference" in argv:  # Which the checks of a server want in the command.
        at = argv.index("--reference")
        argv = argv[:at] + argv[at + 2 :]
    kind, source, *targets = argv
    progress = script_io.Progress()
    habit = targets.pop() if len(targets) > (2 if kind == "separate" else 1) else ""
    progress(0.25)
    if habit == "fail":
        print("secret: /opt/models/x.pth is broken", file=sys.stderr)
        raise SystemExit(7)
    if habit == "silent-exit":
        return
    if habit == "oom":
        print("torch.OutOfMemoryError: CUDA out of memory", file=sys.stderr)
        raise SystemExit(1)
    if habit == "garbage":
        for target in targets:
            with open(target, "wb") as file:
                file.write(b"no audio at all")
        return
    if habit == "refuse":
        ids = {name: value for name, value in os.environ.items() if name.startswith(("VOICEPROJECT_", "TRACEPARENT"))}
        print(json.dumps(ids), file=sys.stderr)
        raise script_io.ScriptError(script_io.SILENT, "nothing is sung here")
    if habit == "fill":
        with open(targets[0], "wb") as file:
            while True:
                file.write(bytes(65536))
    if habit == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, 1); time.sleep(600)"],
                         start_new_session=True)  # fmt: skip
    if habit in ("hang", "stubborn"):
        time.sleep(600)
    if habit == "slow":
        for step in range(10):
            progress(step / 10)
            time.sleep(0.1)
    samples, channels, rate = read(source)
    if habit == "short":
        samples = samples[: len(samples) // channels // 4 * channels]
    if kind == "separate":
        write(targets[0] + ".part", map((0.5).__mul__, samples), channels, rate)
        for target in targets[1:]:
            shutil.copyfile(targets[0] + ".part", target + ".part")
        for target in targets:
            shutil.move(target + ".part", target)
    else:
        write(targets[0], map(operator.neg, samples), channels, rate)
    script_io.warn("quick and untrue")
    progress(1)


def read(path: str) -> tuple[array, int, int]:
    """The samples, interleaved, of how many channels, and their rate."""
    content = Path(path).read_bytes()
    assert (content[:4], content[8:12]) == (b"RIFF", b"WAVE"), path
    chunks, at = {}, 12
    while at < len(content):
        name, size = struct.unpack_from("<4sI", content, at)
        chunks[name] = content[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunks[b"fmt "])
    assert (kind, bits) == (3, 32), f"{path} has format {kind} with {bits} bits"
    return array("f", chunks[b"data"]), channels, rate


def write(path: str, samples: Iterable[float], channels: int, rate: int) -> None:
    data = array("f", samples).tobytes()
    about = struct.pack("<HHIIHH", 3, channels, rate, rate * channels * 4, channels * 4, 32)
    with open(path, "wb") as file:
        file.write(struct.pack("<4sI4s4sI", b"RIFF", 28 + len(data) + 8, b"WAVE", b"fmt ", len(about)) + about)
        file.write(struct.pack("<4sI", b"data", len(data)) + data)


if __name__ == "__main__":
    script_io.run(main)
