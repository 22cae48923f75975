"""What the training scripts need of torch, with numpy inside."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np


class Tensor:
    def __init__(self, array: Any) -> None:
        self.array = np.asarray(array, np.float32)

    def unsqueeze(self, dim: int) -> Tensor:
        return Tensor(np.expand_dims(self.array, dim))

    def mean(self, dim: int, keepdim: bool = False) -> Tensor:
        return Tensor(self.array.mean(axis=dim, keepdims=keepdim))

    def __sub__(self, other: Tensor) -> Tensor:
        return Tensor(self.array - other.array)

    def __getitem__(self, key: Any) -> Tensor:
        return Tensor(self.array[key])

    def to(self, device: str) -> Tensor:
        return self

    def half(self) -> Tensor:
        return Tensor(self.array.astype(np.float16))

    def float(self) -> Tensor:
        return self

    cpu = float

    def all(self) -> bool:
        return bool(self.array.all())

    def tolist(self) -> list[Any]:
        return list(self.array.tolist())


from_numpy = Tensor


class no_grad:
    def __enter__(self) -> None: ...

    def __exit__(self, *problem: object) -> None: ...


def isfinite(tensor: Tensor) -> Tensor:
    return Tensor(np.isfinite(tensor.array))


def equal(one: Tensor, other: Tensor) -> bool:
    return bool(np.array_equal(one.array, other.array))


def load(source: Any, map_location: str = "cpu", weights_only: bool = True) -> Any:
    """The JSON behind the two bytes that tell a version; whatever is a number there is a weight."""
    content = source.read() if isinstance(source, io.BytesIO) else Path(source).read_bytes()
    if content[:2] != b"PK":
        raise RuntimeError("PytorchStreamReader failed reading zip archive: failed finding central directory")
    found = json.loads(content[2:] or b"{}")
    numbers = {name: Tensor([float(value)]) for name, value in found.items() if isinstance(value, int | float)}
    return {"weight": numbers, **found}


class Embedding:
    """ERes2NetV2 as far as it is asked: another pitch is another speaker."""

    def __init__(self, baseWidth: int, scale: int, expansion: int) -> None:
        assert (baseWidth, scale, expansion) == (24, 4, 4)

    def load_state_dict(self, state: Any) -> None: ...

    def eval(self) -> Embedding:
        return self

    def to(self, device: str) -> Embedding:
        return self

    def __call__(self, features: Tensor) -> Tensor:
        place = 24 * np.log2(pitch(features.array.ravel(), 16000) / 50)  # twelfths of an octave, halved
        return Tensor(np.exp(-0.5 * ((np.arange(192) - place) / 3) ** 2)[None])


def fbank(wave: Tensor, num_mel_bins: int, sample_frequency: int, dither: float) -> Tensor:
    assert (num_mel_bins, sample_frequency, dither) == (80, 16000, 0)
    return Tensor(wave.array.reshape(-1, 1))


def pitch(samples: Any, rate: int) -> float:
    """Of a voice between 80 and 400 Hz: where its autocorrelation is greatest, the median of its loud frames."""
    size = rate // 10
    frames = np.asarray(samples[: len(samples) // size * size], np.float64).reshape(-1, size)
    loud = frames[np.std(frames, axis=1) > 0.3 * np.std(frames, axis=1).max()]
    likeness = np.fft.irfft(np.abs(np.fft.rfft(loud - loud.mean(axis=1, keepdims=True), 2 * size)) ** 2)
    low, high = rate // 400, rate // 80
    return float(rate / (low + np.median(np.argmax(likeness[:, low : high + 1], axis=1))))


class nn:
    class modules:
        class module:
            hooks: ClassVar[list[Any]] = []

            @classmethod
            def register_module_forward_hook(cls, hook: Any) -> Any:
                cls.hooks.append(hook)
                return Handle(hook)


class Handle:
    def __init__(self, hook: Any) -> None:
        self.hook = hook

    def remove(self) -> None:
        nn.modules.module.hooks.remove(self.hook)


def network(calls: int) -> None:
    """What networks do that make so many calls of modules."""
    for _ in range(calls):
        for hook in nn.modules.module.hooks:
            hook(None, (), None)
