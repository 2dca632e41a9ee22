"""Files put into the ext4 file system of a board's disk without mounting it, as a user would put them onto a card."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT_ONLY = 0o600


def copy_of(image: Path, copy: Path) -> Path:
    """Return a copy of a disk in which what was never written takes no space."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", str(image), str(copy)], check=True)
    return copy


def grow(image: Path, size_bytes: int) -> None:
    """Make a disk larger, with nothing in what is new: the file system stays as it is."""
    with image.open("r+b") as file:
        file.truncate(size_bytes)


def put(image: Path, path: str, text: str, scratch: Path, mode: int = 0o644) -> None:
    """Write a file of root into a disk, in place of one that is there."""
    file = scratch / "put"
    file.write_text(text)
    requests = [f"rm {path}", f"write {file} {path}", f"set_inode_field {path} mode 0{0o100000 | mode:o}"]
    requests += [f"set_inode_field {path} {field} 0" for field in ("uid", "gid")]
    (scratch / "requests").write_text("\n".join(requests) + "\n")
    subprocess.run(["debugfs", "-w", "-f", str(scratch / "requests"), str(image)], check=True, capture_output=True)


def has(image: Path, path: str) -> bool:
    """Whether a file is there. A journal that is not played back yet is not looked at: see `problems`."""
    told = subprocess.run(["debugfs", "-R", f"stat {path}", str(image)], check=True, capture_output=True, text=True)
    return "Inode:" in told.stdout


def problems(image: Path) -> str:
    """Return what e2fsck finds after it has played the journal back, as a kernel does on mounting; empty: nothing."""
    subprocess.run(["e2fsck", "-E", "journal_only", "-y", str(image)], check=False, capture_output=True)
    checked = subprocess.run(["e2fsck", "-f", "-n", str(image)], check=False, capture_output=True, text=True)
    return checked.stdout if checked.returncode else ""
