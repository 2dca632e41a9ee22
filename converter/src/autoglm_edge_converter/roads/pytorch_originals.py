"""What a user brings from PyTorch, in the form that the renditions are made from.

A factory's module is exported here; where that fails for another reason than control flow, it can still be traced.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from autoglm_edge_converter.errors import BadOption
from autoglm_edge_converter.roads.pytorch_blame import place_of, said
from autoglm_edge_converter.roads.pytorch_examples import Examples, examples_for, filled, fits, written
from autoglm_edge_converter.roads.pytorch_export import DynamicControlFlow, export_module, run_module
from autoglm_edge_converter.roads.pytorch_loading import FACTORY_SUFFIX, Factory, absolute, load_program, make_module
from autoglm_edge_converter.roads.pytorch_memory import refuse_memory
from autoglm_edge_converter.roads.pytorch_ports import (
    Shape,
    call,
    input_names,
    named_outputs,
    port,
    shapes_of,
    user_inputs,
)
from autoglm_edge_converter.tensors import clear_of


@dataclass(frozen=True)
class TorchOriginal:
    """A model that was loaded, with one call of it."""

    runnable: Path
    module: torch.nn.Module
    """The eager module, or the exported program's; takes `args` and `kwargs`."""
    program: ExportedProgram | None
    """None where it could not be exported."""
    problem: str | None
    """Why it could not be."""
    examples: Examples
    """One call; for an exported program, tensors by name alone, however it takes them."""
    outputs: Mapping[str, torch.Tensor]
    """The answers to it by name."""
    is_program: bool = False
    """Whether it came as a program, and is called as that was exported."""

    @property
    def tensors(self) -> Mapping[str, torch.Tensor]:
        """The inputs of one call by name."""
        return self.examples.tensors

    def ports(self) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
        """Return inputs and outputs as the departure writes them."""
        inputs: Mapping[str, Shape] = {}
        outputs: Sequence[Shape | None] = [None] * len(self.outputs)
        if self.program is not None:
            inputs, outputs = shapes_of(self.program)
        return (
            [port(name, tensor, inputs.get(name)) for name, tensor in self.tensors.items()],
            [port(name, t, shape) for (name, t), shape in zip(self.outputs.items(), outputs, strict=True)],
        )

    def call_of_one(self) -> tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]:
        """Return a module and a call of it with tensors alone, of fixed shapes, a free batch of one."""
        small = self.examples.of_one()
        if not self.is_program:
            return self.module, small.args, small.kwargs
        assert self.program is not None
        if len(user_inputs(self.program)) > len(small.tensors):
            return _TensorsAlone(self.program, self.module), tuple(small.tensors.values()), {}
        return self.module, *call(self.program, small.tensors)


class _TensorsAlone(torch.nn.Module):  # type: ignore[misc]  # torch has no types where mypy runs
    """A program whose other arguments stay as they were exported: litert-torch takes tensors alone."""

    def __init__(self, program: ExportedProgram, module: torch.nn.Module) -> None:
        super().__init__()
        self._program = program
        self._module = module

    def forward(self, *tensors: torch.Tensor) -> Any:
        args, kwargs = call(self._program, dict(zip(input_names(self._program), tensors, strict=True)))
        return self._module(*args, **kwargs)


def from_program(
    path: Path, scratch: Path, shapes: Mapping[str, Sequence[int]], seen: Mapping[str, Sequence[int]]
) -> TorchOriginal:
    """Load a `.pt2` file.

    `shapes` gives free axes their sizes in files with fixed ones, then `seen`, the shapes of a sample.

    Raises NotAModel, BadModel, BrokenWeights, BadOption, ModelDoesNotRun, OSError.
    """
    program = load_program(path)
    refuse_memory(program)
    sizes, _ = shapes_of(program)
    _check_shapes(sizes, shapes)
    runnable = path.resolve()
    if runnable.suffix != ".pt2":
        runnable = scratch / "original.pt2"
        shutil.copyfile(path, runnable)
    tensors = _remembered(program)
    free = {name: tuple(axis for axis, size in enumerate(shape) if size is None) for name, shape in sizes.items()}
    fixed = {
        name: _fixed(shape, shapes.get(name), (seen.get(name), tensors[name].shape)) for name, shape in sizes.items()
    }
    args, kwargs = call(program, tensors)
    module = program.module()
    answer = run_module(module, Examples({f"{k}": v for k, v in enumerate(args)} | kwargs, {}, {}, len(args)))
    outputs = _clear(named_outputs(answer), tensors)
    return TorchOriginal(runnable, module, program, None, Examples(tensors, free, fixed, 0), outputs, is_program=True)


def _check_shapes(inputs: Mapping[str, Shape], shapes: Mapping[str, Sequence[int]]) -> None:
    for name, wanted in shapes.items():
        if name not in inputs:
            raise BadOption(f"--shape names {name!r}, but the program's inputs are: {', '.join(inputs)}")
        if not fits(inputs[name], wanted):
            raise BadOption(
                f"--shape {name}={written(wanted)}: the program was exported for {written(inputs[name])}, where only "
                "the axes of -1 are free: export it again for other sizes"
            )


def _fixed(shape: Shape, wanted: Sequence[int] | None, seen: Sequence[Sequence[int] | None]) -> tuple[int, ...]:
    """Return the shape with its free axes as wanted, else as first seen, else 1."""
    hints = [-1] * len(shape) if wanted is None else wanted
    sizes = tuple(hint if size is None else size for size, hint in zip(shape, hints, strict=True))
    for other in seen:
        sizes = filled(sizes, other)
    return tuple(1 if size < 0 else size for size in sizes)


def _remembered(program: ExportedProgram) -> dict[str, torch.Tensor]:
    """Return inputs of the shapes that a program was exported with; free axes have two."""
    generator = torch.Generator().manual_seed(0)
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    found = {}
    for name in input_names(program):
        sizes = [size if isinstance(size, int) else 2 for size in values[name].shape]
        dtype = values[name].dtype
        if dtype.is_floating_point:
            found[name] = torch.randn(sizes, generator=generator).to(dtype)
        else:
            found[name] = torch.zeros(sizes, dtype=dtype)
    given = program.example_inputs
    if given is not None:
        flat = torch.utils._pytree.tree_leaves(given, is_leaf=lambda leaf: leaf is None)
        specs = user_inputs(program)
        if len(flat) == len(specs):
            pairs = {spec.arg.name: value for spec, value in zip(specs, flat, strict=True)}
            found = {name: pairs[name] if isinstance(pairs[name], torch.Tensor) else t for name, t in found.items()}
    return found


def from_factory(
    reference: str,
    scratch: Path,
    shapes: Mapping[str, Sequence[int]],
    state_dict: str | None,
    npz: Path | None,
    seen: Mapping[str, Sequence[int]],
) -> TorchOriginal:
    """Make a factory's module and export it.

    Raises UserCodeFailed, MissingWeights, BadOption, BrokenWeights, ModelDoesNotRun, BadModel, OSError.
    """
    weights = None if state_dict is None else str(Path(state_dict).resolve())
    reference = absolute(reference)
    module = make_module(reference, weights)
    examples = examples_for(module.forward, shapes, npz, getattr(module, "example_input_array", None), seen)
    runnable = scratch / f"original{FACTORY_SUFFIX}"
    Factory(reference, weights, tuple(examples.tensors)).write(runnable)
    return from_module(module, examples, runnable)


def from_module(module: torch.nn.Module, examples: Examples, runnable: Path) -> TorchOriginal:
    """Export a module that is at hand. Raises ModelDoesNotRun, BadModel."""
    outputs = _clear(named_outputs(run_module(module, examples)), examples.tensors)
    program, problem = None, None
    try:
        program = export_module(module, examples)
    except DynamicControlFlow:
        raise
    except Exception as error:
        place = place_of(error)
        problem = f"torch.export fails{f' at {place}' if place else ''}: {said(error)}"
    if program is not None:
        refuse_memory(program)
    return TorchOriginal(runnable, module, program, problem, examples, outputs)


def _clear(outputs: Mapping[str, torch.Tensor], inputs: Mapping[str, object]) -> dict[str, torch.Tensor]:
    return dict(zip(clear_of(list(outputs), list(inputs)), outputs.values(), strict=True))
