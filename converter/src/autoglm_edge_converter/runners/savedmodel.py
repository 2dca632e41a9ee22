"""SavedModels, by TensorFlow: the reference that everything else is compared with."""

from __future__ import annotations

from pathlib import Path

from autoglm_edge_converter.roads.tensorflow_start import start_tensorflow
from autoglm_edge_converter.runners.tensorflow_function import TensorflowRunner


def open_savedmodel(path: Path, threads: int = 1) -> TensorflowRunner:
    """Open a SavedModel folder that `roads.savedmodel` prepared. Raises NotAModel, BadModel, MissingPackage."""
    start_tensorflow(threads)
    from autoglm_edge_converter.roads.savedmodel_loading import chosen_signature, load_signature

    return TensorflowRunner(load_signature(path, chosen_signature(path)))
