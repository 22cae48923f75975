"""Separates a song into vocal and accompaniment with the UVR models of a GPT-SoVITS, in its interpreter, on its GPU.

    python gptsovits_separate.py --project-root DIR --input SONG.wav --vocal OUT.wav --inst OUT.wav --model HP2
                                 [--device cuda] [--is-half true] [--agg 10]

`--model` is a file of DIR/tools/uvr5/uvr5_weights, without its ending, or how only one of them begins: HP2, HP3, HP5
and VR-DeEcho... (.pth), anything with `roformer` in its name (.ckpt, and .yaml beside it), onnx_dereverb_By_FoxJoy
(MDX). The classes are those of tools/uvr5, read at commit 48b1a0169. In: whatever soundfile reads, one or two
channels, any sample rate. Out: two 44.1 kHz stereo WAVs (32-bit float) exactly as long as the song. They appear only
when both are complete. Long songs are worked at by the minute, so memory on the GPU does not grow with their length.

stdout: lines `PROGRESS 0.42`, never falling, the last one `PROGRESS 1`. stderr: `WARNING ...`; one line on failure.
Exit codes: 0 done; 1 unexpected; 2 bad arguments; 3 unreadable input, more than two channels, or no finite samples;
4 the song is silent; 6 an output cannot be written; 7 out of memory, the GPU's too; 8 no CUDA; 9 no weights at all;
10 no such model; 11 the separator failed, or what it wrote is not the song taken apart; 18 the disk is full; 143 and
130 ended by SIGTERM and SIGINT (nothing is left behind).
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent))  # Python itself leaves it out with -I or -P

from common import audio, options, script_io
from common.audio import RATE
from common.gptsovits.process import check_device, failure, inside, quiet
from common.script_io import Progress, ScriptError

Float32 = NDArray[np.float32]

CHUNK = 60 * RATE
OVERLAP = 4 * RATE  # two chunks share at least so much
EDGE = RATE // 2  # of a chunk's ends nothing is used: a model hears nothing beyond them
SHORTEST = 3 * RATE
PEAK = 0.5  # what a song is brought to; its parts may be louder than the whole, and wrap round at full scale
SILENCE = 10 ** (-70 / 20)  # under the song's peak
WEIGHTS = "tools/uvr5/uvr5_weights"
MDX = "onnx_dereverb_By_FoxJoy"

# The separator that was loaded last, under all it depends on: a process that serves loads it once.
_loaded: dict[tuple[Any, ...], Any] = {}


def main(argv: list[str] | None = None) -> None:
    parser = script_io.OneLineParser(description="Separate a song into vocal and accompaniment.")
    parser.add_argument("--project-root", type=Path, required=True)
    options.add_separate_arguments(parser)
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--is-half", type=options.boolean, default=True)
    parser.add_argument("--agg", type=int, default=10, help="how hard HP and DeEcho models separate, 0 to 20")
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.agg <= 20:
        parser.error("--agg must be within 0 and 20")
    options.absolute(parser, arguments, "input", "vocal", "inst")
    vocal, inst = arguments.vocal, arguments.inst
    root = Path(os.path.abspath(arguments.project_root))
    progress = Progress()
    progress(0)
    song = read_song(arguments.input)
    separate = load(root, arguments.model, arguments.device, arguments.is_half, arguments.agg)
    progress(0.1)
    try:
        scratch = TemporaryDirectory(prefix=".separate-", dir=vocal.parent)
    except OSError as error:
        raise ScriptError(script_io.UNWRITABLE, f"cannot write to {vocal.parent}: {error.strerror}") from error
    with scratch as folder:
        voice, rest = in_chunks(
            song, lambda chunk: separate(chunk, Path(folder)), lambda done: progress(0.1 + 0.88 * done)
        )
    if np.abs(voice).max() < 10 ** (-40 / 20) * np.abs(song).max():
        script_io.warn("Hardly any singing was found in the song.")
    with audio.wav_writer(inst, RATE, 2) as inst_out, audio.wav_writer(vocal, RATE, 2) as vocal_out:
        for start in range(0, len(song), 10 * RATE):
            vocal_out.write(voice[start : start + 10 * RATE])
            inst_out.write(rest[start : start + 10 * RATE])
    progress(1)


def read_song(path: Path) -> Float32:
    """float32 (n, 2) at 44.1 kHz. Raises ScriptError (3, 4)."""
    song = audio.Clip(path)
    if np.abs(song.samples).max() < 1e-4:
        raise ScriptError(script_io.SILENT, "the song is silent")
    return song.stereo()


def in_chunks(
    song: Float32, separate: Callable[[Float32], tuple[Float32, Float32]], tell: Callable[[float], None]
) -> tuple[Float32, Float32]:
    """(voice, rest), (n, 2) each, of a song (n, 2): by chunks that overlap and are cross-faded."""
    length = len(song)
    count = 1 if length <= CHUNK else math.ceil((length - OVERLAP) / (CHUNK - OVERLAP))
    starts = [round(number * (length - CHUNK) / (count - 1)) for number in range(count)] if count > 1 else [0]
    peak = float(np.abs(song).max())
    voice, rest = np.zeros_like(song), np.zeros_like(song)
    weights = np.zeros((length, 1), np.float32)
    for number, start in enumerate(starts):
        chunk = song[start : start + CHUNK]
        if np.abs(chunk).max() < SILENCE * peak:
            parts = np.zeros_like(chunk), chunk  # digital silence is an error to the models
        else:
            padded = np.pad(chunk, ((0, max(0, SHORTEST - len(chunk))), (0, 0))) * np.float32(PEAK / peak)
            found = separate(padded)
            parts = found[0][: len(chunk)] * (peak / PEAK), found[1][: len(chunk)] * (peak / PEAK)
        weight = np.ones((len(chunk), 1), np.float32)
        ramp = np.clip((np.arange(OVERLAP) - EDGE) / (OVERLAP - 2 * EDGE), 0, 1).astype(np.float32)[:, None]
        if number > 0:
            weight[:OVERLAP] = ramp
        if number < count - 1:
            weight[-OVERLAP:] = ramp[::-1]
        voice[start : start + len(chunk)] += weight * parts[0]
        rest[start : start + len(chunk)] += weight * parts[1]
        weights[start : start + len(chunk)] += weight
        tell((number + 1) / count)
    voice /= weights
    rest /= weights
    return voice, rest


# --- the engine's separators ------------------------------------------------------------------------------------


def find_model(root: Path, name: str) -> str:
    """The model's own name. Raises ScriptError (9, 10)."""
    folder = root / WEIGHTS
    models = {path.stem for path in [*folder.glob("*.pth"), *folder.glob("*.ckpt")]}
    if (folder / MDX / "vocals.onnx").is_file():
        models.add(MDX)
    if not models:
        raise ScriptError(script_io.NO_WEIGHTS, f"there are no separation models in {folder}")
    wanted = name[: -len(suffix)] if (suffix := Path(name).suffix) in (".pth", ".ckpt", ".onnx") else name
    if wanted in models:
        return wanted
    alike = [model for model in sorted(models) if wanted and model.lower().startswith(wanted.lower())]
    if len(alike) != 1:
        problem = "is how several begin" if alike else "is none of them"
        raise ScriptError(script_io.UNKNOWN_MODEL, f"model {name!r} {problem}: {', '.join(alike or sorted(models))}")
    return alike[0]


def load(
    root: Path, name: str, device: str, is_half: bool, agg: int
) -> Callable[[Float32, Path], tuple[Float32, Float32]]:
    """A function that takes a song (n, 2) at 44.1 kHz and a scratch folder apart: (voice, rest), (n, 2) each.

    Raises ScriptError: 2, 7, 8, 9, 10, 11; so does the function, 7 and 11.
    """
    with inside(root):
        model = find_model(root, name)
        check_device(device)
        key = (root, model, device, is_half, agg)
        if key not in _loaded:
            _loaded.clear()  # first, since two may not fit
            if "roformer" in model.lower() and not (root / WEIGHTS / f"{model}.yaml").is_file():
                script_io.warn(f"{model}.yaml is missing: the model is read as its maker's default has it.")
            try:
                with quiet():
                    _loaded[key] = _load(root, model, device, is_half and device != "cpu", agg)
            except ScriptError:
                raise
            except Exception as error:
                raise failure(error, doing=f"{model} cannot be loaded") from error
    separator = _loaded[key]

    def separate(chunk: Float32, folder: Path) -> tuple[Float32, Float32]:
        try:
            return _separate(separator, root, model, chunk, folder)
        except BaseException:
            _loaded.clear()  # nobody knows what it left behind
            raise

    return separate


def _load(root: Path, model: str, device: str, is_half: bool, agg: int) -> Any:
    uvr, weights = root / "tools" / "uvr5", root / WEIGHTS
    if str(uvr) not in sys.path:
        sys.path.insert(0, str(uvr))  # they import `lib` and `bs_roformer` from there
    # Never webui.py, which starts a server when it is imported.
    if model == MDX:
        from tools.uvr5.mdxnet import MDXNetDereverb

        separator = MDXNetDereverb(15)
        if device != "cpu" and "CUDAExecutionProvider" not in separator.pred.model.get_providers():
            raise ScriptError(script_io.NO_CUDA, f"onnxruntime has no CUDA, and {MDX} would run on the CPU")
        return separator
    if "roformer" in model.lower():
        from tools.uvr5.bsroformer import Roformer_Loader

        files = {"model_path": str(weights / f"{model}.ckpt"), "config_path": str(weights / f"{model}.yaml")}
        return Roformer_Loader(**files, device=device, is_half=is_half)
    from lib.lib_v5 import spec_utils
    from tools.uvr5.vr import AudioPre, AudioPreDeEcho

    spec_utils.np = _ZeroedNumpy()
    kind = AudioPreDeEcho if "DeEcho" in model else AudioPre
    return kind(agg=agg, model_path=str(weights / f"{model}.pth"), device=device, is_half=is_half)


class _ZeroedNumpy:
    """numpy for their spec_utils, which makes its spectra with `np.ndarray(...)` and does not write all of their bins:
    what lay in that memory would be heard, or is no number."""

    ndarray = staticmethod(np.zeros)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def _separate(separator: Any, root: Path, model: str, chunk: Float32, folder: Path) -> tuple[Float32, Float32]:
    with TemporaryDirectory(dir=folder) as work:
        source, vocal_folder, inst_folder = Path(work) / "chunk.wav", Path(work) / "v", Path(work) / "i"
        # 44.1 kHz, stereo, 16 bits: anything else takes a path of theirs that needs more, or fails.
        soundfile.write(source, chunk, RATE, subtype="PCM_16")
        try:
            with quiet(), inside(root):
                # In this order for all of them: AudioPreDeEcho has its folders the other way round, and what it calls
                # the instrument is the voice. HP3 has to be told that it is HP3.
                separator._path_audio_(str(source), str(inst_folder), str(vocal_folder), "wav", "HP3" in model)
        except Exception as error:
            raise failure(error, doing=f"{model} failed") from error
        voice, rest = _stems(model, vocal_folder, inst_folder, len(chunk))
    left = float(np.sum((chunk - voice - rest) ** 2))
    if not left <= 0.5 * float(np.sum(chunk**2)):
        hint = "; try --is-half false" if not np.any(voice) and not np.any(rest) else ""
        raise ScriptError(script_io.ENGINE_FAILED, f"what {model} wrote does not add up to the song{hint}")
    return voice, rest


def _stems(model: str, vocal_folder: Path, inst_folder: Path, length: int) -> tuple[Float32, Float32]:
    """What a separator wrote: one file that is the voice by its name, else by its folder, and the sum of the others."""
    files = [path for folder in (vocal_folder, inst_folder) if folder.is_dir() for path in sorted(folder.iterdir())]
    named = [path for path in files if "vocal" in path.name.lower()]
    voices = named if len(named) == 1 else [path for path in files if path.parent == vocal_folder]
    if len(voices) != 1 or len(files) < 2:
        raise ScriptError(script_io.ENGINE_FAILED, f"{model} wrote {len(files)} stems, {len(voices)} of them vocals")
    total = np.zeros((length, 2), np.float32)
    for path in files:
        if path != voices[0]:
            total += _stem(model, path, length)
    return _stem(model, voices[0], length), total


def _stem(model: str, path: Path, length: int) -> Float32:
    """float32 (length, 2) at 44.1 kHz. The last frames of a transform may be missing."""
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise ScriptError(script_io.ENGINE_FAILED, f"{model} wrote a stem that cannot be read") from error
    samples = audio.resampled(samples, rate, RATE)
    if abs(len(samples) - length) > RATE // 10 or samples.shape[1] > 2 or not np.isfinite(samples).all():
        found = f"{len(samples) / RATE:.2f} s of {samples.shape[1]} channels for {length / RATE:.2f} s"
        raise ScriptError(script_io.ENGINE_FAILED, f"{model} wrote {found}")
    return audio.exactly(np.broadcast_to(samples, (len(samples), 2)), length)


if __name__ == "__main__":
    script_io.run(main)
