"""Small horizontal bar charts as inline SVG, without scripts; colours come from the page's style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

ROW_PX, BAR_PX, WIDTH_PX = 26, 14, 620
LABEL_PX, VALUE_PX = 260, 110


@dataclass(frozen=True)
class Bar:
    """One row: `value` sets the length, `text` is what is written beside it, `style` a class of the style sheet."""

    label: str
    value: float
    text: str
    style: str = "bar"


def bars(rows: Sequence[Bar], title: str, limit: float | None = None, limit_text: str = "") -> str:
    """Return a chart; `limit` draws a line at that value."""
    largest = max([row.value for row in rows] + [limit or 0.0, 1e-12])
    scale = (WIDTH_PX - LABEL_PX - VALUE_PX) / largest
    height = ROW_PX * len(rows) + (18 if limit is not None else 4)
    parts = [
        f'<svg viewBox="0 0 {WIDTH_PX} {height}" role="img" aria-label="{escape(title)}">',
        *(_row(row, index, scale) for index, row in enumerate(rows)),
    ]
    if limit is not None:
        x = LABEL_PX + limit * scale
        parts.append(f'<line class="limit" x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{ROW_PX * len(rows)}"/>')
        parts.append(f'<text class="limit-text" x="{x:.1f}" y="{height - 4}">{escape(limit_text)}</text>')
    return "".join([*parts, "</svg>"])


def _row(row: Bar, index: int, scale: float) -> str:
    top = index * ROW_PX + (ROW_PX - BAR_PX) / 2
    length = max(1.5, row.value * scale)
    middle = index * ROW_PX + ROW_PX / 2 + 4
    return (
        f'<text class="label" x="{LABEL_PX - 10}" y="{middle:.1f}">{escape(row.label[:42])}</text>'
        f'<rect class="{row.style}" x="{LABEL_PX}" y="{top:.1f}" width="{length:.1f}" height="{BAR_PX}" rx="3"/>'
        f'<text class="value" x="{LABEL_PX + length + 8:.1f}" y="{middle:.1f}">{escape(row.text)}</text>'
    )
