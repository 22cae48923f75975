"""The training of Applio and RVC-Project, for the roots of fake_engines: names, arguments, folders, files and oddities
as read at the commits that rvc_train.py names. Applio ends with one status after a training and after none; both take
an old index again; RVC-Project writes weights into assets/weights of the working folder.

FAKE_RVC_MOOD (JSON): `fits`: the largest batch; `stop`: after this epoch it waits; `train`: "nan" | "nothing" | "disk"
| "unsaved" (of its weights); `extract`: "nothing".

numpy is loaded by what computes with it alone: each of these is an interpreter of its own in each training.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import time
import warnings
import zipfile
from multiprocessing.connection import Listener
from pathlib import Path
from typing import Any

from tests.scripts import fake_engines

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = {
    "applio": {
        "rvc/train/preprocess/preprocess.py": "applio_preprocess",
        "rvc/train/extract/extract.py": "applio_extract",
        "rvc/train/train.py": "applio_train",
        "rvc/train/process/extract_index.py": "applio_index",
    },
    "rvc": {
        "train/preprocess.py": "rvc_preprocess",
        "train/dataset/extract_f0.py": "rvc_f0",
        "train/dataset/extract_hubert_feature.py": "rvc_hubert",
        "train/train.py": "rvc_train",
        "train/train_index.py": "rvc_index",
    },
}
FILES = {
    "applio": [
        "rvc/models/pretraineds/hifi-gan/f0G40k.pth",
        "rvc/models/pretraineds/hifi-gan/f0D40k.pth",
        "assets/config.json",
        "rvc/models/embedders/contentvec/pytorch_model.bin",
        "rvc/models/embedders/contentvec/config.json",
        "rvc/models/predictors/rmvpe.pt",
        "rvc/configs/40000.json",
        "logs/mute/sliced_audios/mute40000.wav",
    ],
    "rvc": [
        "assets/pretrained_v2/f0G40k.pth",
        "assets/pretrained_v2/f0D40k.pth",
        "assets/hubert_base/config.json",
        "assets/hubert_base/pytorch_model.bin",
        "assets/rmvpe/rmvpe.pt",
        "configs/v1/40k.json",
        "logs/mute/0_gt_wavs/mute40k.wav",
    ],
}
# Applio's trainer finds a module beside it; in RVC-Project's folder `train` is a train.py, which hides that package.
IMPORTS = {"applio": "", "rvc": "from train import utils\n"}
TORCH = """

from tests.fakes.rvc_training import isfinite, load
"""


def build(folder: Path) -> None:
    """Roots `applio` and `rvc` and the packages `site`, with which they can be trained."""
    fake_engines.build(folder)
    head = f"import sys\nsys.path.append({str(REPOSITORY)!r})\n"
    for engine, scripts in SCRIPTS.items():
        for path, function in scripts.items():
            source = f"{IMPORTS[engine]}{head}from tests.fakes.rvc_training import {function}\n"
            fake_engines.put(folder / engine / path, f'{source}if __name__ == "__main__":\n    {function}()\n')
        for path in FILES[engine]:
            if not (folder / engine / path).exists():
                fake_engines.put(folder / engine / path, "{}")
    fake_engines.put(folder / "rvc/train/utils.py", "")
    for name in ("sklearn", "librosa", "tensorboard", "tqdm"):
        fake_engines.put(folder / "site" / name / "__init__.py", "")
    torch = folder / "site" / "torch.py"
    torch.write_text(f"{torch.read_text()}\n{head}{TORCH}__version__ = '2'\n")


def load(source: Any, **how: Any) -> dict[str, Any]:
    """Weights are JSON here; a zip's first letters were put before them."""
    return {"weight": {"loss": json.loads(b'{"' + source.read()[2:]).get("loss", 0.0)}}


class _Answer(float):
    def all(self) -> bool:
        return math.isfinite(self)


isfinite = _Answer


def mood() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(os.environ.get("FAKE_RVC_MOOD", "{}"))
    return told


def log(**facts: Any) -> None:
    with open("calls.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(facts) + "\n")


def _slice(source: Path, folders: tuple[Path, Path], rate: int) -> None:
    import soundfile as sf
    import soxr

    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(sorted(source.iterdir())):
        samples, own = sf.read(path)
        pieces = range(0, len(samples), 3 * own)
        for piece, start in enumerate(pieces):
            part = samples[start : start + 3 * own]
            for folder, wanted in zip(folders, (rate, 16000), strict=True):
                sf.write(folder / f"0_{number}_{piece}.wav", soxr.resample(part, own, wanted), wanted)


def _extract(wavs: Path, folders: list[Path], names: str) -> None:
    import numpy as np

    for folder in folders:
        folder.mkdir(exist_ok=True)
        for path in wavs.glob("*.wav"):
            if mood().get("extract") == "nothing":
                print(path, "Traceback\nRuntimeError: the model is broken")
                continue
            name = names.format(path=path)
            np.save(folder / (name if folder.name not in ("extracted", "3_feature768") else f"{path.stem}.npy"), [1.0])


def applio_preprocess() -> None:
    experiment, source, rate = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    assert sys.argv[5:] == ["Automatic", "False", "False", "0.5", "3.0", "0.3", "none"]
    _slice(source, (experiment / "sliced_audios", experiment / "sliced_audios_16k"), rate)


def applio_extract() -> None:
    experiment, method = Path(sys.argv[1]), sys.argv[2]
    log(script="extract", method=method, gpu=sys.argv[4], embedder=sys.argv[6])
    wavs = experiment / "sliced_audios_16k"
    _extract(wavs, [experiment / name for name in ("f0", "f0_voiced", "extracted")], "{path.name}.npy")
    open(os.path.join("rvc", "configs", f"{sys.argv[5]}.json")).close()
    (experiment / "config.json").write_text("{}")
    names = sorted(path.stem for path in (experiment / "extracted").iterdir())
    (experiment / "filelist.txt").write_text("\n".join(f"{name}|{name}|{name}|{name}|0" for name in names))


def applio_train() -> None:
    name, every, epochs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    batch, rate = int(sys.argv[7]), int(sys.argv[8])
    assert sys.argv[9:] == ["True", "True", "False", "False", "HiFi-GAN", "False"]
    experiment = Path.cwd() / "logs" / name
    pieces = len((experiment / "filelist.txt").read_text().splitlines())
    log(script="train", batch=batch, epochs=epochs, pretrained=[os.path.exists(path) for path in sys.argv[4:6]])
    if pieces // batch < 3:
        print("Not enough data present in the training set.")
        sys.exit(0)  # its child ends with a number that nobody looks at

    def epoch_done(epoch: int, step: int) -> str:
        return f"{name} | epoch={epoch} | step={step} | time=12:00:00 | training_speed=0:00:01"

    names = f"{name}_{{epoch}}e_{{step}}s"
    _train(experiment, experiment, names, epochs, every, batch, pieces, rate, epoch_done, repeated=0)
    warnings.warn_explicit("resource_tracker: 12 leaked semlock objects", UserWarning, __file__, 1)


def _train(
    experiment: Path,
    weights: Path,
    saved_as: str,
    epochs: int,
    every: int,
    batch: int,
    pieces: int,
    rate: int,
    said: Any,
    repeated: int,
) -> None:
    first = 1
    if (experiment / "G_2333333.pth").exists():
        with zipfile.ZipFile(experiment / "G_2333333.pth") as file:
            first = json.loads(file.read("data.pkl"))["epoch"] + 1 - repeated
    print("begins with epoch", first, flush=True)
    Listener(family="AF_UNIX").close()  # as workers of torch's loaders do, in a folder of TMPDIR
    for epoch in range(first, epochs + 1):
        if batch > mood().get("fits", 1000):
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        if mood().get("train") == "disk":
            raise OSError(28, "No space left on device")
        step = epoch * (pieces // batch)
        print(said(epoch, step), flush=True)
        if mood().get("train") == "nothing":
            continue
        if epoch % every == 0:
            for kind in "GD":
                with zipfile.ZipFile(experiment / f"{kind}_2333333.pth", "w") as file:
                    file.writestr("data.pkl", json.dumps({"epoch": epoch}))
        if epoch % every == 0 or epoch == epochs:
            loss = float("nan") if mood().get("train") == "nan" else 1 / epoch
            try:
                if mood().get("train") == "unsaved":
                    raise FileNotFoundError("assets/config.json")
                fake_engines.voice(weights / f"{saved_as.format(epoch=epoch, step=step)}.pth", rate, loss=loss)
            except FileNotFoundError as error:
                print(f"An error occurred extracting the model: {error}")
        if mood().get("stop") == epoch:
            time.sleep(600)


def applio_index() -> None:
    experiment = Path(sys.argv[1])
    path = experiment / f"{experiment.name}.index"
    if not path.exists():
        path.write_text(f"768 {len(list((experiment / 'extracted').iterdir()))}")


def rvc_preprocess() -> None:
    source, rate, experiment = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[4])
    assert sys.argv[5:] == ["False", "3.7"]
    open(experiment / "preprocess.log", "a").close()  # the folder has to be there
    _slice(source, (experiment / "0_gt_wavs", experiment / "1_16k_wavs"), rate)


def rvc_f0() -> None:
    assert sys.argv[1] == "cpu"
    experiment = Path(sys.argv[2])
    log(script="extract", method=sys.argv[4])
    _extract(experiment / "1_16k_wavs", [experiment / "2a_f0", experiment / "2b-f0nsf"], "{path.name}.npy")


def rvc_hubert() -> None:
    assert sys.argv[1:4] == ["cpu", "1", "0"] and sys.argv[6] == "v2"
    experiment = Path(sys.argv[5])
    _extract(experiment / "1_16k_wavs", [experiment / "3_feature768"], "")


def rvc_train() -> None:
    given = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    assert {"-f0": "1", "-l": "1", "-c": "0", "-sw": "1", "-v": "v2"}.items() <= given.items()
    experiment = Path("logs") / given["-e"]
    json.loads((experiment / "config.json").read_text())
    lines = (experiment / "filelist.txt").read_text().splitlines()
    for line in lines:
        wav = line.split("|")[0]
        assert len(line.split("|")) == 5 and os.path.exists(wav) and os.path.isabs(wav)
    batch, epochs = int(given["-bs"]), int(given["-te"])
    log(script="train", batch=batch, epochs=epochs, pretrained=[os.path.exists(given[name]) for name in ("-pg", "-pd")])
    logging.basicConfig(stream=sys.stdout, level=logging.INFO)

    def epoch_done(epoch: int, step: int) -> str:
        return f"INFO:training:====> Epoch: {epoch} [2026-11-29 12:00:00] | (0:00:01)"

    rate = 1000 * int(re.sub(r"\D", "", given["-sr"]))
    _train(
        experiment,
        Path("assets/weights"),
        f"{given['-e']}_e{{epoch}}_s{{step}}",
        epochs,
        int(given["-se"]),
        batch,
        len(lines),
        rate,
        epoch_done,
        repeated=1,  # the epoch of its state
    )


def rvc_index() -> None:
    name, version, outside = sys.argv[1:4]
    experiment = Path("logs") / name
    if not list(experiment.glob("added_*.index")):
        count = len(list((experiment / "3_feature768").iterdir()))
        path = experiment / f"added_IVF1_Flat_nprobe_1_{name}_{version}.index"
        path.write_text(f"768 {count}")
        os.symlink(path.resolve(), Path(outside) / f"{name}_{path.name}")
