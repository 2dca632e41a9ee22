"""Files that can be run: one module for each format, behind one small port.

Chosen by the file's suffix from a plain table; what a module needs is imported when its first file is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol

from autoglm_edge_converter.errors import MissingPackage, NotAModel
from autoglm_edge_converter.tensors import Array, Feed


class Runner(Protocol):
    """A model that was loaded."""

    def run(self, feed: Feed) -> Sequence[Array]:
        """Run once: inputs by name, batch axis included, give the outputs in the model's order.

        Errors of the runtime pass through.
        """


Open = Callable[[Path, int], Runner]
"""Loads a file for so many threads on the CPU."""

_OPENERS = {
    ".onnx": ("onnx", "open_onnx"),
    ".tflite": ("tflite", "open_tflite"),
    ".keras": ("keras", "open_keras"),
    ".savedmodel": ("savedmodel", "open_savedmodel"),
    ".pt2": ("pytorch", "open_pytorch"),
    ".factory.json": ("pytorch", "open_pytorch"),
}
"""Module and function, by the end of the name."""

_EXTRAS = {"tflite": "tflite", "keras": "tensorflow", "savedmodel": "tensorflow", "pytorch": "torch"}
"""What to install for a module, by module."""


def open_runner(path: Path, threads: int = 1) -> Runner:
    """Load a model file. Raises NotAModel, MissingPackage; errors of the runtime pass through."""
    found = next((entry for suffix, entry in _OPENERS.items() if path.name.endswith(suffix)), None)
    if found is None:
        raise NotAModel(f"{path.name} is of no format that can be run: {', '.join(_OPENERS)}")
    module, function = found
    try:
        opener: Open = getattr(import_module(f"{__name__}.{module}"), function)
    except ModuleNotFoundError as error:
        raise MissingPackage(f"{path.name} files", _EXTRAS.get(module, module), error.name or module) from None
    return opener(path, threads)
