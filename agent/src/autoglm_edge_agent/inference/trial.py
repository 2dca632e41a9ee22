"""The process that `abilities` asks: it loads a runtime, lists its providers, or runs the smallest model on one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from autoglm_edge_agent.inference.backends import load_backend
from autoglm_edge_agent.inference.errors import InferenceError
from autoglm_edge_agent.inference.isolated import answer
from autoglm_edge_agent.inference.options import SessionOptions
from autoglm_edge_agent.inference.runtimes import FORMATS
from autoglm_edge_protocol.manifest import TensorSpec

MODELS = Path(__file__).parent / "trial_models"
"""`linear.onnx` and `linear.tflite`: y = x @ W + b, x [1, 8], W of ones, b of twos, y [1, 4]; FP32."""
_INPUTS, _OUTPUTS = 8, 4
_ANSWER = 10.0
"""To an input of ones."""


def _try(question: dict[str, Any]) -> Any:
    backend = load_backend(question["runtime"])
    provider = question.get("provider")
    if provider is None:
        return list(backend.providers())
    path = MODELS / f"linear.{FORMATS[question['runtime']]}"
    x, y = ("x", _INPUTS), ("y", _OUTPUTS)
    specs = [TensorSpec(name=name, datatype="FP32", shape=(1, size)) for name, size in (x, y)]
    session = backend.open(path, specs[:1], specs[1:], SessionOptions(provider=provider))
    (found,) = session.run([np.ones((1, _INPUTS), np.float32)])
    if not np.allclose(found, _ANSWER, rtol=1e-2):  # an accelerator may calculate with half precision
        raise InferenceError(f"it answers {found.ravel()[:4].tolist()} where {_ANSWER} is right")
    return dict(session.placement())


if __name__ == "__main__":
    answer(_try, InferenceError)
