"""Keys and signed metadata, judged by python-tuf's own client: what it accepts of ours, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner, Key, Signature, Signer
from tests.fakes.custodies import Repository
from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.api.metadata import Metadata, Root

from autoglm_edge_fleet.errors import AlreadyAFleet, BadMetadata, KeyUnavailable, NoTrust, TrustError
from autoglm_edge_fleet.keys import KeyRing
from autoglm_edge_fleet.passphrases import Passphrases
from autoglm_edge_fleet.trust.catalogue import Shelved
from autoglm_edge_fleet.trust.custody import Custody, Foundation, sign_root, utc_now
from autoglm_edge_fleet.trust.director import open_director
from autoglm_edge_fleet.trust.roots import DIRECTOR, ONLINE_ROLES, director_of, keyids_of
from autoglm_edge_fleet.trust.verify import client
from autoglm_edge_protocol.commands import Command
from autoglm_edge_protocol.durable import Disk


def accepts(repository: Repository, scratch: Path, root: bytes | None = None) -> int:
    """Return the version of the timestamp that python-tuf's client accepts, keeping its state in `scratch`."""
    scratch.mkdir(exist_ok=True)
    updater = client(repository.folder, scratch, root or (repository.metadata / "1.root.json").read_bytes())
    updater.refresh()
    for reference in repository.bundles:
        target = updater.get_targetinfo(f"{reference.name}/{reference.version}/manifest.json")
        assert target is not None
        assert target.custom == {"name": reference.name, "version": reference.version}
        updater.download_target(target)
    return int(updater._trusted_set.timestamp.version)


def test_what_a_client_finds(repository: Repository, tmp_path: Path) -> None:
    assert accepts(repository, tmp_path / "c") == 1
    repository.publish("digits", "1.0.0")
    repository.publish("digits", "1.1.0+2")
    repository.publish("magika", "0.1")
    assert accepts(repository, tmp_path / "c") == 4
    found = repository.verify()
    assert (found.bundles, found.problems) == (3, ())
    assert {role.role for role in found.roles} == {
        "root", "timestamp", "snapshot", "targets", "model-digits", "model-magika"
    }  # fmt: skip


def test_signing_twice_changes_nothing_and_other_content_is_refused(repository: Repository) -> None:
    reference = repository.publish("digits", "1.0.0")
    before = repository.files()
    assert repository.reopened().sign_bundles([reference], repository.now) == 0
    assert repository.files() == before
    other = reference.model_copy(update={"manifest_sha256": "0" * 64})
    with pytest.raises(BadMetadata, match="raise its version"):
        repository.custody.sign_bundles([other], repository.now)
    assert repository.files() == before


def test_a_model_can_only_sign_its_own_bundles(repository: Repository, tmp_path: Path) -> None:
    """A key of one model that got into wrong hands gives nobody the other models."""
    repository.publish("digits", "1.0.0")
    repository.publish("magika", "1.0.0")
    repository.custody.rotate_model("model-digits", None, True, repository.now)
    targets = json.loads((repository.metadata / "4.targets.json").read_bytes())["signed"]["delegations"]["roles"]
    assert {role["name"]: (role["paths"], role["terminating"]) for role in targets} == {
        "model-digits": (["digits/*/manifest.json"], True),
        "model-magika": (["magika/*/manifest.json"], True),
    }
    updater = client(repository.folder, tmp_path, (repository.metadata / "1.root.json").read_bytes())
    assert updater.get_targetinfo("digits/2.0.0/manifest.json") is None
    assert updater.get_targetinfo("digits/1.0.0/other.json") is None


def test_the_director_stands_in_the_root_and_is_no_role_of_tuf(repository: Repository) -> None:
    root = Metadata[Root].from_bytes((repository.metadata / "1.root.json").read_bytes()).signed
    director = director_of(root)
    assert director.threshold == 1 and set(director.keyids) <= set(root.keys)
    assert set(root.roles) == {"root", "targets", "snapshot", "timestamp"}
    assert len({keyid for role in ("root", *ONLINE_ROLES) for keyid in keyids_of(root, role)[0]}) == 7, "none is shared"


# expiry and renewal ----


def test_what_is_renewed_when(repository: Repository) -> None:
    repository.publish("digits", "1.0.0")
    renewed = []
    for _ in range(130):
        repository.passed(1)
        renewed.append(repository.custody.refresh(repository.now).roles)
    assert all("timestamp" in roles for roles in renewed), "each day"
    assert [day for day, roles in enumerate(renewed, 1) if "snapshot" in roles][:2] == [15, 30]
    assert [day for day, roles in enumerate(renewed, 1) if "targets" in roles] == [120]
    assert [day for day, roles in enumerate(renewed, 1) if "model-digits" in roles] == [120]
    assert repository.custody.refresh(repository.now).roles == ()


def test_without_the_targets_key_the_others_go_on_and_it_is_said(repository: Repository, tmp_path: Path) -> None:
    repository.publish("digits", "1.0.0")
    away = next((repository.directory / "keys").glob("targets-*.pem"))
    away.rename(tmp_path / "away.pem")
    repository.passed(121)
    done = repository.reopened().refresh(repository.now)
    assert done.roles == ("snapshot", "timestamp")
    assert len(done.problems) == 1 and "cannot be signed" in done.problems[0] and "\n" not in done.problems[0]
    next((repository.directory / "keys").glob("snapshot-*.pem")).unlink()
    repository.passed(16)
    done = repository.reopened().refresh(repository.now)
    assert done.roles == ("timestamp",) and len(done.problems) == 2
    next((repository.directory / "keys").glob("timestamp-*.pem")).unlink()
    repository.passed(2)
    done = repository.reopened().refresh(repository.now)
    assert done.roles == () and "timestamp cannot be signed" in done.problems[-1]
    assert repository.verify().problems == (), "what is there is still sound"


def test_a_client_refuses_what_has_expired_and_refresh_mends_it(repository: Repository) -> None:
    real = repository.now
    repository.now -= timedelta(days=10)
    repository.publish("digits", "1.0.0")
    found = repository.custody.verify(repository.bundles, real)
    assert found.problems and "expired" in found.problems[0] and "repository refresh" in found.problems[0]
    assert [role.is_due for role in found.roles if role.role == "timestamp"] == [True]
    repository.custody.refresh(real)
    assert repository.custody.verify(repository.bundles, real).problems == ()


# rotation ----


@pytest.mark.parametrize("role", ONLINE_ROLES)
def test_replacing_a_key_takes_two_of_three_holders(repository: Repository, tmp_path: Path, role: str) -> None:
    repository.publish("digits", "1.0.0")
    assert accepts(repository, tmp_path / "old client") > 0
    before = repository.files()
    old = {key.keyid for key in repository.custody.list_keys() if key.role == role}
    change = repository.custody.rotate(role, None, True, repository.now)
    assert change.pending is not None and "2 more of the keys of the old root" in change.missing[0]
    repository.sign(repository.root_keys[0])
    assert repository.custody.install_if_complete(repository.now).pending is not None, "1 of 3 is not enough"
    assert repository.files() == before, "nothing has changed for anybody"
    repository.sign(repository.root_keys[2])
    assert repository.custody.install_if_complete(repository.now).missing == ()
    assert repository.custody.pending() is None
    assert not old & {key.keyid for key in repository.custody.list_keys() if key.role == role}
    assert repository.verify().problems == ()
    for name in ("old client", "new client"):
        assert accepts(repository, tmp_path / name) > 0


def test_the_same_holder_twice_is_one_holder(repository: Repository) -> None:
    repository.custody.rotate("timestamp", None, True, repository.now)
    repository.sign(repository.root_keys[0], repository.root_keys[0])
    assert "1 more" in repository.custody.install_if_complete(repository.now).missing[0]


def test_a_key_that_is_no_root_key_does_not_count(repository: Repository) -> None:
    repository.custody.rotate("timestamp", None, True, repository.now)
    stranger = next((repository.directory / "keys").glob("targets-*.pem"))
    repository.sign(repository.root_keys[0], stranger)
    assert "1 more" in repository.custody.install_if_complete(repository.now).missing[0]


def test_replacing_all_root_keys_takes_both_old_and_new_holders(repository: Repository, tmp_path: Path) -> None:
    repository.publish("digits", "1.0.0")
    change = repository.custody.rotate_root([], tmp_path / "new", True, repository.now)
    assert len(change.missing) == 2
    new = sorted((tmp_path / "new").iterdir())
    for keys, lacking in (
        (repository.root_keys[:1], ["2 more of the keys of the new root", "1 more of the keys of the old root"]),
        (repository.root_keys[1:2], ["2 more of the keys of the new root"]),
        (new[:1], ["1 more of the keys of the new root"]),
    ):
        repository.sign(*keys)
        missing = repository.custody.install_if_complete(repository.now).missing
        assert sorted(line.partition(" (")[0] for line in missing) == sorted(lacking)
    repository.sign(new[2])
    assert repository.custody.install_if_complete(repository.now).pending is None
    assert accepts(repository, tmp_path / "c") > 0
    repository.custody.rotate("timestamp", None, True, repository.now)
    repository.sign(*repository.root_keys)
    assert repository.custody.install_if_complete(repository.now).pending is not None, "the old keys are worth nothing"


def test_replacing_one_lost_root_key(repository: Repository, tmp_path: Path) -> None:
    lost = [key.keyid for key in repository.custody.list_keys() if key.role == "root"][1]
    with pytest.raises(TrustError, match="no root key begins with"):
        repository.custody.rotate_root(["zz"], tmp_path / "new", True, repository.now)
    repository.custody.rotate_root([lost[:8]], tmp_path / "new", True, repository.now)
    repository.sign(repository.root_keys[0], repository.root_keys[2])
    assert repository.custody.install_if_complete(repository.now).pending is None
    keyids = [key.keyid for key in repository.custody.list_keys() if key.role == "root"]
    assert len(keyids) == 3 and lost not in keyids
    assert accepts(repository, tmp_path / "c") > 0


def test_a_client_of_the_first_day_follows_ten_rotations(repository: Repository, tmp_path: Path) -> None:
    first = (repository.metadata / "1.root.json").read_bytes()
    keys = list(repository.root_keys)
    for number in range(10):
        if number % 2:
            repository.custody.rotate(ONLINE_ROLES[number // 2 % 4], None, True, repository.now)
            repository.sign(*keys[:2])
        else:
            folder = tmp_path / f"root {number}"
            repository.custody.rotate_root([], folder, True, repository.now)
            new = sorted(folder.iterdir())
            repository.sign(*keys[:2], *new[:2])
            keys = new
        assert repository.custody.install_if_complete(repository.now).missing == ()
    assert accepts(repository, tmp_path / "c", first) > 0
    assert (tmp_path / "c" / "metadata" / "root_history" / "11.root.json").is_file()


def test_signing_on_other_machines(repository: Repository, tmp_path: Path) -> None:
    change = repository.custody.renew_root(repository.now + timedelta(days=300))
    assert change.pending is not None
    copies = []
    for number, key in enumerate(repository.root_keys[:2]):
        machine = tmp_path / f"machine {number}"
        machine.mkdir()
        copy = machine / "2.root.json"
        copy.write_bytes(change.pending.read_bytes())
        sign_root(copy, [str(key)], KeyRing(machine, Passphrases()))
        copies.append(copy)
    repository.custody.take_signatures(copies)
    assert repository.custody.install_if_complete(repository.now).pending is None
    root = Metadata[Root].from_bytes((repository.metadata / "2.root.json").read_bytes()).signed
    assert root.expires - repository.now > timedelta(days=660)
    repository.custody.renew_root(repository.now)
    with pytest.raises(BadMetadata, match="is not a copy"):
        repository.custody.take_signatures(copies)


def test_only_one_change_at_a_time_and_none_out_of_nothing(repository: Repository) -> None:
    with pytest.raises(TrustError, match="begin one with"):
        repository.custody.install_if_complete(repository.now)
    repository.custody.renew_root(repository.now)
    with pytest.raises(TrustError, match="waits for signatures"):
        repository.custody.rotate("timestamp", None, True, repository.now)
    with pytest.raises(TrustError, match="there are: root, targets, snapshot, timestamp, director"):
        repository.custody.rotate_model("model-none", None, True, repository.now)


def test_a_role_can_be_given_a_key_that_lies_elsewhere(repository: Repository, tmp_path: Path) -> None:
    signer = CryptoSigner.generate_ecdsa()
    (tmp_path / "hsm.pem").write_bytes(signer.private_bytes)
    repository.custody.rotate("targets", f"file2:{tmp_path / 'hsm.pem'}", True, repository.now)
    repository.sign(*repository.root_keys[:2])
    assert repository.custody.install_if_complete(repository.now).missing == ()
    repository.publish("digits", "1.0.0")
    assert repository.verify().problems == ()
    (tmp_path / "hsm.pem").unlink()
    with pytest.raises(KeyUnavailable, match="cannot be signed"):
        Custody(repository.folder, KeyRing(repository.directory / "keys", Passphrases())).sign_bundles(
            [repository.bundles[0].model_copy(update={"version": "2.0.0"})], repository.now
        )


# founding ----


def test_founding_is_done_once_and_within_reason(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(AlreadyAFleet, match="keys list"):
        repository.custody.found(Foundation(tmp_path / "more", plain=True), repository.now)
    empty = Custody(tmp_path / "x" / "repository", KeyRing(tmp_path / "x" / "keys", Passphrases()))
    for count, threshold in ((3, 4), (3, 0), (17, 2)):
        with pytest.raises(TrustError, match="make no sense"):
            empty.found(Foundation(tmp_path / "more", count, threshold, plain=True), utc_now())
    with pytest.raises(NoTrust, match="fleet init"):
        empty.list_keys()
    with pytest.raises(KeyUnavailable, match="--unencrypted"):
        empty.found(Foundation(tmp_path / "more"), utc_now())


@pytest.mark.parametrize(("count", "threshold"), [(1, 1), (5, 3)])
def test_other_thresholds(tmp_path: Path, count: int, threshold: int) -> None:
    repository = Repository(tmp_path, threshold, count)
    repository.custody.rotate(DIRECTOR, None, True, repository.now)
    repository.sign(*repository.root_keys[: threshold - 1])
    if threshold > 1:
        assert repository.custody.install_if_complete(repository.now).pending is not None
    repository.sign(repository.root_keys[threshold - 1])
    assert repository.custody.install_if_complete(repository.now).pending is None


class FailingDisk(Disk):
    """Fails at the n-th replacement of a file, as when the power goes."""

    def __init__(self, left: int) -> None:
        self.left = left

    def replace(self, source: Path, target: Path) -> None:
        if self.left == 0:
            raise OSError("the power went")
        self.left -= 1
        super().replace(source, target)


def test_whatever_dies_while_a_bundle_is_signed_the_repository_is_whole(repository: Repository, tmp_path: Path) -> None:
    repository.publish("digits", "1.0.0")
    died = 0
    for number in range(10):
        disk = FailingDisk(number)
        try:
            next_one = repository.bundles[0].model_copy(update={"name": "magika", "version": f"{number}"})
            Custody(repository.folder, repository.ring, disk).sign_bundles([next_one], repository.now)
        except OSError:
            died += 1
        assert repository.verify().problems == (), f"after {number} replacements"
        assert accepts(repository, tmp_path / "one client all the time") > 0
    assert died == 4, "the model's, targets, snapshot and timestamp"


def test_a_rotation_that_died_after_the_root_was_written_is_made_up_for(repository: Repository, tmp_path: Path) -> None:
    repository.custody.rotate("timestamp", None, True, repository.now)
    repository.sign(*repository.root_keys[:2])
    with pytest.raises(OSError, match="the power went"):
        Custody(repository.folder, repository.ring, FailingDisk(1)).install_if_complete(repository.now)
    assert repository.verify().problems, "the timestamp is not signed by the new key"
    assert "timestamp" in repository.reopened().refresh(repository.now).roles
    assert repository.verify().problems == ()
    assert accepts(repository, tmp_path / "c") > 0


# tampering ----


def edit(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    values = json.loads(path.read_bytes())
    change(values["signed"])
    path.write_text(json.dumps(values))


def newest(repository: Repository, role: str) -> Path:
    return max(repository.metadata.glob(f"*.{role}.json"), key=lambda path: int(path.name.split(".")[0]))


TAMPERED: dict[str, Callable[[Repository], object]] = {
    "a root with another director": lambda r: edit(
        newest(r, "root"), lambda s: s.update({"x-autoglm-director": {"keyids": ["0" * 64], "threshold": 1}})
    ),
    "a root that needs one key only": lambda r: edit(
        newest(r, "root"),
        lambda s: s["roles"]["root"].update(threshold=1),  # type: ignore[index]
    ),
    "a timestamp that lasts longer": lambda r: edit(
        r.metadata / "timestamp.json", lambda s: s.update(expires="2099-01-01T00:00:00Z")
    ),
    "an older snapshot": lambda r: (newest(r, "snapshot")).write_bytes((r.metadata / "2.snapshot.json").read_bytes()),
    "a snapshot without a model": lambda r: edit(newest(r, "snapshot"), lambda s: s.update(meta={})),
    "a model with another manifest": lambda r: edit(
        r.metadata / "1.model-digits.json",
        lambda s: s["targets"]["digits/1.0.0/manifest.json"].update(length=7),  # type: ignore[index]
    ),
    "a model of another model": lambda r: (r.metadata / "1.model-digits.json").write_bytes(
        (r.metadata / "1.model-magika.json").read_bytes()
    ),
    "a manifest with other bytes": lambda r: next((r.folder / "targets/digits").rglob("*.json")).write_bytes(b"other"),
    "an endless snapshot": lambda r: (newest(r, "snapshot")).write_bytes(b" " * 2**21),
    "no timestamp": lambda r: (r.metadata / "timestamp.json").unlink(),
    "nonsense for a root": lambda r: (newest(r, "root")).write_bytes(b"{}"),
    "nonsense for targets": lambda r: (newest(r, "targets")).write_bytes(b"\0"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_tampered_with_is_refused_by_the_client_and_named_by_verify(
    repository: Repository, tmp_path: Path, what: str
) -> None:
    repository.publish("digits", "1.0.0")
    repository.custody.rotate("snapshot", None, True, repository.now)
    repository.sign(*repository.root_keys[:2])
    repository.custody.install_if_complete(repository.now)
    repository.publish("magika", "1.0.0")
    TAMPERED[what](repository)
    found = repository.verify()
    assert found.problems and all("\n" not in problem for problem in found.problems)
    with pytest.raises((RepositoryError, DownloadError)):
        accepts(repository, tmp_path / "c")


def test_a_client_refuses_to_go_back(repository: Repository, tmp_path: Path) -> None:
    repository.publish("digits", "1.0.0")
    old = repository.files()
    repository.publish("digits", "1.1.0")
    accepts(repository, tmp_path / "c")
    (repository.metadata / "timestamp.json").write_bytes(old["timestamp.json"])
    with pytest.raises(RepositoryError, match="version"):
        accepts(repository, tmp_path / "c")


def test_a_folder_that_was_there_keeps_its_permissions(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    custody = Custody(tmp_path / "repository", KeyRing(tmp_path / "keys", Passphrases()))
    made = custody.found(Foundation(shared, plain=True), utc_now())
    assert shared.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in made} == {0o600}


class _Unplugged(Signer):
    """A key in a module that is gone, whose library says so in its own way."""

    def __init__(self, key: Key) -> None:
        self._key = key

    @property
    def public_key(self) -> Key:
        return self._key

    @classmethod
    def from_priv_key_uri(cls, priv_key_uri: str, public_key: Key, secrets_handler: object = None) -> Signer:
        raise NotImplementedError

    def sign(self, payload: bytes) -> Signature:
        raise RuntimeError("CKR_DEVICE_REMOVED")


def test_a_module_that_is_gone_is_a_key_that_is_not_at_hand(repository: Repository) -> None:
    """Whatever its library raises: the daemon must say it and go on."""
    custody = repository.custody
    root = Metadata[Root].from_bytes((repository.metadata / "1.root.json").read_bytes()).signed
    keys = {role: root.keys[keyids_of(root, role)[0][0]] for role in ("timestamp", DIRECTOR)}
    custody.ring._opened |= {key.keyid: _Unplugged(key) for key in keys.values()}
    repository.passed(2)
    done = custody.refresh(repository.now)
    assert done.roles == () and "CKR_DEVICE_REMOVED" in done.problems[0]
    director = open_director(root, custody.ring, "home", Shelved(1, "", {}))
    with pytest.raises(KeyUnavailable, match="CKR_DEVICE_REMOVED"):
        director.command(Command(command_id="c", device="porch", name="ping"), 0.0)
