"""System shared memory that clients registered by name, as Triton's extension has it.

Read and written through the descriptor and not mapped: a client may shrink its object or punch holes into it at any
instant, and whoever touches a mapped page that is gone is ended by a signal. A read that finds less is an error.
Source: Triton Inference Server, "Shared-Memory Extension".
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoglm_edge_agent.inference.errors import RequestError
from autoglm_edge_protocol.limits import LIMITS

FOLDER = Path("/dev/shm")  # noqa: S108 - where shm_open keeps its objects on Linux
MOST_REGIONS = 64
_KEY = re.compile(r"/?[^/\0]{1,250}")


@dataclass(frozen=True)
class _Region:
    key: str
    offset: int
    byte_size: int
    descriptor: int


class SharedRegions:
    """The regions by name."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._regions: dict[str, _Region] = {}

    def register(self, name: str, wanted: Mapping[str, Any]) -> None:
        """Open an object that the client made. Raises RequestError (400)."""
        key, offset, size = wanted.get("key"), wanted.get("offset", 0), wanted.get("byte_size")
        if not isinstance(key, str) or not _KEY.fullmatch(key) or key.strip("/") in (".", ".."):
            raise RequestError(400, "'key' must be the name of a shared memory object, such as \"/input\"")
        if type(offset) is not int or type(size) is not int or offset < 0 or size < 1:
            raise RequestError(400, "'offset' and 'byte_size' must be whole numbers of bytes")
        if name in self._regions:
            raise RequestError(400, f"shared memory region '{name}' already in manager")
        if len(self._regions) >= MOST_REGIONS:
            raise RequestError(400, f"{MOST_REGIONS} shared memory regions are registered already")
        self._regions[name] = self._open(key, offset, size)

    def unregister(self, name: str | None) -> None:
        """Forget a region, or all; one that is not known is forgotten already."""
        for known in [name] if name is not None else list(self._regions):
            region = self._regions.pop(known, None)
            if region is not None:
                os.close(region.descriptor)

    def status(self, name: str | None) -> list[dict[str, Any]]:
        """Return what is registered. Raises RequestError (400) for a name that is not."""
        if name is not None and name not in self._regions:
            raise RequestError(400, f"Unable to find system shared memory region: '{name}'")
        return [
            {"name": known, "key": region.key, "offset": region.offset, "byte_size": region.byte_size}
            for known, region in self._regions.items()
            if name in (None, known)
        ]

    def read(self, name: str, offset: int, size: int) -> memoryview:
        """Return a copy of some bytes of a region. Raises RequestError (400, 413)."""
        region = self._find(name, offset, size)
        # The object may be larger than all memory there is, where nothing was ever written to it.
        if size > LIMITS.request_body_bytes:
            raise RequestError(413, f"an input has at most {LIMITS.request_body_bytes} bytes")
        copy = bytearray(size)
        at = 0
        while at < size:
            count = os.preadv(region.descriptor, [memoryview(copy)[at:]], region.offset + offset + at)
            if count == 0:
                raise RequestError(400, f"shared memory region '{name}' has become smaller")
            at += count
        return memoryview(copy)

    def write(self, name: str, offset: int, size: int, data: memoryview | bytes) -> None:
        """Write into a region, where there are `size` bytes for it. Raises RequestError (400)."""
        region = self._find(name, offset, size)
        if len(data) > size:
            raise RequestError(400, f"{size} bytes of shared memory region '{name}' do not hold {len(data)}")
        if os.fstat(region.descriptor).st_size < region.offset + region.byte_size:
            raise RequestError(400, f"shared memory region '{name}' has become smaller")
        left, at = memoryview(data), region.offset + offset
        try:
            while left:
                count = os.pwrite(region.descriptor, left, at)
                left, at = left[count:], at + count
        except OSError as error:
            raise RequestError(400, f"shared memory region '{name}' cannot be written: {error.strerror}") from None

    def close(self) -> None:
        """Forget all."""
        self.unregister(None)

    def _find(self, name: str, offset: int, size: int) -> _Region:
        region = self._regions.get(name)
        if region is None:
            raise RequestError(400, f"Unable to find shared memory region: '{name}'")
        if offset < 0 or size < 0 or offset + size > region.byte_size:
            raise RequestError(400, f"{size} bytes at {offset} are outside shared memory region '{name}'")
        return region

    def _open(self, key: str, offset: int, size: int) -> _Region:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = os.open(self._folder / key.lstrip("/"), flags)
        except (OSError, ValueError) as error:
            text = error.strerror if isinstance(error, OSError) else "no name of a file"
            raise RequestError(400, f"Unable to open shared memory region: {key!r} ({text})") from None
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size < offset + size:
            os.close(descriptor)
            raise RequestError(400, f"shared memory object {key!r} has less than {offset + size} bytes")
        return _Region(key, offset, size, descriptor)
