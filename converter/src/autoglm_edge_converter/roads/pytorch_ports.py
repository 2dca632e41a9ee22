"""Names, dtypes and shapes of what a PyTorch model takes and gives.

Inputs are called as forward calls them. Outputs are called by the keys of a dict, by the fields of a named tuple or
dataclass that PyTorch knows, else `output_0`, `output_1`, ... in the order in which the structure is flattened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, TensorArgument
from torch.utils import _pytree as pytree

from autoglm_edge_converter.errors import BadModel

Shape = tuple[int | None, ...]


def input_names(program: ExportedProgram) -> list[str]:
    """Return the names of a program's tensor inputs, in order."""
    return [spec.arg.name for spec in user_inputs(program) if isinstance(spec.arg, TensorArgument)]


def user_inputs(program: ExportedProgram) -> list[Any]:
    """Return the input specifications that a caller gives, constants among them."""
    return [spec for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]


def call(program: ExportedProgram, tensors: Mapping[str, torch.Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and named arguments for a program's module from tensors by name. Raises KeyError."""
    flat = [
        spec.arg.value if isinstance(spec.arg, ConstantArgument) else tensors[spec.arg.name]
        for spec in user_inputs(program)
    ]
    args, kwargs = pytree.tree_unflatten(flat, program.call_spec.in_spec)
    return tuple(args), dict(kwargs)


def named_outputs(value: Any) -> dict[str, torch.Tensor]:
    """Return a call's tensors by name. Raises BadModel where there are none, or two of the same name."""
    found: dict[str, torch.Tensor] = {}
    for number, (path, leaf) in enumerate(pytree.tree_flatten_with_path(value)[0]):
        if not isinstance(leaf, torch.Tensor):
            continue
        name = _name(path) or f"output_{number}"
        if name in found:
            raise BadModel(f"two outputs would be called {name!r}: return them under other keys")
        found[name] = leaf
    if not found:
        raise BadModel(f"forward gives {type(value).__name__} and no tensor: return what it computes")
    return found


def _name(path: Sequence[Any]) -> str:
    """Return the keys of dicts and fields on the way to a leaf, empty where one step of it is a mere position."""
    names = [getattr(key, "key", None) or getattr(key, "name", None) for key in path]
    return "_".join(map(str, names)) if names and all(names) else ""


def port(name: str, tensor: torch.Tensor, shape: Shape | None = None) -> dict[str, object]:
    """Return a port as the departure writes it; dtype as numpy names it, free axes null."""
    sizes = tuple(tensor.shape) if shape is None else shape
    return {"name": name, "dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(sizes)}


def shapes_of(program: ExportedProgram) -> tuple[dict[str, Shape], list[Shape]]:
    """Return the shapes of a program's inputs by name and of its outputs in order; symbolic axes are None."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    inputs = {name: _shape(values[name]) for name in input_names(program)}
    outputs = [
        _shape(values[spec.arg.name])
        for spec in program.graph_signature.output_specs
        if spec.kind.name == "USER_OUTPUT" and isinstance(spec.arg, TensorArgument)
    ]
    return inputs, outputs


def _shape(value: Any) -> Shape:
    return tuple(size if isinstance(size, int) else None for size in value.shape)
