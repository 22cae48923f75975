"""Separates a song into vocal and accompaniment by a trained model: audio-separator's (the UVR models) or Demucs'.

    python uvr_separate.py --project-root DIR --input SONG.wav --vocal OUT.wav --inst OUT.wav --model NAME
                           [--engine audio-separator|demucs] [--models-dir DIR/models] [--device cuda]
                           [--is-half true] [--seed 0] [--instrumental stems|rest] [--segment-seconds X]
                           [--shifts 1] [--overlap 0.25]

Run by the interpreter that has the package: audio-separator 0.47.1 (written against it; 0.44 has the same calls) or
demucs 4.1.0. A model whose name ends like a file (`model_bs_roformer_ep_317_sdr_12.9755.ckpt`, `UVR-MDX-NET-....onnx`)
is audio-separator's, another (`htdemucs`, `htdemucs_ft`) Demucs', unless `--engine` says so.

`--models-dir` (by default `models` in `--project-root`) has, since nothing is ever downloaded:

    audio-separator  download_checks.json, the model and its .yaml; vr_model_data.json and mdx_model_data.json for
                     .pth and .onnx: what `audio-separator --download_model_only -m NAME --model_file_dir DIR` leaves
    demucs           NAME.yaml and the .th files that it lists, or NAME.th; without NAME.* there, what Demucs has left
                     in the Hugging Face cache is used

In: what soundfile reads, one or two channels, any rate. Out: two 44.1 kHz stereo WAVs (32-bit float) exactly as long as
the song. The accompaniment is the sum of the stems that are not vocals, or with `--instrumental rest` the song less the
vocals, so that both add up to the song exactly; that is also done where the stems lack much of the song. A song
that is near full scale is turned down for audio-separator, which rescales each stem that it finds too loud by itself;
where it did so nevertheless the stems are brought back to the level at which they add up to the song. Demucs has no
16-bit mode: `--is-half` is for audio-separator's (autocast, where the model and the device can).

stdout: lines `PROGRESS 0.42` (of audio-separator as its own bars are drawn). stderr: `WARNING ...`, `engine: ...`;
one line on failure. With `--serve` job after job in one process, see script_io.run. Exit codes: 0 done; 2 bad
arguments; 3 unreadable input; 4 the song is silent; 6 an output cannot be written; 7 out of memory (the GPU's or the
computer's: the line says which); 8 no such GPU; 9 files of the model are missing or unusable; 10 unknown model, or one
that does not separate vocals; 11 the engine failed, or made silence, NaN or another length; 18 the disk is
full; 130, 143 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # Python itself leaves it out with -I or -P

from common import audio, foreign, options, script_io
from common.script_io import Progress, ScriptError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from common.audio import Float32

RATE = audio.RATE
FILE_ENDINGS = (".ckpt", ".onnx", ".pth", ".yaml", ".yml", ".th", ".pt", ".safetensors")
LOUDEST = 0.7  # of full scale: the peak of a song that audio-separator gets
MOST_LACKING = 10 ** (-12 / 20)  # of the song's level: stems that lack more are not trusted to be all of it
DEMUCS_NAMES = frozenset(
    ("htdemucs", "htdemucs_ft", "htdemucs_6s", "hdemucs_mmi", "mdx", "mdx_extra", "mdx_q", "mdx_extra_q")
)

Stems = dict[str, "Float32"]  # lower-case name -> (n, 2) at 44.1 kHz


def main(argv: list[str]) -> None:
    arguments = parse(argv)
    progress = Progress()
    progress(0)
    for path in (arguments.vocal, arguments.inst):
        audio.check_folder(path)
    song = audio.Clip(arguments.input)
    if song.silent:
        raise ScriptError(script_io.SILENT, "the song is silent")
    mix = song.stereo()
    separate = by_audio_separator if arguments.engine == "audio-separator" else by_demucs
    stems = separate(mix, arguments, progress)
    progress(0.95)
    vocal, inst = vocal_and_rest(mix, stems, arguments)
    with (
        audio.wav_writer(arguments.inst, RATE, 2) as inst_out,
        audio.wav_writer(arguments.vocal, RATE, 2) as vocal_out,
    ):
        inst_out.write(inst)
        vocal_out.write(vocal)
    progress(1)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = script_io.OneLineParser(description="Separate a song by audio-separator or Demucs.")
    options.add_engine_arguments(parser)
    options.add_separate_arguments(parser)
    parser.add_argument("--model", required=True)
    parser.add_argument("--engine", choices=("audio-separator", "demucs"), default=None)
    parser.add_argument("--models-dir", type=options.optional_path, default=None)
    parser.add_argument("--instrumental", choices=("stems", "rest"), default="stems")
    segment = options.within(1, 3600)
    # Shorter segments need less GPU memory. Demucs fades them over each other; audio-separator puts them end to end.
    parser.add_argument("--segment-seconds", type=segment, default=None, help="htdemucs: at most 7.8")
    parser.add_argument("--shifts", type=options.within(0, 20, int), default=1, help="Demucs: runs to average")
    parser.add_argument("--overlap", type=options.within(0, 0.9), default=0.25, help="Demucs: of the segments")
    arguments = parser.parse_args(argv)
    options.resolve(parser, arguments, "input", "vocal", "inst")
    if arguments.models_dir is None:
        arguments.models_dir = arguments.project_root / "models"
    if not options.is_plain_name(arguments.model, 201):
        raise ScriptError(script_io.UNKNOWN_MODEL, f"no model is called {arguments.model!r}")
    if arguments.engine is None:
        arguments.engine = "audio-separator" if arguments.model.lower().endswith(FILE_ENDINGS) else "demucs"
    return arguments


# ------------------------------------------------------------------------------
# audio-separator

_separator: Any = None
_separator_key: tuple[object, ...] = ()


def by_audio_separator(mix: Float32, arguments: argparse.Namespace, progress: Progress) -> Stems:
    import numpy as np
    import soundfile

    if shutil.which("ffmpeg") is None:
        raise ScriptError(script_io.ENGINE_FAILED, "audio-separator needs ffmpeg on PATH")
    if not arguments.models_dir.is_dir():
        raise ScriptError(script_io.NO_WEIGHTS, f"--models-dir {arguments.models_dir} is not a folder")
    os.environ.pop("AUDIO_SEPARATOR_MODEL_DIR", None)  # it would win over our --models-dir
    kind = foreign.use_device(arguments.device)
    tell = foreign.share_of(progress, 0.02, 0.95)
    gain = min(1.0, LOUDEST / float(np.max(np.abs(mix))))
    with TemporaryDirectory(prefix="separate-") as folder:
        source = Path(folder) / "song.wav"
        soundfile.write(source, mix * gain, RATE, subtype="FLOAT")  # the stems come in the same format
        with foreign.inside(arguments.project_root, "audio-separator") as prints:
            separator = loaded_separator(arguments, kind, folder)
            tell(0.1)
            foreign.set_seed(arguments.seed)
            # One bar for the song, but of models that look at it twice.
            with foreign.told_by_bars(foreign.share_of(progress, 0.1, 0.93)):
                made = separator.separate(str(source))
            if not made:
                said = prints[-1] if prints else "it gave no reason"
                foreign.check_memory(" ".join(prints))
                raise ScriptError(script_io.ENGINE_FAILED, f"audio-separator made nothing: {said}")
        stems: Stems = {}
        for name in made:
            match = re.search(r"_\(([^)]*)\)", Path(name).name)
            path = Path(folder) / Path(name).name
            stem = match[1].lower() if match else Path(name).stem.lower()
            # Some versions list a stem that is nearly silent and do not write it.
            stems[stem] = audio.made(path).stereo() if path.is_file() else np.zeros_like(mix)
    stems = {stem: audio.exactly(checked(samples, len(mix), stem), len(mix)) for stem, samples in stems.items()}
    return at_one_level(mix * gain, stems, 1 / gain)


def loaded_separator(arguments: argparse.Namespace, kind: str, folder: str) -> Any:
    """The Separator with its model, kept between jobs; what it makes goes into `folder`."""
    global _separator, _separator_key
    try:
        from audio_separator.separator import Separator  # type: ignore[import-not-found]
    except ImportError as error:
        raise ScriptError(script_io.ENGINE_FAILED, f"this interpreter has no audio-separator: {error}") from error

    model = arguments.models_dir / arguments.model
    half = arguments.is_half and kind == "cuda"
    key = (half, arguments.segment_seconds, *foreign.stamp(model if model.is_file() else None), str(model))
    if key != _separator_key:
        _separator, _separator_key = None, ()
        more = {} if arguments.segment_seconds is None else {"chunk_duration": arguments.segment_seconds}
        separator = Separator(
            log_level=logging.WARNING,
            model_file_dir=str(arguments.models_dir),
            output_dir=folder,
            output_format="WAV",
            normalization_threshold=1.0,
            sample_rate=RATE,
            use_soundfile=True,
            use_autocast=half,
            **more,
        )
        separator.download_file_if_not_exists = only_if_there
        with foreign.loading(arguments.model):  # the library calls sys.exit(1) where a model does not fit
            try:
                separator.load_model(model_filename=arguments.model)
            except ValueError as error:
                if "not found in supported model files" not in str(error):
                    raise
                raise ScriptError(
                    script_io.UNKNOWN_MODEL, f"audio-separator knows no model {arguments.model!r}"
                ) from error
        on_cpu = "CUDAExecutionProvider" not in (separator.onnx_execution_provider or [])
        if kind == "cuda" and on_cpu and arguments.model.lower().endswith(".onnx"):
            raise ScriptError(script_io.NO_CUDA, "ONNX Runtime has no CUDA here: install onnxruntime-gpu")
        _separator, _separator_key = separator, key
    # Both are told once, when they are made; the library itself changes them in this way for its own chunks.
    _separator.output_dir = folder
    _separator.model_instance.output_dir = folder
    return _separator


def only_if_there(url: str, output_path: str) -> None:
    """Stands in for the library's download: every file that it wants has to be there."""
    if not foreign.is_filled(Path(output_path)):
        raise ScriptError(script_io.NO_WEIGHTS, f"{output_path} is missing or empty")


# ------------------------------------------------------------------------------
# Demucs

_demucs: Any = None
_demucs_key: tuple[object, ...] = ()


def by_demucs(mix: Float32, arguments: argparse.Namespace, progress: Progress) -> Stems:
    import numpy as np

    device = foreign.use_device(arguments.device)
    tell = foreign.share_of(progress, 0.05, 0.95)
    shifts = max(1, arguments.shifts)

    def follow(at: dict[str, Any]) -> None:
        if at["state"] == "end":
            within = (at["shift_idx"] + at["segment_offset"] / at["audio_length"]) / shifts
            tell((at["model_idx_in_bag"] + within) / at["models"])

    with foreign.inside(arguments.project_root, "demucs"):
        separator = loaded_demucs(arguments)
        model = separator.model  # one model, which has `segment`, or a bag of them
        longest = getattr(model, "max_allowed_segment", model.segment if "HTDemucs" in type(model).__name__ else None)
        if longest is not None and (arguments.segment_seconds or 0) > longest:
            raise ScriptError(
                script_io.BAD_ARGUMENTS, f"--segment-seconds: {arguments.model} takes at most {float(longest):g}"
            )
        separator.update_parameter(
            device=device,
            shifts=arguments.shifts,
            overlap=arguments.overlap,
            split=True,
            segment=arguments.segment_seconds,
            progress=False,
            callback=follow,
        )
        import torch

        foreign.set_seed(arguments.seed)
        given = torch.from_numpy(np.ascontiguousarray(audio.resampled(mix, RATE, separator.samplerate).T))
        if separator.audio_channels == 1:
            given = given.mean(0, keepdim=True)
        _, parts = separator.separate_tensor(given, separator.samplerate)
        arrays = {name.lower(): part.detach().cpu().float().numpy().T for name, part in parts.items()}
    stems: Stems = {}
    for name, samples in arrays.items():
        both = samples if samples.shape[1] == 2 else np.repeat(samples, 2, axis=1)
        made = audio.resampled(both, separator.samplerate, RATE)
        stems[name] = audio.exactly(checked(made, len(mix), name), len(mix))
    return stems


def loaded_demucs(arguments: argparse.Namespace) -> Any:
    global _demucs, _demucs_key
    try:
        from demucs.api import Separator  # type: ignore[import-not-found]
    except ImportError as error:
        raise ScriptError(script_io.ENGINE_FAILED, f"demucs 4.1 or newer is needed here: {error}") from error

    folder, name = arguments.models_dir, arguments.model
    local = [path for path in sorted(folder.glob("*")) if path.suffix in {".yaml", ".th"}] if folder.is_dir() else []
    # A single model is found by its signature, before the dash of its checksum.
    is_local = any(name in {path.stem, path.stem.rpartition("-")[0]} for path in local)
    if not is_local and name not in DEMUCS_NAMES:
        raise ScriptError(script_io.UNKNOWN_MODEL, f"Demucs has no model {name!r}, and {folder} neither")
    key = (name, is_local, str(folder), *foreign.stamp(*(local if is_local else ())))
    if key != _demucs_key:
        _demucs, _demucs_key = None, ()
        # Named like this, it is looked for in the Hugging Face cache alone, and not in an older place on the net.
        model, repo = (name, folder) if is_local else (f"hf://{name}", None)
        with foreign.loading(f"{name} from {folder if is_local else 'the Hugging Face cache'}"):
            _demucs = Separator(model=model, repo=repo)
        if "vocals" not in _demucs.model.sources:
            raise ScriptError(script_io.UNKNOWN_MODEL, f"{name} does not separate vocals")
        _demucs_key = key
    return _demucs


# ------------------------------------------------------------------------------
# Stems


def checked(samples: Float32, length: int, stem: str) -> Float32:
    """Raises ScriptError (11): samples that are not numbers, or another length than the song's."""
    import numpy as np

    if not np.isfinite(samples).all():
        raise ScriptError(script_io.ENGINE_FAILED, f"the stem {stem} holds samples that are not numbers")
    if abs(len(samples) - length) > audio.MAX_DRIFT_SECONDS * RATE:
        lengths = f"{len(samples) / RATE:.2f} s, not {length / RATE:.2f} s"
        raise ScriptError(script_io.ENGINE_FAILED, f"the stem {stem} has {lengths}")
    return samples


def at_one_level(mix: Float32, stems: Stems, gain: float) -> Stems:
    """The stems of `mix`, times `gain`. Where factors for each of them make them add up to the song, and they did not,
    somebody had rescaled them, and the factors are applied as well."""
    import numpy as np

    names = [name for name, samples in stems.items() if audio.level(samples) > audio.SILENCE_RMS]
    factors: NDArray[np.float64] = np.ones(len(names))
    if len(names) > 1:
        flat = [stems[name].ravel() for name in names]
        gram = np.array([[np.vdot(a, b) for b in flat] for a in flat], np.float64)
        found = np.linalg.lstsq(gram, np.array([np.vdot(a, mix.ravel()) for a in flat], np.float64), rcond=None)[0]
        before = audio.level(mix - sum(stems.values()))
        after = audio.level(mix - sum(stems[name] * float(f) for name, f in zip(names, found, strict=True)))
        if after < 0.1 * before and all(0.2 < factor < 5 for factor in found):
            factors = np.asarray(found, np.float64)
    scale = dict(zip(names, factors, strict=True))
    return {name: (samples * (gain * scale.get(name, 1.0))).astype(np.float32) for name, samples in stems.items()}


def vocal_and_rest(mix: Float32, stems: Stems, arguments: argparse.Namespace) -> tuple[Float32, Float32]:
    """Raises ScriptError: 9 no vocals among the stems; 11 no voice in them."""
    import numpy as np

    vocal = next((stems[name] for name in ("vocals", "vocal") if name in stems), None)
    if vocal is None:
        made = ", ".join(sorted(stems))
        raise ScriptError(script_io.UNKNOWN_MODEL, f"{arguments.model} does not separate vocals; its stems are: {made}")
    if audio.level(vocal) < audio.SILENCE_RMS:
        raise ScriptError(script_io.ENGINE_FAILED, f"{arguments.model} found no voice in the song")
    # Where a model gives the accompaniment and also its instruments, the accompaniment is all of them.
    whole = [name for name in stems if name in {"instrumental", "no vocals"}]
    others = whole[:1] or [name for name in stems if name not in {"vocals", "vocal"}]
    rest = mix - vocal
    if arguments.instrumental == "rest" or not others:
        return vocal, rest
    inst = np.asarray(sum(stems[name] for name in others), np.float32)
    if audio.level(rest - inst) > MOST_LACKING * audio.level(mix):
        return vocal, rest
    return vocal, inst


if __name__ == "__main__":
    script_io.run(main)
