"""The verifier's process: what it must not do, and that without its verdict nothing is accepted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tests.agent.trust.devices import GatedDevice, desired, reference
from tests.fakes.processes import running

from autoglm_edge_agent.errors import Hindrance
from autoglm_edge_agent.trust.memory import Memory
from autoglm_edge_agent.trust.process import verify
from autoglm_edge_agent.trust.verifier import MEMORY_BYTES
from autoglm_edge_agent.trust.wire import Question, Verdict
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.signed import SignedMessage

Interfere = Callable[[psutil.Process], object]


def _verifiers() -> list[psutil.Process]:
    return running("autoglm_edge_agent.trust.verifier")


def _question(device: GatedDevice, message: bytes) -> Question:
    envelope = parse(SignedMessage, message).envelope
    memory = Memory()
    return Question(message="desired", envelope=envelope, fleet="home", device="porch", now=0.0, memory=memory)


async def _interfered(device: GatedDevice, interfere: Interfere, silence_s: float) -> Verdict:
    message = device.signed(1, reference())
    device.vault.provision(device.repository.first_root)

    async def read(_name: str, _max_bytes: int) -> bytes | None:
        (process,) = _verifiers()
        interfere(process)
        return None

    with device.vault.working_copy() as directory:
        return await verify(_question(device, message), directory, read, silence_s)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
async def test_a_verifier_that_dies_is_a_hindrance(device: GatedDevice, number: signal.Signals) -> None:
    with pytest.raises(Hindrance) as caught:
        await _interfered(device, lambda process: process.send_signal(number), 60)
    assert caught.value.reason.code == "verifier-failed"
    assert _verifiers() == []
    assert await device.code(device.signed(1, reference())) == "accepted"


async def test_a_verifier_that_hangs_is_killed(device: GatedDevice) -> None:
    with pytest.raises(Hindrance) as caught:
        await _interfered(device, lambda process: process.suspend(), 2.0)
    assert caught.value.reason.code == "verifier-failed" and "hung for 2 s" in caught.value.reason.message
    assert _verifiers() == []


async def test_the_verifier_keeps_to_its_memory(device: GatedDevice) -> None:
    limits: list[tuple[int, int]] = []

    def look(process: psutil.Process) -> None:
        limits.append(process.rlimit(psutil.RLIMIT_AS))
        process.kill()

    with pytest.raises(Hindrance):
        await _interfered(device, look, 60)
    assert limits == [(MEMORY_BYTES, MEMORY_BYTES)]


async def test_what_is_in_the_way_of_a_file_is_told(device: GatedDevice) -> None:
    device.vault.provision(device.repository.first_root)

    async def read(_name: str, _max_bytes: int) -> bytes | None:
        raise Hindrance("fleet-silent", "nothing came")

    with device.vault.working_copy() as directory, pytest.raises(Hindrance) as caught:
        await verify(_question(device, device.signed(1, reference())), directory, read)
    assert caught.value.reason.code == "fleet-silent"
    assert list(device.directory.glob("work-*")) == []


@pytest.mark.parametrize("said", [b"", b"\x00\x00\x00\x05hello", b"\xff\xff\xff\xff", b"\x00"])
def test_a_verifier_that_is_asked_nonsense_gives_no_verdict(tmp_path: Path, said: bytes) -> None:
    command = [sys.executable, "-m", "autoglm_edge_agent.trust.verifier", str(tmp_path)]
    done = subprocess.run(command, input=said, capture_output=True, timeout=60, check=False)
    assert done.returncode != 0 and done.stdout == b""


async def test_a_root_that_is_none_is_said(device: GatedDevice) -> None:
    for root in (b"{}", b"\xff", device.repository.files["timestamp.json"]):
        device.vault.provision(root)
        with device.vault.working_copy() as directory:

            async def read(_name: str, _max_bytes: int) -> bytes | None:
                return None

            verdict = await verify(_question(device, device.message(desired(1))), directory, read)
        assert verdict.refusal is not None and verdict.refusal.code == "bad-root"


def test_another_provisioned_root_begins_anew_and_the_floors_stay(device: GatedDevice) -> None:
    from tests.fakes.signing import FakeRepository

    device.vault.provision(device.repository.first_root)
    device.vault.remember(device.vault.memory.with_confirmed(reference("2.0")))
    (device.directory / "metadata" / "timestamp.json").write_bytes(b"of the old repository")
    device.vault.provision(FakeRepository("another").first_root)
    assert [path.name for path in (device.directory / "metadata").iterdir()] == ["root.json"]
    assert device.vault.memory.versions == {"linear": "2.0"}


@pytest.mark.parametrize("name", ["root.json", "timestamp.json", "snapshot.json", "targets.json", "model-linear.json"])
@pytest.mark.parametrize("damage", [b"", b"{}"])
async def test_damaged_metadata_is_fetched_again(device: GatedDevice, name: str, damage: bytes) -> None:
    await device.gate.desired(device.signed(1, reference()))
    device.repository.rotate()
    await device.gate.desired(device.signed(2, reference()))
    (device.directory / "metadata" / name).write_bytes(damage)
    device.restart()
    assert await device.code(device.signed(3, reference())) == "accepted"
    assert device.gate.report().root_version == 2


@pytest.mark.parametrize("name", ["root.json", "timestamp.json", "snapshot.json"])
async def test_metadata_that_the_disk_has_lost_is_fetched_again(device: GatedDevice, name: str) -> None:
    await device.gate.desired(device.signed(1, reference()))
    lost = device.directory / "metadata" / name
    lost.unlink()
    lost.symlink_to("/proc/self/mem")  # of which nothing is mapped at its beginning: EIO
    device.restart()
    assert await device.code(device.signed(2, reference())) == "accepted"
    assert json.loads(lost.read_bytes())["signed"]["_type"] == name.removesuffix(".json")


class _FullDisk(Disk):
    """Fails each commit of a file of this name while it is full."""

    full: str = ""

    def commit(self, path: Path, data: bytes) -> None:
        if path.name == self.full:
            raise OSError(28, "No space left on device", str(path))
        super().commit(path, data)


@pytest.mark.parametrize("name", ["root.json", "timestamp.json", "model-linear.json", "memory.json"])
async def test_nothing_is_accepted_that_cannot_be_kept(tmp_path: Path, name: str) -> None:
    disk = _FullDisk()
    device = GatedDevice(tmp_path / "trust", disk=disk)
    message = device.signed(1, reference())
    disk.full = name
    with pytest.raises(OSError, match="No space left"):
        await device.gate.desired(message)
    assert device.vault.memory.generation == 0
    disk.full = ""
    device.restart()
    assert await device.code(message) == "accepted"


@pytest.mark.parametrize("damage", [b"", b"{", b"\x00" * 100, b'{"generation": "x"}'])
async def test_a_damaged_memory_is_no_end(device: GatedDevice, damage: bytes) -> None:
    await device.gate.desired(device.signed(1, reference()))
    (device.directory / "memory.json").write_bytes(damage)
    device.restart()
    device.gate.note_generation(1)  # the record of the update knows it still
    assert await device.code(device.message(desired(1), signed_at=1.0, expires_at=2.0)) == "expired"
    assert await device.code(device.signed(2, reference())) == "accepted"


async def test_a_memory_of_a_newer_release_seals(device: GatedDevice) -> None:
    (device.directory / "memory.json").write_bytes(b'{"schema_version": 2}')
    device.restart()
    assert await device.code(device.signed(1, reference())) == "newer-state"


async def test_the_verifier_takes_no_module_from_where_the_agent_was_started(
    device: GatedDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    somewhere = tmp_path / "stick"
    (somewhere / "tuf").mkdir(parents=True)
    (somewhere / "tuf" / "__init__.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(somewhere)
    assert await device.code(device.signed(1, reference())) == "accepted"


async def test_what_is_sealed_holds_on_to_no_message(device: GatedDevice) -> None:
    """An error that is raised again and again keeps each of its tracebacks, and with them what was judged."""
    (device.directory / "memory.json").write_bytes(b'{"schema_version": 99}')
    device.restart()
    message = device.signed(1, reference())
    assert [await device.code(message) for _ in range(3)] == ["newer-state"] * 3
    assert not isinstance(device.vault.sealed, BaseException)
