"""Packing blocks for many devices: each once, and none of a file that does not get smaller."""

from __future__ import annotations

from collections import OrderedDict
from zlib import crc32

from autoglm_edge_protocol.packing import pack

_KEPT_BLOCKS = 128
"""About 8 MB: devices that pull the same file are seldom further apart."""
_TRIED_BLOCKS = 4
"""So many blocks in a row that do not shrink, and only every sixteenth of the file is tried from there on."""
_TRIED_AGAIN = 16


class Packer:
    """Remembers what was packed lately, and which files are not worth it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()
        self._in_vain: OrderedDict[str, int] = OrderedDict()

    def pack(self, sha256: str, offset: int, data: bytes) -> bytes | None:
        """Return a block of a file packed, None where it is to be sent as it is."""
        failures = self._in_vain.get(sha256, 0)
        if failures >= _TRIED_BLOCKS and failures % _TRIED_AGAIN:
            self._note(sha256, failures + 1)
            return None
        # With a sum over the bytes: what was packed of a file that has since been damaged, or mended, is another block.
        key = (sha256, offset, crc32(data))
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        packed = pack(data)
        self._note(sha256, 0 if packed else failures + 1)
        if packed:
            self._kept[key] = packed
            if len(self._kept) > _KEPT_BLOCKS:
                self._kept.popitem(last=False)
        return packed

    def _note(self, sha256: str, failures: int) -> None:
        self._in_vain[sha256] = failures
        self._in_vain.move_to_end(sha256)
        if len(self._in_vain) > _KEPT_BLOCKS:
            self._in_vain.popitem(last=False)
