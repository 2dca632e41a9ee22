"""A folder of claims, each of which goes onto one card and no second one.

A claim is taken before its card is written, by moving its file: whatever happens then, nobody takes it again. That of a
card that could not be written is put back.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from autoglm_edge_firmware.errors import SettingRefused
from autoglm_edge_firmware.settings.claim import Claim, read_claim
from autoglm_edge_protocol.durable import Disk

_GIVEN = "given"


@dataclass(frozen=True)
class Taken:
    """A claim that is one card's."""

    claim: Claim
    file: Path
    origin: Path

    def put_back(self) -> None:
        """Let another card have it."""
        Disk().promote(self.file, self.origin)


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
                claim.must_be_valid(time.time() if now is None else now)
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
