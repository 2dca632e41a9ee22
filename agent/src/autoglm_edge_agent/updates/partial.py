"""A file that is being assembled: its bytes are checked chunk by chunk, and it needs no index of its own."""

from __future__ import annotations

from typing import IO

from autoglm_edge_agent.storage.lost_bytes import is_lost
from autoglm_edge_protocol.chunks import ChunkedFile
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.durable import Disk


class PartialFile:
    """An open file and the chunks that it is to have. Methods raise OSError."""

    def __init__(self, disk: Disk, opened: IO[bytes], file: ChunkedFile) -> None:
        self._disk = disk
        self._opened = opened
        self.file = file
        self._starts = file.starts()
        self._scratch = bytearray()

    def write(self, offset: int, data: bytes) -> None:
        """Put bytes in their place."""
        self._disk.write_at(self._opened, offset, data)

    def holds(self, chunk: int) -> bool:
        """Whether the bytes of a chunk are right; what the disk has lost is not, and is written anew."""
        size_bytes = self.file.chunks[chunk].size_bytes
        if len(self._scratch) < size_bytes:
            self._scratch = bytearray(size_bytes)
        data = memoryview(self._scratch)[:size_bytes]
        self._opened.seek(self._starts[chunk])
        try:
            return self._read_into(data) and sha256_of(data) == self.file.chunks[chunk].sha256
        except OSError as error:
            if is_lost(error):
                return False
            raise

    def _read_into(self, data: memoryview) -> bool:
        while data:
            count = self._opened.readinto(data)  # type: ignore[attr-defined]
            if not count:
                return False
            data = data[count:]
        return True

    def verified(self) -> set[int]:
        """Return the chunks whose bytes are right; what lies beyond the file's end is cut off."""
        size_bytes = self._opened.seek(0, 2)
        if size_bytes > self.file.size_bytes:
            self._disk.truncate(self._opened, self.file.size_bytes)
        return {chunk for chunk, start in enumerate(self._starts[:-1]) if start < size_bytes and self.holds(chunk)}

    def sync(self) -> None:
        """Force the bytes to the disk."""
        self._disk.sync(self._opened)
