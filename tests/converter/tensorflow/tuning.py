"""Functions that tests give with `--finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "digits32.npz"
EPOCHS = 3


def leave(model: Any) -> None:
    """Train nothing."""


def train(model: Any) -> None:
    """Train on the calibration images and their labels for a few epochs."""
    with np.load(DIGITS) as digits:
        images = digits["calibration"][..., None].astype(np.float32) / 255
        labels = digits["calibration_labels"]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    model.fit(images, labels, batch_size=32, epochs=EPOCHS, verbose=0)


def other(model: Any) -> Any:
    """Give a model of another kind."""
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])


def text(model: Any) -> str:
    """Give no model."""
    return "trained"


def fail(model: Any) -> None:
    """Fail."""
    raise RuntimeError("no data")
