"""A site: the fake fleet and real agents on a broker that other tests may use at the same time."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from tests.fakes.agents import AgentProcess, wait_until
from tests.fakes.fleets import FakeFleet
from tests.fakes.model_bundles import Array, ModelBundle, make_model_bundle

from autoglm_edge_protocol.deployment import BundleReference, DeploymentReport, ReportedState
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.manifest import CHUNK_INDEX_PATH, MANIFEST_PATH

INPUT = np.random.default_rng(0).standard_normal((2, 64), dtype=np.float32)
Json = dict[str, Any]


class Site:
    def __init__(self, directory: Path, broker_url: str) -> None:
        self.directory = directory
        self.broker_url = broker_url
        self.fleet = FakeFleet(broker_url, f"fleet-{uuid.uuid4().hex[:12]}")
        self.agents: list[AgentProcess] = []

    def __enter__(self) -> Site:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for agent in self.agents:
            agent.close()
        self.fleet.__exit__(kind, error, trace)

    def agent(self, device: str = "dev-1", wrapper: list[str] | None = None, **options: Any) -> AgentProcess:
        if "root" not in options and not options.get("insecure"):
            options["root"] = self.root()
        agent = AgentProcess(self.directory / device, self.broker_url, device, fleet=self.fleet.name, **options)
        agent.wrapper = wrapper or []
        self.agents.append(agent)
        return agent.start()

    def root(self) -> Path:
        """Return the file with the root that devices are given."""
        path = self.directory / "root.json"
        path.write_bytes(self.fleet.repository.first_root)
        return path

    # bundles ----

    def bundle(self, version: str, **options: Any) -> ModelBundle:
        return make_model_bundle(self.directory / f"bundle-{version}", version=version, **options)

    def changed(self, bundle: ModelBundle, change: Callable[[Json], object]) -> ModelBundle:
        """Rewrite the manifest of a bundle."""
        path = bundle.directory / MANIFEST_PATH
        manifest = json.loads(path.read_text())
        change(manifest)
        path.write_text(json.dumps(manifest))
        return bundle

    def file_changed(self, bundle: ModelBundle, name: str, change: Callable[[bytes], bytes]) -> ModelBundle:
        """Rewrite a file of a bundle, and its size and digest in the manifest; the chunk index only if it is that."""
        path = bundle.directory / name
        data = change(path.read_bytes())
        path.write_bytes(data)

        def correct(manifest: Json) -> None:
            entry = next(entry for entry in manifest["files"] if entry["path"] == name)
            entry.update(size_bytes=len(data), sha256=sha256_of(data))

        return self.changed(bundle, correct)

    def index_changed(self, bundle: ModelBundle, change: Callable[[Json], object]) -> ModelBundle:
        def rewrite(data: bytes) -> bytes:
            index = json.loads(data)
            change(index)
            return json.dumps(index).encode()

        return self.file_changed(bundle, CHUNK_INDEX_PATH, rewrite)

    # deployments ----

    def deploy(self, bundle: ModelBundle, **more: Any) -> int:
        return self.fleet.deploy(self.fleet.publish(bundle), **more)

    def deploy_bytes(self, manifest: bytes, version: str) -> int:
        """Deploy a bundle whose manifest consists of these bytes, whatever they are."""
        path = self.directory / f"manifest-{version}"
        path.write_bytes(manifest)
        digest = sha256_of(manifest)
        self.fleet.offer(digest, path)
        return self.fleet.deploy(
            BundleReference(name="linear", version=version, manifest_sha256=digest, manifest_size_bytes=len(manifest))
        )

    def confirm(self, bundle: ModelBundle, timeout_s: float = 60) -> ReportedState:
        return self.fleet.wait_phase(self.deploy(bundle), "confirmed", timeout_s=timeout_s)

    def refused(self, generation: int, timeout_s: float = 60) -> DeploymentReport:
        """Wait until this generation is refused; returns the report of it."""
        report = self.fleet.wait_phase(generation, "failed", timeout_s=timeout_s).deployment
        assert report is not None
        return report

    def hindered(self, generation: int, code: str, timeout_s: float = 60) -> DeploymentReport:
        """Wait until the device reports what stands in the way of this generation."""

        def found() -> DeploymentReport | None:
            report = self.fleet.reports["dev-1"].deployment
            hindered = report and report.generation == generation and report.reason and report.reason.code == code
            return report if hindered else None

        report = wait_until(found, timeout_s, f"generation {generation} was never hindered by {code}")
        assert isinstance(report, DeploymentReport)
        return report

    def assert_serves(self, agent: AgentProcess, bundle: ModelBundle, x: Array = INPUT) -> None:
        version, y = agent.infer("linear", x)
        assert version == bundle.reference.version
        # float32 sums of 64 terms of about 1/8: a different order of additions moves them by some 1e-6
        np.testing.assert_allclose(y, bundle.expected(x), rtol=1e-4, atol=1e-5)
