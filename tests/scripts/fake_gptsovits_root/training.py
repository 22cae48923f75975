# ruff: noqa: SIM112  # the names are the engine's
"""The trainers of the fine-tuning, with the original's names, environment, files, exit statuses and oddities.

Read and met at 48b1a0169: s2_train.py exits with 0 without a base, without a step and without a place to save, takes a
broken state for none, and leaves its trainer behind when it is ended alone; s1_train.py cannot read its own state again
but with TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD, changes nothing in an epoch of less than five batches, and waits for ever for
a batch that a loader could not hand over: the thread that feeds the queue prints the error, and drops the batch.

A voice is trained by its pitch: that of the clips, more nearly with each epoch. The mood (state.py) says what else goes
wrong: `s2`: "nan" | "enospc" | "mismatch" | "nan_weights" | "unsaved" | "no_change" | "worse" | "lost_gpu" (after its
first epoch) | "port" (once in a working folder); `s2_fits`: the largest batch that memory does for; `s2_stop`: after
this epoch it waits; `s1`: "nan" | "oom" | "no_shared_memory" | "silent" (after a batch, once in a working folder);
`s1_stop`.

numpy is loaded by what computes with it alone: each of these is an interpreter of its own in each training.
"""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import os
import signal
import sys
import time
import zipfile
from multiprocessing.connection import Listener
from pathlib import Path
from typing import Any

from .names import HEADS
from .state import log, mood

RATE = 32000
BASE_HZ = 0.04 * RATE / (2 * math.pi)  # of the weights with pitch 1, see `speaking`


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
    import numpy as np
    import soundfile as sf

    from .tensors import pitch

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
    log("s2_epochs", first=first)
    for epoch in range(first, train["epochs"] + 1):
        if train["batch_size"] > mood().get("s2_fits", 1000):
            raise RuntimeError("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB")
        if mood().get("s2") == "lost_gpu" and epoch > 1:
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


class _Batch:
    """A tensor on its way from a loader: its memory is handed over by a socket, whose path may be too long."""

    def __reduce__(self) -> tuple[type[_Batch], tuple[()]]:
        Listener(family="AF_UNIX").close()
        if mood().get("s1") == "no_shared_memory":
            raise RuntimeError("unable to write to file </torch_71_1_0>: No space left on device (28)")
        return _Batch, ()


def s1_train() -> None:
    import yaml

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
    batches = -(-count // train["batch_size"])
    for epoch in range(first + 1, train["epochs"] + 1):
        loaded: multiprocessing.Queue[_Batch] = multiprocessing.Queue()
        for batch in range(batches):
            loaded.put(_Batch())
            loaded.get()
            print(
                f"\rEpoch {epoch - 1}: {100 * (batch + 1) // batches:3d}%|#| {batch + 1}/{batches} [00:01<00:01]",
                end="",
            )
            sys.stdout.flush()
            if mood().get("s1") == "silent" and not Path("silent").exists():
                Path("silent").touch()
                time.sleep(600)
        updates += max(0, batches - 1) // 4
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
