"""Sings a vocal again in the voice of a reference by seed-vc: zero-shot, with the melody kept, on a GPU.

    python seedvc_infer.py --project-root SEED_VC --reference REF.wav --input VOCAL.wav --output OUT.wav --pitch N
                           [--device cuda] [--is-half true] [--seed 0] [--diffusion-steps 40] [--cfg-rate 0.7]
                           [--reference-seconds 12] [--checkpoint MODEL.pth --config MODEL.yml] [--model-id IGNORED]

Run by seed-vc's own interpreter; read at commit d334fb7 of Plachtaa/seed-vc, of whose models the 44.1 kHz one with F0
is used (V1: V2 has no pitch). In: what soundfile reads, one or two channels, any rate; of a stereo vocal the middle is
sung. Of the reference the fullest `--reference-seconds` are used: 10 to 12 s are best, because the engine works in
windows of 30 s that include it. Out: 44.1 kHz WAV (32-bit float) exactly as long as the vocal, with as many channels.

Files, since nothing is ever downloaded: what seed-vc's app_svc.py leaves in its `checkpoints/` when it is run once.

Licences: seed-vc is GPL-3, and this is an optional extra that nothing else needs. The product runs it as a process of
its own, with its own interpreter, and exchanges files and exit codes with it. Inside that process this file calls the
program's own `main`, as its command line does, and copies no line of it: the only thing done is that `load_models`,
which `main` calls, is remembered between jobs. If that makes this one file a work based on seed-vc, then who passes
both on together does so under GPL-3, which the licence of this file allows.

stdout: lines `PROGRESS 0.42`. stderr: `WARNING ...`, `engine: ...`; one line on failure. With `--serve` job after job
in one process, see script_io.run. Exit codes: 0 done; 2 bad arguments; 3 unreadable input; 4 the vocal is silent; 5 no
voice in the reference; 6 the output cannot be written; 7 out of memory (the GPU's or the computer's: the
line says which); 8 no such GPU; 9 files of the models are missing; 11 the engine failed, or made silence, NaN or a
wrong length; 18 the disk is full; 130, 143 interrupted.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # Python itself leaves it out with -I or -P

from common import audio, foreign, options, script_io
from common.script_io import Progress, ScriptError

if TYPE_CHECKING:
    from common.audio import Float32

RATE = audio.RATE
HOP = 512
WINDOW_FRAMES = RATE // HOP * 30  # reference and song together, as inference.py has it
OVERLAP_FRAMES = 16
MIN_REFERENCE_SECONDS = 1.0

BASE_MODEL = (
    "checkpoints/models--Plachta--Seed-VC/snapshots/*/DiT_seed_v2_uvit_whisper_base_f0_44k_bigvgan_pruned_ft_ema_v2.pth",
    "checkpoints/models--Plachta--Seed-VC/snapshots/*/config_dit_mel_seed_uvit_whisper_base_f0_44k.yml",
)
BESIDE = (
    "checkpoints/models--lj1995--VoiceConversionWebUI/snapshots/*/rmvpe.pt",
    "checkpoints/models--funasr--campplus/snapshots/*/campplus_cn_common.bin",
    "checkpoints/hf_cache/models--nvidia--bigvgan_v2_44khz_128band_512x/snapshots/*/bigvgan_generator.pt",
    "checkpoints/hf_cache/models--nvidia--bigvgan_v2_44khz_128band_512x/snapshots/*/config.json",
    "checkpoints/hf_cache/models--openai--whisper-small/snapshots/*/model.safetensors"
    "|checkpoints/hf_cache/models--openai--whisper-small/snapshots/*/pytorch_model.bin",
    "checkpoints/hf_cache/models--openai--whisper-small/snapshots/*/config.json",
    "checkpoints/hf_cache/models--openai--whisper-small/snapshots/*/preprocessor_config.json",
)


class Models:
    """What seed-vc's load_models returned, kept as long as the process, and made anew when what it depends on has
    changed. `tell` hears of each step of the diffusion, and of each window that is done."""

    def __init__(self) -> None:
        self.key: tuple[object, ...] | None = None
        self.tell: Callable[[bool], None] = lambda window: None
        self._loaded: Any = None
        self._official: Callable[[Any], Any] | None = None

    def attach(self, inference: ModuleType) -> None:
        """Stands in for `load_models` of the engine's module, which its `main` looks up by that name."""
        if self._official is None:
            self._official = inference.load_models
            inference.load_models = self.recall  # type: ignore[attr-defined]

    def recall(self, arguments: argparse.Namespace) -> Any:
        assert self._loaded is not None
        return self._loaded

    def load(self, inference: ModuleType, arguments: argparse.Namespace, key: tuple[object, ...]) -> None:
        self.attach(inference)
        assert self._official is not None
        inference.fp16 = arguments.fp16  # type: ignore[attr-defined]
        if key == self.key:
            return
        self.key, self._loaded = None, None  # the old ones go first: both do not fit into one GPU
        loaded = self._official(arguments)
        flow = loaded[0].cfm
        official = flow.inference

        def inference_of_a_window(*positional: Any, **named: Any) -> Any:
            made = official(*positional, **named)
            self.tell(True)
            return made

        flow.inference = inference_of_a_window
        # A window of 30 s takes a minute on a CPU. Its solver asks the estimator once a step.
        estimator: Any = getattr(flow, "estimator", None)
        if hasattr(estimator, "register_forward_hook"):
            estimator.register_forward_hook(lambda *made: self.tell(False))
        self.key, self._loaded = key, loaded


models = Models()


def main(argv: list[str]) -> None:
    arguments = parse(argv)
    progress = Progress()
    progress(0)
    audio.check_folder(arguments.output)
    vocal, reference = audio.Clip(arguments.input), audio.Clip(arguments.reference)
    if vocal.silent:
        raise ScriptError(script_io.SILENT, "nothing is sung in the vocal")
    target = fullest(reference.mono(RATE), arguments.reference_seconds)
    if len(target) < MIN_REFERENCE_SECONDS * RATE or audio.level(target) < audio.SILENCE_RMS:
        raise ScriptError(script_io.BAD_REFERENCE, "no voice in the reference, or less than a second of it")
    root = arguments.project_root
    foreign.require_files(root, *(() if arguments.checkpoint else BASE_MODEL), *BESIDE)
    with TemporaryDirectory(prefix="seedvc-") as folder:
        sung = convert(root, Path(folder), vocal.mono(RATE), target, arguments, progress)
    progress(0.98)
    audio.write(arguments.output, audio.fitted(sung, RATE, vocal.length, "vocal"), vocal.channels)
    progress(1)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = script_io.OneLineParser(description="Sing a vocal in another voice by seed-vc.")
    options.add_infer_arguments(parser)
    parser.add_argument("--diffusion-steps", type=options.within(1, 200, int), default=40)
    parser.add_argument("--cfg-rate", type=options.within(0, 1), default=0.7)
    parser.add_argument("--reference-seconds", type=options.within(2, 25), default=12.0)
    parser.add_argument("--auto-f0-adjust", type=options.boolean, default=False, help="moves the melody: not in songs")
    parser.add_argument("--checkpoint", type=options.optional_path, default=None, help="a fine-tuned model")
    parser.add_argument("--config", type=options.optional_path, default=None, help="its .yml")
    arguments = parser.parse_args(argv)
    if arguments.reference is None:
        parser.error("--reference is needed")
    if (arguments.checkpoint is None) != (arguments.config is None):
        parser.error("--checkpoint and --config belong together")
    options.resolve(parser, arguments, "reference", "input", "output")
    if (
        not (arguments.project_root / "inference.py").is_file()
        or not (arguments.project_root / "hf_utils.py").is_file()
    ):
        parser.error(f"--project-root {arguments.project_root} is not seed-vc: no inference.py and hf_utils.py")
    for path in (arguments.checkpoint, arguments.config):
        if path and not foreign.is_filled(path):
            raise ScriptError(script_io.NO_WEIGHTS, f"{path} is missing or empty")
    return arguments


def convert(
    root: Path, folder: Path, vocal: Float32, target: Float32, arguments: argparse.Namespace, progress: Progress
) -> Float32:
    """(n,) and (m,) at 44.1 kHz -> about (n,) at 44.1 kHz, by the engine's own `main`."""
    import soundfile

    kind = foreign.use_device(arguments.device)
    # The engine cuts names at the first dot and reads and writes files: these are ours alone.
    source, reference, out = folder / "vocal.wav", folder / "reference.wav", folder / "out"
    soundfile.write(source, vocal, RATE, subtype="FLOAT")
    soundfile.write(reference, target, RATE, subtype="FLOAT")
    call = argparse.Namespace(
        source=str(source),
        target=str(reference),
        output=str(out),
        diffusion_steps=arguments.diffusion_steps,
        length_adjust=1.0,
        inference_cfg_rate=arguments.cfg_rate,
        f0_condition=True,
        auto_f0_adjust=arguments.auto_f0_adjust,
        semi_tone_shift=arguments.pitch,
        checkpoint=str(arguments.checkpoint) if arguments.checkpoint else None,
        config=str(arguments.config) if arguments.config else None,
        fp16=arguments.is_half and kind == "cuda",
    )
    tell = foreign.share_of(progress, 0.2, 0.97)
    per_window = max(1, WINDOW_FRAMES - len(target) // HOP - OVERLAP_FRAMES)
    windows, done, steps = max(1, math.ceil(len(vocal) / HOP / per_window)), 0, 0

    def one_more(window: bool) -> None:
        nonlocal done, steps
        done, steps = (done + 1, 0) if window else (done, steps + 1)
        tell((done + min(0.99, steps / max(1, arguments.diffusion_steps))) / windows)

    models.tell = one_more
    with foreign.inside(root, "seed-vc") as prints:
        import inference  # type: ignore[import-not-found]

        if Path(inference.__file__).resolve() != root / "inference.py":
            raise ScriptError(script_io.BAD_ARGUMENTS, f"this process has loaded {inference.__file__}, not {root}")
        with foreign.loading("seed-vc's models"):
            models.load(inference, call, foreign.stamp(arguments.checkpoint, arguments.config))
        if any("Skipped loading some keys" in line for line in prints):
            models.key = None
            raise ScriptError(script_io.NO_WEIGHTS, "the weights do not fit this version of seed-vc")
        tell(0)
        foreign.set_seed(arguments.seed)
        inference.main(call)
    made = sorted(out.glob("*.wav"))
    if len(made) != 1:
        raise ScriptError(script_io.ENGINE_FAILED, f"seed-vc left {len(made)} files where one was expected")
    return audio.made(made[0]).mono(RATE)


def fullest(samples: Float32, seconds: float) -> Float32:
    """The stretch of at most `seconds` with the least silence in it, the earliest such: (n,) at 44.1 kHz."""
    import numpy as np

    length, step = round(seconds * RATE), RATE // 20
    if len(samples) <= length:
        return samples
    frames = samples[: len(samples) // step * step].reshape(-1, step)
    loudness = np.sqrt(np.mean(np.square(frames, dtype=np.float64), axis=1))
    sounding = np.concatenate([[0], np.cumsum(loudness > 0.1 * np.quantile(loudness, 0.95))])
    wide = min(length // step, len(frames))
    start = int(np.argmax(sounding[wide:] - sounding[:-wide])) * step
    return samples[start : start + length]


if __name__ == "__main__":
    script_io.run(main)
