"""Make many pictures of a few photographs: crops, mirrored, brighter and darker, and some of four side by side.

Pictures that calibrate and pictures that judge show different photographs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from fetch import fetch
from PIL import Image, ImageEnhance, ImageOps

SIZE = 300
COUNT = 160
FOUR_IN = 4
"""Every fourth picture shows four crops."""

HELD_OUT = ("camera.png", "chelsea.png")
"""Photographs that no picture for calibration shows: the boxes are counted on pictures of these."""
HELD_OUT_COUNT = 80


def prepare(folder: Path) -> tuple[Path, Path]:
    """Write pictures of 300 x 300 into `pictures`, to calibrate, and into `held_out`; return both folders."""
    photographs = sorted((folder / "photographs").iterdir())
    pictures = _write(folder / "pictures", [path for path in photographs if path.name not in HELD_OUT], COUNT, 0)
    held_out = _write(folder / "held_out", [path for path in photographs if path.name in HELD_OUT], HELD_OUT_COUNT, 1)
    return pictures, held_out


def _write(pictures: Path, photographs: list[Path], count: int, seed: int) -> Path:
    """Write so many pictures of the photographs, equal seeds to equal pictures, in place of any that are there."""
    sources = [Image.open(path).convert("RGB") for path in photographs]
    chance = np.random.default_rng(seed)
    pictures.mkdir(exist_ok=True)
    for number in range(count):
        first = sources[number % len(sources)]
        picture = _four(sources, chance) if number % FOUR_IN == FOUR_IN - 1 else _varied(first, SIZE, chance)
        picture.save(pictures / f"{number:03}.png")
    return pictures


def _varied(source: Image.Image, size: int, chance: np.random.Generator) -> Image.Image:
    """Cut out between 60 % and all of each side, mirror every second time, and change the light."""
    width, height = (int(side * chance.uniform(0.6, 1.0)) for side in source.size)
    left, top = (
        int(chance.integers(0, whole - part + 1)) for whole, part in zip(source.size, (width, height), strict=True)
    )
    cut = source.crop((left, top, left + width, top + height)).resize((size, size))
    turned = ImageOps.mirror(cut) if chance.random() < 0.5 else cut
    return ImageEnhance.Brightness(turned).enhance(float(chance.uniform(0.7, 1.3)))


def _four(sources: list[Image.Image], chance: np.random.Generator) -> Image.Image:
    whole = Image.new("RGB", (SIZE, SIZE))
    for place in range(4):
        source = sources[int(chance.integers(len(sources)))]
        whole.paste(_varied(source, SIZE // 2, chance), (place % 2 * SIZE // 2, place // 2 * SIZE // 2))
    return whole


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "detector")
    fetch(target)
    sys.stdout.write("".join(f"{made}\n" for made in prepare(target)))
