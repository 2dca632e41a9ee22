"""Taking from installed bundles what a new one shares with them: reading their chunk indices, copying chunks.

What was damaged on disk is no seed, and is fetched.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import groupby

from autoglm_edge_agent.cancellation import in_thread
from autoglm_edge_agent.storage.store import Store
from autoglm_edge_agent.updates.partial import PartialFile
from autoglm_edge_agent.updates.seeds import Places, Seed, find_seeds, locate
from autoglm_edge_protocol.chunks import ChunkedFile, ChunkIndex
from autoglm_edge_protocol.deployment import Installed
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.errors import ProtocolError
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.manifest import CHUNK_INDEX_PATH

log = logging.getLogger(__name__)

_BATCH_BYTES = 4 * 1024 * 1024
"""Copied without a look at whether the update was cancelled meanwhile; a chunk is never parted."""


async def look_for_seeds(store: Store, wanted: Iterable[ChunkedFile], installed: Iterable[Installed]) -> Places:
    """Return where the chunks of those of the wanted files that are not here lie in installed bundles. Never raises.

    One chunk index at a time is in memory.
    """
    return await in_thread(_look, store, [file for file in wanted if not store.has(file.sha256)], tuple(installed))


def _look(store: Store, wanted: list[ChunkedFile], installed: tuple[Installed, ...]) -> Places:
    if not wanted:
        return {}
    return locate(wanted, (file for each in installed for file in _files_here(store, each)))


def _files_here(store: Store, installed: Installed) -> Iterator[ChunkedFile]:
    try:
        manifest = store.read_manifest(installed.bundle)
        index_sha256 = manifest.file(CHUNK_INDEX_PATH).sha256
        index = parse(ChunkIndex, store.read_object(index_sha256), LIMITS.chunk_index_bytes)
    except (OSError, ProtocolError) as error:
        log.warning("nothing is taken from %s: %s", installed.bundle.id, error)
        return
    yield from (file for file in index.files if store.has(file.sha256))


async def plant(store: Store, partial: PartialFile, verified: set[int], places: Places) -> set[int]:
    """Copy into a partial file what lies elsewhere; returns the chunks that are in place now, all of them verified.

    Raises OSError when the partial file cannot be written.
    """
    done = set(verified)
    for batch in _batches(find_seeds(partial.file, verified, places)):
        done |= await in_thread(_copy, store, partial, batch)
    return done


def _batches(seeds: list[Seed]) -> Iterator[list[Seed]]:
    batch: list[Seed] = []
    size_bytes = 0
    for seed in seeds:
        batch.append(seed)
        size_bytes += seed.chunk.size_bytes
        if size_bytes >= _BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch


def _copy(store: Store, partial: PartialFile, seeds: list[Seed]) -> set[int]:
    done: set[int] = set()
    for sha256, group in groupby(seeds, lambda seed: seed.place.object_sha256):
        for seed, data in _read(store, sha256, group):
            if sha256_of(data) == seed.chunk.sha256:
                partial.write(seed.offset, data)
                done.add(seed.number)
    return done


def _read(store: Store, sha256: str, seeds: Iterable[Seed]) -> Iterator[tuple[Seed, bytes]]:
    """Yield the bytes at the place of each seed, as far as they can be read."""
    try:
        source = store.object_path(sha256).open("rb")
    except OSError as error:
        log.warning("%s is not read: %s", sha256[:12], error)
        return
    with source:
        for seed in seeds:
            try:
                source.seek(seed.place.offset)
                data = source.read(seed.chunk.size_bytes)
            except OSError as error:
                log.warning("%s cannot be read at %d: %s", sha256[:12], seed.place.offset, error)
                continue
            yield seed, data
