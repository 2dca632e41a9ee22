"""RESULTS.md: parts (`##`) with an introduction, sections (`###`) in them; a run rewrites its own section alone."""

from __future__ import annotations

from pathlib import Path

from autoglm_edge_protocol.durable import Disk

TITLE = "# Results"


def write_section(path: Path, part: str, introduction: str, section: str, text: str) -> None:
    """Put a section into its part of the file, in place of what it said before. Raises OSError."""
    parts = read_parts(path.read_text(encoding="utf-8") if path.exists() else "")
    sections = parts.setdefault(part, ("", {}))[1]
    parts[part] = introduction.strip("\n"), {**sections, section: text.strip()}
    Disk().commit(path, written(parts).encode())


def read_parts(text: str) -> dict[str, tuple[str, dict[str, str]]]:
    """Return introduction and sections of each part, in their order."""
    found: dict[str, tuple[str, dict[str, str]]] = {}
    for entry in text.split("\n## ")[1:]:
        title, _, body = entry.partition("\n")
        introduction, *sections = body.split("\n### ")
        pairs = (section.partition("\n") for section in sections)
        found[title.strip()] = introduction.strip("\n"), {name.strip(): rest.strip() for name, _, rest in pairs}
    return found


def written(parts: dict[str, tuple[str, dict[str, str]]]) -> str:
    """Return the file's text."""
    blocks = [TITLE]
    for title, (introduction, sections) in parts.items():
        blocks += [f"## {title}", *([introduction] if introduction else [])]
        blocks += [block for name, text in sections.items() for block in (f"### {name}", text)]
    return "\n\n".join(blocks) + "\n"
