"""Make many pictures of a few photographs: crops, mirrored, brighter and darker, and some of four side by side."""

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


def prepare(folder: Path, count: int = COUNT, seed: int = 0) -> Path:
    """Write `count` pictures of 300 x 300 into `folder/pictures`, equal seeds to equal pictures; return that folder."""
    sources = [Image.open(path).convert("RGB") for path in sorted((folder / "photographs").iterdir())]
    chance = np.random.default_rng(seed)
    pictures = folder / "pictures"
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
    sys.stdout.write(f"{prepare(target)}\n")
