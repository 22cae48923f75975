"""Which weights of a GPT-SoVITS belong together under which model's name."""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import script_io
from common.options import is_plain_name
from common.script_io import ScriptError

PRETRAINED = "GPT_SoVITS/pretrained_models"
# The pretrained pairs as config.py has them; `default` is the first that is there, as api_v2.py's own configuration
# would have it. v3 and v4 come last, since they cannot speak without the transcript of the reference.
PRETRAINED_WEIGHTS = {
    "v2": (
        "gsv-v2final-pretrained/s1bert25hz-5kh-longer-epoch=12-step=369668.ckpt",
        "gsv-v2final-pretrained/s2G2333k.pth",
    ),
    "v2ProPlus": ("s1v3.ckpt", "v2Pro/s2Gv2ProPlus.pth"),
    "v2Pro": ("s1v3.ckpt", "v2Pro/s2Gv2Pro.pth"),
    "v1": ("s1bert25hz-2kh-longer-epoch=68e-step=50232.ckpt", "s2G488k.pth"),
    "v4": ("s1v3.ckpt", "gsv-v4-pretrained/s2Gv4.pth"),
    "v3": ("s1v3.ckpt", "s2Gv3.pth"),
}
# What a version loads beside its weights, when they are switched to.
NEEDED_BESIDE = {
    "v3": ("models--nvidia--bigvgan_v2_24khz_100band_256x",),
    "v4": ("gsv-v4-pretrained/vocoder.pth",),
    "v2Pro": ("sv/pretrained_eres2netv2w24s4ep4.ckpt",),
    "v2ProPlus": ("sv/pretrained_eres2netv2w24s4ep4.ckpt",),
}
BERT, HUBERT = "chinese-roberta-wwm-ext-large", "chinese-hubert-base"

_TRAINED_NAME = re.compile(r"(?P<id>.+?)[-_]e(?P<epoch>\d+)(?:_s(?P<step>\d+))?(?:_l\d+)?")


@dataclass(frozen=True)
class Weights:
    """A GPT checkpoint (.ckpt) and a SoVITS checkpoint (.pth), absolute."""

    gpt: Path
    sovits: Path


class Catalogue:
    """The models of the GPT-SoVITS in `root` (absolute).

    default_version: whose pretrained weights `default` means, by default the first that are there. Raises
    ScriptError (2) where there is no such version.
    """

    def __init__(self, root: Path, default_version: str = "") -> None:
        self.root = root
        self.default_version = default_version
        if default_version and default_version not in PRETRAINED_WEIGHTS:
            known = ", ".join(PRETRAINED_WEIGHTS)
            raise ScriptError(script_io.BAD_ARGUMENTS, f"there is no version {default_version!r}, only {known}")

    def models(self) -> list[str]:
        """Every `model_id` whose weights are there, `default` first."""
        found: list[str] = []
        candidates = [*self._weight_json(), *(path.name for path in self._folders("trained"))]
        for path, _ in self._trained_files("SoVITS_weights", ".pth"):
            name = _TRAINED_NAME.fullmatch(path.stem)
            candidates.append(name["id"] if name else path.stem)
        for model_id in ["default", *sorted(set(candidates) - {"default"})]:
            with contextlib.suppress(ScriptError):
                self.find(model_id)
                found.append(model_id)
        return found

    def find(
        self,
        model_id: str = "default",
        gpt_weights: str | os.PathLike[str] | None = None,
        sovits_weights: str | os.PathLike[str] | None = None,
    ) -> Weights:
        """The weights of a model; explicit paths (absolute, or relative to the project root) win over `model_id`.

        `default` (or nothing) are the pretrained ones; any other id is a key of weight.json, else the folder
        trained/<id>, else <id> with an epoch after it under GPT_weights* and SoVITS_weights*, the newest.
        Raises ScriptError: 10 unknown, 9 known but a file is missing, 2 one path without the other.
        """
        if gpt_weights or sovits_weights:
            if not (gpt_weights and sovits_weights):
                raise ScriptError(script_io.BAD_ARGUMENTS, "GPT and SoVITS weights are named together or not at all")
            return checked(self.root / gpt_weights, self.root / sovits_weights)
        if model_id in ("", "default"):
            return self._pretrained()
        if not is_plain_name(model_id):
            raise ScriptError(script_io.UNKNOWN_MODEL, "no model can have such an id")
        listed = self._weight_json().get(model_id)
        if listed is not None:
            gpt, sovits = listed
            if not gpt or not sovits:
                missing = "SoVITS" if gpt else "GPT"
                raise ScriptError(script_io.NO_WEIGHTS, f"weight.json names no {missing} weights for {model_id!r}")
            return checked(self.root / gpt, self.root / sovits)
        for folder in self._folders("trained"):
            if folder.name == model_id:
                files = _newest(folder.glob("*.ckpt")), _newest(folder.glob("*.pth"))
                return checked(*files, f"trained/{model_id}")
        return self._trained(model_id)

    def _pretrained(self) -> Weights:
        root = self.root / PRETRAINED
        versions = [self.default_version] if self.default_version else list(PRETRAINED_WEIGHTS)
        for version in versions:
            names = [*PRETRAINED_WEIGHTS[version], *NEEDED_BESIDE.get(version, ())]
            if all((root / name).exists() for name in names):
                return Weights(*(root / name for name in PRETRAINED_WEIGHTS[version]))
        what = f"complete pretrained weights of {' or '.join(versions)}"
        raise ScriptError(script_io.NO_WEIGHTS, f"there are no {what} in {root}")

    def _weight_json(self) -> dict[str, tuple[str, str]]:
        """{id: (GPT, SoVITS)} of weight.json, "" where one is not named. The engine's own web page writes it too."""
        try:
            table = json.loads((self.root / "weight.json").read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ScriptError(script_io.NO_WEIGHTS, f"weight.json cannot be read: {error}") from error
        sides: list[dict[str, str]] = []
        for side in ("GPT", "SoVITS"):
            named = table.get(side) if isinstance(table, dict) else None
            paths: dict[str, str] = {}
            for model_id, path in (named if isinstance(named, dict) else {}).items():
                path = path[0] if isinstance(path, list) and path else path
                # The web page also stores labels there that are no paths.
                if isinstance(path, str) and path.endswith((".ckpt", ".pth")):
                    paths[model_id] = path
            sides.append(paths)
        gpt, sovits = sides
        return {model_id: (gpt.get(model_id, ""), sovits.get(model_id, "")) for model_id in {**gpt, **sovits}}

    def _folders(self, name: str) -> list[Path]:
        return [path for path in sorted(self.root.glob(f"{name}/*")) if path.is_dir()]

    def _trained_files(self, kind: str, suffix: str) -> list[tuple[Path, str]]:
        """(file, what follows `kind` in its top folder's name: "" or "_v2" and the like)."""
        return [
            (path, folder.name[len(kind) :])
            for folder in sorted(self.root.glob(f"{kind}*"))
            for path in sorted(folder.rglob(f"*{suffix}"))
        ]

    def _trained(self, model_id: str) -> Weights:
        sides: list[dict[str, list[Path]]] = []
        for kind, suffix in (("GPT_weights", ".ckpt"), ("SoVITS_weights", ".pth")):
            files: dict[str, list[Path]] = {}
            for path, version in self._trained_files(kind, suffix):
                if _is_of(path.stem, model_id):
                    files.setdefault(version, []).append(path)
            sides.append(files)
        gpt, sovits = sides
        if not gpt and not sovits:
            raise ScriptError(script_io.UNKNOWN_MODEL, f"there is no model {model_id!r}")
        # A pair from folders of one version: v1 and v2 do not even have the same phonemes.
        pairs = [(_newest(gpt[version]), _newest(sovits[version])) for version in gpt if version in sovits]
        if pairs:
            return checked(*max(pairs, key=lambda pair: pair[1].stat().st_mtime if pair[1] else 0.0))
        newest = [_newest(path for paths in files.values() for path in paths) for files in sides]
        return checked(newest[0], newest[1], f"model {model_id!r}")


def checked(gpt: Path | None, sovits: Path | None, what: str = "the model") -> Weights:
    """Both of them, absolute. Raises ScriptError (9) where one is not there."""
    for kind, path in (("GPT weights (.ckpt)", gpt), ("SoVITS weights (.pth)", sovits)):
        if path is None:
            raise ScriptError(script_io.NO_WEIGHTS, f"{what} has no {kind}")
        if not path.is_file():
            raise ScriptError(script_io.NO_WEIGHTS, f"the {kind} are not there: {path}")
    assert gpt is not None and sovits is not None
    return Weights(Path(os.path.normpath(gpt)), Path(os.path.normpath(sovits)))


def _is_of(stem: str, model_id: str) -> bool:
    """Whether a file of that name belongs to the model: its id, alone or before a `-`, `_` or the like. `anna` is not
    the model of `annabel-e15`, nor of `anna_new_e8_s96`, which the engine wrote for the model `anna_new`."""
    name = _TRAINED_NAME.fullmatch(stem)
    if name:
        return name["id"] == model_id or stem == model_id
    return stem.startswith(model_id) and not stem[len(model_id) : len(model_id) + 1].isalnum()


def _newest(paths: Any) -> Path | None:
    """The one of the most epochs, then steps, then the last written. None of none."""

    def age(path: Path) -> tuple[int, int, float]:
        name = _TRAINED_NAME.fullmatch(path.stem)
        epoch, step = (int(name["epoch"]), int(name["step"] or 0)) if name else (0, 0)
        return epoch, step, path.stat().st_mtime

    return max(paths, key=age, default=None)
