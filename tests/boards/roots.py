"""Unpacked Debian roots of another architecture, kept between runs by a digest of what they are made of.

Nothing of a root is run while it is made: packages are unpacked, not configured, and wheels are taken for the
architecture. So it takes seconds where a configured one takes minutes of emulation.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from hashlib import sha256
from pathlib import Path

from tests.boards import debian, locked_wheels

from autoglm_edge_firmware.package.architectures import Architecture

KEPT = locked_wheels.REPOSITORY / ".environments" / "boards"
SITE = "usr/local/lib/python3.11/dist-packages"
PYTHON = "3.11"
"""Of bookworm, the release whose Python has every runtime's wheels."""

_COMMAND = "#!/usr/bin/python3\nimport sys\nfrom autoglm_edge_agent.cli import main\nsys.exit(main())\n"
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "usr/bin/autoglm-edge-agent": _COMMAND,
}


@dataclass(frozen=True)
class Recipe:
    """What a root is made of."""

    architecture: Architecture
    packages: tuple[str, ...]
    """Debian's."""
    tests: tuple[str, ...]
    """Of `locked_wheels.TESTS`."""
    unlocked: tuple[tuple[str, str], ...] = ()
    """Wheels that no file of ours locks, each with the folder in the root that it is put into."""
    with_security: bool = True

    @property
    def requirements(self) -> tuple[str, ...]:
        """The locked wheels."""
        locked = locked_wheels.for_tests(self.architecture, PYTHON, self.tests)
        return tuple(entry.to_line() for entry in locked)

    @property
    def digest(self) -> str:
        """Of everything that the root depends on but the versions of Debian's packages."""
        return sha256(repr((astuple(self), self.requirements, _FILES, debian.release())).encode()).hexdigest()[:16]


def root_of(recipe: Recipe) -> Path:
    """Return a root made by a recipe, which nobody may write to; made anew if there is none."""
    root = KEPT / f"{recipe.architecture.name}-{recipe.digest}"
    KEPT.mkdir(parents=True, exist_ok=True)
    with alone(KEPT / f"{root.name}.lock"):
        if not root.exists():
            with tempfile.TemporaryDirectory(dir=KEPT, prefix="making-") as scratch:
                _make(recipe, Path(scratch), Path(scratch) / "root")
                (Path(scratch) / "root").rename(root)
    return root


def unpack(
    architecture: str, packages: tuple[str, ...], root: Path, scratch: Path, *, with_security: bool = True
) -> None:
    """Unpack Debian packages of the machine's own release into a folder."""
    suite = debian.release()
    command = ["mmdebstrap", "--quiet", "--variant=extract", "--mode=root", "--format=directory"]
    merged = ["--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", f"--include={','.join(packages)}"]
    sources = debian.sources(suite, with_security, scratch)
    # mmdebstrap warns of a root without /proc, which is none of what is unpacked.
    made = subprocess.run(
        [*command, f"--architectures={architecture}", *merged, suite, str(root), *sources],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    if made.returncode:
        raise RuntimeError(f"mmdebstrap failed: {made.stderr[-2000:]}")


def _make(recipe: Recipe, scratch: Path, root: Path) -> None:
    unpack(recipe.architecture.name, recipe.packages, root, scratch, with_security=recipe.with_security)
    locked_wheels.install(recipe.requirements, root / SITE, recipe.architecture, PYTHON, scratch)
    for requirement, folder in recipe.unlocked:
        locked_wheels.install([requirement], root / folder, recipe.architecture, PYTHON)
    for name, text in _FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "usr/bin/autoglm-edge-agent").chmod(0o755)
    for name in ("proc", "sys", "dev", "tmp", "run", "checkout", "given"):
        (root / name).mkdir(exist_ok=True)
    compile_library(root)


def compile_library(root: Path) -> None:
    """Compile Python's own library, as its package would when configured: byte code is the same on every machine."""
    python = shutil.which(f"python{PYTHON}") if sys.version_info[:2] != (3, 11) else sys.executable
    if python:
        library = root / f"usr/lib/python{PYTHON}"
        subprocess.run([python, "-m", "compileall", "-q", "-s", str(root), str(library)], check=False)


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold a lock that other processes which make roots hold as well."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
