"""Keys that are not files of ours: GnuPG, for real, and what cannot be the director's."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.fakes.custodies import Repository

from autoglm_edge_fleet.errors import KeyUnavailable, TrustError
from autoglm_edge_fleet.keys import KeyRing
from autoglm_edge_fleet.passphrases import PASSPHRASE_VARIABLE, PIN_VARIABLE, Passphrases
from autoglm_edge_fleet.trust.custody import Custody, Foundation, utc_now


@pytest.fixture
def gnupg(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of a key in a GnuPG home of its own, short enough for its agent's socket."""
    gpg = shutil.which("gpg")
    assert gpg, "the package gnupg is needed: sudo apt install gnupg"
    with TemporaryDirectory(prefix="gpg") as home:
        monkeypatch.setenv("GNUPGHOME", home)
        command = [gpg, "--batch", "--passphrase", "", "--quick-generate-key", "a@example.org", "rsa2048", "sign"]
        subprocess.run([*command, "never"], check=True, capture_output=True)
        listed = subprocess.run([gpg, "--list-keys", "--with-colons"], check=True, capture_output=True, text=True)
        fingerprint = next(line.split(":")[9] for line in listed.stdout.splitlines() if line.startswith("fpr"))
        yield f"gnupg:{fingerprint.lower()}"
        subprocess.run(["gpgconf", "--kill", "all"], check=False, env=os.environ)


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_a_key_of_gnupg_signs_metadata(tmp_path: Path, gnupg: str, role: str) -> None:
    repository = Repository(tmp_path)
    repository.custody.rotate(role, gnupg, True, repository.now)
    repository.sign(*repository.root_keys[:2])
    assert repository.custody.install_if_complete(repository.now).missing == ()
    repository.publish("digits", "1.0.0")
    assert repository.verify().problems == ()
    assert "gnupg:" in repository.ring.places().values()


def test_a_key_of_gnupg_cannot_be_the_directors(tmp_path: Path, gnupg: str) -> None:
    repository = Repository(tmp_path / "old")
    before = repository.files()
    with pytest.raises(TrustError, match="do not fit into an envelope"):
        repository.custody.rotate("director", gnupg, True, repository.now)
    assert repository.files() == before
    assert "gnupg:" not in repository.ring.places().values()
    ring = KeyRing(tmp_path / "new" / "keys", Passphrases())
    custody = Custody(tmp_path / "new" / "repository", ring)
    with pytest.raises(TrustError, match="do not fit into an envelope"):
        custody.found(Foundation(tmp_path / "new" / "root", plain=True, uris={"director": gnupg}), utc_now())
    assert not custody.is_founded


def test_the_pin_of_a_token_is_never_the_passphrase_of_files(tmp_path: Path) -> None:
    both = Passphrases.find(environment={PASSPHRASE_VARIABLE: "of the files", PIN_VARIABLE: "1234"})
    assert (both.pin("the token"), both.get("the files")) == ("1234", "of the files")
    for known in ({PASSPHRASE_VARIABLE: "of the files"}, {}):
        assert Passphrases.find(environment=known).pin("the token") is None
    (tmp_path / "pin").write_text("4242\n")
    assert Passphrases.find(environment={PIN_VARIABLE: "1234"}, pin_file=tmp_path / "pin").pin("the token") == "4242"
    asked = Passphrases("of the files", lambda purpose, _is_new: f"typed for {purpose}")
    assert asked.pin("the token") == "typed for the token"
    (tmp_path / "empty").write_text("\n1234")
    for name, text in (("none", "the PIN file .* cannot be read"), ("empty", "the PIN file .* is empty")):
        with pytest.raises(KeyUnavailable, match=text):
            Passphrases.find(environment={}, pin_file=tmp_path / name)
