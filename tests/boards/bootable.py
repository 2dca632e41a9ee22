"""A disk with a Debian that boots and has the agent's real package, kept between runs by what it is made of.

Packages are unpacked and the few settings written that make a system of them; the agent's package alone is installed
by dpkg, whose scripts run translated. Debian's own configuration of every package would take minutes.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

from tests.boards import debian
from tests.boards.machines import DOOR
from tests.boards.roots import KEPT, compile_library, unpack

PACKAGES = (
    *("base-files", "base-passwd", "bash", "coreutils", "dash", "dbus", "findutils", "grep", "init-system-helpers"),
    *("iproute2", "kmod", "libc-bin", "libgomp1", "libstdc++6", "login", "mawk", "mount", "netbase", "passwd"),
    *("perl-base", "python3", "sed", "systemd", "systemd-sysv", "udev", "util-linux"),
)
FREE_MB = 700

_NETWORK = "[Match]\nName=e* usb*\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n[DHCPv4]\nUseDNS=no\n"
_JOURNAL = "[Journal]\nForwardToConsole=yes\nMaxLevelConsole=info\nStorage=volatile\n"
# The agent listens on loopback alone unless it has a certificate for its applications.
_DOOR_SOCKET = f"[Socket]\nListenStream={DOOR}\n"
_DOOR = "[Service]\nExecStart=/lib/systemd/systemd-socket-proxyd 127.0.0.1:8000\n"
_FILES: dict[str, str | None] = {
    "etc/hostname": "board\n",
    "etc/hosts": "127.0.0.1 localhost board\n",
    "etc/machine-id": "",
    "etc/systemd/system/door.socket": _DOOR_SOCKET,
    "etc/systemd/system/door.service": _DOOR,
    "etc/systemd/network/ethernet.network": _NETWORK,
    "etc/systemd/journald.conf.d/console.conf": _JOURNAL,
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
    "etc/passwd": None,
    "etc/group": None,
}
_UNITS = "etc/systemd/system"
_ENABLED = {
    f"{_UNITS}/default.target": "/lib/systemd/system/multi-user.target",
    f"{_UNITS}/multi-user.target.wants/systemd-networkd.service": "/lib/systemd/system/systemd-networkd.service",
    f"{_UNITS}/sockets.target.wants/door.socket": f"/{_UNITS}/door.socket",
    f"{_UNITS}/getty@tty1.service": "/dev/null",
    f"{_UNITS}/serial-getty@ttyAMA0.service": "/dev/null",
    f"{_UNITS}/serial-getty@ttyS1.service": "/dev/null",
}


def disk(package: Path) -> Path:
    """Return the image of an ext4 file system with an agent's package installed; it must not be written to."""
    made_of = (PACKAGES, FREE_MB, _FILES, _ENABLED, debian.release(), sha256(package.read_bytes()).hexdigest())
    image = KEPT / f"disk-{sha256(repr(made_of).encode()).hexdigest()[:16]}.img"
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / "disk.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not image.exists():
            for older in KEPT.glob("disk-*.img"):
                older.unlink()
            with tempfile.TemporaryDirectory(dir=KEPT, prefix="making-") as scratch:
                _make(package, Path(scratch) / "root", Path(scratch) / "disk.img", Path(scratch))
                (Path(scratch) / "disk.img").rename(image)
    return image


def _make(package: Path, root: Path, image: Path, scratch: Path) -> None:
    unpack("arm64", PACKAGES, root, scratch)
    settle(root)
    install(package, root)
    used_kb = int(
        subprocess.run(["du", "-sk", str(root)], check=True, stdout=subprocess.PIPE, text=True).stdout.split()[0]
    )
    subprocess.run(["truncate", f"--size={used_kb // 1024 + FREE_MB}M", str(image)], check=True)
    options = ["-t", "ext4", "-q", "-F", "-E", "lazy_itable_init=0,nodiscard", "-N", "65536"]
    subprocess.run(["mke2fs", *options, "-d", str(root), str(image)], check=True, capture_output=True)


def settle(root: Path) -> None:
    """Make a system that starts of unpacked packages: what their scripts would do, as far as it is needed."""
    for name, text in _FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            shutil.copyfile(root / f"usr/share/base-passwd/{path.name}.master", path)
        else:
            path.write_text(text)
    for name, target in _ENABLED.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(target)
    for name in ("proc", "sys", "dev", "run", "tmp"):
        (root / name).mkdir(exist_ok=True)
    for interpreter, alternative in (("awk", "mawk"), ("sh", "dash")):
        link = root / "usr/bin" / interpreter
        if not link.exists():
            link.symlink_to(alternative)
    compile_library(root)


def install(package: Path, root: Path) -> None:
    """Install a package as on a board: its scripts run in the root, where the kernel has the emulator run them."""
    for name in ("info", "updates", "triggers", "parts"):
        (root / "var/lib/dpkg" / name).mkdir(parents=True, exist_ok=True)
    (root / "var/lib/dpkg/status").touch()
    # What the package depends on is unpacked, but not in the list of what dpkg has installed.
    dpkg = ["dpkg", f"--root={root}", "--force-depends", "--force-architecture", "--force-unsafe-io"]
    _run([*dpkg, "--unpack", str(package)])
    modules = root / "opt/autoglm-edge/lib"
    if sys.version_info[:2] == (3, 11):  # what the package's script would do, many times faster
        _run(
            [
                sys.executable,
                "-m",
                "compileall",
                "-q",
                "-j",
                "2",
                "-s",
                str(root),
                *map(str, (modules / "cp311", modules / "any")),
            ]
        )
    _run([*dpkg, "--configure", "autoglm-edge-agent"])


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=280, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} ended with {done.returncode}: {done.stdout[-2000:]}")
