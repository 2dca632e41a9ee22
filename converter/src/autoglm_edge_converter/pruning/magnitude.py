"""Unstructured sparsity: the smallest weights become zero. Smaller under compression, never faster.

The runtimes that bundles are made for multiply by zero like by any other number (measured: 50, 80 and 95 % of zeros all
run at the speed of none), so this is for the size of a compressed download only, and no conversion uses it by itself.
Source: Han et al., "Learning both weights and connections for efficient neural networks" (arXiv 1506.02626).
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from autoglm_edge_converter.inspection import weighted_nodes


def mask_smallest(proto: onnx.ModelProto, fraction: float) -> onnx.ModelProto:
    """Return a copy in which this fraction of each layer's weights, those of least magnitude, is zero.

    Raises ValueError unless 0 <= fraction < 1.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"a fraction of the weights is at least 0 and less than 1, not {fraction:g}")
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    chosen = {node.weight for node in weighted_nodes(model.graph)}
    for tensor in model.graph.initializer:
        if tensor.name in chosen:
            values = numpy_helper.to_array(tensor).copy()
            smallest = np.argsort(np.abs(values), axis=None, kind="stable")[: int(fraction * values.size)]
            values.reshape(-1)[smallest] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model
