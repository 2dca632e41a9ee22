"""The section of the report that tells what became of each operator, one fold-out for each variant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from autoglm_edge_converter.explain.explanation import Explanation, grouped
from autoglm_edge_converter.explain.words import fate_words, heading_words, names_words, needs_words

Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]
"""Draws a table of a heading and cells that are HTML already."""


def explained(explanations: Sequence[Explanation], table: Table) -> str:
    """Return the section, nothing where there is nothing to tell."""
    if not explanations:
        return ""
    body = "".join(_variant(entry, table) for entry in explanations)
    return f"<section><h2>What became of each operator</h2>{body}</section>"


def _variant(entry: Explanation, table: Table) -> str:
    fates = table(
        ["operator", "count", "became", "why", "which"],
        [
            [
                escape(group.operator),
                str(group.count),
                escape(fate_words(group)),
                f'<span class="why">{escape(group.why)}</span>',
                f"<small>{escape(names_words(group))}</small>",
            ]
            for group in grouped(entry.fates)
        ],
    )
    needs = table(
        ["in the file", "count", "version", "oldest runtime that reads it"],
        [
            [escape(need.operator), str(need.count), str(need.version), escape(needs_words(need))]
            for need in entry.needs
        ],
    )
    return (
        f"<details><summary><b>{escape(entry.variant)}</b></summary><p class=legend>{escape(heading_words(entry))}</p>"
        f"{fates if entry.fates else ''}{needs}</details>"
    )
