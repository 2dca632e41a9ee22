"""The attacks of the TUF specification (1.5.2), by whoever stands between the fleet and the device.

The director is honest in each of them, so that what refuses is the metadata. Each device has accepted one generation
before; after the attack it still remembers that and no more, and the next honest message is accepted.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from tests.agent.trust.devices import GatedDevice, command, desired, reference
from tests.fakes.signing import DAY_S, FakeRepository, catalogued, fresh_signer, signed_by
from tuf.api.metadata import Metadata

from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.documents import LARGEST_INTEGER
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.signed import MetadataFile

Catalogue = dict[str, MetadataFile]
NEW = reference("2.0.0")


def _with(device: GatedDevice, catalogue: Catalogue, name: str, data: bytes) -> Catalogue:
    device.more[sha256_of(data)] = data
    return {**catalogue, name: catalogued(data)}


def _message(device: GatedDevice, catalogue: Catalogue | None = None) -> bytes:
    return device.signed(2, NEW) if catalogue is None else device.message(desired(2, NEW), catalogue=catalogue)


def _metadata_of_a_stranger(device: GatedDevice) -> bytes:
    stranger = FakeRepository("stranger")
    stranger.add(NEW)
    catalogue = stranger.catalogue()
    del catalogue["1.root.json"]
    device.more |= {sha256_of(data): data for data in stranger.files.values()}
    return _message(device, catalogue)


def _model_role_by_a_stranger(device: GatedDevice) -> bytes:
    device.repository.signers["models"] = fresh_signer("stranger-models")
    return device.signed(2, NEW)


def _bundle_that_was_never_signed(device: GatedDevice) -> bytes:
    return _message(device, device.repository.catalogue())


def _other_bytes_under_a_signed_version(device: GatedDevice) -> bytes:
    device.repository.add(NEW)
    return device.message(desired(2, reference("2.0.0", content="other")))


def _bundle_signed_by_another_models_role(device: GatedDevice) -> bytes:
    device.repository.offer(NEW, model="other")
    device.repository.publish()
    return _message(device, device.repository.catalogue())


def _older_timestamp(device: GatedDevice) -> bytes:
    device.repository.add(NEW)
    device.repository.timestamp.version -= 3
    device.repository.publish_timestamp()
    return _message(device, device.repository.catalogue())


def _older_snapshot(device: GatedDevice) -> bytes:
    """As by one who has the timestamp key."""
    old = device.repository.snapshot.version - 1
    device.repository.snapshot.version = old
    device.repository.publish_timestamp()
    return _message(device, device.repository.catalogue())


def _older_targets(device: GatedDevice) -> bytes:
    """As by one who has the snapshot and the timestamp key."""
    return _with_older(device, "targets", device.repository.targets.version)


def _older_model_role(device: GatedDevice) -> bytes:
    """The same, to bring back a model's role of before; its new version has been seen."""
    return _with_older(device, "model-linear", device.repository.models["model-linear"].version)


def _with_older(device: GatedDevice, role: str, version: int) -> bytes:
    device.repository.snapshot.meta[f"{role}.json"] = device.repository.meta_file(role, version - 1)
    device.repository.publish_snapshot()
    return _message(device, device.repository.catalogue())


def _model_role_left_out(device: GatedDevice) -> bytes:
    device.repository.add(NEW)
    del device.repository.snapshot.meta["model-linear.json"]
    device.repository.publish_snapshot()
    return _message(device, device.repository.catalogue())


def _frozen(device: GatedDevice) -> bytes:
    """The broker holds back every renewal: the director's messages come with metadata of long ago."""
    message = device.signed(2, NEW)
    device.clock_s += 31 * DAY_S
    return message


def _expired(role: str) -> Callable[[GatedDevice], bytes]:
    """A role that was not renewed, below a timestamp of today."""

    def attack(device: GatedDevice) -> bytes:
        device.repository.lifetimes_s[role] = -DAY_S
        return device.signed(2, NEW)

    return attack


def _mixed(role: str) -> Callable[[GatedDevice], bytes]:
    """A new timestamp, and a file of before under the new one's name."""

    def attack(device: GatedDevice) -> bytes:
        before = device.repository.files[_newest(device, role)]
        device.repository.add(NEW)
        return _message(device, _with(device, device.repository.catalogue(), _newest(device, role), before))

    return attack


def _other_bytes(role: str, key: str) -> Callable[[GatedDevice], bytes]:
    """The right version, in other bytes: as by one who has the role's key, and none of those above."""

    def attack(device: GatedDevice) -> bytes:
        device.repository.add(NEW)
        name = _newest(device, role)
        signed = Metadata.from_bytes(device.repository.files[name]).signed
        signed.expires += timedelta(days=1)
        data = signed_by(signed, [device.repository.signers[key]])
        return _message(device, _with(device, device.repository.catalogue(), name, data))

    return attack


def _newest(device: GatedDevice, role: str) -> str:
    repository = device.repository
    versions = {name: each.version for name, each in repository.models.items()}
    versions |= {"targets": repository.targets.version, "snapshot": repository.snapshot.version}
    return f"{versions[role]}.{role}.json"


def _endless(device: GatedDevice) -> bytes:
    """A timestamp that never ends; its catalogue lies about the length."""
    device.repository.add(NEW)
    data = b" " * (LIMITS.metadata_bytes + 1)
    device.more[sha256_of(data)] = data
    lie = MetadataFile(sha256=sha256_of(data), size_bytes=500)
    return _message(device, {**device.repository.catalogue(), "timestamp.json": lie})


def _root_by_one_key(device: GatedDevice) -> bytes:
    """Below the threshold: one root key was stolen, and names another director's and another targets' key."""
    stolen = device.repository.root_signers[0]
    root = copy.deepcopy(device.repository.root)
    root.version += 1
    root.add_key(fresh_signer("thief").public_key, "targets")
    data = signed_by(root, [stolen])
    device.repository.add(NEW)
    return _message(device, _with(device, device.repository.catalogue(), "2.root.json", data))


def _root_twice_by_one_key(device: GatedDevice) -> bytes:
    """The same, with a second root of the thief's own keys only."""
    root = copy.deepcopy(device.repository.root)
    root.version += 1
    thief = fresh_signer("thief")
    root.roles["root"].keyids.clear()
    root.add_key(thief.public_key, "root")
    root.roles["root"].threshold = 1
    data = signed_by(root, [thief, device.repository.root_signers[0]])
    device.repository.add(NEW)
    return _message(device, _with(device, device.repository.catalogue(), "2.root.json", data))


def _root_with_one_signature_twice(device: GatedDevice) -> bytes:
    """The same, with the signature of the one key listed twice."""
    root = copy.deepcopy(device.repository.root)
    root.version += 1
    document = json.loads(signed_by(root, device.repository.root_signers[:1]))
    document["signatures"] *= 2
    device.repository.add(NEW)
    return _message(device, _with(device, device.repository.catalogue(), "2.root.json", json.dumps(document).encode()))


def _third_root_by_one_key(device: GatedDevice) -> bytes:
    """Two honest roots on the way to one that is not."""
    for _ in range(2):
        device.repository.rotate()
    root = copy.deepcopy(device.repository.root)
    root.version += 1
    data = signed_by(root, device.repository.root_signers[:1])
    device.repository.add(NEW)
    return _message(device, _with(device, device.repository.catalogue(), f"{root.version}.root.json", data))


def _root_that_skips_a_version(device: GatedDevice) -> bytes:
    root = copy.deepcopy(device.repository.root)
    root.version += 2
    data = signed_by(root, device.repository.root_signers)
    device.repository.add(NEW)
    return _message(device, _with(device, device.repository.catalogue(), "2.root.json", data))


def _not_json(device: GatedDevice) -> bytes:
    device.repository.add(NEW)
    return _message(device, _with(device, device.repository.catalogue(), "timestamp.json", b"\xff{"))


def _deep(device: GatedDevice) -> bytes:
    device.repository.add(NEW)
    return _message(device, _with(device, device.repository.catalogue(), "timestamp.json", b"[" * 100_000))


def _withheld(device: GatedDevice) -> bytes:
    device.repository.add(NEW)
    catalogue = device.repository.catalogue()
    del catalogue["timestamp.json"]
    return _message(device, catalogue)


ATTACKS: list[tuple[str, str, Callable[[GatedDevice], bytes]]] = [
    ("arbitrary software: metadata by a stranger", "untrusted-metadata", _metadata_of_a_stranger),
    ("arbitrary software: a model's role by a stranger", "untrusted-metadata", _model_role_by_a_stranger),
    ("arbitrary software: no role has signed it", "unknown-target", _bundle_that_was_never_signed),
    ("arbitrary software: other bytes", "wrong-target", _other_bytes_under_a_signed_version),
    ("wrong software: signed by another model's role", "unknown-target", _bundle_signed_by_another_models_role),
    ("rollback of the timestamp", "rollback-attack", _older_timestamp),
    ("rollback of the snapshot", "rollback-attack", _older_snapshot),
    ("rollback of the targets", "rollback-attack", _older_targets),
    ("rollback of a model's role", "rollback-attack", _older_model_role),
    ("rollback by leaving a role out", "bad-metadata", _model_role_left_out),
    ("indefinite freeze", "metadata-expired", _frozen),
    ("an expired snapshot below a fresh timestamp", "metadata-expired", _expired("snapshot")),
    ("expired targets below a fresh timestamp", "metadata-expired", _expired("targets")),
    ("an expired model's role below a fresh timestamp", "metadata-expired", _expired("model-linear")),
    ("mix and match of the snapshot", "metadata-mismatch", _mixed("snapshot")),
    ("mix and match of the targets", "metadata-mismatch", _mixed("targets")),
    ("mix and match of a model's role", "metadata-mismatch", _mixed("model-linear")),
    ("other bytes of the right snapshot's version", "metadata-mismatch", _other_bytes("snapshot", "snapshot")),
    ("other bytes of the right targets' version", "metadata-mismatch", _other_bytes("targets", "targets")),
    ("other bytes of the right version of a model's role", "metadata-mismatch", _other_bytes("model-linear", "models")),
    ("endless data", "metadata-too-large", _endless),
    ("key compromise below the threshold", "untrusted-metadata", _root_by_one_key),
    ("key compromise: the thief's own root keys", "untrusted-metadata", _root_twice_by_one_key),
    ("key compromise: one signature twice", "bad-metadata", _root_with_one_signature_twice),
    ("key compromise: two honest roots before it", "untrusted-metadata", _third_root_by_one_key),
    ("a root that skips a version", "rollback-attack", _root_that_skips_a_version),
    ("metadata that is not JSON", "bad-metadata", _not_json),
    ("metadata nested too deeply", "bad-metadata", _deep),
    ("metadata withheld", "metadata-missing", _withheld),
]


@pytest.mark.parametrize(("code", "attack"), [row[1:] for row in ATTACKS], ids=[row[0] for row in ATTACKS])
async def test_an_attack_on_the_repository_is_refused(
    device: GatedDevice, code: str, attack: Callable[[GatedDevice], bytes]
) -> None:
    device.repository.offer(reference("1.0.0", "other"))
    device.repository.add(reference("0.9.0"))
    assert await device.code(device.signed(1, reference())) == "accepted"
    honest, remembered, clock_s = copy.deepcopy(device.repository), device.vault.memory, device.clock_s
    assert await device.code(attack(device)) == code
    assert device.vault.memory == remembered
    refusal = device.gate.report().refusal
    assert refusal is not None and refusal.code == code and refusal.message
    # Recovery: the owner publishes on, from versions above all that the attacker may have signed with stolen keys.
    device.repository, device.clock_s = honest, clock_s
    for role in (honest.timestamp, honest.snapshot, honest.targets, *honest.models.values()):
        role.version += 10
    honest.publish()
    device.restart()
    assert await device.code(device.signed(2, NEW)) == "accepted"
    assert device.gate.report().refusal is None


async def test_extraneous_files_are_never_asked_for(device: GatedDevice) -> None:
    device.repository.add(reference("1.0.0", "other"))
    device.repository.add(NEW)
    more = {f"{number}.model-x{number}.json": catalogued(b"x" * 1000) for number in range(1, 100)}
    message = device.message(desired(1, NEW), catalogue={**device.repository.catalogue(), **more})
    assert await device.code(message) == "accepted"
    assert len(device.asked) == 5 and not any("model-x" in name or "other" in name for name in device.asked)
    # the root after the newest, timestamp, snapshot, targets, and the role of the one model
    assert device.asked[0] == "2.root.json" and device.asked[1] == "timestamp.json"


async def test_unchanged_metadata_is_not_fetched_again(device: GatedDevice) -> None:
    await device.gate.desired(device.signed(1, NEW))
    device.asked.clear()
    await device.gate.desired(device.message(desired(2, NEW)))
    assert device.asked == ["2.root.json", "timestamp.json"]


async def test_a_new_root_replaces_every_key(device: GatedDevice) -> None:
    await device.gate.desired(device.signed(1, reference()))
    repository = device.repository
    old_directors = list(repository.directors)
    repository.signers = {role: fresh_signer(f"second-{role}") for role in repository.signers}
    repository.directors = [fresh_signer("second-director")]
    repository.redelegate()
    repository.rotate()
    assert await device.code(device.signed(2, NEW)) == "accepted"
    assert device.gate.report().root_version == 2
    device.restart()
    assert await device.code(device.message(desired(3, NEW), by=old_directors)) == "untrusted-signature"
    assert await device.code(device.message(desired(3, NEW))) == "accepted"


async def test_several_roots_are_followed_in_one_refresh(device: GatedDevice) -> None:
    """A device that was switched off meanwhile; each of the roots has another holder, and only the last two overlap."""
    assert await device.code(device.signed(1, reference())) == "accepted"
    for number in (2, 3, 4):
        leaving = device.repository.root_signers
        device.repository.root_signers = [*leaving[1:], fresh_signer(f"holder-{number}")]
        device.repository.rotate(leaving)
    device.asked.clear()
    assert await device.code(device.signed(2, NEW)) == "accepted"
    assert device.gate.report().root_version == 4
    assert device.asked[:4] == ["2.root.json", "3.root.json", "4.root.json", "5.root.json"]


async def test_an_expired_root_is_taken_and_nothing_by_it(device: GatedDevice) -> None:
    """TUF 5.3.10: it is kept, as it may lead to the next; below a fresh timestamp it is expired all the same."""
    assert await device.code(device.signed(1, reference())) == "accepted"
    remembered = device.vault.memory
    device.repository.lifetimes_s["root"] = -DAY_S
    device.repository.rotate()
    assert await device.code(device.signed(2, NEW)) == "metadata-expired"
    assert await device.command_code(device.message(command())) == "metadata-expired"
    assert device.gate.report().root_version == 2 and device.vault.memory == remembered
    del device.repository.lifetimes_s["root"]
    device.repository.rotate()
    assert await device.code(device.signed(2, NEW)) == "accepted"
    assert device.gate.report().root_version == 3


async def test_a_version_beyond_all_bounds_does_not_keep_the_device_from_reporting(device: GatedDevice) -> None:
    """Whoever has the timestamp's key may sign it; the agent must live to see the next root, which ends that."""
    device.repository.timestamp.version = 2**64
    assert await device.code(device.signed(1, reference())) == "accepted"
    assert device.gate.report().timestamp_version == LARGEST_INTEGER
    device.repository.signers["timestamp"] = fresh_signer("next-timestamp")
    device.repository.timestamp.version = 0
    device.repository.rotate()
    device.repository.publish()
    assert await device.code(device.signed(2, reference())) == "accepted"
    assert device.gate.report().timestamp_version < 10
