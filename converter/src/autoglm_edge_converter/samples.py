"""Reading calibration data: one `.npz`, or a folder with one `.npz` or `.npy` per sample.

In a single `.npz` each array belongs to one input and has the samples along its first axis. In a folder each file is
one whole call of the model, batch axis included, so samples may differ in shape. Where a model has a single input,
any name serves. Nothing is converted: an array of another dtype or shape than the model takes is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from autoglm_edge_converter.errors import NoSamples, SampleMismatch, UnknownShape
from autoglm_edge_converter.tensors import Array, Feed, Port
from autoglm_edge_protocol.digests import sha256_of, sha256_of_file

_SUFFIXES = (".npz", ".npy")


def load_samples(path: Path, inputs: Sequence[Port]) -> tuple[Feed, ...]:
    """Read every sample at `path` for the inputs given, in a fixed order.

    Raises NoSamples, SampleMismatch, UnknownShape, OSError.
    """
    samples = tuple(_from_folder(path, inputs) if path.is_dir() else _from_file(path, inputs))
    if not samples:
        raise NoSamples(f"{path} holds no samples: give .npz or .npy files with inputs of the model")
    for number, sample in enumerate(samples):
        _check_finite(sample, number)
    return samples


def samples_digest(path: Path) -> str:
    """Return the SHA-256 of the calibration data; a folder's is that of its files' names and digests."""
    if not path.is_dir():
        return sha256_of_file(path)
    lines = [f"{file.name} {sha256_of_file(file)}\n" for file in _files(path)]
    return sha256_of("".join(lines).encode())


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES)


def _from_folder(folder: Path, inputs: Sequence[Port]) -> Iterator[Feed]:
    for file in _files(folder):
        arrays = _match(_read(file), inputs, str(file))
        for port in inputs:
            _check(arrays[port.name], port, port.shape, str(file))
        yield arrays


def _from_file(path: Path, inputs: Sequence[Port]) -> Iterator[Feed]:
    if not path.exists():
        raise NoSamples(f"{path} does not exist: give an .npz file, or a folder with one .npz or .npy per sample")
    arrays = _match(_read(path), inputs, str(path))
    columns = {port.name: _cut(arrays[port.name], port, str(path)) for port in inputs}
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        raise SampleMismatch(f"{path}: the inputs have different numbers of samples: {counts}")
    for index in range(min(counts.values())):
        yield {name: column[index] for name, column in columns.items()}


def _read(path: Path) -> dict[str, Array]:
    with path.open("rb") as file:
        try:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {path.stem: loaded}
            with loaded:
                return {name: loaded[name] for name in loaded.files}
        except Exception as error:
            # A dozen types come out of the zip reader, zlib and the header parser; all mean the same to a user.
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise NoSamples(f"{path} cannot be read as .npz or .npy ({reason}): write it with numpy.savez") from None


def _match(arrays: Mapping[str, Array], inputs: Sequence[Port], where: str) -> Feed:
    names = [port.name for port in inputs]
    if all(name in arrays for name in names):
        return {name: arrays[name] for name in names}
    if len(names) == 1 and len(arrays) == 1:
        return {names[0]: next(iter(arrays.values()))}
    missing = next(name for name in names if name not in arrays)
    found = ", ".join(sorted(arrays)) or "nothing"
    raise SampleMismatch(f"{where} has no array named after input {missing!r} (it has: {found}): rename one with savez")


def _cut(array: Array, port: Port, where: str) -> list[Array]:
    """Return one array per sample, each with the rank that the model takes."""
    if port.shape is None:
        raise UnknownShape(port.name)
    rank = len(port.shape)
    if array.ndim == rank + 1:
        samples = list(array)
    elif array.ndim == rank and rank > 0:
        batch = port.shape[0] or 1
        if len(array) % batch:
            raise SampleMismatch(f"{where}: {len(array)} rows of {port.name!r} do not fill batches of {batch}")
        samples = [array[start : start + batch] for start in range(0, len(array), batch)]
    else:
        raise SampleMismatch(
            f"{where}: array for {port.name!r} has {array.ndim} axes, expected {rank} (samples along the first) "
            f"for the shape {_written(port.shape)}"
        )
    for sample in samples[:1]:
        _check(sample, port, port.shape, where)
    return samples


def _check(array: Array, port: Port, shape: tuple[int | None, ...] | None, where: str) -> None:
    if array.dtype.name != port.dtype:
        raise SampleMismatch(
            f"{where}: array for {port.name!r} is {array.dtype.name}, the model takes {port.dtype}: "
            f"give it pre-processed as the model expects, .astype(numpy.{port.dtype}) with the right scale"
        )
    if shape is not None and (
        array.ndim != len(shape)
        or any(want not in (None, have) for want, have in zip(shape, array.shape, strict=True))
        or 0 in array.shape
    ):
        raise SampleMismatch(
            f"{where}: a sample of {port.name!r} is {list(array.shape)}, the model takes {_written(shape)}"
        )


def _check_finite(sample: Feed, number: int) -> None:
    for name, array in sample.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise SampleMismatch(f"sample {number} of {name!r} holds NaN or infinity: leave it out")


def _written(shape: tuple[int | None, ...]) -> str:
    return "[" + ",".join("N" if axis is None else str(axis) for axis in shape) + "]"
