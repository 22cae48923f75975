"""A Piper voice (VITS) on onnxruntime, fed with phonemes, with noise that the caller's generator decides.

J. Kim, J. Kong, J. Son, "Conditional variational autoencoder with adversarial learning for end-to-end text-to-speech",
ICML 2021. The exported graphs draw their noise inside (RandomNormalLike), from a generator that cannot be set again
between two runs of one session. Here the graph is changed as it is loaded, so that noise is an input.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime

from ..world import Float32

DURATION_CHANNELS = 2
FLOW_CHANNELS = 192
FRAMES_PER_PHONEME = 24  # more than a phoneme has on average; the run is repeated with more noise where it was too few


class Piper:
    """model: the .onnx file, with its .onnx.json beside it. sample_rate in Hz. ValueError for another kind of graph."""

    def __init__(self, model: Path, threads: int = 2) -> None:
        config = json.loads(model.with_name(model.name + ".json").read_text(encoding="utf-8"))
        self.sample_rate = int(config["audio"]["sample_rate"])
        self._ids: dict[str, list[int]] = config["phoneme_id_map"]
        self._noise_scale = float(config["inference"]["noise_scale"])
        self._duration_noise_scale = float(config["inference"]["noise_w"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        # Waiting threads that spin take the cores from other processes.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        graph, names = _with_noise_inputs(model.read_bytes())
        if len(names) != 2:
            raise ValueError(f"{model.name}: {len(names)} sources of noise in the graph, 2 expected")
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def ids(self, phonemes: str) -> list[int]:
        """Symbols to ids, each followed by the blank 0, between the marks of start (1) and end (2)."""
        out = [1, 0]
        for symbol in phonemes:
            for number in self._ids.get(symbol, ()):
                out += [number, 0]
        return [*out, 2]

    def speak(self, phonemes: str, speed: float, rng: np.random.Generator, temperature: float) -> Float32:
        """float32 (n,). temperature 0.7 is the voice's own amount of noise, in sound and in durations."""
        ids = self.ids(phonemes)
        amount = temperature / 0.7
        scales = [self._noise_scale * amount, 1 / speed, self._duration_noise_scale * amount]
        inputs = {
            "input": np.asarray([ids], np.int64),
            "input_lengths": np.asarray([len(ids)], np.int64),
            "scales": np.asarray(scales, np.float32),
            "origin": np.zeros(3, np.int64),
            "noise_0": rng.standard_normal((1, DURATION_CHANNELS, len(ids)), np.float32),
        }
        # One row of frames after another, so that more frames do not change the noise of the first ones.
        state = rng.bit_generator.state
        frames = int(len(ids) * FRAMES_PER_PHONEME / min(speed, 1.0))
        for attempt in range(3):
            rng.bit_generator.state = state
            noise = rng.standard_normal((frames << attempt, FLOW_CHANNELS), np.float32)
            inputs["noise_1"] = np.ascontiguousarray(noise.T)[None]
            try:
                return self._session.run(None, inputs)[0].reshape(-1)
            except onnxruntime.capi.onnxruntime_pybind11_state.Fail:
                if attempt == 2:
                    raise
        raise AssertionError("unreachable")


def _with_noise_inputs(model: bytes) -> tuple[bytes, list[str]]:
    """An ONNX model whose RandomNormalLike nodes are replaced by slices of new inputs noise_0, noise_1, ...

    Works on the protobuf wire format (ModelProto.graph = 7; GraphProto.node = 1, input = 11; NodeProto.input = 1,
    output = 2, op_type = 4): the onnx package, 20 times the size of this module's job, is not needed to run a model.
    Slice(noise_i, starts=origin, ends=Shape(x)) has the shape that RandomNormalLike(x) had.
    """
    names: list[str] = []
    graph = next(value for number, _, value in _fields(model) if number == 7)
    out = bytearray()
    for number, raw, value in _fields(graph):
        node = list(_fields(value)) if number == 1 else []
        if not any(n == 4 and v == b"RandomNormalLike" for n, _, v in node):
            out += raw
            continue
        like = next(v for n, _, v in node if n == 1)
        result = next(v for n, _, v in node if n == 2)
        name = f"noise_{len(names)}"
        shape = f"{name}_shape".encode()
        out += _field(1, _field(1, like) + _field(2, shape) + _field(4, b"Shape"))
        slice_inputs = b"".join(_field(1, item) for item in (name.encode(), b"origin", shape))
        out += _field(1, slice_inputs + _field(2, result) + _field(4, b"Slice"))
        names.append(name)
    for name, element_type, rank in [(n, 1, 3) for n in names] + [("origin", 7, 1)]:
        dimensions = _field(2, _field(1, b"") * rank)
        tensor_type = _field(1, bytes([0x08, element_type]) + dimensions)
        out += _field(11, _field(1, name.encode()) + _field(2, tensor_type))
    rest = b"".join(raw for number, raw, _ in _fields(model) if number != 7)
    return rest + _field(7, bytes(out)), names


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """The fields of a protobuf message: number, whole encoding, content (empty for numbers)."""
    position = 0
    while position < len(message):
        start = position
        key, position = _varint(message, position)
        content = b""
        if key & 7 == 0:
            _, position = _varint(message, position)
        elif key & 7 == 2:
            size, position = _varint(message, position)
            content = message[position : position + size]
            position += size
        elif key & 7 in (1, 5):
            position += 8 if key & 7 == 1 else 4
        else:
            raise ValueError("not a protobuf message")
        yield key >> 3, message[start:position], content


def _field(number: int, content: bytes) -> bytes:
    return _encode_varint(number << 3 | 2) + _encode_varint(len(content)) + content


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
