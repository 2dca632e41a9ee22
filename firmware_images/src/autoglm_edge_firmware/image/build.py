"""Make an image by its plan: root, file systems, map, bill, archive; each is finished first and then named."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from autoglm_edge_firmware.errors import FirmwareError
from autoglm_edge_firmware.image import assembly, bill, files
from autoglm_edge_firmware.image.boards import Firmware
from autoglm_edge_firmware.image.layout import Layout, identifiers, layout, root_mib
from autoglm_edge_firmware.image.plan import ImagePlan
from autoglm_edge_firmware.image.root import make_root, must_be_possible
from autoglm_edge_firmware.image.settle import content_bytes, settle, still
from autoglm_edge_firmware.media import block_map
from autoglm_edge_firmware.media.compression import compress, kind_for
from autoglm_edge_firmware.media.trees import FolderTree
from autoglm_edge_firmware.programs import run
from autoglm_edge_firmware.progress import Progress, silent
from autoglm_edge_protocol.durable import Disk

_NEEDED_BYTES = 8 << 30
"""Of the disk, at most: the root, its image, and the archive."""


def build_image(plan: ImagePlan, progress: Progress = silent) -> Path:
    """Make the image and return where it is; beside it are its checksum, block map and bill of materials.

    Raises:
        FirmwareError: it cannot be made; nothing is left of it.
        OSError: the disk is full.
    """
    must_be_possible(plan)
    free = shutil.disk_usage(plan.output.parent).free
    if free < _NEEDED_BYTES:
        raise FirmwareError(
            f"{plan.output.parent}: {free / 1e9:.1f} GB are free, and making an image takes up to 8.6 GB"
        )
    work = plan.output.parent / f".{plan.output.name}.{os.getpid()}.making"
    work.mkdir(mode=0o700)
    try:
        known = identifiers(plan.board.name)
        root = make_root(plan, known, work, progress)
        progress("compiling modules", 0, 0)
        compile_modules(root)
        return finish(plan, root, work, progress)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def finish(plan: ImagePlan, root: Path, work: Path, progress: Progress = silent) -> Path:
    """Make the image of a root that is there.

    Raises: as `build_image`.
    """
    progress("settling the root", 0, 0)
    known = identifiers(plan.board.name)
    settle(root)
    tree = FolderTree(root)
    for each in files.of_root(plan, known):
        tree.write(each.path, each.data, each.mode)
    for path, target in files.links(plan):
        tree.link(path, target)
    boot, data = work / "boot", work / "data"
    assembly.take_boot(root, boot)
    if plan.board.firmware is Firmware.EFI:
        _put_loader(plan, root, boot)
    for each in files.of_boot(plan, known):
        assembly.put(boot, each.path, each.data)
    _take_data(root, data)
    for folder in (root, boot, data):
        still(folder, plan.epoch)
    size = plan.root_mib or root_mib(content_bytes(root))
    return _written(plan, layout(plan.board.name, plan.boot_mib, size, plan.data_mib), work, progress)


def _put_loader(plan: ImagePlan, root: Path, boot: Path) -> None:
    stubs = sorted((root / "usr/lib/systemd/boot/efi").glob("systemd-boot*.efi"))
    if not stubs:
        raise FirmwareError("the root has no boot loader for UEFI: systemd-boot-efi is not among its packages")
    assembly.put(boot, f"/EFI/BOOT/{plan.board.efi_name}", stubs[0].read_bytes())


def _take_data(root: Path, data: Path) -> None:
    """Move what packages have made below the data partition's place into its own tree."""
    place = root / files.DATA_MOUNT.lstrip("/")
    place.mkdir(parents=True, exist_ok=True)
    place.replace(data)
    place.mkdir()


def compile_modules(root: Path) -> None:
    """Compile the agent's modules anew, as it may not write them itself.

    By one process in one order: what Python writes depends on what it has compiled before.
    """
    library = root / "opt/autoglm-edge/lib"
    for cache in sorted(library.glob("**/__pycache__")):
        shutil.rmtree(cache)
    if library.is_dir():
        run(
            "chroot", root, "/usr/bin/python3", "-m", "compileall", "-q", "/opt/autoglm-edge/lib/any",
            *sorted(f"/opt/autoglm-edge/lib/{each.name}" for each in library.glob("cp*")),
            more={"PYTHONHASHSEED": "0"}, good=(0, 1),
        )  # fmt: skip


def _written(plan: ImagePlan, lying: Layout, work: Path, progress: Progress) -> Path:
    known = lying.identifiers
    image = work / "card.img"
    progress("writing the image", 0, 0)
    assembly.lay_out(image, lying)
    assembly.make_boot(image, lying, work / "boot", plan.epoch)
    assembly.make_ext4(image, lying.root, work / "root", "root", known.root, known.hash_seed, plan.epoch)
    assembly.make_ext4(image, lying.data, work / "data", "data", known.data, known.hash_seed, plan.epoch)
    mapped = assembly.map_of(image, lying)
    kind = kind_for(plan.output)
    found = bill.components(work / "root")
    finished = image
    if kind != "plain":
        progress(f"compressing with {kind}", 0, 0)
        finished = work / plan.output.name
        compress(image, finished, kind)
    if plan.payload.claim or plan.payload.wifi:
        finished.chmod(0o600)
    digest = _sha256(finished)
    disk = Disk()
    disk.commit(block_map.beside(plan.output), block_map.to_text(mapped).encode())
    disk.commit(_beside(plan.output, ".spdx.json"), bill.to_text(found, plan.output.name, digest, plan.epoch).encode())
    disk.commit(_beside(plan.output, ".sha256"), f"{digest}  {plan.output.name}\n".encode())
    with finished.open("rb+") as file:
        os.fsync(file.fileno())
    disk.promote(finished, plan.output)
    return plan.output


def _beside(image: Path, suffix: str) -> Path:
    return image.with_name(image.name + suffix)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
