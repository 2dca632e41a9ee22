"""Debian's kernel for 64-bit ARM and a small initial file system of our own, kept between runs.

Ours holds busybox and the modules of a few devices, and mounts the root by its device; made without running anything,
where Debian's own takes minutes of emulation to make. What is proven is the system that it hands over to.
"""

from __future__ import annotations

import fcntl
import gzip
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tests.boards.roots import KEPT, unpack

MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_net"),
    *("bcm2835", "sdhci_iproc", "phy_generic", "dwc2", "cdc_ether", "rndis_host"),
    *("ext4", "crc32c_generic", "autofs4"),
)
"""Of qemu's own machine, of a Pi 3, and of every system. One that finds no device does nothing."""
TREES = ("bcm2837-rpi-3-b.dtb",)

_INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$module; done
if /bin/busybox grep -q static-network /proc/cmdline; then
  /bin/busybox ip address add 10.0.2.15/24 dev eth0
  /bin/busybox ip link set eth0 up
  /bin/busybox ip route add default via 10.0.2.2
fi
root=$(/bin/busybox sed -n 's/.*root=\\([^ ]*\\).*/\\1/p' /proc/cmdline)
for attempt in $(/bin/busybox seq 100); do [ -b $root ] && break; /bin/busybox sleep 0.1; done
/bin/busybox mount -t ext4 $root /root
for each in dev proc sys; do /bin/busybox mount --move /$each /root/$each; done
exec /bin/busybox switch_root /root /sbin/init
"""


@dataclass(frozen=True)
class Kernel:
    """What a machine is started with."""

    folder: Path

    @property
    def image(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd"


def kernel() -> Kernel:
    """Return the kernel, unpacked anew if there is none."""
    digest = sha256(repr((MODULES, TREES, _INIT)).encode()).hexdigest()[:16]
    folder = KEPT / f"kernel-{digest}"
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=KEPT, prefix="making-") as scratch:
                _make(Path(scratch) / "root", Path(scratch) / "kernel", Path(scratch))
                (Path(scratch) / "kernel").rename(folder)
    return Kernel(folder)


def load_order(dependencies: str, wanted: tuple[str, ...]) -> list[str]:
    """Return the files of modules in an order in which they can be loaded, from the text of a `modules.dep`."""
    needs = {}
    for line in dependencies.splitlines():
        file, _, others = line.partition(":")
        needs[Path(file).name.removesuffix(".ko").replace("-", "_")] = [file, *others.split()]
    order: list[str] = []
    for name in wanted:
        # modules.dep names all that a module needs, what is loaded last first.
        order += [file for file in reversed(needs.get(name, [])) if file not in order]
    return order


def _make(root: Path, made: Path, scratch: Path) -> None:
    unpack("arm64", ("linux-image-arm64", "busybox-static"), root, scratch)
    made.mkdir()
    (image,) = (root / "boot").glob("vmlinuz-*")
    version = image.name.removeprefix("vmlinuz-")
    shutil.copyfile(image, made / "vmlinuz")
    for tree in TREES:
        shutil.copyfile(root / f"usr/lib/linux-image-{version}/broadcom/{tree}", made / tree)
    subprocess.run(["depmod", "-b", str(root), version], check=True, capture_output=True)
    modules = root / "lib/modules" / version
    _initial(modules, root / "bin/busybox", scratch / "initial", made / "initrd")


def _initial(modules: Path, busybox: Path, folder: Path, output: Path) -> None:
    for name in ("bin", "dev", "proc", "sys", "root", "modules"):
        (folder / name).mkdir(parents=True)
    shutil.copy(busybox, folder / "bin/busybox")
    order = load_order((modules / "modules.dep").read_text(), MODULES)
    for file in order:
        shutil.copy(modules / file, folder / "modules")
    (folder / "modules/order").write_text("\n".join(Path(file).name for file in order))
    (folder / "init").write_text(_INIT)
    (folder / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(folder)) for path in sorted(folder.rglob("*")))
    packed = subprocess.run(
        ["cpio", "--create", "--format=newc", "--quiet"],
        input=names.encode(),
        cwd=folder,
        check=True,
        stdout=subprocess.PIPE,
    )
    output.write_bytes(gzip.compress(packed.stdout, 1))
