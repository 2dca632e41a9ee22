"""Example inputs, which an export needs: of the shapes that were given, from an `.npz`, or as a program remembers them.

An axis given as -1 stays free; it gets a size of its own here, or the file's, and `Examples.free` remembers it.
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
    fixed: Mapping[str, tuple[int, ...]]
    """The shapes that a file with fixed ones gets."""
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
    def lacking(self) -> str | None:
        """The `--shape` that gives free axes behind the batch a size; None where none became 1 for want of it."""
        shapes = []
        for name, shape in self.fixed.items():
            unknown = [axis for axis in self.free.get(name, ()) if axis > 0 and shape[axis] == 1]
            letters = dict(zip(unknown, ("H", "W"), strict=True)) if len(unknown) == 2 else {}
            if unknown:
                sizes = (letters.get(axis, "SIZE") if axis in unknown else str(size) for axis, size in enumerate(shape))
                shapes.append(f"--shape {name}={','.join(sizes)}")
        return " ".join(shapes) or None

    def of_one(self) -> Examples:
        """Return the same with fixed axes, of the sizes in `fixed`."""
        small = {name: resized(tensor, self.fixed[name]) for name, tensor in self.tensors.items()}
        return Examples(small, dict.fromkeys(small, ()), self.fixed, self.leading)


def resized(tensor: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Return a tensor of these sizes: along each axis cut, or repeated from its start."""
    for axis, (have, want) in enumerate(zip(tensor.shape, sizes, strict=True)):
        if 0 < have != want:
            tensor = tensor.index_select(axis, torch.arange(want) % have)
    return tensor.contiguous()


def examples_for(
    forward: Any,
    shapes: Mapping[str, Sequence[int]],
    npz: Path | None,
    fallback: object = None,
    seen: Mapping[str, Sequence[int]] | None = None,
) -> Examples:
    """Return example inputs for a module's forward.

    `fallback` is used where neither shapes nor a file are given: a tensor or a tuple of them, as Lightning's
    `example_input_array`. Random values are normal, seeded, float32. Where a file and shapes are given, the values are
    the file's and the shapes say which axes stay free. `seen` are shapes of a sample: free axes behind the batch get
    their sizes. Raises BadOption.
    """
    names = _arguments(forward)
    sizes = {name: filled(shape, (seen or {}).get(name)) for name, shape in shapes.items()}
    given: dict[str, torch.Tensor] = {name: _random(shape) for name, shape in sizes.items()}
    if npz is not None:
        read = _read(npz)
        given |= read
        sizes |= {name: tuple(tensor.shape) for name, tensor in read.items()}
        _check_sizes(shapes, given, f"--example-inputs {npz.name}")
    if not given and fallback is not None:
        values = fallback if isinstance(fallback, (tuple, list)) else (fallback,)
        given = {name: torch.as_tensor(value) for name, value in zip(names, values, strict=False)}
    _check_names(names, given)
    ordered = {name: given[name] for name in names if name in given}
    free = {name: _free(shapes.get(name, ())) for name in ordered}
    fixed = {
        name: tuple(
            1 if size < 0 or (axis == 0 and axis in free[name]) else size
            for axis, size in enumerate(sizes.get(name, tensor.shape))
        )
        for name, tensor in ordered.items()
    }
    ordered = {
        name: resized(tensor, [_when_free(*axis) if axis[0] in free[name] else axis[1] for axis in _axes(tensor)])
        for name, tensor in ordered.items()
    }
    leading = next((k for k, (a, b) in enumerate(zip(names, ordered, strict=False)) if a != b), len(ordered))
    return Examples(ordered, free, fixed, leading)


def _axes(tensor: torch.Tensor) -> list[tuple[int, int]]:
    return list(enumerate(tensor.shape))


def _when_free(axis: int, size: int) -> int:
    """Return the size that a free axis is exported with: one for all batches, and never 1, which would stay fixed."""
    return FREE_BATCH if axis == 0 or size == 1 else size


def _check_sizes(shapes: Mapping[str, Sequence[int]], given: Mapping[str, torch.Tensor], where: str) -> None:
    for name in shapes.keys() & given.keys():
        have = tuple(given[name].shape)
        if not fits(have, shapes[name]):
            raise BadOption(f"--shape {name}={written(shapes[name])} contradicts {where}, which has {written(have)}")


def fits(have: Sequence[int | None], wanted: Sequence[int]) -> bool:
    """Tell whether a shape, free axes None, is of the rank of a hint and has the sizes that are not -1 in it."""
    return len(have) == len(wanted) and all(
        want < 0 or size in (None, want) for size, want in zip(have, wanted, strict=True)
    )


def filled(shape: Sequence[int], seen: Sequence[int] | None) -> tuple[int, ...]:
    """Return a shape whose free axes behind the batch have the sizes of a sample's, where that is of this shape."""
    if seen is None or not fits([None, *seen[1:]], [-1, *shape[1:]]):
        return tuple(shape)
    return tuple(have if axis and want < 0 else want for axis, (want, have) in enumerate(zip(shape, seen, strict=True)))


def shapes_in(npz: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of an `.npz` by name. Raises BadOption."""
    return {name: tuple(tensor.shape) for name, tensor in _read(npz).items()}


def written(shape: Sequence[int | None]) -> str:
    """Return a shape as --shape takes it."""
    return ",".join("-1" if size is None else str(size) for size in shape)


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
