"""The fleet's private keys: which key lies where, and signers made of them.

`keys/keys.json` maps the id of each key to a URI: `file:NAME.pem` for a file beside it (PKCS#8, see `pkcs8`), or any
that securesystemslib knows, of which `hsm:` is PKCS#11. Root keys are not listed: they are not supposed to be here.
Which keys a role needs is said by the metadata, never by this list.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.exceptions import Error as LibraryError
from securesystemslib.signer import (
    SIGNER_FOR_URI_SCHEME,
    AWSSigner,
    AzureSigner,
    CryptoSigner,
    GCPSigner,
    GPGSigner,
    HSMSigner,
    Key,
    Signer,
    SSlibKey,
    VaultSigner,
)

from autoglm_edge_fleet.errors import KeyUnavailable, WrongPassphrase
from autoglm_edge_fleet.passphrases import PASSPHRASE_VARIABLE, Passphrases
from autoglm_edge_fleet.pkcs8 import from_pem, is_encrypted, to_pem
from autoglm_edge_protocol.durable import Disk

KEYS_FOLDER = "keys"
_LIST = "keys.json"
_LARGEST_PEM_BYTES = 64 * 1024

_IMPORTERS: dict[str, Callable[[str], tuple[str, Key]]] = {
    "awskms": AWSSigner.import_,
    "gcpkms": GCPSigner.import_,
    "azurekms": lambda rest: AzureSigner.import_(*rest.strip("/").split("/", 1)),
    "hv": VaultSigner.import_,
    "gnupg": GPGSigner.import_,
    "hsm": lambda rest: HSMSigner.import_(
        int(rest.partition("?")[0] or HSMSigner.SCHEME_KEYID), dict(parse_qsl(rest.partition("?")[2])).get("label")
    ),
}
"""How the public key behind a URI is learned: scheme -> what follows its colon -> (URI to keep, public key)."""


class KeyRing:
    """The keys listed in a folder. `passphrases` opens and protects the files among them."""

    def __init__(self, directory: Path, passphrases: Passphrases, disk: Disk | None = None) -> None:
        self.directory = directory
        self.passphrases = passphrases
        self._disk = disk or Disk()

    def places(self) -> dict[str, str]:
        """Return the URI of every key by its id. Raises KeyUnavailable when the list cannot be read."""
        path = self.directory / _LIST
        try:
            listed = json.loads(path.read_bytes())["keys"] if path.exists() else {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise KeyUnavailable(f"the list of keys {path} cannot be read: {error}") from None
        return {str(keyid): str(uri) for keyid, uri in listed.items()}

    def make(self, role: str, plain: bool = False) -> Key:
        """Make an ed25519 key for a role, in a file here; `plain`: not encrypted. Raises KeyUnavailable, OSError."""
        purpose = f"the keys in {self.directory}"
        path, key = make_key_file(self.directory, role, purpose, None if plain else self.passphrases, self._disk)
        self._note(key, f"file:{path.name}")
        return key

    def adopt(self, uri: str) -> Key:
        """List a key that lies elsewhere; returns its public half. Raises KeyUnavailable, WrongPassphrase, OSError."""
        kept, key = public_key_of(uri, self.passphrases)
        self._note(key, kept)
        return key

    def signer(self, key: Key) -> Signer:
        """Return what signs with the private half. Raises KeyUnavailable, WrongPassphrase."""
        uri = self.places().get(key.keyid)
        if uri is None:
            raise KeyUnavailable(f"key {key.keyid[:12]} is not among the keys in {self.directory}")
        return open_signer(uri, key, self.passphrases, self.directory)

    def describe(self, keyid: str) -> str:
        """Say for people where the private half is."""
        uri = self.places().get(keyid)
        if uri is None:
            return "elsewhere"
        if not uri.startswith("file:"):
            return uri
        path = self.directory / uri.removeprefix("file:")
        if not path.is_file():
            return f"{path}, missing"
        try:
            return f"{path}, {'encrypted' if is_encrypted(path.read_bytes()) else 'NOT encrypted'}"
        except OSError as error:
            return f"{path}, unreadable: {error.strerror}"

    def _note(self, key: Key, uri: str) -> None:
        self._disk.make_directories(self.directory)
        text = json.dumps({"keys": self.places() | {key.keyid: uri}}, indent=2) + "\n"
        self._disk.commit(self.directory / _LIST, text.encode())


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
    # Made before the secret is in it: `commit` takes over what is there under the temporary name, with its mode.
    os.close(os.open(path.with_name(f".{path.name}.new"), os.O_CREAT | os.O_WRONLY, 0o600))
    disk.commit(path, to_pem(private, passphrase))
    return path, key


def public_key_of(uri: str, passphrases: Passphrases) -> tuple[str, Key]:
    """Return the URI to keep and the public key behind any URI or path. Raises KeyUnavailable, WrongPassphrase."""
    scheme, _, rest = uri.partition(":")
    if scheme in ("file", "file2") or "/" in scheme or not rest:
        path = Path(rest if scheme in ("file", "file2") else uri).absolute()
        signer = _file_signer(path, None, passphrases)
        return f"file:{path}", signer.public_key
    importer = _IMPORTERS.get(scheme)
    if importer is None:
        known = ", ".join(f"{each}:" for each in ("file", *sorted(_IMPORTERS)))
        raise KeyUnavailable(f"{uri!r} names no key that can be used: {known} can (hsm: is PKCS#11)")
    try:
        return importer(rest)
    except Exception as error:  # each library behind a scheme has errors of its own
        raise KeyUnavailable(f"the key {uri} cannot be used: {_line(error)}") from None


def open_signer(uri: str, key: Key, passphrases: Passphrases, directory: Path) -> Signer:
    """Return what signs with the key at a URI. Raises KeyUnavailable, WrongPassphrase."""
    if uri.startswith("file:"):
        return _file_signer(directory / uri.removeprefix("file:"), key, passphrases)
    if urlsplit(uri).scheme not in SIGNER_FOR_URI_SCHEME:
        raise KeyUnavailable(f"{uri!r} names no key that can be used")

    def secret(name: str) -> str:
        given = passphrases.get(f"the {name} of {uri}")
        if given is None:
            raise KeyUnavailable(f"the {name} of {uri} is needed: set {PASSPHRASE_VARIABLE}")
        return given

    try:
        return Signer.from_priv_key_uri(uri, key, secret)
    except KeyUnavailable:
        raise
    except Exception as error:  # as above
        raise KeyUnavailable(f"the key {uri} cannot be used: {_line(error)}") from None


def _file_signer(path: Path, key: Key | None, passphrases: Passphrases) -> CryptoSigner:
    try:
        pem = path.open("rb").read(_LARGEST_PEM_BYTES)
    except OSError as error:
        raise KeyUnavailable(f"the key file {path} cannot be read: {error.strerror}") from None
    passphrase = None
    if is_encrypted(pem):
        passphrase = passphrases.get(f"the key {path.name}")
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
        raise KeyUnavailable(f"the key in {path} cannot be used: {_line(error)}") from None


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
