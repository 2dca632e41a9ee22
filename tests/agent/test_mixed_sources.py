"""One bundle from several sources within one download: an agent, a broker, a web server and a folder, all real."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.fakes.agents import AgentProcess, wait_until
from tests.fakes.model_bundles import ModelBundle
from tests.fakes.sites import Site
from tests.fakes.sticks import Faults, HttpsServer, write_repository

from autoglm_edge_protocol.chunks import ChunkedFile, ChunkIndex
from autoglm_edge_protocol.deployment import DeploymentReport, DesiredState
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.manifest import CHUNK_INDEX_PATH

pytestmark = pytest.mark.one_broker

INPUT = np.random.default_rng(0).standard_normal((2, 700), dtype=np.float32)


def _large(site: Site, version: str = "1") -> ModelBundle:
    """A bundle whose model has 2 MB."""
    return site.bundle(version, width=700, repeat=2)


def _model(bundle: ModelBundle) -> ChunkedFile:
    index = parse(ChunkIndex, (bundle.directory / CHUNK_INDEX_PATH).read_bytes(), LIMITS.chunk_index_bytes)
    return max(index.files, key=lambda file: file.size_bytes)


def _repository(site: Site, name: str, bundle: ModelBundle) -> tuple[Path, Path]:
    """Return a folder with the bundle, and where the model lies in it."""
    site.fleet.repository.add(bundle.reference)
    folder = write_repository(site.directory / name, site.fleet.repository, bundle)
    digest = _model(bundle).sha256
    return folder, folder / "objects" / digest[:2] / digest


def _whole_chunks(file: ChunkedFile, size_bytes: int) -> int:
    """Return how many bytes the chunks have that end within so many bytes."""
    total = 0
    for chunk in file.chunks:
        if total + chunk.size_bytes > size_bytes:
            break
        total += chunk.size_bytes
    return total


def _of_fleet(site: Site, file: ChunkedFile) -> int:
    """Return how many bytes of a file the fleet was asked for."""
    requests = [request for request in site.fleet.requests if request.sha256 == file.sha256]
    blocks = [(block * request.block_bytes, request.block_bytes) for request in requests for block in request.blocks()]
    return sum(min(size_bytes, file.size_bytes - start) for start, size_bytes in blocks)


def _deployment(site: Site) -> DeploymentReport:
    report = site.fleet.reports["dev-1"].deployment
    assert report is not None and report.phase == "confirmed"
    return report


def _update(agent: AgentProcess, folder: Path) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("autoglm-edge-agent"))
    command = [program, "update", "--from", str(folder), "-c", str(agent.config), "--timeout", "60"]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)


def _assert_serves(agent: AgentProcess, bundle: ModelBundle) -> None:
    version, y = agent.infer("linear", INPUT)
    assert version == bundle.reference.version
    # float32 sums of 700 terms, twice: a different order of additions moves them by some 1e-5
    np.testing.assert_allclose(y, bundle.expected(bundle.expected(INPUT)), rtol=1e-3, atol=1e-3)


def test_half_a_model_from_a_stick_and_the_rest_from_the_fleet(site: Site) -> None:
    agent = site.agent()
    bundle = _large(site)
    site.fleet.publish(bundle)
    file = _model(bundle)
    folder, stick_model = _repository(site, "stick", bundle)
    data = stick_model.read_bytes()
    kept = len(data) // 2
    stick_model.write_bytes(data[:kept] + bytes(len(data) - kept))
    (folder / "desired").mkdir()
    desired = DesiredState(fleet=site.fleet.name, device="dev-1", generation=1, bundle=bundle.reference)
    (folder / "desired" / "dev-1.json").write_bytes(site.fleet.signed(desired, catalogue={}))
    wait_until(lambda: "dev-1" in site.fleet.reports, 20, "the device was never heard of")
    done = _update(agent, folder)
    assert done.returncode == 0, done.stderr
    missing = file.size_bytes - _whole_chunks(file, kept)
    report = site.fleet.wait_phase(1, "confirmed").deployment
    assert report is not None and report.fetched_bytes == missing > 900_000
    assert report.present_bytes + report.fetched_bytes == report.total_bytes
    assert missing <= _of_fleet(site, file) <= missing + 2 * LIMITS.block_bytes
    assert {request.sha256 for request in site.fleet.requests} == {file.sha256}, "all else was on the stick"
    _assert_serves(agent, bundle)


def test_a_server_that_breaks_off_an_agent_that_is_killed_and_the_fleet_for_the_rest(site: Site) -> None:
    bundle = _large(site)
    file = _model(bundle)
    folder, _ = _repository(site, "web", bundle)
    with HttpsServer(folder, site.directory / "certificates") as server:
        server.faults = Faults(breaks_after=600_000)
        agent = site.agent(repository_url=server.url, ca_file=server.ca_file)
        generation = site.deploy(bundle)
        first = _whole_chunks(file, 600_000)
        wait_until(lambda: _partial_bytes(agent, file) >= first, 40, "the server's bytes did not come")
        agent.kill()
        server.faults.goes_on.set()
        agent.start()
        site.fleet.wait_phase(generation, "confirmed")
        model = [(start, size) for name, start, size in server.served if name == file.sha256]
    second = first + _whole_chunks_from(file, first, 600_000)
    assert model == [(0, 600_000), (first, 600_000)], "what was there was not asked for again"
    missing = file.size_bytes - second
    assert 700_000 < missing <= _of_fleet(site, file) <= missing + 2 * LIMITS.block_bytes
    report = _deployment(site)
    assert report.present_bytes + report.fetched_bytes == report.total_bytes
    assert report.fetched_bytes == file.size_bytes - first
    _assert_serves(agent, bundle)


def _partial_bytes(agent: AgentProcess, file: ChunkedFile) -> int:
    path = agent.state / "partial" / file.sha256
    return path.stat().st_size if path.exists() else 0


def _whole_chunks_from(file: ChunkedFile, start: int, size_bytes: int) -> int:
    return _whole_chunks(file, start + size_bytes) - start


def test_a_device_that_never_asks_the_fleet_says_so_and_goes_on_when_the_server_has_it(site: Site) -> None:
    bundle = _large(site)
    file = _model(bundle)
    folder, web_model = _repository(site, "web", bundle)
    data = web_model.read_bytes()
    web_model.write_bytes(data[: len(data) // 2])
    with HttpsServer(folder, site.directory / "certificates") as server:
        sources = 'sources = ["folder", "https"]'
        agent = site.agent(repository_url=server.url, ca_file=server.ca_file, transfer=sources)
        wait_until(lambda: "dev-1" in site.fleet.reports, 20, "the device was never heard of")
        generation = site.deploy(bundle)
        hindered = site.hindered(generation, "no-source")
        assert hindered.fetched_bytes > _whole_chunks(file, len(data) // 2)
        web_model.write_bytes(data)
        site.fleet.wait_phase(generation, "confirmed")
    assert site.fleet.requests == []
    report = _deployment(site)
    assert (report.present_bytes, report.fetched_bytes) == (0, report.total_bytes)
    _assert_serves(agent, bundle)
