from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.fakes.claimants import Claimant, Desk
from tests.faults.disks import FaultyDisk, PowerLost, power_lost_at

from autoglm_edge_agent.enrolment import renewal
from autoglm_edge_agent.enrolment.answers import Issued
from autoglm_edge_agent.enrolment.identity import IdentityFolder
from autoglm_edge_agent.enrolment.key_wire import KeyOrder, KeyResult
from autoglm_edge_agent.enrolment.key_work import FileKey, carry_out
from autoglm_edge_agent.enrolment.renewal import Renewal, is_due
from autoglm_edge_protocol.backoff import Backoff
from autoglm_edge_protocol.deployment import Reason
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.enrolment import RenewalAnswer
from autoglm_edge_protocol.errors import LinkError

YEAR_S = 365 * 86_400.0


async def key_here(path: Path, order: KeyOrder) -> KeyResult:
    return carry_out(order, FileKey(path, Disk()))


@dataclass
class Enrolled:
    """A device whose certificate has a tenth of its life left, by its own record and by the fleet's."""

    desk: Desk
    path: Path
    answer: str | None = None
    """Answered in the place of what the fleet says."""
    unusable: list[str] = field(default_factory=list)
    """Why the new certificate cannot be used, one time each."""
    used: int = 0
    asked: list[bytes] = field(default_factory=list)

    def renewal(self, disk: Disk | None = None) -> Renewal:
        async def send(payload: bytes) -> None:
            self.asked.append(payload)
            reply = self.desk.registrar.renew(self.desk.database, "cam-1", payload)
            made.take(self.answer.encode() if self.answer else reply.payload)

        def use() -> None:
            if self.unusable:
                raise LinkError(self.unusable.pop())
            self.used += 1

        folder = IdentityFolder(self.path, disk or Disk())
        made = Renewal(folder, send, use, lambda: self.now, key_here)
        return made

    @property
    def now(self) -> float:
        return self.issued_at

    @property
    def issued_at(self) -> float:
        return IdentityFolder(self.path, Disk()).read().issued_at  # type: ignore[union-attr]

    async def run(self, disk: Disk | None = None) -> None:
        """Let it look once."""
        task = asyncio.ensure_future(self.renewal(disk).run())
        try:
            await asyncio.wait({task}, timeout=0.3)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def enrolled(tmp_path: Path) -> Iterator[Enrolled]:
    desk = Desk(tmp_path / "fleet")
    board = Claimant(desk.claim(), tmp_path / "identity")
    answer = desk.answer(board)
    assert isinstance(answer, Issued)
    passed = 0.9 * YEAR_S
    identity = answer.identity.model_copy(
        update={"not_before": answer.identity.not_before - passed, "not_after": answer.identity.not_after - passed}
    )
    IdentityFolder(tmp_path / "identity", Disk()).write(identity, answer.certificate, answer.authority, None, None)
    with desk.database.transaction() as connection:
        connection.execute(
            "UPDATE certificates SET not_before = ?, not_after = ?", (identity.not_before, identity.not_after)
        )
    yield Enrolled(desk, tmp_path / "identity")
    desk.close()


def test_it_is_due_from_half_of_a_life_on(enrolled: Enrolled) -> None:
    identity = IdentityFolder(enrolled.path, Disk()).read()
    assert identity is not None
    half = (identity.not_before + identity.not_after) / 2
    assert not is_due(identity, half - 1)
    assert is_due(identity, half)


async def test_a_due_certificate_is_replaced_and_used(enrolled: Enrolled) -> None:
    old = (enrolled.path / "device.pem").read_text()
    await enrolled.run()
    renewed = IdentityFolder(enrolled.path, Disk()).read()
    assert renewed is not None
    assert not is_due(renewed, enrolled.now)
    assert (enrolled.path / "device.pem").read_text() != old
    assert enrolled.used == 1
    await enrolled.run()
    assert len(enrolled.asked) == 1  # and not again


async def test_what_could_not_be_used_yet_is_used_later(enrolled: Enrolled, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without being asked for again: it is on the disk, and the old one runs out."""
    monkeypatch.setattr(renewal, "PAUSES", Backoff(0.01, 0.01))
    enrolled.unusable = ["the files cannot be read", "the files cannot be read"]
    await enrolled.run()
    assert (enrolled.used, len(enrolled.asked)) == (1, 1)


async def test_a_refusal_changes_nothing(enrolled: Enrolled, caplog: pytest.LogCaptureFixture) -> None:
    before = {path.name: path.read_bytes() for path in enrolled.path.iterdir()}
    enrolled.answer = (
        RenewalAnswer(device="cam-1", refusal=Reason(code="not-enrolled", message="enrol again")).to_bytes().decode()
    )
    await enrolled.run()
    assert {path.name: path.read_bytes() for path in enrolled.path.iterdir()} == before
    assert "enrol again" in caplog.text


async def test_a_certificate_that_is_not_ours_is_not_taken(
    enrolled: Enrolled, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Desk(tmp_path / "other")
    answer = other.answer(Claimant(other.claim(), tmp_path / "other-board"))
    other.close()
    assert isinstance(answer, Issued)
    grant = {"certificate": answer.certificate, "not_before": 1.0, "not_after": 9e9}
    enrolled.answer = RenewalAnswer.model_validate({"device": "cam-1", "grant": grant}).to_bytes().decode()
    before = (enrolled.path / "device.pem").read_bytes()
    await enrolled.run()
    assert (enrolled.path / "device.pem").read_bytes() == before
    assert "not signed by the fleet's authority" in caplog.text


@pytest.mark.parametrize("damage", [b"", b"\xff" * 900])
async def test_a_damaged_authority_ends_nothing_but_the_renewal(
    enrolled: Enrolled, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    before = (enrolled.path / "device.pem").read_bytes()
    (enrolled.path / "fleet-ca.pem").write_bytes(damage)
    task = asyncio.ensure_future(enrolled.renewal().run())
    ended, _ = await asyncio.wait({task}, timeout=0.3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not ended
    assert "fleet-ca.pem is damaged" in caplog.text
    assert (enrolled.path / "device.pem").read_bytes() == before


async def test_a_loss_of_power_at_each_write_leaves_a_certificate_that_counts(
    enrolled: Enrolled, tmp_path: Path
) -> None:
    counting = FaultyDisk(lambda _number, _name: None)
    at = 0
    while True:
        disk = FaultyDisk(power_lost_at(at))
        task = asyncio.ensure_future(enrolled.renewal(disk)._look())
        (result,) = await asyncio.gather(task, return_exceptions=True)
        folder = IdentityFolder(enrolled.path, counting)
        identity = folder.read()
        assert identity is not None
        order = {"certificate": folder.certificate.read_text(), "authority": folder.authority.read_text()}
        checked = KeyOrder.model_validate({"given": order | {"device": "cam-1"}})
        assert carry_out(checked, FileKey(folder.key, Disk())).problem is None
        if not isinstance(result, PowerLost):
            break
        at += 1
    assert result is None
    assert at == 12  # two commits of six operations
    assert not is_due(identity, enrolled.now)
