"""The arguments that several scripts take, and their types."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAX_SEMITONES = 24


def boolean(text: str) -> bool:
    """The type of `--is-half true`. Raises ValueError, which argparse reports."""
    if text.lower() not in {"true", "false", "1", "0", "yes", "no"}:
        raise ValueError(text)
    return text.lower() in {"true", "1", "yes"}


def within(low: float, high: float, kind: type = float) -> Callable[[str], Any]:
    """The type of a number between two bounds, `low` and `high` included; kind: int or float."""

    def parse(text: str) -> Any:
        number = kind(text)
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {high:g}")
        return number

    return parse


def is_plain_name(text: str, longest: int = 128) -> bool:
    """Whether a model's name from outside can be part of a path: no separators, no dot first, nothing unprintable."""
    return re.fullmatch(r"[^/\\.\x00-\x1f][^/\\\x00-\x1f]*", text) is not None and len(text) <= longest


def optional_path(text: str) -> Path | None:
    """The type of a path that counts as not given where it is empty, as a template's placeholder may be."""
    return Path(text).resolve() if text.strip() else None


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--project-root", type=Path, required=True, help="the engine's own folder")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu; what is not there is an error")
    parser.add_argument("--is-half", type=boolean, default=True, help="16-bit floats on the GPU, where the engine can")
    parser.add_argument("--seed", type=within(0, 2**32 - 1, int), default=0)


def add_infer_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that every engine which sings a vocal in another voice is called with."""
    add_engine_arguments(parser)
    parser.add_argument("--reference", type=optional_path, default=None)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model-id", default="")
    pitch = within(-MAX_SEMITONES, MAX_SEMITONES, int)
    parser.add_argument("--pitch", type=pitch, required=True, help="semitones, a whole number from -24 to 24")


def batch(text: str) -> int:
    """The type of `--batch auto|N`; 0 is auto."""
    return 0 if text == "auto" else int(within(1, 128, int)(text))


def add_training_arguments(parser: argparse.ArgumentParser, dataset: str, holdout: int, most: int, seed: int) -> None:
    """Of both scripts that train. dataset: what it is; holdout, seed: defaults; most: of the held-out clips."""
    parser.add_argument("--project-root", type=Path, required=True, help="the engine's own folder")
    parser.add_argument("--dataset", type=Path, required=True, help=dataset)
    parser.add_argument("--work", type=Path, required=True, help="scratch, with what is needed to go on")
    parser.add_argument("--output", type=Path, required=True, help="the folder that appears")
    parser.add_argument("--model-id", required=True)
    parser.add_argument("--batch", type=batch, default=0, help="auto, or 1 to 128")
    parser.add_argument("--max-seconds", type=within(3, 30), default=15.0, help="of a clip")
    parser.add_argument("--holdout", type=within(0, most, int), default=holdout, help="clips to choose by")
    parser.add_argument("--until", choices=("check", "prepare", "train", "select", "publish"), default="publish")
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:N or cpu")
    parser.add_argument("--is-half", type=boolean, nargs="?", const=True, default=True)
    parser.add_argument("--seed", type=within(0, 2**31 - 1, int), default=seed)
    parser.add_argument("--threads", type=within(1, 64, int), default=2)
    parser.add_argument("--stall-seconds", type=within(1, 86400), default=0.0, help="of no word, until it is ended")


def check_training(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Of the scripts that train: a plain --model-id, and folders that are not in each other's way, made absolute."""
    if not is_plain_name(arguments.model_id):
        parser.error("--model-id must be a plain name")
    for name in ("project_root", "dataset", "work", "output"):
        setattr(arguments, name, Path(os.path.abspath(getattr(arguments, name))))
    places = {arguments.work, arguments.output}
    if len(places) < 2 or arguments.work in arguments.output.parents or arguments.output in arguments.work.parents:
        parser.error("--work and --output must not lie in each other")
    if arguments.project_root in places:
        parser.error("--work and --output must be other folders than --project-root")


def add_separate_arguments(parser: argparse.ArgumentParser) -> None:
    """A song, and where its two parts go."""
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--vocal", type=Path, required=True)
    parser.add_argument("--inst", type=Path, required=True)


def check_output(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """--output may not be one of the files that are read; both of these may be one and the same."""
    if arguments.output.resolve() in {arguments.input.resolve(), arguments.reference.resolve()}:
        parser.error("--output must be another file than --input and --reference")


def absolute(parser: argparse.ArgumentParser, arguments: argparse.Namespace, *names: str) -> None:
    """Makes paths absolute, because engines want to be run in their own folder, and checks that they differ."""
    for name in names:
        setattr(arguments, name, getattr(arguments, name).resolve())
    if len({getattr(arguments, name) for name in names}) < len(names):
        parser.error(f"{', '.join('--' + name for name in names)} must be different files")


def resolve(parser: argparse.ArgumentParser, arguments: argparse.Namespace, *names: str) -> None:
    """`absolute` for an engine's script, whose --project-root has to be a folder."""
    arguments.project_root = arguments.project_root.resolve()
    if not arguments.project_root.is_dir():
        parser.error(f"--project-root {arguments.project_root} is not a folder")
    absolute(parser, arguments, *names)
