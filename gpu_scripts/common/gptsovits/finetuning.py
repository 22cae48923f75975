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
from common.training.children import Child, Ended
from common.training.dataset import Clip
from common.training.tell import Progress, Teller
from common.training.work import remove

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
KEEP_SOVITS, KEEP_GPT = 4, 5  # epochs, as the engine's own page keeps them
REPEATED_TO = 100  # clips: fewer are repeated by the engine
GPT_BATCHES = 5  # it updates at the fifth batch of an epoch at first
LEAST_PHONES, MOST_PHONES = 3, 25  # a second; s1 drops others in silence
NOT_FINITE_LINES = 3  # 16-bit floats skip a step now and then
_LOSSES = re.compile(r"\[((?:-?(?:[\d.]+(?:e[-+]?\d+)?|nan|inf)(?:, )?){8})\]")
_BAR = re.compile(r"(\d+)/(\d+) \[")
_SAVED = re.compile(r"_e(\d+)_s(\d+)$")


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
    """The steps for one dataset. folder: of WORK; cuda: the number of a GPU, or None for the CPU."""

    def __init__(
        self,
        root: Path,
        folder: Path,
        version: str,
        bases: Bases,
        teller: Teller,
        *,
        cuda: str | None,
        is_half: bool,
        seed: int,
        threads: int,
        segment_size: int,
    ) -> None:
        self.root, self.folder, self.version, self.bases = root, folder, version, bases
        self.teller = teller
        self.cuda, self.is_half, self.seed, self.segment_size = cuda, is_half and cuda is not None, seed, segment_size
        self.features = folder / "features"
        self.cwd = folder / "cwd"
        self.environment = self._environment(threads)

    def _environment(self, threads: int) -> dict[str, str]:
        root, folder = self.root, self.folder
        stubs = folder / "stubs"
        stubs.mkdir(exist_ok=True)
        # tools/my_utils.py wants its web page's package for warnings; the real one calls its maker.
        (stubs / "gradio.py").write_text("def Warning(message):\n    print(message)\n\n\nInfo = Error = Warning\n")
        self.cwd.mkdir(exist_ok=True)
        for name in ("GPT_SoVITS", "tools"):
            if not (self.cwd / name).is_symlink():
                (self.cwd / name).symlink_to(root / name)
        cache = folder / "cache"
        for name in ("tmp", "cache/home"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        parts = [stubs, root, *(root / name for name in ("GPT_SoVITS", "GPT_SoVITS/BigVGAN", "GPT_SoVITS/eres2net"))]
        parts += [root / "tools", root / "tools/asr"]
        threads_of = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS", "NUMBA", "NUMEXPR")}
        return threads_of | {
            "PYTHONPATH": os.pathsep.join(map(str, parts)),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONIOENCODING": "utf-8",
            "TMPDIR": str(folder / "tmp"),
            "XDG_CACHE_HOME": str(cache),
            "HF_HOME": str(cache / "huggingface"),
            "NUMBA_CACHE_DIR": str(cache / "numba"),
            "MPLCONFIGDIR": str(cache / "matplotlib"),
            "TRITON_CACHE_DIR": str(cache / "triton"),
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "TQDM_MININTERVAL": "1",
            "CUDA_VISIBLE_DEVICES": self.cuda or "",
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
            )
            # It draws its port by chance.
            if attempt == 1 and child.code and child.said(children.NO_PORT):
                continue
            break
        return child

    # --- features -------------------------------------------------------------------------------------------

    def write_list(self, clips: Sequence[Clip]) -> Path:
        path = self.folder / "train.list"
        lines = [f"{clip.path}|speaker|{clip.language}|{' '.join((clip.text or '').split())}" for clip in clips]
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
        """One of the scripts of prepare_datasets, for all clips in one part."""
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
            lambda: len(_lines(found)),
            progress,
            bert_pretrained_dir=str(self.root / PRETRAINED / BERT),
        )
        rows = [line.split("\t") for line in _lines(found)]
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
            lambda: _count(folder),
            progress,
            cnhubert_base_dir=str(self.root / PRETRAINED / HUBERT),
        )
        return {
            clip.name
            for clip in clips
            if _filled(folder / f"{clip.name}.wav.pt") and _filled(self.features / "5-wav32k" / f"{clip.name}.wav")
        }

    def sv(self, clips: Sequence[Clip], progress: Progress) -> set[str]:
        folder = self.features / "7-sv_cn"
        self._prepare("sv", "2-get-sv", clips, lambda: _count(folder), progress, sv_path=str(self.bases.sv))
        return {clip.name for clip in clips if _filled(folder / f"{clip.name}.wav.pt")}

    def semantic(self, clips: Sequence[Clip], progress: Progress) -> set[str]:
        found = self.features / "6-name2semantic-0.tsv"
        remove(found)
        self._prepare(
            "semantic",
            "3-get-semantic",
            clips,
            lambda: len(_lines(found)),
            progress,
            pretrained_s2G=str(self.bases.sovits),
            s2config_path=str(self._s2_config()),
        )
        rows = [line.split("\t") for line in _lines(found)]
        good = {row[0]: row[1] for row in rows if len(row) == 2 and row[1].strip()}
        content = ["item_name\tsemantic_audio", *("\t".join(item) for item in good.items())]
        (self.features / "6-name2semantic.tsv").write_text("\n".join(content) + "\n", "utf-8")
        return {clip.name for clip in clips if f"{clip.name}.wav" in good}

    def keep(self, clips: Sequence[Clip]) -> None:
        """Takes every other clip out of what the trainers read: they take what is in both lists."""
        names = {f"{clip.name}.wav" for clip in clips}
        for name, header in (("2-name2text.txt", 0), ("6-name2semantic.tsv", 1)):
            path = self.features / name
            lines = _lines(path)
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
        if epochs not in _epochs(weights, "*.pth"):
            self._check_states(states)
            self._run_s2(epochs, batch, weights, states, progress)
        made = _epochs(weights, "*.pth")
        wanted = _kept(epochs, KEEP_SOVITS)
        lacking = [epoch for epoch in wanted if epoch not in made]
        if lacking:
            raise ScriptError(script_io.ENGINE_FAILED, f"SoVITS saved no weights of epoch {lacking[0]}")
        if any(_steps(made[epoch]) == 0 for epoch in wanted):
            raise ScriptError(script_io.ENGINE_FAILED, "SoVITS trained no step: the clips are too long or too short")
        return [made[epoch] for epoch in wanted]

    def _check_states(self, states: Path) -> None:
        """A broken state would be taken for none, and the training begin anew in silence: here it is told."""
        found = sorted(states.glob("[GD]_*.pth"))
        if found and (len(found) != 2 or not all(_whole(path) for path in found)):
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
        watcher = _S2(epochs, progress)
        child = self.run(
            "sovits",
            "GPT_SoVITS/s2_train.py",
            "--config",
            path,
            on_line=watcher,
            on_look=lambda: self._prune(weights, "*.pth", epochs, KEEP_SOVITS),
        )
        self._prune(weights, "*.pth", epochs, KEEP_SOVITS)
        if child.code:
            raise child.failure(self.folder)
        if watcher.unsaved:
            raise ScriptError(
                script_io.DISK_FULL if child.said(children.NO_SPACE) else script_io.ENGINE_FAILED,
                f"SoVITS could not save its weights: {child.reason}",
            )
        if not resumes and watcher.loaded < 2:
            raise ScriptError(script_io.NO_WEIGHTS, "SoVITS did not load the whole base: its keys do not match")
        if resumes and not watcher.resumed:
            raise ScriptError(script_io.ENGINE_FAILED, "SoVITS did not go on from its last checkpoint")

    def _prune(self, folder: Path, pattern: str, epochs: int, every: int) -> None:
        """Of the weights of each epoch those that are not kept go, once the next ones are there."""
        made = _epochs(folder, pattern)
        for epoch, path in made.items():
            if epoch < max(made) and epoch not in _kept(epochs, every):
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
        config["model"] |= self._gpt_size(yaml)
        config["train"] |= {
            "precision": config["train"]["precision"] if self.is_half else "32",
            "batch_size": min(batch, max(1, _repeated(clips) // GPT_BATCHES)),
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
        path.write_text(json.dumps(config), "utf-8")  # JSON is YAML too
        wanted = _kept(epochs, KEEP_GPT)
        if epochs not in _epochs(weights, "*.ckpt"):
            for state in states.glob("*.ckpt"):
                if not _whole(state):
                    state.unlink()

            def look() -> None:
                progress(max(_epochs(weights, "*.ckpt"), default=0) / epochs)
                self._prune(weights, "*.ckpt", epochs, KEEP_GPT)

            child = self.run(
                "gpt",
                "GPT_SoVITS/s1_train.py",
                "--config_file",
                path,
                # Without it its own state cannot be read again: a pickle, of a file that this training wrote.
                environment={"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
                on_look=look,
            )
            look()
            if child.code:
                raise child.failure(self.folder)
        made = _epochs(weights, "*.ckpt")
        lacking = [epoch for epoch in wanted if epoch not in made]
        if lacking:
            raise ScriptError(script_io.ENGINE_FAILED, f"the GPT saved no weights of epoch {lacking[0]}")
        return [made[epoch] for epoch in wanted]

    def _gpt_size(self, yaml: Any) -> dict[str, Any]:
        """The number of layers of the base, where it says so and differs: `n_layer` alone, for small trials."""
        try:
            with zipfile.ZipFile(self.bases.gpt) as file:
                names = [name for name in file.namelist() if name.endswith("data.pkl")]
                layers = {int(n) for n in re.findall(rb"model\.h\.layers\.(\d+)\.", file.read(names[0]))}
        except (zipfile.BadZipFile, OSError, IndexError):
            return {}
        return {"n_layer": max(layers) + 1} if layers else {}


class _S2:
    """What s2_train.py prints: how far it is, whether it loaded its base, saved, and has a loss that is a number."""

    def __init__(self, epochs: int, progress: Progress) -> None:
        self.epochs, self.progress = epochs, progress
        self.loaded, self.resumed, self.unsaved = 0, False, False
        self.epoch = 0
        self.broken = 0

    def __call__(self, line: str) -> None:
        if "loaded pretrained" in line and "All keys matched" in line:
            self.loaded += 1
        elif "Loaded checkpoint" in line:
            self.resumed = True
        elif match := re.search(r"start training from epoch (\d+)", line):
            self.epoch = int(match[1])
        elif match := re.search(r"====> Epoch: (\d+)", line):
            self.epoch = int(match[1]) + 1
            self.progress(int(match[1]) / self.epochs)
        elif "saving ckpt" in line:
            self.unsaved = not line.endswith("Success.")
        elif match := _LOSSES.search(line):
            numbers = [float(part) for part in match[1].rstrip(", ").split(", ")]
            self.broken = 0 if all(math.isfinite(number) for number in numbers) else self.broken + 1
            if self.broken >= NOT_FINITE_LINES:
                raise Ended(script_io.NOT_FINITE, f"the loss of SoVITS is no number any more (epoch {self.epoch})")
        elif self.epoch and (match := _BAR.search(line)):
            done = int(match[1]) / max(1, int(match[2]))
            self.progress((self.epoch - 1 + done) / self.epochs)


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text("utf-8").split("\n") if line.strip()]
    except (FileNotFoundError, UnicodeDecodeError):  # not there, or half written
        return []


def _count(folder: Path) -> int:
    return sum(1 for _ in folder.glob("*.pt"))


def _filled(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 100


def _whole(path: Path) -> bool:
    """A checkpoint is a zip file, whose table stands at its end."""
    return zipfile.is_zipfile(path)


def _epochs(folder: Path, pattern: str) -> dict[int, Path]:
    found = {}
    for path in folder.glob(pattern):
        match = _SAVED.search(path.stem) or re.search(r"-e(\d+)$", path.stem)
        if match and path.stat().st_size:
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def _steps(path: Path) -> int:
    match = _SAVED.search(path.stem)
    return int(match[2]) if match else 0


def _kept(epochs: int, every: int) -> list[int]:
    return sorted({*range(every, epochs + 1, every), epochs})


def _repeated(clips: int) -> int:
    return clips * max(2, REPEATED_TO // clips) if clips < REPEATED_TO else clips
