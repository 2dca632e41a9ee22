"""A TFLite variant goes through the whole agent: fetched, tried with its golden set, served."""

from __future__ import annotations

import numpy as np
import pytest
from tests.fakes.sites import INPUT, Site
from tests.fakes.tflite_layers import linear_tflite

from autoglm_edge_agent.inference.runtimes import installed_runtimes

pytestmark = pytest.mark.one_broker


@pytest.mark.skipif("litert" not in installed_runtimes(), reason="ai-edge-litert is not installed here")
def test_a_tflite_bundle_is_installed_and_answers(site: Site) -> None:
    agent = site.agent()
    random = np.random.default_rng(0)  # the weights of every bundle with the seed 0
    weights = random.standard_normal((64, 10), dtype=np.float32) / np.float32(8)
    model = linear_tflite(weights, random.standard_normal(10, dtype=np.float32))
    bundle = site.bundle("1", model_bytes=model, runtime="litert", form="tflite")
    site.confirm(bundle)
    site.assert_serves(agent, bundle, INPUT)  # of two rows where the file has one
    site.assert_serves(agent, bundle, INPUT[:1])
