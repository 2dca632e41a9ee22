"""An ext4 partition of a card or image as a tree, by debugfs: nothing is mounted.

debugfs ends well whatever happened, so every write is read back. What it wrote is checked as a whole by `check`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from autoglm_edge_firmware.errors import ImageUnusable, ProgramFailed
from autoglm_edge_firmware.programs import last_words, run

MAGIC_AT = 1024 + 56
MAGIC = b"\x53\xef"
_MOST_LINKS = 8
_REGULAR = 0o100000
_TYPE = re.compile(rb"Type: (\w+)")
_FAST_LINK = re.compile(rb'Fast link dest: "([^"]*)"')
_FREE_BLOCKS = re.compile(r"^  Free blocks: (.*)$", re.MULTILINE)
_FIELD = r"^{}: +(\S.*)$"


class Ext4Tree:
    """The ext4 file system that begins `offset_bytes` into `image`."""

    def __init__(self, image: Path, offset_bytes: int) -> None:
        self._image = image
        self._at = f"{image}?offset={offset_bytes}"

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes, following links, or None."""
        for _ in range(_MOST_LINKS):
            about = self._ask("stat", path)
            kind = _TYPE.search(about)
            if kind is None or kind[1] not in (b"regular", b"symlink"):
                return None
            if kind[1] == b"regular":
                return self._ask("cat", path)
            path = self._followed(path, about)
        return None

    def _followed(self, path: str, about: bytes) -> str:
        fast = _FAST_LINK.search(about)
        target = (fast[1] if fast else self._ask("cat", path)).decode(errors="replace")
        return str(PurePosixPath(path).parent / target)

    def names(self, path: str) -> tuple[str, ...]:
        """Return the names in a folder."""
        lines = self._ask("ls -p", path).decode(errors="replace").splitlines()
        # /INODE/MODE/UID/GID/NAME/SIZE/
        fields = [line.split("/") for line in lines if line.startswith("/")]
        return tuple(
            sorted(each[5] for each in fields if len(each) >= 7 and each[1] != "0" and each[5] not in (".", ".."))
        )

    def write(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Make a file, with the folders above it."""
        at = PurePosixPath(path)
        self._make_folder(str(at.parent))
        with tempfile.NamedTemporaryFile() as source:  # 0600, as it may be a secret
            source.write(data)
            source.flush()
            self._do(
                f"cd {_quoted(str(at.parent))}",
                *([f"rm {_quoted(at.name)}"] if at.name in self.names(str(at.parent)) else []),
                f"write {source.name} {_quoted(at.name)}",
                f"sif {_quoted(at.name)} mode 0{_REGULAR | mode:o}",
                f"sif {_quoted(at.name)} uid 0",
                f"sif {_quoted(at.name)} gid 0",
            )
        if self._ask("cat", path) != data:
            raise ImageUnusable(self._image, f"its root partition has no room for {path}")

    def _make_folder(self, path: str) -> None:
        at = PurePosixPath(path)
        if path == "/" or at.name in self.names(str(at.parent)):
            return
        self._make_folder(str(at.parent))
        self._do(f"cd {_quoted(str(at.parent))}", f"mkdir {_quoted(at.name)}")
        if at.name not in self.names(str(at.parent)):
            raise ImageUnusable(self._image, f"its root partition has no room for {path}")

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link."""
        at = PurePosixPath(path)
        self._make_folder(str(at.parent))
        there = at.name in self.names(str(at.parent))
        self._do(
            f"cd {_quoted(str(at.parent))}",
            *([f"rm {_quoted(at.name)}"] if there else []),
            f"symlink {_quoted(at.name)} {_quoted(target)}",
        )
        if at.name not in self.names(str(at.parent)):
            raise ImageUnusable(self._image, f"its root partition has no room for {path}")

    def remove(self, path: str) -> None:
        """Remove a file."""
        at = PurePosixPath(path)
        if at.name in self.names(str(at.parent)):
            self._do(f"cd {_quoted(str(at.parent))}", f"rm {_quoted(at.name)}")

    def size_bytes(self) -> int:
        """Return how large the file system says that it is."""
        fields = self._fields()
        return int(fields["Block count"]) * int(fields["Block size"])

    def label(self) -> str:
        """Return its name, empty where it has none."""
        name = self._fields().get("Filesystem volume name", "")
        return "" if name == "<none>" else name

    @property
    def is_at_rest(self) -> bool:
        """Whether it was unmounted: if not, its journal has yet to be played back, by whoever mounts it next."""
        return "needs_recovery" not in self._fields().get("Filesystem features", "")

    def must_be_at_rest(self) -> None:
        """Refuse to change a file system whose journal has yet to be replayed.

        Raises:
            ImageUnusable: it was not unmounted.
        """
        if not self.is_at_rest:
            raise ImageUnusable(
                self._image, "its root partition was not unmounted cleanly: boot and shut it down first, or run e2fsck"
            )

    def check(self) -> None:
        """Look through the whole file system.

        Raises:
            ImageUnusable: it is not sound.
        """
        try:
            run("e2fsck", "-f", "-n", self._at)
        except ProgramFailed as error:
            raise ImageUnusable(self._image, f"an ext4 partition is damaged ({error.problem})") from None

    def _fields(self) -> dict[str, str]:
        about = self._about("-h")
        names = ("Block count", "Block size", "First block", "Filesystem features", "Filesystem volume name")
        found = {name: re.search(_FIELD.format(name), about, re.MULTILINE) for name in names}
        return {name: match[1].strip() for name, match in found.items() if match}

    def _about(self, *options: str) -> str:
        try:
            return run("dumpe2fs", *options, self._at).decode(errors="replace")
        except ProgramFailed as error:
            raise ImageUnusable(self._image, f"an ext4 partition cannot be read ({error.problem})") from None

    def used_blocks(self) -> tuple[int, list[tuple[int, int]]]:
        """Return the size of a block and the ranges (first, after the last) of blocks in use.

        By the file system's own bitmaps: what is zero and in use must be written to a card as well.
        """
        about = self._about()
        fields = self._fields()
        position = int(fields["First block"])
        ranges = []
        for first, after in _free(about):
            if first > position:
                ranges.append((position, first))
            position = after
        count = int(fields["Block count"])
        if position < count:
            ranges.append((position, count))
        return int(fields["Block size"]), ranges

    def _ask(self, command: str, path: str) -> bytes:
        try:
            return run("debugfs", "-R", f"{command} {_quoted(path)}", self._at)
        except ProgramFailed as error:
            raise ImageUnusable(self._image, f"an ext4 partition cannot be read ({error.problem})") from None

    def _do(self, *commands: str) -> None:
        said = run("debugfs", "-w", "-f", "-", self._at, given="\n".join([*commands, ""]).encode())
        if b"read-only" in said.lower():
            raise ImageUnusable(self._image, f"its root partition cannot be written ({last_words(said)})")


def _free(about: str) -> Iterator[tuple[int, int]]:
    for line in _FREE_BLOCKS.findall(about):
        for span in filter(None, (part.strip() for part in line.split(","))):
            first, _, last = span.partition("-")
            yield int(first), int(last or first) + 1


def _quoted(name: str) -> str:
    if '"' in name or "\n" in name:
        raise ValueError(f"{name!r} cannot be said to debugfs")
    return f'"{name}"'
