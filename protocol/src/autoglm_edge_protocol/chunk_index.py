"""Writing `chunks.json`: where files are cut. Needs numpy, which who only reads bundles may not have."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from autoglm_edge_protocol.chunks import ChunkIndex
from autoglm_edge_protocol.cutting import cut
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.manifest import CHUNK_INDEX_PATH, FileEntry
from autoglm_edge_protocol.tensor_starts import tensor_starts


def write_chunk_index(directory: Path, files: Iterable[FileEntry]) -> FileEntry:
    """Cut the files into chunks, write `chunks.json` and return its entry for the manifest. Raises OSError."""
    files = tuple(files)
    starts = tensor_starts(directory, [file.path for file in files])
    entries = {file.sha256: cut(directory / file.path, file.sha256, starts.get(file.path, ())) for file in files}
    index = ChunkIndex(files=tuple(entries[digest] for digest in sorted(entries)))
    data = index.to_bytes()
    Disk().commit(directory / CHUNK_INDEX_PATH, data)
    return FileEntry(path=CHUNK_INDEX_PATH, size_bytes=len(data), sha256=sha256_of(data))
