"""Operators of TensorFlow that tf2onnx does not know, in operators of ONNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx


def _erfc(context: Any, node: Any, name: str, arguments: Sequence[Any]) -> None:
    """Write `1 - Erf(x)`: TensorFlow 2.21's `tf.nn.gelu` computes with Erfc, which ONNX lacks."""
    shapes, dtypes = [context.get_shape(node.output[0])], [context.get_dtype(node.output[0])]
    one = np.array(1, onnx.helper.tensor_dtype_to_np_dtype(dtypes[0]))
    context.remove_node(name)
    erf = context.make_node("Erf", list(node.input), name=f"{name}_erf", shapes=shapes, dtypes=dtypes)
    terms = [context.make_const(f"{name}_one", one).output[0], erf.output[0]]
    context.make_node("Sub", terms, name=name, outputs=list(node.output), shapes=shapes, dtypes=dtypes)


HANDLERS: Mapping[str, tuple[Callable[[Any, Any, str, Sequence[Any]], None], Sequence[Any]]] = {"Erfc": (_erfc, [])}
"""As `custom_op_handlers` of tf2onnx takes them, by operator."""
