"""Going the road from PyTorch as the command does: its program, a request, and the runners of what it wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from autoglm_edge_converter.original import Original
from autoglm_edge_converter.progress import Silent
from autoglm_edge_converter.roads.travel import Departure, Request, program_of, travel
from autoglm_edge_converter.runners import open_runner
from autoglm_edge_converter.tensors import Feed

NETWORKS = Path(__file__).with_name("networks.py")

TOLERANCE = 1e-5
"""Of a float file against PyTorch: rounding of float32 through a few layers, of answers around 1."""


def go(
    model: str | Path,
    scratch: Path,
    shapes: Mapping[str, Sequence[int]],
    formats: Sequence[str] = ("onnx",),
    **options: str,
) -> Departure:
    """Have a model loaded; a bare name is a factory in `networks.py`. Raises ConversionError."""
    scratch.mkdir(exist_ok=True)
    named = f"{NETWORKS}:{model}" if isinstance(model, str) and model.isidentifier() else str(model)
    return travel(program_of("pytorch"), Request(named, scratch, formats, shapes, options), Silent())


def feed_of(found: Departure | Original, seed: int = 0) -> Feed:
    """Return one call's inputs, normal; free axes have one."""
    generator = np.random.default_rng(seed)
    return {
        port.name: generator.standard_normal([size or 1 for size in port.shape or ()]).astype(port.dtype)
        for port in found.inputs
    }


def largest_difference(found: Departure | Original, feed: Feed) -> dict[str, float]:
    """Return by format how far the float files are from PyTorch; dtypes and shapes must be the same."""
    references = open_runner(found.runnable).run(feed)
    assert len(references) == len(found.outputs)
    differences = {}
    for rendition in found.renditions:
        assert rendition.problem is None, rendition.problem
        assert rendition.path is not None
        answers = open_runner(rendition.path).run(feed)
        assert [(a.dtype, a.shape) for a in answers] == [(r.dtype, r.shape) for r in references]
        pairs = zip(answers, references, strict=True)
        differences[rendition.format] = max(float(np.abs(a - r).max(initial=0)) for a, r in pairs)
    return differences
