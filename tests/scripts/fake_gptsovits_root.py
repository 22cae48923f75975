"""A GPT-SoVITS project root whose `TTS.run` speaks without its models, and whose separators separate.

`build(folder)` lays it out with the official module paths and signatures, weights files, weight.json, configurations
and a `torch` that has no tensors. The modules there are thin and get what they hold from here; only this folder's
Python needs the repository. What is odd about the original was read in its code at 48b1a0169 and is kept: the working
folder captured at import; the configuration rewritten at each switch; a missing path or GPU replaced without an error;
a reference kept by its path, whatever weights it was computed with, and its text by its letters, whatever language; a
failure that yields a second of silence, loads both models again and only then raises; 16-bit samples that wrap round;
prints of the text everywhere.

It speaks with the built-in engine's English base voice, as loud as the reference, in the voice of the SoVITS weights
that the reference was computed with: {"voice": "heart"|"joe", "pitch": how much higher}. A seed gives the same audio.
Its separators take what is equal in both channels for the voice.

`set_mood(folder, ...)`, or FAKE_GPTSOVITS_MOOD in the environment (JSON, which wins), tells what goes wrong; it is
looked at again in each call:

    cuda: false             torch finds no GPU
    run: "oom" | "raise" | "cuda_error" | "silence" | "hang" (until the mood changes)
    reload: "oom"           loading the models again after such a failure fails too
    load: "oom"             loading weights fails
    tone: true              it hums as long as its text instead of speaking, which needs nothing to be loaded
    load_seconds, run_seconds: how long loading weights and speaking take at least
    separate: "oom" | "raise" | "nothing" | "nan" | "mixed"
    onnx: "cpu"             onnxruntime has no CUDA

`calls(folder)` lists what was done: dicts with `event` (`load_gpt`, `load_sovits`, `reference`, `run`, `separator`,
`separate`) and its facts.
"""

from __future__ import annotations

import json
import math
import os
import time
import wave
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
PRETRAINED = "GPT_SoVITS/pretrained_models"
VERSIONS = ("v1", "v2", "v3", "v4", "v2Pro", "v2ProPlus")
_GPT = {"v1": "s1bert25hz-2kh-longer-epoch=68e-step=50232.ckpt"}
_GPT["v2"] = "gsv-v2final-pretrained/s1bert25hz-5kh-longer-epoch=12-step=369668.ckpt"
_SOVITS = {
    "v1": "s2G488k.pth",
    "v2": "gsv-v2final-pretrained/s2G2333k.pth",
    "v3": "s2Gv3.pth",
    "v4": "gsv-v4-pretrained/s2Gv4.pth",
    "v2Pro": "v2Pro/s2Gv2Pro.pth",
    "v2ProPlus": "v2Pro/s2Gv2ProPlus.pth",
}
_HEADS = {"v1": b"00", "v2": b"01", "v3": b"02", "v4": b"04", "v2Pro": b"05", "v2ProPlus": b"06"}
_VERSION_OF_HEAD = {
    b"00": ("v1", "v1", False),
    b"01": ("v2", "v2", False),
    b"02": ("v2", "v3", False),
    b"03": ("v2", "v3", True),
    b"04": ("v2", "v4", True),
    b"05": ("v2", "v2Pro", False),
    b"06": ("v2", "v2ProPlus", False),
}
UVR_MODELS = ("HP2_all_vocals", "HP3_all_vocals", "HP5_only_main_vocal", "VR-DeEchoNormal", "VR-DeEchoDeReverb")

_MODULES = {
    "torch/__init__.py": """
        from tests.scripts.fake_gptsovits_root import mood
        __version__ = "2.0.0+fake"
        class Tensor: pass
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
    """,
    "GPT_SoVITS/process_ckpt.py": "from tests.scripts.fake_gptsovits_root import get_sovits_version_from_path_fast",
    "GPT_SoVITS/TTS_infer_pack/__init__.py": "",
    "GPT_SoVITS/TTS_infer_pack/TTS.py": """
        import os
        now_dir = os.getcwd()
        import process_ckpt
        import tools.i18n  # importable only with the root on sys.path
        from tests.scripts import fake_gptsovits_root as fake
        fake.now_dir = now_dir
        TTS, TTS_Config = fake.TTS, fake.TTS_Config
    """,
    "tools/__init__.py": "",
    "tools/i18n/__init__.py": "",
    "tools/uvr5/vr.py": """
        from lib.lib_v5 import spec_utils  # importable only with tools/uvr5 on sys.path
        from tests.scripts.fake_gptsovits_root import AudioPre, AudioPreDeEcho
    """,
    "tools/uvr5/lib/lib_v5/spec_utils.py": "",
    "tools/uvr5/bsroformer.py": "from tests.scripts.fake_gptsovits_root import Roformer_Loader",
    "tools/uvr5/mdxnet.py": "from tests.scripts.fake_gptsovits_root import MDXNetDereverb",
    "tools/uvr5/webui.py": 'raise SystemExit("the page of the engine starts a server when it is imported")',
    "api_v2.py": "",
}

now_dir = ""  # the root, once its TTS.py has been imported


class OutOfMemoryError(RuntimeError):
    """As torch names it; what matters to a caller is its name and its words."""


# --- laying it out --------------------------------------------------------------------------------------------


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
        write_gpt(root / _GPT.get(version, "s1v3.ckpt"))
        write_sovits(root / _SOVITS[version], version)
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
    path.write_bytes(_HEADS[version] + json.dumps(content).encode())


def set_mood(folder: Path, **mood: Any) -> None:
    """Replaces the mood of the root in `folder`; without arguments all is well again."""
    partial = folder / "mood.json.part"
    partial.write_text(json.dumps(mood))
    partial.replace(folder / "mood.json")


def mood() -> dict[str, Any]:
    """The mood of the root in the working folder."""
    try:
        told = json.loads(Path("mood.json").read_text())
    except FileNotFoundError:
        told = {}
    return {**told, **json.loads(os.environ.get("FAKE_GPTSOVITS_MOOD", "{}"))}


def calls(folder: Path, event: str = "") -> list[dict[str, Any]]:
    """What the root in `folder` has done, or only such events."""
    try:
        lines = (folder / "calls.jsonl").read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [call for call in map(json.loads, lines) if event in ("", call["event"])]


def _log(event: str, **facts: Any) -> None:
    with open("calls.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"event": event, "pid": os.getpid(), **facts}) + "\n")


def clear_calls(folder: Path) -> None:
    (folder / "calls.jsonl").unlink(missing_ok=True)


# --- GPT_SoVITS/process_ckpt.py, GPT_SoVITS/TTS_infer_pack/TTS.py --------------------------------------------


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
            "t2s_weights_path": f"{PRETRAINED}/{_GPT.get(version, 's1v3.ckpt')}",
            "vits_weights_path": f"{PRETRAINED}/{_SOVITS[version]}",
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

    def init_t2s_weights(self, weights_path: str) -> None:
        print(f"Loading Text2Semantic weights from {weights_path}")
        self.configs.t2s_weights_path = weights_path
        self.configs.save_configs()
        self._load(weights_path)
        _log("load_gpt", path=weights_path)
        self.t2s_model = json.loads(Path(weights_path).read_bytes()[2:])

    def init_vits_weights(self, weights_path: str) -> None:
        self.configs.vits_weights_path = weights_path
        _, version, is_lora = get_sovits_version_from_path_fast(weights_path)
        if is_lora and not os.path.exists(self.configs.default_configs[version]["vits_weights_path"]):
            raise FileNotFoundError(f"SoVITS {version} 底模缺失，无法加载相应 LoRA 权重")
        if "Pro" in version:
            open(f"{PRETRAINED}/sv/pretrained_eres2netv2w24s4ep4.ckpt").close()
        self._load(weights_path)
        _log("load_sovits", path=weights_path)
        model = json.loads(Path(weights_path).read_bytes()[2:])
        self.configs.update_version(version)
        self.configs.use_vocoder = version in ("v3", "v4")
        if version == "v4":
            open(f"{now_dir}/{PRETRAINED}/gsv-v4-pretrained/vocoder.pth").close()
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
        _log("reference", path=ref_audio_path)
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
        generator = np.random.default_rng(None if seed == -1 else seed)
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
        _log("run", **inputs, used=used)
        try:
            print("前端处理后的文本(每句):", text)
            yield self._speak(text, speed, inputs, generator)
        except Exception as error:
            yield 16000, np.zeros(16000, np.int16)
            self.t2s_model = None
            self.vits_model = None
            if mood().get("reload") == "oom":
                raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB") from None
            self.init_t2s_weights(self.configs.t2s_weights_path)
            self.init_vits_weights(self.configs.vits_weights_path)
            raise error

    def _speak(
        self, text: str, speed: float, inputs: dict[str, Any], generator: np.random.Generator
    ) -> tuple[int, np.ndarray]:
        if self.configs.version == "v1" and self.prompt_cache["phones"] not in (None, "v1"):
            raise RuntimeError("CUDA error: device-side assert triggered")  # a phoneme that v1 does not have
        deadline = time.monotonic() + mood().get("run_seconds", 0)
        while (how := mood().get("run")) == "hang" or time.monotonic() < deadline:
            time.sleep(0.01)
        rate = {"v3": 24000, "v4": 48000}.get(self.configs.version, 32000)
        if how == "oom":
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 8.00 GiB total capacity)")
        if how == "raise":
            raise RuntimeError(f"no phonemes for {text!r}")
        if how == "cuda_error":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if how == "silence":
            return rate, np.zeros(rate * 2, np.int16)
        voice = self.prompt_cache["prompt_semantic"]
        if mood().get("tone"):
            samples = np.sin(np.arange(round(rate * 0.06 * len(text) / speed)) * 0.04).astype(np.float32)
        else:
            samples = _say(text, voice["voice"], voice["pitch"], speed, inputs.get("temperature", 1), generator, rate)
        samples *= self.prompt_cache["refer_spec"][0] / np.abs(samples).max()
        pause = np.zeros(int(rate * inputs.get("fragment_interval", 0.3)), np.float32)
        return rate, (np.concatenate([samples, pause]) * 32768).astype(np.int32).astype(np.int16)


@lru_cache(maxsize=2)
def _base_voice(name: str) -> Any:
    from voices.engines.builtin import english

    return english.load(name)


def _say(
    text: str, voice: str, pitch: float, speed: float, temperature: float, generator: np.random.Generator, rate: int
) -> np.ndarray:
    """float32 (n,) at `rate`: the base voice, played so much faster that it is `pitch` times as high."""
    import soxr

    pitch *= generator.uniform(0.98, 1.02)  # no two takes are equally high
    samples, base_rate = _base_voice(voice).speak(text, speed / pitch, generator, temperature)
    return np.asarray(soxr.resample(samples, base_rate * pitch, rate), np.float32)


# --- tools/uvr5 -----------------------------------------------------------------------------------------------


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
    _log("separate", frames=len(song), peak=float(np.abs(song).max()))
    if how == "nan":
        voice = voice * np.nan
    return voice, (song if how == "mixed" else song - voice)


def _save(path: str, samples: np.ndarray) -> None:
    if mood().get("separate") != "nothing":
        with np.errstate(invalid="ignore"):
            sf.write(path, (samples * 32768).astype(np.int32).astype(np.int16), 44100)


class AudioPre:
    vocal_first = False

    def __init__(self, agg: int, model_path: str, device: str, is_half: bool, tta: bool = False) -> None:
        open(model_path).close()
        time.sleep(mood().get("load_seconds", 0))
        _log("separator", kind=type(self).__name__, model=model_path, device=device, is_half=is_half)
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
        voice, rest = _separated(music_file)
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
        _log("separator", kind="Roformer_Loader", model=model_path, device=device, is_half=is_half)

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
        folder = Path(now_dir or os.getcwd()) / "tools" / "uvr5" / "uvr5_weights" / "onnx_dereverb_By_FoxJoy"
        open(folder / "vocals.onnx").close()
        _log("separator", kind="MDXNetDereverb", chunks=chunks)
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
