"""A bundle whose model has an input of each datatype and gives each back as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tests.fakes.model_bundles import make_bundle_of
from tests.fakes.onnx_writer import ELEMENTS, identity_model

from autoglm_edge_agent.client.datatypes import DATATYPES
from autoglm_edge_protocol.deployment import BundleReference
from autoglm_edge_protocol.manifest import TensorSpec

Array = npt.NDArray[Any]
NAME = "identity"


def make_identity_bundle(directory: Path, *, text: bool = True) -> BundleReference:
    """Write it, with tensors of two free dimensions named after their datatypes; BYTES too if `text`."""
    datatypes = {name.lower(): name for name in ELEMENTS if text or name != "BYTES"}
    inputs, outputs = (
        tuple(
            TensorSpec(name=f"{name}{suffix}", datatype=datatype, shape=(-1, -1))
            for name, datatype in datatypes.items()
        )
        for suffix in ("", "_out")
    )
    return make_bundle_of(directory, NAME, identity_model(datatypes), inputs, outputs)


def edges(datatype: str) -> Array:
    """Return a matrix of the values at which a datatype goes wrong first."""
    if datatype == "BYTES":
        return np.array([["", "a", "ü😀"], ["x" * 300, "\0", "end"]], dtype=object)
    if datatype == "BOOL":
        return np.array([[True, False, True], [False, False, True]])
    dtype = np.dtype(DATATYPES[datatype])
    if dtype.kind in "iu":
        least, most = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        return np.array([[least, most, 0], [1, most - 1, least + 1]], dtype)
    information = np.finfo(dtype)
    return np.array([[information.min, information.max, 0], [-0.0, information.tiny, 0.1]], dtype)
