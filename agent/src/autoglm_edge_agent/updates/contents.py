"""What a bundle consists of, as this device sees it: read from the store, with what is wrong turned into refusals.

A file that is missing or damaged on disk is no fault of the bundle and raises FileNotFoundError.
"""

from __future__ import annotations

from collections.abc import Sequence

from autoglm_edge_agent.errors import Hindrance, Refusal
from autoglm_edge_agent.storage.store import Store, files_here
from autoglm_edge_protocol.chunks import ChunkedFile, ChunkIndex
from autoglm_edge_protocol.deployment import BundleReference
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.errors import DigestMismatch, MalformedDocument, UnsupportedSchema
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.manifest import CHUNK_INDEX_PATH, MANIFEST_PATH, FileEntry, Manifest, Variant


def read_manifest(store: Store, reference: BundleReference) -> Manifest:
    """Return the manifest. Raises Refusal (`unsupported-schema`, `bad-bundle`), OSError."""
    try:
        return store.read_manifest(reference)
    except UnsupportedSchema as error:
        raise Refusal("unsupported-schema", str(error)) from None
    except (MalformedDocument, DigestMismatch) as error:
        raise Refusal("bad-bundle", f"{MANIFEST_PATH}: {error}") from None


def _index(manifest: Manifest) -> FileEntry:
    return manifest.file(CHUNK_INDEX_PATH)


def index_file(manifest: Manifest) -> ChunkedFile:
    """Return the chunk index as a file to be fetched. Raises Refusal (`bad-bundle`) when it is too large."""
    entry = _index(manifest)
    if entry.size_bytes > LIMITS.chunk_index_bytes:
        raise Refusal("bad-bundle", f"{CHUNK_INDEX_PATH} has {entry.size_bytes} bytes")
    return ChunkedFile.whole(entry.sha256, entry.size_bytes)


def read_chunked_files(store: Store, manifest: Manifest, files: tuple[FileEntry, ...]) -> list[ChunkedFile]:
    """Return the chunks of each of the files but the index itself.

    Raises Refusal (`unsupported-schema`, `bad-bundle`), OSError.
    """
    index_sha256 = _index(manifest).sha256
    try:
        index = parse(ChunkIndex, store.read_object(index_sha256), LIMITS.chunk_index_bytes)
    except UnsupportedSchema as error:
        raise Refusal("unsupported-schema", str(error)) from None
    except MalformedDocument as error:
        raise Refusal("bad-bundle", f"{CHUNK_INDEX_PATH}: {error}") from None
    by_digest = {file.sha256: file for file in index.files}
    found: list[ChunkedFile] = []
    for entry in files:
        if entry.sha256 == index_sha256:
            continue
        chunked = by_digest.get(entry.sha256)
        if chunked is None or chunked.size_bytes != entry.size_bytes:
            raise Refusal("bad-bundle", f"{CHUNK_INDEX_PATH} does not describe {entry.path}")
        found.append(chunked)
    return found


def needed_files(manifest: Manifest, variants: Sequence[Variant]) -> tuple[FileEntry, ...]:
    """Return what has to be on disk, each content once: this machine's files and the chunk index."""
    files = (*(entry for variant in variants for entry in files_here(manifest, variant)), _index(manifest))
    return tuple({entry.sha256: entry for entry in files}.values())


def check_space(store: Store, files: tuple[FileEntry, ...], reserve_bytes: int) -> None:
    """Raise Hindrance (`insufficient-space`) when what is still to be written would eat into the reserve. OSError."""
    missing_bytes = sum(
        max(0, entry.size_bytes - store.partial_bytes(entry.sha256)) for entry in files if not store.has(entry.sha256)
    )
    free_bytes = store.free_bytes()
    if missing_bytes and free_bytes < missing_bytes + reserve_bytes:
        raise Hindrance(
            "insufficient-space",
            f"{missing_bytes} bytes are to be fetched and {reserve_bytes} kept free, "
            f"but only {free_bytes} are free in {store.directory}",
        )
