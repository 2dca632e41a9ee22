"""See that the tests can emulate boards: install Debian's packages as root and let the kernel run foreign programs.

Never fails: what cannot be had is printed, and the tests that need it say that they were skipped and why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])

PACKAGES = {
    "arch-test": "arch-test",
    "bmaptool": "bmap-tools",
    "cpio": "cpio",
    "debugfs": "e2fsprogs",
    "fuse2fs": "fuse2fs",
    "kmod": "kmod",
    "mcopy": "mtools",
    "mkfs.vfat": "dosfstools",
    "mmdebstrap": "mmdebstrap",
    "qemu-aarch64-static": "qemu-user-static",
    "qemu-img": "qemu-utils",
    "qemu-system-aarch64": "qemu-system-arm",
    "sfdisk": "fdisk",
    "systemd-nspawn": "systemd-container",
    "xz": "xz-utils",
    "zstd": "zstd",
}
"""Program -> the Debian package that has it."""

BINFMT = Path("/proc/sys/fs/binfmt_misc")
RULES = Path("/usr/lib/binfmt.d")
EMULATORS = ("qemu-aarch64", "qemu-arm")


def missing() -> list[str]:
    """Return the packages whose programs are not there."""
    return sorted({package for program, package in PACKAGES.items() if not shutil.which(program, path=PATH)})


def is_root() -> bool:
    """Whether packages can be installed and file systems mounted."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def install(packages: list[str]) -> None:
    """Install packages with apt, which says itself what is wrong."""
    print(f"installing the Debian packages {' '.join(packages)} (a minute) ...", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    subprocess.run(["apt-get", "update", "-qq"], check=False, env=environment, stdout=subprocess.DEVNULL)
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    subprocess.run(command, check=False, env=environment, stdout=subprocess.DEVNULL)


def register() -> list[str]:
    """Let the kernel run programs of the boards by the emulators; returns those that it will not."""
    if not (BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)], check=False, capture_output=True)
    for name in EMULATORS:
        rule = RULES / f"{name}.conf"
        if not (BINFMT / name).exists() and rule.exists():
            try:
                (BINFMT / "register").write_text(rule.read_text(encoding="ascii"), encoding="ascii")
            except OSError as error:
                print(f"the kernel does not take {rule}: {error.strerror}", file=sys.stderr)
    return [name for name in EMULATORS if not (BINFMT / name).exists()]


def main() -> int:
    """Install and register what is missing where that is possible without asking."""
    if sys.platform != "linux":
        print("boards are emulated on Linux only; their tests are skipped", file=sys.stderr)
        return 0
    packages = missing()
    if packages and is_root() and shutil.which("apt-get"):
        install(packages)
        packages = missing()
    if packages:
        print(f"missing to emulate boards: sudo apt install {' '.join(packages)}", file=sys.stderr)
    if not is_root():
        print("emulating boards needs root; their tests are skipped", file=sys.stderr)
    elif unknown := register():
        print(f"this kernel does not run programs of {' or '.join(unknown)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
