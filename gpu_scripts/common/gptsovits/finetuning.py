"""The official steps of GPT-SoVITS's fine-tuning, each as its own child process, and each counted.

Read and run at commit 48b1a0169. Preparation exits with 0 whatever it left out; s2_train.py also without base weights,
without a single step and without a saved file; s1_train.py changes nothing where an epoch has fewer than five batches.
So what was made is counted, and a status proves nothing. The working folder of the children is on WORK's disk, since
they write there first; two links in it stand for the root, from which they open files by relative paths.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import script_io
from common.script_io import ScriptError
from common.training import children
from common.training.children import Child
from common.training.dataset import Clip
from common.training.interpreter import Interpreter
from common.training.publishing import is_whole
from common.training.tell import Progress, Teller
from common.training.work import remove

from .checkpoints import (
    KEEP_GPT,
    KEEP_SOVITS,
    SovitsLines,
    count_in,
    epochs_in,
    gpt_progress,
    is_filled,
    kept_epochs,
    lines_of,
    repeated,
    steps_of,
)
from .weights import BERT, HUBERT, NEEDED_BESIDE, PRETRAINED, PRETRAINED_WEIGHTS

VERSIONS = ("v2", "v2Pro", "v2ProPlus")
PACKAGES = [
    "torch",
    "torchaudio",
    "transformers",
    "pytorch_lightning",
    "tensorboard",
    "pandas",
    "librosa",
    "scipy",
    "soundfile",
    "soxr",
    "ffmpeg",
    "yaml",
    "tqdm",
]
SV = NEEDED_BESIDE["v2Pro"][0]
GPT_BATCHES = 5  # it updates at the fifth batch of an epoch at first


@dataclass(frozen=True)
class Bases:
    """The pretrained weights that a version starts from."""

    gpt: Path
    sovits: Path
    discriminator: Path
    sv: Path | None

    @classmethod
    def of(cls, root: Path, version: str) -> Bases:
        """Raises ScriptError (9)."""
        folder = root / PRETRAINED
        gpt, sovits = (folder / name for name in PRETRAINED_WEIGHTS[version])
        discriminator = sovits.with_name(sovits.name.replace("s2G", "s2D", 1))
        sv = folder / SV
        needed = [gpt, sovits, discriminator, folder / BERT / "config.json", folder / HUBERT / "config.json"]
        if version != "v2":
            needed.append(sv)
        missing = [str(path.relative_to(root)) for path in needed if not (path.is_file() and path.stat().st_size)]
        if missing:
            raise ScriptError(script_io.NO_WEIGHTS, f"{root} lacks the pretrained files: {', '.join(missing)}")
        return cls(gpt, sovits, discriminator, sv if sv.is_file() else None)

    def training_bytes(self, sovits_epochs: int, gpt_epochs: int) -> int:
        """What the training writes at most: a state is weights and two moments in 32 bits, and replaced by another."""
        sovits = self.sovits.stat().st_size + self.discriminator.stat().st_size
        gpt = self.gpt.stat().st_size
        kept = (sovits_epochs // KEEP_SOVITS + 2) * self.sovits.stat().st_size + (gpt_epochs // KEEP_GPT + 2) * gpt
        return 12 * (sovits + gpt) + kept + 300_000_000


class FineTuning:
    """The steps for one dataset, in WORK."""

    def __init__(
        self,
        root: Path,
        version: str,
        bases: Bases,
        python: Interpreter,
        teller: Teller,
        *,
        is_half: bool,
        seed: int,
        segment_size: int,
    ) -> None:
        self.root, self.version, self.bases, self.teller = root, version, bases, teller
        self.folder, self.cuda = python.folder, python.cuda
        self.stall_seconds = python.stall_seconds
        self.is_half = is_half and python.cuda is not None
        self.seed, self.segment_size = seed, segment_size
        self.features = self.folder / "features"
        self.cwd = self.folder / "cwd"
        self.environment = python.environment | self._environment()

    def _environment(self) -> dict[str, str]:
        root = self.root
        stubs = self.folder / "stubs"
        for folder in (stubs, self.cwd, self.cwd / "tmp"):
            folder.mkdir(exist_ok=True)
        # tools/my_utils.py wants its web page's package for warnings; the real one calls its maker.
        (stubs / "gradio.py").write_text("def Warning(message):\n    print(message)\n\n\nInfo = Error = Warning\n")
        for name in ("GPT_SoVITS", "tools"):
            link = self.cwd / name
            if not link.is_symlink() or link.readlink() != root / name:
                link.unlink(missing_ok=True)
                link.symlink_to(root / name)
        parts = [stubs, root, *(root / name for name in ("GPT_SoVITS", "GPT_SoVITS/BigVGAN", "GPT_SoVITS/eres2net"))]
        parts += [root / "tools", root / "tools/asr"]
        return {
            # Loaders of data pass tensors on over sockets there, whose path may have 107 bytes; that of WORK is longer.
            "TMPDIR": "/proc/self/cwd/tmp" if Path("/proc/self/cwd").exists() else str(self.folder / "tmp"),
            "PYTHONPATH": os.pathsep.join([*map(str, parts), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "TQDM_MININTERVAL": "1",
            "_CUDA_VISIBLE_DEVICES": self.cuda or "",
            "version": self.version,
            "is_half": str(self.is_half),
            "bert_path": str(root / PRETRAINED / BERT),
            "hz": "25hz",
            "language": "en_US",
        }

    def run(
        self,
        name: str,
        script: str | Path,
        *arguments: str | Path,
        environment: dict[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
        on_look: Callable[[], None] | None = None,
        stall_seconds: float = math.inf,
    ) -> Child:
        for stray in self.cwd.glob("*.pth"):  # what a stopped one had begun to save
            stray.unlink()
        for attempt in (1, 2):
            child = children.run(
                name,
                [sys.executable, "-s", self.root / script, *arguments],
                cwd=self.cwd,
                log=self.folder / "logs" / f"{name}.log",
                environment=self.environment | (environment or {}),
                on_line=on_line,
                on_look=on_look,
                stall_seconds=stall_seconds,
            )
            # It draws its port by chance.
            if attempt == 1 and child.code and child.said(children.NO_PORT):
                continue
            break
        return child

    # --- features -------------------------------------------------------------------------------------------

    def write_list(self, clips: Sequence[Clip]) -> Path:
        path = self.folder / "train.list"
        texts = [" ".join((clip.text or "").replace("|", " ").split()) for clip in clips]
        lines = [f"{clip.path}|speaker|{clip.language}|{text}" for clip, text in zip(clips, texts, strict=True)]
        path.write_text("\n".join(lines) + "\n", "utf-8")
        return path

    def _prepare(
        self,
        name: str,
        script: str,
        clips: Sequence[Clip],
        count: Callable[[], int],
        progress: Progress,
        **environment: str,
    ) -> None:
        """One of the scripts of prepare_datasets, for all clips in one part. Some say the names of the clips, others
        leave a file for each."""
        names = {f"{clip.name}.wav" for clip in clips}
        said: set[str] = set()

        def on_line(line: str) -> None:
            if line in names:
                said.add(line)
                progress((len(said) - 1) / len(clips))  # it begins with that clip

        child = self.run(
            name,
            f"GPT_SoVITS/prepare_datasets/{script}.py",
            environment={
                "inp_text": str(self.folder / "train.list"),
                "inp_wav_dir": "",
                "exp_name": "training",
                "opt_dir": str(self.features),
                "i_part": "0",
                "all_parts": "1",
                **environment,
            },
            on_line=on_line,
            on_look=lambda: progress(count() / len(clips)),
        )
        if child.code or (count() < len(clips) and (child.out_of_memory() or child.said(children.NO_SPACE))):
            raise child.failure(self.folder)
        if not count():
            raise ScriptError(script_io.ENGINE_FAILED, f"{name} made nothing of {len(clips)} clips: {child.reason}")
        progress(1)

    def text(self, clips: Sequence[Clip], progress: Progress) -> dict[str, int]:
        """{clip: its phonemes}; clips that it could not take are not there."""
        found = self.features / "2-name2text-0.txt"
        remove(found)
        self._prepare(
            "text",
            "1-get-text",
            clips,
            lambda: len(lines_of(found)),
            progress,
            bert_pretrained_dir=str(self.root / PRETRAINED / BERT),
        )
        rows = [line.split("\t") for line in lines_of(found)]
        phones = {row[0]: len(row[1].split()) for row in rows if len(row) == 4 and row[1].strip()}
        kept = {}
        for clip in clips:
            name = f"{clip.name}.wav"
            bert = clip.language != "zh" or (self.features / "3-bert" / f"{name}.pt").is_file()
            if name in phones and bert:
                kept[clip.name] = phones[name]
        (self.features / "2-name2text.txt").write_text("\n".join("\t".join(row) for row in rows) + "\n", "utf-8")
        return kept

    def hubert(self, clips: Sequence[Clip], progress: Progress) -> set[str]:
        folder = self.features / "4-cnhubert"
        self._prepare(
            "hubert",
            "2-get-hubert-wav32k",
            clips,
            lambda: count_in(folder),
            progress,
            cnhubert_base_dir=str(self.root / PRETRAINED / HUBERT),
        )
        return {
            clip.name
            for clip in clips
            if is_filled(folder / f"{clip.name}.wav.pt") and is_filled(self.features / "5-wav32k" / f"{clip.name}.wav")
        }

    def sv(self, clips: Sequence[Clip], progress: Progress) -> set[str]:
        folder = self.features / "7-sv_cn"
        self._prepare("sv", "2-get-sv", clips, lambda: count_in(folder), progress, sv_path=str(self.bases.sv))
        return {clip.name for clip in clips if is_filled(folder / f"{clip.name}.wav.pt")}

    def semantic(self, clips: Sequence[Clip], progress: Progress) -> set[str]:
        found = self.features / "6-name2semantic-0.tsv"
        remove(found)
        self._prepare(
            "semantic",
            "3-get-semantic",
            clips,
            lambda: len(lines_of(found)),
            progress,
            pretrained_s2G=str(self.bases.sovits),
            s2config_path=str(self._s2_config()),
        )
        rows = [line.split("\t") for line in lines_of(found)]
        good = {row[0]: row[1] for row in rows if len(row) == 2 and row[1].strip()}
        content = ["item_name\tsemantic_audio", *("\t".join(item) for item in good.items())]
        (self.features / "6-name2semantic.tsv").write_text("\n".join(content) + "\n", "utf-8")
        return {clip.name for clip in clips if f"{clip.name}.wav" in good}

    def keep(self, clips: Sequence[Clip]) -> None:
        """Takes every other clip out of what the trainers read: they take what is in both lists."""
        names = {f"{clip.name}.wav" for clip in clips}
        for name, header in (("2-name2text.txt", 0), ("6-name2semantic.tsv", 1)):
            path = self.features / name
            lines = lines_of(path)
            kept = lines[:header] + [line for line in lines[header:] if line.split("\t")[0] in names]
            path.write_text("\n".join(kept) + "\n", "utf-8")

    # --- SoVITS ---------------------------------------------------------------------------------------------

    def _s2_config(self) -> Path:
        name = "s2.json" if self.version == "v2" else f"s2{self.version}.json"
        return self.root / "GPT_SoVITS" / "configs" / name

    def train_sovits(self, epochs: int, batch: int, progress: Progress) -> list[Path]:
        """The weights of the kept epochs, in order. Raises ScriptError: 7 with this batch, 9, 11, 17, 18."""
        weights = self.folder / "sovits"
        states = self.features / f"logs_s2_{self.version}"
        for folder in (weights, states):
            folder.mkdir(parents=True, exist_ok=True)
        if epochs not in epochs_in(weights, "*.pth"):
            self._check_states(states)
            self._run_s2(epochs, batch, weights, states, progress)
        made = epochs_in(weights, "*.pth")
        wanted = kept_epochs(epochs, KEEP_SOVITS)
        lacking = [epoch for epoch in wanted if epoch not in made]
        if lacking:
            raise ScriptError(script_io.ENGINE_FAILED, f"SoVITS saved no weights of epoch {lacking[0]}")
        if any(steps_of(made[epoch]) == 0 for epoch in wanted):
            raise ScriptError(script_io.ENGINE_FAILED, "SoVITS trained no step: the clips are too long or too short")
        return [made[epoch] for epoch in wanted]

    def _check_states(self, states: Path) -> None:
        """A broken state would be taken for none, and the training begin anew in silence: here it is told."""
        found = sorted(states.glob("[GD]_*.pth"))
        if found and (len(found) != 2 or not all(is_whole(path) for path in found)):
            self.teller.warn("checkpoint_broken", "The last checkpoint of SoVITS is broken: its training begins anew.")
            for path in found:
                path.unlink()

    def _run_s2(self, epochs: int, batch: int, weights: Path, states: Path, progress: Progress) -> None:
        config: dict[str, Any] = json.loads(self._s2_config().read_text("utf-8"))
        config["train"] |= {
            "fp16_run": self.is_half,
            "batch_size": batch,
            "epochs": epochs,
            "text_low_lr_rate": 0.4,
            "pretrained_s2G": str(self.bases.sovits),
            "pretrained_s2D": str(self.bases.discriminator),
            "if_save_latest": 1,
            "if_save_every_weights": True,
            "save_every_epoch": 1,  # to go on from; what is not kept is removed below
            "gpu_numbers": self.cuda or "",
            "grad_ckpt": False,
            "lora_rank": 32,
            "seed": self.seed,
            "segment_size": self.segment_size,
            "log_interval": 10,
        }
        config["model"]["version"] = self.version
        config["data"]["exp_dir"] = config["s2_ckpt_dir"] = str(self.features)
        config |= {"save_weight_dir": str(weights), "name": "training", "version": self.version}
        path = self.folder / "s2.json"
        path.write_text(json.dumps(config), "utf-8")
        resumes = any(states.glob("G_*.pth"))
        watcher = SovitsLines(epochs, progress)
        child = self.run(
            "sovits",
            "GPT_SoVITS/s2_train.py",
            "--config",
            path,
            on_line=watcher,
            on_look=lambda: self._prune(weights, "*.pth", epochs, KEEP_SOVITS),
            stall_seconds=self.stall_seconds,
        )
        self._prune(weights, "*.pth", epochs, KEEP_SOVITS)
        if child.code:
            raise child.failure(self.folder)
        if watcher.unsaved:
            raise child.failure(self.folder)
        if not resumes and watcher.loaded < 2:
            raise ScriptError(script_io.NO_WEIGHTS, "SoVITS did not load the whole base: its keys do not match")
        if resumes and not watcher.resumed:
            raise ScriptError(script_io.ENGINE_FAILED, "SoVITS did not go on from its last checkpoint")

    def _prune(self, folder: Path, pattern: str, epochs: int, every: int) -> None:
        """Of the weights of each epoch those that are not kept go, once the next ones are there."""
        made = epochs_in(folder, pattern)
        for epoch, path in made.items():
            if epoch < max(made) and epoch not in kept_epochs(epochs, every):
                path.unlink(missing_ok=True)

    # --- GPT ------------------------------------------------------------------------------------------------

    def train_gpt(self, epochs: int, batch: int, clips: int, progress: Progress) -> list[Path]:
        """As `train_sovits`."""
        import yaml  # the engine's

        weights = self.folder / "gpt"
        output = self.features / f"logs_s1_{self.version}"
        states = output / "ckpt"
        for folder in (weights, states):
            folder.mkdir(parents=True, exist_ok=True)
        config: dict[str, Any] = yaml.safe_load((self.root / "GPT_SoVITS/configs/s1longer-v2.yaml").read_text("utf-8"))
        config["model"] |= self._gpt_size()
        config["train"] |= {
            "precision": config["train"]["precision"] if self.is_half else "32",
            "batch_size": min(batch, max(1, repeated(clips) // GPT_BATCHES)),
            "epochs": epochs,
            "save_every_n_epoch": 1,
            "if_save_every_weights": True,
            "if_save_latest": True,
            "if_dpo": False,
            "half_weights_save_dir": str(weights),
            "exp_name": "training",
            "seed": self.seed,
        }
        config |= {
            "pretrained_s1": str(self.bases.gpt),
            "train_semantic_path": str(self.features / "6-name2semantic.tsv"),
            "train_phoneme_path": str(self.features / "2-name2text.txt"),
            "output_dir": str(output),
        }
        path = self.folder / "s1.yaml"
        path.write_text(yaml.safe_dump(config), "utf-8")
        wanted = kept_epochs(epochs, KEEP_GPT)
        if epochs not in epochs_in(weights, "*.ckpt"):
            for state in states.glob("*.ckpt"):
                if not is_whole(state):
                    state.unlink()

            def look() -> None:
                progress(max(epochs_in(weights, "*.ckpt"), default=0) / epochs)
                self._prune(weights, "*.ckpt", epochs, KEEP_GPT)

            child = self.run(
                "gpt",
                "GPT_SoVITS/s1_train.py",
                "--config_file",
                path,
                # Without it its own state cannot be read again: a pickle, of a file that this training wrote.
                environment={"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
                on_line=lambda line: progress(gpt_progress(line, epochs)),
                on_look=look,
                stall_seconds=self.stall_seconds,
            )
            look()
            if child.code:
                raise child.failure(self.folder)
        made = epochs_in(weights, "*.ckpt")
        lacking = [epoch for epoch in wanted if epoch not in made]
        if lacking:
            raise ScriptError(script_io.ENGINE_FAILED, f"the GPT saved no weights of epoch {lacking[0]}")
        return [made[epoch] for epoch in wanted]

    def _gpt_size(self) -> dict[str, Any]:
        """The number of layers of the base, where it says so and differs: `n_layer` alone, for small trials."""
        try:
            with zipfile.ZipFile(self.bases.gpt) as file:
                names = [name for name in file.namelist() if name.endswith("data.pkl")]
                layers = {int(n) for n in re.findall(rb"model\.h\.layers\.(\d+)\.", file.read(names[0]))}
        except (zipfile.BadZipFile, OSError, IndexError):
            return {}
        return {"n_layer": max(layers) + 1} if layers else {}
