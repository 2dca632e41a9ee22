"""Cards with faults, over a plain file."""

from __future__ import annotations

import errno
import os

from autoglm_edge_firmware.write.card import OpenCard


class PulledCard:
    """A card that is pulled out after so many bytes."""

    def __init__(self, card: OpenCard, after_bytes: int) -> None:
        self._card = card
        self._left = after_bytes
        self.size_bytes = card.size_bytes

    def _there(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    def write_at(self, offset: int, data: bytes) -> None:
        self._there(len(data))
        self._card.write_at(offset, data)

    def read_at(self, offset: int, size: int) -> bytes:
        self._there(size)
        return self._card.read_at(offset, size)

    def settle(self) -> None:
        self._there(0)
        self._card.settle()


class SmallerCard:
    """A card with less memory than it says: what is written beyond begins from the start again."""

    def __init__(self, card: OpenCard, true_bytes: int) -> None:
        self._card = card
        self._true_bytes = true_bytes
        self.size_bytes = card.size_bytes

    def write_at(self, offset: int, data: bytes) -> None:
        self._card.write_at(offset % self._true_bytes, data)

    def read_at(self, offset: int, size: int) -> bytes:
        return self._card.read_at(offset % self._true_bytes, size)

    def settle(self) -> None:
        self._card.settle()
