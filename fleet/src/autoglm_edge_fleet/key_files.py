"""Keys in files: ed25519 keys made here, and signers for what is in PEM files of any origin."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.exceptions import Error as LibraryError
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from autoglm_edge_fleet.errors import KeyUnavailable, WrongPassphrase
from autoglm_edge_fleet.passphrases import PASSPHRASE_VARIABLE, Passphrases
from autoglm_edge_fleet.pkcs8 import from_pem, is_encrypted, to_pem
from autoglm_edge_protocol.durable import Disk

_LARGEST_PEM_BYTES = 64 * 1024


def make_key_file(
    directory: Path, role: str, purpose: str, passphrases: Passphrases | None, disk: Disk | None = None
) -> tuple[Path, Key]:
    """Make an ed25519 key in `ROLE-KEYID.pem`, which its owner alone may read; without passphrases not encrypted.

    Raises KeyUnavailable, OSError.
    """
    passphrase = passphrases.new(purpose) if passphrases else None
    private = Ed25519PrivateKey.generate()
    key = SSlibKey.from_crypto(private.public_key())
    disk = disk or Disk()
    disk.make_directories(directory)
    path = directory / f"{role}-{key.keyid[:8]}.pem"
    if passphrases and passphrase:
        passphrases.keep(purpose_of(path), passphrase)
    # Made before the secret is in it: `commit` takes over what is there under the temporary name, with its mode.
    os.close(os.open(path.with_name(f".{path.name}.new"), os.O_CREAT | os.O_WRONLY, 0o600))
    disk.commit(path, to_pem(private, passphrase))
    return path, key


def purpose_of(path: Path) -> str:
    """Return what a passphrase is asked for, for a key in a file."""
    return f"the key {path.name}"


def file_signer(path: Path, key: Key | None, passphrases: Passphrases, purpose: str | None = None) -> CryptoSigner:
    """Return what signs with the key in a PEM file, which must be `key` if that is given.

    `purpose`: what the passphrase is asked for, else the file. Raises KeyUnavailable, WrongPassphrase.
    """
    pem = _read(path)
    passphrase = None
    if is_encrypted(pem):
        passphrase = passphrases.get(purpose or purpose_of(path))
        if passphrase is None:
            raise KeyUnavailable(
                f"the key file {path} is encrypted: set {PASSPHRASE_VARIABLE} or use --passphrase-file"
            )
    try:
        private = from_pem(pem, passphrase)
    except ValueError:
        if passphrase is not None:
            raise WrongPassphrase(f"the passphrase does not open {path}, or the file is damaged") from None
        raise KeyUnavailable(f"{path} is no private key in PEM (PKCS#8)") from None
    try:
        public = SSlibKey.from_crypto(private.public_key(), key.keyid if key else None)
        if key is not None and public.keyval != key.keyval:
            raise KeyUnavailable(f"{path} holds another key than {key.keyid[:12]}")
        return CryptoSigner(private, key if isinstance(key, SSlibKey) else public)
    except (ValueError, LibraryError) as error:
        problem = (str(error) or type(error).__name__).splitlines()[0]
        raise KeyUnavailable(f"the key in {path} cannot be used: {problem}") from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_PEM_BYTES)
    except OSError as error:
        raise KeyUnavailable(f"the key file {path} cannot be read: {error.strerror}") from None
