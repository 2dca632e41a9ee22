"""The fleet's private keys: which key lies where, and signers made of them.

`keys/keys.json` maps the id of each key to a URI: `file:NAME.pem` for a file beside it (PKCS#8, see `pkcs8`), or any
that securesystemslib knows, of which `hsm:` is PKCS#11. Root keys are not listed: they are not supposed to be here.
Which keys a role needs is said by the metadata, never by this list.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import (
    SIGNER_FOR_URI_SCHEME,
    AWSSigner,
    AzureSigner,
    GCPSigner,
    GPGSigner,
    HSMSigner,
    Key,
    Signer,
    TKeySigner,
    VaultSigner,
)

from autoglm_edge_fleet.errors import KeyUnavailable
from autoglm_edge_fleet.key_files import file_signer, make_key_file
from autoglm_edge_fleet.passphrases import PIN_VARIABLE, Passphrases
from autoglm_edge_fleet.pkcs8 import is_encrypted
from autoglm_edge_protocol.durable import Disk

KEYS_FOLDER = "keys"
_LIST = "keys.json"

_IMPORTERS: dict[str, Callable[[str], tuple[str, Key]]] = {
    "awskms": AWSSigner.import_,
    "gcpkms": GCPSigner.import_,
    "azurekms": lambda rest: AzureSigner.import_(*rest.strip("/").split("/", 1)),
    "hv": VaultSigner.import_,
    "gnupg": GPGSigner.import_,
    "tkey": lambda _: TKeySigner.import_(),
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
        self._opened: dict[str, Signer] = {}

    def places(self) -> dict[str, str]:
        """Return the URI of every key by its id. Raises KeyUnavailable when the list cannot be read."""
        path = self.directory / _LIST
        try:
            listed = json.loads(path.read_bytes())["keys"] if path.exists() else {}
            return {str(keyid): str(uri) for keyid, uri in listed.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise KeyUnavailable(f"the list of keys {path} cannot be read: {error}") from None

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
        if key.keyid not in self._opened:
            uri = self.places().get(key.keyid)
            if uri is None:
                raise KeyUnavailable(f"key {key.keyid[:12]} is not among the keys in {self.directory}")
            self._opened[key.keyid] = open_signer(uri, key, self.passphrases, self.directory)
        return self._opened[key.keyid]

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


def public_key_of(uri: str, passphrases: Passphrases) -> tuple[str, Key]:
    """Return the URI to keep and the public key behind any URI or path. Raises KeyUnavailable, WrongPassphrase."""
    scheme, _, rest = uri.partition(":")
    if scheme in ("file", "file2") or "/" in scheme or not rest:
        path = Path(rest if scheme in ("file", "file2") else uri).absolute()
        return f"file:{path}", file_signer(path, None, passphrases).public_key
    importer = _IMPORTERS.get(scheme)
    if importer is None:
        known = ", ".join(f"{each}:" for each in ("file", *sorted(_IMPORTERS)))
        raise KeyUnavailable(f"{uri!r} names no key that can be used: {known} can (hsm: is PKCS#11)")
    try:
        return importer(rest)
    except Exception as error:  # each library behind a scheme has errors of its own
        raise _unusable(uri, error) from None


def open_signer(uri: str, key: Key, passphrases: Passphrases, directory: Path) -> Signer:
    """Return what signs with the key at a URI. Raises KeyUnavailable, WrongPassphrase."""
    if uri.startswith("file:"):
        path = directory / uri.removeprefix("file:")
        # One passphrase for all that were made here, but whatever lies elsewhere has its own.
        purpose = f"the keys in {directory}" if path.parent == directory else None
        return file_signer(path, key, passphrases, purpose)
    if urlsplit(uri).scheme not in SIGNER_FOR_URI_SCHEME:
        raise KeyUnavailable(f"{uri!r} names no key that can be used")

    def secret(name: str) -> str:
        given = passphrases.pin(f"the {name} of {uri}")
        if given is None:
            raise KeyUnavailable(f"the {name} of {uri} is needed: set {PIN_VARIABLE} or use --pin-file")
        return given

    try:
        return Signer.from_priv_key_uri(uri, key, secret)
    except KeyUnavailable:
        raise
    except Exception as error:  # as above
        raise _unusable(uri, error) from None


def _unusable(uri: str, error: Exception) -> KeyUnavailable:
    problem = (str(error) or type(error).__name__).splitlines()[0]
    if isinstance(error, UnsupportedLibraryError):
        extra = {"hv": "vault"}.get(uri.partition(":")[0], uri.partition(":")[0])
        problem = f"{problem.rstrip('.')}; pip install 'securesystemslib[{extra}]'"
    return KeyUnavailable(f"the key {uri} cannot be used: {problem}")
