"""Small images with the true layouts of systems that people use, made from a few files with the true tools."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoglm_edge_firmware.media.opened import open_medium

MIB = 1 << 20
BOOT_AT = 4 * MIB
TOOLS = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "MTOOLS_SKIP_CHECK": "1", "LC_ALL": "C"}

RASPBERRY_PI_OS = """PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nID=debian\n"""
FSTAB = "PARTUUID=4f3a-01  {boot}  vfat  defaults  0  2\nPARTUUID=4f3a-02  /  ext4  defaults,noatime  0  1\n"
CMDLINE = (
    "console=serial0,115200 console=tty1 root=PARTUUID=4f3a-02 rootfstype=ext4 fsck.repair=yes rootwait quiet "
    "init=/usr/lib/raspberrypi-sys-mods/firstboot\n"
)
STATUS = "Package: base-files\nVersion: 12\nArchitecture: {0}\n\nPackage: dpkg\nVersion: 1.21\nArchitecture: {0}\n\n"


@dataclass(frozen=True)
class Layout:
    """What a system's image is made of."""

    boot: Mapping[str, str] | None
    root: Mapping[str, str]
    boot_mib: int = 40
    root_mib: int = 24
    gpt: bool = False

    @property
    def root_at(self) -> int:
        return BOOT_AT + (self.boot_mib * MIB if self.boot is not None else 0)


def root_of(boot_mount: str = "/boot/firmware", architecture: str = "arm64", **more: str) -> dict[str, str]:
    """Return the files of a root that say what system it is."""
    return {
        "usr/lib/os-release": RASPBERRY_PI_OS,
        "etc/os-release": "-> ../usr/lib/os-release",
        "etc/fstab": FSTAB.format(boot=boot_mount),
        "etc/hostname": "raspberrypi\n",
        "etc/systemd/system/multi-user.target.wants/ssh.service": "-> /lib/systemd/system/ssh.service",
        "lib": "-> usr/lib",
        "usr/lib/systemd/systemd": "the first process\n",
        "var/lib/dpkg/status": STATUS.format(architecture),
        **more,
    }


BOOKWORM = Layout({"cmdline.txt": CMDLINE, "config.txt": "arm_64bit=1\n", "kernel8.img": "k" * 5000}, root_of())
BULLSEYE = Layout({"cmdline.txt": CMDLINE, "config.txt": ""}, root_of("/boot"))
TRIXIE = Layout(
    {
        "cmdline.txt": CMDLINE.replace("quiet", "ds=nocloud;i=rpi-imager-1 quiet"),
        "config.txt": "",
        "meta-data": "instance-id: rpi-imager-1\n",
        "user-data": "#cloud-config\nhostname: given\nusers:\n- name: ann\n  gecos: Ännchen\n",
        "network-config": "network:\n  version: 2\n",
    },
    root_of(),
)
PRESEEDED = Layout({"cmdline.txt": CMDLINE, "config.txt": ""}, root_of(**{"usr/bin/rpi-preseed": "#!/bin/sh\n"}))
UBUNTU = Layout({"cmdline.txt": "quiet splash\n", "meta-data": "", "user-data": "#cloud-config\n"}, root_of())
DEBIAN = Layout(None, {**root_of(), "etc/fstab": "LABEL=root / ext4 defaults 0 1\n"}, gpt=True)


def make(path: Path, layout: Layout) -> Path:
    """Make an image."""
    end = layout.root_at + layout.root_mib * MIB
    with path.open("wb") as file:
        file.truncate(end + MIB)
    lines = []
    if layout.boot is not None:
        lines.append(f"start=4MiB, size={layout.boot_mib}MiB, type={'U' if layout.gpt else 'c'}")
    lines.append(f"start={layout.root_at // MIB}MiB, size={layout.root_mib}MiB, type={'L' if layout.gpt else '83'}")
    label = "gpt" if layout.gpt else "dos"
    _tool("sfdisk", "--quiet", str(path), given="\n".join([f"label: {label}", *lines, ""]))
    if layout.boot is not None:
        _tool(
            "mkfs.vfat", "-F", "32", "-s", "1", "--offset", str(BOOT_AT // 512), str(path), str(layout.boot_mib * 1024)
        )
        for name, text in layout.boot.items():
            _tool("mcopy", "-i", f"{path}@@{BOOT_AT}", "-", f"::/{name}", given=text)
    tree = path.with_name(path.name + ".tree")
    fill(tree, layout.root)
    size = f"{layout.root_mib}M"
    _tool("mke2fs", "-q", "-t", "ext4", "-d", str(tree), "-E", f"offset={layout.root_at}", str(path), size)
    return path


def fill(tree: Path, files: Mapping[str, str]) -> Path:
    """Make a folder of files and links."""
    for name, text in files.items():
        at = tree / name
        at.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            at.symlink_to(text[3:])
        else:
            at.write_text(text)
    return tree


def sound(path: Path, offset_bytes: int) -> str:
    """Return what e2fsck finds, an empty text for nothing."""
    ended = _ended("e2fsck", "-f", "-n", f"{path}?offset={offset_bytes}")
    return "" if ended.returncode == 0 else ended.stdout.decode()


def sound_fat(path: Path, layout: Layout) -> str:
    """Return what fsck.fat finds, an empty text for nothing."""
    alone = path.with_name(path.name + ".fat")
    with path.open("rb") as image:
        image.seek(BOOT_AT)
        alone.write_bytes(image.read(layout.boot_mib * MIB))
    ended = _ended("fsck.fat", "-n", str(alone))
    return "" if ended.returncode == 0 else ended.stdout.decode()


def root_file(path: Path, layout: Layout, command: str) -> str:
    """Return what debugfs answers about the root."""
    return _tool("debugfs", "-R", command, f"{path}?offset={layout.root_at}")


def boot_file(path: Path, name: str) -> str:
    """Return a file of the boot partition."""
    return _tool("mtype", "-i", f"{path}@@{BOOT_AT}", f"::/{name}")


def _tool(*command: str, given: str = "") -> str:
    ended = _ended(*command, given=given)
    assert ended.returncode == 0, (command, ended.stdout, ended.stderr)
    return ended.stdout.decode()


def _ended(*command: str, given: str = "") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, input=given.encode(), capture_output=True, check=False, env=TOOLS)


def play_back(card: Path) -> None:
    """Bring what its journals hold into the file systems of a board that lost power, as its next boot would."""
    for volume in open_medium(card).volumes[1:]:
        at = f"{card}?offset={volume.partition.start_bytes}"
        subprocess.run(["e2fsck", "-E", "journal_only", "-y", at], check=False, capture_output=True, env=TOOLS)
