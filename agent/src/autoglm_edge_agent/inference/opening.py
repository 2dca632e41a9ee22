"""From a variant and a plan to a session in the terms of the applications."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from autoglm_edge_agent.client.datatypes import DATATYPES
from autoglm_edge_agent.inference.backends import Session, load_backend
from autoglm_edge_agent.inference.conversion import Converted, in_file
from autoglm_edge_agent.inference.errors import ModelUnusable
from autoglm_edge_agent.inference.hardware import hardware_key
from autoglm_edge_agent.inference.options import Plan, SessionOptions
from autoglm_edge_agent.inference.runtimes import installed_runtimes, usable_runtimes
from autoglm_edge_agent.inference.state import Stateful
from autoglm_edge_protocol import golden
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.golden import GoldenSample, Violation
from autoglm_edge_protocol.manifest import TensorSpec, Variant


def runtime_of(variant: Variant, plan: Plan) -> str:
    """Return the runtime that a plan names, or the first of the variant's that is installed."""
    usable = (plan.runtime,) if plan.runtime else usable_runtimes(variant, installed_runtimes())
    return usable[0] if usable else variant.needs.runtime


def open_variant(bundle: Path, variant: Variant, plan: Plan) -> Session:
    """Load a variant of an installed bundle. Raises ModelUnusable, OSError."""
    tensors = (*variant.inputs, *variant.outputs, *(state.input for state in variant.states))
    if strange := [t.datatype for t in (*tensors, *map(in_file, tensors)) if t.datatype not in (*DATATYPES, "BYTES")]:
        raise ModelUnusable(f"the datatype {strange[0]} is unknown here")
    if text := [state.input.name for state in variant.states if state.input.datatype not in DATATYPES]:
        raise ModelUnusable(f"the state {text[0]} is text")
    runtime = runtime_of(variant, plan)
    session = load_backend(runtime).open(
        bundle / variant.model,
        _file_inputs(variant),
        _file_outputs(variant),
        _options(bundle, variant, plan, runtime),
    )
    if variant.states:
        session = Stateful(session, variant.states)
    if any(tensor.stored for tensor in tensors):
        session = Converted(session, variant.inputs, variant.outputs)
    return session


def replay(samples: Sequence[GoldenSample], variant: Variant, session: Session) -> list[Violation]:
    """Run the golden set: as one sequence where the manifest names states, each sample by itself where it does not.

    Leaves nothing behind in the model. Raises what `golden.replay` and the session raise.
    """

    def alone(inputs: Sequence[golden.Array]) -> Sequence[golden.Array]:
        session.reset()
        return session.run(inputs)

    session.reset()
    try:
        return golden.replay(samples, variant.tolerances, session.run if variant.states else alone)
    finally:
        session.reset()


def _file_inputs(variant: Variant) -> list[TensorSpec]:
    return [in_file(spec) for spec in (*variant.inputs, *(state.input for state in variant.states))]


def _file_outputs(variant: Variant) -> list[TensorSpec]:
    states = [state.input.model_copy(update={"name": state.output}) for state in variant.states]
    return [in_file(spec) for spec in (*variant.outputs, *states)]


def _options(bundle: Path, variant: Variant, plan: Plan, runtime: str) -> SessionOptions:
    """Return the plan's options with what the variant and this device add."""
    paths = variant.needs.custom_ops.get(platform.machine(), ())
    registerers = variant.needs.custom_op_registerers
    options, folder = plan.options, plan.options.cached_graph
    update = {
        "custom_ops": tuple(bundle / path for path in paths),
        "registerers": tuple(registerers.get(path, "") for path in paths),
        # Such a graph is worth nothing to another release, processor or degree of optimisation.
        "cached_graph": folder and folder / f"{variant.id}-{_graph_key(runtime, options.optimisation)}",
    }
    return options.model_copy(update=update)


def _graph_key(runtime: str, optimisation: str) -> str:
    version = installed_runtimes().get(runtime, "")
    return sha256_of(f"{version} {hardware_key()} {optimisation}".encode())[:16]
