"""A Debian package as bytes: an `ar` archive of a version, control files and data (deb(5)), written without dpkg.

Equal inputs give equal bytes: names are sorted, owners are root, times are one given time. dpkg reads zstandard since
1.21.18 (Debian 12); Ubuntu's does since 2018.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import zstandard

_LEVEL = 9


@dataclass(frozen=True)
class Entry:
    """A file or a symbolic link of the package, by its absolute path."""

    path: str
    data: bytes = b""
    mode: int = 0o644
    target: str | None = None
    """Where a symbolic link leads; None: it is a file."""


def pack(control: Mapping[str, Entry], entries: Iterable[Entry], epoch: int) -> bytes:
    """Return the package. `control` holds the control files by name, all but `md5sums`."""
    data = sorted(entries, key=lambda entry: PurePosixPath(entry.path).parts)
    sums = "".join(f"{_md5(entry.data)}  {entry.path.lstrip('/')}\n" for entry in data if entry.target is None)
    controls = [*control.values(), Entry("/md5sums", sums.encode())]
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.zst": _packed_tar(sorted(controls, key=lambda entry: entry.path), epoch),
        "data.tar.zst": _packed_tar(data, epoch),
    }
    return b"!<arch>\n" + b"".join(_member(name, content, epoch) for name, content in members.items())


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()  # what dpkg compares installed files with


def _member(name: str, data: bytes, epoch: int) -> bytes:
    header = f"{name:<16}{epoch:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n"
    return header.encode() + data + b"\n" * (len(data) % 2)


def _packed_tar(entries: Iterable[Entry], epoch: int) -> bytes:
    buffer = io.BytesIO()
    packer = zstandard.ZstdCompressor(level=_LEVEL)
    with (
        packer.stream_writer(buffer, closefd=False) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as archive,
    ):
        _add(archive, "./", epoch, tarfile.DIRTYPE, 0o755)
        made: set[PurePosixPath] = {PurePosixPath("/")}
        for entry in entries:
            for folder in reversed(PurePosixPath(entry.path).parents):
                if folder not in made:
                    made.add(folder)
                    _add(archive, f".{folder}/", epoch, tarfile.DIRTYPE, 0o755)
            kind = tarfile.REGTYPE if entry.target is None else tarfile.SYMTYPE
            _add(archive, f".{entry.path}", epoch, kind, entry.mode, entry.data, entry.target or "")
    return buffer.getvalue()


def _add(
    archive: tarfile.TarFile, name: str, epoch: int, kind: bytes, mode: int, data: bytes = b"", target: str = ""
) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime, info.size, info.linkname = kind, mode, epoch, len(data), target
    info.uname = info.gname = "root"
    archive.addfile(info, io.BytesIO(data))
