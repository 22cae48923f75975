"""How early a streamed synthesis is heard: the first byte against the whole, and whether a player would run dry.

    .venv/bin/python -m bench.streaming [--sentence-seconds 0.5] [--repeats 3]

Starts `quickstart` for each engine on a data folder of its own: the built-in one, and GPT-SoVITS as a fake server that
works `--sentence-seconds` on every sentence. Prints medians: seconds to the first byte of audio, to the end of the
stream, to the answer without a stream; first byte over whole; and how long a player that starts with the first byte
would have to wait later on. Needs requirements-dev.txt. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tests.fakes.gptsovits import FakeGptSovits

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "voiceproject" / "samples" / "reference.flac"
SENTENCE = "The morning train was late again, so we walked along the river and talked about the winter. "
TEXTS = {
    "1 sentence": SENTENCE.strip(),
    "4 sentences": (SENTENCE * 4).strip(),
    "12 sentences": (SENTENCE * 12).strip(),
}
WAV_HEADER_BYTES = 44


@contextmanager
def serving(folder: Path, **settings: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The base URL of a running server, and the headers with its key."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "log"
    environment = {**os.environ, "DATA_DIR": str(folder / "data"), "ENV_FILE": os.devnull, **settings}
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "manage.py", "quickstart", "--port", str(port), "--no-worker"],
            cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    base = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 120
        while "Ctrl-C ends everything" not in log.read_text():  # Printed once /health answers.
            if time.monotonic() > until or server.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.2)
        yield base, {"X-API-Key": re.findall(r"vck_[\w-]{40,}", log.read_text())[0]}
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


def ask(base: str, headers: dict[str, str], text: str, stream: bool) -> tuple[float, float, float]:
    """Seconds to the first audio and to the end, and how long a player would have waited in between."""
    began = time.monotonic()
    response = requests.post(
        f"{base}/api/v1/voice/synthesize", headers=headers, data={"text": text, "stream": str(stream).lower()},
        files={"reference_audio": REFERENCE.read_bytes()}, stream=True, timeout=600,
    )  # fmt: skip
    response.raise_for_status()
    bytes_per_second = 2 * int(response.headers["X-Audio-Sample-Rate"])
    size, first, dry = 0, 0.0, 0.0
    for block in response.iter_content(None):
        now = time.monotonic() - began
        if size + len(block) <= WAV_HEADER_BYTES:
            size += len(block)
            continue
        if not first:
            first = now
        dry = max(dry, now - first - max(0, size - WAV_HEADER_BYTES) / bytes_per_second)
        size += len(block)
    return first, time.monotonic() - began, dry


def measure(engine: str, base: str, headers: dict[str, str], repeats: int) -> None:
    ask(base, headers, "Good morning.", False)  # loads what is loaded once
    for name, text in TEXTS.items():
        streamed = [ask(base, headers, text, True) for _ in range(repeats)]
        whole = statistics.median(ask(base, headers, text, False)[1] for _ in range(repeats))
        first, end, dry = (statistics.median(column) for column in zip(*streamed, strict=True))
        print(
            f"| {engine} | {name} | {first:.2f} | {end:.2f} | {whole:.2f} | {first / whole:.2f} | {dry:.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentence-seconds", type=float, default=0.5)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print("| engine | text | first byte (s) | end of stream (s) | without stream (s) | first / without | dry (s) |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as (base, headers):
        measure("builtin", base, headers, options.repeats)
    with (
        FakeGptSovits(seconds=options.sentence_seconds) as fake,
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), SOVITS_BASE_URL=fake.url) as (base, headers),
    ):
        measure(f"gptsovits, {options.sentence_seconds:g} s a sentence", base, headers, options.repeats)


if __name__ == "__main__":
    main()
