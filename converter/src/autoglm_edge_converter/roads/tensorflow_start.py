"""Starting TensorFlow: quiet, repeatable, on so many threads of the CPU."""

from __future__ import annotations

import os
from typing import Any

from autoglm_edge_converter.errors import MissingPackage


def start_tensorflow(threads: int = 0, gpu: bool = False) -> Any:
    """Import TensorFlow and return it; `threads` 0 lets it choose. To be called before anything else imports it.

    Random numbers are seeded and its kernels repeatable. A graphics processor is not touched unless asked for.
    Raises MissingPackage.
    """
    if not gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        import tensorflow as tf
    except ModuleNotFoundError as error:
        raise MissingPackage("Keras models and SavedModels", "tensorflow", error.name or "tensorflow") from None
    if threads and tf.config.threading.get_intra_op_parallelism_threads() != threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.get_logger().setLevel("ERROR")
    tf.keras.utils.set_random_seed(0)
    tf.config.experimental.enable_op_determinism()
    return tf
