"""Example inputs, which an export needs: of the shapes that were given, from an `.npz`, or as a program remembers them.

An axis given as -1 stays free; it gets a size of its own here, and `Examples.free` remembers it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from autoglm_edge_converter.errors import BadOption

FREE_BATCH = 2
"""Not 1: an export takes a batch of one for a fixed size."""
FREE_AXIS = 16


@dataclass(frozen=True)
class Examples:
    """One call of forward: tensors by argument, in forward's order, and which of their axes stay free."""

    tensors: Mapping[str, torch.Tensor]
    free: Mapping[str, tuple[int, ...]]
    leading: int
    """How many of them are forward's first arguments, and so can be given by position."""

    @property
    def args(self) -> tuple[torch.Tensor, ...]:
        """What is given by position."""
        return tuple(self.tensors.values())[: self.leading]

    @property
    def kwargs(self) -> dict[str, torch.Tensor]:
        """What is given by name."""
        return dict(list(self.tensors.items())[self.leading :])

    @property
    def frees_batch_only(self) -> bool:
        """Tell whether no axis but the first stays free."""
        return all(axes in ((), (0,)) for axes in self.free.values())

    def of_one(self) -> Examples:
        """Return the same with fixed axes, the free ones of size one."""
        small = {
            name: tensor[tuple(slice(0, 1) if axis in self.free[name] else slice(None) for axis in range(tensor.ndim))]
            for name, tensor in self.tensors.items()
        }
        return Examples(
            {name: tensor.contiguous() for name, tensor in small.items()}, dict.fromkeys(small, ()), self.leading
        )


def examples_for(
    forward: Any, shapes: Mapping[str, Sequence[int]], npz: Path | None, fallback: object = None
) -> Examples:
    """Return example inputs for a module's forward.

    `fallback` is used where neither shapes nor a file are given: a tensor or a tuple of them, as Lightning's
    `example_input_array`. Random values are normal, seeded, float32. Raises BadOption.
    """
    names = _arguments(forward)
    given: dict[str, torch.Tensor] = {name: _random(shape) for name, shape in shapes.items()}
    if npz is not None:
        given |= _read(npz)
    if not given and fallback is not None:
        values = fallback if isinstance(fallback, (tuple, list)) else (fallback,)
        given = {name: torch.as_tensor(value) for name, value in zip(names, values, strict=False)}
    _check_names(names, given)
    ordered = {name: given[name] for name in names if name in given}
    free = {name: () if npz is not None else _free(shapes.get(name, ())) for name in ordered}
    leading = next((k for k, (a, b) in enumerate(zip(names, ordered, strict=False)) if a != b), len(ordered))
    return Examples(ordered, free, leading)


def _arguments(forward: Any) -> dict[str, bool]:
    """Return forward's arguments by name, and whether each must be given."""
    parameters = inspect.signature(forward).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return {p.name: p.default is p.empty for p in named}


def _check_names(names: Mapping[str, bool], given: Mapping[str, torch.Tensor]) -> None:
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise BadOption(
            f"{unknown[0]!r} is no argument of the module's forward({', '.join(names)}): "
            "name --shape and the arrays of --example-inputs as forward does"
        )
    missing = [name for name, needed in names.items() if needed and name not in given]
    if missing:
        raise BadOption(
            f"forward takes {missing[0]!r}, whose shape is not known: give it with --shape {missing[0]}=1,3,224,224 "
            "or --example-inputs FILE.npz"
        )
    if not given:
        raise BadOption("forward takes no tensor: give the part of the network that computes")


def _random(shape: Sequence[int]) -> torch.Tensor:
    sizes = [size if size >= 0 else FREE_AXIS if axis else FREE_BATCH for axis, size in enumerate(shape)]
    generator = np.random.default_rng(0)
    return torch.from_numpy(generator.standard_normal(sizes).astype(np.float32))


def _free(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(axis for axis, size in enumerate(shape) if size < 0)


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise BadOption(f"--example-inputs {path.name} holds one array without a name: write it with numpy.savez")
        with archive:
            return {name: torch.from_numpy(np.ascontiguousarray(archive[name])) for name in archive.files}
    except (OSError, ValueError, TypeError, EOFError, BadZipFile) as error:
        raise BadOption(f"--example-inputs {path.name} cannot be read: {error}: write it with numpy.savez") from None
