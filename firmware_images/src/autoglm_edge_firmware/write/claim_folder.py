"""A folder of claims, each of which goes onto one card and no second one.

A claim is taken before its card is written, by moving its file: whatever happens then, nobody takes it again. That of a
card that could not be written is put back.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from autoglm_edge_firmware.errors import SettingRefused
from autoglm_edge_firmware.settings.claim import must_be_valid, read_claim
from autoglm_edge_protocol.claims import Claim
from autoglm_edge_protocol.durable import Disk

_GIVEN = "given"


@dataclass(frozen=True)
class Taken:
    """A claim that is one card's. Without an origin it stays where it is."""

    claim: Claim
    file: Path
    origin: Path | None = None

    def put_back(self) -> None:
        """Let another card have it."""
        if self.origin is not None:
            Disk().promote(self.file, self.origin)


class Claims(Protocol):
    """Where cards get their claims from."""

    def take(self) -> Taken:
        """Take a claim that nobody else gets.

        Raises:
            SettingRefused: there is none.
        """


class OneClaim:
    """The claim in one file, for one card."""

    def __init__(self, path: Path) -> None:
        self._path: Path | None = path

    def take(self) -> Taken:
        """Take it, once."""
        if self._path is None:
            raise SettingRefused("one claim is not for several cards")
        path, self._path = self._path, None
        claim = read_claim(path)
        must_be_valid(claim, time.time())
        return Taken(claim, path)


class ClaimFolder:
    """The folder that `autoglm-edge fleet claim create` has written; what is given lies in `given` below it."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise SettingRefused(f"{path}: no folder of claims")
        self._path = path

    def waiting(self) -> tuple[Path, ...]:
        """Return the files of claims that no card has."""
        return tuple(sorted(self._path.glob("*.json")))

    def take(self, now: float | None = None) -> Taken:
        """Take the next claim that has not expired.

        Raises:
            SettingRefused: there is none left, or a file is no claim.
        """
        disk = Disk()
        (self._path / _GIVEN).mkdir(mode=0o700, exist_ok=True)
        for file in self.waiting():
            claim = read_claim(file)
            try:
                must_be_valid(claim, time.time() if now is None else now)
            except SettingRefused:
                continue
            taken = self._path / _GIVEN / file.name
            try:
                disk.promote(file, taken)
            except FileNotFoundError:
                continue  # another took it
            return Taken(claim, taken, file)
        raise SettingRefused(
            f"{self._path}: no claim is left that is valid: make more with `fleet claim create --count`"
        )
