"""How much of a bundle travels when a device has the release before it; writes RESULTS.md.

    .venv/bin/python -m benchmarks.transfer.delta [--output FILE]

The agent's own code fetches and copies, from a fleet in the same process that counts the bytes of every block. Only how
the files are cut differs. rauc's adaptive update is calculated: nothing of rauc runs here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
from collections.abc import Callable
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from benchmarks.results import write_section
from benchmarks.transfer.models import CHANGES, Network
from benchmarks.transfer.part import INTRODUCTION, PART
from tests.fakes.model_bundles import ModelBundle, make_model_bundle
from tests.faults.devices import Device, Source

from autoglm_edge_converter.machine import machine_name
from autoglm_edge_protocol.bundle import read_manifest
from autoglm_edge_protocol.chunks import Chunk, ChunkedFile, ChunkIndex
from autoglm_edge_protocol.cutting import MAX_BYTES, MIN_BYTES, NORMAL_BYTES, cut
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.manifest import CHUNK_INDEX_PATH, MANIFEST_PATH
from autoglm_edge_protocol.transfer import FetchRequest

KIB = 1024
RAUC_BLOCK_BYTES = 4 * KIB
RAUC_HASH_BYTES = 32

Cut = Callable[[Path, str], ChunkedFile]


def by_fixed_blocks(path: Path, sha256: str) -> ChunkedFile:
    """Cut every 64 KiB, as up to now."""
    data = path.read_bytes()
    pieces = [data[at : at + 64 * KIB] for at in range(0, len(data), 64 * KIB)]
    chunks = tuple(Chunk(size_bytes=len(piece), sha256=sha256_of(piece)) for piece in pieces)
    return ChunkedFile(sha256=sha256, size_bytes=len(data), chunks=chunks)


CUTS: dict[str, Cut | None] = {"content and tensors": None, "content alone": cut, "fixed 64 KiB": by_fixed_blocks}
"""None: as bundles are cut."""


class CountingSource(Source):
    """Counts what it sends."""

    sent_bytes = 0

    def request(self, request: FetchRequest) -> bool:
        size_bytes = len(self._files[request.sha256])
        for block in request.blocks():
            self.sent_bytes += min(request.block_bytes, size_bytes - block * request.block_bytes)
        return super().request(request)


def make(folder: Path, version: str, network: Network, how: Cut | None) -> ModelBundle:
    """Write a bundle; `how` replaces its chunk index."""
    bundle = make_model_bundle(folder / version, version=version, model_bytes=network.serialized())
    if how is not None:
        manifest = read_manifest(bundle.directory)
        files = [entry for entry in manifest.files if entry.path != CHUNK_INDEX_PATH]
        index = ChunkIndex(files=tuple(how(bundle.directory / entry.path, entry.sha256) for entry in files))
        Disk().commit(bundle.directory / CHUNK_INDEX_PATH, index.to_bytes())
        document = json.loads(manifest.to_text())
        entry = next(each for each in document["files"] if each["path"] == CHUNK_INDEX_PATH)
        entry.update(size_bytes=len(index.to_bytes()), sha256=sha256_of(index.to_bytes()))
        (bundle.directory / MANIFEST_PATH).write_text(json.dumps(document))
    return bundle


def travelled(change: str, how: Cut | None) -> tuple[int, int, int]:
    """Return the bytes sent for the second release, those of its files, and those of its chunk index."""
    with TemporaryDirectory(prefix="autoglm-delta-") as scratch:
        folder = Path(scratch)
        old, new = (make(folder, str(n), network, how) for n, network in enumerate(CHANGES[change], start=1))
        source = CountingSource(old, new)
        device = Device(folder / "state", Disk(), source)
        asyncio.run(device.deploy(1, old))
        source.sent_bytes = 0
        asyncio.run(device.deploy(2, new))
        report = device.updater.report()
        assert report is not None and report.phase == "confirmed", report
        assert report.fetched_bytes + report.present_bytes == report.total_bytes
        return source.sent_bytes, report.total_bytes, (new.directory / CHUNK_INDEX_PATH).stat().st_size


def by_rauc(change: str) -> int:
    """Return what rauc's block-hash-index needs: the index, and each 4 KiB that the old image has nowhere.

    As if in the image every file began at a block, and nothing else had changed.
    """
    with TemporaryDirectory(prefix="autoglm-delta-") as scratch:
        images = []
        for number, network in enumerate(CHANGES[change], start=1):
            bundle = make(Path(scratch), str(number), network, None)
            names = [
                MANIFEST_PATH,
                *(e.path for e in read_manifest(bundle.directory).files if e.path != CHUNK_INDEX_PATH),
            ]
            images.append([piece for name in names for piece in _blocks((bundle.directory / name).read_bytes())])
        there = set(images[0])
        return sum(RAUC_HASH_BYTES + (0 if block in there else RAUC_BLOCK_BYTES) for block in images[1])


def _blocks(data: bytes) -> list[bytes]:
    return [data[at : at + RAUC_BLOCK_BYTES] for at in range(0, len(data), RAUC_BLOCK_BYTES)]


def changed_share(change: str) -> float:
    """Return which part of the new model is in layers that were not in the old one."""
    old, new = CHANGES[change]
    layers = range(new.last + 1)
    different = [n for n in layers if (old.seeds.get(n), n in old.quantized) != (new.seeds.get(n), n in new.quantized)]
    return sum(map(new.layer_bytes, different)) / sum(map(new.layer_bytes, layers))


def table() -> str:
    head = ["the new release", "of its bytes new", *CUTS, "rauc, 4 KiB hashes"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for change in CHANGES:
        figures = [travelled(change, how) for how in CUTS.values()]
        total_bytes = figures[0][1]
        shares = [sent / total for sent, total, _ in figures]
        lines.append(
            [change, *(f"{share:.2%}" for share in (changed_share(change), *shares, by_rauc(change) / total_bytes))]
        )
        indices = ", ".join(f"{name} {size / 1000:,.0f} kB" for name, (_, _, size) in zip(CUTS, figures, strict=True))
        print(f"{' | '.join(lines[-1])} (of {total_bytes:,} bytes; index: {indices})", flush=True)
    rows = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    remark = (
        f"- The cut is by content (FastCDC, {MIN_BYTES // KIB}, {NORMAL_BYTES // KIB} and {MAX_BYTES // KIB} KiB) "
        "and at tensors.\n"
        f"- All that travels is counted: manifest, chunk index and whole blocks of {LIMITS.block_bytes // KIB} KiB. In "
        f"the last row the index has: {indices}; that of rauc is in its figure.\n"
        "- rauc is calculated, for a plain image in which each file begins at a block of 4 KiB."
    )
    return f"{rows}\n\n{remark}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parents[1] / "RESULTS.md")
    options = parser.parse_args()
    made_by = f"{machine_name()}; numpy {np.__version__}, python {platform.python_version()}"
    text = f"{date.today().isoformat()}, {made_by}.\n\n{table()}"
    write_section(options.output, PART, INTRODUCTION, "Only what changed", text)


if __name__ == "__main__":
    main()
