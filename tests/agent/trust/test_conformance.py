"""The cases of the TUF project's conformance suite, for this client, over HTTPS: init, refresh, download.

`tuf-conformance` itself drives a client's command line and is not on the package index, so its cases are done here with
a repository in memory, as python-tuf's own tests do. Its graphs of delegations have no counterpart: a model has one
role, and targets delegates to it. What an attacker does is in `test_repository_attacks`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.agent.trust.devices import reference
from tests.fakes.model_bundles import make_model_bundle
from tests.fakes.signing import DAY_S, FakeRepository, fresh_signer, signed_by
from tests.fakes.sticks import HttpsServer, write_repository
from tuf.api.metadata import Metadata

from autoglm_edge_agent.trust.decision import Distrust
from autoglm_edge_agent.trust.depots import HttpsDepot
from autoglm_edge_agent.trust.https import HttpsRepository
from autoglm_edge_agent.trust.repository import Repository, TooLarge
from autoglm_edge_protocol.deployment import BundleReference

DONE = "done"
ROLES = ("root", "timestamp", "snapshot", "targets")
FIRST = (1, 2, 2, 2)
"""Their versions in a repository that was just made."""


class Client:
    """A device's TUF client with a directory of its own, and what it asked the web server for."""

    def __init__(self, directory: Path, server: HttpsServer, folder: Path, repository: FakeRepository) -> None:
        self.repository = repository
        self.directory = directory
        self.now = repository.now
        self._server = server
        self._folder = folder
        self._remote = HttpsRepository(server.url, server.ca_file)
        directory.mkdir()

    def init(self, root: bytes | None = None) -> None:
        (self.directory / "root.json").write_bytes(root or self.repository.first_root)

    def refresh(self) -> str:
        """Return the code of the refusal, DONE when there is none."""
        return self._done(lambda _repository: None)

    def vouches(self, bundle: BundleReference) -> str:
        """Say in the same way whether a bundle is a target."""
        return self._done(lambda repository: repository.check_bundle(bundle))

    def _done(self, step: Callable[[Repository], None]) -> str:
        write_repository(self._folder, self.repository)
        self._server.paths.clear()
        try:
            repository = Repository(self.directory, self._fetch)
            repository.refresh(self.now)
            step(repository)
        except Distrust as distrust:
            return distrust.reason.code
        return DONE

    def _fetch(self, name: str, max_bytes: int) -> bytes | None:
        data = self._remote.read(f"metadata/{name}", max_bytes)
        if data is not None and len(data) > max_bytes:
            raise TooLarge(name)
        return data

    def download(self, sha256: str, size_bytes: int) -> bytes:
        return b"".join(HttpsDepot(self._remote).read(sha256, 0, size_bytes))

    @property
    def asked(self) -> list[str]:
        return [path.removeprefix("/metadata/") for path in self._server.paths]

    def version(self, role: str) -> int:
        """Return the version that is trusted, 0 for none."""
        path = self.directory / f"{role}.json"
        return int(Metadata.from_file(str(path)).signed.version) if path.exists() else 0

    def versions(self) -> tuple[int, ...]:
        return tuple(self.version(role) for role in ROLES)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    folder = write_repository(tmp_path / "web", repository := FakeRepository("conformance"))
    with HttpsServer(folder, tmp_path / "certificates") as server:
        yield Client(tmp_path / "client", server, folder, repository)


# init, refresh, download ----


def test_init_asks_for_nothing_and_refresh_for_each_role_once(client: Client) -> None:
    client.init()
    assert client.versions() == (1, 0, 0, 0) and client.asked == []
    assert client.refresh() == DONE
    assert client.asked == ["2.root.json", "timestamp.json", "2.snapshot.json", "2.targets.json"]
    assert client.versions() == FIRST
    assert client.refresh() == DONE
    assert client.asked == ["2.root.json", "timestamp.json"], "what is here is not asked for again"


def test_a_target_that_is_not_there_is_refused_and_the_metadata_is_new_all_the_same(client: Client) -> None:
    client.init()
    assert client.vouches(reference()) == "unknown-target"
    assert client.versions() == FIRST


def test_a_target_is_found_and_downloaded(client: Client, tmp_path: Path) -> None:
    bundle = make_model_bundle(tmp_path / "bundle")
    client.repository.add(bundle.reference)
    write_repository(tmp_path / "web", client.repository, bundle)
    client.init()
    assert client.vouches(bundle.reference) == DONE
    assert client.asked[-1] == "2.model-linear.json"
    wanted = bundle.reference
    data = client.download(wanted.manifest_sha256, wanted.manifest_size_bytes)
    assert data == (bundle.directory / "manifest.json").read_bytes()


# the initial root ----


def _without_version(root: bytes) -> bytes:
    document = json.loads(root)
    del document["signed"]["version"]
    return json.dumps(document).encode()


def _with_a_false_signature(root: bytes) -> bytes:
    document = json.loads(root)
    document["signatures"] = [{**each, "sig": "00" * 64} for each in document["signatures"]]
    return json.dumps(document).encode()


@pytest.mark.parametrize("spoil", [_without_version, _with_a_false_signature])
def test_an_initial_root_that_is_none_is_refused_before_anything_is_asked_for(
    client: Client, spoil: Callable[[bytes], bytes]
) -> None:
    client.init(spoil(client.repository.first_root))
    assert client.refresh() == "bad-root" and client.asked == []


# content ----


def test_a_timestamp_that_changes_without_a_new_version_is_not_taken(client: Client) -> None:
    client.init()
    assert client.refresh() == DONE
    before = (client.directory / "timestamp.json").read_bytes()
    client.repository.timestamp.version -= 1
    client.repository.lifetimes_s["timestamp"] = 20 * DAY_S
    client.repository.publish_timestamp()
    assert client.repository.files["timestamp.json"] != before
    assert client.refresh() == DONE
    assert (client.directory / "timestamp.json").read_bytes() == before


def test_fields_that_nobody_knows_are_signed_and_kept(client: Client) -> None:
    client.init()
    assert client.refresh() == DONE
    root = client.repository.root
    root.unrecognized_fields["custom-field"] = "value"
    root.roles["root"].unrecognized_fields["another-field"] = {"a": 1}
    key = root.keys[root.roles["root"].keyids[0]]
    key.unrecognized_fields["keyid_hash_algorithms"] = ["md5"]
    client.repository.rotate()
    assert client.refresh() == DONE and client.version("root") == 2


# keys and thresholds ----


def _snapshot_by(client: Client, threshold: int, named: int, signing: int) -> None:
    """Let the root name so many snapshot keys, and so many of them sign."""
    repository = client.repository
    signers = [repository.signers["snapshot"], *(fresh_signer(f"snapshot-{n}") for n in range(1, named))]
    repository.rotate()
    for signer in signers[1:]:
        repository.root.add_key(signer.public_key, "snapshot")
    repository.root.roles["snapshot"].threshold = threshold
    repository.publish_root()
    repository.publish()
    name = f"{repository.snapshot.version}.snapshot.json"
    repository.files[name] = signed_by(repository.snapshot, signers[:signing])
    repository.publish_timestamp()


@pytest.mark.parametrize(
    ("threshold", "named", "signing", "code"),
    [
        (3, 4, 3, DONE),
        (3, 4, 2, "untrusted-metadata"),
        (5, 5, 4, "untrusted-metadata"),
        (6, 5, 5, "untrusted-metadata"),  # more than there are keys
        (1, 4, 1, DONE),
    ],
)
def test_the_threshold_of_a_role_is_that_of_the_newest_root(
    client: Client, threshold: int, named: int, signing: int, code: str
) -> None:
    client.init()
    assert client.refresh() == DONE
    _snapshot_by(client, threshold, named, signing)
    assert client.refresh() == code
    assert client.version("root") == 2, "the root is taken in any case"
    assert client.version("snapshot") == (client.repository.snapshot.version if code == DONE else FIRST[2])


def test_one_key_that_is_named_again_and_again_is_one_key(client: Client) -> None:
    client.init()
    client.repository.rotate()
    for _ in range(9):
        client.repository.root.add_key(client.repository.signers["snapshot"].public_key, "snapshot")
    client.repository.root.roles["snapshot"].threshold = 6
    client.repository.publish_root()
    assert client.refresh() == "untrusted-metadata" and client.version("snapshot") == 0


# expiry ----


def test_what_is_here_and_has_expired_still_leads_to_what_is_newer(client: Client) -> None:
    client.init()
    client.repository.publish(lifetime_s=7 * DAY_S)
    assert client.refresh() == DONE
    client.repository.publish(lifetime_s=21 * DAY_S)
    client.now += 18 * DAY_S
    assert client.refresh() == DONE
    repository = client.repository
    newest = (repository.timestamp.version, repository.snapshot.version, repository.targets.version)
    assert client.versions() == (1, *newest)


def test_expired_metadata_is_not_taken(client: Client) -> None:
    client.init()
    assert client.refresh() == DONE
    client.repository.lifetimes_s["timestamp"] = -DAY_S
    client.repository.publish()
    assert client.refresh() == "metadata-expired"
    assert client.versions() == FIRST


# recovery from versions that a thief has signed ----


@pytest.mark.parametrize(
    ("role", "new_keys"),
    [("timestamp", ["timestamp"]), ("snapshot", ["snapshot", "timestamp"]), ("targets", ["snapshot", "timestamp"])],
)
def test_a_version_far_ahead_is_left_behind_with_new_keys(client: Client, role: str, new_keys: list[str]) -> None:
    """TUF 5.3.11: new keys for timestamp or snapshot begin anew, as fast-forwarded versions would stay for ever."""
    repository = client.repository
    client.init()
    signed = {"timestamp": repository.timestamp, "snapshot": repository.snapshot, "targets": repository.targets}[role]
    signed.version = 99_998
    repository.publish()
    assert client.refresh() == DONE and client.version(role) == 99_999
    signed.version = 0
    repository.publish()
    assert client.refresh() == "rollback-attack" and client.version(role) == 99_999
    for name in new_keys:
        repository.signers[name] = fresh_signer(f"recovered-{role}-{name}")
    repository.rotate()
    repository.publish()
    assert client.refresh() == DONE
    assert client.version("root") == 2 and client.version(role) == signed.version < 99_999
