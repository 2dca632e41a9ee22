"""Bundles on disk: the directory, its packed file, and their verification.

A packed bundle is an uncompressed POSIX tar with `manifest.json` first, then `chunks.json`, then the other files by
path, owners and times zeroed: equal directories pack to equal bytes, and a file inside can be addressed by offset.
Nothing here decides whether a bundle is good; it is only shown to be complete and to hold the promised bytes.
"""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from autoglm_edge_protocol.chunks import Chunk, ChunkIndex
from autoglm_edge_protocol.digests import sha256_of, sha256_of_file
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.errors import DigestMismatch, MalformedBundle, MalformedDocument
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.manifest import CHUNK_INDEX_PATH, MANIFEST_PATH, FileEntry, Manifest
from autoglm_edge_protocol.names import check_relative_path

_PIECE_BYTES = 1024 * 1024
Progress = Callable[[int], None]
"""Called with the number of bytes done since the last call."""


def read_manifest(directory: Path) -> Manifest:
    """Return the manifest of a bundle directory. Raises MalformedBundle, MalformedDocument, UnsupportedSchema."""
    return parse(Manifest, _read_limited(directory, MANIFEST_PATH, LIMITS.manifest_bytes), LIMITS.manifest_bytes)


def read_chunk_index(directory: Path) -> ChunkIndex:
    """Return the chunk index of a bundle directory. Raises as `read_manifest`."""
    data = _read_limited(directory, CHUNK_INDEX_PATH, LIMITS.chunk_index_bytes)
    return parse(ChunkIndex, data, LIMITS.chunk_index_bytes)


def _read_limited(directory: Path, name: str, limit_bytes: int) -> bytes:
    path = directory / name
    if not path.is_file():
        raise MalformedBundle(f"{directory} is no bundle: it has no {name}")
    with path.open("rb") as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise MalformedDocument(name, f"more than the {limit_bytes} bytes that are accepted")
    return data


def list_files(directory: Path, paths: Iterable[str]) -> tuple[FileEntry, ...]:
    """Return size and digest of the named files, sorted by path. Raises OSError."""
    return tuple(
        FileEntry(path=path, size_bytes=(directory / path).stat().st_size, sha256=sha256_of_file(directory / path))
        for path in sorted(paths)
    )


def verify(directory: Path, progress: Progress | None = None) -> Manifest:
    """Check that a bundle directory is complete, holds the promised bytes and nothing else.

    Raises:
        MalformedBundle: a file is missing, or there is one that the manifest does not list.
        DigestMismatch: a file has another size or digest, or the chunk index does not fit the files.
        MalformedDocument, UnsupportedSchema: the manifest or the chunk index cannot be read.
    """
    manifest = read_manifest(directory)
    present = {p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_symlink() or not p.is_dir()}
    listed = {entry.path for entry in manifest.files}
    if missing := sorted(listed - present):
        raise MalformedBundle(f"{directory}: {missing[0]} is missing")
    if extra := sorted(present - listed - {MANIFEST_PATH}):
        raise MalformedBundle(f"{directory}: {extra[0]} is not listed in the manifest")
    for entry in manifest.files:
        _verify_file(directory, entry)
        if progress:
            progress(entry.size_bytes)
    index = read_chunk_index(directory)
    for entry in manifest.files:
        if entry.path == CHUNK_INDEX_PATH:
            continue
        chunked = index.find(entry.sha256)
        if chunked is None or chunked.size_bytes != entry.size_bytes:
            raise DigestMismatch(CHUNK_INDEX_PATH, f"does not describe {entry.path}")
        _verify_chunks(directory / entry.path, entry.path, chunked.chunks)
    return manifest


def _verify_file(directory: Path, entry: FileEntry) -> None:
    path = directory / entry.path
    if path.is_symlink() or not path.is_file():
        raise MalformedBundle(f"{entry.path} is not a plain file")
    size = path.stat().st_size
    if size != entry.size_bytes:
        raise DigestMismatch(entry.path, f"{size} bytes instead of {entry.size_bytes}")
    found = sha256_of_file(path)
    if found != entry.sha256:
        raise DigestMismatch(entry.path, f"SHA-256 is {found[:12]}... instead of {entry.sha256[:12]}...")


def _verify_chunks(path: Path, name: str, chunks: Iterable[Chunk]) -> None:
    with path.open("rb") as file:
        for number, chunk in enumerate(chunks):
            if sha256_of(file.read(chunk.size_bytes)) != chunk.sha256:
                raise DigestMismatch(CHUNK_INDEX_PATH, f"chunk {number} of {name} has another digest")


def pack(directory: Path, target: Path, progress: Progress | None = None) -> None:
    """Write the packed form of a bundle directory. Raises MalformedBundle, OSError."""
    manifest = read_manifest(directory)
    rest = [entry.path for entry in manifest.files if entry.path != CHUNK_INDEX_PATH]
    disk = Disk()
    temporary = target.with_name(f".{target.name}.new")
    try:
        with temporary.open("wb") as raw:
            with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
                for name in (MANIFEST_PATH, CHUNK_INDEX_PATH, *rest):
                    info = tarfile.TarInfo(name)
                    info.size = (directory / name).stat().st_size
                    info.mode = 0o644
                    with (directory / name).open("rb") as file:
                        tar.addfile(info, file)
                    if progress:
                        progress(info.size)
            disk.sync(raw)
        disk.promote(temporary, target)
    except BaseException:
        disk.unlink(temporary)
        raise


def unpack(packed: Path, directory: Path) -> None:
    """Unpack a bundle file into an empty directory. Hostile archives are refused, nothing is written outside.

    Raises MalformedBundle, OSError.
    """
    total = 0
    try:
        with _CarefulFile(packed) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for count, member in enumerate(tar):
                if count > LIMITS.bundle_files:
                    raise MalformedBundle(f"{packed} has more than {LIMITS.bundle_files} files")
                total += member.size
                if total > LIMITS.bundle_bytes:
                    raise MalformedBundle(f"{packed} unpacks to more than {LIMITS.bundle_bytes} bytes")
                _unpack_member(tar, member, directory)
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        raise MalformedBundle(f"{packed} is not a packed bundle: {error}") from None


class _CarefulFile(io.FileIO):
    """A file that is read in small pieces: tarfile reads an extended header as large as the archive says it is."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _PIECE_BYTES:
            raise ValueError(f"a header of {size} bytes")
        return super().read(size) or b""


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, directory: Path) -> None:
    if not member.isreg() or member.issparse() or member.size < 0:
        raise MalformedBundle(f"{member.name!r} in the packed bundle is not a plain file")
    try:
        check_relative_path(member.name)
    except ValueError as error:
        raise MalformedBundle(f"in the packed bundle: {error}") from None
    target = directory / member.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        file = target.open("xb")
    except (FileExistsError, NotADirectoryError):
        raise MalformedBundle(f"{member.name!r} is twice in the packed bundle, or a file and a folder") from None
    source = tar.extractfile(member)
    assert source is not None
    with file, source:
        shutil.copyfileobj(source, file, _PIECE_BYTES)
        if file.tell() != member.size:
            raise MalformedBundle(f"the packed bundle ends within {member.name!r}")


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """Give a bundle as a directory, be it one or packed; a packed one is unpacked for the time of the block.

    Raises MalformedBundle, OSError.
    """
    if path.is_dir():
        yield path
        return
    if not path.exists():
        raise MalformedBundle(f"{path} does not exist")
    with TemporaryDirectory(prefix="autoglm-bundle-") as temporary:
        unpack(path, Path(temporary))
        yield Path(temporary)
