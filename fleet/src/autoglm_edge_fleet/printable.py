"""Text from devices, made safe for a terminal: no control characters (escape sequences), no endless lines."""

from __future__ import annotations


def printable(text: str, limit: int = 200) -> str:
    """Return `text` on one line of at most `limit` characters."""
    clean = "".join(character if character.isprintable() else "?" for character in text[: limit + 1])
    return clean if len(clean) <= limit else clean[: limit - 3] + "..."
