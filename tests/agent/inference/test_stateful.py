"""A variant with a state, from its manifest: the golden set is one sequence, and nothing of it is left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.fakes.model_bundles import make_model_bundle
from tests.fakes.onnx_writer import running_sum_model

from autoglm_edge_agent.inference.opening import open_variant, replay
from autoglm_edge_agent.inference.options import Plan
from autoglm_edge_protocol.bundle import read_manifest
from autoglm_edge_protocol.golden import GoldenSample
from autoglm_edge_protocol.manifest import State, TensorSpec, Tolerance, Variant

WIDTH = 3


def _tensor(name: str) -> TensorSpec:
    return TensorSpec(name=name, datatype="FP32", shape=(1, WIDTH))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_model_bundle(tmp_path / "bundle", model_bytes=running_sum_model(WIDTH)).directory


@pytest.fixture
def variant(bundle: Path) -> Variant:
    found = read_manifest(bundle).variants[0]
    change = {
        "inputs": (_tensor("x"),),
        "outputs": (_tensor("y"),),
        "states": (State(input=_tensor("before"), output="after"),),
        "tolerances": (Tolerance(output="y", min_sqnr_db=80.0),),
    }
    return Variant.model_validate(found.model_copy(update=change).model_dump())


def test_the_golden_set_is_a_sequence_that_begins_anew(bundle: Path, variant: Variant) -> None:
    session = open_variant(bundle, variant, Plan())
    steps = np.arange(1, 5, dtype=np.float32).reshape(4, 1, 1) * np.ones((1, 1, WIDTH), np.float32)
    samples = [GoldenSample((x,), (y,)) for x, y in zip(steps, steps.cumsum(axis=0), strict=True)]
    assert replay(samples, variant, session) == []
    assert replay(samples, variant, session) == [], "what the first replay left behind would show"
    assert replay(samples[::-1], variant, session) != []
    np.testing.assert_array_equal(session.run([steps[0]])[0], steps[0])


def test_a_runtime_that_does_not_know_the_state_refuses_the_model(bundle: Path, variant: Variant) -> None:
    without = variant.model_copy(update={"states": ()})
    with pytest.raises(ValueError, match="before"):
        open_variant(bundle, without, Plan()).run([np.zeros((1, WIDTH), np.float32)])
