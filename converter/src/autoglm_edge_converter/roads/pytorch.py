"""The road from PyTorch: `python -m autoglm_edge_converter.roads.pytorch REQUEST.json`; the package tells its output.

Options of the request: `state_dict` (.pt, .pth, .safetensors), `example_inputs` (.npz), `sample` (.npz, for its shapes
alone), `opset`, and for pruning with training `finetune` (`module.py:function`), `prune` (fraction of the
multiplications) and `prune_steps`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autoglm_edge_converter.errors import BadOption, ConversionError, MissingPackage
from autoglm_edge_converter.original import TFLITE
from autoglm_edge_converter.usercode import is_reference

Say = Callable[[Mapping[str, object]], None]


def depart(request: Mapping[str, Any], say: Say) -> dict[str, object]:
    """Load the model, write its float files and return the departure. Raises ConversionError, OSError."""
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingPackage("PyTorch models", "torch", error.name or "torch") from None
    from autoglm_edge_converter.roads.pytorch_renditions import renditions, versions

    torch.set_num_threads(1)
    options = request.get("options", {})
    scratch = Path(request["scratch"])
    opset = _opset(options)
    original = _load(request, options, scratch)
    say({"step": "load"})

    def step(name: str) -> None:
        say({"step": name})

    made = renditions(original, scratch / "departure", request["formats"], step, opset)
    if options.get("finetune"):
        made += _pruned(original, request, options, step)
    inputs, outputs = original.ports()
    return {
        "runnable": str(original.runnable),
        "inputs": inputs,
        "outputs": outputs,
        "renditions": made,
        "versions": versions(),
        "notes": _notes(original, request["formats"]),
    }


def _load(request: Mapping[str, Any], options: Mapping[str, Any], scratch: Path) -> Any:
    from autoglm_edge_converter.roads.pytorch_examples import shapes_in
    from autoglm_edge_converter.roads.pytorch_originals import from_factory, from_program

    model = str(request["model"])
    shapes = request.get("shapes", {})
    npz = options.get("example_inputs")
    sample = options.get("sample") or npz
    seen = {} if sample is None else shapes_in(Path(sample))
    if is_reference(model):
        return from_factory(model, scratch, shapes, options.get("state_dict"), None if npz is None else Path(npz), seen)
    for option in ("state_dict", "finetune"):
        if options.get(option):
            raise BadOption(
                f"--{option.replace('_', '-')} goes with a model given as module.py:factory, "
                f"not with {Path(model).name}"
            )
    return from_program(Path(model), scratch, shapes, seen)


def _pruned(
    original: Any, request: Mapping[str, Any], options: Mapping[str, Any], step: Callable[[str], None]
) -> list[dict[str, object]]:
    from autoglm_edge_converter.roads.finetuning import Finetuning
    from autoglm_edge_converter.roads.torch_pruning import pruned_renditions

    finetuning = Finetuning.from_options(options)
    return pruned_renditions(original, finetuning, Path(request["scratch"]), request["formats"], step, _opset(options))


def _opset(options: Mapping[str, Any]) -> int:
    try:
        return int(options.get("opset", 18))
    except (TypeError, ValueError):
        raise BadOption(f"opset {options['opset']!r} is not a number") from None


def _notes(original: Any, formats: Sequence[str]) -> list[str]:
    from autoglm_edge_converter.roads.pytorch_examples import written

    inputs, _ = original.ports()
    notes = []
    if original.problem is not None:
        notes.append(f"traced, since {original.problem}")
    if TFLITE in formats and any(None in port["shape"] for port in inputs):
        fixed = ", ".join(f"{name}={written(shape)}" for name, shape in original.examples.fixed.items())
        lacking = original.examples.lacking
        hint = f": give sizes with {lacking}" if lacking else ""
        notes.append(f"TFLite files from PyTorch have fixed shapes, here {fixed}{hint}")
    return notes


def main() -> None:
    """Do what the request file asks for."""
    # Libraries print to standard output now and then; what is said goes to a descriptor of its own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(document: Mapping[str, object]) -> None:
        answers.write(json.dumps(document) + "\n")
        answers.flush()

    try:
        request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
        say({"departure": depart(request, say)})
    except ConversionError as error:
        say({"error": str(error), "kind": _kind(error)})


def _kind(error: ConversionError) -> str:
    """Return the class of `errors` that an error is of; subclasses of the roads are known by their base."""
    from autoglm_edge_converter import errors

    return next(kind.__name__ for kind in type(error).__mro__ if hasattr(errors, kind.__name__))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
