"""SHA-256 (FIPS 180-4), written as 64 lower-case hexadecimal digits, of bytes and of files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

_READ_BYTES = 1024 * 1024


def sha256_of(data: bytes | memoryview) -> str:
    """Return the digest of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Return the digest of the file's bytes. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()
