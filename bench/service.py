"""What the running service costs, end to end: a cover and a long text, as a client sends them.

    .venv/bin/python -m bench.service [--song-seconds 180] [--characters 5000]

Starts `quickstart` on a data folder of its own and prints, for each, wall time over audio time (RTF) and the peak
resident memory of the largest process. Needs nothing beyond requirements.txt. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import requests
import soundfile as sf

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "voiceproject" / "samples"
TEXT = "The morning train was late again, so we walked along the river and talked about the winter. "


class PeakMemory(threading.Thread):
    """Largest VmHWM (MB) of any process whose environment holds a mark, by its command's name."""

    def __init__(self, mark: str) -> None:
        super().__init__(daemon=True)
        self.mark = mark.encode()
        self.peaks: dict[str, float] = {}
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.2):
            for entry in Path("/proc").glob("[0-9]*"):
                try:
                    if self.mark not in (entry / "environ").read_bytes():
                        continue
                    arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    status = (entry / "status").read_text()
                except OSError:
                    continue
                found = re.search(r"VmHWM:\s+(\d+) kB", status)
                if found:
                    name = name_of(arguments)
                    self.peaks[name] = max(self.peaks.get(name, 0.0), int(found[1]) / 1024)


def name_of(arguments: list[str]) -> str:
    interesting = [Path(part).name if "/" in part else part for part in arguments[1:] if part and part[0] != "-"]
    return " ".join(interesting[:1]) or Path(arguments[0]).name


def long_song(path: Path, seconds: float) -> None:
    """The sample song again and again, each time a little different, so that nothing repeats exactly."""
    samples, rate = sf.read(SAMPLES / "song.ogg", dtype="float32", always_2d=True)
    generator = np.random.default_rng(1)
    with sf.SoundFile(path, "w", rate, samples.shape[1], format="WAV", subtype="PCM_16") as file:
        left = round(seconds * rate)
        while left > 0:
            speed = generator.uniform(0.94, 1.06)
            places = np.arange(0, len(samples) - 1, speed)
            piece = np.stack([np.interp(places, np.arange(len(samples)), side) for side in samples.T], axis=1)
            piece = (piece * generator.uniform(0.7, 1.0))[:left]
            file.write(piece)
            left -= len(piece)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--song-seconds", type=float, default=180)
    parser.add_argument("--characters", type=int, default=5000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        log = Path(folder, "log")
        environment = {**os.environ, "DATA_DIR": f"{folder}/data", "ENV_FILE": os.devnull, "XDG_CACHE_HOME": folder}
        # Commands of a job see only a short list of variables; XDG_CACHE_HOME is one of them, and marks them here.
        mark = f"XDG_CACHE_HOME={folder}"
        with log.open("wb") as output:
            server = subprocess.Popen(
                [sys.executable, "manage.py", "quickstart", "--port", str(port)],
                cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            measure(f"http://127.0.0.1:{port}", log, mark, Path(folder), options)
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)


def measure(base: str, log: Path, mark: str, folder: Path, options: argparse.Namespace) -> None:
    started = time.monotonic()
    while "Ctrl-C ends everything" not in log.read_text():  # Printed once /health answers.
        if time.monotonic() - started > 120:
            raise SystemExit(log.read_text())
        time.sleep(0.2)
    headers = {"X-API-Key": re.findall(r"vck_[\w-]{40,}", log.read_text())[0]}
    reference = (SAMPLES / "reference.flac").read_bytes()

    def speak(text: str) -> tuple[float, float]:
        began = time.monotonic()
        response = requests.post(
            f"{base}/api/v1/voice/synthesize", headers=headers, data={"text": text}, timeout=3600,
            files={"reference_audio": reference},
        )  # fmt: skip
        response.raise_for_status()
        return time.monotonic() - began, float(response.headers["X-Audio-Duration"])

    print("| what | audio s | wall s | RTF | largest process |\n|---|---|---|---|---|")
    memory = PeakMemory(mark)
    memory.start()
    for what, text in (
        ("first sentence after the start", TEXT),
        ("a sentence", TEXT),
        (f"{options.characters} characters", (TEXT * (options.characters // len(TEXT) + 1))[: options.characters]),
    ):
        if text:
            show(what, *speak(text), memory)
    if options.song_seconds:
        song = folder / "song.wav"
        long_song(song, options.song_seconds)
        for what in (f"a cover of {options.song_seconds:g} s of stereo", "the same song again, its stems kept"):
            began = time.monotonic()
            with song.open("rb") as file:
                files = {"song": file, "reference_voice": reference}
                job = requests.post(f"{base}/api/v1/cover/jobs", headers=headers, files=files, timeout=300)
            job.raise_for_status()
            state = job.json()
            while state["status"] in ("queued", "running"):
                time.sleep(0.25)
                state = requests.get(state["links"]["self"], headers=headers, timeout=60).json()
            if state["status"] != "succeeded":
                raise SystemExit(f"the cover {state['status']}: {state['error']}")
            show(what, time.monotonic() - began, options.song_seconds, memory)
    memory.done.set()


def show(what: str, wall: float, seconds: float, memory: PeakMemory) -> None:
    time.sleep(0.3)
    name, peak = max(memory.peaks.items(), key=lambda item: item[1])
    print(f"| {what} | {seconds:.1f} | {wall:.1f} | {wall / seconds:.2f} | {name}, {peak:.0f} MB |", flush=True)
    memory.peaks.clear()


if __name__ == "__main__":
    main()
