"""Functions that tests give with `--finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

DIGITS = Path(__file__).parents[3] / "examples" / "digits"
EPOCHS, BATCH = 6, 64


def leave(model: Any) -> None:
    """Train nothing."""


def train(model: Any) -> None:
    """Learn the original's answers to the calibration images, each also moved by a pixel or two, for a few epochs."""
    with np.load(DIGITS / "digits32.npz") as digits:
        images = digits["calibration"][..., None].astype(np.float32) / 255
    _learn(model, images, [(0, 0), (2, 0), (-2, 0), (0, 2), (0, -2), (1, 1), (-1, -1)], EPOCHS)


def train_briefly(model: Any) -> None:
    """Learn so from the images alone, for as long as a test of the whole way can spare."""
    with np.load(DIGITS / "digits32.npz") as digits:
        images = digits["calibration"][..., None].astype(np.float32) / 255
    _learn(model, images, [(0, 0), (1, -1)], 3)


def _learn(model: Any, images: Any, moves: list[tuple[int, int]], epochs: int) -> None:
    moved = np.concatenate([np.roll(images, move, (1, 2)) for move in moves])
    answers = keras.saving.load_model(DIGITS / "mbn.keras", compile=False).predict(moved, verbose=0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # so few steps would not renew the statistics otherwise
    steps = epochs * -(-len(moved) // BATCH)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps)), "mse")
    model.fit(moved, answers, batch_size=BATCH, epochs=epochs, verbose=0)


def other(model: Any) -> Any:
    """Give a model of another kind."""
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])


def text(model: Any) -> str:
    """Give no model."""
    return "trained"


def fail(model: Any) -> None:
    """Fail."""
    raise RuntimeError("no data")
