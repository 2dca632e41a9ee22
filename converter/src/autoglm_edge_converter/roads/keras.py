"""From Keras to float files: `python -m autoglm_edge_converter.roads.keras REQUEST.json`.

Takes whole models: `.keras`, and `.h5` or `.hdf5` of older releases. See `roads` for what is printed. Options of the
request for pruning with training: `finetune` (`module.py:function`), `prune` (fraction of the multiplications),
`prune_steps`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoglm_edge_converter.roads.tensorflow_program import Request, Tell, serve
from autoglm_edge_converter.roads.tensorflow_start import start_tensorflow


def road(request: Request, tell: Tell) -> Mapping[str, Any]:
    """Load a model and write its float files. Raises ConversionError."""
    start_tensorflow(gpu=bool(request.options.get("gpu")))
    from autoglm_edge_converter.roads.keras_loading import load_keras
    from autoglm_edge_converter.roads.keras_precision import written
    from autoglm_edge_converter.roads.tensorflow_call import check_finite, fix_shapes
    from autoglm_edge_converter.roads.tensorflow_export import depart

    model = load_keras(Path(request.model), request.shapes)
    check_finite(model.variables)
    tell({"step": "load"})
    runnable = request.scratch / "original.keras"
    model.save(runnable)
    found = written(model, request.scratch)
    call = fix_shapes(found.call, request.shapes)
    departure = {**depart(call, runnable, request, tell, found.notes), "precision": found.precision}
    if not request.options.get("finetune"):
        return departure
    return {**departure, "renditions": [*departure["renditions"], *_pruned(model, call, request, tell)]}


def _pruned(model: Any, call: Any, request: Request, tell: Tell) -> list[dict[str, Any]]:
    """Write the float files of the pruned model, with the ports of the original."""
    from autoglm_edge_converter.roads.finetuning import Finetuning
    from autoglm_edge_converter.roads.keras_precision import written
    from autoglm_edge_converter.roads.keras_pruning import prune
    from autoglm_edge_converter.roads.tensorflow_export import renditions

    def step(done: str) -> None:
        tell({"step": done})

    sizes = {
        tensor.name: request.shapes[spec.name]
        for tensor, spec in zip(model.inputs, call.inputs, strict=True)
        if spec.name in request.shapes
    }
    pruned, fraction = prune(model, Finetuning.from_options(request.options), sizes, step)
    same = replace(written(pruned, request.scratch).call, inputs=call.inputs, outputs=call.outputs)
    return renditions(same, same.traced(), request, tell, "pruned", round(fraction, 4))


if __name__ == "__main__":
    sys.exit(serve(road, Path(sys.argv[1])))
