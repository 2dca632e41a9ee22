"""What trust rests on, on disk: the metadata that TUF has verified, and what must never shrink.

trust/memory.json        generations, versions, times (`memory`)
trust/metadata/*.json    the newest verified file of each role
trust/work-*/            a verifier's copy of them; thrown away
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from autoglm_edge_agent.storage.lost_bytes import read_kept
from autoglm_edge_agent.trust.memory import Memory
from autoglm_edge_protocol.deployment import Reason
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.documents import LARGEST_INTEGER, parse
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.errors import MalformedDocument, UnsupportedSchema
from autoglm_edge_protocol.limits import LIMITS

log = logging.getLogger(__name__)

_ROOT = "root.json"
_MEMORY_BYTES = 1024 * 1024


class Vault:
    """The directory `trust` of a state directory. Every method may raise OSError."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        self.directory = directory
        self._disk = disk
        self._metadata = directory / "metadata"
        disk.make_directories(self._metadata)
        for stale in directory.glob("work-*"):
            shutil.rmtree(stale, ignore_errors=True)
        self.revision = 0
        """Grows when the metadata changes."""
        self.sealed: Reason | None = None
        """Set when a newer release has written what is remembered: then nothing can be judged."""
        self.memory = self._read_memory()

    def _read_memory(self) -> Memory:
        try:
            return parse(Memory, read_kept(self.directory / "memory.json"), _MEMORY_BYTES)
        except FileNotFoundError:
            return Memory()
        except MalformedDocument as error:
            log.warning("what was remembered of versions and times is lost: %s", error)
            return Memory()
        except UnsupportedSchema as error:
            message = f"{error}; install the newer agent again to go on with updates"
            self.sealed = Reason(code="newer-state", message=message)
            return Memory()

    def version(self, role: str) -> int:
        """Return the version of a role's metadata that is here, as far as a document can say it; 0: there is none."""
        try:
            version = int(json.loads(_read(self._metadata / f"{role}.json"))["signed"]["version"])
            # TUF knows no greatest version, and who has stolen a key may sign any.
            return min(LARGEST_INTEGER, version)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return 0

    def remember(self, memory: Memory) -> None:
        """Commit what is remembered."""
        if memory != self.memory:
            self._disk.commit(self.directory / "memory.json", memory.to_bytes())
            self.memory = memory

    def provision(self, root: bytes) -> None:
        """Begin with the root that the device was given, unless that has been done."""
        if self.memory.provisioned_sha256 != sha256_of(root) or self._kept(_ROOT) is None:
            self._begin(root)

    def begin_anew(self, root: bytes) -> bool:
        """Throw the metadata away, as it was damaged on disk; False: nothing but the given root itself is there."""
        if _read(self._metadata / _ROOT) == root:
            return False
        log.warning("the root metadata on disk is damaged: beginning anew with the one that was given")
        self._begin(root)
        return True

    def _begin(self, root: bytes) -> None:
        for path in sorted(self._metadata.iterdir()):
            self._disk.unlink(path)
        self._disk.commit(self._metadata / _ROOT, root)
        self.remember(self.memory.model_copy(update={"provisioned_sha256": sha256_of(root)}))
        self.revision += 1

    @contextlib.contextmanager
    def working_copy(self) -> Iterator[Path]:
        """Copy the metadata for a verifier; the copy ends with the context."""
        with tempfile.TemporaryDirectory(prefix="work-", dir=self.directory) as name:
            for path in self._metadata.glob("*.json"):
                if self._kept(path.name) is not None:  # else it is fetched anew
                    shutil.copyfile(path, Path(name) / path.name)
            yield Path(name).absolute()

    def take(self, working_copy: Path) -> None:
        """Keep what a verifier has verified: each file whole, in the order in which they depend on one another."""
        found = sorted(working_copy.glob("*.json"), key=lambda path: path.name != _ROOT)
        for path in found:
            data = _read(path)
            if self._kept(path.name) != data:
                self._disk.commit(self._metadata / path.name, data)
                self.revision += 1

    def _kept(self, name: str) -> bytes | None:
        """Return a file of the metadata, None where it is missing or the disk has lost it."""
        try:
            return read_kept(self._metadata / name)
        except FileNotFoundError:
            return None


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LIMITS.metadata_bytes + 1)
