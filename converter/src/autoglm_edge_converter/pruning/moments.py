"""Second moments of what layers read on the calibration samples: all that least squares and importance need of them.

Memory is bounded: positions are sampled, moments are [columns, columns] and layers too wide for that are seen
channel by channel (see `patches`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from autoglm_edge_converter.pruning.patches import Matrix, Window, rows_of
from autoglm_edge_converter.pruning.tracer import Layer
from autoglm_edge_converter.runners.onnx import open_session
from autoglm_edge_converter.tensors import Array, Feed

ROWS_PER_COLUMN = 8
FEWEST_ROWS, MOST_ROWS = 4096, 16384

Run = Callable[[onnx.ModelProto, Sequence[str], Sequence[Feed]], Iterator[dict[str, Array]]]
"""Runs a model over samples and gives, sample by sample, the values of the tensors named."""


def run_here(proto: onnx.ModelProto, names: Sequence[str], feeds: Sequence[Feed]) -> Iterator[dict[str, Array]]:
    """Run a model in this process, only as far as the tensors named need it. Errors of the runtime pass through."""
    computed = [name for name in dict.fromkeys(names) if all(name != value.name for value in proto.graph.input)]
    part = onnx.ModelProto()
    part.CopyFrom(proto)
    del part.graph.output[:]
    part.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in computed)
    session = open_session(part.SerializeToString()) if computed else None
    for feed in feeds:
        values = dict(zip(computed, session.run(computed, feed), strict=True)) if session is not None else {}
        yield values | {name: feed[name] for name in names if name in feed}


@dataclass(frozen=True)
class Reader:
    """A layer that reads channels which may be pruned, and how it is seen as a matrix."""

    layer: Layer
    input: str
    window: Window
    bias: str | None
    """The bias that takes a shift, None where none can."""
    fits: bool
    """False: its weight is shared, so it stays as it is."""
    seed: int

    @property
    def columns(self) -> int:
        """The width of a row of one group of channels."""
        assert self.layer.inputs is not None
        return len(self.layer.inputs) // self.layer.groups * self.window.taps

    def rows_per_sample(self, samples: int) -> int:
        """How many positions to look at in each sample."""
        wanted = min(MOST_ROWS, max(FEWEST_ROWS, ROWS_PER_COLUMN * self.columns))
        return -(-wanted // samples)

    def rows(self, values: Array, sample: int, wanted: int, part: int) -> Array:
        """Return rows of one group of channels in one sample, [rows, columns + 1]; the last column is the constant.

        The same positions each time, also after channels were taken out.
        """
        if self.layer.groups > 1:
            channels = values.shape[1] // self.layer.groups
            values = values[:, part * channels : (part + 1) * channels]
        rng = np.random.default_rng((self.seed, sample))
        rows = rows_of(self.layer, self.window, values, wanted, rng)
        return np.concatenate([rows, np.full((len(rows), 1), self.bias is not None, rows.dtype)], axis=1)


Moments = tuple[Matrix, ...]
"""Mean of the outer products of rows, float64 [columns + 1, columns + 1], one for each group of channels."""


def collect(
    proto: onnx.ModelProto, readers: Sequence[Reader], feeds: Sequence[Feed], run: Run = run_here
) -> dict[str, Moments]:
    """Return the moments of every reader, by its layer's node."""
    sums: dict[tuple[str, int], Matrix] = {}
    counts: dict[str, int] = {}
    for sample, values in enumerate(run(proto, [reader.input for reader in readers], feeds)):
        for reader in readers:
            node = reader.layer.node
            for part in range(reader.layer.groups):
                rows = reader.rows(values[reader.input], sample, reader.rows_per_sample(len(feeds)), part)
                sums[node, part] = sums.get((node, part), 0) + rows.T @ rows
                counts[node] = counts.get(node, 0) + (len(rows) if part == 0 else 0)
    return {
        reader.layer.node: tuple(
            sums[reader.layer.node, part] / counts[reader.layer.node] for part in range(reader.layer.groups)
        )
        for reader in readers
    }
