"""A real agent, killed at every single operation of the file system of an update, with a real model serving."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tests.fakes.agents import wait_until
from tests.fakes.model_bundles import ModelBundle
from tests.fakes.sites import Site
from tests.faults import points
from tests.faults.killed_agents import NEVER, counted, wrapper
from tests.faults.remains import left_over

from autoglm_edge_protocol.deployment import BundleReference
from autoglm_edge_protocol.durable import Disk

WIDTH = 256
LANES = 2
"""Agents at a time."""


class Lane:
    """One agent that is killed at every n-th operation, n the number of lanes."""

    def __init__(self, site: Site, number: int, bundles: list[ModelBundle], references: list[BundleReference]) -> None:
        self._site = site
        self._bundles = bundles
        self._references = references
        self.device = f"dev-{number + 1}"
        self._control = site.directory / f"kill-{number}"
        self.agent = site.agent(self.device, wrapper=wrapper(self._control))
        self._first = number
        self._current = 0

    def run(self) -> tuple[list[int], list[int]]:
        """Return how many operations undisturbed updates have, and at which ones it was killed."""
        wait_until(lambda: self.device in self._site.fleet.reports, 30, "the device never came")
        for number in (1, 2, 0):  # the last of these updates has two bundles on the disk, as each one afterwards
            self._site.fleet.wait_phase(self._deploy(number), "confirmed", device=self.device)
        enumerated = [self._enumerate() for _ in self._bundles]
        operation = self._first
        while self._kill_at(operation):
            operation += LANES
        return enumerated, list(range(self._first, operation, LANES))

    def _enumerate(self) -> int:
        """Return how many operations the next update has."""
        self._current = self._next()
        Disk().commit(self._control, str(NEVER).encode())
        self._site.fleet.wait_phase(self._deploy(self._current), "confirmed", device=self.device)
        wait_until(lambda: not left_over(self.agent.state), 10, "something is left over")
        return counted(self._control)

    def _next(self) -> int:
        """Return the number of the bundle that is not on the device."""
        return (self._current + 1) % len(self._bundles)

    def _deploy(self, number: int) -> int:
        return self._site.fleet.deploy(self._references[number], device=self.device)

    def _kill_at(self, operation: int) -> bool:
        """Kill the agent at this operation of the next update; False when the update has fewer."""
        wanted = self._next()
        Disk().commit(self._control, str(operation).encode())
        generation = self._deploy(wanted)
        fleet, process = self._site.fleet, self.agent.process
        wait_until(
            lambda: process.poll() is not None or self._phase(generation) == "confirmed", 60, f"{operation}: no end"
        )
        if process.poll() is None:
            return False
        assert process.returncode == -signal.SIGKILL, (operation, process.returncode, self.agent.log_text()[-3000:])
        points.injected("an update with its probation", "kill -9 of the agent", operation)
        self.agent.start()
        self.agent.wait_serving()
        self._assert_serves(self._bundles[self._current], self._bundles[wanted])
        fleet.wait_phase(generation, "confirmed", device=self.device)
        self._assert_serves(self._bundles[wanted])
        self._current = wanted
        wait_until(lambda: not left_over(self.agent.state), 10, lambda: f"{operation}: {left_over(self.agent.state)}")
        return True

    def _phase(self, generation: int) -> str | None:
        report = self._site.fleet.reports[self.device].deployment
        return report.phase if report and report.generation == generation else None

    def _assert_serves(self, *bundles: ModelBundle) -> None:
        version, y = self.agent.infer("linear", np.zeros((1, WIDTH), np.float32), 20)
        serving = next(bundle for bundle in bundles if bundle.reference.version == version)
        # of zeros the model makes its bias, to the last bit but for the sums of 256 zeros
        np.testing.assert_allclose(y[0], serving.bias, rtol=1e-6)


@pytest.mark.one_broker
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_every_operation_of_an_update(site: Site) -> None:
    bundles = [site.bundle(str(number), seed=number, width=WIDTH, body=1, note=number * "n") for number in (1, 2, 3)]
    references = [site.fleet.publish(bundle) for bundle in bundles]
    lanes = [Lane(site, number, bundles, references) for number in range(LANES)]
    with ThreadPoolExecutor(LANES) as pool:
        results = list(pool.map(lambda lane: lane.run(), lanes))
    (enumerated,) = {count for counts, _ in results for count in counts}
    killed = sorted(operation for _, operations in results for operation in operations)
    print(f"{enumerated} operations, killed at {len(killed)}")
    assert enumerated > 100 and killed == list(range(enumerated))
