"""Write scikit-image's 200 labelled crops as R-Net takes them: `x`, float32 [200,3,24,24], and `labels`, 1 for a face.

The crops are grey, 25 x 25, in 0..1: 100 faces of Labeled Faces in the Wild, then 100 crops without one. They come in
another order, seeded, so that any part of them has both.
"""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt
from PIL import Image
from skimage.data import lfw_subset

SIZE = 24


def crops() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return pictures, float32 [200,3,24,24] in -1..1, and labels, int64 [200]."""
    grey = lfw_subset()
    small = [np.asarray(Image.fromarray((crop * 255).astype(np.uint8)).resize((SIZE, SIZE))) for crop in grey]
    scaled = (np.stack(small).astype(np.float32) - 127.5) / 128
    labels = np.repeat(np.array([1, 0], np.int64), 100)
    order = np.random.default_rng(0).permutation(len(labels))
    return np.repeat(scaled[:, None], 3, axis=1)[order], labels[order]


def main() -> None:
    """Write the `.npz` named on the command line."""
    pictures, labels = crops()
    np.savez(sys.argv[1] if len(sys.argv) > 1 else "faces.npz", x=pictures, labels=labels)


if __name__ == "__main__":
    main()
