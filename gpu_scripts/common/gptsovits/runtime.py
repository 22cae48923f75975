"""GPT-SoVITS inside this process, loaded and asked to speak, with each failure told.

It runs in the engine's interpreter and drives the official `TTS` of `GPT_SoVITS/TTS_infer_pack/TTS.py`, read at commit
48b1a0169. That class answers a failure with silence, a missing file with another voice and a missing GPU with the CPU;
here each of them is a ScriptError.

    runtime = Runtime("/opt/GPT-SoVITS")
    samples, sample_rate = runtime.speak("Hello there.", "en", "/tmp/reference.wav", "What it says.", "en")
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import script_io
from common.failures import BROKEN_CUDA
from common.script_io import ScriptError

from .process import check_device, failure, inside, quiet
from .references import check_reference
from .weights import BERT, HUBERT, NEEDED_BESIDE, PRETRAINED, PRETRAINED_WEIGHTS, Catalogue, Weights, checked

SILENCE_PEAK = 33  # of 32768: -60 dBFS
MAX_SEED = 2**32 - 1


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
        self.broken = False
        self.catalogue = Catalogue(self.root, default_version)
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
        checked(weights.gpt, weights.sovits)
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
        `Catalogue.find`, switched to first; pause_seconds: silence after each part that text_split_method cuts
        (`cut0`: none).

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
        self.load(self.catalogue.find(model_id, gpt_weights, sovits_weights))
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
                if self._tts.prompt_cache["ref_audio_path"] != str(reference):
                    # Reading it draws random numbers. In `run` that comes after the seed: the first words in a voice
                    # would be others than the next ones with the same seed.
                    self._tts.set_ref_audio(str(reference))
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


def _joined(pieces: list[tuple[int, Any]]) -> tuple[NDArray[np.float32], int]:
    """What `TTS.run` yielded, (rate, int16 (n,)) each, as float32. Raises ScriptError (11): silence or nothing."""
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
