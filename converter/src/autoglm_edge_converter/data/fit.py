"""Whether arrays are what the model's inputs take. Nothing is converted: another dtype or shape is an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from autoglm_edge_converter.errors import SampleMismatch, UnknownShape
from autoglm_edge_converter.tensors import Array, Feed, Port


def match(arrays: Mapping[str, Array], inputs: Sequence[Port], where: str) -> Feed:
    """Return the array of each input: by name, or the only one for the only input. Raises SampleMismatch."""
    names = [port.name for port in inputs]
    if all(name in arrays for name in names):
        return {name: arrays[name] for name in names}
    if len(names) == 1 and len(arrays) == 1:
        return {names[0]: next(iter(arrays.values()))}
    missing = next(name for name in names if name not in arrays)
    found = ", ".join(sorted(arrays)) or "nothing"
    raise SampleMismatch(f"{where} has no array named after input {missing!r} (it has: {found}): rename one with savez")


def cut(array: Array, port: Port, where: str) -> list[Array]:
    """Return one array per sample, each with the rank that the model takes. Raises SampleMismatch, UnknownShape."""
    if port.shape is None:
        raise UnknownShape(port.name)
    rank = len(port.shape)
    if array.ndim == rank + 1:
        samples = [np.asarray(sample) for sample in array]  # the runtime takes no numpy scalars
    elif array.ndim == rank and rank > 0:
        batch = port.shape[0] or 1
        if len(array) % batch:
            raise SampleMismatch(f"{where}: {len(array)} rows of {port.name!r} do not fill batches of {batch}")
        samples = [array[start : start + batch] for start in range(0, len(array), batch)]
    else:
        raise SampleMismatch(
            f"{where}: array for {port.name!r} has {array.ndim} axes, expected {rank} (samples along the first) "
            f"for the shape {written(port.shape)}"
        )
    for sample in samples[:1]:
        check(sample, port, where)
    return samples


def check(array: Array, port: Port, where: str) -> None:
    """Check dtype and shape of one sample's input. Raises SampleMismatch."""
    if array.dtype.name != port.dtype:
        raise SampleMismatch(
            f"{where}: array for {port.name!r} is {array.dtype.name}, the model takes {port.dtype}: "
            f"give it pre-processed as the model expects, .astype(numpy.{port.dtype}) with the right scale"
        )
    if port.shape is not None and not _fits(array, port.shape):
        raise SampleMismatch(
            f"{where}: a sample of {port.name!r} is {list(array.shape)}, the model takes {written(port.shape)}"
        )


def _fits(array: Array, shape: Sequence[int | None]) -> bool:
    if array.ndim != len(shape) or 0 in array.shape:
        return False
    return all(want in (None, have) for want, have in zip(shape, array.shape, strict=True))


def check_finite(sample: Feed, name: str) -> None:
    """Refuse NaN and infinity. Raises SampleMismatch."""
    for port, array in sample.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise SampleMismatch(f"{name} of {port!r} holds NaN or infinity: leave it out")


def written(shape: Sequence[int | None]) -> str:
    """Return a shape as people read it, N where an axis is free."""
    return "[" + ",".join("N" if axis is None else str(axis) for axis in shape) + "]"
