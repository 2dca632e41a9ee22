"""From Keras to float files: `python -m autoglm_edge_converter.roads.keras REQUEST.json`.

Takes whole models: `.keras`, and `.h5` or `.hdf5` of older releases. See `roads` for what is printed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoglm_edge_converter.roads.tensorflow_program import Request, Tell, serve
from autoglm_edge_converter.roads.tensorflow_start import start_tensorflow


def road(request: Request, tell: Tell) -> Mapping[str, Any]:
    """Load a model and write its float files. Raises ConversionError."""
    start_tensorflow(gpu=bool(request.options.get("gpu")))
    from autoglm_edge_converter.roads.keras_loading import call_of, load_keras
    from autoglm_edge_converter.roads.tensorflow_call import check_finite, fix_shapes
    from autoglm_edge_converter.roads.tensorflow_export import depart

    model = load_keras(Path(request.model), request.shapes)
    check_finite(model.variables)
    tell({"step": "load"})
    runnable = request.scratch / "original.keras"
    model.save(runnable)
    return depart(fix_shapes(call_of(model), request.shapes), runnable, request, tell)


if __name__ == "__main__":
    sys.exit(serve(road, Path(sys.argv[1])))
