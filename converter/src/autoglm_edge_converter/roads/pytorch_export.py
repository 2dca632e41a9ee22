"""From a module to an exported program, and what to say where that cannot be."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from autoglm_edge_converter.errors import BadModel, ModelDoesNotRun
from autoglm_edge_converter.roads.pytorch_blame import is_data_dependent, place_of, said
from autoglm_edge_converter.roads.pytorch_examples import Examples


class DynamicControlFlow(BadModel):
    """What forward computes depends on the values of its inputs, which no file for a device can hold."""

    def __init__(self, place: str | None) -> None:
        super().__init__(
            f"{place or 'forward'}: what is done here depends on the values of tensors, which a file cannot hold: "
            "use torch.where and the like, or give the part of the network without it"
        )


def run_module(module: torch.nn.Module, examples: Examples) -> Any:
    """Return what one call gives. Raises ModelDoesNotRun with the user's line."""
    try:
        with torch.no_grad():
            return module(*examples.args, **examples.kwargs)
    except Exception as error:
        shapes = ", ".join(f"{name}={'x'.join(map(str, t.shape))} {t.dtype}" for name, t in examples.tensors.items())
        place = place_of(error)
        where = f"{place}: " if place else ""
        raise ModelDoesNotRun(
            f"{where}the module does not run with {shapes.replace('torch.', '')}: {said(error)}"
        ) from None


def export_module(module: torch.nn.Module, examples: Examples) -> ExportedProgram:
    """Export a module. Raises DynamicControlFlow; other errors of torch pass through."""
    dynamic = {name: dict.fromkeys(axes, Dim.AUTO) for name, axes in examples.free.items()}
    try:
        with torch.no_grad():
            return torch.export.export(
                module,
                examples.args,
                examples.kwargs,
                dynamic_shapes=dynamic if any(dynamic.values()) else None,
            )
    except Exception as error:
        if is_data_dependent(error):
            raise DynamicControlFlow(place_of(error)) from None
        raise
