"""Desired states and commands that are forged, replayed, reordered, misdirected, late or broken."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import pytest
from tests.agent.trust.devices import FLEET, GatedDevice, command, desired, reference
from tests.fakes.signing import DAY_S, fresh_signer

from autoglm_edge_agent.trust.memory import COMMANDS_KEPT
from autoglm_edge_protocol.envelopes import seal
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.signed import SignedMessage

Make = Callable[[GatedDevice], bytes]
NOW = time.time()


def _changed(message: bytes, old: bytes, new: bytes) -> bytes:
    """Change what an envelope says, and nothing else."""
    import base64

    document = json.loads(message)
    payload = base64.b64decode(document["envelope"]["payload"])
    assert old in payload
    document["envelope"]["payload"] = base64.b64encode(payload.replace(old, new)).decode()
    return json.dumps(document).encode()


def _without_times(device: GatedDevice) -> bytes:
    from autoglm_edge_protocol.signed import PAYLOAD_TYPES

    document = desired(5)
    signer = device.repository.directors[0]
    sign = [(signer.public_key.keyid, lambda data: bytes.fromhex(signer.sign(data).signature))]
    envelope = seal(PAYLOAD_TYPES[type(document)], document.to_bytes(), sign)
    return SignedMessage(envelope=envelope, catalogue=device.repository.catalogue()).to_bytes()


def _by_targets_key(device: GatedDevice) -> bytes:
    return device.message(desired(5), by=[device.repository.signers["targets"]])


DESIRED: list[tuple[str, str, Make]] = [
    ("forged", "untrusted-signature", lambda d: d.message(desired(5), by=[fresh_signer("stranger")])),
    ("forged with a key of another role", "untrusted-signature", _by_targets_key),
    ("changed", "untrusted-signature", lambda d: _changed(d.message(desired(5)), b'"generation":5', b'"generation":6')),
    ("not signed", "untrusted-signature", lambda d: desired(5).to_bytes()),
    ("a command in its place", "untrusted-signature", lambda d: d.message(command())),
    ("without its times", "untrusted-signature", _without_times),
    ("replayed", "replayed", lambda d: d.message(desired(2))),
    ("replayed with an older signature", "replayed", lambda d: d.message(desired(3), signed_at=NOW - 3600)),
    ("to another device", "wrong-device", lambda d: d.message(desired(5, device="barn"))),
    ("to another fleet", "wrong-fleet", lambda d: d.message(desired(5), fleet="work")),
    ("expired", "expired", lambda d: d.message(desired(5), signed_at=NOW - 2 * DAY_S, expires_at=NOW - DAY_S)),
    ("truncated", "malformed-message", lambda d: d.message(desired(5))[:-10]),
    ("oversized", "malformed-message", lambda d: d.message(desired(5)) + b" " * LIMITS.control_bytes),
    ("not JSON", "untrusted-signature", lambda d: b"\xff\xfe"),
    ("a newer schema", "malformed-message", lambda d: b'{"schema_version": 9, "envelope": {}}'),
]


def _one_director_twice(named: bool) -> Make:
    """One of two directors, both of whom must sign, signs twice: under his name, or the second time under none."""

    def make(device: GatedDevice) -> bytes:
        document = json.loads(device.message(desired(5), by=device.repository.directors[:1]))
        (signature,) = document["envelope"]["signatures"]
        document["envelope"]["signatures"].append(signature if named else {"sig": signature["sig"]})
        return json.dumps(document).encode()

    return make


COMMANDS: list[tuple[str, str, Make]] = [
    ("forged", "untrusted-signature", lambda d: d.message(command(), by=[fresh_signer("stranger")])),
    ("changed", "untrusted-signature", lambda d: _changed(d.message(command()), b'"ping"', b'"rollback"')),
    ("not signed", "untrusted-signature", lambda d: command().to_bytes()),
    ("a desired state in its place", "untrusted-signature", lambda d: d.message(desired(9))),
    ("to another device", "wrong-device", lambda d: d.message(command(device="barn"))),
    ("to another fleet", "wrong-fleet", lambda d: d.message(command(), fleet="work")),
    ("truncated", "malformed-message", lambda d: d.message(command())[:-10]),
    ("oversized", "malformed-message", lambda d: d.message(command()) + b" " * LIMITS.control_bytes),
]


@pytest.mark.parametrize(("code", "make"), [row[1:] for row in DESIRED], ids=[row[0] for row in DESIRED])
async def test_a_desired_state_is_refused(device: GatedDevice, code: str, make: Make) -> None:
    assert await device.code(device.signed(3, reference())) == "accepted"
    before = device.vault.memory
    assert await device.code(make(device)) == code
    assert device.vault.memory == before
    device.restart()
    assert await device.code(make(device)) == code, "the same after a restart"


@pytest.mark.parametrize(("code", "make"), [row[1:] for row in COMMANDS], ids=[row[0] for row in COMMANDS])
async def test_a_command_is_refused(device: GatedDevice, code: str, make: Make) -> None:
    assert await device.command_code(make(device)) == code
    assert device.vault.memory.commands == ()


@pytest.mark.parametrize(("named", "code"), [(True, "malformed-message"), (False, "untrusted-signature")])
async def test_one_director_who_signs_twice_is_not_two(device: GatedDevice, named: bool, code: str) -> None:
    device.repository.directors = [fresh_signer("director-a"), fresh_signer("director-b")]
    device.repository.director_threshold = 2
    device.repository.rotate()
    assert await device.code(device.signed(3)) == "accepted"
    assert await device.code(_one_director_twice(named)(device)) == code
    assert device.vault.memory.generation == 3


async def test_desired_states_that_come_in_the_wrong_order_leave_the_newest(device: GatedDevice) -> None:
    first, second, third = (device.signed(number, reference(f"{number}.0")) for number in (1, 2, 3))
    assert [await device.code(each) for each in (second, first, third, second)] == [
        "accepted",
        "replayed",
        "accepted",
        "replayed",
    ]
    assert device.vault.memory.generation == 3


async def test_a_renewal_of_the_same_generation_is_accepted_and_the_same_message_again_known(
    device: GatedDevice,
) -> None:
    first = device.signed(1, reference())
    assert await device.code(first) == "accepted"
    assert device.gate.was_accepted(first, 1) and not device.gate.was_accepted(first, 0)
    before = device.gate.report()
    assert before.root_version == 1 and before.timestamp_version == device.repository.timestamp.version
    assert device.restart().report() == before, "what it knows of the repository is known after a restart, too"
    renewed = device.signed(1, reference(), signed_at=time.time() + 5)
    assert await device.code(renewed) == "accepted"
    assert await device.code(first) == "replayed"


async def test_a_command_needs_the_repository_once_and_may_come_again(device: GatedDevice) -> None:
    """A device fresh from its maker must learn first whether the director is still the same."""
    assert await device.command_code(device.message(command(), catalogue={})) == "metadata-missing"
    message = device.message(command())
    assert await device.command_code(message) == "accepted"
    device.asked.clear()
    assert await device.command_code(message) == "accepted"
    assert device.asked == []


async def test_a_command_that_is_older_than_what_is_remembered_is_a_replay(device: GatedDevice) -> None:
    first = device.message(command("first"), signed_at=NOW)
    assert await device.command_code(first) == "accepted"
    memory = device.vault.memory
    for number in range(COMMANDS_KEPT):
        bound = command(f"c{number}").model_copy(update={"signed_at": NOW + 1 + number})
        memory = memory.with_command(bound, 0.0)
    device.vault.remember(memory)
    device.restart()
    assert await device.command_code(first) == "replayed"
    assert await device.command_code(device.message(command("new"), signed_at=NOW + 500)) == "accepted"


async def test_commands_of_a_withdrawn_director_end_with_the_timestamp(device: GatedDevice) -> None:
    """One who has a stolen key and the broker can hide the new root no longer than the timestamp lasts."""
    await device.gate.desired(device.signed(1, reference()))
    stolen, catalogue = list(device.repository.directors), device.repository.catalogue()
    device.repository.directors = [fresh_signer("new-director")]
    device.repository.rotate()
    hidden = device.message(command("a"), by=stolen, catalogue=catalogue)
    assert await device.command_code(hidden) == "accepted"
    device.clock_s += 31 * DAY_S
    late = device.message(command("b"), by=stolen, catalogue=catalogue, signed_at=device.clock_s)
    assert await device.command_code(late) == "metadata-expired"


async def test_a_command_of_a_new_director_brings_the_new_root(device: GatedDevice) -> None:
    stolen = list(device.repository.directors)
    device.repository.directors = [fresh_signer("new-director")]
    device.repository.rotate()
    assert await device.command_code(device.message(command("a"))) == "accepted"
    assert device.gate.report().root_version == 2
    assert await device.command_code(device.message(command("b"), by=stolen)) == "untrusted-signature"


async def test_below_the_version_floor_only_with_a_signed_reason(device: GatedDevice) -> None:
    assert await device.code(device.signed(1, reference("2.0"))) == "accepted"
    assert device.vault.memory.versions == {}, "accepted is not confirmed yet"
    device.gate.note_confirmed(reference("2.0"))
    device.restart()
    old = device.signed(2, reference("1.9"))
    assert await device.code(old) == "downgrade"
    refusal = device.gate.report().refusal
    assert refusal is not None and "linear@1.9 is older than 2.0" in refusal.message
    allowed = desired(2, reference("1.9")).model_copy(
        update={"allow_downgrade": True, "downgrade_reason": "2.0 is wrong at night"}
    )
    assert await device.code(device.message(allowed)) == "accepted"
    override = device.gate.report().override
    assert override is not None and "linear@1.9: 2.0 is wrong at night" in override.message
    device.gate.note_confirmed(reference("1.9"))
    assert device.vault.memory.versions == {"linear": "2.0"}, "going back once does not lower the floor"
    assert await device.code(device.signed(3, reference("1.0", "other"))) == "accepted", "a floor is of one model"
    assert device.vault.memory.generation == 3 and FLEET == "home"


async def test_a_floor_that_rises_while_a_message_is_judged_counts(device: GatedDevice) -> None:
    message = device.signed(2, reference("1.0.0"))
    device.answering.clear()
    judging = asyncio.create_task(device.code(message))
    while not device.asked:
        await asyncio.sleep(0.01)
    device.gate.note_confirmed(reference("2.0.0"))
    device.answering.set()
    assert await judging == "downgrade"
    assert device.vault.memory.generation == 0


async def test_of_two_messages_that_are_judged_at_once_the_older_is_not_let_in_last(device: GatedDevice) -> None:
    older, newer = device.signed(2), device.signed(3)
    device.answering.clear()
    judging = asyncio.create_task(device.code(older))
    while not device.asked:
        await asyncio.sleep(0.01)
    device.gate.note_generation(3)
    device.answering.set()
    assert await judging == "replayed"
    assert await device.code(newer) == "accepted"
