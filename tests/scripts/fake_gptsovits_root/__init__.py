"""A GPT-SoVITS project root whose `TTS.run` speaks without its models, and whose separators separate.

`build(folder)` lays it out with the official module paths and signatures, weights files, weight.json, configurations
and a `torch` that has no tensors. The modules there are thin and get what they hold from here; only this folder's
Python needs the repository. What is odd about the original was read in its code at 48b1a0169 and is kept: the working
folder captured at import; the configuration rewritten at each switch; a missing path or GPU replaced without an error;
a reference kept by its path, whatever weights it was computed with, and its text by its letters, whatever language; a
failure that yields a second of silence, loads both models again and only then raises; 16-bit samples that wrap round;
prints of the text everywhere; spectra of the VR separators with a bin that nobody writes, so that what lay in memory is
heard.

It speaks with the built-in engine's English base voice, as loud as the reference, in the voice of the SoVITS weights
that the reference was computed with: {"voice": "heart"|"joe", "pitch": how much higher}. A seed gives the same audio.
Its separators take what is equal in both channels for the voice.

`set_mood(folder, ...)`, or FAKE_GPTSOVITS_MOOD in the environment (JSON, which wins), tells what goes wrong; it is
looked at again in each call:

    cuda: false             torch finds no GPU
    run: "oom" | "raise" | "raise_base" | "raise_trained" (with those weights alone) |
         "cuda_error" | "silence" | "hang" (until the mood changes)
    reload: "oom"           loading the models again after such a failure fails too
    load: "oom"             loading weights fails
    tone: true              it hums as long as its text instead of speaking, which needs nothing to be loaded
    load_seconds, run_seconds: how long loading weights and speaking take at least
    separate: "oom" | "raise" | "nothing" | "nan" | "mixed"
    onnx: "cpu"             onnxruntime has no CUDA

`calls(folder)` lists what was done: dicts with `event` (`load_gpt`, `load_sovits`, `reference`, `run`, `separator`,
`separate`) and its facts.
"""

from typing import TYPE_CHECKING, Any

from .state import calls, clear_calls, set_mood

if TYPE_CHECKING:
    from .layout import UVR_MODELS, add_trained, add_training, build, write_gpt, write_sovits

__all__ = [
    "UVR_MODELS",
    "add_trained",
    "add_training",
    "build",
    "calls",
    "clear_calls",
    "set_mood",
    "write_gpt",
    "write_sovits",
]


def __getattr__(name: str) -> Any:
    """What lays a root out is loaded by the tests that do so, not by each of the root's processes."""
    if name in __all__:
        from . import layout

        return getattr(layout, name)
    raise AttributeError(name)
