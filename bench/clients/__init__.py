"""Clients that others' generators make of our OpenAPI document, against a live server. `python -m bench.clients`."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SAMPLES = ROOT / "voiceproject" / "samples"


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, str]]:
    """(base URL, key) of a quickstart that ends with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    base, log = f"http://127.0.0.1:{port}", folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "quickstart", "--port", str(port)],
            cwd=ROOT, env={**os.environ, "DATA_DIR": str(folder / "data"), "ENV_FILE": os.devnull},
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while "Ctrl-C ends everything" not in log.read_text():  # Printed once /health answers.
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(log.read_text())
            time.sleep(0.3)
        yield base, re.findall(r"vck_[\w-]{40,}", log.read_text())[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
