"""What TensorFlow's and LiteRT's own tools make of the same float model and the same samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from models import Feed


def full_int8(model: Path, floats: Path, samples: Sequence[Feed], folder: Path) -> Path:
    """TensorFlow's converter with a representative data set."""
    import tensorflow as tf

    from autoglm_edge_converter.roads.keras_loading import load_keras

    def representative() -> Iterator[list[object]]:
        for feed in samples:
            yield list(feed.values())

    converter = tf.lite.TFLiteConverter.from_keras_model(load_keras(model))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    path = folder / "tf-lite.tflite"
    path.write_bytes(converter.convert())
    return path


def stock_static(model: Path, floats: Path, samples: Sequence[Feed], folder: Path) -> Path:
    """ai-edge-quantizer's static recipe as it comes."""
    from ai_edge_quantizer import quantizer, recipe

    made = quantizer.Quantizer(str(floats), recipe.static_wi8_ai8())
    calibrated = made.calibrate({"serving_default": list(samples)})
    path = folder / "stock.tflite"
    made.quantize(calibrated).export_model(str(path), overwrite=True)
    return path


PEERS: dict[str, Callable[[Path, Path, Sequence[Feed], Path], Path]] = {
    "tf.lite full INT8": full_int8,
    "ai-edge-quantizer, stock static": stock_static,
}
