# ruff: noqa: SIM112  # the names are the engine's
"""The scripts that prepare a fine-tuning, with the original's names, environment, files, exit statuses and oddities.

Read and met at 48b1a0169: they exit with 0 whatever they leave out, and keep what is there already. Of the mood
(state.py): `text`: names of clips that no phonemes are made of; `hubert`: "oom".

Without numpy: each is an interpreter of its own in each training, which would take longer to load it than all else.
"""

from __future__ import annotations

import json
import os
import sys
import time
import wave
from pathlib import Path

from .state import log, mood

RATE = 32000


def _items() -> list[list[str]]:
    lines = Path(os.environ["inp_text"]).read_text("utf-8").strip("\n").split("\n")
    log("prepare", script=Path(sys.argv[0]).stem, lines=len(lines), cwd=os.getcwd(), is_half=os.environ["is_half"])
    return [line.split("|") for line in lines[int(os.environ["i_part"]) :: int(os.environ["all_parts"])]]


def _save(content: bytes, path: Path) -> None:
    """In the working folder first, as there."""
    partial = Path(f"{time.time()}{os.environ['i_part']}.pth")
    partial.write_bytes(content)
    os.replace(partial, path)


def get_text() -> None:
    output = Path(os.environ["opt_dir"])
    found = output / "2-name2text-0.txt"
    if found.exists():
        return
    (output / "3-bert").mkdir(parents=True, exist_ok=True)
    if not os.path.exists(os.environ["bert_pretrained_dir"]):
        raise FileNotFoundError(os.environ["bert_pretrained_dir"])
    rows = []
    for item in _items():
        try:
            path, _, language, text = item
            name = os.path.basename(path)
            print(name, flush=True)
            if language not in ("zh", "en", "ja", "ko", "yue") or Path(name).stem in mood().get("text", ()):
                raise ValueError(name)
            phones = [char for char in text if char.isalnum()]
            if language == "zh":
                _save(b"\0" * 200, output / "3-bert" / f"{name}.pt")
            rows.append(f"{name}\t{' '.join(phones)}\tNone\t{text}")
        except Exception as error:
            print(item, f"Traceback\n{type(error).__name__}: {error}")
    found.write_text("\n".join(rows) + "\n", "utf-8")


def get_hubert() -> None:
    output = Path(os.environ["opt_dir"])
    for folder in ("4-cnhubert", "5-wav32k"):
        (output / folder).mkdir(exist_ok=True)
    for item in _items():
        name = os.path.basename(item[0])
        made = output / "4-cnhubert" / f"{name}.pt"
        if made.exists():
            continue
        try:
            if mood().get("hubert") == "oom":
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
            with wave.open(item[0], "rb") as clip:
                kind, frames = clip.getparams(), clip.readframes(clip.getnframes())
            assert (kind.framerate, kind.nchannels, kind.sampwidth) == (RATE, 1, 2) and any(frames)
            with wave.open(str(output / "5-wav32k" / name), "wb") as clip:
                clip.setparams(kind)
                clip.writeframes(frames)
            _save(b"\0" * 200, made)
        except Exception as error:
            print(item, f"Traceback\n{type(error).__name__}: {error}")


def get_sv() -> None:
    output = Path(os.environ["opt_dir"])
    (output / "7-sv_cn").mkdir(exist_ok=True)
    open(os.environ["sv_path"]).close()
    for item in _items():
        name = os.path.basename(item[0])
        if (output / "5-wav32k" / name).exists():
            _save(b"\0" * 200, output / "7-sv_cn" / f"{name}.pt")


def get_semantic() -> None:
    output = Path(os.environ["opt_dir"])
    found = output / "6-name2semantic-0.tsv"
    if found.exists():
        return
    if not os.path.exists(os.environ["pretrained_s2G"]):
        raise FileNotFoundError(os.environ["pretrained_s2G"])
    json.loads(Path(os.environ["s2config_path"]).read_text())
    rows = []
    for item in _items():
        name = os.path.basename(item[0])
        if (output / "4-cnhubert" / f"{name}.pt").exists():
            with wave.open(str(output / "5-wav32k" / name), "rb") as clip:
                seconds = clip.getnframes() / clip.getframerate()
            rows.append(f"{name}\t{' '.join(['7'] * int(25 * seconds))}")
    found.write_text("\n".join(rows), "utf-8")
