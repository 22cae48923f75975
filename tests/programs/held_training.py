"""Runs a training's command with an environment of its own, and holds it where a stage begins.

    held_training.py ORDER.json COMMAND...

ORDER.json is read at each start: {"environment": {...}, "hold": "evaluate"}. The command is stopped (SIGSTOP) as it
tells the first progress of that stage; what it has started goes on. "" holds nowhere.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def main(order_file: str, *command: str) -> int:
    order = json.loads(Path(order_file).read_text())
    process = subprocess.Popen(command, env={**os.environ, **order["environment"]}, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        words = line.split()
        if words[:1] == ["PROGRESS"] and words[2] == order["hold"]:
            process.send_signal(signal.SIGSTOP)
            time.sleep(600)
    return process.wait()


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
