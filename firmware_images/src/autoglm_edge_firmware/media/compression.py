"""Images as they are kept: plain, or compressed with xz, gzip or zstd, told apart by their first bytes."""

from __future__ import annotations

import gzip
import io
import lzma
import subprocess
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, cast

import zstandard

from autoglm_edge_firmware.errors import ImageUnusable, ProgramFailed
from autoglm_edge_firmware.programs import environment, last_words, path_of

MAGICS = {b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b": "gzip"}
SUFFIXES = {".xz": "xz", ".zst": "zstd"}
"""Of images that are made here."""

_DAMAGED = (lzma.LZMAError, zlib.error, EOFError, gzip.BadGzipFile, zstandard.ZstdError)
_PIECE_BYTES = 1 << 20
_PACKED_BYTES = 2048
"""Of zstd at once: as zeros, they unpack to 64 MB at most."""
# Always as many: an archive of one thread is another, and images are to be the same on every machine.
_THREADS = 2
_ZSTD_LEVEL = 12
_XZ = ("--compress", "--stdout", f"--threads={_THREADS}", "--block-size=16MiB", "-3")


def kind_of(path: Path) -> str:
    """Return `plain`, `xz`, `gzip` or `zstd`."""
    with path.open("rb") as file:
        start = file.read(8)
    return next((kind for magic, kind in MAGICS.items() if start.startswith(magic)), "plain")


def kind_for(path: Path) -> str:
    """Return how an image of this name is to be compressed."""
    return SUFFIXES.get(path.suffix, "plain")


class _Zstd(io.RawIOBase):
    """A stream of zstd unpacked; unlike the library's own reader it notices where its end is missing."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._packed = b""
        self._plain = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._plain:
            packed = self._packed or self._file.read(_PACKED_BYTES)
            if not packed:
                if not self._frame.eof:
                    raise EOFError("the end is missing")
                return 0
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._plain = memoryview(self._frame.decompress(packed))
            self._packed = self._frame.unused_data
        size = min(len(buffer), len(self._plain))
        buffer[:size], self._plain = self._plain[:size], self._plain[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


_OPENERS: dict[str, Callable[[Path], AbstractContextManager[IO[bytes]]]] = {
    "plain": lambda path: path.open("rb"),
    "xz": lambda path: cast(IO[bytes], lzma.LZMAFile(path)),  # noqa: SIM115 - closed by `opened`
    "gzip": lambda path: cast(IO[bytes], gzip.GzipFile(path)),
    "zstd": lambda path: io.BufferedReader(_Zstd(path), _PIECE_BYTES),
}


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Give the image's bytes as a stream, whatever it is compressed with.

    Raises:
        ImageUnusable: while reading, where the archive is damaged or cut short.
    """
    try:
        with _OPENERS[kind_of(path)](path) as file:
            yield file
    except _DAMAGED as error:
        raise ImageUnusable(path, f"damaged or cut short ({error}): fetch or make it again") from None


def compress(source: Path, target: Path, kind: str) -> None:
    """Write `source` to `target`, compressed. The same bytes give the same archive.

    Raises:
        OSError: it cannot be written.
        ProgramFailed: xz is not installed.
    """
    with source.open("rb") as image, target.open("wb") as archive:
        if kind == "zstd":
            zstandard.ZstdCompressor(level=_ZSTD_LEVEL, threads=_THREADS).copy_stream(image, archive)
            return
        ended = subprocess.run(
            [path_of("xz"), *_XZ, "--", source], stdout=archive, stderr=subprocess.PIPE, check=False, env=environment()
        )
    if ended.returncode != 0:
        raise ProgramFailed("xz", last_words(ended.stderr))
