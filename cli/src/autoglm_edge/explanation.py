"""`autoglm-edge convert --explain`: what became of each operator, variant by variant, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from autoglm_edge.console import out

if TYPE_CHECKING:
    from autoglm_edge_converter.explain.explanation import Explanation


def explain_variants(explanations: Sequence[Explanation]) -> None:
    """Print, for each variant, the fates of the operators and what its file needs of a runtime."""
    from autoglm_edge_converter.explain.words import heading_words

    for entry in explanations:
        out.print()
        out.print(f"[bold]{escape(entry.variant)}[/bold]  {escape(heading_words(entry))}", soft_wrap=True)
        if entry.fates:
            out.print(_fates(entry))
        out.print(_needs(entry))


def _fates(entry: Explanation) -> Table:
    from autoglm_edge_converter.explain.explanation import grouped
    from autoglm_edge_converter.explain.words import fate_words, names_words

    table = Table("operator", "count", "became", "why", "which", box=None, header_style="dim")
    for group in grouped(entry.fates):
        cells = (group.operator, str(group.count), fate_words(group), group.why, names_words(group))
        table.add_row(*(escape(cell) for cell in cells))
    return table


def _needs(entry: Explanation) -> Table:
    from autoglm_edge_converter.explain.words import needs_words

    table = Table("in the file", "count", "version", "oldest runtime", box=None, header_style="dim")
    for need in entry.needs:
        table.add_row(escape(need.operator), str(need.count), str(need.version), escape(needs_words(need)))
    return table
