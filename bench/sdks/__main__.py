"""The clients that people have, as they are on PyPI and npm, against a live server: a table of what works.

    python -m bench.sdks [--tools DIR] [--only python|node|apps] [--cheap]

Starts `quickstart` in a folder of its own and saves a voice. Each client runs in an environment of its own, tries what
it has, and has to get speech, or the right error. Both SDKs are also bundled into a page of another origin and used by
headless Chromium. The table is that of docs/clients.md.

--tools: where the clients are installed, and found again next time: 2 GB, or 300 MB with --cheap, which leaves out the
voice agents and litellm.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from bench.clients import SAMPLES, server
from tests.support.browser import Browser

HERE = Path(__file__).resolve().parent
# Name of the row: what is installed, and the program. The newest, and the last of each earlier major.
PYTHON = {
    "openai-python 3": (("openai==3.57.0",), "use_openai.py"),
    "openai-python 2": (("openai==2.54.0",), "use_openai.py"),
    "openai-python 1": (("openai==1.109.1",), "use_openai.py"),
    "openai-python 0": (("openai==0.28.1",), "use_openai_0.py"),
    "elevenlabs-python 2": (("elevenlabs==2.78.0",), "use_elevenlabs.py"),
    "elevenlabs-python 1": (("elevenlabs==1.59.0",), "use_elevenlabs.py"),
    "elevenlabs-python 0": (("elevenlabs==0.2.27",), "use_elevenlabs_0.py"),
}
LARGE = {
    "litellm": (("litellm==1.110.2",), "use_litellm.py"),
    "LiveKit agents": (
        ("livekit-agents==1.8.9", "livekit-plugins-elevenlabs==1.8.9", "livekit-plugins-openai==1.8.9"),
        "use_livekit.py",
    ),
    "Pipecat": (("pipecat-ai==1.14.0", "openai"), "use_pipecat.py"),
}
NPM = (
    "openai3@npm:openai@3.3.0", "openai4@npm:openai@4.104.0", "openai5@npm:openai@5.23.2", "openai6@npm:openai@6.49.0",
    "openai7@npm:openai@7.59.0", "elevenlabs0@npm:elevenlabs@0.36.4", "elevenlabs1@npm:elevenlabs@1.59.0",
    "el2@npm:@elevenlabs/elevenlabs-js@2.73.0", "ai@6.0.326", "@ai-sdk/openai@3.0.141", "@ai-sdk/elevenlabs@2.0.58",
    "esbuild@0.28.2",
)  # fmt: skip
NODE = {
    **{f"openai for Node {major}": ("use_openai.mjs", f"openai{major}") for major in (7, 6, 5, 4)},
    "openai for Node 3": ("use_openai_3.mjs", "openai3"),
    "elevenlabs-js 2": ("use_elevenlabs.mjs", "el2"),
    "elevenlabs for Node 1": ("use_elevenlabs.mjs", "elevenlabs1"),
    "elevenlabs for Node 0": ("use_elevenlabs.mjs", "elevenlabs0"),
    "Vercel AI SDK": ("use_vercel.mjs", ""),
}
FEATURES = (
    "Models", "Speech", "WAV", "Stream", "WebSocket", "Async", "Timestamps", "Voices", "Voice by name", "Premade ids",
    "Cloning", "History", "Errors",
)  # fmt: skip
Told = dict[str, str]  # feature -> why it does not work, "" where it does


def ran(command: list[object], cwd: Path | None = None) -> Told:
    made = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=300, cwd=cwd, check=False,
        env={**os.environ, "ELEVENLABS_API_KEY": "", "OPENAI_API_KEY": "", "DO_NOT_TRACK": "1"},
    )  # fmt: skip
    told = {}
    for line in made.stdout.splitlines():
        if line.startswith("{"):
            one = json.loads(line)
            told[one["feature"]] = one["why"]
    return told or {"Speech": f"it did not run: {made.stderr[-300:]}"}


def python(tools: Path, name: str, packages: tuple[str, ...]) -> Path:
    folder = tools / name.replace(" ", "-")
    if not (folder / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", *packages], check=True)
    return folder / "bin" / "python"


def node(tools: Path) -> Path:
    folder = tools / "node"
    if not (folder / "node_modules").exists():
        folder.mkdir(parents=True)
        (folder / "package.json").write_text('{"private": true, "type": "module"}')
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", *NPM], cwd=folder, check=True)
    for file in HERE.glob("*.*js"):
        shutil.copy(file, folder)
    return folder


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def in_chromium(folder: Path, work: Path, base: str, key: str) -> Told:
    """The page's origin is http://localhost:3000, which CORS_ORIGINS has by default."""
    page = work / "page"
    page.mkdir()
    bundle = [folder / "node_modules" / ".bin" / "esbuild", "in_page.js", "--bundle", "--format=iife",
              "--platform=browser", f"--outfile={page / 'use.js'}", "--log-level=error", "--external:node:*",
              "--external:fs", "--external:path", "--external:stream", "--external:child_process", "--external:crypto",
              "--external:ws", "--external:os"]  # fmt: skip
    subprocess.run(bundle, cwd=folder, check=True)
    (page / "index.html").write_text('<script>window.require = () => ({})</script><script src="use.js"></script>')
    serving = http.server.ThreadingHTTPServer(("localhost", 3000), functools.partial(Quiet, directory=str(page)))
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    try:
        with Browser(work / "profile") as browser:
            browser.open("http://localhost:3000/")
            told = browser.evaluate(f"window.use({json.dumps(base)}, {json.dumps(key)})")
    finally:
        serving.shutdown()
    return {one["feature"]: one["why"] for one in json.loads(told)}


def prepare(base: str, key: str) -> None:
    """Saves a voice with a name, and lets voices be added without a statement with each."""
    import requests

    own = {"X-API-Key": key}
    statement = {"statement": "The speaker of the sample agreed to be cloned by this bench."}
    requests.put(f"{base}/api/v1/voice/consent", json=statement, headers=own, timeout=60).raise_for_status()
    with (SAMPLES / "reference.flac").open("rb") as file:
        requests.post(
            f"{base}/api/v1/voice/voices", headers=own, files={"sample": file}, timeout=120,
            data={"name": "Jane of the Bench", "consent": statement["statement"]},
        ).raise_for_status()  # fmt: skip


def path_key(base: str, key: str) -> str:
    """A key for programs that send none: it stands in the URL."""
    import requests

    made = requests.post(
        f"{base}/api/v1/keys", headers={"X-API-Key": key}, json={"name": "apps", "kind": "path"}, timeout=60
    )
    made.raise_for_status()
    return str(made.json()["secret"])


def table(rows: dict[str, Told]) -> str:
    """Markdown: `yes`, `no` where it failed, empty where the client has no such thing, or the row does not try it."""
    used = [name for name in FEATURES if any(name in told for told in rows.values())]
    lines = [f"| | {' | '.join(used)} |", f"|{'---|' * (len(used) + 1)}"]
    for name, told in rows.items():
        cells = ["" if feature not in told else "no" if told[feature] else "yes" for feature in used]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=Path)
    parser.add_argument("--only", choices=("python", "node", "apps"))
    parser.add_argument("--cheap", action="store_true")
    arguments = parser.parse_args()
    rows: dict[str, Told] = {}
    with tempfile.TemporaryDirectory(prefix="sdks-") as name:
        work = Path(name)
        tools = (arguments.tools or work / "tools").absolute()
        os.environ.update(OPEN_VOICES_OF="demo", COMPAT_HOSTS="eleven.example.com=elevenlabs")
        with server(work) as (base, key):
            prepare(base, key)
            wav = SAMPLES / "reference.flac"
            if arguments.only in (None, "python"):
                for row, (packages, program) in {**PYTHON, **({} if arguments.cheap else LARGE)}.items():
                    interpreter = python(tools, row, packages)
                    version = packages[0].partition("==")[2]
                    rows[f"{row.rstrip(' 0123456789')} {version}"] = ran([interpreter, HERE / program, base, key, wav])
            if arguments.only in (None, "node"):
                folder = node(tools)
                for row, (program, package) in NODE.items():
                    manifest = folder / "node_modules" / (package or "ai") / "package.json"
                    version = json.loads(manifest.read_text())["version"].lstrip("v")
                    told = ran(["node", program, base, key, wav, package], cwd=folder)
                    rows[f"{row.rstrip(' 0123456789')} {version}"] = told
                if shutil.which("chromium"):
                    rows["openai 7 and elevenlabs-js 2 in Chromium"] = in_chromium(folder, work, base, key)
            if arguments.only in (None, "apps"):
                replays = [sys.executable, "-m", "bench.sdks.apps", base, key, path_key(base, key)]
                for feature, why in ran(replays).items():
                    app, _, what = feature.rpartition(": ")
                    rows.setdefault(app, {})[what] = why
    print(table(rows))
    failures = [f"{row}: {feature}: {why}" for row, told in rows.items() for feature, why in told.items() if why]
    if failures:
        sys.exit("\n" + "\n".join(failures))


if __name__ == "__main__":
    main()
