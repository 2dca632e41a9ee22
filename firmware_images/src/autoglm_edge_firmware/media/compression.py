"""Images as they are kept: plain, or compressed with xz, gzip or zstd, told apart by their first bytes."""

from __future__ import annotations

import gzip
import lzma
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from autoglm_edge_firmware.errors import ImageUnusable
from autoglm_edge_firmware.programs import environment, last_words, path_of

MAGICS = {b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b": "gzip"}
SUFFIXES = {".xz": "xz", ".zst": "zstd"}
"""Of images that are made here."""

_DAMAGED = (lzma.LZMAError, zlib.error, EOFError, gzip.BadGzipFile)
# Two threads always: an archive of one thread has other headers, and images are to be the same on every machine.
_COMMANDS = {
    "xz": ["xz", "--compress", "--stdout", "--threads=2", "--block-size=16MiB", "-6"],
    "zstd": ["zstd", "--compress", "--stdout", "--quiet", "--threads=2", "-12"],
}


def kind_of(path: Path) -> str:
    """Return `plain`, `xz`, `gzip` or `zstd`."""
    with path.open("rb") as file:
        start = file.read(8)
    return next((kind for magic, kind in MAGICS.items() if start.startswith(magic)), "plain")


def kind_for(path: Path) -> str:
    """Return how an image of this name is to be compressed."""
    return SUFFIXES.get(path.suffix, "plain")


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Give the image's bytes as a stream, whatever it is compressed with.

    Raises:
        ImageUnusable: while reading, where the archive is damaged or cut short.
        ProgramFailed: zstd is not installed.
    """
    kind = kind_of(path)
    try:
        if kind == "zstd":
            with _unpacked_by_zstd(path) as stream:
                yield stream
            return
        with path.open("rb") if kind == "plain" else (lzma.open if kind == "xz" else gzip.open)(path) as file:
            yield cast(IO[bytes], file)
    except _DAMAGED as error:
        raise ImageUnusable(path, f"damaged or cut short ({error}): fetch or make it again") from None


@contextmanager
def _unpacked_by_zstd(path: Path) -> Iterator[IO[bytes]]:
    command = [path_of("zstd"), "--decompress", "--stdout", "--quiet", "--", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield process.stdout
            left = process.stdout.read(1)
        except BaseException:
            process.kill()
            raise
        if left:
            process.kill()  # the reader has what it wants
            return
        words = last_words(process.stderr.read())
        if process.wait() != 0:
            raise EOFError(words)


def compress(source: Path, target: Path, kind: str) -> None:
    """Write `source` to `target`, compressed. The same bytes give the same archive."""
    with target.open("wb") as file:
        command = _COMMANDS[kind]
        ended = subprocess.run(
            [path_of(command[0]), *command[1:], "--", str(source)],
            stdout=file,
            stderr=subprocess.PIPE,
            check=False,
            env=environment(),
        )
    if ended.returncode != 0:
        raise ImageUnusable(target, f"cannot be written: {last_words(ended.stderr)}")
