"""The last look at a bundle before it is published: every byte as listed, every variant within its tolerances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from autoglm_edge_converter.errors import ConversionError
from autoglm_edge_converter.remembering import Remembering
from autoglm_edge_converter.runners import open_runner
from autoglm_edge_converter.tensors import Array, numpy_name
from autoglm_edge_protocol import bundle, golden
from autoglm_edge_protocol.golden import GoldenSample
from autoglm_edge_protocol.manifest import Variant


def verify_bundle(
    directory: Path, outputs: Sequence[str], stand_ins: Mapping[str, Path] = MappingProxyType({})
) -> None:
    """Check digests, then load every variant from its place and replay the golden set as a device will.

    `outputs`: names in the order of the files. `stand_ins`: by variant, the file that answers in its place here; its
    own is then only loaded and run.

    Raises ConversionError, autoglm_edge_protocol.errors.ProtocolError, OSError.
    """
    manifest = bundle.verify(directory)
    samples = golden.load(directory / manifest.golden)
    for variant in manifest.variants:
        path = directory / variant.model
        if variant.id in stand_ins:
            replay(path, variant, samples[:1], outputs)
            path = stand_ins[variant.id]
        violations = replay(path, variant, samples, outputs)
        if violations:
            raise ConversionError(
                f"variant {variant.id} of the written bundle is not what was measured: "
                f"{violations[0].output}: {violations[0].message}"
            )


def replay(
    model: Path, variant: Variant, samples: Sequence[GoldenSample], outputs: Sequence[str] = ()
) -> list[golden.Violation]:
    """Replay the golden set on a model file in the role of `variant`: one sequence where it has states.

    `outputs`: names in the order of the file, needed where there are states. Errors of the runtime pass through.
    """
    states = {state.input.name: outputs.index(state.output) for state in variant.states}
    beginning = {s.input.name: np.zeros(s.input.shape, numpy_name(s.input.datatype)) for s in variant.states}
    runner = Remembering(open_runner(model), states, beginning)

    def run(inputs: Sequence[Array]) -> Sequence[Array]:
        feed = {spec.name: array for spec, array in zip(variant.inputs, inputs, strict=True)}
        return [array for number, array in enumerate(runner.run(feed)) if number not in states.values()]

    return golden.replay(samples, variant.tolerances, run)
