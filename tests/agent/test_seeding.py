"""What travels, over a real broker, when a device has most of a bundle already."""

from __future__ import annotations

import numpy as np
import pytest
from tests.fakes.agents import AgentProcess
from tests.fakes.model_bundles import ModelBundle
from tests.fakes.sites import Site

from autoglm_edge_protocol.bundle import read_manifest
from autoglm_edge_protocol.deployment import DeploymentReport

WIDTH = 1024  # a body of 4.2 MB, a last layer of 41 KB


def _update(site: Site, bundle: ModelBundle) -> tuple[DeploymentReport, int]:
    """Deploy a bundle; returns the last report and the bytes that the fleet sent, metadata included."""
    before = site.fleet.sent_bytes
    report = site.confirm(bundle).deployment
    assert report is not None
    assert report.fetched_bytes + report.present_bytes == report.total_bytes
    return report, site.fleet.sent_bytes - before


def _answers(agent: AgentProcess, bundle: ModelBundle) -> None:
    x = np.random.default_rng(5).standard_normal((1, WIDTH), dtype=np.float32)
    version, y = agent.infer("linear", x)
    assert version == bundle.reference.version
    # two products of 1024 terms in float32
    np.testing.assert_allclose(y, bundle.expected(x), rtol=1e-3, atol=1e-4)


def test_a_new_last_layer_costs_what_changed(site: Site) -> None:
    agent = site.agent()
    first = site.bundle("1", width=WIDTH, body=1)
    report, sent = _update(site, first)
    assert sent >= report.total_bytes == report.fetched_bytes
    retrained = site.bundle("2", width=WIDTH, body=1, seed=2, note="so that no tensor is where it was")
    report, sent = _update(site, retrained)
    print(f"retrained: {sent / report.total_bytes:.1%} of {report.total_bytes} bytes sent, {report.fetched_bytes} new")
    assert sent <= 0.15 * report.total_bytes
    assert 0 < report.fetched_bytes <= sent
    _answers(agent, retrained)
    # The first bundle is in its slot as the previous one, whole on disk, index and all.
    report, sent = _update(site, site.bundle("3", width=WIDTH, body=1, seed=0, note="as the first"))
    assert sent <= 0.05 * report.total_bytes


def test_the_same_files_as_another_version_cost_next_to_nothing(site: Site) -> None:
    agent = site.agent()
    _update(site, site.bundle("1", width=WIDTH, body=1))
    again = site.bundle("2", width=WIDTH, body=1)
    report, sent = _update(site, again)
    print(f"released again: {sent / report.total_bytes:.2%} of {report.total_bytes} bytes sent")
    assert 0 < sent < 0.01 * report.total_bytes
    assert report.fetched_bytes == again.reference.manifest_size_bytes
    _answers(agent, again)


@pytest.mark.parametrize("damaged", ["variants/fp32/model.onnx", "chunks.json"])
def test_a_device_whose_seeds_are_damaged_fetches_them(site: Site, damaged: str) -> None:
    agent = site.agent()
    first = site.bundle("1", width=WIDTH, body=1)
    _update(site, first)
    sha256 = read_manifest(first.directory).file(damaged).sha256
    path = agent.state / "objects" / sha256[:2] / sha256
    data = path.read_bytes()
    path.unlink()  # the worker goes on with the file that it has
    path.write_bytes(bytes(byte ^ 255 for byte in data))
    second = site.bundle("2", width=WIDTH, body=1, seed=2, note="moved")
    report, sent = _update(site, second)
    assert sent >= report.fetched_bytes > 0.9 * report.total_bytes
    _answers(agent, second)
