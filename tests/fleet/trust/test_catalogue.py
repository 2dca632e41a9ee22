"""What devices are told about metadata, and for how long they can fetch it."""

from __future__ import annotations

from tests.fakes.custodies import Repository

from autoglm_edge_fleet.trust.catalogue import Shelf, Shelved
from autoglm_edge_fleet.trust.director import Director, Withheld, open_director
from autoglm_edge_fleet.trust.store import MetadataStore
from autoglm_edge_protocol.commands import Command
from autoglm_edge_protocol.deployment import DesiredState
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.signed import SignedMessage

DAY_S = 86_400.0


def shelf_of(repository: Repository) -> Shelf:
    shelf = Shelf(MetadataStore(repository.folder))
    assert shelf.reload() and not shelf.reload()
    return shelf


def test_a_device_is_told_of_its_own_model_only(repository: Repository) -> None:
    repository.publish("digits", "1.0.0")
    repository.publish("digits-large", "1.0.0")
    shelf = shelf_of(repository)
    catalogue = shelf.current.catalogue("digits")
    assert list(catalogue) == [
        "1.root.json",
        "timestamp.json",
        "3.snapshot.json",
        "3.targets.json",
        "1.model-digits.json",
    ]
    assert not any("model" in name for name in shelf.current.catalogue(None))
    for name, file in catalogue.items():
        data = (repository.metadata / name).read_bytes()
        assert (file.sha256, file.size_bytes) == (sha256_of(data), len(data))
        assert shelf.find(file.sha256) == data


def test_what_was_named_lately_can_be_fetched_and_what_is_long_over_cannot(repository: Repository) -> None:
    shelf = shelf_of(repository)
    first = shelf.current.catalogue(None)["timestamp.json"].sha256
    for number in range(8):
        assert shelf.find(first) is not None, f"after {number} refreshes"
        repository.custody.refresh(repository.now, force=True)
        assert shelf.reload()
    assert shelf.find(first) is None
    assert shelf.find(shelf.current.catalogue(None)["1.root.json"].sha256) is not None


def test_with_very_many_roots_the_oldest_are_left_out() -> None:
    files = {f"{n}.root.json": b"%d" % n for n in range(1, 400)} | {"timestamp.json": b"t", "9.snapshot.json": b"s"}
    catalogue = Shelved(399, "2027-01-01", files).catalogue("digits")
    assert len(catalogue) == LIMITS.metadata_files
    assert "399.root.json" in catalogue and "1.root.json" not in catalogue and "timestamp.json" in catalogue


def test_when_everything_is_signed_anew(repository: Repository) -> None:
    shelf, now = shelf_of(repository), repository.now.timestamp()

    def director() -> Director:
        root = MetadataStore(repository.folder).root().signed
        made = open_director(root, repository.ring, "f", shelf.current)
        assert isinstance(made, Director)
        return made

    before = director().epoch(now)
    repository.publish("digits", "1.0.0")
    shelf.reload()
    assert director().epoch(now) == before, "a publication concerns only those who are told to run it"
    assert director().epoch(now + 31 * DAY_S) != before, "desired states do not expire for want of a timestamp"
    repository.passed(1)
    repository.custody.refresh(repository.now)
    shelf.reload()
    assert director().epoch(now) != before, "the timestamp was renewed"
    before = director().epoch(now)
    repository.custody.rotate("director", None, True, repository.now)
    repository.sign(*repository.root_keys[:2])
    repository.custody.install_if_complete(repository.now)
    shelf.reload()
    assert director().epoch(now) != before, "another director"


def test_what_the_director_binds(repository: Repository) -> None:
    shelf, now = shelf_of(repository), repository.now.timestamp()
    director = open_director(MetadataStore(repository.folder).root().signed, repository.ring, "f", shelf.current)
    desired = DesiredState(fleet="f", device="d", generation=3, bundle=None)
    signed = parse(SignedMessage, director.desired(desired, now))
    document = parse(DesiredState, signed.envelope.unverified_payload)
    assert document == desired.model_copy(update={"signed_at": now, "expires_at": now + 90 * DAY_S})
    for asked, given in ((None, 7 * DAY_S), (60.0, 60.0), (30 * DAY_S, 7 * DAY_S)):
        expires_at = None if asked is None else now + asked
        command = Command(command_id="c", device="d", name="ping", expires_at=expires_at)
        payload = parse(SignedMessage, director.command(command, now)).envelope.unverified_payload
        assert parse(Command, payload).expires_at == now + given
        assert parse(Command, payload).fleet == "f"


def test_without_its_key_the_director_signs_nothing(repository: Repository) -> None:
    next((repository.directory / "keys").glob("director-*.pem")).unlink()
    root = MetadataStore(repository.folder).root().signed
    assert isinstance(open_director(root, repository.ring, "f", shelf_of(repository).current), Withheld)
