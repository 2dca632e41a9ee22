"""Dense networks without a runtime: `w0`, `b0`, `w1`, `b1`, ... in one npz, with ReLU between the layers.

The smallest whole backend: it loads a file, runs it, and says what it calculated on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autoglm_edge_agent.inference.backends import Backend
from autoglm_edge_agent.inference.errors import ModelUnusable
from autoglm_edge_agent.inference.options import SessionOptions
from autoglm_edge_protocol.manifest import TensorSpec

Array = npt.NDArray[Any]


class DenseNetwork:
    """One input [N, in], one output [N, out], FP32."""

    def __init__(self, layers: Sequence[tuple[Array, Array]]) -> None:
        self._layers = layers

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Calculate. Raises ValueError for an input of another width or dtype."""
        (value,) = inputs
        if value.dtype != np.float32:
            raise ValueError(f"the input is {value.dtype}, not float32")
        for number, (weights, bias) in enumerate(self._layers):
            value = (np.maximum(value, 0) if number else value) @ weights + bias
        return [value]

    def reset(self) -> None:
        """Do nothing: such a network has no memory."""

    def placement(self) -> Mapping[str, int]:
        """Say that everything runs on the processor."""
        return {"cpu": len(self._layers)}


def open_dense(
    path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], options: SessionOptions
) -> DenseNetwork:
    """Load a file. Raises ModelUnusable."""
    if options.provider not in ("", "cpu"):
        raise ModelUnusable(f"numpy has no {options.provider}")
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelUnusable("a dense network has one input and one output")
    try:
        with np.load(path, allow_pickle=False) as file:
            layers = [(file[f"w{n}"], file[f"b{n}"]) for n in range(len(file.files) // 2)]
    except (OSError, ValueError, KeyError) as error:
        raise ModelUnusable(f"{path.name} holds no dense network: {error}") from None
    return DenseNetwork(layers)


BACKEND = Backend(open_dense, lambda: ("cpu",))
