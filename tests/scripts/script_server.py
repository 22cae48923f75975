"""A script of gpu_scripts with `--serve`, so that a test pays for its start once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[2] / "gpu_scripts"


@dataclass
class Done:
    """How a job has ended. printed: what came on standard error meanwhile; separation: what a separator told."""

    exit_code: int
    message: str
    printed: str
    warnings: list[str] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)
    separation: dict[str, Any] = field(default_factory=dict)


class ScriptServer:
    """folder: where it writes what it has to say, and where its jobs work; script: its name, or another one's path;
    environment: beside our own.
    """

    def __init__(self, folder: Path, script: str, **environment: str) -> None:
        self._folder, self._number = folder, 0
        self._stderr = (folder / f"{Path(script).name}.stderr").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPTS / script), "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env=os.environ | environment,
        )
        assert json.loads(self._answer()) == {"ready": True}

    def _answer(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline()

    def run(self, *argv: str) -> Done:
        assert self.process.stdin
        self._number += 1
        start = os.fstat(self._stderr.fileno()).st_size
        self.process.stdin.write(json.dumps({"id": str(self._number), "argv": argv, "cwd": str(self._folder)}) + "\n")
        self.process.stdin.flush()
        warnings, progress = [], []
        separation: dict[str, Any] = {}
        while True:
            answer = json.loads(self._answer())
            if "warning" in answer:
                warnings.append(answer["warning"])
            if "progress" in answer:
                progress.append(answer["progress"])
            separation |= answer.get("separation", {})
            if answer.get("done"):
                break
        printed = Path(self._stderr.name).read_text()[start:]
        return Done(answer["exit_code"], answer.get("message", ""), printed, warnings, progress, separation)

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        assert self.process.wait(20) == 0
        self.process.stdout.close()
        self._stderr.close()
