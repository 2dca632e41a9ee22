"""What values the tensors of a TFLite file take on the calibration samples, seen once and turned into ranges later."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from ai_edge_litert.interpreter import OpResolverType

from autoglm_edge_converter.ranges import RANGES, Activation, Range, own_noise
from autoglm_edge_converter.recipes import Recipe, Tuned
from autoglm_edge_converter.tensors import Feed
from autoglm_edge_converter.tflite.interpreters import open_interpreter
from autoglm_edge_converter.tflite.nodes import Prepared, multiplications, prepare, quantized_operations
from autoglm_edge_protocol.digests import sha256_of


@dataclass(frozen=True)
class Calibrated:
    """A float file made ready and what was seen in it."""

    prepared: Prepared
    observation: Mapping[int, Activation]
    """By tensor of the prepared file."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file and of the names in it."""
        return sha256_of(self.prepared.data + repr(self.prepared.names).encode())

    def work(self) -> dict[str, float]:
        """Return the multiplications of each node on the first calibration sample's shapes."""
        shapes = {index: activation.shape for index, activation in self.observation.items()}
        return {node.name: multiplications(self.prepared, node, shapes) for node in self.prepared.nodes}

    def rounded(self, recipe: Recipe) -> tuple[str, ...]:
        """Return the tensors that a whole candidate rounds, those that lose most of their own signal by it first."""
        everything = [node.name for node in self.prepared.nodes]
        operations = quantized_operations(
            self.prepared, everything, followers=recipe.followers, everything=recipe.everything
        )
        touched = dict.fromkeys(index for entry in operations for index in (*entry.inputs, *entry.outputs))
        noises = {
            index: own_noise(self.observation[index], recipe.ranges) for index in touched if index in self.observation
        }
        return tuple(self.prepared.names[index] for index in sorted(noises, key=lambda index: -noises[index]))

    def ranges(self, name: str, tuned: Sequence[Tuned] = ()) -> dict[int, Range]:
        """Return the range of each tensor by a key of `ranges.RANGES`, ends scaled where they were tuned."""
        if name not in self._ranges:
            self._ranges[name] = {index: RANGES[name](seen) for index, seen in self.observation.items()}
        factors = {entry.tensor: entry for entry in tuned}
        found = dict(self._ranges[name])
        for index, (low, high) in self._ranges[name].items():
            entry = factors.get(self.prepared.names[index])
            if entry is not None:
                found[index] = (low * entry.low, high * entry.high)
        return found

    @cached_property
    def _ranges(self) -> dict[str, dict[int, Range]]:
        return {}


def calibrate(data: bytes, feeds: Sequence[Feed], seen: Callable[[], None]) -> Calibrated:
    """Make a float file ready and run it over the calibration samples; `seen` is called after each.

    Raises NotAModel; errors of the runtime pass through.
    """
    prepared = prepare(data)
    return Calibrated(prepared, observe(prepared, feeds, seen))


def observe(prepared: Prepared, feeds: Sequence[Feed], seen: Callable[[], None]) -> dict[int, Activation]:
    """Run a float file over the calibration samples and note the values of its float tensors, by index.

    `seen` is called after each sample. What a stateful file remembers is forgotten between samples. Errors of the
    runtime pass through.
    """
    # Without XNNPACK, which fuses operators and leaves nothing between them to be seen.
    interpreter = open_interpreter(
        model_content=prepared.data,
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    wanted = prepared.floats(_touched(prepared))
    channel_axes = {node.data: -1 for node in prepared.nodes}
    found: dict[int, Activation] = {}
    for feed in feeds:
        for name, index in zip(prepared.inputs, prepared.graph.inputs, strict=True):
            interpreter.resize_tensor_input(index, np.shape(feed[name]))
        interpreter.allocate_tensors()
        interpreter.reset_all_variables()
        for name, index in zip(prepared.inputs, prepared.graph.inputs, strict=True):
            interpreter.set_tensor(index, np.asarray(feed[name]))
        interpreter.invoke()
        for index in wanted:
            values = interpreter.get_tensor(index)
            found.setdefault(index, Activation(values.shape)).see(values, channel_axes.get(index))
        seen()
    return {index: activation for index, activation in found.items() if activation.kept}


def _touched(prepared: Prepared) -> Iterable[int]:
    graph = prepared.graph
    tensors = [*graph.inputs, *(index for entry in graph.operations for index in (*entry.inputs, *entry.outputs))]
    return dict.fromkeys(index for index in tensors if index >= 0)
