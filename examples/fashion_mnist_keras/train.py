"""Train a small CNN on Fashion-MNIST: `python train.py FOLDER` writes fashion.keras, calibration.npz and test.npz.

The images come from the Debian package dataset-fashion-mnist. Where it is not installed, scikit-learn's handwritten
digits take their place (8 x 8, scaled to 28 x 28), and the first line that is printed says so.
"""

from __future__ import annotations

import gzip
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import numpy.typing as npt

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
CALIBRATION = 600
EPOCHS = 2

Array = npt.NDArray[Any]
Split = tuple[Array, Array]
"""Images, float32 [N,28,28,1] in 0..1, and labels, int64 [N]."""


def main() -> None:
    """Load, train, tell the accuracy on the test images, write."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    training, test = fashion() if DEBIAN.is_dir() else digits()
    model = network()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss, metrics=["accuracy"])
    epochs = EPOCHS if len(training[0]) > 10_000 else 30
    model.fit(*training, batch_size=128, epochs=epochs, verbose=2)
    accuracy = model.evaluate(*test, batch_size=500, verbose=0)[1]
    print(f"{len(test[0])} test images, {accuracy:.2%} right")  # noqa: T201
    model.save(folder / "fashion.keras")
    np.savez(folder / "calibration.npz", image=training[0][-CALIBRATION:], labels=training[1][-CALIBRATION:])
    np.savez(folder / "test.npz", image=test[0], labels=test[1])


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


def fashion() -> tuple[Split, Split]:
    """Return the 60,000 training and 10,000 test images of the Debian package."""
    print(f"Fashion-MNIST of {DEBIAN}", flush=True)  # noqa: T201
    return _read("train"), _read("t10k")


def _read(name: str) -> Split:
    with gzip.open(DEBIAN / f"{name}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28, 1)
    with gzip.open(DEBIAN / f"{name}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return images.astype(np.float32) / 255, labels.astype(np.int64)


def digits() -> tuple[Split, Split]:
    """Return scikit-learn's 1,797 digits in two parts."""
    from sklearn.datasets import load_digits  # type: ignore[import-not-found,import-untyped,unused-ignore]  # untyped

    print("scikit-learn's digits; for Fashion-MNIST: sudo apt install dataset-fashion-mnist", flush=True)  # noqa: T201
    found = load_digits()
    rows = np.arange(28) * 8 // 28
    images = (found.images[:, rows][:, :, rows, None] / 16).astype(np.float32)
    labels = found.target.astype(np.int64)
    return (images[:1297], labels[:1297]), (images[1297:], labels[1297:])


if __name__ == "__main__":
    main()
