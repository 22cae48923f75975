"""A quick stand-in for a separation or inference command, with the same kind of arguments and every bad habit.

    quick_command.py separate INPUT VOCAL INST [HABIT]
    quick_command.py infer INPUT OUTPUT [HABIT]

separate halves the song into both stems; infer turns the vocal upside down. HABIT: fail, silent-exit, oom, garbage,
short, hang, stubborn (ignores SIGTERM and has a grandchild that does), slow (about a second, with progress).
"""

import shutil
import signal
import subprocess
import sys
import time

import soundfile as sf


def main() -> int:
    kind, source, *targets = sys.argv[1:]
    habit = targets.pop() if len(targets) > (2 if kind == "separate" else 1) else ""
    print("PROGRESS 0.25", flush=True)
    if habit == "fail":
        print("secret: /opt/models/x.pth is broken", file=sys.stderr)
        return 7
    if habit == "silent-exit":
        return 0
    if habit == "oom":
        print("torch.OutOfMemoryError: CUDA out of memory", file=sys.stderr)
        return 1
    if habit == "garbage":
        for target in targets:
            with open(target, "wb") as file:
                file.write(b"no audio at all")
        return 0
    if habit == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, 1); time.sleep(600)"],
                         start_new_session=True)  # fmt: skip
    if habit in ("hang", "stubborn"):
        time.sleep(600)
    if habit == "slow":
        for step in range(10):
            print(f"PROGRESS {step / 10}", flush=True)
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
    print("WARNING: quick and untrue", file=sys.stderr)
    print("PROGRESS 1", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
