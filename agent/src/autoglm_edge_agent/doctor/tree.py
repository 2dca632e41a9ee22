"""The files in which a kernel tells about its board, read below a root; what is missing or unreadable is None."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


class Tree:
    """`/proc`, `/sys`, `/dev` and `/etc` below a root."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def text(self, path: str) -> str | None:
        """Return what a file holds. The kernel ends the strings of a device tree with NUL."""
        try:
            data = (self._root / path.lstrip("/")).read_bytes()
        except OSError:
            return None
        return data.rstrip(b"\0\n ").decode(errors="replace").replace("\0", " ").strip()

    def number(self, path: str) -> int | None:
        """Return the whole number in a file, also in hexadecimal where it begins with 0x."""
        text = self.text(path)
        try:
            return None if text is None else int(text, 16 if text.startswith("0x") else 10)
        except ValueError:
            return None

    def exists(self, path: str) -> bool:
        """Tell whether there is something at this path."""
        return (self._root / path.lstrip("/")).exists()

    def matches(self, pattern: str) -> Iterator[str]:
        """Yield the paths that match, in order."""
        for path in sorted(self._root.glob(pattern.lstrip("/"))):
            yield f"/{path.relative_to(self._root)}"
