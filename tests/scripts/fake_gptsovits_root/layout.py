"""The files of a root: the official module paths and signatures, weights, configurations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from .names import GPT, HEADS, PRETRAINED, SOVITS
from .speaking import TTS_Config

REPOSITORY = Path(__file__).resolve().parents[3]
UVR_MODELS = ("HP2_all_vocals", "HP3_all_vocals", "HP5_only_main_vocal", "VR-DeEchoNormal", "VR-DeEchoDeReverb")

_MODULES = {
    "torch/__init__.py": """
        from tests.scripts.fake_gptsovits_root.state import mood
        __version__ = "2.0.0+fake"
        def __getattr__(name):  # who only asks for a GPU need not load numpy
            from tests.scripts.fake_gptsovits_root import tensors
            if name in ("Tensor", "equal", "from_numpy", "isfinite", "load", "no_grad", "nn"):
                return getattr(tensors, name)
            raise AttributeError(name)
        class OutOfMemoryError(RuntimeError): pass
        class cuda:
            OutOfMemoryError = OutOfMemoryError
            @staticmethod
            def is_available(): return mood().get("cuda", True)
            @staticmethod
            def device_count(): return 1 if mood().get("cuda", True) else 0
            @staticmethod
            def is_initialized(): return mood().get("cuda", True)
            @staticmethod
            def empty_cache(): pass
            @staticmethod
            def get_device_name(index=0): return "Fake"
            @staticmethod
            def get_device_properties(index): return type("Properties", (), {"total_memory": 8 * 2**30})
    """,
    "GPT_SoVITS/process_ckpt.py": """
        from tests.scripts.fake_gptsovits_root.speaking import get_sovits_version_from_path_fast
    """,
    "GPT_SoVITS/TTS_infer_pack/__init__.py": "",
    "GPT_SoVITS/TTS_infer_pack/TTS.py": """
        import os
        now_dir = os.getcwd()
        import process_ckpt
        import tools.i18n  # importable only with the root on sys.path
        from tests.scripts.fake_gptsovits_root import state
        from tests.scripts.fake_gptsovits_root.speaking import TTS, TTS_Config
        state.now_dir = now_dir
    """,
    "tools/__init__.py": "",
    "tools/i18n/__init__.py": "",
    "tools/uvr5/vr.py": """
        from lib.lib_v5 import spec_utils  # importable only with tools/uvr5 on sys.path
        from tests.scripts.fake_gptsovits_root.separating import AudioPre, AudioPreDeEcho
    """,
    "tools/uvr5/lib/lib_v5/spec_utils.py": """
        import numpy as np

        def cmb_spectrogram_to_wave(spec_m):
            bins = spec_m.shape[1]
            dirt = [np.full((2, bins), 2.0 * bins, dtype=complex) for _ in range(3)]  # what others left in memory
            del dirt
            spec_s = np.ndarray(shape=(2, bins), dtype=complex)
            spec_s[:, : bins - 1] = spec_m[:, : bins - 1]  # its last bin is written by nobody
            return np.fft.irfft(spec_s)
    """,
    "tools/uvr5/bsroformer.py": "from tests.scripts.fake_gptsovits_root.separating import Roformer_Loader",
    "tools/uvr5/mdxnet.py": "from tests.scripts.fake_gptsovits_root.separating import MDXNetDereverb",
    "tools/uvr5/webui.py": 'raise SystemExit("the page of the engine starts a server when it is imported")',
    "api_v2.py": "",
}


def build(folder: Path, versions: tuple[str, ...] = ("v2",), uvr: tuple[str, ...] = UVR_MODELS) -> Path:
    """Lays a project root out in `folder`, with the pretrained weights of `versions`; returns it, resolved."""
    for name, source in _MODULES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [line[8:] if line.startswith("        ") else line for line in source.strip("\n").splitlines()]
        path.write_text(f"import sys\nsys.path.append({str(REPOSITORY)!r})\n" + "\n".join(lines) + "\n", "utf-8")
    root = folder / PRETRAINED
    for name in ("chinese-roberta-wwm-ext-large", "chinese-hubert-base"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for version in versions:
        write_gpt(root / GPT.get(version, "s1v3.ckpt"))
        write_sovits(root / SOVITS[version], version)
        for beside in {
            "v3": ["models--nvidia--bigvgan_v2_24khz_100band_256x/config.json"],
            "v4": ["gsv-v4-pretrained/vocoder.pth"],
            "v2Pro": ["sv/pretrained_eres2netv2w24s4ep4.ckpt"],
            "v2ProPlus": ["sv/pretrained_eres2netv2w24s4ep4.ckpt"],
        }.get(version, []):
            (root / beside).parent.mkdir(parents=True, exist_ok=True)
            (root / beside).write_text("{}")
    configs = folder / "GPT_SoVITS" / "configs"
    configs.mkdir(exist_ok=True)
    (configs / "tts_infer.yaml").write_text(yaml.dump({"custom": TTS_Config.default_configs["v2"]}))
    weights = folder / "tools" / "uvr5" / "uvr5_weights"
    weights.mkdir(exist_ok=True)
    for name in uvr:
        (weights / f"{name}.pth").write_text("{}")
    return folder.resolve()


_PREPARATION = {"1-get-text": "text", "2-get-hubert-wav32k": "hubert", "2-get-sv": "sv", "3-get-semantic": "semantic"}
_TRAINING_PACKAGES = (
    "torchaudio",
    "transformers",
    "pytorch_lightning",
    "tensorboard",
    "pandas",
    "librosa",
    "ffmpeg",
    "tqdm",
)


def add_training(folder: Path, versions: tuple[str, ...] = ("v2",)) -> Path:
    """The scripts of the fine-tuning, what they start from, and a folder with the packages that they want."""
    engine = folder / "GPT_SoVITS"
    head = f"import sys\nsys.path.append({str(REPOSITORY)!r})\n"
    scripts = {f"prepare_datasets/{name}": ("preparing", f"get_{kind}") for name, kind in _PREPARATION.items()}
    trainers = {name: ("training", name) for name in ("s2_train", "s1_train")}
    for name, (module, function) in {**scripts, **trainers}.items():
        path = engine / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        where = f"tests.scripts.fake_gptsovits_root.{module}"
        lines = ["import tools.my_utils", f"from {where} import {function}", 'if __name__ == "__main__":']
        path.write_text(head + "\n".join(lines) + f"\n    {function}()\n")
    (folder / "tools" / "my_utils.py").write_text("import gradio\nimport pandas\n")
    (engine / "eres2net").mkdir()
    source = head + "from tests.scripts.fake_gptsovits_root.tensors import Embedding as ERes2NetV2\n"
    (engine / "eres2net" / "ERes2NetV2.py").write_text(source)
    source = head + "from tests.scripts.fake_gptsovits_root.tensors import fbank\n"
    (engine / "eres2net" / "kaldi.py").write_text(source)
    for name in ("s2", "s2v2Pro", "s2v2ProPlus"):
        (engine / "configs" / f"{name}.json").write_text('{"train": {}, "data": {}, "model": {}}')
    (engine / "configs" / "s1longer-v2.yaml").write_text(
        '{"train": {"precision": "16-mixed"}, "model": {"n_layer": 24}, "optimizer": {"lr_init": 0.00001}}'
    )
    root = folder / PRETRAINED
    for name in ("chinese-roberta-wwm-ext-large", "chinese-hubert-base"):
        (root / name / "config.json").write_text("{}")
    (root / "sv").mkdir(exist_ok=True)
    (root / "sv" / "pretrained_eres2netv2w24s4ep4.ckpt").write_text("PK{}")
    for version in versions:
        path = root / SOVITS[version]
        write_sovits(path.with_name(path.name.replace("s2G", "s2D")), version)
    packages = folder.parent / f"{folder.name}-packages"
    for name in _TRAINING_PACKAGES:
        (packages / name).mkdir(parents=True)
        (packages / name / "__init__.py").touch()
    return packages


def add_trained(folder: Path, name: str, *, version: str = "v2", epoch: int = 8, **voice: Any) -> tuple[Path, Path]:
    """Weights where and as the engine's training writes them: <name>-e8.ckpt and <name>_e8_s96.pth."""
    suffix = "" if version == "v1" else f"_{version}"
    gpt = folder / f"GPT_weights{suffix}" / f"{name}-e{epoch}.ckpt"
    sovits = folder / f"SoVITS_weights{suffix}" / f"{name}_e{epoch}_s{12 * epoch}.pth"
    write_gpt(gpt)
    write_sovits(sovits, version, **voice)
    return gpt, sovits


def write_gpt(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"PK" + json.dumps({"config": {"data": {"max_sec": 54}}}).encode())


def write_sovits(path: Path, version: str = "v2", voice: str = "heart", pitch: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"version": version, "voice": voice, "pitch": pitch}
    path.write_bytes(HEADS[version] + json.dumps(content).encode())
