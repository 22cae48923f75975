"""A quick stand-in for a separation or inference command, with the same kind of arguments and every bad habit.

    quick_command.py [--serve] separate INPUT VOCAL INST [HABIT]
    quick_command.py [--serve] infer INPUT OUTPUT [HABIT] [--reference FILE]

separate halves the song into both stems; infer turns the vocal upside down. HABIT: fail, silent-exit, oom, garbage,
short, refuse (tells its ids on stderr, then an expected failure), hang, stubborn (ignores SIGTERM and has a grandchild
that does), slow (about a second, with progress), fill (writes until the disk is full).
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import soundfile as sf

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
    samples, rate = sf.read(source, dtype="float32", always_2d=True)
    if habit == "short":
        samples = samples[: len(samples) // 4]
    if kind == "separate":
        for target in targets:
            sf.write(target + ".part", samples / 2, rate, format="WAV", subtype="FLOAT")
            shutil.move(target + ".part", target)
    else:
        sf.write(targets[0], -samples, rate, subtype="FLOAT")
    script_io.warn("quick and untrue")
    progress(1)


if __name__ == "__main__":
    script_io.run(main)
