"""Real files of every kind, written where a test wants them."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tests.converter.graphs import DIGITS


def write_png_digits(folder: Path, count: int) -> Path:
    """The first test digits as 8-bit grey PNG files in class folders."""
    with np.load(DIGITS / "digits32.npz") as digits:
        images, labels = digits["test"][:count], digits["test_labels"][:count]
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / str(label) / f"{number:04}.png")
    return folder


def write_image(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_wav(path: Path, frames: bytes, *, rate_hz: int = 16000, width: int = 2, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate_hz)
        file.writeframes(frames)
    return path


def tone(seconds: float, rate_hz: int = 16000, pitch_hz: float = 440.0) -> bytes:
    """16-bit samples of a sine at half of the full scale."""
    times = np.arange(int(seconds * rate_hz)) / rate_hz
    return (np.sin(2 * np.pi * pitch_hz * times) * 2**14).astype("<i2").tobytes()


def write_lines(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
