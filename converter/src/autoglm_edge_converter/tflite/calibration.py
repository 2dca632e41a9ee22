"""What values the tensors of a TFLite file take on the calibration samples, seen once and turned into ranges later."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from autoglm_edge_converter.ranges import Activation
from autoglm_edge_converter.tensors import Feed
from autoglm_edge_converter.tflite.nodes import Prepared


def observe(prepared: Prepared, feeds: Sequence[Feed], seen: Callable[[], None]) -> dict[int, Activation]:
    """Run a float file over the calibration samples and note the values of its float tensors, by index.

    `seen` is called after each sample. What a stateful file remembers is forgotten between samples. Errors of the
    runtime pass through.
    """
    # Without XNNPACK, which fuses operators and leaves nothing between them to be seen.
    interpreter = Interpreter(
        model_content=prepared.data,
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    wanted = prepared.floats(_touched(prepared))
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
            found.setdefault(index, Activation(values.shape)).see(values, None)
        seen()
    return {index: activation for index, activation in found.items() if activation.kept}


def _touched(prepared: Prepared) -> Iterable[int]:
    graph = prepared.graph
    tensors = [*graph.inputs, *(index for entry in graph.operations for index in (*entry.inputs, *entry.outputs))]
    return dict.fromkeys(index for index in tensors if index >= 0)
