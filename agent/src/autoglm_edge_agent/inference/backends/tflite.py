"""TFLite files, by the `Interpreter` that LiteRT and tflite-runtime have alike, with delegates as providers.

A file whose inputs are integers with a scale takes the real numbers that the manifest promises: they are quantized with
the file's own scale and zero point, and its outputs come back as what the manifest says.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.machinery
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autoglm_edge_agent.client.datatypes import DATATYPES
from autoglm_edge_agent.inference.backends import Session
from autoglm_edge_agent.inference.conversion import dequantized, quantized
from autoglm_edge_agent.inference.errors import ModelUnusable
from autoglm_edge_agent.inference.options import SessionOptions
from autoglm_edge_protocol.manifest import TensorSpec

Array = npt.NDArray[Any]

XNNPACK = "xnnpack"
CPU = "cpu"
"""The built-in kernels alone."""
LIBRARY = "library"
"""Among the options of a delegate: its library. A provider of any other name is an external delegate that has one."""
DELEGATES = {"edgetpu": "edgetpu", "gpu": "tensorflowlite_gpu_delegate"}
"""Providers that are delegates in a shared library, and the library's name."""
DELEGATED = "DELEGATE"
"""The operator that stands in the graph for the nodes that a delegate took."""


class TfliteSession:
    """A model loaded by an interpreter; inputs are resized to what is given."""

    def __init__(
        self, interpreter: Any, provider: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> None:
        self._interpreter = interpreter
        self._provider = provider
        self._inputs = _in_order(interpreter.get_input_details(), inputs, _names(interpreter, "inputs"))
        self._outputs = _in_order(interpreter.get_output_details(), outputs, _names(interpreter, "outputs"))
        self._datatypes = [DATATYPES.get(spec.datatype) for spec in outputs]
        self._shapes = [tuple(int(size) for size in item["shape"]) for item in self._inputs]
        interpreter.allocate_tensors()

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """See `Session.run`."""
        try:
            if len(inputs) != len(self._inputs):
                raise ValueError(f"{len(inputs)} inputs instead of {len(self._inputs)}")
            self._resize(inputs)
            for item, array in zip(self._inputs, inputs, strict=True):
                self._interpreter.set_tensor(item["index"], _as_stored(item, array))
            self._interpreter.invoke()
            answers = zip(self._outputs, self._datatypes, strict=True)
            return [self._answer(item, datatype) for item, datatype in answers]
        except RuntimeError as error:
            raise ValueError(str(error)[:500]) from None

    def reset(self) -> None:
        """See `Session.reset`."""
        self._interpreter.reset_all_variables()

    def placement(self) -> Mapping[str, int]:
        """See `Session.placement`."""
        listed = getattr(self._interpreter, "_get_ops_details", None)
        if listed is None:
            return {}
        operators = [entry for entry in listed() if entry["op_name"] != DELEGATED]
        left = _left_on_the_cpu(listed(), [item["index"] for item in self._outputs])
        counts = {self._provider: len(operators) - left, CPU: left}
        if self._provider == CPU:
            counts = {CPU: len(operators)}
        return {name: count for name, count in counts.items() if count}

    def _answer(self, item: dict[str, Any], datatype: type[np.generic] | None) -> Array:
        found: Array = self._interpreter.get_tensor(item["index"])
        scale, zero_point = item["quantization"]
        if scale and datatype is not None and np.issubdtype(datatype, np.floating) and found.dtype.kind in "iu":
            return dequantized(found, scale, zero_point, datatype)
        return found

    def _resize(self, inputs: Sequence[Array]) -> None:
        shapes = [array.shape for array in inputs]
        if shapes == self._shapes:
            return
        for item, shape in zip(self._inputs, shapes, strict=True):
            self._interpreter.resize_tensor_input(item["index"], shape)
        self._shapes = []  # where the model refuses these, the next ones are told again, whatever they are
        self._interpreter.allocate_tensors()
        self._shapes = shapes


def _left_on_the_cpu(operators: Sequence[dict[str, Any]], outputs: Sequence[int]) -> int:
    """Return how many operators run beside a delegate: those that an output is still reached through.

    What a delegate took stays in the list, before the node that stands for it and that makes the same tensors.
    """
    made_by = {int(tensor): entry for entry in operators for tensor in entry["outputs"]}
    seen: set[int] = set()
    left, waiting = 0, [int(tensor) for tensor in outputs]
    while waiting:
        entry = made_by.get(waiting.pop())
        if entry is None or int(entry["index"]) in seen:
            continue
        seen.add(int(entry["index"]))
        left += entry["op_name"] != DELEGATED
        waiting += [int(tensor) for tensor in entry["inputs"]]
    return left


def _as_stored(item: dict[str, Any], array: Array) -> Array:
    wanted = np.dtype(item["dtype"])
    scale, zero_point = item["quantization"]
    if scale and array.dtype.kind == "f" and wanted.kind in "iu":
        return quantized(array, scale, zero_point, wanted)
    if array.dtype != wanted and not (wanted.kind in "SO" and array.dtype.kind in "SUO"):
        raise ValueError(f"input {item['name']!r} takes {wanted.name}, not {array.dtype.name}")
    return array


@dataclass(frozen=True)
class Interpreters:
    """What the two packages give alike."""

    package: str
    interpreter: Any
    with_custom_ops: Any
    resolvers: Any
    load_delegate: Any

    def open(
        self, path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], options: SessionOptions
    ) -> Session:
        """Load a model file. Raises ModelUnusable."""
        provider = options.provider or XNNPACK
        try:
            with _quiet():
                interpreter = self._interpreter(path, provider, options)
                session = TfliteSession(interpreter, provider, inputs, outputs)
        except ModelUnusable:
            raise
        except Exception as error:
            text = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelUnusable(f"{self.package} cannot load it: {text[:500]}") from None
        _check(session, provider, options.strict)
        return session

    def providers(self) -> tuple[str, ...]:
        """Return the delegates whose libraries are here, beside the two that are always there."""
        return (XNNPACK, CPU, *(name for name, library in DELEGATES.items() if ctypes.util.find_library(library)))

    def _interpreter(self, path: Path, provider: str, options: SessionOptions) -> Any:
        resolver = self.resolvers.AUTO if provider == XNNPACK else self.resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        more: dict[str, Any] = {}
        if provider not in (XNNPACK, CPU):
            more["experimental_delegates"] = [self._delegate(provider, options)]
        kind = self.interpreter
        if options.custom_ops:
            kind = self.with_custom_ops
            more["custom_op_registerers"] = [
                _registerer(library, function)
                for library, function in zip(options.custom_ops, options.registerers, strict=True)
            ]
        return kind(model_path=str(path), num_threads=options.threads, experimental_op_resolver_type=resolver, **more)

    def _delegate(self, provider: str, options: SessionOptions) -> Any:
        settings = dict(options.provider_options)
        library = settings.pop(LIBRARY, None)
        if library is None and provider in DELEGATES:
            library = ctypes.util.find_library(DELEGATES[provider])
        if library is None:
            raise ModelUnusable(f"no library of the delegate {provider}: install it, or name it as its {LIBRARY!r}")
        return self.load_delegate(library, settings)


def _check(session: TfliteSession, provider: str, strict: bool) -> None:
    placed = session.placement()
    if provider == CPU or not placed:
        return
    if provider != XNNPACK and provider not in placed:
        raise ModelUnusable(f"the delegate {provider} takes no node of it: it would run on the CPU")
    if strict and placed.get(CPU):
        raise ModelUnusable(f"{placed[CPU]} nodes would run on the CPU and not on {provider}")


def _names(interpreter: Any, side: str) -> dict[int, str]:
    """Return what the first signature calls the tensors, by index."""
    for key in list(interpreter.get_signature_list())[:1]:
        runner = interpreter.get_signature_runner(key)
        details = runner.get_input_details() if side == "inputs" else runner.get_output_details()
        return {int(item["index"]): str(name) for name, item in details.items()}
    return {}


def _in_order(
    details: Sequence[dict[str, Any]], specs: Sequence[TensorSpec], names: Mapping[int, str]
) -> list[dict[str, Any]]:
    by_name = {str(item["name"]): item for item in details}
    by_name |= {names[int(item["index"])]: item for item in details if int(item["index"]) in names}
    if missing := [spec.name for spec in specs if spec.name not in by_name]:
        raise ModelUnusable(f"the manifest names {missing[0]!r}, which the model does not have")
    return [by_name[spec.name] for spec in specs]


def _registerer(library: Path, function: str) -> Any:
    """Load a library of custom operators; returns its function as the interpreter takes it."""
    stem = library.name.partition(".")[0]
    loaded = ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    if hasattr(loaded, f"PyInit_{stem}"):
        loader = importlib.machinery.ExtensionFileLoader(stem, str(library))
        spec = importlib.util.spec_from_file_location(stem, library, loader=loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
        return getattr(module, function)
    getattr(loaded, function)  # a name that the library does not have is found here, not by the interpreter
    return function


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep LiteRT's greeting out of the agent's log, which it writes past Python."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
