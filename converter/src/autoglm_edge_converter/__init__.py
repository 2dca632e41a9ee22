"""Converts a model into a bundle of smaller, faster, verified variants.

    from autoglm_edge_converter import Options, convert
    result = convert(Path("model.onnx"), Path("samples.npz"), Path("bundles"), Options(max_drop=0.02))

Everything a user can do wrong raises `ConversionError` (see `errors`).
"""

from autoglm_edge_converter.errors import ConversionError
from autoglm_edge_converter.pipeline import convert
from autoglm_edge_converter.progress import Progress, Silent
from autoglm_edge_converter.results import ConversionResult, Options

__all__ = ["ConversionError", "ConversionResult", "Options", "Progress", "Silent", "convert"]
