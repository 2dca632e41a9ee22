"""Backends: one module per runtime behind one small port, chosen by a plain dict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from autoglm_edge_agent.inference.backends.onnxruntime import open_onnxruntime

Array = npt.NDArray[Any]


class Session(Protocol):
    """A loaded model."""

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Run once: arrays in the order of the model's inputs give arrays in the order of its outputs.

        Raises ValueError when the runtime does not take the inputs. Called from one thread at a time.
        """


Open = Callable[[Path, Sequence[str], Sequence[str], int, Sequence[Path]], Session]
"""Loads a model file: (path, input names, output names, threads, custom operator libraries). Raises ModelUnusable."""

BACKENDS: dict[str, Open] = {"onnxruntime": open_onnxruntime}
"""By runtime."""

DATATYPES: dict[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
"""Names of the Open Inference Protocol and what they are in memory; BYTES (text) is an array of Python objects."""
