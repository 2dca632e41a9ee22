"""The root of an image, made by mmdebstrap from this machine's apt sources, with the agent's package in it.

Packages of another architecture are configured by qemu-user, which the kernel must have been told of (binfmt_misc).
"""

from __future__ import annotations

import shlex
import subprocess
import time
from pathlib import Path

from autoglm_edge_firmware.customise.payload import File
from autoglm_edge_firmware.errors import FirmwareError, ProgramFailed
from autoglm_edge_firmware.image import apt_sources
from autoglm_edge_firmware.image.files import before_packages
from autoglm_edge_firmware.image.layout import Identifiers
from autoglm_edge_firmware.image.plan import SUITE, ImagePlan
from autoglm_edge_firmware.media.trees import FolderTree
from autoglm_edge_firmware.privileges import is_root
from autoglm_edge_firmware.programs import environment, last_words, path_of, run
from autoglm_edge_firmware.progress import Progress

_EMULATORS = {"arm64": "qemu-aarch64", "armhf": "qemu-arm", "amd64": "qemu-x86_64"}
_LOOK_S = 0.5
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
# Manuals are not read on a board; licences stay.
_LEFT_OUT = ("/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/doc/*")
_KEPT = ("/usr/share/doc/*/copyright", "/usr/share/locale/locale.alias")


def must_be_possible(plan: ImagePlan) -> None:
    """Refuse what would fail after minutes.

    Raises:
        FirmwareError: with what is to be done.
    """
    if not is_root():
        raise FirmwareError("making an image needs root, for the owners of its files: run this with sudo")
    for program in ("mmdebstrap", "mke2fs", "debugfs", "mkfs.vfat", "mcopy"):
        path_of(program)
    if plan.output.suffix == ".xz":
        path_of("xz")
    native = run("dpkg", "--print-architecture").decode().strip()
    emulator = _EMULATORS[plan.board.architecture]
    if plan.board.architecture == native:
        return
    path_of("arch-test")  # without it mmdebstrap does nothing for another architecture
    if not (_BINFMT / emulator).exists():
        raise FirmwareError(
            f"this machine runs no programs for {plan.board.architecture}: apt install qemu-user-static; "
            f"where {_BINFMT} is empty, mount -t binfmt_misc binfmt_misc {_BINFMT} first"
        )


def make_root(plan: ImagePlan, known: Identifiers, work: Path, progress: Progress) -> Path:
    """Make the root in a folder of `work`, with what packages put onto the boot partition in it.

    Raises:
        FirmwareError: a package cannot be had or configured.
    """
    root, first = work / "root", work / "first"
    _put(first, before_packages(plan, known))
    (first / "boot" / "firmware").mkdir(parents=True)
    sources = work / ("apt.sources" if plan.sources.suffix == ".sources" else "sources.list")
    sources.write_text(apt_sources.with_components(plan.sources.read_text(), SUITE, plan.board.components))
    package = plan.payload.package
    assert package is not None
    (work / package.file_name).write_bytes(package.data)
    command = [
        path_of("mmdebstrap"),
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
        f"--architectures={plan.board.architecture}",
        f"--include={','.join(plan.packages)}",
        # Files that are there before their packages are the ones that are meant.
        "--dpkgopt=force-confold",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
        *(f"--dpkgopt=path-include={pattern}" for pattern in _KEPT),
        f"--setup-hook=sync-in {shlex.quote(str(first))} /",
        f"--customize-hook=copy-in {shlex.quote(str(work / package.file_name))} /var/cache",
        f'--customize-hook=chroot "$1" dpkg --install /var/cache/{package.file_name}',
        f'--customize-hook=rm -f "$1"/var/cache/{package.file_name} "$1"/usr/sbin/policy-rc.d',
        SUITE,
        str(root),
        str(sources),
    ]
    _watched(command, environment({"SOURCE_DATE_EPOCH": str(plan.epoch), "PYTHONHASHSEED": "0"}), work, progress)
    return root


def _watched(command: list[str], env: dict[str, str], work: Path, progress: Progress) -> None:
    log = work / "mmdebstrap.log"
    with (
        log.open("wb") as written,
        subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT, env=env) as process,
    ):
        try:
            while process.poll() is None:
                progress("installing packages", log.stat().st_size, 0)
                time.sleep(_LOOK_S)
        except BaseException:
            # It unmounts what it has mounted, and takes its time; whoever removes the folder waits for that.
            process.terminate()
            process.wait()
            raise
    if process.returncode != 0:
        lines = [line for line in log.read_bytes().splitlines() if line.startswith((b"E:", b"dpkg: error", b" "))]
        raise ProgramFailed("mmdebstrap", last_words(b"\n".join(lines)) or last_words(log.read_bytes()))


def _put(root: Path, files: tuple[File, ...]) -> None:
    tree = FolderTree(root)
    for each in files:
        tree.write(each.path, each.data, each.mode)
