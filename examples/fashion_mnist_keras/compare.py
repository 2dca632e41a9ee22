"""Compare the variants of a bundle on the test images: `python compare.py BUNDLE test.npz`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from autoglm_edge_converter.runners import open_runner
from autoglm_edge_protocol.manifest import Manifest

BATCH = 500


def main() -> None:
    """Print a line for each variant."""
    print(table(Path(sys.argv[1]), Path(sys.argv[2])))  # noqa: T201


def table(bundle: Path, test: Path) -> str:
    """Return the variants with the share of test images that each has right."""
    manifest = Manifest.model_validate_json((bundle / "manifest.json").read_text(encoding="utf-8"))
    lines = [f"{'variant':19}  {'right':>7}  {'size':>7}  {'speed':>6}"]
    for variant in manifest.variants:
        (path,) = (bundle / "variants" / variant.id).iterdir()
        size = f"{path.stat().st_size / 1000:.0f} KB"
        lines.append(f"{variant.id:19}  {accuracy(path, test):7.2%}  {size:>7}  {variant.latency.speedup:5.2f}x")
    return "\n".join(lines)


def accuracy(path: Path, test: Path) -> float:
    """Return the share of the images in a `.npz` file that a model file has right."""
    with np.load(test) as archive:
        images, labels = archive["image"], archive["labels"]
    runner = open_runner(path)
    parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    answers = np.concatenate([runner.run({"image": part})[0] for part in parts])
    return float((answers.argmax(1) == labels).mean())


if __name__ == "__main__":
    main()
