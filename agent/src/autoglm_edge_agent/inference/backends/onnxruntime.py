"""ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from autoglm_edge_agent.inference.errors import ModelUnusable


class OnnxSession:
    """A model loaded by ONNX Runtime on the CPU provider."""

    def __init__(self, session: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self._session = session
        self._inputs = list(inputs)
        self._outputs = list(outputs)

    def run(self, inputs: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """See `Session.run`."""
        try:
            result: list[npt.NDArray[Any]] = self._session.run(
                self._outputs, dict(zip(self._inputs, inputs, strict=True))
            )
        except Exception as error:
            # onnxruntime has no useful hierarchy of errors: what is raised here speaks of these inputs.
            raise ValueError(_first_line(error)) from None
        if not all(isinstance(output, np.ndarray) for output in result):
            raise ValueError("an output is no tensor")
        return result


def open_onnxruntime(
    path: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int, custom_ops: Sequence[Path] = ()
) -> OnnxSession:
    """Load a model file, with libraries of custom operators. Raises ModelUnusable."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads double the processor time of a board that has other work, for little.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        for library in custom_ops:
            options.register_custom_ops_library(str(library))
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelUnusable(f"ONNX Runtime cannot load it: {_first_line(error)}") from None
    missing = set(inputs) - {i.name for i in session.get_inputs()} or set(outputs) - {
        o.name for o in session.get_outputs()
    }
    if missing:
        raise ModelUnusable(f"the manifest names {sorted(missing)[0]!r}, which the model does not have")
    return OnnxSession(session, inputs, outputs)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:500]
