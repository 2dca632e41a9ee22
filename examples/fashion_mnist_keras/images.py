"""The images: Fashion-MNIST of the Debian package dataset-fashion-mnist, or scikit-learn's handwritten digits instead.

As root on Debian the package is installed when it is missing; else the line to type is printed.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PACKAGE = "dataset-fashion-mnist"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")

Array = npt.NDArray[Any]
Split = tuple[Array, Array]
"""Images, float32 [N,28,28,1] in 0..1, and labels, int64 [N]."""


def images(only_digits: bool = False) -> tuple[Split, Split]:
    """Return training and test images: 60,000 and 10,000 pieces of clothing, or 1,297 and 500 digits. Says which."""
    if not only_digits and (DEBIAN.is_dir() or _install()):
        print(f"Fashion-MNIST of {DEBIAN}", flush=True)  # noqa: T201
        return _fashion("train"), _fashion("t10k")
    if not only_digits:
        print(f"Fashion-MNIST is missing: sudo apt install {PACKAGE}", flush=True)  # noqa: T201
    print("scikit-learn's digits", flush=True)  # noqa: T201
    return _digits()


def _install() -> bool:
    if not (hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get")):
        return False
    print(f"installing the Debian package {PACKAGE} ...", flush=True)  # noqa: T201
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", PACKAGE]):
        subprocess.run(command, check=False, env=environment, stdout=subprocess.DEVNULL)
    return DEBIAN.is_dir()


def _fashion(name: str) -> Split:
    with gzip.open(DEBIAN / f"{name}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28, 1)
    with gzip.open(DEBIAN / f"{name}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return pixels.astype(np.float32) / 255, labels.astype(np.int64)


def _digits() -> tuple[Split, Split]:
    from sklearn.datasets import load_digits  # type: ignore[import-not-found,import-untyped,unused-ignore]  # untyped

    found = load_digits()
    rows = np.arange(28) * 8 // 28  # 8 x 8, scaled to 28 x 28
    pixels = (found.images[:, rows][:, :, rows, None] / 16).astype(np.float32)
    labels = found.target.astype(np.int64)
    return (pixels[:1297], labels[:1297]), (pixels[1297:], labels[1297:])
