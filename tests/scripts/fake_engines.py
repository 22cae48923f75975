"""Roots of other projects' engines, with their modules, signatures and oddities, whose models are replaced by WORLD (a
pitch shift) or by the middle of the stereo image (a separation), so that what comes out can be measured.

`build(folder)` writes them: `site/` is for PYTHONPATH (torch, faiss, audio_separator, demucs), and `seedvc/`, `applio/`
and `rvc/` are project roots. Weights are JSON here.
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

SITE = {
    "torch.py": '''
        """What the wrappers and the fakes need of torch; FAKE_CUDA says whether there is a GPU."""
        import os
        import time
        import numpy as np

        class cuda:
            @staticmethod
            def is_available():
                return os.environ.get("FAKE_CUDA") == "1" and os.environ.get("CUDA_VISIBLE_DEVICES") != ""

            @staticmethod
            def is_initialized():
                return False

        generator = np.random.default_rng()  # unseeded, as torch's is

        def manual_seed(seed):
            global generator
            generator = np.random.default_rng(seed)

        class Tensor:
            def __init__(self, array):
                self.array = np.asarray(array)

            def mean(self, axis, keepdim=False):
                return Tensor(self.array.mean(axis, keepdims=keepdim))

            def detach(self):
                return self

            cpu = float = detach

            def numpy(self):
                return self.array

        from_numpy = Tensor

        class nn:
            class modules:
                class module:
                    hooks = []

                    @classmethod
                    def register_module_forward_hook(cls, hook):
                        cls.hooks.append(hook)
                        return Handle(hook)

        class Handle:
            def __init__(self, hook):
                self.hook = hook

            def remove(self):
                nn.modules.module.hooks.remove(self.hook)

        def network(layers):
            """What a network of so many modules does, each in a millisecond."""
            for _ in range(layers):
                time.sleep(0.001)
                for hook in nn.modules.module.hooks:
                    hook(None, (), None)
    ''',
    "faiss.py": """
        class Index:
            def __init__(self, d, ntotal):
                self.d, self.ntotal = d, ntotal

        def read_index(path):
            try:
                return Index(*map(int, open(path).read().split()))
            except ValueError as error:
                raise RuntimeError(f"could not read {path}") from error
    """,
    "singing.py": '''
        import numpy as np
        import pyworld
        import soxr

        def shifted(x, rate, semitones):
            """The melody moved, the timbre kept: (n,) -> (n,)."""
            x = np.ascontiguousarray(x, np.float64)
            f0, times = pyworld.dio(x, rate)
            spectrum = pyworld.cheaptrick(x, f0, times, rate)
            aperiodicity = pyworld.d4c(x, f0, times, rate)
            made = pyworld.synthesize(f0 * 2 ** (semitones / 12), spectrum, aperiodicity, rate)
            return np.pad(made, (0, max(0, len(x) - len(made))))[: len(x)]
    ''',
    "audio_separator/__init__.py": "",
    "audio_separator/separator/__init__.py": '''
        """Separator of 0.47, and what older ones did: swallow errors, leave a silent stem unwritten."""
        import json
        import logging
        import os
        import sys
        import numpy as np
        import soundfile

        class Instance:
            output_dir = ""

        class Separator:
            def __init__(self, log_level=logging.INFO, model_file_dir="/tmp/audio-separator-models/", output_dir=None,
                         output_format="WAV", normalization_threshold=0.9, amplification_threshold=0.0,
                         sample_rate=44100, use_soundfile=False, use_autocast=False, chunk_duration=None):
                self.logger = logging.getLogger(__name__)
                self.logger.addHandler(logging.StreamHandler())
                self.model_file_dir = os.environ.get("AUDIO_SEPARATOR_MODEL_DIR") or model_file_dir
                self.output_dir = output_dir
                self.threshold = normalization_threshold
                self.subtype = None if use_soundfile else "PCM_16"
                self.onnx_execution_provider = ["CPUExecutionProvider"]
                self.model_instance = None

            def download_file_if_not_exists(self, url, output_path):
                raise RuntimeError("Failed to download file")

            def load_model(self, model_filename):
                print("PROGRESS 0.99")  # libraries print what they like
                folder = self.model_file_dir
                self.download_file_if_not_exists("https://example.org/checks", f"{folder}/download_checks.json")
                models = json.load(open(f"{folder}/download_checks.json"))
                if model_filename not in models:
                    raise ValueError(f"Model file {model_filename} not found in supported model files")
                for name in models[model_filename]:
                    self.download_file_if_not_exists("https://example.org/model", f"{folder}/{name}")
                if open(f"{folder}/{model_filename}").read() == "damaged":
                    self.logger.error("An error occurred while loading the model file.")
                    sys.exit(1)
                self.kind = model_filename.partition(".")[0]
                self.model_instance = Instance()
                self.model_instance.output_dir = self.output_dir
                print("loaded", self.kind)

            def separate(self, audio_file_path, custom_output_names=None):
                mix, rate = soundfile.read(audio_file_path)
                print("WARNING: peak", float(np.abs(mix).max()))
                for done in range(0, 101, 5):  # as tqdm draws it
                    print(f"\\r {done}%|#####     | {done}/100 [00:01<00:01]", end="", file=sys.stderr)
                print(file=sys.stderr)
                if self.kind == "swallowing":
                    self.logger.error(f"Failed to process file {audio_file_path}: CUDA out of memory")
                    return []
                middle = np.repeat(mix.mean(axis=1, keepdims=True), 2, axis=1)
                stems = {"other": mix - middle, "Vocals": middle}
                if self.kind == "instrumental_song":
                    stems = {"Instrumental": mix, "Vocals": np.zeros_like(mix)}
                if self.kind == "rescaling":
                    stems = {"other": stems["other"] * 0.8, "Vocals": stems["Vocals"] * 0.5}
                if self.kind == "echo":
                    stems = {"Echo": stems["other"], "No Echo": stems["Vocals"]}
                if self.kind == "short":
                    stems = {name: stem[: len(mix) // 2] for name, stem in stems.items()}
                if self.kind == "nan":
                    stems["Vocals"] = stems["Vocals"] * np.nan
                made = []
                for stem, samples in stems.items():
                    name = f"{os.path.splitext(os.path.basename(audio_file_path))[0]}_({stem})_{self.kind}.wav"
                    made.append(name)
                    if np.abs(samples).max() < 1e-6:
                        self.logger.warning("Warning: stem_source array is near-silent or empty.")
                        continue
                    subtype = self.subtype or soundfile.info(audio_file_path).subtype
                    soundfile.write(os.path.join(self.model_instance.output_dir, name), samples, rate, subtype=subtype)
                return made
    ''',
    "demucs/__init__.py": "",
    "demucs/api.py": """
        import random
        import sys
        from pathlib import Path
        import numpy as np
        import torch

        class Bag:
            sources = ["drums", "bass", "other", "vocals"]
            max_allowed_segment = 7.8

        class Separator:
            samplerate, audio_channels = 44100, 2

            def __init__(self, model="htdemucs", repo=None, device="cuda", shifts=1, overlap=0.25, split=True,
                         segment=None, jobs=0, progress=False, callback=None, callback_arg=None):
                if repo is None:
                    raise OSError(f"cannot find {model} in the local cache")
                if not Path(repo, "955717e8-8726e21a.th").exists():
                    print("Could not find pre-trained model with signature 955717e8.", file=sys.stderr)
                    sys.exit(1)
                self.model = Bag()

            def update_parameter(self, device=None, shifts=1, overlap=0.25, split=True, segment=None, progress=False,
                                 callback=None):
                self.callback = callback

            def separate_tensor(self, wav, sr=None):
                mix = wav.numpy()
                print("shift", random.randint(0, 22050))
                middle = np.repeat(mix.mean(axis=0, keepdims=True), 2, axis=0)
                sides = (mix - middle) / 3
                for state in ("start", "end"):
                    self.callback({"model_idx_in_bag": 0, "shift_idx": 0, "segment_offset": mix.shape[1] // 2,
                                   "state": state, "audio_length": mix.shape[1], "models": 1})
                parts = {"drums": sides, "bass": sides, "other": sides, "vocals": middle}
                return wav, {name: torch.Tensor(part) for name, part in parts.items()}
    """,
}

SEEDVC = {
    "hf_utils.py": "",
    "inference.py": """
        import json
        import os
        import socket
        import numpy as np
        import soundfile
        import torch
        from singing import shifted

        fp16 = False
        device = "cuda" if torch.cuda.is_available() else "cpu"

        class Estimator:
            def register_forward_hook(self, hook):
                self.hook = hook

            def __call__(self):
                self.hook(self, (), None)

        class Flow:
            def __init__(self):
                self.estimator = Estimator()

            def inference(self, samples, semitones, steps):
                for _ in range(steps):
                    self.estimator()
                return shifted(samples, 44100, semitones)

        class Munch:
            pass

        def load_models(args):
            global fp16
            fp16 = args.fp16
            assert args.f0_condition
            if args.checkpoint is not None:
                state = json.load(open(args.checkpoint))
                if state.get("download"):
                    try:
                        socket.create_connection(("203.0.113.1", 80), timeout=1)
                    except OSError:
                        pass
                if state.get("other version"):
                    print("Warning: Skipped loading some keys due to shape mismatch: {'x'}")
            print("loading models")
            model = Munch()
            model.cfm = Flow()
            mel_fn_args = {"sampling_rate": 44100}
            return model, None, None, None, None, None, mel_fn_args

        def main(args):
            model, semantic_fn, f0_fn, vocoder_fn, campplus_model, mel_fn, mel_fn_args = load_models(args)
            source, rate = soundfile.read(args.source)
            target, _ = soundfile.read(args.target)
            assert rate == 44100 and source.ndim == 1
            print(f"reference {len(target) / rate:.2f} s, steps {args.diffusion_steps}, cfg {args.inference_cfg_rate}")
            if args.diffusion_steps == 13:
                raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
            window = (44100 // 512 * 30 - len(target) // 512) * 512
            pieces = [model.cfm.inference(source[at : at + window], args.semi_tone_shift, args.diffusion_steps)
                      for at in range(0, len(source), window)]
            wave = np.concatenate(pieces)[: len(source) // 512 * 512]
            wave = wave + 1e-3 * torch.generator.standard_normal(len(wave))
            if args.diffusion_steps == 14:
                wave = wave * 0
            names = [os.path.basename(path).split(".")[0] for path in (args.source, args.target)]
            os.makedirs(args.output, exist_ok=True)
            numbers = f"{args.length_adjust}_{args.diffusion_steps}_{args.inference_cfg_rate}"
            soundfile.write(os.path.join(args.output, f"vc_{names[0]}_{names[1]}_{numbers}.wav"), wave, 44100,
                            subtype="FLOAT")
    """,
}

APPLIO = {
    "rvc/infer/infer.py": """
        import json
        import os
        import soundfile
        import soxr
        import torch
        from singing import shifted

        now_dir = os.getcwd()

        class Pipeline:
            t_pad = 16000

            def get_f0(self, audio):
                torch.network(200)
                return audio

            def voice_conversion(self, model, net_g, sid, audio0, pitch):
                torch.network(200)
                return audio0

            def pipeline(self, audio):
                self.get_f0(audio)
                for at in range(0, len(audio), 16000):
                    part = [0] * self.t_pad + list(audio[at : at + 16000]) + [0] * self.t_pad
                    self.voice_conversion(None, None, 0, part, 0)

        class VoiceConverter:
            def __init__(self):
                self.vc = Pipeline()
                open(os.path.join("rvc", "configs", "48000.json")).close()  # the working folder is the root
                self.cpt = self.version = self.tgt_sr = self.loaded_model = None

            def get_vc(self, weight_root, sid):
                if not self.loaded_model or self.loaded_model != weight_root:
                    print("loading", os.path.basename(weight_root))
                    self.cpt = json.load(open(weight_root)) if os.path.isfile(weight_root) else None
                    self.tgt_sr = self.cpt["config"][-1]
                    self.version = self.cpt.get("version", "v1")
                    self.loaded_model = weight_root

            def convert_audio(self, audio_input_path, audio_output_path, model_path, index_path, pitch=0,
                              f0_method="rmvpe", index_rate=0.75, volume_envelope=1.0, protect=0.5, hop_length=128,
                              split_audio=False, f0_autotune=False, f0_autotune_strength=1,
                              embedder_model="contentvec", embedder_model_custom=None, clean_audio=False,
                              clean_strength=0.5, export_format="WAV", post_process=False, resample_sr=0, sid=0,
                              proposed_pitch=False, proposed_pitch_threshold=155.0, **kwargs):
                if not model_path:
                    print("No model path provided. Aborting conversion.")
                    return
                self.get_vc(model_path, sid)
                index = index_path.strip().replace("trained", "added")
                used = index != "" and os.path.exists(index) and index_rate > 0
                print("index", open(index).read() if used else "none", "embedder", embedder_model, "rate", index_rate)
                audio, rate = soundfile.read(audio_input_path)
                assert rate == 16000 and audio.ndim == 1
                self.vc.pipeline(audio)
                sung = shifted(audio, rate, pitch)
                sung = sung[: len(sung) // 160 * 160]
                soundfile.write(audio_output_path, soxr.resample(sung, rate, self.tgt_sr), self.tgt_sr, format="WAV")
    """,
    "rvc/configs/48000.json": "{}",
}

RVC = {
    "configs/config.py": """
        import argparse
        import torch

        class _Config:
            def __init__(self):
                parser = argparse.ArgumentParser()  # of the whole program's arguments
                parser.add_argument("--port", type=int, default=7865)
                parser.parse_args()
                self.device = "cuda:0" if torch.cuda.is_available() else "cpu"
                self.is_half = self.device != "cpu"

        _one = []

        def Config():
            if not _one:
                _one.append(_Config())
            return _one[0]
    """,
    "infer/vc/modules.py": """
        import json
        import os
        import traceback
        import numpy as np
        import soundfile
        import soxr
        from singing import shifted

        class VC:
            def __init__(self, config):
                self.config = config

            def get_vc(self, sid, *to_return_protect):
                person = f'{os.getenv("weight_root")}/{sid}'
                print("loading", sid, "half" if self.config.is_half else "full")
                self.cpt = json.load(open(person))
                self.tgt_sr, self.version = self.cpt["config"][-1], self.cpt["version"]

            def vc_single(self, sid, input_audio_path, f0_up_key, f0_method, file_index, index_rate, resample_sr,
                          rms_mix_rate, protect):
                try:
                    audio, rate = soundfile.read(input_audio_path)
                    assert rate == 16000 and resample_sr == 0
                    os.environ["rmvpe_root"]
                    file_index = file_index.replace("trained", "added") if file_index else ""
                    print("index", open(file_index).read() if os.path.exists(file_index) else "none", rms_mix_rate)
                    if f0_method == "pm":
                        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
                    if f0_method == "fcpe":
                        raise ValueError("no pitch")
                    sung = soxr.resample(shifted(audio, rate, int(f0_up_key)), rate, self.tgt_sr)
                    return "ok", (self.tgt_sr, (np.clip(sung, -1, 0.99997) * 32768).astype(np.int16))
                except Exception:
                    return traceback.format_exc(), (None, None)
    """,
}

FILES = {
    "seedvc": (
        "checkpoints/models--Plachta--Seed-VC/snapshots/1/DiT_seed_v2_uvit_whisper_base_f0_44k_bigvgan_pruned_ft_ema_v2.pth",
        "checkpoints/models--Plachta--Seed-VC/snapshots/1/config_dit_mel_seed_uvit_whisper_base_f0_44k.yml",
        "checkpoints/models--lj1995--VoiceConversionWebUI/snapshots/1/rmvpe.pt",
        "checkpoints/models--funasr--campplus/snapshots/1/campplus_cn_common.bin",
        "checkpoints/hf_cache/models--nvidia--bigvgan_v2_44khz_128band_512x/snapshots/1/bigvgan_generator.pt",
        "checkpoints/hf_cache/models--nvidia--bigvgan_v2_44khz_128band_512x/snapshots/1/config.json",
        "checkpoints/hf_cache/models--openai--whisper-small/snapshots/1/model.safetensors",
        "checkpoints/hf_cache/models--openai--whisper-small/snapshots/1/config.json",
        "checkpoints/hf_cache/models--openai--whisper-small/snapshots/1/preprocessor_config.json",
    ),
    "applio": (
        "rvc/models/predictors/rmvpe.pt",
        "rvc/models/embedders/contentvec/pytorch_model.bin",
        "rvc/models/embedders/contentvec/config.json",
    ),
    "rvc": (
        "assets/rmvpe/rmvpe.pt",
        "assets/hubert_base/config.json",
        "assets/hubert_base/pytorch_model.bin",
    ),
}


def build(folder: Path) -> None:
    for name, sources in (("site", SITE), ("seedvc", SEEDVC), ("applio", APPLIO), ("rvc", RVC)):
        for path, source in sources.items():
            put(folder / name / path, textwrap.dedent(source).lstrip())
    for name, paths in FILES.items():
        for path in paths:
            put(folder / name / path, "weights")


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def voice(path: Path, rate: int = 40000, **more: object) -> Path:
    """Weights of an RVC voice."""
    return put(path, json.dumps({"config": [0, rate], "version": "v2", **more}))
