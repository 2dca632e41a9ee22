"""Write the test images as the ONNX networks take them: `x`, float32 [540, 1, 32, 32] in 0..1.

With `channels-last` as a further word, as the Keras and TFLite ones do: [540, 32, 32, 1].
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

CHANNELS_LAST = "channels-last"


def main() -> None:
    """Read `digits32.npz` beside this file and write the `.npz` named on the command line."""
    with np.load(Path(__file__).with_name("digits32.npz")) as digits:
        images = digits["test"].astype(np.float32) / 255
    names = [argument for argument in sys.argv[1:] if argument != CHANNELS_LAST]
    axis = -1 if CHANNELS_LAST in sys.argv else 1
    np.savez(names[0] if names else "samples.npz", x=np.expand_dims(images, axis))


if __name__ == "__main__":
    main()
