"""A bundle on its way to a real device, through a proxy and a real broker; and what must be true when it is there.

The bounds stand here with their reasons. They hold for windows of 16 to 64 blocks.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from tests.fakes.agents import AgentProcess, wait_until
from tests.fakes.fleet_processes import FleetProcess
from tests.fakes.memory import MemoryWatch
from tests.fakes.model_bundles import ModelBundle, make_model_bundle
from tests.fakes.proxies import Proxy
from tests.fakes.spies import Spy

from autoglm_edge_fleet.deployments import Deployment
from autoglm_edge_fleet.devices import Device
from autoglm_edge_protocol.deployment import BundleReference
from autoglm_edge_protocol.digests import sha256_of, sha256_of_file
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.manifest import CHUNK_INDEX_PATH, MANIFEST_PATH, Manifest

WIDTH = 2000
"""Of the model: 2000 x 2000 weights of four bytes are 16 MB in one file."""
PAUSE_BYTES = 8_000_000
"""Where the transfer is when the fault happens: further from either end than a window of 64 blocks."""

MOST_OUTSTANDING = 64
"""Blocks that one interruption costs at most: those asked for and not there, all of which are sent again."""
CUT_CHUNKS = 8
"""Blocks more that a device asks for when it was killed: what has come of a chunk that is not whole cannot be known."""
METADATA_BLOCKS = 16
"""Blocks of signed metadata: some six small files, and again where an interruption falls on them."""
FEWEST_ASKED = 8
"""Blocks that a request names, half of the smallest window, unless it is the last for its file."""
FILES = 16
"""Files that are fetched for one bundle, with the metadata."""
RETRY_S = 2.0
"""The shortest silence after which a device asks again; it doubles up to 30 s, which only makes requests fewer."""
GROWTH_BYTES = 12 * 1024 * 1024
"""Of the agent and of the fleet's daemon, less than the bundle: a window of 64 blocks has 4 MB and may wait twice over,
at the link and at the fetcher, and the daemon gives the socket 2 MB at a time; the rest is Python's."""


def most_blocks(useful: int, interruptions: int) -> int:
    """Return how many blocks may be sent so that `useful` arrive."""
    return useful + METADATA_BLOCKS + interruptions * (MOST_OUTSTANDING + CUT_CHUNKS)


def most_requests(useful: int, interruptions: int, elapsed_s: float) -> int:
    """Return how many requests may be seen: those for every block, and one for each time the retry timer can fire."""
    return most_blocks(useful, interruptions) // FEWEST_ASKED + FILES + interruptions + int(elapsed_s / RETRY_S)


def make_large_bundle(directory: Path) -> ModelBundle:
    return make_model_bundle(directory, width=WIDTH, repeat=2)


def reference_of(bundle: Path) -> BundleReference:
    """Return what orders name a bundle by."""
    data = (bundle / MANIFEST_PATH).read_bytes()
    manifest = parse(Manifest, data, LIMITS.manifest_bytes)
    return BundleReference(
        name=manifest.name,
        version=manifest.version,
        manifest_sha256=sha256_of(data),
        manifest_size_bytes=len(data),
    )


def source_files(bundle: Path) -> dict[str, str]:
    """Return what a device of this machine's kind installs of a bundle: paths, and digests of what is really there."""
    manifest = parse(Manifest, (bundle / MANIFEST_PATH).read_bytes(), LIMITS.manifest_bytes)
    entries = manifest.device_files(manifest.variants[0], platform.machine())
    return {path: sha256_of_file(bundle / path) for path in (MANIFEST_PATH, *(entry.path for entry in entries))}


def installed_files(tree: Path) -> dict[str, str]:
    """Return the files of an installed bundle in the same way."""
    return {str(path.relative_to(tree)): sha256_of_file(path) for path in tree.rglob("*") if path.is_file()}


def useful_blocks(bundle: Path, block_bytes: int = LIMITS.block_bytes) -> int:
    """Return how many blocks a device needs of a bundle, if each comes once."""
    paths = {*source_files(bundle), CHUNK_INDEX_PATH}
    return sum(-(-(bundle / path).stat().st_size // block_bytes) for path in paths)


class ProxiedSite:
    """A device behind a proxy, a fleet's daemon, and a spy at the broker; all of them real.

    Args:
        broker_port: where the fleet and the spy are connected.
        device_port: where the proxy leads.
    """

    def __init__(self, directory: Path, broker_port: int, device_port: int | None = None, settings: str = "") -> None:
        self.directory = directory
        self.broker_port = broker_port
        self.device_port = device_port or broker_port
        self._settings = settings
        self._stack = ExitStack()

    def __enter__(self) -> ProxiedSite:
        with self._stack as stack:
            self.side = FleetProcess(self.directory / "fleet", f"mqtt://127.0.0.1:{self.broker_port}")
            settings = self.side.directory / "fleet.toml"
            settings.write_text(settings.read_text() + self._settings)
            stack.enter_context(self.side)
            self.spy = stack.enter_context(Spy(self.broker_port))
            self.proxy = stack.enter_context(Proxy(self.device_port))
            root = self.side.fleet.trust.root_path
            self.agent = AgentProcess(self.directory / "agent", self.proxy.url, root=root)
            stack.enter_context(self.agent)
            wait_until(lambda: self._devices() and self._devices()[0].report, 30, "the device was never heard of")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, tb)

    def _devices(self) -> tuple[Device, ...]:
        return self.side.fleet.devices()

    @property
    def sent_blocks(self) -> int:
        """By the fleet's own count, which its daemon writes once a second and when it ends."""
        return self._devices()[0].sent_blocks

    def wait_counted(self) -> None:
        """Wait until the fleet has sent all that was asked for, and has written so."""
        wait_until(lambda: self.sent_blocks == self.spy.blocks, 10, "the fleet has not sent what was asked for")

    def paused_again(self, size_bytes: int) -> None:
        """Let so many bytes pass, and wait until they have."""
        self.proxy.pause_after(size_bytes)
        self.proxy.resume()
        assert self.proxy.stopped.wait(30), "the transfer did not go on"

    def endure(
        self,
        bundle: ModelBundle,
        fault: Callable[[ProxiedSite], None],
        interruptions: int | None,
        pause_bytes: int = PAUSE_BYTES,
    ) -> Deployment:
        """Deploy a bundle, let the fault happen when a good part of it has come, and see it through.

        `fault` finds the device's line paused after so many bytes. `interruptions`: how often it makes the device begin
        a window anew; None: as often as its retry timer can fire.
        """
        self.side.fleet.publish(bundle.directory)
        pids = {"device": lambda: self.agent.process.pid, "controller": lambda: self.side.pid}
        with MemoryWatch(pids) as memory:
            started = time.monotonic()
            self.proxy.pause_after(pause_bytes)
            issued = self.side.fleet.deploy(bundle.reference.id, [self.agent.device])
            assert self.proxy.stopped.wait(60), "the transfer never came so far"
            fault(self)
            ended = self.side.fleet.wait_for_deployments(issued, 90)[0]
            elapsed_s = time.monotonic() - started
        assert ended.phase == "confirmed", ended
        assert installed_files(self.agent.state / "bundles" / bundle.reference.manifest_sha256) == source_files(
            bundle.directory
        )
        assert self.side.stop() == 0  # it writes its counters
        if interruptions is None:
            interruptions = int(elapsed_s / RETRY_S)
        useful = useful_blocks(bundle.directory, self.spy.requests[-1].block_bytes)
        sent, requests = self.sent_blocks, len(self.spy.requests)
        print(
            f"{elapsed_s:.1f} s, {useful} blocks useful, {sent} sent, {self.spy.blocks} asked for in {requests}"
            f" requests, memory { ({name: size // 1024 for name, size in memory.growth_bytes.items()}) } KiB"
        )
        assert useful <= sent <= most_blocks(useful, interruptions)
        assert requests <= most_requests(useful, interruptions, elapsed_s)
        assert max(memory.growth_bytes.values()) <= GROWTH_BYTES
        return ended
