"""Private keys at rest: encrypted, private, and every way in which opening one fails is one line."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_edge_fleet.errors import KeyUnavailable, WrongPassphrase
from autoglm_edge_fleet.key_files import file_signer, make_key_file
from autoglm_edge_fleet.keys import KeyRing, public_key_of
from autoglm_edge_fleet.passphrases import PASSPHRASE_VARIABLE, Passphrases
from autoglm_edge_fleet.pkcs8 import from_pem, is_encrypted, to_pem

SECRET = "correct horse battery"
GIVEN = Passphrases(SECRET)


def raw(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())


@settings(max_examples=5)  # each opens scrypt twice, on purpose slow
@given(st.text(min_size=1, max_size=40).filter(lambda text: "\0" not in text))
def test_what_is_encrypted_here_others_can_read(passphrase: str) -> None:
    key = Ed25519PrivateKey.generate()
    pem = to_pem(key, passphrase)
    assert is_encrypted(pem) and raw(key) not in pem
    read = load_pem_private_key(pem, passphrase.encode())
    assert isinstance(read, Ed25519PrivateKey) and raw(read) == raw(key)


def test_keys_of_any_size_and_without_encryption() -> None:
    key = rsa.generate_private_key(65537, 2048)
    for passphrase in (SECRET, None):
        assert from_pem(to_pem(key, passphrase), passphrase).private_numbers() == key.private_numbers()  # type: ignore[union-attr]


def test_openssl_reads_and_writes_the_same_form(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    assert openssl, "the package openssl is needed"
    path = tmp_path / "key.pem"
    key = Ed25519PrivateKey.generate()
    path.write_bytes(to_pem(key, SECRET))
    command = [openssl, "pkcs8", "-in", str(path), "-passin", f"pass:{SECRET}"]
    plain = subprocess.run(command, capture_output=True, check=True).stdout
    assert plain == to_pem(key, None)
    command = [openssl, "pkcs8", "-topk8", "-scrypt", "-passout", f"pass:{SECRET}"]
    theirs = subprocess.run(command, input=plain, capture_output=True, check=True).stdout
    read = from_pem(theirs, SECRET)
    assert isinstance(read, Ed25519PrivateKey) and raw(read) == raw(key)


def test_a_guess_is_costly(tmp_path: Path) -> None:
    """The costs of scrypt stand in the file: N = 2^14, r = 8, p = 5."""
    path, _ = make_key_file(tmp_path, "targets", "x", GIVEN)
    openssl = shutil.which("openssl")
    assert openssl, "the package openssl is needed"
    text = subprocess.run([openssl, "asn1parse", "-in", str(path)], capture_output=True, check=True, text=True).stdout
    assert (
        ":scrypt" in text
        and ":aes-256-cbc" in text
        and "INTEGER           :4000" in text
        and "INTEGER           :05" in text
    )


def test_a_file_is_its_owners_alone_and_holds_no_secret_in_the_clear(tmp_path: Path) -> None:
    path, key = make_key_file(tmp_path / "keys", "targets", "the keys", GIVEN)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.name == f"targets-{key.keyid[:8]}.pem"
    signer = file_signer(path, key, GIVEN)
    private = signer._private_key
    assert isinstance(private, Ed25519PrivateKey)
    content = path.read_bytes()
    assert raw(private) not in content and raw(private).hex().encode() not in content and is_encrypted(content)
    plain, _ = make_key_file(tmp_path / "keys", "targets", "the keys", None)
    assert stat.S_IMODE(plain.stat().st_mode) == 0o600 and not is_encrypted(plain.read_bytes())
    assert sorted(p.name for p in (tmp_path / "keys").iterdir()) == sorted([path.name, plain.name])


def test_every_failure_is_one_line_and_says_what_to_do(tmp_path: Path) -> None:
    path, key = make_key_file(tmp_path, "targets", "x", GIVEN)
    other, _ = make_key_file(tmp_path, "targets", "x", GIVEN)
    damaged = tmp_path / "damaged.pem"
    damaged.write_bytes(path.read_bytes().replace(b"A", b"B"))
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_bytes(b"no key")
    table: list[tuple[Path, Passphrases, type[Exception], str]] = [
        (path, Passphrases("wrong one"), WrongPassphrase, "does not open"),
        (path, Passphrases(), KeyUnavailable, PASSPHRASE_VARIABLE),
        (other, GIVEN, KeyUnavailable, "holds another key"),
        (damaged, GIVEN, WrongPassphrase, "or the file is damaged"),
        (nonsense, GIVEN, KeyUnavailable, "no private key in PEM"),
        (tmp_path / "gone.pem", GIVEN, KeyUnavailable, "No such file"),
        (tmp_path, GIVEN, KeyUnavailable, "Is a directory"),
    ]
    for file, passphrases, kind, text in table:
        with pytest.raises(kind, match=text) as caught:
            file_signer(file, key, passphrases)
        assert "\n" not in str(caught.value)


def test_a_short_or_missing_passphrase_makes_no_key(tmp_path: Path) -> None:
    for passphrases, text in ((Passphrases("short"), "fewer than 8"), (Passphrases(), "--unencrypted")):
        with pytest.raises(KeyUnavailable, match=text):
            make_key_file(tmp_path / "keys", "targets", "the keys", passphrases)
    assert not list(tmp_path.rglob("*.pem"))


def test_where_passphrases_come_from(tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.write_text("from the file\r\nand no more\n")
    environment = {PASSPHRASE_VARIABLE: "from the environment"}
    assert Passphrases.find(file, environment=environment).get("x") == "from the file"
    assert Passphrases.find(environment=environment).get("x") == "from the environment"
    assert Passphrases.find(environment={}).get("x") is None
    asked: list[tuple[str, bool]] = []

    def ask(purpose: str, is_new: bool) -> str:
        asked.append((purpose, is_new))
        return f"for {purpose}"

    interactive = Passphrases.find(ask=ask, environment={})
    assert [interactive.get("a"), interactive.get("a"), interactive.new("bbbb")] == ["for a", "for a", "for bbbb"]
    assert asked == [("a", False), ("bbbb", True)]
    for wrong in (tmp_path / "gone", tmp_path):
        with pytest.raises(KeyUnavailable, match="cannot be read"):
            Passphrases.find(wrong)
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(KeyUnavailable, match="is empty"):
        Passphrases.find(tmp_path / "empty")


def test_a_key_that_was_just_made_is_not_asked_for_again(tmp_path: Path) -> None:
    asked: list[str] = []

    def ask(purpose: str, _: bool) -> str:
        asked.append(purpose)
        return SECRET

    passphrases = Passphrases(ask=ask)
    path, key = make_key_file(tmp_path, "root", "root key 1 of 3", passphrases)
    file_signer(path, key, passphrases)
    ring = KeyRing(tmp_path / "keys", passphrases)
    for role in ("targets", "snapshot"):
        ring.signer(ring.make(role))
    assert asked == ["root key 1 of 3", f"the keys in {tmp_path / 'keys'}"]


def test_a_ring_says_where_keys_are(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "keys", GIVEN)
    encrypted, plain = ring.make("targets"), ring.make("snapshot", plain=True)
    elsewhere, _ = make_key_file(tmp_path / "stick", "timestamp", "x", GIVEN)
    adopted = ring.adopt(f"file:{elsewhere}")
    again = KeyRing(tmp_path / "keys", GIVEN)
    assert again.describe(encrypted.keyid).endswith(".pem, encrypted")
    assert again.describe(plain.keyid).endswith(".pem, NOT encrypted")
    assert again.signer(adopted).sign(b"x").keyid == adopted.keyid
    elsewhere.unlink()
    assert again.describe(adopted.keyid) == f"{elsewhere}, missing"
    with pytest.raises(KeyUnavailable, match="No such file"):
        KeyRing(tmp_path / "keys", GIVEN).signer(adopted)
    assert again.describe("f" * 64) == "elsewhere"
    (tmp_path / "keys" / "keys.json").write_text("[]")
    with pytest.raises(KeyUnavailable, match="list of keys"):
        again.places()


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("pkcs11:token=x", "hsm: is PKCS#11"),
        ("awskms:arn", r"pip install 'securesystemslib\[awskms\]'"),
        ("gcpkms:projects/x", r"securesystemslib\[gcpkms\]"),
        ("azurekms://vault/key", r"securesystemslib\[azurekms\]"),
        ("hv:key", r"securesystemslib\[vault\]"),
        ("hsm:2?label=x", "PYKCS11LIB environment variable must be set"),
        ("hsm:x", "invalid literal"),
    ],
)
def test_uris_of_keys_that_cannot_be_used_here(uri: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYKCS11LIB", raising=False)
    with pytest.raises(KeyUnavailable, match=text) as caught:
        public_key_of(uri, GIVEN)
    assert "\n" not in str(caught.value)


def test_a_key_under_the_name_of_another_kind_is_none(tmp_path: Path) -> None:
    """OpenSSL finds an X448 key of 32 bytes, says nothing that is foreseen, and `cryptography` speaks of a defect."""
    pem = to_pem(Ed25519PrivateKey.generate(), None)
    path = tmp_path / "key.pem"
    path.write_bytes(pem.replace(b"MC4CAQAwBQYDK2Vw", b"MC4CAQAwBQYDK2Vv"))
    assert path.read_bytes() != pem
    with pytest.raises(KeyUnavailable, match="is no private key in PEM"):
        file_signer(path, None, GIVEN)
