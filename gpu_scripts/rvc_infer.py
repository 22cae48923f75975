"""Sings a vocal again in a trained voice by RVC, with the melody kept: Applio's or RVC-Project's, told by their files.

    python rvc_infer.py --project-root ROOT --input VOCAL.wav --output OUT.wav --pitch N
                        (--weights VOICE.pth [--index VOICE.index] | --model-id ID)
                        [--device cuda] [--is-half true] [--seed 0] [--f0-method rmvpe] [--index-rate X]
                        [--protect 0.33] [--volume-envelope X] [--speaker 0] [--embedder NAME] [--reference IGNORED]

Run by that project's own interpreter; read at commit b9c0ccb1 of IAHispano/Applio and 4338f12 (the rewrite of 2026) of
RVC-Project/Retrieval-based-Voice-Conversion-WebUI. The voice is that of the weights: `--reference` is taken and
ignored, as every engine is called with it. A `--weights` or `--index` that is empty counts as not given; without
weights `--model-id` is looked up in the root:

    Applio       logs/<id>/<id>.pth, or the only *.pth there (not G_*, D_*); logs/<id>/*.index
    RVC-Project  assets/weights/<id>.pth; logs/<id>/added_*.index, or the one of that name in assets/indices/

Both projects go on without an index that is missing or broken. Here that is an error where one was named, and a
WARNING where none was found. The defaults of index rate and volume envelope are each project's own (Applio 0.3 and 1,
RVC-Project 0.75 and 0.25); volume envelope 0 keeps the singer's dynamics, 1 those of the converted voice.

In: what soundfile reads, one or two channels, any rate; of a stereo vocal the middle is sung. Out: 44.1 kHz WAV
(32-bit float) exactly as long as the vocal, with as many channels; the voice has the bandwidth of its model (32 to
48 kHz). `--is-half` matters to RVC-Project alone. Nothing is ever downloaded. Only use weights that you trust: a .pth
is a pickle, which RVC-Project opens as its torch does by default.

Some users report that a second conversion in one process has another pitch (RVC-Project's issues 885 and 984). No
cause is seen in the code that is called here, which keeps no F0 between calls, but it has not been run on real
weights with `--serve`: compare a resident child with a fresh process before relying on it.

stdout: lines `PROGRESS 0.42`. stderr: `WARNING ...`, `engine: ...`; one line on failure. With `--serve` job after job
in one process, see script_io.run. Exit codes: 0 done; 2 bad arguments; 3 unreadable input; 4 the vocal is silent; 6 the
output cannot be written; 7 out of memory (the GPU's or the computer's: the line says which); 8 no such GPU; 9 weights,
an index or the project's own models are missing or unusable; 10 unknown model id; 11 the engine failed, or made
silence, NaN or another length; 18 the disk is full; 130, 143 interrupted.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # Python itself leaves it out with -I or -P

from common import audio, foreign, options, script_io
from common.calls import Course, told_by_calls
from common.rvc import courses
from common.script_io import Progress, ScriptError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from common.audio import Float32

FEATURES_RATE = 16000  # both resample to it; RVC-Project does so with 16-bit floats, so it is done here
EMBEDDINGS = {"v1": 256, "v2": 768}
APPLIO_EMBEDDERS = {
    "contentvec": "contentvec",
    "spin": "spin",
    "spin-v2": "spin-v2",
    "chinese-hubert-base": "chinese_hubert_base",
    "japanese-hubert-base": "japanese_hubert_base",
    "korean-hubert-base": "korean_hubert_base",
}

LOADED, MELODY, SUNG = 0.2, 0.4, 0.97  # of the progress: the voice is loaded, the melody known, all of it sung


@dataclass(frozen=True)
class Voice:
    """Files of a trained voice, absolute."""

    weights: Path
    index: Path | None


class Applio:
    """One VoiceConverter, which loads other weights when their path changes."""

    name = "Applio"
    marker = "rvc/infer/infer.py"
    f0_methods = ("rmvpe", "fcpe", "crepe", "crepe-tiny")
    usual_part = courses.APPLIO_PART
    index_rate, volume_envelope = 0.3, 1.0

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stamp: tuple[object, ...] = ()
        self.converter: Any = None

    def find(self, model_id: str) -> Voice:
        folder = self.root / "logs" / model_id
        voices = [path for path in sorted(folder.glob("*.pth")) if not path.name.startswith(("G_", "D_"))]
        named = [path for path in voices if path.stem == model_id]
        return Voice(one_of(named or voices, model_id), newest(folder.glob("*.index")))

    def check_files(self, f0_method: str) -> None:
        if f0_method in ("rmvpe", "fcpe"):  # crepe's are in its package
            foreign.require_files(self.root, f"rvc/models/predictors/{f0_method}.pt")

    def environment(self, voice: Voice) -> dict[str, str]:
        return {}

    def load(self, voice: Voice, arguments: argparse.Namespace) -> str:
        from rvc.infer.infer import VoiceConverter  # type: ignore[import-not-found]

        if self.converter is None:
            self.converter = VoiceConverter()
        stamp = foreign.stamp(voice.weights)
        if stamp != self.stamp:
            self.stamp, self.converter.loaded_model = (), None
            self.converter.get_vc(str(voice.weights), arguments.speaker)
            if self.converter.cpt is None:
                raise ScriptError(script_io.NO_WEIGHTS, f"{voice.weights} could not be loaded")
            self.stamp = stamp
        embedder = arguments.embedder or self.converter.cpt.get("embedder_model") or "contentvec"
        if embedder not in APPLIO_EMBEDDERS:
            known = ", ".join(APPLIO_EMBEDDERS)
            raise ScriptError(script_io.NO_WEIGHTS, f"the voice wants embedder {embedder!r}; --embedder takes: {known}")
        folder = f"rvc/models/embedders/{APPLIO_EMBEDDERS[embedder]}"
        foreign.require_files(self.root, f"{folder}/pytorch_model.bin", f"{folder}/config.json")
        self.embedder = embedder
        return str(self.converter.version)

    def parts(self) -> tuple[Any, str]:
        """What sings part by part, and the method that it does that with."""
        return getattr(self.converter, "vc", None), "voice_conversion"

    def sing(
        self, source: Path, index: str, folder: Path, arguments: argparse.Namespace
    ) -> tuple[NDArray[np.float64], int]:
        import soundfile

        out = folder / "out.wav"
        self.converter.convert_audio(
            audio_input_path=str(source),
            audio_output_path=str(out),
            model_path=self.converter.loaded_model,
            index_path=index,
            pitch=arguments.pitch,
            f0_method=arguments.f0_method,
            index_rate=arguments.index_rate,
            volume_envelope=arguments.volume_envelope,
            protect=arguments.protect,
            split_audio=False,
            embedder_model=self.embedder,
            export_format="WAV",
            resample_sr=0,  # another value would change the header alone
            sid=arguments.speaker,
        )
        if not out.is_file():
            raise ScriptError(script_io.ENGINE_FAILED, "Applio reported no error and wrote no file")
        samples, rate = soundfile.read(out, always_2d=True)
        return samples[:, 0], rate


class RvcProject:
    """One VC. It returns its errors as text."""

    name = "RVC-Project"
    marker = "infer/vc/modules.py"
    f0_methods = ("rmvpe", "fcpe", "pm")
    usual_part = courses.PROJECT_PART
    index_rate, volume_envelope = 0.75, 0.25

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stamp: tuple[object, ...] = ()
        self.vc: Any = None
        self.can_half: bool | None = None

    def find(self, model_id: str) -> Voice:
        weights = one_of([path for path in [self.root / f"assets/weights/{model_id}.pth"] if path.is_file()], model_id)
        # Training adds epoch and step to the name of weights, not to that of the index.
        name = re.sub(r"_e\d+_s\d+$", "", model_id).lower()
        outside = [
            path
            for path in self.root.glob("assets/indices/*.index")
            if "trained" not in path.name and (f"_{name}_v" in path.stem.lower() or path.stem.lower() == name)
        ]
        own = [path for path in self.root.glob("logs/*/added_*.index") if path.parent.name.lower() == name]
        return Voice(weights, newest(own or outside))

    def check_files(self, f0_method: str) -> None:
        hubert = "assets/hubert_base"
        files = [f"{hubert}/config.json", f"{hubert}/model.safetensors|{hubert}/pytorch_model.bin"]
        if f0_method == "rmvpe":
            files.append("assets/rmvpe/rmvpe.pt")
        foreign.require_files(self.root, *files)

    def environment(self, voice: Voice) -> dict[str, str]:
        return {
            "weight_root": str(voice.weights.parent),
            "index_root": str(self.root / "logs"),
            "outside_index_root": str(self.root / "assets/indices"),
            "rmvpe_root": str(self.root / "assets/rmvpe"),
            "RVC_CUDA_GRAPH": "0",  # as its own web page has it for songs
        }

    def load(self, voice: Voice, arguments: argparse.Namespace) -> str:
        from configs.config import Config  # type: ignore[import-not-found]
        from infer.vc.modules import VC  # type: ignore[import-not-found]

        config = Config()
        if arguments.device != "cpu" and not str(config.device).startswith("cuda"):
            raise ScriptError(script_io.NO_CUDA, "RVC-Project refuses this GPU (it wants 4 GiB and SM 5.3)")
        if self.can_half is None:  # the configuration is one for the process, and is changed below
            self.can_half = bool(config.is_half)
        half = self.can_half and arguments.is_half
        stamp = (half, *foreign.stamp(voice.weights))
        if stamp != self.stamp:
            self.stamp, self.vc = (), None
            config.is_half = half
            vc = VC(config)
            vc.get_vc(voice.weights.name)
            self.stamp, self.vc = stamp, vc
        return str(self.vc.version)

    def parts(self) -> tuple[Any, str]:
        """What sings part by part, and the method that it does that with."""
        return getattr(self.vc, "pipeline", None), "vc"

    def sing(
        self, source: Path, index: str, folder: Path, arguments: argparse.Namespace
    ) -> tuple[NDArray[np.float64], int]:
        text, result = self.vc.vc_single(
            arguments.speaker,
            str(source),
            arguments.pitch,
            arguments.f0_method,
            index,
            arguments.index_rate,
            0,  # resample_sr: it is done here
            arguments.volume_envelope,
            arguments.protect,
        )
        if not result or result[1] is None:
            foreign.check_memory(str(text))
            reason = str(text).strip().splitlines()[-1] if str(text).strip() else "it gave no reason"
            raise ScriptError(script_io.ENGINE_FAILED, f"RVC-Project failed: {reason}")
        rate, samples = result
        return samples / 32768.0, rate


Project = Applio | RvcProject
_project: Project | None = None


def main(argv: list[str]) -> None:
    arguments, project = parse(argv)
    progress = Progress()
    progress(0)
    audio.check_folder(arguments.output)
    vocal = audio.Clip(arguments.input)
    if vocal.silent:
        raise ScriptError(script_io.SILENT, "nothing is sung in the vocal")
    voice = find(project, arguments)
    project.check_files(arguments.f0_method)
    if voice.index is None and arguments.index_rate > 0:
        script_io.warn("The voice has no index: it will sound less like its singer.")
        arguments.index_rate = 0.0
    with TemporaryDirectory(prefix="rvc-") as folder:
        sung, rate = convert(project, voice, Path(folder), vocal.mono(FEATURES_RATE), arguments, progress)
    progress(SUNG)
    audio.write(arguments.output, audio.fitted(sung, rate, vocal.length, "vocal"), vocal.channels)
    progress(1)


def parse(argv: list[str]) -> tuple[argparse.Namespace, Project]:
    global _project
    parser = script_io.OneLineParser(description="Sing a vocal in a trained voice by RVC.")
    options.add_infer_arguments(parser)
    parser.add_argument("--weights", type=options.optional_path, default=None)
    parser.add_argument("--index", type=options.optional_path, default=None)
    parser.add_argument("--f0-method", default="rmvpe")
    parser.add_argument("--index-rate", type=options.within(0, 1), default=None)
    parser.add_argument("--protect", type=options.within(0, 0.5), default=0.33, help="0.5: consonants unprotected")
    parser.add_argument("--volume-envelope", type=options.within(0, 1), default=None)
    parser.add_argument("--speaker", type=options.within(0, 10000, int), default=0)
    parser.add_argument("--embedder", default="", help="Applio: by default the one the voice was trained with")
    arguments = parser.parse_args(argv)
    options.resolve(parser, arguments, "input", "output")
    root = arguments.project_root
    kinds = [kind for kind in (Applio, RvcProject) if (root / kind.marker).is_file()]
    if len(kinds) != 1:
        old = " (its rewrite of 2026 is needed)" if (root / "infer/modules/vc/modules.py").is_file() else ""
        markers = f"{Applio.marker} nor {RvcProject.marker}"
        parser.error(f"--project-root {root} is neither Applio nor RVC-Project: it has neither {markers}{old}")
    if _project is None:
        _project = kinds[0](root)
    if _project.root != root:
        parser.error(f"this process has loaded {_project.root}, not {root}")
    if arguments.f0_method not in _project.f0_methods:
        parser.error(f"{_project.name} has no --f0-method {arguments.f0_method}, but {', '.join(_project.f0_methods)}")
    for name in ("index_rate", "volume_envelope"):
        if getattr(arguments, name) is None:
            setattr(arguments, name, getattr(_project, name))
    return arguments, _project


def find(project: Project, arguments: argparse.Namespace) -> Voice:
    """The files of the voice that is meant, all there. Raises ScriptError: 8, 9."""
    if arguments.weights:
        voice = Voice(arguments.weights, arguments.index)
    else:
        if not options.is_plain_name(arguments.model_id):
            raise ScriptError(script_io.UNKNOWN_MODEL, f"no voice is called {arguments.model_id!r}")
        voice = project.find(arguments.model_id)
        voice = Voice(voice.weights, arguments.index or voice.index)
    for path in (voice.weights, voice.index):
        if path and not foreign.is_filled(path):
            raise ScriptError(script_io.NO_WEIGHTS, f"{path} is missing or empty")
    return voice


def one_of(paths: list[Path], model_id: str) -> Path:
    if not paths:
        raise ScriptError(script_io.UNKNOWN_MODEL, f"there is no voice {model_id!r}")
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        raise ScriptError(script_io.UNKNOWN_MODEL, f"voice {model_id!r} has several weights, name one: {names}")
    return paths[0]


def newest(paths: Any) -> Path | None:
    """Of index files; what training left unfinished (`trained_*`) does not count."""
    whole = [path for path in paths if not path.name.startswith("trained_")]
    return max(whole, key=lambda path: (path.stat().st_mtime, path.name), default=None)


def convert(
    project: Project, voice: Voice, folder: Path, vocal: Float32, arguments: argparse.Namespace, progress: Progress
) -> tuple[Float32, int]:
    """The vocal, (n,) at 16 kHz, in that voice: (m,) at the rate of the model, and that rate."""
    import numpy as np
    import soundfile

    foreign.use_device(arguments.device)
    source = folder / "vocal.wav"
    soundfile.write(source, vocal, FEATURES_RATE, subtype="FLOAT")
    tell = foreign.share_of(progress, 0, 1)
    with foreign.inside(project.root, project.name, project.environment(voice)) as prints:
        with foreign.loading(str(voice.weights)):
            version = project.load(voice, arguments)
        tell(LOADED)
        index = usable_index(voice.index, version, folder) if arguments.index_rate > 0 else ""
        foreign.set_seed(arguments.seed)
        with told_of_parts(*project.parts(), len(vocal), tell, arguments.f0_method, project.usual_part):
            samples, rate = project.sing(source, index, folder, arguments)
        if index and any("reading the FAISS index" in line for line in prints):
            raise ScriptError(script_io.NO_WEIGHTS, f"{voice.index} could not be read")
    return np.asarray(samples, np.float32), int(rate)


@contextmanager
def told_of_parts(
    pipeline: Any,
    method: str,
    frames: int,
    tell: Callable[[float], None],
    f0_method: str,
    usual_part: Course,
) -> Iterator[None]:
    """Within the block `tell` hears that the melody was found, and of each part that was sung.

    Both projects cut a song of `frames` (16 kHz) where it is quiet, into parts of at most a minute, and sing each by
    one call of the pipeline's `method`, whose fourth argument is the part. Of a version that does not, nothing is told.
    A part takes half a minute on a CPU, and the melody of a song takes longer: calls.py tells from inside of both.
    """
    wrapped: dict[str, Any] = {}
    done = 0

    def melody(*positional: Any, **named: Any) -> Any:
        size, usual = courses.melody(f0_method, frames)
        with told_by_calls(f0_method, lambda share: tell(LOADED + (MELODY - LOADED) * share), size, usual):
            found = wrapped["get_f0"](*positional, **named)
        tell(MELODY)
        return found

    def part(*positional: Any, **named: Any) -> Any:
        nonlocal done
        samples = named.get("audio0", positional[3] if len(positional) > 3 else ())
        own = max(0, len(samples) - 2 * getattr(pipeline, "t_pad", 0))

        def within(share: float) -> None:
            tell(MELODY + (SUNG - MELODY) * min(1.0, (done + share * own) / max(1, frames)))

        with told_by_calls("part", within, usual=usual_part):
            sung = wrapped[method](*positional, **named)
        within(1)
        done += own
        return sung

    for name, own in (("get_f0", melody), (method, part)):
        if callable(official := getattr(pipeline, name, None)):
            wrapped[name] = official
            setattr(pipeline, name, own)
    try:
        yield
    finally:
        for name in wrapped:
            delattr(pipeline, name)  # The class's own is there again.


def usable_index(index: Path | None, version: str, folder: Path) -> str:
    """The path to give to the engine, of an index that fits. Both engines write `added` for each `trained` in a path
    and then go on without the file, so that it gets a plain name. Raises ScriptError (8)."""
    import faiss  # type: ignore[import-not-found]

    assert index is not None
    try:
        opened = faiss.read_index(str(index))
    except Exception as error:
        raise ScriptError(script_io.NO_WEIGHTS, f"{index} is no index: {error}") from error
    wanted = EMBEDDINGS.get(version, opened.d)
    if opened.d != wanted or opened.ntotal == 0:
        facts = f"{opened.ntotal} vectors of {opened.d} numbers, where the voice ({version}) has {wanted}"
        raise ScriptError(script_io.NO_WEIGHTS, f"{index} does not belong to these weights: {facts}")
    link = folder / "voice.index"
    if "trained" in str(link):
        raise ScriptError(script_io.BAD_ARGUMENTS, f"TMPDIR {folder.parent} must not have 'trained' in its name")
    os.symlink(index, link)
    return str(link)


if __name__ == "__main__":
    script_io.run(main)
