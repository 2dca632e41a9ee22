"""How much of an update is on the device, file by file: what was there before, and what came over the network. Pure."""

from __future__ import annotations


class Progress:
    """Counts verified bytes, each once: what is fetched again because it was wrong is not progress."""

    def __init__(self) -> None:
        self._before: dict[str, int] = {}
        self._now: dict[str, int] = {}

    @property
    def fetched_bytes(self) -> int:
        """Bytes that came over the network since this object was made."""
        return sum(self._now.values()) - self.present_bytes

    @property
    def present_bytes(self) -> int:
        """Bytes that were on the device when each file was looked at first, and those from a folder on it."""
        return sum(self._before.values())

    def found(self, sha256: str, found_bytes: int, verified_bytes: int) -> None:
        """Note that so many bytes of a file came from a folder on the device, and what is in place with them."""
        self.reached(sha256, verified_bytes)
        self._before[sha256] = min(self._before[sha256] + found_bytes, verified_bytes)

    def reached(self, sha256: str, verified_bytes: int) -> None:
        """Note that so many bytes of a file are in place; the first time they count as present before."""
        self._before.setdefault(sha256, verified_bytes)
        self._now[sha256] = max(verified_bytes, self._now.get(sha256, 0))
