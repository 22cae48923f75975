"""Clients that others' generators make of our OpenAPI document speak and make a cover against a live server.

    python -m bench.clients [--tools DIR] [--only python|typescript]

Starts `quickstart` in a folder of its own, takes /openapi.json from it, generates a client with openapi-python-client
(from PyPI, in a virtual environment of its own) and one with @hey-api/openapi-ts (from npm), compiles both (mypy
--strict on the use of the first, tsc --strict on the second), and has each synthesise a sentence, cover ten seconds of
the sample song, download the result, and meet an error. What comes back has to be audio of the right length.

--tools: where the generators are installed, and found again next time. They need 120 MB and are no part of the product.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import soundfile as sf

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "voiceproject" / "samples"
PYTHON_TOOLS = ("openapi-python-client==0.29.1", "mypy==2.4.1", "ruff==0.17.6")
NPM_TOOLS = ("@hey-api/openapi-ts@0.99.0", "typescript@5.9.3", "@types/node@20.19.43")
PYTHON_USE = """
import importlib, io, pkgutil, sys, time
from pathlib import Path
import httpx
import voiceclient
from voiceclient import AuthenticatedClient
from voiceclient.api.cover import create_cover, get_cover, get_cover_result
from voiceclient.api.voice import synthesize
from voiceclient.models import CoverJob, CreateCoverRequest, Error, SynthesizeRequest
from voiceclient.types import File

for module in pkgutil.walk_packages(voiceclient.__path__, "voiceclient."):
    importlib.import_module(module.name)  # Each operation is one of its own, and not all are used below.

base, key, song, reference, folder = sys.argv[1:]

def file(path: str) -> File:
    return File(payload=io.BytesIO(Path(path).read_bytes()), file_name=Path(path).name)

client = AuthenticatedClient(base_url=base, token=key, timeout=httpx.Timeout(600))
said = synthesize.sync_detailed(
    client=client, body=SynthesizeRequest(text="Made by a generated client.", reference_audio=file(reference))
)
assert said.status_code == 200, said.content
Path(folder, "said.wav").write_bytes(said.content)
job = create_cover.sync(
    client=client, body=CreateCoverRequest(song=file(song), reference_voice=file(reference), preview_seconds=10)
)
assert isinstance(job, CoverJob), job
while job.status in ("queued", "running"):
    time.sleep(0.5)
    found = get_cover.sync(job.job_id, client=client, prefer="wait=30")
    assert isinstance(found, CoverJob), found
    job = found
assert job.status == "succeeded", job.error_message
result = get_cover_result.sync_detailed(job.job_id, client=client)
assert result.status_code == 200
Path(folder, "cover.wav").write_bytes(result.content)
refused = create_cover.sync(
    client=client, body=CreateCoverRequest(song=file(song), reference_voice=file(reference), preview_seconds=3)
)
assert isinstance(refused, Error) and refused.error == "validation_error", refused
assert "preview_seconds" in refused.details.additional_properties
"""

TYPESCRIPT_USE = """
import { readFileSync, writeFileSync } from 'node:fs';
import { createClient } from './client/client';
import { createCover, getCover, getCoverResult, synthesize } from './client';

const [base, key, songPath, referencePath, folder] = process.argv.slice(2) as [string, string, string, string, string];
const file = (path: string) => new File([readFileSync(path)], path.split('/').pop()!);

async function main(): Promise<void> {
  const client = createClient({ baseUrl: base, auth: key });
  const said = await synthesize({
    client,
    body: { text: 'Made by a generated client.', reference_audio: file(referencePath) },
    parseAs: 'arrayBuffer',
  });
  if (said.error !== undefined) throw new Error(said.error.message);
  writeFileSync(`${folder}/said.wav`, Buffer.from(said.data as unknown as ArrayBuffer));

  const created = await createCover({
    client,
    body: { song: file(songPath), reference_voice: file(referencePath), preview_seconds: 10 },
  });
  if (created.error !== undefined) throw new Error(created.error.message);
  let job = created.data;
  while (job.status === 'queued' || job.status === 'running') {
    const found = await getCover({ client, path: { id: job.job_id }, headers: { Prefer: 'wait=30' } });
    if (found.error !== undefined) throw new Error(found.error.message);
    job = found.data;
  }
  if (job.status !== 'succeeded') throw new Error(job.error_message ?? job.status);
  const result = await getCoverResult({ client, path: { id: job.job_id }, parseAs: 'arrayBuffer' });
  if (result.error !== undefined) throw new Error(result.error.message);
  writeFileSync(`${folder}/cover.wav`, Buffer.from(result.data as unknown as ArrayBuffer));

  const refused = await createCover({
    client,
    body: { song: file(songPath), reference_voice: file(referencePath), preview_seconds: 3 },
  });
  if (refused.error?.error !== 'validation_error') throw new Error(JSON.stringify(refused.error));
}

main().catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});
"""
TSCONFIG = """{"compilerOptions": {
 "strict": true, "target": "es2022", "module": "commonjs", "moduleResolution": "node10", "skipLibCheck": true,
 "lib": ["es2022", "dom", "dom.iterable"], "types": ["node"], "outDir": "built"}, "files": ["use.ts"]}
"""


def do(*command: object, cwd: Path | None = None, **environment: str) -> None:
    """Runs a command; its output is shown only where it fails."""
    argv = [str(part) for part in command]
    done = subprocess.run(argv, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=900)
    if done.returncode:
        sys.exit(f"{' '.join(argv)}\n{done.stdout}\n{done.stderr}")


def install(tools: Path, which: set[str]) -> None:
    if "python" in which and not (tools / "venv" / "bin" / "openapi-python-client").exists():
        do(sys.executable, "-m", "venv", tools / "venv")
        do(tools / "venv" / "bin" / "pip", "install", "-q", *PYTHON_TOOLS)
    if "typescript" in which and not (tools / "node_modules" / ".bin" / "openapi-ts").exists():
        (tools / "package.json").write_text('{"private": true}')
        do("npm", "install", "--no-audit", "--no-fund", "--silent", *NPM_TOOLS, cwd=tools)


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


def heard(folder: Path) -> str:
    """What a client has brought home; exits where it is not what was to come."""
    cover, said = sf.info(folder / "cover.wav"), sf.info(folder / "said.wav")
    loudest = abs(sf.read(folder / "cover.wav")[0]).max()
    if (cover.samplerate, cover.channels) != (44100, 2) or abs(cover.duration - 10) > 0.01 or loudest < 0.1:
        sys.exit(f"not the cover that was asked for: {cover}")
    if not 0.5 < said.duration < 5:
        sys.exit(f"not the sentence that was asked for: {said}")
    return f"a sentence of {said.duration:.1f} s, a cover of {cover.duration:.1f} s, an error"


def file_types(document: Path) -> set[str]:
    operations = [
        operation for path in json.loads(document.read_text())["paths"].values() for operation in path.values()
    ]
    bodies = [body for operation in operations for body in operation["responses"].values()]
    files = ("audio/", "application/zip", "application/pls+xml")
    return {name for body in bodies for name in body.get("content", {}) if name.startswith(files)}


def python_client(tools: Path, folder: Path, document: Path, arguments: list[str]) -> str:
    binaries = tools / "venv" / "bin"
    # The generator takes few media types; a file is bytes to it. (JSON is YAML too.)
    config = {"content_type_overrides": dict.fromkeys(file_types(document), "application/octet-stream")}
    (folder / "config.yaml").write_text(json.dumps(config))
    (folder / "use.py").write_text(PYTHON_USE)
    path = f"{binaries}{os.pathsep}{os.environ['PATH']}"
    do(binaries / "openapi-python-client", "generate", "--path", document, "--meta", "none", "--config",
       folder / "config.yaml", "--output-path", folder / "voiceclient", "--fail-on-warning", PATH=path)  # fmt: skip
    do(binaries / "python", "-m", "compileall", "-q", folder / "voiceclient")
    do(binaries / "mypy", "--strict", "--follow-imports=silent", "use.py", cwd=folder, MYPYPATH=str(folder))
    do(binaries / "python", "use.py", *arguments, folder, cwd=folder)
    return heard(folder)


def typescript_client(tools: Path, folder: Path, document: Path, arguments: list[str]) -> str:
    binaries = tools / "node_modules" / ".bin"
    (folder / "use.ts").write_text(TYPESCRIPT_USE)
    (folder / "tsconfig.json").write_text(TSCONFIG)
    (folder / "node_modules").symlink_to(tools / "node_modules")
    do(binaries / "openapi-ts", "-i", document, "-o", folder / "client", cwd=folder)
    do(binaries / "tsc", "-p", folder, cwd=folder)
    do("node", folder / "built" / "use.js", *arguments, folder, cwd=folder)
    return heard(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=Path)
    parser.add_argument("--only", choices=("python", "typescript"))
    arguments = parser.parse_args()
    which = {arguments.only} if arguments.only else {"python", "typescript"}
    if "typescript" in which and not (shutil.which("node") and shutil.which("npm")):
        sys.exit("node and npm are needed: install them, or use --only python")
    with tempfile.TemporaryDirectory(prefix="clients-") as name:
        work = Path(name)
        tools = (arguments.tools or work / "tools").absolute()
        tools.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        install(tools, which)
        print(f"tools ready after {time.monotonic() - started:.0f} s", flush=True)
        with server(work) as (base, key):
            document = work / "openapi.json"
            document.write_bytes(urllib.request.urlopen(f"{base}/openapi.json", timeout=60).read())
            files = [base, key, str(SAMPLES / "song.ogg"), str(SAMPLES / "reference.flac")]
            for language, client in (("python", python_client), ("typescript", typescript_client)):
                if language in which:
                    started = time.monotonic()
                    (work / language).mkdir()
                    told = client(tools, work / language, document, files)
                    print(f"{language}: {told} ({time.monotonic() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
