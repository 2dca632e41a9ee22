"""Write the test images as the networks take them: `x`, float32 [540, 1, 32, 32] in 0..1."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def main() -> None:
    """Read `digits32.npz` beside this file and write the `.npz` named on the command line."""
    with np.load(Path(__file__).with_name("digits32.npz")) as digits:
        images = digits["test"][:, None].astype(np.float32) / 255
    np.savez(sys.argv[1] if len(sys.argv) > 1 else "samples.npz", x=images)


if __name__ == "__main__":
    main()
