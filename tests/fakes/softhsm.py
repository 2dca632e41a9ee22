"""A PKCS#11 token in software: SoftHSM, a module as any other to whoever speaks to it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

LABEL, PIN = "fleet", "135790"
_LIBRARIES = ("/usr/lib/softhsm", "/usr/lib/*/softhsm", "/usr/local/lib/softhsm", "/opt/homebrew/lib/softhsm")


class Token:
    """A token of its own in a folder, with so many ECDSA keys, whose ids begin with 1."""

    def __init__(self, directory: Path, keys: int) -> None:
        tool = shutil.which("softhsm2-util")
        libraries = [path for place in _LIBRARIES for path in Path("/").glob(f"{place[1:]}/libsofthsm2.so")]
        assert tool and libraries, "SoftHSM is needed: sudo apt install softhsm2"
        (directory / "tokens").mkdir(parents=True)
        settings = directory / "softhsm2.conf"
        settings.write_text(f"directories.tokendir = {directory / 'tokens'}\n")
        self.environment = {**os.environ, "SOFTHSM2_CONF": str(settings), "PYKCS11LIB": str(libraries[0])}
        self.pin_file = directory / "pin"
        self.pin_file.write_text(f"{PIN}\n")
        self._run(tool, "--init-token", "--free", "--label", LABEL, "--so-pin", "02468013")
        for number in range(1, keys + 1):
            self._run(tool, "--import", self._key(directory / "key.pem"), "--token", LABEL, *_named(number))

    def uri(self, number: int) -> str:
        """Return how securesystemslib calls a key."""
        return f"hsm:{number}?label={LABEL}"

    def _key(self, path: Path) -> str:
        private = generate_private_key(SECP256R1())
        path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return str(path)

    def _run(self, *command: str) -> None:
        subprocess.run([*command, "--pin", PIN], check=True, capture_output=True, env=self.environment)


def _named(number: int) -> tuple[str, ...]:
    return "--label", f"key-{number}", "--id", f"{number:02x}"
