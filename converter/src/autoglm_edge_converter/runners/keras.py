"""Keras models, by Keras on TensorFlow: the reference that everything else is compared with."""

from __future__ import annotations

from pathlib import Path

from autoglm_edge_converter.roads.tensorflow_start import start_tensorflow
from autoglm_edge_converter.runners.tensorflow_function import TensorflowRunner


def open_keras(path: Path, threads: int = 1) -> TensorflowRunner:
    """Open a `.keras` file. Raises NotAModel, BadModel, MissingPackage."""
    start_tensorflow(threads)
    from autoglm_edge_converter.roads.keras_loading import call_of, load_keras

    return TensorflowRunner(call_of(load_keras(path)))
