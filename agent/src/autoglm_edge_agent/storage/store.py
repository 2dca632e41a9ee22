"""The content-addressed store: files by their SHA-256, installed bundles as trees of hard links to them.

    objects/ab/<sha256>          whole, verified files; never written again
    partial/<sha256>             files being fetched
    bundles/<manifest sha256>/   an installed bundle: the files this device needs, at their places
    probes/<manifest sha256>.*   what was measured of an installed bundle on this device, and made of it for this device
    slots.json                   which bundle is in which slot

Hard links rather than symbolic ones: runtimes refuse external weights behind symbolic links.
"""

from __future__ import annotations

import errno
import platform
from collections.abc import Iterable
from pathlib import Path

from autoglm_edge_agent.storage.lost_bytes import is_lost, read_kept
from autoglm_edge_agent.storage.slots import Slots, salvage
from autoglm_edge_protocol.deployment import BundleReference, Installed
from autoglm_edge_protocol.digests import sha256_of, sha256_of_file
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.errors import DigestMismatch, MalformedDocument, ProtocolError
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.manifest import MANIFEST_PATH, FileEntry, Manifest, Variant

PROBES = "probes"


def files_here(manifest: Manifest, variant: Variant) -> tuple[FileEntry, ...]:
    """Return what a device of this machine's architecture must have to run `variant`."""
    return manifest.device_files(variant, platform.machine())


class Store:
    """The files of one state directory. Every method may raise OSError."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        self.directory = directory
        self.disk = disk
        self._slots_path = directory / "slots.json"
        for name in ("objects", "partial", "bundles"):
            disk.make_directories(directory / name)

    # places ----

    def object_path(self, sha256: str) -> Path:
        """Return where the file with this digest is, once it is whole."""
        return self.directory / "objects" / sha256[:2] / sha256

    def partial_path(self, sha256: str) -> Path:
        """Return where the file with this digest is assembled."""
        return self.directory / "partial" / sha256

    def bundle_path(self, reference: BundleReference) -> Path:
        """Return the directory of an installed bundle."""
        return self.directory / "bundles" / reference.manifest_sha256

    def has(self, sha256: str) -> bool:
        """Whether the file with this digest is here, whole."""
        return self.object_path(sha256).is_file()

    def free_bytes(self) -> int:
        """Return what may still be written to this file system."""
        return self.disk.free_bytes(self.directory)

    # objects ----

    def admit(self, sha256: str, found_sha256: str | None = None) -> None:
        """Turn a complete partial file, already synced, into an object. Raises DigestMismatch and drops it if wrong.

        `found_sha256`: its digest, where it was taken while the file was written; a wrong one is looked at again.
        """
        partial = self.partial_path(sha256)
        if found_sha256 != sha256 and sha256_of_file(partial) != sha256:
            self.disk.unlink(partial)
            raise DigestMismatch(sha256, "the assembled file has another digest")
        target = self.object_path(sha256)
        self.disk.make_directories(target.parent)
        self.disk.promote(partial, target)

    def read_object(self, sha256: str) -> bytes:
        """Return a small object. One that is damaged is removed and raises FileNotFoundError, as a missing one does."""
        path = self.object_path(sha256)
        try:
            data = read_kept(path)
        except FileNotFoundError:
            self.disk.unlink(path)  # a name of bytes that are lost
            raise
        if sha256_of(data) != sha256:
            self.disk.unlink(path)
            raise FileNotFoundError(errno.ENOENT, "damaged on disk and removed", str(path))
        return data

    def partial_bytes(self, sha256: str) -> int:
        """Return how much of the disk a partial file takes already."""
        try:
            return self.partial_path(sha256).stat().st_blocks * 512
        except FileNotFoundError:
            return 0

    def read_manifest(self, reference: BundleReference) -> Manifest:
        """Return the manifest, which must be here as an object, whole (FileNotFoundError).

        Raises:
            DigestMismatch: it is for another bundle than the reference says.
            MalformedDocument, UnsupportedSchema: it cannot be read.
        """
        data = self.read_object(reference.manifest_sha256)
        manifest = parse(Manifest, data, LIMITS.manifest_bytes)
        if manifest.id != reference.id:
            raise DigestMismatch(MANIFEST_PATH, f"describes {manifest.id}, but {reference.id} was asked for")
        return manifest

    # bundles ----

    def install(self, reference: BundleReference, files: Iterable[FileEntry]) -> None:
        """Build the bundle's tree from objects, which must all be here. Safe to repeat."""
        root = self.bundle_path(reference)
        self.disk.make_directories(root)
        touched = {root}
        for entry in files:
            target = root / entry.path
            self.disk.make_directories(target.parent)
            touched.add(target.parent)
            self.disk.link(self.object_path(entry.sha256), target)
        self.disk.link(self.object_path(reference.manifest_sha256), root / MANIFEST_PATH)
        for directory in sorted(touched):
            self.disk.sync_directory(directory)

    def forget_damaged(self, installed: Installed) -> list[str]:
        """Remove what has changed on disk of an installed bundle: the bundle's tree, and the objects that are damaged.

        Returns the paths that were damaged, in the tree or as objects; when there are none, nothing is removed.
        """
        try:
            manifest = self.read_manifest(installed.bundle)
        except (OSError, ProtocolError):
            entries = [(MANIFEST_PATH, installed.bundle.manifest_sha256)]
        else:
            variant = manifest.variant(installed.variant)
            files = files_here(manifest, variant) if variant else ()
            entries = [(file.path, file.sha256) for file in files]
            entries.append((MANIFEST_PATH, installed.bundle.manifest_sha256))
        tree = self.bundle_path(installed.bundle)
        broken = {sha256 for _, sha256 in entries if not _intact(self.object_path(sha256), sha256)}
        damaged = [path for path, sha256 in entries if sha256 in broken or not self._in_tree(tree / path, sha256)]
        if damaged:
            self.disk.remove_tree(tree)
            for sha256 in broken:
                self.disk.unlink(self.object_path(sha256))
        return damaged

    def _in_tree(self, path: Path, sha256: str) -> bool:
        # Usually a second name of the object, which was looked at; a copy where there are no hard links, or a name of
        # an older object that was damaged and fetched again.
        return path.is_file() and (path.samefile(self.object_path(sha256)) or _intact(path, sha256))

    # slots ----

    def read_slots(self) -> Slots | None:
        """Return the slots; None when there are none yet or the file is damaged.

        Raises UnsupportedSchema when a newer release has written them; `salvage_slots` then finds what serves.
        """
        try:
            return parse(Slots, read_kept(self._slots_path))
        except (FileNotFoundError, MalformedDocument):
            return None

    def find_slots(self, besides: str | None) -> Slots:
        """Return slots for what is installed, whole: the bundle that was installed last, and the one before it.

        `besides`: the manifest digest of a bundle that is none of them. For slots that are lost; reads all of it.
        """
        trees = [tree for tree in (self.directory / "bundles").iterdir() if tree.name != besides]
        trees.sort(key=lambda tree: tree.stat().st_mtime, reverse=True)
        found = [installed for installed in map(self._installed_in, trees) if installed is not None]
        return Slots(current=next(iter(found), None), previous=next(iter(found[1:]), None))

    def _installed_in(self, tree: Path) -> Installed | None:
        try:
            data = read_kept(tree / MANIFEST_PATH)
            manifest = parse(Manifest, data, LIMITS.manifest_bytes)
        except (OSError, ProtocolError):
            return None
        reference = BundleReference(
            name=manifest.name, version=manifest.version, manifest_sha256=tree.name, manifest_size_bytes=len(data)
        )
        if sha256_of(data) != tree.name:
            return None
        for variant in manifest.variants:
            if all(_intact(tree / entry.path, entry.sha256) for entry in files_here(manifest, variant)):
                return Installed(bundle=reference, variant=variant.id)
        return None

    def salvage_slots(self) -> Slots:
        """Return what can be read of slots that a newer release has written."""
        return salvage(self._slots_path.read_bytes())

    def write_slots(self, slots: Slots) -> None:
        """Commit the slots."""
        self.disk.commit(self._slots_path, slots.to_bytes())

    # garbage ----

    def collect(self, keep: set[str]) -> None:
        """Remove all bundles but those with these manifest digests, and every object and partial file they don't need.

        A kept bundle whose manifest is not here yet (still being fetched) keeps all objects: what it needs is unknown.
        """
        for tree in sorted((self.directory / "bundles").iterdir()):
            if tree.name not in keep:
                self.disk.remove_tree(tree)
        for path in sorted((self.directory / PROBES).glob("*")):
            if path.stem not in keep:
                self.disk.remove_tree(path)
        needed = self._needed(keep)
        if needed is None:
            return
        for path in sorted((self.directory / "partial").iterdir()):
            # One whose object is here is the old name of a rename of which a loss of power kept only the new one.
            if path.name not in needed or self.has(path.name):
                self.disk.unlink(path)
        for shelf in sorted((self.directory / "objects").iterdir()):
            for path in sorted(shelf.iterdir()):
                if path.name not in needed:
                    self.disk.unlink(path)

    def _needed(self, keep: set[str]) -> set[str] | None:
        needed = set(keep)
        for digest in keep:
            files = self._files_of(digest)
            if files is None:
                return None
            needed |= files
        return needed

    def _files_of(self, digest: str) -> set[str] | None:
        """Return what a manifest lists, as an object or in its bundle's tree, where a lost object is left."""
        for path in (self.object_path(digest), self.directory / "bundles" / digest / MANIFEST_PATH):
            try:
                data = read_kept(path)
                if sha256_of(data) == digest:
                    return {entry.sha256 for entry in parse(Manifest, data, LIMITS.manifest_bytes).files}
            except (OSError, ProtocolError):
                continue
        return None


def _intact(path: Path, sha256: str) -> bool:
    try:
        return path.is_file() and sha256_of_file(path) == sha256
    except OSError as error:
        if is_lost(error):
            return False
        raise
