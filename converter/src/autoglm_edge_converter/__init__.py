"""Converts a model into a bundle of smaller, faster, verified variants.

    from autoglm_edge_converter import Options, convert
    result = convert(Path("model.onnx"), Path("samples.npz"), Path("bundles"), Options(max_drop=0.02))

Everything a user can do wrong raises `ConversionError` (see `errors`).
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

from autoglm_edge_converter.errors import ConversionError
from autoglm_edge_converter.progress import Progress, Silent

if TYPE_CHECKING:
    from autoglm_edge_converter.pipeline import convert
    from autoglm_edge_converter.results import ConversionResult, Options

# ONNX Runtime's wheels collect usage data from the moment they are imported, here and in every process of ours. A
# user's model is nobody else's business; who wants it otherwise sets the variable before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["ConversionError", "ConversionResult", "Options", "Progress", "Silent", "convert"]

_LATER = {"convert": "pipeline", "ConversionResult": "results", "Options": "results"}
"""Loaded when first asked for: they bring onnx and a runtime, which a command line that prints help needs not."""


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
