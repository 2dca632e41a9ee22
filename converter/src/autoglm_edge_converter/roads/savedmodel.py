"""From a SavedModel to float files: `python -m autoglm_edge_converter.roads.savedmodel REQUEST.json`.

Of several signatures `serving_default` is taken, or the one that the option `signature` names.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoglm_edge_converter.errors import BadOption
from autoglm_edge_converter.roads.tensorflow_program import Request, Tell, serve
from autoglm_edge_converter.roads.tensorflow_start import start_tensorflow


def road(request: Request, tell: Tell) -> Mapping[str, Any]:
    """Load a SavedModel and write its float files. Raises ConversionError."""
    if request.options.get("finetune"):
        raise BadOption("--finetune needs the layers of the model: give it as .keras or .h5, or leave --finetune away")
    start_tensorflow(gpu=bool(request.options.get("gpu")))
    from autoglm_edge_converter.roads.savedmodel_loading import load_signature, remember_signature, signature_of
    from autoglm_edge_converter.roads.tensorflow_call import check_finite, fix_shapes
    from autoglm_edge_converter.roads.tensorflow_export import depart

    source = Path(request.model)
    signature = signature_of(source, request.options.get("signature"))
    call = load_signature(source, signature)
    check_finite(call.variables)
    tell({"step": "load"})
    runnable = request.scratch / "original.savedmodel"
    shutil.copytree(source, runnable)
    remember_signature(runnable, signature)
    return depart(fix_shapes(call, request.shapes), runnable, request, tell, [f"signature {signature}"])


if __name__ == "__main__":
    sys.exit(serve(road, Path(sys.argv[1])))
