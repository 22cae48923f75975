"""The material of the last release: how it is loaded, and what client and operator did with it."""

from __future__ import annotations

import io
import json
import re
import sqlite3
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import soundfile as sf

from tests.support.audio import wav_bytes

HERE = Path(__file__).resolve().parent
# Where a quotation mark begins a value: a time as both databases write it, or a date alone.
TIME = re.compile(r"(?<=')\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?(?=(\+00)?')")
DATE = re.compile(r"(?<=')\d{4}-\d\d-\d\d(?=')")


class Material:
    """name: sqlite or postgresql. facts: what client and operator knew when the release last ran."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.facts: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))

    def dump(self, receiver: str) -> str:
        """The dump as if the release had stopped an hour ago, its webhooks for this receiver ("http://host:port")."""
        text = (HERE / f"{self.name}.sql").read_text(encoding="utf-8").replace(self.facts["receiver"], receiver)
        made_at, stopped_at = datetime.fromisoformat(self.facts["made_at"]), datetime.now(UTC) - timedelta(hours=1)
        passed = stopped_at - made_at
        days = stopped_at.date() - made_at.date()

        def later(match: re.Match[str]) -> str:
            return str(datetime.fromisoformat(match[0]) + passed)

        text = TIME.sub(later, text)
        return DATE.sub(lambda match: str(datetime.fromisoformat(match[0]).date() + days), text)

    def load(self, database: str, data: Path, receiver: str) -> None:
        """Into an empty database (its URL) and a folder that becomes DATA_DIR."""
        if self.name == "sqlite":
            connection = sqlite3.connect(database.removeprefix("sqlite:///"))
            connection.executescript(self.dump(receiver))
            connection.close()
        else:
            with psycopg.connect(database, autocommit=True) as server:
                server.execute(self.dump(receiver).encode())
        with tarfile.open(HERE / f"{self.name}.tar.xz") as packed:
            packed.extractall(data, filter="data")


def commands(checkout: Path, infer: str = "") -> dict[str, str]:
    """Settings for commands that are quick instead of good: those of the checkout's own tests. infer: a bad habit."""
    quick = f"{{python_exec}} {next((checkout / 'tests').rglob('quick_command.py'))}"
    files = "{reference_voice} {input_vocal} {output_vocal}"
    return {
        "COVER_SEPARATE_CMD_TEMPLATE": f"{quick} separate {{song_input}} {{vocal_output}} {{inst_output}}",
        "COVER_FIND_VOICE": "false",
        "COVER_INFER_CMD_TEMPLATE": f"{quick} infer --reference {files} {infer}",
    }


def downloads(facts: dict[str, Any]) -> list[str]:
    """The paths under /api/v1 of all audio that was there."""
    return [
        f"/voice/syntheses/{facts['synthesis']}/audio",
        f"/voice/voices/{facts['voice']['id']}/sample",
        f"/cover/jobs/{facts['cover']}/result",
        *(f"/cover/jobs/{facts['cover']}/stems/{name}" for name in ("vocals", "instrumental", "converted")),
    ]


def excerpt(content: bytes) -> bytes:
    """5.5 s out of a file, as a WAV without a manifest: only its sound can say where it was made."""
    samples, rate = sf.read(io.BytesIO(content))
    return wav_bytes(samples[rate // 2 : 6 * rate], rate)
