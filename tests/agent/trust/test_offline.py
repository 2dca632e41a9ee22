"""Updates from a folder: the one that was asked for last is served, also while an earlier one finds no end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.agent.trust.devices import DEVICE, FLEET, desired, reference
from tests.fakes.waiting import until

from autoglm_edge_agent.config import DeviceSection
from autoglm_edge_agent.trust import offline as module
from autoglm_edge_agent.trust.intake import Intake
from autoglm_edge_agent.trust.offline import REQUEST_NAME, RESULT_NAME, Offline, OfflineRequest, OfflineResult
from autoglm_edge_agent.trust.unguarded import Insecure
from autoglm_edge_protocol.deployment import DeploymentReport, DesiredState
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.durable import Disk


class Board:
    """A device that takes orders in, and whose update is as far as the test says."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.phase = "fetching"
        self.taken: list[int] = []
        intake = Intake(Insecure(DeviceSection(fleet=FLEET, name=DEVICE)), self._act, lambda: 0)
        self.offline = Offline(directory, Disk(), DEVICE, intake, self._report)

    async def _act(self, order: DesiredState) -> None:
        self.taken.append(order.generation)

    def _report(self) -> DeploymentReport | None:
        return DeploymentReport(generation=1, bundle=reference(), phase=self.phase) if self.taken else None

    def ask(self, name: str) -> Path:
        """Leave a request for a folder with an order in it; returns the folder."""
        folder = self.directory / name
        (folder / "desired").mkdir(parents=True)
        (folder / "desired" / f"{DEVICE}.json").write_bytes(desired(1, reference()).to_bytes())
        request = OfflineRequest(request_id=name, folder=str(folder))
        Disk().commit(self.directory / REQUEST_NAME, request.to_bytes())
        return folder

    def result(self) -> OfflineResult:
        return parse(OfflineResult, (self.directory / RESULT_NAME).read_bytes())

    @property
    def is_asked(self) -> bool:
        return (self.directory / REQUEST_NAME).exists()


@asynccontextmanager
async def running(board: Board) -> AsyncIterator[None]:
    task = asyncio.create_task(board.offline.run())
    try:
        yield
    finally:
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    return Board(tmp_path)


async def test_a_later_request_takes_the_place_of_one_that_finds_no_end(board: Board) -> None:
    async with running(board):
        incomplete = board.ask("incomplete")
        await until(lambda: board.offline.folder == incomplete and board.taken == [1], 5)
        whole = board.ask("whole")
        await until(lambda: board.offline.folder == whole and len(board.taken) == 2, 5)
        assert not (board.directory / RESULT_NAME).exists()
        board.phase = "confirmed"
        await until(lambda: not board.is_asked, 5)
    assert (board.result().request_id, board.result().phase) == ("whole", "confirmed")


async def test_a_request_that_comes_while_another_one_ends_is_not_lost(board: Board) -> None:
    async with running(board):
        board.ask("first")
        await until(lambda: board.taken == [1], 5)
        board.phase = "confirmed"
        board.ask("second")
        await until(lambda: not board.is_asked, 5)
    assert board.result().request_id == "second"
