"""One sample of the calibration data as an example, for frameworks that learn a model's inputs by running it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from autoglm_edge_converter.limits import DATA_LIMITS

LABELS = "labels"


def first_sample(calibration: Path, scratch: Path) -> Path | None:
    """Write the first sample of an `.npz`, arrays by input with the batch axis kept; None where there is none to take.

    The data is read in full, and judged, later; what cannot be read here is left to that.
    """
    if calibration.suffix != ".npz" or not calibration.is_file():
        return None
    if calibration.stat().st_size > DATA_LIMITS.produced_bytes:
        return None
    try:
        with np.load(calibration, allow_pickle=False) as archive:
            sample = {name: archive[name][:1] for name in archive.files if name != LABELS and archive[name].ndim}
    except (OSError, ValueError, zipfile.BadZipFile):
        return None
    if not sample:
        return None
    path = scratch / "example.npz"
    np.savez(path, allow_pickle=False, **sample)
    return path
