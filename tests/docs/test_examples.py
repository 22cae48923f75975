"""Every example of the README and of docs/, as a reader would paste it: each page from top to bottom, in one shell.

Replaced are the address, the key and a receiver's port. The reader stands in a checkout, with a recording and a song.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from tests.docs.blocks import PAGES, ROOT, Block, blocks
from tests.support.audio import decode
from tests.support.missing import needs
from tests.support.running.forked import run_forked
from tests.support.running.quickstart import SAMPLES, Quickstart
from tests.support.running.servers import free_port

ADDRESS = "localhost:8000"
KEY = "your-api-key"
RECEIVER = "9000"  # its port
RUN = ("bash", "python", "javascript")
SHOWN = ("json", "dotenv", "text")
# How many examples of each page are marked as not run. A new one is counted here, with its reason on the page.
NOT_RUN = {
    "elevenlabs-clients.md": 1,
    "CONTRIBUTING.md": 2,
    "deployment.md": 4,
    "gpt-sovits.md": 2,
    "jobs-and-webhooks.md": 1,
    "keys-and-quotas.md": 1,
    "operations.md": 2,
    "training-scripts.md": 3,
    "training.md": 1,
}
# The two commands that the README and the quickstart page lead with; .ci/run runs them as they stand.
COMMANDS = blocks(ROOT / "README.md")[0].code.splitlines()
WITH_EXAMPLES = [page for page in PAGES if any(block.language in RUN for block in blocks(page))]


def is_run(block: Block) -> bool:
    return block.language in RUN and not block.not_run and not set(block.code.splitlines()) <= set(COMMANDS)


class Reader:
    """Somebody who follows a page from top to bottom, in a folder that looks like a checkout."""

    def __init__(self, server: Quickstart, folder: Path, environment: dict[str, str]) -> None:
        self.server = server
        self.folder = folder
        self.replaced = {
            ADDRESS: server.base.removeprefix("http://"),
            RECEIVER: str(free_port()),
            KEY: server.key,
        }
        self.environment = environment

    def adapted(self, code: str) -> str:
        for name, value in self.replaced.items():
            code = code.replace(name, value)
        return code

    def script(self, page: Path) -> str:
        """One shell script of all blocks that are run; those in other languages are files beside it."""
        lines = ["set -euo pipefail"]
        for number, block in enumerate(block for block in blocks(page) if is_run(block)):
            lines.append(f"echo '--- {page.name}:{block.line}' >&2")
            if block.language == "bash":
                lines.append(self.adapted(block.code))
            else:
                ending, program = {"python": (".py", "python"), "javascript": (".mjs", "node")}[block.language]
                file = self.folder / f"{page.stem}-{number}{ending}"
                file.write_text(self.adapted(block.code))
                lines.append(f"{program} {file.name}")
        return "\n".join(lines)

    def follow(self, page: Path) -> None:
        # A page may leave a process behind it, such as a receiver.
        script = f"trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{self.script(page)}\n"
        (self.folder / "page.sh").write_text(script)
        done = subprocess.run(
            ["bash", "page.sh"], cwd=self.folder, capture_output=True, text=True, timeout=300, env=self.environment
        )
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quickstart]:
    # Receivers of webhooks may be on this machine, as the page about them has it.
    allowed = {"WEBHOOK_ALLOW_HTTP": "true", "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8"}
    server = Quickstart(tmp_path_factory.mktemp("server") / "data", **allowed).ready()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has: a recording, and songs of five seconds.

    The project's own song is a short one too. tests/operations/test_quickstart.py sings all of it.
    """
    folder = tmp_path_factory.mktemp("recordings")
    samples, rate = sf.read(SAMPLES / "reference.flac")
    sf.write(folder / "reference.wav", samples, rate)
    samples, rate = sf.read(SAMPLES / "song.ogg", frames=5 * 44_100)
    sf.write(folder / "song.mp3", samples, rate)
    own = folder / "voiceproject" / "samples"
    own.mkdir(parents=True)
    (own / "reference.flac").symlink_to(SAMPLES / "reference.flac")
    sf.write(own / "song.ogg", samples, rate)
    return folder


@pytest.fixture
def reader(server: Quickstart, recordings: Path, tmp_path: Path) -> Reader:
    needs("curl")
    shutil.copytree(recordings, tmp_path, symlinks=True, dirs_exist_ok=True)
    for name in ("manage.py", "gpu_scripts", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, script in {"python": f'exec {sys.executable} "$@"', "ffplay": "cat > played.mp3"}.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    environment = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "DATA_DIR": str(server.log.parent / "data"),
        "ENV_FILE": os.devnull,
    }
    return Reader(server, tmp_path, environment)


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_do_what_it_says(page: Path, reader: Reader) -> None:
    if any(block.language == "javascript" for block in blocks(page) if is_run(block)):
        needs("node")
    reader.follow(page)
    code = "".join(block.code for block in blocks(page) if is_run(block))
    for name in re.findall(r"(?:--output|-o) ([\w.-]+)", code):
        assert (reader.folder / name).stat().st_size > 0, name
    for path in reader.folder.iterdir():
        if path.suffix in (".wav", ".mp3", ".flac", ".ogg"):
            samples, rate = decode(path.read_bytes())
            assert np.sqrt(np.mean(samples**2)) > 0.005, f"{path.name} is silent"
            assert 0.3 < len(samples) / rate < 60, f"{path.name} has {len(samples) / rate} s"


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: page.stem)
def test_what_the_server_refuses_is_shown_and_nothing_goes_on(page: Path, reader: Reader) -> None:
    for block in blocks(page):
        if not is_run(block) or "ANSWER=$(" not in block.code:
            continue
        reader.replaced[KEY] = "no-such-key"
        code = block.code.replace("KEY=$(.venv/bin/python manage.py", ": $(true")
        done = subprocess.run(
            ["bash"], input=f"KEY=no-such-key JOB={uuid.uuid4()} VOICE=x\n{reader.adapted(code)}", cwd=reader.folder,
            capture_output=True, text=True, timeout=60, env=reader.environment,
        )  # fmt: skip
        where = f"{page.name}:{block.line}"
        assert done.stdout.count("invalid_api_key") == 1, where
        assert done.stderr.count("curl: ") == 1 and "Traceback" not in done.stderr, f"{where}: {done.stderr}"
        name = re.findall(r'^([A-Z_]+)=\$\(echo "\$ANSWER"', code, re.MULTILINE)[0]
        assert f"${{{name}:?}}" not in code or f"{name}: parameter" in done.stderr, where


def test_what_is_not_run_says_why_and_is_counted() -> None:
    marked = {page.name: sum(bool(block.not_run) for block in blocks(page)) for page in PAGES}
    assert {name: count for name, count in marked.items() if count} == NOT_RUN


def test_a_mark_stands_right_before_a_block_that_would_be_run() -> None:
    for page in PAGES:
        said = page.read_text(encoding="utf-8").count("*Not run by the tests: ")
        assert said == sum(bool(block.not_run) and block.language in RUN for block in blocks(page)), page.name


def test_the_readme_leads_with_two_commands_and_the_quickstart_repeats_the_first() -> None:
    assert len(COMMANDS) == 2
    first = next(block for block in blocks(ROOT / "docs" / "quickstart.md") if block.language == "bash")
    assert first.code.splitlines() == COMMANDS[:1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_shown_is_well_formed(page: Path, tmp_path: Path) -> None:
    known = set(re.findall(r"^([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        assert block.language in (*RUN, *SHOWN, "mermaid", "{toctree}"), f"{where}: {block.language}"
        if block.language == "json":
            json.loads(block.code)
        elif block.language == "dotenv":  # An .env file: its settings are known, and the product starts with them.
            assert set(re.findall(r"^([A-Z][A-Z0-9_]+)=", block.code, re.MULTILINE)) <= known, where
            (tmp_path / ".env").write_text(block.code)
            environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path), "ENV_FILE": str(tmp_path / ".env")}
            code = "from voiceproject import settings"
            done = run_forked(code, cwd=ROOT, environment=environment, log=tmp_path / "settings")
            assert done.returncode == 0, f"{where}: {done.stderr}"
