"""The parts of an agent that touch the disk, in the test's own process, with a fleet that answers at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.fakes.model_bundles import ModelBundle
from tests.faults.disks import PowerLost

from autoglm_edge_agent.config import ProbationSection
from autoglm_edge_agent.errors import Refusal
from autoglm_edge_agent.storage.store import Store
from autoglm_edge_agent.updates.fetch import Fetcher
from autoglm_edge_agent.updates.fit import Capabilities
from autoglm_edge_agent.updates.observation import Observation
from autoglm_edge_agent.updates.receiving import Block
from autoglm_edge_agent.updates.updater import Updater
from autoglm_edge_protocol.bundle import read_manifest
from autoglm_edge_protocol.deployment import DesiredState, Installed, Reason
from autoglm_edge_protocol.digests import sha256_of_file
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.errors import MalformedBundle
from autoglm_edge_protocol.manifest import MANIFEST_PATH
from autoglm_edge_protocol.probation import ProbationTerms, ShadowTerms
from autoglm_edge_protocol.transfer import FetchRequest, StreamCredit

BOARD = Capabilities({"onnxruntime": "1.20.0"}, 1 << 34, measures=True, machine="board")
_TERMS = ProbationTerms(duration_s=0.002, inferences=0, patience_s=0.002, max_crashes=20)
PROBATION = ProbationSection(default=_TERMS)


class Source:
    """A fleet in the same process: answers each request at once."""

    connected = True

    def __init__(self, *bundles: ModelBundle) -> None:
        self._files: dict[str, bytes] = {}
        self.fetcher: Fetcher | None = None
        for bundle in bundles:
            self._files[bundle.reference.manifest_sha256] = (bundle.directory / MANIFEST_PATH).read_bytes()
            for entry in read_manifest(bundle.directory).files:
                self._files[entry.sha256] = (bundle.directory / entry.path).read_bytes()

    def request(self, request: FetchRequest) -> bool:
        assert self.fetcher is not None
        data = self._files[request.sha256]
        for block in request.blocks():
            start = block * request.block_bytes
            self.fetcher.deliver(Block(request.sha256, start, data[start : start + request.block_bytes]))
        return True

    def credit(self, credit: StreamCredit) -> bool:
        raise AssertionError(f"nothing is streamed here, but {credit} came")

    async def acknowledged_credit(self, credit: StreamCredit) -> None:
        self.credit(credit)

    def follow(self, sha256: str) -> None:
        """Nobody else is there: what is asked for comes to this device alone."""

    def unfollow(self, sha256: str) -> None:
        """Nothing was followed."""


class Models:
    """Runs no model, but looks at the files as a worker would: a trial of damaged bytes is refused.

    One worker crashes with every model, and is borne; of `crashing` they crash too often.
    """

    def __init__(self, store: Store, refused: ModelBundle | None, crashing: ModelBundle | None) -> None:
        self._store = store
        self._refused = refused.reference if refused else None
        self._crashing = crashing.reference if crashing else None
        self.serving: Installed | None = None
        self.observation: Observation | None = None
        self._trial: Installed | None = None

    async def fastest(self, variants: Sequence[Installed]) -> Installed | None:
        """The first, where all of them are whole."""
        assert [broken_file(self._store.directory, each) for each in variants] == [None] * len(variants)
        return variants[0]

    async def try_out(self, installed: Installed) -> None:
        if damage := broken_file(self._store.directory, installed):
            raise Refusal("golden-disagreement", f"{damage} is not whole")
        if installed.bundle == self._refused:
            raise Refusal("golden-disagreement", "y: 7.1% of the top answers agree, at least 99.0% needed")
        self._trial = installed

    def tried(self, installed: Installed) -> bool:
        return self._trial == installed

    async def switch(self, installed: Installed | None) -> None:
        assert installed is None or broken_file(self._store.directory, installed) is None
        self.serving, self._trial = installed, None
        if installed is not None and self.observation is not None:
            for _ in range(_TERMS.max_crashes + 1 if installed.bundle == self._crashing else 1):
                self.observation.crashed(installed)

    async def discard_trial(self) -> None:
        self._trial = None

    async def shadow(self, previous: Installed, current: Installed, terms: ShadowTerms) -> None:
        pass

    async def end_shadow(self) -> None:
        pass


def broken_file(state: Path, installed: Installed) -> str | None:
    """Return a file of an installed bundle that is missing or has other bytes."""
    tree = state / "bundles" / installed.bundle.manifest_sha256
    try:
        manifest = read_manifest(tree)
    except MalformedBundle:
        if (tree / MANIFEST_PATH).is_file():
            raise
        return MANIFEST_PATH  # missing, perhaps since just now
    variant = manifest.variant(installed.variant)
    assert variant is not None
    for entry in manifest.device_files(variant):
        try:
            if sha256_of_file(tree / entry.path) != entry.sha256:
                return entry.path
        except FileNotFoundError:
            return entry.path
    return None


class Device:
    """The parts of an agent that touch the disk, as after a start."""

    def __init__(
        self,
        state: Path,
        disk: Disk,
        source: Source,
        *,
        refused: ModelBundle | None = None,
        crashing: ModelBundle | None = None,
        read_temperature: Callable[[], float | None] = lambda: None,
    ) -> None:
        self.store = Store(state, disk)
        self.models = Models(self.store, refused, crashing)
        fetcher = source.fetcher = Fetcher(
            self.store, source, lambda sha256, verified: self.updater.progressed(sha256, verified)
        )
        self.updater = Updater(self.store, fetcher, self.models, BOARD, 0, PROBATION, lambda: None, read_temperature)
        self.models.observation = self.updater.observation
        self.updater.resume()

    async def deploy(
        self, generation: int, bundle: ModelBundle | None, probation: ProbationTerms | None = None
    ) -> None:
        """Take a desired state and carry it out, as the agent does: what cannot be kept is tried again."""
        reference = bundle.reference if bundle else None
        desired = DesiredState(fleet="f", device="d", generation=generation, bundle=reference, probation=probation)
        await self.models.switch(self.updater.slots.current)
        running = asyncio.create_task(self.updater.run())
        try:
            while True:
                try:
                    await self.updater.desire(desired)
                    break
                except OSError:
                    await asyncio.sleep(0)
            await self._ended(running, generation)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError, RuntimeError, PowerLost):
                await running

    async def _ended(self, running: asyncio.Task[None], generation: int) -> None:
        async with asyncio.timeout(20):
            while True:
                report = self.updater.report()
                over = report and report.generation == generation and report.phase in ("confirmed", "failed")
                if over and self.is_at_rest:
                    return
                if running.done():
                    await ended(running)
                await asyncio.sleep(0.001)

    @property
    def is_at_rest(self) -> bool:
        """Whether no step is being done: the last one cleans up after its end was committed."""
        return self.updater._loop._task is None


async def ended(running: asyncio.Task[None]) -> None:
    """Raise what a part of the agent ended with; the power, where it was that."""
    try:
        await running
    except RuntimeError as error:
        raise (error.__cause__ if isinstance(error.__cause__, PowerLost) else error) from None


async def repair(device: Device, bundle: ModelBundle) -> None:
    """Do what the supervisor asks for when workers keep failing, and the update that follows."""
    running = asyncio.create_task(device.updater.run())
    try:
        async with asyncio.timeout(20):
            while device.updater.slots.current != installed(bundle) or broken_file(
                device.store.directory, installed(bundle)
            ):
                current = device.updater.slots.current
                if current is not None and broken_file(device.store.directory, current):
                    await device.updater.unserviceable(current, Reason(code="worker-crashed", message="x"))
                if running.done():
                    await ended(running)
                await asyncio.sleep(0.001)
            while (report := device.updater.report()) is None or report.phase != "confirmed" or not device.is_at_rest:
                if running.done():
                    await ended(running)
                await asyncio.sleep(0.001)
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError, RuntimeError, PowerLost):
            await running


async def start_and_stop(device: Device) -> None:
    """Let the agent start and do what it does by itself."""
    running = asyncio.create_task(device.updater.run())
    await asyncio.sleep(0.01)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def installed(bundle: ModelBundle) -> Installed:
    return Installed(bundle=bundle.reference, variant="fp32")


def check(state: Path, *allowed: ModelBundle) -> None:
    """One of these is current, and what is in the slots is whole: something serves."""
    slots = Store(state, Disk()).read_slots()
    assert slots is not None
    assert slots.current in [installed(bundle) for bundle in allowed]
    for each in (slots.current, slots.previous):
        assert each is None or broken_file(state, each) is None


def files(state: Path) -> set[str]:
    """Return the files of a state directory; of a commit that failed the rest may lie there until the next one."""
    found = {str(path.relative_to(state)) for path in state.rglob("*") if path.is_file()}
    return {name for name in found if not name.endswith(".new")}
