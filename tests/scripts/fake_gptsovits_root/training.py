# ruff: noqa: SIM112  # the names are the engine's
"""The scripts of the fine-tuning, with the original's names, environment, files, exit statuses and oddities.

Read and met at 48b1a0169: preparation exits with 0 whatever it leaves out, and keeps what is there already; s2_train.py
does so without a base, without a step and without a place to save, takes a broken state for none, and leaves its
trainer behind when it is ended alone; s1_train.py cannot read its own state again but with TORCH_FORCE_NO_WEIGHTS_ONLY_
LOAD, and changes nothing in an epoch of less than five batches.

A voice is trained by its pitch: that of the clips, more nearly with each epoch. The mood (state.py) says what else goes
wrong: `text`: names of clips that no phonemes are made of; `hubert`: "oom"; `s2`: "nan" | "enospc" | "mismatch" |
"nan_weights" | "unsaved" | "no_change" | "worse" | "lost_gpu" | "port" (once in a working folder);
`s2_fits`: the largest batch that memory does for; `s2_stop`: after this epoch it waits; `s1`: "nan" | "oom"; `s1_stop`.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import yaml

from .speaking import HEADS
from .state import log, mood
from .tensors import pitch

BASE_HZ = 0.04 * 32000 / (2 * np.pi)  # of the weights with pitch 1, see `speaking`
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
            samples, rate = sf.read(item[0])
            assert rate == RATE and samples.ndim == 1 and np.any(samples)
            sf.write(output / "5-wav32k" / name, samples, RATE)
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
            seconds = sf.info(output / "5-wav32k" / name).duration
            rows.append(f"{name}\t{' '.join(['7'] * int(25 * seconds))}")
    found.write_text("\n".join(rows), "utf-8")


# --- SoVITS ---------------------------------------------------------------------------------------------------


def s2_train() -> None:
    config = json.loads(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
    train = config["train"]
    log("s2", batch=train["batch_size"], epochs=train["epochs"], cwd=os.getcwd(), gpu=train["gpu_numbers"])
    if mood().get("s2") == "port" and not Path("port").exists():
        Path("port").touch()
        raise RuntimeError("The server socket has failed to listen on any local network address. EADDRINUSE")
    context = multiprocessing.get_context("spawn")
    semaphore = context.Semaphore()  # its name stays in /dev/shm while the process lives
    child = context.Process(target=_train_sovits, args=(config, semaphore))
    child.start()
    child.join()
    if child.exitcode:
        raise SystemExit(f"torch.multiprocessing.spawn.ProcessRaisedException: process 0 ended with {child.exitcode}")


def _train_sovits(config: dict[str, Any], semaphore: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a trainer in a kernel of CUDA does not hear it soon
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(levelname)s:%(name)s:%(message)s")
    logger = logging.getLogger("training")
    train, data = config["train"], Path(config["data"]["exp_dir"])
    states = data / f"logs_s2_{config['model']['version']}"
    names = {line.split("\t")[0] for line in (data / "2-name2text.txt").read_text("utf-8").splitlines()}
    names &= {path.name for path in (data / "5-wav32k").iterdir()}
    names &= {path.name.removesuffix(".pt") for path in (data / "4-cnhubert").iterdir()}
    if "Pro" in config["model"]["version"]:
        names &= {path.name.removesuffix(".pt") for path in (data / "7-sv_cn").iterdir()}
    clips = sorted(names) * max(2, 100 // len(names)) if len(names) < 100 else sorted(names)
    fitting = [name for name in clips if 0.64 < sf.info(data / "5-wav32k" / name).duration <= 38]
    steps = -(-len(fitting) // train["batch_size"])
    heard = np.concatenate([sf.read(data / "5-wav32k" / name)[0] for name in sorted(names)])
    wanted = pitch(heard, RATE) / BASE_HZ
    first, own = 1, 1.0
    try:
        for kind in "DG":
            [path] = states.glob(f"{kind}_*.pth")
            with zipfile.ZipFile(path) as file:
                state = json.loads(file.read("data.pkl"))
            logger.info("Loaded checkpoint '%s' (iteration %s)", path, state["iteration"])
        first, own = state["iteration"] + 1, state["pitch"]
    except Exception:
        matched = "<All keys matched successfully>"
        if mood().get("s2") == "mismatch":
            matched = "_IncompatibleKeys(missing_keys=['enc_p.x'], unexpected_keys=[])"
        for path in (train["pretrained_s2G"], train["pretrained_s2D"]):
            if os.path.exists(path):
                print(f"loaded pretrained {path} {matched}", flush=True)
    print(f"start training from epoch {first}", flush=True)
    for epoch in range(first, train["epochs"] + 1):
        if train["batch_size"] > mood().get("s2_fits", 1000):
            raise RuntimeError("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB")
        if mood().get("s2") == "lost_gpu":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        loss = "nan" if mood().get("s2") == "nan" else "2.31"
        for step in range(steps):
            print(f"{100 * step // steps}%|#| {step}/{steps} [00:01<00:01,  1.0it/s]\r", end="", file=sys.stderr)
            logger.info("Train Epoch: %s [%.0f%%]", epoch, 100 * step / steps)
            logger.info(f"[{loss}, 2.6, 0.5, 25.1, 0.0, 1.8, {step + (epoch - 1) * steps}, 9.99e-05]")
        if fitting and mood().get("s2") != "no_change":
            own += (wanted - own) * (-0.5 if mood().get("s2") == "worse" else 0.5)
        for kind in "GD":
            if mood().get("s2") == "enospc":
                raise OSError(28, "No space left on device")
            _save_zip({"iteration": epoch, "pitch": own}, states / f"{kind}_233333333333.pth")
        said = "Success."
        try:
            if mood().get("s2") == "unsaved":
                raise RuntimeError("[enforce fail at inline_container.cc:603] . unexpected pos 64 vs 0")
            version = config["version"]
            head = HEADS[version] if "Pro" in version else b"PK"
            made = own if mood().get("s2") != "nan_weights" else float("nan")
            content = head + json.dumps({"version": version, "voice": "heart", "pitch": made}).encode()
            path = Path(config["save_weight_dir"]) / f"{config['name']}_e{epoch}_s{epoch * steps}.pth"
            partial = Path(f"{time.time()}.pth")
            partial.write_bytes(content)
            os.replace(partial, path)
        except Exception as error:
            said = f"Traceback (most recent call last):\n{type(error).__name__}: {error}"
        logger.info("saving ckpt %s_e%s:%s", config["name"], epoch, said)
        logger.info("====> Epoch: %s", epoch)
        sys.stdout.flush()
        if mood().get("s2_stop") == epoch:
            time.sleep(600)
    print("training done")


def _save_zip(content: dict[str, Any], path: Path) -> None:
    partial = Path(f"{time.time()}.pth")
    with zipfile.ZipFile(partial, "w") as file:
        file.writestr("data.pkl", json.dumps(content))
    os.replace(partial, path)


# --- GPT ------------------------------------------------------------------------------------------------------


def s1_train() -> None:
    config = yaml.safe_load(Path(sys.argv[sys.argv.index("--config_file") + 1]).read_text())
    assert isinstance(config["optimizer"]["lr_init"], float)  # 1e-05 is a word to YAML
    train, output = config["train"], Path(config["output_dir"])
    log("s1", batch=train["batch_size"], epochs=train["epochs"], hz=os.environ["hz"], precision=train["precision"])
    states = output / "ckpt"
    states.mkdir(parents=True, exist_ok=True)
    base = json.loads(Path(config["pretrained_s1"]).read_bytes()[2:])
    rows = Path(config["train_semantic_path"]).read_text("utf-8").splitlines()
    assert rows[0] == "item_name\tsemantic_audio"
    rows = rows[1:]
    count = len(rows) * max(2, 100 // len(rows)) if len(rows) < 100 else len(rows)
    first, updates = 0, 0
    for path in sorted(states.glob("epoch=*.ckpt")):
        if os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD") != "1":
            raise SystemExit("_pickle.UnpicklingError: Weights only load failed.")
        with zipfile.ZipFile(path) as file:
            state = json.loads(file.read("data.pkl"))
        first, updates = state["epoch"], state["updates"]
        log("s1_resumes", epoch=first)
    if mood().get("s1") == "oom":
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
    for epoch in range(first + 1, train["epochs"] + 1):
        updates += max(0, -(-count // train["batch_size"]) - 1) // 4
        for path in states.glob("*.ckpt"):
            path.unlink()
        _save_zip({"epoch": epoch, "updates": updates}, states / f"epoch={epoch - 1}-step={updates}.ckpt")
        gain = float("nan") if mood().get("s1") == "nan" else base.get("gain", 1.0) + updates
        content = b"PK" + json.dumps({**base, "gain": gain}).encode()
        partial = Path(f"{time.time()}.pth")
        partial.write_bytes(content)
        os.replace(partial, Path(train["half_weights_save_dir"]) / f"{train['exp_name']}-e{epoch}.ckpt")
        if mood().get("s1_stop") == epoch:
            time.sleep(600)
