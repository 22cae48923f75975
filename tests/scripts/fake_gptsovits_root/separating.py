"""The separators of tools/uvr5."""

from __future__ import annotations

import os
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import yaml

from . import state
from .state import OutOfMemoryError, log, mood


def _separated(music_file: str) -> tuple[np.ndarray, np.ndarray]:
    """(what is equal in both channels, the rest), float64 (n, 2) each, a little shorter than the file."""
    with wave.open(music_file) as file:  # neither float nor anything but WAV
        if file.getframerate() != 44100 or file.getnchannels() != 2 or file.getsampwidth() != 2:
            raise ModuleNotFoundError("No module named 'samplerate'")
    how = mood().get("separate")
    if how == "oom":
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 8.00 GiB total capacity)")
    if how == "raise":
        raise RuntimeError("The size of tensor a (673) must match the size of tensor b (672)")
    song, _ = sf.read(music_file, always_2d=True)
    if not np.any(song):
        raise ValueError("cannot convert float NaN to integer")
    song = song[: len(song) // 480 * 480]
    voice = np.repeat(song.mean(axis=1, keepdims=True), 2, axis=1)
    log("separate", frames=len(song), peak=float(np.abs(song).max()))
    if how == "nan":
        voice = voice * np.nan
    return voice, (song if how == "mixed" else song - voice)


def _save(path: str, samples: np.ndarray) -> None:
    if mood().get("separate") != "nothing":
        with np.errstate(invalid="ignore"):
            sf.write(path, (samples * 32768).astype(np.int32).astype(np.int16), 44100)


def _through_spectra(samples: np.ndarray) -> np.ndarray:
    """(n, 2) -> (n, 2): by the root's own spec_utils, as the VR models have it."""
    from lib.lib_v5 import spec_utils  # type: ignore[import-not-found]

    return np.asarray(spec_utils.cmb_spectrogram_to_wave(np.fft.rfft(samples.T)).T)


class AudioPre:
    vocal_first = False

    def __init__(self, agg: int, model_path: str, device: str, is_half: bool, tta: bool = False) -> None:
        open(model_path).close()
        time.sleep(mood().get("load_seconds", 0))
        log("separator", kind=type(self).__name__, model=model_path, device=device, is_half=is_half)
        self.agg = agg
        self.model_path = model_path

    def _path_audio_(
        self,
        music_file: str,
        ins_root: str | None = None,
        vocal_root: str | None = None,
        format: str = "flac",
        is_hp3: bool = False,
    ) -> None:
        voice, rest = map(_through_spectra, _separated(music_file))
        if "HP3" in self.model_path and not is_hp3:
            voice, rest = rest, voice  # that model gives the other part, and the caller has to know
        elif is_hp3 and "HP3" not in self.model_path:
            voice, rest = rest, voice
        for root, head, samples in ((ins_root, "instrument", rest), (vocal_root, "vocal", voice)):
            assert root is not None
            os.makedirs(root, exist_ok=True)
            _save(f"{root}/{head}_{os.path.basename(music_file)}_{self.agg}.{format}", samples)


class AudioPreDeEcho(AudioPre):
    def _path_audio_(  # type: ignore[override]  # the folders are reversed, as there
        self,
        music_file: str,
        vocal_root: str | None = None,
        ins_root: str | None = None,
        format: str = "flac",
        is_hp3: bool = False,
    ) -> None:
        super()._path_audio_(music_file, vocal_root, ins_root, format)


class Roformer_Loader:
    def __init__(self, model_path: str, config_path: str, device: str, is_half: bool) -> None:
        open(model_path).close()
        if not os.path.exists(config_path) and "bs_roformer" not in model_path.lower():
            raise ValueError("Error: Unknown model type.")
        self.config: dict[str, Any] = {"instruments": ["vocals", "other"], "target_instrument": "vocals"}
        if os.path.exists(config_path):
            self.config = yaml.safe_load(Path(config_path).read_text())["training"]
        log("separator", kind="Roformer_Loader", model=model_path, device=device, is_half=is_half)

    def _path_audio_(self, input: str, others_root: str, vocal_root: str, format: str, is_hp3: bool = False) -> None:
        voice, rest = _separated(input)
        name = os.path.splitext(os.path.basename(input))[0]
        stems = {"vocals": voice, "drums": rest * 0.25, "bass": rest * 0.75}
        target = self.config["target_instrument"]
        if target is not None:
            other = next(stem for stem in self.config["instruments"] if stem != target)
            stems = {str(target): voice, other: rest} if target == "vocals" else {str(target): rest, other: voice}
        first = target or self.config["instruments"][0]
        for stem, samples in stems.items():
            root = vocal_root if stem == first else others_root
            os.makedirs(root, exist_ok=True)
            _save(f"{root}/{name}_{stem}.wav", samples)


class MDXNetDereverb:
    def __init__(self, chunks: int) -> None:
        folder = Path(state.now_dir or os.getcwd()) / "tools" / "uvr5" / "uvr5_weights" / "onnx_dereverb_By_FoxJoy"
        open(folder / "vocals.onnx").close()
        log("separator", kind="MDXNetDereverb", chunks=chunks)
        self.pred = self
        self.model = self

    def get_providers(self) -> list[str]:
        on_gpu = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        return on_gpu[1:] if mood().get("onnx") == "cpu" else on_gpu

    def _path_audio_(self, input: str, others_root: str, vocal_root: str, format: str, is_hp3: bool = False) -> None:
        voice, rest = _separated(input)
        for root, tail, samples in ((vocal_root, "main_vocal", voice), (others_root, "others", rest)):
            os.makedirs(root, exist_ok=True)
            _save(f"{root}/{os.path.basename(input)}_{tail}.{format}", samples)
