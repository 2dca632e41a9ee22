"""The example of a third party's backend, installed as its owner would, serves through the agent's own worker."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.fakes.sites import INPUT, Site

pytestmark = pytest.mark.one_broker

EXAMPLE = Path(__file__).parents[3] / "examples" / "backend_numpy"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example's package, in a folder that every process of the test finds."""
    target = tmp_path / "installed"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(target), str(EXAMPLE)], check=True, timeout=120)
    monkeypatch.setenv("PYTHONPATH", str(target))


@pytest.mark.usefixtures("installed")
def test_a_bundle_for_a_runtime_of_a_third_party_is_installed_and_answers(site: Site) -> None:
    agent = site.agent()
    random = np.random.default_rng(0)  # the weights of every bundle with the seed 0
    weights = random.standard_normal((64, 10), dtype=np.float32) / np.float32(8)
    bias = random.standard_normal(10, dtype=np.float32)
    file = io.BytesIO()
    np.savez(file, w0=weights, b0=bias)
    bundle = site.bundle("1", model_bytes=file.getvalue(), runtime="numpy-dense", form="npz")
    report = site.confirm(bundle)
    assert report.facts.runtimes["numpy-dense"] == "0.3.0"
    site.assert_serves(agent, bundle, INPUT)
