"""What trust, answers and updates from a folder write, with a fault at each of it: the device's half of a message.

The verifier judges in the test's own process: it writes into a working copy that is thrown away, and its own process is
tried elsewhere. What is sent stands beside the state, as no loss of power takes it back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.agent.trust.devices import DEVICE, FLEET, command, desired, reference
from tests.fakes.model_bundles import ModelBundle
from tests.fakes.signing import DAY_S, FakeRepository, fresh_signer
from tests.fakes.sticks import write_repository
from tests.faults.devices import ended
from tests.faults.disks import FaultyDisk, PowerLost

from autoglm_edge_agent.commands import Commands
from autoglm_edge_agent.config import DeviceSection
from autoglm_edge_agent.storage.directory import StateDirectory
from autoglm_edge_agent.storage.ledger import Ledger
from autoglm_edge_agent.trust.gate import Gate
from autoglm_edge_agent.trust.intake import Intake
from autoglm_edge_agent.trust.judge import Judge
from autoglm_edge_agent.trust.offline import REQUEST_NAME, RESULT_NAME, Offline, OfflineRequest, OfflineResult
from autoglm_edge_agent.trust.process import Read
from autoglm_edge_agent.trust.repository import Repository
from autoglm_edge_agent.trust.sources import FolderSource, MetadataSource
from autoglm_edge_agent.trust.vault import Vault
from autoglm_edge_agent.trust.wire import Question, Verdict
from autoglm_edge_protocol.commands import Answer, Command, Outcome
from autoglm_edge_protocol.deployment import DeploymentReport, DesiredState
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.signed import MetadataFile

Bundles = list[ModelBundle]


async def verify_here(question: Question, directory: Path, read: Read) -> Verdict:
    """Judge as the verifier's process does."""
    loop = asyncio.get_running_loop()

    async def reading(name: str, max_bytes: int) -> bytes | None:
        return await read(name, max_bytes)

    def fetch(name: str, max_bytes: int) -> bytes | None:
        return asyncio.run_coroutine_threadsafe(reading(name, max_bytes), loop).result(20)

    return await asyncio.to_thread(lambda: Judge(question, Repository(directory, fetch)).verdict())


class Fleet:
    """An honest repository that gets a second root, with another director and another targets key."""

    def __init__(self) -> None:
        repository = self.repository = FakeRepository("faults")
        repository.add(reference())
        self.signed_at = {1: repository.now, 2: repository.now + 60}
        """Generation -> when it was signed, and so the time floor of a device that has accepted it."""
        self.first = repository.message(desired(1, reference()), FLEET, signed_at=self.signed_at[1])
        files = [*repository.files.values()]
        repository.directors = [fresh_signer("faults-second-director")]
        repository.signers["targets"] = fresh_signer("faults-second-targets")
        repository.rotate()
        repository.add(reference("2.0.0"))
        self.second = repository.message(desired(2, reference("2.0.0")), FLEET, signed_at=self.signed_at[2])
        at, until = repository.now, repository.now + DAY_S
        self.command = repository.message(command(), FLEET, signed_at=at, expires_at=until)
        self.files = {sha256_of(data): data for data in [*files, *repository.files.values()]}
        """By digest."""


class CatalogueSource:
    """Reads what a message names."""

    def __init__(self, fleet: Fleet, catalogue: Mapping[str, MetadataFile]) -> None:
        self._files = fleet.files
        self._catalogue = catalogue
        self.offered = tuple(catalogue)

    async def read(self, name: str, max_bytes: int) -> bytes | None:
        file = self._catalogue.get(name)
        return self._files[file.sha256] if file else None


class Agent:
    """The parts of an agent that take messages, as after a start."""

    def __init__(self, state: Path, disk: Disk, fleet: Fleet, sent: list[Answer]) -> None:
        self.state, self.disk, self._sent = state, disk, sent
        with contextlib.closing(StateDirectory(state, disk)) as directory:
            self.session = directory.next_session()
        self.acted: list[DesiredState] = []
        self.vault = Vault(state / "trust", disk)
        device = DeviceSection(fleet=FLEET, name=DEVICE)

        def sources(catalogue: Mapping[str, MetadataFile]) -> list[MetadataSource]:
            folder = self.offline.folder
            return [FolderSource(folder)] if folder else [CatalogueSource(fleet, catalogue)]

        gate = Gate(device, self.vault, fleet.repository.first_root, sources, lambda: None)
        self.intake = Intake(gate, self._act, lambda: self.acted[-1].generation if self.acted else 0)
        self.offline = Offline(state, disk, DEVICE, self.intake, self._report)
        self.ledger = Ledger(state / "answers.json", disk)
        self.commands = Commands(DEVICE, self.ledger, {"ping": self._ping}, self._send)

    async def _act(self, desired: DesiredState) -> None:
        self.acted.append(desired)

    def _report(self) -> DeploymentReport | None:
        last = self.acted[-1] if self.acted else None
        if last is None:
            return None
        return DeploymentReport(generation=last.generation, phase="confirmed", bundle=last.bundle)

    async def _ping(self, _command: Command) -> dict[str, str]:
        return {"session": str(self.session)}

    async def _send(self, data: bytes) -> None:
        self._sent.append(parse(Answer, data))

    @contextlib.asynccontextmanager
    async def running(self) -> Any:
        """Let everything run that runs by itself."""
        parts = [self.intake.run(), self.commands.run(), self.offline.run()]
        self.tasks = [asyncio.create_task(part) for part in parts]
        try:
            yield
        finally:
            for task in self.tasks:
                task.cancel()
            for task in self.tasks:
                with contextlib.suppress(asyncio.CancelledError, RuntimeError, PowerLost):
                    await task

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait; raises what a part has ended with."""
        async with asyncio.timeout(20):
            while not done():
                if isinstance(self.disk, FaultyDisk) and self.disk.is_off:
                    raise PowerLost  # in a task that nobody waits for, perhaps
                for task in self.tasks:
                    if task.done():
                        await ended(task)
                await asyncio.sleep(0.0005)


async def _messages(agent: Agent, fleet: Fleet) -> None:
    """A desired state with a new root, and a command that the fleet sends until it is answered."""
    async with agent.running():
        agent.intake.put(fleet.second)
        await agent.until(lambda: agent.vault.memory.generation == 2)
        while (taken := await agent.intake.command(fleet.command)) is None:
            pass
        await agent.commands.take(taken)
        await agent.until(lambda: agent.ledger.find("c1") is not None and not agent.ledger.unsent())


async def _from_a_folder(agent: Agent, fleet: Fleet) -> None:
    """As somebody asks for it with `autoglm-edge-agent update --from`, again where the disk was full."""
    folder = agent.state.parent / "stick"
    request = OfflineRequest(request_id="r1", folder=str(folder))
    async with agent.running():
        while (result := _result(agent.state)) is None or result.phase is None:
            with contextlib.suppress(OSError):
                agent.disk.unlink(agent.state / RESULT_NAME)
                agent.disk.commit(agent.state / REQUEST_NAME, request.to_bytes())
                await agent.until(lambda: _served(agent.state))
        await agent.until(lambda: _served(agent.state))


def _served(state: Path) -> bool:
    return _result(state) is not None and not (state / REQUEST_NAME).exists()


def _result(state: Path) -> OfflineResult | None:
    path = state / RESULT_NAME
    return parse(OfflineResult, path.read_bytes()) if path.exists() else None


def _check_messages(state: Path) -> None:
    answer = Ledger(state / "answers.json", Disk()).find("c1")
    assert answer is not None and answer.outcome is Outcome.SUCCEEDED
    assert [each.command_id for each in Vault(state / "trust", Disk()).memory.commands] == ["c1"]


def _check_folder(state: Path) -> None:
    result = _result(state)
    assert result is not None and (result.phase, result.bundle) == ("confirmed", "linear@2.0.0"), result


@dataclass(frozen=True, eq=False)
class MessageScenario:
    """The same shape as `scenarios.Scenario`; the bundles are of no concern here."""

    name: str
    perform: Callable[[Agent, Fleet], Coroutine[Any, Any, None]]
    check: Callable[[Path], None]
    fleet: Fleet = field(default_factory=Fleet)
    sent: dict[Path, list[Answer]] = field(default_factory=dict)
    damaged = False

    def prepare(self, state: Path, bundles: Bundles) -> Path:
        """Make the state of a device that has taken one desired state, and the stick beside it."""
        agent = self._agent(state, Disk())
        asyncio.run(_first(agent, self.fleet))
        return state

    def _agent(self, state: Path, disk: Disk) -> Agent:
        stick = state.parent / "stick"
        if not stick.is_dir():
            write_repository(stick, self.fleet.repository)
            (stick / "desired").mkdir()
            (stick / "desired" / f"{DEVICE}.json").write_bytes(self.fleet.second)
        disk.make_directories(state)
        return Agent(state, disk, self.fleet, self.sent.setdefault(state, []))

    def run(self, state: Path, disk: Disk, bundles: Bundles) -> None:
        """Start the device and let everything happen."""
        asyncio.run(self.perform(self._agent(state, disk), self.fleet))

    def check_between(self, state: Path, bundles: Bundles) -> None:
        """Nothing that was remembered is taken back, and what is on disk can be read."""
        vault = Vault(state / "trust", Disk())
        assert vault.sealed is None and vault.memory.generation in (1, 2)
        assert vault.memory.time_floor == self.fleet.signed_at[vault.memory.generation]
        assert vault.version("root") in (1, 2) and vault.version("timestamp") >= 2
        assert int((state / "session").read_text()) >= int(self.fleet.signed_at[1])

    def check_end(self, state: Path, bundles: Bundles) -> None:
        """It has come to its end, as if nothing had happened; each command was answered in one way only."""
        vault = Vault(state / "trust", Disk())
        assert (vault.memory.generation, vault.version("root")) == (2, 2)
        assert vault.memory.time_floor == self.fleet.signed_at[2]
        assert len({answer.to_bytes() for answer in self.sent.pop(state, [])}) <= 1
        self.check(state)

    def finish(self, state: Path, bundles: Bundles) -> None:
        """Start once more, and do what is done by itself."""
        self._agent(state, Disk())


async def _first(agent: Agent, fleet: Fleet) -> None:
    async with agent.running():
        agent.intake.put(fleet.first)
        await agent.until(lambda: agent.vault.memory.generation == 1)


MESSAGES = MessageScenario("a new root, a desired state and a command", _messages, _check_messages)
FOLDER = MessageScenario("an update from a folder", _from_a_folder, _check_folder)
