"""GPT-SoVITS inside this process: what gptsovits_server.py and gptsovits_infer.py share.

It runs in the engine's interpreter and drives the official `TTS` of `GPT_SoVITS/TTS_infer_pack/TTS.py`, read at commit
48b1a0169. That class answers a failure with silence, a missing file with another voice and a missing GPU with the CPU;
here each of them is a ScriptError.

    runtime = Runtime("/opt/GPT-SoVITS")
    samples, sample_rate = runtime.speak("Hello there.", "en", "/tmp/reference.wav", "What it says.", "en")
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import script_io
from common.failures import BROKEN_CUDA, OUT_OF_MEMORY
from common.options import is_plain_name
from common.script_io import ScriptError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MIN_REFERENCE_SECONDS, MAX_REFERENCE_SECONDS = 3, 10
SILENCE_PEAK = 33  # of 32768: -60 dBFS
MAX_SEED = 2**32 - 1

PRETRAINED = "GPT_SoVITS/pretrained_models"
# The pretrained pairs as config.py has them; `default` is the first that is there, as api_v2.py's own configuration
# would have it. v3 and v4 come last, since they cannot speak without the transcript of the reference.
PRETRAINED_WEIGHTS = {
    "v2": (
        "gsv-v2final-pretrained/s1bert25hz-5kh-longer-epoch=12-step=369668.ckpt",
        "gsv-v2final-pretrained/s2G2333k.pth",
    ),
    "v2ProPlus": ("s1v3.ckpt", "v2Pro/s2Gv2ProPlus.pth"),
    "v2Pro": ("s1v3.ckpt", "v2Pro/s2Gv2Pro.pth"),
    "v1": ("s1bert25hz-2kh-longer-epoch=68e-step=50232.ckpt", "s2G488k.pth"),
    "v4": ("s1v3.ckpt", "gsv-v4-pretrained/s2Gv4.pth"),
    "v3": ("s1v3.ckpt", "s2Gv3.pth"),
}
# What a version loads beside its weights, when they are switched to.
NEEDED_BESIDE = {
    "v3": ("models--nvidia--bigvgan_v2_24khz_100band_256x",),
    "v4": ("gsv-v4-pretrained/vocoder.pth",),
    "v2Pro": ("sv/pretrained_eres2netv2w24s4ep4.ckpt",),
    "v2ProPlus": ("sv/pretrained_eres2netv2w24s4ep4.ckpt",),
}
BERT, HUBERT = "chinese-roberta-wwm-ext-large", "chinese-hubert-base"

_TRAINED_NAME = re.compile(r"(?P<id>.+?)[-_]e(?P<epoch>\d+)(?:_s(?P<step>\d+))?(?:_l\d+)?")

# Never closed: the log handlers that the engine makes keep what stdout was at that time.
_SINK = open(os.devnull, "w")  # noqa: SIM115


@dataclass(frozen=True)
class Weights:
    """A GPT checkpoint (.ckpt) and a SoVITS checkpoint (.pth), absolute."""

    gpt: Path
    sovits: Path


@contextlib.contextmanager
def inside(project_root: Path) -> Iterator[None]:
    """In `project_root` (absolute) as the working folder, with it first on sys.path: the engine captures both when it
    is imported, and opens files by relative paths later too. The former working folder is back afterwards.

    Raises ScriptError (2): it is no GPT-SoVITS.
    """
    if not (project_root / "GPT_SoVITS" / "TTS_infer_pack" / "TTS.py").is_file():
        raise ScriptError(script_io.BAD_ARGUMENTS, f"{project_root} is not the root of a GPT-SoVITS (no TTS.py)")
    os.environ.setdefault("TQDM_DISABLE", "1")
    for folder in (str(project_root / "GPT_SoVITS"), str(project_root)):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    before = os.getcwd()
    os.chdir(project_root)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.chdir(before)


def check_device(device: str) -> None:
    """Raises ScriptError (8, 2) where torch cannot use `device`: the engine would take the CPU without a word."""
    if device == "cpu":
        return
    if not re.fullmatch(r"cuda(:\d+)?", device):
        raise ScriptError(script_io.BAD_ARGUMENTS, f"--device must be cuda, cuda:N or cpu, not {device!r}")
    try:
        with quiet():
            import torch
    except ImportError as error:
        raise ScriptError(script_io.ENGINE_FAILED, f"this interpreter has no torch: {sys.executable}") from error
    number = int(device.partition(":")[2] or 0)
    if not torch.cuda.is_available() or number >= torch.cuda.device_count():
        raise ScriptError(
            script_io.NO_CUDA, f"torch finds no CUDA device for --device {device} (CPU only by --device cpu)"
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallows what the engine prints: it prints the text it speaks, and stdout is for PROGRESS lines."""
    with contextlib.redirect_stdout(_SINK), contextlib.redirect_stderr(_SINK):
        yield


def failure(error: BaseException, secrets: tuple[str, ...] = (), doing: str = "GPT-SoVITS failed") -> ScriptError:
    """What went wrong in the engine as a ScriptError (7, 11): its kind, its place, and its own words unless they
    repeat what it was asked to speak."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    # Its clean-up loads the models again, and where that fails too, the first error is only in the chain.
    for link in chain:
        if type(link).__name__ == "OutOfMemoryError" or OUT_OF_MEMORY.search(str(link)):
            return ScriptError(script_io.OUT_OF_MEMORY, f"{doing}: the GPU is out of memory")
    message = " ".join(str(error).split())[:200]
    words = {word for secret in secrets for word in re.findall(r"\w{4,}|[^\W\d_a-zA-Z]{2,}", secret)}
    if any(word in message for word in words):
        message = "its message repeats the text and is left out"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return ScriptError(script_io.ENGINE_FAILED, f"{doing}: {type(error).__name__}{place}: {message}".rstrip(": "))


class Runtime:
    """One loaded GPT-SoVITS. Not thread-safe: one thread makes it and calls it.

    project_root: the engine's; device: `cuda`, `cuda:N` or `cpu`, and never another than that; is_half: 16-bit floats,
    on a GPU only; default_version: whose pretrained weights `default` means, by default the first that are there.
    Models are loaded by the first `load` or `speak`. Raises ScriptError: 2 not its root, 8 no CUDA, 11 it cannot be
    imported.

    broken: the CUDA context is lost, and only a new process helps.
    """

    def __init__(
        self,
        project_root: str | os.PathLike[str],
        device: str = "cuda",
        is_half: bool = True,
        default_version: str = "",
    ) -> None:
        self.root = Path(os.path.abspath(project_root))
        self.device = device
        self.is_half = is_half and device != "cpu"
        self.default_version = default_version
        self.broken = False
        if default_version and default_version not in PRETRAINED_WEIGHTS:
            known = ", ".join(PRETRAINED_WEIGHTS)
            raise ScriptError(script_io.BAD_ARGUMENTS, f"there is no version {default_version!r}, only {known}")
        with inside(self.root):
            check_device(device)
            try:
                with quiet():
                    from process_ckpt import get_sovits_version_from_path_fast
                    from TTS_infer_pack.TTS import TTS, TTS_Config
            except Exception as error:
                raise failure(error, doing="GPT-SoVITS cannot be imported") from error
        self._tts_class, self._config_class = TTS, TTS_Config
        self._version_of = get_sovits_version_from_path_fast
        self._tts: Any = None
        self._gpt: Path | None = None
        self._sovits: Path | None = None
        self._prompt_language = ""
        self._folder = tempfile.TemporaryDirectory(prefix="gptsovits-")

    def close(self) -> None:
        """Removes its temporary files; it cannot speak afterwards."""
        self._folder.cleanup()

    # --- which weights --------------------------------------------------------------------------------------

    @property
    def loaded(self) -> Weights | None:
        """The weights that speak now."""
        return Weights(self._gpt, self._sovits) if self._gpt and self._sovits else None

    @property
    def version(self) -> str | None:
        """`v1` to `v4`, `v2Pro` or `v2ProPlus`, as it was read from the SoVITS weights that are loaded."""
        return str(self._tts.configs.version) if self.loaded else None

    @property
    def languages(self) -> list[str]:
        """What the loaded version speaks, as the engine names it."""
        return list(self._tts.configs.languages) if self.loaded else []

    def models(self) -> list[str]:
        """Every `model_id` whose weights are there, `default` first."""
        found: list[str] = []
        candidates = [*self._weight_json(), *(path.name for path in self._folders("trained"))]
        for path, _ in self._trained_files("SoVITS_weights", ".pth"):
            name = _TRAINED_NAME.fullmatch(path.stem)
            candidates.append(name["id"] if name else path.stem)
        for model_id in ["default", *sorted(set(candidates) - {"default"})]:
            with contextlib.suppress(ScriptError):
                self.find(model_id)
                found.append(model_id)
        return found

    def find(
        self,
        model_id: str = "default",
        gpt_weights: str | os.PathLike[str] | None = None,
        sovits_weights: str | os.PathLike[str] | None = None,
    ) -> Weights:
        """The weights of a model; explicit paths (absolute, or relative to the project root) win over `model_id`.

        `default` (or nothing) are the pretrained ones; any other id is a key of weight.json, else the folder
        trained/<id>, else <id> with an epoch after it under GPT_weights* and SoVITS_weights*, the newest.
        Raises ScriptError: 10 unknown, 9 known but a file is missing, 2 one path without the other.
        """
        if gpt_weights or sovits_weights:
            if not (gpt_weights and sovits_weights):
                raise ScriptError(script_io.BAD_ARGUMENTS, "GPT and SoVITS weights are named together or not at all")
            return self._checked(self.root / gpt_weights, self.root / sovits_weights)
        if model_id in ("", "default"):
            return self._pretrained()
        if not is_plain_name(model_id):
            raise ScriptError(script_io.UNKNOWN_MODEL, "no model can have such an id")
        listed = self._weight_json().get(model_id)
        if listed is not None:
            gpt, sovits = listed
            if not gpt or not sovits:
                missing = "SoVITS" if gpt else "GPT"
                raise ScriptError(script_io.NO_WEIGHTS, f"weight.json names no {missing} weights for {model_id!r}")
            return self._checked(self.root / gpt, self.root / sovits)
        for folder in self._folders("trained"):
            if folder.name == model_id:
                files = _newest(folder.glob("*.ckpt")), _newest(folder.glob("*.pth"))
                return self._checked(*files, f"trained/{model_id}")
        return self._trained(model_id)

    def _pretrained(self) -> Weights:
        root = self.root / PRETRAINED
        versions = [self.default_version] if self.default_version else list(PRETRAINED_WEIGHTS)
        for version in versions:
            names = [*PRETRAINED_WEIGHTS[version], *NEEDED_BESIDE.get(version, ())]
            if all((root / name).exists() for name in names):
                return Weights(*(root / name for name in PRETRAINED_WEIGHTS[version]))
        what = f"complete pretrained weights of {' or '.join(versions)}"
        raise ScriptError(script_io.NO_WEIGHTS, f"there are no {what} in {root}")

    def _weight_json(self) -> dict[str, tuple[str, str]]:
        """{id: (GPT, SoVITS)} of weight.json, "" where one is not named. The engine's own web page writes it too."""
        try:
            table = json.loads((self.root / "weight.json").read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ScriptError(script_io.NO_WEIGHTS, f"weight.json cannot be read: {error}") from error
        sides: list[dict[str, str]] = []
        for side in ("GPT", "SoVITS"):
            named = table.get(side) if isinstance(table, dict) else None
            paths: dict[str, str] = {}
            for model_id, path in (named if isinstance(named, dict) else {}).items():
                path = path[0] if isinstance(path, list) and path else path
                # The web page also stores labels there that are no paths.
                if isinstance(path, str) and path.endswith((".ckpt", ".pth")):
                    paths[model_id] = path
            sides.append(paths)
        gpt, sovits = sides
        return {model_id: (gpt.get(model_id, ""), sovits.get(model_id, "")) for model_id in {**gpt, **sovits}}

    def _folders(self, name: str) -> list[Path]:
        return [path for path in sorted(self.root.glob(f"{name}/*")) if path.is_dir()]

    def _trained_files(self, kind: str, suffix: str) -> list[tuple[Path, str]]:
        """(file, what follows `kind` in its top folder's name: "" or "_v2" and the like)."""
        return [
            (path, folder.name[len(kind) :])
            for folder in sorted(self.root.glob(f"{kind}*"))
            for path in sorted(folder.rglob(f"*{suffix}"))
        ]

    def _trained(self, model_id: str) -> Weights:
        sides: list[dict[str, list[Path]]] = []
        for kind, suffix in (("GPT_weights", ".ckpt"), ("SoVITS_weights", ".pth")):
            files: dict[str, list[Path]] = {}
            for path, version in self._trained_files(kind, suffix):
                if _is_of(path.stem, model_id):
                    files.setdefault(version, []).append(path)
            sides.append(files)
        gpt, sovits = sides
        if not gpt and not sovits:
            raise ScriptError(script_io.UNKNOWN_MODEL, f"there is no model {model_id!r}")
        # A pair from folders of one version: v1 and v2 do not even have the same phonemes.
        pairs = [(_newest(gpt[version]), _newest(sovits[version])) for version in gpt if version in sovits]
        if pairs:
            return self._checked(*max(pairs, key=lambda pair: pair[1].stat().st_mtime if pair[1] else 0.0))
        newest = [_newest(path for paths in files.values() for path in paths) for files in sides]
        return self._checked(newest[0], newest[1], f"model {model_id!r}")

    @staticmethod
    def _checked(gpt: Path | None, sovits: Path | None, what: str = "the model") -> Weights:
        for kind, path in (("GPT weights (.ckpt)", gpt), ("SoVITS weights (.pth)", sovits)):
            if path is None:
                raise ScriptError(script_io.NO_WEIGHTS, f"{what} has no {kind}")
            if not path.is_file():
                raise ScriptError(script_io.NO_WEIGHTS, f"the {kind} are not there: {path}")
        assert gpt is not None and sovits is not None
        return Weights(Path(os.path.normpath(gpt)), Path(os.path.normpath(sovits)))

    # --- loading --------------------------------------------------------------------------------------------

    def load(self, weights: Weights) -> None:
        """Makes `weights` the ones that speak; nothing is done where they do already.

        Raises ScriptError: 9 a file is missing (also one that its version needs beside the weights), 7, 11.
        """
        self._check_files(weights)
        if self.loaded == weights:
            return
        try:
            with quiet(), inside(self.root):
                if self._tts is None:
                    self._tts = self._start(weights)
                else:
                    # What failed half way counts as not loaded, and the next call loads it again.
                    if self._gpt != weights.gpt:
                        self._gpt = None
                        self._tts.init_t2s_weights(str(weights.gpt))
                        self._gpt = weights.gpt
                    if self._sovits != weights.sovits:
                        self._sovits = None
                        self._tts.init_vits_weights(str(weights.sovits))
        except ScriptError:
            raise
        except Exception as error:
            raise self._failed(error, doing="the weights cannot be loaded") from error
        self._gpt, self._sovits = weights.gpt, weights.sovits
        self._forget_prompt()

    def _check_files(self, weights: Weights) -> None:
        root = self.root / PRETRAINED
        self._checked(weights.gpt, weights.sovits)
        try:
            _, version, is_lora = self._version_of(str(weights.sovits))
        except Exception as error:
            raise ScriptError(script_io.NO_WEIGHTS, f"{weights.sovits} is no SoVITS checkpoint") from error
        needed = [BERT, HUBERT, *NEEDED_BESIDE.get(version, ())]
        if is_lora:
            needed.append(PRETRAINED_WEIGHTS[version][1])
        for name in needed:
            if not (root / name).exists():
                raise ScriptError(script_io.NO_WEIGHTS, f"{version} weights also need {root / name}: it is not there")

    def _start(self, weights: Weights) -> Any:
        # A configuration of our own: the engine writes to it at each switch.
        path = Path(self._folder.name) / "tts_infer.yaml"
        pretrained = self.root / PRETRAINED
        custom: dict[str, Any] = {
            "device": self.device,
            "is_half": self.is_half,
            "version": "v2",  # until it has been read from the weights
            "t2s_weights_path": str(weights.gpt),
            "vits_weights_path": str(weights.sovits),
            "bert_base_path": str(pretrained / BERT),
            "cnhuhbert_base_path": str(pretrained / HUBERT),
        }
        path.write_text(json.dumps({"custom": custom}), "utf-8")  # JSON is YAML too
        config = self._config_class(str(path))
        taken = {name: getattr(config, name) for name in custom if name != "version"}
        taken["device"] = str(taken["device"])
        for name, value in taken.items():
            if value != custom[name]:
                code = script_io.NO_CUDA if name == "device" else script_io.ENGINE_FAILED
                raise ScriptError(code, f"GPT-SoVITS takes {value!r} for {name} instead of {custom[name]!r}")
        return self._tts_class(config)

    def _forget_prompt(self) -> None:
        """The engine keeps a reference by its path, and its text by its letters, whatever weights and language they
        were computed with."""
        self._tts.prompt_cache["ref_audio_path"] = None
        self._tts.prompt_cache["prompt_text"] = None

    # --- speaking -------------------------------------------------------------------------------------------

    def speak(
        self,
        text: str,
        language: str,
        reference_wav_path: str | os.PathLike[str],
        prompt_text: str = "",
        prompt_language: str = "auto",
        speed: float = 1.0,
        temperature: float = 1.0,
        seed: int = -1,
        *,
        model_id: str = "default",
        gpt_weights: str | os.PathLike[str] | None = None,
        sovits_weights: str | os.PathLike[str] | None = None,
        top_k: int = 15,
        top_p: float = 1.0,
        repetition_penalty: float = 1.35,
        text_split_method: str = "cut0",
        pause_seconds: float = 0.3,
        sample_steps: int = 32,
    ) -> tuple[NDArray[np.float32], int]:
        """`text` in the voice of the reference: float32 mono (n,), -1..1, and its sample rate in Hz (24, 32 or 48 kHz).

        language, prompt_language: the engine's names, in any case; reference_wav_path: 3 to 10 s, read anew only when
        the path changes, so a file under it must never be replaced; prompt_text: what is said in it, "" if unknown
        (v3 and v4 need it); seed: 0 to 2**32 - 1, or -1 for chance; model_id, gpt_weights, sovits_weights: as for
        `find`, switched to first; pause_seconds: silence after each part that text_split_method cuts (`cut0`: none).

        Raises ScriptError: 2 bad numbers, or a language that the version does not speak; 5 a reference that cannot be
        read or used; 12 nothing to speak in the text; 7, 9, 10; 11 it failed, or gave silence or nothing.
        """
        if not any(char.isalnum() for char in text):
            raise ScriptError(script_io.UNSPEAKABLE, "the text has no letter and no digit")
        # Zero and less are no error to the engine: it hangs or gives silence.
        if not (0.1 <= speed <= 10 and 0 < temperature <= 10 and top_k > 0 and 0 < top_p <= 1):
            raise ScriptError(script_io.BAD_ARGUMENTS, "speed, temperature, top_k or top_p is out of range")
        if not -1 <= seed <= MAX_SEED:
            raise ScriptError(script_io.BAD_ARGUMENTS, f"the seed must be within -1 and {MAX_SEED}")
        reference = Path(os.path.abspath(reference_wav_path))
        check_reference(reference)
        self.load(self.find(model_id, gpt_weights, sovits_weights))
        language, prompt_language = language.lower(), prompt_language.lower()
        prompt_text = prompt_text.strip()
        for name in [language, *([prompt_language] if prompt_text else [])]:
            if name not in self.languages:
                raise ScriptError(script_io.BAD_ARGUMENTS, f"{self.version} weights do not speak {name!r}")
        if not prompt_text and self.version in ("v3", "v4"):
            raise ScriptError(script_io.BAD_ARGUMENTS, f"{self.version} weights need the transcript of the reference")
        if prompt_language != self._prompt_language:
            self._tts.prompt_cache["prompt_text"] = None
            self._prompt_language = prompt_language
        request = {
            "text": text,
            "text_lang": language,
            "ref_audio_path": str(reference),
            "aux_ref_audio_paths": [],
            "prompt_text": prompt_text,
            "prompt_lang": prompt_language,
            "top_k": top_k,
            "top_p": top_p,
            "temperature": temperature,
            "text_split_method": text_split_method,
            "batch_size": 1,
            "split_bucket": True,
            "speed_factor": speed,
            "fragment_interval": pause_seconds,
            "seed": seed,
            "parallel_infer": True,
            "repetition_penalty": repetition_penalty,
            "sample_steps": sample_steps,
            "super_sampling": False,
            "streaming_mode": False,
            "return_fragment": False,
        }
        try:
            with quiet(), inside(self.root):
                pieces = list(self._tts.run(request))  # to the end: it raises only after a second of silence
        except Exception as error:
            # It may stand between two references, or without models where loading them again failed too.
            self._forget_prompt()
            if self._tts.t2s_model is None or self._tts.vits_model is None:
                self._gpt = self._sovits = None
            raise self._failed(error, (text, prompt_text)) from error
        return _joined(pieces)

    def _failed(self, error: Exception, secrets: tuple[str, ...] = (), doing: str = "GPT-SoVITS failed") -> ScriptError:
        found = failure(error, secrets, doing)
        if found.exit_code == script_io.ENGINE_FAILED and BROKEN_CUDA.search(str(error)):
            self.broken = True
        return found


def check_reference(path: Path) -> None:
    """Raises ScriptError (5) unless it is audio of 3 to 10 s, counted as the engine does: in samples at 16 kHz."""
    import soundfile

    try:
        with soundfile.SoundFile(path) as audio:
            samples = math.ceil(audio.frames * 16000 / audio.samplerate)
            seconds = audio.frames / audio.samplerate
    except (OSError, soundfile.SoundFileError) as error:
        raise ScriptError(script_io.BAD_REFERENCE, "the reference audio cannot be read") from error
    if not 16000 * MIN_REFERENCE_SECONDS <= samples <= 16000 * MAX_REFERENCE_SECONDS:
        raise ScriptError(
            script_io.BAD_REFERENCE,
            f"the reference lasts {seconds:.2f} s; it must last {MIN_REFERENCE_SECONDS} to {MAX_REFERENCE_SECONDS} s",
        )


def _joined(pieces: list[tuple[int, Any]]) -> tuple[NDArray[np.float32], int]:
    """What `TTS.run` yielded, (rate, int16 (n,)) each, as float32. Raises ScriptError (11): silence or nothing."""
    import numpy as np

    rates = {int(rate) for rate, _ in pieces}
    if len(rates) != 1:
        raise ScriptError(script_io.ENGINE_FAILED, f"GPT-SoVITS gave audio at {len(rates)} sample rates")
    steps = np.concatenate([np.asarray(audio).reshape(-1) for _, audio in pieces])
    if not len(steps) or int(np.abs(steps.astype(np.int32)).max()) < SILENCE_PEAK:
        raise ScriptError(script_io.ENGINE_FAILED, "GPT-SoVITS gave silence, which is how it reports a failure")
    samples = steps.astype(np.float32) / np.float32(32768)
    # A piece that was too loud is scaled to a peak of exactly 1, which wraps round in 16 bits: a click.
    for at in np.flatnonzero(steps == -32768):
        around = samples[max(0, at - 1) : at + 2]
        if around[around > -1].sum() > 0:
            samples[at] = 32767 / 32768
    return samples, rates.pop()


def _is_of(stem: str, model_id: str) -> bool:
    """Whether a file of that name belongs to the model: its id, alone or before a `-`, `_` or the like. `anna` is not
    the model of `annabel-e15`, nor of `anna_new_e8_s96`, which the engine wrote for the model `anna_new`."""
    name = _TRAINED_NAME.fullmatch(stem)
    if name:
        return name["id"] == model_id or stem == model_id
    return stem.startswith(model_id) and not stem[len(model_id) : len(model_id) + 1].isalnum()


def _newest(paths: Any) -> Path | None:
    """The one of the most epochs, then steps, then the last written. None of none."""

    def age(path: Path) -> tuple[int, int, float]:
        name = _TRAINED_NAME.fullmatch(path.stem)
        epoch, step = (int(name["epoch"]), int(name["step"] or 0)) if name else (0, 0)
        return epoch, step, path.stat().st_mtime

    return max(paths, key=age, default=None)
