"""Train a small CNN on Fashion-MNIST, convert it to TFLite and ONNX, and compare: `python train.py FOLDER`.

Writes fashion.keras, calibration.npz, test.npz, and the bundle below `bundles`. `--digits` takes scikit-learn's digits,
`--train-only` stops before the conversion.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from compare import table
from images import Split, images

CALIBRATION = 1200
EPOCHS = 2


def main() -> None:
    """Load, train, tell the accuracy on the test images, write, convert, compare."""
    given = _arguments()
    folder = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    training, test = images(given.digits)
    _train(training, test).save(folder / "fashion.keras")
    np.savez(folder / "calibration.npz", image=training[0][-CALIBRATION:], labels=training[1][-CALIBRATION:])
    np.savez(folder / "test.npz", image=test[0], labels=test[1])
    if not given.train_only:
        _convert(folder)
        print(f"the variants on all {len(test[0])} test images:")  # noqa: T201
        print(table(folder / "bundles" / "fashion-1.0.0", folder / "test.npz"))  # noqa: T201


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a small CNN on Fashion-MNIST, convert and compare.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("fashion"), help="where to write")
    parser.add_argument("--digits", action="store_true", help="scikit-learn's digits instead of clothes")
    parser.add_argument("--train-only", action="store_true", help="do not convert")
    return parser.parse_args()


def _train(training: Split, test: Split) -> Any:
    model = network()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss, metrics=["accuracy"])
    epochs = EPOCHS if len(training[0]) > 10_000 else 30
    model.fit(*training, batch_size=128, epochs=epochs, verbose=2)
    accuracy = model.evaluate(*test, batch_size=500, verbose=0)[1]
    print(f"{len(test[0])} test images, {accuracy:.2%} right", flush=True)  # noqa: T201
    return model


def _convert(folder: Path) -> None:
    """Convert with the command, as a user does. A drop of 0.3 points at most is asked for."""
    command = Path(sys.executable).with_name("autoglm-edge")
    data = ["--calibration", str(folder / "calibration.npz"), "--output", str(folder / "bundles")]
    options = ["--max-drop", "0.003", "--force"]
    subprocess.run([str(command), "convert", str(folder / "fashion.keras"), *data, *options], check=False)


def network() -> Any:
    """Return a CNN of 60 thousand weights that takes `image` and gives the logits `scores`."""
    image = keras.Input((28, 28, 1), name="image")
    x = _block(image, 16, 2)
    x = _block(x, 32, 1)
    x = _block(x, 64, 2)
    x = _block(x, 64, 2)
    scores = keras.layers.Dense(10, name="scores")(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, scores, name="fashion")


def _block(x: Any, channels: int, strides: int) -> Any:
    x = keras.layers.Conv2D(channels, 3, strides=strides, padding="same", use_bias=False)(x)
    return keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))


if __name__ == "__main__":
    main()
