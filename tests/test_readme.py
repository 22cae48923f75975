"""The README's examples, as they stand there, against a live server: curl, Python, JavaScript.

Replaced are only the address, the key, the player, and ids that an earlier example's answer has told.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
import soundfile as sf
from django.conf import settings

from tests.conftest import needs
from tests.operations.test_quickstart import SAMPLES, Quickstart
from tests.speech.test_streaming import decode

README = (Path(settings.BASE_DIR) / "README.md").read_text(encoding="utf-8")
ADDRESS = "http://localhost:8000"
# What a browser's page has of its user.
BROWSER = """
import { readFileSync } from 'node:fs';
const audioFile = new Blob([readFileSync('reference.wav')]);
const songFile = new Blob([readFileSync('song.mp3')]);
"""
AFTERWARDS = """
import { writeFileSync } from 'node:fs';
if (!response.ok) throw new Error(await response.text());
writeFileSync('from_javascript.wav', Buffer.from(await audioBlob.arrayBuffer()));
"""


def examples(*languages: str) -> list[str]:
    """The code blocks of these languages that talk to the server."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return [code for language, code in blocks if language in languages and ADDRESS in code]


class Reader:
    """Somebody who follows the README from top to bottom, in a folder of their own."""

    def __init__(self, server: Quickstart, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.ids: dict[str, str] = {}

    def adapted(self, code: str) -> str:
        code = code.replace(ADDRESS, self.server.base).replace("your-api-key", self.server.key)
        for name, value in self.ids.items():
            code = code.replace(name, value)
        return code

    def run(self, *argv: str) -> str:
        done = subprocess.run(argv, cwd=self.folder, capture_output=True, text=True, timeout=120, env=os.environ)
        assert done.returncode == 0, f"{argv[-1]}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def shell(self, block: str) -> None:
        for command in re.sub(r"\\\n\s*", "", block).splitlines():
            if "curl" not in command:
                continue
            if "JOB_ID" in command:
                self.wait()
            told = self.run("bash", "-c", 'curl() { command curl --fail-with-body -sS "$@"; }; set -eo pipefail\n'
                            + self.adapted(command).replace("ffplay -", "cat > played"))  # fmt: skip
            if told.startswith("{"):
                answer = json.loads(told)
                self.ids |= {name.upper(): str(answer[name]) for name in ("job_id", "voice_id") if answer.get(name)}

    def wait(self) -> None:
        url = f"{self.server.base}/api/v1/cover/jobs/{self.ids['JOB_ID']}"
        for _ in range(4):
            job = requests.get(url, headers={"X-API-Key": self.server.key, "Prefer": "wait=30"}, timeout=60).json()
            if job["status"] not in ("queued", "running"):
                break
        assert job["status"] == "succeeded", job


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("reader")
    samples, rate = sf.read(SAMPLES / "reference.flac")
    sf.write(folder / "reference.wav", samples, rate)
    samples, rate = sf.read(SAMPLES / "song.ogg", frames=5 * 44_100)
    sf.write(folder / "song.mp3", samples, rate)
    server = Quickstart(tmp_path_factory.mktemp("server") / "data").ready()
    yield Reader(server, folder)
    server.stop()


def seconds_of(path: Path) -> float:
    samples, rate = decode(path.read_bytes())
    assert np.sqrt(np.mean(samples**2)) > 0.01, f"{path.name} is silent"
    return len(samples) / rate


def test_the_commands_do_what_the_readme_says(reader: Reader) -> None:
    needs("curl")
    blocks = examples("bash", "sh")
    assert len(blocks) >= 3
    for block in blocks:
        reader.shell(block)
    assert 0.5 < seconds_of(reader.folder / "synthesized.wav") < 5
    assert 0.3 < seconds_of(reader.folder / "played") < 5
    song = sf.info(reader.folder / "song.mp3").duration
    assert seconds_of(reader.folder / "cover.wav") == pytest.approx(song, abs=0.06)


def test_the_python_does(reader: Reader) -> None:
    (block, *others) = examples("python")
    told = reader.run(sys.executable, "-c", reader.adapted(block))
    found = re.fullmatch(r"([\d.]+) seconds by builtin\n", told)
    assert found, told
    (reader.folder / "by_python.wav").write_bytes((reader.folder / "synthesized.wav").read_bytes())
    assert seconds_of(reader.folder / "by_python.wav") == pytest.approx(float(found[1]), abs=0.01)
    for block in others:
        reader.run(sys.executable, "-c", reader.adapted(block))


def test_the_javascript_does(reader: Reader) -> None:
    needs("node")
    (block, *others) = examples("typescript", "javascript")
    (reader.folder / "example.mjs").write_text(BROWSER + reader.adapted(block) + AFTERWARDS)
    reader.run("node", "example.mjs")
    assert 0.5 < seconds_of(reader.folder / "from_javascript.wav") < 5
    for number, block in enumerate(others):
        (reader.folder / f"{number}.mjs").write_text(BROWSER + reader.adapted(block))
        reader.run("node", f"{number}.mjs")
