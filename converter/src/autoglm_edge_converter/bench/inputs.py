"""What a model is fed when it is timed: the golden set of its bundle, or random numbers of the right shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from autoglm_edge_converter.errors import BadOption, UnknownShape
from autoglm_edge_converter.tensors import Array, Feed, Port

RANDOM_SAMPLES = 4


def random_feeds(ports: Sequence[Port], seed: int) -> list[Feed]:
    """Return samples from a standard normal distribution for floats; 0 or 1 for integers, which are often indices.

    A free first axis is a batch of one. Raises BadOption where another axis is free, UnknownShape.
    """
    random = np.random.default_rng(seed)
    shapes = {port.name: _whole(port) for port in ports}
    return [{port.name: _draw(random, port, shapes[port.name]) for port in ports} for _ in range(RANDOM_SAMPLES)]


def _whole(port: Port) -> tuple[int, ...]:
    if port.shape is None:
        raise UnknownShape(port.name)
    axes = (1 if axis is None and number == 0 else axis for number, axis in enumerate(port.shape))
    shape = tuple(-1 if axis is None else axis for axis in axes)
    if -1 in shape:
        written = ",".join("?" if axis == -1 else str(axis) for axis in shape)
        raise BadOption(f"input {port.name!r} has free axes [{written}]: give it with --shape {port.name}=1,3,224,224")
    return shape


def _draw(random: np.random.Generator, port: Port, shape: tuple[int, ...]) -> Array:
    try:
        dtype = np.dtype(port.dtype)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    if dtype.kind in "iub":
        return random.integers(0, 2, shape).astype(dtype)
    raise BadOption(
        f"input {port.name!r} takes {port.dtype}, which cannot be made up: bench a bundle, which has inputs"
    )


def as_arrays(feeds: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Return the inputs as arrays named `SAMPLE.INPUT`, as the worker reads them."""
    return {f"{number}.{name}": array for number, feed in enumerate(feeds) for name, array in feed.items()}
