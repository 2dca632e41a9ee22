"""TFLite files, by LiteRT's interpreter on the CPU, with its XNNPACK kernels as it uses them by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import OpResolverType

from autoglm_edge_converter.tensors import Array, Feed
from autoglm_edge_converter.tflite.interpreters import open_interpreter

_greeted = False

_INTEGERS = (np.dtype(np.int8), np.dtype(np.uint8))


class TfliteRunner:
    """A loaded file. Each run is by itself: what a stateful model remembers is forgotten before the next."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        names = _signature_names(interpreter)
        self._inputs = {names.get(_identity(item), str(item["name"])): item for item in interpreter.get_input_details()}
        self._outputs = list(interpreter.get_output_details())
        self._shapes = {name: tuple(int(size) for size in item["shape"]) for name, item in self._inputs.items()}
        self._allocated = False

    def run(self, feed: Feed) -> Sequence[Array]:
        """See `Runner.run`. Inputs are resized to what is fed.

        A file whose inputs are quantized takes their integers or real numbers, float32; its quantized outputs are
        given as what was fed: integers, or the real numbers that they stand for.
        Raises ValueError for a name or dtype that the model does not have; errors of the runtime pass through.
        """
        arrays = {name: self._checked(name, array) for name, array in feed.items()}
        as_real = any(arrays[name].dtype != array.dtype for name, array in feed.items())
        missing = sorted(set(self._inputs) - set(arrays))
        if missing:
            raise ValueError(f"no value for input {missing[0]!r}")
        self._resize(arrays)
        self._interpreter.reset_all_variables()
        for name, array in arrays.items():
            self._interpreter.set_tensor(self._inputs[name]["index"], array)
        self._interpreter.invoke()
        return [self._answer(item, as_real) for item in self._outputs]

    def _answer(self, item: dict[str, Any], as_real: bool) -> Array:
        found: Array = self._interpreter.get_tensor(int(item["index"]))
        scale, zero_point = item["quantization"]
        if not as_real or not scale:
            return found
        real: Array = (found.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
        return real

    def _checked(self, name: str, array: Array) -> Array:
        if name not in self._inputs:
            raise ValueError(f"the model has no input {name!r}, its inputs are: {', '.join(self._inputs)}")
        wanted = np.dtype(self._inputs[name]["dtype"])
        scale, zero_point = self._inputs[name]["quantization"]
        if array.dtype == np.float32 and wanted in _INTEGERS and scale:
            ends = np.iinfo(wanted)
            rounded = np.round(array / np.float32(scale)) + zero_point
            array = np.clip(rounded, ends.min, ends.max).astype(wanted)
        if array.dtype != wanted and not (wanted.kind in "SO" and array.dtype.kind in "SUO"):
            raise ValueError(f"input {name!r} takes {wanted.name}, not {array.dtype.name}")
        return array

    def _resize(self, arrays: Feed) -> None:
        for name, array in arrays.items():
            if array.shape != self._shapes[name]:
                self._interpreter.resize_tensor_input(self._inputs[name]["index"], array.shape)
                self._shapes[name] = array.shape
                self._allocated = False
        if not self._allocated:
            with _without_greeting():
                self._interpreter.allocate_tensors()
            self._allocated = True


@contextmanager
def _without_greeting() -> Iterator[None]:
    """Keep the line off a user's screen that LiteRT writes, past Python, when a process first uses XNNPACK."""
    global _greeted  # noqa: PLW0603  # the line comes once a process, and so does this
    if _greeted:
        yield
        return
    _greeted = True
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def open_tflite(path: Path, threads: int = 1, *, xnnpack: bool = True) -> TfliteRunner:
    """Open a file, with LiteRT's built-in kernels alone where XNNPACK is not wanted.

    Errors of the runtime pass through: ValueError, RuntimeError.
    """
    resolver = OpResolverType.AUTO if xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = open_interpreter(model_path=str(path), num_threads=threads, experimental_op_resolver_type=resolver)
    return TfliteRunner(interpreter)


def delegated(path: Path) -> bool:
    """Tell whether XNNPACK takes any operator of a file. Errors of the runtime pass through."""
    interpreter = open_interpreter(model_path=str(path))
    with _without_greeting():
        interpreter.allocate_tensors()
    return any(entry["op_name"] == "DELEGATE" for entry in interpreter._get_ops_details())


def _signature_names(interpreter: Any) -> dict[tuple[int, str], str]:
    """Return what the first signature of the graph that is run calls its inputs."""
    inputs = {_identity(item) for item in interpreter.get_input_details()}
    for key in interpreter.get_signature_list():
        named = interpreter.get_signature_runner(key).get_input_details()
        names = {_identity(item): str(name) for name, item in named.items()}
        if set(names) == inputs:
            return names
    return {}


def _identity(tensor: dict[str, Any]) -> tuple[int, str]:
    return int(tensor["index"]), str(tensor["name"])
