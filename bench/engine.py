"""Measures the built-in engine: likeness, words, opinions, pitch, singing, separation.

    python -m venv bench-venv && bench-venv/bin/pip install -r requirements.txt -r bench/requirements.txt
    bench-venv/bin/python -m bench.engine [--only speech|languages|singing] [--data FOLDER]

From the root of the project. The speakers come from Debian packages, downloaded with apt-get into FOLDER at the first
run (80 MB, the new ones 400 MB). Exits with 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from pathlib import Path

SECTIONS = ("speech", "languages", "singing")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SECTIONS, help="one section; all without it")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "bench-engine")
    parser.add_argument("--mode", choices=("default", "clear", "transcript"), action="append", help="speech: one mode")
    parser.add_argument("--speaker", help="speech: only speakers whose name contains this")
    parser.add_argument("--group", choices=("known", "checked", "new"), default="known", help="speech: whose voices")
    parser.add_argument("--sentences", type=int, default=12, help="speech, languages: how many each speaker says")
    parser.add_argument("--no-wer", action="store_true", help="speech: without the recogniser, much faster")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    met = True
    for section in (options.only,) if options.only else SECTIONS:
        module = importlib.import_module(f"bench.engines.{section}")
        if section == "speech":
            modes = tuple(options.mode or ("default", "clear", "transcript"))
            met &= module.run(
                options.data, modes, options.speaker, not options.no_wer, options.group, options.sentences
            )
        elif section == "languages":
            met &= module.run(options.data, options.sentences)
        else:
            met &= module.run(options.data)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
