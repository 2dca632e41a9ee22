"""The smallest roots of Debian in which systemd boots and packages can be installed, and our package for them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

from tests.boards import debian
from tests.boards.roots import KEPT, alone, unpack

from autoglm_edge_firmware.package.build import build_package

_PACKAGES = (
    *("base-files", "base-passwd", "bash", "coreutils", "dash", "diffutils", "dpkg", "findutils", "grep"),
    *("init-system-helpers", "libc-bin", "libstdc++6", "login", "mount", "passwd", "perl-base", "python3", "sed"),
    *("systemd-sysv", "util-linux"),
)
_UNPACKED = {
    "libc6": "2.36-9",
    "libgcc-s1": "12.2.0-14",
    "libstdc++6": "12.2.0-14",
    "passwd": "1:4.13",
    "python3": "3.11.2-1",
    "systemd": "252.39-1",
}
"""What our package depends on is unpacked and not configured, so dpkg has to be told that it is there."""
PYTHON = "3.11"
"""Of Debian 12."""


def base_root(architecture: str) -> Path:
    """Return an unpacked root that nobody may write to; made anew if there is none."""
    digest = sha256(repr((_PACKAGES, _UNPACKED, debian.release())).encode()).hexdigest()[:16]
    root = KEPT / f"service-{architecture}-{digest}"
    KEPT.mkdir(parents=True, exist_ok=True)
    with alone(KEPT / f"{root.name}.lock"):
        if not root.exists():
            with tempfile.TemporaryDirectory(dir=KEPT, prefix="making-") as scratch:
                made = Path(scratch) / "root"
                unpack(architecture, _PACKAGES, made, Path(scratch))
                # What base-passwd does when it is configured.
                for name in ("passwd", "group"):
                    (made / "etc" / name).write_text((made / f"usr/share/base-passwd/{name}.master").read_text())
                (made / "var/lib/dpkg/status").write_text("\n".join(map(_status, _UNPACKED.items())))
                made.rename(root)
    return root


def copy_root(source: Path, target: Path) -> Path:
    """Copy a root for one test."""
    subprocess.run(["cp", "-ax", str(source), str(target)], check=True)
    return target


def install(package: Path, root: Path) -> None:
    """Install our package into a root that is not running, with the root's own dpkg.

    Modules are compiled by this machine's Python, which has the same
    byte code: the root's own takes a minute of emulation for it, and finds it done.
    """
    (root / "root" / package.name).write_bytes(package.read_bytes())
    _in_root(root, "dpkg", "--unpack", f"/root/{package.name}")
    compiled = [sys.executable, "-m", "compileall", "-q", "-s", str(root), str(root / "opt/autoglm-edge/lib")]
    if sys.version_info[:2] == (3, 11):
        subprocess.run(compiled, check=True)
    _in_root(root, "dpkg", "--configure", "autoglm-edge-agent")


def built(architecture: str, output: Path) -> Path:
    """Build our package for one architecture and the Python of Debian 12."""
    return build_package(architecture, output, pythons=[PYTHON], revision=1)


def newer(package: Path, scratch: Path) -> Path:
    """Return the same package as a newer revision."""
    folder = scratch / "unpacked"
    subprocess.run(["dpkg-deb", "--raw-extract", str(package), str(folder)], check=True)
    control = folder / "DEBIAN/control"
    text = control.read_text()
    control.write_text(text.replace("Version: 0.1.0-1\n", "Version: 0.1.0-2\n"))
    assert control.read_text() != text
    path = scratch / package.name.replace("-1_", "-2_")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(folder), str(path)], check=True)
    return path


def _status(package: tuple[str, str]) -> str:
    name, version = package
    fields = f"Package: {name}\nStatus: install ok installed\nArchitecture: all\nVersion: {version}\n"
    return f"{fields}Maintainer: Debian <debian@localhost>\nDescription: unpacked for a test\n"


def _in_root(root: Path, *command: str) -> None:
    entered = ["unshare", "--mount", "--fork", "--pid", "--mount-proc=" + str(root / "proc"), "chroot", str(root)]
    (root / "proc").mkdir(exist_ok=True)
    done = subprocess.run(
        [*entered, *command],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
    )
    if done.returncode:
        raise AssertionError(f"{command} ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-3000:]}")
