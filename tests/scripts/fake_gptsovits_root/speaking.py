"""GPT_SoVITS/process_ckpt.py and GPT_SoVITS/TTS_infer_pack/TTS.py."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import yaml

from . import state
from .names import GPT, PRETRAINED, SOVITS, VERSIONS
from .state import OutOfMemoryError, log, mood
from .tensors import network

_VERSION_OF_HEAD = {
    b"PK": ("v2", "v2", False),  # told by its size
    b"00": ("v1", "v1", False),
    b"01": ("v2", "v2", False),
    b"02": ("v2", "v3", False),
    b"03": ("v2", "v3", True),
    b"04": ("v2", "v4", True),
    b"05": ("v2", "v2Pro", False),
    b"06": ("v2", "v2ProPlus", False),
}


def get_sovits_version_from_path_fast(sovits_path: str) -> tuple[str, str, bool]:
    with open(sovits_path, "rb") as file:
        head = file.read(2)
    return _VERSION_OF_HEAD[head]  # a KeyError for anything else, as there


class NO_PROMPT_ERROR(Exception):
    pass


class TTS_Config:
    default_configs: dict[str, Any] = {
        version: {
            "device": "cpu",
            "is_half": False,
            "version": version,
            "t2s_weights_path": f"{PRETRAINED}/{GPT.get(version, 's1v3.ckpt')}",
            "vits_weights_path": f"{PRETRAINED}/{SOVITS[version]}",
            "cnhuhbert_base_path": f"{PRETRAINED}/chinese-hubert-base",
            "bert_base_path": f"{PRETRAINED}/chinese-roberta-wwm-ext-large",
        }
        for version in VERSIONS
    }
    v1_languages = ["auto", "en", "zh", "ja", "all_zh", "all_ja"]
    v2_languages = ["auto", "auto_yue", "en", "zh", "ja", "yue", "ko", "all_zh", "all_ja", "all_yue", "all_ko"]
    sampling_rate = 32000

    def __init__(self, configs: str) -> None:
        os.makedirs("GPT_SoVITS/configs/", exist_ok=True)
        self.configs_path = configs
        self.default_configs = {**self.default_configs, **yaml.safe_load(Path(configs).read_text("utf-8"))}
        custom = self.default_configs.get("custom", self.default_configs["v2"])
        self.device = custom["device"]
        if "cuda" in self.device and not mood().get("cuda", True):
            print("Warning: CUDA is not available, set device to CPU.")
            self.device = "cpu"
        self.is_half = custom["is_half"] and self.device != "cpu"
        self.version = custom["version"]
        assert self.version in VERSIONS, "Invalid version!"
        self.languages = self.v1_languages if self.version == "v1" else self.v2_languages
        self.use_vocoder = False
        for name in ("t2s_weights_path", "vits_weights_path", "bert_base_path", "cnhuhbert_base_path"):
            path = custom.get(name)
            if path in (None, "") or not os.path.exists(path):
                path = self.default_configs[self.version][name]
                print(f"fall back to default {name}: {path}")
            setattr(self, name, path)

    def update_version(self, version: str) -> None:
        self.version = version
        self.languages = self.v1_languages if version == "v1" else self.v2_languages

    def save_configs(self) -> None:
        names = ("device", "is_half", "version", "t2s_weights_path", "vits_weights_path")
        custom = {name: getattr(self, name) for name in names}
        Path(self.configs_path).write_text(yaml.dump({**self.default_configs, "custom": custom}))


class TTS:
    def __init__(self, configs: TTS_Config) -> None:
        self.configs = configs
        self.t2s_model: dict[str, Any] | None = None
        self.vits_model: dict[str, Any] | None = None
        self.is_v2pro = False
        self.init_t2s_weights(configs.t2s_weights_path)
        self.init_vits_weights(configs.vits_weights_path)
        for path in (configs.bert_base_path, configs.cnhuhbert_base_path):
            if not os.path.isdir(path):
                raise OSError(f"{path} does not appear to have a file named config.json")
        self.prompt_cache: dict[str, Any] = {
            "ref_audio_path": None,
            "prompt_semantic": None,
            "refer_spec": [],
            "prompt_text": None,
            "prompt_lang": None,
            "phones": None,
            "aux_ref_audio_paths": [],
        }
        self.stop_flag = False
        self._generator = np.random.default_rng()  # the process's only one

    def init_t2s_weights(self, weights_path: str) -> None:
        print(f"Loading Text2Semantic weights from {weights_path}")
        self.configs.t2s_weights_path = weights_path
        self.configs.save_configs()
        self._load(weights_path)
        log("load_gpt", path=weights_path)
        self.t2s_model = json.loads(Path(weights_path).read_bytes()[2:])

    def init_vits_weights(self, weights_path: str) -> None:
        self.configs.vits_weights_path = weights_path
        _, version, is_lora = get_sovits_version_from_path_fast(weights_path)
        if is_lora and not os.path.exists(self.configs.default_configs[version]["vits_weights_path"]):
            raise FileNotFoundError(f"SoVITS {version} 底模缺失，无法加载相应 LoRA 权重")
        if "Pro" in version:
            open(f"{PRETRAINED}/sv/pretrained_eres2netv2w24s4ep4.ckpt").close()
        self._load(weights_path)
        log("load_sovits", path=weights_path)
        model = json.loads(Path(weights_path).read_bytes()[2:])
        self.configs.update_version(version)
        self.configs.use_vocoder = version in ("v3", "v4")
        if version == "v4":
            open(f"{state.now_dir}/{PRETRAINED}/gsv-v4-pretrained/vocoder.pth").close()
        self.is_v2pro = "Pro" in version
        self.vits_model = model
        self.configs.save_configs()

    @staticmethod
    def _load(path: str) -> None:
        time.sleep(mood().get("load_seconds", 0))
        if mood().get("load") == "oom":
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        open(path, "rb").close()

    def set_ref_audio(self, ref_audio_path: str) -> None:
        samples, rate = sf.read(ref_audio_path, dtype="float32", always_2d=True)
        if not 48000 <= math.ceil(len(samples) * 16000 / rate) <= 160000:
            raise OSError("参考音频在3~10秒范围外，请更换！")
        log("reference", path=ref_audio_path)
        self._generator.random(4)  # HuBERT draws a number for each layer, which it then does not use
        # The voice is that of the weights that the reference is computed with.
        self.prompt_cache["prompt_semantic"] = dict(self.vits_model or {})
        if mood().get("reference") == "oom":
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        self.prompt_cache["refer_spec"] = [float(np.abs(samples).max())]
        self.prompt_cache["ref_audio_path"] = ref_audio_path

    def stop(self) -> None:
        self.stop_flag = True

    def run(self, inputs: dict[str, Any]) -> Iterator[tuple[int, np.ndarray]]:
        self.stop_flag = False
        text, text_lang = inputs.get("text", ""), inputs.get("text_lang", "")
        reference = inputs.get("ref_audio_path", "")
        prompt_text, prompt_lang = inputs.get("prompt_text", ""), inputs.get("prompt_lang", "")
        speed, seed = inputs.get("speed_factor", 1.0), inputs.get("seed", -1)
        print(f"Set seed to {seed}")
        self._generator = np.random.default_rng(None if seed == -1 else seed)
        assert text_lang in self.configs.languages
        assert not prompt_text or prompt_lang in self.configs.languages
        if not prompt_text and self.configs.use_vocoder:
            raise NO_PROMPT_ERROR("prompt_text cannot be empty when using SoVITS_V3")
        cache = self.prompt_cache
        if reference != cache["ref_audio_path"]:
            if not os.path.exists(reference):
                raise ValueError(f"{reference} not exists")
            self.set_ref_audio(reference)
        if prompt_text and cache["prompt_text"] != prompt_text:
            print("实际输入的参考文本:", prompt_text)
            cache.update(prompt_text=prompt_text, prompt_lang=prompt_lang, phones=self.configs.version)
        if not text.strip("\n"):
            raise ValueError("请输入有效文本")
        if not any(char.isalnum() for char in text):
            yield 16000, np.zeros(16000, np.int16)
            return
        used = {"prompt_lang": cache["prompt_lang"], "prompt_version": cache["phones"]} if prompt_text else {}
        log("run", **inputs, used=used)
        try:
            print("前端处理后的文本(每句):", text)
            yield self._speak(text, speed, inputs)
        except Exception as error:
            yield 16000, np.zeros(16000, np.int16)
            self.t2s_model = None
            self.vits_model = None
            if mood().get("reload") == "oom":
                raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB") from None
            self.init_t2s_weights(self.configs.t2s_weights_path)
            self.init_vits_weights(self.configs.vits_weights_path)
            raise error

    def _speak(self, text: str, speed: float, inputs: dict[str, Any]) -> tuple[int, np.ndarray]:
        if self.configs.version == "v1" and self.prompt_cache["phones"] not in (None, "v1"):
            raise RuntimeError("CUDA error: device-side assert triggered")  # a phoneme that v1 does not have
        deadline = time.monotonic() + mood().get("run_seconds", 0)
        while (how := mood().get("run")) == "hang" or time.monotonic() < deadline:
            time.sleep(0.01)
        rate = {"v3": 24000, "v4": 48000}.get(self.configs.version, 32000)
        if how == "oom":
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 8.00 GiB total capacity)")
        whose = "base" if "pretrained" in self.configs.vits_weights_path else "trained"
        if how in ("raise", f"raise_{whose}"):
            raise RuntimeError(f"no phonemes for {text!r}")
        if how == "cuda_error":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if how == "silence":
            return rate, np.zeros(rate * 2, np.int16)
        network(20 * len(text))  # some for each token
        voice = self.prompt_cache["prompt_semantic"]
        if mood().get("tone"):
            pitch = 0.04 * voice["pitch"]
            samples = np.sin(np.arange(round(rate * 0.06 * len(text) / speed)) * pitch).astype(np.float32)
        else:
            temperature = inputs.get("temperature", 1)
            samples = _say(text, voice["voice"], voice["pitch"], speed, temperature, self._generator, rate)
        samples *= self.prompt_cache["refer_spec"][0] / np.abs(samples).max()
        pause = np.zeros(int(rate * inputs.get("fragment_interval", 0.3)), np.float32)
        return rate, (np.concatenate([samples, pause]) * 32768).astype(np.int32).astype(np.int16)


@lru_cache(maxsize=2)
def _base_voice(name: str) -> Any:
    from voices.engines.builtin.languages import english

    return english.load(name)


def _say(
    text: str, voice: str, pitch: float, speed: float, temperature: float, generator: np.random.Generator, rate: int
) -> np.ndarray:
    """float32 (n,) at `rate`: the base voice, played so much faster that it is `pitch` times as high."""
    import soxr

    pitch *= generator.uniform(0.98, 1.02)  # no two takes are equally high
    samples, base_rate = _base_voice(voice).speak(text, speed / pitch, generator, temperature)
    return np.asarray(soxr.resample(samples, base_rate * pitch, rate), np.float32)
